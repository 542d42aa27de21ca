//! What of a run a scan knows nothing of, where a part of it is damaged.
//!
//! Made for `cursor`.
//! 1. F11: no row that the damaged part may have had is left out: at the edges of a block it is too many rather
//!    than too few.

use bytes::Bytes;

use super::index::Index;
use super::reader::Run;
use crate::cursor::Hidden;
use crate::error::StorageError;

impl Run {
    /// What is lost with the block `number`.
    pub(super) fn hidden(&self, index: &Index, number: usize, error: StorageError) -> Box<Hidden> {
        let before = number.checked_sub(1).and_then(|before| index.last(before));
        let last = index.last(number);
        Box::new(Hidden {
            run: self.entry().number,
            block: Some(number as u64),
            first: Bytes::copy_from_slice(before.map_or(index.smallest(), |(row, _)| row)),
            last: Bytes::copy_from_slice(last.map_or(index.largest(), |(row, _)| row)),
            error,
        })
    }

    /// What is lost with what leads to the blocks.
    pub(super) fn all_hidden(&self, error: StorageError) -> Box<Hidden> {
        Box::new(Hidden {
            run: self.entry().number,
            block: None,
            first: self.entry().smallest.clone(),
            last: self.entry().largest.clone(),
            error,
        })
    }
}
