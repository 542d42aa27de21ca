//! What every disk must do, real or simulated: the contract of `base::disk` as tests.
//!
//! Called by the integration tests of `base`, for each disk there is. Durability is not tested here: a
//! real disk cannot be asked what a power loss would leave.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a contract test fails by panicking"
)]

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lockstone_base::disk::{
    AlignedBuf, Disk, DiskFile, DiskOp, DiskResult, FileLock, Map, OpenMode,
};
use lockstone_base::limits::BLOCK_BYTES;

type Case = (&'static str, fn(&dyn Disk));

const CASES: &[Case] = &[
    ("names come, change and go", names),
    ("what is not there is not found", missing_files),
    ("a rename replaces its target in one step", rename_replaces),
    (
        "open files outlive their names",
        open_files_outlive_their_names,
    ),
    ("what is written is read", reads_and_writes),
    ("reads end at the end", reads_at_the_end),
    ("lengths are cut and extended with zeros", lengths),
    ("log files move whole blocks durably", log_files),
    (
        "a log file of an odd length is read to its end",
        odd_log_file,
    ),
    (
        "log files and others see each other's writes",
        log_and_plain_agree,
    ),
    (
        "log files refuse what is not aligned",
        unaligned_log_transfers,
    ),
    ("maps show the file and outlive it", maps),
    ("locks exclude each other", locks),
    ("readers cannot write", readers_cannot_write),
    (
        "errors name the call, the file and the place",
        errors_have_context,
    ),
    ("names are plain", plain_names),
    ("threads share a file", threads),
];

/// Runs every test of the contract, each on a fresh disk that `make` makes.
///
/// # Panics
/// If the disk breaks the contract; the output names the part.
pub fn disk_contract(make: impl Fn() -> Arc<dyn Disk>) {
    for (name, case) in CASES {
        let disk = make();
        println!("contract: {name}");
        case(&*disk);
    }
}

pub(crate) fn create(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(name, OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    file
}

pub(crate) fn content(disk: &dyn Disk, name: &str) -> Vec<u8> {
    read_all(&*disk.open(name, OpenMode::Read).unwrap())
}

fn read_all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

/// Blocks that differ from each other and between seeds.
pub(crate) fn blocks(count: usize, seed: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(count * BLOCK_BYTES);
    for (i, byte) in buffer.as_mut_bytes().iter_mut().enumerate() {
        *byte = (i / 7) as u8 ^ (i / BLOCK_BYTES) as u8 ^ seed;
    }
    buffer
}

fn kind<T: std::fmt::Debug>(result: DiskResult<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

pub(crate) fn assert_panics(what: &str, call: impl FnOnce()) {
    assert!(
        catch_unwind(AssertUnwindSafe(call)).is_err(),
        "{what} was accepted"
    );
}

fn names(disk: &dyn Disk) {
    assert_eq!(disk.list().unwrap(), Vec::<String>::new());
    for name in ["wal-0002", "b", "a", "wal-0001", "c.tmp"] {
        create(disk, name, name.as_bytes());
    }
    assert_eq!(
        disk.list().unwrap(),
        ["a", "b", "c.tmp", "wal-0001", "wal-0002"]
    );
    assert_eq!(
        kind(disk.open("a", OpenMode::CreateNew)),
        ErrorKind::AlreadyExists
    );
    assert_eq!(content(disk, "a"), b"a");
    disk.rename("c.tmp", "c").unwrap();
    disk.remove("a").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["b", "c", "wal-0001", "wal-0002"]);
    assert_eq!(content(disk, "c"), b"c.tmp");
    create(disk, "a", b"again");
    assert_eq!(content(disk, "a"), b"again");
}

fn missing_files(disk: &dyn Disk) {
    for mode in [
        OpenMode::Read,
        OpenMode::ReadWrite,
        OpenMode::Log,
        OpenMode::LogRead,
    ] {
        assert_eq!(
            kind(disk.open("nothing", mode)),
            ErrorKind::NotFound,
            "{mode:?}"
        );
    }
    assert_eq!(kind(disk.rename("nothing", "else")), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("nothing")), ErrorKind::NotFound);
    assert_eq!(disk.list().unwrap(), Vec::<String>::new());
}

fn rename_replaces(disk: &dyn Disk) {
    create(disk, "old", b"old content");
    let old = disk.open("old", OpenMode::Read).unwrap();
    create(disk, "new", b"new");
    disk.rename("new", "old").unwrap();
    assert_eq!(disk.list().unwrap(), ["old"]);
    assert_eq!(content(disk, "old"), b"new");
    assert_eq!(read_all(&*old), b"old content");
    disk.rename("old", "old").unwrap();
    assert_eq!(content(disk, "old"), b"new");
}

fn open_files_outlive_their_names(disk: &dyn Disk) {
    let file = create(disk, "moved", b"12345");
    disk.rename("moved", "elsewhere").unwrap();
    file.write_at(5, b"678").unwrap();
    assert_eq!(content(disk, "elsewhere"), b"12345678");
    disk.remove("elsewhere").unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    assert_eq!(read_all(&*file), b"x2345678");
    create(disk, "moved", b"a stranger");
    assert_eq!(read_all(&*file), b"x2345678");
}

fn reads_and_writes(disk: &dyn Disk) {
    let file = create(disk, "file", b"");
    assert!(file.is_empty().unwrap());
    let mut model = vec![0; 100_000];
    for (round, (offset, len)) in [(0, 5), (4090, 20), (70_000, 30_000), (1, 99_998), (50, 0)]
        .into_iter()
        .enumerate()
    {
        let bytes: Vec<u8> = (0..len).map(|i| (i / 3 + round) as u8).collect();
        file.write_at(offset as u64, &bytes).unwrap();
        model[offset..offset + len].copy_from_slice(&bytes);
        let end = file.len().unwrap() as usize;
        assert_eq!(read_all(&*file), model[..end]);
    }
    assert_eq!(file.len().unwrap(), 100_000);
    file.sync().unwrap();
    let again = disk.open("file", OpenMode::ReadWrite).unwrap();
    again.write_at(99_999, b"z").unwrap();
    assert_eq!(read_all(&*file)[99_999], b'z');
}

fn reads_at_the_end(disk: &dyn Disk) {
    let file = create(disk, "file", b"0123456789");
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(6, &mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"6789");
    assert_eq!(file.read_at(10, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(1 << 40, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(0, &mut []).unwrap(), 0);
    file.write_at(20, b"hole before").unwrap();
    assert_eq!(file.read_at(8, &mut buffer).unwrap(), 8);
    assert_eq!(&buffer, b"89\0\0\0\0\0\0");
}

fn lengths(disk: &dyn Disk) {
    let file = create(disk, "file", b"0123456789");
    file.set_len(4).unwrap();
    assert_eq!(read_all(&*file), b"0123");
    file.set_len(8).unwrap();
    assert_eq!(read_all(&*file), b"0123\0\0\0\0");
    file.set_len(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    assert!(read_all(&*file)[4..].iter().all(|byte| *byte == 0));
    file.set_len(0).unwrap();
    assert!(file.is_empty().unwrap());
    file.sync().unwrap();
    assert_eq!(content(disk, "file"), b"");
}

fn log_files(disk: &dyn Disk) {
    create(disk, "log", blocks(8, 0).as_bytes());
    let log = disk.open("log", OpenMode::Log).unwrap();
    let written = blocks(3, 9);
    log.write_durable(2 * BLOCK_BYTES as u64, written.as_bytes())
        .unwrap();
    let mut expected = blocks(8, 0).as_bytes().to_vec();
    expected[2 * BLOCK_BYTES..5 * BLOCK_BYTES].copy_from_slice(written.as_bytes());
    for mode in [OpenMode::Log, OpenMode::LogRead] {
        let log = disk.open("log", mode).unwrap();
        assert_eq!(log.len().unwrap(), 8 * BLOCK_BYTES as u64);
        let mut buffer = AlignedBuf::zeroed(8 * BLOCK_BYTES);
        let read = log.read_at(0, buffer.as_mut_bytes()).unwrap();
        assert_eq!(read, 8 * BLOCK_BYTES);
        assert_eq!(buffer.as_bytes(), expected);
        let at = 6 * BLOCK_BYTES;
        let read = log.read_at(at as u64, buffer.as_mut_bytes()).unwrap();
        assert_eq!(read, 2 * BLOCK_BYTES);
        assert_eq!(buffer.as_bytes()[..read], expected[at..]);
        let end = 8 * BLOCK_BYTES as u64;
        assert_eq!(log.read_at(end, buffer.as_mut_bytes()).unwrap(), 0);
    }
    log.write_at(0, blocks(1, 3).as_bytes()).unwrap();
    log.sync().unwrap();
    assert_eq!(
        content(disk, "log")[..BLOCK_BYTES],
        *blocks(1, 3).as_bytes()
    );
}

fn odd_log_file(disk: &dyn Disk) {
    let bytes = blocks(3, 1);
    for len in [1, 511, 4095, 4097, 5000, 8191, 8193] {
        let name = format!("log-{len}");
        create(disk, &name, &bytes.as_bytes()[..len]);
        let log = disk.open(&name, OpenMode::LogRead).unwrap();
        let mut buffer = AlignedBuf::zeroed(3 * BLOCK_BYTES);
        assert_eq!(log.read_at(0, buffer.as_mut_bytes()).unwrap(), len);
        assert_eq!(buffer.as_bytes()[..len], bytes.as_bytes()[..len]);
    }
}

fn log_and_plain_agree(disk: &dyn Disk) {
    let plain = create(disk, "log", &vec![0; 4 * BLOCK_BYTES]);
    let log = disk.open("log", OpenMode::Log).unwrap();
    plain
        .write_at(BLOCK_BYTES as u64 + 10, b"through the cache")
        .unwrap();
    let mut buffer = AlignedBuf::zeroed(BLOCK_BYTES);
    log.read_at(BLOCK_BYTES as u64, buffer.as_mut_bytes())
        .unwrap();
    assert_eq!(&buffer.as_bytes()[10..27], b"through the cache");
    log.write_durable(BLOCK_BYTES as u64, blocks(1, 5).as_bytes())
        .unwrap();
    assert_eq!(
        read_all(&*plain)[BLOCK_BYTES..2 * BLOCK_BYTES],
        *blocks(1, 5).as_bytes()
    );
    log.set_len(2 * BLOCK_BYTES as u64).unwrap();
    assert_eq!(plain.len().unwrap(), 2 * BLOCK_BYTES as u64);
}

fn unaligned_log_transfers(disk: &dyn Disk) {
    let plain = create(disk, "log", &vec![0; 4 * BLOCK_BYTES]);
    let source = blocks(2, 0);
    for mode in [OpenMode::Log, OpenMode::LogRead] {
        let log = disk.open("log", mode).unwrap();
        let mut buffer = blocks(2, 0);
        assert_panics("an odd offset", || {
            let _ = log.read_at(512, buffer.as_mut_bytes());
        });
        assert_panics("an odd length", || {
            let _ = log.read_at(0, &mut buffer.as_mut_bytes()[..512]);
        });
        assert_panics("an odd address", || {
            let _ = log.read_at(0, &mut buffer.as_mut_bytes()[512..512 + BLOCK_BYTES]);
        });
    }
    let log = disk.open("log", OpenMode::Log).unwrap();
    let bytes = source.as_bytes();
    assert_panics("an odd offset", || {
        let _ = log.write_durable(512, bytes);
    });
    assert_panics("an odd length", || {
        let _ = log.write_at(0, &bytes[..512]);
    });
    assert_panics("an odd address", || {
        let _ = log.write_durable(0, &bytes[512..512 + BLOCK_BYTES]);
    });
    assert_panics("a durable write to a plain file", || {
        let _ = plain.write_durable(0, bytes);
    });
    assert!(read_all(&*plain).iter().all(|byte| *byte == 0));
}

fn maps(disk: &dyn Disk) {
    let empty = create(disk, "empty", b"").map().unwrap();
    assert!(empty.is_empty() && empty.slice(0, 0).is_some() && empty.slice(0, 1).is_none());
    let bytes = blocks(5, 2).as_bytes()[..20_001].to_vec();
    create(disk, "run", &bytes);
    let map: Map = disk.open("run", OpenMode::Read).unwrap().map().unwrap();
    assert_eq!(*map, *bytes);
    let slice = map.slice(4096, 100).unwrap();
    assert!(map.slice(20_001, 0).is_some());
    assert!(map.slice(20_000, 2).is_none() && map.slice(usize::MAX, 2).is_none());
    disk.remove("run").unwrap();
    let copy = map.clone();
    drop(map);
    assert_eq!(*copy, *bytes);
    drop(copy);
    assert_eq!(slice, bytes[4096..4196]);
}

fn locks(disk: &dyn Disk) {
    create(disk, "lock", b"");
    create(disk, "other", b"");
    let open = |name| disk.open(name, OpenMode::ReadWrite).unwrap();
    let (first, second) = (open("lock"), open("lock"));
    assert!(first.try_lock(FileLock::Exclusive).unwrap());
    assert!(
        first.try_lock(FileLock::Exclusive).unwrap(),
        "a holder may ask again"
    );
    assert!(!second.try_lock(FileLock::Exclusive).unwrap());
    assert!(!second.try_lock(FileLock::Shared).unwrap());
    assert!(open("other").try_lock(FileLock::Exclusive).unwrap());
    drop(first);
    let third = disk.open("lock", OpenMode::Read).unwrap();
    assert!(second.try_lock(FileLock::Shared).unwrap());
    assert!(third.try_lock(FileLock::Shared).unwrap());
    assert!(!open("lock").try_lock(FileLock::Exclusive).unwrap());
    drop(second);
    assert!(third.try_lock(FileLock::Exclusive).unwrap(), "upgraded");
    disk.rename("lock", "renamed").unwrap();
    assert!(!open("renamed").try_lock(FileLock::Shared).unwrap());
    third.unlock().unwrap();
    third.unlock().unwrap();
    let fourth = open("renamed");
    assert!(fourth.try_lock(FileLock::Exclusive).unwrap());
    third.unlock().unwrap();
    drop(third);
    assert!(!open("renamed").try_lock(FileLock::Shared).unwrap());
}

fn readers_cannot_write(disk: &dyn Disk) {
    let bytes = blocks(2, 0);
    create(disk, "file", bytes.as_bytes());
    for mode in [OpenMode::Read, OpenMode::LogRead] {
        let file = disk.open("file", mode).unwrap();
        assert!(
            file.write_at(0, blocks(1, 1).as_bytes()).is_err(),
            "{mode:?}"
        );
        assert!(file.set_len(0).is_err(), "{mode:?}");
    }
    let file = disk.open("file", OpenMode::LogRead).unwrap();
    assert!(file.write_durable(0, blocks(1, 1).as_bytes()).is_err());
    assert_eq!(content(disk, "file"), bytes.as_bytes());
}

fn errors_have_context(disk: &dyn Disk) {
    let error = disk.open("nothing", OpenMode::Read).unwrap_err();
    assert_eq!(error.op, DiskOp::Open);
    assert_eq!(error.path, disk.path("nothing"));
    assert_eq!(error.offset, None);
    assert!(error.to_string().contains("nothing"), "{error}");
    create(disk, "taken", b"");
    let error = disk.open("taken", OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.op, DiskOp::Create);
    let reader = disk.open("taken", OpenMode::Read).unwrap();
    let error = reader.write_at(7, b"x").unwrap_err();
    assert_eq!((error.op, error.offset), (DiskOp::Write, Some(7)));
    assert_eq!(error.path, disk.path("taken"));
    assert_eq!(disk.rename("nothing", "x").unwrap_err().op, DiskOp::Rename);
    assert_eq!(disk.remove("nothing").unwrap_err().op, DiskOp::Remove);
    assert!(disk.path("taken").is_absolute());
}

fn plain_names(disk: &dyn Disk) {
    create(disk, "a", b"");
    for name in ["", ".", "..", "a/b", "/a", "../a", "a\0b"] {
        assert_panics(name, || drop(disk.open(name, OpenMode::CreateNew)));
        assert_panics(name, || drop(disk.open(name, OpenMode::Read)));
        assert_panics(name, || drop(disk.rename(name, "b")));
        assert_panics(name, || drop(disk.rename("a", name)));
        assert_panics(name, || drop(disk.remove(name)));
    }
    assert_eq!(disk.list().unwrap(), ["a"]);
}

fn threads(disk: &dyn Disk) {
    const BLOCKS: usize = 32;
    create(disk, "log", &vec![0; 4 * BLOCKS * BLOCK_BYTES]);
    let log = disk.open("log", OpenMode::Log).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for i in 0..BLOCKS {
                    let at = (i * 4 + thread) * BLOCK_BYTES;
                    log.write_durable(at as u64, blocks(1, at as u8 ^ thread as u8).as_bytes())
                        .unwrap();
                }
            });
        }
    });
    let bytes = content(disk, "log");
    for (i, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let seed = (i * BLOCK_BYTES) as u8 ^ (i % 4) as u8;
        assert_eq!(block, blocks(1, seed).as_bytes(), "block {i}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;

    #[test]
    fn simulated_files_keep_the_contract() {
        disk_contract(|| SimDisk::new(0));
    }
}
