//! The calls that lock many rows: by a cursor, keys in the order given, or every row of a range; and work that is undone as
//! a whole.
//!
//! 1. A call that fails leaves none of its locks behind: an implicit savepoint (API).
//! 2. Rows of a range are asked for a stretch at a time, through the table's batches, and each stretch is one record.
//! 3. A row is locked only if it is there once its lock is had: W2, the commit tail is loaded behind the grants.
//!
//! Crash: as of single locks.

use std::ops::{Bound, ControlFlow};

use lockstone_base::{LockMode, Lsn, RowKey};
use lockstone_locks::{Batch, Grant, Place};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::held_back::{row_bytes, row_bytes_max};
use crate::key_range::{KeyRange, RowBounds, between};
use crate::log_step::log_held_back;
use crate::options::OnConflict;
use crate::range::Range;
use crate::range_for::RangeFor;
use crate::table::Table;
use crate::transaction::Transaction;
use crate::txn_state::TxnState;
use crate::write_path;

/// Rows of a stretch: enough that a visit to a shard of the lock table serves dozens.
const STRETCH_ROWS_MAX: usize = 2048;
impl Transaction {
    /// A cursor over the rows of a range, in either direction, that locks each row in `mode` as it yields
    /// it, and only those. The row last yielded can be changed through the cursor. The records of its locks are in the log
    /// when it is dropped, or when the transaction does anything else.
    ///
    /// # Errors
    /// As [`Transaction::lock`]; each step of the cursor too.
    pub fn range_for(
        &mut self,
        table: &Table,
        range: impl KeyRange,
        mode: LockMode,
    ) -> Result<RangeFor<'_>> {
        let policy = self.state().policy;
        self.range_for_under(policy, table, range, mode)
    }

    /// [`Transaction::range_for`], the cursor's steps included, under this policy.
    pub(crate) fn range_for_under(
        &mut self,
        policy: OnConflict,
        table: &Table,
        range: impl KeyRange,
        mode: LockMode,
    ) -> Result<RangeFor<'_>> {
        let bounds = self.under(policy, |txn| {
            let (engine, txn) = txn.parts();
            let opened = table.rows_to_lock(engine, txn, &range);
            txn.note(opened)
        })?;
        let (engine, txn) = self.parts_shared();
        Ok(RangeFor::new(engine, txn, bounds, mode).under(policy))
    }

    /// Locks `keys` in `mode`, in the order given: all of them or, if the call fails and the transaction goes on, none. They
    /// need not exist. A timeout counts for the whole call.
    ///
    /// # Errors
    /// As [`Transaction::lock`], for the first key that cannot be locked.
    pub fn lock_many<K: AsRef<[u8]>>(
        &mut self,
        table: &Table,
        keys: impl IntoIterator<Item = K>,
        mode: LockMode,
    ) -> Result<()> {
        let (engine, txn) = self.parts();
        let locked = txn.check(engine).and_then(|()| {
            table.enter(engine, txn, true)?;
            write_path::all_or_none(engine, txn, |txn| {
                for key in keys {
                    let row = table.row(engine, key.as_ref())?;
                    let grant = write_path::lock_one_of_many(engine, txn, &row, mode)?;
                    txn.check(engine)?;
                    write_path::hold_back(engine, txn, &row, grant)?;
                }
                log_held_back(engine, txn)
            })
        });
        self.note(locked)
    }

    /// Locks every row that a range has in `mode`, at a fraction of the cost of one by one: all of them or, if the call
    /// fails and the transaction goes on, none. How many there were. Rows are locked in an order of the engine's; under
    /// [`OnConflict::SkipLocked`](crate::OnConflict) those that others have locked are passed over.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
    /// use lockstone::LockMode;
    ///
    /// let squares = db.create_table("squares")?;
    /// let mut txn = db.begin();
    /// txn.put_many(&squares, (0..1000_u32).map(|n| (n.to_be_bytes(), (n * n).to_string())))?;
    /// txn.commit()?;
    /// let mut txn = db.begin();
    /// assert_eq!(txn.lock_rows(&squares, 10_u32.to_be_bytes()..20_u32.to_be_bytes(), LockMode::Share)?, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::lock`] and [`Transaction::get`].
    pub fn lock_rows(
        &mut self,
        table: &Table,
        range: impl KeyRange,
        mode: LockMode,
    ) -> Result<u64> {
        let (engine, txn) = self.parts();
        let locked = table.rows_to_lock(engine, txn, &range).and_then(|bounds| {
            txn.settle(engine, true);
            write_path::all_or_none(engine, txn, |txn| lock_rows(engine, txn, bounds, mode))
        });
        self.note(locked)
    }

    /// Runs `work` under a savepoint: what it did stays if it succeeds, and is undone, locks and writes, if it fails. May be
    /// nested to any depth.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
    /// let accounts = db.create_table("accounts")?;
    /// let mut txn = db.begin();
    /// txn.put(&accounts, "alice", "100")?;
    /// let tried: Result<(), lockstone::Error> = txn.nested(|txn| {
    ///     txn.put(&accounts, "alice", "0")?;
    ///     txn.put(&accounts, "", "no key is empty")
    /// });
    /// assert!(tried.is_err());
    /// assert_eq!(txn.get(&accounts, "alice")?.as_deref(), Some(b"100".as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `work` returned. [`Error::InvalidArgument`] past four billion savepoints.
    pub fn nested<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let sub = self.state_mut().mark()?;
        let done = work(self);
        let (engine, txn) = self.parts();
        if done.is_err() && txn.check(engine).is_ok() {
            // If that fails it has ended the transaction, and each later call says why.
            let _ = write_path::rollback_to(engine, txn, sub);
        }
        txn.unmark(sub);
        done
    }
}

