//! The checkpoint: what turns log and memory into runs, and when it is due. Called by the write path
//! and the background threads.
//!
//! 1. S9: rotate; wait until that is durable; flush; manifest; recycle. Nothing is logged twice.
//! 2. S1: the manifest's `flushed_through` lies right below the log's end at the rotation, so every
//!    commit at or below it is in the runs that it lists, and none above.
//! 3. S3: `scan_from` lies at or below the first record that is still needed of every transaction that had not ended at the
//!    rotation, one that committed since included: they were all still listed as live in that hold. What they had spilled
//!    by then is not needed of the log: the manifest lists it.
//! 4. S3: whoever holds back more than a quarter of the log's limit is asked to spill, and does so at the end of its next call
//!    that locks or writes.
//! 5. G10: a checkpoint starts at half the log's limit. At the limit, whoever still holds the log back, because it was asked and
//!    has made no call, is rolled back with a clear error. One that is prepared is not: others are refused until it has ended.
//!
//! Crash: at every step the newest manifest under its final name and the log behind its `scan_from` say
//! everything; runs that no manifest lists are swept at the next open.

use std::cell::Cell;
use std::sync::atomic::{Ordering, fence};

use lockstone_base::Lsn;
use lockstone_locks::{AbortCause, OwnerState, Wakes};

use crate::compaction;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::LiveTxn;
use crate::publish::publish;

/// More than so many adoptions that no level has yet make every read dear.
const ADOPTIONS_MAX: usize = 3;

thread_local! {
    /// G10: what this thread appends makes room, and does not wait for some.
    static FREES_LOG: Cell<bool> = const { Cell::new(false) };
}

/// Before a record is appended: the log has not reached its limit, or a checkpoint has made room.
pub(crate) fn admit(engine: &Engine) -> Result<()> {
    let max = engine.options.log_bytes;
    if engine.log.used_bytes() < max || FREES_LOG.get() {
        return Ok(());
    }
    make_room(engine)?;
    // R2: who is prepared is not rolled back for that. Its own end, which is not admitted here, makes room.
    let holder = engine.live.oldest_in_log().map(|(_, holder)| holder);
    if engine.log.used_bytes() >= max && holder.is_some_and(|holder| is_prepared(&holder)) {
        return Err(Error::LogFull { max });
    }
    Ok(())
}

fn is_prepared(txn: &LiveTxn) -> bool {
    matches!(
        txn.owner.state(),
        OwnerState::Preparing | OwnerState::Prepared
    )
}

fn is_ending(txn: &LiveTxn) -> bool {
    txn.owner.state() == OwnerState::Ending
}

/// After a commit: asks for a checkpoint if memory, log or what was adopted call for one. The log is measured from the last
/// checkpoint, so that a transaction which holds it back does not make every commit take one.
pub(crate) fn ask_if_due(engine: &Engine) {
    let memory_due = engine.store.active_bytes() as u64 >= engine.options.memory_bytes / 4;
    let grown = engine.log.bytes_since(engine.store.flushed_through());
    let log_due = grown >= engine.options.log_bytes / 2;
    if !memory_due && !log_due && engine.store.unlisted_adoptions() < ADOPTIONS_MAX {
        return;
    }
    if engine.ports.background {
        engine.checkpoints.ask();
    } else if let Err(error) = run(engine) {
        tracing::warn!(%error, "a checkpoint failed; it is tried again at the next commit");
    }
}

/// Something was appended that nobody waits for: the keeper is to see to it (G7, G9).
pub(crate) fn attend(engine: &Engine) {
    if !engine.ports.background {
        return;
    }
    // Append, then look at the flag; the keeper lowers the flag, then looks at the log's end.
    fence(Ordering::SeqCst);
    let is_known = engine.unattended.load(Ordering::Relaxed);
    if !is_known && !engine.unattended.swap(true, Ordering::SeqCst) {
        engine.log.wake_driver();
    }
}

/// Waits for a checkpoint that makes room in log and memory.
pub(crate) fn make_room(engine: &Engine) -> Result<()> {
    take(engine).map_err(Error::for_want_of_room)
}

