//! The frame that is being filled, and the frame that is ready to be written (G2, G4).
//!
//! `staging` fills the one and makes the other of it; `flush` writes it.
//! 1. Adjacent records with one context store it once; the first of a frame stores its own (G4).
//! 2. Filling allocates nothing: the buffer is as long as the longest frame.
//!
//! Crash: memory only; what was not written is gone, and nobody was told otherwise.

use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::AlignedBuf;
use lockstone_base::limits::BLOCK_BYTES;
use zerocopy::IntoBytes;

use crate::format::{
    CONTEXT_BYTES_MAX, CONTEXT_SHARED, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader,
};
use crate::segment::Segment;

/// One record to append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its kind, never 0.
    pub tag: u8,
    /// At most 64 bytes; stored once for adjacent records that have it in common (G4).
    pub context: &'a [u8],
    /// The rest, in pieces that are written one behind the other.
    pub body: &'a [&'a [u8]],
}

impl Record<'_> {
    /// The bytes of context and body: what to reserve.
    pub fn bytes(&self) -> usize {
        self.context.len() + self.body_bytes()
    }

    /// That it can be written at all.
    pub(crate) fn check(&self) {
        assert!(self.tag != 0, "G4: tag 0 is no record");
        assert!(
            self.context.len() <= CONTEXT_BYTES_MAX,
            "G4: a context has at most 64 bytes"
        );
    }

    fn body_bytes(&self) -> usize {
        self.body.iter().map(|piece| piece.len()).sum()
    }
}

/// How many bytes a frame takes on the device whose header and records take `used`.
pub(crate) const fn padded(used: usize) -> u64 {
    used.next_multiple_of(BLOCK_BYTES) as u64
}

/// A frame being filled.
#[derive(Debug)]
pub(crate) struct OpenFrame {
    buffer: AlignedBuf,
    used: usize,
    records: u32,
    /// Where in the buffer the last record's context is.
    context: (usize, usize),
}

impl OpenFrame {
    pub(crate) fn new(buffer: AlignedBuf) -> Self {
        Self {
            buffer,
            used: FRAME_HEADER_BYTES,
            records: 0,
            context: (0, 0),
        }
    }

    /// Header and records so far.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Adds `record`, for which there is room; its offset in the frame.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> usize {
        let bytes = self.buffer.as_mut_bytes();
        let (context_start, context_end) = self.context;
        let shares = !record.context.is_empty()
            && bytes.get(context_start..context_end) == Some(record.context);
        let header = RecordHeader {
            tag: record.tag,
            context_len: if shares {
                CONTEXT_SHARED
            } else {
                record.context.len() as u8
            },
            body_len: (record.body_bytes() as u32).into(),
        };
        let start = self.used;
        let mut at = put(bytes, start, header.as_bytes());
        if !shares {
            let end = put(bytes, at, record.context);
            self.context = (at, end);
            at = end;
        }
        for piece in record.body {
            at = put(bytes, at, piece);
        }
        self.used = at;
        self.records += 1;
        start
    }

    /// Ends it: the frame at `start` in `segment`. `fresh` is the buffer of the next.
    pub(crate) fn seal(
        &mut self,
        fresh: AlignedBuf,
        start: Lsn,
        segment: Arc<Segment>,
    ) -> SealedFrame {
        let full = std::mem::replace(self, Self::new(fresh));
        SealedFrame {
            buffer: full.buffer,
            used: full.used,
            records: full.records,
            start,
            segment,
        }
    }
}

/// Copies `piece` to `at`; the end of the copy.
fn put(bytes: &mut [u8], at: usize, piece: &[u8]) -> usize {
    let end = at + piece.len();
    bytes
        .get_mut(at..end)
        .expect("G10: the record was given room in this frame")
        .copy_from_slice(piece);
    end
}

/// The most that a record of `bytes` bytes of context and body takes in a frame.
pub(crate) const fn record_room(bytes: usize) -> usize {
    RECORD_HEADER_BYTES + bytes
}

/// A frame that takes no more records.
#[derive(Debug)]
pub(crate) struct SealedFrame {
    pub(crate) buffer: AlignedBuf,
    /// Header and records.
    pub(crate) used: usize,
    pub(crate) records: u32,
    pub(crate) start: Lsn,
    pub(crate) segment: Arc<Segment>,
}

impl SealedFrame {
    /// Where the next frame may start.
    pub(crate) fn end(&self) -> Lsn {
        self.start.plus(padded(self.used))
    }
}
