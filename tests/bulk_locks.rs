//! Many locks at once: in the order given, every row of a range, by a cursor whose records go together; and work that is
//! undone as a whole.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for clocks itself"
)]

mod machine;

use std::sync::Arc;
use std::thread;

use lockstone::{
    Database, Error, LockFilter, LockInfo, LockInfoState, LockMode, OnConflict, Savepoint, Table,
    Transaction, TxnOptions,
};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{fresh, no_wait, open};

fn filled(db: &Database, rows: u32) -> Table {
    let t = db.create_table("t").unwrap();
    let fill = |txn: &mut Transaction| txn.put_many(&t, (0..rows).map(|n| (key(n), "v")));
    db.transact(fill).unwrap();
    t
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn held(db: &Database) -> usize {
    db.locks().count()
}

fn while_waiting(db: &Database, then: impl FnOnce()) {
    let waits = |lock: LockInfo| lock.state == LockInfoState::Waiting;
    while !db.locks().map(Result::unwrap).any(waits) {
        thread::yield_now();
    }
    then();
}

#[test]
fn keys_are_locked_in_the_order_given() {
    let (_dir, db) = fresh();
    let t = filled(&db, 10);
    let mut holder = db.begin();
    holder.lock(&t, key(5), LockMode::Share).unwrap();
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut txn = db.begin();
            let keys = [9, 1, 5, 0].map(key);
            txn.lock_many(&t, keys, LockMode::Update).unwrap();
            assert!(
                keys.iter()
                    .all(|key| txn.holds(&t, key) == Some(LockMode::Update))
            );
            let tokens = keys.map(|key| txn.fencing_token(&t, key).unwrap());
            assert!(tokens.is_sorted());
        });
        while_waiting(&db, || {
            let mut other = db.begin_with(no_wait());
            for (number, is_free) in [(9, false), (1, false), (0, true)] {
                let locked = other.lock(&t, key(number), LockMode::Share);
                assert_eq!(locked.is_ok(), is_free, "{number}");
            }
            drop(other);
            holder.abort();
        });
    });
    assert_eq!(held(&db), 0);
}

#[test]
fn all_keys_are_locked_or_none() {
    let (_dir, db) = fresh();
    let t = filled(&db, 1000);
    let mut holder = db.begin();
    holder.lock(&t, key(900), LockMode::Share).unwrap();
    let mut txn = db.begin_with(no_wait());
    txn.lock(&t, key(3), LockMode::Share).unwrap();
    let token = txn.fencing_token(&t, key(3));
    let error = txn.lock_many(&t, (0..1000).map(key), LockMode::Update);
    assert!(matches!(error, Err(Error::WouldBlock { .. })), "{error:?}");
    let error = txn.lock_many(&t, [&b"a"[..], b""], LockMode::Update);
    assert!(matches!(error, Err(Error::KeyEmpty)), "{error:?}");
    let error = txn.lock_rows(&t, .., LockMode::Update);
    assert!(matches!(error, Err(Error::WouldBlock { .. })), "{error:?}");
    assert_eq!((held(&db), txn.fencing_token(&t, key(3))), (2, token));
    assert_eq!(txn.holds(&t, key(3)), Some(LockMode::Share));
    // One row was in the way; the others are had at once.
    let keys = (0..900).map(key);
    txn.lock_many(&t, keys, LockMode::Update).unwrap();
    assert_eq!(held(&db), 901);
    let counted = db.transactions().iter().map(|txn| txn.locks).sum::<u64>();
    assert_eq!(counted, 901);
}

#[test]
fn every_row_of_a_range_is_locked_and_no_other() {
    let (_dir, db) = fresh();
    let t = filled(&db, 5000);
    let u = db.create_table("u").unwrap();
    let mut txn = db.begin();
    txn.delete(&t, key(10)).unwrap();
    txn.put(&t, "own", "1").unwrap();
    txn.put(&u, "other table", "1").unwrap();
    let before = held(&db);
    let rows = txn
        .lock_rows(&t, key(7)..key(4000), LockMode::Update)
        .unwrap();
    assert_eq!(rows, 4000 - 7 - 1);
    // The deleted row was locked before.
    assert_eq!(held(&db) - before, 3992);
    for (number, mode) in [
        (6, None),
        (7, Some(LockMode::Update)),
        (3999, Some(LockMode::Update)),
        (4000, None),
    ] {
        assert_eq!(txn.holds(&t, key(number)), mode, "{number}");
    }
    assert_eq!(
        txn.lock_rows(&t, key(4000).., LockMode::Share).unwrap(),
        1001
    );
    assert_eq!(txn.holds(&t, "own"), Some(LockMode::NoKeyUpdate));
    assert_eq!(
        txn.lock_rows(&t, key(9)..key(9), LockMode::Share).unwrap(),
        0
    );
    assert_eq!(txn.lock_rows(&u, .., LockMode::Update).unwrap(), 1);
    assert!(txn.fencing_token(&t, key(7)) < txn.fencing_token(&t, key(3999)));
    txn.commit().unwrap();
    assert_eq!(held(&db), 0);
}

