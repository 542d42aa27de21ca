//! Tables that go: who is waited for, who is refused, who still sees the rows, what a crash leaves of it (S7).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lockstone::{Database, Durability, Error, LockMode, OnConflict, Outcome, Table, TxnOptions};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{fresh, no_wait, open, small_and_real};

fn put(db: &Database, table: &Table, key: &str, value: &str) {
    let mut txn = db.begin();
    txn.put(table, key, value).unwrap();
    txn.commit().unwrap();
}

fn is_unknown<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::UnknownTable { .. }))
}

#[test]
fn a_dropped_table_is_gone_for_all_but_older_snapshots() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    put(&db, &t, "a", "1");
    let older = db.snapshot();
    let mut rows = older.range(&t, ..).unwrap();
    db.drop_table(&t).unwrap();

    assert!(db.table("t").is_none());
    assert!(db.tables().is_empty());
    assert_eq!(t.name(), "t");
    assert_eq!(older.get(&t, "a").unwrap().unwrap(), b"1");
    assert_eq!(rows.next().unwrap().unwrap().1, b"1");
    assert_eq!(older.range(&t, ..).unwrap().count(), 1);

    let newer = db.snapshot();
    assert!(newer.lsn() > older.lsn());
    assert!(is_unknown(newer.get(&t, "a")));
    assert!(is_unknown(newer.multi_get(&t, ["a"])));
    assert!(is_unknown(newer.range(&t, ..)));

    let mut txn = db.begin();
    assert!(is_unknown(txn.get(&t, "a")));
    assert!(is_unknown(txn.multi_get(&t, ["a"])));
    assert!(is_unknown(txn.range(&t, ..)));
    assert!(is_unknown(txn.put(&t, "a", "2")));
    assert!(is_unknown(txn.insert_new(&t, "a", "2")));
    assert!(is_unknown(txn.delete(&t, "a")));
    assert!(is_unknown(txn.lock(&t, "a", LockMode::Share)));
    assert!(is_unknown(txn.get_for(&t, "a", LockMode::Share)));
    assert!(is_unknown(txn.range_for(&t, .., LockMode::Share)));
    let error = txn.put(&t, "a", "2").unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unchanged);
    // It goes on all the same.
    let u = db.create_table("u").unwrap();
    txn.put(&u, "a", "1").unwrap();
    txn.commit().unwrap();
}

#[test]
fn a_drop_is_refused_for_what_is_not_there() {
    let (_dir, db) = fresh();
    let (_other_dir, other) = fresh();
    let t = db.create_table("t").unwrap();
    let error = other.drop_table(&t).unwrap_err();
    assert!(matches!(error, Error::ForeignTable { .. }), "{error}");
    db.drop_table(&t.clone()).unwrap();
    assert!(is_unknown(db.drop_table(&t)));
    let u = db.create_table("u").unwrap();
    db.clone().close().unwrap();
    let error = db.drop_table(&u).unwrap_err();
    assert!(matches!(error, Error::Closed), "{error}");
}

#[test]
fn a_name_that_is_used_again_starts_empty_and_stays_so_after_a_reopen() {
    let (dir, db) = fresh();
    for round in 0..3 {
        let t = db.create_table("t").unwrap();
        assert_eq!(db.begin().range(&t, ..).unwrap().count(), 0, "{round}");
        put(&db, &t, "old", "1");
        db.drop_table(&t).unwrap();
    }
    let t = db.create_table("t").unwrap();
    put(&db, &t, "new", "1");
    db.close().unwrap();
    for _ in 0..2 {
        let db = small_and_real().open(dir.path().join("db")).unwrap();
        let t = db.table("t").unwrap();
        let rows = db.begin();
        let rows = rows
            .range(&t, ..)
            .unwrap()
            .map(|row| row.unwrap().0.to_vec());
        assert_eq!(rows.collect::<Vec<_>>(), [b"new"]);
    }
}

