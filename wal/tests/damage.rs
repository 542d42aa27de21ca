//! Damaged, missing, cut, foreign and hostile files: an error with its place, never a panic, never an
//! acknowledged record silently gone (G5, G6).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod fixture;

use std::sync::Arc;

use fixture::{
    Known, NOTHING, SALT, Seen, append, body, commit, config, inspect, read, start, start_with,
};
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, OpenMode};
use lockstone_testkit::SimDisk;
use lockstone_wal::{Access, LogConfig, ScanOptions, Segments, WalError};
use proptest::prelude::*;

const FIRST: &str = "wal-0000000000000000";

/// Five commits and the empty frame that covers them, one block each.
fn small_log() -> (Arc<SimDisk>, Seen) {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    for number in 0..5 {
        append(&log, &body(number, 40)).unwrap();
        commit(&log, &body(number, 100)).unwrap();
    }
    log.cover().unwrap();
    drop(log);
    let (_, seen) = inspect(disk.clone(), NOTHING).unwrap();
    (disk, seen)
}

/// A log of several segments, all of it covered.
fn long_log() -> (Arc<SimDisk>, Seen) {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    for number in 0..40 {
        commit(&log, &body(number, 30_000)).unwrap();
    }
    log.cover().unwrap();
    drop(log);
    let (_, seen) = inspect(disk.clone(), NOTHING).unwrap();
    (disk, seen)
}

fn segments_of(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| !name.starts_with("wal-spare"));
    names
}

fn refused(disk: &Arc<SimDisk>, known: Known) -> WalError {
    let calls = disk.io_count();
    let error = inspect(disk.clone(), known).expect_err("acknowledged data is gone");
    assert_eq!(disk.io_count(), calls, "REFUSE changes nothing");
    error
}

#[test]
fn a_flipped_byte_is_refused_or_does_no_harm() {
    let (disk, whole) = small_log();
    let blocks = 1 + 6_u64;
    let mut refusals = 0;
    for offset in 0..blocks * 4096 {
        // Behind the records is padding, which carries nothing: a sample of it is enough.
        if offset % 4096 > 400 && offset % 97 != 0 {
            continue;
        }
        disk.flip_byte(FIRST, offset);
        match inspect(disk.clone(), NOTHING) {
            Ok((_, seen)) => {
                assert_eq!(
                    seen.records, whole.records,
                    "offset {offset}: silently lost"
                );
            }
            Err(WalError::Corrupt {
                file,
                offset: at,
                lsn,
                ..
            }) => {
                assert!(file.ends_with(FIRST));
                assert_eq!(at, lsn.get());
                assert_eq!(
                    at,
                    offset - offset % 4096,
                    "the block that is damaged is named"
                );
                refusals += 1;
            }
            Err(error) => panic!("offset {offset}: {error}"),
        }
        disk.flip_byte(FIRST, offset);
    }
    assert!(refusals > 5 * 200, "{refusals}");
    assert_eq!(inspect(disk, NOTHING).unwrap().1, whole);
}

#[test]
fn a_lost_block_is_refused() {
    let (disk, whole) = long_log();
    for name in segments_of(&disk) {
        let good = disk.read_file(&name);
        for block in 1..good.len() / 4096 {
            let mut bad = good.clone();
            bad[block * 4096..(block + 1) * 4096].fill(0);
            disk.write_file(&name, &bad);
            if let Ok((_, seen)) = inspect(disk.clone(), NOTHING) {
                assert_eq!(seen.records, whole.records, "{name}, block {block}");
            }
        }
        disk.write_file(&name, &good);
    }
}

#[test]
fn a_damaged_segment_header_loses_nothing() {
    let (disk, whole) = long_log();
    for name in segments_of(&disk) {
        let mut bytes = disk.read_file(&name);
        bytes[..4096].fill(0xa5);
        disk.write_file(&name, &bytes);
    }
    assert_eq!(inspect(disk.clone(), NOTHING).unwrap().1, whole, "G5");
    let (log, _, seen) = start(disk, NOTHING).unwrap();
    assert_eq!(seen, whole);
    commit(&log, b"and on").unwrap();
}

