//! Ranges, tables and resources as a user locks them: no phantoms, no starvation, and the examples that the systems give which
//! have such locks.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lockstone::{
    Database, Durability, Error, LockInfoState, LockKind, LockMode, OnConflict, Outcome,
    ResourceMode, TxnOptions, prefix,
};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{fresh, no_wait, open};

fn would_block<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::WouldBlock { .. }))
}

/// How many lock requests have waited, which tells that one more does now.
fn wait_for_waits(db: &Database, waits: u64) {
    while db.stats().lock_waits < waits {
        thread::yield_now();
    }
}

#[test]
fn nobody_inserts_into_a_locked_range_and_no_range_is_locked_over_an_insert() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut reader = db.begin_with(no_wait());
    let token = reader.lock_range(&t, "b".."m", LockMode::KeyShare).unwrap();
    assert_eq!(reader.range(&t, "b".."m").unwrap().count(), 0);
    let mut writer = db.begin_with(no_wait());
    assert!(would_block(writer.put(&t, "c", "1")));
    assert!(would_block(writer.insert_new(&t, "c", "1")));
    assert!(would_block(writer.delete(&t, "c")));
    assert!(would_block(writer.put_many(&t, [("a", "1"), ("c", "1")])));
    // Who does not write meets the matrix of row modes.
    writer.lock(&t, "c", LockMode::NoKeyUpdate).unwrap();
    writer.put(&t, "a", "1").unwrap();
    writer.put(&t, "m", "1").unwrap();
    assert!(would_block(reader.lock_range(&t, .., LockMode::Share)));
    assert!(would_block(reader.lock_range(
        &t,
        "m"..="m",
        LockMode::KeyShare
    )));
    assert_eq!(reader.range(&t, "b".."m").unwrap().count(), 0);
    // What is held covers what lies in it, with its token.
    let inner = reader.lock_range(&t, "c".."d", LockMode::KeyShare).unwrap();
    assert_eq!(inner, token);
    assert_eq!(reader.lock(&t, "d", LockMode::KeyShare).unwrap(), token);
    assert_eq!(reader.holds(&t, "d"), Some(LockMode::KeyShare));
    assert_eq!(reader.holds(&t, "m"), None);
    writer.commit().unwrap();
    let whole = reader.lock_range(&t, .., LockMode::Update).unwrap();
    assert!(whole > token);
    reader.put(&t, "c", "2").unwrap();
    assert_eq!(reader.fencing_token(&t, "c"), Some(whole));
    reader.commit().unwrap();
    assert_eq!(db.begin().range(&t, ..).unwrap().count(), 3);
}

#[test]
fn a_writer_waits_for_a_range_and_a_range_for_writers() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut auditor = db.begin();
    auditor
        .lock_range(&t, prefix("acc/"), LockMode::Share)
        .unwrap();
    let total = |db: &Database| db.begin().range(&t, prefix("acc/")).unwrap().count();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut txn = db.begin();
            txn.put(&t, "acc/new", "1").unwrap();
            // Behind the writer now: the next range waits for it.
            txn
        });
        wait_for_waits(&db, 1);
        assert_eq!(total(&db), 0);
        auditor.commit().unwrap();
        let writer = writer.join().unwrap();
        let next = scope.spawn(|| {
            let mut txn = db.begin();
            txn.lock_range(&t, prefix("acc/"), LockMode::Share).unwrap();
            txn.range(&t, prefix("acc/")).unwrap().count()
        });
        wait_for_waits(&db, 2);
        let listed: Vec<_> = db.locks().map(Result::unwrap).collect();
        let range = listed.iter().find(|lock| lock.kind == LockKind::Range);
        let range = range.unwrap();
        assert_eq!(range.state, LockInfoState::Waiting);
        assert_eq!(range.key.as_deref(), Some("acc/..acc0"));
        assert_eq!(&*range.table, "t");
        writer.commit().unwrap();
        assert_eq!(next.join().unwrap(), 1);
    });
}

