//! What is spilled frees the log (S3, S4): a manifest lists it, so a transaction may write more than the log can hold, or stay open as
//! long as it likes; and whatever the log has forgotten is as true behind a crash as what it has not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lockstone::{Database, Error, LockMode, Options, Ports, Table, Transaction};
use lockstone_base::clock::MonotonicClock;
use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, TxnId};
use lockstone_recovery::Inspection;
use lockstone_storage::provisional::Kind;
use lockstone_storage::{DeadSubs, Manifest};
use lockstone_testkit::{SimClock, SimDisk, Survivors};
use machine::{no_wait, ports, smallest};

/// The log's limit.
const LOG: u64 = 1 << 20;

/// The smallest log and memory that there are.
fn options() -> Options {
    smallest().provisional_bytes(LOG / 4)
}

fn open(disk: &Arc<SimDisk>) -> Result<Database, Error> {
    options().open_with(ports(disk))
}

fn key(number: u32) -> String {
    format!("{:08x}", number.wrapping_mul(0x9e37_79b1))
}

type Rows = BTreeMap<String, Vec<u8>>;

fn rows(db: &Database) -> Rows {
    let (snapshot, t) = (db.snapshot(), db.table("t").unwrap());
    let rows = snapshot.range(&t, ..).unwrap().map(Result::unwrap);
    let owned = rows.map(|(key, value)| {
        let key = String::from_utf8(key.to_vec()).unwrap();
        (key, value.to_vec())
    });
    owned.collect()
}

fn spills(disk: &SimDisk) -> Vec<String> {
    let is_spill = |name: &String| name.starts_with("spill-");
    disk.names().into_iter().filter(is_spill).collect()
}

/// Puts of `bytes` bytes in all, in values of 8 KiB.
fn fill(txn: &mut Transaction, t: &Table, model: &mut Rows, (bytes, mark): (u64, u8)) {
    for number in 0..(bytes / (8 << 10)) as u32 {
        let value = vec![mark; 8 << 10];
        txn.put(t, key(number), &value).unwrap();
        model.insert(key(number), value);
    }
}

/// Eight times what the log can hold; a part of it is undone, and a part of that written again.
fn write_far_more_than_the_log(txn: &mut Transaction, t: &Table, model: &mut Rows) {
    fill(txn, t, model, (3 * LOG, 1));
    let mark = txn.savepoint();
    let mut undone = Rows::new();
    fill(txn, t, &mut undone, (2 * LOG, 2));
    txn.rollback_to(mark).unwrap();
    fill(txn, t, model, (LOG, 3));
    txn.delete(t, key(300)).unwrap();
    model.remove(&key(300));
    fill(txn, t, model, (2 * LOG, 4));
}

#[test]
fn a_transaction_writes_many_times_what_the_log_can_hold() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut model = Rows::new();
    let mut txn = db.begin_with(no_wait().label("bulk"));
    write_far_more_than_the_log(&mut txn, &t, &mut model);
    let stats = db.stats();
    assert!(stats.log_bytes <= LOG, "{}", stats.log_bytes);
    assert!(stats.spills >= 24, "{}", stats.spills);
    for number in (0..700).step_by(31) {
        let found = txn.get(&t, key(number)).unwrap().map(Vec::from);
        assert_eq!(found.as_ref(), model.get(&key(number)), "{number}");
    }
    assert_eq!(rows(&db), Rows::new());

    // R6: who was in flight is known, though the log says nothing of most of it; and its files go.
    let crashed = disk.after_kill(disk.io_count());
    let held = spills(&crashed).len();
    assert!((2..=12).contains(&held), "{held}");
    assert!(stats.spill_merges >= 6, "{}", stats.spill_merges);
    {
        let db = open(&crashed).unwrap();
        let [in_flight] = &db.recovery_report().in_flight[..] else {
            panic!("{:?}", db.recovery_report())
        };
        assert_eq!(in_flight.label.as_deref(), Some("bulk"));
        assert_eq!(in_flight.txn, txn.id());
        assert!(
            // One that was spilled, and is written again, counts twice.
            (384..=2 * 384 + 8).contains(&in_flight.locks) && in_flight.writes >= 384,
            "{in_flight:?}"
        );
        assert_eq!(spills(&crashed), Vec::<String>::new());
        assert_eq!((rows(&db), db.locks().count()), (Rows::new(), 0));
    }

    txn.commit().unwrap();
    assert_eq!(rows(&db), model);
    // What it has adopted is there after any number of recoveries that flush nothing.
    let mut disk = disk;
    for _ in 0..3 {
        disk = disk.after_crash(disk.io_count(), &Survivors::None);
        let db = open(&disk).unwrap();
        assert_eq!(rows(&db), model);
        assert!(db.check().unwrap().is_clean());
        let report = db.recovery_report();
        assert_eq!((report.committed, report.in_flight.len()), (1, 0));
        assert!(report.rows_adopted >= model.len() as u64, "{report:?}");
        disk = disk.after_crash(disk.io_count(), &Survivors::None);
    }
    let db = open(&disk).unwrap();
    db.compact().unwrap();
    assert_eq!((rows(&db), spills(&disk)), (model, Vec::new()));
    db.close().unwrap();
}

