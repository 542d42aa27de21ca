//! R2: who has outlived a crash is as it was, before anybody else is admitted. Called once, by `opening`.
//!
//! 1. It holds exactly what it held: the rows that the log says, the runs of what it had spilled, ranges, tables. Recovery has compared
//!    all that with what it had said of itself.
//! 2. Rows come first, of all of them, then runs: nobody has to look into a file for a row that he held (K2).
//! 3. S3: the log is needed from its first record on, as before the crash.
//! 4. It is listed, and takes memory, like anybody.
//!
//! Crash: memory only; nothing is written.

use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{RowKey, TableId};
use lockstone_locks::{KeptRange, KeptRow, LockRun, RowRange, TokenRequest};
use lockstone_recovery::record::{Body, Context, HeldRange};
use lockstone_recovery::{HeldRow, Survives, Survivor};

use crate::detached::Detached;
use crate::engine::{Engine, Handleless};
use crate::error::{Error, Result};
use crate::isolation::View;
use crate::lease;
use crate::live::Notes;
use crate::log_step::try_append;
use crate::options::{Isolation, TxnOptions};
use crate::prepared::Registry;
use crate::provisional_memory::Share;
use crate::resource::semaphore_row;
use crate::spilled::RunOfLocks;
use crate::txn_state::TxnState;

/// Those who live without a handle: who is prepared, and who has a lease.
pub(crate) type Restored = (Registry, Arc<Detached>);

/// All who have outlived the crash.
///
/// # Errors
/// [`Error::Corrupt`]: two of them hold what conflicts, or one holds a table that is not there.
pub(crate) fn restore(engine: &Arc<Engine>, survivors: Vec<Survivor>) -> Result<Restored> {
    let mut all = Vec::with_capacity(survivors.len());
    for survivor in survivors {
        let mut txn = begin(engine, &survivor);
        if let Survives::Leased { lasts } = survivor.survives {
            lease::begin(engine, &txn.owner, &txn.live, lasts);
        }
        hold(engine, &mut txn, &survivor).map_err(|what| damaged(engine, &survivor, what))?;
        all.push((txn, survivor));
    }
    let (registry, detached) = (Registry::default(), Arc::<Detached>::default());
    for (mut txn, survivor) in all {
        publish(engine, &mut txn, &survivor)?;
        for write in survivor.writes {
            let value = write.value.as_ref().map_or(0, bytes::Bytes::len);
            txn.memory.add_writes(1, write.row.as_bytes().len() + value);
            txn.writes.stage(write.row, write.sub, write.value);
        }
        txn.count_writes();
        match survivor.survives {
            Survives::Prepared { gid } => {
                assert!(txn.owner.try_prepare(), "R2: nobody else knows it yet");
                txn.owner.prepared();
                registry.reserve(&gid)?.fill(txn);
            }
            Survives::Leased { lasts } => {
                txn.options.lease = Some(lasts);
                if let Some((from, through)) = survivor.undone {
                    // Behind it new sub-transactions may come. Not admitted: there is no thread yet that makes room.
                    let undone = Body::RollbackTo { from, through };
                    try_append(engine, txn.author(), undone)?;
                }
                detached.put(engine, txn);
            }
            _ => unreachable!("there is no other reason to outlive a crash"),
        }
    }
    let shared: Arc<dyn Handleless> = detached.clone();
    let first = engine.handleless.set(Arc::downgrade(&shared));
    assert!(first.is_ok(), "an engine is opened once");
    Ok((registry, detached))
}

/// It, with nothing in its hands.
fn begin(engine: &Engine, survivor: &Survivor) -> TxnState {
    let (now, budget) = (engine.ports.clock.now(), &engine.provisional);
    let notes = Notes::new(now, Isolation::ReadCommitted, budget);
    let notes = Arc::new(notes);
    let label = survivor.label.clone();
    let owner = engine
        .locks
        .begin(survivor.txn, label.clone(), notes.clone());
    owner.settle(survivor.rank);
    engine.live.begin(&owner, &notes);
    notes.note_first_record(survivor.first);
    let options = match label {
        Some(label) => TxnOptions::new().label(&*label),
        None => TxnOptions::new(),
    };
    let begun = (View::none(), Share::new(&notes.used));
    let mut txn = TxnState::new(owner, notes, options, begun, 0);
    let context = Context {
        txn: survivor.txn,
        rank: survivor.rank,
    };
    txn.context = Some(context.encode());
    txn.sub = survivor.held.sub;
    txn
}

