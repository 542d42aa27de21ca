//! Versions that were committed a few at a time: found by row at once, put in order when somebody scans.
//!
//! Called by `memtable`. One writer, readers beside it that it never waits for.
//! 1. Linking a version takes an index probe and a few stores: nothing is allocated (W2), nothing moves.
//! 2. Whoever reads at an LSN at or below the commit tail sees every version up to it: the tail moves only
//!    after they were linked (W2). What is linked meanwhile has a larger stamp and is skipped.
//! 3. The order is behind a latch that scans take, and nobody else.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;
use parking_lot::RwLock;

use super::entry::Entry;
use super::index::Index;
use super::order::{Entries, Order, Spot};
use super::slots::Slots;
use crate::cursor::{Cursor, Direction, Quest, Step};
use crate::error::StorageError;
use crate::version::{Version, VersionRef};
use crate::walk::Walker;

/// A cursor holds no place in the order between two steps: it fetches some rows at a time, more and more,
/// and finds its place again by the last one. Few at first, for short scans; then enough to pay for the
/// search, and never so many that scans wait long for each other.
const FETCH_ROWS: std::ops::RangeInclusive<usize> = 16..=256;

/// A fetch ends here though it has found fewer rows: the others are not visible.
const LOOKED_AT_MAX: usize = 4096;

/// 64 KiB of entries: room is made in some ten microseconds.
const BLOCK_BITS: u32 = 10;

type EntrySlots = Slots<Entry, BLOCK_BITS>;

/// Single versions.
#[derive(Debug, Default)]
pub(crate) struct Singles {
    entries: EntrySlots,
    index: Index,
    order: RwLock<Order>,
}

impl Entries for EntrySlots {
    fn entry(&self, number: u32) -> &Entry {
        self.get(number)
            .expect("a number is published after its entry")
    }
}

impl Singles {
    /// Makes room for `rows` more versions. Allocates; outside the append latch.
    pub(super) fn make_room(&self, rows: usize) {
        self.entries.make_room(rows);
        self.index.make_room(rows);
    }

    /// Links a version whose row has this hash, for which room was made. One writer at a time.
    pub(super) fn link(&self, hash: u64, entry: Entry, stamp: Lsn) {
        let Some(root) = self.root(hash, entry.row()) else {
            let number = self.entries.len();
            let root = self.entries.push(entry.into_root(stamp, number));
            self.index.add(hash, root);
            return;
        };
        let root = self.entries.entry(root);
        let newest = root.newest();
        let before = self.entries.entry(newest);
        let links = (newest, self.jump_over(newest, before));
        let number = self.entries.push(entry.into_newer(stamp, before, links));
        root.set_newest(number);
    }

    /// Where the version after `before`, which is number `number`, jumps to.
    fn jump_over(&self, number: u32, before: &Entry) -> u32 {
        let anchor = if before.is_anchor() {
            number
        } else {
            before.jump()
        };
        if !before.is_before_anchor() {
            return anchor;
        }
        let last = self.entries.entry(anchor);
        let jump = self.entries.entry(last.jump());
        let beyond = self.entries.entry(jump.jump());
        if last.depth() - jump.depth() == jump.depth() - beyond.depth() {
            jump.jump()
        } else {
            anchor
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many versions it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len() as usize
    }

    /// The newest version of `row`, which has this hash, at or below `at`.
    pub(super) fn get(&self, row: &[u8], hash: u64, at: Lsn) -> Option<Version> {
        let root = self.root(hash, row)?;
        let number = self.visible(root, at)?;
        Some(self.entries.entry(number).version())
    }

    fn root(&self, hash: u64, row: &[u8]) -> Option<u32> {
        self.index
            .find(hash, |root| self.entries.entry(root).row() == row)
    }

    /// The newest version of a root's row at or below `at`.
    fn visible(&self, root: u32, at: Lsn) -> Option<u32> {
        let mut number = self.entries.entry(root).newest();
        loop {
            let entry = self.entries.entry(number);
            if entry.stamp() <= at {
                return Some(number);
            }
            number = self.towards(entry, at)?;
        }
    }

    /// The next version to look at on the way from `entry`, which is above `at`.
    fn towards(&self, entry: &Entry, at: Lsn) -> Option<u32> {
        if entry.is_root() {
            return None;
        }
        // Whatever lies between is above `at` too.
        let jump = self.entries.entry(entry.jump());
        let jumped = jump.stamp() > at;
        Some(if jumped { entry.jump() } else { entry.older() })
    }

    /// All versions, in version order.
    pub(super) fn walk(&self) -> SinglesWalker<'_> {
        self.put_in_order();
        let order = self.order.read();
        SinglesWalker {
            entries: &self.entries,
            roots: order.between(Spot::START, order.end()).collect(),
            next: 0,
            now: None,
        }
    }

    /// Sees to it that the order has all rows that are there.
    fn put_in_order(&self) {
        let through = self.entries.len();
        if self.order.read().through() < through {
            self.order.write().extend(&self.entries, through);
        }
    }

