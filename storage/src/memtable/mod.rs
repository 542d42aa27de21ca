//! Committed versions in memory: what the log alone keeps durable.
//!
//! Written by `Store::apply` under the log's append latch, read by everyone beside it, sealed by
//! `Store::rotate`, turned into a run by the flush.
//! 1. One writer at a time; stamps only grow.
//! 2. Up to 64 rows are linked one by one; a larger write set is taken as it is, as a chunk (W2). Whatever
//!    that needs was prepared before the append latch was taken.
//! 3. A sealed memtable never changes; its end is the commit tail at its sealing: every version in it
//!    is at or below it, every version in a newer memtable above (W5).
//!
//! Crash: memory only; recovery builds it anew from the log ([`Memtable::replayed`]).

mod slots;
mod table;
mod index;
mod entry;
mod packing;
mod order;
mod singles;
mod chunk;
mod prepared;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lockstone_base::{Apart, Lsn};

use crate::cursor::{Cursor, Quest};
use crate::merge::Merge;
use crate::question::Question;
use crate::version::{Replayed, Version};
use crate::walk::Walker;
use chunk::{Chunk, ChunkCursor};
use prepared::Writes;
use singles::{Singles, SinglesCursor};
use slots::Slots;

pub use prepared::Prepared;
pub(crate) use prepared::{Preparing, Promised};

/// Chunks are few; room for them is made some at a time.
const CHUNK_BLOCK_BITS: u32 = 4;

/// Committed versions in memory.
#[derive(Debug, Default)]
pub struct Memtable {
    singles: Singles,
    /// Oldest first.
    chunks: Slots<Arc<Chunk>, CHUNK_BLOCK_BITS>,
    /// Every stamp in it, now and later, is above this commit tail.
    floor: AtomicU64,
    end: OnceLock<Lsn>,
    /// What changes with every commit, apart from what readers look at.
    growth: Apart<Growth>,
}

#[derive(Debug, Default)]
struct Growth {
    bytes: AtomicUsize,
    /// The newest stamp in it, or the floor.
    newest: AtomicU64,
}

impl Memtable {
    /// An empty memtable, for versions above `floor`.
    pub(crate) fn above(floor: Lsn) -> Self {
        let memtable = Self::default();
        memtable.floor.store(floor.get(), Ordering::Relaxed);
        memtable.growth.newest.store(floor.get(), Ordering::Relaxed);
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
        let oldest = versions.iter().map(|version| version.stamp).min();
        let floor = oldest.map_or(end.get(), |oldest| oldest.get().saturating_sub(1));
        let memtable = Self::above(Lsn::new(floor));
        memtable.growth.newest.store(end.get(), Ordering::Relaxed);
        let mut bytes = 0;
        if !versions.is_empty() {
            let chunk = Chunk::sorted(versions);
            bytes = chunk.bytes();
            memtable.chunks.make_room(1);
            memtable.chunks.push(Arc::new(chunk));
        }
        memtable.growth.bytes.store(bytes, Ordering::Relaxed);
        memtable.seal(end);
        memtable
    }

    /// Makes what was replayed findable by rows' hashes.
    pub(crate) fn index(&mut self, salt: u64) {
        for number in 0..self.chunks.len() {
            self.chunks
                .get_mut(number)
                .and_then(Arc::get_mut)
                .expect("a memtable that nobody reads yet has its chunks for itself")
                .index(salt);
        }
    }

    /// Makes room for all that is promised, whoever may come first. Outside the append latch.
    pub(crate) fn make_room(&self, promised: &Promised) {
        let (singles, chunks) = promised.all();
        self.singles.make_room(singles);
        self.chunks.make_room(chunks);
    }

