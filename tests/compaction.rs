//! Compaction as users meet it: under load, on demand, in the way of nobody.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstone::{Database, Durability, Options, Ports, Table, TxnOptions};
use lockstone_base::clock::MonotonicClock;
use lockstone_base::disk::DiskOp;
use lockstone_testkit::{HookedDisk, SeededEntropy, SimDisk};

/// A memtable of 256 KiB: a few thousand rows make several levels.
fn small() -> Options {
    Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(4 << 20)
        .memory_bytes(1 << 20)
}

fn threaded(disk: &Arc<SimDisk>) -> Ports {
    Ports {
        disk: disk.clone(),
        clock: Arc::new(MonotonicClock::new()),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: true,
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Commits rows in batches, buffered: the disk is not what is tested.
fn fill(db: &Database, table: &Table, numbers: std::ops::Range<u64>, value: &[u8]) {
    let numbers: Vec<_> = numbers.collect();
    for batch in numbers.chunks(500) {
        let mut txn = db.begin_with(TxnOptions::new().durability(Durability::Buffered));
        txn.put_many(table, batch.iter().map(|n| (key(*n), value)))
            .unwrap();
        txn.commit().unwrap();
    }
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_sustained_load_stays_readable_and_ends_in_shape() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().compaction_threads(2).open(dir.path()).unwrap();
    let t = db.create_table("t").unwrap();
    fill(&db, &t, 0..5_000, b"first");
    let snapshot = db.snapshot();
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let readers = scope.spawn(|| {
            let mut highest = 0;
            while writing.load(Ordering::Relaxed) {
                for n in (0..5_000).step_by(97) {
                    let then = snapshot.get(&t, key(n)).unwrap();
                    assert_eq!(then.as_deref(), Some(b"first".as_slice()), "W7");
                    assert!(db.begin().get(&t, key(n)).unwrap().is_some());
                }
                highest = highest.max(db.stats().levels[0].runs);
            }
            highest
        });
        std::thread::scope(|scope| {
            for part in 0..2 {
                let (db, t) = (&db, &t);
                scope.spawn(move || {
                    fill(
                        db,
                        t,
                        part * 15_000..(part + 1) * 15_000,
                        &[part as u8; 200],
                    );
                });
            }
        });
        writing.store(false, Ordering::Relaxed);
        let highest = readers.join().unwrap();
        // Two beyond the mark: what was under way when it was reached.
        assert!(highest <= 24, "level 0 is bounded: {highest}");
    });
    drop(snapshot);
    eventually("compactions come to an end", || {
        let stats = db.stats();
        stats.compaction_debt_bytes == 0 && stats.levels[0].runs < 4
    });
    let stats = db.stats();
    assert!(
        stats.compactions > 0 && stats.compaction_written_bytes > 1 << 20,
        "{stats:?}"
    );
    assert!(db.check().unwrap().is_clean());
    let rows = db
        .snapshot()
        .range(&t, ..)
        .unwrap()
        .map(Result::unwrap)
        .count();
    assert_eq!(rows, 30_000);
    db.close().unwrap();
    let db = small().open(dir.path()).unwrap();
    let t = db.table("t").unwrap();
    for n in 0..30_000 {
        let value = db.snapshot().get(&t, key(n)).unwrap().unwrap();
        assert_eq!(*value, [(n / 15_000) as u8; 200]);
    }
}

