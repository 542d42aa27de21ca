//! The one write path: *lock, log, stage, reserve, commit, apply, release, ack*, and the two ways back,
//! rollback to a savepoint and abort. Every lock, write and commit of the engine runs through this file
//! and nowhere else. Its second half, from *reserve* on, is `commit`; a transaction that is to outlive crashes stops between the
//! two, by `prepare`, and goes on there later.
//!
//! ```text
//! lock      ask the lock table; wait in line if told to; look what the row has become     K1, K4
//! log       append the provisional record, unsynced; check the state again               W10
//! stage     keep the write private to the transaction; if memory is short, spill           V1
//! reserve   memory, what was read, room in the log; after this only the device fails     G10, W8
//! commit    in one hold of the append latch: is what was read unchanged?                 W8
//!           Active -> Committing, append the commit, break who has read what it writes   W2, W8
//! apply     still in that hold: what was spilled becomes a source, the writes go into
//!           the memtable; then move the commit tail                                      W2
//! release   all locks are void; the next in line are woken, before the sync              W1
//! ack       wait until the commit is on the device: `promise`                           W3
//! ```
//!
//! Crash: before the commit record is durable the transaction never was; behind it, it is whole (R1).

use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{LockMode, RowKey, TableId};
use lockstone_locks::{Batch, Grant, Place, Wakes};
use lockstone_recovery::record::Body;
use lockstone_storage::PackedRows;
use lockstone_wal::Appended;

use crate::catalog::CatalogEntry;
use crate::checkpoint;
use crate::commit;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::first_updater::expect_unchanged;
use crate::held_back::HeldRows;
use crate::lease;
use crate::lock_request::{
    Asked, Purpose, Sought, ask_for, granted, holds, request, request_many, request_wide, share,
};
use crate::log_step::{
    append, append_locked, failed, log, log_held_back, log_many, log_range, lost, roll_back,
};
use crate::options::{Durability, OnConflict};
use crate::prepare;
use crate::promise::{Promise, promise, promise_reader};
use crate::provisional_memory::Left;
use crate::spill;
use crate::txn_state::TxnState;

pub(crate) use crate::log_step::{Write, begin_lease, flush, settle};

// ---------------------------------------------------------------------------------------------------
// lock, log, stage

/// Takes the row in `mode`: *lock, log*. The lock's record is in the log when this returns. `explicit`
/// if the caller locks for its own sake, not to write: then the row must be as the transaction sees it.
pub(crate) fn lock(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
    explicit: bool,
) -> Result<()> {
    // What a cursor has left behind may be this row's lock.
    log_held_back(engine, txn)?;
    let requested = request(engine, txn, row, mode, explicit);
    let grant = requested.map_err(|error| lost(engine, txn, error))?;
    expect_unchanged(engine, txn, !explicit, [row.as_bytes()])?;
    if grant.strengthened {
        log(engine, txn, row, grant, None)?;
    }
    spill::make_room(engine, txn)
}

/// *lock*, but for the wait, which is a future's; [`log_granted`] comes behind it.
pub(crate) fn ask(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
) -> Result<Asked> {
    log_held_back(engine, txn)?;
    let writes = false;
    let asked = ask_for(engine, txn, Sought::Row { row, writes }, mode);
    asked.map_err(|error| lost(engine, txn, error))
}

/// *log*, of a lock that a future has waited for.
pub(crate) fn log_granted(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    granted: Result<Grant>,
) -> Result<()> {
    let granted = granted.and_then(|grant| holds(engine, txn, row, grant));
    let grant = granted.map_err(|error| lost(engine, txn, error))?;
    expect_unchanged(engine, txn, false, [row.as_bytes()])?;
    if grant.strengthened {
        log(engine, txn, row, grant, None)?;
    }
    spill::make_room(engine, txn)
}

/// *lock*, as one of many: the caller holds the record back, or gives the lock back.
pub(crate) fn lock_one_of_many(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
) -> Result<Grant> {
    let sub = txn.sub;
    if !txn.held_back(engine).is_open_to(sub) {
        log_held_back(engine, txn)?;
        let sub = txn.next_sub()?;
        txn.held_back(engine).open_to(sub);
    }
    let writes = false;
    let granted = granted(engine, txn, Sought::Row { row, writes }, mode);
    let grant = granted.map_err(|error| lost(engine, txn, error))?;
    if grant.fresh {
        txn.memory.add_lock(row);
    }
    expect_unchanged(engine, txn, false, [row.as_bytes()])?;
    Ok(grant)
}

