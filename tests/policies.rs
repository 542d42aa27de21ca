//! What becomes of a call that meets a lock: wounds, dies, waits a while and wounds, or passes over.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::time::{Duration, Instant};

use lockstone::{Error, LockMode, OnConflict, Outcome, Priority, TxnOptions};
use machine::fresh;

fn wound(priority: Priority) -> TxnOptions {
    TxnOptions::new()
        .on_conflict(OnConflict::Wound)
        .priority(priority)
}

/// L5: the victim's thread does nothing, and the lock is had all the same.
#[test]
fn the_higher_priority_takes_the_lock_at_once_and_the_victim_learns_it_at_its_next_call() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut low = db.begin_with(wound(Priority::normal(1)).label("low"));
    low.put(&t, "k", "low").unwrap();
    low.put(&t, "other", "low").unwrap();
    let mut high = db.begin_with(wound(Priority::normal(2)));
    assert_eq!(high.get_for(&t, "k", LockMode::Update).unwrap(), None);
    high.put(&t, "k", "high").unwrap();
    // All of the victim's locks are free.
    let mut third = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
    third.put(&t, "other", "third").unwrap();
    let error = low.get(&t, "k").unwrap_err();
    assert!(
        matches!(error, Error::Wounded { by } if by == high.id()),
        "{error}"
    );
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::RolledBack, true)
    );
    assert!(matches!(
        low.put(&t, "x", "1").unwrap_err(),
        Error::Wounded { .. }
    ));
    high.commit().unwrap();
    assert!(matches!(low.commit().unwrap_err(), Error::Wounded { .. }));
    assert_eq!(
        db.snapshot().get(&t, "k").unwrap().as_deref(),
        Some(&b"high"[..])
    );
}

#[test]
fn on_equality_the_requester_dies_and_says_who_was_in_the_way() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin_with(wound(Priority::high(3)).label("nightly"));
    holder.lock(&t, "k", LockMode::Share).unwrap();
    let mut asks = db.begin_with(wound(Priority::high(3)));
    asks.put(&t, "free", "1").unwrap();
    let error = asks.put(&t, "k", "1").unwrap_err();
    let text = format!(
        "Operation failed. Try again.: {} Conflicts with higher priority transaction: {}",
        asks.id(),
        holder.id()
    );
    assert_eq!(error.to_string(), text);
    let Error::Conflict {
        holder: named,
        holder_priority,
        row,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(named.label.as_deref(), Some("nightly"));
    assert_eq!(
        (holder_priority.is_high(), holder_priority.number()),
        (true, 3)
    );
    assert_eq!(row.key.as_deref(), Some("k"));
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::RolledBack, true)
    );
    // Its locks were free before it was told, and each later call repeats the error.
    let mut third = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
    third.put(&t, "free", "3").unwrap();
    assert!(matches!(
        asks.get(&t, "free").unwrap_err(),
        Error::Conflict { .. }
    ));
    assert!(matches!(asks.commit().unwrap_err(), Error::Conflict { .. }));
    holder.put(&t, "k", "2").unwrap();
    holder.commit().unwrap();
}

/// YugabyteDB's page on explicit locking: of two that lock explicitly, the later one fails and wounds nobody.
#[test]
fn automatic_priorities_never_let_an_explicit_locker_be_wounded_by_another() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    for _ in 0..50 {
        let mut first = db.begin_with(wound(Priority::auto()));
        first.get_for(&t, "k", LockMode::Update).unwrap();
        let mut explicit = db.begin_with(wound(Priority::auto()));
        let error = explicit.get_for(&t, "k", LockMode::Update).unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
        // One that writes first has drawn a normal number, and that never exceeds an explicit locker's.
        let mut writer = db.begin_with(wound(Priority::auto()));
        let error = writer.put(&t, "k", "1").unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
        first.put(&t, "k", "first").unwrap();
        first.commit().unwrap();
    }
}

#[test]
fn who_wounds_after_a_while_waits_so_long_and_no_longer() {
    const WHILE: Duration = Duration::from_millis(60);
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let options = |number| {
        let options = TxnOptions::new().on_conflict(OnConflict::WoundAfter(WHILE));
        options.priority(Priority::normal(number))
    };
    let mut holder = db.begin_with(options(1));
    holder.put(&t, "k", "1").unwrap();
    let mut equal = db.begin_with(options(1));
    let begun = Instant::now();
    let error = equal.put(&t, "k", "2").unwrap_err();
    assert!(
        matches!(error, Error::Conflict { .. }) && begun.elapsed() >= WHILE,
        "{error}"
    );
    let mut stronger = db.begin_with(options(2));
    let begun = Instant::now();
    stronger.put(&t, "k", "3").unwrap();
    assert!(begun.elapsed() >= WHILE);
    assert!(matches!(
        holder.put(&t, "k", "4").unwrap_err(),
        Error::Wounded { .. }
    ));
    stronger.commit().unwrap();
}

