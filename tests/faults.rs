//! Failing calls to the disk: a full disk is a clean error, a failed log write ends the engine for good, and
//! what was acknowledged survives all of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::io::ErrorKind;
use std::sync::Arc;

use lockstone::{Database, Error, LockMode, Outcome, Table};
use lockstone_base::disk::DiskOp;
use lockstone_testkit::{SimDisk, Survivors};
use machine::{no_wait, open};

#[test]
fn a_failed_log_write_poisons_for_good_and_snapshots_still_read() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "k", "safe")).unwrap();
    let mut doomed = db.begin_with(no_wait());
    doomed.put(&t, "k", "unknown").unwrap();
    let mut bystander = db.begin_with(no_wait());
    bystander.put(&t, "other", "1").unwrap();

    disk.fail_matching(DiskOp::WriteDurable, "wal-", ErrorKind::Other);
    let error = doomed.commit().unwrap_err();
    assert!(matches!(error, Error::Poisoned), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    // W11: never retried, though the device is well again.
    disk.clear_faults();
    assert!(matches!(
        bystander.put(&t, "more", "1"),
        Err(Error::Poisoned)
    ));
    assert!(matches!(bystander.commit(), Err(Error::Poisoned)));
    assert!(matches!(db.begin().get(&t, "k"), Err(Error::Poisoned)));
    assert!(matches!(db.create_table("u"), Err(Error::Poisoned)));
    // The watermark is frozen: reads at or below it still work.
    assert_eq!(db.snapshot().get(&t, "k").unwrap().unwrap(), b"safe");
    assert!(matches!(db.close(), Err(Error::Poisoned)));

    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    let found = db.begin().get(&t, "k").unwrap().unwrap();
    assert!(found == b"safe" || found == b"unknown", "{found:?}");
    assert!(db.begin().get(&t, "other").unwrap().is_none());
}

/// What the workload below was told.
#[derive(Default)]
struct Told {
    /// The last commit that succeeded.
    acknowledged: u32,
    /// The outcome of the commit that failed, if one did.
    failed: Option<Outcome>,
}

fn count_up(disk: &Arc<SimDisk>, told: &mut Told) -> Result<(), Error> {
    let db = open(disk)?;
    let t = db.create_table("t")?;
    for round in 1..=8u32 {
        let mut txn = db.begin_with(no_wait());
        txn.put(&t, "count", round.to_string())?;
        // Enough for a checkpoint on the way.
        txn.put(&t, format!("fill{round}"), vec![1u8; 60 << 10])?;
        txn.commit()
            .inspect_err(|error| told.failed = Some(error.outcome()))?;
        told.acknowledged = round;
    }
    db.close()
}

/// The count that a machine finds which was cut off now.
fn count_after(disk: &SimDisk, survivors: Survivors, what: &str) -> u32 {
    let disk = disk.after_crash(disk.io_count(), &survivors);
    let db = open(&disk).unwrap_or_else(|error| panic!("{what}, {survivors:?}: {error}"));
    assert!(db.check().unwrap().is_clean());
    let count = db
        .table("t")
        .and_then(|t| db.begin().get(&t, "count").unwrap());
    count.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap())
}

/// Every call of the workload fails once, and then from there on. No success that was returned is lost; a
/// commit that is said to be rolled back is not there; only one of unknown outcome may be either.
#[test]
fn whichever_call_fails_the_outcome_that_was_told_is_true() {
    let clean = SimDisk::new(1);
    count_up(&clean, &mut Told::default()).unwrap();
    let (calls, mut fired, mut unknown) = (clean.io_count(), 0, 0);
    for number in 1..=calls {
        for (forever, kind) in [false, true].into_iter().flat_map(|forever| {
            [ErrorKind::Other, ErrorKind::StorageFull].map(|kind| (forever, kind))
        }) {
            let (disk, mut told) = (SimDisk::new(number), Told::default());
            if forever {
                disk.fail_from(number, kind);
            } else {
                disk.fail_once(number, kind);
            }
            let _ = count_up(&disk, &mut told);
            fired += disk.faults_fired();
            disk.clear_faults();
            let what = format!(
                "call {number} ({}) fails with {kind:?}",
                disk.describe(number)
            );
            for survivors in [Survivors::All, Survivors::None, Survivors::Random(number)] {
                let count = count_after(&disk, survivors, &what);
                let may_be_there =
                    told.failed == Some(Outcome::Unknown) && count == told.acknowledged + 1;
                unknown += u32::from(may_be_there);
                assert!(
                    count == told.acknowledged || may_be_there,
                    "{what}, {survivors:?}: {count} is there, {} was acknowledged, then {:?}",
                    told.acknowledged,
                    told.failed
                );
            }
        }
    }
    assert!(fired >= calls * 4, "every call failed in every way");
    assert!(unknown > 0, "some commit of unknown outcome was there");
}

