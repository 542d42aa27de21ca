//! F20, V2: when the budget of what is locked and not committed is used up, and who takes the last of it has too little for a file of its
//! own, the locks of others go into one: of those who have most, and of these, of those whose records hold the log back farthest.
//! They may be idle, and need not do anything for it.
//!
//! Called by `spill`, in the thread that has found no room.
//! 1. V1 for each owner by itself: his locks are copied; one mixed run is written, which is durable behind that; then, in one hold of
//!    his latch, he has his part of it and the copied locks leave memory, if he lives and has done nothing of the kind himself
//!    meanwhile. Else his part is void.
//! 2. R2: only who is gone after a crash is spilled so: not who has a lease, or prepares. So the log need not name the run, nor a
//!    manifest list it. Who spills himself, or prepares, first takes his part back into runs of his own (`spill`).
//! 3. What was written stays in memory, and what is not in the log yet.
//! 4. S3: of one that has only locked nothing is needed of the log up to the copy: no crash leaves its locks.
//! 5. One at a time spills for others; the others go on, unless far more is used than there is: then they wait for it.
//! 6. A file goes when the last who has a part in it needs it no more.
//!
//! Crash: the next open sweeps the file, which nobody names.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstone_base::Lsn;
use lockstone_locks::{CopiedLock, LockRun, Owner};
use lockstone_storage::provisional::{Effect, Kind, ProvisionalRun, Record};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::{LiveTxn, Notes};
use crate::provisional_memory::{Left, MIXED_BYTES_MIN};
use crate::spilled::{Mixed, RunOfLocks};

/// One whose locks were copied.
struct Part {
    owner: Arc<Owner>,
    notes: Arc<Notes>,
    /// Which copy of them it was, and how many there are.
    copy: u64,
    locks: u64,
    /// Of what it has in the log nothing is needed up to there.
    free_through: Option<Lsn>,
}

/// Makes room, if there is none. What cannot be written stays in memory, and is tried again when more is used.
pub(crate) fn make_room(engine: &Engine) {
    let budget = &engine.provisional;
    let Some(_one_at_a_time) = budget.turn() else {
        return;
    };
    if let Err(error) = spill_others(engine) {
        tracing::warn!(%error, "what is locked stays in memory");
    }
    budget.relieved();
}

