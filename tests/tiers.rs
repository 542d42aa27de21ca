//! V3: what a transaction has spilled again and again is merged, and nobody can tell, but by the time that a look takes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod machine;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use lockstone::{Database, Error, LockMode, Options, Savepoint};
use lockstone_base::disk::DiskOp;
use lockstone_base::entropy::Entropy;
use lockstone_testkit::{SeededEntropy, SimDisk, Survivors};
use machine::{no_wait, ports};

fn options() -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(16 << 20)
        .memory_bytes(4 << 20)
        .provisional_bytes(256 << 10)
}

fn open(disk: &Arc<SimDisk>) -> Database {
    options().open_with(ports(disk)).unwrap()
}

fn key(number: u32) -> String {
    format!("{:08x}", number.wrapping_mul(0x9e37_79b1))
}

const MODES: [LockMode; 4] = [
    LockMode::KeyShare,
    LockMode::Share,
    LockMode::NoKeyUpdate,
    LockMode::Update,
];

/// Whether a share of the row's key conflicts with this mode.
fn is_exclusive(mode: LockMode) -> bool {
    mode == LockMode::Update
}

/// L1, L9, V3, against a map: locks, stronger ones, savepoints, rollbacks, and what is written among them.
#[test]
fn merged_locks_are_held_and_given_back_as_they_were() {
    const ROWS: usize = 4_000;
    let mut merges = 0;
    for seed in 0..4 {
        let draws = SeededEntropy::new(seed);
        let below = |end: usize| draws.next_u64() as usize % end;
        let disk = SimDisk::new(seed);
        let db = open(&disk);
        let t = db.create_table("t").unwrap();
        let mut txn = db.begin_with(no_wait());
        let mut model: BTreeMap<u32, LockMode> = BTreeMap::new();
        let mut saved: Vec<(Savepoint, BTreeMap<u32, LockMode>)> = Vec::new();
        for step in 0..40_000_u32 {
            let number = below(ROWS) as u32;
            match below(4_000) {
                0 => saved.push((txn.savepoint(), model.clone())),
                1 if !saved.is_empty() => {
                    let keep = below(saved.len()) + 1;
                    saved.truncate(keep);
                    let (savepoint, locks) = saved.last().unwrap();
                    txn.rollback_to(*savepoint).unwrap();
                    model = locks.clone();
                }
                2..40 => {
                    let numbers = number..number + 60;
                    txn.lock_many(&t, numbers.clone().map(key), LockMode::Share)
                        .unwrap();
                    for number in numbers {
                        let mode = model.entry(number).or_insert(LockMode::Share);
                        *mode = (*mode).max(LockMode::Share);
                    }
                }
                40..400 => {
                    txn.put(&t, key(number), step.to_be_bytes()).unwrap();
                    let mode = model.entry(number).or_insert(LockMode::NoKeyUpdate);
                    *mode = (*mode).max(LockMode::NoKeyUpdate);
                }
                drawn => {
                    let mode = MODES[drawn % 4];
                    txn.lock(&t, key(number), mode).unwrap();
                    let held = model.entry(number).or_insert(mode);
                    *held = (*held).max(mode);
                }
            }
            if step % 4_000 == 0 || step == 39_999 {
                for number in 0..ROWS as u32 + 60 {
                    let held = txn.holds(&t, key(number));
                    assert_eq!(
                        held,
                        model.get(&number).copied(),
                        "seed {seed}, step {step}"
                    );
                }
                for number in (0..ROWS as u32).step_by(37) {
                    let mut other = db.begin_with(no_wait());
                    let locked = other.lock(&t, key(number), LockMode::KeyShare);
                    let is_refused = matches!(locked, Err(Error::WouldBlock { .. }));
                    let held = model.get(&number).copied();
                    assert_eq!(is_refused, held.is_some_and(is_exclusive), "{number}");
                }
            }
        }
        merges += db.stats().spill_merges;
        txn.commit().unwrap();
        assert_eq!(db.locks().count(), 0);
    }
    assert!(merges > 8, "{merges}");
}

/// L9, V3: a call that takes many locks undoes them when it fails, and nothing that was there before it, wherever it lies by then.
#[test]
fn a_call_that_fails_behind_a_merge_undoes_nothing_that_was_before_it() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let t = db.create_table("t").unwrap();
    let mut other = db.begin_with(no_wait());
    other.lock(&t, "taken", LockMode::KeyShare).unwrap();
    let mut txn = db.begin_with(no_wait());
    let mut before = 0;
    while db.stats().spills < 3 {
        txn.lock(&t, key(before), LockMode::Share).unwrap();
        before += 1;
    }
    let fresh = 100_000..120_000;
    let keys = (0..before).chain(fresh.clone()).map(key);
    let keys: Vec<_> = keys.chain(["taken".to_owned()]).collect();
    let refused = txn.lock_many(&t, &keys, LockMode::Update);
    assert!(matches!(refused, Err(Error::WouldBlock { .. })));
    assert!(db.stats().spill_merges > 0);
    for number in 0..before {
        assert_eq!(txn.holds(&t, key(number)), Some(LockMode::Share));
    }
    for number in fresh.step_by(101) {
        assert_eq!(txn.holds(&t, key(number)), None);
    }
}

/// F10: what cannot be merged stays as it is.
#[test]
fn a_merge_that_fails_leaves_everything_as_it_was() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    let fill = |txn: &mut lockstone::Transaction, until: &dyn Fn() -> bool| {
        for number in (0..100).cycle() {
            if until() {
                break;
            }
            txn.put(&t, key(number), vec![number as u8; 8 << 10])
                .unwrap();
        }
    };
    // Four spills have a file each; the next one is that of the merge.
    let merged = "spill-0000000000000005";
    disk.fail_matching(DiskOp::Create, merged, ErrorKind::StorageFull);
    fill(&mut txn, &|| db.stats().spills == 4);
    assert_eq!((db.stats().spills, db.stats().spill_merges), (4, 0));
    assert!(disk.faults_fired() > 0);
    disk.clear_faults();
    fill(&mut txn, &|| db.stats().spills == 5);
    assert_eq!(db.stats().spill_merges, 1);
    txn.commit().unwrap();
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    let db = open(&crashed);
    let t = db.table("t").unwrap();
    for number in 0..100 {
        let found = db.snapshot().get(&t, key(number)).unwrap().unwrap();
        assert!(*found == [number as u8; 8 << 10], "{number}");
    }
}