#[test]
fn a_full_disk_is_a_clean_error_and_space_brings_the_engine_back() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "k", "before")).unwrap();
    disk.set_capacity(Some(disk.room_taken()));
    let (mut committed, mut full) = (0, None);
    for round in 0..200u32 {
        let mut txn = db.begin_with(no_wait());
        let outcome = txn.put(&t, format!("fill{round}"), vec![2u8; 20 << 10]);
        match outcome.and_then(|()| txn.commit().map(|_| ())) {
            Ok(()) => committed += 1,
            Err(error) => {
                full = Some(error);
                break;
            }
        }
    }
    let error = full.expect("the disk fills up");
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::RolledBack);
    assert!(
        committed > 0,
        "segments that exist already still take commits"
    );
    // F10: reads, aborts and releases still work.
    let mut txn = db.begin_with(no_wait());
    assert_eq!(txn.get(&t, "k").unwrap().unwrap(), b"before");
    assert_eq!(db.locks().count(), 0);
    let _ = txn.lock(&t, "k", LockMode::Update);
    txn.abort();
    disk.set_capacity(None);
    db.transact(|txn| txn.put(&t, "k", "after")).unwrap();
    db.close().unwrap();
    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    assert_eq!(db.begin().get(&t, "k").unwrap().unwrap(), b"after");
    assert_eq!(
        db.begin().range(&t, "fill".."fill~").unwrap().count(),
        committed
    );
}

#[test]
fn a_transaction_that_stays_open_is_rolled_back_when_the_log_reaches_its_limit() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut left_open = db.begin_with(no_wait());
    left_open.put(&t, "mine", "1").unwrap();
    for round in 0..400u32 {
        db.transact(|txn| txn.put(&t, format!("{}", round % 7), vec![3u8; 10 << 10]))
            .unwrap();
    }
    let error = left_open.put(&t, "mine", "2").unwrap_err();
    assert!(matches!(error, Error::LogFull { .. }), "{error:?}");
    assert!(error.to_string().contains("log_bytes"), "{error}");
    assert!(left_open.holds(&t, "mine").is_none());
    assert!(matches!(left_open.commit(), Err(Error::LogFull { .. })));
    assert!(db.stats().log_bytes <= 1 << 20, "the log is bounded");
    db.close().unwrap();
}

/// S3: one that has spilled locks alone does not hold the log back by them.
#[test]
fn more_locks_than_the_log_can_hold_are_held() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut locker = db.begin_with(no_wait().label("locker"));
    for i in 0..100_000u32 {
        locker.lock(&t, i.to_be_bytes(), LockMode::Share).unwrap();
    }
    assert!(db.stats().log_bytes <= 1 << 20, "the log is bounded");
    assert!(db.stats().checkpoints > 0);
    for i in (0..100_000u32).step_by(9_973) {
        let refused = db.begin_with(no_wait()).put(&t, i.to_be_bytes(), "1");
        assert!(matches!(refused, Err(Error::WouldBlock { .. })));
    }
    db.transact(|txn| txn.put(&t, "goes on", "1")).unwrap();
    // R6: it is known by its name, and by all that it had.
    let crashed = disk.after_kill(disk.io_count());
    let report = open(&crashed).unwrap().recovery_report().clone();
    let [in_flight] = &report.in_flight[..] else {
        panic!("{report:?}")
    };
    assert_eq!(in_flight.label.as_deref(), Some("locker"));
    assert!(
        (90_000..=100_000).contains(&in_flight.locks),
        "{in_flight:?}"
    );
    locker.commit().unwrap();
    assert_eq!(db.locks().count(), 0);
    db.close().unwrap();
}

