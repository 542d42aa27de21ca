//! A power loss at every boundary between two calls to the disk, with every choice of what survives:
//! recovery finds exactly what was acknowledged; the one commit in flight is whole or absent (R1, R3, R5).
//!
//! The calls of a small workload are recorded once on the simulated disk. Then, for each moment, the disks
//! that a machine could find after losing power there are rebuilt and opened, one by one; and some of
//! these recoveries are cut short themselves.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone::{Database, FencingToken, LockMode, Table};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{no_wait, open};

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "locked"];
const TABLES: [&str; 2] = ["one", "two"];
/// Each life leaves a run; more than eight are merged into one.
const MERGING_LIVES: u8 = 8;
/// How many random and torn subsets are tried at each moment, beside none, all, prefixes and each missing.
const SEEDS: u64 = 3;

/// What was committed: table, key, value.
type Model = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

/// What the workload was told, and when: the number of disk calls that had been made by then.
#[derive(Default)]
struct History {
    model: Model,
    acknowledged: Vec<(u64, Model)>,
    tokens: Vec<(u64, FencingToken)>,
}

impl History {
    fn acknowledge(&mut self, disk: &SimDisk) {
        self.acknowledged
            .push((disk.io_count(), self.model.clone()));
    }

    /// The state that was acknowledged by moment `at`, and the next one, which may be whole or absent.
    fn around(&self, at: u64) -> (Model, Option<&Model>) {
        let done = self.acknowledged.partition_point(|(calls, _)| *calls <= at);
        let before = done
            .checked_sub(1)
            .map(|last| self.acknowledged[last].1.clone());
        (
            before.unwrap_or_default(),
            self.acknowledged.get(done).map(|(_, model)| model),
        )
    }
}

fn create(db: &Database, name: &'static str, history: &mut History, disk: &SimDisk) -> Table {
    let table = db.create_table(name).unwrap();
    history.model.entry(name).or_default();
    history.acknowledge(disk);
    table
}

/// put, lock, upgrade, savepoint, rollback, commit, abort, flush, create_table: the small workload.
fn first_life(disk: &Arc<SimDisk>, history: &mut History) {
    let db = open(disk).unwrap();
    let one = create(&db, "one", history, disk);
    let mut txn = db.begin_with(no_wait().label("first"));
    txn.put(&one, "a", "1").unwrap();
    txn.put(&one, "b", "1").unwrap();
    txn.commit().unwrap();
    history
        .model
        .get_mut("one")
        .unwrap()
        .extend([("a".into(), b"1".into()), ("b".into(), b"1".into())]);
    history.acknowledge(disk);

    // Open through everything that follows; never commits.
    let mut left_open = db.begin_with(no_wait().label("left open"));
    left_open.put(&one, "locked", "never").unwrap();
    let token = left_open.lock(&one, "locked", LockMode::Update).unwrap();
    history.tokens.push((disk.io_count(), token));

    let mut txn = db.begin_with(no_wait());
    txn.lock(&one, "a", LockMode::Share).unwrap();
    txn.put(&one, "c", "kept").unwrap();
    let savepoint = txn.savepoint();
    txn.lock(&one, "a", LockMode::Update).unwrap();
    txn.put(&one, "c", "undone").unwrap();
    txn.put(&one, "d", "undone").unwrap();
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(txn.holds(&one, "a"), Some(LockMode::Share));
    txn.delete(&one, "b").unwrap();
    txn.commit().unwrap();
    let rows = history.model.get_mut("one").unwrap();
    rows.insert("c".into(), b"kept".into());
    rows.remove("b");
    history.acknowledge(disk);

    let mut txn = db.begin_with(no_wait());
    txn.put(&one, "e", "aborted").unwrap();
    txn.abort();

    // S3: its records lie below the checkpoint, its commit behind it.
    let mut late = db.begin_with(no_wait());
    late.put(&one, "e", "late").unwrap();

    // More than memory has room for: it is spilled, and adopted. Then enough to call for a checkpoint, which a transaction that
    // stays open outlives.
    for (key, bytes) in [("g", 300 << 10), ("d", 200 << 10), ("f", 200 << 10)] {
        let large = vec![9u8; bytes];
        let mut txn = db.begin_with(no_wait());
        txn.put(&one, key, &large).unwrap();
        txn.commit().unwrap();
        let rows = history.model.get_mut("one").unwrap();
        rows.insert(key.into(), large);
        history.acknowledge(disk);
    }
    assert!(db.stats().spills > 0);
    assert!(
        db.stats().checkpoints > 0,
        "the workload runs a checkpoint beside an open transaction"
    );

    late.commit().unwrap();
    history
        .model
        .get_mut("one")
        .unwrap()
        .insert("e".into(), b"late".to_vec());
    history.acknowledge(disk);

    let two = create(&db, "two", history, disk);
    let mut txn = db.begin_with(no_wait());
    // Many rows in one call, over one that was rolled back; longer than a frame, so they are in several.
    let rows = |value: u8| {
        (0..100)
            .rev()
            .map(move |i| (format!("{i:03}"), vec![value; 400]))
    };
    let savepoint = txn.savepoint();
    txn.put_many(&two, rows(7)).unwrap();
    txn.rollback_to(savepoint).unwrap();
    txn.put_many(&two, rows(8)).unwrap();
    txn.put_many(&two, (0..100).map(|i: u8| (format!("{i:03}"), vec![i])))
        .unwrap();
    txn.commit().unwrap();
    let rows = (0..100).map(|i: u8| (format!("{i:03}"), vec![i]));
    history.model.get_mut("two").unwrap().extend(rows);
    history.acknowledge(disk);
    drop(left_open);
    db.close().unwrap();
}

