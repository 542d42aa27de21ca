//! Many rows in one call: all of them or none, whatever their order, size and number.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lockstone::{Database, Error, LockMode, OnConflict, Options, Outcome, Table, TxnOptions};
use lockstone_testkit::SimDisk;
use machine::{fresh, no_wait, open, ports, small_and_real, smallest};

fn rows_of(db: &Database, table: &Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let snapshot = db.begin();
    let rows = snapshot.range(table, ..).unwrap().map(Result::unwrap);
    rows.map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

/// A permutation of the numbers below a million and three, which is prime.
fn shuffled(rows: u32) -> impl Iterator<Item = u32> {
    const PRIME: u64 = 1_000_003;
    (0..PRIME)
        .map(|n| (n * 314_159 % PRIME) as u32)
        .filter(move |n| *n < rows)
}

#[test]
fn rows_come_in_any_order_and_the_last_value_of_a_key_counts() {
    let (_dir, db) = fresh();
    for (name, rows) in [("few", 40), ("many", 3000)] {
        let t = db.create_table(name).unwrap();
        let mut txn = db.begin();
        txn.put_many(&t, Vec::<(&str, &str)>::new()).unwrap();
        let first = shuffled(rows).map(|n| (n.to_be_bytes(), format!("old {n}")));
        let again = shuffled(rows).filter(|n| n % 3 == 0);
        let again = again.map(|n| (n.to_be_bytes(), format!("new {n}")));
        txn.put_many(&t, first.chain(again)).unwrap();
        txn.commit().unwrap();
        let expected: Vec<_> = (0..rows)
            .map(|n| {
                let age = if n % 3 == 0 { "new" } else { "old" };
                (n.to_be_bytes().to_vec(), format!("{age} {n}").into_bytes())
            })
            .collect();
        assert_eq!(rows_of(&db, &t), expected);
    }
}

/// Against a map: single writes, many at once, reads and ranges, savepoints and rollbacks in one transaction.
#[test]
fn own_writes_are_seen_and_undone_whoever_wrote_them() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let key = |n: u32| n.to_be_bytes().to_vec();
    let mut txn = db.begin();
    let mut saved = Vec::new();
    let mut draw = 12_345_u32;
    for round in 0..300_u32 {
        draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (start, rows) = (draw >> 16 & 0x1ff, draw >> 8 & 0xff);
        match draw >> 28 {
            0..5 => {
                let rows = (0..rows).map(|n| (start + n * 7 % 200, format!("{round}.{n}")));
                txn.put_many(&t, rows.clone().map(|(n, value)| (key(n), value)))
                    .unwrap();
                model.extend(rows.map(|(n, value)| (key(n), value.into_bytes())));
            }
            5..9 => {
                txn.put(&t, key(start), format!("{round}")).unwrap();
                model.insert(key(start), format!("{round}").into_bytes());
            }
            9..11 => {
                let there = txn.delete(&t, key(start)).unwrap();
                assert_eq!(there, model.remove(&key(start)).is_some());
            }
            11 | 12 => saved.push((txn.savepoint(), model.clone())),
            _ => {
                if let Some((savepoint, before)) = saved.pop() {
                    txn.rollback_to(savepoint).unwrap();
                    model = before;
                }
            }
        }
        let found = txn.get(&t, key(start)).unwrap();
        assert_eq!(found.as_deref(), model.get(&key(start)).map(Vec::as_slice));
        let (low, high) = (key(start), key(start + rows));
        let range = txn.range(&t, low.as_slice()..high.as_slice()).unwrap();
        let found: Vec<_> = range.map(Result::unwrap).collect();
        let want: Vec<_> = model.range(low..high).collect();
        assert_eq!(found.len(), want.len(), "round {round}");
        for ((key, value), (want_key, want)) in found.iter().zip(want) {
            assert!(**key == **want_key && **value == **want, "round {round}");
        }
        let last = txn.range(&t, ..).unwrap().next_back();
        assert_eq!(
            last.map(|row| row.unwrap().0.to_vec()),
            model.keys().next_back().cloned()
        );
    }
    assert!(model.len() > 100);
    txn.commit().unwrap();
    let model: Vec<_> = model.into_iter().collect();
    assert_eq!(rows_of(&db, &t), model);
    db.close().unwrap();
    let db = small_and_real().open(dir.path().join("db")).unwrap();
    assert_eq!(rows_of(&db, &db.table("t").unwrap()), model);
}

