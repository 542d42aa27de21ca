//! Failing calls and full disks of the simulated disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use lockstone_base::disk::{AlignedBuf, Disk, DiskFile, DiskOp, OpenMode};
use lockstone_testkit::{SimDisk, Survivors};

const BLOCK: usize = 4096;

fn disk_with(name: &str, bytes: &[u8]) -> (Arc<SimDisk>, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(0);
    disk.write_file(name, bytes);
    let file = disk.open(name, OpenMode::ReadWrite).unwrap();
    (disk, file)
}

fn after(disk: &SimDisk, survivors: Survivors) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &survivors)
}

fn block(byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(BLOCK);
    buffer.as_mut_bytes().fill(byte);
    buffer
}

/// F8, F9: a failed sync is no sync, also when the next one succeeds; yet the data may be there.
#[test]
fn what_a_failed_sync_left_is_never_synced() {
    let (disk, file) = disk_with("file", b"old.....");
    file.write_at(0, b"new").unwrap();
    disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
    assert_eq!(file.sync().unwrap_err().op, DiskOp::Sync);
    file.sync().unwrap();
    file.write_at(4, b"more").unwrap();
    file.sync().unwrap();
    assert_eq!(disk.read_file("file"), b"new.more", "the cache shows it");
    assert_eq!(disk.unsynced(disk.io_count()), 1);
    assert_eq!(after(&disk, Survivors::None).read_file("file"), b"old.more");
    assert_eq!(after(&disk, Survivors::All).read_file("file"), b"new.more");
}

#[test]
fn a_rewrite_after_a_failed_sync_is_synced() {
    let (disk, file) = disk_with("file", b"old");
    file.write_at(0, b"new").unwrap();
    disk.fail_matching(DiskOp::Sync, "file", ErrorKind::Other);
    file.sync().unwrap_err();
    disk.clear_faults();
    file.write_at(0, b"NE").unwrap();
    file.sync().unwrap();
    assert_eq!(after(&disk, Survivors::None).read_file("file"), b"NEd");
    assert_eq!(after(&disk, Survivors::All).read_file("file"), b"NEw");
}

/// The growth was stranded with the first write; what is synced later lies in the file all the same.
#[test]
fn a_synced_write_is_in_the_file_though_its_growth_was_stranded() {
    let (disk, file) = disk_with("file", b"");
    file.write_at(0, b"first").unwrap();
    disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
    file.sync().unwrap_err();
    file.write_at(0, b"2nd").unwrap();
    file.sync().unwrap();
    assert_eq!(after(&disk, Survivors::None).read_file("file"), b"2nd");
    assert_eq!(after(&disk, Survivors::All).read_file("file"), b"2ndst");
}

/// F17: past the cache, a new process does not see what a failed sync stranded there.
#[test]
fn a_log_is_read_past_what_a_failed_sync_left() {
    let (disk, file) = disk_with("log", &[1; 2 * BLOCK]);
    file.write_at(0, &[2; BLOCK]).unwrap();
    disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
    file.sync().unwrap_err();
    file.write_at(BLOCK as u64, &[3; BLOCK]).unwrap();
    let killed = disk.after_kill(disk.io_count());
    for disk in [&disk, &killed] {
        let log = disk.open("log", OpenMode::LogRead).unwrap();
        let mut buffer = AlignedBuf::zeroed(2 * BLOCK);
        assert_eq!(log.read_at(0, buffer.as_mut_bytes()).unwrap(), 2 * BLOCK);
        assert_eq!(buffer.as_bytes()[0], 1);
        assert_eq!(buffer.as_bytes()[BLOCK], 3, "dirty pages are no secret");
        assert_eq!(disk.read_file("log")[0], 2, "the cache has it");
    }
    let file = killed.open("log", OpenMode::ReadWrite).unwrap();
    file.sync().unwrap();
    for survivors in [Survivors::None, Survivors::All] {
        let bytes = after(&killed, survivors).read_file("log");
        assert_eq!((bytes[0], bytes[BLOCK]), (1, 3), "{survivors:?}");
    }
}

#[test]
fn a_failed_durable_write_is_in_doubt() {
    let (disk, _) = disk_with("log", &[1; 2 * BLOCK]);
    let log = disk.open("log", OpenMode::Log).unwrap();
    disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
    let error = log.write_durable(0, block(2).as_bytes()).unwrap_err();
    assert_eq!((error.op, error.offset), (DiskOp::WriteDurable, Some(0)));
    log.sync().unwrap();
    let first = |survivors| after(&disk, survivors).read_file("log")[0];
    assert_eq!(first(Survivors::None), 1);
    assert_eq!(first(Survivors::All), 2);
    log.write_durable(0, block(3).as_bytes()).unwrap();
    assert_eq!(first(Survivors::None), 3);
    assert_eq!(first(Survivors::All), 3, "F8: an older write never wins");
}

