//! The second step of the write path: appends a transaction's records, and ends the transaction where that fails. Called
//! by `write_path`, and by a cursor that is left.
//!
//! 1. S3: a transaction notes where its records begin before it appends the first of them.
//! 2. What a cursor holds back goes first: records stand in the order in which the transaction did what they say.
//! 3. A transaction whose record could not be appended is rolled back: locks, writes and log no longer agree.
//!
//! 4. W10: behind each lock's record the state is looked at again.
//!
//! Crash: nothing here waits for the device; what is lost was a lock or a write of a transaction that is lost too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, RowKey};
use lockstone_locks::{AbortCause, Batch, Grant, OwnerState, RowRange, Wakes};
use lockstone_recovery::record::{
    Body, CONTEXT_BYTES, Effect, Lease, Provisional, ProvisionalMany, RangeLock, granted_byte,
};
use lockstone_storage::PackedRows;
use lockstone_wal::{Appended, Record};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::held_back::{HeldBack, HeldRows};
use crate::lease;
use crate::provisional_memory::Left;
use crate::row_limits::check_value;
use crate::txn_state::{Author, TxnState};
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

/// Appends a record of the transaction; the first time, notes before it where its records begin (S3).
/// What is held back goes first.
pub(crate) fn append(engine: &Engine, txn: &mut TxnState, body: Body<'_>) -> Result<Appended> {
    log_held_back(engine, txn)?;
    checkpoint::admit(engine).map_err(|error| failed(engine, txn, error))?;
    txn.check(engine)?;
    txn.settle(engine, false);
    try_append(engine, txn.author(), body).map_err(|error| failed(engine, txn, error))
}

/// The first record of a transaction once more, for one of whose records some are needed no more.
pub(crate) fn begin_again(engine: &Engine, author: Author<'_>) -> Result<()> {
    if let Some(label) = author.owner.label() {
        append_own(engine, author, Body::Begin { label })?;
    }
    Ok(())
}

/// Appends what the transaction says of itself, which is no part of a call: be it closed to calls, for it has no handle.
pub(crate) fn append_own(engine: &Engine, author: Author<'_>, body: Body<'_>) -> Result<Appended> {
    checkpoint::admit(engine)?;
    try_append(engine, author, body)
}

/// The first records of one that has a lease: it outlives a crash from now on.
pub(crate) fn begin_lease(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    checkpoint::admit(engine)?;
    txn.settle(engine, false);
    begin(engine, txn.author())?;
    Ok(engine.log.wait_durable(engine.log.end())?)
}

/// As [`append`], for a transaction that is admitted; or for one that is restored: nobody could make room for it yet.
pub(crate) fn try_append(engine: &Engine, author: Author<'_>, body: Body<'_>) -> Result<Appended> {
    begin(engine, author)?;
    let appended = append_one(engine, author, body)?;
    if author.notes.lease().is_some() {
        author.notes.note_owed(appended.end);
    }
    Ok(appended)
}

/// Of one that outlives a crash: what its call was granted is on the device before that is told.
pub(crate) fn settle(engine: &Engine, txn: &TxnState) -> Result<()> {
    if txn.live.lease().is_none() || txn.is_parted() {
        return Ok(());
    }
    let reached = engine.log.wait_durable(txn.live.owed());
    reached.inspect_err(|_| engine.spread_poison())?;
    // W10: it has waited.
    txn.check(engine)
}

/// What stands before all other records of the transaction.
fn begin(engine: &Engine, author: Author<'_>) -> Result<()> {
    if author.notes.first_record().is_some() {
        return Ok(());
    }
    author.notes.note_first_record(engine.log.end());
    if let Some(label) = author.owner.label() {
        append_one(engine, author, Body::Begin { label })?;
    }
    if let Some(lease) = author.notes.lease() {
        let lease = Lease::beginning(lease.lasts_ms());
        append_one(engine, author, Body::Lease(lease))?;
    }
    Ok(())
}

fn append_one(engine: &Engine, author: Author<'_>, body: Body<'_>) -> Result<Appended> {
    let bytes = body.encode();
    let record = Record {
        tag: bytes.tag as u8,
        context: &author.context,
        body: &bytes.pieces(),
    };
    let appended = match body {
        Body::Lease(_) => append_lease(engine, author, &record),
        _ => engine.log.append(&record).map_err(Error::from),
    };
    checkpoint::attend(engine);
    appended
}

/// W9: what says that the transaction outlives a crash stands before the record of its end, or nowhere: it is appended in a hold in
/// which it has not ended, and ends in a hold.
fn append_lease(engine: &Engine, author: Author<'_>, record: &Record<'_>) -> Result<Appended> {
    let pieces = record.body.iter().map(|piece| piece.len());
    let room = engine
        .log
        .reserve(record.context.len() + pieces.sum::<usize>())?;
    let mut hold = engine.log.hold();
    hold.check()?;
    if author.owner.state() == OwnerState::Aborted {
        drop((hold, room));
        return Err(lease::why_aborted(engine, author.owner, author.notes));
    }
    Ok(hold.append(room, record))
}

/// Who loses to somebody stronger dies: its locks are free before it is told.
pub(crate) fn lost(engine: &Engine, txn: &mut TxnState, error: Error) -> Error {
    if matches!(error, Error::Conflict { .. }) {
        roll_back(engine, txn);
        txn.fail(&error);
    }
    error
}

