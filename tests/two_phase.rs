//! Two-phase commit (R2): a transaction that is prepared survives every crash with exactly its locks, until somebody ends it.
//!
//! Situations of PostgreSQL's 009_twophase and 012_subtransactions, of its isolation test prepared-transactions, and of RocksDB's
//! PersistentTwoPhaseTransaction, TwoPhaseDoubleRecovery, FlushedLogWithPendingPrepareIsSynced and WriteUnprepared RecoveryTest.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files itself"
)]

mod machine;
mod prepared;

use std::sync::Arc;
use std::time::Duration;

use lockstone::inspect::salvage;
use lockstone::{
    Database, Error, Isolation, LockMode, OnConflict, Outcome, Priority, Resolution, ResourceMode,
    Table, TransactionState, TxnOptions,
};
use lockstone_testkit::SimDisk;
use machine::{fresh, no_wait, open, small_and_real, wound};
use prepared::{crashed, get, gids, is_locked, listed};

/// A database with a few rows.
fn start(disk: &Arc<SimDisk>) -> (Database, Table) {
    let db = open(disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| {
        txn.put(&t, "a", "0")?;
        txn.put(&t, "b", "0")
    })
    .unwrap();
    (db, t)
}

fn reopened(disk: &Arc<SimDisk>) -> (Database, Table) {
    let db = open(disk).unwrap();
    let t = db.table("t").unwrap();
    (db, t)
}

/// 009_twophase: across a clean restart and a crash, committed and aborted.
#[test]
fn what_is_prepared_is_committed_or_aborted_after_any_restart() {
    for crashes in [false, true] {
        for commits in [false, true] {
            let disk = SimDisk::new(1);
            let (db, t) = start(&disk);
            let mut txn = db.begin_with(no_wait().label("half"));
            txn.put(&t, "a", "1").unwrap();
            txn.delete(&t, "b").unwrap();
            txn.lock(&t, "c", LockMode::Share).unwrap();
            let id = txn.id();
            txn.prepare("gid").unwrap();
            drop(txn);
            let disk = if crashes { crashed(&disk) } else { disk };
            db.close().unwrap();
            let (db, t) = reopened(&disk);
            let report = db.recovery_report();
            assert_eq!(report.in_flight.len(), 1);
            let gid: Arc<str> = "gid".into();
            assert_eq!(report.in_flight[0].resolution, Resolution::Prepared { gid });
            assert_eq!(
                (report.in_flight[0].locks, report.in_flight[0].writes),
                (3, 2)
            );
            let info = &db.prepared()[0];
            assert_eq!(
                (info.gid.as_str(), info.txn, info.locks, info.writes),
                ("gid", id, 3, 2)
            );
            assert_eq!(info.label.as_deref(), Some("half"));
            let listed = &db.transactions()[0];
            assert_eq!((listed.txn, listed.state), (id, TransactionState::Prepared));
            assert_eq!(db.locks().count(), 3);
            // Readers see nothing of it and never wait; writers are kept away.
            assert_eq!(get(&db, &t, "a").as_deref(), Some(&b"0"[..]));
            assert!(is_locked(&db, &t, "a", LockMode::Share));
            assert!(!is_locked(&db, &t, "a", LockMode::KeyShare));
            assert!(is_locked(&db, &t, "b", LockMode::KeyShare));
            assert!(is_locked(&db, &t, "c", LockMode::NoKeyUpdate));
            assert!(!is_locked(&db, &t, "c", LockMode::Share));
            assert!(!is_locked(&db, &t, "d", LockMode::Update));
            if commits {
                db.commit_prepared("gid").unwrap();
            } else {
                db.abort_prepared("gid").unwrap();
            }
            assert_eq!(db.locks().count(), 0);
            assert_eq!((db.prepared(), db.transactions().len()), (vec![], 0));
            let disk = crashed(&disk);
            drop(db);
            let (db, t) = reopened(&disk);
            assert_eq!(db.prepared(), []);
            assert_eq!(
                get(&db, &t, "a").as_deref(),
                Some(if commits { &b"1"[..] } else { b"0" })
            );
            assert_eq!(get(&db, &t, "b").is_none(), commits);
            assert!(!is_locked(&db, &t, "a", LockMode::Update));
            assert!(db.check().unwrap().is_clean());
        }
    }
}

