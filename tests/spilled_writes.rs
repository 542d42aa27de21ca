//! More writes than memory has room for: they move to files, their transaction reads them there, and its commit adopts them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files itself"
)]

mod machine;
mod tight;

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use lockstone::inspect::salvage;
use lockstone::{Database, Error, LockMode, Savepoint, Table, Transaction};
use lockstone_base::entropy::Entropy;
use lockstone_testkit::{SeededEntropy, SimDisk, Survivors};
use machine::no_wait;
use tight::{BUDGET, key, options, simulated, spills};

type Rows = BTreeMap<String, Vec<u8>>;

fn in_snapshot(db: &Database, t: &Table) -> Rows {
    let snapshot = db.snapshot();
    let rows = snapshot.range(t, ..).unwrap();
    owned(rows.map(Result::unwrap))
}

fn owned<K: AsRef<[u8]>, V: AsRef<[u8]>>(rows: impl Iterator<Item = (K, V)>) -> Rows {
    let key = |key: K| String::from_utf8(key.as_ref().to_vec()).unwrap();
    rows.map(|(k, v)| (key(k), v.as_ref().to_vec())).collect()
}

/// What the transaction sees, both ways.
fn seen(txn: &Transaction, t: &Table) -> Rows {
    let forward: Vec<_> = txn.range(t, ..).unwrap().map(Result::unwrap).collect();
    let mut backward: Vec<_> = txn
        .range(t, ..)
        .unwrap()
        .rev()
        .map(Result::unwrap)
        .collect();
    backward.reverse();
    assert_eq!(forward, backward);
    owned(forward.into_iter())
}

#[test]
fn more_writes_than_memory_are_read_back_and_committed_whole() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut model = Rows::new();
    db.transact(|txn| {
        for number in 0..50 {
            txn.put(&t, key(number), "before")?;
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    let before = in_snapshot(&db, &t);
    model.extend(before.clone());
    let old = db.snapshot();
    let mut txn = db.begin_with(no_wait());
    for number in 0..6_000 {
        let value = vec![number as u8; 100];
        txn.put(&t, key(number), &value).unwrap();
        model.insert(key(number), value);
        if number % 7 == 0 {
            txn.delete(&t, key(number / 2)).unwrap();
            model.remove(&key(number / 2));
        }
    }
    let stats = db.stats();
    assert!(stats.spills >= 4, "{}", stats.spills);
    assert!(stats.provisional_bytes <= BUDGET * 5 / 4);
    assert_eq!(seen(&txn, &t), model);
    for number in (0..7_000).step_by(13) {
        let found = txn.get(&t, key(number)).unwrap().map(Vec::from);
        assert_eq!(found.as_ref(), model.get(&key(number)), "{number}");
    }
    let keys: Vec<_> = (0..7_000).step_by(311).map(key).collect();
    let many = txn.multi_get(&t, &keys).unwrap();
    for (key, found) in keys.iter().zip(many) {
        assert_eq!(found.map(Vec::from).as_ref(), model.get(key));
    }
    let mut cursor = txn.range_for(&t, .., LockMode::Update).unwrap();
    let mut walked = 0;
    for row in cursor.by_ref() {
        let (key, value) = row.unwrap();
        assert_eq!(model[std::str::from_utf8(&key).unwrap()], *value);
        walked += 1;
    }
    drop(cursor);
    assert_eq!(walked, model.len());
    assert!(!txn.insert_new(&t, key(5_999), "there").unwrap());
    // Nobody else sees any of it, and nobody else gets it.
    assert_eq!(in_snapshot(&db, &t), before);
    let mut other = db.begin_with(no_wait());
    // The cursor has locked all that is there, and who deletes locks what is not.
    for number in (0..6_000).step_by(501) {
        let locked = other.lock(&t, key(number), LockMode::KeyShare);
        let is_locked = matches!(locked, Err(Error::WouldBlock { .. }));
        assert!(is_locked, "{number}: {locked:?}");
    }
    other.lock(&t, key(6_500), LockMode::Update).unwrap();
    drop(other);
    txn.commit().unwrap();
    assert_eq!(in_snapshot(&db, &t), model);
    assert_eq!(
        owned(old.range(&t, ..).unwrap().map(Result::unwrap)),
        before
    );
    assert_eq!(db.stats().provisional_bytes, 0);
    drop(old);
    db.compact().unwrap();
    assert_eq!(in_snapshot(&db, &t), model);
    assert_eq!(spills(&disk), 0, "{:?}", disk.names());
    assert!(db.check().unwrap().is_clean());
    db.close().unwrap();
    let db = simulated(&disk);
    assert_eq!(in_snapshot(&db, &db.table("t").unwrap()), model);
}

/// L9: also of what was written again, without another lock, by a later sub-transaction.
#[test]
fn a_rollback_gives_back_a_row_that_was_written_twice_and_spilled() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    let outer = txn.savepoint();
    txn.put(&t, key(1), "1").unwrap();
    let inner = txn.savepoint();
    while db.stats().spills == 0 {
        txn.put(&t, key(1), vec![2; 50_000]).unwrap();
    }
    let is_taken = || {
        let locked = db.begin_with(no_wait()).lock(&t, key(1), LockMode::Update);
        matches!(locked, Err(Error::WouldBlock { .. }))
    };
    txn.rollback_to(inner).unwrap();
    assert!(is_taken());
    assert_eq!(txn.get(&t, key(1)).unwrap().unwrap(), b"1");
    txn.rollback_to(outer).unwrap();
    assert_eq!(txn.holds(&t, key(1)), None);
    assert!(!is_taken());
    txn.commit().unwrap();
    assert_eq!(in_snapshot(&db, &t), Rows::new());
}

/// V4: what was rolled back in memory is no concern of what was spilled, however often that happens.
#[test]
fn rollbacks_behind_a_spill_leave_it_alone() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    while db.stats().spills == 0 {
        txn.put(&t, key(1), vec![2; 50_000]).unwrap();
    }
    let begun = disk.io_count();
    for number in 2..200 {
        let undone = txn.nested(|txn| {
            txn.put(&t, key(number), "undone")?;
            Err::<(), _>(Error::TransactionEnded)
        });
        assert!(undone.is_err());
    }
    assert_eq!(disk.io_count(), begun, "no file is opened again");
    assert_eq!(seen(&txn, &t).len(), 1);
    txn.put(&t, key(3), "kept").unwrap();
    txn.commit().unwrap();
    let crashed = disk.after_crash(disk.io_count(), &Survivors::None);
    for db in [db, simulated(&crashed)] {
        let rows = in_snapshot(&db, &db.table("t").unwrap());
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[&key(3)], b"kept");
    }
}

