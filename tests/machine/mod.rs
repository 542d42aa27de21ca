//! The simulated machine that several tests run on.
#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;

use lockstone::{Database, Error, OnConflict, Options, Ports, TxnOptions};
use lockstone_testkit::{SeededEntropy, SimClock, SimDisk};

/// The smallest log and memory that are allowed.
pub(crate) fn smallest() -> Options {
    Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(1 << 20)
        .memory_bytes(1 << 20)
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