/// Waits for a checkpoint that begins from now on: everything that is applied now is in runs then.
pub(crate) fn take(engine: &Engine) -> Result<()> {
    if engine.ports.background {
        engine.checkpoints.ask_and_wait()
    } else {
        run(engine)
    }
}

/// Runs one checkpoint; rolls back whoever holds the log at its limit.
///
/// # Errors
/// What the disk refused. The log and the old manifest still say everything; the next run tries again.
pub(crate) fn run(engine: &Engine) -> Result<()> {
    let _one_at_a_time = engine.checkpointing.lock();
    free_log(engine);
    checkpoint(engine)?;
    // One step below the limit, so that an appender that waits for room finds some.
    let limit = engine.options.log_bytes - engine.options.segment_bytes;
    let mut tried_again = false;
    while engine.log.used_bytes() > limit {
        let oldest = engine.live.oldest_in_log();
        match oldest.filter(|(first, _)| engine.log.bytes_since(*first) > limit) {
            // R2: nothing but its own end frees the log of that; W9: nor of one whose end cannot be logged now.
            Some((_, oldest)) if is_prepared(&oldest) || is_ending(&oldest) => break,
            Some((_, oldest)) => roll_back_holder(engine, &oldest),
            // The log has grown while this checkpoint was taken: another one frees that.
            None if !tried_again => tried_again = true,
            None => break,
        }
        checkpoint(engine)?;
    }
    if !engine.ports.background {
        compaction::settle(engine);
    }
    engine.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// S3: spills who has no handle, and holds the log back.
fn free_log(engine: &Engine) {
    struct Frees;
    impl Drop for Frees {
        fn drop(&mut self) {
            FREES_LOG.set(false);
        }
    }
    let quarter = engine.options.log_bytes / 4;
    let holds_back = |first| engine.log.bytes_since(first) > quarter;
    free_log_of_locks(engine, holds_back);
    FREES_LOG.set(true);
    let _also_if_it_panics = Frees;
    engine.free_log(&holds_back);
}

/// S3: who has only locked, and spills before he is prepared, because others have spilled for him, needs nothing of the log.
fn free_log_of_locks(engine: &Engine, holds_back: impl Fn(Lsn) -> bool) {
    for LiveTxn { owner, notes } in engine.live.all() {
        if notes.first_record().is_some_and(&holds_back) && notes.spilled.has_parts() {
            // In this order: a write that is not known yet lies behind.
            let end = engine.log.end();
            engine.locks.if_open_to_others(&owner, || {
                if notes.has_only_locks_in_log() {
                    notes.note_spilled(end);
                }
            });
        }
    }
}

/// Ends the transaction that alone keeps the log at its limit.
fn roll_back_holder(engine: &Engine, holder: &LiveTxn) {
    let mut wakes = Wakes::default();
    let killed = engine
        .locks
        .kill(&holder.owner, AbortCause::LogFull, &mut wakes);
    wakes.fire();
    if killed {
        tracing::warn!(txn = %holder.owner.id(), "rolled back: it held the log at its limit");
    }
    holder.let_go_if_rolled_back();
    // Its records are needed no more, whoever ended it. Of one that is committing, or has become prepared meanwhile, they are: and
    // what it has spilled is nowhere but with it (S4).
    let state = holder.owner.state();
    if matches!(state, OwnerState::Aborted | OwnerState::Released) {
        engine.live.end(&holder.notes, holder.owner.id());
    }
}

fn checkpoint(engine: &Engine) -> Result<()> {
    if engine.log.end() == Lsn::ZERO {
        // Nothing was ever logged: there is nothing below the log's end.
        return Ok(());
    }
    let rotated = rotate(engine)?;
    complete(engine, rotated)
}

/// What follows the rotation, beside which others go on.
fn complete(engine: &Engine, (rotated_at, first_needed): (Lsn, Lsn)) -> Result<()> {
    engine.log.wait_durable(rotated_at)?;
    // Commits since then may have sealed what they found (W5), and be durable: that is for the next one.
    let passed = Lsn::new(rotated_at.get() - 1);
    engine.store.flush(passed)?;
    assert_eq!(
        engine.store.flushed_through(),
        passed,
        "S1, S3: what lies below the rotation, and nothing behind it, is in the runs before the log goes"
    );
    let scan = engine.log.chain_point_at(first_needed);
    publish(engine, Some(scan))?;
    engine.bell.ring();
    engine.log.recycle(scan.end)?;
    let quarter = engine.options.log_bytes / 4;
    let holds_back = |first| engine.log.bytes_since(first) > quarter;
    engine.live.ask_to_spill(holds_back);
    Ok(())
}

/// W5: seals the memtable in a hold of the append latch. The log's end in that hold, and the first
/// position that recovery will still need (S3).
fn rotate(engine: &Engine) -> Result<(Lsn, Lsn)> {
    let hold = engine.log.hold();
    hold.check()?;
    let end = hold.end();
    engine.store.rotate(Lsn::new(end.get() - 1));
    let first_needed = engine
        .live
        .oldest_in_log()
        .map_or(end, |(first, _)| first.min(end));
    Ok((end, first_needed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockstone_testkit::{SeededEntropy, SimClock, SimDisk, Survivors};

    use super::*;
    use crate::closing::EngineRef;
    use crate::engine::Ports;
    use crate::opening;
    use crate::options::{Options, TxnOptions};
    use crate::schema;
    use crate::table::Table;
    use crate::transaction::Transaction;

    const VALUE: [u8; 8 << 10] = [1; 8 << 10];

    fn start(disk: &Arc<SimDisk>) -> Arc<EngineRef> {
        let options = Options::new()
            .segment_bytes(1 << 20)
            .log_bytes(16 << 20)
            .provisional_bytes(256 << 10);
        let ports = Ports {
            disk: disk.clone(),
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        let (engine, restored) = opening::start(options, ports).expect("a disk without faults");
        Arc::new(EngineRef::new(engine, restored))
    }

    fn table(engine: &Arc<EngineRef>) -> Table {
        Table::new(engine, schema::create(engine, "t").expect("a table"))
    }

    /// S3, S4: the log gives back what a transaction has logged before it spilled, and by the time of the manifest it has
    /// committed: its files are listed all the same, or nobody would find them behind a crash.
    #[test]
    fn who_commits_between_the_rotation_and_the_lists_is_listed() {
        let disk = SimDisk::new(1);
        let engine = start(&disk);
        let t = table(&engine);
        let mut txn = Transaction::begin(Arc::clone(&engine), TxnOptions::new(), None);
        let mut rows = 0_u32;
        while engine.counters.spills.load(Ordering::Relaxed) < 3 {
            txn.put(&t, rows.to_be_bytes(), VALUE).expect("a lock");
            rows += 1;
        }
        let before = engine.log.end();
        let rotated = rotate(&engine).expect("a log");
        assert!(
            rotated.1.get() + (256 << 10) > before.get(),
            "S3: what is in files holds nothing back"
        );
        txn.commit().expect("committed");
        complete(&engine, rotated).expect("a disk without faults");
        let manifest = engine.manifest.lock().clone();
        assert!(manifest.scan_end.get() + (512 << 10) > before.get());
        assert_eq!((manifest.spills.len(), manifest.unfinished.len()), (3, 1));
        // Again, though the transaction is forgotten, and there is nothing to do: what is needed stays listed.
        publish(&engine, None).expect("a disk without faults");
        assert_eq!(engine.manifest.lock().spills, manifest.spills);
        let mut crashed = disk;
        for _ in 0..2 {
            crashed = crashed.after_crash(crashed.io_count(), &Survivors::None);
            let engine = start(&crashed);
            let t = table(&engine);
            let txn = Transaction::begin(Arc::clone(&engine), TxnOptions::new(), None);
            for row in 0..rows {
                let found = txn.get(&t, row.to_be_bytes()).expect("a store");
                assert_eq!(found.as_deref(), Some(&VALUE[..]), "row {row}");
            }
            drop(txn);
            crashed = crashed.after_crash(crashed.io_count(), &Survivors::None);
        }
    }
}
