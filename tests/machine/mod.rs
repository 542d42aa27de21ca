//! The simulated machine that several tests run on.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panicking"
)]

use std::sync::Arc;

use lockstone::{Database, Error, OnConflict, Options, Ports, Priority, TxnOptions};
use lockstone_testkit::{SeededEntropy, SimClock, SimDisk};
use tempfile::TempDir;

/// The smallest log and memory that are allowed.
pub(crate) fn smallest() -> Options {
    Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(1 << 20)
        .memory_bytes(1 << 20)
}

/// Small, on real files.
pub(crate) fn small_and_real() -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(8 << 20)
        .memory_bytes(4 << 20)
}

/// A database in a directory of its own.
pub(crate) fn fresh() -> (TempDir, Database) {
    let dir = tempfile::tempdir().unwrap();
    let db = small_and_real().open(dir.path().join("db")).unwrap();
    (dir, db)
}

/// The ports to a simulated machine with one thread.
pub(crate) fn ports(disk: &Arc<SimDisk>) -> Ports {
    Ports {
        disk: disk.clone(),
        clock: Arc::new(SimClock::new()),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: false,
    }
}

/// Opens the database on a simulated disk.
pub(crate) fn open(disk: &Arc<SimDisk>) -> Result<Database, Error> {
    smallest().open_with(ports(disk))
}

/// On one thread nobody could grant what a transaction waits for.
pub(crate) fn no_wait() -> TxnOptions {
    TxnOptions::new().on_conflict(OnConflict::NoWait)
}

/// Wounds with this priority.
pub(crate) fn wound(priority: Priority) -> TxnOptions {
    TxnOptions::new()
        .on_conflict(OnConflict::Wound)
        .priority(priority)
}
