//! The handle of a transaction: what a user calls. Checks arguments, reads, and hands every lock, write
//! and ending to the write path.
//!
//! 1. Reads see what the transaction's view has ([`isolation`](crate::isolation)), and its own writes over that.
//! 2. W10: every call checks the transaction's state again after its effect, so a transaction that was
//!    rolled back meanwhile never returns what it read.
//! 3. A handle that is dropped aborts.

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, Lsn, RowKey, TxnId};

use crate::closing::EngineRef;
use crate::error::{Error, Result};
use crate::first_updater::expect_unchanged;
use crate::isolation::View;
use crate::key_value::Value;
use crate::lease;
use crate::live::Notes;
use crate::log_step::append_held_back;
use crate::many_rows;
use crate::options::{OnConflict, TxnOptions};
use crate::promise;
use crate::provisional_memory::Share;
use crate::table::Table;
use crate::ticket::CommitTicket;
use crate::txn_state::TxnState;
use crate::write_path::{self, Write};

/// A unit of work: locks rows, reads, writes, and commits all of it or nothing.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
/// use lockstone::LockMode;
///
/// let accounts = db.create_table("accounts")?;
/// let mut txn = db.begin();
/// txn.put(&accounts, "alice", "100")?;
/// let alice = txn.get_for(&accounts, "alice", LockMode::Update)?;
/// assert_eq!(alice.as_deref(), Some(b"100".as_slice()));
/// txn.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A committed or aborted transaction is gone: using it again does not compile.
///
/// ```compile_fail
/// # let db = lockstone::Database::open("db")?;
/// let txn = db.begin();
/// txn.commit()?;
/// txn.id();
/// # Ok::<(), lockstone::Error>(())
/// ```
#[derive(Debug)]
pub struct Transaction {
    pub(crate) engine: Arc<EngineRef>,
    /// Absent once it has ended.
    state: Option<TxnState>,
}

/// A mark to roll back to. Valid until a rollback to an earlier one; rolling back to it keeps it valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint {
    txn: TxnId,
    sub: u32,
}

/// What a retry keeps of the attempts before it, so that it is neither the youngest nor the weakest for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempts {
    /// The first of them, whose age it has.
    pub(crate) first: TxnId,
    /// The largest of their draws.
    pub(crate) draw: u32,
}

impl Transaction {
    /// A new transaction; `earlier` are the attempts of which it is a retry.
    pub(crate) fn begin(
        engine: Arc<EngineRef>,
        options: TxnOptions,
        earlier: Option<Attempts>,
    ) -> Self {
        let id = engine.next_txn_id();
        let notes = Arc::new(Notes::new(
            engine.ports.clock.now(),
            options.isolation,
            &engine.provisional,
        ));
        let owner = engine.locks.begin(id, options.label.clone(), notes.clone());
        if let Some(earlier) = earlier {
            owner.inherit_age(earlier.first);
        }
        if let Some(lasts) = options.lease {
            lease::begin(engine.shared(), &owner, &notes, lasts);
        }
        let draw_min = earlier.map_or(0, |earlier| earlier.draw);
        engine.live.begin(&owner, &notes);
        let begun = (View::begin(&engine, &notes), Share::new(&notes.used));
        Self {
            engine,
            state: Some(TxnState::new(owner, notes, options, begun, draw_min)),
        }
    }

    /// Its id, unique over the whole life of the database.
    pub fn id(&self) -> TxnId {
        self.state().owner.id()
    }