#[test]
fn a_range_stands_beside_a_hundred_thousand_rows() {
    const ROWS: u32 = 100_000;
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let buffered = || no_wait().durability(Durability::Buffered);
    let mut many = db.begin_with(buffered());
    let rows = (0..ROWS).map(|row| (row.to_be_bytes(), "1"));
    many.put_many(&t, rows).unwrap();
    let mut ranger = db.begin_with(buffered());
    let from = |row: u32| row.to_be_bytes().to_vec();
    assert!(would_block(ranger.lock_range(
        &t,
        from(ROWS - 1)..,
        LockMode::KeyShare
    )));
    let token = ranger
        .lock_range(&t, from(ROWS).., LockMode::Update)
        .unwrap();
    // While there is a range, rows are locked as before.
    many.put(&t, from(5), "2").unwrap();
    assert!(would_block(many.put(&t, from(ROWS), "2")));
    for row in ROWS..ROWS + 1_000 {
        ranger.put(&t, from(row), "3").unwrap();
    }
    assert_eq!(ranger.fencing_token(&t, from(ROWS)), Some(token));
    many.commit().unwrap();
    let whole = ranger.lock_range(&t, .., LockMode::Update).unwrap();
    assert!(whole > token);
    ranger.commit().unwrap();
    assert!(!db.locks().any(|lock| lock.unwrap().kind == LockKind::Range));
    let mut last = db.begin_with(no_wait());
    last.put(&t, from(7), "4").unwrap();
}

#[test]
fn a_range_goes_with_its_savepoint_and_a_table_does_not() {
    let (_dir, db) = fresh();
    let (t, u) = (db.create_table("t").unwrap(), db.create_table("u").unwrap());
    let mut txn = db.begin_with(no_wait());
    txn.lock_range(&t, "a".."c", LockMode::Share).unwrap();
    let mark = txn.savepoint();
    txn.lock_range(&t, "a".."z", LockMode::Update).unwrap();
    let token = txn.lock_table(&u).unwrap();
    txn.rollback_to(mark).unwrap();
    let mut other = db.begin_with(no_wait());
    other.put(&t, "d", "1").unwrap();
    other.lock(&t, "b", LockMode::Share).unwrap();
    assert!(would_block(other.put(&t, "b", "1")));
    assert!(would_block(other.put(&u, "a", "1")));
    assert_eq!(txn.lock_table(&u).unwrap(), token);
    drop(txn);
    other.put(&u, "a", "1").unwrap();
    other.put(&t, "b", "1").unwrap();
    other.commit().unwrap();
}

