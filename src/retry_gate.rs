//! Where transactions wait that are run again: as many run at a time as there are processors, in the order in which they came.
//!
//! Called by `Database::transact`.
//! 1. Those who have lost a contended row to each other would meet there again, all of them, with locks in their hands. Who
//!    waits here holds none: so, however many clients there are, about as many run as get something done (ADR 0013).
//! 2. A permit lasts from the second attempt's begin until its locks are free: nobody waits here for the device.
//! 3. Nobody waits for longer than [`WAIT_MAX`]: one that runs may wait for what only one of those behind it can give, or be
//!    the one within which another is run.
//!
//! Crash: memory only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long one waits at most.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The gate.
#[derive(Debug)]
pub(crate) struct RetryGate {
    permits: usize,
    wait_max: Duration,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    running: usize,
    /// Those who wait, first come, first served; who is called has left it.
    queue: VecDeque<Arc<Condvar>>,
}

/// That of one who runs; dropped, it is the next one's.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a RetryGate);

impl RetryGate {
    /// For this machine.
    pub(crate) fn new() -> Self {
        let permits = thread::available_parallelism().map_or(1, Into::into);
        Self::with_permits(permits, WAIT_MAX)
    }

    fn with_permits(permits: usize, wait_max: Duration) -> Self {
        Self {
            permits,
            wait_max,
            inside: Mutex::default(),
        }
    }

    /// How many run.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.inside.lock().running
    }

    /// Waits for a permit; `None` after too long a time, in which the caller has at least stepped back.
    pub(crate) fn enter(&self) -> Option<Permit<'_>> {
        let mut inside = self.inside.lock();
        if inside.running < self.permits {
            inside.running += 1;
            return Some(Permit(self));
        }
        let own = Arc::new(Condvar::new());
        inside.queue.push_back(Arc::clone(&own));
        let place = |inside: &Inside| inside.queue.iter().position(|it| Arc::ptr_eq(it, &own));
        own.wait_while_for(&mut inside, |inside| place(inside).is_some(), self.wait_max);
        match place(&inside) {
            None => Some(Permit(self)),
            Some(place) => {
                inside.queue.remove(place);
                None
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut inside = self.0.inside.lock();
        if let Some(next) = inside.queue.pop_front() {
            next.notify_one();
        } else {
            inside.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Longer than any machine is kept from anything.
    const LONG: Duration = Duration::from_mins(10);

    fn waiting(gate: &RetryGate) -> usize {
        gate.inside.lock().queue.len()
    }

    #[test]
    fn so_many_run_and_the_others_follow_in_order() {
        let gate = RetryGate::with_permits(2, LONG);
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        let served = Mutex::new(Vec::new());
        thread::scope(|threads| {
            for number in 0..3 {
                let (gate, served) = (&gate, &served);
                threads.spawn(move || {
                    let _permit = gate.enter().unwrap();
                    served.lock().push(number);
                });
                while waiting(gate) <= number {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(served.into_inner(), [0, 1, 2]);
        assert_eq!(gate.inside.lock().running, 1);
        drop(second);
        assert_eq!(gate.inside.lock().running, 0);
    }

    #[test]
    fn whoever_is_kept_too_long_goes_on_without() {
        let gate = RetryGate::with_permits(1, WAIT_MAX);
        let permit = gate.enter().unwrap();
        assert!(gate.enter().is_none());
        assert_eq!(waiting(&gate), 0);
        drop(permit);
        assert!(gate.enter().is_some());
    }

    #[test]
    fn never_do_more_run_than_there_are_permits() {
        let gate = RetryGate::with_permits(2, WAIT_MAX);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(permit) = gate.enter() else { continue };
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        let inside = gate.inside.lock();
        assert!(inside.running == 0 && inside.queue.is_empty());
    }
}
