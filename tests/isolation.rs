//! What each isolation level sees, what it refuses, and with which words.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts threads itself"
)]

mod machine;

use std::ops::ControlFlow;

use lockstone::{
    Database, Error, Isolation, LockMode, OnConflict, Outcome, Result, Table, Transaction,
    TxnOptions, prefix,
};
use machine::{fresh, small_and_real};

const MODES: [LockMode; 4] = [
    LockMode::KeyShare,
    LockMode::Share,
    LockMode::NoKeyUpdate,
    LockMode::Update,
];

fn begin(db: &Database, level: Isolation) -> Transaction {
    db.begin_with(TxnOptions::new().isolation(level))
}

fn snapshot(db: &Database) -> Transaction {
    begin(db, Isolation::Snapshot)
}

fn serializable(db: &Database) -> Transaction {
    begin(db, Isolation::Serializable)
}

/// Commits one put in a transaction of its own.
fn put(db: &Database, t: &Table, key: &str, value: &str) {
    db.transact::<_, Error>(|txn| txn.put(t, key, value))
        .unwrap();
}

fn delete(db: &Database, t: &Table, key: &str) {
    db.transact::<_, Error>(|txn| txn.delete(t, key)).unwrap();
}

fn with_rows(rows: &[(&str, &str)]) -> (tempfile::TempDir, Database, Table) {
    let (dir, db) = fresh();
    let t = db.create_table("people").unwrap();
    for (key, value) in rows {
        put(&db, &t, key, value);
    }
    (dir, db, t)
}

fn text(value: Option<lockstone::Value>) -> Option<String> {
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn keys(txn: &Transaction, t: &Table) -> Vec<String> {
    let rows = txn.range(t, ..).unwrap();
    rows.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap())
        .collect()
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::WriteConflict { .. }), "{error}");
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::RolledBack, true)
    );
}

#[track_caller]
fn assert_invalidated<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Transaction locks invalidated. Table: people, code: 2001"
    );
    assert!(matches!(&error, Error::LocksInvalidated { table } if *table == "people"));
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::RolledBack, true)
    );
}

