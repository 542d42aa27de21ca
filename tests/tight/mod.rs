//! A database with the smallest memory for what is not committed that there can be: a few hundred rows fill it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panicking"
)]

use std::sync::Arc;

use lockstone::{Database, Options};
use lockstone_testkit::SimDisk;
use tempfile::TempDir;

use crate::machine::ports;

/// The smallest budget that there is.
pub(crate) const BUDGET: u64 = 256 << 10;

pub(crate) fn options() -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(16 << 20)
        .memory_bytes(4 << 20)
        .provisional_bytes(BUDGET)
}

pub(crate) fn real() -> (TempDir, Database) {
    let dir = tempfile::tempdir().unwrap();
    let db = options().open(dir.path().join("db")).unwrap();
    (dir, db)
}

pub(crate) fn simulated(disk: &Arc<SimDisk>) -> Database {
    options().open_with(ports(disk)).unwrap()
}

/// Not in the order of their numbers.
pub(crate) fn key(number: u32) -> String {
    format!("{:08x}", number.wrapping_mul(0x9e37_79b1))
}

/// How many files of spills there are.
pub(crate) fn spills(disk: &SimDisk) -> usize {
    let names = disk.names();
    let spills = names.iter().filter(|name| name.starts_with("spill-"));
    spills.count()
}