#[test]
fn a_row_that_vanishes_while_a_range_is_waited_for_is_not_kept_locked() {
    let (_dir, db) = fresh();
    let t = filled(&db, 100);
    let mut deleter = db.begin();
    deleter.delete(&t, key(50)).unwrap();
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut txn = db.begin();
            txn.lock(&t, key(51), LockMode::KeyShare).unwrap();
            assert_eq!(txn.lock_rows(&t, .., LockMode::Share).unwrap(), 99);
            assert_eq!(txn.holds(&t, key(50)), None);
            assert_eq!(txn.holds(&t, key(51)), Some(LockMode::Share));
            assert_eq!(db.locks_of(LockFilter::new().txn(txn.id())).count(), 99);
            assert!(txn.fencing_token(&t, key(99)).is_some());
        });
        while_waiting(&db, || assert!(deleter.commit().is_ok()));
    });
    assert_eq!(held(&db), 0);
}

#[test]
fn locked_rows_are_passed_over_if_the_policy_says_so() {
    let (_dir, db) = fresh();
    let t = filled(&db, 3000);
    let mut holder = db.begin();
    holder
        .lock_many(&t, [0, 77, 2999].map(key), LockMode::Update)
        .unwrap();
    let mut txn = db.begin_with(no_wait());
    let skips = txn.on_conflict(OnConflict::SkipLocked);
    assert_eq!(skips.lock_rows(&t, .., LockMode::Share).unwrap(), 2997);
    assert_eq!((held(&db), db.stats().skipped_rows), (3000, 3));
    assert_eq!(
        (txn.holds(&t, key(77)), txn.holds(&t, key(78))),
        (None, Some(LockMode::Share))
    );
    drop((txn, holder));
    // Of a table that another has alone every row is locked.
    let mut holder = db.begin();
    holder.lock_table(&t).unwrap();
    let mut txn = db.begin_with(no_wait());
    let skips = txn.on_conflict(OnConflict::SkipLocked);
    assert_eq!(skips.lock_rows(&t, .., LockMode::Share).unwrap(), 0);
    let skips = txn.on_conflict(OnConflict::SkipLocked);
    let mut cursor = skips.range_for(&t, .., LockMode::Share).unwrap();
    assert!(cursor.next().is_none());
}

