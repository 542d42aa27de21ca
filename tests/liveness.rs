//! What keeps the engine going when something goes wrong: each test opens with the way it once stood still.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use lockstone::{
    Database, Durability, Error, LockMode, OnConflict, Options, Outcome, Ports, Result, TxnOptions,
};
use lockstone_base::clock::{Clock, MonotonicClock};
use lockstone_base::disk::DiskOp;
use lockstone_testkit::{SeededEntropy, SimClock, SimDisk, Survivors};
use machine::{no_wait, open, ports, smallest};

/// A simulated disk under an engine with its background threads.
fn threaded(disk: &Arc<SimDisk>) -> Ports {
    Ports {
        disk: disk.clone(),
        clock: Arc::new(MonotonicClock::new()),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: true,
    }
}

fn roomy() -> Options {
    Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(64 << 20)
        .memory_bytes(64 << 20)
}

/// A merge that failed ended the checkpoint before its manifest, so one damaged block filled the log.
#[test]
fn a_damaged_block_does_not_stop_checkpoints() {
    let disk = SimDisk::new(1);
    for life in 0..8u32 {
        let db = open(&disk).unwrap();
        let t = db.create_table("t").unwrap();
        let row = |i: u32| (life * 1000 + i).to_be_bytes();
        db.transact(|txn| (0..300u32).try_for_each(|i| txn.put(&t, row(i), [7u8; 64])))
            .unwrap();
        db.close().unwrap();
    }
    let run = disk
        .names()
        .into_iter()
        .find(|name| name.starts_with("run-"))
        .unwrap();
    disk.flip_byte(&run, 6000);
    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    for i in 0..600u32 {
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "fresh", vec![1u8; 5000])
            .unwrap_or_else(|error| panic!("write {i}: {error}"));
        txn.commit().unwrap();
    }
    assert!(db.stats().checkpoints > 0);
    db.close().unwrap();
}

/// A run file that could not be unlinked ended the checkpoint before the log was recycled.
#[test]
fn a_file_that_cannot_be_removed_does_not_stop_the_log() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    disk.fail_matching(DiskOp::Remove, "run-", ErrorKind::PermissionDenied);
    for i in 0..1000u32 {
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "k", vec![1u8; 9000])
            .unwrap_or_else(|error| panic!("write {i}: {error}"));
        txn.commit().unwrap();
    }
    assert!(
        disk.faults_fired() > 0,
        "a merge took place, and its old files stayed"
    );
}

/// Writers filled the log while a checkpoint flushed, and the oldest of them was rolled back for it.
#[test]
fn nobody_is_rolled_back_for_the_log_who_does_not_hold_it_back() {
    let dir = tempfile::tempdir().unwrap();
    // Filled many times over, yet not while one thread waits for its turn on the processor.
    let options = Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(32 << 20)
        .memory_bytes(64 << 20);
    let db = options.open(dir.path().join("db")).unwrap();
    let t = db.create_table("t").unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for thread in 0..6u32 {
            let (db, t) = (&db, &t);
            scope.spawn(move || {
                let buffered = || TxnOptions::new().durability(Durability::Buffered);
                for round in (0..u32::MAX).take_while(|_| Instant::now() < until) {
                    db.transact_with(buffered(), |txn| -> Result<()> {
                        let mut keys = (0..4u32).map(|k| format!("{thread}-{k}"));
                        keys.try_for_each(|key| txn.put(t, key, vec![round as u8; 8000]))
                    })
                    .unwrap();
                }
            });
        }
    });
    assert!(db.stats().checkpoints > 0, "the log came to its limit");
}

/// The gap that each reopen leaves in the log's address space was counted as log.
#[test]
fn reopens_do_not_use_up_the_log() {
    let mut disk = SimDisk::new(1);
    drop(open(&disk).unwrap().create_table("t").unwrap());
    for _ in 0..20 {
        let db = open(&disk).unwrap();
        let crashed = disk.after_crash(disk.io_count(), &Survivors::All);
        drop(db);
        disk = crashed;
    }
    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    txn.put(&t, "a", "1").unwrap();
    db.transact(|other| other.put(&t, "b", "1")).unwrap();
    txn.put(&t, "c", "1").unwrap();
    txn.commit().unwrap();
}

