//! Who waits for readers to let go of lists of sources, and how the last reader of a list tells them.
//!
//! Held by every list as its last part, so that it goes when all else of the list has gone.
//! 1. S6: who wants to free what a reader has says so, *and then* looks whether one has it; who lets go of a list does that,
//!    *and then* looks whether somebody waits. So one of the two sees the other.
//! 2. A reader does no more than tell: it frees no file. Where nobody waits it costs one load, at the end of a list.
//!
//! Crash: memory only.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// Who waits for lists to go.
#[derive(Default)]
pub(crate) struct Departures {
    awaited: AtomicBool,
    tell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Departures {
    /// What the last reader of a list calls, once, if somebody waits.
    pub(crate) fn tell(&self, tell: Box<dyn Fn() + Send + Sync>) {
        // Once: a store has one owner.
        let _ = self.tell.set(tell);
    }

    /// From now on whoever lets go of a list tells: before the look at who has one.
    pub(crate) fn wait(&self) {
        self.awaited.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Nobody has anything that is waited for.
    pub(crate) fn wait_no_more(&self) {
        self.awaited.store(false, Ordering::SeqCst);
    }
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Departures").field(&self.awaited).finish()
    }
}

/// The last part of a list.
#[derive(Debug, Clone)]
pub(crate) struct Departure(Arc<Departures>);

impl Departure {
    pub(crate) fn new(departures: &Arc<Departures>) -> Self {
        Self(Arc::clone(departures))
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        fence(Ordering::SeqCst);
        let departures = &self.0;
        if departures.awaited.load(Ordering::SeqCst)
            && departures.awaited.swap(false, Ordering::SeqCst)
            && let Some(tell) = departures.tell.get()
        {
            tell();
        }
    }
}