    /// Fetches the next rows of the quest, at most `rows_max`, and shortens its range; whether there may
    /// be more.
    fn fetch(&self, quest: &mut Quest, rows_max: usize, out: &mut VecDeque<u32>) -> bool {
        let order = self.order.read();
        let find = |row, behind| order.find(&self.entries, row, behind);
        let from = match &quest.range.low {
            Bound::Included(row) => find(row, false),
            Bound::Excluded(row) => find(row, true),
            Bound::Unbounded => Spot::START,
        };
        let to = match &quest.range.high {
            Bound::Included(row) => find(row, true),
            Bound::Excluded(row) => find(row, false),
            Bound::Unbounded => order.end(),
        };
        let roots = order.between(from, to);
        match quest.direction {
            Direction::Forward => {
                let last = self.take(roots, quest.at, rows_max, out);
                last.map(|row| quest.range.low = Bound::Excluded(row.row_shared()))
            }
            Direction::Backward => {
                let last = self.take(roots.rev(), quest.at, rows_max, out);
                last.map(|row| quest.range.high = Bound::Excluded(row.row_shared()))
            }
        }
        .is_some()
    }

    /// Takes visible rows; the last row looked at, or `None` at the end.
    fn take(
        &self,
        roots: impl Iterator<Item = u32>,
        at: Lsn,
        rows_max: usize,
        out: &mut VecDeque<u32>,
    ) -> Option<&Entry> {
        for (looked_at, root) in (1..).zip(roots) {
            out.extend(self.visible(root, at));
            if out.len() == rows_max || looked_at == LOOKED_AT_MAX {
                return Some(self.entries.entry(root));
            }
        }
        None
    }
}

/// Walks the single rows in fetches.
#[derive(Debug)]
pub(super) struct SinglesCursor<O> {
    owner: Arc<O>,
    quest: Quest,
    /// The numbers of versions to come. Versions never move.
    fetched: VecDeque<u32>,
    fetch_rows: usize,
    exhausted: bool,
    now: u32,
}

impl<O: AsRef<Singles>> SinglesCursor<O> {
    pub(super) fn new(owner: Arc<O>, quest: Quest) -> Self {
        (*owner).as_ref().put_in_order();
        Self {
            owner,
            quest,
            fetched: VecDeque::new(),
            fetch_rows: *FETCH_ROWS.start(),
            exhausted: false,
            now: 0,
        }
    }

    fn entry(&self) -> &Entry {
        (*self.owner).as_ref().entries.entry(self.now)
    }
}

impl<O: AsRef<Singles> + std::fmt::Debug + Send + Sync> Cursor for SinglesCursor<O> {
    fn step(&mut self) -> Step {
        while self.fetched.is_empty() && !self.exhausted {
            let singles = (*self.owner).as_ref();
            let more = singles.fetch(&mut self.quest, self.fetch_rows, &mut self.fetched);
            self.exhausted = !more;
            self.fetch_rows = (self.fetch_rows * 2).min(*FETCH_ROWS.end());
        }
        match self.fetched.pop_front() {
            Some(number) => {
                self.now = number;
                Step::Row
            }
            None => Step::End,
        }
    }

    fn version(&self) -> VersionRef<'_> {
        self.entry().version_ref()
    }

    fn value(&self) -> Option<Bytes> {
        self.entry().version().value
    }
}

/// Walks all versions.
#[derive(Debug)]
pub(super) struct SinglesWalker<'a> {
    entries: &'a EntrySlots,
    /// The rows, in order.
    roots: Vec<u32>,
    /// How many of them were begun.
    next: usize,
    now: Option<&'a Entry>,
}

impl Walker for SinglesWalker<'_> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        let older = self.now.filter(|now| !now.is_root()).map(Entry::older);
        let number = older.or_else(|| {
            let root = self.roots.get(self.next)?;
            self.next += 1;
            Some(self.entries.entry(*root).newest())
        });
        self.now = number.map(|number| self.entries.entry(number));
        Ok(self.now.is_some())
    }

    fn version(&self) -> VersionRef<'_> {
        self.now
            .expect("a version is asked for while there is one")
            .version_ref()
    }
}

#[cfg(test)]
mod tests {
    use lockstone_base::{RowKey, TableId};

    use super::super::packing::Packing;
    use super::*;

    #[test]
    fn an_old_version_of_a_hot_row_is_few_steps_away() {
        const VERSIONS: u64 = 50_000;
        let (singles, packing) = (Singles::default(), Packing::default());
        let row = RowKey::new(TableId(1), b"hot");
        for stamp in 1..=VERSIONS {
            singles.make_room(1);
            let entry = packing.packer().entry(&row, Some(Bytes::new()));
            singles.link(7, entry, Lsn::new(stamp * 2));
        }
        let newest = singles.entries.entry(singles.entries.entry(0).newest());
        let mut most = 0;
        for at in (1..=VERSIONS * 2 + 1).step_by(7) {
            let at = Lsn::new(at);
            let steps = std::iter::successors(Some(newest), |entry| {
                let next = (entry.stamp() > at).then(|| singles.towards(entry, at))??;
                Some(singles.entries.entry(next))
            });
            most = most.max(steps.count());
            let found = singles.get(row.as_bytes(), 7, at);
            let want = at.get() / 2 * 2;
            assert_eq!(found.map_or(0, |version| version.stamp.get()), want);
        }
        assert!(most < 80, "{most} steps");
    }
}