/// On what the first life left: overwrites, deletes, and enough runs for a merge.
fn second_life(disk: &Arc<SimDisk>, history: &mut History) {
    for round in 0..MERGING_LIVES {
        let db = open(disk).unwrap();
        let one = db.table("one").unwrap();
        for key in ["a", "e"] {
            let mut txn = db.begin_with(no_wait());
            txn.put(&one, key, [round]).unwrap();
            txn.delete(&one, "d").unwrap();
            txn.commit().unwrap();
            let rows = history.model.get_mut("one").unwrap();
            rows.insert(key.into(), vec![round]);
            rows.remove("d");
            history.acknowledge(disk);
        }
        db.close().unwrap();
    }
}

fn rows_of(db: &Database) -> Model {
    let snapshot = db.snapshot();
    let mut found = Model::new();
    for name in TABLES {
        if let Some(table) = db.table(name) {
            let rows = snapshot.range(&table, ..).unwrap().map(|row| {
                let (key, value) = row.unwrap();
                (String::from_utf8(key.into()).unwrap(), value.into())
            });
            found.insert(name, rows.collect());
        }
    }
    found
}

/// Opens the crashed disk and compares it with what was acknowledged by moment `at`.
fn verify(disk: &Arc<SimDisk>, history: &History, at: u64, what: &dyn Fn() -> String) {
    let db = open(disk).unwrap_or_else(|error| panic!("{}: does not open: {error}", what()));
    let (before, next) = history.around(at);
    let found = rows_of(&db);
    assert!(
        found == before || Some(&found) == next,
        "{}: neither acknowledged nor next",
        what()
    );
    assert_eq!(db.locks().count(), 0, "{}: R3: nobody holds a lock", what());
    let token_before = history
        .tokens
        .iter()
        .filter(|(calls, _)| *calls <= at)
        .map(|(_, token)| *token)
        .max();
    if let Some(one) = db.table("one") {
        let mut txn = db.begin_with(no_wait());
        for key in KEYS {
            let token = txn.lock(&one, key, LockMode::Update).unwrap();
            assert!(
                Some(token) > token_before,
                "{}: a fencing token is larger than all before",
                what()
            );
        }
    }
    let check = db.check().unwrap();
    assert!(check.is_clean(), "{}: {:?}", what(), check.findings);
}