#[test]
fn compact_gives_back_what_was_deleted_and_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path()).unwrap();
    let t = db.create_table("t").unwrap();
    for value in [[1; 100], [2; 100], [3; 100]] {
        fill(&db, &t, 0..9_000, &value);
    }
    let kept = db.snapshot();
    let deleted: lockstone::Result<()> =
        db.transact(|txn| (0..8_000).try_for_each(|n| txn.delete(&t, key(n)).map(drop)));
    deleted.unwrap();
    db.compact().unwrap();
    let bytes = |db: &Database| {
        db.stats()
            .levels
            .iter()
            .map(|level| level.bytes)
            .sum::<u64>()
    };
    let with_snapshot = bytes(&db);
    assert!(kept.get(&t, key(5)).unwrap().is_some(), "W7");
    drop(kept);
    db.compact().unwrap();
    let levels = db.stats().levels;
    let above: usize = levels[..6].iter().map(|level| level.runs).sum();
    assert_eq!(above, 0, "{levels:?}");
    assert!(
        bytes(&db) < with_snapshot / 4,
        "{} of {with_snapshot}",
        bytes(&db)
    );
    let rows: BTreeMap<_, _> = db
        .snapshot()
        .range(&t, ..)
        .unwrap()
        .map(|row| {
            row.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .unwrap()
        })
        .collect();
    let want = (8_000..9_000).map(|n| (key(n).to_vec(), vec![3; 100]));
    assert_eq!(rows, want.collect());
    let files = std::fs::read_dir(dir.path()).unwrap().flatten();
    let runs = files.filter(|file| file.file_name().to_string_lossy().starts_with("run-"));
    assert_eq!(runs.count(), db.stats().runs, "S6");
    db.close().unwrap();
}

