//! What a scan is asked, what it shows on its way, and what it found in the end.
//!
//! Recovery and inspection implement [`LogVisitor`]; `scan` calls it.
//! 1. A visitor sees the frames and records of the chain only, in order, each frame before its records.
//! 2. The tail is decided after the last record was shown (G6): what a visitor has collected counts
//!    only when the scan returns `Ok`. What lies behind the end is shown before that, marked as such.
//!
//! Crash: memory only.

use std::path::PathBuf;

use lockstone_base::Lsn;
use lockstone_base::limits::BLOCK_BYTES;

use crate::chain::{ChainPoint, FrameIndex};
use crate::error::VisitError;

/// What a scan has to know: all of it comes from the newest manifest.
#[derive(Debug, Clone, Copy)]
pub struct ScanOptions {
    /// The salt of the database.
    pub salt: u64,
    /// Where to start; [`ChainPoint::START`] for the whole log.
    pub from: ChainPoint,
    /// How far the manifest says that the log was durable.
    pub durable: Lsn,
    /// The generation of the newest manifest that there is.
    pub manifest_generation: u64,
    /// How far the manifest says that the log's files reached (F14).
    pub log_end: Lsn,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its position.
    pub start: Lsn,
    /// Its end, rounded up to a block, and its checksum.
    pub point: ChainPoint,
    /// The frame before it.
    pub before: ChainPoint,
    /// How many records it holds.
    pub records: u32,
    /// Their bytes, headers included.
    pub payload_bytes: u32,
    /// The run that wrote it.
    pub boot_epoch: u32,
    /// How far the log was durable when it was built.
    pub durable_through: Lsn,
    /// The newest durable manifest when it was built.
    pub manifest_generation: u64,
}

/// One record of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScannedRecord<'a> {
    /// The position of its first byte.
    pub lsn: Lsn,
    /// Its kind, never 0.
    pub tag: u8,
    /// The header that it shares with its neighbours of the same transaction.
    pub context: &'a [u8],
    /// The rest.
    pub body: &'a [u8],
}

/// A frame behind the end of the chain, of which no record counts. Its header is intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What its header says.
    pub frame: FrameInfo,
    /// The segment in which it lies.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Whether its payload arrived, too: then a frame before it did not.
    pub is_whole: bool,
}

/// A segment of the log, as it lies in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file's name.
    pub name: String,
    /// Where in the log it begins.
    pub base: Lsn,
    /// Its length: whole blocks.
    pub bytes: u64,
}

/// Sees the chain, frame by frame, record by record.
pub trait LogVisitor {
    /// The next frame of the chain.
    fn frame(&mut self, frame: &FrameInfo) {
        let _ = frame;
    }

    /// The next record.
    ///
    /// # Errors
    /// What is wrong with the record; the scan stops with [`WalError::Corrupt`](crate::WalError::Corrupt).
    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError>;

    /// A frame behind the end of the chain; the first few hundred are shown.
    fn leftover(&mut self, leftover: &Leftover) {
        let _ = leftover;
    }

    /// Whether there is any use in going on. Asked by [`Segments::show`](crate::Segments::show) alone, after
    /// each frame: a scan that decides something goes to the end.
    fn wants_more(&self) -> bool {
        true
    }
}

/// What lay behind the end of the chain and was not believed (G6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment in which the first of it lies.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The first of it.
    pub at: Lsn,
    /// How much it is: frames as long as their headers say, a block where only the start of one is left.
    pub bytes: u64,
    /// Frames whose header is intact.
    pub frames: u64,
    /// Those of them whose payload is intact, too: they were written behind one that was not, and never
    /// acknowledged.
    pub whole: u64,
    /// The records that these headers count.
    pub records: u64,
}

/// What a scan found.
#[derive(Debug, Clone)]
pub struct LogScan {
    /// Where the chain ends: the durable LSN until the next frame is written (G8).
    pub end: ChainPoint,
    /// Frames of the chain.
    pub frames: u64,
    /// Records of the chain.
    pub records: u64,
    /// Bytes of its frames, padding included.
    pub bytes: u64,
    /// The last frame of the chain that holds records: its position and its end.
    pub recorded: Option<(Lsn, Lsn)>,
    /// How far manifest and headers say that the log was durable: at most to the end.
    pub testified: Lsn,
    /// What was dropped behind it.
    pub torn: Option<TornTail>,
    pub(crate) from: ChainPoint,
    pub(crate) salt: u64,
    pub(crate) index: FrameIndex,
    /// The highest segment holds no intact frame header at its own place: it may be renamed (G8).
    pub(crate) highest_is_unused: bool,
    /// No segment may lie below this (G1).
    pub(crate) base_min: Lsn,
}

impl LogScan {
    /// Of a directory without a log, whose first segment is to lie at or above `base_min`: of a copy that takes
    /// over rows with the stamps of another log.
    pub fn of_nothing(salt: u64, base_min: Lsn) -> Self {
        let from = ChainPoint::START;
        Self {
            end: from,
            frames: 0,
            records: 0,
            bytes: 0,
            recorded: None,
            testified: Lsn::ZERO,
            torn: None,
            from,
            salt,
            index: FrameIndex::new(from),
            highest_is_unused: false,
            base_min: Lsn::new(base_min.get().next_multiple_of(BLOCK_BYTES as u64)),
        }
    }

    /// Whether the last frame with records is covered: whether damage to it would have been told from a
    /// torn write (G6).
    pub fn is_covered(&self) -> bool {
        self.recorded.is_none_or(|(_, end)| end <= self.testified)
    }
}
