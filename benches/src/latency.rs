//! How long operations took: one histogram per thread, merged at the end.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::error::Error;

/// Nanoseconds; the last bucket takes what is longer.
const LONGEST_NS: u64 = 600_000_000_000;
/// 1 % wide buckets: small enough to keep 128 of these beside each other.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Latencies of many operations.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
    longest: Duration,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
        Self {
            histogram: histogram.expect("constant bounds that fit"),
            longest: Duration::ZERO,
        }
    }

    /// Adds one operation.
    pub(crate) fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(took.as_nanos() as u64);
        self.longest = self.longest.max(took);
    }

    /// Adds all of another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all have the same bounds");
        self.longest = self.longest.max(other.longest);
    }

    /// How many were recorded.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency in microseconds that the part `quantile` of all operations stayed within; zero when
    /// there were none.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        if self.histogram.is_empty() {
            return 0.0;
        }
        self.quantile_ns(quantile) as f64 / 1e3
    }

    /// As [`Latencies::quantile_us`], in nanoseconds.
    pub(crate) fn quantile_ns(&self, quantile: f64) -> u64 {
        // A bucket's upper edge may lie above the longest of all.
        let longest_ns = self.longest.as_nanos() as u64;
        self.histogram.value_at_quantile(quantile).min(longest_ns)
    }

    /// The longest in nanoseconds, exactly.
    pub(crate) fn max_ns(&self) -> u64 {
        self.longest.as_nanos() as u64
    }

    /// The longest in microseconds, exactly.
    pub(crate) fn max_us(&self) -> f64 {
        self.longest.as_secs_f64() * 1e6
    }
}

/// Everything that one thread counted in the measured window.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Rows, locks or transactions: what the workload counts.
    pub(crate) operations: u64,
    pub(crate) latencies: Latencies,
    pub(crate) retries: Retries,
    /// Of the workload that looks at the append latch.
    pub(crate) holds: Option<Box<Holds>>,
}

/// The append latch, once: how long somebody waited for it, and then held it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) waited: Duration,
    pub(crate) held: Duration,
}

/// The append latch, often.
#[derive(Debug, Clone)]
pub(crate) struct Holds {
    pub(crate) waited: Latencies,
    pub(crate) held: Latencies,
}

impl Holds {
    fn new() -> Self {
        Self {
            waited: Latencies::new(),
            held: Latencies::new(),
        }
    }
}

/// Attempts that did not commit, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Retries {
    /// All of them.
    pub(crate) aborts: u64,
    pub(crate) deadlocks: u64,
    pub(crate) timeouts: u64,
}

impl Retries {
    /// Counts the attempt that `error` ended.
    pub(crate) fn count(&mut self, error: &lockstone::Error) {
        self.aborts += 1;
        match error {
            lockstone::Error::Deadlock { .. } => self.deadlocks += 1,
            lockstone::Error::LockTimeout { .. } => self.timeouts += 1,
            _ => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.aborts += other.aborts;
        self.deadlocks += other.deadlocks;
        self.timeouts += other.timeouts;
    }
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            operations: 0,
            latencies: Latencies::new(),
            retries: Retries::default(),
            holds: None,
        }
    }

    /// Counts one hold of the append latch.
    pub(crate) fn count_hold(&mut self, one: Held) {
        let holds = self.holds.get_or_insert_with(|| Box::new(Holds::new()));
        holds.waited.record(one.waited);
        holds.held.record(one.held);
    }

    /// Counts one call that did `operations` operations.
    pub(crate) fn count(&mut self, operations: u64, took: Duration, retries: Retries) {
        self.operations += operations;
        self.latencies.record(took);
        self.retries.merge(retries);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.latencies.merge(&other.latencies);
        self.retries.merge(other.retries);
        if let Some(theirs) = &other.holds {
            let holds = self.holds.get_or_insert_with(|| Box::new(Holds::new()));
            holds.waited.merge(&theirs.waited);
            holds.held.merge(&theirs.held);
        }
    }

    /// One tally out of many threads'; the first error, if any thread had one.
    pub(crate) fn of_all(
        tallies: impl IntoIterator<Item = Result<Self, Error>>,
    ) -> Result<Self, Error> {
        let mut all = Self::new();
        for tally in tallies {
            all.merge(&tally?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_percent() {
        let mut latencies = Latencies::new();
        for us in 1..=10_000 {
            latencies.record(Duration::from_micros(us));
        }
        for (quantile, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let found = latencies.quantile_us(quantile);
            assert!(
                (found - expected).abs() / expected < 0.01,
                "{quantile}: {found}"
            );
        }
        assert!((latencies.max_us() - 10_000.0).abs() < 1e-6);
        assert!(latencies.quantile_us(1.0) <= latencies.max_us() + 1e-6);
    }

    #[test]
    fn no_operation_has_no_latency() {
        assert_eq!(
            (Latencies::new().quantile_us(0.5), Latencies::new().max_us()),
            (0.0, 0.0)
        );
    }

    #[test]
    fn threads_are_merged_and_an_error_of_one_is_everyones() {
        let mut slow = Tally::new();
        slow.count(
            1,
            Duration::from_secs(1),
            Retries {
                aborts: 3,
                deadlocks: 2,
                timeouts: 1,
            },
        );
        let mut fast = Tally::new();
        for _ in 0..99 {
            fast.count(10, Duration::from_micros(1), Retries::default());
        }
        let all = Tally::of_all([Ok(slow.clone()), Ok(fast)]).unwrap();
        assert_eq!((all.operations, all.latencies.len()), (991, 100));
        assert_eq!(
            all.retries,
            Retries {
                aborts: 3,
                deadlocks: 2,
                timeouts: 1
            }
        );
        assert!(all.latencies.quantile_us(0.5) < 2.0);
        assert!((all.latencies.max_us() - 1e6).abs() < 1e-3);
        assert!(Tally::of_all([Ok(slow), Err(Error::Setting("no"))]).is_err());
    }
}