/// A record could not be appended, so locks, writes and log no longer agree: the transaction cannot go on.
pub(crate) fn failed(engine: &Engine, txn: &mut TxnState, error: Error) -> Error {
    let error = refused(engine, txn, error.for_want_of_room());
    engine.spread_poison();
    error
}

/// The transaction cannot go on, and each of its later calls says why.
pub(crate) fn refused(engine: &Engine, txn: &mut TxnState, error: Error) -> Error {
    roll_back(engine, txn);
    txn.fail(&error);
    error
}

/// Appends the records that are held back.
pub(crate) fn log_held_back(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    let Some(held) = txn.held_back.as_ref().filter(|held| !held.is_empty()) else {
        return Ok(());
    };
    let held = Arc::clone(held);
    let appended = append_held_back(engine, txn.author(), &held);
    appended.map_err(|error| failed(engine, txn, error))?;
    // W10, as below.
    txn.check(engine)
}

/// Waits until all that it has in the log is on the device.
pub(crate) fn flush(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    txn.check(engine)?;
    log_held_back(engine, txn)?;
    if txn.is_logged() {
        let reached = engine.log.wait_durable(engine.log.end());
        reached.inspect_err(|_| engine.spread_poison())?;
    }
    txn.check(engine)
}

/// [`log_held_back`], by the cursor that is left, which knows the transaction no more, or by who asks for a token. If that
/// fails, they wait on: the transaction's next call fails as well, and says so.
pub(crate) fn append_held_back(engine: &Engine, author: Author<'_>, held: &HeldBack) -> Result<()> {
    if !held.is_empty() && author.owner.is_active() {
        checkpoint::admit(engine)?;
    }
    let rows = held.take();
    if rows.is_empty() || !author.owner.is_active() {
        return Ok(());
    }
    match append_locked(engine, author, &rows) {
        Ok(()) => {
            held.reuse(rows);
            Ok(())
        }
        Err(error) => {
            held.put_back(rows);
            Err(error)
        }
    }
}

/// *log*: rows of one sub-transaction in one record, whose position is their token.
pub(crate) fn append_locked(engine: &Engine, author: Author<'_>, rows: &HeldRows) -> Result<()> {
    let appended = try_append(engine, author, Body::LockMany(rows.record()))?;
    let token = FencingToken::new(appended.lsn);
    engine.locks.stamp_batch(author.owner, rows.sub(), token);
    author
        .notes
        .locks
        .fetch_add(rows.fresh(), Ordering::Relaxed);
    Ok(())
}

/// Active -> Aborted, and the release pass; harmless when somebody else has done it. Counted and logged
/// once, whoever ended the transaction.
pub(crate) fn roll_back(engine: &Engine, txn: &mut TxnState) {
    let mut wakes = Wakes::default();
    engine
        .locks
        .kill(&txn.owner, AbortCause::Requested, &mut wakes);
    wakes.fire();
    if std::mem::replace(&mut txn.rolled_back, true) {
        return;
    }
    txn.writes = WriteSet::default();
    txn.memory.keep(Left::NOTHING, Left::NOTHING);
    txn.own = None;
    if lease::has_ended(engine, &txn.owner, &txn.live) {
        let spilled = txn.live.spilled.take(false);
        lease::discard(engine, &txn.live, spilled);
    }
    // Whoever keeps the handle keeps nothing of the store (W7).
    txn.live.let_go();
    if let Some(held) = &txn.held_back {
        held.take();
    }
    tell_of_loss(txn);
    engine.counters.aborts.fetch_add(1, Ordering::Relaxed);
    // Behind a clean shutdown nothing is logged.
    // W9: that of one who would outlive a crash was logged as it ended.
    let logged = txn.is_logged() && engine.check_open().is_ok() && txn.live.lease().is_none();
    if let Some(context) = txn.context.filter(|_| logged) {
        let body = Body::Abort.encode();
        let _ = engine.log.append(&Record {
            tag: body.tag as u8,
            context: &context,
            body: &body.pieces(),
        });
    }
}

/// Tells the log of events of one that somebody else has ended for a lock.
fn tell_of_loss(txn: &TxnState) {
    let (id, label) = (txn.owner.id(), txn.owner.label());
    match txn.owner.cause() {
        Some(AbortCause::Wounded { by }) => {
            tracing::info!(target: "lockstone::locks", txn = %id, label = label.map(|label| &**label), %by, "wounded");
        }
        Some(AbortCause::Deadlock(cycle)) => {
            let waits = cycle.edges.len();
            tracing::info!(target: "lockstone::locks", txn = %id, label = label.map(|label| &**label), waits, "ended a deadlock");
        }
        _ => {}
    }
}

/// *log*: many rows in one record, as they are packed. A row apart has a record of its own.
pub(crate) fn log_many(
    engine: &Engine,
    txn: &mut TxnState,
    rows: &PackedRows,
    batch: &Batch,
) -> Result<()> {
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
pub(crate) fn log(
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

/// *log*: a range that was granted; its record's position is its token.
pub(crate) fn log_range(
    engine: &Engine,
    txn: &mut TxnState,
    range: &RowRange,
    mode: LockMode,
) -> Result<()> {
    let body = Body::RangeLock(RangeLock {
        table: range.table(),
        start: range.start().map(RowKey::key),
        end: range.end().map(RowKey::key),
        mode,
        sub: txn.sub,
    });
    let appended = append(engine, txn, body)?;
    let token = FencingToken::new(appended.lsn);
    engine.locks.stamp_range(&txn.owner, token);
    txn.count_locks(1);
    Ok(())
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
