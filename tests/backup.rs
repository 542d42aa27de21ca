//! Backups: whole, of one moment, durable, databases of their own, and nobody's files are taken for another's (S8).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lockstone::{Database, Durability, Error, LockMode, Options, Ports, Table, TxnOptions};
use lockstone_base::clock::MonotonicClock;
use lockstone_base::disk::{Disk, DiskOp};
use lockstone_testkit::{HookedDisk, SeededEntropy, SimDisk, Survivors};
use machine::{fresh, no_wait, open, small_and_real};

fn put(db: &Database, table: &Table, key: &str, value: &str) {
    let mut txn = db.begin();
    txn.put(table, key, value).unwrap();
    txn.commit().unwrap();
}

type Rows = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn rows(db: &Database) -> Rows {
    let snapshot = db.snapshot();
    let of = |t: &Table| {
        let rows = snapshot.range(t, ..).unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (key.into(), value.into()))
            .collect()
    };
    db.tables()
        .iter()
        .map(|t| (t.name().to_owned(), of(t)))
        .collect()
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The backup went on reading in a directory that was free, and another owner could take its files away.
#[test]
fn closing_ends_a_backup_and_waits_for_its_end() {
    let sim = SimDisk::new(1);
    // What happens when the backup is in the middle of its first run.
    let (meets, met) = std::sync::mpsc::sync_channel::<()>(0);
    let (goes_on, may_go_on) = std::sync::mpsc::sync_channel::<()>(0);
    let (meets, may_go_on) = (Mutex::new(meets), Mutex::new(may_go_on));
    let hooked = HookedDisk::new(sim.clone(), move |op, name| {
        let is_backup = std::thread::current().name() == Some("backup");
        if is_backup && op == DiskOp::Open && name.starts_with("run-") {
            meets.lock().unwrap().send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
    });
    let ports = |disk: Arc<dyn Disk>| Ports {
        disk,
        clock: Arc::new(MonotonicClock::new()),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: true,
    };
    let options = || Options::new().segment_bytes(1 << 20).log_bytes(4 << 20);
    let db = options().open_with(ports(hooked)).unwrap();
    let t = db.create_table("t").unwrap();
    put(&db, &t, "a", "1");
    let copy = SimDisk::new(2);
    let to: Arc<dyn Disk> = copy.clone();
    let backup = std::thread::Builder::new().name("backup".into());
    let backup = backup.spawn({
        let db = db.clone();
        move || db.backup_to(&to)
    });
    met.recv().unwrap();
    let closer = std::thread::spawn({
        let db = db.clone();
        move || db.close()
    });
    while db.check().is_ok() {
        std::thread::yield_now();
    }
    for _ in 0..2 {
        let other = options().open_with(ports(sim.clone()));
        assert!(matches!(other, Err(Error::Locked { .. })), "it is read");
        assert!(!closer.is_finished());
        std::thread::yield_now();
    }
    goes_on.send(()).unwrap();
    assert!(matches!(
        backup.unwrap().join().unwrap(),
        Err(Error::Closed)
    ));
    closer.join().unwrap().unwrap();
    assert!(copy.names().iter().all(|name| !name.starts_with("run-")));
    let db = options().open_with(ports(sim)).unwrap();
    assert_eq!(rows(&db)["t"].len(), 1);
}

/// Writers end, be it because the test has failed.
struct StopsWhenGone<'a>(&'a AtomicBool);