/// R1, R5, S6: wherever the machine stops, there and again in the recovery.
#[test]
fn every_crash_leaves_all_or_nothing_of_what_the_log_could_not_hold() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, key(1), "before")).unwrap();
    let before = rows(&db);
    let mut after = before.clone();
    let begun = disk.io_count();
    let mut txn = db.begin_with(no_wait());
    write_far_more_than_the_log(&mut txn, &t, &mut after);
    txn.commit().unwrap();
    let acknowledged = disk.io_count();
    db.transact(|txn| txn.put(&t, "later", "1")).unwrap();
    db.compact().unwrap();
    drop(db);
    let (next, whole, listed) = (AtomicU64::new(begun), AtomicU64::new(0), AtomicU64::new(0));
    let verify = |crashed: &Arc<SimDisk>, at: u64, what: &str| {
        let db = open(crashed).unwrap_or_else(|error| panic!("at {at}, {what}: {error}"));
        let mut found = rows(&db);
        let later = found.remove("later");
        let is_after = found == after;
        assert!(is_after || found == before, "at {at}, {what}");
        assert!(is_after || at <= acknowledged, "at {at}, {what}");
        assert!(is_after || later.is_none(), "at {at}, {what}");
        let report = db.recovery_report();
        assert!(
            is_after || spills(crashed).is_empty(),
            "at {at}, {what}: {report:?}"
        );
        whole.fetch_add(u64::from(is_after), Ordering::Relaxed);
    };
    let enumerate = |at: u64| {
        for survivors in [
            Survivors::None,
            Survivors::All,
            Survivors::Random(at),
            Survivors::Torn { seed: at },
        ] {
            let crashed = disk.after_crash(at, &survivors);
            if let Ok(Some(manifest)) = Manifest::read_newest(&*crashed) {
                listed.fetch_add(u64::from(!manifest.spills.is_empty()), Ordering::Relaxed);
            }
            let first = crashed.io_count();
            verify(&crashed, at, &format!("{survivors:?}"));
            // Once more, in the middle of that recovery or of the close behind it.
            let inner = first + at % (crashed.io_count() - first + 1);
            let twice = crashed.after_crash(inner, &survivors);
            verify(&twice, at, &format!("{survivors:?}, and again"));
        }
    };
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at > disk.io_count() {
                        break;
                    }
                    enumerate(at);
                }
            });
        }
    });
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("{} calls", disk.io_count() - begun);
    assert!(count(&whole) > 0 && count(&listed) > 100);
}

