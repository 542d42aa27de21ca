//! R2 at every crash point: whatever is prepared, committed or aborted when the machine stops, behind each call to the disk and with
//! every choice of what survives, the next open finds what was acknowledged, or the next step as a whole; and a crash inside that
//! open changes nothing (F22).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod machine;
mod prepared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone::{Database, Error, LockMode, Options, Table};
use lockstone_testkit::{SimDisk, Survivors};
use machine::{no_wait, ports};
use prepared::{get, listed};

/// How many random and torn subsets are tried at each moment, beside none, all, prefixes and each missing.
const SEEDS: u64 = 1;

fn open(disk: &Arc<SimDisk>) -> Database {
    let options = Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(2 << 20)
        .memory_bytes(1 << 20)
        .provisional_bytes(256 << 10);
    options.open_with(ports(disk)).unwrap()
}

/// All that anybody can find out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    rows: BTreeMap<String, Vec<u8>>,
    prepared: Vec<String>,
    locks: Vec<String>,
    /// What somebody else is kept from.
    refused: Vec<String>,
}

impl State {
    fn in_short(&self) -> String {
        let (rows, locks) = (self.rows.len(), self.locks.len());
        format!(
            "{:?}, {rows} rows, {locks} locks, {:?}",
            self.prepared, self.refused
        )
    }
}

fn state_of(db: &Database) -> State {
    let Some(t) = db.table("t") else {
        return State::default();
    };
    let snapshot = db.snapshot();
    let rows = snapshot.range(&t, ..).unwrap().map(|row| {
        let (key, value) = row.unwrap();
        (String::from_utf8(key.into()).unwrap(), value.into())
    });
    let prepared = db.prepared().into_iter();
    State {
        rows: rows.collect(),
        prepared: prepared
            .map(|info| format!("{} {}", info.gid, info.txn))
            .collect(),
        locks: listed(db),
        refused: refused(db, &t),
    }
}

const KEYS: [&str; 11] = [
    "a", "b", "c", "undone", "range", "rangf", "k0000", "k0299", "k0300", "k0599", "k0700",
];

/// Tries each lock alone: of rows and ranges that are locked, were locked and rolled back, or never were.
fn refused(db: &Database, t: &Table) -> Vec<String> {
    let mut all = Vec::new();
    let mut ask = |what: String, result: Result<(), Error>| match result {
        Ok(()) => {}
        Err(Error::WouldBlock { .. }) => all.push(what),
        Err(error) => panic!("{what}: {error}"),
    };
    for key in KEYS {
        for mode in LockMode::ALL {
            let locked = db.begin_with(no_wait()).lock(t, key, mode);
            ask(format!("{key} {mode}"), locked.map(drop));
        }
        let put = db.begin_with(no_wait()).put(t, key, "other");
        ask(format!("{key} put"), put);
    }
    if let Some(alone) = db.table("alone") {
        let mut other = db.begin_with(no_wait());
        let locked = other.lock(&alone, "any", LockMode::KeyShare);
        ask("alone".into(), locked.map(drop));
        let locked = db.begin_with(no_wait()).lock_table(t);
        ask("table t".into(), locked.map(drop));
    }
    all
}

#[derive(Default)]
struct History(Vec<(u64, State)>);

impl History {
    fn acknowledge(&mut self, disk: &SimDisk, db: &Database) {
        let at = disk.io_count();
        self.0.push((at, state_of(db)));
    }

    /// The state that was acknowledged by moment `at`, and the next one, which may be whole or absent.
    fn around(&self, at: u64) -> (State, Option<&State>) {
        let done = self.0.partition_point(|(calls, _)| *calls <= at);
        let before = done.checked_sub(1).map(|last| self.0[last].1.clone());
        let next = self.0.get(done).map(|(_, state)| state);
        (before.unwrap_or_default(), next)
    }
}

fn name(number: u32) -> String {
    format!("k{number:04}")
}

/// In memory: locks of all kinds, some of them rolled back.
fn prepare_small(db: &Database) {
    let [t, alone] = ["t", "alone"].map(|name| db.table(name).unwrap());
    let mut small = db.begin_with(no_wait().label("small"));
    small.lock(&t, "c", LockMode::Share).unwrap();
    small.put(&t, "a", "1").unwrap();
    let mark = small.savepoint();
    small.lock(&t, "c", LockMode::Update).unwrap();
    small.put(&t, "undone", "1").unwrap();
    small.rollback_to(mark).unwrap();
    let range = small.lock_range(&t, "range"..="rangez", LockMode::Share);
    range.unwrap();
    small.lock_table(&alone).unwrap();
    small.prepare("small").unwrap();
}

/// In files: locks, writes, and what was rolled back of both.
fn prepare_large(db: &Database) {
    let t = db.table("t").unwrap();
    let mut large = db.begin_with(no_wait());
    for number in 0..300 {
        let locked = large.lock(&t, name(number), LockMode::NoKeyUpdate);
        locked.unwrap();
    }
    for number in 200..600 {
        large.put(&t, name(number), vec![1; 500]).unwrap();
    }
    let mark = large.savepoint();
    for number in 300..900 {
        large.put(&t, name(number), vec![2; 500]).unwrap();
    }
    large.rollback_to(mark).unwrap();
    large.put(&t, name(599), vec![3; 500]).unwrap();
    assert!(db.stats().spills > 0);
    large.prepare("large").unwrap();
}