/// *log*, of a lock that was taken as one of many: later, with those that follow.
pub(crate) fn hold_back(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    grant: Grant,
) -> Result<()> {
    let sub = txn.sub;
    if grant.strengthened && txn.held_back(engine).push(row, sub, grant) {
        log_held_back(engine, txn)?;
    }
    spill::make_room(engine, txn)
}

/// *log*: what one that outlives a crash was granted is on the device when it is told.
pub(crate) fn hold_nothing_back_of_leased(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    if txn.live.lease().is_none() {
        return Ok(());
    }
    log_held_back(engine, txn)?;
    settle(engine, txn)
}

/// Gives back locks of the newest sub-transaction, none of which is in the log: there is nothing to be said of it (W9).
pub(crate) fn give_back(engine: &Engine, txn: &TxnState, gone: impl FnMut(Place) -> bool) {
    let mut wakes = Wakes::default();
    engine
        .locks
        .give_back(&txn.owner, txn.sub, gone, &mut wakes);
    wakes.fire();
}

/// *lock*, for many rows at once, in a sub-transaction of their own: as one by one, but in an order of the table's.
/// Under a policy that passes rows over they are passed over.
pub(crate) fn lock_batch(
    engine: &Engine,
    txn: &mut TxnState,
    rows: &[RowKey],
    mode: LockMode,
) -> Result<Batch> {
    log_held_back(engine, txn)?;
    txn.next_sub()?;
    let row = |index: usize| rows.get(index).expect("rows are counted").clone();
    let bytes = rows.iter().map(RowKey::as_bytes);
    let mut batch = engine.locks.batch(bytes, row);
    let skips = txn.policy == OnConflict::SkipLocked;
    let purpose = Purpose::Lock { skips };
    let requested = request_many(engine, txn, &mut batch, mode, purpose);
    requested.map_err(|error| lost(engine, txn, error))?;
    let granted = rows.iter().enumerate();
    let granted = granted.filter(|(index, _)| batch.grant(*index).is_some());
    let granted = granted.map(|(_, row)| row.as_bytes());
    expect_unchanged(engine, txn, false, granted)?;
    Ok(batch)
}

/// *log*, of what [`lock_batch`] was granted and has not given back.
pub(crate) fn log_batch<'r>(
    engine: &Engine,
    txn: &mut TxnState,
    granted: impl Iterator<Item = (&'r RowKey, Grant)>,
) -> Result<()> {
    let memory = &mut txn.memory;
    let strengthened = granted.filter(|(row, grant)| {
        if grant.fresh {
            memory.add_lock(row);
        }
        grant.strengthened
    });
    let rows = HeldRows::of(txn.sub, strengthened);
    if !rows.is_empty() {
        let admitted = checkpoint::admit(engine).and_then(|()| txn.check(engine));
        let appended = admitted.and_then(|()| append_locked(engine, txn.author(), &rows));
        appended.map_err(|error| failed(engine, txn, error))?;
    }
    txn.check(engine)?;
    spill::make_room(engine, txn)
}

/// Runs a call that takes many locks under a savepoint of its own: it leaves none behind when it fails.
pub(crate) fn all_or_none<T>(
    engine: &Engine,
    txn: &mut TxnState,
    call: impl FnOnce(&mut TxnState) -> Result<T>,
) -> Result<T> {
    txn.check(engine)?;
    // A savepoint like any other: what was done before it is not merged with what comes behind (V3).
    let sub = txn.mark()?;
    let outlives = txn.live.lease().is_some();
    if outlives {
        // R2: of what a crash cuts off nothing is left.
        txn.open_call = Some(sub);
        append(engine, txn, Body::CallOpens { sub })?;
    }
    let mut done = call(txn);
    if done.is_err() && txn.check(engine).is_ok() {
        rollback_to(engine, txn, sub)?;
    } else if outlives && done.is_ok() {
        let closed = append(engine, txn, Body::CallCloses);
        done = done.and_then(|done| closed.map(|_| done));
    }
    txn.open_call = None;
    txn.unmark(sub);
    done
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
    expect_unchanged(engine, txn, true, [row.as_bytes()])?;
    txn.live.note_write();
    log(engine, txn, &row, grant, Some(&write))?;
    let effect = match write {
        Write::Put(value) => Some(value),
        Write::Delete => None,
    };
    let bytes = row.as_bytes().len() + effect.as_ref().map_or(0, Bytes::len);
    txn.memory.add_writes(1, bytes);
    txn.writes.stage(row, txn.sub, effect);
    txn.count_writes();
    spill::make_room(engine, txn)
}

