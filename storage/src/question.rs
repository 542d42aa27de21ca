//! One of several rows that are looked up together, and what is known of it so far.
//!
//! Asked by `sources` of memtables, tree and runs, one after the other, newest first.
//! 1. An answer that is there stands: it is newer than whatever a source asked later has.

use crate::error::StorageError;
use crate::version::Version;

/// A row that is looked up.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// The encoded row.
    pub(crate) row: &'a [u8],
    pub(crate) hash: u64,
    /// Its place among the rows that were asked for.
    pub(crate) place: usize,
    /// What a source has said.
    pub(crate) answer: Option<Result<Version, StorageError>>,
}

impl Question<'_> {
    /// Takes what a source says.
    pub(crate) fn take(&mut self, said: Result<Option<Version>, StorageError>) {
        assert!(
            self.answer.is_none(),
            "W5: no source is asked behind one that has answered"
        );
        self.answer = said.transpose();
    }
}
