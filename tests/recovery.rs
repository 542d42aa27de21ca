//! What recovery tells and leaves: the report, transactions in flight, fencing tokens, inspection.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstone::{Error, LockMode, Ports, Priority, Resolution, TxnOptions};
use lockstone_base::clock::Clock;
use lockstone_base::disk::{Disk, DiskFile, FileLock, OpenMode};
use lockstone_recovery::Inspection;
use lockstone_testkit::{SimClock, SimDisk, Survivors};
use machine::{no_wait, open};

/// The disk as a kill of the process leaves it now.
fn killed(disk: &SimDisk) -> Arc<SimDisk> {
    disk.after_kill(disk.io_count())
}

#[test]
fn the_report_names_who_was_in_flight_and_how_many_locks_each_had() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut batch = db.begin_with(no_wait().label("batch").priority(Priority::high(3)));
    for i in 0..1000u32 {
        batch.lock(&t, i.to_be_bytes(), LockMode::Share).unwrap();
    }
    // Upgrades and writes of rows that it holds are no further locks; what is rolled back is none.
    batch
        .lock(&t, 5u32.to_be_bytes(), LockMode::Update)
        .unwrap();
    batch.put(&t, 6u32.to_be_bytes(), "x").unwrap();
    let savepoint = batch.savepoint();
    batch.put(&t, "undone", "x").unwrap();
    batch
        .lock(&t, 7u32.to_be_bytes(), LockMode::Update)
        .unwrap();
    batch.rollback_to(savepoint).unwrap();
    let mut plain = db.begin_with(no_wait());
    plain.put(&t, "plain", "x").unwrap();
    let (batch_id, plain_id) = (batch.id(), plain.id());
    let mut aborted = db.begin_with(no_wait());
    aborted.put(&t, "aborted", "x").unwrap();
    aborted.abort();
    let mut committed = db.begin_with(no_wait());
    committed.put(&t, "committed", "x").unwrap();
    committed.commit().unwrap();

    let db = open(&killed(&disk)).unwrap();
    let report = db.recovery_report();
    assert!(!report.clean_shutdown && !report.created && report.torn.is_none());
    assert_eq!(
        (report.committed, report.rows_replayed, report.aborted),
        (1, 1, 1)
    );
    assert_eq!(report.in_flight.len(), 2);
    let [first, second] = &report.in_flight[..] else {
        unreachable!()
    };
    assert_eq!(
        (first.txn, first.label.as_deref(), first.locks, first.writes),
        (batch_id, Some("batch"), 1000, 1)
    );
    assert!(first.priority.is_high() && first.priority.number() == 3);
    assert_eq!(
        (
            second.txn,
            second.label.as_deref(),
            second.locks,
            second.writes
        ),
        (plain_id, None, 1, 1)
    );
    assert_eq!(first.resolution, Resolution::Aborted);
    assert_eq!(report.locks_in_flight(), 1001);
    assert_eq!(db.locks().count(), 0);
    assert!(db.begin().id() > batch_id, "the boot epoch was raised");
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["in_flight"][0]["label"], "batch");
    assert!(json["total_us"].is_u64());
}

#[test]
fn what_a_checkpoint_has_covered_is_not_read_again() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "k", "v")).unwrap();
    db.close().unwrap();
    let db = open(&disk).unwrap();
    let report = db.recovery_report();
    assert!(report.clean_shutdown);
    assert_eq!((report.committed, report.in_flight.len()), (0, 0));
    assert!(
        report.frames <= 3,
        "{} frames are left to read",
        report.frames
    );
    assert_eq!(
        db.begin()
            .get(&db.table("t").unwrap(), "k")
            .unwrap()
            .unwrap(),
        b"v"
    );
}

#[test]
fn many_crashes_in_a_row_take_no_space_and_reuse_no_id() {
    let mut disk = SimDisk::new(1);
    let (mut ids, mut room) = (Vec::new(), 0);
    for round in 0..12 {
        let db = open(&disk).unwrap();
        let t = db.create_table("t").unwrap();
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "k", [round]).unwrap();
        ids.push((txn.id(), txn.fencing_token(&t, "k").unwrap()));
        let next = disk.after_crash(disk.io_count(), &Survivors::All);
        if round == 3 {
            room = next.room_taken();
        }
        assert!(
            round < 3 || next.room_taken() <= room,
            "round {round} takes {} bytes, not {room}",
            next.room_taken()
        );
        disk = next;
    }
    assert!(ids.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{ids:?}");
}

#[test]
fn inspection_shows_what_a_crash_left_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("accounts").unwrap();
    let mut txn = db.begin_with(TxnOptions::new().label("dead"));
    txn.lock(&t, "alice", LockMode::Share).unwrap();
    let token = txn.lock(&t, "alice", LockMode::Update).unwrap();
    db.transact(|other| other.put(&t, "bob", "1")).unwrap();
    let disk = killed(&disk);
    let names = disk.names();
    let before: Vec<_> = names.iter().map(|name| disk.read_file(name)).collect();

    let inspection = Inspection::open(disk.clone(), Arc::new(SimClock::new())).unwrap();
    let report = inspection.report().unwrap();
    assert_eq!((report.committed, report.in_flight.len()), (1, 1));
    let locks = inspection.dead_locks().unwrap();
    assert_eq!(
        locks.len(),
        1,
        "a row is listed once, as its holder had it last"
    );
    assert_eq!(
        (locks[0].mode, locks[0].lsn, locks[0].row.key()),
        (LockMode::Update, token.lsn(), &b"alice"[..])
    );
    assert_eq!(locks[0].table.as_deref(), Some("accounts"));
    assert!(inspection.check().unwrap().1.findings.is_empty());
    // While it looks, nobody can open the database.
    assert!(open(&disk).is_err());
    drop(inspection);

    assert_eq!(disk.names(), names);
    assert!(
        names
            .iter()
            .zip(before)
            .all(|(name, bytes)| disk.read_file(name) == bytes),
        "nothing was changed"
    );
    open(&disk).unwrap();
}

