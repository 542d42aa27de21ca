//! Serializable transactions: what counts as read, which commits break it, and that nobody else is hurt.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts threads itself"
)]

mod levels;
mod machine;

use std::ops::ControlFlow;

use levels::{assert_invalidated, begin, delete, put, serializable, with_rows};
use lockstone::{Error, Isolation, LockMode, OnConflict, Outcome, Table, Transaction, TxnOptions};
use machine::small_and_real;

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