/// W11: those who waited for a lock slept on when the log failed.
#[test]
fn a_failed_log_wakes_who_waits_for_a_lock() {
    let disk = SimDisk::new(1);
    let db = smallest().open_with(threaded(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin();
    holder.put(&t, "k", "1").unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn({
        let (db, t) = (db.clone(), t.clone());
        move || sender.send(db.begin().put(&t, "k", "2")).unwrap()
    });
    while db.stats().lock_waits == 0 {
        std::thread::yield_now();
    }
    let mut doomed = db.begin();
    doomed.put(&t, "x", "1").unwrap();
    disk.fail_matching(DiskOp::WriteDurable, "wal-", ErrorKind::Other);
    assert!(matches!(doomed.commit(), Err(Error::Poisoned)));
    let answer = receiver.recv_timeout(Duration::from_secs(20));
    assert!(matches!(answer, Ok(Err(Error::Poisoned))), "{answer:?}");
}

/// G9: a full disk sent the keeper to sleep for good.
#[test]
fn a_buffered_commit_is_flushed_by_itself_after_the_disk_was_full() {
    let disk = SimDisk::new(1);
    let db = roomy().open_with(threaded(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    disk.set_capacity(Some(disk.room_taken()));
    let mut txn = db.begin_with(no_wait());
    let error =
        (0..1_000_000u32).find_map(|i| txn.lock(&t, i.to_be_bytes(), LockMode::Share).err());
    assert!(matches!(error, Some(Error::DiskFull { .. })), "{error:?}");
    drop(txn);
    // Long enough for the keeper to find that it cannot cover the log.
    std::thread::sleep(Duration::from_millis(300));
    disk.set_capacity(None);
    let mut buffered = db.begin_with(TxnOptions::new().durability(Durability::Buffered));
    buffered.put(&t, "k", "v").unwrap();
    let lsn = buffered.commit().unwrap();
    let begun = Instant::now();
    while db.stats().durable <= lsn {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nobody flushes it"
        );
        std::thread::yield_now();
    }
}

/// While an open transaction held back half of the log, every commit took a checkpoint.
#[test]
fn an_open_transaction_does_not_make_every_commit_a_checkpoint() {
    let disk = SimDisk::new(1);
    let db = smallest().open_with(ports(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    let mut left_open = db.begin_with(no_wait());
    left_open.put(&t, "mine", "1").unwrap();
    while db.stats().log_bytes < 600 << 10 {
        db.transact(|txn| txn.put(&t, "k", vec![1u8; 3000]))
            .unwrap();
    }
    let before = db.stats().checkpoints;
    for _ in 0..30 {
        db.transact(|txn| txn.put(&t, "k", "v")).unwrap();
    }
    let taken = db.stats().checkpoints - before;
    assert!(taken <= 2, "{taken} checkpoints for 30 commits of one row");
}

/// A cursor whose transaction had ended gave the error for ever, and `collect` took all memory.
#[test]
fn a_cursor_ends_when_its_transaction_has() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "a", "1")).unwrap();
    let mut txn = db.begin_with(no_wait());
    let cursor = txn.range_for(&t, .., LockMode::Share).unwrap();
    db.clone().close().unwrap();
    assert_eq!(
        cursor
            .take(1000)
            .map(|row| row.is_err())
            .collect::<Vec<_>>(),
        [true]
    );
}

/// A cursor that could not lock a row went on behind it, though it said that nothing had changed.
#[test]
fn a_cursor_comes_back_to_the_row_that_it_could_not_lock() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| ["a", "b"].iter().try_for_each(|key| txn.put(&t, key, "1")))
        .unwrap();
    for backward in [false, true] {
        let first = if backward { "b" } else { "a" };
        let mut holder = db.begin_with(no_wait());
        holder.lock(&t, first, LockMode::Update).unwrap();
        let mut txn = db.begin_with(no_wait());
        let mut cursor = txn.range_for(&t, .., LockMode::Update).unwrap();
        let mut step = || {
            if backward {
                cursor.next_back()
            } else {
                cursor.next()
            }
        };
        let error = step().unwrap().unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unchanged);
        drop(holder);
        assert_eq!(&*step().unwrap().unwrap().0, first.as_bytes());
        assert!(step().unwrap().is_ok() && step().is_none());
    }
}

/// Watches, in every sleep, whether row `a` is locked.
#[derive(Debug)]
struct Spy {
    time: SimClock,
    db: OnceLock<Database>,
    locked: AtomicUsize,
}

