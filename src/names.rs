//! How errors and listings name rows, holders and deadlocks. Built by the engine, shown to people.
//!
//! 1. A key appears only when it is short, printable and not redacted.

use std::fmt;
use std::sync::Arc;

use lockstone_base::{LockMode, Rank, TxnId};
use serde::Serialize;

/// A row as errors and listings name it: the key only when it is short, printable and not redacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowName {
    /// The table's name.
    pub table: Arc<str>,
    /// The key, if it may be shown.
    pub key: Option<String>,
}

/// The longest key that is shown, in bytes.
const SHOWN_KEY_BYTES_MAX: usize = 64;

impl RowName {
    pub(crate) fn new(table: Arc<str>, key: &[u8], redact: bool) -> Self {
        let printable = key.iter().all(|byte| (b' '..=b'~').contains(byte));
        let shown = !redact && printable && key.len() <= SHOWN_KEY_BYTES_MAX;
        Self {
            table,
            key: shown.then(|| key.escape_ascii().to_string()),
        }
    }
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "row `{key}` of table `{}`", self.table),
            None => write!(f, "a row of table `{}`", self.table),
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
    /// The row it waits for.
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