#[test]
fn the_handle_is_over_and_its_drop_aborts_nothing() {
    let disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    let mut txn = db.begin_with(no_wait());
    let mark = txn.savepoint();
    txn.put(&t, "a", "1").unwrap();
    let id = txn.id();
    txn.prepare("gid").unwrap();
    assert_eq!(txn.id(), id);
    let ended = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::TransactionEnded)), "{result:?}");
    };
    ended(txn.put(&t, "b", "1"));
    ended(txn.get(&t, "a").map(drop));
    ended(txn.lock(&t, "c", LockMode::Share).map(drop));
    ended(txn.lock_table(&t).map(drop));
    ended(txn.rollback_to(mark));
    ended(txn.prepare("again"));
    ended(txn.range(&t, ..).map(drop));
    ended(txn.commit().map(drop));
    assert!(is_locked(&db, &t, "a", LockMode::Share));
    assert_eq!(gids(&db), ["gid"]);
    assert!(db.commit_prepared("gid").unwrap().get() > 0);
    assert_eq!(get(&db, &t, "a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_global_id_is_refused_while_in_use_and_can_be_used_again() {
    let disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    let mut first = db.begin_with(no_wait());
    first.put(&t, "a", "1").unwrap();
    first.prepare("gid").unwrap();
    let mut second = db.begin_with(no_wait());
    second.put(&t, "b", "2").unwrap();
    let refused = second.prepare("gid").unwrap_err();
    assert!(matches!(&refused, Error::GidInUse { gid } if gid == "gid"));
    assert_eq!(refused.outcome(), Outcome::Unchanged);
    for wrong in [String::new(), "x".repeat(256)] {
        let refused = second.prepare(wrong);
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
    }
    // It goes on.
    second.put(&t, "c", "2").unwrap();
    db.abort_prepared("gid").unwrap();
    second.prepare("gid").unwrap();
    for unknown in [db.commit_prepared("other").map(drop), db.abort_prepared("")] {
        let error = unknown.unwrap_err();
        assert!(matches!(error, Error::UnknownPrepared { .. }));
        assert_eq!(error.outcome(), Outcome::Unchanged);
    }
    db.commit_prepared("gid").unwrap();
    let again = db.commit_prepared("gid");
    assert!(matches!(again, Err(Error::UnknownPrepared { .. })));
    assert_eq!(get(&db, &t, "b").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(&db, &t, "a").as_deref(), Some(&b"0"[..]));
}

/// 009_twophase, TwoPhaseDoubleRecovery: several at once, and each crash in between.
#[test]
fn several_are_prepared_and_end_one_by_one_across_crashes() {
    let mut disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    for number in 0..5 {
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, format!("k{number}"), format!("{number}"))
            .unwrap();
        txn.lock(&t, "shared", LockMode::Share).unwrap();
        txn.prepare(format!("gid{number}")).unwrap();
    }
    let t = t.name().to_owned();
    let mut db = db;
    for number in 0..5 {
        disk = crashed(&disk);
        db = open(&disk).unwrap();
        let t = db.table(&t).unwrap();
        assert_eq!(db.prepared().len(), 5 - number);
        assert!(is_locked(&db, &t, "shared", LockMode::NoKeyUpdate));
        assert!(!is_locked(&db, &t, "shared", LockMode::Share));
        // A new one beside them, which a crash takes.
        db.begin_with(no_wait()).put(&t, "new", "1").unwrap();
        let gid = format!("gid{number}");
        if number % 2 == 0 {
            db.commit_prepared(&gid).unwrap();
        } else {
            db.abort_prepared(&gid).unwrap();
        }
        if number == 2 {
            db.compact().unwrap();
        }
    }
    let t = db.table(&t).unwrap();
    assert!(!is_locked(&db, &t, "shared", LockMode::Update));
    for number in 0..5 {
        let found = get(&db, &t, &format!("k{number}"));
        assert_eq!(found.is_some(), number % 2 == 0, "{number}");
    }
}