/// S1, S4: whoever commits while manifests are written is in none of their lists too late, nor too early out of them.
#[test]
fn commits_beside_checkpoints_and_merges_are_whole_behind_every_crash() {
    const WRITERS: u32 = 3;
    const ROWS: u32 = 40;
    const ROUNDS: u8 = 12;
    let disk = SimDisk::new(1);
    let threaded = Ports {
        clock: Arc::new(MonotonicClock::new()),
        background: true,
        ..ports(&disk)
    };
    let db = options().log_bytes(4 * LOG).open_with(threaded).unwrap();
    let t = db.create_table("t").unwrap();
    let begun = disk.io_count();
    // When a commit was acknowledged: by how many calls of the disk, whose, and which.
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|threads| {
        let writers = (0..WRITERS).map(|writer| {
            let (db, t, disk, acknowledged) = (&db, &t, &disk, &acknowledged);
            threads.spawn(move || {
                for round in 1..=ROUNDS {
                    let put = |txn: &mut Transaction, rows: u32, mark: u8| {
                        let mut rows = 0..rows;
                        rows.try_for_each(|row| {
                            txn.put(t, key(writer << 20 | row), vec![mark; 8 << 10])
                        })
                    };
                    let run = || {
                        let mut txn = db.begin();
                        let mark = txn.savepoint();
                        put(&mut txn, u32::from(round) % 3 * 20, 0)?;
                        txn.rollback_to(mark)?;
                        put(&mut txn, ROWS, round)?;
                        txn.commit()
                    };
                    // The log is small, and who sleeps may be rolled back.
                    while let Err(error) = run() {
                        assert!(matches!(error, Error::LogFull { .. }), "{error}");
                    }
                    let ack = (disk.io_count(), writer, round);
                    acknowledged.lock().unwrap().push(ack);
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            db.compact().unwrap();
        }
    });
    let stats = db.stats();
    assert!(stats.spills > 60 && stats.log_bytes <= 4 * LOG, "{stats:?}");
    let acknowledged = acknowledged.into_inner().unwrap();
    let verify = |at: u64| {
        let crashed = disk.after_crash(at, &Survivors::Random(at));
        let db = open(&crashed).unwrap_or_else(|error| panic!("at {at}: {error}"));
        let found = rows(&db);
        for writer in 0..WRITERS {
            let of_writer = (0..ROWS).map(|row| found.get(&key(writer << 20 | row)));
            let rounds: BTreeSet<u8> = of_writer.map(|row| row.map_or(0, |row| row[0])).collect();
            let acks = acknowledged.iter();
            let acks = acks.filter(|(calls, by, _)| *calls <= at && *by == writer);
            let newest = acks.map(|(_, _, round)| *round).max().unwrap_or(0);
            let is_whole = rounds.len() == 1 && rounds.first() >= Some(&newest);
            assert!(is_whole, "at {at}: {writer} has {rounds:?}, of {newest}");
        }
    };
    let next = AtomicU64::new(begun);
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let at = next.fetch_add(3, Ordering::Relaxed);
                    if at > disk.io_count() {
                        break;
                    }
                    verify(at);
                }
            });
        }
    });
    drop(db);
}

