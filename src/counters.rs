//! What the engine counts, for `stats`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockstone_base::Striped;

/// Counts since open.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The sum of all copies.
    pub(crate) commits: Striped<AtomicU64>,
    pub(crate) aborts: AtomicU64,
    pub(crate) scrubbed_bytes: AtomicU64,
    pub(crate) scrub_rounds: AtomicU64,
    pub(crate) scrub_left_out: AtomicU64,
    /// Threads of the engine that a panic has ended.
    pub(crate) panics: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) wait_times: WaitTimes,
    pub(crate) timeouts: AtomicU64,
    pub(crate) deadlocks: AtomicU64,
    /// Those who died of somebody as strong.
    pub(crate) conflicts: AtomicU64,
    /// Rows that were passed over because they were locked.
    pub(crate) skipped: AtomicU64,
    /// Times that a transaction moved what it has locked and written out of memory.
    pub(crate) spills: AtomicU64,
    /// How often what was spilled was merged.
    pub(crate) spill_merges: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    /// Leased transactions that began or were restored.
    pub(crate) leased: AtomicU64,
    /// When the next writer has its turn while writers are slowed, in nanoseconds of the clock.
    pub(crate) turn_ns: AtomicU64,
    pub(crate) slowdowns: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) stalled_us: AtomicU64,
}

impl Counters {
    /// A row was passed over because it was locked.
    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Classes of waits: up to 36 minutes, and longer ones.
pub(crate) const WAIT_CLASSES: usize = 32;

/// The waits that are over, by how long they were.
#[derive(Debug, Default)]
pub(crate) struct WaitTimes {
    total_us: AtomicU64,
    /// Those of less than 2^n microseconds, and of at least half of that.
    classes: [AtomicU64; WAIT_CLASSES],
}

impl WaitTimes {
    /// A wait is over.
    pub(crate) fn count(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.total_us.fetch_add(us, Ordering::Relaxed);
        let class = (u64::BITS - us.leading_zeros()) as usize;
        if let Some(class) = self.classes.get(class.min(WAIT_CLASSES - 1)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them together, in microseconds.
    pub(crate) fn total_us(&self) -> u64 {
        self.total_us.load(Ordering::Relaxed)
    }

    /// How many there are in each class.
    pub(crate) fn classes(&self) -> [u64; WAIT_CLASSES] {
        self.classes
            .each_ref()
            .map(|class| class.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_counted_in_the_class_of_its_time() {
        let times = WaitTimes::default();
        for us in [0, 1, 2, 3, 4, 1 << 20, u64::MAX] {
            times.count(Duration::from_micros(us));
        }
        let classes = times.classes();
        assert_eq!(classes.get(..4), Some(&[1, 1, 2, 1][..]));
        assert_eq!((classes.get(21), classes.last()), (Some(&1), Some(&1)));
        assert_eq!(classes.iter().sum::<u64>(), 7);
    }
}
