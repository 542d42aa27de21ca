//! The locks that are wider than a row, ranges and tables, under one latch; and what a row sees of them.
//!
//! Owned by `shards`. Few transactions take them, so one latch does for all.
//! 1. L8, K6: while no range exists, that is one load, under the row latch. A range is published, then counted, and then every
//!    shard's latch is taken once: whoever had one before was seen, whoever has it later sees the count.
//! 2. Latch order: behind the shards, before the small latches of owners.
//!
//! Crash: memory only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockstone_base::{LockMode, RowKey};
use parking_lot::{Mutex, MutexGuard};

use crate::owner::Owner;
use crate::ranges::{Obstacle, RangeBook, RowAsk};
use crate::tables::TableBook;
use crate::ticket::Ticket;
use crate::wakes::Wakes;

/// Ranges and tables.
#[derive(Debug, Default)]
pub(crate) struct Wide {
    /// How many ranges are held or waited for.
    ranges: AtomicUsize,
    /// How many tables are held or awaited EXCLUSIVE.
    tables: AtomicUsize,
    /// The arrivals so far.
    numbers: AtomicU64,
    books: Mutex<Books>,
}

/// What the latch protects.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) ranges: RangeBook,
    pub(crate) tables: TableBook,
}

impl Wide {
    pub(crate) fn latch(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// L8: the latch, if there is a range. Asked under the row latch.
    pub(crate) fn latch_if_ranges(&self) -> Option<MutexGuard<'_, Books>> {
        (self.ranges.load(Ordering::Relaxed) > 0).then(|| self.latch())
    }

    /// L4: whether anybody may wait for a range or a table. Asked by one whose own wait is published.
    pub(crate) fn is_used(&self) -> bool {
        [&self.ranges, &self.tables]
            .iter()
            .any(|count| count.load(Ordering::SeqCst) > 0)
    }

    /// Counts the tables, after they were changed.
    pub(crate) fn count_tables(&self, books: &Books) {
        self.tables.store(books.tables.len(), Ordering::SeqCst);
    }

    /// The next number of an arrival.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// K6: publishes a range that waits, and counts it.
    pub(crate) fn publish(&self, books: &mut Books, owner: &Arc<Owner>, ticket: &Arc<Ticket>) {
        books.ranges.insert(owner, ticket);
        self.ranges.store(books.ranges.len(), Ordering::SeqCst);
    }

    /// The range goes; the rows that are to be settled, with their hashes.
    pub(crate) fn withdraw(&self, number: u64) -> BTreeMap<RowKey, u64> {
        let mut books = self.latch();
        let rows = books.ranges.remove(number);
        self.ranges.store(books.ranges.len(), Ordering::SeqCst);
        rows.unwrap_or_default()
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

    /// K4: has the row come back when a range in its way goes. `false` if one has gone meanwhile.
    pub(crate) fn register(&mut self, hash: u64, ask: RowAsk<'_>) -> bool {
        let ranges = self.ranges.as_deref_mut();
        ranges.is_none_or(|ranges| ranges.register_row(hash, ask))
    }

    /// K6: whoever waits for a range around the row, and has looked already, looks again.
    pub(crate) fn granted(&mut self, ask: RowAsk<'_>) {
        if let Some(ranges) = self.ranges.as_deref_mut() {
            ranges.note_grant(ask);
        }
    }
}
