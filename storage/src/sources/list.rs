//! Where the versions are: one immutable list of memtables and runs, newest first.
//!
//! Taken by every reader *after* its LSN (W5), replaced as a whole by rotation, flush and merge.
//! 1. Newest first: of a row, what a source has is newer than what the sources behind it have, so the first
//!    one with a visible version has the newest one.
//! 2. Below the drop horizon versions may have been dropped: a reader whose LSN is below it, and not
//!    registered, takes both again (W7).
//! 3. A list lives as long as somebody reads it; files that a newer list replaced stay readable through
//!    their maps.

use std::sync::Arc;

use lockstone_base::Lsn;

use super::departure::Departure;
use crate::error::StorageError;
use crate::memtable::Memtable;
use crate::question::Question;
use crate::row_hash::row_hash;
use crate::tree::Tree;
use crate::version::Version;

/// An immutable list of what holds versions, newest first.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The first one takes commits; the others are sealed.
    pub(crate) memtables: Vec<Arc<Memtable>>,
    /// The runs.
    pub(crate) tree: Arc<Tree>,
    pub(crate) drop_horizon: Lsn,
    /// The database's, with which rows are hashed.
    pub(crate) salt: u64,
    /// The last one: it tells that all before it has gone (S6).
    pub(crate) _departure: Departure,
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
        for memtable in &self.memtables {
            if let Some(version) = memtable.get(row, hash, at) {
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
        for memtable in &self.memtables {
            for question in questions.iter_mut().filter(|it| it.answer.is_none()) {
                question.take(Ok(memtable.get(question.row, question.hash, at)));
            }
        }
        questions.sort_unstable_by(|a, b| a.row.cmp(b.row));
        self.tree.get_many(&mut questions, at);
        questions.sort_unstable_by_key(|question| question.place);
        let answers = questions.into_iter().map(|question| question.answer);
        answers.map(Option::transpose).collect()
    }

    pub(crate) fn active(&self) -> &Arc<Memtable> {
        self.memtables
            .first()
            .expect("W5: a list begins with the memtable that takes commits")
    }

    pub(crate) fn sealed(&self) -> &[Arc<Memtable>] {
        self.memtables.get(1..).unwrap_or_default()
    }
}
