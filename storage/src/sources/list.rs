//! Where the versions are: one immutable list of memtables and runs, newest first.
//!
//! Taken by every reader *after* its LSN (W5), replaced as a whole by rotation, adoption, flush and merge.
//! 1. Newest first: of a row, what a source has is newer than what the sources behind it have, so the first
//!    one with a visible version has the newest one.
//! 2. Below the drop horizon versions may have been dropped: a reader whose LSN is below it, and not
//!    registered, takes both again (W7).
//! 3. A list lives as long as somebody reads it; files that a newer list replaced stay readable through
//!    their maps.

use std::sync::Arc;

use lockstone_base::Lsn;

use super::departure::Departure;
use super::stack::{Layer, Place, Stack};
use crate::error::StorageError;
use crate::memtable::Memtable;
use crate::question::Question;
use crate::row_hash::row_hash;
use crate::run::{Run, RunEntry};
use crate::tree::{Group, Tree};
use crate::version::Version;

/// An immutable list of what holds versions, newest first.
#[derive(Debug, Clone)]
pub struct Sources {
    /// It takes commits.
    pub(crate) active: Arc<Memtable>,
    /// Behind it: sealed memtables, and what commits have adopted.
    pub(crate) stack: Stack,
    /// The runs.
    pub(crate) tree: Arc<Tree>,
    pub(crate) drop_horizon: Lsn,
    /// The database's, with which rows are hashed.
    pub(crate) salt: u64,
    /// The last one: it tells that all before it has gone (S6).
    pub(crate) _departure: Departure,
}

/// What an open transaction has written and spilled, as it reads that itself.
#[derive(Debug, Clone)]
pub struct OwnRuns {
    group: Arc<Group>,
    /// Stands in the place of the memtable that takes commits.
    nothing: Arc<Memtable>,
}

impl OwnRuns {
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn new(group: Group) -> Self {
        Self {
            group: Arc::new(group),
            nothing: Arc::default(),
        }
    }
}

impl Sources {
    /// Reads below this LSN may miss versions that were dropped (W7).
    pub fn drop_horizon(&self) -> Lsn {
        self.drop_horizon
    }

    /// The newest version of the encoded row `row` at or below `at`, a tombstone too.
    ///
    /// # Errors
    /// The disk's, or [`StorageError::Corrupt`], if a source that could hold the answer cannot be read:
    /// an older source is never asked in its place.
    pub fn get(&self, row: &[u8], at: Lsn) -> Result<Option<Version>, StorageError> {
        let hash = row_hash(self.salt, row);
        if let Some(version) = self.active.get(row, hash, at) {
            return Ok(Some(version));
        }
        for layer in self.stack.layers() {
            if let Some(version) = layer.get(row, hash, at)? {
                return Ok(Some(version));
            }
        }
        self.tree.get(row, hash, at)
    }

    /// What [`Sources::get`] gives for each of `rows`, in their order: looked up together, which overlaps what
    /// each has to wait for.
    ///
    /// # Errors
    /// Each row's own.
    pub fn get_many(
        &self,
        rows: &[impl AsRef<[u8]>],
        at: Lsn,
    ) -> Vec<Result<Option<Version>, StorageError>> {
        let rows = rows.iter().map(AsRef::as_ref);
        let mut questions: Vec<_> = rows
            .enumerate()
            .map(|(place, row)| Question {
                row,
                hash: row_hash(self.salt, row),
                place,
                answer: None,
            })
            .collect();
        questions.sort_unstable_by(|a, b| a.row.cmp(b.row));
        self.active.get_many(&mut questions, at);
        for layer in self.stack.layers() {
            layer.get_many(&mut questions, at);
        }
        self.tree.get_many(&mut questions, at);
        questions.sort_unstable_by_key(|question| question.place);
        let answers = questions.into_iter().map(|question| question.answer);
        answers.map(Option::transpose).collect()
    }

    /// The same list, under what the reader itself has spilled: newer than all of it, and seen at whatever moment it reads.
    #[must_use]
    pub fn under(&self, own: &OwnRuns) -> Self {
        let mut below = self.clone();
        let active = std::mem::replace(&mut below.active, Arc::clone(&own.nothing));
        below.stack.put(Place::new(Layer::Memtable(active)));
        below
            .stack
            .put(Place::new(Layer::Own(Arc::clone(&own.group))));
        below
    }

    /// The sealed memtables, newest first.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.stack.layers().filter_map(|layer| match layer {
            Layer::Memtable(memtable) => Some(memtable),
            Layer::Adopted(_) | Layer::Own(_) => None,
        })
    }

    /// The memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.sealed())
    }

    /// What commits have adopted that is not in the tree yet, newest first.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.stack.layers().filter_map(|layer| match layer {
            Layer::Adopted(group) => Some(group),
            Layer::Memtable(_) | Layer::Own(_) => None,
        })
    }

    /// Whether one of the runs is this one.
    pub(crate) fn has(&self, run: &RunEntry) -> bool {
        self.groups().any(|group| group.tree().has(run)) || self.tree.has(run)
    }

    /// All runs, newest first: what commits have adopted, and the tree's from the top.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        let adopted = self.groups().flat_map(|group| group.runs());
        adopted.chain(self.tree.runs())
    }
}