impl Drop for StopsWhenGone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_taken_beside_writers_is_of_one_moment() {
    const ACCOUNTS: u64 = 50;
    const EACH: u64 = 1_000;
    let (dir, db) = fresh();
    let bank = db.typed_table::<u64, u64>("bank").unwrap();
    let mut txn = db.begin();
    for account in 0..ACCOUNTS {
        bank.put(&mut txn, &account, &EACH).unwrap();
    }
    txn.commit().unwrap();
    let (stop, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 1..=2_u64 {
            let (db, bank, stop, moved) = (&db, &bank, &stop, &moved);
            scope.spawn(move || {
                let mut state = seed;
                while !stop.load(Ordering::Relaxed) {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let (from, to) = ((state >> 33) % ACCOUNTS, (state >> 45) % ACCOUNTS);
                    let buffered = TxnOptions::new().durability(Durability::Buffered);
                    let done: Result<(), Error> = db.transact_with(buffered, |txn| {
                        let have = bank.get_for(txn, &from, LockMode::Update)?.unwrap();
                        if from != to && have > 0 {
                            let other = bank.get_for(txn, &to, LockMode::Update)?.unwrap();
                            bank.put(txn, &from, &(have - 1))?;
                            bank.put(txn, &to, &(other + 1))?;
                        }
                        Ok(())
                    });
                    done.unwrap();
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stops = StopsWhenGone(&stop);
        for round in 0..4 {
            let marks = db.create_table("marks").unwrap();
            put(&db, &marks, &round.to_string(), "acknowledged before");
            let mut open = db.begin();
            open.put(&marks, "open", "never").unwrap();
            let path = dir.path().join(format!("backup {round}"));
            db.backup(&path).unwrap();
            drop(open);
            let copy = small_and_real().open(&path).unwrap();
            assert!(copy.recovery_report().clean_shutdown);
            assert!(copy.check().unwrap().is_clean());
            let bank = copy.typed_table::<u64, u64>("bank").unwrap();
            let snapshot = copy.snapshot();
            let sum: u64 = bank
                .range(&snapshot, ..)
                .unwrap()
                .map(|row| row.unwrap().1)
                .sum();
            assert_eq!(sum, ACCOUNTS * EACH);
            let marks: Vec<_> = rows(&copy)["marks"].keys().cloned().collect();
            let expected: Vec<_> = (0..=round).map(|r| r.to_string().into_bytes()).collect();
            assert_eq!(marks, expected);
        }
    });
    assert!(moved.load(Ordering::Relaxed) > 0);
}

#[test]
fn only_an_empty_directory_takes_a_backup() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    put(&db, &t, "a", "1");
    let path = |name: &str| dir.path().join(name);
    let refused = |path: &Path| {
        let error = db.backup(path).unwrap_err();
        assert!(matches!(error, Error::DirectoryNotEmpty { .. }), "{error}");
        assert!(
            error.to_string().contains(" is not empty: a backup goes "),
            "{error}"
        );
    };
    fs::create_dir(path("mine")).unwrap();
    fs::write(path("mine").join("letter"), "dear").unwrap();
    refused(&path("mine"));
    assert_eq!(fs::read_dir(path("mine")).unwrap().count(), 1);
    refused(&path("db"));
    fs::create_dir(path("empty")).unwrap();
    db.backup(path("empty")).unwrap();
    refused(&path("empty"));
    let error = db.backup(path("no").join("parent")).unwrap_err();
    assert!(matches!(error, Error::NotADatabase { .. }), "{error}");
    assert!(!path("no").exists());
    db.clone().close().unwrap();
    assert!(matches!(db.backup(path("late")), Err(Error::Closed)));
    assert!(!path("late").exists());
}

/// Runs are shared by links, and live on in the copy when the origin has merged them away; backups of backups keep
/// the runs of the first.
#[test]
fn a_copy_of_a_copy_keeps_what_the_origin_has_merged_away() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let path = |name: &str| dir.path().join(name);
    put(&db, &t, "a", "first");
    db.backup(path("one")).unwrap();
    let runs = |name: &str| {
        let entries = fs::read_dir(path(name)).unwrap().map(Result::unwrap);
        let names = entries.map(|entry| entry.path());
        names
            .filter(|path| path.to_string_lossy().contains("/run-"))
            .collect::<Vec<_>>()
    };
    for run in runs("one") {
        assert_eq!(fs::metadata(run).unwrap().nlink(), 2);
    }
    let one = small_and_real().open(path("one")).unwrap();
    let of_one = one.table("t").unwrap();
    put(&one, &of_one, "b", "second");
    one.backup(path("two")).unwrap();
    for round in 0..12 {
        put(&db, &t, "a", &round.to_string());
        db.backup(path(&format!("other {round}"))).unwrap();
    }
    db.close().unwrap();
    fs::remove_dir_all(path("db")).unwrap();
    let two = small_and_real().open(path("two")).unwrap();
    assert!(two.check().unwrap().is_clean());
    let expected = BTreeMap::from([
        (b"a".to_vec(), b"first".to_vec()),
        (b"b".to_vec(), b"second".to_vec()),
    ]);
    assert_eq!(rows(&two)["t"], expected);
    assert_ne!(two.info().uuid, one.info().uuid);
    let later = two.table("t").unwrap();
    put(&two, &later, "c", "third");
    two.close().unwrap();
    let two = small_and_real().open(path("two")).unwrap();
    assert_eq!(rows(&two)["t"].len(), 3);
}

/// F14: whichever file of the one is put in the place of the other's, nobody sees a row that is not its own.
#[test]
fn no_file_of_a_copy_or_its_origin_is_taken_for_the_others() {
    let (dir, db) = fresh();
    let path = |name: &str| dir.path().join(name);
    let t = db.create_table("t").unwrap();
    put(&db, &t, "shared", "1");
    db.backup(path("copy")).unwrap();
    let copy = small_and_real().open(path("copy")).unwrap();
    let of_copy = copy.table("t").unwrap();
    // Both go on, to the same lengths, with the same numbers for runs and manifests.
    for _ in 0..2 {
        for (db, t, whose) in [(&db, &t, "origin"), (&copy, &of_copy, "copy")] {
            for key in ["a", "b"] {
                put(db, t, key, whose);
            }
            db.backup(path(&format!("flush {whose}"))).unwrap();
            fs::remove_dir_all(path(&format!("flush {whose}"))).unwrap();
            put(db, t, "in the log", whose);
        }
    }
    let expected = [("db", rows(&db)), ("copy", rows(&copy))];
    // Copied as they lie, so that the log has something to say.
    copied(&path("db"), &path("db as it lay"));
    copied(&path("copy"), &path("copy as it lay"));
    drop((db, t, copy, of_copy));
    let (mut refused, mut strangers, mut same) = (0, 0, 0);
    for (mine, other) in [("db", "copy"), ("copy", "db")] {
        let lay = |name: &str| path(&format!("{name} as it lay"));
        let (_, mine_rows) = expected.iter().find(|(name, _)| *name == mine).unwrap();
        for file in fs::read_dir(lay(other)).unwrap() {
            let name = file.unwrap().file_name();
            let mixed = path("mixed");
            copied(&lay(mine), &mixed);
            fs::copy(lay(other).join(&name), mixed.join(&name)).unwrap();
            match small_and_real().open(&mixed) {
                Err(error) => {
                    refused += 1;
                    let name = name.to_string_lossy();
                    let is_log = name.starts_with("wal-0");
                    // Not by chance, because the chain does not fit: the file is known for a stranger's.
                    let is_foreign = error.to_string().contains("another database");
                    assert!(is_foreign || !is_log, "{name}: {error}");
                    strangers += u32::from(is_foreign && is_log);
                }
                Ok(db) => {
                    assert_eq!(&rows(&db), mine_rows, "{name:?} of {other} in {mine}");
                    same += 1;
                }
            }
            fs::remove_dir_all(&mixed).unwrap();
        }
    }
    assert!(
        strangers > 0 && refused > 3 && same > 0,
        "{refused} refused, {same} harmless"
    );
}

fn origin() -> (Arc<SimDisk>, Database, Rows) {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    for name in ["one", "two", "gone"] {
        let t = db.create_table(name).unwrap();
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "a", name).unwrap();
        txn.put(&t, "b", vec![7; 3_000]).unwrap();
        txn.commit().unwrap();
        if name == "gone" {
            db.drop_table(&t).unwrap();
        }
    }
    let expected = rows(&db);
    (disk, db, expected)
}

