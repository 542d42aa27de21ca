//! Where a thread sleeps until its lock request is decided.
//!
//! 1. L6: a notice that comes before the sleep is not lost: it is remembered until it is taken.
//! 2. Who waits yields a few times before it sleeps: the holder of a hot row is often about to end, and
//!    going to sleep and waking up takes longer than it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use lockstone_locks::Notify;
use parking_lot::Mutex;

/// How often a waiter yields before it sleeps.
const YIELDS_MAX: u32 = 5;

/// One transaction's place to sleep.
#[derive(Debug, Default)]
pub(crate) struct Parker {
    noticed: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

impl Parker {
    /// Sleeps until noticed, or for `at_most`. May return early: the caller looks again.
    pub(crate) fn park(&self, at_most: Option<Duration>) {
        for _ in 0..YIELDS_MAX {
            if self.take_notice() {
                return;
            }
            thread::yield_now();
        }
        *self.sleeper.lock() = Some(thread::current());
        if !self.take_notice() {
            match at_most {
                Some(at_most) => thread::park_timeout(at_most),
                None => thread::park(),
            }
            self.take_notice();
        }
        *self.sleeper.lock() = None;
    }

    fn take_notice(&self) -> bool {
        self.noticed.swap(false, Ordering::SeqCst)
    }
}

impl Notify for Parker {
    fn notify(&self) {
        self.noticed.store(true, Ordering::SeqCst);
        // Either the sleeper is seen here, or the notice by whoever is about to sleep.
        if let Some(sleeper) = &*self.sleeper.lock() {
            sleeper.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn no_notice_is_lost_whenever_it_comes() {
        const ROUNDS: u32 = 20_000;
        let (parker, turn) = (Arc::new(Parker::default()), Arc::new(AtomicU32::new(0)));
        let notifier = thread::spawn({
            let (parker, turn) = (parker.clone(), turn.clone());
            move || {
                for round in 1..=ROUNDS {
                    turn.store(round, Ordering::SeqCst);
                    parker.notify();
                    while turn.load(Ordering::SeqCst) == round {
                        thread::yield_now();
                    }
                }
            }
        });
        for round in 1..=ROUNDS {
            while turn.load(Ordering::SeqCst) != round {
                parker.park(None);
            }
            turn.store(u32::MAX, Ordering::SeqCst);
        }
        notifier.join().expect("the notifier ends");
    }

    #[test]
    fn a_bounded_sleep_ends_by_itself() {
        Parker::default().park(Some(Duration::from_millis(1)));
    }
}
