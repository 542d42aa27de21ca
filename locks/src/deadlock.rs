//! Who waits for whom, and who dies for it, if anybody must.
//!
//! Called by `standoff` after a request has queued, or a waiter was moved.
//! 1. L4: edges are derived from holders and queues, never stored. The one who publishes the last
//!    wait of a cycle sees all its edges, so every deadlock is found when it arises.
//! 2. Nobody dies on a stale view: the cycle is verified, and its victim's state swapped or its queue reordered, in one
//!    hold of all its shard latches. So of two that find one cycle only the first resolves it.
//! 3. The victim is the lowest priority, then the youngest: the same whoever finds the cycle.
//! 4. A search looks at each queue of a row once, latching one row at a time, and walks on what it saw.
//! 5. Ranges and tables are waited for like rows; a cycle through a range is verified with every shard latched.
//!
//! Crash: memory only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstone_base::{LockMode, RowKey, TxnId};

use crate::ask;
use crate::cycle::{Cycle, CycleEdge};
use crate::matrix::{column, conflicts};
use crate::owner::{AbortCause, Owner};
use crate::row_lock::RowLock;
use crate::shards::{Latched, Shards};
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// A chain of waiters that seemed closed when it was walked; each waits for the next.
#[derive(Debug)]
pub(crate) struct Suspect(Vec<Waiter>);

/// What became of a suspected cycle.
#[derive(Debug)]
pub(crate) enum Resolution {
    /// It was no cycle any more.
    Stale,
    /// The first of these went ahead of another, which spared a victim; the others, whom it went past, wait for it now.
    Reordered(Waiter, Vec<Waiter>),
    /// The victim is aborted; its release pass is the caller's.
    Killed(Arc<Owner>, Arc<Cycle>),
}

/// Who was put ahead of whom: never twice, and never back, so that resolving ends.
pub(crate) type Flipped = BTreeSet<(TxnId, TxnId)>;

struct Step {
    waiter: Waiter,
    from: Option<usize>,
}

/// A row as it was when the search came by.
struct Seen {
    holders: Vec<(Arc<Owner>, LockMode)>,
    waiters: Vec<Waiter>,
    places: BTreeMap<TxnId, usize>,
    /// By mode: how far the queue was walked for waiters of that mode.
    walked: [usize; LockMode::ALL.len()],
    /// By mode: whether the holders were, for one who is none of them.
    held: [bool; LockMode::ALL.len()],
}

impl Seen {
    fn look(shards: &Shards, ticket: &Ticket, row: &RowKey) -> Self {
        let latch = shards.latch(ticket.hash());
        let lock = latch.find(ticket.hash(), row);
        let holders = lock.into_iter().flat_map(RowLock::holders);
        let holders = holders.map(|holder| (Arc::clone(&holder.owner), holder.hold.mode));
        let waiters = lock.into_iter().flat_map(RowLock::waiters);
        let waiters: Vec<Waiter> = waiters.filter(|waiter| waiter.is_live()).cloned().collect();
        let numbered = waiters.iter().enumerate();
        Self {
            holders: holders.collect(),
            places: numbered
                .map(|(at, waiter)| (waiter.owner.id(), at))
                .collect(),
            waiters,
            walked: Default::default(),
            held: Default::default(),
        }
    }

    /// Those whom `waiter` waits for, but for those who were met for another waiter of its mode. One who holds the row is
    /// not in its own way, so what it saw does for nobody else.
    fn obstacles(&mut self, waiter: &Waiter) -> impl Iterator<Item = &Arc<Owner>> {
        let (mode, upgrade) = (waiter.ticket.mode(), waiter.ticket.is_upgrade());
        let place = self.places.get(&waiter.owner.id()).copied();
        let ahead = place.filter(|_| !upgrade).unwrap_or(0);
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

/// The shortest cycle through `start`, breadth first.
pub(crate) fn search(shards: &Shards, start: &Waiter) -> Option<Suspect> {
    let mut met: BTreeSet<TxnId> = [start.owner.id()].into();
    let mut rows: BTreeMap<RowKey, Seen> = BTreeMap::new();
    let mut steps = vec![Step {
        waiter: start.clone(),
        from: None,
    }];
    let mut at = 0;
    while let Some(waiter) = steps.get(at).map(|step| step.waiter.clone()) {
        for blocker in met_by(shards, &mut rows, &waiter) {
            if blocker.is(&start.owner) {
                return Some(chain(&steps, at));
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
    None
}

/// Those whom `waiter` waits for, at its row but for those who were met there before.
fn met_by(shards: &Shards, rows: &mut BTreeMap<RowKey, Seen>, waiter: &Waiter) -> Vec<Arc<Owner>> {
    let ticket = &waiter.ticket;
    let Some(row) = ticket.row() else {
        let all = ask::obstacles(shards, waiter).into_iter();
        return all.map(|(owner, _)| owner).collect();
    };
    let seen = rows.entry(row.clone());
    let seen = seen.or_insert_with(|| Seen::look(shards, ticket, row));
    let mut met: Vec<Arc<Owner>> = seen.obstacles(waiter).map(Arc::clone).collect();
    let ranges = ask::ranges_in_the_way(shards, waiter, row);
    met.extend(ranges.into_iter().map(|(owner, _)| owner));
    met
}

fn waits_on(owner: &Owner) -> Option<Arc<Ticket>> {
    let waiting = owner.latch().waiting().cloned();
    waiting.filter(|ticket| owner.is_active() && ticket.is_waiting())
}

fn chain(steps: &[Step], last: usize) -> Suspect {
    let mut chain = Vec::new();
    let mut at = Some(last);
    while let Some(step) = at.and_then(|at| steps.get(at)) {
        chain.push(step.waiter.clone());
        at = step.from;
    }
    chain.reverse();
    Suspect(chain)
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
        let mut latched = shards.latch_all(self.0.iter());
        let Some(edges) = self.verified_edges(&latched) else {
            return Resolution::Stale;
        };
        let soft = self.edges().zip(&edges).filter(|(_, edge)| edge.soft);
        let soft = soft.map(|(pair, _)| pair);
        for (waiter, next) in soft {
            let (behind, ahead) = (waiter.owner.id(), next.owner.id());
            if !flipped.contains(&(ahead, behind)) && flipped.insert((behind, ahead)) {
                let passed = latched.put_ahead(waiter, next, wakes);
                return Resolution::Reordered(waiter.clone(), passed);
            }
        }
        let owners = self.0.iter().map(|waiter| &waiter.owner);
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

    fn edges(&self) -> impl Iterator<Item = (&Waiter, &Waiter)> {
        self.0.iter().zip(self.0.iter().cycle().skip(1))
    }

    fn verified_edges(&self, latched: &Latched<'_>) -> Option<Vec<CycleEdge>> {
        let edges = self.edges();
        edges
            .map(|(waiter, next)| edge(latched, waiter, &next.owner))
            .collect()
    }
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
