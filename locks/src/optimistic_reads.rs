//! What a transaction has read, as it must be found unchanged when it commits: rows, and stretches of rows.
//!
//! Filled by the transaction as it reads, registered by [`OptimisticLocks`](crate::OptimisticLocks).
//! 1. It never says less than what was read; it may say more, and then a break may be false.
//! 2. K8: past a number of entries the table that has the most is taken whole. The stretch of the whole table is
//!    there before anything goes that it covers.
//! 3. A walk counts as far as it has come, and no farther; also one whose iterator was never dropped.
//!
//! Crash: memory only.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{RowKey, TableId};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::target::RowRange;

/// Fewer entries than this are not looked through for what is there twice.
const FEW: usize = 64;

/// A commit that writes more rows breaks by table, smallest and largest row (W4).
const EXACT_ROWS_MAX: usize = 1000;

/// Rows one behind the other: from `low` on, up to `high`, which is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    low: RowKey,
    high: Option<RowKey>,
}

impl Stretch {
    /// The rows between two bounds, which are encoded rows.
    pub fn between(low: Bound<&[u8]>, high: Bound<&[u8]>) -> Self {
        Self {
            low: match low {
                Bound::Included(row) => exactly(row),
                Bound::Excluded(row) => behind(row),
                Bound::Unbounded => RowKey::new(TableId(0), &[]),
            },
            high: match high {
                Bound::Included(row) => Some(behind(row)),
                Bound::Excluded(row) => Some(exactly(row)),
                Bound::Unbounded => None,
            },
        }
    }

    /// All rows of a table.
    pub fn of_table(table: TableId) -> Self {
        let next = table.0.checked_add(1).map(TableId);
        Self {
            low: RowKey::new(table, &[]),
            high: next.map(|next| RowKey::new(next, &[])),
        }
    }

    /// The range that has them all, of the table in which they begin.
    pub fn range(&self) -> RowRange {
        let table = self.low.table();
        let start = if self.low.key().is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(self.low.clone())
        };
        let high = self.high.clone().filter(|high| high.table() == table);
        RowRange::new(table, start, high.map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// The first row that could be among them.
    pub fn low(&self) -> &RowKey {
        &self.low
    }

    /// The first row behind them; `None`: there is none.
    pub fn high(&self) -> Option<&RowKey> {
        self.high.as_ref()
    }

    fn ends_behind(&self, row: &[u8]) -> bool {
        self.high.as_ref().is_none_or(|high| high.as_bytes() > row)
    }
}

fn exactly(row: &[u8]) -> RowKey {
    let (table, key) = row.split_first_chunk().unwrap_or((&[0; 4], row));
    RowKey::new(TableId(u32::from_be_bytes(*table)), key)
}

/// The first row behind `row`.
fn behind(row: &[u8]) -> RowKey {
    let mut next = Vec::with_capacity(row.len() + 1);
    next.extend_from_slice(row);
    next.push(0);
    exactly(&next)
}

/// A walk over a range from both ends: shared by the iterator that walks and the transaction that answers for it.
#[derive(Debug)]
pub struct Walk {
    bounds: Stretch,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last row that was come to from the front.
    front: Option<Vec<u8>>,
    back: Option<Vec<u8>>,
    all: bool,
}

impl Walk {
    /// It has come to `row`, an encoded one, from the front or from the back.
    pub fn came_to(&self, from_front: bool, row: &[u8]) {
        let mut seen = self.seen.lock();
        let end = if from_front {
            &mut seen.front
        } else {
            &mut seen.back
        };
        let end = end.get_or_insert_default();
        end.clear();
        end.extend_from_slice(row);
    }

    /// It has seen that nothing is left.
    pub fn ended(&self) {
        self.seen.lock().all = true;
    }

