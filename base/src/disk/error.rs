//! What can fail at the disk port: the call, the file, the place, and the kernel's reason.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// What a call of the disk port returns.
pub type DiskResult<T> = Result<T, DiskError>;

/// The call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named after its call")]
pub enum DiskOp {
    CreateDir,
    OpenDir,
    List,
    Open,
    Create,
    Len,
    Read,
    Write,
    WriteDurable,
    Sync,
    SyncDir,
    SetLen,
    Map,
    Lock,
    Rename,
    Remove,
    Link,
    SetUpRing,
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDir => "create the directory",
            Self::OpenDir => "open the directory",
            Self::List => "list the directory",
            Self::Open => "open",
            Self::Create => "create",
            Self::Len => "find the length of",
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteDurable => "write and sync",
            Self::Sync => "sync",
            Self::SyncDir => "sync the directory",
            Self::SetLen => "set the length of",
            Self::Map => "map",
            Self::Lock => "lock",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Link => "link",
            Self::SetUpRing => "write with io_uring in",
        })
    }
}

/// A failed call of the disk port. Clones share the kernel's error.
#[derive(Debug, Clone, Error)]
#[error("cannot {op} {}{}: {source}", .path.display(), At(.offset))]
pub struct DiskError {
    /// The call.
    pub op: DiskOp,
    /// The file or directory.
    pub path: PathBuf,
    /// The byte offset, for reads and writes.
    pub offset: Option<u64>,
    /// The kernel's reason.
    pub source: Arc<io::Error>,
}

struct At<'a>(&'a Option<u64>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at offset {offset}"),
            None => Ok(()),
        }
    }
}

impl DiskError {
    /// The failure of `op` on `path`.
    pub fn new(op: DiskOp, path: &Path, source: impl Into<io::Error>) -> Self {
        Self {
            op,
            path: path.to_owned(),
            offset: None,
            source: Arc::new(source.into()),
        }
    }

    /// The same failure, at `offset`.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The kernel's kind of error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether it says that there is no room: a full disk, a quota, a file-size limit (F10).
    pub fn is_full(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}
