//! The one write path: *lock, log, stage, reserve, commit, apply, release, ack*, and the two ways back,
//! rollback to a savepoint and abort. Every lock, write and commit of the engine runs through this file
//! and nowhere else.
//!
//! ```text
//! lock      ask the lock table; wait in line if told to                                  K1, K4
//! log       append the provisional record, unsynced; check the state again               W10
//! stage     keep the write private to the transaction
//! reserve   memory, and room in the log; after this nothing waits, only the device fails G10
//! commit    in one hold of the append latch: Active -> Committing, append the commit     W2
//! apply     still in that hold: the writes into the memtable, then move the commit tail  W2
//! release   all locks are void; the next in line are woken, before the sync              W1
//! ack       wait until the commit is on the device: `promise`                           W3
//! ```
//!
//! Crash: before the commit record is durable the transaction never was; behind it, it is whole (R1).

use std::sync::atomic::Ordering;

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, RowKey};
use lockstone_locks::{AbortCause, Batch, Grant, Wakes};
use lockstone_recovery::record::{
    Body, COMMIT_BODY_BYTES, CONTEXT_BYTES, Effect, Provisional, ProvisionalMany, granted_byte,
};
use lockstone_storage::PackedRows;
use lockstone_wal::{Appended, Hold, Record, Room};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lock_request::{request, request_many};
use crate::options::Durability;
use crate::pressure;
use crate::promise::{Promise, promise, promise_reader};
use crate::row_limits::check_value;
use crate::txn_state::TxnState;
use crate::write_set::WriteSet;

/// What a write does to its row.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Gives it a value.
    Put(Bytes),
    /// Removes it.
    Delete,
}

impl Write {
    /// The write that gives a row this value.
    pub(crate) fn put(value: &[u8]) -> Result<Self> {
        check_value(value)?;
        Ok(Self::Put(Bytes::copy_from_slice(value)))
    }
}

// ---------------------------------------------------------------------------------------------------
// lock, log, stage

/// Takes the row in `mode`: *lock, log*. The lock's record is in the log when this returns. `explicit`
/// if the caller locks for its own sake, not to write.
pub(crate) fn lock(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
    explicit: bool,
) -> Result<()> {
    let requested = request(engine, txn, row, mode, explicit);
    let grant = requested.map_err(|error| lost(engine, txn, error))?;
    if grant.strengthened {
        log(engine, txn, row, grant, None)?;
    }
    Ok(())
}

/// Locks the row as the write demands, logs it and keeps it: *lock, log, stage*.
pub(crate) fn write(engine: &Engine, txn: &mut TxnState, row: RowKey, write: Write) -> Result<()> {
    let mode = if matches!(write, Write::Delete) {
        LockMode::Update
    } else {
        LockMode::NoKeyUpdate
    };
    let requested = request(engine, txn, &row, mode, false);
    let grant = requested.map_err(|error| lost(engine, txn, error))?;
    log(engine, txn, &row, grant, Some(&write))?;
    let effect = match write {
        Write::Put(value) => Some(value),
        Write::Delete => None,
    };
    txn.writes.stage(row, txn.sub, effect);
    txn.live.writes.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Locks, logs and keeps many rows that ascend: *lock, log, stage*. All of them or none: a savepoint of its
/// own undoes what a failing call has done.
pub(crate) fn write_many(engine: &Engine, txn: &mut TxnState, rows: PackedRows) -> Result<()> {
    txn.check(engine)?;
    if rows.is_empty() {
        return Ok(());
    }
    let sub = txn.next_sub()?;
    let written = try_write_many(engine, txn, rows);
    if written.is_err() && txn.check(engine).is_ok() {
        rollback_to(engine, txn, sub)?;
    }
    written
}

fn try_write_many(engine: &Engine, txn: &mut TxnState, rows: PackedRows) -> Result<()> {
    /// What is not more is kept and applied row by row, as if it had been written so.
    const SINGLE_ROWS_MAX: usize = 64;
    let requested = request_many(engine, txn, &rows, LockMode::NoKeyUpdate);
    let batch = requested.map_err(|error| lost(engine, txn, error))?;
    log_many(engine, txn, &rows, &batch)?;
    let sub = txn.sub;
    txn.live
        .writes
        .fetch_add(rows.len() as u64, Ordering::Relaxed);
    if rows.len() > SINGLE_ROWS_MAX {
        txn.writes.stage_many(sub, rows);
    } else {
        for index in 0..rows.len() {
            if let Some((row, effect)) = rows.row_key(index).zip(rows.effect(index)) {
                txn.writes.stage(row, sub, effect);
            }
        }
    }
    // What comes next is no part of this call: neither its token nor its rows are these.
    txn.next_sub().map(|_| ())
}

/// *log*: many rows in one record, as they are packed. A row apart has a record of its own.
fn log_many(engine: &Engine, txn: &mut TxnState, rows: &PackedRows, batch: &Batch) -> Result<()> {
    let granted = |index| batch.grant(index).expect("every row of a batch is granted");
    let mut token = None;
    for sheet in rows.sheets() {
        let Some(shared) = sheet.shared else {
            for index in sheet.rows {
                if let Some((row, Some(value))) = rows.row_key(index).zip(rows.effect(index)) {
                    log(engine, txn, &row, granted(index), Some(&Write::Put(value)))?;
                }
            }
            continue;
        };
        let modes = sheet.rows.map(granted);
        let modes: Vec<u8> = modes
            .map(|grant| granted_byte(grant.mode, grant.fresh))
            .collect();
        let many = ProvisionalMany {
            sub: txn.sub,
            rows: shared,
            granted: &modes,
        };
        let appended = append(engine, txn, Body::ProvisionalMany(many))?;
        token.get_or_insert(appended.lsn);
    }
    if let Some(token) = token {
        let token = FencingToken::new(token);
        engine.locks.stamp_batch(&txn.owner, txn.sub, token);
    }
    // W10, as above.
    txn.check(engine)
}

/// *log*: appends the provisional record of a granted lock or a write, unsynced. A lost lock implies
/// a lost transaction, and that one was never acknowledged.
fn log(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    grant: Grant,
    write: Option<&Write>,
) -> Result<()> {
    let effect = match write {
        None => Effect::Lock,
        Some(Write::Put(value)) => Effect::Put(log_parts(engine, txn, row, value)?),
        Some(Write::Delete) => Effect::Delete,
    };
    let provisional = Provisional {
        row: row.as_bytes(),
        mode: grant.mode,
        fresh: grant.fresh,
        sub: txn.sub,
        effect,
    };
    let appended = append(engine, txn, Body::Provisional(provisional))?;
    if grant.strengthened {
        let token = FencingToken::new(appended.lsn);
        engine.locks.stamp(&txn.owner, grant.place, token);
    }
    // W10: whoever was rolled back meanwhile must not believe that it holds the row.
    txn.check(engine)
}

/// Logs what of a long value does not fit one record (G4); the rest, which does.
fn log_parts<'a>(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    value: &'a [u8],
) -> Result<&'a [u8]> {
    /// The fixed head of a provisional record's body, with room to spare.
    const HEAD_BYTES: usize = 64;
    let part_bytes =
        engine.log.record_bytes_max() - CONTEXT_BYTES - row.as_bytes().len() - HEAD_BYTES;
    let mut rest = value;
    while let Some((part, behind)) = rest
        .split_at_checked(part_bytes)
        .filter(|(_, behind)| !behind.is_empty())
    {
        append(engine, txn, Body::ValuePart(part))?;
        rest = behind;
    }
    Ok(rest)
}

