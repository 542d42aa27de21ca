//! What a transaction has moved out of memory, as the log names it.
//!
//! ```text
//! number of the spill (8)  through (8)  locks (8)  writes (8)  number of files (4)  files × { kind (1)  as a manifest lists a run }
//! ```
//!
//! 1. V1: it supersedes the transaction's provisional records up to `through`: what they wrote is in these files, or in those of
//!    an earlier spill. It supersedes no rollback.

use lockstone_base::Lsn;
use lockstone_storage::RunEntry;
use lockstone_storage::provisional::Kind;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MalformedRecord;
use super::provisional::RecordBytes;
use super::tag::Tag;

/// A spill of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spill<'a> {
    /// Its number among the transaction's: a higher one is newer.
    pub number: u64,
    /// It supersedes the provisional records up to here.
    pub through: Lsn,
    /// How many locks the transaction had in all, and how many writes.
    pub held: (u64, u64),
    /// Its files, as [`SpillFiles::encode`] wrote them.
    files: &'a [u8],
    count: u32,
}

/// The files of a spill, each with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillFiles(pub Vec<(Kind, RunEntry)>);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SpillHead {
    number: U64,
    through: U64,
    locks: U64,
    writes: U64,
    count: U32,
}

const _: () = assert!(size_of::<SpillHead>() == 36);

impl SpillFiles {
    /// Their bytes, for [`Spill::new`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, entry) in &self.0 {
            bytes.push(*kind as u8);
            entry.encode(&mut bytes);
        }
        bytes
    }
}

impl<'a> Spill<'a> {
    /// The spill of so many files, `encoded`, of a transaction that had `held` so many locks and writes.
    pub fn new(
        number: u64,
        through: Lsn,
        held: (u64, u64),
        (count, encoded): (usize, &'a [u8]),
    ) -> Self {
        Self {
            number,
            through,
            held,
            files: encoded,
            count: count as u32,
        }
    }

    /// Its files.
    ///
    /// # Errors
    /// [`MalformedRecord`] if the bytes are no such list.
    pub fn files(&self) -> Result<SpillFiles, MalformedRecord> {
        let malformed = MalformedRecord("list of spilled files");
        let mut rest = self.files;
        let mut files = Vec::new();
        while let Some((kind, behind)) = rest.split_first() {
            rest = behind;
            let kind = Kind::of(*kind).ok_or(malformed)?;
            let entry = RunEntry::decode(&mut rest).map_err(|_| malformed)?;
            files.push((kind, entry));
        }
        if files.len() == self.count as usize {
            Ok(SpillFiles(files))
        } else {
            Err(malformed)
        }
    }

    pub(super) fn encode(self) -> RecordBytes<'a> {
        let head = SpillHead {
            number: self.number.into(),
            through: self.through.get().into(),
            locks: self.held.0.into(),
            writes: self.held.1.into(),
            count: self.count.into(),
        };
        RecordBytes::new(Tag::Spill, head.as_bytes(), [self.files, &[]])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, files) =
            SpillHead::ref_from_prefix(bytes).map_err(|_| MalformedRecord("head of a spill"))?;
        let spill = Self {
            number: head.number.get(),
            through: Lsn::new(head.through.get()),
            held: (head.locks.get(), head.writes.get()),
            files,
            count: head.count.get(),
        };
        spill.files().map(|_| spill)
    }
}
