//! What a manifest knows of a run, and what every file of a database shares.
//!
//! Used by the run writer and reader, the manifest and the store.

use bytes::Bytes;
use lockstone_base::Lsn;

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
}

/// What binds a database's files to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uuid: u128,
    pub(crate) salt: u64,
}