#[test]
fn nested_work_stays_if_it_succeeds_and_is_undone_if_it_fails() {
    let (_dir, db) = fresh();
    let t = filled(&db, 2);
    let mut txn = db.begin_with(no_wait());
    txn.lock(&t, key(0), LockMode::Share).unwrap();
    let inner: Result<u32, Error> = txn.nested(|txn| {
        txn.put(&t, "a", "1")?;
        let failed: Result<(), Error> = txn.nested(|txn| {
            txn.put(&t, "a", "2")?;
            txn.lock(&t, key(0), LockMode::Update)?;
            txn.put(&t, "b", "2")?;
            Err(Error::KeyEmpty)
        });
        assert!(matches!(failed, Err(Error::KeyEmpty)));
        Ok(7)
    });
    assert_eq!(inner.unwrap(), 7);
    assert_eq!(txn.get(&t, "a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(txn.get(&t, "b").unwrap(), None);
    assert_eq!(txn.holds(&t, key(0)), Some(LockMode::Share));
    assert_eq!(txn.holds(&t, "b"), None);
    // An error that ends the transaction comes out as it is.
    let mut stronger = db.begin_with(TxnOptions::new().on_conflict(OnConflict::Wound));
    let died: Result<(), Error> = stronger.nested(|stronger| {
        stronger.put(&t, "c", "1")?;
        stronger.put(&t, "a", "1")
    });
    assert!(matches!(died, Err(Error::Conflict { .. })), "{died:?}");
    assert!(matches!(stronger.get(&t, "c"), Err(Error::Conflict { .. })));
    txn.commit().unwrap();
}

const DEEP: u32 = 10_000;

fn nest(txn: &mut Transaction, t: &Table, depth: u32) -> Result<(), Error> {
    if depth == DEEP {
        return Err(Error::KeyEmpty);
    }
    txn.nested(|txn| {
        txn.put(t, key(depth), "1")?;
        nest(txn, t, depth + 1)
    })
}

#[test]
fn savepoints_may_be_ten_thousand_deep() {
    let (_dir, db) = fresh();
    let t = filled(&db, 1);
    let mut txn = db.begin();
    let savepoints: Vec<Savepoint> = (0..DEEP)
        .map(|depth| {
            let savepoint = txn.savepoint();
            txn.put(&t, "k", key(depth)).unwrap();
            if depth % 2 == 0 {
                txn.lock(&t, key(depth), LockMode::Update).unwrap();
            }
            savepoint
        })
        .collect();
    assert_eq!(db.transactions()[0].writes, DEEP.into());
    for (depth, savepoint) in savepoints.iter().enumerate().rev() {
        txn.rollback_to(*savepoint).unwrap();
        let below = (depth as u32).checked_sub(1).map(key);
        let found = txn.get(&t, "k").unwrap();
        assert_eq!(found.as_deref(), below.as_ref().map(|key| &key[..]));
    }
    assert_eq!((held(&db), db.transactions()[0].writes), (0, 0));
    txn.rollback_to(savepoints[0]).unwrap();
    assert!(matches!(
        txn.rollback_to(savepoints[1]),
        Err(Error::InvalidSavepoint)
    ));
    drop(txn);

    let deep = thread::Builder::new().stack_size(256 << 20);
    let (db, t) = (db.clone(), t.clone());
    let nested = deep.spawn(move || {
        let mut txn = db.begin();
        assert!(nest(&mut txn, &t, 0).is_err());
        assert_eq!((db.locks().count(), db.transactions()[0].writes), (0, 0));
        txn.commit().unwrap();
    });
    nested.unwrap().join().unwrap();
}

fn in_flight(disk: &Arc<SimDisk>) -> Vec<(u64, u64)> {
    let cut = disk.after_crash(disk.io_count(), &Survivors::All);
    let db = open(&cut).unwrap();
    let report = db.recovery_report();
    let counts = report.in_flight.iter().map(|txn| (txn.locks, txn.writes));
    counts.collect()
}

/// What a cursor has locked is in the log when it is left; at most 256 locks wait before.
/// A cursor that is forgotten logs nothing itself; its locks are in the log, with their tokens, before the next call answers.
#[test]
fn the_lock_of_a_forgotten_cursor_has_its_token_when_it_is_asked_for_again() {
    let (_dir, db) = fresh();
    let t = filled(&db, 2);
    let mut txn = db.begin();
    let mut cursor = txn.range_for(&t, .., LockMode::Update).unwrap();
    assert!(cursor.next().unwrap().is_ok());
    std::mem::forget(cursor);
    let token = txn.lock(&t, key(0), LockMode::Share).unwrap();
    assert_eq!(txn.fencing_token(&t, key(0)), Some(token));
    txn.put(&t, key(1), "1").unwrap();
    txn.commit().unwrap();
}

#[test]
fn what_a_cursor_locked_is_in_the_log_when_it_is_left() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = filled(&db, 1000);
    let beside = db.create_table("beside").unwrap();
    let durable = |db: &Database| {
        let mut marker = db.begin();
        marker.put(&beside, "marker", "1").unwrap();
        marker.commit().unwrap();
    };
    let mut txn = db.begin_with(no_wait().label("cursor"));
    let mut cursor = txn.range_for(&t, ..key(999), LockMode::Update).unwrap();
    assert_eq!(cursor.by_ref().take(600).count(), 600);
    durable(&db);
    // Two records of 256 are there, and the rest waits.
    assert_eq!(in_flight(&disk), [(512, 0)]);
    assert_eq!(cursor.by_ref().take(10).count(), 10);
    drop(cursor);
    durable(&db);
    assert_eq!(in_flight(&disk), [(610, 0)]);
    let token = |number| txn.fencing_token(&t, key(number)).unwrap();
    assert!(token(0) == token(255) && token(255) < token(256) && token(511) < token(609));
    assert_eq!(db.transactions()[0].locks, 610);

    // A cursor that is out of use and not dropped: the transaction's next call is the end of waiting.
    let mut cursor = txn
        .range_for(&t, key(700)..key(705), LockMode::Share)
        .unwrap();
    assert_eq!(cursor.by_ref().count(), 5);
    txn.put(&t, "after", "1").unwrap();
    durable(&db);
    assert_eq!(in_flight(&disk), [(616, 1)]);

    // A write through the cursor comes behind the locks.
    let mut cursor = txn
        .range_for(&t, key(800)..key(999), LockMode::Share)
        .unwrap();
    cursor.next().unwrap().unwrap();
    cursor.next_back().unwrap().unwrap();
    cursor.put("new").unwrap();
    durable(&db);
    assert_eq!(in_flight(&disk), [(618, 2)]);

    // What is undone before it was said is never said.
    let savepoint = txn.savepoint();
    let mut cursor = txn
        .range_for(&t, key(900)..key(950), LockMode::Share)
        .unwrap();
    assert_eq!(cursor.by_ref().count(), 50);
    std::mem::forget(cursor);
    txn.rollback_to(savepoint).unwrap();
    durable(&db);
    assert_eq!(in_flight(&disk), [(618, 2)]);
    assert_eq!((db.transactions()[0].locks, held(&db)), (618, 618));
    txn.commit().unwrap();
    assert_eq!(in_flight(&disk), []);
}

#[test]
fn many_rows_locked_at_once_are_one_record_and_undone_by_a_rollback() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    // As many as memory has room for: what is spilled and locked again counts twice.
    let t = filled(&db, 2000);
    let mut txn = db.begin_with(no_wait());
    txn.lock(&t, key(1), LockMode::Share).unwrap();
    let savepoint = txn.savepoint();
    let end = db.stats().log_bytes;
    assert_eq!(txn.lock_rows(&t, .., LockMode::Update).unwrap(), 2000);
    let grown = db.stats().log_bytes - end;
    assert!(grown < 2000 * 12, "{grown} bytes for keys of four");
    let flush = |key: &str| {
        let mut marker = db.begin();
        marker.put(&t, key, "1").unwrap();
        marker.commit().unwrap();
    };
    flush("m1");
    assert_eq!(in_flight(&disk), [(2000, 0)]);
    txn.rollback_to(savepoint).unwrap();
    flush("m2");
    assert_eq!((in_flight(&disk), held(&db)), (vec![(1, 0)], 1));
    assert_eq!(txn.holds(&t, key(1)), Some(LockMode::Share));
    txn.lock_many(&t, (0..700).map(key), LockMode::Update)
        .unwrap();
    flush("m3");
    assert_eq!(in_flight(&disk), [(700, 0)]);
}

