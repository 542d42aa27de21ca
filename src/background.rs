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
use crate::requests::Call;

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
    while let Call::Asked(number) = engine.checkpoints.next(None) {
        let outcome = checkpoint::run(engine);
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a checkpoint failed; it is tried again when the next one is due");
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
        end_before = end;
        at_most = Some(TICK);
        if idle < IDLE {
            if at_device(engine, Lsn::new(engine.buffered.load(Ordering::Acquire))) {
                continue;
            }
        } else if at_device(engine, end) && engine.log.cover().is_ok() {
            // Whoever appends after this asks again; whoever appended before it is seen below.
            engine.unattended.store(false, Ordering::SeqCst);
            end_before = engine.log.end();
            if engine.log.has_uncovered() || engine.log.durable() < end_before {
                idle = Duration::ZERO;
                continue;
            }
        }
        // All is on the device and covered, or the log has failed for good.
        at_most = None;
    }
}

/// Makes the log durable through `end`. Whether the log still works.
fn at_device(engine: &Engine, end: Lsn) -> bool {
    let outcome = engine.log.wait_durable(end);
    if let Err(error) = &outcome {
        tracing::error!(%error, "the log failed; nothing more is acknowledged");
    }
    outcome.is_ok()
}