#[test]
fn a_call_that_meets_a_locked_row_leaves_neither_lock_nor_write() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut other = db.begin();
    other
        .lock(&t, 777_u32.to_be_bytes(), LockMode::Share)
        .unwrap();
    let timeout = Some(Duration::from_millis(30));
    for policy in [OnConflict::NoWait, OnConflict::Wait { timeout }] {
        let mut txn = db.begin_with(TxnOptions::new().on_conflict(policy));
        let held = 5_u32.to_be_bytes();
        txn.put(&t, held, "before").unwrap();
        let token = txn.fencing_token(&t, held);
        let rows = (0..1000_u32).map(|n| (n.to_be_bytes(), "many"));
        let error = txn.put_many(&t, rows.clone()).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(error.outcome(), Outcome::Unchanged);
        assert_eq!(txn.get(&t, held).unwrap().unwrap(), b"before");
        assert_eq!(txn.fencing_token(&t, held), token);
        for n in (0..1000_u32).filter(|n| *n != 5) {
            assert_eq!(txn.holds(&t, n.to_be_bytes()), None, "{n}");
        }
        let info = db
            .transactions()
            .into_iter()
            .find(|info| info.txn == txn.id())
            .unwrap();
        assert_eq!((info.locks, txn.range(&t, ..).unwrap().count()), (1, 1));
        // The transaction goes on, without the row that is locked.
        txn.put_many(&t, rows.filter(|(key, _)| *key != 777_u32.to_be_bytes()))
            .unwrap();
        assert_eq!(txn.range(&t, ..).unwrap().count(), 999);
        drop(txn);
    }
    assert_eq!(rows_of(&db, &t), []);
}

#[test]
fn a_row_that_cannot_be_written_stops_the_call_before_it_begins() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let error = txn.put_many(&t, [("a", "1"), ("", "2")]).unwrap_err();
    assert!(matches!(error, Error::KeyEmpty));
    let long = "k".repeat(5000);
    let error = txn.put_many(&t, [("a", "1"), (&long, "2")]).unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { bytes: 5000, .. }));
    assert_eq!(
        (txn.get(&t, "a").unwrap(), txn.holds(&t, "a")),
        (None, None)
    );
    let (_dir, stranger) = fresh();
    let foreign = stranger.create_table("t").unwrap();
    let error = txn.put_many(&foreign, [("a", "1")]).unwrap_err();
    assert!(matches!(error, Error::ForeignTable { .. }));
    txn.put_many(&t, [("b", "1")]).unwrap();
    txn.commit().unwrap();
}

#[test]
fn two_that_want_the_same_rows_in_opposite_orders_do_not_deadlock() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    thread::scope(|scope| {
        for side in 0..2_u32 {
            let (db, t) = (&db, &t);
            scope.spawn(move || {
                for round in 0..40_u32 {
                    let mut txn = db.begin();
                    let rows = (0..500_u32).map(|n| if side == 0 { n } else { 499 - n });
                    txn.put_many(
                        t,
                        rows.map(|n| (n.to_be_bytes(), format!("{side}.{round}"))),
                    )
                    .unwrap();
                    txn.commit().unwrap();
                }
            });
        }
    });
    assert_eq!(db.stats().deadlocks, 0);
    let rows = rows_of(&db, &t);
    assert!(rows.len() == 500 && rows.iter().all(|(_, value)| *value == rows[0].1));
}

