//! The log in order: what is appended is read back, what it costs, how it fills, grows and recycles.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod fixture;

use std::io::ErrorKind;
use std::sync::Arc;

use fixture::{
    CONTEXT, Known, NOTHING, SEGMENT_BYTES, append, body, commit, config, inspect, read, start,
    start_with,
};
use lockstone_base::Lsn;
use lockstone_base::disk::{DiskOp, OsDisk};
use lockstone_testkit::SimDisk;
use lockstone_wal::{Access, ChainPoint, LogConfig, Record, WalError};

#[test]
fn the_first_record_lies_behind_segment_and_frame_header() {
    let disk = SimDisk::new(1);
    let (log, scan, _) = start(disk.clone(), NOTHING).unwrap();
    assert_eq!((scan.end, scan.frames), (ChainPoint::START, 0));
    assert_eq!((log.durable(), log.end()), (Lsn::ZERO, Lsn::ZERO));
    let first = commit(&log, b"first").unwrap();
    assert_eq!(first.lsn, Lsn::new(4096 + 64));
    assert_eq!(log.durable(), Lsn::new(8192));
    assert_eq!(log.end(), log.durable());
    assert_eq!(disk.names(), ["wal-0000000000000000", "wal-spare-0"]);
}

#[test]
fn what_was_committed_is_read_back_in_order_over_segments_and_runs() {
    let disk = SimDisk::new(1);
    let mut committed = Vec::new();
    for run in 0..4 {
        let (log, scan, seen) = start(disk.clone(), NOTHING).unwrap();
        assert_eq!(seen.bodies(), committed, "run {run}");
        assert_eq!(scan.torn, None);
        assert_eq!(log.durable(), scan.end.end, "G8");
        for number in 0..60 {
            let body = body(committed.len(), 1 + number * 211);
            commit(&log, &body).unwrap();
            committed.push(body);
        }
        log.cover().unwrap();
    }
    let (scan, seen) = inspect(disk.clone(), NOTHING).unwrap();
    assert_eq!(seen.bodies(), committed);
    assert_eq!(scan.records, 240);
    assert_eq!(scan.frames, 244, "and one empty frame a run");
    let lsns: Vec<_> = seen.records.iter().map(|record| record.0).collect();
    assert!(lsns.is_sorted_by(|a, b| a < b), "no LSN twice");
    assert!(
        disk.names().len() > 6,
        "several segments: {:?}",
        disk.names()
    );
}

#[test]
fn the_same_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = || Arc::new(OsDisk::open(dir.path(), true).unwrap());
    let mut committed = Vec::new();
    for _ in 0..3 {
        let (log, _, seen) = start(disk(), NOTHING).unwrap();
        assert_eq!(seen.bodies(), committed);
        for number in 0..40 {
            let body = body(committed.len(), 1 + number * 311);
            commit(&log, &body).unwrap();
            committed.push(body);
        }
    }
    assert_eq!(inspect(disk(), NOTHING).unwrap().1.bodies(), committed);
}

/// The simulated disk counts a log write as two calls: its start and its end.
const ONE_WRITE: u64 = 2;

#[test]
fn a_lone_commit_costs_one_durable_write_of_a_block() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    for number in 0..10 {
        append(&log, b"a lock, and a value").unwrap();
        let before = disk.io_count();
        commit(&log, b"commit").unwrap();
        assert_eq!(disk.io_count(), before + ONE_WRITE);
        let call = disk.describe(before + 1);
        assert!(call.contains("4096"), "{number}: {call}");
    }
}

#[test]
fn a_lock_record_alone_starts_no_flush() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let before = disk.io_count();
    for _ in 0..300 {
        append(&log, &[7; 100]).unwrap();
    }
    assert_eq!(disk.io_count(), before, "G9");
    assert_eq!(log.durable(), Lsn::ZERO);
    log.wait_durable(log.end()).unwrap();
    assert_eq!(
        disk.io_count(),
        before + ONE_WRITE,
        "it all goes with one flush"
    );
}

#[test]
fn appenders_drive_the_flush_when_buffers_fill() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let mut last = Lsn::ZERO;
    for number in 0..400 {
        last = append(&log, &body(number, 3000)).unwrap().end;
    }
    assert!(log.durable() > Lsn::new(800_000));
    log.wait_durable(last).unwrap();
    let (_, seen) = {
        drop(log);
        inspect(disk, NOTHING).unwrap()
    };
    assert_eq!(seen.records.len(), 400);
}

