//! Positions in the log's endless address space.
//!
//! - An [`Lsn`] is the byte position of a record. It only grows, across restarts too, and is never
//!   given twice (G1).
//! - A commit's LSN is its timestamp and the stamp of the versions that it wrote.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The byte position of a record in the log.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// Before every record: no record starts here.
    pub const ZERO: Self = Self(0);
    /// Behind every record.
    pub const MAX: Self = Self(u64::MAX);

    /// The position `at` bytes from the start of the log's address space.
    pub const fn new(at: u64) -> Self {
        Self(at)
    }

    /// The position as a number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` behind this one.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// How many bytes lie between `earlier` and this position; zero when `earlier` is behind it.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}

/// The LSN of the provisional record that granted, or last strengthened, a lock.
///
/// Larger for every later holder of the same row, across crashes: an outside system that keeps the
/// largest token it has seen can refuse a holder that has lost its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(Lsn);

impl FencingToken {
    /// The token of the lock whose record is at `lsn`.
    pub const fn new(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position of the record.
    pub const fn lsn(self) -> Lsn {
        self.0
    }

    /// The token as a plain number, for outside systems.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