/// S1, S3: a checkpoint takes what its rotation has passed and nothing else, whatever is adopted while it runs.
#[test]
fn checkpoints_beside_adoptions_lose_nothing() {
    const ROUNDS: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let db = options().open(dir.path().join("db")).unwrap();
    let t = db.create_table("t").unwrap();
    thread::scope(|threads| {
        for writer in 0..3_u32 {
            let (db, t) = (&db, &t);
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    let rows = 1 + (round + writer) % 2 * 60;
                    db.transact(|txn| {
                        for row in 0..rows {
                            txn.put(t, key(writer << 20 | row), vec![round as u8; 6_000])?;
                        }
                        Ok::<_, Error>(())
                    })
                    .unwrap();
                }
            });
        }
        for _ in 0..40 {
            db.compact().unwrap();
        }
    });
    assert!(db.stats().spills > 0);
    assert_eq!(db.stats().panics, 0);
    let rows = in_snapshot(&db, &t);
    assert_eq!(rows.len(), 3 * 61);
    db.close().unwrap();
    let db = options().open(dir.path().join("db")).unwrap();
    assert_eq!(in_snapshot(&db, &db.table("t").unwrap()), rows);
}

/// R1: wherever the machine stops, between the first spill and the checkpoint that follows the commit.
#[test]
fn every_crash_leaves_all_of_a_spilled_commit_or_nothing() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, key(1), "before")).unwrap();
    let before = in_snapshot(&db, &t);
    let begun = disk.io_count();
    let mut txn = db.begin_with(no_wait());
    for number in 0..300 {
        txn.put(&t, key(number), vec![1; 2_000]).unwrap();
    }
    let mark = txn.savepoint();
    for number in 200..400 {
        txn.put(&t, key(number), vec![2; 2_000]).unwrap();
    }
    txn.rollback_to(mark).unwrap();
    for number in 250..450 {
        txn.put(&t, key(number), vec![3; 2_000]).unwrap();
    }
    txn.delete(&t, key(7)).unwrap();
    let after = seen(&txn, &t);
    txn.commit().unwrap();
    let acknowledged = disk.io_count();
    db.transact(|txn| txn.put(&t, "later", "1")).unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    let mut adopted = 0;
    for at in begun..=disk.io_count() {
        let ways = [Survivors::None, Survivors::All, Survivors::Random(at)];
        for survivors in ways {
            let crashed = disk.after_crash(at, &survivors);
            let db = simulated(&crashed);
            let t = db.table("t").unwrap();
            let mut found = in_snapshot(&db, &t);
            let later = found.remove("later");
            let is_after = found == after;
            assert!(
                is_after || found == before,
                "at {at}, {survivors:?}: {} rows",
                found.len()
            );
            assert!(is_after || at <= acknowledged, "at {at}, {survivors:?}");
            assert!(is_after || later.is_none());
            if is_after && spills(&crashed) > 0 {
                adopted += 1;
                // What was adopted goes down like anything else.
                db.compact().unwrap();
                db.close().unwrap();
                let db = simulated(&crashed);
                let t = db.table("t").unwrap();
                let mut found = in_snapshot(&db, &t);
                found.remove("later");
                assert_eq!(found, after);
                assert_eq!(spills(&crashed), 0);
            }
        }
    }
    assert!(adopted > 0);
}

