//! One segment: a file that covers a stretch of the log, its name being its base.
//!
//! 1. The name says where it lies and the file's length how far it reaches; its header repeats both and
//!    is not needed (G5).
//! 2. A segment in use is locked (`flock`) by whoever has it open.
//! 3. Frames start behind the header block.
//! 4. Its header names the segment that was the highest before it, and the one that was readied behind it,
//!    before a position in that one is given out (F14).

use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::{AlignedBuf, Disk, DiskFile, DiskResult, FileLock, OpenMode};
use lockstone_base::limits::BLOCK_BYTES;

use crate::error::WalError;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentPlace, SegmentStamp};

/// What the names of filled files begin with that become segments by renaming; a digit follows.
const SPARE: &str = "wal-spare-";
/// A spare while it is being filled.
pub(crate) const SPARE_UNFILLED: &str = "wal-spare.tmp";
const PREFIX: &str = "wal-";
const BASE_DIGITS: usize = 16;
/// No segment starts or ends behind this: positions never overflow, whatever a file is called.
pub(crate) const POSITION_MAX: u64 = 1 << 62;
/// No segment is longer: a file that is was not made by the log, and what a scan looks at is bounded.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// No segment is shorter: a header and a frame.
pub(crate) const SEGMENT_BYTES_LEAST: u64 = SEGMENT_HEADER_BYTES + BLOCK_BYTES as u64;

/// What the opener of a log means to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Recover and then extend it: alone, and what is believed is made durable first (design §8.3).
    Recover,
    /// Look at it beside other lookers; changes nothing.
    Inspect,
}

/// One open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Lsn,
    /// Its length: whole blocks.
    pub(crate) bytes: u64,
    /// The base of the segment that was the highest when this one was named; known of those that this
    /// run has named.
    pub(crate) below: Option<Lsn>,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// The file name of the segment at `base`.
pub(crate) fn segment_name(base: Lsn) -> String {
    format!("{PREFIX}{:016x}", base.get())
}

/// The file name of the spare `number`, below 10.
pub(crate) fn spare_file_name(number: usize) -> String {
    format!("{SPARE}{number}")
}

/// Whether a spare may have this name.
pub(crate) fn is_spare_name(name: &str) -> bool {
    name.strip_prefix(SPARE)
        .is_some_and(|digit| digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The base in a segment's file name; `None` if it is no segment's name.
pub(crate) fn base_in_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_prefix(PREFIX)?;
    let plain = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    if digits.len() != BASE_DIGITS || !digits.bytes().all(plain) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(Lsn::new)
}

impl Segment {
    /// Opens and locks the file `name`, which covers the log from `base` on.
    pub(crate) fn open(
        disk: &dyn Disk,
        name: &str,
        base: Lsn,
        access: Access,
    ) -> Result<Self, WalError> {
        let (mode, lock) = match access {
            Access::Recover => (OpenMode::Log, FileLock::Exclusive),
            Access::Inspect => (OpenMode::LogRead, FileLock::Shared),
        };
        let file = disk.open(name, mode)?;
        if !file.try_lock(lock)? {
            return Err(WalError::Locked {
                file: disk.path(name),
            });
        }
        let len = file.len()?;
        Ok(Self {
            base,
            bytes: len - len % BLOCK_BYTES as u64,
            below: None,
            name: name.to_owned(),
            file,
        })
    }

    /// Behind its last byte.
    pub(crate) fn end(&self) -> Lsn {
        self.base.plus(self.bytes)
    }

    /// Where its first frame may start.
    pub(crate) fn first(&self) -> Lsn {
        self.base.plus(SEGMENT_HEADER_BYTES)
    }

    /// The bytes that frames may take.
    pub(crate) fn frame_room(&self) -> u64 {
        self.bytes.saturating_sub(SEGMENT_HEADER_BYTES)
    }

    /// Whether a frame may start at `position` in this segment.
    pub(crate) fn holds(&self, position: Lsn) -> bool {
        self.first() <= position && position < self.end()
    }

    /// Its header; `above` is the base of the segment readied behind it.
    pub(crate) fn header(&self, stamp: SegmentStamp, above: Option<Lsn>) -> AlignedBuf {
        let place = SegmentPlace {
            base: self.base,
            bytes: self.bytes,
            below: self.below,
            above,
        };
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        SegmentHeader::new(place, stamp).encode_into(block.as_mut_bytes());
        block
    }

    /// Writes its header, durably.
    pub(crate) fn write_header(&self, stamp: SegmentStamp, above: Option<Lsn>) -> DiskResult<()> {
        let header = self.header(stamp, above);
        self.file.write_durable(0, header.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_ignored() {
        for base in [0, 1 << 26, 0xfedc_ba98_7654_3210] {
            assert_eq!(
                base_in_name(&segment_name(Lsn::new(base))),
                Some(Lsn::new(base))
            );
        }
        assert!(is_spare_name(&spare_file_name(3)));
        assert!(!is_spare_name(SPARE) && !is_spare_name(SPARE_UNFILLED));
        for name in [
            &spare_file_name(0),
            SPARE_UNFILLED,
            "wal-",
            "wal-000000000000000",
            "wal-00000000000000000",
            "wal-00000000000000AB",
            "wal-+000000000000000",
            "run-0000000000000000",
        ] {
            assert_eq!(base_in_name(name), None, "{name}");
        }
    }
}
