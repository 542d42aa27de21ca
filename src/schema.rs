//! How tables come and go: outside any transaction, durable when the call returns.
//!
//! Called by the database's handle.
//! 1. One creation or drop is logged at a time (`Engine::ddl`), so that a manifest has it or the log behind it
//!    does.
//! 2. S7: ids are never reused. A table is dropped when every transaction that has locked or written in it has
//!    ended: the gate is closed first, and then the live transactions are looked through until none is left.
//! 3. A drop stands in the order of commits: its record is appended in a hold of the append latch, in which the
//!    moment is told to the table's handles and the commit tail moves to it. So all commits to the table lie below
//!    it, snapshots below still read the rows, and nobody at or above does.
//! 4. A drop gives up when a transaction keeps the table for too long: it may be the caller's own, and nobody
//!    could tell.
//!
//! Crash: before the record is durable the table is there with all its rows; behind it, it never is again.

use std::time::Duration;

use lockstone_base::TableId;
use lockstone_base::limits::TABLE_DRAIN_MS_MAX;
use lockstone_locks::OwnerState;
use lockstone_recovery::record::{Body, DROP_BODY_BYTES};
use lockstone_wal::Record;

use crate::catalog::{CatalogEntry, check_table_name};
use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gate::{Closing, Passage};
use crate::live::LiveTxn;
use crate::names::Holder;

/// How often a drop looks whether the transactions that it waits for have ended: at first, and at last.
const LOOK_FIRST: Duration = Duration::from_micros(50);
const LOOK_LAST: Duration = Duration::from_millis(5);

/// The table `name`, created if it is absent.
pub(crate) fn create(engine: &Engine, name: &str) -> Result<CatalogEntry> {
    check_table_name(name)?;
    engine.check_serving()?;
    if let Some(entry) = existing(engine, name)? {
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
fn existing(engine: &Engine, name: &str) -> Result<Option<CatalogEntry>> {
    let mut pause = LOOK_FIRST;
    while let Some(entry) = engine.catalog.get(name) {
        if entry.gate.passage() == Passage::Open {
            return Ok(Some(entry));
        }
        look_later(engine, &mut pause)?;
    }
    Ok(None)
}

/// Drops the table: waits for those who use it, logs the drop, and waits until that is durable.
pub(crate) fn drop_table(engine: &Engine, table: &CatalogEntry) -> Result<()> {
    engine.check_serving()?;
    let closing = close_gate(engine, table)?;
    drain(engine, table)?;
    let _one_at_a_time = engine.ddl.lock();
    engine.check_serving()?;
    log_drop(engine, table.id, &closing)?;
    // Whole runs may go at once.
    engine.bell.ring();
    Ok(())
}

/// Closes the table's gate. Another drop under way may still fail: its outcome decides.
fn close_gate<'a>(engine: &Engine, table: &'a CatalogEntry) -> Result<Closing<'a>> {
    let mut pause = LOOK_FIRST;
    loop {
        if let Some(closing) = table.gate.close() {
            return Ok(closing);
        }
        if table.gate.passage() == Passage::Dropped {
            return Err(Error::UnknownTable {
                name: table.name.to_string(),
            });
        }
        look_later(engine, &mut pause)?;
    }
}

/// Waits until nobody uses the table whose gate is closed.
fn drain(engine: &Engine, table: &CatalogEntry) -> Result<()> {
    let max = Duration::from_millis(TABLE_DRAIN_MS_MAX);
    let give_up = engine.ports.clock.now().saturating_add(max);
    let mut pause = LOOK_FIRST;
    while let Some(user) = user_of(engine, table.id) {
        if engine.ports.clock.now() >= give_up {
            return Err(Error::TableInUse {
                table: table.name.clone(),
                holder: Box::new(Holder {
                    txn: user.owner.id(),
                    label: user.owner.label().cloned(),
                    priority: user.owner.rank(),
                }),
                waited_ms: TABLE_DRAIN_MS_MAX,
            });
        }
        look_later(engine, &mut pause)?;
    }
    Ok(())
}

/// A transaction that has locked or written in the table and could still commit.
fn user_of(engine: &Engine, table: TableId) -> Option<LiveTxn> {
    let binds = |txn: &LiveTxn| {
        matches!(
            txn.owner.state(),
            OwnerState::Active | OwnerState::Committing
        )
    };
    engine
        .live
        .all()
        .into_iter()
        .find(|txn| txn.notes.uses_table(table) && binds(txn))
}

/// Waits a little, longer each time.
pub(crate) fn look_later(engine: &Engine, pause: &mut Duration) -> Result<()> {
    engine.check_serving()?;
    engine.ports.clock.sleep(*pause);
    *pause = (*pause * 2).min(LOOK_LAST);
    Ok(())
}

/// Logs the drop as a commit is logged, and makes it durable. G10: room for it is taken from the log's reserve:
/// a drop frees space, so it must not wait for some.
fn log_drop(engine: &Engine, id: TableId, closing: &Closing<'_>) -> Result<()> {
    let body = Body::DropTable { id }.encode();
    let room = engine.log.reserve(DROP_BODY_BYTES)?;
    let mut hold = engine.log.hold();
    hold.check()?;
    let record = Record {
        tag: body.tag as u8,
        context: &[],
        body: &body.pieces(),
    };
    let appended = hold.append(room, &record);
    closing.drop_at(appended.lsn);
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
