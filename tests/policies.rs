//! What becomes of a call that meets a lock: wounds, dies, waits a while and wounds, or passes over.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

#[path = "../locks/tests/written/mod.rs"]
mod written;

use std::time::{Duration, Instant};

use lockstone::{
    Error, LockMode, OnConflict, Outcome, Priority, Result, Table, TxnOptions, UnderPolicy,
};
use machine::{fresh, wound};
use written::What;

const MODES: [LockMode; 4] = [
    LockMode::KeyShare,
    LockMode::Share,
    LockMode::NoKeyUpdate,
    LockMode::Update,
];

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

/// What is locked, or asked for, and with which call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Lock(LockMode),
    GetFor(LockMode),
    RangeFor(LockMode),
    Put,
    Delete,
    InsertNew,
    LockRange(LockMode),
    LockTable,
}

impl Call {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Put, Self::Delete, Self::InsertNew, Self::LockTable];
        for mode in MODES {
            all.extend([
                Self::Lock(mode),
                Self::GetFor(mode),
                Self::RangeFor(mode),
                Self::LockRange(mode),
            ]);
        }
        all
    }

    /// On the row `k`, or a range around it; whether it was passed over.
    fn run(self, txn: UnderPolicy<'_>, t: &Table) -> Result<bool> {
        match self {
            Self::Lock(mode) => txn.lock(t, "k", mode).map(|_| false),
            Self::GetFor(mode) => txn.get_for(t, "k", mode).map(|value| value.is_none()),
            Self::RangeFor(mode) => match txn.range_for(t, "a".."z", mode)?.next() {
                Some(row) => row.map(|_| false),
                None => Ok(true),
            },
            Self::Put => txn.put(t, "k", "1").map(|()| false),
            Self::Delete => txn.delete(t, "k").map(|_| false),
            Self::InsertNew => txn.insert_new(t, "k", "1").map(|_| false),
            Self::LockRange(mode) => txn.lock_range(t, "a".."z", mode).map(|_| false),
            Self::LockTable => txn.lock_table(t).map(|_| false),
        }
    }

    /// As the matrix has it.
    fn what(self) -> What {
        match self {
            Self::Lock(mode) | Self::GetFor(mode) | Self::RangeFor(mode) => {
                What::Row(7, mode, false)
            }
            Self::Put => What::put(7),
            Self::Delete | Self::InsertNew => What::Row(7, LockMode::Update, true),
            Self::LockRange(mode) => What::Range(3, 9, mode),
            Self::LockTable => What::EXCLUSIVE,
        }
    }

    /// Whether it passes over what is locked; of a table that another has alone that is every row.
    fn passes_over(self) -> bool {
        matches!(self, Self::GetFor(_) | Self::RangeFor(_))
    }
}

/// Every call that locks beside every other, under every policy, with the same priority and a higher one.
#[test]
fn every_call_under_every_policy_does_what_the_matrix_and_the_policy_say() {
    const WHILE: Duration = Duration::from_millis(1);
    let wait = OnConflict::Wait {
        timeout: Some(WHILE),
    };
    let policies = [
        wait,
        OnConflict::Wound,
        OnConflict::WoundAfter(WHILE),
        OnConflict::NoWait,
        OnConflict::SkipLocked,
    ];
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact::<_, Error>(|txn| txn.put(&t, "k", "0"))
        .unwrap();
    let mut clashes = 0;
    for held in Call::all() {
        for asked in Call::all() {
            for policy in policies {
                for number in [1, 2] {
                    let options = |number| TxnOptions::new().priority(Priority::normal(number));
                    let mut holder = db.begin_with(options(1));
                    assert!(
                        !held
                            .run(holder.on_conflict(OnConflict::NoWait), &t)
                            .unwrap()
                    );
                    let mut txn = db.begin_with(options(number));
                    let result = asked.run(txn.on_conflict(policy), &t);
                    let what =
                        format!("{asked:?} beside {held:?}, {policy:?} {number}: {result:?}");
                    let clash = asked.what().conflicts_with(held.what());
                    let wounds = matches!(policy, OnConflict::Wound | OnConflict::WoundAfter(_));
                    clashes += usize::from(clash);
                    let right = match &result {
                        Ok(false) => !clash || (wounds && number > 1),
                        Ok(true) => {
                            clash && policy == OnConflict::SkipLocked && asked.passes_over()
                        }
                        Err(Error::WouldBlock { .. }) => {
                            let skips = policy == OnConflict::SkipLocked && !asked.passes_over();
                            clash && (skips || policy == OnConflict::NoWait)
                        }
                        Err(Error::LockTimeout { .. }) => clash && policy == wait,
                        Err(Error::Conflict { .. }) => clash && wounds && number == 1,
                        Err(_) => false,
                    };
                    assert!(right, "{what}");
                    let is_wounded = matches!(holder.get(&t, "k"), Err(Error::Wounded { .. }));
                    assert_eq!(is_wounded, clash && wounds && number > 1, "{what}");
                }
            }
        }
    }
    assert!(clashes > 1000, "{clashes}");
}
