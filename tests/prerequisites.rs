//! Prerequisites, and durable locks: what must be there at the commit is there, and what was flushed is told of after a crash.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lockstone::{
    Database, Error, LockMode, OnConflict, Outcome, Priority, Resolution, ResourceMode, Table,
    TxnOptions,
};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{fresh, no_wait, open};

fn has_failed<T: std::fmt::Debug>(result: Result<T, Error>, says: &str) -> bool {
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::RolledBack);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains(says), "{error}");
    matches!(error, Error::PrerequisiteFailed { .. })
}

fn value(db: &Database, t: &Table, key: &str) -> Option<Vec<u8>> {
    db.snapshot().get(t, key).unwrap().map(Into::into)
}

#[test]
fn a_commit_needs_whom_it_requires_to_be_alive() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let ends: [fn(lockstone::Transaction); 3] = [
        |leader| drop(leader),
        |leader| {
            leader.commit().unwrap();
        },
        |mut leader| {
            leader.prepare("leader").unwrap();
        },
    ];
    for (at, end) in ends.into_iter().enumerate() {
        let mut leader = db.begin();
        leader.lock(&t, "leader", LockMode::Update).unwrap();
        let mut worker = db.begin();
        worker.require(leader.id()).unwrap();
        worker.require(leader.id()).unwrap();
        worker.require(worker.id()).unwrap();
        worker.put(&t, "a", at.to_string()).unwrap();
        worker.commit().unwrap();
        assert_eq!(value(&db, &t, "a"), Some(at.to_string().into_bytes()));
        let (mut worker, mut reader) = (db.begin(), db.begin());
        worker.put(&t, "b", "1").unwrap();
        for txn in [&mut worker, &mut reader] {
            txn.require(leader.id()).unwrap();
        }
        end(leader);
        if at == 2 {
            // Who is prepared is alive, until that is decided.
            worker.commit().unwrap();
            reader.commit().unwrap();
            db.abort_prepared("leader").unwrap();
            continue;
        }
        assert!(has_failed(worker.commit(), "has ended"));
        assert!(has_failed(reader.commit(), "has ended"));
        assert_eq!(value(&db, &t, "b"), None);
        // One that is gone already is told of at the commit.
        let mut late = db.begin();
        late.require("9-9".parse().unwrap()).unwrap();
        late.put(&t, "b", "1").unwrap();
        assert!(has_failed(late.commit(), "9-9 has ended"));
    }
}

#[test]
fn a_lock_that_is_required_must_be_the_same() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut leader = db.begin();
    let savepoint = leader.savepoint();
    let token = leader.lock(&t, "leader", LockMode::NoKeyUpdate).unwrap();
    let works = |key: &str| {
        let mut worker = db.begin();
        worker.require_lock(&t, "leader", token).unwrap();
        worker.put(&t, key, "1").unwrap();
        worker
    };
    works("a").commit().unwrap();
    leader.require_lock(&t, "leader", token).unwrap();
    let worker = works("b");
    leader.rollback_to(savepoint).unwrap();
    assert!(has_failed(worker.commit(), "row `leader` of table `t`"));
    let again = leader.lock(&t, "leader", LockMode::NoKeyUpdate).unwrap();
    assert!(again > token);
    assert!(has_failed(works("b").commit(), &token.to_string()));
    assert_eq!(value(&db, &t, "b"), None);
    // Its own requirement fails as well: that lock is gone.
    leader.put(&t, "c", "1").unwrap();
    assert!(has_failed(leader.commit(), "nobody holds"));
}

#[test]
fn prerequisites_are_asked_by_prepare_and_not_after() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let leader = db.begin();
    let (mut early, mut late) = (db.begin(), db.begin());
    for txn in [&mut early, &mut late] {
        txn.require(leader.id()).unwrap();
    }
    early.put(&t, "early", "1").unwrap();
    late.put(&t, "late", "1").unwrap();
    early.prepare("early").unwrap();
    drop(leader);
    assert!(has_failed(late.prepare("late"), "has ended"));
    assert!(matches!(
        late.commit(),
        Err(Error::PrerequisiteFailed { .. })
    ));
    db.commit_prepared("early").unwrap();
    assert_eq!(db.prepared().len(), 0);
    assert_eq!(value(&db, &t, "late"), None);
}

