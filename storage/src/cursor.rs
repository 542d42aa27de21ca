//! What a scan asks of each of its sources: the rows of a range that are visible at one LSN, one by one,
//! in one direction.
//!
//! Implemented by single rows and chunks of a memtable and by runs; driven by `sources::scan`.
//! 1. A cursor yields each row at most once, with its newest version at or below the LSN, tombstones
//!    too: they hide older sources.
//! 2. A cursor owns what it reads, so a scan needs no lifetime. It shows a version where it lies, until its
//!    next step: nothing is allocated for a row.
//! 3. A damaged block is yielded once, as what it hides, and the cursor goes on behind it.
//! 4. Memory: the same however many rows it walks.

use std::fmt::Debug;
use std::ops::Bound;

use bytes::Bytes;
use lockstone_base::Lsn;

use crate::error::StorageError;
use crate::version::VersionRef;

/// Which way rows are walked, and so from which end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest row on.
    Forward,
    /// From the largest row on.
    Backward,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// What a cursor looks for.
#[derive(Debug, Clone)]
pub(crate) struct Quest {
    pub(crate) range: RowRange,
    pub(crate) at: Lsn,
    pub(crate) direction: Direction,
}

/// One step of a cursor.
#[derive(Debug)]
pub(crate) enum Step {
    /// It has come to a row.
    Row,
    Damaged(Box<Hidden>),
    /// There are no more rows.
    End,
}

/// What a damaged part of a run hides: nothing is known about the rows from `first` to `last`, both
/// included, unless a newer source, or this one before the part, has a visible version.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// The run.
    pub(crate) run: u64,
    /// The block; `None`: what leads to all blocks.
    pub(crate) block: Option<u64>,
    pub(crate) first: Bytes,
    pub(crate) last: Bytes,
    pub(crate) error: StorageError,
}

/// The rows of one source, one after the other.
pub(crate) trait Cursor: Debug + Send {
    /// Goes to the next row in the cursor's direction, the first one at first, or to damage met on the way
    /// to it.
    fn step(&mut self) -> Step;

    /// The row that the cursor has come to, and its newest visible version, where it lies: after
    /// [`Step::Row`] alone.
    fn version(&self) -> VersionRef<'_>;

    /// Its value, for whoever keeps it: shared where a copy costs more.
    fn value(&self) -> Option<Bytes>;
}

/// A range of encoded rows.
#[derive(Debug, Clone)]
pub(crate) struct RowRange {
    pub(crate) low: Bound<Bytes>,
    pub(crate) high: Bound<Bytes>,
}

impl RowRange {
    /// Whether `row` is not below the range.
    pub(crate) fn above_low(&self, row: &[u8]) -> bool {
        match &self.low {
            Bound::Included(low) => row >= low.as_ref(),
            Bound::Excluded(low) => row > low.as_ref(),
            Bound::Unbounded => true,
        }
    }

    /// Whether `row` is not above the range.
    pub(crate) fn below_high(&self, row: &[u8]) -> bool {
        match &self.high {
            Bound::Included(high) => row <= high.as_ref(),
            Bound::Excluded(high) => row < high.as_ref(),
            Bound::Unbounded => true,
        }
    }

    /// The place in the order of versions where the range starts: every version of the range is at or
    /// behind it, and every other one before it. `None`: at the very start.
    pub(crate) fn start(&self) -> Option<(&Bytes, Lsn)> {
        match &self.low {
            Bound::Included(row) => Some((row, Lsn::MAX)),
            Bound::Excluded(row) => Some((row, Lsn::ZERO)),
            Bound::Unbounded => None,
        }
    }

    /// The place in the order of versions where the range ends: every version of the range is before
    /// it. `None`: at the very end.
    pub(crate) fn end(&self) -> Option<(&Bytes, Lsn)> {
        match &self.high {
            Bound::Included(row) => Some((row, Lsn::ZERO)),
            Bound::Excluded(row) => Some((row, Lsn::MAX)),
            Bound::Unbounded => None,
        }
    }
}
