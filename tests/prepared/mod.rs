//! What tests of prepared transactions ask.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panicking"
)]

use std::sync::Arc;

use lockstone::{Database, Error, LockMode, Table};
use lockstone_testkit::{SimDisk, Survivors};

use crate::machine::no_wait;

/// Everything there is to lose, lost.
pub(crate) fn crashed(disk: &SimDisk) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &Survivors::None)
}

pub(crate) fn get(db: &Database, t: &Table, key: &str) -> Option<Vec<u8>> {
    let value = db.snapshot().get(t, key).unwrap();
    value.map(Vec::from)
}

/// Whether somebody else is kept from the row in this mode.
pub(crate) fn is_locked(db: &Database, t: &Table, key: &str, mode: LockMode) -> bool {
    match db.begin_with(no_wait()).lock(t, key, mode) {
        Ok(_) => false,
        Err(Error::WouldBlock { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn gids(db: &Database) -> Vec<String> {
    db.prepared().into_iter().map(|info| info.gid).collect()
}

/// Every lock that is held: what, in which mode, by whom, with which token.
pub(crate) fn listed(db: &Database) -> Vec<String> {
    let all = db.locks().map(Result::unwrap).map(|lock| {
        let (table, key, txn) = (lock.table, lock.key, lock.txn);
        format!(
            "{table:?} {key:?} {:?} {} {txn} {:?}",
            lock.kind, lock.mode, lock.token
        )
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}