/// Locks, logs and keeps many rows that ascend: *lock, log, stage*. All of them or none: a savepoint of its
/// own undoes what a failing call has done.
pub(crate) fn write_many(engine: &Engine, txn: &mut TxnState, rows: PackedRows) -> Result<()> {
    if rows.is_empty() {
        return txn.check(engine);
    }
    all_or_none(engine, txn, |txn| try_write_many(engine, txn, rows))
}

fn try_write_many(engine: &Engine, txn: &mut TxnState, rows: PackedRows) -> Result<()> {
    /// What is not more is kept and applied row by row, as if it had been written so.
    const SINGLE_ROWS_MAX: usize = 64;
    let mut batch = engine.locks.batch(
        (0..rows.len()).filter_map(|index| rows.row(index)),
        |index| rows.row_key(index).expect("rows are counted"),
    );
    let mode = LockMode::NoKeyUpdate;
    let requested = request_many(engine, txn, &mut batch, mode, Purpose::Write);
    requested.map_err(|error| lost(engine, txn, error))?;
    count_fresh(txn, &rows, &batch);
    let all = (0..rows.len()).filter_map(|index| rows.row(index));
    expect_unchanged(engine, txn, true, all)?;
    txn.live.note_write();
    log_many(engine, txn, &rows, &batch)?;
    let sub = txn.sub;
    txn.memory.add_writes(rows.len() as u64, rows.bytes());
    if rows.len() > SINGLE_ROWS_MAX {
        txn.writes.stage_many(sub, rows);
    } else {
        for index in 0..rows.len() {
            if let Some((row, effect)) = rows.row_key(index).zip(rows.effect(index)) {
                txn.writes.stage(row, sub, effect);
            }
        }
    }
    txn.count_writes();
    // What comes next is no part of this call: neither its token nor its rows are these.
    txn.next_sub()?;
    spill::make_room(engine, txn)
}

fn count_fresh(txn: &mut TxnState, rows: &PackedRows, batch: &Batch) {
    let is_fresh = |index: &usize| batch.grant(*index).is_some_and(|grant| grant.fresh);
    let fresh = (0..batch.rows()).filter(is_fresh);
    let (mut locks, mut bytes) = (0, 0);
    for row in fresh.filter_map(|index| rows.row(index)) {
        locks += 1;
        bytes += row.len();
    }
    txn.count_locks(locks);
    txn.memory.add_locks(locks, bytes);
}

// ---------------------------------------------------------------------------------------------------
// reserve, commit, apply, release, ack; prepare

/// Commits up to the *ack*: *reserve, commit, apply, release*.
pub(crate) fn commit(engine: &Engine, mut txn: TxnState) -> Result<Promise> {
    if txn.is_parted() {
        return Err(Error::TransactionEnded);
    }
    let durability = txn.options.durability;
    let outcome = check_and_apply(engine, &mut txn);
    if outcome.is_err() {
        roll_back(engine, &mut txn);
        engine.spread_poison();
    }
    engine.live.end(&txn.live, txn.owner.id());
    let Some(commit) = outcome? else {
        let reader = promise_reader(engine, txn.seen.get());
        // R2: what would outlive a crash has ended when that is on the device.
        let outlives = txn.live.lease().is_some() && durability == Durability::Sync;
        return Ok(if outlives {
            reader.behind(txn.live.owed())
        } else {
            reader
        });
    };
    // Here, and not at the acknowledgement: nobody may ever ask for that.
    checkpoint::ask_if_due(engine);
    Ok(promise(engine, commit, durability))
}

fn check_and_apply(engine: &Engine, txn: &mut TxnState) -> Result<Option<Appended>> {
    txn.check(engine)?;
    log_held_back(engine, txn)?;
    commit::reserve_and_apply(engine, txn)
}

/// *prepare*: from here on the transaction outlives every crash, with all that it holds. What it has read is locked, and unchanged;
/// then [`prepare::prepare`] takes its steps. After an error the owner is Active, as it was, or Aborted; or it is Preparing, and
/// nobody knows what is on the device.
pub(crate) fn prepare(engine: &Engine, txn: &mut TxnState, gid: &str) -> Result<()> {
    txn.check(engine)?;
    log_held_back(engine, txn)?;
    let policy = std::mem::replace(&mut txn.policy, OnConflict::NoWait);
    let locked = lock_what_was_read(engine, txn);
    txn.policy = policy;
    locked?;
    prepare::prepare(engine, txn, gid)
}

