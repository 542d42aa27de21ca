//! The end of an open database, by `close` or with its last handle.
//!
//! 1. After it every call answers `Closed`; values and keys stay, they own what they show.
//! 2. Live transactions are rolled back, but for those that are prepared (R2); buffered commits are made durable, a checkpoint is taken and the
//!    log is covered (G7), so the next open has almost nothing to read.
//! 3. Whatever fails on the way, the directory is free when it returns.
//!
//! Crash: any step may be the last; recovery needs none of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockstone_locks::{AbortCause, OwnerState, Wakes};
use lockstone_recovery::record::Body;
use lockstone_wal::Record;

use crate::checkpoint;
use crate::detached::Detached;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::prepared::Registry;

/// What handles own: the engine, closed when the last of them goes.
pub(crate) struct EngineRef {
    engine: Arc<Engine>,
    /// Who is prepared.
    pub(crate) prepared: Arc<Registry>,
    /// Who has a lease and no handle.
    pub(crate) detached: Arc<Detached>,
}

/// Where it is, and nothing of what it holds: handles are printed into other people's logs.
impl fmt::Debug for EngineRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engine")
            .field(&self.engine.ports.disk.path(""))
            .finish()
    }
}

impl EngineRef {
    pub(crate) fn new(
        engine: Arc<Engine>,
        (prepared, detached): (Registry, Arc<Detached>),
    ) -> Self {
        Self {
            engine,
            prepared: Arc::new(prepared),
            detached,
        }
    }

    /// For what outlives a call.
    pub(crate) fn shared(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl EngineRef {
    /// The last handle went inside a waker that a thread of the engine has called in the middle of its work:
    /// that thread cannot wait for its own end.
    fn close_elsewhere(&self) {
        let again = Self {
            engine: self.engine.clone(),
            prepared: self.prepared.clone(),
            detached: self.detached.clone(),
        };
        let thread = std::thread::Builder::new().name("lockstone-close".into());
        if let Err(error) = thread.spawn(move || drop(again)) {
            tracing::error!(%error, "no thread to close the database with: the directory stays locked");
        }
    }
}

impl std::ops::Deref for EngineRef {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for EngineRef {
    fn drop(&mut self) {
        if lockstone_wal::is_waking() {
            self.close_elsewhere();
            return;
        }
        // Nobody is left who could be told; the next open finds in the log whatever this could not do.
        match close(self) {
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => {
                tracing::warn!(%error, "closing the database with its last handle failed");
            }
        }
    }
}

/// Ends the engine for all handles.
///
/// # Errors
/// [`Error::Closed`] if that was done before; else what the disk refused. The directory is free.
pub(crate) fn close(engine: &Engine) -> Result<()> {
    if engine.closed.swap(true, Ordering::AcqRel) {
        return Err(Error::Closed);
    }
    end_transactions(engine);
    engine.checkpoints.stop();
    engine.stopping.store(true, Ordering::Release);
    engine.bell.stop();
    engine.alarm.stop();
    engine.scrubbing.stop();
    engine.log.wake_driver();
    engine.log.wake_supplier();
    for thread in std::mem::take(&mut *engine.threads.lock()) {
        if thread.join().is_err() {
            tracing::error!("a background thread had panicked");
        }
    }
    // A compaction that a user asked for ends as well, and none begins: the directory is about to be free.
    let _no_other = engine.compacting.write();
    // Nor does a backup read there: it has seen that the database is closed, or will at its next piece.
    let _no_copy = engine.copying.write();
    let outcome = leave_in_order(engine);
    engine.log.close();
    engine.directory.lock().take();
    outcome
}

/// Rolls back whoever is active and has a handle, and lets whoever is committing or preparing finish. Who is prepared, or detached, stays: the log is needed for it.
fn end_transactions(engine: &Engine) {
    for txn in engine.live.all() {
        if txn.notes.is_detached() {
            continue;
        }
        let mut wakes = Wakes::default();
        engine
            .locks
            .kill(&txn.owner, AbortCause::Closed, &mut wakes);
        wakes.fire();
        while matches!(
            txn.owner.state(),
            OwnerState::Committing | OwnerState::Preparing
        ) && !engine.log.is_poisoned()
        {
            engine.ports.clock.sleep(Duration::from_micros(50));
        }
        if txn.owner.state() != OwnerState::Prepared {
            engine.live.end(&txn.notes, txn.owner.id());
        }
    }
}

fn leave_in_order(engine: &Engine) -> Result<()> {
    checkpoint::run(engine)?;
    let body = Body::CleanShutdown.encode();
    let record = Record {
        tag: body.tag as u8,
        context: &[],
        body: &body.pieces(),
    };
    let shutdown = engine.log.append(&record)?;
    engine.log.wait_durable(shutdown.end)?;
    engine.log.cover()?;
    Ok(())
}
