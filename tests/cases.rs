//! Situations that other systems test, on this engine: those that are more than locks, which are scripts in `locks/testdata`.
//! Only the situation is theirs. Each test names its origin in its first line, as the scripts do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files and starts threads itself"
)]

mod machine;

use std::path::Path;

use lockstone::{
    Database, Error, Isolation, LockInfoState, LockMode, OnConflict, Table, Transaction, TxnOptions,
};
use machine::fresh;

const MODES: [LockMode; 4] = [
    LockMode::KeyShare,
    LockMode::Share,
    LockMode::NoKeyUpdate,
    LockMode::Update,
];

fn begin(db: &Database, level: Isolation) -> Transaction {
    db.begin_with(TxnOptions::new().isolation(level))
}

fn with_rows(rows: &[(&str, &str)]) -> (tempfile::TempDir, Database, Table) {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact::<_, Error>(|txn| txn.put_many(&t, rows.iter().copied()))
        .unwrap();
    (dir, db, t)
}

fn value(txn: &Transaction, t: &Table, key: &str) -> String {
    let value = txn.get(t, key).unwrap().unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

/// The first row that nobody else has, as a worker takes it.
fn take(db: &Database, t: &Table) -> (Transaction, Option<String>) {
    let mut txn = db.begin_with(TxnOptions::new().on_conflict(OnConflict::SkipLocked));
    let row = txn.range_for(t, .., LockMode::Update).unwrap().next();
    let key = row.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap());
    (txn, key)
}

/// PostgreSQL isolation, skip-locked-1: workers pass over what others have, and find it again when these have rolled back.
#[test]
fn workers_take_different_rows() {
    let (_dir, db, t) = with_rows(&[("1", ""), ("2", "")]);
    let (first, taken) = take(&db, &t);
    assert_eq!(taken.as_deref(), Some("1"));
    let (second, taken) = take(&db, &t);
    assert_eq!(taken.as_deref(), Some("2"));
    assert_eq!(take(&db, &t).1, None);
    first.abort();
    assert_eq!(take(&db, &t).1.as_deref(), Some("1"));
    second.commit().unwrap();
}

/// PostgreSQL isolation, skip-locked-2: a row that several share is passed over until the last of them has ended.
#[test]
fn a_row_that_several_share_is_passed_over() {
    let (_dir, db, t) = with_rows(&[("1", ""), ("2", "")]);
    let mut sharers = [db.begin(), db.begin()];
    for sharer in &mut sharers {
        sharer.lock(&t, "1", LockMode::KeyShare).unwrap();
    }
    for sharer in sharers {
        assert_eq!(take(&db, &t).1.as_deref(), Some("2"));
        sharer.commit().unwrap();
    }
    assert_eq!(take(&db, &t).1.as_deref(), Some("1"));
}

/// PostgreSQL isolation, skip-locked-3: nobody who holds the row is in the way, but somebody who waits for it is.
#[test]
fn a_row_that_somebody_waits_for_is_passed_over() {
    let (_dir, db, t) = with_rows(&[("1", ""), ("2", "")]);
    let mut holder = db.begin();
    holder.lock(&t, "1", LockMode::Share).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut txn = db.begin();
            txn.lock(&t, "1", LockMode::Update).unwrap();
            txn.commit().unwrap();
        });
        let waits = || {
            let mut locks = db.locks();
            locks.any(|lock| lock.unwrap().state == LockInfoState::Waiting)
        };
        while !waits() {
            std::thread::yield_now();
        }
        let mut sharer = db.begin_with(TxnOptions::new().on_conflict(OnConflict::SkipLocked));
        assert_eq!(sharer.get_for(&t, "1", LockMode::Share).unwrap(), None);
        assert!(sharer.get_for(&t, "2", LockMode::Share).unwrap().is_some());
        holder.commit().unwrap();
        waiter.join().unwrap();
        assert!(sharer.get_for(&t, "1", LockMode::Share).unwrap().is_some());
    });
}

