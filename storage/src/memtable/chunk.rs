//! Many versions, sorted once and never changed: a large write set as it was committed (W2), or what
//! recovery replayed.
//!
//! Called by `memtable`.
//! 1. In version order.
//! 2. A write set has one stamp for all, which it gets when it is committed; replayed versions have one each.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lockstone_base::Lsn;

use super::table::Table;
use crate::batch::chunk_bytes;
use crate::cursor::{Cursor, Direction, Quest, Step};
use crate::error::StorageError;
use crate::packed_rows::{PackedRows, RowPacker};
use crate::row_hash::row_hash;
use crate::version::{Replayed, Version, VersionRef, version_order};
use crate::walk::Walker;

/// Sorted, immutable versions.
#[derive(Debug)]
pub(super) struct Chunk {
    rows: PackedRows,
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
    pub(super) fn uncommitted(rows: PackedRows, salt: u64) -> Self {
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
    pub(super) fn sorted(versions: Vec<Replayed>) -> Self {
        let mut rows = RowPacker::default();
        let mut stamps = Vec::with_capacity(versions.len());
        for version in versions {
            rows.add(&version.row, version.value);
            stamps.push(version.stamp);
        }
        let rows = rows.finish();
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
        let mut before = None;
        for number in 0..self.rows.len() {
            let row = self.rows.row(number);
            if before != row {
                heads.add(row_hash(salt, row.unwrap_or_default()), number as u32);
            }
            before = row;
        }
        self.heads = Some(heads);
    }

    /// How many versions it has.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The newest version of `row`, which has this hash, at or below `at`.
    pub(super) fn get(&self, row: &[u8], hash: u64, at: Lsn) -> Option<Version> {
        let is_row = |row_at: usize| self.row(row_at) == Some(row);
        let newest = match &self.heads {
            Some(heads) => heads.find(hash, |number| is_row(number as usize))? as usize,
            None => self.position((row, Lsn::MAX)),
        };
        let found = if self.stamp(newest) <= at {
            newest
        } else {
            self.position((row, at))
        };
        is_row(found).then(|| self.version(found))?
    }

    fn version(&self, index: usize) -> Option<Version> {
        Some(Version {
            stamp: self.stamp(index),
            value: self.rows.effect(index)?,
        })
    }

    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        chunk_bytes(&self.rows)
    }

    fn stamp(&self, index: usize) -> Lsn {
        match &self.stamps {
            // Chunks are linked into a memtable, where readers find them, with their stamp.
            Stamps::All(stamp) => stamp.get().copied().unwrap_or(Lsn::MAX),
            Stamps::Each(stamps) => stamps.get(index).copied().unwrap_or_default(),
        }
    }

    /// Whether it may have a stamp above `since`.
    pub(super) fn reaches_above(&self, since: Lsn) -> bool {
        match &self.stamps {
            Stamps::All(_) => self.stamp(0) > since,
            Stamps::Each(_) => true,
        }
    }

    /// How many versions stand before `place` in version order.
    fn position(&self, place: (&[u8], Lsn)) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.rows.row(middle) {
                Some(row) if version_order((row, self.stamp(middle)), place).is_lt() => {
                    low = middle + 1;
                }
                _ => high = middle,
            }
        }
        low
    }

    /// How many versions stand before the end of the row whose version number `index` is.
    fn row_end(&self, index: usize) -> usize {
        match (&self.stamps, self.row(index)) {
            // A write set has one version per row.
            (Stamps::Each(_), Some(row)) => self.position((row, Lsn::ZERO)),
            _ => index + 1,
        }
    }

    /// The number of the first version of the row whose version number `index` is.
    fn row_start(&self, index: usize) -> usize {
        match (&self.stamps, self.row(index)) {
            (Stamps::Each(_), Some(row)) => self.position((row, Lsn::MAX)),
            _ => index,
        }
    }

    /// The version number `index`, which there is, where it lies.
    fn version_ref(&self, index: usize) -> VersionRef<'_> {
        let row = self.row(index);
        VersionRef {
            row: row.expect("a version is asked for while there is one"),
            stamp: self.stamp(index),
            value: self.rows.value(index),
        }
    }

    /// The row of the version number `index`.
    pub(super) fn row(&self, index: usize) -> Option<&[u8]> {
        self.rows.row(index)
    }

    fn place(&self, index: usize) -> Option<(&[u8], std::cmp::Reverse<Lsn>)> {
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
        self.chunk.version_ref(self.begun.saturating_sub(1))
    }
}

/// Walks one chunk's visible rows.
#[derive(Debug)]
pub(super) struct ChunkCursor {
    chunk: Arc<Chunk>,
    quest: Quest,
    /// Forward: the next version to look at. Backward: how many are left before the last one yielded.
    position: usize,
    /// The version that it has come to.
    now: usize,
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
            now: 0,
        }
    }

    fn forward(&mut self) -> Option<usize> {
        loop {
            let row = self.chunk.row(self.position)?;
            if !self.quest.range.below_high(row) {
                return None;
            }
            let start = self.position;
            self.position = self.chunk.row_end(start);
            if let Some(found) = self.visible(start, self.position) {
                return Some(found);
            }
        }
    }

    fn backward(&mut self) -> Option<usize> {
        loop {
            let end = self.position;
            let row = self.chunk.row(end.checked_sub(1)?)?;
            if !self.quest.range.above_low(row) {
                return None;
            }
            self.position = self.chunk.row_start(end - 1);
            if let Some(found) = self.visible(self.position, end) {
                return Some(found);
            }
        }
    }

    /// The newest visible one of the versions `start..end`, which are one row's.
    fn visible(&self, start: usize, end: usize) -> Option<usize> {
        (start..end).find(|index| self.chunk.stamp(*index) <= self.quest.at)
    }
}

impl Cursor for ChunkCursor {
    fn step(&mut self) -> Step {
        let found = match self.quest.direction {
            Direction::Forward => self.forward(),
            Direction::Backward => self.backward(),
        };
        match found {
            Some(found) => {
                self.now = found;
                Step::Row
            }
            None => Step::End,
        }
    }

    fn version(&self) -> VersionRef<'_> {
        self.chunk.version_ref(self.now)
    }

    fn value(&self) -> Option<Bytes> {
        self.chunk.rows.effect(self.now).flatten()
    }
}
