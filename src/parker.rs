//! Where a thread sleeps until its lock request is decided.
//!
//! 1. L6: a notice that comes before the sleep is not lost: it is remembered until it is taken.

use std::time::Duration;

use lockstone_locks::Notify;
use parking_lot::{Condvar, Mutex};

/// One transaction's place to sleep.
#[derive(Debug, Default)]
pub(crate) struct Parker {
    noticed: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// Sleeps until noticed, or for `at_most`. May return early: the caller looks again.
    pub(crate) fn park(&self, at_most: Option<Duration>) {
        let mut noticed = self.noticed.lock();
        if !*noticed {
            match at_most {
                Some(at_most) => {
                    let _ = self.changed.wait_for(&mut noticed, at_most);
                }
                None => self.changed.wait(&mut noticed),
            }
        }
        *noticed = false;
    }
}

impl Notify for Parker {
    fn notify(&self) {
        *self.noticed.lock() = true;
        self.changed.notify_one();
    }
}