/// PostgreSQL isolation, lock-committed-update: a row that was changed and committed since the begin is locked as it is now, or,
/// where the begin decides what is seen, not at all.
#[test]
fn a_row_that_was_changed_since_the_begin_is_locked_as_it_is_or_refused() {
    let (_dir, db, t) = with_rows(&[("k", "old")]);
    for level in [
        Isolation::ReadCommitted,
        Isolation::Snapshot,
        Isolation::Serializable,
    ] {
        for mode in MODES {
            let mut txn = begin(&db, level);
            assert_eq!(value(&txn, &t, "k"), "old");
            db.transact::<_, Error>(|txn| txn.put(&t, "k", "new"))
                .unwrap();
            let locked = txn.get_for(&t, "k", mode);
            if level == Isolation::ReadCommitted {
                assert_eq!(locked.unwrap().unwrap()[..], *b"new");
                txn.commit().unwrap();
            } else {
                let error = locked.unwrap_err();
                assert!(
                    matches!(error, Error::WriteConflict { .. }),
                    "{level:?} {mode}: {error}"
                );
            }
            db.transact::<_, Error>(|txn| txn.put(&t, "k", "old"))
                .unwrap();
        }
    }
}

/// PostgreSQL isolation, simple-write-skew: each turns what the other has counted; one of them fails, or one ran before the
/// other saw anything.
#[test]
fn of_two_that_turn_what_the_other_counts_one_fails() {
    let count = |txn: &Transaction, t: &Table, colour: &str| {
        let rows = txn.range(t, ..).unwrap().map(|row| row.unwrap());
        let rows = rows.filter(|(_, value)| value[..] == *colour.as_bytes());
        rows.map(|(key, _)| key.to_vec()).collect::<Vec<_>>()
    };
    let (_dir, db, t) = with_rows(&[("1", "apple"), ("2", "pear"), ("3", "apple")]);
    let [mut one, mut two] = [0; 2].map(|_| begin(&db, Isolation::Serializable));
    for key in count(&one, &t, "pear") {
        one.put(&t, key, "apple").unwrap();
    }
    for key in count(&two, &t, "apple") {
        two.put(&t, key, "pear").unwrap();
    }
    let done = [one.commit().is_ok(), two.commit().is_ok()];
    assert_eq!(done, [true, false]);
    let after = db.begin();
    assert_eq!(count(&after, &t, "apple").len(), 3);
}

/// PostgreSQL isolation, receipt-report: a report of the day that was closed is read before a receipt of that day commits. The
/// receipt must not come any more.
#[test]
fn no_receipt_comes_behind_the_report_of_its_day() {
    let (_dir, db, t) = with_rows(&[("day", "22"), ("receipt 1", "22")]);
    let mut receipt = begin(&db, Isolation::Serializable);
    let day = value(&receipt, &t, "day");
    receipt.put(&t, "receipt 2", &day).unwrap();
    let mut close = begin(&db, Isolation::Serializable);
    assert_eq!(value(&close, &t, "day"), "22");
    close.put(&t, "day", "23").unwrap();
    close.commit().unwrap();
    let report = begin(&db, Isolation::Serializable);
    assert_eq!(value(&report, &t, "day"), "23");
    let receipts = report.range(&t, "receipt"..).unwrap().count();
    assert_eq!(receipts, 1);
    report.commit().unwrap();
    let error = receipt.commit().unwrap_err();
    assert!(matches!(error, Error::LocksInvalidated { .. }), "{error}");
}

/// PostgreSQL isolation, read-only-anomaly: who only reads sees a deposit and not the withdrawal that did not see it. A withdrawal
/// with a fee, as if the deposit had not been there, must not commit then.
#[test]
fn a_reader_makes_the_order_of_two_writers_impossible() {
    let (_dir, db, t) = with_rows(&[("checking", "0"), ("savings", "0")]);
    let mut withdraws = begin(&db, Isolation::Serializable);
    assert_eq!(value(&withdraws, &t, "checking"), "0");
    assert_eq!(value(&withdraws, &t, "savings"), "0");
    let mut deposits = begin(&db, Isolation::Serializable);
    assert_eq!(value(&deposits, &t, "savings"), "0");
    deposits.put(&t, "savings", "20").unwrap();
    deposits.commit().unwrap();
    let reads = begin(&db, Isolation::Serializable);
    assert_eq!(value(&reads, &t, "savings"), "20");
    assert_eq!(value(&reads, &t, "checking"), "0");
    reads.commit().unwrap();
    withdraws.put(&t, "checking", "-11").unwrap();
    let error = withdraws.commit().unwrap_err();
    assert!(matches!(error, Error::LocksInvalidated { .. }), "{error}");
}

