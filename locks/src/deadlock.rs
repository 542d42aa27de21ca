//! Who waits for whom, and who dies for it, if anybody must.
//!
//! Called by `standoff` after a request has queued, or a waiter was moved.
//! 1. L4: edges are derived from holders and queues, never stored. The one who publishes the last
//!    wait of a cycle sees all its edges, so every deadlock is found when it arises.
//! 2. Nobody dies on a stale view: the cycle is verified, and its victim's state swapped or its queue reordered, in one
//!    hold of all its shard latches. So of two that find one cycle only the first resolves it.
//! 3. The victim is the lowest priority, then the youngest: the same whoever finds the cycle.
//! 4. A search looks at each queue of a row or table once, and at each table's ranges, latching one thing at a time, and walks
//!    on what it saw.
//! 5. Ranges and tables are waited for like rows; a cycle through a range is verified with every shard latched.
//! 6. Who waits for tokens waits for any who have enough together. So a cycle through a semaphore counts only among those who
//!    are left when, one after the other, everyone is taken away who could end (`reduction`).
//!
//! Crash: memory only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstone_base::{LockMode, RowKey, TableId, TxnId};

use crate::ask;
use crate::cycle::{Cycle, CycleEdge};
use crate::matrix::{column, conflicts};
use crate::owner::{AbortCause, Owner};
use crate::range_look::{Looking, RangeLook, RowAsk};
use crate::reduction::stuck_cycle;
use crate::row_lock::RowLock;
use crate::shards::{Latched, Shards};
use crate::target::Target;
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// A chain of waiters that seemed closed when it was walked; each waits for the next.
#[derive(Debug)]
pub(crate) struct Suspect {
    chain: Vec<Waiter>,
    /// If it leads through a semaphore: all whom the search has met.
    met: Vec<Waiter>,
}

/// What became of a suspected cycle.
#[derive(Debug)]
pub(crate) enum Resolution {
    /// It was no cycle any more.
    Stale,
    /// It leads through a semaphore, whose other holders can free enough.
    Reducible,
    /// It went ahead of another, which spared a victim; those whom it went past wait for it now.
    Reordered(Waiter),
    /// The victim is aborted; its release pass is the caller's.
    Killed(Arc<Owner>, Arc<Cycle>),
}

/// Who was put ahead of whom: never twice, and never back, so that resolving ends.
pub(crate) type Flipped = BTreeSet<(TxnId, TxnId)>;

struct Step {
    waiter: Waiter,
    from: Option<usize>,
}

/// The queue of a row, a table or a semaphore, with those who hold that, as it was when the search came by.
struct Queue {
    holders: Vec<(Arc<Owner>, LockMode)>,
    waiters: Vec<Waiter>,
    places: BTreeMap<TxnId, usize>,
    /// By mode: how far the queue was walked for waiters of that mode.
    walked: [usize; LockMode::ALL.len()],
    /// By mode: whether the holders were, for one who is none of them.
    held: [bool; LockMode::ALL.len()],
    /// K1, K7: an upgrade of a row counts no waiters, one of a table or semaphore those ahead.
    upgrades_count_waiters: bool,
}

impl Queue {
    fn of_row(shards: &Shards, ticket: &Ticket, row: &RowKey) -> Self {
        let latch = shards.latch(ticket.hash());
        let lock = latch.find(ticket.hash(), row);
        let holders = lock.into_iter().flat_map(|lock| lock.holders().iter());
        let holders = holders.map(|holder| (Arc::clone(&holder.owner), holder.hold.mode));
        let waiters = lock.into_iter().flat_map(RowLock::waiters);
        let waiters = waiters.filter(|waiter| waiter.is_live()).cloned();
        Self::new(holders.collect(), waiters.collect(), false)
    }

    fn of_table(shards: &Shards, table: TableId) -> Self {
        let (holders, waiters) = shards.wide().latch().tables.view(table);
        Self::new(holders, waiters, true)
    }

    fn of_semaphore(shards: &Shards, name: &RowKey) -> Self {
        let (holders, waiters) = shards.wide().latch().semaphores.view(name);
        Self::new(holders, waiters, true)
    }

    fn new(
        holders: Vec<(Arc<Owner>, LockMode)>,
        waiters: Vec<Waiter>,
        upgrades_count_waiters: bool,
    ) -> Self {
        let numbered = waiters.iter().enumerate();
        Self {
            holders,
            places: numbered
                .map(|(at, waiter)| (waiter.owner.id(), at))
                .collect(),
            waiters,
            walked: Default::default(),
            held: Default::default(),
            upgrades_count_waiters,
        }
    }

