//! The supply of segments: readies them ahead of need, recycles what a checkpoint has freed (G1).
//!
//! `log` calls it, from the supplier's thread or, where there is none or it lags behind, from an
//! appender's; never under the append latch.
//! 1. The shelf's mutex is no latch: it is held across I/O, by one thread, and nobody takes it while
//!    holding the append latch.
//! 2. Want of room is no failure of the log: nothing has changed, the next attempt waits until a good part
//!    more was appended. A failed header, rename or directory sync is: poisoned (W11).
//!
//! Crash: what `shelf` says.

use lockstone_base::Lsn;
use parking_lot::Mutex;

use crate::error::WalError;
use crate::nudge::Nudge;
use crate::pipeline::Pipeline;
use crate::shelf::Shelf;

#[derive(Debug)]
pub(crate) struct Supply {
    shelf: Mutex<Shelf>,
    pub(crate) supplier: Nudge,
}

impl Supply {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self {
            shelf: Mutex::new(shelf),
            supplier: Nudge::default(),
        }
    }

    /// It is time for the next segment: tells the supplier, or readies it here if there is none.
    pub(crate) fn want(&self, pipeline: &Pipeline) -> Result<(), WalError> {
        if self.supplier.is_served() {
            self.supplier.nudge();
            return Ok(());
        }
        let readied = match self.shelf.try_lock() {
            Some(mut shelf) => ready_ahead(pipeline, &mut shelf),
            None => Ok(()),
        };
        told(pipeline, readied)
    }

    /// Readies what is missing, if it is time.
    pub(crate) fn look_after(&self, pipeline: &Pipeline) -> Result<(), WalError> {
        pipeline.progress.check()?;
        if !pipeline.staging.lock().wants_segment() {
            return Ok(());
        }
        let readied = ready_ahead(pipeline, &mut self.shelf.lock());
        told(pipeline, readied)
    }

    /// Readies the next segment and the spare behind it, as far as they are missing; waits for whoever
    /// is at it.
    ///
    /// # Errors
    /// [`WalError::Disk`] when there is no room, with nothing harmed; else [`WalError::Poisoned`].
    pub(crate) fn ready_now(&self, pipeline: &Pipeline) -> Result<(), WalError> {
        let readied = ready(pipeline, &mut self.shelf.lock());
        told(pipeline, readied)
    }

    /// Segments that end below `below` become spares or go.
    pub(crate) fn recycle(&self, pipeline: &Pipeline, below: Lsn) -> Result<(), WalError> {
        let recycled = self.try_recycle(pipeline, below);
        told(pipeline, recycled)
    }

    fn try_recycle(&self, pipeline: &Pipeline, below: Lsn) -> Result<(), WalError> {
        let mut shelf = self.shelf.lock();
        // Whoever closes the log lets others have the segments under this mutex.
        pipeline.progress.check()?;
        if let Err(error) = shelf.recycle(below) {
            tracing::error!(%error, "the log cannot recycle segments: poisoned");
            pipeline.mark_poisoned();
            return Err(WalError::Poisoned);
        }
        if shelf.has_spare() {
            pipeline.staging.lock().set_spare();
        }
        Ok(())
    }

    /// Lets others have the segments, and their room: one spare stays.
    pub(crate) fn close(&self) {
        self.supplier.nudge();
        let mut shelf = self.shelf.lock();
        shelf.trim();
        shelf.unlock();
    }
}

/// Readies what is missing, or puts it off for want of room.
fn ready_ahead(pipeline: &Pipeline, shelf: &mut Shelf) -> Result<(), WalError> {
    match ready(pipeline, shelf) {
        Err(WalError::Disk(error)) => {
            tracing::warn!(%error, "no room for a further log segment yet");
            pipeline.staging.lock().put_off_ready();
            Ok(())
        }
        readied => readied,
    }
}

fn ready(pipeline: &Pipeline, shelf: &mut Shelf) -> Result<(), WalError> {
    pipeline.progress.check()?;
    if !pipeline.staging.lock().has_next() {
        ready_spare(pipeline, shelf)?;
        let next = shelf
            .ready_next()
            .map_err(|error| poisoned(pipeline, &error))?;
        pipeline.staging.lock().set_next(next);
    }
    ready_spare(pipeline, shelf)
}

fn ready_spare(pipeline: &Pipeline, shelf: &mut Shelf) -> Result<(), WalError> {
    if !shelf.has_spare() {
        shelf.fill()?;
        shelf
            .name_spare()
            .map_err(|error| poisoned(pipeline, &error.into()))?;
    }
    pipeline.staging.lock().set_spare();
    Ok(())
}

fn poisoned(pipeline: &Pipeline, error: &WalError) -> WalError {
    tracing::error!(%error, "the log cannot ready a segment: poisoned");
    pipeline.mark_poisoned();
    WalError::Poisoned
}

/// Wakes everybody if the log was poisoned, now that the shelf is let go: a task's waker is foreign code.
fn told(pipeline: &Pipeline, outcome: Result<(), WalError>) -> Result<(), WalError> {
    if matches!(outcome, Err(WalError::Poisoned)) {
        pipeline.poison();
    }
    outcome
}
