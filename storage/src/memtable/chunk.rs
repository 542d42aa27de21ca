//! Many versions, sorted once and never changed: a large write set as it was committed (W2), or what
//! recovery replayed.
//!
//! Called by `memtable`.
//! 1. In version order.
//! 2. A write set has one stamp for all, which it gets when it is committed; replayed versions have one each.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lockstone_base::{Lsn, RowKey};

use super::table::Table;
use crate::cursor::{Cursor, Direction, Quest, Step};
use crate::error::StorageError;
use crate::row_hash::row_hash;
use crate::version::{RowVersion, Version, VersionRef, version_order};
use crate::walk::Walker;

/// Sorted, immutable versions.
#[derive(Debug)]
pub(super) struct Chunk {
    rows: Vec<(RowKey, Option<Bytes>)>,
    stamps: Stamps,
    /// Each row's first version, by the row's hash: where there are many chunks, most do not have the row
    /// that is looked for. Empty until [`Chunk::index`] fills it.
    heads: Option<Table>,
}

#[derive(Debug)]
enum Stamps {
    /// Set when the write set is committed.
    All(OnceLock<Lsn>),
    Each(Vec<Lsn>),
}

impl Chunk {
    /// A write set that gets its stamp when it is committed.
    pub(super) fn uncommitted(rows: Vec<(RowKey, Option<Bytes>)>, salt: u64) -> Self {
        let mut chunk = Self {
            rows,
            stamps: Stamps::All(OnceLock::new()),
            heads: None,
        };
        chunk.index(salt);
        chunk
    }

    /// Commits a write set at `stamp`. Constant time; in the append latch.
    pub(super) fn commit(&self, stamp: Lsn) {
        let fresh = match &self.stamps {
            Stamps::All(all) => all.set(stamp).is_ok(),
            Stamps::Each(_) => false,
        };
        assert!(fresh, "W2: a write set is committed once");
    }

    /// Versions in version order, each with its own stamp.
    pub(super) fn sorted(versions: impl Iterator<Item = (RowKey, Lsn, Option<Bytes>)>) -> Self {
        let mut rows = Vec::new();
        let mut stamps = Vec::new();
        for (row, stamp, value) in versions {
            rows.push((row, value));
            stamps.push(stamp);
        }
        let chunk = Self {
            rows,
            stamps: Stamps::Each(stamps),
            heads: None,
        };
        assert!(
            (1..chunk.len()).all(|i| chunk.place(i - 1) < chunk.place(i)),
            "versions of a chunk are sorted, and none is there twice"
        );
        chunk
    }

    /// Makes rows findable by their hash.
    pub(super) fn index(&mut self, salt: u64) {
        let heads = Table::new(Table::bits_for(self.rows.len()));
        let mut before: Option<&RowKey> = None;
        for ((row, _), number) in self.rows.iter().zip(0..) {
            if before != Some(row) {
                heads.add(row_hash(salt, row.as_bytes()), number);
            }
            before = Some(row);
        }
        self.heads = Some(heads);
    }

    /// How many versions it has.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The newest version of `row`, which has this hash, at or below `at`.
    pub(super) fn get(&self, row: &[u8], hash: u64, at: Lsn) -> Option<Version> {
        let is_row = |row_at: usize| {
            self.row(row_at)
                .is_some_and(|found| found.as_bytes() == row)
        };
        let newest = match &self.heads {
            Some(heads) => heads.find(hash, |number| is_row(number as usize))? as usize,
            None => self.position((row, Lsn::MAX)),
        };
        let found = if self.stamp(newest) <= at {
            newest
        } else {
            self.position((row, at))
        };
        is_row(found)
            .then(|| self.entry(found))?
            .map(|(_, version)| version)
    }

    /// The version number `index`.
    pub(super) fn entry(&self, index: usize) -> Option<(&RowKey, Version)> {
        let (row, value) = self.rows.get(index)?;
        let version = Version {
            stamp: self.stamp(index),
            value: value.clone(),
        };
        Some((row, version))
    }

