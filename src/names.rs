//! How errors and listings name rows, holders and deadlocks. Built by the engine, shown to people.
//!
//! 1. A key, or the bound of a range, appears only when it is short, printable and not redacted.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{LockMode, Rank, TxnId};
use serde::Serialize;

/// What a lock protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum LockKind {
    /// One row.
    Row,
    /// All keys between two bounds, present or absent.
    Range,
    /// A table: `Update` stands for EXCLUSIVE, `Share` for SHARED.
    Table,
    /// A resource: nothing that is stored.
    Resource,
    /// Tokens of a semaphore.
    Semaphore,
}

/// What is locked, as errors and listings name it: the key only when it is short, printable and not redacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowName {
    /// The table's name; of a resource or semaphore it is empty.
    pub table: Arc<str>,
    /// The key, the bounds of a range, a resource's path, or a semaphore's name, if it may be shown.
    pub key: Option<String>,
    /// What it is.
    pub kind: LockKind,
}

/// The longest key that is shown, in bytes.
const SHOWN_KEY_BYTES_MAX: usize = 64;

impl RowName {
    pub(crate) fn new(table: Arc<str>, key: &[u8], redact: bool) -> Self {
        Self {
            table,
            key: shown(key, redact),
            kind: LockKind::Row,
        }
    }

    /// All keys between two bounds.
    pub(crate) fn range(
        table: Arc<str>,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
        redact: bool,
    ) -> Self {
        let show = |bound: Bound<&[u8]>| match bound {
            Bound::Included(key) | Bound::Excluded(key) => shown(key, redact),
            Bound::Unbounded => Some(String::new()),
        };
        let dots = if matches!(end, Bound::Included(_)) {
            "..="
        } else {
            ".."
        };
        let both = show(start).zip(show(end));
        Self {
            table,
            key: both.map(|(start, end)| format!("{start}{dots}{end}")),
            kind: LockKind::Range,
        }
    }

    /// A whole table.
    pub(crate) fn table(table: Arc<str>) -> Self {
        Self {
            table,
            key: None,
            kind: LockKind::Table,
        }
    }

    /// A resource, by its path, and the key of one who shares it by key.
    pub(crate) fn resource(path: &[u8], key: Option<&[u8]>, redact: bool) -> Self {
        let path = shown(path, redact);
        Self {
            table: Arc::from(""),
            key: match key {
                None => path,
                Some(key) => path
                    .zip(shown(key, redact))
                    .map(|(path, key)| format!("{path}: {key}")),
            },
            kind: LockKind::Resource,
        }
    }

    /// A semaphore, by its name.
    pub(crate) fn semaphore(name: &[u8], redact: bool) -> Self {
        Self {
            table: Arc::from(""),
            key: shown(name, redact),
            kind: LockKind::Semaphore,
        }
    }
}

fn shown(key: &[u8], redact: bool) -> Option<String> {
    let printable = key.iter().all(|byte| (b' '..=b'~').contains(byte));
    let shown = !redact && printable && key.len() <= SHOWN_KEY_BYTES_MAX;
    shown.then(|| key.escape_ascii().to_string())
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        match (self.kind, &self.key) {
            (LockKind::Row, Some(key)) => write!(f, "row `{key}` of table `{table}`"),
            (LockKind::Row, None) => write!(f, "a row of table `{table}`"),
            (LockKind::Range, Some(key)) => write!(f, "the range `{key}` of table `{table}`"),
            (LockKind::Range, None) => write!(f, "a range of table `{table}`"),
            (LockKind::Table, _) => write!(f, "table `{table}`"),
            (LockKind::Resource, Some(path)) => write!(f, "resource `{path}`"),
            (LockKind::Resource, None) => f.write_str("a resource"),
            (LockKind::Semaphore, Some(name)) => write!(f, "semaphore `{name}`"),
            (LockKind::Semaphore, None) => f.write_str("a semaphore"),
        }
    }
}

/// The transaction that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its id.
    pub txn: TxnId,
    /// What its owner calls it.
    pub label: Option<Arc<str>>,
    /// Its priority.
    pub priority: Option<Rank>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.txn)?;
        if let Some(label) = &self.label {
            write!(f, " `{label}`")?;
        }
        match self.priority {
            Some(rank) => write!(f, " (priority {rank})"),
            None => Ok(()),
        }
    }
}

/// A circle of transactions, each waiting for the next and the last for the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cycle {
    /// The waits, in order.
    pub waits: Vec<CycleWait>,
    /// The transaction that was rolled back to end it.
    pub victim: TxnId,
}

/// One wait of a deadlock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CycleWait {
    /// Who waits.
    pub txn: TxnId,
    /// What its owner calls it.
    pub label: Option<Arc<str>>,
    /// What it waits for.
    pub row: RowName,
    /// The mode it asked for.
    pub mode: LockMode,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for wait in &self.waits {
            write!(f, "{}", wait.txn)?;
            if let Some(label) = &wait.label {
                write!(f, " `{label}`")?;
            }
            write!(f, " waits for {} in mode {}; ", wait.row, wait.mode)?;
        }
        write!(f, "{} was rolled back", self.victim)
    }
}
