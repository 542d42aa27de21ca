//! The log in use: append, group commit, recycling. (Bodies follow.)

use lockstone_base::Lsn;

use crate::chain::ChainPoint;
use crate::error::WalError;
use crate::segments::Segments;
use crate::visit::LogScan;

/// How the log runs.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// The length of a segment: a multiple of 4096, at least 256 KiB.
    pub segment_bytes: u64,
    /// The database.
    pub uuid: u128,
    /// Its salt, which enters every checksum.
    pub salt: u64,
    /// This run.
    pub boot_epoch: u32,
    /// The newest durable manifest.
    pub manifest_generation: u64,
}

/// One record to append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its kind, never 0.
    pub tag: u8,
    /// At most 64 bytes; stored once for adjacent records that have it in common (G4).
    pub context: &'a [u8],
    /// The rest, in pieces that are written one behind the other.
    pub body: &'a [&'a [u8]],
}

/// Where a record was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The position of its first byte.
    pub lsn: Lsn,
    /// The position behind it: what to wait for.
    pub end: Lsn,
}

/// The log in use.
#[derive(Debug)]
pub struct Log {}

/// Room for one record, given back on drop.
#[derive(Debug)]
pub struct Room<'a> {
    _log: &'a Log,
}

/// The append latch, held.
#[derive(Debug)]
pub struct Hold<'a> {
    _log: &'a Log,
}

#[expect(clippy::unused_self, clippy::needless_pass_by_value, missing_docs, clippy::missing_errors_doc, reason = "signatures ahead of their bodies")]
impl Log {
    pub fn start(segments: Segments, config: LogConfig, scan: &LogScan) -> Result<Self, WalError> {
        let _ = (segments, config, scan);
        unimplemented!()
    }
    pub fn append(&self, record: &Record<'_>) -> Result<Appended, WalError> {
        let _ = record;
        unimplemented!()
    }
    pub fn reserve(&self, bytes: usize) -> Result<Room<'_>, WalError> {
        let _ = bytes;
        unimplemented!()
    }
    pub fn hold(&self) -> Hold<'_> {
        unimplemented!()
    }
    pub fn wait_durable(&self, end: Lsn) -> Result<(), WalError> {
        let _ = end;
        unimplemented!()
    }
    pub fn durable(&self) -> Lsn {
        unimplemented!()
    }
    pub fn end(&self) -> Lsn {
        unimplemented!()
    }
    pub fn has_uncovered(&self) -> bool {
        unimplemented!()
    }
    pub fn cover(&self) -> Result<(), WalError> {
        unimplemented!()
    }
    pub fn note_manifest(&self, generation: u64) {
        let _ = generation;
        unimplemented!()
    }
    pub fn chain_point_at(&self, lsn: Lsn) -> ChainPoint {
        let _ = lsn;
        unimplemented!()
    }
    pub fn recycle(&self, below: Lsn) -> Result<(), WalError> {
        let _ = below;
        unimplemented!()
    }
    pub fn used_bytes(&self) -> u64 {
        unimplemented!()
    }
    pub fn record_bytes_max(&self) -> usize {
        unimplemented!()
    }
    pub fn is_poisoned(&self) -> bool {
        unimplemented!()
    }
    pub fn poison(&self) {
        unimplemented!()
    }
}

#[expect(clippy::unused_self, clippy::needless_pass_by_value, missing_docs, clippy::missing_errors_doc, reason = "signatures ahead of their bodies")]
impl Hold<'_> {
    pub fn check(&self) -> Result<(), WalError> {
        unimplemented!()
    }
    pub fn append(&mut self, room: Room<'_>, record: &Record<'_>) -> Appended {
        let _ = (room, record);
        unimplemented!()
    }
    pub fn end(&self) -> Lsn {
        unimplemented!()
    }
}
