//! Reads segments through one buffer, for `scan`.
//!
//! 1. Every transfer is in whole blocks at a block's offset, as log files demand.
//! 2. Memory is bounded: a few of the longest frames, so that those which a window's end cuts, and which are
//!    read again, are few.

use lockstone_base::disk::AlignedBuf;
use lockstone_base::limits::BLOCK_BYTES;

use crate::error::WalError;
use crate::format::FRAME_BYTES_MAX;
use crate::segment::Segment;

/// How much is read at once.
const WINDOW_BYTES: u64 = 4 * FRAME_BYTES_MAX as u64;

/// The stretch of a segment that was read last.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    segments: &'a [Segment],
    buffer: AlignedBuf,
    segment: usize,
    offset: u64,
    bytes: usize,
}

impl<'a> Window<'a> {
    pub(crate) fn new(segments: &'a [Segment]) -> Self {
        let longest = segments.iter().map(|segment| segment.bytes).max();
        let bytes = longest.unwrap_or_default().min(WINDOW_BYTES);
        Self {
            segments,
            buffer: AlignedBuf::zeroed(bytes as usize),
            segment: 0,
            offset: 0,
            bytes: 0,
        }
    }

    /// `bytes` bytes at `offset` of the segment number `segment`; fewer where the file ends. `offset`
    /// is a block's; `bytes` at most [`FRAME_BYTES_MAX`].
    pub(crate) fn read(
        &mut self,
        segment: usize,
        offset: u64,
        bytes: usize,
    ) -> Result<&[u8], WalError> {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES as u64) && bytes <= FRAME_BYTES_MAX,
            "G2: frames are blocks"
        );
        let wanted_end = offset + bytes as u64;
        let held = self.segment == segment
            && self.offset <= offset
            && wanted_end <= self.offset + self.bytes as u64;
        if !held {
            self.fill(segment, offset)?;
        }
        let start = (offset - self.offset) as usize;
        let end = self.bytes.min(start + bytes);
        Ok(self
            .buffer
            .as_bytes()
            .get(start.min(end)..end)
            .unwrap_or_default())
    }

    fn fill(&mut self, segment: usize, offset: u64) -> Result<(), WalError> {
        self.bytes = 0;
        self.segment = segment;
        self.offset = offset;
        let Some(source) = self.segments.get(segment) else {
            return Ok(());
        };
        let left = source.bytes.saturating_sub(offset) as usize;
        let buffer = self.buffer.as_mut_bytes();
        let want = left.min(buffer.len());
        if let Some(target) = buffer.get_mut(..want).filter(|target| !target.is_empty()) {
            self.bytes = source.file.read_at(offset, target)?.min(want);
        }
        Ok(())
    }
}