#[test]
fn a_missing_or_cut_segment_is_refused() {
    let (disk, _) = long_log();
    let names = segments_of(&disk);
    assert!(names.len() >= 5);
    for name in &names[..names.len() - 1] {
        let good = disk.read_file(name);
        if !good.iter().skip(4096).any(|byte| *byte != 0) {
            continue;
        }
        disk.remove_file(name);
        assert!(
            matches!(refused(&disk, NOTHING), WalError::Corrupt { .. }),
            "{name} missing"
        );
        disk.write_file(name, &good);
        for len in [4096, 8192, good.len() as u64 - 4096] {
            disk.truncate(name, len);
            let error = refused(&disk, NOTHING);
            assert!(
                matches!(error, WalError::Corrupt { .. }),
                "{name} cut to {len}: {error}"
            );
            disk.write_file(name, &good);
        }
    }
    inspect(disk, NOTHING).unwrap();
}

#[test]
fn a_manifest_that_knows_more_than_the_chain_holds_is_believed() {
    let (disk, seen) = small_log();
    let end = seen.frames.last().unwrap().point;
    let knows = |durable| Known { durable, ..NOTHING };
    inspect(disk.clone(), knows(end.end)).unwrap();
    let error = refused(&disk, knows(end.end.plus(4096)));
    assert!(
        matches!(error, WalError::Corrupt { lsn, .. } if lsn == end.end),
        "{error}"
    );
    // Its starting point behind every segment: those are gone.
    let far = Known {
        from: lockstone_wal::ChainPoint {
            end: Lsn::new(1 << 40),
            crc: 1,
        },
        ..NOTHING
    };
    assert!(matches!(refused(&disk, far), WalError::Corrupt { .. }));
    for name in segments_of(&disk) {
        disk.remove_file(&name);
    }
    assert!(matches!(
        refused(&disk, knows(end.end)),
        WalError::Corrupt { .. }
    ));
    let from = Known {
        from: end,
        ..NOTHING
    };
    assert!(matches!(refused(&disk, from), WalError::Corrupt { .. }));
}

#[test]
fn a_frame_that_names_a_newer_manifest_is_refused() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"before").unwrap();
    log.note_manifest(5);
    let after = commit(&log, b"after").unwrap();
    drop(log);
    let knows = |generation| Known {
        generation,
        ..NOTHING
    };
    inspect(disk.clone(), knows(5)).unwrap();
    let error = refused(&disk, knows(4));
    let start = Lsn::new(after.lsn.get() - 64);
    assert!(
        matches!(error, WalError::Corrupt { lsn, .. } if lsn == start),
        "{error}"
    );
}

#[test]
fn a_torn_last_frame_is_dropped_and_reported() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"kept").unwrap();
    let torn = commit(&log, &[7; 9000]).unwrap();
    drop(log);
    // Its middle block never arrived.
    let mut bytes = disk.read_file(FIRST);
    bytes[12288..16384].fill(0);
    disk.write_file(FIRST, &bytes);
    let (scan, seen) = inspect(disk.clone(), NOTHING).unwrap();
    assert_eq!(seen.bodies(), [b"kept"]);
    let tail = scan.torn.unwrap();
    assert!(tail.file.ends_with(FIRST));
    assert_eq!(
        (tail.at, tail.frames, tail.records),
        (Lsn::new(torn.lsn.get() - 64), 1, 1)
    );
    // Nor its header.
    bytes[8192 + 24] ^= 1;
    disk.write_file(FIRST, &bytes);
    bytes[8192 + 24] ^= 1;
    let (scan, _) = inspect(disk.clone(), NOTHING).unwrap();
    assert_eq!(
        scan.torn.map(|tail| tail.frames),
        None,
        "the own LSN is gone: nothing to tell"
    );
    bytes[8192 + 60] ^= 1;
    disk.write_file(FIRST, &bytes);
    let (scan, _) = inspect(disk.clone(), NOTHING).unwrap();
    assert_eq!(scan.torn.map(|tail| tail.frames), Some(0));
    // The next life goes on behind what was kept, in a new segment, and no later scan minds.
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"next").unwrap();
    log.cover().unwrap();
    drop(log);
    let (scan, seen) = inspect(disk, NOTHING).unwrap();
    assert_eq!(seen.bodies(), [b"kept", b"next"]);
    assert_eq!(scan.torn, None, "what lies before the end is history");
}