/// YugabyteDB, yb-ensure-lock-only-conflict-always-ignored: who has only locked a row, and has ended, has changed nothing;
/// neither has who wrote it below a savepoint and took that back.
#[test]
fn a_lock_that_was_held_since_the_begin_is_no_change() {
    let (_dir, db, t) = with_rows(&[("k", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        for mode in MODES {
            let mut txn = begin(&db, level);
            assert_eq!(value(&txn, &t, "k"), "1");
            let mut locks = db.begin();
            locks.get_for(&t, "k", mode).unwrap();
            let savepoint = locks.savepoint();
            locks.put(&t, "k", "gone").unwrap();
            locks.rollback_to(savepoint).unwrap();
            locks.put(&t, "other", "1").unwrap();
            locks.commit().unwrap();
            assert_eq!(txn.get_for(&t, "k", mode).unwrap().unwrap()[..], *b"1");
            txn.put(&t, "k", "1").unwrap();
            txn.commit().unwrap();
        }
    }
}

/// Of each system: how it is cited, and what of it is to be here.
const NAMED: [(&str, &[&str]); 4] = [
    (
        "PostgreSQL isolation, ",
        &[
            "tuplelock-conflict",
            "tuplelock-upgrade-no-deadlock",
            "multixact-no-deadlock",
            "multixact-no-forget",
            "delete-abort-savept",
            "delete-abort-savept-2",
            "aborted-keyrevoke",
            "subxid-overflow",
            "propagate-lock-delete",
            "update-locked-tuple",
            "lock-committed-update",
            "lock-update-delete",
            "nowait",
            "nowait-2",
            "nowait-3",
            "skip-locked-1",
            "skip-locked-2",
            "skip-locked-3",
            "lock-nowait",
            "timeouts",
            "deadlock-simple",
            "deadlock-hard",
            "deadlock-soft",
            "deadlock-soft-2",
            "fk-contention",
            "simple-write-skew",
            "receipt-report",
            "read-only-anomaly",
        ],
    ),
    (
        "RocksDB, ",
        &[
            "DeadlockCycle",
            "DeadlockCycleShared",
            "LockFairness",
            "Catch22",
            "PrioritizedLockUpgrade",
            "SharedLockRaceCondition",
            "UndoGetForUpdate",
        ],
    ),
    (
        "YugabyteDB, ",
        &[
            "row-lock-conflict-matrix",
            "ignore-intent-of-rolled-back-savepoint-cross-txn",
            "yb-unblock-waiter-after-blocking-subtxn-rollsback",
            "yb-ensure-lock-only-conflict-always-ignored",
        ],
    ),
    (
        "CockroachDB lock table, ",
        &[
            "acquire_ignored_seqs",
            "lock_promotion",
            "shared_locks",
            "clear_finalized_txn_locks",
            "queue fairness",
            "priority",
            "deadlocks",
        ],
    ),
];

/// Two-phase commit is not there yet, and so are not its cases.
#[test]
fn every_case_of_others_is_here_with_its_origin() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = std::fs::read_dir(house.join("locks/testdata")).unwrap();
    let scripts = scripts.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut cited: Vec<String> = scripts
        .map(|text| text.lines().next().unwrap().to_owned())
        .collect();
    let tests = include_str!("cases.rs")
        .lines()
        .filter(|line| line.starts_with("/// "));
    cited.extend(tests.map(|line| line.replacen("/// ", "# ", 1)));
    for (system, names) in NAMED {
        for name in names {
            let origin = format!("# {system}{name}:");
            let count = cited
                .iter()
                .filter(|line| line.starts_with(&origin))
                .count();
            assert_eq!(count, 1, "{origin}");
        }
    }
}