/// Appends a record of the transaction; the first time, notes before it where its records begin (S3).
fn append(engine: &Engine, txn: &mut TxnState, body: Body<'_>) -> Result<Appended> {
    checkpoint::admit(engine).map_err(|error| failed(engine, txn, error))?;
    txn.check(engine)?;
    txn.settle(engine, false);
    try_append(engine, txn, body).map_err(|error| failed(engine, txn, error))
}

/// As [`append`], for a transaction that is admitted and whose rank is settled.
fn try_append(engine: &Engine, txn: &TxnState, body: Body<'_>) -> Result<Appended> {
    let context = txn
        .context
        .expect("the rank is settled before the first lock");
    let append = |body: Body<'_>| {
        let bytes = body.encode();
        let appended = engine.log.append(&Record {
            tag: bytes.tag as u8,
            context: &context,
            body: &bytes.pieces(),
        });
        checkpoint::attend(engine);
        appended
    };
    if !txn.is_logged() {
        txn.live.note_first_record(engine.log.end());
        if let Some(label) = &txn.options.label {
            append(Body::Begin { label })?;
        }
    }
    Ok(append(body)?)
}

/// Who loses to somebody stronger dies: its locks are free before it is told.
fn lost(engine: &Engine, txn: &mut TxnState, error: Error) -> Error {
    if matches!(error, Error::Conflict { .. }) {
        roll_back(engine, txn);
        txn.fail(&error);
    }
    error
}

/// A record could not be appended, so locks, writes and log no longer agree: the transaction cannot go on.
fn failed(engine: &Engine, txn: &mut TxnState, error: Error) -> Error {
    let error = error.for_want_of_room();
    roll_back(engine, txn);
    txn.fail(&error);
    engine.spread_poison();
    error
}

// ---------------------------------------------------------------------------------------------------
// reserve, commit, apply, release, ack

/// Commits up to the *ack*: *reserve, commit, apply, release*.
pub(crate) fn commit(engine: &Engine, mut txn: TxnState) -> Result<Promise> {
    let durability = txn.options.durability;
    let outcome = reserve_and_apply(engine, &mut txn);
    if outcome.is_err() {
        roll_back(engine, &mut txn);
        engine.spread_poison();
    }
    engine.live.end(&txn.live, txn.owner.id());
    let Some(commit) = outcome? else {
        return Ok(promise_reader(engine, txn.seen.get()));
    };
    // Here, and not at the acknowledgement: nobody may ever ask for that.
    checkpoint::ask_if_due(engine);
    Ok(promise(engine, commit, durability))
}