/// The caller's own transaction could never end: the call says so in the end, and the table is as it was.
#[test]
fn a_transaction_that_does_not_end_makes_the_drop_give_up() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let (t, u) = (db.create_table("t").unwrap(), db.create_table("u").unwrap());
    for used in 0..4 {
        let mut txn = db.begin_with(no_wait().label("mine"));
        match used {
            0 => txn.put(&t, "a", "1").unwrap(),
            1 => drop(txn.lock(&t, "a", LockMode::KeyShare).unwrap()),
            2 => drop(txn.range_for(&t, .., LockMode::Share).unwrap()),
            _ => {
                txn.put(&u, "a", "1").unwrap();
                txn.put(&t, "a", "1").unwrap();
            }
        }
        let error = db.drop_table(&t).unwrap_err();
        assert!(!error.is_retryable() && error.outcome() == Outcome::Unchanged);
        let text = error.to_string();
        assert!(
            text.starts_with("table `t` was not dropped: transaction 1-")
                && text.contains("`mine`")
                && text.contains("within 10000 ms"),
            "{text}"
        );
        txn.put(&t, "b", "2").unwrap();
        txn.commit().unwrap();
    }
    // Whoever only reads, or works elsewhere, is nobody's concern.
    let (mut elsewhere, reader) = (db.begin_with(no_wait()), db.begin());
    elsewhere.put(&u, "a", "1").unwrap();
    assert_eq!(reader.get(&t, "b").unwrap().unwrap(), b"2");
    db.drop_table(&t).unwrap();
    assert!(is_unknown(reader.get(&t, "b")));
    elsewhere.commit().unwrap();
}

#[test]
fn a_drop_waits_for_those_who_use_the_table_and_refuses_who_comes_later() {
    let (_dir, db) = fresh();
    let (t, u) = (db.create_table("t").unwrap(), db.create_table("u").unwrap());
    let mut user = db.begin();
    user.put(&t, "a", "1").unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let dropper = scope.spawn(|| {
            db.drop_table(&t).unwrap();
            dropped.store(true, Ordering::SeqCst);
        });
        // The gate is closed once somebody is refused.
        let impatient = TxnOptions::new().on_conflict(OnConflict::NoWait);
        let error = loop {
            let mut txn = db.begin_with(impatient.clone());
            if let Err(error) = txn.put(&t, "x", "1") {
                break error;
            }
            txn.abort();
        };
        assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
        assert!(error.is_retryable() && error.to_string().contains("`drop_table`"));
        // Who holds other locks waits in the same queue.
        let timeout = Some(Duration::from_millis(5));
        let mut brief = db.begin_with(TxnOptions::new().on_conflict(OnConflict::Wait { timeout }));
        brief.put(&u, "a", "1").unwrap();
        let error = brief.put(&t, "x", "1").unwrap_err();
        assert!(matches!(error, Error::LockTimeout { .. }), "{error}");
        let waiter = scope.spawn(|| db.begin().put(&t, "x", "1"));
        let creator = scope.spawn(|| db.create_table("t").unwrap());

        // The user goes on meanwhile, and reads its own writes.
        user.put(&t, "b", "2").unwrap();
        assert_eq!(user.range(&t, ..).unwrap().count(), 2);
        std::thread::sleep(Duration::from_millis(30));
        assert!(!dropped.load(Ordering::SeqCst));
        let before = user.commit().unwrap();
        dropper.join().unwrap();
        assert!(is_unknown(waiter.join().unwrap()));
        let t = creator.join().unwrap();
        assert_eq!(db.begin().range(&t, ..).unwrap().count(), 0);
        assert!(db.snapshot().lsn() > before);
    });
}

#[test]
fn who_was_rolled_back_is_not_waited_for() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut first = db.begin();
    first.put(&t, "a", "1").unwrap();
    let mut second = db.begin();
    second.put(&t, "b", "1").unwrap();
    let victim = std::thread::scope(|scope| {
        let other = scope.spawn(|| first.put(&t, "b", "1").map(|()| first));
        while db.stats().lock_waits == 0 {
            std::thread::yield_now();
        }
        let mine = second.put(&t, "a", "1");
        let (mine, other) = (mine.map(|()| second), other.join().unwrap());
        assert!(mine.is_ok() != other.is_ok());
        // Both handles: the victim's is kept, and used no more.
        (mine, other)
    });
    for winner in [victim.0, victim.1].into_iter().flatten() {
        winner.commit().unwrap();
    }
    db.drop_table(&t).unwrap();
}

