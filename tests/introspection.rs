//! What a user can see of locks, waits and transactions while they are there, and what is counted.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for clocks itself"
)]

mod machine;

use std::thread;
use std::time::Duration;

use lockstone::{
    Database, Error, LockFilter, LockInfo, LockInfoState, LockMode, OnConflict, TransactionState,
    TxnOptions,
};
use machine::{fresh, no_wait};

fn labelled(label: &str) -> TxnOptions {
    TxnOptions::new().label(label)
}

fn waiting(db: &Database) -> usize {
    let locks = db.locks().map(Result::unwrap);
    locks
        .filter(|lock| lock.state == LockInfoState::Waiting)
        .count()
}

fn keys(locks: impl Iterator<Item = lockstone::Result<LockInfo>>) -> Vec<String> {
    let mut keys: Vec<_> = locks.map(|lock| lock.unwrap().key.unwrap()).collect();
    keys.sort();
    keys
}

#[test]
fn locks_are_filtered_by_table_keys_and_transaction() {
    let (_dir, db) = fresh();
    let (t, u) = (db.create_table("t").unwrap(), db.create_table("u").unwrap());
    let (mut a, mut b) = (db.begin(), db.begin());
    a.lock_many(&t, ["a", "b", "c"], LockMode::Share).unwrap();
    a.lock(&u, "d", LockMode::Share).unwrap();
    b.lock_many(&t, ["b", "e"], LockMode::Share).unwrap();
    let all = LockFilter::new;
    for (filter, expected) in [
        (all(), "abbcde"),
        (all().table(&t), "abbce"),
        (all().table(&u), "d"),
        (all().txn(a.id()), "abcd"),
        (all().txn(b.id()).table(&u), ""),
        (all().keys(&t, "b".."d"), "bbc"),
        (all().keys(&t, "b"..="b").txn(b.id()), "b"),
        (all().keys(&u, ..), "d"),
        (all().keys(&u, "z".."a"), ""),
    ] {
        let shown = format!("{filter:?}");
        assert_eq!(keys(db.locks_of(filter)).concat(), expected, "{shown}");
    }
}

/// The list is made a stretch at a time, while others come and go.
#[test]
fn a_lock_that_is_held_all_the_while_is_listed_once() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin();
    let stay = (0..30_000_u32).map(|number| format!("stays {number:05}"));
    let stay: Vec<_> = stay.collect();
    holder.lock_many(&t, &stay, LockMode::Share).unwrap();
    let mut listed = db.locks_of(LockFilter::new().table(&t));
    let mut seen = Vec::new();
    for round in 0.. {
        let before = seen.len();
        seen.extend(
            listed
                .by_ref()
                .take(1000)
                .map(|lock| lock.unwrap().key.unwrap()),
        );
        if seen.len() == before {
            break;
        }
        let mut other = db.begin();
        let come = (0..200).map(|number| format!("comes {round} {number}"));
        other.lock_many(&t, come, LockMode::Share).unwrap();
        if round % 2 == 0 {
            std::mem::forget(other);
        }
    }
    seen.retain(|key| key.starts_with("stays"));
    seen.sort();
    assert_eq!(seen, stay);
}

