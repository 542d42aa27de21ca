//! A job that others ask a background thread for: how they ask, and how they wait for it.
//!
//! 1. A request made while the job runs is served by the next run, which sees all that came before it.
//! 2. Everybody who waits is woken when the job has run or the thread has stopped.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// The state shared by those who ask and the thread that serves.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    state: Mutex<State>,
    asked: Condvar,
    served: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: u64,
    /// Requests up to this number belong to the run that has begun.
    started: u64,
    served: u64,
    stopped: bool,
    last_error: Option<Arc<Error>>,
}

impl Requests {
    /// Asks for a run, and goes on.
    pub(crate) fn ask(&self) {
        let mut state = self.state.lock();
        // One outstanding request stands for all that were made since the last run began.
        if state.asked == state.started {
            state.asked += 1;
            self.asked.notify_one();
        }
    }

    /// Asks for a run that begins from now on, and waits for its end.
    pub(crate) fn ask_and_wait(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.asked += 1;
        let mine = state.asked;
        self.asked.notify_one();
        while state.served < mine {
            if state.stopped {
                return Err(Error::Closed);
            }
            self.served.wait(&mut state);
        }
        state
            .last_error
            .as_ref()
            .map_or(Ok(()), |error| Err((**error).clone()))
    }

    /// For the thread: waits for requests; up to which number there are some, to be reported as served.
    /// `None` when the engine is being closed.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut state = self.state.lock();
        while state.asked == state.served && !state.stopped {
            self.asked.wait(&mut state);
        }
        if state.stopped {
            return None;
        }
        state.started = state.asked;
        Some(state.asked)
    }

    /// For the thread: the run that served all requests up to `number` has ended.
    pub(crate) fn served(&self, number: u64, outcome: Result<()>) {
        let mut state = self.state.lock();
        state.served = number;
        state.last_error = outcome.err().map(Arc::new);
        drop(state);
        self.served.notify_all();
    }

    /// Tells the thread to stop, and those who wait that nobody serves them any more.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.asked.notify_all();
        self.served.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_made_while_a_run_is_under_way_is_served_by_the_next() {
        let requests = Requests::default();
        requests.ask();
        requests.ask();
        assert_eq!(requests.next(), Some(1));
        requests.ask();
        requests.served(1, Ok(()));
        assert_eq!(requests.next(), Some(2));
        requests.served(2, Ok(()));
        requests.stop();
        assert_eq!(requests.next(), None);
    }

    #[test]
    fn a_waiter_is_served_by_a_run_that_began_after_it_asked() {
        let requests = Arc::new(Requests::default());
        let server = std::thread::spawn({
            let requests = requests.clone();
            move || {
                let mut runs = 0;
                while let Some(number) = requests.next() {
                    runs += 1;
                    let outcome = if runs == 1 {
                        Ok(())
                    } else {
                        Err(Error::Closed)
                    };
                    requests.served(number, outcome);
                }
                runs
            }
        });
        assert!(requests.ask_and_wait().is_ok());
        assert!(matches!(requests.ask_and_wait(), Err(Error::Closed)));
        requests.stop();
        assert_eq!(server.join().expect("the server ends"), 2);
        assert!(matches!(requests.ask_and_wait(), Err(Error::Closed)));
    }
}
