//! Row locks as a user meets them: refused, in line, timed out, deadlocked, listed, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::time::Duration;

use lockstone::{Error, LockMode, OnConflict, Outcome, Priority, Transaction, TxnOptions};
use lockstone_testkit::SimDisk;
use machine::{fresh, no_wait, open};

#[test]
fn a_locked_row_refuses_who_does_not_wait_and_names_the_holder() {
    let (_dir, db) = fresh();
    let t = db.create_table("accounts").unwrap();
    let mut holder = db.begin_with(
        TxnOptions::new()
            .label("nightly")
            .priority(Priority::high(7)),
    );
    let token = holder.lock(&t, "alice", LockMode::Update).unwrap();
    assert_eq!(holder.fencing_token(&t, "alice"), Some(token));
    let mut other = db.begin_with(no_wait());
    let error = other.put(&t, "alice", "1").unwrap_err();
    assert!(matches!(error, Error::WouldBlock { .. }) && error.is_retryable());
    let text = error.to_string();
    for part in [
        "alice",
        "accounts",
        "nightly",
        "high 7",
        &holder.id().to_string(),
    ] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    // The call left no trace, and the transaction goes on.
    other.put(&t, "bob", "1").unwrap();
    drop(holder);
    other.put(&t, "alice", "2").unwrap();
    assert!(other.fencing_token(&t, "alice").unwrap() > token);
    other.commit().unwrap();
}

#[test]
fn a_waiter_is_granted_when_the_holder_ends_and_reads_the_newest() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin();
    holder.put(&t, "a", "1").unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut txn = db.begin();
            let seen = txn.get_for(&t, "a", LockMode::Update).unwrap().unwrap();
            txn.put(&t, "a", [&*seen, b"2"].concat()).unwrap();
            txn.commit().unwrap();
        });
        while db
            .locks()
            .filter(|lock| lock.as_ref().unwrap().state == lockstone::LockInfoState::Waiting)
            .count()
            == 0
        {
            std::thread::yield_now();
        }
        holder.commit().unwrap();
        waiter.join().unwrap();
    });
    assert_eq!(db.begin().get(&t, "a").unwrap().unwrap(), b"12");
}

#[test]
fn a_timeout_leaves_the_transaction_as_it_was() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin();
    holder.lock(&t, "a", LockMode::Share).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let wait = OnConflict::Wait {
            timeout: Some(timeout),
        };
        let mut txn = db.begin_with(TxnOptions::new().on_conflict(wait));
        txn.put(&t, "b", "1").unwrap();
        let error = txn.put(&t, "a", "1").unwrap_err();
        assert!(matches!(error, Error::LockTimeout { .. }), "{error}");
        assert!(txn.holds(&t, "a").is_none());
        txn.commit().unwrap();
    }
    assert_eq!(db.stats().lock_timeouts, 2);
}

#[test]
fn a_deadlock_ends_with_one_victim_whose_locks_are_free() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let barrier = std::sync::Barrier::new(2);
    let run = |first: &str, second: &str| -> Result<(), Error> {
        let mut txn = db.begin();
        txn.put(&t, first, "1")?;
        barrier.wait();
        let result = txn.put(&t, second, "1");
        if let Err(error) = &result {
            assert!(matches!(error, Error::Deadlock { .. }), "{error}");
            assert_eq!(error.outcome(), Outcome::RolledBack);
            assert!(txn.holds(&t, first).is_none());
            // Each later call repeats the first error.
            assert!(matches!(txn.get(&t, first), Err(Error::Deadlock { .. })));
            assert!(matches!(txn.put(&t, "z", "1"), Err(Error::Deadlock { .. })));
        }
        result?;
        txn.commit().map(|_| ())
    };
    let outcomes = std::thread::scope(|scope| {
        let one = scope.spawn(|| run("a", "b"));
        let two = scope.spawn(|| run("b", "a"));
        [one.join().unwrap(), two.join().unwrap()]
    });
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_err()).count(),
        1,
        "{outcomes:?}"
    );
    assert_eq!((db.locks().count(), db.stats().deadlocks), (0, 1));
}

#[test]
fn range_for_locks_exactly_what_it_yields() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| {
        ["a", "b", "c", "d"]
            .iter()
            .try_for_each(|key| txn.put(&t, key, "0"))
    })
    .unwrap();
    let mut txn = db.begin();
    let mut cursor = txn.range_for(&t, "a".."d", LockMode::Update).unwrap();
    assert!(cursor.put("too early").is_err());
    assert_eq!(cursor.next().unwrap().unwrap().0, b"a");
    cursor.put("1").unwrap();
    assert_eq!(cursor.next_back().unwrap().unwrap().0, b"c");
    cursor.delete().unwrap();
    assert_eq!(txn.holds(&t, "a"), Some(LockMode::Update));
    assert_eq!(txn.holds(&t, "b"), None);
    assert_eq!(txn.holds(&t, "c"), Some(LockMode::Update));
    assert_eq!(txn.holds(&t, "d"), None);
    txn.commit().unwrap();
    let rows: Vec<_> = db
        .begin()
        .range(&t, ..)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].1, b"1");
}