/// Against a map: writes, savepoints, rollbacks, commits, crashes, compactions, in any order.
#[test]
fn a_transaction_that_spills_does_what_one_in_memory_does() {
    let mut merges = 0;
    for seed in 0..6 {
        let draws = SeededEntropy::new(seed);
        let below = |end: usize| draws.next_u64() as usize % end;
        let mut disk = SimDisk::new(seed);
        let mut db = simulated(&disk);
        db.create_table("t").unwrap();
        let mut committed = Rows::new();
        for round in 0..4 {
            let t = db.table("t").unwrap();
            let mut txn = db.begin_with(no_wait());
            let mut model = committed.clone();
            let mut saved: Vec<(Savepoint, Rows)> = Vec::new();
            for step in 0..1_400_u32 {
                let number = below(400) as u32;
                match below(40) {
                    0 => saved.push((txn.savepoint(), model.clone())),
                    1 if !saved.is_empty() && below(4) == 0 => {
                        let keep = below(saved.len()) + 1;
                        saved.truncate(keep);
                        let (savepoint, rows) = saved.last().unwrap();
                        txn.rollback_to(*savepoint).unwrap();
                        model = rows.clone();
                    }
                    2 => {
                        let rows: Rows = (0..below(120) as u32)
                            .map(|more| (key(number + more), vec![step as u8; 300]))
                            .collect();
                        txn.put_many(&t, rows.clone()).unwrap();
                        model.extend(rows);
                    }
                    3..8 => {
                        let existed = txn.delete(&t, key(number)).unwrap();
                        assert_eq!(existed, model.remove(&key(number)).is_some());
                    }
                    8 => assert_eq!(seen(&txn, &t), model, "seed {seed}, step {step}"),
                    9..14 => {
                        let found = txn.get(&t, key(number)).unwrap().map(Vec::from);
                        assert_eq!(found.as_ref(), model.get(&key(number)));
                    }
                    _ => {
                        let value = vec![step as u8; below(6_000)];
                        txn.put(&t, key(number), &value).unwrap();
                        model.insert(key(number), value);
                    }
                }
            }
            assert_eq!(seen(&txn, &t), model, "seed {seed}, round {round}");
            merges += db.stats().spill_merges;
            if below(4) > 0 {
                txn.commit().unwrap();
                committed = model;
            } else {
                txn.abort();
            }
            match below(4) {
                0 => db.compact().unwrap(),
                1 => {
                    disk = disk.after_crash(disk.io_count(), &Survivors::None);
                    db = simulated(&disk);
                }
                _ => {}
            }
            let t = db.table("t").unwrap();
            assert_eq!(
                in_snapshot(&db, &t),
                committed,
                "seed {seed}, round {round}"
            );
            assert_eq!(db.locks().count(), 0);
        }
    }
    assert!(merges > 10, "{merges}");
}

/// What commits have adopted becomes runs of the levels before there is much of it, though it takes neither memory nor much log.
#[test]
fn many_adoptions_call_for_a_checkpoint() {
    let disk = SimDisk::new(1);
    let db = simulated(&disk);
    let t = db.create_table("t").unwrap();
    for round in 0..20_u8 {
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, key(round.into()), vec![round; 270 << 10])
            .unwrap();
        txn.commit().unwrap();
    }
    assert!(db.stats().spills >= 20);
    assert!(db.stats().checkpoints >= 2, "{}", db.stats().checkpoints);
    let rows = in_snapshot(&db, &t);
    assert!((0..20_u8).all(|round| rows[&key(round.into())] == vec![round; 270 << 10]));
}

/// S8: what commits have adopted, listed or not yet, is in a backup; and in what is salvaged of a directory that a kill left.
#[test]
fn backup_salvage_and_a_kill_have_what_was_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = options().open(&path).unwrap();
    let t = db.create_table("t").unwrap();
    let write = |mark: u8| {
        let mut txn = db.begin();
        let savepoint = txn.savepoint();
        txn.put_many(&t, (0..400).map(|number| (key(number), vec![0; 1_500])))
            .unwrap();
        txn.rollback_to(savepoint).unwrap();
        for number in (0..900).step_by(usize::from(mark)) {
            txn.put(&t, key(number), vec![mark; 1_500]).unwrap();
        }
        txn.delete(&t, key(7 * u32::from(mark))).unwrap();
        txn.commit().unwrap();
    };
    write(1);
    db.compact().unwrap();
    write(2);
    let rows = in_snapshot(&db, &t);
    assert!(db.stats().spills >= 4);
    let killed = dir.path().join("killed");
    fs::create_dir(&killed).unwrap();
    for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), killed.join(entry.file_name())).unwrap();
    }
    let salvaged = dir.path().join("salvaged");
    let report = salvage(&killed, &salvaged, options()).unwrap();
    assert_eq!(report.losses.len(), 0, "{report:?}");
    let backup = dir.path().join("backup");
    db.backup(&backup).unwrap();
    db.close().unwrap();
    for path in [killed, salvaged, backup, path] {
        let db = options().open(&path).unwrap();
        let found = in_snapshot(&db, &db.table("t").unwrap());
        assert_eq!(found, rows, "{}", path.display());
        assert!(db.check().unwrap().is_clean());
        db.close().unwrap();
    }
}
