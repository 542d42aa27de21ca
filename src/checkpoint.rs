//! The checkpoint: what turns log and memory into runs, and when it is due. Called by the write path
//! and the background threads.
//!
//! 1. S9: rotate; wait until that is durable; flush; manifest; recycle. Nothing is logged twice.
//! 2. S1: the manifest's `flushed_through` lies right below the log's end at the rotation, so every
//!    commit at or below it is in the runs that it lists, and none above.
//! 3. S3: `scan_from` lies at or below the first record of every transaction that had not ended at the
//!    rotation, one that committed since included: they were all still listed as live in that hold.
//! 4. G10: a checkpoint starts at half the log's limit. At the limit, whoever still holds the log back is
//!    rolled back with a clear error: until open transactions can move their records out of the log, the
//!    log bounds how long one can stay open.
//!
//! Crash: at every step the newest manifest under its final name and the log behind its `scan_from` say
//! everything; runs that no manifest lists are swept at the next open.

use std::sync::atomic::{Ordering, fence};

use lockstone_base::Lsn;
use lockstone_locks::{AbortCause, Wakes};

use crate::compaction;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::LiveTxn;
use crate::publish::publish;

/// More than so many adoptions that no level has yet make every read dear.
const ADOPTIONS_MAX: usize = 3;

/// Before a record is appended: the log has not reached its limit, or a checkpoint has made room.
pub(crate) fn admit(engine: &Engine) -> Result<()> {
    if engine.log.used_bytes() < engine.options.log_bytes {
        return Ok(());
    }
    make_room(engine)
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
    checkpoint(engine)?;
    // One step below the limit, so that an appender that waits for room finds some.
    let limit = engine.options.log_bytes - engine.options.segment_bytes;
    let mut tried_again = false;
    while engine.log.used_bytes() > limit {
        let oldest = engine.live.oldest_in_log();
        match oldest.filter(|(first, _)| engine.log.bytes_since(*first) > limit) {
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
    // Its records are needed no more, whoever ended it.
    engine.live.end(&holder.notes, holder.owner.id());
}

fn checkpoint(engine: &Engine) -> Result<()> {
    if engine.log.end() == Lsn::ZERO {
        // Nothing was ever logged: there is nothing below the log's end.
        return Ok(());
    }
    let (rotated_at, first_needed) = rotate(engine)?;
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
