//! What can go wrong in the log, as one enum; and where damage was found.
//!
//! 1. Bytes from disk give one of these, never a panic.
//! 2. After [`WalError::Poisoned`] nothing is ever acknowledged again by this run (W11); what was in
//!    flight may or may not survive.

use std::path::PathBuf;

use lockstone_base::Lsn;
use lockstone_base::disk::DiskError;
use thiserror::Error;

/// A failure of the log.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WalError {
    /// A call to the disk failed. Outside of reading this is returned only when the log itself is
    /// unharmed (no room for a further segment); failed log writes and syncs give
    /// [`WalError::Poisoned`].
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log was closed; nothing of this call was written.
    #[error("the log is closed")]
    Closed,
    /// A log write or sync has failed, or the engine has poisoned the log: nothing is acknowledged
    /// any more (W11). Reopening recovers from the log.
    #[error("the log is poisoned: a write or sync failed; reopen to recover")]
    Poisoned,
    /// Acknowledged data is damaged or missing; nothing was changed (G6).
    #[error("{}: damaged at offset {offset} (log position {lsn}): {what}", .file.display())]
    Corrupt {
        /// The segment.
        file: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// The position in the log.
        lsn: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// Someone else has this segment open.
    #[error("{}: in use by another process or handle", .file.display())]
    Locked {
        /// The segment.
        file: PathBuf,
    },
    /// A segment or frame of a later format.
    #[error("{}: offset {offset}: written by a newer version (format {version})", .file.display())]
    NewerFormat {
        /// The segment.
        file: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// The format version found.
        version: u32,
    },
    /// A segment of another database lies in this directory.
    #[error("{}: belongs to another database", .file.display())]
    Foreign {
        /// The segment.
        file: PathBuf,
    },
    /// A record does not fit a frame (G4).
    #[error("a log record of {bytes} bytes is longer than the {max} that fit")]
    RecordTooLong {
        /// Context and body together.
        bytes: usize,
        /// The most that fits: `Log::record_bytes_max`.
        max: usize,
    },
    /// A configuration that the log cannot run with.
    #[error("log configuration: {0}")]
    InvalidConfig(&'static str),
}

/// What a visitor of a scan finds wrong with a record; the scan adds file, offset and LSN and returns
/// [`WalError::Corrupt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisitError {
    /// What is wrong.
    pub what: &'static str,
}