    fn stamp(&self, index: usize) -> Lsn {
        match &self.stamps {
            // Chunks are linked into a memtable, where readers find them, with their stamp.
            Stamps::All(stamp) => stamp.get().copied().unwrap_or(Lsn::MAX),
            Stamps::Each(stamps) => stamps.get(index).copied().unwrap_or_default(),
        }
    }

    /// How many versions stand before `place` in version order.
    fn position(&self, place: (&[u8], Lsn)) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.rows.get(middle) {
                Some((row, _))
                    if version_order((row.as_bytes(), self.stamp(middle)), place).is_lt() =>
                {
                    low = middle + 1;
                }
                _ => high = middle,
            }
        }
        low
    }

    fn row(&self, index: usize) -> Option<&RowKey> {
        self.rows.get(index).map(|(row, _)| row)
    }

    fn place(&self, index: usize) -> Option<(&RowKey, std::cmp::Reverse<Lsn>)> {
        Some((self.row(index)?, std::cmp::Reverse(self.stamp(index))))
    }
}

/// Walks all versions of one chunk.
#[derive(Debug)]
pub(super) struct ChunkWalker<'a> {
    chunk: &'a Chunk,
    /// How many versions it has come to.
    begun: usize,
}

impl Chunk {
    /// All versions, in version order.
    pub(super) fn walk(&self) -> ChunkWalker<'_> {
        ChunkWalker {
            chunk: self,
            begun: 0,
        }
    }
}

impl Walker for ChunkWalker<'_> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        let there = self.begun < self.chunk.len();
        self.begun += usize::from(there);
        Ok(there)
    }

    fn version(&self) -> VersionRef<'_> {
        let index = self.begun.saturating_sub(1);
        let version = self.chunk.rows.get(index);
        let (row, value) = version.expect("a version is asked for while there is one");
        VersionRef {
            row: row.as_bytes(),
            stamp: self.chunk.stamp(index),
            value: value.as_deref(),
        }
    }
}

/// Walks one chunk's visible rows.
#[derive(Debug)]
pub(super) struct ChunkCursor {
    chunk: Arc<Chunk>,
    quest: Quest,
    /// Forward: the next version to look at. Backward: how many are left before the last one yielded.
    position: usize,
}

impl ChunkCursor {
    pub(super) fn new(chunk: Arc<Chunk>, quest: Quest) -> Self {
        let place = match quest.direction {
            Direction::Forward => quest.range.start(),
            Direction::Backward => quest.range.end(),
        };
        let position = match (place, quest.direction) {
            (Some((row, stamp)), _) => chunk.position((row, stamp)),
            (None, Direction::Forward) => 0,
            (None, Direction::Backward) => chunk.len(),
        };
        Self {
            chunk,
            quest,
            position,
        }
    }

    fn forward(&mut self) -> Option<RowVersion> {
        loop {
            let row = self.chunk.row(self.position)?;
            if !self.quest.range.below_high(row.as_bytes()) {
                return None;
            }
            let start = self.position;
            self.position = self.chunk.position((row.as_bytes(), Lsn::ZERO));
            if let Some(found) = self.visible(start, self.position) {
                return Some(found);
            }
        }
    }

    fn backward(&mut self) -> Option<RowVersion> {
        loop {
            let end = self.position;
            let row = self.chunk.row(end.checked_sub(1)?)?;
            if !self.quest.range.above_low(row.as_bytes()) {
                return None;
            }
            self.position = self.chunk.position((row.as_bytes(), Lsn::MAX));
            if let Some(found) = self.visible(self.position, end) {
                return Some(found);
            }
        }
    }

    /// The newest visible one of the versions `start..end`, which are one row's.
    fn visible(&self, start: usize, end: usize) -> Option<RowVersion> {
        let index = (start..end).find(|index| self.chunk.stamp(*index) <= self.quest.at)?;
        let (row, version) = self.chunk.entry(index)?;
        Some(RowVersion {
            row: row.to_bytes(),
            version,
        })
    }
}

impl Cursor for ChunkCursor {
    fn step(&mut self) -> Option<Step> {
        match self.quest.direction {
            Direction::Forward => self.forward(),
            Direction::Backward => self.backward(),
        }
        .map(Step::Row)
    }
}
