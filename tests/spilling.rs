//! More locks than memory has room for: they move to files, and nobody can tell.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files itself"
)]

mod machine;
mod tight;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;

use lockstone::{
    Database, Error, LockInfoState, LockMode, Priority, Table, Transaction, TxnOptions,
};
use lockstone_base::disk::{Disk, DiskOp};
use lockstone_recovery::Inspection;
use lockstone_testkit::{SimClock, SimDisk, Survivors};
use machine::{no_wait, wound};
use tight::{BUDGET, key, real, simulated, spills};

/// Several times what the budget has room for.
const MANY: u32 = 12_000;

fn lock_all(txn: &mut Transaction, t: &Table, numbers: std::ops::Range<u32>, mode: LockMode) {
    for number in numbers {
        txn.lock(t, key(number), mode).unwrap();
    }
}

/// Of these keys, those that another cannot lock in this mode.
fn taken(db: &Database, t: &Table, keys: impl Iterator<Item = u32>, mode: LockMode) -> Vec<u32> {
    let is_taken = |number: &u32| {
        let mut other = db.begin_with(no_wait());
        match other.lock(t, key(*number), mode) {
            Ok(_) => false,
            Err(Error::WouldBlock { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    };
    keys.filter(is_taken).collect()
}

#[test]
fn more_locks_than_memory_are_all_held_and_all_given_back() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let mut most = 0;
    for number in 0..MANY {
        txn.lock(&t, key(number), LockMode::Update).unwrap();
        most = most.max(db.stats().provisional_bytes);
    }
    assert!(db.stats().spills >= 3, "{}", db.stats().spills);
    // What it takes at a time, beyond.
    assert!(most <= BUDGET * 5 / 4, "{most}");
    assert!(spills(&disk) >= 3);
    let entries = db.stats().lock_entries;
    assert!(entries < MANY as usize / 2, "{entries} entries in memory");

    let sample: Vec<_> = (0..MANY).step_by(97).collect();
    let kept = taken(&db, &t, sample.iter().copied(), LockMode::KeyShare);
    assert_eq!(kept, sample);
    assert_eq!(taken(&db, &t, MANY..MANY + 50, LockMode::Update), []);
    let mut listed = BTreeSet::new();
    for lock in db.locks().map(Result::unwrap) {
        assert_eq!((lock.txn, lock.state), (txn.id(), LockInfoState::Granted));
        assert!(listed.insert(lock.key.clone()), "{lock:?}");
    }
    assert_eq!(listed.len(), MANY as usize);
    assert_eq!(db.transactions()[0].locks, u64::from(MANY));

    txn.put(&t, key(7), "seven").unwrap();
    txn.commit().unwrap();
    assert_eq!(taken(&db, &t, sample.into_iter(), LockMode::Update), []);
    assert_eq!(db.snapshot().get(&t, key(7)).unwrap().unwrap(), b"seven");
    assert_eq!(db.stats().provisional_bytes, 0);
    // Nobody reads them, so the next step in the background removes them.
    db.transact(|txn| txn.put(&t, "more", "1")).unwrap();
    db.compact().unwrap();
    assert_eq!(spills(&disk), 0);
    db.close().unwrap();
}

#[test]
fn whatever_locks_spills() {
    let (_dir, db) = real();
    let t = db.create_table("t").unwrap();
    let fill = |txn: &mut Transaction| txn.put_many(&t, (0..MANY).map(|n| (n.to_be_bytes(), "v")));
    let mut before = db.stats().spills;
    let mut spilled = |what: &str| {
        let now = db.stats().spills;
        assert!(now > before, "{what}");
        before = now;
    };
    db.transact(fill).unwrap();
    spilled("put_many");
    let mut txn = db.begin();
    let mut rows = txn.range_for(&t, .., LockMode::Share).unwrap();
    assert_eq!(rows.by_ref().map(Result::unwrap).count(), MANY as usize);
    drop(rows);
    spilled("range_for");
    drop(txn);
    let mut txn = db.begin();
    let locked = txn.lock_rows(&t, .., LockMode::Update).unwrap();
    assert_eq!(locked, u64::from(MANY));
    spilled("lock_rows");
    drop(txn);
    let mut txn = db.begin();
    txn.lock_many(&t, (0..MANY).map(key), LockMode::Update)
        .unwrap();
    spilled("lock_many");
    drop(txn);
    let mut txn = db.begin();
    for number in 0..MANY {
        txn.put(&t, key(number), "w").unwrap();
    }
    spilled("put");
    txn.commit().unwrap();
    assert_eq!(db.locks().count(), 0);
    db.close().unwrap();
}

/// L9, V4.
#[test]
fn a_rollback_to_a_savepoint_gives_back_what_was_spilled_behind_it() {
    let (_dir, db) = real();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    lock_all(&mut txn, &t, 0..MANY, LockMode::Share);
    let half = txn.savepoint();
    lock_all(&mut txn, &t, 0..MANY, LockMode::Update);
    lock_all(&mut txn, &t, MANY..2 * MANY, LockMode::Update);
    assert!(db.stats().spills >= 6);
    let sample = || (0..2 * MANY).step_by(89);
    assert_eq!(
        taken(&db, &t, sample(), LockMode::Share),
        sample().collect::<Vec<_>>()
    );
    txn.rollback_to(half).unwrap();
    assert_eq!(taken(&db, &t, sample(), LockMode::Share), []);
    let first: Vec<_> = sample().filter(|number| *number < MANY).collect();
    assert_eq!(taken(&db, &t, sample(), LockMode::Update), first);
    assert_eq!(txn.holds(&t, key(5)), Some(LockMode::Share));
    assert_eq!(txn.holds(&t, key(MANY)), None);
    // Numbers go on behind the rollback.
    lock_all(&mut txn, &t, MANY..2 * MANY, LockMode::Update);
    assert_eq!(
        taken(&db, &t, sample(), LockMode::Update),
        sample().collect::<Vec<_>>()
    );
    txn.abort();
    assert_eq!(taken(&db, &t, sample(), LockMode::Update), []);
}

#[test]
fn a_spilled_lock_keeps_its_token_and_can_be_strengthened() {
    let (_dir, db) = real();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let token = txn.lock(&t, key(1), LockMode::Share).unwrap();
    lock_all(&mut txn, &t, 2..MANY, LockMode::Update);
    assert_eq!(txn.fencing_token(&t, key(1)), Some(token));
    assert_eq!(txn.holds(&t, key(1)), Some(LockMode::Share));
    let mut sharer = db.begin_with(no_wait());
    sharer.lock(&t, key(1), LockMode::KeyShare).unwrap();
    // Not behind itself, nor past the other.
    let stronger =
        txn.on_conflict(lockstone::OnConflict::NoWait)
            .lock(&t, key(1), LockMode::Update);
    assert!(
        matches!(stronger, Err(Error::WouldBlock { .. })),
        "{stronger:?}"
    );
    drop(sharer);
    let stronger = txn.lock(&t, key(1), LockMode::Update).unwrap();
    assert!(stronger > token);
    assert_eq!(taken(&db, &t, 1..2, LockMode::KeyShare), [1]);
}

/// L4: what is waited for may lie in files, of both.
#[test]
fn a_deadlock_through_spilled_locks_is_found() {
    let (_dir, db) = real();
    let t = db.create_table("t").unwrap();
    let mut first = db.begin();
    let mut second = db.begin();
    lock_all(&mut first, &t, 0..MANY, LockMode::Update);
    lock_all(&mut second, &t, MANY..2 * MANY, LockMode::Update);
    let outcomes = thread::scope(|threads| {
        let cross = |mut txn: Transaction, number: u32| {
            let t = &t;
            threads.spawn(move || {
                let locked = txn.lock(t, key(number), LockMode::Share);
                locked.map(|_| txn.abort())
            })
        };
        let (first, second) = (cross(first, MANY + 3), cross(second, 3));
        [first.join().unwrap(), second.join().unwrap()]
    });
    let died = |outcome: &&Result<(), Error>| matches!(outcome, Err(Error::Deadlock { .. }));
    assert_eq!(outcomes.iter().filter(died).count(), 1, "{outcomes:?}");
    assert_eq!(db.locks().count(), 0);
}

/// L5: who is wounded holds nothing, wherever it lies; its files go when its user comes back.
#[test]
fn who_is_wounded_holds_nothing_of_what_it_has_spilled() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut weak = db.begin_with(wound(Priority::normal(1)));
    lock_all(&mut weak, &t, 0..MANY, LockMode::Update);
    assert!(spills(&disk) > 0);
    let mut strong = db.begin_with(wound(Priority::high(1)));
    strong.lock(&t, key(3), LockMode::Update).unwrap();
    assert_eq!(taken(&db, &t, 0..10, LockMode::Update), [3]);
    assert!(matches!(
        weak.lock(&t, key(MANY), LockMode::Update),
        Err(Error::Wounded { .. })
    ));
    drop(weak);
    db.compact().unwrap();
    assert_eq!(spills(&disk), 0);
}

/// F10: that transaction alone fails, with an error that says why.
#[test]
fn a_full_disk_ends_who_cannot_spill_and_nobody_else() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut bystander = db.begin_with(no_wait());
    bystander.put(&t, "bystander", "1").unwrap();
    disk.fail_matching(DiskOp::Write, "spill-", ErrorKind::StorageFull);
    let mut txn = db.begin_with(no_wait());
    let failed = (0..MANY).find_map(|number| txn.lock(&t, key(number), LockMode::Update).err());
    assert!(matches!(failed, Some(Error::DiskFull { .. })), "{failed:?}");
    assert!(disk.faults_fired() > 0);
    assert!(txn.lock(&t, key(1), LockMode::Update).is_err());
    assert_eq!(spills(&disk), 0);
    assert_eq!(taken(&db, &t, 0..100, LockMode::Update), []);
    drop(txn);
    disk.clear_faults();
    let mut txn = db.begin_with(no_wait());
    lock_all(&mut txn, &t, 0..MANY, LockMode::Update);
    txn.commit().unwrap();
    bystander.commit().unwrap();
    db.close().unwrap();
}