#[test]
fn waits_name_holders_and_those_ahead_and_the_deadlocks_of_late() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin_with(labelled("holder"));
    holder.lock(&t, "k", LockMode::Share).unwrap();
    thread::scope(|threads| {
        for (number, label) in ["first", "second"].into_iter().enumerate() {
            let (db, t) = (&db, &t);
            threads.spawn(move || {
                let mut txn = db.begin_with(labelled(label));
                txn.lock(t, "k", LockMode::Update).unwrap();
            });
            while db.waits().waits.len() <= number {
                thread::yield_now();
            }
        }
        let waits = db.waits();
        let shown: Vec<_> = waits
            .waits
            .iter()
            .map(|wait| {
                let blockers = wait.blockers.iter();
                let blockers = blockers.map(|blocker| {
                    (
                        blocker.label.as_deref().unwrap(),
                        blocker.mode,
                        blocker.soft,
                    )
                });
                (
                    wait.label.as_deref().unwrap(),
                    wait.row.key.as_deref().unwrap(),
                    blockers.collect::<Vec<_>>(),
                )
            })
            .collect();
        let held = ("holder", LockMode::Share, false);
        let first = ("first", LockMode::Update, true);
        assert_eq!(
            shown,
            [
                ("first", "k", vec![held]),
                ("second", "k", vec![held, first])
            ]
        );
        let txns = db.transactions();
        let first = txns
            .iter()
            .find(|txn| txn.label.as_deref() == Some("first"));
        let wanted = first.unwrap().waits_for.clone().unwrap();
        assert_eq!(
            (wanted.row.key.as_deref(), wanted.mode),
            (Some("k"), LockMode::Update)
        );
        assert_eq!(first.unwrap().state, TransactionState::Active);
        holder.abort();
    });
    assert!(db.waits().waits.is_empty());

    let (mut a, mut b) = (db.begin_with(labelled("a")), db.begin_with(labelled("b")));
    a.lock(&t, "a", LockMode::Update).unwrap();
    b.lock(&t, "b", LockMode::Update).unwrap();
    thread::scope(|threads| {
        threads.spawn(|| a.lock(&t, "b", LockMode::Update).unwrap());
        while waiting(&db) == 0 {
            thread::yield_now();
        }
        assert!(b.lock(&t, "a", LockMode::Update).is_err());
    });
    let states = db.transactions();
    let of = |label| {
        states
            .iter()
            .find(|txn| txn.label.as_deref() == Some(label))
    };
    assert_eq!(of("b").unwrap().state, TransactionState::RolledBack);
    let deadlocks = db.waits().deadlocks;
    assert_eq!(deadlocks.len(), 1);
    assert_eq!(deadlocks[0].victim, b.id());
    assert_eq!(db.stats().deadlocks, 1);
}

#[test]
fn those_who_are_ahead_are_soft_blockers() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin_with(labelled("holder"));
    holder.lock(&t, "k", LockMode::Share).unwrap();
    thread::scope(|threads| {
        for (number, mode) in [LockMode::Update, LockMode::Share].into_iter().enumerate() {
            let (db, t) = (&db, &t);
            threads.spawn(move || {
                let mut txn = db.begin_with(labelled(["writer", "sharer"][number]));
                txn.lock(t, "k", mode).unwrap();
            });
            while db.waits().waits.len() <= number {
                thread::yield_now();
            }
        }
        let waits = db.waits().waits;
        let blockers = |at: usize| {
            let blockers = waits[at].blockers.iter();
            let named = blockers.map(|blocker| (blocker.label.as_deref().unwrap(), blocker.soft));
            named.collect::<Vec<_>>()
        };
        assert_eq!(blockers(0), [("holder", false)]);
        assert_eq!(blockers(1), [("writer", true)]);
        holder.abort();
    });
}

#[test]
fn the_counts_of_a_transaction_go_back_with_a_rollback() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    let counts = |db: &Database| {
        let txns = db.transactions();
        (txns[0].locks, txns[0].writes)
    };
    assert_eq!(counts(&db), (0, 0));
    txn.put(&t, "a", "1").unwrap();
    txn.delete(&t, "a").unwrap();
    assert_eq!(counts(&db), (1, 1));
    let savepoint = txn.savepoint();
    txn.put(&t, "b", "1").unwrap();
    txn.put_many(&t, (0..100_u32).map(|n| (n.to_be_bytes(), "v")))
        .unwrap();
    assert_eq!(counts(&db), (102, 102));
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(counts(&db), (1, 1));
    assert!(db.transactions()[0].waits_for.is_none());
}

#[test]
fn waits_are_counted_by_their_time() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin();
    holder.lock(&t, "k", LockMode::Update).unwrap();
    let timeout = Some(Duration::from_millis(20));
    let mut txn = db.begin_with(TxnOptions::new().on_conflict(OnConflict::Wait { timeout }));
    let error = txn.put(&t, "k", "1");
    assert!(matches!(error, Err(Error::LockTimeout { .. })));
    let stats = db.stats();
    assert_eq!((stats.lock_waits, stats.lock_timeouts), (1, 1));
    assert!(stats.lock_wait_us >= 20_000, "{}", stats.lock_wait_us);
    // 2^14 microseconds are 16 milliseconds.
    assert_eq!(stats.lock_wait_times.iter().sum::<u64>(), 1);
    assert_eq!(stats.lock_wait_times[15..].iter().sum::<u64>(), 1);
}