/// 012_subtransactions: what was rolled back to a savepoint holds nothing, what was downgraded is as it was.
#[test]
fn savepoints_that_were_rolled_back_are_not_there_again() {
    let disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    let mut txn = db.begin_with(no_wait());
    txn.lock(&t, "weak", LockMode::KeyShare).unwrap();
    txn.put(&t, "a", "kept").unwrap();
    let outer = txn.savepoint();
    txn.lock(&t, "weak", LockMode::Update).unwrap();
    txn.put(&t, "a", "undone").unwrap();
    txn.put(&t, "undone", "1").unwrap();
    txn.lock_range(&t, "r".."s", LockMode::Update).unwrap();
    txn.rollback_to(outer).unwrap();
    let inner = txn.savepoint();
    txn.put_many(&t, (0..200).map(|n| (format!("m{n:03}"), "many")))
        .unwrap();
    txn.rollback_to(inner).unwrap();
    txn.put_many(&t, (0..100).map(|n| (format!("m{n:03}"), "many")))
        .unwrap();
    txn.lock_range(&t, "x".."y", LockMode::Share).unwrap();
    txn.delete(&t, "b").unwrap();
    txn.prepare("gid").unwrap();
    let before = listed(&db);
    let disk = crashed(&disk);
    let (db, t) = reopened(&disk);
    assert_eq!(listed(&db), before);
    assert!(is_locked(&db, &t, "weak", LockMode::Update));
    assert!(!is_locked(&db, &t, "weak", LockMode::NoKeyUpdate));
    assert!(!is_locked(&db, &t, "undone", LockMode::Update));
    assert!(!is_locked(&db, &t, "rr", LockMode::Update));
    assert!(!is_locked(&db, &t, "m150", LockMode::Update));
    assert!(is_locked(&db, &t, "m099", LockMode::Share));
    assert!(is_locked(&db, &t, "xx", LockMode::NoKeyUpdate));
    db.commit_prepared("gid").unwrap();
    assert_eq!(get(&db, &t, "a").as_deref(), Some(&b"kept"[..]));
    assert_eq!(get(&db, &t, "undone"), None);
    assert_eq!(db.snapshot().range(&t, "m".."n").unwrap().count(), 100);
}

/// R2: rows, ranges, tables alone and shared, resources, with their tokens.
#[test]
fn locks_of_every_kind_come_back_with_their_tokens() {
    let disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    let (alone, shared) = (
        db.create_table("alone").unwrap(),
        db.create_table("shared").unwrap(),
    );
    db.create_semaphore("pool", 3).unwrap();
    let mut txn = db.begin_with(no_wait());
    let token = txn.lock_table(&alone).unwrap();
    txn.put(&alone, "k", "v").unwrap();
    txn.lock_rows(&shared, .., LockMode::Share).unwrap();
    txn.lock_range(&t, .."c", LockMode::Share).unwrap();
    txn.lock_range(&t, "p"..="q", LockMode::Update).unwrap();
    txn.put(&t, "pp", "in its own range").unwrap();
    txn.lock_resource("jobs", ResourceMode::Exclusive).unwrap();
    txn.lock_resource("queue", ResourceMode::SharedKey(b"1".to_vec()))
        .unwrap();
    txn.lock_many(&t, ["x", "y"], LockMode::NoKeyUpdate)
        .unwrap();
    txn.acquire("pool", 2).unwrap();
    {
        let cursor = txn.range_for(&t, .., LockMode::Share).unwrap();
        for row in cursor {
            row.unwrap();
        }
    }
    txn.prepare("all").unwrap();
    let before = listed(&db);
    let disk = crashed(&disk);
    let (db, t) = reopened(&disk);
    assert_eq!(listed(&db), before);
    let [alone, shared] = ["alone", "shared"].map(|name| db.table(name).unwrap());
    let mut other = db.begin_with(no_wait());
    let blocks = |result: Result<(), Error>| {
        assert!(
            matches!(result, Err(Error::WouldBlock { .. })),
            "{result:?}"
        );
    };
    blocks(other.lock(&alone, "any", LockMode::KeyShare).map(drop));
    blocks(other.lock_table(&shared).map(drop));
    other.put(&shared, "k", "v").unwrap();
    blocks(other.put(&t, "absent", "1"));
    blocks(other.lock(&t, "pq", LockMode::KeyShare).map(drop));
    other.put(&t, "r", "1").unwrap();
    blocks(other.lock_resource("jobs", ResourceMode::Shared).map(drop));
    blocks(
        other
            .lock_resource("queue", ResourceMode::SharedKey(b"1".to_vec()))
            .map(drop),
    );
    other
        .lock_resource("queue", ResourceMode::SharedKey(b"2".to_vec()))
        .unwrap();
    blocks(other.lock(&t, "x", LockMode::Share).map(drop));
    blocks(other.acquire("pool", 2));
    other.acquire("pool", 1).unwrap();
    other.abort();
    db.commit_prepared("all").unwrap();
    let mut other = db.begin_with(no_wait());
    assert!(other.lock_table(&alone).unwrap() > token);
    assert!(other.lock_range(&t, .., LockMode::Update).is_ok());
}

