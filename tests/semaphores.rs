//! Semaphores as a user takes tokens of them: never too many, first come first served, given back with the transaction.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lockstone::inspect::salvage;
use lockstone::{
    Database, Error, LockInfoState, LockKind, LockMode, OnConflict, Outcome, Priority, TxnOptions,
};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{fresh, no_wait, open, small_and_real};

fn would_block<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::WouldBlock { .. }))
}

fn is_invalid<T: std::fmt::Debug>(result: Result<T, Error>, says: &str) -> bool {
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unchanged);
    assert!(error.to_string().contains(says), "{error}");
    matches!(error, Error::InvalidArgument { .. })
}

/// How many lock requests have waited, which tells that one more does now.
fn wait_for_waits(db: &Database, waits: u64) {
    while db.stats().lock_waits < waits {
        thread::yield_now();
    }
}

#[test]
fn tokens_are_held_by_the_transaction_and_given_back_with_its_savepoint_or_end() {
    let (_dir, db) = fresh();
    db.create_semaphore("s", 5).unwrap();
    let mut one = db.begin_with(no_wait().label("one"));
    let mut other = db.begin_with(no_wait());
    one.acquire("s", 2).unwrap();
    let savepoint = one.savepoint();
    one.acquire("s", 2).unwrap();
    other.acquire("s", 1).unwrap();
    let refused = other.acquire("s", 1).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("semaphore `s`") && text.contains("`one`"),
        "{text}"
    );
    assert!(would_block(one.acquire("s", 1)));
    one.rollback_to(savepoint).unwrap();
    other.acquire("s", 2).unwrap();
    assert!(would_block(other.acquire("s", 1)));
    one.commit().unwrap();
    other.acquire("s", 2).unwrap();
    drop(other);
    assert!(db.locks().next().is_none());
    let mut all = db.begin_with(no_wait());
    all.acquire("s", 5).unwrap();
}

#[test]
fn what_can_never_be_had_is_refused_at_once() {
    let (_dir, db) = fresh();
    db.create_semaphore("s", 3).unwrap();
    db.create_semaphore(b"s", 3).unwrap();
    assert!(is_invalid(db.create_semaphore("s", 4), "3 tokens"));
    assert!(is_invalid(db.create_semaphore("t", 0), "at least one"));
    let mut txn = db.begin();
    assert!(is_invalid(txn.acquire("t", 1), "create_semaphore"));
    assert!(is_invalid(txn.acquire("s", 4), "it has 3"));
    assert!(is_invalid(txn.acquire("s", 0), "it has 3"));
    txn.acquire("s", 2).unwrap();
    assert!(is_invalid(txn.acquire("s", 2), "holds 2"));
    assert!(is_invalid(txn.acquire("s", u64::MAX), "holds 2"));
    assert!(matches!(txn.acquire("", 1), Err(Error::KeyEmpty)));
    assert!(matches!(db.create_semaphore("", 1), Err(Error::KeyEmpty)));
    let long = vec![b'n'; lockstone::KEY_BYTES_MAX];
    assert!(matches!(
        db.create_semaphore(&long, 1),
        Err(Error::KeyTooLong { .. })
    ));
    db.create_semaphore(&long[1..], 1).unwrap();
    txn.acquire(&long[1..], 1).unwrap();
    txn.acquire("s", 1).unwrap();
    // It is a row of the engine's, and no table's.
    assert!(db.tables().is_empty());
    txn.commit().unwrap();
}

#[test]
fn who_wants_many_is_not_passed_by_those_who_want_few() {
    let (_dir, db) = fresh();
    db.create_semaphore("s", 3).unwrap();
    let mut holder = db.begin();
    holder.acquire("s", 1).unwrap();
    let order = &AtomicU64::new(0);
    let db = &db;
    thread::scope(|scope| {
        let many = scope.spawn(|| {
            let mut txn = db.begin();
            txn.acquire("s", 3).unwrap();
            order.fetch_add(1, Ordering::SeqCst)
        });
        wait_for_waits(db, 1);
        let few = scope.spawn(|| {
            let mut txn = db.begin();
            txn.acquire("s", 1).unwrap();
            order.fetch_add(1, Ordering::SeqCst)
        });
        wait_for_waits(db, 2);
        let mut hurried = db.begin_with(no_wait());
        assert!(would_block(hurried.acquire("s", 1)));
        // Who holds some goes to the front.
        holder.acquire("s", 1).unwrap();
        let waiting = db.locks().map(Result::unwrap);
        let waiting = waiting.filter(|lock| lock.state == LockInfoState::Waiting);
        let waiting: Vec<_> = waiting.map(|lock| lock.tokens).collect();
        assert_eq!(waiting, [Some(3), Some(1)]);
        drop(holder);
        assert_eq!((many.join().unwrap(), few.join().unwrap()), (0, 1));
    });
}

#[test]
fn never_more_are_inside_than_there_are_tokens() {
    let (_dir, db) = fresh();
    db.create_semaphore("s", 4).unwrap();
    let (inside, rounds) = (AtomicU64::new(0), 200_u64);
    thread::scope(|scope| {
        for number in 0..8_u64 {
            let (db, inside) = (&db, &inside);
            scope.spawn(move || {
                for round in 0..rounds {
                    let tokens = 1 + (number + round) % 3;
                    let mut txn = db.begin();
                    txn.acquire("s", tokens).unwrap();
                    let now = inside.fetch_add(tokens, Ordering::SeqCst) + tokens;
                    assert!(now <= 4, "{now} tokens are out");
                    inside.fetch_sub(tokens, Ordering::SeqCst);
                    drop(txn);
                }
            });
        }
    });
    assert!(db.locks().next().is_none());
}

