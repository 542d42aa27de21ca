//! What the engine counts, for `stats`.

use std::sync::atomic::AtomicU64;

use lockstone_base::Striped;

/// Counts since open.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The sum of all copies.
    pub(crate) commits: Striped<AtomicU64>,
    pub(crate) aborts: AtomicU64,
    pub(crate) scrubbed_bytes: AtomicU64,
    pub(crate) scrub_rounds: AtomicU64,
    /// Threads of the engine that a panic has ended.
    pub(crate) panics: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) deadlocks: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    /// When the next writer has its turn while writers are slowed, in nanoseconds of the clock.
    pub(crate) turn_ns: AtomicU64,
    pub(crate) slowdowns: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) stalled_us: AtomicU64,
}