/// *reserve, commit, apply, release*; the commit record's place, if anything was written.
fn reserve_and_apply(engine: &Engine, txn: &mut TxnState) -> Result<Option<Appended>> {
    txn.check(engine)?;
    let batch = std::mem::take(&mut txn.writes).into_batch();
    let rows = batch.rows();
    if rows > 0 {
        pressure::reserve(engine, batch.bytes())?;
    }
    let mut prepared = engine.store.prepare(batch);
    let mut commit = None;
    if txn.is_logged() {
        let context = txn.settle(engine, false);
        let body = Body::Commit { rows: rows as u64 }.encode();
        let (mut hold, room) = hold_with_room(engine)?;
        if !txn.owner.try_commit() {
            drop((hold, room));
            txn.check(engine)?;
            return Err(Error::TransactionEnded);
        }
        let record = Record {
            tag: body.tag as u8,
            context: &context,
            body: &body.pieces(),
        };
        let appended = match room {
            Some(room) => hold.append(room, &record),
            None => hold.append_fitting(&record),
        };
        if txn.options.durability == Durability::Buffered {
            // In the hold, which orders it: the last one is the highest.
            engine.buffered.store(appended.end.get(), Ordering::Release);
        }
        if rows > 0 {
            // W2: applied in the hold that gave the LSN; the tail moves last.
            engine.store.apply_prepared(&mut prepared, appended.lsn);
            engine.watermarks.move_tail(appended.lsn);
            commit = Some(appended);
        }
    } else if !txn.owner.try_commit() {
        txn.check(engine)?;
        return Err(Error::TransactionEnded);
    }
    txn.owner.released();
    release(engine, txn);
    engine
        .counters
        .commits
        .own()
        .fetch_add(1, Ordering::Relaxed);
    Ok(commit)
}

/// The append latch, in which a commit record fits; if there was no room at once, what was reserved before, for
/// that may wait.
fn hold_with_room(engine: &Engine) -> Result<(Hold<'_>, Option<Room<'_>>)> {
    const BYTES: usize = CONTEXT_BYTES + COMMIT_BODY_BYTES;
    let hold = engine.log.hold();
    hold.check()?;
    if hold.fits(BYTES) {
        return Ok((hold, None));
    }
    drop(hold);
    let reserved = engine.log.reserve(BYTES);
    let room = reserved.map_err(|error| Error::from(error).for_want_of_room())?;
    let hold = engine.log.hold();
    hold.check()?;
    Ok((hold, Some(room)))
}

/// *release*: the release pass of a transaction that has ended; the next in line are woken.
fn release(engine: &Engine, txn: &TxnState) {
    let mut wakes = Wakes::default();
    engine.locks.end(&txn.owner, &mut wakes);
    wakes.fire();
}

// ---------------------------------------------------------------------------------------------------
// the ways back

/// Undoes everything that sub-transaction `from` and all later ones did: writes, then locks (L9). W9:
/// the record is in the log before any of the locks can be granted to another.
pub(crate) fn rollback_to(engine: &Engine, txn: &mut TxnState, from: u32) -> Result<()> {
    txn.check(engine)?;
    let through = txn.sub;
    txn.next_sub()?;
    if txn.is_logged() {
        append(engine, txn, Body::RollbackTo { from, through })?;
    }
    txn.writes.rollback_to(from);
    let mut wakes = Wakes::default();
    engine.locks.rollback_to(&txn.owner, from, &mut wakes);
    wakes.fire();
    txn.live
        .locks
        .store(engine.locks.held_by(&txn.owner) as u64, Ordering::Relaxed);
    txn.unmark_behind(from);
    txn.check(engine)
}

/// Ends the transaction without effect. Nothing needs to be logged for that; the record that is, if
/// there is room for it, tells the next recovery's report that it was no longer in flight.
pub(crate) fn abort(engine: &Engine, mut txn: TxnState) {
    roll_back(engine, &mut txn);
    engine.live.end(&txn.live, txn.owner.id());
}

/// Active -> Aborted, and the release pass; harmless when somebody else has done it. Counted and logged
/// once, whoever ended the transaction.
fn roll_back(engine: &Engine, txn: &mut TxnState) {
    let mut wakes = Wakes::default();
    engine
        .locks
        .kill(&txn.owner, AbortCause::Requested, &mut wakes);
    wakes.fire();
    if std::mem::replace(&mut txn.rolled_back, true) {
        return;
    }
    txn.writes = WriteSet::default();
    engine.counters.aborts.fetch_add(1, Ordering::Relaxed);
    // Behind a clean shutdown nothing is logged.
    let logged = txn.is_logged() && engine.check_open().is_ok();
    if let Some(context) = txn.context.filter(|_| logged) {
        let body = Body::Abort.encode();
        let _ = engine.log.append(&Record {
            tag: body.tag as u8,
            context: &context,
            body: &body.pieces(),
        });
    }
}
