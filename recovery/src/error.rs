//! Why a directory could not be opened or inspected.

use std::path::PathBuf;

use lockstone_base::Lsn;
use lockstone_base::disk::DiskError;
use lockstone_storage::StorageError;
use lockstone_wal::WalError;
use thiserror::Error;

/// Why a directory could not be opened or inspected. Nothing was changed that recovery reads.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The path holds something else than a database.
    #[error("{} is not a Lockstone database: {why}", path.display())]
    NotADatabase {
        /// The path.
        path: PathBuf,
        /// What was found there.
        why: &'static str,
    },
    /// Another process, or another handle of this one, has it open.
    #[error("{} is in use by process {pid:?}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that has it open, if its lock file says so.
        pid: Option<u32>,
    },
    /// A file that must be there is not.
    #[error("{} is missing: {why}", file.display())]
    Missing {
        /// The file, or the directory that lacks one.
        file: PathBuf,
        /// What says that it must be there.
        why: &'static str,
    },
    /// What was found of a prepared transaction is not what it has said of itself: locks would be lost, or made up.
    #[error(
        "{} is damaged (LSN {lsn}): the transaction prepared as `{gid}` had {said} row locks, and {found} were found, or others",
        file.display()
    )]
    Unlike {
        /// The file in which it says so.
        file: PathBuf,
        /// Where in the log.
        lsn: Lsn,
        /// What it is known by.
        gid: String,
        /// How many it had.
        said: u64,
        /// How many were found.
        found: u64,
    },
    /// A counter of the database has come to its end, or a hostile manifest says so: numbers that must
    /// never come again would.
    #[error("the database cannot be opened any more: it has used up its {what} ({at})")]
    Exhausted {
        /// What is counted.
        what: &'static str,
        /// How far it was counted.
        at: u64,
    },
    /// The log refused.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The store refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The kernel refused a call.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