/// S3: whoever calls now and then holds nothing back, however long it stays open and however little it has.
#[test]
fn a_transaction_that_stays_open_pins_no_log() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut writer = db.begin_with(no_wait().label("writer"));
    let mut locker = db.begin_with(no_wait().label("locker"));
    let mut undone = db.begin_with(no_wait().label("undone"));
    let mut most = 0;
    let mut model = Rows::new();
    for round in 0..2_500_u32 {
        db.transact(|txn| txn.put(&t, key(round % 7), vec![3; 8 << 10]))
            .unwrap();
        model.insert(key(round % 7), vec![3; 8 << 10]);
        if round % 25 == 0 {
            writer.put(&t, key(1_000 + round), "mine").unwrap();
            model.insert(key(1_000 + round), b"mine".to_vec());
            locker
                .lock(&t, key(100_000 + round), LockMode::Update)
                .unwrap();
            let mark = undone.savepoint();
            undone.put(&t, key(200_000 + round), "never").unwrap();
            undone.rollback_to(mark).unwrap();
        }
        most = most.max(db.stats().log_bytes);
    }
    assert!(disk.io_count() > 0 && most <= LOG, "{most}");
    let spilled = db.stats().spills;
    assert!((20..200).contains(&spilled), "{spilled}");
    let taken = |number: u32| {
        let locked = db
            .begin_with(no_wait())
            .lock(&t, key(number), LockMode::Share);
        matches!(locked, Err(Error::WouldBlock { .. }))
    };
    assert!(taken(1_000) && taken(100_000) && !taken(200_000));
    let crashed = disk.after_kill(disk.io_count());
    let report = open(&crashed).unwrap().recovery_report().clone();
    let held = |label: &str| {
        let found = report.in_flight.iter();
        let found = found.filter(|txn| txn.label.as_deref() == Some(label));
        found.map(|txn| (txn.locks, txn.writes)).collect::<Vec<_>>()
    };
    assert_eq!(held("writer"), [(100, 100)], "{report:?}");
    assert_eq!(held("locker"), [(100, 0)], "{report:?}");
    undone.commit().unwrap();
    locker.commit().unwrap();
    writer.commit().unwrap();
    assert_eq!(rows(&db), model);
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    assert_eq!(rows(&open(&crashed).unwrap()), model);
    db.close().unwrap();
}

/// V4, S4: what is undone between two manifests, of what the first one lists, is undone behind a crash as well.
#[test]
fn rollbacks_across_listings_are_kept() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut model = Rows::new();
    let mut txn = db.begin_with(no_wait());
    let checkpoint = || db.compact().unwrap();
    fill(&mut txn, &t, &mut model, (LOG / 2, 1));
    checkpoint();
    let straddled = txn.savepoint();
    let mut undone = Rows::new();
    fill(&mut txn, &t, &mut undone, (LOG / 8, 2));
    let inner = txn.savepoint();
    fill(&mut txn, &t, &mut undone, (2 * LOG, 3));
    checkpoint();
    // Some of its files go at once, though the newest manifest lists them.
    let listed = spills(&disk).len();
    txn.rollback_to(inner).unwrap();
    db.transact(|txn| txn.put(&t, "beside", "1")).unwrap();
    db.compact().unwrap();
    assert!(spills(&disk).len() < listed);
    model.insert("beside".into(), b"1".to_vec());
    let at_inner = disk.after_crash(disk.io_count(), &Survivors::All);
    txn.rollback_to(straddled).unwrap();
    let mut more = Rows::new();
    fill(&mut txn, &t, &mut more, (LOG / 4, 4));
    model.append(&mut more);
    // From here on the log has neither of the rollbacks.
    checkpoint();
    txn.commit().unwrap();
    assert_eq!(rows(&db), model);
    for survivors in [Survivors::None, Survivors::All] {
        let crashed = disk.after_crash(disk.io_count(), &survivors);
        assert_eq!(rows(&open(&crashed).unwrap()), model);
    }
    assert_eq!(rows(&open(&at_inner).unwrap()).len(), 1);
    db.compact().unwrap();
    assert_eq!(rows(&db), model);
    db.close().unwrap();
}

/// A database that lost power behind the commit of a transaction of which the log tells only a part, and beside another such one that
/// is open.
fn killed() -> (Arc<SimDisk>, Rows, TxnId) {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut model = Rows::new();
    let mut txn = db.begin_with(no_wait());
    let mut open_one = db.begin_with(no_wait().label("open"));
    for number in 0..300_u32 {
        for (txn, number) in [(&mut open_one, 10_000 + number), (&mut txn, number)] {
            // In order: no spill has a row between the ends of another, and none are merged.
            let (key, value) = (format!("{number:08}"), vec![number as u8; 8 << 10]);
            txn.put(&t, &key, &value).unwrap();
            model.insert(key, value);
        }
    }
    model.retain(|key, _| key.as_str() < "00010000");
    let begun = disk.io_count();
    txn.commit().unwrap();
    let crashed = (begun..=disk.io_count()).map(|at| disk.after_crash(at, &Survivors::All));
    let is_committed = |crashed: &Arc<SimDisk>| inspected(crashed).report().unwrap().committed == 1;
    let crashed = { crashed }.find(is_committed).unwrap();
    (crashed, model, open_one.id())
}

