//! What a spill says of itself, between its index and its footer: of which kind it is, whose, and what its records
//! add up to.
//!
//! ```text
//! kind (1)  number of owners (4)  number of tables (4)
//! owners    epoch (4)  sequence (8)  records (8)  smallest and largest sub-transaction (4, 4)  digest (16)
//! tables    id (4)                                                                              ascending
//! ```
//!
//! 1. Owners ascend. A lock run and a write run have one; which number a record has for its owner counts here.
//! 2. Nothing is behind the last table; what is read costs no more memory than the section has bytes (F23).

use lockstone_base::{TableId, TxnId};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::digest::Digest;
use super::record::Record;
use crate::dead_subs::DeadSubs;
use crate::error::{Damage, Section};

/// What a provisional run holds (V2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Rows that one transaction has locked: it goes when the transaction ends.
    Lock = 1,
    /// Rows that one transaction has written or deleted: its commit adopts it as it is.
    Write = 2,
    /// Whatever several transactions have done that have little.
    Mixed = 3,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lock, Self::Write, Self::Mixed];

    /// The kind with this number.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a spill has of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerPart {
    /// The transaction.
    pub owner: TxnId,
    /// How many records.
    pub records: u64,
    /// The smallest and the largest sub-transaction of a record, if there is one.
    pub subs: (u32, u32),
    /// Their digest.
    pub digest: Digest,
}

impl OwnerPart {
    /// Nothing of `owner` yet.
    fn none(owner: TxnId) -> Self {
        Self {
            owner,
            records: 0,
            subs: (u32::MAX, 0),
            digest: Digest::default(),
        }
    }

    /// V4: whether nothing of it is alive.
    pub(super) fn is_dead(&self, dead: &DeadSubs) -> bool {
        self.records == 0 || dead.has_all(self.subs.0, self.subs.1)
    }
}

/// What a spill says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) kind: Kind,
    pub(super) owners: Vec<OwnerPart>,
    pub(super) tables: Vec<TableId>,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    owners: U32,
    tables: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Owner {
    epoch: U32,
    sequence: U64,
    records: U64,
    smallest_sub: U32,
    largest_sub: U32,
    digest: U128,
}

const _: () = {
    assert!(size_of::<Head>() == 9);
    assert!(size_of::<Owner>() == 44);
};

impl Summary {
    /// That of a spill which has no record yet.
    pub(super) fn new(kind: Kind, owners: &[TxnId]) -> Self {
        Self {
            kind,
            owners: owners.iter().map(|owner| OwnerPart::none(*owner)).collect(),
            tables: Vec::new(),
        }
    }

    /// Counts a record of the owner number `owner`.
    pub(super) fn count(&mut self, owner: usize, record: &Record<'_>, digest: Digest) {
        if let Some(part) = self.owners.get_mut(owner) {
            part.records += 1;
            part.subs = (part.subs.0.min(record.sub), part.subs.1.max(record.sub));
            part.digest += digest;
        }
        let table = record.row.first_chunk().copied();
        let table = table.map(|id| TableId(u32::from_be_bytes(id)));
        if self.tables.last() != table.as_ref() {
            self.tables.extend(table);
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let head = Head {
            kind: self.kind as u8,
            owners: (self.owners.len() as u32).into(),
            tables: (self.tables.len() as u32).into(),
        };
        let mut bytes = head.as_bytes().to_vec();
        for part in &self.owners {
            let owner = Owner {
                epoch: part.owner.epoch.into(),
                sequence: part.owner.sequence.into(),
                records: part.records.into(),
                smallest_sub: part.subs.0.into(),
                largest_sub: part.subs.1.into(),
                digest: part.digest.get().into(),
            };
            bytes.extend_from_slice(owner.as_bytes());
        }
        for table in &self.tables {
            bytes.extend_from_slice(&table.0.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let cut = malformed("it is cut off");
        let (head, rest) = Head::ref_from_prefix(bytes).map_err(|_| cut)?;
        let count = head.owners.get() as usize;
        let (owners, rest) = <[Owner]>::ref_from_prefix_with_elems(rest, count).map_err(|_| cut)?;
        let tables = <[U32]>::ref_from_bytes_with_elems(rest, head.tables.get() as usize);
        let tables = tables.map_err(|_| malformed("it is longer or shorter than its tables"))?;
        let summary = Self {
            kind: Kind::of(head.kind).ok_or(malformed("its kind is unknown"))?,
            owners: owners.iter().map(OwnerPart::from).collect(),
            tables: tables.iter().map(|table| TableId(table.get())).collect(),
        };
        let rules = [
            (
                summary.owners.is_sorted_by(|a, b| a.owner < b.owner),
                "its owners are out of order",
            ),
            (
                summary.owners.len() == 1 || summary.kind == Kind::Mixed && count > 0,
                "it has another number of owners than its kind",
            ),
            (
                summary.tables.is_sorted_by(|a, b| a < b),
                "its tables are out of order",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(malformed(rule)),
            None => Ok(summary),
        }
    }
}

impl From<&Owner> for OwnerPart {
    fn from(owner: &Owner) -> Self {
        Self {
            owner: TxnId::new(owner.epoch.get(), owner.sequence.get()),
            records: owner.records.get(),
            subs: (owner.smallest_sub.get(), owner.largest_sub.get()),
            digest: Digest::new(owner.digest.get()),
        }
    }
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Summary, what)
}
