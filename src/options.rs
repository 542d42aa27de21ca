//! What a user can set: for a database at open, for a transaction at begin.

use std::sync::Arc;
use std::time::Duration;

use lockstone_base::Priority;
use lockstone_base::disk::IoMode;
use lockstone_base::limits::{LABEL_BYTES_MAX, OPTIMISTIC_LOCKS_MAX};
use serde::Serialize;

use crate::error::{Error, Result};

/// How a database is opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) memory_bytes: u64,
    /// Unless it is given it follows from the log's limit.
    pub(crate) provisional_bytes: Option<u64>,
    pub(crate) log_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) compaction_threads: usize,
    pub(crate) scrub_bytes_per_second: u64,
    pub(crate) io: IoMode,
    pub(crate) redact: bool,
    pub(crate) create: bool,
    pub(crate) retries_max: u32,
    pub(crate) optimistic_locks_max: usize,
}

/// More would only take turns at the same disk.
const COMPACTION_THREADS: std::ops::RangeInclusive<usize> = 1..=4;
/// The smallest log segment: a frame must fit a few times.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// The largest: a recovery surveys every segment whole.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The log is this many segments at least: one written, one spare, two on their way to a checkpoint.
const LOG_SEGMENTS_MIN: u64 = 4;
/// What is locked and not committed may take so much, if the log's limit is not below four times as much.
const PROVISIONAL_BYTES: u64 = 64 << 20;
/// Less than this makes a file out of every few locks.
const PROVISIONAL_BYTES_MIN: u64 = 256 << 10;
/// G10: so many times the budget of what is not committed fit into the log.
const LOG_PROVISIONALS_MIN: u64 = 4;
/// Less than this makes a flush out of every few commits.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            provisional_bytes: None,
            log_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            compaction_threads: 1,
            scrub_bytes_per_second: 4 << 20,
            io: IoMode::Auto,
            redact: false,
            create: true,
            retries_max: 100,
            optimistic_locks_max: OPTIMISTIC_LOCKS_MAX,
        }
    }
}

impl Options {
    /// The defaults: 256 MiB of memory, 1 GiB of log in segments of 64 MiB, created if absent.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much memory committed rows may take before they are in files, in bytes: at least 1 MiB.
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// How much memory all that transactions have locked and written and not committed may take, in bytes, before they move it into
    /// files: at least 256 KiB, and at most a quarter of the log's limit. Unless it is given, 64 MiB, or that quarter if it is
    /// less. The locks of idle transactions are moved too; what they have written stays until their next call, and so does less than
    /// 4 KiB of each.
    pub fn provisional_bytes(mut self, bytes: u64) -> Self {
        self.provisional_bytes = Some(bytes);
        self
    }

    /// The budget of what is not committed.
    pub(crate) fn provisional_budget(&self) -> u64 {
        let most = self.log_bytes / LOG_PROVISIONALS_MIN;
        self.provisional_bytes
            .unwrap_or(PROVISIONAL_BYTES.min(most))
    }

    /// How long the log may grow before a checkpoint must have freed it, in bytes: at least four segments. It bounds neither what a
    /// transaction writes nor how long it stays open: one that holds back a quarter of it moves into files what it has, at the end of
    /// its next call that locks or writes. Only one that makes no call until the limit is reached is rolled back, with
    /// [`Error::LogFull`].
    pub fn log_bytes(mut self, bytes: u64) -> Self {
        self.log_bytes = bytes;
        self
    }

    /// The size of a log segment in bytes: a multiple of 4096 from 256 KiB to 1 GiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How many threads compact: 1 by default, 2 where the database outgrows one. They share the disk with
    /// everything else.
    pub fn compaction_threads(mut self, threads: usize) -> Self {
        self.compaction_threads = threads;
        self
    }

    /// How fast a background thread reads all runs through, in bytes a second, to find what has gone bad on the device:
    /// 4 MiB by default, 0 for not at all. A round begins a day behind the one before at the earliest. What is in use is
    /// checked as it is in memory, everything else is read from the device and not kept in the page cache.
    pub fn scrub_bytes_per_second(mut self, bytes: u64) -> Self {
        self.scrub_bytes_per_second = bytes;
        self
    }