#[test]
fn a_batch_has_one_token_and_whoever_holds_a_row_later_a_larger_one() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let early = txn.lock(&t, "b", LockMode::Update).unwrap();
    txn.put_many(&t, (0..200_u8).map(|n| ([n], "v"))).unwrap();
    let token = txn.fencing_token(&t, [7]).unwrap();
    assert_eq!(txn.fencing_token(&t, [199]), Some(token));
    // What was held in a stronger mode before keeps its token, and its mode.
    assert_eq!(txn.fencing_token(&t, "b"), Some(early));
    assert_eq!(txn.holds(&t, "b"), Some(LockMode::Update));
    assert!(early < token);
    let listed: Vec<_> = db
        .locks()
        .filter(|lock| lock.as_ref().unwrap().token == Some(token))
        .collect();
    assert_eq!(listed.len(), 199);
    let savepoint = txn.savepoint();
    let stronger = txn.lock(&t, [7], LockMode::Update).unwrap();
    assert!(token < stronger);
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(txn.fencing_token(&t, [7]), Some(token));
    txn.put_many(&t, [([7], "w")]).unwrap();
    assert_eq!(txn.fencing_token(&t, [7]), Some(token));
    txn.commit().unwrap();
    let later = db.begin().lock(&t, [7], LockMode::Share).unwrap();
    assert!(later > stronger);
}

#[test]
fn what_is_larger_than_a_frame_or_a_piece_is_written_too() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let value = |n: u32| vec![n as u8; [3, 5000, 100_000, 700_000][n as usize % 4]];
    let mut txn = db.begin();
    // Longer than the largest frame of this log, in both orders.
    txn.put_many(&t, (0..6_u32).map(|n| (n.to_be_bytes(), value(n))))
        .unwrap();
    txn.put_many(&t, (6..9_u32).rev().map(|n| (n.to_be_bytes(), value(n))))
        .unwrap();
    let long_keys = (0..100_u8).map(|n| (vec![n.max(1); 4000], "long key"));
    txn.put_many(&t, long_keys).unwrap();
    txn.commit().unwrap();
    let check = |db: &Database| {
        let rows = rows_of(db, &db.table("t").unwrap());
        assert_eq!(rows.len(), 9 + 99);
        for (n, (key, found)) in (0..9_u32).zip(&rows) {
            assert_eq!((key, found), (&n.to_be_bytes().to_vec(), &value(n)));
        }
    };
    check(&db);
    db.close().unwrap();
    check(&small_and_real().open(dir.path().join("db")).unwrap());
}

#[test]
fn two_hundred_thousand_rows_are_there_and_free_after_a_commit_a_rollback_and_a_reopen() {
    const ROWS: u32 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().segment_bytes(8 << 20).log_bytes(128 << 20);
    let db = options().open(dir.path().join("db")).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let savepoint = txn.savepoint();
    txn.put_many(&t, shuffled(ROWS).map(|n| (n.to_be_bytes(), "undone")))
        .unwrap();
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(txn.get(&t, 9_u32.to_be_bytes()).unwrap(), None);
    txn.put_many(&t, shuffled(ROWS).map(|n| (n.to_be_bytes(), n.to_string())))
        .unwrap();
    let info = db
        .transactions()
        .into_iter()
        .find(|info| info.txn == txn.id())
        .unwrap();
    assert_eq!(info.locks, u64::from(ROWS));
    txn.commit().unwrap();
    assert_eq!(db.locks().count(), 0);
    let mut next = db.begin_with(no_wait());
    next.put_many(&t, (0..ROWS).map(|n| (n.to_be_bytes(), "free")))
        .unwrap();
    drop(next);
    db.close().unwrap();
    let db = options().open(dir.path().join("db")).unwrap();
    let rows = rows_of(&db, &db.table("t").unwrap());
    assert_eq!(rows.len(), ROWS as usize);
    let good = |(n, (key, value)): (u32, &(Vec<u8>, Vec<u8>))| {
        *key == n.to_be_bytes() && *value == n.to_string().into_bytes()
    };
    assert!((0..ROWS).zip(&rows).all(good));
}

