//! What inspection says of a log is what opening makes of it, whatever was done to its files; and counters
//! that have come to their end are refused before anything is changed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

use std::sync::Arc;

use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, TableId};
use lockstone_recovery::analysis::{Analysis, Keep};
use lockstone_recovery::record::{Body, Tag};
use lockstone_recovery::{
    Config, Identity, Inspection, LogCheck, LogVerdict, Recovered, RecoveryError, recover,
};
use lockstone_storage::Manifest;
use lockstone_storage::{Shape, StoreConfig};
use lockstone_testkit::{SimClock, SimDisk};
use lockstone_wal::{Log, LogVisitor, Record, ScannedRecord};

const CONFIG: Config = Config {
    segment_bytes: 256 << 10,
    memory_bytes: 1 << 20,
    store: StoreConfig {
        shape: Shape {
            level_0_runs: 4,
            base_bytes: 1 << 30,
            run_bytes: 1 << 30,
        },
    },
    create: None,
};

fn open(disk: &Arc<SimDisk>) -> Result<Recovered, RecoveryError> {
    let is_new = disk.names().is_empty();
    let create = is_new.then_some(Identity { uuid: 1, salt: 2 });
    let disk: Arc<dyn Disk> = disk.clone();
    recover(&disk, &SimClock::new(), &Config { create, ..CONFIG })
}

fn verify(disk: &Arc<SimDisk>) -> LogCheck {
    let inspection = Inspection::open(disk.clone(), Arc::new(SimClock::new()));
    inspection.unwrap().verify().unwrap()
}

fn append(log: &Log, body: Body<'_>, tag: Tag) {
    let bytes = body.encode();
    let record = Record {
        tag: tag as u8,
        context: &[],
        body: &bytes.pieces(),
    };
    let appended = log.append(&record).unwrap();
    log.wait_durable(appended.end).unwrap();
}

fn create_table(log: &Log, id: u32) {
    let name = format!("table-{id}-{}", "x".repeat(200));
    let body = Body::CreateTable {
        id: TableId(id),
        name: &name,
    };
    append(log, body, Tag::CreateTable);
}

/// Two runs, the first of which fills more than one segment. The last frame is not covered.
fn two_runs() -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    disk.write_file("lock", b"");
    let opened = recover(
        &(disk.clone() as Arc<dyn Disk>),
        &SimClock::new(),
        &Config {
            create: Some(Identity { uuid: 1, salt: 2 }),
            ..CONFIG
        },
    );
    let log = opened.unwrap().log;
    for id in 1..=70 {
        create_table(&log, id);
    }
    drop(log);
    let log = open(&disk).unwrap().log;
    create_table(&log, 71);
    log.cover().unwrap();
    create_table(&log, 72);
    drop(log);
    disk.after_kill(disk.io_count())
}

/// Verifies a copy, opens another, and compares. The verdict.
fn agrees(disk: &SimDisk, why: &str) -> LogVerdict {
    let copy = || disk.after_kill(disk.io_count());
    let looked_at = copy();
    let calls = looked_at.io_count();
    let check = verify(&looked_at);
    assert_eq!(looked_at.io_count(), calls, "{why}: a look changes nothing");
    let opened = open(&copy());
    match (check.verdict, &opened) {
        (LogVerdict::Corrupt, Err(error)) => {
            let corrupt = check.corrupt.unwrap();
            assert!(error.to_string().contains(corrupt.what), "{why}: {error}");
        }
        (LogVerdict::Torn, Ok(opened)) => {
            let (seen, dropped) = (check.torn.unwrap(), opened.report.torn.clone().unwrap());
            assert_eq!(
                (seen.lsn, seen.bytes, seen.frames),
                (dropped.lsn, dropped.bytes, dropped.frames),
                "{why}"
            );
        }
        (LogVerdict::Clean, Ok(opened)) => {
            assert!(opened.report.torn.is_none(), "{why}");
            assert_eq!(opened.report.log_end, check.chain.end, "{why}");
        }
        (verdict, opened) => panic!("{why}: {verdict:?}, and opening gives {:?}", opened.is_ok()),
    }
    check.verdict
}