    /// Which calls move the log to the device: by default `io_uring` where the kernel lets us, else blocking
    /// ones. [`Database::info`](crate::Database::info) tells which it became, and why.
    pub fn io(mut self, io: IoMode) -> Self {
        self.io = io;
        self
    }

    /// Whether keys are kept out of errors and listings.
    pub fn redact(mut self, redact: bool) -> Self {
        self.redact = redact;
        self
    }

    /// Whether a database that does not exist is created.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How often `transact` runs a transaction again before it gives up.
    pub fn retries_max(mut self, retries: u32) -> Self {
        self.retries_max = retries;
        self
    }

    /// How many rows and ranges a serializable transaction remembers that it has read: 10,000 by default. One that
    /// reads more remembers whole tables, the ones that it has read most of, so that any write to these fails it.
    pub fn optimistic_locks_max(mut self, locks: usize) -> Self {
        self.optimistic_locks_max = locks;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return Err(Error::invalid(format!(
                "memory_bytes is {}: at least {MEMORY_BYTES_MIN} are needed",
                self.memory_bytes
            )));
        }
        let provisional = PROVISIONAL_BYTES_MIN..=self.log_bytes / LOG_PROVISIONALS_MIN;
        if self
            .provisional_bytes
            .is_some_and(|bytes| !provisional.contains(&bytes))
        {
            return Err(Error::invalid(format!(
                "provisional_bytes is {}: {} to a quarter of log_bytes, {}, are possible",
                self.provisional_budget(),
                provisional.start(),
                provisional.end()
            )));
        }
        let is_allowed = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes);
        if !is_allowed || !self.segment_bytes.is_multiple_of(4096) {
            return Err(Error::invalid(format!(
                "segment_bytes is {}: a multiple of 4096 from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} is \
                 needed",
                self.segment_bytes
            )));
        }
        if !COMPACTION_THREADS.contains(&self.compaction_threads) {
            return Err(Error::invalid(format!(
                "compaction_threads is {}: 1 to {} are possible",
                self.compaction_threads,
                COMPACTION_THREADS.end()
            )));
        }
        if self.log_bytes < self.segment_bytes.saturating_mul(LOG_SEGMENTS_MIN) {
            return Err(Error::invalid(format!(
                "log_bytes is {}: at least {LOG_SEGMENTS_MIN} segments of {} bytes are needed",
                self.log_bytes, self.segment_bytes
            )));
        }
        Ok(())
    }
}

/// What a lock request does when another transaction stands in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// Wait in line: first come, first served within a priority, higher priority first; deadlocks are
    /// found. With a timeout per call; zero is `LockTimeout` at once if it would wait.
    Wait {
        /// How long; `None` for as long as it takes.
        timeout: Option<Duration>,
    },
    /// Take the lock at once from those in the way, holders and conflicting waiters ahead, if the priority is
    /// strictly higher than all of theirs: they are rolled back, and told [`Error::Wounded`] at their next call. Else the
    /// requester is rolled back with [`Error::Conflict`]. Only one that is just committing is waited for.
    Wound,
    /// Wait in line for so long, then as `Wound`.
    WoundAfter(Duration),
    /// Refuse at once with `WouldBlock`.
    NoWait,
    /// `get_for` finds nothing in a row that is locked, `range_for` and `lock_rows` pass it over, and of a table that another has alone
    /// every row is; every other call does as under `NoWait`.
    SkipLocked,
}

impl Default for OnConflict {
    fn default() -> Self {
        Self::Wait { timeout: None }
    }
}