#[test]
fn the_longest_record_fits_and_a_longer_one_is_refused() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let max = log.record_bytes_max();
    assert!(max >= 32 << 10);
    for number in 0..9 {
        commit(&log, &body(number, max - CONTEXT.len())).unwrap();
    }
    let long = body(0, max - CONTEXT.len() + 1);
    assert!(matches!(
        append(&log, &long),
        Err(WalError::RecordTooLong { .. })
    ));
    assert!(matches!(
        log.reserve(max + 1),
        Err(WalError::RecordTooLong { .. })
    ));
    drop(log);
    assert_eq!(inspect(disk, NOTHING).unwrap().1.records.len(), 9);
    let default = LogConfig {
        segment_bytes: LogConfig::SEGMENT_BYTES,
        ..config()
    };
    let disk = SimDisk::new(2);
    let (log, ..) = start_with(disk, NOTHING, default).unwrap();
    assert!(log.record_bytes_max() >= (256 << 10) + (8 << 10));
}

#[test]
fn room_is_given_back_and_nothing_waits_for_it_in_vain() {
    let (log, ..) = start(SimDisk::new(1), NOTHING).unwrap();
    let max = log.record_bytes_max();
    for _ in 0..100 {
        let room = log.reserve(max).unwrap();
        drop(room);
    }
    std::thread::scope(|scope| {
        let room = log.reserve(max).unwrap();
        let waiter = scope.spawn(|| log.reserve(max).map(drop));
        std::thread::yield_now();
        assert!(
            !waiter.is_finished(),
            "there is room for one of that length"
        );
        drop(room);
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_chain_point_lets_a_scan_meet_the_record() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let mut lsns = Vec::new();
    for number in 0..200 {
        lsns.push(commit(&log, &body(number, 5000)).unwrap().lsn);
    }
    let points: Vec<_> = lsns.iter().map(|lsn| log.chain_point_at(*lsn)).collect();
    let last = log.chain_point_at(log.end());
    assert_eq!(last.end, log.durable());
    let durable = log.durable();
    drop(log);
    let known = |from| Known {
        from,
        durable,
        ..NOTHING
    };
    for (lsn, from) in lsns.iter().zip(points) {
        let (_, seen) = inspect(disk.clone(), known(from)).unwrap();
        assert!(seen.records.iter().any(|record| record.0 == *lsn));
        let first = seen.records[0].0;
        assert!(lsn.since(first) < 80_000, "S3: near, not from the start");
    }
    let (scan, seen) = inspect(disk, known(last)).unwrap();
    assert_eq!((scan.end, seen.records.len()), (last, 0));
}

#[test]
fn an_empty_frame_covers_the_last_commit() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    assert!(!log.has_uncovered());
    log.cover().unwrap();
    assert_eq!(
        log.durable(),
        Lsn::ZERO,
        "nothing to cover, nothing written"
    );
    commit(&log, b"commit").unwrap();
    assert!(log.has_uncovered());
    let before = disk.io_count();
    log.cover().unwrap();
    log.cover().unwrap();
    assert!(!log.has_uncovered());
    assert_eq!(
        disk.io_count(),
        before + ONE_WRITE,
        "G7: one empty frame, once"
    );
    append(&log, b"not waited for").unwrap();
    log.cover().unwrap();
    assert!(!log.has_uncovered() && log.end() == log.durable());
}

#[test]
fn recycling_bounds_the_files_and_old_frames_in_them_are_inert() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let mut from = ChainPoint::START;
    let (mut filled, mut before) = (Vec::new(), 0);
    let is_fill = |call| disk.describe(call).contains("wal-spare.tmp");
    for number in 0..600 {
        commit(&log, &body(number, 9000)).unwrap();
        if number % 50 == 49 {
            from = log.chain_point_at(log.end());
            log.recycle(from.end).unwrap();
            assert!(log.used_bytes() <= 4096);
            assert!(disk.names().len() <= 7, "{:?}", disk.names());
            if number > 200 {
                filled.extend((before + 1..=disk.io_count()).filter(|n| is_fill(*n)));
            }
            before = disk.io_count();
        }
    }
    assert!(
        filled.is_empty(),
        "G1: a steady load fills none anew: {filled:?}"
    );
    commit(&log, b"after").unwrap();
    let durable = log.durable();
    drop(log);
    let known = Known {
        from,
        durable,
        ..NOTHING
    };
    let (log, scan, seen) = start(disk.clone(), known).unwrap();
    assert_eq!(
        seen.bodies(),
        [b"after"],
        "G6: nothing of the files' earlier lives"
    );
    assert_eq!(scan.torn, None);
    commit(&log, b"and on").unwrap();
}

#[test]
fn another_segment_length_in_the_next_run_works() {
    let disk = SimDisk::new(1);
    let mut committed = Vec::new();
    for segment_bytes in [
        SEGMENT_BYTES,
        1 << 20,
        SEGMENT_BYTES + 4096,
        2 << 20,
        SEGMENT_BYTES,
    ] {
        let config = LogConfig {
            segment_bytes,
            ..config()
        };
        let (log, _, seen) = start_with(disk.clone(), NOTHING, config).unwrap();
        assert_eq!(seen.bodies(), committed);
        for _ in 0..100 {
            let body = body(committed.len(), 7000);
            commit(&log, &body).unwrap();
            committed.push(body);
        }
    }
    assert_eq!(inspect(disk, NOTHING).unwrap().1.bodies(), committed);
}

