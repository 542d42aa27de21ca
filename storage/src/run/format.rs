//! A run's bytes: the fixed structures, and the order of the sections.
//!
//! Used by the other files of this folder. Little-endian, no padding:
//!
//! ```text
//! Head      magic "LKSRUNHD"  version  checksum  number     the same in every version
//! blocks    one behind the other                             block.rs
//! filter    over the rows, without stamps                    filter.rs
//! index     the last version of each block                   index.rs
//! [summary] of a spill: whose, and what they add up to       provisional
//! Footer    the file's last bytes
//! ```
//!
//! 1. Every byte is covered by a checksum that is bound to the salt, the run's number, the section and,
//!    for a block, its number (F12).
//! 2. The checksums form a tree: the manifest has the footer's, the footer the filter's, the index's and the
//!    summary's, the index the blocks'. An older block in the place of a newer one is found (F13).
//! 3. The sections fill the file without gaps, so that each has only one possible length.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::entry::Identity;
use crate::checksum::Place;
use crate::error::{Damage, Section};

/// The version that is written, and the latest that is read.
pub(super) const VERSION: u32 = 1;

const HEAD_MAGIC: [u8; 8] = *b"LKSRUNHD";
const FOOTER_MAGIC: [u8; 8] = *b"LKSRUNFT";

/// The first bytes of a run.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Head {
    magic: [u8; 8],
    version: U32,
    checksum: U32,
    number: U64,
}

/// The last bytes of a run.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Footer {
    pub(super) magic: [u8; 8],
    pub(super) checksum: U32,
    pub(super) smallest_bytes: U32,
    pub(super) uuid: U128,
    /// The database's: so that the file can be read where no manifest is left.
    pub(super) salt: U64,
    pub(super) number: U64,
    pub(super) versions: U64,
    pub(super) rows: U64,
    pub(super) tombstones: U64,
    pub(super) blocks: U64,
    pub(super) filter_at: U64,
    pub(super) index_at: U64,
    pub(super) oldest: U64,
    pub(super) newest: U64,
    pub(super) filter_checksum: U32,
    pub(super) index_checksum: U32,
    /// How many bytes all rows share at their start.
    pub(super) shared_bytes: U32,
    /// Where the summary starts, and the index ends; where the footer starts if there is none.
    pub(super) summary_at: U64,
    pub(super) summary_checksum: U32,
}

/// The first bytes of a block. Behind it: the prefix, the rows' ends if they vary, the rows without the
/// prefix, the stamps, the bits of tombstones if there are any, the marks if it is a spill's, the values' ends if they
/// vary, the values.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BlockHead {
    pub(super) checksum: U32,
    pub(super) entries: U16,
    pub(super) prefix_bytes: U16,
    /// How long each row is without the prefix, or [`VARIES`].
    pub(super) row_bytes: U16,
    /// How many bytes of each stamp are there, counted from `oldest`.
    pub(super) stamp_bytes: u8,
    pub(super) flags: u8,
    /// How long each value is, unless [`VALUES_VARY`].
    pub(super) value_bytes: U32,
    pub(super) oldest: U64,
}

/// What stands for the length of rows that are not all of one length.
pub(super) const VARIES: u16 = u16::MAX;

/// A flag of a block: a bit for each entry tells whether it is a tombstone.
pub(super) const TOMBSTONES: u8 = 1;

/// A flag of a block: its values are not all of one length.
pub(super) const VALUES_VARY: u8 = 2;

/// A flag of a block: its versions have marks.
pub(super) const MARKED: u8 = 4;

/// What the end of a row or a value takes, where they vary.
pub(super) const END_BYTES: usize = size_of::<u16>();

/// A block, as a search of the index sees it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct IndexCell {
    /// Of its last row the eight bytes behind what all rows of the run share, zeros behind a shorter row.
    pub(super) sketch: U64,
    /// Where it starts in the file.
    pub(super) start: U64,
}

/// What else the index knows of a block. Behind all of them: the smallest row, then each block's last row.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct IndexSlot {
    pub(super) checksum: U32,
    /// The stamp of the block's last version.
    pub(super) stamp: U64,
    /// Where the block's last row ends among the rows; it starts where the one before ends.
    pub(super) row_end: U64,
}

