//! When the scrubber may read, and how its pauses end.
//!
//! Shared by the scrubber's thread and by whoever closes the database.
//! 1. Whoever pauses when the database is closed, or later, goes on at once.
//!
//! Crash: memory only.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// When the next round may begin, and how the thread that waits for it is ended.
#[derive(Debug, Default)]
pub(crate) struct Scrubbing {
    /// When the round that runs has begun, or when the next one may.
    pub(crate) round: Mutex<Option<Duration>>,
    stopped: Mutex<bool>,
    ending: Condvar,
}

impl Scrubbing {
    /// Ends the thread, at once if it pauses.
    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
        self.ending.notify_all();
    }

    /// Pauses; whether to go on.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.ending.wait_for(&mut stopped, time);
        }
        !*stopped
    }
}