/// Leaders hold a resource one after the other, and are wounded or end; workers commit under the leader whom they know. Whoever becomes
/// the leader sees all that was committed under the one before, and nothing of it comes later.
#[test]
fn nothing_is_committed_under_a_leader_when_the_next_one_reads() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let (term, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let leader_id = std::sync::Mutex::new(None);
    let (mut failed, mut done) = (0, 0);
    thread::scope(|scope| {
        let (db, t, term, over, leader_id) = (&db, &t, &term, &over, &leader_id);
        scope.spawn(move || {
            for round in 0..1000_u32 {
                let strong = TxnOptions::new()
                    .on_conflict(OnConflict::Wound)
                    .priority(Priority::high(round));
                let mut leader = db.begin_with(strong);
                leader
                    .lock_resource("leader", ResourceMode::Exclusive)
                    .unwrap();
                // What it sees once it has the lock is final for all terms before.
                let read = |leader: &lockstone::Transaction| {
                    let count = leader.get(t, "zz").unwrap();
                    count.map_or(0, |count| u64::from_le_bytes(count[..].try_into().unwrap()))
                };
                let before = read(&leader);
                thread::yield_now();
                assert_eq!(
                    read(&leader),
                    before,
                    "a commit under a leader that is gone"
                );
                term.store(u64::from(round) + 1, Ordering::SeqCst);
                *leader_id.lock().unwrap() = Some(leader.id());
                thread::sleep(std::time::Duration::from_micros(300));
                if round % 2 == 0 {
                    *leader_id.lock().unwrap() = None;
                    drop(leader);
                } else {
                    // The next one wounds it.
                    scope.spawn(move || {
                        thread::sleep(std::time::Duration::from_micros(500));
                        drop(leader);
                    });
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        while !over.load(Ordering::SeqCst) {
            let Some(id) = *leader_id.lock().unwrap() else {
                continue;
            };
            let mut worker = db.begin();
            worker.require(id).unwrap();
            // A hold of many rows, of which the one that is read comes last.
            for row in 0..60_u8 {
                worker.put(t, [row], [row; 500]).unwrap();
            }
            let so_far: u64 = done;
            worker.put(t, "zz", (so_far + 1).to_le_bytes()).unwrap();
            match worker.commit() {
                Ok(_) => done += 1,
                Err(Error::PrerequisiteFailed { .. }) => failed += 1,
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(done > 20 && failed > 20, "{done} done, {failed} failed");
}

#[test]
fn what_was_flushed_is_told_of_after_a_crash() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait().label("job"));
    txn.flush().unwrap();
    txn.lock(&t, "a", LockMode::Share).unwrap();
    txn.put(&t, "b", "1").unwrap();
    let unflushed = disk.after_crash(disk.io_count(), &Survivors::None);
    assert_eq!(
        open(&unflushed).unwrap().recovery_report().in_flight.len(),
        0
    );
    txn.flush().unwrap();
    let mut cursor = txn.range_for(&t, .., LockMode::Update).unwrap();
    cursor.next().unwrap().unwrap();
    drop(cursor);
    txn.flush().unwrap();
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    let db = open(&crashed).unwrap();
    let report = db.recovery_report();
    assert_eq!(report.in_flight.len(), 1);
    let found = &report.in_flight[0];
    assert_eq!((found.txn, found.locks, found.writes), (txn.id(), 2, 1));
    assert_eq!(found.resolution, Resolution::Aborted);
    let t = db.table("t").unwrap();
    db.begin_with(no_wait())
        .lock(&t, "a", LockMode::Update)
        .unwrap();
}