#[test]
fn a_verdict_is_what_opening_makes_of_the_log() {
    let disk = two_runs();
    let whole = verify(&disk);
    assert_eq!(whole.verdict, LogVerdict::Clean);
    assert!(!whole.chain.is_covered && whole.chain.recorded.is_some());
    assert!(whole.chain.covered.unwrap().end <= whole.chain.testified);
    assert_eq!(
        whole.chain.jumps, 2,
        "to the second segment, and to the next run's"
    );
    assert_eq!(whole.segments.len(), 3);
    assert!(whole.segments[0].used > 200 << 10 && whole.segments[2].used == 4 * 4096);
    assert_eq!(whole.spares.len(), 1);
    assert_eq!(
        whole.manifest.log_end,
        whole.segments[2].base.plus(256 << 10)
    );

    let mut verdicts = [0; 3];
    let mut count = |verdict| {
        let at = match verdict {
            LogVerdict::Clean => 0,
            LogVerdict::Torn => 1,
            _ => 2,
        };
        verdicts[at] += 1;
    };
    for segment in &whole.segments {
        let name = &segment.file;
        let good = disk.read_file(name);
        for block in 0..segment.used / 4096 {
            for byte in [8, 30, 45, 61, 66, 300] {
                let offset = block * 4096 + byte;
                disk.flip_byte(name, offset);
                count(agrees(&disk, &format!("{name} at {offset}")));
                disk.flip_byte(name, offset);
            }
            if block % 8 != 0 {
                continue;
            }
            disk.truncate(name, block * 4096);
            count(agrees(&disk, &format!("{name} cut to block {block}")));
            disk.write_file(name, &good);
        }
        disk.remove_file(name);
        assert_eq!(agrees(&disk, name), LogVerdict::Corrupt, "F14");
        disk.write_file(name, &good);
    }
    assert!(verdicts.iter().all(|count| *count > 2), "{verdicts:?}");
}

/// Writes a manifest that differs from the newest one, and tries to open with it.
fn refused_with(change: impl FnOnce(&mut Manifest)) -> RecoveryError {
    let disk = two_runs();
    let mut manifest = Manifest::read_newest(&*disk).unwrap().unwrap();
    manifest.generation += 1;
    change(&mut manifest);
    manifest.write(&*disk).unwrap();
    let before: Vec<_> = disk.names();
    let error = open(&disk).map(drop).unwrap_err();
    assert_eq!(disk.names(), before, "nothing was changed");
    error
}

/// Counting on from there gave an overflow, or the ids of an earlier run again.
#[test]
fn counters_at_their_end_are_refused() {
    for error in [
        refused_with(|manifest| manifest.generation = u64::MAX),
        refused_with(|manifest| manifest.next_run = u64::MAX),
        refused_with(|manifest| manifest.boot_epoch = u32::MAX),
    ] {
        assert!(
            matches!(error, RecoveryError::Exhausted { at, .. } if at >= u64::from(u32::MAX)),
            "{error}"
        );
    }
    // The last table id is never given out, so a log that holds it is no log of ours.
    let disk = two_runs();
    let log = open(&disk).unwrap().log;
    create_table(&log, u32::MAX);
    drop(log);
    let disk = disk.after_kill(disk.io_count());
    assert_eq!(agrees(&disk, "a table of the last id"), LogVerdict::Corrupt);
    // One manifest may have used up all the ids there are: it opens, and gives out none.
    let disk = two_runs();
    let mut manifest = Manifest::read_newest(&*disk).unwrap().unwrap();
    manifest.generation += 1;
    manifest.next_table = u32::MAX;
    manifest.write(&*disk).unwrap();
    assert_eq!(open(&disk).unwrap().manifest.next_table, u32::MAX);
}

#[test]
fn a_manifest_records_how_far_the_files_reach() {
    let disk = two_runs();
    let opened = open(&disk).unwrap();
    assert_eq!(opened.manifest.log_end, opened.log.segments_end());
    assert!(opened.manifest.log_end > opened.manifest.durable);
    assert!(opened.manifest.log_end > Lsn::ZERO);
}

/// S4: a transaction that holds the log back makes recovery read again of tables that had come and gone before the
/// manifest; it names neither them nor their drop.
#[test]
fn what_became_of_a_table_before_the_manifest_means_nothing() {
    let manifest = Manifest {
        next_table: 9,
        ..Manifest::default()
    };
    let mut analysis = Analysis::new(&*SimDisk::new(1), &manifest, Keep::Nobody).unwrap();
    let mut read = |lsn: u64, body: Body<'_>| {
        let bytes = body.encode();
        analysis.record(ScannedRecord {
            lsn: Lsn::new(lsn),
            tag: bytes.tag as u8,
            context: &[],
            body: &bytes.pieces().concat(),
        })
    };
    let id = TableId(5);
    read(10, Body::CreateTable { id, name: "t" }).unwrap();
    read(20, Body::DropTable { id }).unwrap();
    // The name was free again, and a later table has it.
    let later = TableId(9);
    read(
        30,
        Body::CreateTable {
            id: later,
            name: "t",
        },
    )
    .unwrap();
    read(40, Body::DropTable { id: TableId(77) }).unwrap_err();
    assert_eq!(analysis.tables().len(), 1);
    assert!(analysis.dropped().is_empty());
    assert_eq!(analysis.commit_tail(), Lsn::new(40));
}
