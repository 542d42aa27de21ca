//! Where a background thread sleeps until there is work for it.
//!
//! Used by `progress` for the thread that flushes, by `supply` for the one that readies segments.
//! 1. A nudge that comes before the sleep is not lost: it is remembered until it is taken.
//! 2. Whoever nudges pays for a wake-up only if somebody sleeps.
//!
//! Crash: memory only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(crate) struct Nudge {
    /// Whether somebody ever came to sleep here: a thread that serves.
    is_served: AtomicBool,
    nudged: Mutex<bool>,
    wake: Condvar,
}

impl Nudge {
    /// Wakes the thread that sleeps here, now or at its next sleep.
    pub(crate) fn nudge(&self) {
        let mut nudged = self.nudged.lock();
        if !std::mem::replace(&mut *nudged, true) {
            self.wake.notify_one();
        }
    }

    /// Sleeps until nudged, or for `at_most`.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        self.is_served.store(true, Ordering::Release);
        let mut nudged = self.nudged.lock();
        if !*nudged {
            match at_most {
                Some(at_most) => {
                    let _ = self.wake.wait_for(&mut nudged, at_most);
                }
                None => self.wake.wait(&mut nudged),
            }
        }
        *nudged = false;
    }

    /// Whether there is a thread that serves.
    pub(crate) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Acquire)
    }
}