    /// What it has walked over.
    fn stretches(&self) -> SmallVec<[Stretch; 2]> {
        let seen = self.seen.lock();
        if seen.all {
            return SmallVec::from_iter([self.bounds.clone()]);
        }
        let front = seen.front.as_deref().map(|row| Stretch {
            low: self.bounds.low.clone(),
            high: Some(behind(row)),
        });
        let back = seen.back.as_deref().map(|row| Stretch {
            low: exactly(row),
            high: self.bounds.high.clone(),
        });
        front.into_iter().chain(back).collect()
    }
}

/// What a transaction has read so far.
#[derive(Debug, Default)]
pub struct Reads {
    set: ReadSet,
    walks: Vec<Arc<Walk>>,
    max: usize,
    /// With so many entries they are looked through.
    gather_at: usize,
}

impl Reads {
    /// Nothing yet. Past `max` entries whole tables are taken instead (K8).
    pub fn new(max: usize) -> Self {
        Self {
            max,
            gather_at: FEW,
            ..Self::default()
        }
    }

    /// A row was read, or its absence.
    pub fn row(&mut self, row: &RowKey) {
        if self.set.rows.last() != Some(row) {
            self.set.rows.push(row.clone());
            self.grown();
        }
    }

    /// A walk over these rows begins.
    pub fn walk(&mut self, bounds: Stretch) -> Arc<Walk> {
        let seen = Mutex::default();
        let walk = Arc::new(Walk { bounds, seen });
        self.walks.push(Arc::clone(&walk));
        self.grown();
        walk
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.walks.is_empty()
    }

    /// All that was read.
    pub fn finish(mut self) -> ReadSet {
        self.gather(|_| true);
        self.set
    }

    fn grown(&mut self) {
        if self.set.entries() + self.walks.len() > self.gather_at {
            // Nobody else has it: its iterator is gone.
            self.gather(|walk| Arc::strong_count(walk) == 1);
            let entries = self.set.entries() + self.walks.len();
            self.gather_at = FEW.max(2 * entries);
        }
    }

    /// Takes in the walks that have `ended`, and forgets what is there twice.
    fn gather(&mut self, ended: impl Fn(&Arc<Walk>) -> bool) {
        let walks = std::mem::take(&mut self.walks);
        for walk in walks {
            if ended(&walk) {
                self.set.stretches.extend(walk.stretches());
            } else {
                self.walks.push(walk);
            }
        }
        self.set.put_in_order();
        while self.set.entries() > self.max
            && let Some(table) = self.set.fullest_table()
        {
            // K8: first the table, then what it covers goes.
            self.set.stretches.push(Stretch::of_table(table));
            self.set.put_in_order();
        }
    }
}

/// What a transaction has read: rows and stretches ascend, and nothing is there twice.
#[derive(Debug, Default)]
pub struct ReadSet {
    rows: Vec<RowKey>,
    stretches: Vec<Stretch>,
}

impl ReadSet {
    /// Rows that were read by themselves.
    pub fn rows(&self) -> &[RowKey] {
        &self.rows
    }

    /// What was walked over, and whole tables.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    fn entries(&self) -> usize {
        self.rows.len() + self.stretches.len()
    }

    fn put_in_order(&mut self) {
        self.stretches.sort_unstable_by(|a, b| a.low.cmp(&b.low));
        self.stretches.dedup_by(|next, before| {
            let reaches = before.high.as_ref().is_none_or(|high| *high >= next.low);
            // A stretch lies within one table, of which a message has the name.
            let joins = reaches && before.low.table() == next.low.table();
            // No end is the farthest one.
            if joins && before.high.is_some() && (next.high.is_none() || next.high > before.high) {
                before.high = next.high.take();
            }
            joins
        });
        self.rows.sort_unstable();
        self.rows.dedup();
        let stretches = std::mem::take(&mut self.stretches);
        self.rows
            .retain(|row| !is_within(&stretches, row.as_bytes()));
        self.stretches = stretches;
    }

    /// The table with the most entries, if it has more than one.
    fn fullest_table(&self) -> Option<TableId> {
        let mut counts: BTreeMap<TableId, usize> = BTreeMap::new();
        let lows = self.stretches.iter().map(Stretch::low);
        for row in self.rows.iter().chain(lows) {
            *counts.entry(row.table()).or_default() += 1;
        }
        let fullest = counts.into_iter().max_by_key(|(_, count)| *count);
        fullest
            .filter(|(_, count)| *count > 1)
            .map(|(table, _)| table)
    }