#[test]
fn a_failed_plain_write_leaves_some_first_bytes() {
    let mut seen = BTreeSet::new();
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        disk.write_file("file", b"........");
        let file = disk.open("file", OpenMode::ReadWrite).unwrap();
        disk.fail_once(2, ErrorKind::Other);
        file.write_at(2, b"abcd").unwrap_err();
        let bytes = disk.read_file("file");
        assert_eq!((&bytes[..2], &bytes[6..]), (&b".."[..], &b".."[..]));
        seen.insert(String::from_utf8(bytes[2..6].to_vec()).unwrap());
    }
    assert_eq!(
        seen,
        BTreeSet::from(["....", "a...", "ab..", "abc.", "abcd"].map(str::to_owned))
    );
}

#[test]
fn a_failed_directory_sync_leaves_names_in_doubt() {
    let (disk, _) = disk_with("a", b"");
    disk.rename("a", "b").unwrap();
    disk.fail_matching(DiskOp::SyncDir, "", ErrorKind::Other);
    disk.sync_dir().unwrap_err();
    disk.clear_faults();
    disk.sync_dir().unwrap();
    assert_eq!(after(&disk, Survivors::None).names(), ["a"]);
    assert_eq!(after(&disk, Survivors::All).names(), ["b"]);
}

#[test]
fn other_failed_calls_do_nothing() {
    let (disk, file) = disk_with("a", b"abc");
    disk.fail_from(disk.io_count() + 1, ErrorKind::Other);
    disk.rename("a", "b").unwrap_err();
    disk.remove("a").unwrap_err();
    disk.open("c", OpenMode::CreateNew).unwrap_err();
    file.set_len(0).unwrap_err();
    assert_eq!(disk.names(), ["a"]);
    assert_eq!(disk.read_file("a"), b"abc");
    assert_eq!((disk.faults_fired(), disk.io_count()), (4, 5));
    assert_eq!(file.len().unwrap(), 3, "calls that change nothing go on");
    disk.clear_faults();
    disk.remove("a").unwrap();
}

#[test]
fn faults_strike_what_they_match() {
    let (disk, file) = disk_with("wal-1", b"abc");
    disk.write_file("run-1", b"abc");
    let run = disk.open("run-1", OpenMode::Read).unwrap();
    let mut buffer = [0; 3];
    for (op, call) in [
        (DiskOp::Read, &mut || {
            file.read_at(0, &mut [0; 3]).map(drop) as _
        }),
        (DiskOp::Len, &mut || file.len().map(drop)),
        (DiskOp::Map, &mut || file.map().map(drop)),
        (DiskOp::Open, &mut || {
            disk.open("wal-1", OpenMode::Log).map(drop)
        }),
        (DiskOp::List, &mut || disk.list().map(drop)),
        (DiskOp::SetLen, &mut || file.set_len(5)),
    ] as [(DiskOp, &mut dyn FnMut() -> _); 6]
    {
        let prefix = if op == DiskOp::List { "" } else { "wal-" };
        disk.fail_matching(op, prefix, ErrorKind::PermissionDenied);
        let error = call().unwrap_err();
        assert_eq!((error.op, error.kind()), (op, ErrorKind::PermissionDenied));
        run.read_at(0, &mut buffer).unwrap();
        disk.clear_faults();
        call().unwrap();
    }
    assert_eq!(disk.faults_fired(), 6);
}

/// F10: what fits is written; what has its room already always fits.
#[test]
fn a_full_disk_refuses_new_pages_only() {
    let (disk, file) = disk_with("file", &[1; 2 * BLOCK]);
    disk.set_capacity(Some(4 * BLOCK as u64));
    assert_eq!(disk.room_taken(), 2 * BLOCK as u64);
    let more = disk.open("more", OpenMode::CreateNew).unwrap();
    more.set_len(1 << 20).unwrap();
    let error = more.write_at(0, &[2; 3 * BLOCK]).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(disk.read_file("more")[2 * BLOCK - 1], 2);
    assert_eq!(disk.read_file("more")[2 * BLOCK], 0);
    assert_eq!(disk.room_taken(), 4 * BLOCK as u64);
    file.write_at(0, &[3; 2 * BLOCK]).unwrap();
    file.sync().unwrap();
    let log = disk.open("file", OpenMode::Log).unwrap();
    log.write_durable(0, block(4).as_bytes()).unwrap();
    assert!(file.write_at(2 * BLOCK as u64, b"x").unwrap_err().is_full());
    let crashed = after(&disk, Survivors::All);
    let again = crashed.open("file", OpenMode::ReadWrite).unwrap();
    let refused = again.write_at(2 * BLOCK as u64, b"x").unwrap_err();
    assert!(refused.is_full(), "the disk is as full after a crash");
    disk.remove("more").unwrap();
    file.write_at(2 * BLOCK as u64, b"x").unwrap();
    disk.set_capacity(None);
    file.write_at(0, &vec![5; 9 * BLOCK]).unwrap();
}

#[test]
fn a_durable_write_into_a_hole_may_find_no_room() {
    let (disk, file) = disk_with("log", b"");
    file.set_len(2 * BLOCK as u64).unwrap();
    file.sync().unwrap();
    disk.set_capacity(Some(BLOCK as u64));
    let log = disk.open("log", OpenMode::Log).unwrap();
    log.write_durable(0, block(1).as_bytes()).unwrap();
    let error = log.write_durable(BLOCK as u64, block(2).as_bytes());
    assert!(error.unwrap_err().is_full());
    assert_eq!(after(&disk, Survivors::None).read_file("log")[0], 1);
}
