//! What follows when a request has queued: who inherits its priority, and whether it closed a cycle.
//!
//! Called by `table`, with no latch held.
//! 1. L4: every cycle that the wait, or a move in a queue, may have closed is searched from whoever waits anew, or was moved:
//!    those whom it went past wait for it, so each such cycle goes through it. And again, until there is none.
//! 2. Inheritance: a holder that itself waits is queued with the highest priority that waits for it. A move that closes a
//!    cycle is undone: its new waits are soft, and the first to be turned round.
//!    In the queues of ranges, tables and semaphores it moves nobody, and is handed on.
//! 3. While no priority was ever given, nothing is inherited and nobody looks.
//!
//! Crash: memory only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::ask;
use crate::contended::{HashedRow, Wider};
use crate::cycle::Cycle;
use crate::deadlock::{self, Flipped, Resolution};
use crate::matrix::conflicts;
use crate::owner::Owner;
use crate::shards::Shards;
use crate::target::Target;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// So many cycles are kept for whoever asks.
const RECENT_MAX: usize = 16;

/// What is known of all standoffs.
#[derive(Debug, Default)]
pub(crate) struct Standoffs {
    /// A waiter has had a priority of its own.
    ranked: AtomicBool,
    recent: Mutex<VecDeque<Arc<Cycle>>>,
}

impl Standoffs {
    /// The last cycles that cost a victim, the newest last.
    pub(crate) fn recent(&self) -> Vec<Arc<Cycle>> {
        self.recent.lock().iter().cloned().collect()
    }

    /// The wait is published. Ends every cycle that it closed; `release` is called for each victim. The cycle, if the waiter
    /// itself is a victim.
    pub(crate) fn queued(
        &self,
        shards: &Shards,
        start: &Waiter,
        anyone_behind: bool,
        wakes: &mut Wakes,
        mut release: impl FnMut(&Arc<Owner>, &mut Wakes),
    ) -> Option<Arc<Cycle>> {
        let mut starts = self.inherit(shards, start, wakes);
        // Nobody waits for the requester: no cycle passes through it.
        let owner = &start.owner;
        let is_contended = !owner.contended().is_empty();
        if anyone_behind || is_contended || shards.wide().may_await(owner) {
            starts.push(start.clone());
        }
        let (mut flipped, mut own) = (Flipped::new(), None);
        while let Some(from) = starts.pop() {
            while from.is_live()
                && let Some(suspect) = deadlock::search(shards, &from)
            {
                match suspect.resolve(shards, &mut flipped, wakes) {
                    Resolution::Stale => {}
                    // No cycle through this one counts.
                    Resolution::Reducible => break,
                    Resolution::Reordered(moved) => {
                        ask::ask(shards, &moved.ticket, wakes);
                        starts.push(moved);
                    }
                    Resolution::Killed(victim, cycle) => {
                        self.remember(&cycle);
                        release(&victim, wakes);
                        // Those whom it has moved are searched from all the same.
                        if start.owner.is(&victim) {
                            own = Some(cycle);
                        }
                    }
                }
            }
        }
        own
    }

    fn remember(&self, cycle: &Arc<Cycle>) {
        let mut recent = self.recent.lock();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(cycle));
    }

    /// Hands the waiter's priority on to whom it waits for, and to whom those wait for; and gives it what waits for
    /// itself. Those who have overtaken somebody by that.
    fn inherit(&self, shards: &Shards, start: &Waiter, wakes: &mut Wakes) -> Vec<Waiter> {
        if start.owner.order() > 0 {
            self.ranked.store(true, Ordering::SeqCst);
        }
        if !self.ranked.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut moved = Vec::new();
        let (rows, wide): (Vec<HashedRow>, Vec<Wider>) = {
            let contended = start.owner.contended();
            (
                contended.rows().cloned().collect(),
                contended.wide().collect(),
            )
        };
        let rows = rows
            .iter()
            .filter_map(|row| order_at(shards, &start.owner, row));
        let taken = start.owner.latch().undo.tokens();
        let behind = shards.wide().latch().semaphores.order_behind(&taken);
        let wide = wide
            .into_iter()
            .filter_map(|wider| wide_order(shards, wider));
        if let Some(order) = rows.chain(wide).chain(behind).max() {
            moved.extend(raise(shards, start, order, wakes));
        }
        let mut givers = vec![start.clone()];
        while let Some(giver) = givers.pop() {
            let order = giver.ticket.order();
            for holder in holders_in_the_way(shards, &giver) {
                let ticket = holder.latch().waiting().cloned();
                let Some(ticket) = ticket.filter(|ticket| ticket.order() < order) else {
                    continue;
                };
                let raised = Waiter {
                    owner: holder,
                    ticket,
                };
                moved.extend(raise(shards, &raised, order, wakes));
                givers.push(raised);
            }
        }
        moved
    }
}

/// The highest that somebody is queued with at the row who waits for the owner.
fn order_at(shards: &Shards, owner: &Owner, (hash, row): &HashedRow) -> Option<u64> {
    let latch = shards.latch(*hash);
    let lock = latch.find(*hash, row)?;
    let held = lock.held(owner).map(|hold| hold.mode);
    // It may hold the row, a range around it, or both.
    let books = shards.wide().latch_if_ranges(row.table());
    let around = books.as_ref().and_then(|it| it.ranges.held(owner, row));
    let waits = |waiter: &&Waiter| {
        let ticket = &waiter.ticket;
        let beside = ticket.beside_ranges();
        held.is_some_and(|held| conflicts(ticket.mode(), held))
            || around.is_some_and(|(around, _)| conflicts(beside, around))
    };
    let orders = lock.waiters().filter(waits);
    orders.map(|waiter| waiter.ticket.order()).max()
}

/// The same of a range or a table.
fn wide_order(shards: &Shards, wider: Wider) -> Option<u64> {
    let books = shards.wide().latch();
    match wider {
        Wider::Range(number) => books.ranges.order(number),
        Wider::Table(table) => books.tables.order(table),
    }
}

/// The waiter is queued as if it were of `order`; itself, if it went past somebody.
fn raise(shards: &Shards, waiter: &Waiter, order: u64, wakes: &mut Wakes) -> Option<Waiter> {
    let ticket = &waiter.ticket;
    if ticket.row().is_none() {
        ticket.raise(order);
        return None;
    }
    let passes = shards.latch(ticket.hash()).raise(ticket, order, wakes);
    passes.then(|| waiter.clone())
}

/// Who holds what the waiter wants; whoever is only ahead of it inherits nothing.
fn holders_in_the_way(shards: &Shards, waiter: &Waiter) -> Vec<Arc<Owner>> {
    let ticket = &waiter.ticket;
    let all = match ticket.target() {
        Target::Row(row) => {
            let latch = shards.latch(ticket.hash());
            let books = shards.wide().latch_if_ranges(row.table());
            let ranges = books.as_ref().map(|books| &books.ranges);
            let lock = latch.find(ticket.hash(), row);
            return lock.map_or_else(Vec::new, |lock| lock.holders_in_the_way(waiter, ranges));
        }
        Target::Range(_) => ask::met_by_range(shards, ticket.number()).into_obstacles(),
        Target::Table(table) => {
            let books = shards.wide().latch();
            books.tables.holders_in_the_way(*table, waiter)
        }
        Target::Tokens(_) => ask::obstacles(shards, waiter),
    };
    let hard = all.into_iter().filter(|(_, obstacle)| !obstacle.soft);
    hard.map(|(owner, _)| owner).collect()
}
