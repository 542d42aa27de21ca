//! Semaphores: a name and so many tokens, of which transactions hold some.
//!
//! Called by users, through the database's handle and the transaction's.
//! 1. A semaphore is a committed row of the engine's own table: what is durable of it is what is durable of any row.
//! 2. Tokens are held by the transaction like locks: given back at its end, and at a rollback to a savepoint before (L9). Their
//!    record is in the log when the call returns.
//!
//! Crash: who held tokens is aborted, and they are free; but for one that outlives a crash.

use std::sync::Arc;

use lockstone_base::limits::KEY_BYTES_MAX;
use lockstone_base::{LockMode, RowKey, TableId};
use lockstone_locks::TokenRequest;
use lockstone_recovery::record::{Body, Tokens};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lock_request::{Sought, request_wide};
use crate::log_step::{Write, append, lost};
use crate::resource::{semaphore_name, semaphore_row};
use crate::transaction::Transaction;
use crate::txn_state::TxnState;
use crate::write_path;

impl Transaction {
    /// Takes tokens of a semaphore ([`Database::create_semaphore`](crate::Database::create_semaphore)); waits, as the policy
    /// says, until so many are free. First come, first served, however few one behind asks for; only who holds tokens of it
    /// already goes to the front. They are given back when the transaction ends, or is rolled back to a savepoint before.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
    /// use lockstone::OnConflict;
    ///
    /// db.create_semaphore("downloads", 2)?;
    /// let (mut one, mut other) = (db.begin(), db.begin());
    /// one.acquire("downloads", 2)?;
    /// assert!(other.on_conflict(OnConflict::NoWait).acquire("downloads", 1).is_err());
    /// one.commit()?;
    /// other.acquire("downloads", 1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: there is no such semaphore; no token is asked for, or more, with those that the transaction
    /// holds, than there are. Else as [`Transaction::lock`]. Where the transaction goes on, the call took no token.
    pub fn acquire(&mut self, semaphore: impl AsRef<[u8]>, tokens: u64) -> Result<()> {
        let (engine, txn) = self.parts();
        let result = acquire(engine, txn, semaphore.as_ref(), tokens);
        self.note(result)
    }

    /// The semaphore `name`, made by this transaction unless it is there.
    pub(crate) fn make_semaphore(&mut self, name: &[u8], limit: u64) -> Result<()> {
        let (engine, txn) = self.parts();
        let result = make(engine, txn, name, limit);
        self.note(result)
    }
}

/// *lock, log*.
fn acquire(engine: &Engine, txn: &mut TxnState, name: &[u8], tokens: u64) -> Result<()> {
    txn.check(engine)?;
    let row = row(name)?;
    let shown = || name.escape_ascii();
    let (at, sources) = engine.newest();
    txn.saw(at);
    let limit = sources.get(row.as_bytes(), at)?;
    let Some(limit) = limit.and_then(|version| limit_of(version.value.as_deref()?)) else {
        return Err(Error::invalid(format!(
            "there is no semaphore `{}`: create it with create_semaphore",
            shown()
        )));
    };
    let held = engine.locks.tokens(&txn.owner, &row);
    if tokens == 0 || held.saturating_add(tokens) > limit {
        return Err(Error::invalid(format!(
            "{tokens} tokens of semaphore `{}`: it has {limit}, of which this transaction holds {held}",
            shown()
        )));
    }
    let request = Arc::new(TokenRequest {
        semaphore: row,
        limit,
        tokens,
    });
    request_wide(engine, txn, Sought::Tokens(&request), LockMode::Update)
        .map_err(|error| lost(engine, txn, error))?;
    let body = Body::Tokens(Tokens {
        semaphore: name,
        limit,
        tokens,
        sub: txn.sub,
    });
    append(engine, txn, body)?;
    txn.count_locks(1);
    // W10: whoever was rolled back meanwhile must not believe that it holds them.
    txn.check(engine)
}

fn make(engine: &Engine, txn: &mut TxnState, name: &[u8], limit: u64) -> Result<()> {
    let row = row(name)?;
    if limit == 0 {
        return Err(Error::invalid("a semaphore has at least one token"));
    }
    write_path::lock(engine, txn, &row, LockMode::Update, false)?;
    match txn.read(engine, &row)?.as_deref().map(limit_of) {
        Some(Some(there)) if there == limit => Ok(()),
        Some(there) => Err(Error::invalid(format!(
            "semaphore `{}` has {} tokens, and not {limit}",
            name.escape_ascii(),
            there.unwrap_or(0),
        ))),
        None => {
            let limit = limit.to_le_bytes();
            write_path::write(engine, txn, row, Write::put(&limit)?)
        }
    }
}

/// The row that says how many tokens there are.
fn row(name: &[u8]) -> Result<RowKey> {
    let max = KEY_BYTES_MAX - 1;
    match name.len() {
        0 => Err(Error::KeyEmpty),
        bytes if bytes > max => Err(Error::KeyTooLong { bytes, max }),
        _ => Ok(semaphore_row(name)),
    }
}

/// The name and the number of tokens, if the row and its value are those of a semaphore.
pub(crate) fn decode<'r>(row: &'r RowKey, value: &[u8]) -> Option<(&'r [u8], u64)> {
    assert_eq!(
        row.table(),
        TableId::ENGINE,
        "asked of the engine's own rows"
    );
    semaphore_name(row).zip(limit_of(value))
}

fn limit_of(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}
