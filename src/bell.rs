//! How compactions are called for, and how writers that they hold up wait for them.
//!
//! 1. A ring while a thread works makes it look again before it sleeps; the end of a job is a ring: another thread
//!    may find something now that the job, or what it lacked, kept from it.
//! 2. Who waits for relief is woken by the next compaction that ends, and never waits for threads
//!    that can do nothing: because they fail, because what they could do is damaged, or because they are gone.
//! 3. As long as one thread works, it is of use to wait, however many others find nothing to do beside it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The state shared by those who ring, the threads that compact, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
    relieved: Condvar,
    ending: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rings: u64,
    /// The last ring at which there was nothing to do.
    idle_at: u64,
    /// The threads that are there, and those of them that look for work or do it.
    threads: usize,
    working: usize,
    failing: bool,
    stopped: bool,
}

/// A thread that hears the bell, until this goes: at its end, be it by a panic.
#[derive(Debug)]
pub(crate) struct Hearer<'a> {
    bell: &'a Bell,
    works: bool,
}

impl Bell {
    /// There may be something to do.
    pub(crate) fn ring(&self) {
        self.state.lock().rings += 1;
        self.rung.notify_all();
    }

    /// For a thread that is about to serve.
    pub(crate) fn hear(&self) -> Hearer<'_> {
        self.state.lock().threads += 1;
        Hearer {
            bell: self,
            works: false,
        }
    }

    /// Something was done: whoever waits may look again, and whoever found nothing to do beside it.
    pub(crate) fn worked(&self) {
        let mut state = self.state.lock();
        state.failing = false;
        state.rings += 1;
        drop(state);
        self.rung.notify_all();
        self.relieved.notify_all();
    }

    /// Rings, and waits until something is done, at most for `time`. `false` if it is no use to wait.
    pub(crate) fn wait_for_relief(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        state.rings += 1;
        let mine = state.rings;
        self.rung.notify_all();
        if state.failing || state.stopped || state.threads == 0 {
            return false;
        }
        self.relieved.wait_for(&mut state, time);
        !state.failing && !state.stopped && state.threads > 0 && state.idle_at < mine
    }

    /// Tells the threads to stop, and those who wait that nobody works any more.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_all();
        self.ending.notify_all();
        self.relieved.notify_all();
    }
}

impl Hearer<'_> {
    /// Waits for the next ring behind `seen`, up to which it has seen everything, and says which it is. `None`
    /// when the engine is being closed.
    pub(crate) fn wait(&mut self, seen: u64) -> Option<u64> {
        let mut state = self.bell.state.lock();
        self.rest(&mut state);
        while state.rings == seen && !state.stopped {
            self.bell.rung.wait(&mut state);
        }
        state.working += 1;
        self.works = true;
        (!state.stopped).then_some(state.rings)
    }

    /// Its work has failed: waits before it tries again, rings or not. Whether it may.
    pub(crate) fn back_off(&mut self, time: Duration) -> bool {
        let mut state = self.bell.state.lock();
        self.rest(&mut state);
        state.failing = true;
        self.bell.relieved.notify_all();
        if !state.stopped {
            self.bell.ending.wait_for(&mut state, time);
        }
        !state.stopped
    }

    /// At the ring `at` there was nothing left to do, for this thread.
    pub(crate) fn idle(&mut self, at: u64) {
        let mut state = self.bell.state.lock();
        self.rest(&mut state);
        if state.working == 0 {
            state.idle_at = state.idle_at.max(at);
            self.bell.relieved.notify_all();
        }
    }

    fn rest(&mut self, state: &mut State) {
        if std::mem::take(&mut self.works) {
            state.working -= 1;
        }
    }
}

impl Drop for Hearer<'_> {
    fn drop(&mut self) {
        let bell = self.bell;
        let mut state = bell.state.lock();
        self.rest(&mut state);
        state.threads -= 1;
        bell.relieved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// Two threads: while the one worked, the other said that there was nothing to do, and writers went on.
    #[test]
    fn who_finds_nothing_to_do_beside_one_that_works_sends_nobody_away() {
        let bell = Bell::default();
        let (mut first, mut second) = (bell.hear(), bell.hear());
        bell.ring();
        assert_eq!(first.wait(0), Some(1));
        assert_eq!(second.wait(0), Some(1));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| bell.wait_for_relief(LONG));
            // Rung by the one who waits.
            assert_eq!(second.wait(1), Some(2));
            second.idle(2);
            bell.worked();
            assert!(waiting.join().unwrap());
        });
        assert!(bell.wait_for_relief(Duration::ZERO));
        first.idle(4);
        assert!(bell.wait_for_relief(Duration::ZERO), "it rang behind that");
        assert_eq!(second.wait(2), Some(5));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| bell.wait_for_relief(LONG));
            assert_eq!(first.wait(5), Some(6));
            first.idle(6);
            second.idle(6);
            assert!(!waiting.join().unwrap(), "nobody can do anything");
        });
    }

    /// The second thread slept until the next checkpoint while there was work for two.
    #[test]
    fn who_found_nothing_to_do_looks_again_when_a_job_has_ended() {
        let bell = Bell::default();
        let (mut first, mut second) = (bell.hear(), bell.hear());
        bell.ring();
        assert_eq!((first.wait(0), second.wait(0)), (Some(1), Some(1)));
        second.idle(1);
        bell.worked();
        assert_ne!(bell.state.lock().rings, 1, "it would wait");
        assert_eq!(second.wait(1), Some(2));
    }

    #[test]
    fn nobody_waits_for_threads_that_are_gone() {
        let bell = Bell::default();
        assert!(!bell.wait_for_relief(LONG));
        std::thread::scope(|threads| {
            let mut hearer = bell.hear();
            let waiting = threads.spawn(|| bell.wait_for_relief(LONG));
            assert_eq!(hearer.wait(1), Some(2));
            drop(hearer);
            assert!(!waiting.join().unwrap());
        });
    }
}