#[derive(Default)]
struct Counts {
    crashes: AtomicU64,
    inside_recovery: AtomicU64,
    kills: AtomicU64,
}

fn enumerate(disk: &SimDisk, history: &History, at: u64, counts: &Counts) {
    for survivors in Survivors::enumerate(disk.unsynced(at), SEEDS) {
        let what = || {
            format!(
                "power loss behind call {at} ({}), {survivors:?} survive",
                disk.describe(at)
            )
        };
        let crashed = disk.after_crash(at, &survivors);
        let again = disk.after_crash(at, &survivors);
        verify(&crashed, history, at, &what);
        let number = counts.crashes.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(16) {
            crash_inside_recovery(&again, history, at, number, counts);
        }
    }
    let killed = disk.after_kill(at);
    verify(&killed, history, at, &|| {
        format!("kill behind call {at} ({})", disk.describe(at))
    });
    counts.kills.fetch_add(1, Ordering::Relaxed);
}

/// R5: the recovery is cut short at a few of its own calls, and a second one finds the same.
fn crash_inside_recovery(
    crashed: &Arc<SimDisk>,
    history: &History,
    at: u64,
    number: u64,
    counts: &Counts,
) {
    let calls_before = crashed.io_count();
    drop(open(crashed).unwrap());
    let calls = calls_before..=crashed.io_count();
    for inner in calls.filter(|call| (call + number).is_multiple_of(5)) {
        for survivors in [
            Survivors::None,
            Survivors::All,
            Survivors::Random(number),
            Survivors::Torn { seed: number },
        ] {
            let twice = crashed.after_crash(inner, &survivors);
            verify(&twice, history, at, &|| {
                let call = crashed.describe(inner);
                format!(
                    "power loss behind call {at}, again behind call {inner} ({call}), {survivors:?} survive"
                )
            });
            counts.inside_recovery.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn recovery_finds_exactly_what_was_acknowledged_at_every_crash_point() {
    let (disk, mut history) = (SimDisk::new(1), History::default());
    first_life(&disk, &mut history);
    second_life(&disk, &mut history);
    let removed = |at: &u64| disk.describe(*at).contains("remove run-");
    assert!(
        (0..disk.io_count()).any(|at| removed(&at)),
        "the workload merges runs and removes the old ones"
    );
    let (calls, counts, next) = (disk.io_count(), Counts::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at > calls {
                        break;
                    }
                    enumerate(&disk, &history, at, &counts);
                }
            });
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (crashes, inside, kills) = (
        count(&counts.crashes),
        count(&counts.inside_recovery),
        count(&counts.kills),
    );
    println!(
        "{calls} calls: {crashes} crash points, {inside} inside recovery, {kills} kills recovered"
    );
    assert!(
        crashes > calls && inside > 0 && kills > calls,
        "every boundary was visited"
    );
}

/// The oracle itself must be able to see: a disk that lies about syncs loses acknowledged commits.
#[test]
fn a_disk_that_forgets_what_it_acknowledged_is_noticed() {
    let (disk, mut history) = (SimDisk::new(1), History::default());
    first_life(&disk, &mut history);
    let states: BTreeSet<u64> = history
        .acknowledged
        .iter()
        .map(|(calls, _)| *calls)
        .collect();
    let last = *states.last().unwrap();
    let early = disk.after_crash(states.first().copied().unwrap(), &Survivors::None);
    let lost = std::thread::scope(|scope| {
        scope
            .spawn(|| verify(&early, &history, last, &|| "an early disk".into()))
            .join()
    });
    assert!(lost.is_err(), "a lost commit is noticed");
}
