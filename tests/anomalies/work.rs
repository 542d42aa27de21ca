//! How the workloads run: on several threads, at every level and under every policy, with numbers from a seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockstone::{
    Database, Durability, Error, Isolation, OnConflict, Priority, Transaction, TxnOptions,
};

pub(crate) const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::Snapshot,
    Isolation::Serializable,
];

pub(crate) const POLICIES: [OnConflict; 4] = [
    OnConflict::Wait { timeout: None },
    OnConflict::Wound,
    OnConflict::WoundAfter(Duration::from_micros(200)),
    OnConflict::NoWait,
];

const THREADS: u64 = 4;

/// How many transactions all workloads have together, those included that one level does without, unless `LOCKSTONE_ISOLATION_TXNS` says otherwise.
const TXNS: u64 = 1_100_000;

/// How many transactions one workload has at one level under one policy.
pub(crate) fn share(workloads: u64) -> u64 {
    let all = std::env::var("LOCKSTONE_ISOLATION_TXNS").ok();
    let all = all.map_or(TXNS, |all| all.parse().expect("a number"));
    all / workloads / LEVELS.len() as u64 / POLICIES.len() as u64
}

/// One level under one policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) level: Isolation,
    pub(crate) policy: OnConflict,
}

impl Mix {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let policies = |level| POLICIES.map(|policy| Self { level, policy });
        LEVELS.into_iter().flat_map(policies)
    }

    pub(crate) fn begin(self, db: &Database) -> Transaction {
        let options = TxnOptions::new().isolation(self.level);
        let options = options
            .on_conflict(self.policy)
            .priority(Priority::random());
        db.begin_with(options.durability(Durability::Buffered))
    }
}

/// SplitMix64.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Runs `work` on several threads until they have done it `count` times together: it gets the number of the run, and the
/// numbers of its thread.
pub(crate) fn on_threads<T: Send>(
    count: u64,
    work: impl Fn(u64, &mut Draws) -> T + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(0);
    let run = |seed| {
        let mut draws = Draws(seed);
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        let numbers = numbers.take_while(|number| *number < count);
        numbers.map(|number| work(number, &mut draws)).collect()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| scope.spawn(move || run(seed)))
            .collect();
        let done = threads.into_iter().flat_map(|thread| {
            let done: Vec<T> = thread.join().expect("a thread of the workload");
            done
        });
        done.collect()
    })
}

/// A call may lose against others, and then it may be tried again; anything else is a failure.
pub(crate) fn assert_lost(error: &Error) {
    assert!(error.is_retryable(), "{error}");
}