/// What of it is in memory.
fn hold(
    engine: &Engine,
    txn: &mut TxnState,
    survivor: &Survivor,
) -> std::result::Result<(), &'static str> {
    const CONFLICTS: &str = "it holds what another prepared transaction holds, too";
    let (locks, held) = (&engine.locks, &survivor.held);
    for id in &held.shared {
        let table = engine.catalog.by_id(*id);
        let table = table.ok_or("it holds a table that is not there")?;
        let exclusive = held.exclusive.iter().find(|(other, _)| other == id);
        let token = exclusive.map(|(_, token)| *token);
        let restored = locks.restore_table(&txn.owner, table.gate.lock(), token);
        restored.map_err(|_| CONFLICTS)?;
        txn.tables_held(*id);
    }
    for row in &survivor.rows {
        let fresh = locks.restore_row(&txn.owner, &kept(row));
        if fresh.map_err(|_| CONFLICTS)? {
            txn.memory.add_lock(&row.row);
            txn.count_locks(1);
        }
    }
    for range in &held.ranges {
        let restored = locks.restore_range(&txn.owner, &kept_range(range));
        restored.map_err(|_| CONFLICTS)?;
        txn.count_locks(1);
    }
    for tokens in &held.tokens {
        let request = Arc::new(TokenRequest {
            semaphore: semaphore_row(&tokens.semaphore),
            limit: tokens.limit,
            tokens: tokens.tokens,
        });
        if !locks.restore_tokens(&txn.owner, &request, tokens.sub) {
            return Err("it holds more tokens of a semaphore than there are");
        }
        txn.count_locks(1);
    }
    Ok(())
}

fn kept(row: &HeldRow) -> KeptRow {
    KeptRow {
        row: row.row.clone(),
        mode: row.mode,
        writes: row.writes,
        sub: row.sub,
        token: row.token,
    }
}

fn kept_range(range: &HeldRange) -> KeptRange {
    let row = |table: TableId, bound: &Bound<Vec<u8>>| {
        let key = bound.as_ref();
        key.map(|key| RowKey::new(table, key))
    };
    let bounds = (row(range.table, &range.start), row(range.table, &range.end));
    KeptRange {
        range: Arc::new(RowRange::new(range.table, bounds.0, bounds.1)),
        mode: range.mode,
        sub: range.sub,
        token: range.token,
    }
}

/// What of it is in files.
fn publish(engine: &Engine, txn: &mut TxnState, survivor: &Survivor) -> Result<()> {
    if survivor.files.is_empty() {
        return Ok(());
    }
    let dead = &survivor.held.dead;
    let rows = survivor.files.iter().map(|(_, run)| run.entry().rows).sum();
    let held = &survivor.held;
    txn.live.spilled.restore(&survivor.files, held, rows);
    let dead = dead.iter().map(|(from, through)| *from..=*through);
    engine.locks.restore_dead(&txn.owner, dead);
    let salt = engine.store.salt();
    let listed = survivor.files.iter().map(|(_, run)| {
        let run: Arc<dyn LockRun> = Arc::new(RunOfLocks::new(run.clone(), salt));
        (run, 0)
    });
    let listed: Vec<_> = listed.collect();
    let published = engine
        .locks
        .publish(&txn.owner, &listed, &[], |_| Ok::<_, Error>(()))?;
    let names = published.expect("R2: nobody else knows it yet");
    txn.live.spilled.named(names);
    txn.count_locks(txn.live.spilled.locks());
    txn.look_at_spilled(engine, 0)
}

fn damaged(engine: &Engine, survivor: &Survivor, what: &str) -> Error {
    Error::Corrupt {
        file: engine.ports.disk.path("wal-*"),
        offset: None,
        lsn: Some(survivor.first),
        what: format!("{} is prepared, but {what}", survivor.txn),
    }
}