/// 009_twophase: prepared, checkpoint, crash; and the log is kept for it meanwhile.
#[test]
fn a_checkpoint_keeps_what_is_prepared() {
    let disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    let mut txn = db.begin_with(no_wait());
    txn.put(&t, "a", "1").unwrap();
    txn.prepare("gid").unwrap();
    for round in 0..3 {
        db.transact(|txn| txn.put(&t, "other", [round])).unwrap();
        db.compact().unwrap();
    }
    let disk = crashed(&disk);
    let (db, t) = reopened(&disk);
    assert!(is_locked(&db, &t, "a", LockMode::Share));
    db.compact().unwrap();
    db.close().unwrap();
    let (db, t) = reopened(&disk);
    db.commit_prepared("gid").unwrap();
    db.compact().unwrap();
    let disk = crashed(&disk);
    drop(db);
    let (db, t2) = reopened(&disk);
    assert_eq!(get(&db, &t2, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(db.recovery_report().in_flight.len(), 0);
    drop(t);
}

/// S3: the log is not freed of it, so others are refused at the limit; its end is not, and makes room.
#[test]
fn at_the_limit_of_the_log_others_are_refused_and_its_end_makes_room() {
    for commits in [false, true] {
        let disk = SimDisk::new(1);
        let (db, t) = start(&disk);
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "a", "1").unwrap();
        txn.prepare("gid").unwrap();
        let refused = (0..200).find_map(|round| {
            let written = db.transact(|txn| txn.put(&t, "other", vec![round; 20_000]));
            written.err()
        });
        let error = refused.expect("the log has a limit");
        assert!(
            matches!(&error, Error::OutOfRoom { source } if matches!(**source, Error::LogFull { .. })),
            "{error}"
        );
        assert_eq!(error.outcome(), Outcome::RolledBack);
        assert_eq!(get(&db, &t, "a").as_deref(), Some(&b"0"[..]));
        let disk = crashed(&disk);
        drop(db);
        let (db, t) = reopened(&disk);
        assert!(is_locked(&db, &t, "a", LockMode::Share));
        if commits {
            db.commit_prepared("gid").unwrap();
        } else {
            db.abort_prepared("gid").unwrap();
        }
        for round in 0..100 {
            db.transact(|txn| txn.put(&t, "other", vec![round; 20_000]))
                .unwrap();
        }
    }
}

/// Who wants what it has waits or dies, whatever the priorities; and runs when it has ended.
#[test]
fn nobody_wounds_it() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(TxnOptions::new().priority(Priority::normal(1)));
    txn.put(&t, "a", "1").unwrap();
    txn.prepare("gid").unwrap();
    let mut strong = db.begin_with(wound(Priority::high(9)));
    let died = strong.lock(&t, "a", LockMode::Update);
    assert!(matches!(died, Err(Error::Conflict { .. })), "{died:?}");
    drop(strong);
    let after = OnConflict::WoundAfter(Duration::from_millis(20));
    let mut strong = db.begin_with(
        TxnOptions::new()
            .on_conflict(after)
            .priority(Priority::high(9)),
    );
    let died = strong.lock(&t, "a", LockMode::Update);
    assert!(matches!(died, Err(Error::Conflict { .. })), "{died:?}");
    drop(strong);
    let timeout = Some(Duration::from_millis(20));
    let mut waits = db.begin_with(TxnOptions::new().on_conflict(OnConflict::Wait { timeout }));
    let waited = waits.lock(&t, "a", LockMode::Update);
    assert!(
        matches!(waited, Err(Error::LockTimeout { .. })),
        "{waited:?}"
    );
    std::thread::scope(|threads| {
        let waiter = threads.spawn(|| {
            let mut txn = db.begin();
            let got = txn.get_for(&t, "a", LockMode::Update);
            got.map(|value| value.map(Vec::from))
        });
        while db.waits().waits.is_empty() {
            std::thread::yield_now();
        }
        db.commit_prepared("gid").unwrap();
        assert_eq!(waiter.join().unwrap().unwrap().as_deref(), Some(&b"1"[..]));
    });
    // S7: its table cannot go.
    let mut txn = db.begin();
    txn.lock(&t, "b", LockMode::Share).unwrap();
    txn.prepare("gid").unwrap();
    let mut alone = db.begin_with(no_wait());
    assert!(matches!(
        alone.lock_table(&t),
        Err(Error::WouldBlock { .. })
    ));
    db.abort_prepared("gid").unwrap();
}

