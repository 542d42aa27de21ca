//! When futures that wait for a lock, and leases, are up: a list of deadlines, and the thread that notices whose time has come.
//!
//! 1. A deadline that is set while the thread sleeps wakes it if it comes before all others.
//! 2. Who is noticed looks at the clock itself: a notice that comes early, or for nothing, does no harm.
//! 3. While there is no deadline the thread sleeps without a timeout.
//!
//! Crash: memory only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockstone_base::clock::Clock;
use lockstone_locks::Notify;
use parking_lot::{Condvar, Mutex};

/// All deadlines.
#[derive(Default)]
pub(crate) struct Alarm {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dues: BTreeMap<Due, Arc<dyn Notify>>,
    /// So many were ever set.
    set: u64,
    stopped: bool,
}

/// A deadline, by time, and a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(Duration, u64);

/// How many there are, and not who.
impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dues = self.state.lock().dues.len();
        let mut shown = f.debug_struct("Alarm");
        shown.field("dues", &dues).finish_non_exhaustive()
    }
}

impl Alarm {
    /// Notices `whom` at the time `at` of the clock, unless that is cleared before.
    pub(crate) fn set(&self, at: Duration, whom: Arc<dyn Notify>) -> Due {
        let mut state = self.state.lock();
        state.set += 1;
        let due = Due(at, state.set);
        state.dues.insert(due, whom);
        let is_next = state.dues.first_key_value().map(|(due, _)| *due) == Some(due);
        drop(state);
        if is_next {
            self.changed.notify_one();
        }
        due
    }

    /// Nobody waits for it any more.
    pub(crate) fn clear(&self, due: Due) {
        let cleared = self.state.lock().dues.remove(&due);
        drop(cleared);
    }

    /// For the thread: notices whose time has come, until it is stopped.
    pub(crate) fn serve(&self, clock: &dyn Clock) {
        let mut state = self.state.lock();
        while !state.stopped {
            let Some(at) = state.dues.first_key_value().map(|(Due(at, _), _)| *at) else {
                self.changed.wait(&mut state);
                continue;
            };
            let left = at.saturating_sub(clock.now());
            if !left.is_zero() {
                self.changed.wait_for(&mut state, left);
                continue;
            }
            let due = state.dues.pop_first();
            drop(state);
            if let Some((_, whom)) = due {
                whom.notify();
            }
            state = self.state.lock();
        }
    }

    /// Tells the thread to end.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::thread;

    use lockstone_testkit::{SimClock, Woken};

    use super::*;
    use crate::live::Notes;

    #[test]
    fn they_are_noticed_in_their_time_and_those_cleared_never() {
        let (alarm, clock) = (Alarm::default(), SimClock::new());
        let ms = Duration::from_millis;
        let woken: [Arc<Woken>; 3] = Default::default();
        let notes = woken.each_ref().map(|woken| {
            let notes = Arc::new(Notes::new(
                Duration::ZERO,
                crate::options::Isolation::default(),
                &crate::provisional_memory::Budget::new(0),
            ));
            assert!(notes.parker.watch(&Waker::from(woken.clone())));
            notes
        });
        let count = || woken.each_ref().map(|woken| woken.times());
        thread::scope(|threads| {
            threads.spawn(|| alarm.serve(&clock));
            alarm.set(ms(20), notes[0].clone());
            alarm.set(ms(10), notes[1].clone());
            let cleared = alarm.set(ms(10), notes[2].clone());
            alarm.clear(cleared);
            for (now, expected) in [(15, [0, 1, 0]), (20, [1, 1, 0])] {
                clock.advance(ms(now).saturating_sub(clock.now()));
                while count() != expected {
                    thread::yield_now();
                }
            }
            alarm.stop();
        });
        assert!(alarm.state.lock().dues.is_empty());
    }
}
