//! What a user does first: open, write, read, undo, close, open again, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use lockstone::{Durability, Error, LockMode, Options, Outcome, Range, Savepoint, TxnOptions};
use machine::{fresh, small_and_real};

#[test]
fn a_commit_is_seen_by_others_and_after_a_reopen() {
    let (dir, db) = fresh();
    let accounts = db.create_table("accounts").unwrap();
    let mut txn = db.begin();
    txn.put(&accounts, "alice", "100").unwrap();
    assert_eq!(db.begin().get(&accounts, "alice").unwrap(), None);
    let lsn = txn.commit().unwrap();
    assert_eq!(db.begin().get(&accounts, "alice").unwrap().unwrap(), b"100");
    assert!(db.snapshot().lsn() >= lsn);
    db.close().unwrap();

    let db = small_and_real().open(dir.path().join("db")).unwrap();
    assert!(db.recovery_report().clean_shutdown);
    let accounts = db.table("accounts").unwrap();
    assert_eq!(db.begin().get(&accounts, "alice").unwrap().unwrap(), b"100");
}

#[test]
fn own_writes_are_seen_and_undone_by_a_rollback() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "1").unwrap();
    let sp = txn.savepoint();
    txn.put(&t, "a", "2").unwrap();
    txn.put(&t, "b", "3").unwrap();
    assert!(txn.delete(&t, "a").unwrap());
    assert_eq!(txn.get(&t, "a").unwrap(), None);
    assert_eq!(txn.holds(&t, "b"), Some(LockMode::NoKeyUpdate));
    txn.rollback_to(sp).unwrap();
    assert_eq!(txn.get(&t, "a").unwrap().unwrap(), b"1");
    assert_eq!(
        (txn.holds(&t, "a"), txn.holds(&t, "b")),
        (Some(LockMode::NoKeyUpdate), None)
    );
    txn.put(&t, "c", "4").unwrap();
    txn.rollback_to(sp).unwrap();
    assert_eq!(txn.holds(&t, "c"), None);
    txn.commit().unwrap();
    let rows: Vec<_> = db
        .begin()
        .range(&t, ..)
        .unwrap()
        .map(|row| row.unwrap().0.to_vec())
        .collect();
    assert_eq!(rows, [b"a"]);
}

#[test]
fn a_savepoint_that_is_dead_or_foreign_changes_nothing() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    let outer = txn.savepoint();
    let inner = txn.savepoint();
    txn.put(&t, "a", "1").unwrap();
    txn.rollback_to(outer).unwrap();
    let foreign: Savepoint = db.begin().savepoint();
    for dead in [inner, foreign] {
        let error = txn.rollback_to(dead).unwrap_err();
        assert!(matches!(error, Error::InvalidSavepoint));
        assert_eq!(error.outcome(), Outcome::Unchanged);
    }
    txn.put(&t, "b", "2").unwrap();
    txn.commit().unwrap();
}

#[test]
fn insert_new_and_delete_tell_whether_the_row_was_there() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    assert!(txn.insert_new(&t, "a", "1").unwrap());
    assert!(!txn.insert_new(&t, "a", "2").unwrap());
    assert!(!txn.delete(&t, "b").unwrap());
    assert_eq!(txn.holds(&t, "b"), Some(LockMode::Update));
    txn.commit().unwrap();
    let mut txn = db.begin();
    assert!(!txn.insert_new(&t, "a", "3").unwrap());
    assert!(txn.delete(&t, "a").unwrap());
    assert!(!txn.delete(&t, "a").unwrap());
    assert!(txn.insert_new(&t, "a", "4").unwrap());
    txn.commit().unwrap();
    assert_eq!(db.begin().get(&t, "a").unwrap().unwrap(), b"4");
}