/// What a transaction sees of others, and what they must not have done for it to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Isolation {
    /// Each read sees the newest commit, and a locked one the newest of that row. A range is of one moment.
    #[default]
    ReadCommitted,
    /// Every read sees what was committed when the transaction began. A row that was changed since cannot be locked or
    /// written: [`Error::WriteConflict`], so the first to update it wins.
    Snapshot,
    /// As if the transactions that commit had run one after the other, in the order of their commits. Reads and locks are as
    /// under `Snapshot`, but `put`, `put_many` and `delete` give no [`Error::WriteConflict`]. A transaction that has written
    /// fails to commit if another has meanwhile written into what it has read, be it a row, its absence, or a range as far
    /// as it was walked: [`Error::LocksInvalidated`].
    Serializable,
}

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When it is on the device.
    #[default]
    Sync,
    /// At once; it is on the device within 100 ms. Its success is no promise against a crash; what
    /// survives is a prefix of the commit order that holds every `Sync` commit.
    Buffered,
}

/// How a transaction runs.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct TxnOptions {
    pub(crate) isolation: Isolation,
    pub(crate) on_conflict: OnConflict,
    pub(crate) priority: Priority,
    pub(crate) durability: Durability,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) lease: Option<Duration>,
}

impl TxnOptions {
    /// The defaults: read committed, waits without limit, automatic priority, durable commit, no label.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it sees of others, and what they must not have done for it to commit.
    pub fn isolation(mut self, level: Isolation) -> Self {
        self.isolation = level;
        self
    }

    /// What its lock requests do when another transaction stands in their way.
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Its priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// When its commit is acknowledged.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What errors, listings and recovery reports call it: at most 255 bytes.
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        self.label = Some(label.as_ref().into());
        self
    }

    /// Makes it outlive crashes and the closing of the database, with all that it holds, until it ends or nobody has renewed the lease
    /// ([`Transaction::ping`](crate::Transaction::ping)) for so long: at least a millisecond, by the monotonic clock. Then it is rolled
    /// back. Each lock and each write is on the device when its call returns; one that has locked nothing yet, and was not detached, no
    /// crash leaves. It must be read committed.
    pub fn lease(mut self, lasts: Duration) -> Self {
        self.lease = Some(lasts);
        self
    }

    /// `begin_with` never fails: what is wrong here is said by the first call.
    pub(crate) fn validate(&self) -> Result<()> {
        self.check_policy(self.on_conflict)?;
        if let Some(lease) = self.lease {
            if self.isolation != Isolation::ReadCommitted {
                return Err(Error::invalid(
                    "a leased transaction is read committed: what it saw before a crash cannot be kept",
                ));
            }
            if lease.as_millis() == 0 {
                return Err(Error::invalid("a lease lasts at least a millisecond"));
            }
        }
        match &self.label {
            Some(label) if label.len() > LABEL_BYTES_MAX => Err(Error::invalid(format!(
                "the transaction's label has {} bytes: at most {LABEL_BYTES_MAX} are allowed",
                label.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether its lock requests may follow `policy`: a serializable transaction does not know why a row is skipped.
    pub(crate) fn check_policy(&self, policy: OnConflict) -> Result<()> {
        if self.isolation == Isolation::Serializable && policy == OnConflict::SkipLocked {
            return Err(Error::invalid(
                "a serializable transaction cannot skip locked rows: which ones are there depends on others",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(Options::new().validate().is_ok());
        assert!(TxnOptions::new().validate().is_ok());
    }

    #[test]
    fn options_outside_their_range_are_refused_by_name() {
        let refused = |options: Options| options.validate().expect_err("out of range").to_string();
        assert!(refused(Options::new().memory_bytes(0)).contains("memory_bytes"));
        assert!(refused(Options::new().provisional_bytes(1)).contains("provisional_bytes"));
        assert!(refused(Options::new().provisional_bytes(1 << 30)).contains("provisional_bytes"));
        assert!(refused(Options::new().segment_bytes(1 << 10)).contains("segment_bytes"));
        assert!(refused(Options::new().segment_bytes((1 << 20) + 1)).contains("segment_bytes"));
        assert!(refused(Options::new().segment_bytes(2 << 30)).contains("segment_bytes"));
        assert!(refused(Options::new().log_bytes(1 << 20)).contains("log_bytes"));
        assert!(refused(Options::new().compaction_threads(0)).contains("compaction_threads"));
        assert!(TxnOptions::new().label("x".repeat(256)).validate().is_err());
    }
}