/// NuoDB's example: a raise for everyone in a department beside a new employee must not break the budget. Whoever has the
/// table alone sees all that earlier writers committed, and nobody writes beside it.
#[test]
fn salaries_stay_within_the_budget() {
    const BUDGET: u64 = 10_000;
    let (_dir, db) = fresh();
    let t = db.create_table("salaries").unwrap();
    let sum = |txn: &lockstone::Transaction| -> u64 {
        let rows = txn.range(&t, ..).unwrap();
        let salary = |value: &[u8]| u64::from_be_bytes(value.try_into().unwrap());
        rows.map(|row| salary(&row.unwrap().1)).sum()
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (db, t, sum, over) = (&db, &t, &sum, &over);
            scope.spawn(move || {
                for round in 0..40_u64 {
                    let mut txn = db.begin();
                    txn.lock_table(t).unwrap();
                    let before = sum(&txn);
                    if (worker + round) % 4 == 0 {
                        let rows: Vec<_> = txn.range(t, ..).unwrap().map(Result::unwrap).collect();
                        let raised =
                            |value: &[u8]| u64::from_be_bytes(value.try_into().unwrap()) * 11 / 10;
                        let after: u64 = rows.iter().map(|(_, value)| raised(value)).sum();
                        if after <= BUDGET {
                            for (key, value) in rows {
                                txn.put(t, key, raised(&value).to_be_bytes()).unwrap();
                            }
                        }
                    } else if before + 100 <= BUDGET {
                        let id = (worker * 1_000 + round).to_be_bytes();
                        txn.put(t, id, 100_u64.to_be_bytes()).unwrap();
                    }
                    txn.commit().unwrap();
                    if sum(&db.begin()) > BUDGET {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(!over.load(Ordering::Relaxed));
    assert!(sum(&db.begin()) > BUDGET / 2, "the budget was in reach");
}

#[test]
fn a_locked_table_drains_its_writers_and_stops_no_reader() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut writer = db.begin();
    writer.put(&t, "a", "1").unwrap();
    // The "dummy update" of NuoDB's page: nothing is locked but the table's sharing.
    let mut idle = db.begin();
    drop(idle.range_for(&t, "x".."x", LockMode::Update).unwrap());
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            let mut txn = db.begin();
            txn.lock_table(&t).unwrap();
            assert_eq!(txn.get(&t, "a").unwrap().unwrap(), b"1");
            assert_eq!(txn.get(&t, "b").unwrap().unwrap(), b"2");
            txn.put(&t, "c", "3").unwrap();
            txn.commit().unwrap();
        });
        wait_for_waits(&db, 1);
        let mut late = db.begin_with(no_wait());
        assert!(would_block(late.put(&t, "z", "1")));
        assert!(would_block(
            late.on_conflict(OnConflict::NoWait).lock_table(&t)
        ));
        let skips = OnConflict::SkipLocked;
        assert_eq!(
            late.on_conflict(skips)
                .get_for(&t, "a", LockMode::Share)
                .unwrap(),
            None
        );
        assert_eq!(db.snapshot().range(&t, ..).unwrap().count(), 0);
        let kinds: Vec<_> = db
            .locks()
            .map(Result::unwrap)
            .filter(|lock| lock.kind == LockKind::Table)
            .map(|lock| (lock.mode, lock.state))
            .collect();
        let (held, waits) = (LockInfoState::Granted, LockInfoState::Waiting);
        assert_eq!(
            kinds,
            [
                (LockMode::Share, held),
                (LockMode::Share, held),
                (LockMode::Update, waits)
            ]
        );
        // Whoever shares it already goes on.
        writer.put(&t, "b", "2").unwrap();
        writer.commit().unwrap();
        assert_eq!(db.snapshot().range(&t, ..).unwrap().count(), 2);
        idle.abort();
        alone.join().unwrap();
    });
    assert_eq!(db.begin().range(&t, ..).unwrap().count(), 3);
    assert!(!db.locks().any(|lock| lock.unwrap().kind == LockKind::Table));
}

