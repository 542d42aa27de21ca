//! How tables come and go: outside any transaction, durable when the call returns.
//!
//! Called by the database's handle.
//! 1. One creation or drop is logged at a time (`Engine::ddl`), so that a manifest has it or the log behind it
//!    does.
//! 2. S7: ids are never reused. A table is dropped when every transaction that has locked or written in it has
//!    ended: whoever drops it takes it EXCLUSIVE first (K7), as a transaction of its own.
//! 3. A drop stands in the order of commits: its record is appended in a hold of the append latch, in which the
//!    moment is told to the table's handles and the commit tail moves to it. So all commits to the table lie below
//!    it, snapshots below still read the rows, and nobody at or above does.
//! 4. A drop gives up when a transaction keeps the table for too long: it may be the caller's own, and nobody
//!    could tell.
//!
//! Crash: before the record is durable the table is there with all its rows; behind it, it never is again.

use std::sync::Arc;
use std::time::Duration;

use lockstone_base::LockMode;
use lockstone_base::limits::TABLE_DRAIN_MS_MAX;
use lockstone_locks::{AbortCause, OwnerState, TableMode, Wakes};
use lockstone_recovery::record::{Body, DROP_BODY_BYTES};
use lockstone_wal::Record;

use crate::catalog::{CatalogEntry, check_table_name};
use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::isolation::View;
use crate::live::Notes;
use crate::lock_request::{Sought, request_wide};
use crate::options::{Isolation, OnConflict, TxnOptions};
use crate::provisional_memory::Share;
use crate::txn_state::TxnState;

/// The table `name`, created if it is absent.
pub(crate) fn create(engine: &Engine, name: &str) -> Result<CatalogEntry> {
    check_table_name(name)?;
    engine.check_serving()?;
    if let Some(entry) = existing(engine, name) {
        return Ok(entry);
    }
    checkpoint::admit(engine)?;
    let _one_at_a_time = engine.ddl.lock();
    if let Some(entry) = engine.catalog.get(name) {
        return Ok(entry);
    }
    let id = engine.catalog.take_id()?;
    let body = Body::CreateTable { id, name }.encode();
    let record = Record {
        tag: body.tag as u8,
        context: &[],
        body: &body.pieces(),
    };
    let appended = engine.log.append(&record)?;
    if let Err(error) = engine.log.wait_durable(appended.end) {
        engine.spread_poison();
        return Err(error.into());
    }
    let entry = CatalogEntry::new(id, name.into(), appended.lsn);
    engine.catalog.insert(entry.clone());
    Ok(entry)
}

/// The table that has the name. If it is being dropped, waits for the outcome.
fn existing(engine: &Engine, name: &str) -> Option<CatalogEntry> {
    let entry = engine.catalog.get(name)?;
    drop(entry.gate.drop_alone());
    if entry.gate.is_gone() {
        // Whoever comes here now finds the next one of that name, or none.
        return existing(engine, name);
    }
    Some(entry)
}

/// Drops the table: waits for those who use it, logs the drop, and waits until that is durable.
pub(crate) fn drop_table(engine: &Engine, table: &CatalogEntry) -> Result<()> {
    engine.check_serving()?;
    // Another drop under way may still fail: its outcome decides.
    let _alone = table.gate.drop_alone();
    if table.gate.is_gone() {
        return Err(Error::UnknownTable {
            name: table.name.to_string(),
        });
    }
    let (txn, drained) = loop {
        let mut txn = begin(engine);
        match drain(engine, table, &mut txn) {
            // Somebody of a higher priority went first.
            Err(Error::Wounded { .. }) => end(engine, &txn),
            drained => break (txn, drained),
        }
    };
    let dropped = drained.and_then(|()| {
        let _one_at_a_time = engine.ddl.lock();
        engine.check_serving()?;
        log_drop(engine, table, &txn)
    });
    end(engine, &txn);
    // Whole runs may go at once.
    engine.bell.ring();
    dropped
}

/// The transaction that holds the table while it is dropped. It logs nothing of its own.
fn begin(engine: &Engine) -> TxnState {
    let label = Some(Arc::from("drop_table"));
    let notes = Arc::new(Notes::new(
        engine.ports.clock.now(),
        Isolation::ReadCommitted,
        &engine.provisional,
    ));
    let id = engine.next_txn_id();
    let owner = engine.locks.begin(id, label, notes.clone());
    engine.live.begin(&owner, &notes);
    let timeout = Some(Duration::from_millis(TABLE_DRAIN_MS_MAX));
    let options = TxnOptions::new().on_conflict(OnConflict::Wait { timeout });
    let view = View::begin(engine, &notes);
    let memory = Share::new(&notes.used);
    TxnState::new(owner, notes, options, (view, memory), 0)
}

/// Takes the table EXCLUSIVE.
fn drain(engine: &Engine, table: &CatalogEntry, txn: &mut TxnState) -> Result<()> {
    let sought = Sought::Table(table.gate.lock(), TableMode::Exclusive);
    match request_wide(engine, txn, sought, LockMode::Update) {
        Ok(_) => Ok(()),
        Err(Error::LockTimeout {
            holder, waited_ms, ..
        }) => Err(Error::TableInUse {
            table: table.name.clone(),
            holder,
            waited_ms,
        }),
        Err(error) => Err(error),
    }
}

/// The table is everyone's again, or nobody's.
fn end(engine: &Engine, txn: &TxnState) {
    let mut wakes = Wakes::default();
    let owner = &txn.owner;
    if !engine.locks.kill(owner, AbortCause::Requested, &mut wakes)
        && owner.state() == OwnerState::Committing
    {
        owner.released();
        engine.locks.end(owner, &mut wakes);
    }
    wakes.fire();
    engine.live.end(&txn.live, owner.id());
}

/// Logs the drop as a commit is logged, and makes it durable. G10: room for it is taken from the log's reserve:
/// a drop frees space, so it must not wait for some.
fn log_drop(engine: &Engine, table: &CatalogEntry, txn: &TxnState) -> Result<()> {
    let id = table.id;
    let body = Body::DropTable { id }.encode();
    let room = engine.log.reserve(DROP_BODY_BYTES)?;
    let mut hold = engine.log.hold();
    hold.check()?;
    if !txn.owner.try_commit() {
        drop((hold, room));
        return Err(txn.ended(engine));
    }
    let record = Record {
        tag: body.tag as u8,
        context: &[],
        body: &body.pieces(),
    };
    let appended = hold.append(room, &record);
    table.gate.drop_at(appended.lsn);
    engine.optimistic.break_table(id);
    engine.watermarks.move_tail(appended.lsn);
    drop(hold);
    if let Err(error) = engine.log.wait_durable(appended.end) {
        engine.spread_poison();
        return Err(error.into());
    }
    engine.catalog.remove(id, appended.lsn);
    engine.watermarks.acknowledge(appended.lsn);
    Ok(())
}