#[test]
fn a_row_that_vanishes_while_range_for_waits_is_neither_yielded_nor_kept_locked() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| ["a", "b"].iter().try_for_each(|key| txn.put(&t, key, "0")))
        .unwrap();
    let mut deleter = db.begin();
    deleter.delete(&t, "a").unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut txn = db.begin();
            let keys: Vec<_> = txn
                .range_for(&t, .., LockMode::Share)
                .unwrap()
                .map(|row| row.unwrap().0.to_vec())
                .collect();
            assert_eq!(keys, [b"b"]);
            assert_eq!(
                (txn.holds(&t, "a"), txn.holds(&t, "b")),
                (None, Some(LockMode::Share))
            );
        });
        while db.stats().lock_waits == 0 {
            std::thread::yield_now();
        }
        deleter.commit().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn listings_name_transactions_and_locks() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn: Transaction = db.begin_with(TxnOptions::new().label("report"));
    txn.lock(&t, "a", LockMode::Share).unwrap();
    txn.put(&t, "b", "1").unwrap();
    let locks: Vec<_> = db.locks().map(Result::unwrap).collect();
    assert_eq!(locks.len(), 2);
    assert!(
        locks
            .iter()
            .all(|lock| lock.txn == txn.id() && lock.label.as_deref() == Some("report"))
    );
    assert!(
        locks
            .iter()
            .all(|lock| lock.token.is_some() && &*lock.table == "t")
    );
    let listed = db.transactions();
    assert_eq!((listed.len(), listed[0].locks, listed[0].writes), (1, 2, 1));
    assert!(
        listed[0].priority.unwrap().is_high(),
        "an explicit locker has the fixed high value"
    );
    let json = serde_json::to_value(&locks[0]).unwrap();
    assert_eq!(json["key"], "a");
    txn.abort();
    assert_eq!((db.locks().count(), db.transactions().len()), (0, 0));
    assert_eq!(
        db.tables()
            .iter()
            .map(|table| table.name().to_owned())
            .collect::<Vec<_>>(),
        ["t"]
    );
    assert_eq!(db.info().boot_epoch, db.recovery_report().boot_epoch);
}

/// A row lock is a record on disk: whoever reads what a crash left finds each that was taken before.
#[test]
fn a_lock_is_in_the_log_when_the_call_that_takes_it_returns() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    for key in ["a", "b", "c"] {
        txn.get_for(&t, key, LockMode::Update).unwrap();
    }
    // What was appended before it is on the device with it.
    db.transact(|other| other.put(&t, "other", "x")).unwrap();
    let db = open(&disk.after_kill(disk.io_count())).unwrap();
    let locks: Vec<_> = db
        .recovery_report()
        .in_flight
        .iter()
        .map(|of| of.locks)
        .collect();
    assert_eq!(locks, [3]);
}

#[test]
fn the_token_of_a_row_that_was_read_for_update_is_there_when_it_is_asked_for() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut first = db.begin();
    let before = first.lock(&t, "a", LockMode::Update).unwrap();
    first.commit().unwrap();
    let mut txn = db.begin();
    txn.get_for(&t, "a", LockMode::Share).unwrap();
    let token = txn.fencing_token(&t, "a").unwrap();
    assert!(token > before);
    assert_eq!(txn.fencing_token(&t, "a"), Some(token));
    let listed = db.locks().next().unwrap().unwrap();
    assert_eq!(listed.token, Some(token));
    // Stronger: another one. Put off first, then told by the write's record.
    txn.get_for(&t, "a", LockMode::Update).unwrap();
    txn.put(&t, "a", "1").unwrap();
    let stronger = txn.fencing_token(&t, "a").unwrap();
    assert!(stronger > token);
    txn.put(&t, "a", "2").unwrap();
    assert_eq!(txn.lock(&t, "a", LockMode::Update).unwrap(), stronger);
}

/// The record of a row that a cursor has yielded is held back; no fencing token was shown for it while the cursor was there.
#[test]
fn the_token_of_a_row_that_a_cursor_holds_is_there_when_it_is_asked_for() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put_many(&t, ["a", "b", "c"].map(|key| (key, "1")))
        .unwrap();
    txn.commit().unwrap();
    let mut txn = db.begin();
    assert_eq!(txn.fencing_token(&t, "a"), None);
    let mut cursor = txn.range_for(&t, .., LockMode::Update).unwrap();
    cursor.next().unwrap().unwrap();
    let token = txn.fencing_token(&t, "a").unwrap();
    assert_eq!(txn.fencing_token(&t, "b"), None);
    assert_eq!(db.locks().next().unwrap().unwrap().token, Some(token));
    txn.put(&t, "a", "2").unwrap();
    assert_eq!(txn.fencing_token(&t, "a"), Some(token));
    txn.commit().unwrap();
}

/// Locks whose records are held back were counted at a rollback, and again when these were appended.
#[test]
fn a_rollback_counts_no_lock_twice() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put_many(&t, ["a", "b", "c"].map(|key| (key, "1")))
        .unwrap();
    txn.commit().unwrap();
    let mut txn = db.begin();
    let mut cursor = txn.range_for(&t, .., LockMode::Update).unwrap();
    assert_eq!(cursor.by_ref().count(), 3);
    let savepoint = txn.savepoint();
    txn.rollback_to(savepoint).unwrap();
    txn.put(&t, "a", "2").unwrap();
    assert_eq!(db.transactions()[0].locks, 3);
    let savepoint = txn.savepoint();
    txn.put(&t, "d", "2").unwrap();
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(db.transactions()[0].locks, 3);
}

/// K5: what a transaction of many locks leaves goes by itself, though nobody locks anything after it.
#[test]
fn locks_that_an_ended_transaction_left_are_swept_by_themselves() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(TxnOptions::new().durability(lockstone::Durability::Buffered));
    for n in 0..5_000_u32 {
        txn.lock(&t, n.to_be_bytes(), LockMode::Update).unwrap();
    }
    assert_eq!(db.stats().lock_entries, 5_000);
    txn.commit().unwrap();
    let begun = std::time::Instant::now();
    while db.stats().lock_entries > 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", db.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
}
