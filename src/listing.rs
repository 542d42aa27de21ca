//! What a user can ask the engine about itself: counts, sizes, soundness. Locks and transactions: `lock_listing`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use lockstone_base::Lsn;
use lockstone_base::disk::WritePath;
use lockstone_storage::{LevelStats, StoreCheck};
use serde::Serialize;

use crate::engine::Engine;
use crate::error::Result;

/// What and where a database is.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// Its directory.
    pub path: PathBuf,
    /// Its identity, as 32 hexadecimal digits.
    pub uuid: String,
    /// This run's epoch: the first half of its transaction ids.
    pub boot_epoch: u32,
    /// How log writes reach the device.
    pub log_writes: WritePath,
    /// The memory budget in bytes.
    pub memory_bytes: u64,
    /// The budget in bytes for what is locked and not committed.
    pub provisional_bytes: u64,
    /// The log's limit in bytes.
    pub log_bytes: u64,
    /// The size of a log segment in bytes.
    pub segment_bytes: u64,
}

/// Counts since open, and sizes now.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions committed.
    pub commits: u64,
    /// Transactions rolled back.
    pub aborts: u64,
    /// Lock requests that waited.
    pub lock_waits: u64,
    /// How long those waits were in all that are over, in microseconds.
    pub lock_wait_us: u64,
    /// How many of them were how long: element `n` counts those of less than 2^n microseconds, and of at least half of that;
    /// the last one longer ones too.
    pub lock_wait_times: [u64; 32],
    /// Lock requests whose time was up.
    pub lock_timeouts: u64,
    /// Deadlocks ended.
    pub deadlocks: u64,
    /// Transactions wounded: rolled back because one of higher priority wanted what they held.
    pub wounds: u64,
    /// Transactions that died: rolled back because one of the same or a higher priority held what they wanted.
    pub conflicts: u64,
    /// Rows passed over because they were locked.
    pub skipped_rows: u64,
    /// Rows that have an entry in the lock table: held, waited for, or left by a transaction that ended, until they are
    /// swept.
    pub lock_entries: usize,
    /// Times that a transaction moved its locks and writes out of memory.
    pub spills: u64,
    /// How often a transaction has merged what it had spilled.
    pub spill_merges: u64,
    /// Memory taken by what is locked and written and not committed, and may be spilled: at most so many bytes.
    pub provisional_bytes: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Transactions live.
    pub transactions: usize,
    /// Snapshots open.
    pub snapshots: usize,
    /// The LSN of the last commit.
    pub commit_tail: Lsn,
    /// How far the log is on the device.
    pub durable: Lsn,
    /// The log's bytes since the last position that a checkpoint freed.
    pub log_bytes: u64,
    /// Memory taken by committed rows.
    pub memory_bytes: usize,
    /// Runs.
    pub runs: usize,
    /// The levels, from level 0 down.
    pub levels: Vec<LevelStats>,
    /// Bytes of runs that checkpoints wrote.
    pub flushed_bytes: u64,
    /// Compactions done.
    pub compactions: u64,
    /// Bytes of runs that compactions read.
    pub compaction_read_bytes: u64,
    /// Bytes of runs that compactions wrote.
    pub compaction_written_bytes: u64,
    /// Bytes by which levels are over what they should have: what compactions are behind by.
    pub compaction_debt_bytes: u64,
    /// Runs that were found damaged: compactions leave them alone until `compact` is called, a scrub finds them intact,
    /// or the database is opened again.
    pub damaged_runs: usize,
    /// Bytes of runs that the scrubber has read.
    pub scrubbed_bytes: u64,
    /// How often it has read all runs through, but those that it left out.
    pub scrub_rounds: u64,
    /// How often it has left a run out of a round that it could not open or read for long, for a reason that is no damage.
    pub scrub_left_out: u64,
    /// Threads of the engine that a panic has ended: a bug, and nobody does their work until the next open.
    pub panics: u64,
    /// Times that commits were slowed because compactions were behind.
    pub slowdowns: u64,
    /// Times that commits waited for a checkpoint or a compaction.
    pub stalls: u64,
    /// How long these were in all, in microseconds.
    pub stalled_us: u64,
}

/// What a check of a whole database found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Runs read.
    pub runs: usize,
    /// Blocks read.
    pub blocks: u64,
    /// Versions of rows read.
    pub versions: u64,
    /// Runs that nothing refers to: left by a crash, and removed when the database is opened.
    pub orphans: Vec<String>,
    /// What does not fit, each with its file.
    pub findings: Vec<String>,
}

impl CheckReport {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl From<StoreCheck> for CheckReport {
    fn from(check: StoreCheck) -> Self {
        Self {
            runs: check.runs,
            blocks: check.blocks,
            versions: check.versions,
            orphans: check.orphans,
            findings: check.findings.iter().map(ToString::to_string).collect(),
        }
    }
}

pub(crate) fn stats(engine: &Engine) -> Stats {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &engine.counters;
    let store = engine.store.stats();
    Stats {
        commits: counters.commits.all().map(count).sum(),
        aborts: count(&counters.aborts),
        lock_waits: count(&counters.waits),
        lock_wait_us: counters.wait_times.total_us(),
        lock_wait_times: counters.wait_times.classes(),
        lock_timeouts: count(&counters.timeouts),
        deadlocks: count(&counters.deadlocks),
        wounds: engine.locks.wounds(),
        conflicts: count(&counters.conflicts),
        skipped_rows: count(&counters.skipped),
        lock_entries: engine.locks.entries(),
        spills: count(&counters.spills),
        spill_merges: count(&counters.spill_merges),
        provisional_bytes: engine.provisional.taken(),
        checkpoints: count(&counters.checkpoints),
        transactions: engine.live.len(),
        snapshots: engine.snapshots.len(),
        commit_tail: engine.watermarks.tail(),
        durable: engine.log.durable(),
        log_bytes: engine.log.used_bytes(),
        memory_bytes: store.memory_bytes,
        runs: store.runs,
        levels: store.levels,
        flushed_bytes: store.flushed_bytes,
        compactions: store.compactions,
        compaction_read_bytes: store.compaction_read_bytes,
        compaction_written_bytes: store.compaction_written_bytes,
        compaction_debt_bytes: store.compaction_debt_bytes,
        damaged_runs: store.damaged_runs,
        scrubbed_bytes: count(&counters.scrubbed_bytes),
        scrub_rounds: count(&counters.scrub_rounds),
        scrub_left_out: count(&counters.scrub_left_out),
        panics: count(&counters.panics),
        slowdowns: count(&counters.slowdowns),
        stalls: count(&counters.stalls),
        stalled_us: count(&counters.stalled_us),
    }
}

pub(crate) fn info(engine: &Engine) -> Info {
    Info {
        path: engine.ports.disk.path(""),
        uuid: format!("{:032x}", engine.uuid),
        boot_epoch: engine.report.boot_epoch,
        log_writes: engine.ports.disk.write_path(),
        memory_bytes: engine.options.memory_bytes,
        provisional_bytes: engine.options.provisional_budget(),
        log_bytes: engine.options.log_bytes,
        segment_bytes: engine.options.segment_bytes,
    }
}

pub(crate) fn check(engine: &Engine, progress: &mut dyn FnMut(u64, u64)) -> Result<CheckReport> {
    engine.check_open()?;
    Ok(engine.store.check(progress)?.into())
}