    /// Those whom `waiter` waits for, but for those who were met for another waiter of its mode. One who holds the row is
    /// not in its own way, so what it saw does for nobody else.
    fn obstacles(&mut self, waiter: &Waiter) -> impl Iterator<Item = &Arc<Owner>> {
        let (mode, upgrade) = (waiter.ticket.mode(), waiter.ticket.is_upgrade());
        let place = self.places.get(&waiter.owner.id()).copied();
        let counts_waiters = !upgrade || self.upgrades_count_waiters;
        let ahead = place.filter(|_| counts_waiters).unwrap_or(0);
        let column = column(mode);
        let walked = self
            .walked
            .get_mut(column)
            .expect("a column for every mode");
        let held = self.held.get_mut(column).expect("a column for every mode");
        let from = std::mem::replace(walked, ahead.max(*walked));
        let look = place.is_some() && (upgrade || !*held);
        *held |= look && !upgrade;
        let holders = self.holders.iter().filter(move |_| look);
        let hard = holders.filter(move |(_, held)| conflicts(mode, *held));
        let soft = self.waiters.iter().take(ahead).skip(from);
        let soft = soft.filter(move |other| conflicts(mode, other.ticket.mode()));
        let all = hard
            .map(|(owner, _)| owner)
            .chain(soft.map(|other| &other.owner));
        let own = waiter.owner.id();
        all.filter(move |other| other.id() != own)
    }
}

/// What a search has looked at.
#[derive(Default)]
struct Seen {
    /// Of rows, and of tables.
    queues: BTreeMap<(TableId, Option<RowKey>), Queue>,
    semaphores: BTreeMap<RowKey, Queue>,
    /// Whoever a range that waits within one of these would meet was met.
    looks: Vec<RangeLook>,
}

impl Seen {
    /// Those whom `waiter` waits for, but for those who were met there before.
    fn met_by(&mut self, shards: &Shards, waiter: &Waiter) -> Vec<Arc<Owner>> {
        let ticket = &waiter.ticket;
        let table = ticket.target().table();
        match ticket.target() {
            Target::Row(row) => {
                let queue = self.queues.entry((table, Some(row.clone())));
                let queue = queue.or_insert_with(|| Queue::of_row(shards, ticket, row));
                let mut met: Vec<_> = queue.obstacles(waiter).cloned().collect();
                let ask = RowAsk::queued(row, &waiter.owner, ticket);
                if let Some(books) = shards.wide().latch_if_ranges(table) {
                    let around = books.ranges.obstacles_of_row(ask);
                    met.extend(around.map(|(owner, _)| Arc::clone(owner)));
                }
                met
            }
            Target::Table(_) => {
                let queue = self.queues.entry((table, None));
                let queue = queue.or_insert_with(|| Queue::of_table(shards, table));
                queue.obstacles(waiter).cloned().collect()
            }
            Target::Range(_) => self.met_by_range(shards, ticket),
            Target::Tokens(request) => {
                let name = &request.semaphore;
                let queue = self.semaphores.entry(name.clone());
                let queue = queue.or_insert_with(|| Queue::of_semaphore(shards, name));
                queue.obstacles(waiter).cloned().collect()
            }
        }
    }

    fn met_by_range(&mut self, shards: &Shards, ticket: &Ticket) -> Vec<Arc<Owner>> {
        let look = shards.wide().latch().ranges.look(ticket.number());
        let Some(look) = look.filter(|look| !self.looks.iter().any(|before| before.covers(look)))
        else {
            return Vec::new();
        };
        let mut looking = Looking::new(look);
        ask::meet(shards, &mut looking);
        let Looking { look, met } = looking;
        if !met.is_partial {
            self.looks.push(look);
        }
        met.owners().cloned().collect()
    }
}

