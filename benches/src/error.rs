//! Why a measurement could not be made. Every file here returns it; `main` prints it.

use std::io;
use std::path::{Path, PathBuf};

/// What stops the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The engine refused a call.
    #[error("the engine: {0}")]
    Engine(#[from] lockstone::Error),
    /// The log refused a call, in a workload without an engine around it.
    #[error("the log: {0}")]
    Log(#[from] lockstone_wal::WalError),
    /// The store refused a call, in a workload without an engine around it.
    #[error("the store: {0}")]
    Store(#[from] lockstone_storage::StorageError),
    /// The disk refused a call of the control, or of a workload without an engine.
    #[error("the disk: {0}")]
    Disk(#[from] lockstone_base::disk::DiskError),
    /// A file or directory of the program's own.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Setting(&'static str),
    /// The engine gave another answer than it must: the numbers would mean nothing.
    #[error("wrong result: {what} (expected {expected}, found {found})")]
    WrongResult {
        /// Which count.
        what: &'static str,
        /// What it must be.
        expected: u64,
        /// What it was.
        found: u64,
    },
    /// A child process of the program ended otherwise than it should.
    #[error("the child process that {0} failed")]
    Child(&'static str),
    /// The report could not be written as JSON.
    #[error("report: {0}")]
    Report(#[from] serde_json::Error),
}

impl Error {
    /// Names the path in an error of the kernel.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// `Ok` when a count is what it must be.
    pub(crate) fn unless_equal(what: &'static str, expected: u64, found: u64) -> Result<(), Self> {
        if expected == found {
            Ok(())
        } else {
            Err(Self::WrongResult {
                what,
                expected,
                found,
            })
        }
    }
}