#[test]
fn runs_without_a_commit_take_no_space_and_give_no_position_twice() {
    let disk = SimDisk::new(1);
    let mut bases = Vec::new();
    for _ in 0..10 {
        let (log, ..) = start(disk.clone(), NOTHING).unwrap();
        // Given out, and lost with the process.
        bases.push(append(&log, b"never durable").unwrap().lsn);
        drop(log);
        assert_eq!(disk.names().len(), 2, "G8: {:?}", disk.names());
    }
    assert!(bases.is_sorted_by(|a, b| a < b), "G1: {bases:?}");
}

#[test]
fn a_log_in_use_is_locked_against_recovery_and_inspection() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    for access in [Access::Recover, Access::Inspect] {
        let second = read(disk.clone(), access, NOTHING);
        assert!(matches!(second, Err(WalError::Locked { .. })));
    }
    drop(log);
    let first = read(disk.clone(), Access::Inspect, NOTHING).unwrap();
    let second = read(disk.clone(), Access::Inspect, NOTHING).unwrap();
    drop((first, second));
    start(disk, NOTHING).unwrap();
}

#[test]
fn inspection_changes_nothing_and_cannot_be_extended() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"commit").unwrap();
    drop(log);
    let before = disk.io_count();
    let (segments, scan, _) = read(disk.clone(), Access::Inspect, NOTHING).unwrap();
    let refused = lockstone_wal::Log::start(segments, config(), &scan);
    assert!(matches!(refused, Err(WalError::InvalidConfig(_))));
    assert_eq!(disk.io_count(), before);
}

#[test]
fn impossible_configurations_are_refused() {
    for segment_bytes in [0, 4096, SEGMENT_BYTES - 4096, SEGMENT_BYTES + 1] {
        let config = LogConfig {
            segment_bytes,
            ..config()
        };
        let disk = SimDisk::new(1);
        let refused = start_with(disk.clone(), NOTHING, config);
        assert!(
            matches!(refused, Err(WalError::InvalidConfig(_))),
            "{segment_bytes}"
        );
        assert!(disk.names().is_empty());
    }
}

#[test]
fn a_failed_write_poisons_for_good_and_is_never_tried_again() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"durable").unwrap();
    disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
    assert!(matches!(commit(&log, b"in doubt"), Err(WalError::Poisoned)));
    assert!(log.is_poisoned());
    let after = disk.io_count();
    assert!(
        matches!(log.wait_durable(Lsn::new(1)), Err(WalError::Poisoned)),
        "W11"
    );
    assert!(matches!(append(&log, b"no more"), Err(WalError::Poisoned)));
    assert!(matches!(log.reserve(1), Err(WalError::Poisoned)));
    assert!(matches!(log.cover(), Err(WalError::Poisoned)));
    assert!(matches!(log.recycle(Lsn::ZERO), Err(WalError::Poisoned)));
    assert!(matches!(log.hold().check(), Err(WalError::Poisoned)));
    assert_eq!(
        disk.io_count(),
        after,
        "a failed write is never tried again"
    );
    drop(log);
    let (_, _, seen) = start(disk, NOTHING).unwrap();
    assert_eq!(seen.bodies()[0], b"durable");
}

#[test]
fn a_full_disk_is_a_clean_error_and_reserved_commits_still_fit() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    disk.set_capacity(Some(disk.room_taken()));
    let room = log.reserve(CONTEXT.len() + 8).unwrap();
    let mut appended = 0;
    let error = loop {
        match append(&log, &body(appended, 5000)) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, WalError::Disk(error) if error.is_full()),
        "{error}"
    );
    assert!(!log.is_poisoned());
    let mut hold = log.hold();
    let record = Record {
        tag: 5,
        context: CONTEXT,
        body: &[b"reserved"],
    };
    let reserved = hold.append(room, &record);
    drop(hold);
    log.wait_durable(reserved.end).unwrap();
    // It opens again on the full disk, over and over.
    drop(log);
    for _ in 0..3 {
        let (log, _, seen) = start(disk.clone(), NOTHING).unwrap();
        assert_eq!(seen.records.len(), appended + 1);
        assert_eq!(seen.bodies()[appended], b"reserved");
        drop(log);
    }
    // And goes on once there is room.
    disk.set_capacity(None);
    let (log, ..) = start(disk, NOTHING).unwrap();
    for number in 0..200 {
        commit(&log, &body(number, 5000)).unwrap();
    }
}

#[test]
fn a_segment_that_cannot_be_named_poisons() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    disk.fail_matching(DiskOp::SyncDir, "", ErrorKind::Other);
    let error = (0..200)
        .map(|number| append(&log, &body(number, 5000)))
        .find_map(Result::err);
    assert!(matches!(error, Some(WalError::Poisoned)), "{error:?}");
}