/// L7: however many come and share the table, who wants it alone is served behind those who came before.
#[test]
fn a_stream_of_sharers_starves_nobody() {
    const SHARERS: u64 = 6;
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let (stop, shared) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for sharer in 0..SHARERS {
            let (db, t, stop, shared) = (&db, &t, &stop, &shared);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let buffered = TxnOptions::new().durability(Durability::Buffered);
                    let mut txn = db.begin_with(buffered);
                    txn.put(t, sharer.to_be_bytes(), "1").unwrap();
                    shared.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    txn.commit().unwrap();
                }
            });
        }
        for _ in 0..50 {
            let before = shared.load(Ordering::SeqCst);
            while shared.load(Ordering::SeqCst) < before + SHARERS {
                thread::yield_now();
            }
            let mut txn = db.begin();
            let asked = shared.load(Ordering::SeqCst);
            txn.lock_table(&t).unwrap();
            // Those who had the table, and those who were about to say so.
            let passed = shared.load(Ordering::SeqCst) - asked;
            txn.commit().unwrap();
            assert!(passed <= 200 * SHARERS, "{passed} went past");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// YTsaurus: an exclusive lock for one master, shared ones for workers, and shared ones with a key that exclude each other only
/// where the key is the same.
#[test]
fn resources_are_exclusive_shared_or_shared_by_key() {
    let (_dir, db) = fresh();
    let [mut first, mut second, mut third] = [(); 3].map(|()| db.begin_with(no_wait()));
    let key = |key: &str| ResourceMode::SharedKey(key.as_bytes().to_vec());
    let oldest = first
        .lock_resource("//master", ResourceMode::Exclusive)
        .unwrap();
    for mode in [ResourceMode::Exclusive, ResourceMode::Shared, key("k")] {
        let error = second.lock_resource("//master", mode).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unchanged);
        assert!(error.to_string().contains("resource `//master`"), "{error}");
    }
    // Another path is another resource, whatever it begins with.
    second
        .lock_resource("//master/x", ResourceMode::Exclusive)
        .unwrap();
    second
        .lock_resource("//workers", ResourceMode::Shared)
        .unwrap();
    third
        .lock_resource("//workers", ResourceMode::Shared)
        .unwrap();
    first.lock_resource("//workers", key("one")).unwrap();
    second.lock_resource("//workers", key("two")).unwrap();
    // Nothing of the refused call is left: not the share of the path either.
    let (mut fourth, mut fifth) = (db.begin_with(no_wait()), db.begin_with(no_wait()));
    assert!(would_block(fourth.lock_resource("//workers", key("one"))));
    assert!(would_block(
        fifth.lock_resource("//workers", ResourceMode::Exclusive)
    ));
    for txn in [first, second, third] {
        txn.commit().unwrap();
    }
    let token = fifth
        .lock_resource("//workers", ResourceMode::Exclusive)
        .unwrap();
    assert!(token > oldest);
    fourth.lock_resource("//master", key("")).unwrap();
    assert!(would_block(fifth.lock_resource("//master", key(""))));
    fifth.lock_resource("//master", key("k")).unwrap();
    let listed: Vec<_> = db.locks().map(Result::unwrap).collect();
    assert!(listed.iter().all(|lock| lock.kind == LockKind::Resource));
    let shown: Vec<_> = listed
        .iter()
        .filter_map(|lock| lock.key.as_deref())
        .collect();
    for name in ["//workers", "//master", "//master: ", "//master: k"] {
        assert!(shown.contains(&name), "{shown:?} lack {name:?}");
    }
}

/// Ranges and tables in flight are counted by the next open, and hold nothing.
#[test]
fn wide_locks_in_flight_are_told_and_void_after_a_crash() {
    let disk = SimDisk::new(1);
    let crashed = {
        let db = open(&disk).unwrap();
        let (t, u) = (db.create_table("t").unwrap(), db.create_table("u").unwrap());
        let mut txn = db.begin_with(no_wait().label("wide"));
        txn.lock_range(&t, "a".."c", LockMode::Share).unwrap();
        let mark = txn.savepoint();
        txn.lock_range(&t, .., LockMode::Update).unwrap();
        txn.lock_table(&u).unwrap();
        txn.rollback_to(mark).unwrap();
        txn.lock_resource("path", ResourceMode::Exclusive).unwrap();
        // Its records are on the device with the next commit.
        let mut other = db.begin_with(no_wait());
        other.put(&t, "z", "1").unwrap();
        other.commit().unwrap();
        disk.after_crash(disk.io_count(), &Survivors::All)
    };
    let db = open(&crashed).unwrap();
    let report = db.recovery_report();
    let wide = report
        .in_flight
        .iter()
        .find(|txn| txn.label.as_deref() == Some("wide"));
    let wide = wide.unwrap();
    assert_eq!((wide.locks, wide.ranges, wide.tables), (1, 1, 1));
    assert_eq!(db.locks().count(), 0);
    let mut txn = db.begin_with(no_wait());
    for table in db.tables() {
        txn.lock_table(&table).unwrap();
    }
    txn.lock_resource("path", ResourceMode::Exclusive).unwrap();
    txn.commit().unwrap();
}

/// What no key lies in locks nothing, and is no error: whatever its bounds are.
#[test]
fn an_empty_range_locks_nothing() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.lock_range(&t, "p".."m", LockMode::Update).unwrap();
    txn.lock_range(&t, "a".."a", LockMode::Update).unwrap();
    txn.lock_range(&t, "p"..="m", LockMode::Update).unwrap();
    assert_eq!(db.locks().count(), 0);
    txn.put(&t, "n", "1").unwrap();
    txn.commit().unwrap();
}
