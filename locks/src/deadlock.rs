//! Who waits for whom, and who dies for it.
//!
//! Called by `table` after a request has queued.
//! 1. L4: edges are derived from holders and queues, never stored. The one who publishes the last
//!    wait of a cycle sees all its edges, so every deadlock is found when it arises.
//! 2. Nobody dies on a stale view: the cycle is verified, and its victim's state swapped, in one
//!    hold of all its shard latches. So of two that find one cycle only the first kills.
//! 3. The victim is the lowest priority, then the youngest: the same whoever finds the cycle.
//! 4. A search holds one latch at a time.
//!
//! Crash: memory only.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use lockstone_base::TxnId;

use crate::cycle::{Cycle, CycleEdge};
use crate::owner::{AbortCause, Owner};
use crate::shards::{Latched, Shards};
use crate::wait_queue::Waiter;

/// A chain of waiters that seemed closed when it was walked; each waits for the next.
#[derive(Debug)]
pub(crate) struct Suspect(Vec<Waiter>);

struct Step {
    waiter: Waiter,
    from: Option<usize>,
}

/// The shortest cycle through `start`, breadth first.
pub(crate) fn search(shards: &Shards, start: &Waiter) -> Option<Suspect> {
    let mut seen: BTreeSet<TxnId> = [start.owner.id()].into();
    let mut steps = vec![Step {
        waiter: start.clone(),
        from: None,
    }];
    let mut at = 0;
    while let Some(step) = steps.get(at) {
        for blocker in blockers(shards, &step.waiter) {
            if blocker.is(&start.owner) {
                return Some(chain(&steps, at));
            }
            if seen.insert(blocker.id())
                && let Some(ticket) = waits_on(&blocker)
            {
                steps.push(Step {
                    waiter: Waiter {
                        owner: blocker,
                        ticket,
                    },
                    from: Some(at),
                });
            }
        }
        at += 1;
    }
    None
}

fn blockers(shards: &Shards, waiter: &Waiter) -> Vec<Arc<Owner>> {
    let ticket = &waiter.ticket;
    let latch = shards.latch(ticket.hash());
    let lock = latch.find(ticket.hash(), ticket.row());
    let obstacles = lock
        .into_iter()
        .flat_map(|lock| lock.obstacles(&waiter.owner, ticket));
    obstacles.map(|(other, _)| Arc::clone(other)).collect()
}

fn waits_on(owner: &Owner) -> Option<Arc<crate::ticket::Ticket>> {
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
    /// Verifies the cycle and aborts its victim, whose release pass the caller runs. `None`: it was
    /// no cycle any more.
    pub(crate) fn kill_victim(&self, shards: &Shards) -> Option<(Arc<Owner>, Arc<Cycle>)> {
        let victim = self.0.iter().map(|waiter| &waiter.owner);
        let victim =
            victim.min_by_key(|owner| (owner.order(), Reverse((owner.age(), owner.id()))))?;
        let latched = shards.latch_all(self.0.iter().map(|waiter| waiter.ticket.hash()));
        let cycle = Arc::new(Cycle {
            edges: self.verified_edges(&latched)?,
            victim: victim.id(),
        });
        let killed = victim.try_abort(AbortCause::Deadlock(Arc::clone(&cycle)));
        killed.then(|| (Arc::clone(victim), cycle))
    }

    fn verified_edges(&self, latched: &Latched<'_>) -> Option<Vec<CycleEdge>> {
        let next = self.0.iter().cycle().skip(1);
        let edges = self.0.iter().zip(next);
        edges
            .map(|(waiter, next)| edge(latched, waiter, &next.owner))
            .collect()
    }
}

fn edge(latched: &Latched<'_>, waiter: &Waiter, next: &Arc<Owner>) -> Option<CycleEdge> {
    let (owner, ticket) = (&waiter.owner, &waiter.ticket);
    if !owner.is_active() {
        return None;
    }
    let lock = latched.find(ticket.hash(), ticket.row())?;
    let mut obstacles = lock.obstacles(owner, ticket);
    let (_, obstacle) = obstacles.find(|(other, _)| next.is(other))?;
    Some(CycleEdge {
        txn: owner.id(),
        label: owner.label().cloned(),
        row: ticket.row().clone(),
        requested: ticket.mode(),
        blocked_by: obstacle.mode,
        soft: obstacle.soft,
    })
}
