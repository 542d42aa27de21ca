//! What a scan asks of each of its sources: the rows of a range that are visible at one LSN, one by one,
//! in one direction.
//!
//! Implemented by single rows and chunks of a memtable and by runs; driven by `sources::scan`.
//! 1. A cursor yields each row at most once, with its newest version at or below the LSN, tombstones
//!    too: they hide older sources.
//! 2. A cursor owns what it reads, so a scan needs no lifetime.
//! 3. A damaged block is yielded once, as what it hides, and the cursor goes on behind it.

use std::fmt::Debug;
use std::ops::Bound;

use bytes::Bytes;
use lockstone_base::Lsn;

use crate::error::StorageError;
use crate::version::RowVersion;

/// Which way a cursor moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
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
    Row(RowVersion),
    Damaged(Hidden),
}

/// What a damaged block hides: nothing is known about the rows from `first` to `last`, both included,
/// unless a newer source, or this one before the block, has a visible version.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) block: u64,
    pub(crate) first: Bytes,
    pub(crate) last: Bytes,
    pub(crate) error: StorageError,
}

/// The rows of one source, one after the other.
pub(crate) trait Cursor: Debug + Send {
    /// The next row in the cursor's direction, or damage met on the way to it.
    fn step(&mut self) -> Option<Step>;
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