#[test]
fn a_circle_through_a_semaphore_ends_if_nobody_else_can_free_enough() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.create_semaphore("s", 2).unwrap();
    for third_holds in [false, true] {
        let (mut one, mut two) = (db.begin(), db.begin());
        one.acquire("s", 1).unwrap();
        two.lock(&t, "row", LockMode::Update).unwrap();
        let mut third = db.begin();
        if third_holds {
            // It can end, and two needs no more than that one token.
            third.acquire("s", 1).unwrap();
        } else {
            one.acquire("s", 1).unwrap();
        }
        let waits = db.stats().lock_waits;
        let db = &db;
        thread::scope(|scope| {
            let two = scope.spawn(move || two.acquire("s", 1).and_then(|()| two.commit()));
            wait_for_waits(db, waits + 1);
            let t = &t;
            let one =
                scope.spawn(move || one.lock(t, "row", LockMode::Share).map(|_| one.commit()));
            if third_holds {
                wait_for_waits(db, waits + 2);
                assert_eq!(db.waits().waits.len(), 2);
                drop(third);
                two.join().unwrap().unwrap();
                one.join().unwrap().unwrap().unwrap();
            } else {
                let died = two.join().unwrap().unwrap_err();
                assert!(
                    matches!(&died, Error::Deadlock { cycle } if cycle.waits.len() == 2),
                    "{died}"
                );
                assert!(died.to_string().contains("semaphore `s`"), "{died}");
                one.join().unwrap().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn policies_apply_to_tokens_as_to_rows() {
    let (_dir, db) = fresh();
    db.create_semaphore("s", 2).unwrap();
    let mut weak = db.begin_with(TxnOptions::new().priority(Priority::normal(1)));
    weak.acquire("s", 1).unwrap();
    let zero = OnConflict::Wait {
        timeout: Some(Duration::ZERO),
    };
    let short = OnConflict::Wait {
        timeout: Some(Duration::from_millis(5)),
    };
    let mut strong = db.begin_with(TxnOptions::new().priority(Priority::high(1)));
    for policy in [OnConflict::NoWait, OnConflict::SkipLocked] {
        assert!(would_block(strong.on_conflict(policy).acquire("s", 2)));
    }
    for policy in [zero, short] {
        let refused = strong.on_conflict(policy).acquire("s", 2);
        assert!(
            matches!(refused, Err(Error::LockTimeout { .. })),
            "{refused:?}"
        );
    }
    strong
        .on_conflict(OnConflict::Wound)
        .acquire("s", 2)
        .unwrap();
    assert!(matches!(weak.acquire("s", 1), Err(Error::Wounded { .. })));
    let mut weaker = db.begin_with(
        TxnOptions::new()
            .on_conflict(OnConflict::Wound)
            .priority(Priority::normal(2)),
    );
    assert!(matches!(
        weaker.acquire("s", 1),
        Err(Error::Conflict { .. })
    ));
}

#[test]
fn a_semaphore_outlives_a_crash_and_its_tokens_do_not() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    db.create_semaphore("s", 3).unwrap();
    let mut txn = db.begin();
    txn.acquire("s", 2).unwrap();
    let savepoint = txn.savepoint();
    txn.acquire("s", 1).unwrap();
    txn.rollback_to(savepoint).unwrap();
    // Another commit makes durable what is in the log before it.
    db.create_semaphore("more", 1).unwrap();
    let id = txn.id();
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    let reopened = open(&crashed).unwrap();
    let report = reopened.recovery_report();
    let found: Vec<_> = report
        .in_flight
        .iter()
        .map(|txn| (txn.txn, txn.tokens))
        .collect();
    assert_eq!(found, [(id, 2)]);
    let mut all = reopened.begin_with(no_wait());
    all.acquire("s", 3).unwrap();
    let held: Vec<_> = reopened.locks().map(Result::unwrap).collect();
    assert_eq!(held.len(), 1);
    assert_eq!(
        (held[0].kind, held[0].tokens),
        (LockKind::Semaphore, Some(3))
    );
    assert_eq!(held[0].key.as_deref(), Some("s"));
    all.acquire("more", 1).unwrap();
    all.commit().unwrap();
}

#[test]
fn semaphores_are_compacted_backed_up_and_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small_and_real().open(&path).unwrap();
    db.create_semaphore("s", 3).unwrap();
    db.compact().unwrap();
    assert_eq!(db.check().unwrap().findings.len(), 0);
    db.create_semaphore("s", 3).unwrap();
    db.backup(dir.path().join("backup")).unwrap();
    db.close().unwrap();
    salvage(&path, &dir.path().join("salvaged"), small_and_real()).unwrap();
    for copy in ["backup", "salvaged"] {
        let copy = small_and_real().open(dir.path().join(copy)).unwrap();
        let mut txn = copy.begin();
        txn.acquire("s", 3).unwrap();
        assert!(copy.tables().is_empty());
    }
}