/// Several frames are in flight at once: a later one may have arrived though an earlier one is torn.
#[test]
fn an_intact_frame_behind_a_torn_one_is_dropped_and_counted() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"kept").unwrap();
    // Two full frames that go off together, and the start of a third.
    for number in 0..5 {
        append(&log, &body(number, 30_000)).unwrap();
    }
    log.wait_durable(log.end()).unwrap();
    drop(log);
    let (_, whole) = inspect(disk.clone(), NOTHING).unwrap();
    let [_, torn, behind, last] = whole.frames[..] else {
        panic!("four frames: {:?}", whole.frames);
    };
    assert!(
        behind.durable_through < torn.point.end,
        "they were in flight together"
    );
    let mut bytes = disk.read_file(FIRST);
    bytes[torn.start.get() as usize + 8192..][..4096].fill(0);
    bytes[last.start.get() as usize..last.point.end.get() as usize].fill(0);
    disk.write_file(FIRST, &bytes);
    let (scan, seen) = inspect(disk, NOTHING).unwrap();
    assert_eq!(seen.bodies(), [b"kept"]);
    let tail = scan.torn.unwrap();
    assert_eq!((tail.at, tail.offset), (torn.start, torn.start.get()));
    assert_eq!((tail.frames, tail.whole, tail.records), (2, 1, 4));
    assert_eq!(tail.bytes, behind.point.end.since(torn.start));
    assert_eq!(
        seen.leftovers
            .iter()
            .map(|it| (it.frame.start, it.is_whole))
            .collect::<Vec<_>>(),
        [(torn.start, false), (behind.start, true)]
    );
}

#[test]
fn a_scan_tells_whether_the_last_frame_with_records_is_covered() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let (scan, _) = inspect_running(&disk);
    assert!(scan.is_covered() && scan.recorded.is_none());
    let first = commit(&log, b"one").unwrap();
    let (scan, _) = inspect_running(&disk);
    assert!(!scan.is_covered(), "G6: the stated limit");
    let start = Lsn::new(first.lsn.get() - 64);
    assert_eq!(scan.recorded, Some((start, start.plus(4096))));
    log.cover().unwrap();
    let (scan, _) = inspect_running(&disk);
    assert!(scan.is_covered());
    assert_eq!(scan.testified, start.plus(4096));
    // A manifest covers as well.
    commit(&log, b"two").unwrap();
    let end = log.durable();
    let crashed = disk.after_kill(disk.io_count());
    let knows = Known {
        durable: end,
        ..NOTHING
    };
    assert!(!inspect(crashed.clone(), NOTHING).unwrap().0.is_covered());
    assert!(inspect(crashed, knows).unwrap().0.is_covered());
}

fn inspect_running(disk: &SimDisk) -> (lockstone_wal::LogScan, Seen) {
    inspect(disk.after_kill(disk.io_count()), NOTHING).unwrap()
}

#[test]
fn a_visitor_that_has_enough_stops_a_show_and_no_scan() {
    let (disk, whole) = small_log();
    let segments = Segments::open(disk, Access::Inspect).unwrap();
    let options = ScanOptions {
        salt: SALT,
        from: NOTHING.from,
        durable: Lsn::ZERO,
        manifest_generation: 1,
        log_end: Lsn::ZERO,
    };
    let mut some = Seen {
        frames_wanted: Some(2),
        ..Seen::default()
    };
    assert!(segments.show(&options, &mut some).unwrap().is_none());
    assert_eq!(some.frames, whole.frames[..2]);
    let mut all = Seen {
        frames_wanted: Some(2),
        ..Seen::default()
    };
    segments.scan(&options, &mut all).unwrap();
    assert_eq!(all.frames, whole.frames);
}

/// A neighbour names the one that went, and is named as the witness.
#[test]
fn a_missing_segment_is_named() {
    let (disk, _) = long_log();
    let names = segments_of(&disk);
    for (at, name) in names.iter().enumerate().skip(1) {
        let good = disk.read_file(name);
        disk.remove_file(name);
        let error = refused(&disk, NOTHING);
        assert!(
            matches!(&error, WalError::Corrupt { file, witness: Some(_), .. } if file.ends_with(name)),
            "{error}"
        );
        let neighbour = names.get(at + 1).unwrap_or(&names[at - 1]);
        assert!(error.to_string().contains(neighbour), "{error}");
        disk.write_file(name, &good);
    }
    // A damaged header is no witness; the chain still is, where there is any.
    for name in &names {
        disk.flip_byte(name, 60);
    }
    disk.remove_file(&names[1]);
    let error = refused(&disk, NOTHING);
    assert!(error.to_string().contains("durable beyond"), "{error}");
}