impl Clock for Spy {
    fn now(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, time: Duration) {
        if let Some(db) = self.db.get() {
            let on_a = db
                .locks()
                .filter(|lock| lock.as_ref().unwrap().key.as_deref() == Some("a"));
            self.locked.fetch_add(on_a.count(), Ordering::Relaxed);
        }
        self.time.sleep(time);
    }
}

/// The attempt that had failed kept its locks while `transact` waited before the next.
#[test]
fn transact_waits_without_locks() {
    let disk = SimDisk::new(1);
    let spy = Arc::new(Spy {
        time: SimClock::new(),
        db: OnceLock::new(),
        locked: AtomicUsize::new(0),
    });
    let ports = Ports {
        clock: spy.clone(),
        ..ports(&disk)
    };
    let db = smallest().retries_max(3).open_with(ports).unwrap();
    let t = db.create_table("t").unwrap();
    spy.db.set(db.clone()).unwrap();
    let mut holder = db.begin_with(no_wait());
    holder.lock(&t, "b", LockMode::Update).unwrap();
    let result: Result<()> = db.transact_with(no_wait(), |txn| {
        txn.put(&t, "a", "1")?;
        txn.put(&t, "b", "1")
    });
    assert!(matches!(result, Err(Error::WouldBlock { .. })));
    drop(holder);
    assert_eq!(
        spy.locked.load(Ordering::Relaxed),
        0,
        "row a was locked in a sleep"
    );
    db.close().unwrap();
}

/// A transaction that began first was killed in a deadlock, run again, and killed again for its new id.
#[test]
fn transact_keeps_the_age_of_the_first_attempt() {
    let disk = SimDisk::new(1);
    let db = smallest().open_with(threaded(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    let mut blocker = db.begin();
    blocker.lock(&t, "z", LockMode::Update).unwrap();
    let patient = OnConflict::Wait {
        timeout: Some(Duration::from_millis(100)),
    };
    let (mut attempt, mut younger) = (0, None);
    std::thread::scope(|scope| {
        db.transact_with(
            TxnOptions::new().on_conflict(patient),
            |txn| -> Result<()> {
                attempt += 1;
                if attempt == 1 {
                    younger = Some(db.begin());
                    return txn.put(&t, "z", "1");
                }
                let mut other = younger.take().expect("the second attempt succeeds");
                other.put(&t, "y", "1")?;
                txn.put(&t, "x", "1")?;
                let (waits, t) = (db.stats().lock_waits, t.clone());
                scope.spawn({
                    let t = t.clone();
                    move || other.put(&t, "x", "2").is_err()
                });
                while db.stats().lock_waits == waits {
                    std::thread::yield_now();
                }
                txn.put(&t, "y", "2")
            },
        )
        .unwrap();
    });
    assert_eq!(attempt, 2);
}

/// A rollback by the engine was counted, and logged, once by the call that failed and once by the drop.
#[test]
fn a_transaction_is_counted_once() {
    let disk = SimDisk::new(1);
    let db = roomy().open_with(ports(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    disk.set_capacity(Some(disk.room_taken()));
    let mut txn = db.begin_with(no_wait());
    let error =
        (0..1_000_000u32).find_map(|i| txn.lock(&t, i.to_be_bytes(), LockMode::Share).err());
    assert!(matches!(error, Some(Error::DiskFull { .. })));
    drop(txn);
    assert_eq!(db.stats().aborts, 1);
}

/// Each rollback walked over all that the transaction had done before.
#[test]
fn rollbacks_are_replayed_whatever_came_before_them() {
    let disk = SimDisk::new(1);
    let db = roomy().open_with(ports(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    for i in 0..2000u32 {
        txn.put(&t, i.to_be_bytes(), "kept").unwrap();
        let savepoint = txn.savepoint();
        txn.put(&t, i.to_be_bytes(), "undone").unwrap();
        txn.lock(&t, "undone", LockMode::Share).unwrap();
        txn.rollback_to(savepoint).unwrap();
    }
    txn.commit().unwrap();
    let db = roomy()
        .open_with(ports(&disk.after_kill(disk.io_count())))
        .unwrap();
    let t = db.table("t").unwrap();
    assert_eq!(db.recovery_report().rows_replayed, 2000);
    assert!(
        db.begin()
            .range(&t, ..)
            .unwrap()
            .all(|row| row.unwrap().1 == b"kept")
    );
}
