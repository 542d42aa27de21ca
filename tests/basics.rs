//! What a user does first: open, write, read, lock, undo, close, open again, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

use std::time::Duration;

use lockstone::{
    Database, Durability, Error, LockMode, OnConflict, Options, Outcome, Priority, Savepoint,
    Transaction, TxnOptions,
};
use tempfile::TempDir;

fn small() -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(8 << 20)
        .memory_bytes(4 << 20)
}

fn fresh() -> (TempDir, Database) {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    (dir, db)
}

fn no_wait() -> TxnOptions {
    TxnOptions::new().on_conflict(OnConflict::NoWait)
}

#[test]
fn a_commit_is_seen_by_others_and_after_a_reopen() {
    let (dir, db) = fresh();
    let accounts = db.create_table("accounts").unwrap();
    let mut txn = db.begin();
    txn.put(&accounts, "alice", "100").unwrap();
    assert_eq!(db.begin().get(&accounts, "alice").unwrap(), None);
    let lsn = txn.commit().unwrap();
    assert_eq!(db.begin().get(&accounts, "alice").unwrap().unwrap(), b"100");
    assert!(db.snapshot().lsn() >= lsn);
    db.close().unwrap();

    let db = small().open(dir.path().join("db")).unwrap();
    assert!(db.recovery_report().clean_shutdown);
    let accounts = db.table("accounts").unwrap();
    assert_eq!(db.begin().get(&accounts, "alice").unwrap().unwrap(), b"100");
}

#[test]
fn own_writes_are_seen_and_undone_by_a_rollback() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "1").unwrap();
    let sp = txn.savepoint();
    txn.put(&t, "a", "2").unwrap();
    txn.put(&t, "b", "3").unwrap();
    assert!(txn.delete(&t, "a").unwrap());
    assert_eq!(txn.get(&t, "a").unwrap(), None);
    assert_eq!(txn.holds(&t, "b"), Some(LockMode::NoKeyUpdate));
    txn.rollback_to(sp).unwrap();
    assert_eq!(txn.get(&t, "a").unwrap().unwrap(), b"1");
    assert_eq!(
        (txn.holds(&t, "a"), txn.holds(&t, "b")),
        (Some(LockMode::NoKeyUpdate), None)
    );
    txn.put(&t, "c", "4").unwrap();
    txn.rollback_to(sp).unwrap();
    assert_eq!(txn.holds(&t, "c"), None);
    txn.commit().unwrap();
    let rows: Vec<_> = db
        .begin()
        .range(&t, ..)
        .unwrap()
        .map(|row| row.unwrap().0.to_vec())
        .collect();
    assert_eq!(rows, [b"a"]);
}

#[test]
fn a_savepoint_that_is_dead_or_foreign_changes_nothing() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let outer = txn.savepoint();
    let inner = txn.savepoint();
    txn.put(&t, "a", "1").unwrap();
    txn.rollback_to(outer).unwrap();
    let foreign: Savepoint = db.begin().savepoint();
    for dead in [inner, foreign] {
        let error = txn.rollback_to(dead).unwrap_err();
        assert!(matches!(error, Error::InvalidSavepoint));
        assert_eq!(error.outcome(), Outcome::Unchanged);
    }
    txn.put(&t, "b", "2").unwrap();
    txn.commit().unwrap();
}

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
fn insert_new_and_delete_tell_whether_the_row_was_there() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    assert!(txn.insert_new(&t, "a", "1").unwrap());
    assert!(!txn.insert_new(&t, "a", "2").unwrap());
    assert!(!txn.delete(&t, "b").unwrap());
    assert_eq!(txn.holds(&t, "b"), Some(LockMode::Update));
    txn.commit().unwrap();
    let mut txn = db.begin();
    assert!(!txn.insert_new(&t, "a", "3").unwrap());
    assert!(txn.delete(&t, "a").unwrap());
    assert!(!txn.delete(&t, "a").unwrap());
    assert!(txn.insert_new(&t, "a", "4").unwrap());
    txn.commit().unwrap();
    assert_eq!(db.begin().get(&t, "a").unwrap().unwrap(), b"4");
}

#[test]
fn a_range_merges_own_writes_from_both_ends() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let other = db.create_table("other").unwrap();
    db.transact(|txn| -> lockstone::Result<()> {
        for key in ["b", "d", "f", "h"] {
            txn.put(&t, key, key)?;
        }
        txn.put(&other, "a", "not mine")
    })
    .unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "own").unwrap();
    txn.put(&t, "d", "own").unwrap();
    txn.delete(&t, "f").unwrap();
    txn.put(&t, "g", "own").unwrap();
    let keys =
        |rows: &mut dyn Iterator<Item = lockstone::Result<(lockstone::Key, lockstone::Value)>>| {
            rows.map(|row| String::from_utf8(row.unwrap().0.into()).unwrap())
                .collect::<String>()
        };
    assert_eq!(keys(&mut txn.range(&t, ..).unwrap()), "abdgh");
    assert_eq!(keys(&mut txn.range(&t, ..).unwrap().rev()), "hgdba");
    assert_eq!(keys(&mut txn.range(&t, "b".."g").unwrap()), "bd");
    assert_eq!(keys(&mut txn.range(&t, "b"..="g").unwrap().rev()), "gdb");
    assert_eq!(keys(&mut txn.range(&t, "x".."b").unwrap()), "");
    let mut both = txn.range(&t, ..).unwrap();
    let mut order = String::new();
    for turn in 0.. {
        let row = if turn % 2 == 0 {
            both.next()
        } else {
            both.next_back()
        };
        let Some(row) = row else { break };
        order.push(char::from(row.unwrap().0[0]));
    }
    assert_eq!(order, "ahbgd");
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
fn a_snapshot_stays_while_others_write_flush_and_merge() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "k", "old")).unwrap();
    let snapshot = db.snapshot();
    let big = vec![7u8; 100_000];
    for round in 0..200 {
        db.transact(|txn| {
            txn.put(&t, "k", format!("{round}"))?;
            txn.put(&t, format!("fill{}", round % 50), &big)
        })
        .unwrap();
    }
    assert!(db.stats().checkpoints > 2);
    let copy = snapshot.clone();
    drop(snapshot);
    assert_eq!(copy.get(&t, "k").unwrap().unwrap(), b"old");
    assert_eq!(copy.range(&t, ..).unwrap().count(), 1);
    assert_eq!(db.snapshot().get(&t, "k").unwrap().unwrap(), b"199");
    let value = db.snapshot().get(&t, "fill3").unwrap().unwrap();
    assert!(db.check().unwrap().is_clean());
    db.close().unwrap();
    assert_eq!(value, big[..], "a value outlives the database");
    assert!(matches!(copy.get(&t, "k"), Err(Error::Closed)));
    drop(dir);
}

