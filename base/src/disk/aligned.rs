//! Memory that `O_DIRECT` accepts: whole blocks, aligned to a block.

use std::fmt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::limits::BLOCK_BYTES;

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// A zeroed buffer of whole blocks, aligned to a block.
pub struct AlignedBuf(Vec<Block>);

impl AlignedBuf {
    /// At least `bytes` bytes, rounded up to whole blocks.
    pub fn zeroed(bytes: usize) -> Self {
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        Self(Block::new_vec_zeroed(blocks).expect("the allocator has room for a log buffer"))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice().as_bytes()
    }

    /// The bytes, to fill.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.0.as_mut_slice().as_mut_bytes()
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
    fn a_buffer_starts_at_a_block_and_holds_whole_blocks() {
        for bytes in [1, 4096, 4097, 1 << 20] {
            let buffer = AlignedBuf::zeroed(bytes);
            assert_eq!(buffer.as_bytes().as_ptr().addr() % BLOCK_BYTES, 0);
            assert_eq!(buffer.as_bytes().len(), bytes.next_multiple_of(BLOCK_BYTES));
            assert!(buffer.as_bytes().iter().all(|byte| *byte == 0));
        }
    }
}
