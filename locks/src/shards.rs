//! The shards of the lock table, with a latch each.
//!
//! Called by `deadlock`, `standoff`, `release` and `table`.
//! 1. A shard's latch is the row latch of all its rows. More than one is taken in order of index.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::RowKey;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::owner::Owner;
use crate::row_lock::RowLock;
use crate::shard::{Latch, RowView, Shard};
use crate::slots::Slots;
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Enough that a few dozen threads seldom meet in one; a power of two.
pub(crate) const SHARDS: usize = 64;

const SHARD_BIT: u32 = 48;

/// The shards, each on cache lines of its own.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Box<[Aligned]>,
    slots: Slots<Owner>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

impl Shards {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            slots: Slots::new(),
        }
    }

    pub(crate) fn slots(&self) -> &Slots<Owner> {
        &self.slots
    }

    /// Which shard a hash is in.
    pub(crate) fn index(hash: u64) -> usize {
        // Within a shard, hashbrown tells rows apart by the lowest bits and the seven highest.
        (hash >> SHARD_BIT) as usize % SHARDS
    }

    /// The latch of the shard of `hash`.
    pub(crate) fn latch(&self, hash: u64) -> Latch<'_> {
        self.latch_number(Self::index(hash))
    }

    pub(crate) fn latch_number(&self, number: usize) -> Latch<'_> {
        let shard = self.shards.get(number);
        let shard = shard.expect("the index has as many bits as there are shards");
        Latch {
            number,
            shard: shard.0.lock(),
            slots: &self.slots,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_latched(&self, hash: u64) -> bool {
        let shard = self.shards.get(Self::index(hash));
        shard.is_some_and(|shard| shard.0.is_locked())
    }

    /// The latches of all the shards of `hashes`, taken in order of index.
    pub(crate) fn latch_all(&self, hashes: impl Iterator<Item = u64>) -> Latched<'_> {
        let mut numbers: SmallVec<[usize; 8]> = hashes.map(Self::index).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Latched(
            numbers
                .into_iter()
                .map(|number| self.latch_number(number))
                .collect(),
        )
    }

    /// One shard after the other, latched while `visit` looks.
    pub(crate) fn each(&self, mut visit: impl FnMut(RowView<'_>)) {
        for number in 0..SHARDS {
            let latch = self.latch_number(number);
            latch.views().for_each(&mut visit);
        }
    }

    /// Shows the next rows behind `from`, a shard and a number of a node, and moves that on. `false` at the end.
    pub(crate) fn stretch(&self, from: &mut (usize, u32), visit: impl FnMut(RowView<'_>)) -> bool {
        let (shard, node) = *from;
        if shard == SHARDS {
            return false;
        }
        let latch = self.latch_number(shard);
        let through = node.saturating_add(STRETCH_ROWS);
        latch.views_of(node..through).for_each(visit);
        *from = if through < latch.numbers() {
            (shard, through)
        } else {
            (shard + 1, 0)
        };
        true
    }
}

/// Rows that are shown in one hold of a shard's latch.
const STRETCH_ROWS: u32 = 256;

/// Several shards, latched together.
#[derive(Debug)]
pub(crate) struct Latched<'a>(SmallVec<[Latch<'a>; 4]>);

impl Latched<'_> {
    /// L4: takes the waiter with `ticket` ahead of `other`'s in its queue; those whom it goes past.
    pub(crate) fn put_ahead(
        &mut self,
        ticket: &Arc<Ticket>,
        other: &Owner,
        wakes: &mut Wakes,
    ) -> Vec<Waiter> {
        let number = Shards::index(ticket.hash());
        let latch = self.0.iter_mut().find(|latch| latch.number == number);
        let put = |lock: &mut RowLock, wakes: &mut Wakes| lock.put_ahead(ticket, other, wakes);
        latch.map_or_else(Vec::new, |latch| {
            latch.with_lock(ticket, wakes, put).unwrap_or_default()
        })
    }

    pub(crate) fn find(&self, hash: u64, row: &RowKey) -> Option<&RowLock> {
        let number = Shards::index(hash);
        let latch = self.0.iter().find(|latch| latch.number == number);
        latch?.find(hash, row)
    }
}