    /// Locks `key` in `mode`, then reads its newest value; above [`Isolation::ReadCommitted`](crate::Isolation) it is refused if
    /// that is newer than the transaction. The row need not exist. Under
    /// [`OnConflict::SkipLocked`] a row that is locked is not there.
    ///
    /// # Errors
    /// As [`Transaction::lock`] and [`Transaction::get`].
    pub fn get_for(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> Result<Option<Value>> {
        let key = key.as_ref();
        let mut get = || {
            let (engine, txn) = self.parts();
            let skips = txn.policy == OnConflict::SkipLocked;
            let locked = table.row_to_lock(engine, txn, key, true).and_then(|row| {
                write_path::lock(engine, txn, &row, mode, true)?;
                Ok(row)
            });
            match locked {
                Err(Error::WouldBlock { .. }) if skips => {
                    engine.counters.skip();
                    Ok(None)
                }
                locked => self.read_row(table, &locked?),
            }
        };
        let result = get();
        self.note(result)
    }

    /// Locks `key` in `mode` until the transaction ends, or is rolled back to an earlier savepoint. The
    /// row need not exist. The token grows with every later holder of the row, across crashes.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], [`Error::LockTimeout`]: the call left no trace. [`Error::Deadlock`], [`Error::Conflict`],
    /// [`Error::WriteConflict`], [`Error::DiskFull`], [`Error::LogFull`]: the transaction is rolled back, its locks are free.
    pub fn lock(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> Result<FencingToken> {
        let locked = self.lock_row(table, key.as_ref(), mode);
        let token = locked.and_then(|row| self.token_of(&row));
        self.note(token)
    }

    /// Gives `key` a value; locks it `NoKeyUpdate`.
    ///
    /// # Errors
    /// As [`Transaction::lock`]; [`Error::ValueTooLong`].
    pub fn put(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        let mut put = || {
            let (engine, txn) = self.parts();
            let row = table.row_to_lock(engine, txn, key.as_ref(), false)?;
            let write = Write::put(value.as_ref())?;
            write_path::write(engine, txn, row, write)
        };
        let result = put();
        self.note(result)
    }

    /// Gives each key of `rows` its value, as [`Transaction::put`] does, at a fraction of the cost: all of them
    /// or, if the call fails, none. In any order; ascending is fastest. Of a key that is there several times
    /// the last value counts. Rows are locked in an order of the engine's.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
    /// let squares = db.create_table("squares")?;
    /// let mut txn = db.begin();
    /// txn.put_many(&squares, (0..1000_u32).map(|n| (n.to_be_bytes(), (n * n).to_string())))?;
    /// assert_eq!(txn.get(&squares, 30_u32.to_be_bytes())?.as_deref(), Some(b"900".as_slice()));
    /// txn.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::put`], for the first row that cannot be written. Where the transaction goes on, the
    /// call left neither lock nor write. A timeout counts for the whole call.
    pub fn put_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        table: &Table,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let packed = table
            .id_in(&self.engine)
            .and_then(|table| many_rows::pack(table, rows));
        let (engine, txn) = self.parts();
        let result = packed.and_then(|rows| {
            txn.check(engine)?;
            table.enter(engine, txn, false)?;
            write_path::write_many(engine, txn, rows)
        });
        self.note(result)
    }

    /// Gives `key` a value if it has none; locks it `Update` in any case. Whether it had none.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn insert_new(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let mut insert = || {
            let write = Write::put(value)?;
            let row = self.lock_to_write(table, key)?;
            // Unlike a blind write, which a serializable transaction may do whatever has become of the row.
            let (engine, txn) = self.parts();
            expect_unchanged(engine, txn, false, [row.as_bytes()])?;
            let absent = self.read_row(table, &row)?.is_none();
            if absent {
                self.write_row(row, write)?;
            }
            Ok(absent)
        };
        let result = insert();
        self.note(result)
    }

    /// Removes `key`; locks it `Update` in any case. Whether it existed.
    ///
    /// # Errors
    /// As [`Transaction::lock`].
    pub fn delete(&mut self, table: &Table, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let mut delete = || {
            let row = self.lock_to_write(table, key)?;
            let exists = self.read_row(table, &row)?.is_some();
            if exists {
                self.write_row(row, Write::Delete)?;
            }
            Ok(exists)
        };
        let result = delete();
        self.note(result)
    }

    /// Runs `call` with another policy for what it locks; if it panics, the transaction has its own again all the same.
    pub(crate) fn under<T>(&mut self, policy: OnConflict, call: impl FnOnce(&mut Self) -> T) -> T {
        struct Restores<'a>(&'a mut Transaction, OnConflict);
        impl Drop for Restores<'_> {
            fn drop(&mut self) {
                self.0.state_mut().policy = self.1;
            }
        }
        let before = std::mem::replace(&mut self.state_mut().policy, policy);
        call(Restores(self, before).0)
    }

    /// Marks the place that a later [`Transaction::rollback_to`] returns to.
    pub fn savepoint(&mut self) -> Savepoint {
        let txn = self.state_mut();
        // Past four billion marks none is valid any more, and a rollback to it says so.
        let sub = txn.mark().unwrap_or(u32::MAX);
        Savepoint {
            txn: txn.owner.id(),
            sub,
        }
    }

    /// Undoes what was written since the savepoint, and releases or weakens the row locks taken since, at
    /// once. The savepoint stays valid; later ones do not.
    ///
    /// # Errors
    /// [`Error::InvalidSavepoint`]: nothing was changed. Else as [`Transaction::lock`].
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let (engine, txn) = self.parts();
        let result = txn.check(engine).and_then(|()| {
            if savepoint.txn != txn.owner.id() || !txn.is_marked(savepoint.sub) {
                return Err(Error::InvalidSavepoint);
            }
            write_path::rollback_to(engine, txn, savepoint.sub)
        });
        self.note(result)
    }

    /// Makes everything that was written visible to others, and durable unless
    /// [`Durability::Buffered`](crate::Durability) was asked for. The commit's position in the log; for a
    /// transaction that wrote nothing, the one that it has read at.
    ///
    /// # Errors
    /// [`Error::LocksInvalidated`]: another commit has written into what this serializable transaction has read.
    /// [`Error::Poisoned`]: the outcome is unknown, reopen and look. After any other error nothing of
    /// the transaction is there.
    pub fn commit(self) -> Result<Lsn> {
        self.commit_then(|| ())
    }

    /// [`Transaction::commit`], which calls `released` when its locks are free.
    pub(crate) fn commit_then(mut self, released: impl FnOnce()) -> Result<Lsn> {
        let state = self.state.take().expect(HAS_STATE);
        let promise = write_path::commit(&self.engine, state)?;
        released();
        promise::keep(&self.engine, promise)
    }

    /// Commits as [`Transaction::commit`] does, and returns before the commit is on the device: the ticket
    /// tells when it is, and every error. Other transactions read its effect at once; no snapshot shows it,
    /// and none that has read it is acknowledged, before it is on the device. Like every call that writes it
    /// may wait for room in memory or log.
    pub fn commit_async(mut self) -> CommitTicket {
        let state = self.state.take().expect(HAS_STATE);
        let outcome = write_path::commit(&self.engine, state);
        CommitTicket::new(self.engine.clone(), outcome)
    }

    /// One that had no handle has this one.
    pub(crate) fn resumed(engine: Arc<EngineRef>, state: TxnState) -> Self {
        Self {
            engine,
            state: Some(state),
        }
    }

    /// [`Transaction::detach`].
    pub(crate) fn detached(mut self) -> TxnId {
        let mut state = self.state.take().expect(HAS_STATE);
        state.leave_line(&self.engine);
        let id = state.owner.id();
        let engine = &self.engine;
        let has_lease = state.live.lease().is_some();
        let mut outlive = || {
            state.check(engine)?;
            write_path::begin_lease(engine, &mut state)
        };
        let outlives = has_lease && outlive().is_ok();
        if outlives {
            self.engine.detached.put(&self.engine, state);
        } else {
            write_path::abort(&self.engine, state);
        }
        id
    }

    /// Undoes everything. Dropping the handle does the same.
    pub fn abort(self) {}

    /// The mode in which this transaction holds `key`.
    pub fn holds(&self, table: &Table, key: impl AsRef<[u8]>) -> Option<LockMode> {
        let row = table.row(&self.engine, key.as_ref()).ok()?;
        self.engine.locks.holds(&self.state().owner, &row)
    }

    /// The fencing token of the lock that this transaction holds on `key`.
    pub fn fencing_token(&self, table: &Table, key: impl AsRef<[u8]>) -> Option<FencingToken> {
        let row = table.row(&self.engine, key.as_ref()).ok()?;
        let txn = self.state();
        // A cursor that is left may hold back the record that is the token. What cannot be appended fails the next call.
        if let Some(held) = txn.held_back.as_ref().filter(|held| !held.is_empty()) {
            let _ = append_held_back(&self.engine, txn.author(), held);
        }
        self.engine.locks.token(&txn.owner, &row)
    }

    /// Whether the last failing call may succeed when the transaction is run again.
    pub(crate) fn is_retryable(&self) -> bool {
        self.state().is_retryable()
    }

    /// Whether its last failing call was refused at once.
    pub(crate) fn was_refused(&self) -> bool {
        self.state().was_refused()
    }

    /// Whether it was wounded, or died of somebody stronger.
    pub(crate) fn has_lost(&self) -> bool {
        let ended = self.state().check(&self.engine).err();
        matches!(ended, Some(Error::Conflict { .. } | Error::Wounded { .. }))
    }

    /// A call has ended: what it was granted is on the device, if the transaction outlives a crash; and how it went is noted, for
    /// `transact`.
    pub(crate) fn note<T>(&self, result: Result<T>) -> Result<T> {
        let txn = self.state();
        let settle = |done| write_path::settle(&self.engine, txn).map(|()| done);
        txn.note(result.and_then(settle))
    }

    pub(crate) fn state(&self) -> &TxnState {
        self.state.as_ref().expect(HAS_STATE)
    }

    pub(crate) fn state_mut(&mut self) -> &mut TxnState {
        self.state.as_mut().expect(HAS_STATE)
    }

    /// For a call that locks, writes or undoes. A future that still waits is over: its lock is not wanted any more.
    pub(crate) fn parts(&mut self) -> (&EngineRef, &mut TxnState) {
        let state = self.state.as_mut().expect(HAS_STATE);
        state.leave_line(&self.engine);
        (&self.engine, state)
    }

    /// For what keeps the engine by itself.
    pub(crate) fn parts_shared(&mut self) -> (&Arc<EngineRef>, &mut TxnState) {
        (&self.engine, self.state.as_mut().expect(HAS_STATE))
    }

    /// For a future, which goes on where it was.
    pub(crate) fn parts_in_line(&mut self) -> (&EngineRef, &mut TxnState) {
        (&self.engine, self.state.as_mut().expect(HAS_STATE))
    }

    fn write_row(&mut self, row: RowKey, write: Write) -> Result<()> {
        let (engine, txn) = self.parts();
        write_path::write(engine, txn, row, write)
    }

    /// The token of a lock that was just granted.
    pub(crate) fn token_of(&self, row: &RowKey) -> Result<FencingToken> {
        let txn = self.state();
        let token = self.engine.locks.token(&txn.owner, row);
        // Whoever no longer holds it has been rolled back (W10).
        token.ok_or_else(|| txn.ended(&self.engine))
    }

    fn lock_row(&mut self, table: &Table, key: &[u8], mode: LockMode) -> Result<RowKey> {
        let (engine, txn) = self.parts();
        let row = table.row_to_lock(engine, txn, key, true)?;
        write_path::lock(engine, txn, &row, mode, true)?;
        Ok(row)
    }

    fn lock_to_write(&mut self, table: &Table, key: &[u8]) -> Result<RowKey> {
        let (engine, txn) = self.parts();
        let row = table.row_to_lock(engine, txn, key, false)?;
        write_path::lock(engine, txn, &row, LockMode::Update, false)?;
        Ok(row)
    }
}

/// Only `commit` and `drop` take the state, and both take the handle with it.
const HAS_STATE: &str = "a transaction has its state until it ends";

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            write_path::abort(&self.engine, state);
        }
    }
}
