//! Where a thread sleeps, or a task waits, until its lock request is decided.
//!
//! 1. L6: a notice that comes before the sleep is not lost: it is remembered until it is taken.
//! 2. Who is first in line yields for a while before it sleeps: the holder of a hot row is often about to end, and going
//!    to sleep and waking up takes longer than it. Who stands further behind sleeps at once, and nobody is woken ahead
//!    of its turn: both take the processor from those whose turn it is (ADR 0012).
//! 3. A task's waker is somebody else's code: it is called, and let go of, with nothing held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::thread::{self, Thread};
use std::time::Duration;

use lockstone_locks::Notify;
use lockstone_wal::wake_task;
use parking_lot::Mutex;

/// How often one yields that is first in line.
const YIELDS_MAX: u32 = 20;

/// One transaction's place to sleep.
#[derive(Debug, Default)]
pub(crate) struct Parker {
    noticed: AtomicBool,
    sleeper: Mutex<Option<Sleeper>>,
}

#[derive(Debug)]
enum Sleeper {
    Thread(Thread),
    Task(Waker),
}

impl Parker {
    /// Yields for a while, or until noticed.
    pub(crate) fn linger(&self) {
        for _ in 0..YIELDS_MAX {
            if self.noticed.load(Ordering::SeqCst) {
                return;
            }
            thread::yield_now();
        }
    }

    /// Sleeps until noticed, or for `at_most`. May return early: the caller looks again.
    pub(crate) fn park(&self, at_most: Option<Duration>) {
        self.replace(Some(Sleeper::Thread(thread::current())));
        if !self.take_notice() {
            match at_most {
                Some(at_most) => thread::park_timeout(at_most),
                None => thread::park(),
            }
            self.take_notice();
        }
        self.replace(None);
    }

    /// Has `waker` called at the next notice. `false`: there was one already, and the caller looks again.
    #[must_use]
    pub(crate) fn watch(&self, waker: &Waker) -> bool {
        self.replace(Some(Sleeper::Task(waker.clone())));
        !self.take_notice()
    }

    /// Lets go of a task's waker.
    pub(crate) fn unwatch(&self) {
        self.replace(None);
    }

    fn replace(&self, sleeper: Option<Sleeper>) {
        let before = std::mem::replace(&mut *self.sleeper.lock(), sleeper);
        drop(before);
    }

    fn take_notice(&self) -> bool {
        self.noticed.swap(false, Ordering::SeqCst)
    }
}

impl Notify for Parker {
    fn notify(&self) {
        self.noticed.store(true, Ordering::SeqCst);
        // Either the sleeper is seen here, or the notice by whoever is about to sleep.
        let mut sleeper = self.sleeper.lock();
        match sleeper.take() {
            Some(Sleeper::Thread(thread)) => thread.unpark(),
            Some(Sleeper::Task(waker)) => {
                drop(sleeper);
                wake_task(waker);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use lockstone_testkit::Woken;

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

    #[test]
    fn a_task_is_woken_by_a_later_notice_and_told_of_an_earlier_one() {
        let (parker, woken) = (Parker::default(), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        assert!(parker.watch(&waker));
        parker.notify();
        parker.notify();
        assert_eq!(woken.times(), 1);
        assert!(!parker.watch(&waker), "nobody has looked since");
        assert!(parker.watch(&waker));
        parker.unwatch();
        assert_eq!(Arc::strong_count(&woken), 2);
    }
}
