//! The clock port: one monotonic clock, so that tests can own time. There is no wall clock in the
//! engine: jumps of the system time have no effect on ids, order or timeouts.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A clock that never goes backward.
pub trait Clock: Debug + Send + Sync {
    /// Time since some fixed moment before the first call.
    fn now(&self) -> Duration;

    /// Lets `time` pass.
    fn sleep(&self, time: Duration);
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// A clock that starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock port")]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock port")]
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