/// S3, F14: a position that is a segment's end lies in that segment, which is the only one to name the next.
#[test]
fn a_segment_at_whose_end_reading_starts_stays() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    // 63 blocks: fifteen frames of four, and one of three.
    for number in 0..15 {
        commit(&log, &body(number, 16_000)).unwrap();
    }
    commit(&log, &body(15, 11_000)).unwrap();
    let from = log.chain_point_at(log.durable());
    let end = log.segments_end();
    assert_eq!(from.end.get(), 256 << 10, "it fills its segment");
    let known = Known {
        from,
        durable: log.durable(),
        generation: 1,
        log_end: Lsn::new(256 << 10),
    };
    log.recycle(from.end).unwrap();
    commit(&log, b"in the next").unwrap();
    assert!(log.segments_end() >= end);
    drop(log);
    let (_, seen) = inspect(disk.clone(), known).unwrap();
    assert_eq!(seen.bodies(), [b"in the next"]);
    for name in segments_of(&disk) {
        let good = disk.read_file(&name);
        disk.remove_file(&name);
        refused(&disk, known);
        disk.write_file(&name, &good);
    }
    // A frame further on it is needed no more.
    let (log, ..) = start(disk.clone(), known).unwrap();
    commit(&log, b"in a third").unwrap();
    log.recycle(log.durable()).unwrap();
    assert!(!disk.names().iter().any(|name| name == FIRST));
}

/// The manifest names the highest, whatever has become of those below it.
#[test]
fn files_that_end_before_the_manifest_says_are_refused() {
    let (disk, seen) = small_log();
    let knows = |log_end| Known {
        log_end: Lsn::new(log_end),
        ..NOTHING
    };
    let (_, again) = inspect(disk.clone(), knows(256 << 10)).unwrap();
    assert_eq!(again, seen);
    let error = refused(&disk, knows((256 << 10) + 4096));
    assert!(
        error.to_string().contains("files that reached to"),
        "{error}"
    );
    disk.remove_file(FIRST);
    assert!(matches!(
        refused(&disk, knows(4096)),
        WalError::Corrupt { .. }
    ));
    inspect(disk.clone(), NOTHING).unwrap();
    // G1: no position below is given out again.
    let other = SimDisk::new(2);
    let (log, ..) = start(other.clone(), NOTHING).unwrap();
    drop(log);
    other.write_file("wal-0000000001000000", &[0; 8192]);
    let (log, ..) = start(other, knows(0x0100_2000)).unwrap();
    assert!(commit(&log, b"above").unwrap().lsn > Lsn::new(0x0100_2000));
}

#[test]
fn a_segment_of_another_database_or_version_is_refused() {
    let (disk, _) = small_log();
    let other = SimDisk::new(2);
    let salted = LogConfig {
        salt: SALT + 1,
        ..config()
    };
    let segments = Segments::open(other.clone(), Access::Recover).unwrap();
    let options = ScanOptions {
        salt: SALT + 1,
        from: NOTHING.from,
        durable: Lsn::ZERO,
        manifest_generation: 1,
        log_end: Lsn::ZERO,
    };
    let scan = segments.scan(&options, &mut Seen::default()).unwrap();
    drop(lockstone_wal::Log::start(segments, salted, &scan).unwrap());
    disk.write_file("wal-0000000000040000", &other.read_file(FIRST));
    assert!(matches!(refused(&disk, NOTHING), WalError::Foreign { .. }));
    disk.remove_file("wal-0000000000040000");

    let refused_salt = start_with(disk.clone(), NOTHING, salted);
    assert!(matches!(refused_salt, Err(WalError::InvalidConfig(_))));

    let mut bytes = disk.read_file(FIRST);
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..76]);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    disk.write_file(FIRST, &bytes);
    assert!(matches!(
        refused(&disk, NOTHING),
        WalError::NewerFormat { version: 2, .. }
    ));
}

