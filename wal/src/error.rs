//! What can go wrong in the log, as one enum; and where damage was found.
//!
//! 1. Bytes from disk give one of these, never a panic.
//! 2. After [`WalError::Poisoned`] nothing is ever acknowledged again by this run (W11); what was in
//!    flight may or may not survive.

use std::fmt;
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
    #[error("{}: damaged at offset {offset} (log position {lsn}): {what}{}", .file.display(), Told(.witness))]
    Corrupt {
        /// The segment.
        file: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// The position in the log.
        lsn: Lsn,
        /// What is wrong.
        what: &'static str,
        /// What says so, if it is not the damaged place itself.
        witness: Option<Box<Witness>>,
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

/// What says that acknowledged data is damaged or missing (G6, F14).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Witness {
    /// The newest manifest.
    Manifest {
        /// Its generation.
        generation: u64,
        /// How far it says that the log was durable.
        durable: Lsn,
        /// How far it says that the log's files reached.
        log_end: Lsn,
    },
    /// A frame's intact header at its own place.
    Frame {
        /// The segment.
        file: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// Its position in the log.
        lsn: Lsn,
        /// How far it says that the log was durable.
        durable_through: Lsn,
        /// The manifest that it names.
        manifest_generation: u64,
    },
    /// A segment's intact header, which names one that is not there.
    Segment {
        /// The segment.
        file: PathBuf,
        /// The base of the missing one.
        missing: Lsn,
    },
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest {
                generation,
                durable,
                log_end,
            } => write!(
                f,
                "manifest {generation} says that the log was durable to {durable}, in files that reached to {log_end}"
            ),
            Self::Frame {
                file,
                offset,
                lsn,
                durable_through,
                manifest_generation,
            } => write!(
                f,
                "the frame at {lsn} ({}, offset {offset}) says that the log was durable to {durable_through} and manifest {manifest_generation} written",
                file.display()
            ),
            Self::Segment { file, missing } => write!(
                f,
                "the header of {} names the segment at {missing}",
                file.display()
            ),
        }
    }
}

struct Told<'a>(&'a Option<Box<Witness>>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(witness) => write!(f, "; {witness}"),
            None => Ok(()),
        }
    }
}

/// What a visitor of a scan finds wrong with a record; the scan adds file, offset and LSN and returns
/// [`WalError::Corrupt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisitError {
    /// What is wrong.
    pub what: &'static str,
}
