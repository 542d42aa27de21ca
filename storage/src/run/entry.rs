//! What a manifest knows of a run, and what every file of a database shares.
//!
//! Used by the run writer and reader, the manifest and the store.

use std::cmp::Ordering;

use bytes::Bytes;
use lockstone_base::Lsn;

use crate::dead_subs::DeadSubs;
use crate::file_name;

/// A run, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEntry {
    /// Its number: its file's name. Never given twice.
    pub number: u64,
    /// The database that wrote it: a backup keeps the runs of its origin.
    pub uuid: u128,
    /// Its file's length, in bytes.
    pub bytes: u64,
    /// Its footer's checksum, which vouches for its index, and that for each block: an older file of the
    /// same number is not taken for it (F13).
    pub checksum: u32,
    /// How many versions it has.
    pub versions: u64,
    /// How many rows they are of.
    pub rows: u64,
    /// How many of them are tombstones.
    pub tombstones: u64,
    /// The smallest stamp in it.
    pub oldest: Lsn,
    /// The largest stamp in it.
    pub newest: Lsn,
    /// The smallest row in it, encoded.
    pub smallest: Bytes,
    /// The largest row in it, encoded.
    pub largest: Bytes,
    /// Who wrote it, and so what its stamps are.
    pub origin: Origin,
}

/// Who wrote a run, and so what its stamps are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flush or a compaction: every version has its own stamp.
    Committed,
    /// A compaction of runs one of which was adopted, now or before: another run may have a version that this one has,
    /// with an older value; the newer source's is the one that counts (S1).
    Descended,
    /// A spill of what is not committed: what stands for stamps are owners and sub-transactions.
    Provisional,
    /// A spill whose transaction has committed since. No byte of it is rewritten: its versions, of each row the
    /// newest that is alive, have the one stamp that the manifest gives as its oldest and its newest.
    Adopted(Adopted),
}

/// What a manifest says of a run that was adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its number among the spills of its transaction: of two with one stamp the higher one is newer (S1).
    pub spill: u64,
    /// The sub-transactions whose records are passed over (V4).
    pub dead: DeadSubs,
}

/// What binds a database's files to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The database's.
    pub uuid: u128,
    /// What enters every checksum of the database, and the hashes of its rows.
    pub salt: u64,
}

impl Origin {
    /// Whether another run may have a version that a run of this origin has.
    pub(crate) fn repeats(&self) -> bool {
        matches!(self, Self::Adopted(_) | Self::Descended)
    }

    /// The name of the file `number`: a run that was adopted keeps the one that it had.
    pub(crate) fn file_name(&self, number: u64) -> String {
        match self {
            Self::Committed | Self::Descended => file_name::run(number),
            Self::Provisional | Self::Adopted(_) => file_name::spill(number),
        }
    }
}

impl RunEntry {
    /// The name of its file.
    pub fn file_name(&self) -> String {
        self.origin.file_name(self.number)
    }

    /// V4: whether all that this spill of one owner has is dead.
    pub fn is_dead(&self, dead: &DeadSubs) -> bool {
        // What stands for stamps is one above the sub-transactions.
        let sub = |order: Lsn| order.get().saturating_sub(1) as u32;
        dead.has_all(sub(self.oldest), sub(self.newest))
    }

    /// This provisional write run, adopted by the commit at `stamp`.
    #[must_use]
    pub fn adopted(&self, stamp: Lsn, adopted: Adopted) -> Self {
        Self {
            oldest: stamp,
            newest: stamp,
            origin: Origin::Adopted(adopted),
            ..self.clone()
        }
    }

    /// W5: whether all that it has is newer than what `older` has of the same row, whose stamps are not above its
    /// own: such two may follow each other in level 0. What a transaction kept in memory, and what it spilled
    /// later, is newer than what it spilled before; files of one spill share no row, and come by row.
    pub(crate) fn is_newer_than(&self, older: &Self) -> bool {
        match (self.oldest.cmp(&older.newest), &self.origin, &older.origin) {
            (Ordering::Greater, _, _)
            | (Ordering::Equal, Origin::Committed, Origin::Adopted(_)) => true,
            (Ordering::Equal, Origin::Adopted(newer), Origin::Adopted(old)) => {
                match newer.spill.cmp(&old.spill) {
                    Ordering::Equal => self.largest < older.smallest,
                    order => order.is_gt(),
                }
            }
            _ => false,
        }
    }
}
