//! Compaction: the threads that keep the levels in shape, and the compaction of everything that a user asks for.
//! Called by the background threads, by the checkpoint where there are none, and by `Database::compact`.
//!
//! 1. S2: behind each compaction a manifest is written, so that its outputs may be the next one's inputs, and
//!    its inputs may go (S6).
//! 2. W7: the horizon is what every open snapshot and every later one is at or above.
//! 3. F7, F10: one that fails is tried again after a pause, longer each time; a run that cannot be read is left
//!    alone by itself (F11), until a user asks for a compaction of everything or a scrub finds it intact.
//! 4. Closing does not wait for a compaction: it is stopped between two versions.
//!
//! Crash: what a manifest does not list yet is swept at the next open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstone_storage::{Droppable, WholeCompaction};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::publish::publish;

/// The pause behind a failed compaction; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LAST: Duration = Duration::from_mins(1);
/// While everything is compacted, level 0 is looked after when it has more runs than this.
const LEVEL_0_RUNS_BESIDE: usize = 8;

/// Runs one compaction that is due, and writes a manifest behind it, or behind an earlier one whose manifest could
/// not be written; whether there was something to do.
///
/// # Errors
/// What the disk refused, or damage: the old runs stay in use.
fn step(engine: &Engine) -> Result<bool> {
    let compacted = engine.store.compact(&droppable(engine), stop(engine))?;
    // Nothing may be due because nothing lists what the last one made.
    if !compacted && !engine.unpublished.load(Ordering::Acquire) {
        // A reader may have rung, who was the last to read something (S6).
        if let Err(error) = engine.store.reclaim() {
            tracing::warn!(%error, "replaced runs stay for now");
        }
        return Ok(false);
    }
    publish(engine, None)?;
    Ok(true)
}

/// Compacts whatever is due: for engines without threads.
pub(crate) fn settle(engine: &Engine) {
    loop {
        match step(engine) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "a compaction failed; it is tried again at the next checkpoint");
                return;
            }
        }
    }
}

/// The body of a thread that compacts.
pub(crate) fn serve(engine: &Engine) {
    let (mut seen, mut pause) = (0, PAUSE_FIRST);
    let mut hearer = engine.bell.hear();
    while let Some(ring) = hearer.wait(seen) {
        let done = {
            let _shared = engine.compacting.read();
            step(engine)
        };
        match done {
            // There may be more: it looks again before it waits.
            Ok(true) => {
                pause = PAUSE_FIRST;
                engine.bell.worked();
            }
            Ok(false) => {
                seen = ring;
                hearer.idle(ring);
            }
            Err(error) => {
                tracing::warn!(%error, ?pause, "a compaction failed; it is tried again later");
                engine.spread_poison();
                if !hearer.back_off(pause) {
                    return;
                }
                pause = (pause * 2).min(PAUSE_LAST);
            }
        }
    }
}

/// Merges everything that is listed into the deepest level, without tombstones and old versions that nobody
/// sees any more. Runs that could not be read are tried once more; those that still cannot are left as they are,
/// and told of when all else is done (F11).
pub(crate) fn everything(engine: &Engine) -> Result<()> {
    let _alone = engine.compacting.write();
    let retry = engine.store.retry_damaged();
    let mut whole = engine.store.whole_compaction();
    loop {
        engine.check_serving()?;
        while engine.store.level_0_runs() > LEVEL_0_RUNS_BESIDE
            && around_damage(engine, || step(engine))?
        {
            engine.bell.worked();
        }
        if !around_damage(engine, || one_of(engine, &mut whole))? {
            // Closing stops it as well.
            engine.check_serving()?;
            return Error::of_damage(retry.failed()).map_or(Ok(()), Err);
        }
        engine.bell.worked();
    }
}

/// What `step` does. If it only failed because a run cannot be read, which is known from now on, there may be more
/// to do around that: each failure makes one run less that is tried.
fn around_damage(engine: &Engine, step: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let known = engine.store.failed_reads();
    match step() {
        Err(error) if engine.store.failed_reads() > known => {
            tracing::warn!(%error, "a run is left as it is");
            Ok(true)
        }
        done => done,
    }
}

fn one_of(engine: &Engine, whole: &mut WholeCompaction) -> Result<bool> {
    let store = &engine.store;
    if !store.compact_whole(whole, &droppable(engine), stop(engine))? {
        return Ok(false);
    }
    publish(engine, None)?;
    Ok(true)
}

/// W7: what nobody sees any more.
fn droppable(engine: &Engine) -> Droppable {
    engine.live.let_go_of_rolled_back();
    let horizon = engine.snapshots.horizon(|| engine.snapshot_lsn());
    let dropped = engine.catalog.dropped().into_iter();
    Droppable {
        horizon,
        tables: dropped
            .filter(|table| table.at <= horizon)
            .map(|table| table.id)
            .collect(),
    }
}

/// The flag that stops a compaction. Without threads it is the closing thread itself that compacts.
fn stop(engine: &Engine) -> &AtomicBool {
    static NEVER: AtomicBool = AtomicBool::new(false);
    if engine.ports.background {
        &engine.stopping
    } else {
        &NEVER
    }
}