fn inspected(disk: &Arc<SimDisk>) -> Inspection {
    let disk: Arc<dyn Disk> = disk.clone();
    Inspection::open(disk, Arc::new(SimClock::new())).unwrap()
}

/// The files that the commit of [`killed`] has adopted, as the newest manifest lists them.
fn adopted(disk: &SimDisk, open: TxnId) -> Vec<String> {
    let manifest = Manifest::read_newest(disk).unwrap().unwrap();
    let of_commit = manifest.spills.iter().filter(|spill| {
        assert_eq!(spill.kind, Kind::Write);
        spill.parts[0].owner != open
    });
    of_commit.map(|spill| spill.run.file_name()).collect()
}

/// F11, F14: a file that only a commit behind `flushed_through` needs is read like any other.
#[test]
fn a_check_of_a_directory_finds_what_is_wrong_with_an_adopted_file() {
    let (disk, model, open_one) = killed();
    let files = adopted(&disk, open_one);
    assert!(files.len() > 4, "{files:?}");
    let (report, check) = inspected(&disk).check().unwrap();
    assert!(check.findings.is_empty(), "{:?}", check.findings);
    assert!(check.runs >= files.len());
    assert_eq!(check.versions, report.rows_adopted);
    assert_eq!(
        report.rows_adopted + report.rows_replayed,
        model.len() as u64
    );
    // Whether it is a finding or why nobody could open the database, the file is named.
    let found = |disk: &Arc<SimDisk>| match inspected(disk).check() {
        Ok((_, check)) => format!("{:?}", check.findings),
        Err(error) => error.to_string(),
    };
    let copy = || disk.after_kill(disk.io_count());
    let missing = copy();
    missing.remove_file(&files[1]);
    assert!(found(&missing).contains(&files[1]), "{}", found(&missing));
    for offset in [0, 100, 5_000, 60_000] {
        let flipped = copy();
        flipped.flip_byte(&files[1], offset);
        assert!(
            found(&flipped).contains(&files[1]),
            "at {offset}: {}",
            found(&flipped)
        );
    }
    let swapped = copy();
    let (first, second) = (swapped.read_file(&files[1]), swapped.read_file(&files[2]));
    swapped.write_file(&files[1], &second);
    swapped.write_file(&files[2], &first);
    assert!(found(&swapped).contains("spill-"), "{}", found(&swapped));
    // What belongs to nobody who has committed is nobody's loss.
    let of_open: Vec<_> = spills(&disk)
        .into_iter()
        .filter(|name| !files.contains(name))
        .collect();
    let without = copy();
    without.remove_file(&of_open[0]);
    assert_eq!(found(&without), "[]");
    assert_eq!(rows(&open(&without).unwrap()), model);
    // An open database checks them, too.
    let flipped = copy();
    flipped.flip_byte(&files[1], 5_000);
    let db = open(&flipped).unwrap();
    assert!(!db.check().unwrap().is_clean());
}

/// S8: a backup has what was committed, wherever it lies, and nothing of who is open.
#[test]
fn a_backup_has_what_was_committed_and_nothing_that_is_open() {
    let (disk, mut model, _) = killed();
    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    let mut open_one = db.begin_with(no_wait());
    let mut never = Rows::new();
    for number in 0..300_u32 {
        open_one
            .put(&t, key(20_000 + number), vec![9; 8 << 10])
            .unwrap();
    }
    fill(&mut open_one, &t, &mut never, (LOG / 8, 7));
    let mut txn = db.begin_with(no_wait());
    for number in 500..700 {
        let value = vec![5; 8 << 10];
        txn.put(&t, key(number), &value).unwrap();
        open_one.put(&t, key(30_000 + number), &value).unwrap();
        model.insert(key(number), value);
    }
    txn.commit().unwrap();
    db.compact().unwrap();
    let manifest = Manifest::read_newest(&*disk).unwrap().unwrap();
    assert!(!manifest.spills.is_empty() && manifest.unfinished.len() == 1);
    let copy = SimDisk::new(2);
    let to: Arc<dyn Disk> = copy.clone();
    db.backup_to(&to).unwrap();
    let manifest = Manifest::read_newest(&*copy).unwrap().unwrap();
    assert_eq!((manifest.spills.len(), manifest.unfinished.len()), (0, 0));
    drop(open_one);
    let copied = open(&copy).unwrap();
    assert_eq!(rows(&copied), model);
    assert!(copied.check().unwrap().is_clean());
    copied.close().unwrap();
}

