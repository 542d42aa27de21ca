//! Scans of many rows: in constant memory, from both ends, through everything that rows can lie in.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads what the kernel says of the process"
)]

mod machine;

use lockstone::{Database, Range, Table};
use machine::{fresh, small_and_real};

const ROWS: u32 = 150_000;
const VALUE_BYTES: usize = 100;
/// A scan, with a compaction that may run beside it, may take this much, of rows that take five times as much.
const GROWTH_KIB_MAX: u64 = 3 << 10;

/// What the process has in memory that is no file's, in KiB.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn fill(db: &Database, t: &Table) {
    for batch in 0..ROWS / 10_000 {
        let mut txn = db.begin();
        // Interleaved, so that every run reaches over all of the table.
        let keys = (0..10_000).map(|i| i * (ROWS / 10_000) + batch);
        txn.put_many(t, keys.map(|key| (key.to_be_bytes(), [7; VALUE_BYTES])))
            .unwrap();
        txn.commit().unwrap();
    }
}

/// Takes all rows, every `n`th from the back; they are all there, once, in order.
fn walk(mut rows: Range<'_>, n: u32) {
    let (mut front, mut back) = (0, ROWS);
    for step in 1.. {
        let from_back = n > 0 && step % n == 0;
        let row = if from_back {
            rows.next_back()
        } else {
            rows.next()
        };
        let Some(row) = row else { break };
        let (key, value) = row.unwrap();
        let expected = if from_back {
            back -= 1;
            back
        } else {
            front += 1;
            front - 1
        };
        assert_eq!(*key, expected.to_be_bytes());
        assert_eq!(value.len(), VALUE_BYTES);
    }
    assert_eq!(front, back);
    assert!(rows.next().is_none() && rows.next_back().is_none());
}

#[test]
fn many_rows_are_walked_in_constant_memory() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    fill(&db, &t);
    // Opened anew: nothing of the load is left in memory.
    drop(t);
    db.close().unwrap();
    let db = small_and_real().open(dir.path().join("db")).unwrap();
    let t = db.table("t").unwrap();
    let walks = |db: &Database| {
        let (snapshot, txn) = (db.snapshot(), db.begin());
        // The first walk makes what every one needs.
        walk(snapshot.range(&t, ..).unwrap(), 0);
        let before = anonymous_kib();
        for n in [0, 1, 3] {
            walk(snapshot.range(&t, ..).unwrap(), n);
            walk(txn.range(&t, ..).unwrap(), n);
            let grown = anonymous_kib().saturating_sub(before);
            assert!(grown < GROWTH_KIB_MAX, "a scan took {grown} KiB");
        }
    };
    walks(&db);
    db.compact().unwrap();
    walks(&db);
}

#[test]
fn a_walk_meets_own_writes_and_what_a_rollback_brings_back() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    fill(&db, &t);
    let mut txn = db.begin();
    for key in 0..1_000_u32 {
        txn.delete(&t, key.to_be_bytes()).unwrap();
    }
    let savepoint = txn.savepoint();
    for key in (0..1_000_u32).step_by(2) {
        txn.put(&t, key.to_be_bytes(), [7; VALUE_BYTES]).unwrap();
    }
    txn.delete(&t, (ROWS - 1).to_be_bytes()).unwrap();
    let ends = |txn: &lockstone::Transaction| {
        let mut rows = txn.range(&t, ..).unwrap();
        let key = |row: Option<lockstone::Result<(lockstone::Key, lockstone::Value)>>| {
            u32::from_be_bytes(row.unwrap().unwrap().0[..].try_into().unwrap())
        };
        [key(rows.next()), key(rows.next()), key(rows.next_back())]
    };
    assert_eq!(ends(&txn), [0, 2, ROWS - 2]);
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(ends(&txn), [1_000, 1_001, ROWS - 1]);
    assert_eq!(txn.range(&t, ..1_000_u32.to_be_bytes()).unwrap().count(), 0);
    txn.abort();
    walk(db.begin().range(&t, ..).unwrap(), 5);
}