#[test]
fn a_range_merges_own_writes_from_both_ends() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let other = db.create_table("other").unwrap();
    db.transact(|txn| -> lockstone::Result<()> {
        for key in ["b", "d", "f", "h"] {
            txn.put(&t, key, key)?;
        }
        txn.put(&other, "a", "not mine")
    })
    .unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "own").unwrap();
    txn.put(&t, "d", "own").unwrap();
    txn.delete(&t, "f").unwrap();
    txn.put(&t, "g", "own").unwrap();
    let keys =
        |rows: &mut dyn Iterator<Item = lockstone::Result<(lockstone::Key, lockstone::Value)>>| {
            rows.map(|row| String::from_utf8(row.unwrap().0.into()).unwrap())
                .collect::<String>()
        };
    assert_eq!(keys(&mut txn.range(&t, ..).unwrap()), "abdgh");
    assert_eq!(keys(&mut txn.range(&t, ..).unwrap().rev()), "hgdba");
    assert_eq!(keys(&mut txn.range(&t, "b".."g").unwrap()), "bd");
    assert_eq!(keys(&mut txn.range(&t, "b"..="g").unwrap().rev()), "gdb");
    assert_eq!(keys(&mut txn.range(&t, "x".."b").unwrap()), "");
    let mut both = txn.range(&t, ..).unwrap();
    let mut order = String::new();
    for turn in 0.. {
        let row = if turn % 2 == 0 {
            both.next()
        } else {
            both.next_back()
        };
        let Some(row) = row else { break };
        order.push(char::from(row.unwrap().0[0]));
    }
    assert_eq!(order, "ahbgd");
}

#[test]
fn a_visit_shows_what_the_iterator_yields() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let rows = (0..3000_u32).map(|n| (n.to_be_bytes(), vec![n as u8; n as usize % 90]));
    db.transact(|txn| txn.put_many(&t, rows.clone())).unwrap();
    db.compact().unwrap();
    // Between the rows of the run, newer ones; in their place too, and nothing in the place of some.
    db.transact(|txn| -> lockstone::Result<()> {
        for n in (0..2000_u32).step_by(11) {
            txn.put(&t, n.to_be_bytes(), b"newer")?;
            txn.put(&t, [n.to_be_bytes().as_slice(), b"+"].concat(), b"")?;
            txn.delete(&t, (n + 5).to_be_bytes())?;
        }
        Ok(())
    })
    .unwrap();
    let mut txn = db.begin();
    for n in (0..3000_u32).step_by(7) {
        txn.put(&t, n.to_be_bytes(), b"own").unwrap();
        txn.delete(&t, (n + 3).to_be_bytes()).unwrap();
    }
    let snapshot = db.snapshot();
    assert_visits(|| txn.range(&t, ..).unwrap());
    assert_visits(|| snapshot.range(&t, ..).unwrap());
}

fn assert_visits<'a>(range: impl Fn() -> Range<'a>) {
    let yielded: Vec<_> = range()
        .map(|row| {
            row.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .unwrap()
        })
        .collect();
    for both_ends in [false, true] {
        let mut seen = Vec::new();
        let mut visited = range();
        let mut rest = &yielded[..];
        if both_ends {
            visited.next().unwrap().unwrap();
            visited.next_back().unwrap().unwrap();
            rest = &yielded[1..yielded.len() - 1];
        }
        for stop_at in [500, usize::MAX] {
            let end = visited.visit(|key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                if seen.len() == stop_at {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            assert_eq!(end.unwrap().is_break(), stop_at == 500);
        }
        assert_eq!(seen, rest);
        // What was shown is taken.
        assert!(visited.next_back().is_none() && visited.next().is_none());
    }
}

#[test]
fn a_snapshot_stays_while_others_write_flush_and_merge() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "k", "old")).unwrap();
    let snapshot = db.snapshot();
    let big = vec![7u8; 100_000];
    for round in 0..200 {
        db.transact(|txn| {
            txn.put(&t, "k", format!("{round}"))?;
            txn.put(&t, format!("fill{}", round % 50), &big)
        })
        .unwrap();
    }
    assert!(db.stats().checkpoints > 2);
    let copy = snapshot.clone();
    drop(snapshot);
    assert_eq!(copy.get(&t, "k").unwrap().unwrap(), b"old");
    assert_eq!(copy.range(&t, ..).unwrap().count(), 1);
    assert_eq!(db.snapshot().get(&t, "k").unwrap().unwrap(), b"199");
    let value = db.snapshot().get(&t, "fill3").unwrap().unwrap();
    assert!(db.check().unwrap().is_clean());
    db.close().unwrap();
    assert_eq!(value, big[..], "a value outlives the database");
    assert!(matches!(copy.get(&t, "k"), Err(Error::Closed)));
    drop(dir);
}