/// A damaged run of level 0 keeps everything above it where it is: level 0 grows, and no commit waits for that.
#[test]
fn compactions_that_can_do_nothing_hold_nobody_up() {
    let disk = SimDisk::new(1);
    let db = small().open_with(threaded(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    fill(&db, &t, 0..500, &[7; 100]);
    db.close().unwrap();
    let oldest = disk
        .names()
        .into_iter()
        .find(|name| name.starts_with("run-"))
        .unwrap();
    disk.flip_byte(&oldest, 6000);
    let db = small().open_with(threaded(&disk)).unwrap();
    let t = db.table("t").unwrap();
    fill(&db, &t, 500..60_000, &[7; 100]);
    eventually("checkpoints go on", || db.stats().levels[0].runs > 20);
    let stats = db.stats();
    assert_eq!(
        (stats.damaged_runs, stats.compaction_written_bytes),
        (1, 0),
        "F11: it is tried once"
    );
    for n in (500..60_000).step_by(31) {
        assert!(db.begin().get(&t, key(n)).unwrap().is_some());
    }
    let mut txn = db.begin();
    txn.put(&t, "fresh", "value").unwrap();
    txn.commit().unwrap();
    db.close().unwrap();
}

/// Its runs were kept from all others, and nobody was told.
#[test]
fn a_compaction_that_panics_is_told_of_and_holds_nobody_up() {
    let disk = SimDisk::new(1);
    let hooked = HookedDisk::new(disk.clone(), |op, name| {
        let thread = std::thread::current();
        let is_it = thread.name() == Some("lockstone-compact") && op == DiskOp::Open;
        assert!(!is_it || !name.starts_with("run-"), "planted");
    });
    let ports = Ports {
        disk: hooked,
        ..threaded(&disk)
    };
    let db = small().open_with(ports).unwrap();
    let t = db.create_table("t").unwrap();
    fill(&db, &t, 0..60_000, &[7; 100]);
    eventually("the panic is told", || db.stats().panics == 1);
    // Whoever calls it does it himself, with all runs.
    db.compact().unwrap();
    assert_eq!(db.stats().levels[0].runs, 0);
    db.close().unwrap();
}

/// `compact` said that all was well while it left runs out that it had once failed to read, for ever.
#[test]
fn compact_names_the_runs_that_it_cannot_read_and_tries_them_again() {
    let disk = SimDisk::new(1);
    let runs = |disk: &SimDisk| -> Vec<String> {
        let names = disk.names().into_iter();
        names.filter(|name| name.starts_with("run-")).collect()
    };
    // Three runs that share no row, each with old versions.
    for part in 0..3 {
        let db = small().open_with(threaded(&disk)).unwrap();
        let t = db.create_table("t").unwrap();
        for value in [b"old", b"new"] {
            for n in 0..400 {
                let mut txn = db.begin_with(TxnOptions::new().durability(Durability::Buffered));
                txn.put(&t, format!("{part}-{n:04}"), value).unwrap();
                txn.commit().unwrap();
            }
        }
        db.close().unwrap();
    }
    let runs_before = runs(&disk);
    assert_eq!(runs_before.len(), 3);
    let flip = || {
        disk.flip_byte(&runs_before[0], 6000);
        disk.flip_byte(&runs_before[1], 6000);
    };
    flip();
    let db = small().open_with(threaded(&disk)).unwrap();
    let t = db.table("t").unwrap();
    for _ in 0..2 {
        let error = db.compact().unwrap_err();
        let lockstone::Error::Corrupt { file, what, .. } = &error else {
            panic!("{error}");
        };
        assert!(file.ends_with(&runs_before[0]), "{error}");
        assert!(what.contains(&runs_before[1]), "{error}");
        assert!(!error.to_string().contains(&runs_before[2]), "{error}");
        let stats = db.stats();
        assert_eq!((stats.damaged_runs, stats.levels[6].runs), (2, 3));
        eventually("all else is done", || {
            !runs(&disk).contains(&runs_before[2])
        });
    }
    // The device has them again.
    flip();
    db.compact().unwrap();
    assert_eq!(db.stats().damaged_runs, 0);
    let now = db.snapshot();
    let rows = now.range(&t, ..).unwrap().map(Result::unwrap);
    assert_eq!(rows.filter(|(_, value)| **value == *b"new").count(), 1200);
    db.close().unwrap();
    assert!(runs(&disk).iter().all(|name| !runs_before.contains(name)));
}

/// Files stayed until the next checkpoint, which an idle database does not take.
#[test]
fn what_a_reader_kept_goes_when_the_reader_does() {
    let disk = SimDisk::new(1);
    let db = small().open_with(threaded(&disk)).unwrap();
    let t = db.create_table("t").unwrap();
    for value in [[1; 100], [2; 100]] {
        fill(&db, &t, 0..3_000, &value);
        db.compact().unwrap();
    }
    let runs = || {
        let names = disk.names().into_iter();
        names.filter(|name| name.starts_with("run-")).count()
    };
    eventually("what nobody reads has gone", || runs() == db.stats().runs);
    let now = db.snapshot();
    let mut reader = now.range(&t, ..).unwrap();
    reader.next().unwrap().unwrap();
    fill(&db, &t, 0..3_000, &[3; 100]);
    db.compact().unwrap();
    assert!(runs() > db.stats().runs, "S6: they are read");
    assert_eq!(reader.by_ref().map(Result::unwrap).count(), 2_999);
    assert!(runs() > db.stats().runs);
    drop(reader);
    eventually("they go with their reader", || runs() == db.stats().runs);
    db.close().unwrap();
}

#[test]
fn closing_in_the_middle_of_compactions_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..6 {
        let db = small().compaction_threads(2).open(dir.path()).unwrap();
        let t = db.create_table("t").unwrap();
        fill(&db, &t, 0..6_000, &[life; 150]);
        let whole = std::thread::spawn({
            let db = db.clone();
            move || db.compact()
        });
        std::thread::sleep(Duration::from_millis(u64::from(life) * 7));
        db.close().unwrap();
        // Done before, or told that it is over; never a thread that goes on in a directory that is free.
        assert!(matches!(
            whole.join().unwrap(),
            Ok(()) | Err(lockstone::Error::Closed)
        ));
    }
    let db = small().open(dir.path()).unwrap();
    let t = db.table("t").unwrap();
    assert!(db.check().unwrap().is_clean());
    for n in 0..6_000 {
        assert_eq!(*db.snapshot().get(&t, key(n)).unwrap().unwrap(), [5; 150]);
    }
}
