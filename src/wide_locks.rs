//! Locks that are wider than a row, or protect none: ranges, tables, resources.
//!
//! Called by users, as a part of the transaction's handle. The steps are those of the write path: *lock, log*.
//! 1. The lock's record is in the log when the call returns; its position is the fencing token.
//! 2. K7: a table stays locked to the transaction's end, whatever is rolled back. A range goes with its savepoint (L9).
//! 3. A resource is rows of the engine's own table: queues, policies and deadlocks are those of rows.
//!
//! Crash: a lost lock implies a lost transaction.

use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey};
use lockstone_locks::{RowRange, TableMode, Target};
use lockstone_recovery::record::Body;

use crate::engine::Engine;
use crate::error::Result;
use crate::first_updater::expect_unchanged_within;
use crate::key_range::KeyRange;
use crate::lock_request::{Sought, request_wide};
use crate::log_step::{append, log_range, lost};
use crate::resource::{self, ResourceMode};
use crate::row_limits::check_bound;
use crate::table::Table;
use crate::transaction::Transaction;
use crate::txn_state::TxnState;
use crate::write_path;

impl Transaction {
    /// Locks every key of a range in `mode`, present or absent: nobody else can lock or write any of them in a mode that
    /// conflicts, nor insert one. A [`Transaction::put`] of others counts as `Update` here. Held until the transaction ends, or
    /// is rolled back to an earlier savepoint.
    ///
    /// A range in which no key can lie, its start behind its end, locks nothing; its token is of no use.
    ///
    /// # Errors
    /// As [`Transaction::lock`]. [`Error::WriteConflict`](crate::Error) as of [`Transaction::lock_table`], of the range.
    pub fn lock_range(
        &mut self,
        table: &Table,
        range: impl KeyRange,
        mode: LockMode,
    ) -> Result<FencingToken> {
        let mut lock = || {
            let (engine, txn) = self.parts();
            txn.check(engine)?;
            let id = table.id_in(engine)?;
            let row = |bound: Bound<&[u8]>| {
                check_bound(bound).map(|()| bound.map(|key| RowKey::new(id, key)))
            };
            let range = RowRange::new(id, row(range.start())?, row(range.end())?);
            table.enter(engine, txn, true)?;
            lock_range(engine, txn, &Arc::new(range), mode)
        };
        let result = lock();
        self.note(result)
    }

    /// Locks a table EXCLUSIVE: waits until every transaction that has locked or written in it has ended, while those who
    /// come later queue behind. Then it is this transaction's alone, to its end; there is no unlocking. What others read
    /// without locks, snapshots included, goes on. It sees everything that earlier writers have committed.
    ///
    /// # Errors
    /// As [`Transaction::lock`]; [`Error::UnknownTable`](crate::Error). Above
    /// [`Isolation::ReadCommitted`](crate::Isolation), [`Error::WriteConflict`](crate::Error) if anything in the table was
    /// changed after the transaction began: lock first, or run it again.
    pub fn lock_table(&mut self, table: &Table) -> Result<FencingToken> {
        let mut lock = || {
            let (engine, txn) = self.parts();
            txn.check(engine)?;
            let id = table.id_in(engine)?;
            let sought = Sought::Table(table.lock(), TableMode::Exclusive);
            let grant = request_wide(engine, txn, sought, LockMode::Update)
                .map_err(|error| lost(engine, txn, error))?;
            table.check_there()?;
            txn.tables_held(id);
            if grant.strengthened {
                expect_unchanged_within(engine, txn, &Target::Table(id))?;
                let appended = append(engine, txn, Body::TableLock { table: id })?;
                let token = FencingToken::new(appended.lsn);
                engine.locks.stamp_table(&txn.owner, id, token);
            }
            txn.check(engine)?;
            let token = engine.locks.table_token(&txn.owner, id);
            token.ok_or_else(|| txn.ended(engine))
        };
        let result = lock();
        self.note(result)
    }

    /// Locks a resource: a path that the users of this database agree on, and that nothing is stored under.
    /// [`ResourceMode::Exclusive`] conflicts with all; [`ResourceMode::SharedKey`] with the same key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
    /// use lockstone::ResourceMode;
    ///
    /// let mut txn = db.begin();
    /// let token = txn.lock_resource("jobs/nightly", ResourceMode::Exclusive)?;
    /// // Only one transaction at a time gets here; whoever does later has a larger token.
    /// assert!(token.lsn().get() > 0);
    /// txn.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::lock`]; path and key together have a few bytes less than a key may have. Where the transaction goes
    /// on, the call left no lock.
    pub fn lock_resource(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: ResourceMode,
    ) -> Result<FencingToken> {
        let path = path.as_ref();
        let (engine, txn) = self.parts();
        let result = lock_resource(engine, txn, path, &mode);
        self.note(result)
    }
}

/// *lock, log*.
fn lock_range(
    engine: &Engine,
    txn: &mut TxnState,
    range: &Arc<RowRange>,
    mode: LockMode,
) -> Result<FencingToken> {
    if is_empty(range) {
        txn.check(engine)?;
        return Ok(FencingToken::new(engine.log.end()));
    }
    let grant = request_wide(engine, txn, Sought::Range(range), mode)
        .map_err(|error| lost(engine, txn, error))?;
    if grant.strengthened {
        expect_unchanged_within(engine, txn, &Target::Range(Arc::clone(range)))?;
        log_range(engine, txn, range, mode)?;
    }
    // W10: whoever was rolled back meanwhile must not believe that it holds the range.
    txn.check(engine)?;
    let token = engine.locks.range_token(&txn.owner, range);
    token.ok_or_else(|| txn.ended(engine))
}

/// Whether no key lies within.
fn is_empty(range: &RowRange) -> bool {
    match (range.start(), range.end()) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}

/// One row, or two under an implicit savepoint.
fn lock_resource(
    engine: &Engine,
    txn: &mut TxnState,
    path: &[u8],
    mode: &ResourceMode,
) -> Result<FencingToken> {
    txn.check(engine)?;
    let whole = resource::row(path, None)?;
    let ResourceMode::SharedKey(key) = mode else {
        let mode = match mode {
            ResourceMode::Exclusive => LockMode::Update,
            _ => LockMode::Share,
        };
        return lock_row(engine, txn, &whole, mode);
    };
    let part = resource::row(path, Some(key))?;
    write_path::all_or_none(engine, txn, |txn| {
        lock_row(engine, txn, &whole, LockMode::Share)?;
        lock_row(engine, txn, &part, LockMode::Update)
    })
}

fn lock_row(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
) -> Result<FencingToken> {
    write_path::lock(engine, txn, row, mode, true)?;
    let token = engine.locks.token(&txn.owner, row);
    token.ok_or_else(|| txn.ended(engine))
}
