//! Versions inserted one by one, in a skip list: one writer, readers beside it.
//!
//! Called by `memtable`.
//! 1. In version order.
//! 2. Whoever reads at an LSN at or below the commit tail sees every version up to it: the tail moves only
//!    after the insertion (W2). What is inserted meanwhile has a larger stamp and is skipped.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use lockstone_base::{Lsn, RowKey};

use crate::cursor::{Cursor, Direction, Quest, RowRange, Step};
use crate::version::{RowVersion, Version, version_order};

/// A cursor holds no place in the skip list between two steps: it fetches this many rows at a time and
/// finds its place again by the last one. Enough to pay for the search, few enough for short scans.
const FETCH_ROWS: usize = 64;

type Key = VersionKey;
type Value = Option<Bytes>;

/// Single versions in version order.
#[derive(Debug, Default)]
pub(crate) struct Singles(SkipMap<Key, Value>);

impl Singles {
    pub(crate) fn insert(&self, row: RowKey, stamp: Lsn, value: Option<Bytes>) {
        self.0.insert(VersionKey { row, stamp }, value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many versions it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The newest version of `row` at or below `at`.
    pub(crate) fn get(&self, row: &[u8], at: Lsn) -> Option<Version> {
        let probe: &dyn Place = &(row, at);
        let entry = self.0.lower_bound(Bound::Included(probe))?;
        (entry.key().row.as_bytes() == row).then(|| version_of(&entry))
    }

    /// All versions, in version order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RowVersion> + '_ {
        self.0.iter().map(|entry| row_version(&entry))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct VersionKey {
    row: RowKey,
    stamp: Lsn,
}

/// A place in the version order, so that a search needs no owned key.
trait Place {
    fn place(&self) -> (&[u8], Lsn);
}

impl Place for VersionKey {
    fn place(&self) -> (&[u8], Lsn) {
        (self.row.as_bytes(), self.stamp)
    }
}

impl Place for (&[u8], Lsn) {
    fn place(&self) -> (&[u8], Lsn) {
        *self
    }
}

impl<'a> Borrow<dyn Place + 'a> for VersionKey {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        version_order(self.place(), other.place())
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for VersionKey {
    fn cmp(&self, other: &Self) -> Ordering {
        version_order(self.place(), other.place())
    }
}

impl PartialOrd for VersionKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn version_of(entry: &Entry<'_, Key, Value>) -> Version {
    Version {
        stamp: entry.key().stamp,
        value: entry.value().clone(),
    }
}

fn row_version(entry: &Entry<'_, Key, Value>) -> RowVersion {
    RowVersion {
        row: entry.key().row.to_bytes(),
        version: version_of(entry),
    }
}

/// Walks the skip list in fetches.
#[derive(Debug)]
pub(crate) struct SinglesCursor<O> {
    owner: Arc<O>,
    quest: Quest,
    fetched: VecDeque<RowVersion>,
    exhausted: bool,
}

impl<O: AsRef<Singles>> SinglesCursor<O> {
    pub(crate) fn new(owner: Arc<O>, quest: Quest) -> Self {
        Self {
            owner,
            quest,
            fetched: VecDeque::new(),
            exhausted: false,
        }
    }

    fn fetch(&mut self) {
        let singles = (*self.owner).as_ref();
        let fetch = match self.quest.direction {
            Direction::Forward => forward(singles, &self.quest, &mut self.fetched),
            Direction::Backward => backward(singles, &self.quest, &mut self.fetched),
        };
        match (fetch, self.quest.direction) {
            (None, _) => self.exhausted = true,
            (Some(row), Direction::Forward) => self.quest.range.low = Bound::Excluded(row),
            (Some(row), Direction::Backward) => self.quest.range.high = Bound::Excluded(row),
        }
    }
}

/// Fetches visible rows; the last row looked at, or `None` at the end of the range.
fn forward(singles: &Singles, quest: &Quest, out: &mut VecDeque<RowVersion>) -> Option<Bytes> {
    let mut next = lower_entry(singles, &quest.range);
    let mut last: Option<Bytes> = None;
    loop {
        let entry = next?;
        let row = &entry.key().row;
        if !quest.range.below_high(row.as_bytes()) {
            return None;
        }
        if last.as_deref() != Some(row.as_bytes()) && entry.key().stamp <= quest.at {
            let found = row_version(&entry);
            last = Some(found.row.clone());
            out.push_back(found);
            if out.len() == FETCH_ROWS {
                return last;
            }
        }
        next = entry.next();
    }
}

/// As [`forward`], the other way: a row's versions come oldest first.
fn backward(singles: &Singles, quest: &Quest, out: &mut VecDeque<RowVersion>) -> Option<Bytes> {
    let mut next = upper_entry(singles, &quest.range);
    loop {
        let entry = next?;
        let row = &entry.key().row;
        if !quest.range.above_low(row.as_bytes()) {
            return None;
        }
        if entry.key().stamp <= quest.at {
            let full = out.len() == FETCH_ROWS;
            match out.back_mut() {
                Some(last) if last.row == row.as_bytes() => last.version = version_of(&entry),
                // The row before is complete only now that another one follows.
                Some(last) if full => return Some(last.row.clone()),
                _ => out.push_back(row_version(&entry)),
            }
        }
        next = entry.prev();
    }
}

fn lower_entry<'a>(singles: &'a Singles, range: &RowRange) -> Option<Entry<'a, Key, Value>> {
    match range.start() {
        Some((row, stamp)) => {
            let probe: &dyn Place = &(row.as_ref(), stamp);
            singles.0.lower_bound(Bound::Included(probe))
        }
        None => singles.0.front(),
    }
}

fn upper_entry<'a>(singles: &'a Singles, range: &RowRange) -> Option<Entry<'a, Key, Value>> {
    match range.end() {
        Some((row, stamp)) => {
            let probe: &dyn Place = &(row.as_ref(), stamp);
            singles.0.upper_bound(Bound::Excluded(probe))
        }
        None => singles.0.back(),
    }
}

impl<O: AsRef<Singles> + std::fmt::Debug + Send + Sync> Cursor for SinglesCursor<O> {
    fn step(&mut self) -> Option<Step> {
        if self.fetched.is_empty() && !self.exhausted {
            self.fetch();
        }
        self.fetched.pop_front().map(Step::Row)
    }
}
