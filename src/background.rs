//! The two background threads: the checkpointer, and the keeper of what nobody waits for.
//!
//! 1. G9: a `Buffered` commit is on the device within `BUFFERED_MS_MAX`.
//! 2. G7: when the log has been idle for `LOG_IDLE_MS`, an empty frame covers the last acknowledged one.
//! 3. While nothing is appended the keeper sleeps without a timeout.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use lockstone_base::Lsn;
use lockstone_base::limits::{BUFFERED_MS_MAX, LOG_IDLE_MS};

use crate::checkpoint;
use crate::engine::Engine;
use crate::requests::{Call, Requests};

const IDLE: Duration = Duration::from_millis(LOG_IDLE_MS);
/// How often the keeper looks while there is something to look after: twice within the idle time, so
/// that a buffered commit is flushed well within its bound.
const TICK: Duration = Duration::from_millis(LOG_IDLE_MS / 2);
const _: () = assert!(LOG_IDLE_MS < BUFFERED_MS_MAX);

/// Starts both threads.
///
/// # Errors
/// The kernel's, if it gives no thread.
pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<()> {
    let checkpointer = spawn("lockstone-checkpoint", engine, checkpointer)?;
    engine.threads.lock().push(checkpointer);
    let keeper = spawn("lockstone-keeper", engine, keeper)?;
    engine.threads.lock().push(keeper);
    Ok(())
}

fn spawn(name: &str, engine: &Arc<Engine>, body: fn(&Engine)) -> std::io::Result<JoinHandle<()>> {
    let engine = engine.clone();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || body(&engine))
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
    while let Call::Asked(number) = engine.checkpoints.next(None) {
        let outcome = checkpoint::run(engine);
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a checkpoint failed; it is tried again when the next one is due");
            engine.spread_poison();
        }
        engine.checkpoints.served(number, outcome);
    }
}

/// Flushes buffered commits at every tick, covers a log that was idle for two, then sleeps.
fn keeper(engine: &Engine) {
    let (mut at_most, mut end_before, mut idle) = (None, engine.log.end(), Duration::ZERO);
    loop {
        match engine.keeper.next(at_most) {
            Call::Stop => return,
            Call::Asked(number) => engine.keeper.served(number, Ok(())),
            Call::TimePassed => {}
        }
        let end = engine.log.end();
        idle = if end == end_before {
            idle + at_most.unwrap_or_default()
        } else {
            Duration::ZERO
        };
        at_most = Some(TICK);
        let working = if idle < IDLE {
            at_device(engine, Lsn::new(engine.buffered.load(Ordering::Acquire)))
        } else {
            settle(engine, end)
        };
        if !working {
            engine.spread_poison();
        } else if idle >= IDLE && is_quiet(engine) {
            at_most = None;
        }
        // A poisoned log stays so (W11); one that only lacks room is looked after at the next tick.
        if engine.log.is_poisoned() {
            at_most = None;
        }
        end_before = engine.log.end();
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
