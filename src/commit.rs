//! The second half of the write path: *reserve, commit, apply, release*, of a transaction that commits and of one that was prepared
//! before; and the end of a prepared one without effect. Called by `write_path`, which says what comes before and behind.
//!
//! 1. W2: in the hold of the append latch that gives a commit its LSN it is applied, and the tail moves last.
//! 2. W1: locks are released behind the hold, before the sync.
//! 3. W9: a prepared transaction's Commit or Abort is in the log before its state changes, and so before any of its locks can be
//!    granted to another. Both are on the device before their success is told.
//! 4. S6: files that only a prepared transaction needs go when its end is on the device, and not before.
//! 5. R2: what ends a prepared one may fail up to that hold, and then it is prepared as before.
//!
//! Crash: before the commit record is durable the transaction never was, or is still prepared; behind it, it is whole (R1).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use lockstone_base::{Lsn, TableId};
use lockstone_locks::{AbortCause, Registration, Wakes, Written};
use lockstone_recovery::record::{Body, COMMIT_BODY_BYTES, CONTEXT_BYTES};
use lockstone_storage::{Adoption, Prepared};
use lockstone_wal::{Appended, Hold, Record, Room};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::prerequisites::Pinned;
use crate::pressure;
use crate::promise::{keep, promise};
use crate::provisional_memory::Left;
use crate::spill;
use crate::txn_state::TxnState;
use crate::write_set::WriteSet;

/// *reserve, commit, apply, release*; the commit record's place, if anything was written.
pub(crate) fn reserve_and_apply(engine: &Engine, txn: &mut TxnState) -> Result<Option<Appended>> {
    let mut reserved = reserve(engine, txn)?;
    let mut commit = None;
    if txn.is_logged() {
        txn.settle(engine, false);
        let ((hold, room), pinned) = hold_with_prerequisites(engine, txn)?;
        let broken = reserved.registered.as_ref();
        let broken = broken.and_then(Registration::broken);
        if broken.is_some() || !txn.owner.try_commit() {
            drop((pinned, hold, room));
            txn.check(engine)?;
            let invalidated = broken.map(|table| txn.view.invalidated(engine, table));
            return Err(invalidated.unwrap_or(Error::TransactionEnded));
        }
        let appended = reserved.append_and_apply(engine, txn, (hold, room));
        drop(pinned);
        txn.live.note_owed(appended.end);
        commit = reserved.writes().then_some(appended);
    } else {
        commit_reader(engine, txn)?;
    }
    let adopted = commit.is_some();
    released(engine, txn);
    spill::discard(engine, txn, adopted);
    Ok(commit)
}

/// The same of one that is prepared, up to the *ack*. The LSN of its commit.
///
/// # Errors
/// [`Error::Poisoned`]: the outcome is unknown. After any other it is prepared, as before.
pub(crate) fn commit_prepared(engine: &Engine, txn: &mut TxnState) -> Result<Lsn> {
    engine.check_serving()?;
    let writes = txn.writes.clone();
    let applied = reserve(engine, txn).and_then(|mut reserved| {
        let room = hold_with_room(engine)?;
        txn.owner.commit_prepared();
        Ok(reserved.append_and_apply(engine, txn, room))
    });
    if applied.is_err() {
        txn.writes = writes;
    }
    let appended = applied?;
    released(engine, txn);
    engine.live.end(&txn.live, txn.owner.id());
    checkpoint::ask_if_due(engine);
    let lsn = keep(engine, promise(engine, appended, Durability::Sync))?;
    spill::discard(engine, txn, true);
    Ok(lsn)
}

/// Ends one that is prepared without effect.
///
/// # Errors
/// As [`commit_prepared`].
pub(crate) fn abort_prepared(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    engine.check_serving()?;
    let context = txn.author().context;
    let body = Body::Abort.encode();
    let room = engine.log.reserve(CONTEXT_BYTES)?;
    let mut hold = engine.log.hold();
    hold.check()?;
    let appended = hold.append(
        room,
        &Record {
            tag: body.tag as u8,
            context: &context,
            body: &body.pieces(),
        },
    );
    // W9: behind the record.
    txn.owner.abort_prepared(AbortCause::Requested);
    drop(hold);
    release(engine, txn);
    txn.writes = WriteSet::default();
    txn.memory.keep(Left::NOTHING, Left::NOTHING);
    txn.own = None;
    engine.live.end(&txn.live, txn.owner.id());
    engine.counters.aborts.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = engine.log.wait_durable(appended.end) {
        engine.spread_poison();
        return Err(error.into());
    }
    spill::discard(engine, txn, false);
    Ok(())
}