    /// Takes a write set, committed at `stamp`, for which room was made: allocates nothing, waits for
    /// nobody. Called in the append latch alone.
    pub(crate) fn apply(&self, prepared: &mut Prepared, stamp: Lsn) {
        assert!(
            self.end.get().is_none(),
            "W5: a sealed memtable never changes"
        );
        assert!(
            self.newest() < stamp,
            "W2: commits are applied in the order of their LSNs"
        );
        self.growth.newest.store(stamp.get(), Ordering::Relaxed);
        self.growth
            .bytes
            .fetch_add(prepared.bytes, Ordering::Relaxed);
        match &mut prepared.writes {
            Writes::Singles(singles) => {
                for (hash, entry) in singles.drain(..) {
                    self.singles.link(hash, entry, stamp);
                }
            }
            Writes::Chunk(chunk) => {
                let chunk = chunk.take().expect("W2: a write set is applied once");
                chunk.commit(stamp);
                self.chunks.push(chunk);
            }
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
        self.growth.newest.fetch_max(tail.get(), Ordering::Relaxed);
    }

    /// The commit tail that every stamp in it, now and later, is above.
    pub(crate) fn floor(&self) -> Lsn {
        Lsn::new(self.floor.load(Ordering::Relaxed))
    }

    /// The newest stamp in it, or the floor.
    pub(crate) fn newest(&self) -> Lsn {
        Lsn::new(self.growth.newest.load(Ordering::Relaxed))
    }

    /// The commit tail at its sealing.
    pub(crate) fn end(&self) -> Option<Lsn> {
        self.end.get().copied()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.chunks.len() == 0
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.growth.bytes.load(Ordering::Relaxed)
    }

    /// How many versions it has.
    pub fn versions(&self) -> usize {
        let chunks: usize = self.chunks().map(|chunk| chunk.len()).sum();
        self.singles.len() + chunks
    }

    /// The newest version of `row`, which has this [hash](crate::row_hash::row_hash), at or below `at`.
    pub(crate) fn get(&self, row: &[u8], hash: u64, at: Lsn) -> Option<Version> {
        if at <= self.floor() {
            return None;
        }
        let single = self.singles.get(row, hash, at);
        let chunked = self.chunks().find_map(|chunk| chunk.get(row, hash, at));
        match (single, chunked) {
            (Some(a), Some(b)) => Some(if a.stamp > b.stamp { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Answers those of the questions that it has a version at or below `at` for.
    pub(crate) fn get_many(&self, questions: &mut [Question<'_>], at: Lsn) {
        for question in questions.iter_mut().filter(|it| it.answer.is_none()) {
            question.take(Ok(self.get(question.row, question.hash, at)));
        }
    }

    /// The chunks, newest first.
    fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        let numbers = (0..self.chunks.len()).rev();
        numbers.filter_map(|number| self.chunks.get(number))
    }

    /// One cursor for the single rows and one for each chunk.
    pub(crate) fn cursors(self: &Arc<Self>, quest: &Quest) -> Vec<Box<dyn Cursor>> {
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
        if quest.at <= self.floor() {
            return cursors;
        }
        if !self.singles.is_empty() {
            cursors.push(Box::new(SinglesCursor::new(
                Arc::clone(self),
                quest.clone(),
            )));
        }
        for chunk in self.chunks() {
            cursors.push(Box::new(ChunkCursor::new(Arc::clone(chunk), quest.clone())));
        }
        cursors
    }

    /// The cursors of [`Memtable::cursors`] that may come to a version above `since`.
    pub(crate) fn cursors_since(
        self: &Arc<Self>,
        quest: &Quest,
        since: Lsn,
    ) -> Vec<Box<dyn Cursor>> {
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
        if self.newest() <= since {
            return cursors;
        }
        if !self.singles.is_empty() {
            cursors.push(Box::new(SinglesCursor::new(
                Arc::clone(self),
                quest.clone(),
            )));
        }
        for chunk in self.chunks().filter(|chunk| chunk.reaches_above(since)) {
            cursors.push(Box::new(ChunkCursor::new(Arc::clone(chunk), quest.clone())));
        }
        cursors
    }

    /// Every version, in version order. For a sealed memtable.
    pub(crate) fn walk(&self) -> Merge<Box<dyn Walker + '_>> {
        assert!(
            self.end.get().is_some(),
            "S1: only a sealed memtable is flushed"
        );
        let mut walkers: Vec<Box<dyn Walker + '_>> = vec![Box::new(self.singles.walk())];
        for chunk in self.chunks() {
            walkers.push(Box::new(chunk.walk()));
        }
        Merge::new(walkers)
    }
}

#[cfg(test)]
impl Memtable {
    /// Prepares and applies `batch`.
    pub(crate) fn commit(&self, batch: crate::batch::WriteBatch, stamp: Lsn, salt: u64) {
        let preparing = Preparing::new(salt);
        let mut prepared = preparing.prepare(batch);
        self.make_room(preparing.promised());
        self.apply(&mut prepared, stamp);
    }
}

impl AsRef<Singles> for Memtable {
    fn as_ref(&self) -> &Singles {
        &self.singles
    }
}

#[cfg(test)]
mod tests;