#[test]
fn racing_drops_creations_and_writers_agree_about_every_row() {
    let (_dir, db) = fresh();
    let stop = AtomicBool::new(false);
    let lost = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (db, stop, lost) = (&db, &stop, &lost);
            scope.spawn(move || {
                for round in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(t) = db.create_table("t") else { return };
                    let buffered = TxnOptions::new().durability(Durability::Buffered);
                    let mut txn = db.begin_with(buffered);
                    let key = format!("{writer}-{round}");
                    // Written, or refused as a whole: a commit never finds its table gone.
                    let refused = txn.put(&t, &key, "1").is_err();
                    if !refused {
                        txn.put(&t, format!("{key}-twin"), "1").unwrap();
                        txn.commit().unwrap();
                    }
                    lost.fetch_add(u64::from(refused), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..60 {
            let Some(t) = db.table("t") else { continue };
            let before = db.snapshot();
            match db.drop_table(&t) {
                Ok(()) => assert!(is_unknown(db.begin().get(&t, "0-0"))),
                Err(error) => panic!("{error}"),
            }
            let keys: Vec<_> = before.range(&t, ..).map_or_else(
                |_| Vec::new(),
                |rows| rows.map(|row| row.unwrap().0.to_vec()).collect(),
            );
            assert_eq!(keys.len() % 2, 0, "a snapshot sees whole commits");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(db.check().unwrap().is_clean());
}

#[test]
fn a_thousand_tables_are_made_listed_and_found() {
    const TABLES: usize = 1_500;
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    for i in 0..TABLES {
        let t = db.create_table(&format!("table {i:05}")).unwrap();
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "k", i.to_string()).unwrap();
        txn.commit().unwrap();
        if i % 3 == 0 {
            db.drop_table(&t).unwrap();
        }
    }
    db.close().unwrap();
    let db = open(&disk).unwrap();
    assert_eq!(db.tables().len(), TABLES - TABLES / 3);
    let snapshot = db.snapshot();
    for (i, t) in db.tables().into_iter().enumerate() {
        let i = i + i / 2 + 1;
        assert_eq!(t.name(), format!("table {i:05}"));
        assert_eq!(
            &*snapshot.get(&t, "k").unwrap().unwrap(),
            i.to_string().as_bytes()
        );
    }
}

fn run_bytes(disk: &SimDisk) -> usize {
    let names = disk
        .names()
        .into_iter()
        .filter(|name| name.starts_with("run-"));
    names.map(|name| disk.read_file(&name).len()).sum()
}

#[test]
fn the_space_of_a_dropped_table_comes_back_when_no_snapshot_lies_below() {
    const EACH: usize = 400 << 10;
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let tables = ["first", "second", "third"].map(|name| db.create_table(name).unwrap());
    // Row by row in all of them, so that their rows share runs.
    for row in 0..EACH / (8 << 10) {
        for t in &tables {
            let mut txn = db.begin_with(no_wait());
            txn.put(t, format!("{row:04}"), vec![row as u8; 8 << 10])
                .unwrap();
            txn.commit().unwrap();
        }
    }
    db.compact().unwrap();
    let before = run_bytes(&disk);
    assert!(before > 3 * EACH);
    let older = db.snapshot();
    db.drop_table(&tables[1]).unwrap();
    db.compact().unwrap();
    assert!(run_bytes(&disk) > 3 * EACH, "a snapshot sees the rows");
    assert_eq!(
        older.range(&tables[1], ..).unwrap().count(),
        EACH / (8 << 10)
    );
    drop(older);
    db.compact().unwrap();
    let after = run_bytes(&disk);
    assert!(
        after < 2 * EACH + EACH / 10,
        "{before} before, {after} behind"
    );
    for t in [&tables[0], &tables[2]] {
        assert_eq!(db.begin().range(t, ..).unwrap().count(), EACH / (8 << 10));
    }
    // The rest in a database that has just been opened: nothing but the manifest knows what is to go.
    db.drop_table(&tables[0]).unwrap();
    drop((db, tables));
    let db = open(&disk).unwrap();
    db.compact().unwrap();
    assert!(run_bytes(&disk) < EACH + EACH / 10);
    db.drop_table(&db.table("third").unwrap()).unwrap();
    db.compact().unwrap();
    assert_eq!(run_bytes(&disk), 0, "a run with no other rows goes unread");
}

/// What each table holds.
type Model = BTreeMap<String, BTreeMap<String, String>>;

/// Acknowledged states, with the number of disk calls made by then.
#[derive(Default)]
struct History(Vec<(u64, Model)>);

impl History {
    fn note(&mut self, disk: &SimDisk, change: impl FnOnce(&mut Model)) {
        let mut model = self
            .0
            .last()
            .map(|(_, model)| model.clone())
            .unwrap_or_default();
        change(&mut model);
        self.0.push((disk.io_count(), model));
    }
}

/// Creates, fills, drops and creates again, with checkpoints in between and one that is held back by an open
/// transaction, so that records from before a manifest are read again (S4).
fn life(disk: &Arc<SimDisk>, history: &mut History) {
    let db = open(disk).unwrap();
    let mut left_open = None;
    for round in 0..3 {
        for name in ["one", "two"] {
            let t = db.create_table(name).unwrap();
            history.note(disk, |model| {
                model.entry(name.into()).or_default();
            });
            // Large enough to call for a checkpoint every few rounds.
            for key in ["a", "b"] {
                let value = format!("{round}{}", "x".repeat(100 << 10));
                let mut txn = db.begin_with(no_wait());
                txn.put(&t, key, &value).unwrap();
                txn.commit().unwrap();
                history.note(disk, |model| {
                    model.get_mut(name).unwrap().insert(key.into(), value);
                });
            }
            if left_open.is_none() {
                let kept = db.create_table("kept").unwrap();
                history.note(disk, |model| {
                    model.entry("kept".into()).or_default();
                });
                let mut txn = db.begin_with(no_wait());
                txn.put(&kept, "never", "").unwrap();
                left_open = Some(txn);
            }
            if round == 1 || name == "one" {
                db.drop_table(&t).unwrap();
                history.note(disk, |model| drop(model.remove(name)));
            }
        }
    }
    assert!(db.stats().checkpoints > 1);
    drop(left_open);
    db.compact().unwrap();
    db.close().unwrap();
}

fn found(db: &Database) -> Model {
    let snapshot = db.snapshot();
    let rows = |t: &Table| {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let rows = snapshot.range(t, ..).unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (text(key.into()), text(value.into())))
            .collect()
    };
    db.tables()
        .iter()
        .map(|t| (t.name().to_owned(), rows(t)))
        .collect()
}

#[test]
fn every_crash_between_creations_and_drops_recovers() {
    let (disk, mut history) = (SimDisk::new(1), History::default());
    life(&disk, &mut history);
    for at in 0..=disk.io_count() {
        let done = history.0.partition_point(|(calls, _)| *calls <= at);
        let before = done
            .checked_sub(1)
            .map(|last| history.0[last].1.clone())
            .unwrap_or_default();
        let next = history.0.get(done).map(|(_, model)| model);
        for survivors in Survivors::enumerate(disk.unsynced(at), 1) {
            let crashed = disk.after_crash(at, &survivors);
            let db = open(&crashed).unwrap();
            let state = found(&db);
            assert!(
                state == before || Some(&state) == next,
                "power loss behind call {at} ({}), {survivors:?} survive",
                disk.describe(at)
            );
            // A second recovery, from what the first one wrote, finds the same; and an id is not given again.
            let t = db.create_table("later").unwrap();
            assert_eq!(db.begin().range(&t, ..).unwrap().count(), 0);
            drop((db, t));
            let again = found(&open(&crashed).unwrap());
            assert!(
                again.len() == state.len() + 1
                    && state.keys().all(|name| again[name] == state[name])
            );
        }
    }
}
