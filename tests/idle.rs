//! V2: many transactions that have little each, and more than memory together. Whoever takes the last of it has the locks of others
//! spilled, whatever these do meanwhile, and nobody can tell.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod machine;
mod tight;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use lockstone::LockMode::{self, KeyShare, NoKeyUpdate, Share, Update};
use lockstone::{Database, Error, Savepoint, Table, Transaction};
use lockstone_testkit::{SimDisk, Survivors};
use machine::no_wait;
use tight::{BUDGET, key, options, real, simulated, spills};

const IDLE: u32 = 300;
const LOCKS: u32 = 100;

/// The keys of one of them: not in a row.
fn keys(txn: u32) -> impl Iterator<Item = u32> {
    (0..LOCKS).map(move |number| number * IDLE + txn)
}

fn is_taken(db: &Database, t: &Table, key_number: u32, mode: LockMode) -> bool {
    let mut other = db.begin_with(no_wait());
    match other.lock(t, key(key_number), mode) {
        Ok(_) => false,
        Err(Error::WouldBlock { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

fn all_idle(db: &Database, t: &Table) -> Vec<Transaction> {
    let mut most = 0;
    let txns = (0..IDLE).map(|number| {
        let mut txn = db.begin_with(no_wait());
        for key_number in keys(number) {
            txn.lock(t, key(key_number), Update).unwrap();
            most = most.max(db.stats().provisional_bytes);
        }
        txn
    });
    let txns = txns.collect();
    assert!(most <= BUDGET * 5 / 4, "F20: {most}");
    txns
}

#[test]
fn many_idle_transactions_keep_the_budget_and_all_commit() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let txns = all_idle(&db, &t);
    let files = spills(&disk);
    assert!((3..40).contains(&files), "{files} files");
    let entries = db.stats().lock_entries;
    assert!(entries < 6_000, "{entries} entries in memory");
    let sample = || (0..IDLE * LOCKS).step_by(97);
    for key_number in sample() {
        assert!(is_taken(&db, &t, key_number, KeyShare), "{key_number}");
    }
    assert!(!is_taken(&db, &t, IDLE * LOCKS, Update));
    assert_eq!(db.locks().count(), (IDLE * LOCKS) as usize);
    let tables = db.transactions();
    assert!(tables.iter().all(|txn| txn.locks == u64::from(LOCKS)));
    // One in two writes something that it has locked, and one ends without effect.
    for (number, mut txn) in (0..).zip(txns) {
        let first = keys(number).next().unwrap();
        assert_eq!(txn.holds(&t, key(first)), Some(Update));
        if number % 2 == 0 {
            txn.put(&t, key(first), "written").unwrap();
        }
        if number == 7 {
            txn.abort();
        } else {
            txn.commit().unwrap();
        }
        for key_number in keys(number).step_by(13) {
            assert!(!is_taken(&db, &t, key_number, Update), "{key_number}");
        }
    }
    for number in (0..IDLE).step_by(2) {
        let first = keys(number).next().unwrap();
        let found = db.snapshot().get(&t, key(first)).unwrap().unwrap();
        assert_eq!(found, b"written");
    }
    assert_eq!(db.stats().provisional_bytes, 0);
    db.compact().unwrap();
    assert_eq!(spills(&disk), 0);
    db.close().unwrap();
}

/// S6: nobody needs what others have spilled, nor the log behind it.
#[test]
fn behind_a_crash_nothing_is_left_of_them() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut txns = all_idle(&db, &t);
    let mut written = txns.remove(5);
    let first = keys(5).next().unwrap();
    written.put(&t, key(first), "written").unwrap();
    written.commit().unwrap();
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    assert!(spills(&crashed) > 0);
    let db = simulated(&crashed);
    let t = db.table("t").unwrap();
    db.compact().unwrap();
    assert_eq!((db.locks().count(), spills(&crashed)), (0, 0));
    let found = db.snapshot().get(&t, key(first)).unwrap();
    assert_eq!(found.unwrap(), b"written");
    drop(txns);
}

/// S3: an idle transaction that has only locked does not hold the log back, and is not rolled back for it (G10).
#[test]
fn who_has_only_locked_does_not_hold_the_log_back() {
    let disk = SimDisk::new(1);
    let db = options()
        .log_bytes(4 << 20)
        .open_with(machine::ports(&disk))
        .unwrap();
    let t = db.create_table("t").unwrap();
    let mut idle = all_idle(&db, &t);
    idle.truncate(100);
    for round in 0..60 {
        let mut txn = db.begin_with(no_wait());
        let first = IDLE * LOCKS + round * 1000;
        txn.put_many(
            &t,
            (first..first + 1000).map(|number| (key(number), [7; 100])),
        )
        .unwrap();
        txn.commit().unwrap();
    }
    for (number, txn) in (0..).zip(idle) {
        assert!(is_taken(&db, &t, keys(number).next().unwrap(), Share));
        txn.commit().unwrap();
    }
}

/// R2: what others have spilled of one that is prepared is there behind a crash, and nothing else.
#[test]
fn who_is_prepared_takes_with_it_what_others_have_spilled() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    let own = || 100_000..100_000 + LOCKS;
    for key_number in own() {
        txn.lock(&t, key(key_number), Share).unwrap();
    }
    let savepoint = txn.savepoint();
    for key_number in 100_050..100_050 + LOCKS {
        txn.lock(&t, key(key_number), Update).unwrap();
    }
    let others = all_idle(&db, &t);
    txn.rollback_to(savepoint).unwrap();
    txn.lock(&t, "later", Update).unwrap();
    drop(others);
    let others = all_idle(&db, &t);
    txn.prepare("gid").unwrap();
    drop(others);
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    let db = simulated(&crashed);
    let t = db.table("t").unwrap();
    assert_eq!(db.locks().count(), LOCKS as usize + 1);
    for key_number in own() {
        assert!(is_taken(&db, &t, key_number, Update), "{key_number}");
        assert!(!is_taken(&db, &t, key_number, Share), "{key_number}");
    }
    db.commit_prepared("gid").unwrap();
    assert_eq!(db.locks().count(), 0);
}

/// What a transaction holds, as plainly as can be: a map for each savepoint.
struct Model {
    txn: Transaction,
    first_key: u32,
    held: Vec<(Option<Savepoint>, BTreeMap<u32, LockMode>)>,
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const ROWS: u32 = 150;

impl Model {
    fn begin(db: &Database, first_key: u32) -> Self {
        Self {
            txn: db.begin_with(no_wait()),
            first_key,
            held: vec![(None, BTreeMap::new())],
        }
    }

    fn hold(&mut self, number: u32, mode: LockMode) {
        let held = &mut self.held.last_mut().unwrap().1;
        let before = held.get(&number).copied();
        held.insert(number, before.map_or(mode, |before| before.max(mode)));
    }

    fn step(&mut self, t: &Table, dice: &mut Dice) {
        match dice.roll(12) {
            0..6 => {
                let mode = [KeyShare, Share, NoKeyUpdate, Update][dice.roll(4) as usize];
                for _ in 0..dice.roll(60) {
                    let number = self.first_key + dice.roll(ROWS.into()) as u32;
                    self.txn.lock(t, key(number), mode).unwrap();
                    self.hold(number, mode);
                }
            }
            6 => {
                let first = self.first_key + dice.roll(100) as u32;
                let many = (first..first + 40).map(key);
                self.txn.lock_many(t, many, Share).unwrap();
                (first..first + 40).for_each(|number| self.hold(number, Share));
            }
            7 => {
                let number = self.first_key + dice.roll(ROWS.into()) as u32;
                self.txn.put(t, key(number), "value").unwrap();
                self.hold(number, NoKeyUpdate);
            }
            8 | 9 => {
                let held = self.held.last().unwrap().1.clone();
                let savepoint = self.txn.savepoint();
                self.held.push((Some(savepoint), held));
            }
            10 if self.held.len() > 1 => {
                let to = 1 + dice.roll(self.held.len() as u64 - 1) as usize;
                self.held.truncate(to + 1);
                let savepoint = self.held.pop().unwrap().0.unwrap();
                self.txn.rollback_to(savepoint).unwrap();
            }
            _ => {}
        }
    }

    fn check(&self, db: &Database, t: &Table, dice: &mut Dice) {
        let held = &self.held.last().unwrap().1;
        for _ in 0..20 {
            let number = self.first_key + dice.roll(ROWS.into()) as u32;
            let mode = held.get(&number).copied();
            assert_eq!(self.txn.holds(t, key(number)), mode, "{number}");
            for asked in [KeyShare, Share, NoKeyUpdate, Update] {
                let conflicts = mode.is_some_and(|mode| lockstone_locks::conflicts(asked, mode));
                let taken = is_taken(db, t, number, asked);
                assert_eq!(taken, conflicts, "{number}: {asked:?} beside {mode:?}");
            }
        }
    }
}

/// L1, L2, L9, V1, V4.
#[test]
fn whatever_others_spill_a_transaction_holds_what_it_has_locked() {
    let mut spilled = 0;
    for seed in 1..=6 {
        let (_dir, db) = real();
        let t = db.create_table("t").unwrap();
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut all: Vec<_> = (0..60).map(|n| Model::begin(&db, n * 200)).collect();
        for step in 0..1500 {
            let number = dice.roll(60) as usize;
            all[number].step(&t, &mut dice);
            if step % 7 == 0 {
                let number = dice.roll(60) as usize;
                all[number].check(&db, &t, &mut dice);
            }
            if dice.roll(40) == 0 {
                let first_key = all[number].first_key;
                let mut old = std::mem::replace(&mut all[number], Model::begin(&db, first_key));
                match dice.roll(3) {
                    0 => old.txn.abort(),
                    1 => old.txn.commit().map(drop).unwrap(),
                    _ => {
                        old.txn.prepare("gid").unwrap();
                        let held = &old.held.last().unwrap().1;
                        for (number, mode) in held.iter().take(10) {
                            let conflicts = lockstone_locks::conflicts(Update, *mode);
                            assert_eq!(is_taken(&db, &t, *number, Update), conflicts);
                        }
                        db.commit_prepared("gid").unwrap();
                    }
                }
                all[number].check(&db, &t, &mut dice);
            }
        }
        spilled += db.stats().spills;
        drop(all);
        assert_eq!(db.locks().count(), 0);
        db.close().unwrap();
    }
    assert!(spilled > 60, "{spilled}");
}

/// L1: whoever is granted a row writes his name beside it, and finds nobody's.
#[test]
fn no_row_is_ever_given_to_two() {
    const THREADS: u64 = 4;
    const KEYS: u32 = 20_000;
    let (_dir, db) = real();
    let t = db.create_table("t").unwrap();
    let ledger: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let run = |thread: u64| {
        let mut dice = Dice(thread * 0x1234_5678_9abc + 7);
        let mut open: Vec<(Transaction, Vec<u32>)> = Vec::new();
        let give_up = |rows: &[u32], id: u64| {
            for number in rows {
                assert_eq!(ledger[*number as usize].swap(0, Ordering::SeqCst), id);
            }
        };
        for _ in 0..400 {
            if open.len() < 25 {
                open.push((db.begin_with(no_wait()), Vec::new()));
            }
            let at = dice.roll(open.len() as u64) as usize;
            let (txn, rows) = &mut open[at];
            let id = txn.id().sequence;
            let savepoint = txn.savepoint();
            let before = rows.len();
            for _ in 0..dice.roll(60) {
                let number = dice.roll(KEYS.into()) as u32;
                match txn.lock(&t, key(number), Update) {
                    Ok(_) => {
                        let other = ledger[number as usize].swap(id, Ordering::SeqCst);
                        assert!(other == 0 || other == id, "{number}: {other} and {id}");
                        if other == 0 {
                            rows.push(number);
                        }
                    }
                    Err(Error::WouldBlock { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            if dice.roll(4) == 0 {
                give_up(&rows[before..], id);
                rows.truncate(before);
                txn.rollback_to(savepoint).unwrap();
            }
            if dice.roll(8) == 0 {
                let (txn, rows) = open.swap_remove(at);
                give_up(&rows, id);
                if dice.roll(2) == 0 {
                    txn.commit().map(drop).unwrap();
                }
            }
        }
        for (txn, rows) in open {
            give_up(&rows, txn.id().sequence);
            txn.commit().map(drop).unwrap();
        }
    };
    thread::scope(|threads| {
        for thread in 1..=THREADS {
            let run = &run;
            threads.spawn(move || run(thread));
        }
    });
    assert!(db.stats().spills > 3, "{}", db.stats().spills);
    assert_eq!((db.locks().count(), db.stats().provisional_bytes), (0, 0));
    db.close().unwrap();
}