/// R3, S6: wherever the machine stops.
#[test]
fn a_crash_ends_spilled_locks_and_the_next_open_removes_their_files() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "safe", "1")).unwrap();
    let begun = disk.io_count();
    let mut txn = db.begin_with(TxnOptions::new().label("bulk"));
    lock_all(&mut txn, &t, 0..MANY, LockMode::Update);
    assert!(spills(&disk) > 0);
    txn.commit().unwrap();
    let mut swept = 0;
    for at in begun..=disk.io_count() {
        let crashed = if at % 2 == 0 {
            disk.after_crash(at, &Survivors::All)
        } else {
            disk.after_kill(at)
        };
        swept += spills(&crashed);
        let db = simulated(&crashed);
        let t = db.table("t").unwrap();
        assert_eq!(spills(&crashed), 0, "at {at}: {:?}", crashed.names());
        assert_eq!(db.locks().count(), 0);
        assert_eq!(db.snapshot().get(&t, "safe").unwrap().unwrap(), b"1");
        drop(db);
    }
    assert!(swept > 0, "no crash left a file behind");
}

/// Whoever looks at the directory after a crash is shown all locks that there were, wherever they lay.
#[test]
fn the_locks_of_a_dead_process_are_listed_from_log_and_files() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    lock_all(&mut txn, &t, 0..MANY, LockMode::Share);
    let mark = txn.savepoint();
    lock_all(&mut txn, &t, MANY..2 * MANY, LockMode::Update);
    txn.rollback_to(mark).unwrap();
    txn.lock(&t, key(3), LockMode::Update).unwrap();
    let mut other = db.begin_with(no_wait());
    other.put(&t, "committed", "1").unwrap();
    other.commit().unwrap();

    let crashed: Arc<dyn Disk> = disk.after_kill(disk.io_count());
    let clock = Arc::new(SimClock::new());
    let locks = Inspection::open(crashed, clock)
        .unwrap()
        .dead_locks()
        .unwrap();
    let listed: BTreeSet<_> = locks.iter().map(|lock| lock.row.key().to_vec()).collect();
    let held: BTreeSet<_> = (0..MANY).map(|number| key(number).into_bytes()).collect();
    assert_eq!((locks.len(), listed), (MANY as usize, held));
    let strengthened = locks.iter().filter(|lock| lock.mode == LockMode::Update);
    let strengthened: Vec<_> = strengthened.map(|lock| lock.row.key().to_vec()).collect();
    assert_eq!(strengthened, [key(3).into_bytes()]);
    assert!(locks.iter().all(|lock| lock.txn == txn.id()));
}