fn spill_others(engine: &Engine) -> Result<()> {
    let idle = largest(engine);
    let (parts, locks) = copy(engine, idle);
    if locks.is_empty() {
        return Ok(());
    }
    let runs = write(engine, &parts, &locks)?;
    drop(locks);
    hand_over(engine, &parts, runs);
    engine.counters.spills.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Those who have half of the budget between them, in the order of their ids: nobody, if that is not worth a file.
fn largest(engine: &Engine) -> Vec<LiveTxn> {
    let mut all: Vec<_> = (engine.live.all().into_iter())
        .filter(|txn| txn.owner.is_active() && txn.notes.lease().is_none())
        .filter_map(|txn| txn.notes.used.idle().map(|bytes| (bytes, txn)))
        .collect();
    // About as much as others, and for longer.
    all.sort_by_key(|(bytes, txn)| (Reverse(bytes.ilog2()), txn.notes.first_record()));
    let wanted = engine.provisional.limit() / 2;
    let mut found = 0;
    let mut largest = Vec::new();
    for (bytes, txn) in all {
        if found >= wanted {
            break;
        }
        found += bytes;
        largest.push(txn);
    }
    if found < MIXED_BYTES_MIN {
        return Vec::new();
    }
    largest.sort_by_key(|txn| txn.owner.id());
    largest
}

/// V1, copy: who has anything to spill, and all of that, each with its owner's number among these.
fn copy(engine: &Engine, idle: Vec<LiveTxn>) -> (Vec<Part>, Vec<CopiedLock>) {
    let (mut parts, mut all) = (Vec::new(), Vec::new());
    for LiveTxn { owner, notes } in idle {
        // In this order: a write that is not known yet lies behind.
        let through = engine.log.end().get() - 1;
        let Some(mut copied) = engine.locks.copy_for_others(&owner) else {
            continue;
        };
        let is_free = notes.has_only_locks_in_log();
        if copied.locks.is_empty() {
            // Nothing that others could spill: it is not asked again for that.
            notes.used.spilled_by_others(Left::ALL);
            continue;
        }
        let number = parts.len() as u32;
        for copied in &mut copied.locks {
            copied.lock.owner = number;
        }
        parts.push(Part {
            owner,
            notes,
            copy: copied.number,
            locks: copied.locks.len() as u64,
            free_through: is_free.then_some(Lsn::new(through)),
        });
        all.append(&mut copied.locks);
    }
    // Of what one sub-transaction has done to a row the last counts.
    all.reverse();
    all.sort_by(|a, b| order(a).cmp(&order(b)));
    all.dedup_by(|a, b| order(a) == order(b));
    (parts, all)
}

/// By row; of a row the last owner first, and of an owner the newest sub-transaction.
fn order(lock: &CopiedLock) -> (&[u8], Reverse<(u32, u32)>) {
    (
        lock.row.as_bytes(),
        Reverse((lock.lock.owner, lock.lock.sub)),
    )
}

/// V1, write: the run is durable behind it, and nobody knows it. It may be several files.
fn write(engine: &Engine, parts: &[Part], locks: &[CopiedLock]) -> Result<Vec<ProvisionalRun>> {
    let owners = parts.iter().map(|part| part.owner.id()).collect();
    let mut file = engine.store.spill(Kind::Mixed, owners);
    let mut rest = locks.iter().peekable();
    while let Some(CopiedLock { row, lock }) = rest.next() {
        let part = parts.get(lock.owner as usize);
        let part = part.expect("V2: a lock is numbered as its owner is");
        // The oldest comes last.
        let has_older = rest
            .peek()
            .is_some_and(|next| next.row == *row && next.lock.owner == lock.owner);
        file.push(&Record {
            row: row.as_bytes(),
            owner: part.owner.id(),
            sub: lock.sub,
            effect: Effect::Lock,
            mode: lock.mode,
            token: lock.token,
            fresh: !has_older,
            writes: lock.writes,
        })?;
    }
    let files = file.finish()?.into_iter();
    let open = |entry| engine.store.open_spill(&entry).map_err(Error::from);
    files.map(open).collect()
}

/// V1, publish and drop, of one owner after the other.
fn hand_over(engine: &Engine, parts: &[Part], runs: Vec<ProvisionalRun>) {
    let salt = engine.store.salt();
    let locks =
        |run: &ProvisionalRun| -> Arc<dyn LockRun> { Arc::new(RunOfLocks::new(run.clone(), salt)) };
    let listed: Vec<_> = runs.iter().map(locks).collect();
    let owners: Vec<_> = parts.iter().map(|part| Arc::clone(&part.owner)).collect();
    let ids = engine.locks.list_mixed(&listed, &owners);
    drop(listed);
    let mixed = Arc::new(Mixed::new(runs, ids));
    let mut void = Vec::new();
    for part in parts {
        let Part { owner, notes, .. } = part;
        let note = || {
            let takes = notes.spilled.take_part(&mixed, part.locks);
            if let Some(through) = part.free_through.filter(|_| takes) {
                notes.note_spilled(Lsn::new(through.get() + 1));
            }
            takes
        };
        let files = mixed.ids().len();
        let left = engine.locks.take_part(owner, part.copy, files, note);
        match left {
            Some((left, of)) => notes.used.spilled_by_others(Left {
                left: left as u64,
                of: of as u64,
            }),
            None => void.push(Arc::clone(owner)),
        }
    }
    if !void.is_empty() {
        engine.locks.leave_runs(mixed.ids(), &void);
    }
    engine.discard_spills(mixed.let_go());
}
