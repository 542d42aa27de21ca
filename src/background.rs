//! The background threads: the checkpointer, the keeper of what nobody waits for, the supplier of log
//! segments, the alarm of futures that wait for locks, those that compact, and the scrubber.
//!
//! 1. G9: what a ticket or a filling frame asks for is flushed at once, and a `Buffered` commit is on the
//!    device within `BUFFERED_MS_MAX`.
//! 2. G7: when the log has been idle for `LOG_IDLE_MS`, an empty frame covers the last acknowledged one.
//! 3. G1: segments are created and filled ahead of need, by a thread that does nothing else: a fill takes
//!    longer than what the keeper has promised.
//! 4. A thread that a panic ends is told of in the log of events and in `stats`.
//! 5. While nothing is appended all of them sleep without a timeout, but the scrubber, whose pauses are those of its
//!    rate.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use lockstone_base::Lsn;
use lockstone_base::limits::{BUFFERED_MS_MAX, LOG_IDLE_MS};

use crate::checkpoint;
use crate::compaction;
use crate::engine::Engine;
use crate::requests::Requests;
use crate::scrub;

/// K5: void entries of the lock table that a tick removes: some milliseconds of work, so that a transaction of ten million
/// locks is forgotten within ten seconds, whoever locks next.
const SWEPT_PER_TICK: usize = 50_000;

const IDLE: Duration = Duration::from_millis(LOG_IDLE_MS);
/// How often the keeper looks while there is something to look after: twice within the idle time, so
/// that a buffered commit is flushed well within its bound.
const TICK: Duration = Duration::from_millis(LOG_IDLE_MS / 2);
const _: () = assert!(LOG_IDLE_MS < BUFFERED_MS_MAX);

/// Starts all threads.
///
/// # Errors
/// The kernel's, if it gives no thread.
pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<()> {
    spawn("lockstone-checkpoint", engine, checkpointer)?;
    spawn("lockstone-keeper", engine, keeper)?;
    spawn("lockstone-supply", engine, supplier)?;
    spawn("lockstone-alarm", engine, |engine| {
        engine.alarm.serve(&*engine.ports.clock);
    })?;
    for _ in 0..engine.options.compaction_threads {
        spawn("lockstone-compact", engine, compaction::serve)?;
    }
    if engine.options.scrub_bytes_per_second > 0 {
        spawn("lockstone-scrub", engine, scrub::serve)?;
    }
    Ok(())
}

fn spawn(name: &str, engine: &Arc<Engine>, body: fn(&Engine)) -> std::io::Result<()> {
    let of_thread = engine.clone();
    let thread = std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _told = TellsOfPanic(&of_thread);
            body(&of_thread);
        })?;
    engine.threads.lock().push(thread);
    Ok(())
}

/// Goes with a thread of the engine; tells if a panic ends that.
struct TellsOfPanic<'a>(&'a Engine);

impl Drop for TellsOfPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.counters.panics.fetch_add(1, Ordering::Relaxed);
            let thread = std::thread::current();
            tracing::error!(
                thread = thread.name(),
                "a thread of the engine has panicked"
            );
        }
    }
}

fn checkpointer(engine: &Engine) {
    /// Whoever waits must not wait for a thread that is gone, be it by a panic.
    struct StopsWhenGone<'a>(&'a Requests);
    impl Drop for StopsWhenGone<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let _stops = StopsWhenGone(&engine.checkpoints);
    while let Some(number) = engine.checkpoints.next() {
        let outcome = checkpoint::run(engine);
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a checkpoint failed; it is tried again when the next one is due");
            engine.spread_poison();
        }
        engine.checkpoints.served(number, outcome);
    }
}

/// Readies segments until the engine is closed or the log has failed.
fn supplier(engine: &Engine) {
    while engine.log.supply_segments().is_ok() && !is_stopping(engine) {}
    engine.spread_poison();
}

fn is_stopping(engine: &Engine) -> bool {
    engine.stopping.load(Ordering::Acquire)
}

/// Flushes what is asked for at once, buffered commits at every tick; covers a log that was idle for two
/// ticks, and then sleeps until something happens.
fn keeper(engine: &Engine) {
    let clock = &engine.ports.clock;
    let (mut end_before, mut changed_at) = (engine.log.end(), clock.now());
    // When to look next at what nobody asks for.
    let mut due: Option<Duration> = None;
    loop {
        let at_most = due.map(|due| due.saturating_sub(clock.now()));
        let driven = engine.log.drive(at_most);
        if is_stopping(engine) {
            return;
        }
        if driven.is_err() {
            // A poisoned log stays so (W11).
            engine.spread_poison();
            due = None;
            continue;
        }
        let now = clock.now();
        let end = engine.log.end();
        if end != end_before {
            (end_before, changed_at) = (end, now);
        }
        if *due.get_or_insert(now + TICK) > now {
            continue;
        }
        let is_idle = now.saturating_sub(changed_at) >= IDLE;
        let working = if is_idle {
            settle(engine, end)
        } else {
            at_device(engine, Lsn::new(engine.buffered.load(Ordering::Acquire)))
        };
        let swept = engine.locks.sweep(SWEPT_PER_TICK);
        // A log that only lacks room is looked after at the next tick.
        due = Some(now + TICK);
        if !working {
            engine.spread_poison();
        } else if is_idle && is_quiet(engine) && swept == 0 {
            due = None;
        }
        // Covering has moved the end.
        if is_idle {
            end_before = engine.log.end();
        }
    }
}

/// Brings an idle log to the device, and covers it (G7).
fn settle(engine: &Engine, end: Lsn) -> bool {
    if !at_device(engine, end) {
        return false;
    }
    let covered = engine.log.cover();
    if let Err(error) = &covered {
        tracing::warn!(%error, "the log's last frame is not covered yet");
    }
    covered.is_ok()
}

/// Whether nothing is left to look after. Whoever appends after the flag fell asks again; whoever
/// appended before it is seen here.
fn is_quiet(engine: &Engine) -> bool {
    engine.unattended.store(false, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let quiet = !engine.log.has_uncovered() && engine.log.durable() >= engine.log.end();
    if !quiet {
        engine.unattended.store(true, Ordering::SeqCst);
    }
    quiet
}

/// Makes the log durable through `end`. Whether the log still works.
fn at_device(engine: &Engine, end: Lsn) -> bool {
    let outcome = engine.log.wait_durable(end);
    if let Err(error) = &outcome {
        tracing::error!(%error, "the log failed; nothing more is acknowledged");
    }
    outcome.is_ok()
}
