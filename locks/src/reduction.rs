//! Which of those who wait can never go on: graph reduction, for cycles through semaphores.
//!
//! Called by `deadlock`, with all that they wait for latched.
//! 1. L4: who waits for a row, a range or a table waits for everyone in its way. Who waits for tokens waits for everyone ahead, and for
//!    as many holders as have enough together.
//! 2. Whoever is not known to wait can end, and so give back what it has. Who waits for nobody but such can end too. Those who are
//!    left are stuck (Holt, "Some deadlock properties of computer systems", ACM Computing Surveys, 1972).
//!
//! Crash: holds no state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstone_base::TxnId;

use crate::shards::Latched;
use crate::wait_queue::Waiter;

/// Whom a waiter waits for.
struct Need {
    /// Everyone of these.
    all: Vec<TxnId>,
    /// And so many tokens of these.
    missing: u64,
    holders: Vec<(TxnId, u64)>,
}

impl Need {
    fn of(latched: &Latched<'_>, waiter: &Waiter) -> Self {
        let semaphores = &latched.books.semaphores;
        let Some(request) = waiter.ticket.target().tokens() else {
            let in_the_way = latched.obstacles(waiter).into_iter();
            return Self {
                all: in_the_way.map(|(owner, _)| owner.id()).collect(),
                missing: 0,
                holders: Vec::new(),
            };
        };
        match semaphores.shortage(request, waiter) {
            None => Self {
                all: Vec::new(),
                missing: 0,
                holders: Vec::new(),
            },
            Some(shortage) => Self {
                all: shortage.ahead.iter().map(|it| it.owner.id()).collect(),
                missing: shortage.missing,
                holders: shortage
                    .holders
                    .iter()
                    .map(|(owner, tokens)| (owner.id(), *tokens))
                    .collect(),
            },
        }
    }

    fn can_be_met(&self, stuck: &BTreeSet<TxnId>) -> bool {
        let free = self.holders.iter().filter(|(id, _)| !stuck.contains(id));
        let free: u64 = free.map(|(_, tokens)| tokens).sum();
        free >= self.missing && !self.all.iter().any(|id| stuck.contains(id))
    }
}

/// The shortest cycle through the first of these who wait, among those who are stuck; each waits for the next.
pub(crate) fn stuck_cycle(latched: &Latched<'_>, waiters: &[Waiter]) -> Option<Vec<Waiter>> {
    let live = waiters.iter().filter(|waiter| waiter.is_live());
    let all: BTreeMap<TxnId, (&Waiter, Need)> = live
        .map(|waiter| (waiter.owner.id(), (waiter, Need::of(latched, waiter))))
        .collect();
    let mut stuck: BTreeSet<TxnId> = all.keys().copied().collect();
    loop {
        let ends = all.iter().filter(|(id, _)| stuck.contains(id));
        let ends = ends.filter(|(_, (_, need))| need.can_be_met(&stuck));
        let ends: Vec<TxnId> = ends.map(|(id, _)| *id).collect();
        if ends.is_empty() {
            break;
        }
        for id in ends {
            stuck.remove(&id);
        }
    }
    let start = waiters.first()?.owner.id();
    let waits_for = |id: &TxnId| {
        let need = all.get(id).map(|(_, need)| need);
        let holders = need.into_iter().filter(|need| need.missing > 0);
        let holders = holders.flat_map(|need| need.holders.iter().map(|(id, _)| *id));
        let everyone = need.into_iter().flat_map(|need| need.all.iter().copied());
        everyone.chain(holders).filter(|id| stuck.contains(id))
    };
    // Breadth first: from whom each was met.
    let mut from: BTreeMap<TxnId, TxnId> = BTreeMap::new();
    let mut next: VecDeque<TxnId> = stuck.get(&start).copied().into_iter().collect();
    while let Some(at) = next.pop_front() {
        for other in waits_for(&at) {
            if other == start {
                let back = std::iter::successors(Some(at), |id| from.get(id).copied());
                let chain = back.filter_map(|id| Some(all.get(&id)?.0.clone()));
                let mut chain: Vec<Waiter> = chain.collect();
                chain.reverse();
                return Some(chain);
            }
            if let std::collections::btree_map::Entry::Vacant(new) = from.entry(other) {
                new.insert(at);
                next.push_back(other);
            }
        }
    }
    None
}
