//! The shards of the lock table, with a latch each.
//!
//! Called by `deadlock`, `standoff`, `release` and `table`.
//! 1. A shard's latch is the row latch of all its rows. More than one is taken in order of index.
//!
//! Crash: memory only.

use std::slice;

use lockstone_base::RowKey;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::hash::RowHasher;
use crate::index::Signpost;
use crate::met::InTheWay;
use crate::owner::Owner;
use crate::range_look::Looking;
use crate::row_lock::RowLock;
use crate::row_views::RowView;
use crate::runs::Runs;
use crate::shard::{Latch, Shard};
use crate::slots::Slots;
use crate::target::Target;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;
use crate::wide::{Around, Books, Wide};

/// Enough that a few dozen threads seldom meet in one; a power of two.
pub(crate) const SHARDS: usize = 64;

const SHARD_BIT: u32 = 48;

/// The shards, each on cache lines of its own.
#[derive(Debug)]
pub(crate) struct Shards {
    hasher: RowHasher,
    rows: Box<[Aligned]>,
    slots: Slots<Owner>,
    wide: Wide,
    runs: Runs,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned {
    shard: Mutex<Shard>,
    /// Where its index is, for those who have not the latch.
    signpost: Signpost,
}

impl Shards {
    /// Whose rows are hashed under `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            hasher: RowHasher::new(seed),
            rows: (0..SHARDS).map(|_| Aligned::default()).collect(),
            slots: Slots::new(),
            wide: Wide::default(),
            runs: Runs::default(),
        }
    }

    pub(crate) fn hash(&self, row: &RowKey) -> u64 {
        self.hash_bytes(row.as_bytes())
    }

    /// Of an encoded row.
    pub(crate) fn hash_bytes(&self, row: &[u8]) -> u64 {
        self.hasher.hash(row)
    }

    pub(crate) fn slots(&self) -> &Slots<Owner> {
        &self.slots
    }

    /// Ranges and tables. Latched behind any shard.
    pub(crate) fn wide(&self) -> &Wide {
        &self.wide
    }

    /// What is spilled. Asked without any latch; a load of it comes under a shard's.
    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Which shard a hash is in.
    pub(crate) fn index(hash: u64) -> usize {
        // Within a shard rows are told apart by the lower half.
        (hash >> SHARD_BIT) as usize % SHARDS
    }

    /// The latch of the shard of `hash`.
    pub(crate) fn latch(&self, hash: u64) -> Latch<'_> {
        self.latch_number(Self::index(hash))
    }

    pub(crate) fn latch_number(&self, number: usize) -> Latch<'_> {
        let shard = self.rows.get(number);
        let shard = shard.expect("the index has as many bits as there are shards");
        Latch {
            number,
            shard: shard.shard.lock(),
            signpost: &shard.signpost,
            slots: &self.slots,
            wide: &self.wide,
        }
    }

    /// A row of `hash` is going to be asked for soon; nothing is latched for it.
    pub(crate) fn expect(&self, hash: u64) {
        if let Some(shard) = self.rows.get(Self::index(hash)) {
            shard.signpost.expect(hash);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_latched(&self, hash: u64) -> bool {
        let shard = self.rows.get(Self::index(hash));
        shard.is_some_and(|shard| shard.shard.is_locked())
    }

    /// The latches of all that these wait for: shards in order of index, every one if a range is waited for; then that of the
    /// wide locks, without which nobody knows what is around a row.
    pub(crate) fn latch_all<'w>(&self, waiters: impl Iterator<Item = &'w Waiter>) -> Latched<'_> {
        let mut numbers: SmallVec<[usize; 8]> = SmallVec::new();
        for waiter in waiters {
            match waiter.ticket.target() {
                Target::Row(_) => numbers.push(Self::index(waiter.ticket.hash())),
                Target::Range(_) => numbers.extend(0..SHARDS),
                Target::Table(_) | Target::Tokens(_) => {}
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        let shards = numbers.into_iter().map(|number| self.latch_number(number));
        Latched {
            shards: shards.collect(),
            books: self.wide.latch(),
            wide: &self.wide,
        }
    }

    /// K6: whom undecided ranges meet among the rows, one latch at a time.
    pub(crate) fn in_the_way_of(&self, ranges: &mut [Looking]) {
        for number in 0..SHARDS {
            self.latch_number(number).in_the_way_of(ranges);
        }
    }

    /// One shard after the other, latched while `visit` looks.
    pub(crate) fn each(&self, mut visit: impl FnMut(RowView<'_>)) {
        for number in 0..SHARDS {
            self.latch_number(number).views().for_each(&mut visit);
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

/// All that some transactions wait for, latched together.
#[derive(Debug)]
pub(crate) struct Latched<'a> {
    shards: SmallVec<[Latch<'a>; 4]>,
    pub(crate) books: MutexGuard<'a, Books>,
    wide: &'a Wide,
}

impl Latched<'_> {
    /// L4: takes a waiter ahead of another that it waits for. The moved one, if it waits for a range or a table, is to be
    /// asked for again.
    pub(crate) fn put_ahead(&mut self, waiter: &Waiter, other: &Waiter, wakes: &mut Wakes) {
        let (own, others) = (&waiter.ticket, &other.ticket);
        match (own.target(), others.target()) {
            (Target::Row(_), Target::Row(_)) => {
                let put = |lock: &mut RowLock, around: &mut Around<'_>| {
                    lock.put_ahead(own, &other.owner, around);
                };
                self.with_lock(waiter, wakes, put);
                return;
            }
            (Target::Table(table), _) => {
                self.books.tables.put_ahead(*table, waiter, &other.owner);
                return;
            }
            (Target::Tokens(request), _) => {
                let semaphore = &request.semaphore;
                self.books
                    .semaphores
                    .put_ahead(semaphore, waiter, &other.owner);
                return;
            }
            (Target::Range(_), _) => {
                self.books.ranges.turn(own.number(), others.number(), true);
            }
            (Target::Row(_), _) => {}
        }
        if let Target::Range(_) = others.target() {
            self.books.ranges.turn(others.number(), own.number(), false);
        }
        for moved in [waiter, other] {
            self.with_lock(moved, wakes, RowLock::settle);
        }
    }

    /// The lock of the row that is waited for, if it is one.
    fn with_lock<T>(
        &mut self,
        waiter: &Waiter,
        wakes: &mut Wakes,
        act: impl FnOnce(&mut RowLock, &mut Around<'_>) -> T,
    ) -> Option<T> {
        waiter.ticket.row()?;
        let number = Shards::index(waiter.ticket.hash());
        let latch = self
            .shards
            .iter_mut()
            .find(|latch| latch.number == number)?;
        let mut around = Around::new(self.wide, Some(&mut *self.books), wakes);
        latch.with_lock(&waiter.ticket, &mut around, act)
    }

    /// L4: whom it waits for.
    pub(crate) fn obstacles(&self, waiter: &Waiter) -> Vec<InTheWay> {
        let ticket = &waiter.ticket;
        let Books {
            ranges,
            tables,
            semaphores,
        } = &*self.books;
        match ticket.target() {
            Target::Row(row) => {
                let number = Shards::index(ticket.hash());
                let latch = self.shards.iter().find(|latch| latch.number == number);
                let lock = latch.and_then(|latch| latch.find(ticket.hash(), row));
                lock.map_or_else(Vec::new, |lock| lock.obstacles(waiter, Some(ranges)))
            }
            Target::Range(_) => {
                let Some(look) = ranges.look(ticket.number()) else {
                    return Vec::new();
                };
                let mut looking = Looking::new(look);
                for latch in &self.shards {
                    latch.in_the_way_of(slice::from_mut(&mut looking));
                }
                ranges.meet(&mut looking);
                looking.met.into_obstacles()
            }
            Target::Table(table) => tables.obstacles(*table, waiter),
            Target::Tokens(request) => semaphores.obstacles(request, waiter),
        }
    }
}
