//! The bytes of the log: segment header, frame header, records. See `docs/format.md`.
//!
//! 1. All numbers are little-endian; zero is no valid magic and no valid tag.
//! 2. Every structure is bound to its place: the segment header carries its base, the frame header
//!    its LSN and the salt of the database, both under a checksum.
//! 3. Decoding never panics and never allocates.

mod frame_header;
mod record;
mod segment_header;

pub(crate) use frame_header::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_VERSION, FrameFields, FrameHeader, Salt,
    frame_signature,
};
pub(crate) use record::{
    CONTEXT_BYTES_MAX, CONTEXT_SHARED, RECORD_HEADER_BYTES, RecordHeader, Records,
};
pub(crate) use segment_header::{
    SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader, SegmentPlace, SegmentStamp,
};
