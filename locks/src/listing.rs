//! What the lock table shows of itself: who holds what, and who waits for whom.
//!
//! Called by the engine, for its users.
//! 1. K9: nobody is stopped for longer than a shard, or all ranges and tables, take to be looked at; so no single moment is shown.
//!
//! Crash: memory only.

use lockstone_base::{FencingToken, LockMode};

use crate::ask;
use crate::decision::{LockEntry, LockStatus, WaitEntry, WaitsFor};
use crate::owner::Owner;
use crate::ranges::InTheWay;
use crate::shard::RowView;
use crate::table::LockTable;
use crate::tables::{EXCLUSIVE, SHARED};
use crate::target::Target;
use crate::ticket::UNSTAMPED;
use crate::wait_queue::Waiter;

impl LockTable {
    /// K9: who waits, and for whom, holders first, then those who are ahead. As [`LockTable::list`], it shows no single
    /// moment.
    pub fn waits(&self) -> Vec<WaitEntry> {
        let mut waits = Vec::new();
        self.shards.each(|view, ranges| {
            let (Some(lock), waiters) = (view.lock, &view.waiters) else {
                return;
            };
            waits.extend(
                waiters
                    .iter()
                    .map(|waiter| wait(waiter, lock.obstacles(waiter, ranges))),
            );
        });
        waits.sort_by(|a, b| a.target.row().cmp(&b.target.row()));
        let wide = self.wide_waiters().into_iter();
        waits.extend(wide.map(|waiter| wait(&waiter, ask::obstacles(&self.shards, &waiter))));
        waits
    }

    /// How many rows are held by transactions that live. Visits the whole table.
    pub fn live_locks(&self) -> usize {
        let mut live = 0;
        self.shards.each(|row, _| live += row.holders.len());
        live
    }

    /// K9: every lock that is held or waited for: by row, holders first, then the queue in order; then the ranges, in order
    /// of arrival; then the tables that somebody holds or awaits EXCLUSIVE, with all who share them.
    /// Stops nobody for longer than a shard takes, so it shows no single moment.
    pub fn list(&self) -> Vec<LockEntry> {
        let mut entries = Vec::new();
        self.shards.each(|row, _| list_row(&row, &mut entries));
        // Stable: the order within a row is kept.
        entries.sort_by(|a, b| a.target.row().cmp(&b.target.row()));
        entries.extend(self.list_wide());
        entries
    }

    /// K9: as [`LockTable::list`], a stretch of the table at a time, in the table's own order: the entries of the next few
    /// hundred rows. A lock that is held all the while is listed once. `None` at the end.
    pub fn list_on(&self, from: &mut ListPlace) -> Option<Vec<LockEntry>> {
        let mut entries = Vec::new();
        let visit = |row: RowView<'_>| list_row(&row, &mut entries);
        if self.shards.stretch(&mut from.rows, visit) {
            return Some(entries);
        }
        let is_over = std::mem::replace(&mut from.wide, true);
        (!is_over).then(|| self.list_wide())
    }

    /// Those who wait for ranges, in order of arrival, and for tables.
    pub(crate) fn wide_waiters(&self) -> Vec<Waiter> {
        let books = self.shards.wide().latch();
        let ranges = books.ranges.all().map(|(waiter, _)| waiter);
        let ranges = ranges.filter(|waiter| waiter.ticket.is_waiting());
        ranges.chain(books.tables.waiters().cloned()).collect()
    }

    /// K9: ranges and tables, as lists show them. Of a table that nobody holds or awaits EXCLUSIVE nobody needs to know who
    /// shares it: that is all who lock rows in it.
    pub(crate) fn list_wide(&self) -> Vec<LockEntry> {
        let books = self.shards.wide().latch();
        let stamped = |token: FencingToken| Some(token).filter(|token| *token != UNSTAMPED);
        let mut entries = Vec::new();
        for (Waiter { owner, ticket }, token) in books.ranges.all() {
            let (target, mode) = (ticket.target(), ticket.mode());
            entries.push(if ticket.is_waiting() {
                entry(target, mode, &owner, LockStatus::Waiting, None)
            } else {
                entry(target, mode, &owner, LockStatus::Granted, stamped(token))
            });
        }
        let granted = LockStatus::Granted;
        for (id, owner, token) in books.tables.holders() {
            let target = Target::Table(id);
            entries.push(entry(&target, EXCLUSIVE, owner, granted, stamped(token)));
        }
        for id in books.tables.ids() {
            let sharers = self.shards.slots().all();
            let sharers = sharers.filter(|owner| owner.tables().has(id) && owner.binds());
            for owner in sharers.filter(|owner| !books.tables.is_held(id, owner)) {
                entries.push(entry(&Target::Table(id), SHARED, &owner, granted, None));
            }
        }
        for Waiter { owner, ticket } in books.tables.waiters() {
            let (target, mode) = (ticket.target(), ticket.mode());
            entries.push(entry(target, mode, owner, LockStatus::Waiting, None));
        }
        entries
    }
}

/// How far a list of the table has come.
#[derive(Debug, Default)]
pub struct ListPlace {
    rows: (usize, u32),
    /// Ranges and tables were listed.
    wide: bool,
}

/// A line of a list: held with a token or without, or waited for.
fn entry(
    target: &Target,
    mode: LockMode,
    owner: &Owner,
    status: LockStatus,
    token: Option<FencingToken>,
) -> LockEntry {
    LockEntry {
        target: target.clone(),
        mode,
        txn: owner.id(),
        label: owner.label().cloned(),
        rank: owner.settled_rank(),
        status,
        token,
    }
}

fn list_row(view: &RowView<'_>, entries: &mut Vec<LockEntry>) {
    let row = Target::Row(view.row.clone());
    for (owner, hold) in &view.holders {
        let token = owner.token(*hold);
        entries.push(entry(&row, hold.mode, owner, LockStatus::Granted, token));
    }
    for waiter in &view.waiters {
        let mode = waiter.ticket.mode();
        entries.push(entry(&row, mode, &waiter.owner, LockStatus::Waiting, None));
    }
}

fn wait(waiter: &Waiter, waits_for: Vec<InTheWay>) -> WaitEntry {
    let waits_for = waits_for.into_iter().map(|(other, obstacle)| WaitsFor {
        txn: other.id(),
        label: other.label().cloned(),
        mode: obstacle.mode,
        soft: obstacle.soft,
    });
    WaitEntry {
        target: waiter.ticket.target().clone(),
        mode: waiter.ticket.mode(),
        txn: waiter.owner.id(),
        label: waiter.owner.label().cloned(),
        waits_for: waits_for.collect(),
    }
}