/// The shortest cycle through `start`, breadth first.
pub(crate) fn search(shards: &Shards, start: &Waiter) -> Option<Suspect> {
    let mut met: BTreeSet<TxnId> = [start.owner.id()].into();
    let mut seen = Seen::default();
    let mut steps = vec![Step {
        waiter: start.clone(),
        from: None,
    }];
    let (mut at, mut closed) = (0, None);
    while let Some(waiter) = steps.get(at).map(|step| step.waiter.clone()) {
        for blocker in seen.met_by(shards, &waiter) {
            if blocker.is(&start.owner) && closed.is_none() {
                let chain = chain(&steps, at);
                let waits_for_tokens = |waiter: &Waiter| waiter.ticket.target().tokens().is_some();
                if !chain.iter().any(waits_for_tokens) {
                    let met = Vec::new();
                    return Some(Suspect { chain, met });
                }
                closed = Some(chain);
            }
            if blocker.binds()
                && met.insert(blocker.id())
                && let Some(ticket) = waits_on(&blocker)
            {
                let waiter = Waiter {
                    owner: blocker,
                    ticket,
                };
                let from = Some(at);
                steps.push(Step { waiter, from });
            }
        }
        at += 1;
    }
    let met = steps.into_iter().map(|step| step.waiter);
    closed.map(|chain| Suspect {
        chain,
        met: met.collect(),
    })
}

fn waits_on(owner: &Owner) -> Option<Arc<Ticket>> {
    let waiting = owner.latch().waiting().cloned();
    waiting.filter(|ticket| owner.is_active() && ticket.is_waiting())
}

fn chain(steps: &[Step], last: usize) -> Vec<Waiter> {
    let mut chain = Vec::new();
    let mut at = Some(last);
    while let Some(step) = at.and_then(|at| steps.get(at)) {
        chain.push(step.waiter.clone());
        at = step.from;
    }
    chain.reverse();
    chain
}

impl Suspect {
    /// Verifies the cycle and resolves it: by reordering a queue, if one of its waits is behind a waiter and was not
    /// tried before; else by aborting its victim.
    pub(crate) fn resolve(
        &self,
        shards: &Shards,
        flipped: &mut Flipped,
        wakes: &mut Wakes,
    ) -> Resolution {
        let mut latched = shards.latch_all(self.chain.iter().chain(&self.met));
        let reduced = if self.met.is_empty() {
            None
        } else {
            match stuck_cycle(&latched, &self.met) {
                None => return Resolution::Reducible,
                cycle => cycle,
            }
        };
        let chain = reduced.as_ref().unwrap_or(&self.chain);
        let Some(edges) = verified_edges(&latched, chain) else {
            return Resolution::Stale;
        };
        let soft = around(chain).zip(&edges).filter(|(_, edge)| edge.soft);
        let soft = soft.map(|(pair, _)| pair);
        for (waiter, next) in soft {
            let (behind, ahead) = (waiter.owner.id(), next.owner.id());
            if !flipped.contains(&(ahead, behind)) && flipped.insert((behind, ahead)) {
                latched.put_ahead(waiter, next, wakes);
                return Resolution::Reordered(waiter.clone());
            }
        }
        let owners = chain.iter().map(|waiter| &waiter.owner);
        let age = |owner: &&Arc<Owner>| (owner.order(), Reverse((owner.age(), owner.id())));
        let victim = owners.min_by_key(age).expect("a cycle has waiters");
        let cycle = Arc::new(Cycle {
            edges,
            victim: victim.id(),
        });
        if victim.try_abort(AbortCause::Deadlock(Arc::clone(&cycle))) {
            Resolution::Killed(Arc::clone(victim), cycle)
        } else {
            Resolution::Stale
        }
    }
}

/// Each waiter of a cycle, with the one that it waits for.
fn around(chain: &[Waiter]) -> impl Iterator<Item = (&Waiter, &Waiter)> {
    chain.iter().zip(chain.iter().cycle().skip(1))
}

fn verified_edges(latched: &Latched<'_>, chain: &[Waiter]) -> Option<Vec<CycleEdge>> {
    around(chain)
        .map(|(waiter, next)| edge(latched, waiter, &next.owner))
        .collect()
}

fn edge(latched: &Latched<'_>, waiter: &Waiter, next: &Owner) -> Option<CycleEdge> {
    let (owner, ticket) = (&waiter.owner, &waiter.ticket);
    if !owner.is_active() {
        return None;
    }
    let obstacles = latched.obstacles(waiter);
    let of_next = obstacles.iter().filter(|(other, _)| next.is(other));
    // It may hold one row of a range, and be ahead at another: to turn that round would spare nobody.
    let (_, obstacle) = of_next.min_by_key(|(_, obstacle)| obstacle.soft)?;
    Some(CycleEdge {
        txn: owner.id(),
        label: owner.label().cloned(),
        target: ticket.target().clone(),
        requested: ticket.mode(),
        blocked_by: obstacle.mode,
        soft: obstacle.soft,
    })
}