    /// Whether `row` was read.
    fn has(&self, row: &[u8]) -> bool {
        let found = self.rows.binary_search_by(|read| read.as_bytes().cmp(row));
        found.is_ok() || is_within(&self.stretches, row)
    }

    /// Whether any row from `first` to `last` was read.
    fn has_between(&self, first: &[u8], last: &[u8]) -> bool {
        let at = self.rows.partition_point(|read| read.as_bytes() < first);
        let row = self.rows.get(at);
        let at = self.stretches.partition_point(|it| !it.ends_behind(first));
        let stretch = self.stretches.get(at);
        row.is_some_and(|row| row.as_bytes() <= last)
            || stretch.is_some_and(|stretch| stretch.low.as_bytes() <= last)
    }

    /// Whether anything of `table` was read.
    pub(crate) fn has_table(&self, table: TableId) -> bool {
        let all = Stretch::of_table(table);
        let at = self.rows.partition_point(|row| *row < all.low);
        let row = self.rows.get(at);
        let at = self
            .stretches
            .partition_point(|it| !it.ends_behind(all.low.as_bytes()));
        let stretch = self.stretches.get(at).map(Stretch::low);
        let first = row.into_iter().chain(stretch).min();
        first.is_some_and(|first| all.ends_behind(first.as_bytes()))
    }

    /// The table in which a commit writes into what was read, if it does.
    pub(crate) fn met_by(&self, written: &Written<'_>) -> Option<TableId> {
        if written.rows > EXACT_ROWS_MAX {
            return written.tables().find_map(|(table, first, last)| {
                let meets = self.has_between(written.row(first), written.row(last));
                meets.then_some(table)
            });
        }
        if written.rows <= self.entries() {
            let mut rows = (0..written.rows).map(|index| written.row(index));
            return rows.find(|row| self.has(row)).map(table_of);
        }
        let mut rows = self.rows.iter();
        let row = rows.find(|row| written.has_between(row.as_bytes(), |it| it <= row.as_bytes()));
        let mut stretches = self.stretches.iter();
        let met = |it: &&Stretch| written.has_between(it.low.as_bytes(), |row| it.ends_behind(row));
        row.or_else(|| stretches.find(met).map(Stretch::low))
            .map(RowKey::table)
    }
}

/// Whether one of the stretches, which ascend, has `row`.
fn is_within(stretches: &[Stretch], row: &[u8]) -> bool {
    let at = stretches.partition_point(|stretch| stretch.low.as_bytes() <= row);
    let before = at.checked_sub(1).and_then(|at| stretches.get(at));
    before.is_some_and(|stretch| stretch.ends_behind(row))
}

fn table_of(row: &[u8]) -> TableId {
    TableId(u32::from_be_bytes(*row.first_chunk().unwrap_or(&[0; 4])))
}

/// The rows that a commit writes: so many, and each by its number, ascending.
#[derive(Clone, Copy)]
pub struct Written<'a> {
    rows: usize,
    row: &'a dyn Fn(usize) -> &'a [u8],
}

impl<'a> Written<'a> {
    /// Encoded rows that ascend.
    pub fn new(rows: usize, row: &'a dyn Fn(usize) -> &'a [u8]) -> Self {
        Self { rows, row }
    }

    fn row(&self, index: usize) -> &'a [u8] {
        (self.row)(index)
    }

    /// How many rows stand before the first one, from `from` on, that is not `before`.
    fn position(&self, from: usize, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (from, self.rows);
        while low < high {
            let middle = low.midpoint(high);
            if before(self.row(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Whether the first row at or behind `low` is within what `reaches`.
    fn has_between(&self, low: &[u8], reaches: impl Fn(&[u8]) -> bool) -> bool {
        let at = self.position(0, |row| row < low);
        at < self.rows && reaches(self.row(at))
    }

    /// Each table with the numbers of its first and its last row.
    fn tables(&self) -> impl Iterator<Item = (TableId, usize, usize)> + '_ {
        let mut first = 0;
        std::iter::from_fn(move || {
            let table = (first < self.rows).then(|| table_of(self.row(first)))?;
            let behind = self.position(first, |row| table_of(row) <= table);
            let rows = (table, first, behind - 1);
            first = behind;
            Some(rows)
        })
    }
}

#[cfg(test)]
mod tests;
