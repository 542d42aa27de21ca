//! Committed versions in memory: what the log alone keeps durable.
//!
//! Written by `Store::apply` under the log's append latch, read by everyone beside it, sealed by
//! `Store::rotate`, turned into a run by the flush.
//! 1. One writer at a time; stamps only grow.
//! 2. Up to 64 rows are inserted one by one; a larger write set is taken as it is, as a chunk (W2).
//! 3. A sealed memtable never changes; its end is the commit tail at its sealing: every version in it
//!    is at or below it, every version in a newer memtable above (W5).
//!
//! Crash: memory only; recovery builds it anew from the log ([`Memtable::replayed`]).

mod chunk;
mod singles;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lockstone_base::Lsn;
use parking_lot::RwLock;

use crate::batch::{SINGLE_ROWS_MAX, WriteBatch, entry_bytes};
use crate::cursor::{Cursor, Quest};
use crate::error::StorageError;
use crate::merge::{Versions, merged};
use crate::version::{Replayed, RowVersion, Version};
use chunk::{Chunk, ChunkCursor};
use singles::{Singles, SinglesCursor};

/// Committed versions in memory.
#[derive(Debug, Default)]
pub struct Memtable {
    singles: Singles,
    /// Oldest first.
    chunks: RwLock<Vec<Arc<Chunk>>>,
    bytes: AtomicUsize,
    /// Every stamp in it, now and later, is above this commit tail.
    floor: AtomicU64,
    /// The newest stamp in it, or the floor.
    newest: AtomicU64,
    end: OnceLock<Lsn>,
}

impl Memtable {
    /// An empty memtable, for versions above `floor`.
    pub(crate) fn above(floor: Lsn) -> Self {
        let memtable = Self::default();
        memtable.floor.store(floor.get(), Ordering::Relaxed);
        memtable.newest.store(floor.get(), Ordering::Relaxed);
        memtable
    }

    /// What recovery read from the log: `versions` in any order, of commits at or below `end`. Sealed.
    /// A version that is there twice counts once.
    pub fn replayed(mut versions: Vec<Replayed>, end: Lsn) -> Self {
        assert!(
            versions.iter().all(|version| version.stamp <= end),
            "W5: a memtable's end is at or above its stamps"
        );
        versions.sort_by(|a, b| a.row.cmp(&b.row).then(b.stamp.cmp(&a.stamp)));
        versions.dedup_by(|a, b| a.row == b.row && a.stamp == b.stamp);
        let bytes = versions
            .iter()
            .map(|version| entry_bytes(&version.row, version.value.as_ref()))
            .sum();
        let memtable = Self::default();
        memtable.newest.store(end.get(), Ordering::Relaxed);
        if !versions.is_empty() {
            let versions = versions
                .into_iter()
                .map(|version| (version.row, version.stamp, version.value));
            memtable
                .chunks
                .write()
                .push(Arc::new(Chunk::sorted(versions)));
        }
        memtable.bytes.store(bytes, Ordering::Relaxed);
        memtable.seal(end);
        memtable
    }

    /// Takes `batch`, committed at `stamp`. Called in the append latch alone.
    pub(crate) fn apply(&self, batch: WriteBatch, stamp: Lsn) {
        assert!(
            self.end.get().is_none(),
            "W5: a sealed memtable never changes"
        );
        assert!(
            self.newest() < stamp,
            "W2: commits are applied in the order of their LSNs"
        );
        self.newest.store(stamp.get(), Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
        if batch.rows() > SINGLE_ROWS_MAX {
            let chunk = Arc::new(Chunk::committed(batch.into_rows(), stamp));
            self.chunks.write().push(chunk);
            return;
        }
        for (row, value) in batch.into_rows() {
            self.singles.insert(row, stamp, value);
        }
    }

    /// Ends the memtable at the commit tail `end`. Called in the append latch alone.
    pub(crate) fn seal(&self, end: Lsn) {
        assert!(
            self.newest() <= end,
            "W5: a memtable's end is at or above its stamps"
        );
        let sealed = self.end.set(end);
        assert!(sealed.is_ok(), "W5: a memtable is sealed once");
    }

    /// Raises the floor of an empty memtable to the commit tail. In the append latch alone.
    pub(crate) fn raise_floor(&self, tail: Lsn) {
        assert!(
            self.is_empty(),
            "S1: only an empty memtable holds nothing at or below the tail"
        );
        self.floor.fetch_max(tail.get(), Ordering::Relaxed);
        self.newest.fetch_max(tail.get(), Ordering::Relaxed);
    }

    /// The commit tail that every stamp in it, now and later, is above.
    pub(crate) fn floor(&self) -> Lsn {
        Lsn::new(self.floor.load(Ordering::Relaxed))
    }

    fn newest(&self) -> Lsn {
        Lsn::new(self.newest.load(Ordering::Relaxed))
    }

    /// The commit tail at its sealing.
    pub(crate) fn end(&self) -> Option<Lsn> {
        self.end.get().copied()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.chunks.read().is_empty()
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many versions it has.
    pub fn versions(&self) -> usize {
        let chunks: usize = self.chunks.read().iter().map(|chunk| chunk.len()).sum();
        self.singles.len() + chunks
    }

    /// The newest version of `row` at or below `at`.
    pub(crate) fn get(&self, row: &[u8], at: Lsn) -> Option<Version> {
        let single = self.singles.get(row, at);
        let chunked = self
            .chunks
            .read()
            .iter()
            .rev()
            .find_map(|chunk| chunk.get(row, at));
        match (single, chunked) {
            (Some(a), Some(b)) => Some(if a.stamp > b.stamp { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// One cursor for the single rows and one for each chunk.
    pub(crate) fn cursors(self: &Arc<Self>, quest: &Quest) -> Vec<Box<dyn Cursor>> {
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
        if !self.singles.is_empty() {
            cursors.push(Box::new(SinglesCursor::new(
                Arc::clone(self),
                quest.clone(),
            )));
        }
        for chunk in self.chunks.read().iter() {
            cursors.push(Box::new(ChunkCursor::new(Arc::clone(chunk), quest.clone())));
        }
        cursors
    }

    /// Every version, in version order. For a sealed memtable.
    ///
    /// # Errors
    /// None of its own; the signature is that of every source of a merge.
    pub(crate) fn all(
        &self,
    ) -> Result<impl Iterator<Item = Result<RowVersion, StorageError>> + '_, StorageError> {
        assert!(
            self.end.get().is_some(),
            "S1: only a sealed memtable is flushed"
        );
        let mut sources: Vec<Versions<'_>> = vec![Box::new(self.singles.iter().map(Ok))];
        for chunk in self.chunks.read().iter() {
            sources.push(Box::new(chunk_versions(Arc::clone(chunk)).map(Ok)));
        }
        merged(sources)
    }
}

fn chunk_versions(chunk: Arc<Chunk>) -> impl Iterator<Item = RowVersion> {
    (0..chunk.len()).map_while(move |index| {
        let (row, version) = chunk.entry(index)?;
        Some(RowVersion {
            row: row.to_bytes(),
            version,
        })
    })
}

impl AsRef<Singles> for Memtable {
    fn as_ref(&self) -> &Singles {
        &self.singles
    }
}

#[cfg(test)]
mod tests;
