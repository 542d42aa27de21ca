//! What is asked of the lock table, and what its refusals mean to the user: who stands in the way of what.
//!
//! Called by `lock_request`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstone_base::{LockMode, RowKey};
use lockstone_locks::{Blocker, Refusal, RowRange, TableLock, TableMode, Target, TokenRequest};
use lockstone_storage::StorageError;

use crate::engine::Engine;
use crate::error::Error;
use crate::names::{Holder, RowName};
use crate::naming::name_target;
use crate::patience::Patience;
use crate::txn_state::TxnState;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sought<'a> {
    /// A row.
    Row {
        /// The row.
        row: &'a RowKey,
        /// Whether it is to be written.
        writes: bool,
    },
    /// All rows of a range.
    Range(&'a Arc<RowRange>),
    /// A table.
    Table(&'a Arc<TableLock>, TableMode),
    /// Tokens of a semaphore.
    Tokens(&'a Arc<TokenRequest>),
}

impl Sought<'_> {
    fn name(&self, engine: &Engine) -> RowName {
        let target = match *self {
            Self::Row { row, .. } => Target::Row(row.clone()),
            Self::Range(range) => Target::Range(Arc::clone(range)),
            Self::Table(table, _) => Target::Table(table.id()),
            Self::Tokens(request) => Target::Tokens(Arc::clone(request)),
        };
        name_target(engine, &target)
    }
}

/// A request, and what becomes of it if it is not granted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) sought: Sought<'a>,
    pub(crate) mode: LockMode,
    pub(crate) patience: Patience,
}

pub(crate) fn refused(
    engine: &Engine,
    txn: &TxnState,
    wanted: &Wanted<'_>,
    refusal: Refusal,
) -> Error {
    match refusal {
        Refusal::WouldBlock(blocker) => would_block(engine, wanted, blocker),
        Refusal::Conflict(blocker) => {
            engine.counters.conflicts.fetch_add(1, Ordering::Relaxed);
            Error::Conflict {
                txn: txn.owner.id(),
                row: wanted.sought.name(engine),
                holder_priority: blocker.rank,
                held: blocker.mode,
                asked: wanted.mode,
                holder: Box::new(holder(blocker)),
            }
        }
        Refusal::Unreadable(why) => match why.0.downcast_ref::<StorageError>() {
            Some(error) => error.clone().into(),
            None => Error::invalid(why.to_string()),
        },
        _ => ended(engine, txn),
    }
}

/// Why a request of a transaction that is no longer active was not granted.
pub(crate) fn ended(engine: &Engine, txn: &TxnState) -> Error {
    let error = txn.check(engine).err().unwrap_or(Error::TransactionEnded);
    if matches!(error, Error::Deadlock { .. }) {
        engine.counters.deadlocks.fetch_add(1, Ordering::Relaxed);
    }
    error
}

fn would_block(engine: &Engine, wanted: &Wanted<'_>, blocker: Blocker) -> Error {
    let (row, asked, held) = (wanted.sought.name(engine), wanted.mode, blocker.mode);
    let holder = Box::new(holder(blocker));
    let Some(timeout) = wanted.patience.timeout else {
        return Error::WouldBlock {
            row,
            holder,
            held,
            asked,
        };
    };
    engine.counters.timeouts.fetch_add(1, Ordering::Relaxed);
    let waited_ms = timeout.as_millis() as u64;
    Error::LockTimeout {
        row,
        holder,
        held,
        asked,
        waited_ms,
    }
}

fn holder(blocker: Blocker) -> Holder {
    Holder {
        txn: blocker.txn,
        label: blocker.label,
        priority: Some(blocker.rank),
    }
}
