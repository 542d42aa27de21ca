//! Walking a spill: the records of a range that are alive, or all there are.
//!
//! Made by `ProvisionalRun`.
//! 1. V4: dead records are passed over.
//! 2. A range is read through the map, as readers of versions do; all records are read past it and verified anew,
//!    so that no merge carries damage on (F11).
//! 3. A walk ends at the first error.

use std::ops::Bound;

use bytes::Bytes;

use super::reader::ProvisionalRun;
use super::record::Record;
use crate::cursor::{Direction, RowRange};
use crate::error::StorageError;
use crate::run::{Entries, RunWalker};
use crate::version::VersionRef;
use crate::walk::Walker;

impl ProvisionalRun {
    /// The records between two bounds, encoded rows, that are alive.
    pub fn range(&self, range: (Bound<Bytes>, Bound<Bytes>), direction: Direction) -> Range {
        let (low, high) = range;
        Range {
            run: self.clone(),
            entries: self.run.entries(RowRange { low, high }, direction),
        }
    }

    /// All records that are alive, read and verified anew.
    pub fn records(&self) -> Records {
        Records {
            run: self.clone(),
            walker: self.run.walk(),
        }
    }
}

/// The records of a range, from one of its ends. Backward, a row's oldest comes first.
#[derive(Debug)]
pub struct Range {
    run: ProvisionalRun,
    entries: Entries,
}

impl Range {
    /// The next record.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    #[expect(
        clippy::should_implement_trait,
        reason = "a record is shown where it lies, until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, StorageError> {
        if self.run.is_dead() {
            return Ok(None);
        }
        loop {
            if !self.entries.advance()? {
                return Ok(None);
            }
            if self.run.is_alive(self.entries.entry()?.0.stamp) {
                break;
            }
        }
        let (version, mark) = self.entries.entry()?;
        self.run.record(version, mark).map(Some)
    }
}

/// All records of a spill, in order.
#[derive(Debug)]
pub struct Records {
    run: ProvisionalRun,
    walker: RunWalker,
}

impl Records {
    /// The next record.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    #[expect(
        clippy::should_implement_trait,
        reason = "a record is shown where it lies, until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, StorageError> {
        if !self.advance()? {
            return Ok(None);
        }
        self.record().map(Some)
    }

    /// The record that the walk has come to.
    pub(super) fn record(&self) -> Result<Record<'_>, StorageError> {
        let mark = self.walker.mark().ok_or_else(|| self.run.unmarked())?;
        self.run.record(self.walker.version(), mark)
    }
}

impl Walker for Records {
    fn advance(&mut self) -> Result<bool, StorageError> {
        if self.run.is_dead() {
            return Ok(false);
        }
        while self.walker.advance()? {
            if self.run.is_alive(self.walker.version().stamp) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn version(&self) -> VersionRef<'_> {
        self.walker.version()
    }
}