pub(super) const HEAD_BYTES: usize = size_of::<Head>();
pub(super) const FOOTER_BYTES: usize = size_of::<Footer>();
pub(super) const BLOCK_HEAD_BYTES: usize = size_of::<BlockHead>();

const _: () = {
    assert!(HEAD_BYTES == 24);
    assert!(FOOTER_BYTES == 136);
    assert!(BLOCK_HEAD_BYTES == 24);
    assert!(size_of::<IndexCell>() == 16);
    assert!(size_of::<IndexSlot>() == 20);
};

impl Head {
    pub(super) fn new(number: u64, salt: u64) -> Self {
        let mut head = Self {
            magic: HEAD_MAGIC,
            version: VERSION.into(),
            checksum: 0.into(),
            number: number.into(),
        };
        head.checksum = head.sum(number, salt).into();
        head
    }

    fn sum(&self, number: u64, salt: u64) -> u32 {
        let place = Place {
            salt,
            file: number,
            section: Section::Head,
            number: 0,
        };
        place.checksum(&[&self.magic, self.version.as_bytes(), self.number.as_bytes()])
    }

    /// The file's format version, if it is the run `number`.
    pub(super) fn version_of(&self, number: u64, salt: u64) -> Result<u32, Damage> {
        if self.magic != HEAD_MAGIC {
            return Err(Damage::Magic);
        }
        if self.number.get() != number {
            return Err(Damage::Swapped);
        }
        if self.checksum.get() != self.sum(number, salt) {
            return Err(Damage::Checksum(Section::Head));
        }
        Ok(self.version.get())
    }
}

impl Footer {
    /// Gives the footer its magic number and its checksum.
    pub(super) fn seal(&mut self, salt: u64) {
        self.magic = FOOTER_MAGIC;
        self.salt = salt.into();
        self.checksum = self.sum(salt).into();
    }

    fn sum(&self, salt: u64) -> u32 {
        let place = Place {
            salt,
            file: self.number.get(),
            section: Section::Footer,
            number: 0,
        };
        let unsummed = Self {
            checksum: 0.into(),
            ..*self
        };
        place.checksum(&[unsummed.as_bytes()])
    }

    /// Checks that this is the footer of the run `number` of the database, in a file of `bytes` bytes.
    pub(super) fn verify(&self, number: u64, identity: Identity, bytes: u64) -> Result<(), Damage> {
        if self.magic != FOOTER_MAGIC {
            return Err(Damage::malformed(
                Section::Footer,
                "it does not begin as a footer does",
            ));
        }
        if self.uuid.get() != identity.uuid || self.salt.get() != identity.salt {
            return Err(Damage::Foreign);
        }
        if self.number.get() != number {
            return Err(Damage::Swapped);
        }
        if self.checksum.get() != self.sum(identity.salt) {
            return Err(Damage::Checksum(Section::Footer));
        }
        let (head, filter, index) = (HEAD_BYTES as u64, self.filter_at.get(), self.index_at.get());
        let (summary, end) = (
            self.summary_at.get(),
            bytes.saturating_sub(FOOTER_BYTES as u64),
        );
        let rules = [
            (
                head < filter && filter < index && index < summary && summary <= end,
                "the sections overlap",
            ),
            (self.blocks.get() > 0, "it has no blocks"),
            (
                self.blocks.get() <= self.versions.get(),
                "it has more blocks than versions",
            ),
            (
                // What is kept in memory for each block is bounded by the file's length (F23).
                self.blocks.get() <= filter / BLOCK_HEAD_BYTES as u64,
                "it has more blocks than fit the file",
            ),
            (
                self.shared_bytes.get() <= self.smallest_bytes.get(),
                "its rows share more than there is",
            ),
            (
                0 < self.rows.get() && self.rows.get() <= self.versions.get(),
                "it has more rows than versions, or none",
            ),
            (
                self.tombstones.get() <= self.versions.get(),
                "it has more tombstones than versions",
            ),
            (
                self.oldest.get() <= self.newest.get(),
                "its stamps are out of order",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Damage::malformed(Section::Footer, rule)),
            None => Ok(()),
        }
    }
}