/// Two cursors in opposite directions, through each other, with writers beside them: each yields rows that are there, and
/// what it yields stays as it was.
#[test]
fn cursors_beside_writers_yield_what_is_there() {
    let (_dir, db) = fresh();
    let t = filled(&db, 400);
    thread::scope(|threads| {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for number in 0..2_u32 {
            let (db, t, stop) = (&db, &t, stop.clone());
            threads.spawn(move || {
                let mut round = number;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    round = round.wrapping_mul(31).wrapping_add(17);
                    let row = key(round % 400);
                    db.transact(|txn| match round % 3 {
                        0 => txn.delete(t, row).map(drop),
                        _ => txn.put(t, row, "w"),
                    })
                    .unwrap();
                }
            });
        }
        for round in 0..40 {
            let mut txn = db.begin();
            let mut cursor = txn.range_for(&t, .., LockMode::Share).unwrap();
            let mut rows = Vec::new();
            while let Some(row) = if round % 2 == 0 {
                cursor.next()
            } else {
                cursor.next_back()
            } {
                match row {
                    Ok(row) => rows.push(row),
                    Err(Error::Deadlock { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            drop(cursor);
            if txn.get(&t, key(0)).is_err() {
                continue;
            }
            for (key, value) in &rows {
                assert_eq!(txn.get(&t, key).unwrap().as_ref(), Some(value));
                assert_eq!(txn.holds(&t, key), Some(LockMode::Share));
            }
            let held = db.locks_of(LockFilter::new().txn(txn.id())).count();
            assert_eq!(held, rows.len(), "and no others are held");
            txn.commit().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