#[test]
fn every_crash_leaves_a_whole_backup_or_no_database() {
    let (_disk, db, expected) = origin();
    let to = SimDisk::new(2);
    let port: Arc<dyn Disk> = to.clone();
    db.backup_to(&port).unwrap();
    let calls = to.io_count();
    let (mut none, mut empty, mut whole) = (0, 0, 0);
    for at in 0..=calls {
        for survivors in Survivors::enumerate(to.unsynced(at), 2) {
            let crashed = to.after_crash(at, &survivors);
            let what = format!("power loss behind call {at} ({})", to.describe(at));
            match open(&crashed) {
                Err(Error::Corrupt {
                    file, what: why, ..
                }) => {
                    assert!(file.ends_with("manifest-*"), "{what}: {why}");
                    none += 1;
                }
                Err(error) => panic!("{what}: {error}"),
                // Nothing of weight was there: a new database was created.
                Ok(db) if db.recovery_report().created => empty += 1,
                Ok(db) => {
                    assert_eq!(rows(&db), expected, "{what}");
                    whole += 1;
                }
            }
            assert!(
                at < calls || whole > 0,
                "it is durable when the call returns"
            );
        }
    }
    assert!(none > 0 && empty > 0 && whole > 0);
    let last = to.after_crash(calls, &Survivors::None);
    assert_eq!(rows(&open(&last).unwrap()), expected);
}

#[test]
fn whichever_call_fails_the_origin_goes_on_and_the_next_try_succeeds() {
    let (_disk, db, expected) = origin();
    for call in 1.. {
        let to = SimDisk::new(3);
        let port: Arc<dyn Disk> = to.clone();
        to.fail_once(
            call,
            if call % 2 == 0 {
                ErrorKind::StorageFull
            } else {
                ErrorKind::Other
            },
        );
        let failed = db.backup_to(&port);
        let fired = to.faults_fired();
        to.clear_faults();
        match failed {
            Ok(()) => {
                assert_eq!(rows(&open(&to).unwrap()), expected, "call {call} failed");
                if fired == 0 {
                    assert!(call > 10, "every call was failed once");
                    break;
                }
            }
            Err(error) => {
                assert!(
                    matches!(
                        error,
                        Error::DiskFull { .. } | Error::Io(_) | Error::Poisoned
                    ),
                    "{error}"
                );
                // What it left is none, or whole if the failure came behind the last word.
                let open = Options::new().create(false).open_with(machine::ports(&to));
                if let Ok(db) = open {
                    assert_eq!(rows(&db), expected);
                }
                db.backup_to(&(SimDisk::new(4) as Arc<dyn Disk>)).unwrap();
            }
        }
    }
    assert_eq!(rows(&db), expected);
}