#[test]
fn a_queue_of_jobs_is_worked_off_past_what_others_have_locked() {
    let (_dir, db) = fresh();
    let jobs = db.create_table("jobs").unwrap();
    db.transact::<_, Error>(|txn| (0..6_u8).try_for_each(|job| txn.put(&jobs, [job], "to do")))
        .unwrap();
    let take = |count: usize| {
        let mut txn = db.begin_with(TxnOptions::new().on_conflict(OnConflict::SkipLocked));
        let mut taken = Vec::new();
        let mut cursor = txn.range_for(&jobs, .., LockMode::Update).unwrap();
        while taken.len() < count
            && let Some(row) = cursor.next()
        {
            taken.push(row.unwrap().0[0]);
            cursor.delete().unwrap();
        }
        (txn, taken)
    };
    let (first, taken) = take(2);
    assert_eq!(taken, [0, 1]);
    let (second, taken) = take(3);
    assert_eq!(taken, [2, 3, 4]);
    first.commit().unwrap();
    drop(second);
    let (rest, taken) = take(9);
    assert_eq!(taken, [2, 3, 4, 5]);
    rest.commit().unwrap();
    assert_eq!(take(9).1, []);
}

#[test]
fn a_call_may_have_a_policy_of_its_own() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact::<_, Error>(|txn| {
        ["a", "b", "c"]
            .iter()
            .try_for_each(|key| txn.put(&t, key, "1"))
    })
    .unwrap();
    let mut holder = db.begin();
    holder.lock(&t, "b", LockMode::Update).unwrap();
    let mut txn = db.begin_with(TxnOptions::new().priority(Priority::high(u32::MAX)));
    let skips = txn.on_conflict(OnConflict::SkipLocked);
    assert_eq!(skips.get_for(&t, "b", LockMode::Share).unwrap(), None);
    let cursor = txn.on_conflict(OnConflict::SkipLocked);
    let cursor = cursor.range_for(&t, .., LockMode::Share).unwrap();
    let keys: Vec<_> = cursor.rev().map(|row| row.unwrap().0.to_vec()).collect();
    assert_eq!(keys, [b"c", b"a"]);
    let refused = |error: Error| assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
    for policy in [OnConflict::NoWait, OnConflict::SkipLocked] {
        refused(
            txn.on_conflict(policy)
                .lock(&t, "b", LockMode::KeyShare)
                .unwrap_err(),
        );
        refused(txn.on_conflict(policy).put(&t, "b", "2").unwrap_err());
        refused(
            txn.on_conflict(policy)
                .put_many(&t, [("d", "2"), ("b", "2")])
                .unwrap_err(),
        );
        refused(
            txn.on_conflict(policy)
                .insert_new(&t, "b", "2")
                .unwrap_err(),
        );
        refused(txn.on_conflict(policy).delete(&t, "b").unwrap_err());
    }
    assert_eq!(txn.holds(&t, "d"), None, "a call that fails leaves no lock");
    // And the transaction's own policy counts again: it wounds.
    txn.on_conflict(OnConflict::Wound)
        .put(&t, "b", "2")
        .unwrap();
    txn.commit().unwrap();
    assert!(matches!(
        holder.get(&t, "b").unwrap_err(),
        Error::Wounded { .. }
    ));
}

/// Retries keep the larger draw and the age, and wait in line after three losses: nobody starves.
#[test]
fn who_wounds_and_is_wounded_gets_there_by_retries() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 50;
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact::<_, Error>(|txn| txn.put(&t, "n", 0_u32.to_be_bytes()))
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let options = TxnOptions::new().on_conflict(OnConflict::Wound);
                    let add = |txn: &mut lockstone::Transaction| -> lockstone::Result<()> {
                        let n = txn.get_for(&t, "n", LockMode::Update)?.unwrap();
                        let n = u32::from_be_bytes(n[..].try_into().unwrap());
                        txn.put(&t, "n", (n + 1).to_be_bytes())
                    };
                    db.transact_with(options, add).unwrap();
                }
            });
        }
    });
    let n = db.snapshot().get(&t, "n").unwrap().unwrap();
    assert_eq!(n[..], (THREADS * ROUNDS).to_be_bytes());
}