#[test]
fn what_just_fits_or_not_into_a_shared_piece_is_read_back_from_the_log_in_any_order() {
    // What stands in front of a row in the log counts too: a row apart by these six bytes alone once came back
    // without them when rows were put in order, and the log could not be read.
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let sizes = || (4060..4110_u32).rev();
    let mut txn = db.begin();
    txn.put_many(&t, sizes().map(|n| (n.to_be_bytes(), vec![7; n as usize])))
        .unwrap();
    txn.commit().unwrap();
    let db = open(&disk.after_kill(disk.io_count())).unwrap();
    assert_eq!(db.recovery_report().rows_replayed, 50);
    let rows = rows_of(&db, &db.table("t").unwrap());
    assert!(
        rows.iter()
            .map(|(_, value)| value.len() as u32)
            .eq(sizes().rev())
    );
}

#[test]
fn recovery_replays_it_and_tells_how_much_was_in_flight() {
    let disk = SimDisk::new(1);
    // Memory has room for all of it.
    let options = smallest().log_bytes(4 << 20);
    let db = options.open_with(ports(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    let rows = |value| (0..500_u32).map(move |n| (n.to_be_bytes(), value));
    let mut open_one = db.begin_with(no_wait().label("in flight"));
    open_one.put(&t, "single", "x").unwrap();
    let high = (1000..1400_u32).map(|n| (n.to_be_bytes(), "never"));
    open_one.put_many(&t, high.clone()).unwrap();
    // Once more: written twice, locked once.
    open_one.put_many(&t, high).unwrap();
    let mut txn = db.begin_with(no_wait());
    txn.put_many(&t, rows("undone")).unwrap();
    let savepoint = txn.savepoint();
    txn.put_many(&t, rows("undone too")).unwrap();
    txn.rollback_to(savepoint).unwrap();
    txn.put_many(&t, rows("kept")).unwrap();
    txn.put(&t, 3_u32.to_be_bytes(), "single").unwrap();
    txn.delete(&t, 4_u32.to_be_bytes()).unwrap();
    txn.commit().unwrap();

    let db = open(&disk.after_kill(disk.io_count())).unwrap();
    let report = db.recovery_report();
    assert_eq!((report.committed, report.rows_replayed), (1, 500));
    let [in_flight] = &report.in_flight[..] else {
        unreachable!()
    };
    assert_eq!((in_flight.locks, in_flight.writes), (401, 801));
    let rows = rows_of(&db, &db.table("t").unwrap());
    assert_eq!(rows.len(), 499);
    assert!(rows.iter().all(|(key, value)| match key[3] {
        3 if key[2] == 0 => value == b"single",
        _ => value == b"kept",
    }));
    assert_eq!(db.locks().count(), 0);
}

#[test]
fn whoever_waits_for_one_row_of_many_gets_it_when_they_are_free() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let db = Arc::new(db);
    let mut many = db.begin();
    many.put_many(&t, (0..3000_u32).map(|n| (n.to_be_bytes(), "many")))
        .unwrap();
    let waiters: Vec<_> = [0, 1234, 2999_u32]
        .map(|n| {
            let (db, t) = (db.clone(), t.clone());
            thread::spawn(move || {
                let mut txn = db.begin();
                let old = txn.get_for(&t, n.to_be_bytes(), LockMode::Update).unwrap();
                txn.put(&t, n.to_be_bytes(), "one").unwrap();
                txn.commit().unwrap();
                old.unwrap()
            })
        })
        .into();
    while db.stats().lock_waits < 3 {
        thread::yield_now();
    }
    many.commit().unwrap();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), b"many");
    }
}