/// *lock, log*, of what a serializable transaction that writes has read: `Share`, without waiting. Behind that nobody changes it
/// any more, so it is enough to look once.
fn lock_what_was_read(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    let wrote = !txn.writes.is_empty() || txn.own.is_some();
    let Some((tables, reads)) = txn.view.take_reads().filter(|_| wrote) else {
        return Ok(());
    };
    for table in &tables {
        let shared = share_read(engine, txn, table);
        shared.map_err(|error| invalidated(engine, txn, table.id, error))?;
    }
    for row in reads.rows() {
        let sought = Sought::Row { row, writes: false };
        let granted = granted(engine, txn, sought, LockMode::Share)
            .and_then(|grant| holds(engine, txn, row, grant));
        let grant = granted.map_err(|error| invalidated(engine, txn, row.table(), error))?;
        if grant.strengthened {
            log(engine, txn, row, grant, None)?;
        }
        spill::make_room(engine, txn)?;
    }
    for stretch in reads.stretches() {
        let range = Arc::new(stretch.range());
        let granted = request_wide(engine, txn, Sought::Range(&range), LockMode::Share);
        let grant = granted.map_err(|error| invalidated(engine, txn, range.table(), error))?;
        if grant.strengthened {
            log_range(engine, txn, &range, LockMode::Share)?;
        }
    }
    let changed = txn.view.changed_table(engine, &tables, &reads);
    let changed = changed.map_err(|error| failed(engine, txn, error))?;
    match changed {
        None => Ok(()),
        Some(table) => Err(invalidated(engine, txn, table, Error::TransactionEnded)),
    }
}

/// K7: keeps a table that was read.
fn share_read(engine: &Engine, txn: &mut TxnState, table: &CatalogEntry) -> Result<()> {
    if !txn.tables.contains(&table.id) {
        share(engine, txn, table.gate.lock(), true)?;
        txn.tables_held(table.id);
    }
    Ok(())
}

/// What was read cannot be kept as it was: the transaction is rolled back for that, unless it was for something else.
fn invalidated(engine: &Engine, txn: &mut TxnState, table: TableId, error: Error) -> Error {
    let error = match txn.check(engine) {
        Ok(()) => txn.view.invalidated(engine, table),
        Err(_) => error,
    };
    roll_back(engine, txn);
    txn.fail(&error);
    error
}

// ---------------------------------------------------------------------------------------------------
// the ways back

/// Undoes everything that sub-transaction `from` and all later ones did: writes, then locks (L9). W9:
/// the record is in the log before any of the locks can be granted to another.
pub(crate) fn rollback_to(engine: &Engine, txn: &mut TxnState, from: u32) -> Result<()> {
    txn.check(engine)?;
    let held = txn.held_back.as_ref();
    if let Some(held) = held.filter(|held| held.sub().is_some_and(|sub| sub >= from)) {
        // The log need not know what is undone before it was said.
        held.take();
    }
    let through = txn.sub;
    txn.next_sub()?;
    if txn.is_logged() {
        append(engine, txn, Body::RollbackTo { from, through })?;
    }
    let of = txn.writes.effects();
    txn.writes.rollback_to(from);
    let left = txn.writes.effects();
    let writes = Left { left, of };
    let dead = txn.live.spilled.roll_back(from, through);
    if dead.is_some() {
        let looked = txn.look_at_spilled(engine, 0);
        looked.map_err(|error| failed(engine, txn, error))?;
    }
    let mut wakes = Wakes::default();
    let of = engine.locks.held_by(&txn.owner) as u64;
    engine.locks.rollback_to(&txn.owner, from, &mut wakes);
    wakes.fire();
    if let Some(dead) = dead {
        spill::forget(engine, txn, dead);
    }
    let left = engine.locks.held_by(&txn.owner) as u64;
    txn.memory.keep(Left { left, of }, writes);
    txn.recount_locks(left);
    txn.count_writes();
    txn.unmark_behind(from);
    txn.check(engine)
}

/// Ends the transaction without effect. Nothing needs to be logged for that; the record that is, if
/// there is room for it, tells the next recovery's report that it was no longer in flight.
pub(crate) fn abort(engine: &Engine, mut txn: TxnState) {
    if txn.is_parted() {
        return; // It is prepared, and not the handle's any more.
    }
    roll_back(engine, &mut txn);
    if lease::has_ended(engine, &txn.owner, &txn.live) {
        engine.live.end(&txn.live, txn.owner.id());
    }
}
