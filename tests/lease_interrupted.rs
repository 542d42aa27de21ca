//! Leases beside what breaks off: a call in the middle of which the machine crashes, a close, a commit of nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;

use std::sync::Arc;
use std::time::Duration;

use lockstone::{Database, Error, LockMode, Options, TxnOptions};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{no_wait, ports, smallest};

const LEASE: Duration = Duration::from_secs(30);

fn leased() -> TxnOptions {
    no_wait().lease(LEASE)
}

fn options() -> Options {
    smallest().log_bytes(4 << 20)
}

fn open(disk: &Arc<SimDisk>) -> Database {
    options().open_with(ports(disk)).unwrap()
}

/// What a crash leaves now.
fn crashed(disk: &SimDisk) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &Survivors::None)
}

/// G4: a long value stands in several records. Those of one that the crash has cut off are no part of what the transaction writes
/// after it.
#[test]
fn a_value_that_a_crash_has_cut_off_is_no_part_of_the_next_one() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(leased());
    txn.lock(&t, "held", LockMode::Update).unwrap();
    let id = txn.id();
    let begun = disk.io_count();
    txn.put(&t, "long", vec![b'x'; 900 << 10]).unwrap();
    let ended = disk.io_count();
    let mut resumed = 0;
    for at in begun..ended {
        let disk = disk.after_crash(at, &Survivors::All);
        for ends in 0..3 {
            let disk = crashed(&disk);
            let db = open(&disk);
            let t = db.table("t").unwrap();
            let mut txn = db.resume(id).unwrap();
            resumed += 1;
            txn.put(&t, "short", "y").unwrap();
            match ends {
                0 => drop(txn.commit().unwrap()),
                1 => txn.prepare("gid").unwrap(),
                _ => drop(txn.detach()),
            }
            let db = open(&crashed(&disk));
            match ends {
                0 => {}
                1 => drop(db.commit_prepared("gid").unwrap()),
                _ => drop(db.resume(id).unwrap().commit().unwrap()),
            }
            let t = db.table("t").unwrap();
            let short = db.snapshot().get(&t, "short").unwrap();
            assert_eq!(short.as_deref(), Some(b"y".as_slice()), "crash at {at}");
        }
    }
    assert!(resumed > 9, "{resumed}");
}

/// A leased transaction that is detached lives on through a close, also if its records hold the log back.
#[test]
fn closing_keeps_who_is_detached_and_holds_the_log_back() {
    for chunks in [2, 6, 11] {
        let disk = SimDisk::new(1);
        let db = open(&disk);
        let t = db.create_table("t").unwrap();
        let mut txn = db.begin_with(leased());
        for chunk in 0..chunks {
            txn.put(&t, format!("{chunk}"), vec![b'x'; 300 << 10])
                .unwrap();
        }
        let id = txn.detach();
        db.close().unwrap();
        let db = open(&disk);
        let t = db.table("t").unwrap();
        let taken = db.begin_with(no_wait()).put(&t, "0", "mine");
        assert!(
            matches!(taken, Err(Error::WouldBlock { .. })),
            "{chunks}: {taken:?}"
        );
        db.resume(id).unwrap().commit().unwrap();
        let db = open(&crashed(&disk));
        let t = db.table("t").unwrap();
        for chunk in 0..chunks {
            let found = db.snapshot().get(&t, format!("{chunk}")).unwrap();
            assert_eq!(found.unwrap().len(), 300 << 10);
        }
    }
}

/// A commit that was told is an end, also of one that has only held locks.
#[test]
fn who_has_committed_nothing_but_locks_is_not_there_again() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(leased());
    txn.lock(&t, "held", LockMode::Update).unwrap();
    let id = txn.id();
    txn.commit().unwrap();
    let db = open(&crashed(&disk));
    let resumed = db.resume(id);
    assert!(
        matches!(resumed, Err(Error::UnknownTransaction { .. })),
        "{resumed:?}"
    );
    let t = db.table("t").unwrap();
    db.begin_with(no_wait())
        .lock(&t, "held", LockMode::Update)
        .unwrap();
}