/// PostgreSQL's prepared-transactions: a write skew of which one half is prepared.
#[test]
fn what_a_prepared_transaction_has_read_stays_as_it_was() {
    let serializable = || no_wait().isolation(Isolation::Serializable);
    for restarts in [false, true] {
        let disk = SimDisk::new(1);
        let (mut db, mut t) = start(&disk);
        let mut one = db.begin_with(serializable());
        assert!(one.get(&t, "a").unwrap().is_some());
        assert_eq!(one.range(&t, "m".."n").unwrap().count(), 0);
        one.put(&t, "b", "1").unwrap();
        let mut two = db.begin_with(serializable());
        assert!(two.get(&t, "b").unwrap().is_some());
        one.prepare("one").unwrap();
        // The other half cannot write what the first has read.
        let refused = two.put(&t, "a", "2");
        assert!(
            matches!(refused, Err(Error::WouldBlock { .. })),
            "{refused:?}"
        );
        drop(two);
        if restarts {
            let disk = crashed(&disk);
            (db, t) = reopened(&disk);
        }
        assert!(is_locked(&db, &t, "a", LockMode::NoKeyUpdate));
        let phantom = db.begin_with(no_wait()).put(&t, "mm", "1");
        assert!(
            matches!(phantom, Err(Error::WouldBlock { .. })),
            "{phantom:?}"
        );
        db.commit_prepared("one").unwrap();
        db.transact(|txn| txn.put(&t, "a", "2")).unwrap();
    }
}

#[test]
fn what_was_read_and_cannot_be_kept_fails_the_prepare() {
    let serializable = || no_wait().isolation(Isolation::Serializable);
    let disk = SimDisk::new(1);
    let (db, t) = start(&disk);
    let fails = |mut txn: lockstone::Transaction| {
        let error = txn.prepare("gid").unwrap_err();
        assert!(
            matches!(&error, Error::LocksInvalidated { table } if table == "t"),
            "{error}"
        );
        let again = txn.get(&t, "a").unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        drop(txn);
        assert!(!is_locked(&db, &t, "b", LockMode::Update));
        assert_eq!(db.prepared(), []);
    };
    // It has changed.
    let mut txn = db.begin_with(serializable());
    txn.get(&t, "a").unwrap();
    txn.put(&t, "b", "1").unwrap();
    db.transact(|txn| txn.put(&t, "a", "2")).unwrap();
    fails(txn);
    // Somebody is about to change it.
    let mut txn = db.begin_with(serializable());
    txn.get(&t, "a").unwrap();
    txn.put(&t, "b", "1").unwrap();
    let mut other = db.begin_with(no_wait());
    other.put(&t, "a", "3").unwrap();
    fails(txn);
    drop(other);
    // A row has come into a range.
    let mut txn = db.begin_with(serializable());
    assert_eq!(txn.range(&t, "m".."n").unwrap().count(), 0);
    txn.put(&t, "b", "1").unwrap();
    db.transact(|txn| txn.put(&t, "mm", "1")).unwrap();
    fails(txn);
    // Who only reads, and who only writes, never fails by it; nor does who reads what it writes.
    let mut txn = db.begin_with(serializable());
    txn.get(&t, "a").unwrap();
    db.transact(|txn| txn.put(&t, "a", "4")).unwrap();
    txn.prepare("reads").unwrap();
    assert_eq!(db.locks().count(), 0);
    db.commit_prepared("reads").unwrap();
    let mut txn = db.begin_with(serializable());
    txn.get_for(&t, "a", LockMode::Update).unwrap();
    txn.put(&t, "a", "5").unwrap();
    txn.prepare("own").unwrap();
    assert_eq!(db.locks().count(), 1);
    db.commit_prepared("own").unwrap();
}