/// R3: what the locks of a dead process were is told from files that the log has forgotten.
#[test]
fn the_locks_of_who_was_open_are_listed_though_the_log_is_gone() {
    let (disk, _, open_one) = killed();
    let locks = inspected(&disk).dead_locks().unwrap();
    assert_eq!(locks.len(), 300);
    assert!(locks.iter().all(|lock| lock.txn == open_one));
}

/// F23: whatever a manifest says of spills and transactions, with good checksums, gives a database or an error.
#[test]
fn hostile_lists_never_panic() {
    type Change = fn(&mut Manifest);
    let changes: [Change; 16] = [
        |all| all.spills.clear(),
        |all| all.unfinished.clear(),
        |all| {
            all.unfinished
                .iter_mut()
                .for_each(|txn| txn.state = vec![0; 27].into());
        },
        |all| {
            all.unfinished
                .iter_mut()
                .for_each(|txn| txn.state = "x".into());
        },
        |all| drop(all.spills.remove(0)),
        |all| {
            all.spills
                .iter_mut()
                .for_each(|it| it.parts[0].through = Lsn::MAX);
        },
        |all| {
            all.spills
                .iter_mut()
                .for_each(|it| it.parts[0].through = Lsn::ZERO);
        },
        |all| {
            all.spills
                .iter_mut()
                .for_each(|it| it.parts[0].spill = u64::MAX);
        },
        |all| all.spills.iter_mut().for_each(|it| it.parts[0].spill = 0),
        |all| all.spills.iter_mut().for_each(|it| it.kind = Kind::Lock),
        |all| all.spills.iter_mut().for_each(|it| it.kind = Kind::Mixed),
        |all| {
            let dead = DeadSubs::new([(0, u32::MAX)]);
            all.spills
                .iter_mut()
                .for_each(|it| it.parts[0].dead = dead.clone());
        },
        |all| {
            let (first, last) = (all.unfinished[0].txn, all.unfinished[1].txn);
            all.spills.iter_mut().for_each(|it| {
                it.parts[0].owner = if it.parts[0].owner == first {
                    last
                } else {
                    first
                };
            });
        },
        |all| {
            let first = all.spills[0].run.clone();
            let number = all.next_run;
            all.next_run += 1;
            all.spills[1].run = lockstone_storage::RunEntry { number, ..first };
        },
        |all| all.spills.iter_mut().for_each(|it| it.run.checksum ^= 1),
        |all| all.spills.iter_mut().for_each(|it| it.run.uuid ^= 1),
    ];
    let (disk, model, _) = killed();
    for (number, change) in changes.into_iter().enumerate() {
        let hostile = disk.after_kill(disk.io_count());
        let mut manifest = Manifest::read_newest(&*hostile).unwrap().unwrap();
        change(&mut manifest);
        let name = format!("manifest-{:016x}", manifest.generation);
        hostile.write_file(&name, &manifest.encode());
        match open(&hostile) {
            // What was superseded is not read; nothing else may be missing.
            Ok(db) => assert_eq!(rows(&db), model, "change {number}"),
            Err(error) => assert!(!matches!(error, Error::Poisoned), "{number}: {error}"),
        }
    }
    assert_eq!(rows(&open(&disk).unwrap()), model);
}