/// Every byte of every file, one at a time: never a panic, never a wrong answer. What may happen: the
/// right rows, or an error; or, where no later frame covers it, a torn tail that the report tells of.
#[test]
fn a_flipped_byte_anywhere_gives_an_error_or_the_right_answer() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| (0..50u8).try_for_each(|i| txn.put(&t, [i], [i; 30])))
        .unwrap();
    db.close().unwrap();
    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    db.transact(|txn| txn.put(&t, "late", "1")).unwrap();
    db.close().unwrap();
    let disk = killed(&disk);
    let (mut errors, mut right, mut flips) = (0, 0, 0);
    for name in disk.names() {
        let bytes = disk.read_file(&name);
        // Of the zeros behind the log, one byte in each block stands for all.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        for offset in (0..used).chain((used..bytes.len()).step_by(4096)) {
            let damaged = disk.after_kill(disk.io_count());
            damaged.flip_byte(&name, offset as u64);
            flips += 1;
            let Ok(db) = open(&damaged) else {
                errors += 1;
                continue;
            };
            let Some(t) = db.table("t") else {
                panic!("{name} at {offset}: the table is gone without an error")
            };
            let rows: Result<Vec<_>, _> = db.begin().range(&t, ..).unwrap().collect();
            match rows {
                Err(_) => errors += 1,
                Ok(rows) => {
                    assert_eq!(
                        rows.len(),
                        51,
                        "{name} at {offset}: a wrong answer without an error"
                    );
                    assert!(
                        rows.iter()
                            .all(|(key, value)| &**key == b"late" || **value == [key[0]; 30])
                    );
                    right += 1;
                }
            }
        }
    }
    println!("{flips} flips: {errors} errors, {right} right answers");
    assert!(errors > 0 && right > 0);
}

/// F14: a file of the log that goes takes the frames along that would testify to them. Killed at any moment,
/// over checkpoints and recoveries: without any one segment the database is refused, or whole.
#[test]
fn without_any_one_segment_a_database_is_refused_or_whole() {
    let disk = SimDisk::new(1);
    let mut acknowledged = Vec::new();
    for _ in 0..2 {
        let db = open(&disk).unwrap();
        let t = match db.table("t") {
            Some(t) => t,
            None => db.create_table("t").unwrap(),
        };
        for _ in 0..14 {
            let key = (acknowledged.len() as u32).to_be_bytes();
            db.transact(|txn| txn.put(&t, key, vec![7; 60_000]))
                .unwrap();
            acknowledged.push(disk.io_count());
        }
        assert!(db.stats().checkpoints > 0);
        drop(db);
    }
    let (mut refused, mut whole) = (0, 0);
    for moment in 0..=disk.io_count() {
        let rows = acknowledged.partition_point(|at| *at <= moment);
        let dead = disk.after_kill(moment);
        let mut segments = dead.names();
        segments.retain(|name| name.starts_with("wal-0"));
        for name in segments {
            for cut in [None, Some(0), Some(4096)] {
                let damaged = dead.after_kill(dead.io_count());
                match cut {
                    None => damaged.remove_file(&name),
                    Some(bytes) => damaged.truncate(&name, bytes),
                }
                let Ok(db) = open(&damaged) else {
                    refused += 1;
                    continue;
                };
                whole += 1;
                let found = db.table("t").map_or(0, |t| {
                    let snapshot = db.snapshot();
                    snapshot.range(&t, ..).unwrap().map(Result::unwrap).count()
                });
                assert!(
                    found >= rows,
                    "{name} cut to {cut:?} behind call {moment} ({}): {found} of {rows}",
                    disk.describe(moment)
                );
            }
        }
    }
    println!("{refused} refused, {whole} whole");
    assert!(refused > 100);
}

/// A clock in whose third sleep a dying process lets go of a log segment.
#[derive(Debug)]
struct ReleasingClock {
    time: SimClock,
    sleeps: AtomicU32,
    held: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl Clock for ReleasingClock {
    fn now(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, time: Duration) {
        self.time.sleep(time);
        if self.sleeps.fetch_add(1, Ordering::Relaxed) == 2 {
            self.held.lock().unwrap().take();
        }
    }
}

/// F17: a killed process's files are closed one after the other, the log's behind the directory's.
#[test]
fn a_log_that_a_dead_process_lets_go_of_late_is_waited_for() {
    let disk = SimDisk::new(1);
    drop(open(&disk).unwrap());
    let segment = disk
        .names()
        .into_iter()
        .find(|name| name.starts_with("wal-0"))
        .unwrap();
    let held = disk.open(&segment, OpenMode::LogRead).unwrap();
    assert!(held.try_lock(FileLock::Exclusive).unwrap());
    assert!(
        matches!(open(&disk), Err(Error::Locked { .. })),
        "nobody lets go: refused after a while"
    );

    let clock = ReleasingClock {
        time: SimClock::new(),
        sleeps: AtomicU32::new(0),
        held: Mutex::new(Some(held)),
    };
    let ports = Ports {
        clock: Arc::new(clock),
        ..machine::ports(&disk)
    };
    machine::smallest().open_with(ports).unwrap();
}
