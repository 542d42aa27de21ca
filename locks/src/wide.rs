//! The locks that are wider than a row, ranges and tables, and the tokens of semaphores, under one latch; and what a row sees of them.
//!
//! Owned by `shards`. Few transactions take them, so one latch does for all.
//! 1. L8, K6: while the row's table has no range, that is one load, under the row latch. A range is published, then counted,
//!    and then every shard's latch is taken once: whoever had one before was seen, whoever has it later sees the count.
//! 2. Latch order: behind the shards, before the small latches of owners.
//!
//! Crash: memory only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockstone_base::{LockMode, RowKey, TableId};
use parking_lot::{Mutex, MutexGuard};

use crate::contended::HashedRow;
use crate::met::Obstacle;
use crate::owner::Owner;
use crate::range_look::{RangesMet, RowAsk};
use crate::ranges::RangeBook;
use crate::semaphores::SemaphoreBook;
use crate::tables::TableBook;
use crate::ticket::Ticket;
use crate::wakes::Wakes;

/// So many counts of ranges there are, and as many groups of tables: those beside a range seldom share its count.
const COUNTS: usize = 64;

/// Ranges, tables and semaphores.
#[derive(Debug)]
pub(crate) struct Wide {
    /// How many ranges are held, waited for or asked for, by group of tables.
    ranges: [AtomicUsize; COUNTS],
    /// How many tables are held or awaited EXCLUSIVE.
    tables: AtomicUsize,
    /// Of how many semaphores somebody holds or awaits tokens.
    semaphores: AtomicUsize,
    /// The arrivals so far.
    numbers: AtomicU64,
    books: Mutex<Books>,
}

/// What the latch protects.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) ranges: RangeBook,
    pub(crate) tables: TableBook,
    pub(crate) semaphores: SemaphoreBook,
}

impl Default for Wide {
    fn default() -> Self {
        Self {
            ranges: [const { AtomicUsize::new(0) }; COUNTS],
            tables: AtomicUsize::new(0),
            semaphores: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            books: Mutex::default(),
        }
    }
}

impl Wide {
    pub(crate) fn latch(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// L8: the latch, if there may be a range in the table. Asked under the row latch.
    pub(crate) fn latch_if_ranges(&self, table: TableId) -> Option<MutexGuard<'_, Books>> {
        let ranges = self.count(table).load(Ordering::Relaxed);
        (ranges > 0).then(|| self.latch())
    }

    fn count(&self, table: TableId) -> &AtomicUsize {
        let count = self.ranges.get(table.0 as usize % COUNTS);
        count.expect("a remainder is below the divisor")
    }

    /// L4: whether anybody may wait for `owner` by what it holds, without being on its stack: a range, for a row that it
    /// holds in a table that it shares (L7); a row, in a range that it holds; a table that it shares; tokens that it has. Asked by one whose own wait is published.
    pub(crate) fn may_await(&self, owner: &Owner) -> bool {
        let mut counts = self.ranges.iter().chain([&self.tables, &self.semaphores]);
        if counts.all(|count| count.load(Ordering::SeqCst) == 0) {
            return false;
        }
        let ((rows, ranges), taken) = {
            let holdings = owner.latch();
            (holdings.holds(), holdings.undo.tokens())
        };
        let books = self.latch();
        ranges
            || (rows && books.ranges.may_await(owner))
            || books.tables.may_await(owner)
            || books.semaphores.order_behind(&taken).is_some()
    }

    /// Counts the tables, after they were changed.
    pub(crate) fn count_tables(&self, books: &Books) {
        self.tables.store(books.tables.len(), Ordering::SeqCst);
    }

    /// Counts the semaphores, after they were changed.
    pub(crate) fn count_semaphores(&self, books: &Books) {
        self.semaphores
            .store(books.semaphores.len(), Ordering::SeqCst);
    }

    /// The next number of an arrival.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether there is any range.
    pub(crate) fn has_ranges(&self) -> bool {
        let counts = self.ranges.iter();
        counts
            .map(|count| count.load(Ordering::SeqCst))
            .sum::<usize>()
            > 0
    }

    /// K6: publishes a range that waits or asks, and counts it.
    pub(crate) fn publish(&self, books: &mut Books, owner: &Arc<Owner>, ticket: &Arc<Ticket>) {
        books.ranges.insert(owner, ticket);
        self.count(ticket.target().table())
            .fetch_add(1, Ordering::SeqCst);
    }

    /// The range goes; the rows that are to be settled, with their hashes.
    pub(crate) fn withdraw(&self, number: u64) -> BTreeSet<HashedRow> {
        let removed = self.latch().ranges.remove(number);
        let Some((table, rows)) = removed else {
            return BTreeSet::new();
        };
        self.count(table).fetch_sub(1, Ordering::SeqCst);
        rows
    }
}

/// What is around a row whose latch is held: the ranges, if there are any, and who is to be woken.
#[derive(Debug)]
pub(crate) struct Around<'a> {
    ranges: Option<&'a mut RangeBook>,
    wide: &'a Wide,
    pub(crate) wakes: &'a mut Wakes,
}

impl<'a> Around<'a> {
    /// `books`: those of `wide`, if it has ranges.
    pub(crate) fn new(wide: &'a Wide, books: Option<&'a mut Books>, wakes: &'a mut Wakes) -> Self {
        let ranges = books.map(|books| &mut books.ranges);
        Self {
            ranges,
            wide,
            wakes,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.wide.number()
    }

    pub(crate) fn ranges(&self) -> Option<&RangeBook> {
        self.ranges.as_deref()
    }

    /// L2: the mode in which `owner` holds a range around the row.
    pub(crate) fn held(&self, owner: &Owner, row: &RowKey) -> Option<LockMode> {
        let held = self.ranges()?.held(owner, row);
        held.map(|(mode, _)| mode)
    }

    /// One who is in the way of the row, by a range.
    pub(crate) fn blocker(&self, ask: RowAsk<'_>) -> Option<(&Arc<Owner>, Obstacle)> {
        self.ranges()?.obstacles_of_row(ask).next()
    }

    /// K4: has the row come back when a range in its way goes.
    pub(crate) fn register(&self, hash: u64, ask: RowAsk<'_>) -> RangesMet {
        self.ranges()
            .map_or(RangesMet::NONE, |ranges| ranges.register_row(hash, ask))
    }

    /// Nobody waits for the row any more.
    pub(crate) fn forget(&self, hash: u64, row: &RowKey) {
        if let Some(ranges) = self.ranges() {
            ranges.forget_row(hash, row);
        }
    }

    /// K6: whoever waits for a range around the row, and has looked already, looks again.
    pub(crate) fn granted(&mut self, ask: RowAsk<'_>) {
        if let Some(ranges) = self.ranges.as_deref_mut() {
            ranges.note_grant(ask);
        }
    }
}
