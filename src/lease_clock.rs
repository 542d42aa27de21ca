//! A lease: how long a transaction lives without being renewed, and until when.
//!
//! Kept with a transaction's notes; renewed by pings, read by whoever ends it.
//! 1. Time is the monotonic clock's: whatever the wall clock does is nothing to a lease (F19).
//! 2. Renewing and ending exclude each other: what was renewed in time does not end, and what has ended is not renewed.
//!
//! Crash: after a restart the full lease starts anew.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

/// A lease of one transaction.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    lasts: Duration,
    until: Mutex<Duration>,
}

impl LeaseClock {
    /// One that begins at the time `now` of the clock.
    pub(crate) fn new(lasts: Duration, now: Duration) -> Self {
        Self {
            lasts,
            until: Mutex::new(now.saturating_add(lasts)),
        }
    }

    /// How long it lasts without being renewed, in milliseconds.
    pub(crate) fn lasts_ms(&self) -> u64 {
        u64::try_from(self.lasts.as_millis()).unwrap_or(u64::MAX)
    }

    /// When it is over, if nobody renews it.
    pub(crate) fn until(&self) -> Duration {
        *self.until.lock()
    }

    /// Whether it is over; who asks so may end the transaction before it gives this back.
    pub(crate) fn over(&self, now: Duration) -> Option<MutexGuard<'_, Duration>> {
        let until = self.until.lock();
        (*until <= now).then_some(until)
    }

    /// Renews it. `false`: it is over.
    pub(crate) fn renew(&self, now: Duration) -> bool {
        let mut until = self.until.lock();
        let in_time = now < *until;
        if in_time {
            *until = now.saturating_add(self.lasts);
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_in_time_or_never() {
        let secs = Duration::from_secs;
        let lease = LeaseClock::new(secs(10), secs(5));
        assert!(lease.over(secs(14)).is_none() && lease.renew(secs(14)));
        assert_eq!(lease.until(), secs(24));
        assert!(lease.over(secs(24)).is_some());
        assert!(!lease.renew(secs(24)));
        assert_eq!(lease.until(), secs(24));
        let endless = LeaseClock::new(Duration::MAX, secs(5));
        assert!(endless.renew(secs(1_000_000)) && endless.over(secs(u64::MAX)).is_none());
    }
}