#[test]
fn values_of_every_length_survive_a_reopen() {
    // Nothing is checkpointed while the files are copied.
    let roomy = || {
        Options::new()
            .segment_bytes(1 << 20)
            .log_bytes(64 << 20)
            .memory_bytes(256 << 20)
    };
    let dir = tempfile::tempdir().unwrap();
    let db = roomy().open(dir.path().join("db")).unwrap();
    let t = db.create_table("t").unwrap();
    let lengths = [
        0, 1, 4095, 4096, 100_000, 262_144, 300_000, 1_000_000, 3_000_000,
    ];
    let value = |len: usize| (0..len).map(|i| (i * 31 + len) as u8).collect::<Vec<_>>();
    for len in lengths {
        db.transact(|txn| txn.put(&t, format!("{len}"), value(len)))
            .unwrap();
    }
    // Without an orderly close: what the log holds is replayed.
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(dir.path().join("db")).unwrap() {
        let file = file.unwrap();
        // Spare segments come and go by themselves, and hold nothing.
        if !file.file_name().to_string_lossy().starts_with("wal-spare") {
            std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    let copy = roomy().open(copy).unwrap();
    assert_eq!(copy.recovery_report().committed, lengths.len() as u64);
    let t = copy.table("t").unwrap();
    for len in lengths {
        assert_eq!(
            copy.begin().get(&t, format!("{len}")).unwrap().unwrap(),
            value(len)[..],
            "{len} bytes"
        );
    }
    db.close().unwrap();
}

#[test]
fn a_transaction_without_writes_commits_at_what_it_read() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "1").unwrap();
    let lsn = txn.commit().unwrap();
    let reader = db.begin();
    reader.get(&t, "a").unwrap();
    assert_eq!(reader.commit().unwrap(), lsn);
    let mut locker = db.begin();
    locker.lock(&t, "a", LockMode::Update).unwrap();
    locker.get(&t, "a").unwrap();
    assert_eq!(locker.commit().unwrap(), lsn);
    assert_eq!(db.locks().count(), 0);
}

#[test]
fn a_buffered_commit_is_durable_soon_and_survives_a_close() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let buffered = TxnOptions::new().durability(Durability::Buffered);
    let mut txn = db.begin_with(buffered);
    txn.put(&t, "a", "1").unwrap();
    let lsn = txn.commit().unwrap();
    let begun = std::time::Instant::now();
    while db.stats().durable <= lsn {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "a buffered commit is flushed by itself"
        );
        std::thread::yield_now();
    }
    db.close().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let t = db.table("t").unwrap();
    assert!(db.begin().get(&t, "a").unwrap().is_some());
}

#[test]
fn transact_runs_again_what_may_succeed_then() {
    let (_dir, db) = fresh();
    let t = db.create_table("counter").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, t) = (&db, &t);
            scope.spawn(move || {
                for round in 0..50 {
                    let (first, second) = if (thread + round) % 2 == 0 {
                        ("a", "b")
                    } else {
                        ("b", "a")
                    };
                    db.transact(|txn| -> lockstone::Result<()> {
                        for key in [first, second] {
                            let value = txn.get_for(t, key, LockMode::Update)?;
                            let count = value
                                .map_or(0, |v| String::from_utf8_lossy(&v).parse::<u32>().unwrap());
                            txn.put(t, key, (count + 1).to_string())?;
                        }
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    for key in ["a", "b"] {
        assert_eq!(db.begin().get(&t, key).unwrap().unwrap(), b"200");
    }
    // An error that is the caller's own is returned at once, and nothing is left.
    let own: Result<(), Error> = db.transact(|txn| {
        txn.put(&t, "a", "lost")?;
        Err(Error::KeyEmpty)
    });
    assert!(matches!(own, Err(Error::KeyEmpty)));
    assert_eq!(db.begin().get(&t, "a").unwrap().unwrap(), b"200");
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

#[test]
fn a_transaction_larger_than_the_memory_budget_commits() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let row = vec![5u8; 60_000];
    for _ in 0..2 {
        let mut txn = db.begin();
        for i in 0..100 {
            txn.put(&t, format!("{i}"), &row).unwrap();
        }
        txn.commit().unwrap();
    }
    assert_eq!(db.begin().range(&t, ..).unwrap().count(), 100);
}
