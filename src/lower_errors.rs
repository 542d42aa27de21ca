//! What the errors of log, store and recovery are called here.
//!
//! Used by `?` wherever one of them is met.
//! 1. No room is the transaction's end; every other failure of the log is the engine's (W11).
//! 2. Damage keeps its file and its place.

use lockstone_recovery::RecoveryError;
use lockstone_storage::StorageError;
use lockstone_wal::WalError;

use crate::error::Error;

/// No room is the transaction's end; every other failure of the log is the engine's (W11).
impl From<WalError> for Error {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Disk(source) if source.is_full() => Self::DiskFull { source },
            WalError::Disk(source) => Self::Io(source),
            WalError::Closed => Self::Closed,
            WalError::Poisoned => Self::Poisoned,
            WalError::Corrupt {
                file,
                offset,
                lsn,
                what,
                witness,
            } => Self::Corrupt {
                file,
                offset: Some(offset),
                lsn: Some(lsn),
                what: match witness {
                    Some(witness) => format!("{what}; {witness}"),
                    None => what.into(),
                },
            },
            WalError::Locked { file } => Self::Locked {
                path: file,
                pid: None,
            },
            WalError::NewerFormat { file, version, .. } => Self::NewerVersion {
                file,
                found: version,
                supported: lockstone_wal::FORMAT_VERSION,
            },
            WalError::Foreign { file } => Self::Corrupt {
                file,
                offset: None,
                lsn: None,
                what: "it belongs to another database".into(),
            },
            other => Self::invalid(other.to_string()),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Disk(source) if source.is_full() => Self::DiskFull { source },
            StorageError::Disk(source) => Self::Io(source),
            StorageError::Corrupt { file, offset, what } => Self::Corrupt {
                file,
                offset,
                lsn: None,
                what: what.to_string(),
            },
            StorageError::NewerVersion {
                file,
                found,
                supported,
            } => Self::NewerVersion {
                file,
                found,
                supported,
            },
            other => Self::invalid(other.to_string()),
        }
    }
}

impl From<RecoveryError> for Error {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::NotADatabase { path, why } => Self::NotADatabase { path, why },
            RecoveryError::Locked { path, pid } => Self::Locked { path, pid },
            RecoveryError::Missing { file, why } => Self::Corrupt {
                file,
                offset: None,
                lsn: None,
                what: why.into(),
            },
            RecoveryError::Unlike {
                file,
                lsn,
                gid,
                said,
                found,
            } => Self::Corrupt {
                file,
                offset: None,
                lsn: Some(lsn),
                what: format!(
                    "what was prepared as `{gid}` had {said} row locks; {found} were found, or others"
                ),
            },
            RecoveryError::Wal(error) => error.into(),
            RecoveryError::Storage(error) => error.into(),
            RecoveryError::Disk(error) => {
                if error.is_full() {
                    Self::DiskFull { source: error }
                } else {
                    Self::Io(error)
                }
            }
            other => Self::invalid(other.to_string()),
        }
    }
}