#[test]
fn hostile_names_and_lengths_are_refused() {
    for (name, len) in [
        ("wal-0000000000000800", 8192),
        ("wal-ffffffffffffe000", 8192),
        ("wal-0000000000001000", 8192),
        // A named segment is whole: an emptied file is no segment.
        ("wal-0000000001000000", 0),
        ("wal-0000000001000000", 100),
        ("wal-0000000001000000", 8191),
    ] {
        let (disk, _) = small_log();
        disk.write_file(name, &vec![0; len]);
        let error = read(disk, Access::Recover, NOTHING).map(drop).unwrap_err();
        assert!(matches!(error, WalError::Corrupt { .. }), "{name}: {error}");
    }
    // No harm: strange names, and a file without anything that means something.
    let (disk, whole) = small_log();
    disk.write_file("wal-0000000001000000", &[7; 8192]);
    disk.write_file("wal-XYZ", b"?");
    let (log, _, seen) = start(disk, NOTHING).unwrap();
    assert_eq!(seen, whole);
    assert!(commit(&log, b"and on").unwrap().lsn > Lsn::new(0x0100_2000));
}

/// A file of a petabyte, its header damaged, took until the end of time to survey.
#[test]
fn a_segment_longer_than_any_is_refused_unread() {
    let (disk, _) = small_log();
    let file = disk
        .open("wal-0000000001000000", OpenMode::CreateNew)
        .unwrap();
    file.set_len((1 << 30) + 4096).unwrap();
    drop(file);
    let error = refused(&disk, NOTHING);
    assert!(
        matches!(&error, WalError::Corrupt { file, .. } if file.ends_with("wal-0000000001000000")),
        "{error}"
    );
}

/// Puts a forged frame with good checksums over the first one.
fn forge(disk: &SimDisk, payload: &[u8], records: u32, own_durable: bool) {
    let mut bytes = disk.read_file(FIRST);
    let salted = |parts: &[&[u8]]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&SALT.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize().to_le_bytes()
    };
    let own = 4096_u64.to_le_bytes();
    let frame = &mut bytes[4096..];
    frame[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame[12..16].copy_from_slice(&records.to_le_bytes());
    if own_durable {
        frame[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
    }
    frame[56..60].copy_from_slice(&salted(&[&own, payload]));
    let crc = salted(&[&frame[..60]]);
    frame[60..64].copy_from_slice(&crc);
    frame[64..64 + payload.len()].copy_from_slice(payload);
    disk.write_file(FIRST, &bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_hostile_frame_with_good_checksums_is_an_error_not_a_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        records in 0..5_u32,
        own_durable: bool,
    ) {
        let (disk, _) = small_log();
        forge(&disk, &payload, records, own_durable);
        prop_assert!(inspect(disk, NOTHING).is_err());
    }

    #[test]
    fn no_overwriting_of_a_log_panics_or_invents_a_record(
        patches in proptest::collection::vec((0..30_000_usize, proptest::collection::vec(any::<u8>(), 1..600)), 1..6),
        copies in proptest::collection::vec((0..8_usize, 0..8_usize), 0..4),
    ) {
        let (disk, whole) = small_log();
        let mut bytes = disk.read_file(FIRST);
        for (at, patch) in &patches {
            bytes[*at..at + patch.len()].copy_from_slice(patch);
        }
        for (from, to) in copies {
            bytes.copy_within(from * 4096..(from + 1) * 4096, to * 4096);
        }
        disk.write_file(FIRST, &bytes);
        match inspect(disk.clone(), NOTHING) {
            Ok((_, seen)) => prop_assert!(whole.records.starts_with(&seen.records)),
            Err(error) => prop_assert!(!matches!(error, WalError::Disk(_)), "{error}"),
        }
    }

    #[test]
    fn no_file_of_random_bytes_panics_a_scan(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let disk = SimDisk::new(1);
        disk.write_file(FIRST, &bytes);
        disk.open(FIRST, OpenMode::Read).unwrap();
        match inspect(disk, NOTHING) {
            Ok((scan, seen)) => prop_assert_eq!((scan.frames, seen.records.len()), (0, 0)),
            Err(error) => prop_assert!(bytes.len() < 8192, "{error}"),
        }
    }
}