#[test]
fn reads_are_of_the_moment_of_begin_and_own_writes_stand_over_them() {
    let (_dir, db, t) = with_rows(&[("a", "1"), ("b", "1"), ("c", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        put(&db, &t, "b", "1");
        let mut txn = begin(&db, level);
        assert_eq!(db.transactions()[0].isolation, level);
        put(&db, &t, "b", "2");
        put(&db, &t, "d", "2");
        delete(&db, &t, "c");
        assert_eq!(text(txn.get(&t, "b").unwrap()).as_deref(), Some("1"));
        assert_eq!(txn.get(&t, "d").unwrap(), None);
        let many = txn.multi_get(&t, ["c", "d", "b"]).unwrap();
        let many: Vec<_> = many.into_iter().map(text).collect();
        assert_eq!(many, [Some("1".to_owned()), None, Some("1".to_owned())]);
        txn.put(&t, "e", "own").unwrap();
        assert_eq!(keys(&txn, &t), ["a", "b", "c", "e"]);
        let backward = txn.range(&t, ..).unwrap().rev();
        assert_eq!(backward.count(), 4);
        // Its own begin, not that of its first read.
        assert_eq!(text(txn.get(&t, "e").unwrap()).as_deref(), Some("own"));
        drop(txn);
        put(&db, &t, "c", "1");
        delete(&db, &t, "d");
    }
    let read_committed = db.begin();
    put(&db, &t, "b", "3");
    assert_eq!(
        text(read_committed.get(&t, "b").unwrap()).as_deref(),
        Some("3")
    );
}

/// W7: what it sees is not compacted away, and is let go of at its end.
#[test]
fn what_a_transaction_sees_stays_through_checkpoints_and_compactions() {
    let (_dir, db, t) = with_rows(&[("a", "old"), ("b", "old")]);
    let before = db.stats().snapshots;
    let txn = snapshot(&db);
    let mut late = snapshot(&db);
    let mut reader = serializable(&db);
    reader.get(&t, "a").unwrap();
    reader.put(&t, "x", "1").unwrap();
    assert_eq!(db.stats().snapshots, before + 3);
    put(&db, &t, "a", "new");
    delete(&db, &t, "b");
    db.compact().unwrap();
    put(&db, &t, "a", "newer");
    db.compact().unwrap();
    assert_eq!(text(txn.get(&t, "a").unwrap()).as_deref(), Some("old"));
    assert_eq!(keys(&txn, &t), ["a", "b"]);
    // A change that lies in a run by now is one all the same, a removal too.
    assert_conflict(late.put(&t, "b", "1"));
    assert_invalidated(reader.commit());
    txn.commit().unwrap();
    drop(late);
    assert_eq!(db.stats().snapshots, before);
}

type Call = fn(&mut Transaction, &Table, LockMode) -> Result<()>;

/// Every call that locks the row `k`, by name; the first ones say nothing of what stands there, the last ones do.
const CALLS: [(&str, Call); 10] = [
    ("put", |txn, t, _| txn.put(t, "k", "own")),
    ("put_many", |txn, t, _| {
        txn.put_many(t, [("a", "own"), ("k", "own")])
    }),
    ("delete", |txn, t, _| txn.delete(t, "k").map(drop)),
    ("insert_new", |txn, t, _| {
        txn.insert_new(t, "k", "own").map(drop)
    }),
    ("lock", |txn, t, mode| txn.lock(t, "k", mode).map(drop)),
    ("get_for", |txn, t, mode| {
        txn.get_for(t, "k", mode).map(drop)
    }),
    ("lock_many", |txn, t, mode| {
        txn.lock_many(t, ["a", "k"], mode)
    }),
    ("lock_rows", |txn, t, mode| {
        txn.lock_rows(t, .., mode).map(drop)
    }),
    ("range_for", |txn, t, mode| {
        txn.range_for(t, "k"..="k", mode)?
            .try_for_each(|row| row.map(drop))
    }),
    ("range_for from behind", |txn, t, mode| {
        txn.range_for(t, .., mode)?
            .rev()
            .try_for_each(|row| row.map(drop))
    }),
];
/// How many of them are blind in a serializable transaction.
const BLIND: usize = 3;

#[test]
fn a_row_that_was_changed_since_cannot_be_locked_or_written() {
    let (_dir, db, t) = with_rows(&[("a", "1"), ("k", "1"), ("z", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        let blind = if level == Isolation::Snapshot {
            0
        } else {
            BLIND
        };
        for (index, (name, call)) in CALLS.into_iter().enumerate() {
            for mode in MODES {
                let mut txn = begin(&db, level);
                let mut unhurt = begin(&db, level);
                let mut later = begin(&db, level);
                put(&db, &t, "k", "2");
                assert!(unhurt.put(&t, "other", "1").is_ok());
                if index < blind {
                    call(&mut txn, &t, mode).unwrap_or_else(|error| panic!("{name}: {error}"));
                    continue;
                }
                txn.lock(&t, "z", LockMode::Update).unwrap();
                assert_conflict(call(&mut txn, &t, mode));
                // Rolled back before it was told, and each later call says so again.
                let mut other = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
                other.put(&t, "z", "1").unwrap();
                other.put(&t, "k", "1").unwrap();
                drop(other);
                assert_conflict(txn.get(&t, "a"));
                assert_conflict(txn.commit());
                // There and gone again is a change as well.
                delete(&db, &t, "k");
                put(&db, &t, "k", "1");
                assert_conflict(call(&mut later, &t, mode));
            }
        }
    }
    // And whoever begins now finds it unchanged.
    for (_, call) in CALLS {
        call(&mut snapshot(&db), &t, LockMode::Update).unwrap();
    }
}

/// At once, and not only at the row that was changed; what it covers then, nobody changes.
#[test]
fn a_wider_lock_is_refused_where_a_row_was_changed_and_else_covers_all() {
    type Widely = fn(&mut Transaction, &Table) -> Result<()>;
    let wide: [(&str, Widely); 3] = [
        ("a range", |txn, t| {
            txn.lock_range(t, .., LockMode::Update).map(drop)
        }),
        ("a table", |txn, t| txn.lock_table(t).map(drop)),
        ("both", |txn, t| {
            txn.lock_table(t)?;
            txn.lock_range(t, "j".."l", LockMode::Share).map(drop)
        }),
    ];
    let (_dir, db, t) = with_rows(&[("a", "1"), ("k", "1"), ("z", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        for (_, widely) in wide {
            let mut txn = begin(&db, level);
            put(&db, &t, "k", "2");
            assert_eq!(text(txn.get(&t, "k").unwrap()).as_deref(), Some("1"));
            assert_conflict(widely(&mut txn, &t));
            assert_conflict(txn.commit());
            put(&db, &t, "k", "1");
            // Nobody has changed anything since: it goes on, and nobody can.
            let mut txn = begin(&db, level);
            widely(&mut txn, &t).unwrap();
            let mut other = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
            assert!(other.put(&t, "k", "3").is_err());
            txn.put(&t, "k", "1").unwrap();
            txn.commit().unwrap();
        }
    }
    // At the lowest level the newest is seen, and goes on.
    for (name, widely) in wide {
        let mut txn = db.begin();
        assert_eq!(text(txn.get(&t, "k").unwrap()).as_deref(), Some("1"));
        put(&db, &t, "k", "2");
        widely(&mut txn, &t).unwrap();
        assert_eq!(
            text(txn.get(&t, "k").unwrap()).as_deref(),
            Some("2"),
            "{name}"
        );
        txn.put(&t, "k", "1").unwrap();
        txn.commit().unwrap();
    }
}

/// The look comes behind the grant: what the holder commits while one waits for it counts.
#[test]
fn who_waits_for_a_writer_conflicts_if_it_commits_and_goes_on_if_it_does_not() {
    let (_dir, db, t) = with_rows(&[("k", "1")]);
    for commits in [true, false] {
        let mut holder = db.begin();
        holder.put(&t, "k", "2").unwrap();
        let mut txn = snapshot(&db);
        let waits = db.stats().lock_waits;
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| txn.put(&t, "k", "3"));
            while db.stats().lock_waits == waits {
                std::thread::yield_now();
            }
            if commits {
                holder.commit().unwrap();
            } else {
                holder.abort();
            }
            let result = waiter.join().unwrap();
            if commits {
                assert_conflict(result);
            } else {
                result.unwrap();
            }
        });
    }
}

/// A row that is locked in a weak mode may be changed by others: the stronger mode is refused.
/// Whoever locks a range or a table goes by what it reads there: a row that it does not see must not be in it.
#[test]
fn what_was_changed_since_cannot_be_locked_as_a_range_or_a_table() {
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        let (_dir, db, t) = with_rows(&[("room1/0800", "eve"), ("room2/0800", "eve")]);
        let mut transactions = [0; 5].map(|_| begin(&db, level));
        put(&db, &t, "room1/0900", "ann");
        let [early, elsewhere, table, again, late] = &mut transactions;
        assert_conflict(early.lock_range(&t, prefix("room1/"), LockMode::KeyShare));
        assert!(matches!(
            early.get(&t, "a"),
            Err(Error::WriteConflict { .. })
        ));
        assert_conflict(table.lock_table(&t));
        let token = elsewhere
            .lock_range(&t, prefix("room2/"), LockMode::Update)
            .unwrap();
        // A range that is covered by one that was looked at is not looked at again, a wider one is.
        assert_eq!(
            elsewhere
                .lock_range(&t, "room2/1".."room2/2", LockMode::Share)
                .unwrap(),
            token
        );
        assert_conflict(elsewhere.lock_range(&t, "room1/0900"..="room1/0900", LockMode::Share));
        delete(&db, &t, "room2/0800");
        assert_conflict(again.lock_range(&t, "room2/".., LockMode::Update));
        assert_conflict(late.lock_range(&t, ..="room1/0900", LockMode::Update));
        // Nobody is kept from what nobody has changed.
        let mut fresh = begin(&db, level);
        fresh.lock_table(&t).unwrap();
        fresh.put(&t, "room1/0930", "bob").unwrap();
        fresh.commit().unwrap();
    }
    let (_dir, db, t) = with_rows(&[]);
    let mut newest = db.begin();
    put(&db, &t, "room1/0900", "ann");
    newest
        .lock_range(&t, prefix("room1/"), LockMode::Update)
        .unwrap();
    newest.lock_table(&t).unwrap();
    assert_eq!(keys(&newest, &t), ["room1/0900"]);
}

#[test]
fn an_upgrade_looks_again() {
    let (_dir, db, t) = with_rows(&[("k", "1")]);
    let mut txn = snapshot(&db);
    txn.lock(&t, "k", LockMode::KeyShare).unwrap();
    put(&db, &t, "k", "2");
    assert_conflict(txn.put(&t, "k", "3"));
}

/// The page of YDB on optimistic locks, row by row.
#[test]
fn the_ydb_example() {
    let people = [("ann", "30"), ("bob", "31"), ("john", "20")];
    let (_dir, db, t) = with_rows(&people);
    let update = |txn: &mut Transaction| -> Result<()> { txn.put(&t, "john", "27") };
    // SELECT * FROM people; another transaction inserts; UPDATE … WHERE name = 'JOHN'; COMMIT.
    let mut txn = serializable(&db);
    assert_eq!(keys(&txn, &t).len(), 3);
    put(&db, &t, "carl", "40");
    update(&mut txn).unwrap();
    assert_invalidated(txn.commit());
    assert_eq!(
        text(db.begin().get(&t, "john").unwrap()).as_deref(),
        Some("20")
    );
    // Those that only read, or only write, complete.
    let (reads, mut writes) = (serializable(&db), serializable(&db));
    assert_eq!(keys(&reads, &t).len(), 4);
    put(&db, &t, "dora", "50");
    put(&db, &t, "john", "26");
    update(&mut writes).unwrap();
    reads.commit().unwrap();
    writes.commit().unwrap();
    // "You can try to execute the transaction again."
    let mut attempts = 0;
    let options = TxnOptions::new().isolation(Isolation::Serializable);
    db.transact_with::<_, Error>(options, |txn| {
        attempts += 1;
        let count = keys(txn, &t).len().to_string();
        if attempts < 3 {
            put(&db, &t, &format!("new {attempts}"), "1");
        }
        txn.put(&t, "count", count)
    })
    .unwrap();
    assert_eq!(attempts, 3);
    assert_eq!(
        text(db.begin().get(&t, "count").unwrap()).as_deref(),
        Some("7")
    );
}

type Read = fn(&mut Transaction, &Table);

/// What a transaction reads of the rows `a` to `e`, and the keys that another must not write then.
const READS: [(&str, Read, &[&str]); 13] = [
    ("get", |txn, t| drop(txn.get(t, "c").unwrap()), &["c"]),
    (
        "get of nothing",
        |txn, t| drop(txn.get(t, "cc").unwrap()),
        &["cc"],
    ),
    (
        "multi_get",
        |txn, t| drop(txn.multi_get(t, ["b", "cc"]).unwrap()),
        &["b", "cc"],
    ),
    (
        "get_for",
        |txn, t| drop(txn.get_for(t, "c", LockMode::KeyShare).unwrap()),
        &["c"],
    ),
    (
        "range",
        |txn, t| assert_eq!(txn.range(t, "b".."d").unwrap().count(), 2),
        &["b", "bb", "c", "cc"],
    ),
    (
        "range, included",
        |txn, t| assert_eq!(txn.range(t, "b"..="d").unwrap().count(), 3),
        &["b", "bb", "c", "cc", "d"],
    ),
    (
        "lock_rows",
        |txn, t| assert_eq!(txn.lock_rows(t, "b".."d", LockMode::KeyShare).unwrap(), 2),
        &["b", "bb", "c", "cc"],
    ),
    (
        "range that stops",
        |txn, t| drop(txn.range(t, "b"..).unwrap().nth(1)),
        &["b", "bb", "c"],
    ),
    (
        "range from behind",
        |txn, t| drop(txn.range(t, ..="d").unwrap().rev().nth(1)),
        &["c", "cc", "d"],
    ),
    (
        "range from both ends",
        |txn, t| {
            let mut range = txn.range(t, ..).unwrap();
            range.next().unwrap().unwrap();
            range.next_back().unwrap().unwrap();
        },
        &["0", "a", "e", "f"],
    ),
    (
        "range that was never dropped",
        |txn, t| {
            let mut range = txn.range(t, "b"..).unwrap();
            range.next().unwrap().unwrap();
            std::mem::forget(range);
        },
        &["b"],
    ),
    (
        "visit",
        |txn, t| {
            let mut left = 2;
            let seen = txn.range(t, "b"..).unwrap().visit(|_, _| {
                left -= 1;
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            assert!(seen.unwrap().is_break());
        },
        &["b", "bb", "c"],
    ),
    (
        "visit of all that is left",
        |txn, t| {
            let seen = txn
                .range(t, "d"..)
                .unwrap()
                .visit(|_, _| ControlFlow::<()>::Continue(()));
            assert!(seen.unwrap().is_continue());
        },
        &["d", "e", "f"],
    ),
];

/// What a serializable transaction has read, what another one writes meanwhile, and whether that breaks it.
#[test]
fn a_write_into_what_was_read_breaks_and_no_other() {
    let (_dir, db, t) = with_rows(&[]);
    for (name, read, breaking) in READS {
        for key in ["0", "a", "b", "bb", "c", "cc", "d", "e", "f"] {
            for removes in [false, true] {
                db.transact::<_, Error>(|txn| {
                    txn.put_many(&t, ["a", "b", "c", "d", "e"].map(|key| (key, "1")))?;
                    let mut others = ["0", "bb", "cc", "f", "own"].iter();
                    others.try_for_each(|key| txn.delete(&t, key).map(drop))
                })
                .unwrap();
                let mut txn = serializable(&db);
                read(&mut txn, &t);
                txn.put(&t, "own", "1").unwrap();
                let mut other = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
                let written = if removes {
                    other.delete(&t, key)
                } else {
                    other.put(&t, key, "2").map(|()| true)
                };
                let Ok(written) = written else {
                    continue; // It met a lock.
                };
                other.commit().unwrap();
                if written && breaking.contains(&key) {
                    assert_invalidated(txn.commit());
                } else {
                    txn.commit()
                        .unwrap_or_else(|error| panic!("{name}, {key}: {error}"));
                }
            }
        }
    }
}

/// `insert_new` and `delete` tell whether the row was there, and that is a read.
#[test]
fn what_a_write_tells_is_read() {
    let (_dir, db, t) = with_rows(&[("a", "1")]);
    let mut txn = serializable(&db);
    let savepoint = txn.savepoint();
    assert!(!txn.insert_new(&t, "a", "2").unwrap());
    // A rollback gives the lock back; what was read stays read.
    txn.rollback_to(savepoint).unwrap();
    delete(&db, &t, "a");
    txn.put(&t, "own", "1").unwrap();
    assert_invalidated(txn.commit());

    let mut txn = serializable(&db);
    put(&db, &t, "a", "3");
    assert!(
        !txn.delete(&t, "a").unwrap(),
        "it was not there when it began"
    );
    txn.put(&t, "own", "1").unwrap();
    assert_invalidated(txn.commit());

    let mut txn = serializable(&db);
    txn.put(&t, "blind", "1").unwrap();
    assert!(
        txn.get(&t, "blind").unwrap().is_some(),
        "its own, nobody else's"
    );
    assert!(txn.delete(&t, "blind").unwrap());
    txn.commit().unwrap();
}

#[test]
fn a_rollback_to_a_savepoint_forgets_no_read() {
    let (_dir, db, t) = with_rows(&[("a", "1"), ("b", "1")]);
    let mut txn = serializable(&db);
    let savepoint = txn.savepoint();
    txn.get(&t, "a").unwrap();
    txn.rollback_to(savepoint).unwrap();
    put(&db, &t, "a", "2");
    txn.put(&t, "b", "2").unwrap();
    assert_invalidated(txn.commit());
}

/// Two that cross: at least one of them fails, whoever commits first, and be it on two threads.
#[test]
fn of_two_that_cross_one_fails() {
    let (_dir, db, t) = with_rows(&[("a", "1"), ("b", "1")]);
    let mut crossing = [serializable(&db), serializable(&db)];
    for (txn, (reads, writes)) in crossing.iter_mut().zip([("a", "b"), ("b", "a")]) {
        txn.get(&t, reads).unwrap();
        txn.put(&t, writes, "2").unwrap();
    }
    let [one, other] = crossing;
    other.commit().unwrap();
    assert_invalidated(one.commit());

    let both = (0..2_000).filter(|_| {
        let barrier = std::sync::Barrier::new(2);
        let commit = |reads: &str, writes: &str| {
            let mut txn = serializable(&db);
            txn.get(&t, reads).unwrap();
            txn.put(&t, writes, "2").unwrap();
            barrier.wait();
            txn.commit_async().wait().is_ok()
        };
        std::thread::scope(|scope| {
            let one = scope.spawn(|| commit("a", "b"));
            let other = scope.spawn(|| commit("b", "a"));
            one.join().unwrap() && other.join().unwrap()
        })
    });
    assert_eq!(both.count(), 0);
}

/// K8: past the number that the options give, any write to the table breaks.
#[test]
fn too_many_reads_become_the_whole_table() {
    let (_dir, db) = {
        let dir = tempfile::tempdir().unwrap();
        let options = small_and_real().optimistic_locks_max(8);
        let db = options.open(dir.path().join("db")).unwrap();
        (dir, db)
    };
    let t = db.create_table("people").unwrap();
    let other = db.create_table("other").unwrap();
    for (reads, breaks) in [(8, false), (9, true), (500, true)] {
        let mut txn = serializable(&db);
        for key in 0..reads {
            txn.get(&t, format!("{key:04}")).unwrap();
        }
        txn.put(&other, "own", "1").unwrap();
        put(&db, &other, "elsewhere", "1");
        put(&db, &t, "never read", "1");
        if breaks {
            assert_invalidated(txn.commit());
        } else {
            txn.commit().unwrap();
        }
    }
}

/// W4: a commit of many rows breaks whatever was read between its smallest and its largest.
#[test]
fn a_large_commit_breaks_what_was_read_among_its_rows() {
    let (_dir, db, t) = with_rows(&[]);
    let many = || (0..4_000_u32).map(|n| (format!("m{:06}", 2 * n), "1"));
    for (key, breaks) in [("m000100", true), ("a", false), ("z", false)] {
        let mut txn = serializable(&db);
        txn.get(&t, key).unwrap();
        txn.put(&t, "own", "1").unwrap();
        db.transact::<_, Error>(|txn| txn.put_many(&t, many()))
            .unwrap();
        if breaks {
            assert_invalidated(txn.commit());
        } else {
            txn.commit().unwrap();
        }
    }
}

/// S7.
#[test]
fn a_table_that_is_dropped_breaks_who_has_read_in_it() {
    let (_dir, db, t) = with_rows(&[("a", "1")]);
    let other = db.create_table("other").unwrap();
    let mut txn = serializable(&db);
    txn.get(&t, "never there").unwrap();
    txn.put(&other, "own", "1").unwrap();
    let reader = serializable(&db);
    db.drop_table(&t).unwrap();
    // It still sees the rows: it began before.
    assert!(reader.get(&t, "a").unwrap().is_some());
    assert_eq!(reader.range(&t, ..).unwrap().count(), 1);
    assert_invalidated(txn.commit());
    reader.commit().unwrap();
    assert!(matches!(
        serializable(&db).get(&t, "a").unwrap_err(),
        Error::UnknownTable { .. }
    ));
}

#[test]
fn skipping_locked_rows_is_refused_in_a_serializable_transaction() {
    let (_dir, db, t) = with_rows(&[("a", "1")]);
    let refused = |error: Error| {
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::Unchanged);
    };
    let options = TxnOptions::new().isolation(Isolation::Serializable);
    let mut txn = db.begin_with(options.clone().on_conflict(OnConflict::SkipLocked));
    refused(txn.get(&t, "a").unwrap_err());
    refused(txn.put(&t, "a", "2").unwrap_err());
    refused(txn.range(&t, ..).unwrap_err());
    refused(txn.commit().unwrap_err());

    let mut txn = db.begin_with(options);
    let skips = |txn: &mut Transaction| {
        txn.on_conflict(OnConflict::SkipLocked)
            .get_for(&t, "a", LockMode::Share)
    };
    refused(skips(&mut txn).unwrap_err());
    let skips = txn.on_conflict(OnConflict::SkipLocked);
    refused(skips.range_for(&t, .., LockMode::Share).unwrap_err());
    refused(
        txn.on_conflict(OnConflict::SkipLocked)
            .put(&t, "a", "2")
            .unwrap_err(),
    );
    // The call left no trace, and the transaction goes on.
    assert_eq!(txn.holds(&t, "a"), None);
    txn.put(&t, "a", "3").unwrap();
    txn.commit().unwrap();

    let mut holder = db.begin();
    holder.put(&t, "a", "4").unwrap();
    let options = TxnOptions::new().isolation(Isolation::Snapshot);
    let mut txn = db.begin_with(options.on_conflict(OnConflict::SkipLocked));
    assert_eq!(txn.get_for(&t, "a", LockMode::Share).unwrap(), None);
}

/// A transaction that wrote nothing tells what it has read at, and is acknowledged once that is safe.
#[test]
fn a_reader_commits_at_its_snapshot() {
    let (_dir, db, t) = with_rows(&[("a", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        let mut txn = begin(&db, level);
        let at = db.stats().commit_tail;
        put(&db, &t, "b", "1");
        txn.get(&t, "a").unwrap();
        txn.lock(&t, "a", LockMode::Share).unwrap();
        assert_eq!(txn.commit().unwrap(), at);
    }
}
