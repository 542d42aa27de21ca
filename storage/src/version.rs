//! A committed version of a row, and the order of versions.
//!
//! Used by every module of this crate.
//! 1. Versions are ordered by row, ascending, then by stamp, *descending*: a row's newest comes first.
//! 2. A version is visible at S when its stamp is at most S; a reader at S wants the newest such one.

use std::cmp::Ordering;

use bytes::Bytes;
use lockstone_base::{Lsn, RowKey};

/// What a row held from its stamp on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The commit LSN that made it.
    pub stamp: Lsn,
    /// The value; `None`: the row was deleted (a tombstone).
    pub value: Option<Bytes>,
}

/// A version read back from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The row.
    pub row: RowKey,
    /// The commit LSN that made it.
    pub stamp: Lsn,
    /// The value; `None`: a tombstone.
    pub value: Option<Bytes>,
}

/// A version with its encoded row, for tests.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowVersion {
    pub(crate) row: Bytes,
    pub(crate) version: Version,
}

/// A version where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VersionRef<'a> {
    /// The encoded row.
    pub(crate) row: &'a [u8],
    pub(crate) stamp: Lsn,
    /// The value; `None`: a tombstone.
    pub(crate) value: Option<&'a [u8]>,
}

impl VersionRef<'_> {
    /// Its place in version order.
    pub(crate) fn place(&self) -> (&[u8], Lsn) {
        (self.row, self.stamp)
    }

    /// A version of its own.
    #[cfg(test)]
    pub(crate) fn to_owned(self) -> RowVersion {
        RowVersion {
            row: Bytes::copy_from_slice(self.row),
            version: Version {
                stamp: self.stamp,
                value: self.value.map(Bytes::copy_from_slice),
            },
        }
    }
}

/// The order of versions.
pub(crate) fn version_order(a: (&[u8], Lsn), b: (&[u8], Lsn)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}