/// Prepares and ends them, with checkpoints and a restart in between.
fn live(disk: &Arc<SimDisk>, history: &mut History) {
    let db = open(disk);
    let t = db.create_table("t").unwrap();
    history.acknowledge(disk, &db);
    db.create_table("alone").unwrap();
    history.acknowledge(disk, &db);
    db.transact(|txn| {
        txn.put(&t, "a", "0")?;
        txn.put(&t, "b", "0")
    })
    .unwrap();
    history.acknowledge(disk, &db);
    prepare_small(&db);
    history.acknowledge(disk, &db);
    prepare_large(&db);
    history.acknowledge(disk, &db);
    db.compact().unwrap();
    db.commit_prepared("small").unwrap();
    history.acknowledge(disk, &db);
    db.close().unwrap();

    let db = open(disk);
    let t = db.table("t").unwrap();
    let mut again = db.begin_with(no_wait());
    again.put(&t, "b", "2").unwrap();
    again.prepare("small").unwrap();
    history.acknowledge(disk, &db);
    db.commit_prepared("large").unwrap();
    history.acknowledge(disk, &db);
    db.compact().unwrap();
    let mut locks = db.begin_with(no_wait());
    for number in 0..4_000 {
        let locked = locks.lock(&t, format!("l{number:05}"), LockMode::Share);
        locked.unwrap();
    }
    locks.prepare("locks").unwrap();
    history.acknowledge(disk, &db);
    db.abort_prepared("small").unwrap();
    history.acknowledge(disk, &db);
    db.abort_prepared("locks").unwrap();
    history.acknowledge(disk, &db);
    assert_eq!(get(&db, &t, "b").as_deref(), Some(&b"0"[..]));
    db.close().unwrap();
}

#[derive(Default)]
struct Counts {
    crashes: AtomicU64,
    inside: AtomicU64,
    with_prepared: AtomicU64,
}

/// One moment of the life, and what was tried.
struct Moment<'a> {
    history: &'a History,
    at: u64,
    counts: &'a Counts,
}

impl Moment<'_> {
    fn verify(&self, disk: &Arc<SimDisk>, what: &dyn Fn() -> String) {
        let db = open(disk);
        let (before, next) = self.history.around(self.at);
        let found = state_of(&db);
        assert!(
            found == before || Some(&found) == next,
            "{}: found {}\nbefore: {}\nnext: {:?}",
            what(),
            found.in_short(),
            before.in_short(),
            next.map(State::in_short),
        );
        let is_some = u64::from(!found.prepared.is_empty());
        self.counts
            .with_prepared
            .fetch_add(is_some, Ordering::Relaxed);
        // Each can still be ended, and then nobody holds anything.
        for info in db.prepared() {
            if self.at.is_multiple_of(2) {
                db.commit_prepared(info.gid).unwrap();
            } else {
                db.abort_prepared(info.gid).unwrap();
            }
        }
        assert_eq!(db.locks().count(), 0, "{}", what());
        let check = db.check().unwrap();
        assert!(check.is_clean(), "{}: {:?}", what(), check.findings);
    }

    fn enumerate(&self, disk: &SimDisk) {
        let at = self.at;
        for survivors in Survivors::enumerate(disk.unsynced(at), SEEDS) {
            let call = disk.describe(at);
            let what = || format!("power loss behind call {at} ({call}), {survivors:?} survive");
            let number = self.counts.crashes.fetch_add(1, Ordering::Relaxed);
            self.verify(&disk.after_crash(at, &survivors), &what);
            if number.is_multiple_of(24) {
                self.crash_again(&disk.after_crash(at, &survivors), number, &what);
            }
        }
        let call = disk.describe(at);
        let what = || format!("kill behind call {at} ({call})");
        self.verify(&disk.after_kill(at), &what);
    }

    /// R5, F22: the recovery is cut short at a few of its own calls.
    fn crash_again(&self, crashed: &Arc<SimDisk>, number: u64, what: &dyn Fn() -> String) {
        let begun = crashed.io_count();
        drop(open(crashed));
        let calls = begun..=crashed.io_count();
        for inner in calls.filter(|call| (call + number).is_multiple_of(7)) {
            for survivors in [Survivors::None, Survivors::All, Survivors::Random(number)] {
                let twice = crashed.after_crash(inner, &survivors);
                let call = crashed.describe(inner);
                self.verify(&twice, &|| {
                    format!(
                        "{}, again behind call {inner} ({call}), {survivors:?}",
                        what()
                    )
                });
                self.counts.inside.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn every_crash_leaves_who_is_prepared_with_exactly_its_locks() {
    let (disk, mut history) = (SimDisk::new(1), History::default());
    live(&disk, &mut history);
    let (calls, counts, next) = (disk.io_count(), Counts::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at > calls {
                        break;
                    }
                    let (history, counts) = (&history, &counts);
                    let moment = Moment {
                        history,
                        at,
                        counts,
                    };
                    moment.enumerate(&disk);
                }
            });
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (crashes, inside) = (count(&counts.crashes), count(&counts.inside));
    let prepared = count(&counts.with_prepared);
    println!(
        "{calls} calls: {crashes} crash points, {inside} inside recovery; {prepared} with somebody prepared"
    );
    assert!(crashes > calls && inside > 0 && prepared > calls / 2);
}