/// Committing -> Released, and the release pass.
fn released(engine: &Engine, txn: &TxnState) {
    txn.owner.released();
    release(engine, txn);
    engine
        .counters
        .commits
        .own()
        .fetch_add(1, Ordering::Relaxed);
}

/// What a commit has before it takes its LSN.
struct Reserved<'e> {
    /// How many rows it writes, and the rows.
    rows: usize,
    prepared: Prepared,
    /// How many files it adopts, and these; the tables that they have rows of.
    adopts: u32,
    adoption: Option<Adoption>,
    tables: BTreeSet<TableId>,
    /// What must be unchanged.
    registered: Option<Registration<'e>>,
}

/// *reserve*.
fn reserve<'e>(engine: &'e Engine, txn: &mut TxnState) -> Result<Reserved<'e>> {
    let batch = std::mem::take(&mut txn.writes).into_batch();
    let rows = batch.rows();
    if rows > 0 {
        pressure::reserve(engine, batch.bytes())?;
    }
    let mut reserved = Reserved {
        rows,
        prepared: engine.store.prepare(batch),
        adopts: 0,
        adoption: None,
        tables: BTreeSet::new(),
        registered: None,
    };
    if txn.own.is_some() {
        let adopted = txn.live.spilled.to_adopt(0);
        reserved.adopts = adopted.len() as u32;
        let open = txn.live.spilled.open(&txn.owner);
        let open = open.expect("V1: what is adopted was spilled");
        reserved.adoption = Some(engine.store.prepare_adoption(open.txn, adopted)?);
        reserved.tables = txn.live.spilled.tables();
    }
    if reserved.writes() {
        reserved.registered = txn.view.register(engine)?;
    }
    Ok(reserved)
}

impl Reserved<'_> {
    /// Whether anything was written.
    fn writes(&self) -> bool {
        self.rows > 0 || self.adoption.is_some()
    }

    /// *commit, apply*: in one hold, behind the change of state.
    fn append_and_apply(
        &mut self,
        engine: &Engine,
        txn: &TxnState,
        (mut hold, room): (Hold<'_>, Option<Room<'_>>),
    ) -> Appended {
        let body = Body::Commit {
            rows: self.rows as u64,
            adopts: self.adopts,
        };
        let body = body.encode();
        let record = Record {
            tag: body.tag as u8,
            context: &txn.author().context,
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
        if self.writes() {
            self.apply(engine, appended.lsn);
        }
        appended
    }

    /// *apply*, in the hold that gave the LSN (W2): the sources, then the tail.
    fn apply(&mut self, engine: &Engine, stamp: Lsn) {
        let row = |index| self.prepared.row(index).unwrap_or_default();
        let written = Written::new(self.rows, &row);
        let own = self.registered.as_ref();
        engine.optimistic.break_others(own, written);
        // W4: what was spilled breaks whole tables.
        for table in &self.tables {
            engine.optimistic.break_table(*table);
        }
        match &mut self.adoption {
            Some(adoption) => {
                let rest = (self.rows > 0).then_some(&mut self.prepared);
                engine.store.adopt(adoption, stamp, rest);
            }
            None => engine.store.apply_prepared(&mut self.prepared, stamp),
        }
        engine.watermarks.move_tail(stamp);
    }
}

/// Of one that has nothing in the log.
fn commit_reader(engine: &Engine, txn: &TxnState) -> Result<()> {
    let required = !txn.prerequisites.is_empty();
    let held = required.then(|| hold_with_prerequisites(engine, txn));
    let held = held.transpose()?;
    let committed = txn.owner.try_commit();
    if let Some((hold, pinned)) = held {
        drop((pinned, hold));
    }
    if committed {
        return Ok(());
    }
    txn.check(engine)?;
    Err(Error::TransactionEnded)
}

/// [`hold_with_room`], in which what the commit requires is there, and stays until it is let go.
fn hold_with_prerequisites<'e>(
    engine: &'e Engine,
    txn: &TxnState,
) -> Result<((Hold<'e>, Option<Room<'e>>), Pinned)> {
    loop {
        let looked = txn.prerequisites.look(engine, &txn.owner)?;
        let hold = hold_with_room(engine)?;
        if let Some(pinned) = looked.pin() {
            return Ok((hold, pinned));
        }
    }
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
