//! The second step of the write path: appends a transaction's records, and ends the transaction where that fails. Called
//! by `write_path`, and by a cursor that is left.
//!
//! 1. S3: a transaction notes where its records begin before it appends the first of them.
//! 2. What a cursor holds back goes first: records stand in the order in which the transaction did what they say.
//! 3. A transaction whose record could not be appended is rolled back: locks, writes and log no longer agree.
//!
//! Crash: nothing here waits for the device; what is lost was a lock or a write of a transaction that is lost too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstone_base::FencingToken;
use lockstone_locks::{AbortCause, Wakes};
use lockstone_recovery::record::Body;
use lockstone_wal::{Appended, Record};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::held_back::{HeldBack, HeldRows};
use crate::txn_state::{Author, TxnState};
use crate::write_set::WriteSet;

/// Appends a record of the transaction; the first time, notes before it where its records begin (S3).
/// What is held back goes first.
pub(crate) fn append(engine: &Engine, txn: &mut TxnState, body: Body<'_>) -> Result<Appended> {
    log_held_back(engine, txn)?;
    checkpoint::admit(engine).map_err(|error| failed(engine, txn, error))?;
    txn.check(engine)?;
    txn.settle(engine, false);
    try_append(engine, txn.author(), body).map_err(|error| failed(engine, txn, error))
}

/// As [`append`], for a transaction that is admitted.
fn try_append(engine: &Engine, author: Author<'_>, body: Body<'_>) -> Result<Appended> {
    let append = |body: Body<'_>| {
        let bytes = body.encode();
        let appended = engine.log.append(&Record {
            tag: bytes.tag as u8,
            context: &author.context,
            body: &bytes.pieces(),
        });
        checkpoint::attend(engine);
        appended
    };
    if author.notes.first_record().is_none() {
        author.notes.note_first_record(engine.log.end());
        if let Some(label) = author.owner.label() {
            append(Body::Begin { label })?;
        }
    }
    Ok(append(body)?)
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
    let error = error.for_want_of_room();
    roll_back(engine, txn);
    txn.fail(&error);
    engine.spread_poison();
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
    // Whoever keeps the handle keeps nothing of the store (W7).
    txn.live.let_go();
    if let Some(held) = &txn.held_back {
        held.take();
    }
    tell_of_loss(txn);
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
