//! Row and value side by side, in memory that many of them share.
//!
//! Called by `prepared`, before the append latch.
//! 1. What is packed is copied once: reading a version touches one place, and freeing a memtable gives
//!    back few, large pieces.
//! 2. A value that somebody keeps keeps its piece of memory: [`PIECE_BYTES`]. Larger ones have their own.

use bytes::{Bytes, BytesMut};
use lockstone_base::{RowKey, Striped};
use parking_lot::{Mutex, MutexGuard};

use super::entry::{Content, Entry};
use crate::packed_rows::PIECE_BYTES;

/// Above this, row and value stay where they are: copying them costs more than it saves, and a piece would
/// be left half empty.
const PACKED_BYTES_MAX: usize = PIECE_BYTES / 8;

/// The pieces that are being filled: threads fill one of their own.
#[derive(Debug, Default)]
pub(super) struct Packing(Striped<Mutex<BytesMut>>);

/// Leave to fill one of the pieces.
pub(super) struct Packer<'a>(MutexGuard<'a, BytesMut>);

impl Packing {
    /// The calling thread's piece.
    pub(super) fn packer(&self) -> Packer<'_> {
        Packer(self.0.own().lock())
    }
}

impl Packer<'_> {
    /// The version of `row` that holds `value`, not yet linked.
    pub(super) fn entry(&mut self, row: &RowKey, value: Option<Bytes>) -> Entry {
        let row_bytes = row.as_bytes().len();
        let deleted = value.is_none();
        let value = value.unwrap_or_default();
        let bytes = row_bytes + value.len();
        let content = if bytes > PACKED_BYTES_MAX {
            Content::Apart(Box::new((row.to_bytes(), value)))
        } else {
            if self.0.capacity() < bytes {
                *self.0 = BytesMut::with_capacity(PIECE_BYTES);
            }
            self.0.extend_from_slice(row.as_bytes());
            self.0.extend_from_slice(&value);
            Content::Packed(self.0.split().freeze())
        };
        Entry::new(content, row_bytes, deleted)
    }
}
