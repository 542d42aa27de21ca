//! What the simulated disk records: each mutating call, and the units of change that a crash can take
//! apart.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use lockstone_base::disk::DiskOp;

use super::content::Content;
use super::payload::Payload;

/// A file, whatever its names.
pub(super) type FileId = u64;

/// One mutating call, as it was made and answered.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) op: DiskOp,
    pub(super) name: Arc<str>,
    pub(super) action: Action,
    /// The error that it returned.
    pub(super) failed: Option<ErrorKind>,
}

/// Bytes on their way into a file.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) payload: Payload,
}

/// What a call did.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Nothing: it failed before it had an effect.
    Nothing,
    Create {
        file: FileId,
    },
    Rename {
        to: Arc<str>,
        file: FileId,
    },
    Remove {
        file: FileId,
    },
    SyncDir,
    Write(Write),
    WriteDurable(Write),
    /// A durable write begins: what programs see has it, and a crash decides it.
    Start(Write),
    /// The durable write that call `started` began ends.
    Finish {
        started: u64,
        write: Write,
    },
    Sync {
        file: FileId,
    },
    SetLen {
        file: FileId,
        bytes: u64,
    },
    /// A test's own hand: the file has this content, on the device too; `None` removes it.
    Tamper {
        file: FileId,
        content: Option<Content>,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.action, Action::Start(_)) {
            f.write_str("begin to ")?;
        }
        write!(f, "{} {}", self.op, self.name)?;
        match &self.action {
            Action::Rename { to, .. } => write!(f, " to {to}")?,
            Action::SetLen { bytes, .. } => write!(f, " to {bytes}")?,
            Action::Write(write)
            | Action::WriteDurable(write)
            | Action::Start(write)
            | Action::Finish { write, .. } => {
                write!(f, " [{}, +{}]", write.offset, write.payload.len())?;
            }
            _ => {}
        }
        match self.failed {
            Some(kind) => write!(f, ": {kind}"),
            None => Ok(()),
        }
    }
}

/// One thing that a crash keeps or loses, independently of all others.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The directory gains a name.
    Link { name: Arc<str>, file: FileId },
    /// A name becomes another, in one step.
    Move {
        from: Arc<str>,
        to: Arc<str>,
        file: FileId,
    },
    /// The directory loses a name.
    Unlink { name: Arc<str>, file: FileId },
    /// The file becomes longer.
    Grow { file: FileId, to: u64 },
    /// The file becomes shorter.
    Cut { file: FileId, to: u64 },
    /// Bytes of the file change.
    Data {
        file: FileId,
        offset: u64,
        payload: Payload,
    },
}

impl Change {
    /// The file whose content it changes; `None` for names.
    pub(super) fn content_of(&self) -> Option<FileId> {
        match self {
            Self::Grow { file, .. } | Self::Cut { file, .. } | Self::Data { file, .. } => {
                Some(*file)
            }
            Self::Link { .. } | Self::Move { .. } | Self::Unlink { .. } => None,
        }
    }
}

/// How far a change is on its way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the cache: the next sync takes it.
    Cached,
    /// A log write that has begun and not ended: a sync passes it over, its end makes it durable.
    Aloft,
    /// A sync of it failed: the cache calls it clean, and no later sync writes it (F8).
    Stranded,
}

/// A change that no sync has made durable.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// The call that made it.
    pub(super) number: u64,
    pub(super) change: Change,
    pub(super) stage: Stage,
}

impl Unit {
    /// What it changes of the file before `end`.
    pub(super) fn before(mut self, end: u64) -> Option<Self> {
        match &mut self.change {
            Change::Data {
                offset, payload, ..
            } => {
                let kept = end.saturating_sub(*offset).min(payload.len() as u64) as usize;
                *payload = payload.slice(0..kept);
                (kept > 0).then_some(self)
            }
            Change::Grow { to, .. } => {
                *to = end.min(*to);
                (*to > 0).then_some(self)
            }
            _ => Some(self),
        }
    }
}