#[test]
fn a_damaged_block_is_an_error_for_its_rows_and_nothing_else() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| (0..2000u32).try_for_each(|i| txn.put(&t, i.to_be_bytes(), [7u8; 64])))
        .unwrap();
    db.close().unwrap();
    let run = disk
        .names()
        .into_iter()
        .find(|name| name.starts_with("run-"))
        .unwrap();
    disk.flip_byte(&run, 6000);
    let db = open(&disk).unwrap();
    let t = db.table("t").unwrap();
    let txn = db.begin();
    let (mut good, mut bad) = (0, 0);
    for i in 0..2000u32 {
        match txn.get(&t, i.to_be_bytes()) {
            Ok(value) => {
                assert_eq!(value.unwrap(), [7u8; 64][..]);
                good += 1;
            }
            Err(Error::Corrupt { file, .. }) => {
                assert!(file.ends_with(&run));
                bad += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(good > 1900 && bad > 0, "{good} read, {bad} refused");
    for backward in [false, true] {
        let mut rows = txn.range(&t, ..).unwrap();
        let (mut seen, mut errors) = (0, 0);
        while let Some(row) = if backward {
            rows.next_back()
        } else {
            rows.next()
        } {
            if row.is_ok() { seen += 1 } else { errors += 1 }
        }
        assert_eq!(
            (seen, errors),
            (good, 1),
            "one error, and the scan goes on behind the block"
        );
    }
    drop(txn);
    for (own_writes, backward) in [(false, false), (false, true), (true, false), (true, true)] {
        let rows = walked_by_a_locking_cursor(&db, &t, own_writes, backward);
        assert_eq!(
            rows,
            (good + usize::from(own_writes), 1),
            "own writes: {own_writes}, backward: {backward}"
        );
    }
    assert!(!db.check().unwrap().is_clean());
}

/// How many rows a locking cursor yields, and how many errors, while others commit in between. Another has locked the row behind
/// the damaged block when the cursor comes there first.
fn walked_by_a_locking_cursor(
    db: &Database,
    t: &Table,
    own_writes: bool,
    backward: bool,
) -> (usize, usize) {
    let beside = |at: usize| {
        db.transact(|txn| txn.put(t, [255, 255, at as u8], "beside"))
            .unwrap();
    };
    let mut txn = db.begin_with(no_wait());
    if own_writes {
        // Among the rows of the damaged block.
        txn.put(t, [0, 0, 0, 70, 0], "own").unwrap();
    }
    let (mut seen, mut errors, mut refused) = (0, 0, 0);
    let mut blocker = None;
    let mut rows = txn
        .range_for(
            t,
            &0u32.to_be_bytes()[..]..&2000u32.to_be_bytes()[..],
            LockMode::Share,
        )
        .unwrap();
    loop {
        let next = if backward {
            rows.next_back()
        } else {
            rows.next()
        };
        match next {
            None => return (seen, errors),
            Some(Ok(_)) => seen += 1,
            Some(Err(Error::Corrupt { .. })) => {
                errors += 1;
                let mut other = db.begin_with(no_wait());
                for i in 0..2000u32 {
                    // Those that the cursor holds are refused.
                    let _ = other.lock(t, i.to_be_bytes(), LockMode::Update);
                }
                blocker = Some(other);
                beside(1);
            }
            Some(Err(Error::WouldBlock { .. })) => {
                refused += 1;
                assert_eq!(refused, 1, "it is free, and comes next");
                drop(blocker.take());
                beside(2);
            }
            Some(Err(other)) => panic!("{other:?}"),
        }
    }
}