/// One that has done nothing can be prepared as well.
#[test]
fn nothing_at_all_is_prepared_and_ends() {
    let disk = SimDisk::new(1);
    let (db, _) = start(&disk);
    db.begin_with(no_wait().label("empty"))
        .prepare("c")
        .unwrap();
    db.begin().prepare("a").unwrap();
    let disk = crashed(&disk);
    drop(db);
    let (db, _) = reopened(&disk);
    assert_eq!(gids(&db), ["a", "c"]);
    db.commit_prepared("a").unwrap();
    db.abort_prepared("c").unwrap();
    let disk = crashed(&disk);
    drop(db);
    assert_eq!(gids(&reopened(&disk).0), Vec::<String>::new());
}

/// S8: a backup has what is committed, and so nothing of what is prepared; nor has what is salvaged, which says so.
#[test]
fn a_backup_and_what_is_salvaged_have_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small_and_real().open(&path).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "a", "0")).unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "1").unwrap();
    txn.prepare("gid").unwrap();
    let backup = dir.path().join("backup");
    db.backup(&backup).unwrap();
    db.close().unwrap();
    let salvaged = dir.path().join("salvaged");
    let report = salvage(&path, &salvaged, small_and_real()).unwrap();
    assert_eq!(report.losses.len(), 1);
    assert!(
        report.losses[0].what.contains("prepared as `gid`"),
        "{report:?}"
    );
    for copy in [backup, salvaged] {
        let db = small_and_real().open(&copy).unwrap();
        let t = db.table("t").unwrap();
        assert_eq!(db.prepared(), []);
        assert!(!is_locked(&db, &t, "a", LockMode::Update));
        assert_eq!(get(&db, &t, "a").as_deref(), Some(&b"0"[..]));
        db.close().unwrap();
    }
    let db = small_and_real().open(&path).unwrap();
    assert_eq!(gids(&db), ["gid"]);
}

/// Of two that prepare under one global id one wins; of two that end it one does.
#[test]
fn threads_that_want_the_same_are_one_after_the_other() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    for round in 0..20 {
        let won = std::thread::scope(|threads| {
            let workers: Vec<_> = (0..4)
                .map(|number| {
                    let (db, t) = (&db, &t);
                    threads.spawn(move || {
                        let mut txn = db.begin();
                        txn.put(t, format!("{number}"), format!("{round}")).unwrap();
                        match txn.prepare("gid") {
                            Ok(()) => true,
                            Err(Error::GidInUse { .. }) => {
                                txn.commit().unwrap();
                                false
                            }
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .filter_map(|worker| worker.join().unwrap().then_some(()))
                .count()
        });
        assert_eq!(won, 1);
        let ended = std::thread::scope(|threads| {
            let workers: Vec<_> = (0..4)
                .map(|number| {
                    let db = &db;
                    threads.spawn(move || match number % 2 {
                        0 => db.commit_prepared("gid").is_ok(),
                        _ => db.abort_prepared("gid").is_ok(),
                    })
                })
                .collect();
            workers
                .into_iter()
                .filter(|_| true)
                .map(|worker| usize::from(worker.join().unwrap()))
                .sum::<usize>()
        });
        assert_eq!(ended, 1);
        assert_eq!(db.locks().count(), 0);
    }
}
