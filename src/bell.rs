//! How compactions are called for, and how writers that they hold up wait for them.
//!
//! 1. A ring while a thread works makes it look again before it sleeps.
//! 2. Who waits for relief is woken by the next compaction that ends, and never waits for threads
//!    that can do nothing: because they fail, or because what they could do is damaged.

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
    failing: bool,
    stopped: bool,
}

impl Bell {
    /// There may be something to do.
    pub(crate) fn ring(&self) {
        self.state.lock().rings += 1;
        self.rung.notify_all();
    }

    /// For a thread that has seen everything up to the ring `seen`: waits for the next one, and says which it is.
    /// `None` when the engine is being closed.
    pub(crate) fn wait(&self, seen: u64) -> Option<u64> {
        let mut state = self.state.lock();
        while state.rings == seen && !state.stopped {
            self.rung.wait(&mut state);
        }
        (!state.stopped).then_some(state.rings)
    }

    /// For a thread whose work has failed: waits before it tries again, rings or not. Whether it may.
    pub(crate) fn back_off(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        state.failing = true;
        self.relieved.notify_all();
        if !state.stopped {
            self.ending.wait_for(&mut state, time);
        }
        !state.stopped
    }

    /// For a thread whose work has succeeded: whoever waits may look again.
    pub(crate) fn worked(&self) {
        self.state.lock().failing = false;
        self.relieved.notify_all();
    }

    /// For a thread: at the ring `at` there was nothing left to do.
    pub(crate) fn idle(&self, at: u64) {
        let mut state = self.state.lock();
        state.idle_at = state.idle_at.max(at);
        self.relieved.notify_all();
    }

    /// Rings, and waits until something is done, at most for `time`. `false` if it is no use to wait.
    pub(crate) fn wait_for_relief(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        state.rings += 1;
        let mine = state.rings;
        self.rung.notify_all();
        if state.failing || state.stopped {
            return false;
        }
        self.relieved.wait_for(&mut state, time);
        !state.failing && !state.stopped && state.idle_at < mine
    }

    /// Tells the threads to stop, and those who wait that nobody works any more.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_all();
        self.ending.notify_all();
        self.relieved.notify_all();
    }
}
