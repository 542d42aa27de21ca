//! Two-phase commit of what is in files (R2): RocksDB's WriteUnprepared RecoveryTest, prepared and rolled back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files itself"
)]

mod machine;
mod prepared;

use std::fs;
use std::sync::Arc;

use lockstone::{Database, Error, LockMode, Options, Table};
use lockstone_testkit::SimDisk;
use machine::{no_wait, ports};
use prepared::{crashed, get, gids, is_locked, listed};

fn tight() -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(16 << 20)
        .memory_bytes(4 << 20)
        .provisional_bytes(256 << 10)
}

fn simulated(disk: &Arc<SimDisk>) -> (Database, Table) {
    let db = tight().open_with(ports(disk)).unwrap();
    let t = db.create_table("t").unwrap();
    (db, t)
}

fn key(number: u32) -> String {
    format!("{:08x}", number.wrapping_mul(0x9e37_79b1))
}

fn spills(disk: &SimDisk) -> usize {
    let names = disk.names();
    names
        .iter()
        .filter(|name| name.starts_with("spill-"))
        .count()
}

/// WriteUnprepared RecoveryTest: locks and writes that are in files, in part rolled back.
fn prepare_spilled(db: &Database, t: &Table, gid: &str, from: u32) {
    let mut txn = db.begin_with(no_wait().label("large"));
    for number in 0..1_500 {
        txn.lock(t, key(from + number), LockMode::Share).unwrap();
    }
    txn.lock_range(t, "zz".."zzz", LockMode::Share).unwrap();
    for number in 1_400..1_700 {
        txn.put(t, key(from + number), vec![1; 700]).unwrap();
    }
    let mark = txn.savepoint();
    for number in 1_000..2_500 {
        txn.put(t, key(from + number), vec![2; 300]).unwrap();
    }
    txn.rollback_to(mark).unwrap();
    for number in 1_600..2_000 {
        txn.put(t, key(from + number), vec![3; 300]).unwrap();
    }
    txn.delete(t, key(from)).unwrap();
    txn.prepare(gid).unwrap();
}

fn is_after(db: &Database, t: &Table, from: u32) -> bool {
    let snapshot = db.snapshot();
    let found = |number| snapshot.get(t, key(from + number)).unwrap().map(Vec::from);
    if found(1_500).is_none() {
        assert!((1_000..2_500).all(|number| found(number).is_none()));
        return false;
    }
    assert!((1_400..1_600).all(|number| found(number) == Some(vec![1; 700])));
    assert!((1_600..2_000).all(|number| found(number) == Some(vec![3; 300])));
    assert!((2_000..2_500).all(|number| found(number).is_none()));
    true
}

#[test]
fn what_was_spilled_is_prepared_and_ends_after_crashes() {
    for commits in [false, true] {
        let disk = SimDisk::new(1);
        let (db, t) = simulated(&disk);
        prepare_spilled(&db, &t, "large", 0);
        assert!(db.stats().spills > 2);
        // S3: its spilled locks hold no log back, so a checkpoint frees what had said them.
        db.compact().unwrap();
        let before = listed(&db);
        assert_eq!(before.len(), 1 + 2_000);
        let disk = crashed(&disk);
        drop(db);
        let (db, t) = simulated(&disk);
        assert_eq!(listed(&db), before);
        assert!(is_locked(&db, &t, &key(3), LockMode::Update));
        assert!(!is_locked(&db, &t, &key(3), LockMode::Share));
        assert!(is_locked(&db, &t, &key(1_999), LockMode::Share));
        assert!(!is_locked(&db, &t, &key(2_100), LockMode::Update));
        assert!(is_locked(&db, &t, "zzy", LockMode::NoKeyUpdate));
        // A second crash, behind a checkpoint of the second life.
        db.compact().unwrap();
        let disk = crashed(&disk);
        drop(db);
        let (db, t) = simulated(&disk);
        assert_eq!(listed(&db), before);
        assert!(!is_after(&db, &t, 0));
        if commits {
            db.commit_prepared("large").unwrap();
        } else {
            db.abort_prepared("large").unwrap();
        }
        assert_eq!(is_after(&db, &t, 0), commits);
        assert_eq!(db.locks().count(), 0);
        assert_eq!(db.stats().provisional_bytes, 0);
        let disk = crashed(&disk);
        drop(db);
        let (db, t) = simulated(&disk);
        assert_eq!((gids(&db), is_after(&db, &t, 0)), (vec![], commits));
        db.compact().unwrap();
        assert_eq!(is_after(&db, &t, 0), commits);
        assert_eq!(spills(&disk), 0, "{:?}", disk.names());
        assert!(db.check().unwrap().is_clean());
    }
}

/// W4: what is prepared takes little memory and log, though there is room for more.
#[test]
fn many_writes_are_spilled_when_they_are_prepared() {
    let disk = SimDisk::new(1);
    let options = || tight().provisional_bytes(4 << 20).memory_bytes(16 << 20);
    let db = options().open_with(ports(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    txn.put(&t, "a", vec![1; 3 << 20]).unwrap();
    txn.prepare("small").unwrap();
    assert_eq!(db.stats().spills, 0);
    db.commit_prepared("small").unwrap();
    let mut txn = db.begin_with(no_wait());
    txn.put(&t, "a", vec![1; 3 << 20]).unwrap();
    txn.put(&t, "b", vec![1; 2 << 20]).unwrap();
    txn.prepare("large").unwrap();
    assert!(db.stats().spills > 0);
    assert_eq!(db.stats().provisional_bytes, 0);
    let disk = crashed(&disk);
    drop(db);
    let db = options().open_with(ports(&disk)).unwrap();
    db.commit_prepared("large").unwrap();
    let t = db.table("t").unwrap();
    assert_eq!(get(&db, &t, "b"), Some(vec![1; 2 << 20]));
}

/// R2: a file that is not there is missed, and nothing is changed for that.
#[test]
fn without_a_file_of_a_prepared_transaction_the_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = tight().open(&path).unwrap();
    let t = db.create_table("t").unwrap();
    prepare_spilled(&db, &t, "large", 0);
    db.close().unwrap();
    let files = || {
        let names = fs::read_dir(&path).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let all = files();
    let spilled = all
        .iter()
        .filter(|path| path.to_string_lossy().contains("spill-"));
    for file in spilled {
        let away = dir.path().join("away");
        fs::rename(file, &away).unwrap();
        let refused = tight().open(&path);
        let Err(Error::Corrupt { file: named, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(&named, file);
        fs::rename(&away, file).unwrap();
        assert_eq!(files(), all);
    }
    let db = tight().open(&path).unwrap();
    db.commit_prepared("large").unwrap();
    assert!(is_after(&db, &db.table("t").unwrap(), 0));
}