fn lock_rows(
    engine: &Engine,
    txn: &mut TxnState,
    bounds: Option<RowBounds>,
    mode: LockMode,
) -> Result<u64> {
    let (mut left, mut count) = (bounds, 0);
    while let Some(bounds) = left {
        let (at, rows) = stretch(engine, txn, bounds.clone())?;
        let Some(last) = rows.last() else { break };
        let batch = write_path::lock_batch(engine, txn, &rows, mode)?;
        let granted = there(engine, txn, at, &rows, batch)?;
        count += granted.len() as u64;
        write_path::log_batch(engine, txn, granted.into_iter())?;
        left = between(Bound::Excluded(last.to_bytes()), bounds.1);
    }
    Ok(count)
}

/// The first rows within the bounds that the transaction sees.
fn stretch(engine: &Engine, txn: &TxnState, bounds: RowBounds) -> Result<(Lsn, Vec<RowKey>)> {
    let (at, sources) = txn.sources(engine);
    txn.saw(at);
    let table = match &bounds.0 {
        Bound::Included(row) | Bound::Excluded(row) => RowKey::from_encoded(row.clone()),
        Bound::Unbounded => None,
    };
    let table = table.expect("the bounds begin within their table").table();
    let mut rows = Vec::new();
    let (mut bytes, bytes_max) = (0, row_bytes_max(engine.log.record_bytes_max()));
    let mut range = Range::of_transaction(engine, txn, &sources, Some(bounds), at);
    let _ = range.visit(|key, _| {
        rows.push(RowKey::new(table, key));
        bytes += row_bytes(RowKey::TABLE_BYTES + key.len());
        if rows.len() == STRETCH_ROWS_MAX || bytes >= bytes_max {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok((at, rows))
}

/// What was granted of rows that were there at `at`; those that have gone since are given back.
fn there<'r>(
    engine: &Engine,
    txn: &TxnState,
    at: Lsn,
    rows: &'r [RowKey],
    batch: Batch,
) -> Result<Vec<(&'r RowKey, Grant)>> {
    let numbered = rows.iter().enumerate();
    let granted = numbered.filter_map(|(number, row)| Some((row, batch.grant(number)?)));
    let mut granted: Vec<_> = granted.collect();
    let (newest, sources) = txn.sources(engine);
    if newest == at {
        // So it is with a snapshot: the rows are known to be unchanged.
        return Ok(granted);
    }
    txn.saw(newest);
    let rows: Vec<_> = granted.iter().map(|(row, _)| *row).collect();
    let versions: Result<Vec<_>, _> = sources.get_many(&rows, newest).into_iter().collect();
    let mut versions = versions?.into_iter();
    let mut gone: Vec<Place> = Vec::new();
    granted.retain(|(row, grant)| {
        let version = versions.next().flatten();
        let is_there = version.is_some_and(|version| version.value.is_some());
        // Nobody takes away a row that the transaction holds already, or has written.
        let stays = is_there || !grant.fresh || txn.writes.get(row.as_bytes()).is_some();
        if !stays {
            gone.push(grant.place);
        }
        stays
    });
    if !gone.is_empty() {
        write_path::give_back(engine, txn, |place| gone.contains(&place));
    }
    Ok(granted)
}
