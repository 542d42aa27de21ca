//! Memory that `O_DIRECT` accepts: whole blocks, aligned to a block.
//!
//! Made by whoever moves blocks of log files. A buffer has a number of its own for as long as the process
//! lives: a ring that has registered its pages knows it by that, for an address may be another buffer's later.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::limits::BLOCK_BYTES;

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

static BUFFERS: AtomicU64 = AtomicU64::new(0);

/// A zeroed buffer of whole blocks, aligned to a block.
pub struct AlignedBuf {
    /// Never grown or shrunk: its address is for life.
    blocks: Vec<Block>,
    id: u64,
}

impl AlignedBuf {
    /// At least `bytes` bytes, rounded up to whole blocks.
    pub fn zeroed(bytes: usize) -> Self {
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        Self {
            blocks: Block::new_vec_zeroed(blocks).expect("the allocator has room for a log buffer"),
            id: BUFFERS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A number that no other buffer of this process has, or will have.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.blocks.as_slice().as_bytes()
    }

    /// The bytes, to fill.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.blocks.as_mut_slice().as_mut_bytes()
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_buffers_have_one_number() {
        let first = AlignedBuf::zeroed(1);
        let (address, id) = (first.as_bytes().as_ptr(), first.id());
        drop(first);
        // An allocator gives the same address again; sooner or later.
        let again = AlignedBuf::zeroed(1);
        println!("the same address: {}", again.as_bytes().as_ptr() == address);
        assert_ne!(again.id(), id);
    }

    #[test]
    fn a_buffer_starts_at_a_block_and_holds_whole_blocks() {
        for bytes in [1, 4096, 4097, 1 << 20] {
            let buffer = AlignedBuf::zeroed(bytes);
            assert_eq!(buffer.as_bytes().as_ptr().addr() % BLOCK_BYTES, 0);
            assert_eq!(buffer.as_bytes().len(), bytes.next_multiple_of(BLOCK_BYTES));
            assert!(buffer.as_bytes().iter().all(|byte| *byte == 0));
        }
    }
}
