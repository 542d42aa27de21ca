//! The damaged blocks that a scan has met: each is told once, and none lets an older version through.
//!
//! Kept by `scan`, for both its ends.
//! 1. F11: a row that a damaged block may have had is left out, unless a newer source has it.

use crate::cursor::Hidden;
use crate::error::StorageError;

/// The damaged blocks that either end has met.
#[derive(Debug, Default)]
pub(super) struct Damages {
    met: Vec<(usize, Box<Hidden>)>,
    unreported: Vec<StorageError>,
}

impl Damages {
    /// Takes note of what a source with this rank has lost.
    pub(super) fn note(&mut self, rank: usize, hidden: Box<Hidden>) {
        let known = |(_, known): &(usize, Box<Hidden>)| {
            (known.run, known.block) == (hidden.run, hidden.block)
        };
        if !self.met.iter().any(known) {
            self.unreported.push(hidden.error.clone());
            self.met.push((rank, hidden));
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.met.is_empty()
    }

    /// A damage that nobody was told of yet.
    pub(super) fn take_unreported(&mut self) -> Option<StorageError> {
        self.unreported.pop()
    }

    /// Whether a version of `row` from the source `rank` could be older than one that is lost.
    #[inline]
    pub(super) fn hide(&self, rank: usize, row: &[u8]) -> bool {
        self.met
            .iter()
            .any(|(newer, hidden)| *newer < rank && *hidden.first <= *row && *row <= *hidden.last)
    }
}