/// Copies a database that is open, as a crash would leave it: again, when a segment was added meanwhile, for no crash
/// leaves a segment that names one that does not exist.
fn copy_as_it_stands(from: &Path, to: &Path) {
    let names = || -> BTreeSet<OsString> {
        let files = std::fs::read_dir(from).unwrap();
        let names = files.map(|file| file.unwrap().file_name());
        // Spare segments come and go by themselves, and hold nothing.
        names
            .filter(|name| !name.to_string_lossy().starts_with("wal-spare"))
            .collect()
    };
    loop {
        let before = names();
        std::fs::create_dir(to).unwrap();
        for name in &before {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
        if names() == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

#[test]
fn values_of_every_length_survive_a_reopen() {
    // Nothing is checkpointed while the files are copied.
    let roomy = || {
        Options::new()
            .segment_bytes(1 << 20)
            .log_bytes(64 << 20)
            .memory_bytes(256 << 20)
    };
    let dir = tempfile::tempdir().unwrap();
    let db = roomy().open(dir.path().join("db")).unwrap();
    let t = db.create_table("t").unwrap();
    let lengths = [
        0, 1, 4095, 4096, 100_000, 262_144, 300_000, 1_000_000, 3_000_000,
    ];
    let value = |len: usize| (0..len).map(|i| (i * 31 + len) as u8).collect::<Vec<_>>();
    for len in lengths {
        db.transact(|txn| txn.put(&t, format!("{len}"), value(len)))
            .unwrap();
    }
    // Without an orderly close: what the log holds is replayed.
    let copy = dir.path().join("copy");
    copy_as_it_stands(&dir.path().join("db"), &copy);
    let copy = roomy().open(copy).unwrap();
    assert_eq!(copy.recovery_report().committed, lengths.len() as u64);
    let t = copy.table("t").unwrap();
    for len in lengths {
        assert_eq!(
            copy.begin().get(&t, format!("{len}")).unwrap().unwrap(),
            value(len)[..],
            "{len} bytes"
        );
    }
    db.close().unwrap();
}

#[test]
fn a_transaction_without_writes_commits_at_what_it_read() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put(&t, "a", "1").unwrap();
    let lsn = txn.commit().unwrap();
    let reader = db.begin();
    reader.get(&t, "a").unwrap();
    assert_eq!(reader.commit().unwrap(), lsn);
    let mut locker = db.begin();
    locker.lock(&t, "a", LockMode::Update).unwrap();
    locker.get(&t, "a").unwrap();
    assert_eq!(locker.commit().unwrap(), lsn);
    assert_eq!(db.locks().count(), 0);
}

#[test]
fn a_buffered_commit_is_durable_soon_and_survives_a_close() {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let buffered = TxnOptions::new().durability(Durability::Buffered);
    let mut txn = db.begin_with(buffered);
    txn.put(&t, "a", "1").unwrap();
    let lsn = txn.commit().unwrap();
    let begun = std::time::Instant::now();
    while db.stats().durable <= lsn {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "a buffered commit is flushed by itself"
        );
        std::thread::yield_now();
    }
    db.close().unwrap();
    let db = small_and_real().open(dir.path().join("db")).unwrap();
    let t = db.table("t").unwrap();
    assert!(db.begin().get(&t, "a").unwrap().is_some());
}

#[test]
fn transact_runs_again_what_may_succeed_then() {
    let (_dir, db) = fresh();
    let t = db.create_table("counter").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, t) = (&db, &t);
            scope.spawn(move || {
                for round in 0..50 {
                    let (first, second) = if (thread + round) % 2 == 0 {
                        ("a", "b")
                    } else {
                        ("b", "a")
                    };
                    db.transact(|txn| -> lockstone::Result<()> {
                        for key in [first, second] {
                            let value = txn.get_for(t, key, LockMode::Update)?;
                            let count = value
                                .map_or(0, |v| String::from_utf8_lossy(&v).parse::<u32>().unwrap());
                            txn.put(t, key, (count + 1).to_string())?;
                        }
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    for key in ["a", "b"] {
        assert_eq!(db.begin().get(&t, key).unwrap().unwrap(), b"200");
    }
    // An error that is the caller's own is returned at once, and nothing is left.
    let own: Result<(), Error> = db.transact(|txn| {
        txn.put(&t, "a", "lost")?;
        Err(Error::KeyEmpty)
    });
    assert!(matches!(own, Err(Error::KeyEmpty)));
    assert_eq!(db.begin().get(&t, "a").unwrap().unwrap(), b"200");
}

#[test]
fn a_transaction_larger_than_the_memory_budget_commits() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let row = vec![5u8; 60_000];
    for _ in 0..2 {
        let mut txn = db.begin();
        for i in 0..100 {
            txn.put(&t, format!("{i}"), &row).unwrap();
        }
        txn.commit().unwrap();
    }
    assert_eq!(db.begin().range(&t, ..).unwrap().count(), 100);
}
