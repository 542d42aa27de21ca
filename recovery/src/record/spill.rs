//! What a transaction has moved out of memory, as the log names it.
//!
//! ```text
//! number of the spill (8)  through (8)  locks (8)  writes (8)
//! number of files (4)  files × { kind (1)  as a manifest lists a run }  number of replaced ones (4)  their numbers (8 each)
//! ```
//!
//! 1. V1: it supersedes the transaction's provisional records up to `through`: what they wrote is in these files, or in those of
//!    an earlier spill. It supersedes no rollback.
//! 2. V3: one that merges others names their files, in whose place its own are; its number is the highest of theirs.

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
}

/// The files of a spill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpillFiles {
    /// Each with what it holds.
    pub files: Vec<(Kind, RunEntry)>,
    /// The numbers of those in whose place they are.
    pub replaces: Vec<u64>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SpillHead {
    number: U64,
    through: U64,
    locks: U64,
    writes: U64,
}

const _: () = assert!(size_of::<SpillHead>() == 32);

impl SpillFiles {
    /// Their bytes, for [`Spill::new`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.files.len() as u32).to_le_bytes().to_vec();
        for (kind, entry) in &self.files {
            bytes.push(*kind as u8);
            entry.encode(&mut bytes);
        }
        bytes.extend((self.replaces.len() as u32).to_le_bytes());
        let numbers = self.replaces.iter().map(|number| number.to_le_bytes());
        bytes.extend(numbers.flatten());
        bytes
    }

    fn decode(mut rest: &[u8]) -> Option<Self> {
        let mut files = Vec::new();
        for _ in 0..count(&mut rest)? {
            let (kind, behind) = rest.split_first()?;
            rest = behind;
            files.push((Kind::of(*kind)?, RunEntry::decode(&mut rest).ok()?));
        }
        let replaced = count(&mut rest)?;
        let numbers = <[U64]>::ref_from_bytes_with_elems(rest, replaced as usize).ok()?;
        Some(Self {
            files,
            replaces: numbers.iter().map(|number| number.get()).collect(),
        })
    }
}

fn count(rest: &mut &[u8]) -> Option<u32> {
    let (count, behind) = U32::read_from_prefix(rest).ok()?;
    *rest = behind;
    Some(count.get())
}

impl<'a> Spill<'a> {
    /// The spill of these files, encoded, of a transaction that had `held` so many locks and writes.
    pub fn new(number: u64, through: Lsn, held: (u64, u64), files: &'a [u8]) -> Self {
        Self {
            number,
            through,
            held,
            files,
        }
    }

    /// Its files.
    ///
    /// # Errors
    /// [`MalformedRecord`] if the bytes are no such list.
    pub fn files(&self) -> Result<SpillFiles, MalformedRecord> {
        SpillFiles::decode(self.files).ok_or(MalformedRecord("list of spilled files"))
    }

    pub(super) fn encode(self) -> RecordBytes<'a> {
        let head = SpillHead {
            number: self.number.into(),
            through: self.through.get().into(),
            locks: self.held.0.into(),
            writes: self.held.1.into(),
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
        };
        spill.files().map(|_| spill)
    }
}
