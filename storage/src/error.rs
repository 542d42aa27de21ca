//! What can go wrong in the store: the disk, damaged bytes, or a file of a later version.
//!
//! Returned by every fallible call of this crate.
//! 1. Bytes from disk give one of these errors, never a panic and never a wrong answer (F11, F23).
//! 2. A damage names its file and, where it is known, the offset of the section that holds it.

use std::fmt;
use std::path::PathBuf;

use lockstone_base::disk::{DiskError, DiskOp};
use thiserror::Error;

/// A failure of the store. Clones share the kernel's error.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk refused; nothing that was durable has changed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes on disk are not what was written.
    #[error("{} is damaged{}: {what}", .file.display(), At(*.offset))]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in the file the damaged section starts, if one section is to blame.
        offset: Option<u64>,
        /// What is wrong with it.
        what: Damage,
    },
    /// A file was written by a later version of this engine.
    #[error("{} has format version {found}; this engine reads versions up to {supported}", .file.display())]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The latest that this engine reads.
        supported: u32,
    },
}

impl StorageError {
    /// The file whose bytes are wrong or cannot be read; `None` if it says nothing of any.
    pub(crate) fn unread(&self) -> Option<&PathBuf> {
        match self {
            Self::Corrupt { file, .. } => Some(file),
            Self::Disk(error) if error.op == DiskOp::Read => Some(&error.path),
            Self::Disk(_) | Self::NewerVersion { .. } => None,
        }
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Damage {
    /// A needed file is not there.
    #[error("the file is missing")]
    Missing,
    /// The file is shorter or longer than it was written.
    #[error("the file has {found} bytes and should have {expected}")]
    Length {
        /// Its length.
        found: u64,
        /// The length that it should have, or the least that it could have.
        expected: u64,
    },
    /// The file does not begin as its kind does.
    #[error("it is no file of its kind")]
    Magic,
    /// A checksum does not fit: changed bytes, or bytes of another place, file or database (F12).
    #[error("the checksum of the {0} does not match")]
    Checksum(Section),
    /// The file belongs to another database.
    #[error("it belongs to another database")]
    Foreign,
    /// Another file than the one that the name or the manifest speaks of (F13, F14).
    #[error("it is not the file that its name or the manifest speaks of")]
    Swapped,
    /// A section with a good checksum contradicts itself or its neighbours (F23).
    #[error("the {section} is malformed: {what}")]
    Malformed {
        /// The section.
        section: Section,
        /// The rule that it breaks.
        what: &'static str,
    },
}

impl Damage {
    pub(crate) const fn malformed(section: Section, what: &'static str) -> Self {
        Self::Malformed { section, what }
    }
}

/// A part of a file that has its own checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// A run's first bytes.
    Head,
    /// A run's data block.
    Block,
    /// A run's filter.
    Filter,
    /// A run's index.
    Index,
    /// What a spill says of itself.
    Summary,
    /// A run's last bytes.
    Footer,
    /// A whole manifest.
    Manifest,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Block => "block",
            Self::Filter => "filter",
            Self::Index => "index",
            Self::Summary => "summary",
            Self::Footer => "footer",
            Self::Manifest => "manifest",
        })
    }
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at offset {offset}"),
            None => Ok(()),
        }
    }
}
