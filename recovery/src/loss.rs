//! What a salvage could not read, or has left out.
//!
//! Made by `salvage`, told by the facade.
//!
//! Crash: nothing is written.

use std::path::PathBuf;

use bytes::Bytes;
use lockstone_storage::StorageError;

/// Something that could not be read.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: Option<u64>,
    /// The rows that may be missing or old, both ends included, encoded.
    pub rows: Option<(Bytes, Bytes)>,
    /// What is wrong.
    pub what: String,
}

impl Loss {
    /// Something that is wrong with a file as a whole.
    pub(crate) fn whole(file: PathBuf, what: impl Into<String>) -> Self {
        Self {
            file,
            offset: None,
            rows: None,
            what: what.into(),
        }
    }

    pub(crate) fn of(error: &StorageError, rows: Option<(Bytes, Bytes)>) -> Self {
        let (file, offset) = match error {
            StorageError::Corrupt { file, offset, .. } => (file.clone(), *offset),
            StorageError::NewerVersion { file, .. } => (file.clone(), None),
            _ => (PathBuf::new(), None),
        };
        let what = match error {
            StorageError::Corrupt { what, .. } => what.to_string(),
            other => other.to_string(),
        };
        Self {
            offset,
            rows,
            ..Self::whole(file, what)
        }
    }
}
