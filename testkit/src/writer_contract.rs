//! What every writer of log frames must do, with a ring or without: the contract of `LogWriter` as tests.
//!
//! Called by the integration tests of `base`, for each disk and backend there is. That a finished write is
//! durable is tested where it can be: on the simulated disk.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a contract test fails by panicking"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use lockstone_base::disk::{
    AlignedBuf, Disk, DiskFile, DiskOp, FileLock, LogWrite, LogWriter, OpenMode,
};
use lockstone_base::limits::BLOCK_BYTES;

use crate::contract::{assert_panics, blocks, content, create};

const DEPTH: usize = 4;
const FILE_BLOCKS: usize = 64;
const PROBE: u8 = 0xA5;

type Case = (&'static str, fn(&dyn Disk));

const CASES: &[Case] = &[
    ("the probe is on the file", the_probe_is_written),
    ("several writes are in flight", several_in_flight),
    ("any buffer is written", foreign_buffers),
    ("a freed buffer's place is another buffer", reused_addresses),
    ("the depth is kept", depth_is_kept),
    ("what is not whole blocks is refused", unaligned_writes),
    ("files change from write to write", switching_files),
    ("a file that was let go is unlocked", files_let_go),
    ("draining leaves nothing in flight", draining),
    ("dropping waits", dropping),
    ("a panic drops what is in flight safely", panicking),
    ("a writer moves between threads", moving_between_threads),
    ("an error is final", errors_are_final),
];

/// Runs every test of the contract, each on a fresh disk that `make` makes.
///
/// # Panics
/// If the disk's writer breaks the contract; the output names the part.
pub fn log_writer_contract(make: impl Fn() -> Arc<dyn Disk>) {
    for (name, case) in CASES {
        let disk = make();
        println!("contract of log writers: {name}");
        case(&*disk);
    }
}

fn log(disk: &dyn Disk, name: &str) -> Arc<dyn DiskFile> {
    create(disk, name, &vec![0; FILE_BLOCKS * BLOCK_BYTES]);
    disk.open(name, OpenMode::Log).unwrap()
}

fn write(file: &Arc<dyn DiskFile>, tag: u64, block: usize, buffer: AlignedBuf) -> LogWrite {
    LogWrite {
        tag,
        file: file.clone(),
        offset: (block * BLOCK_BYTES) as u64,
        bytes: buffer.as_bytes().len(),
        buffer,
    }
}

/// A writer whose probe is the file's last block, and the buffers that it was told of.
fn writer(disk: &dyn Disk, file: &Arc<dyn DiskFile>) -> (Box<dyn LogWriter>, Vec<AlignedBuf>) {
    let buffers: Vec<_> = (0..DEPTH).map(|_| blocks(4, 0)).collect();
    let probe = write(file, 77, FILE_BLOCKS - 1, blocks(1, PROBE));
    let writer = disk.log_writer(DEPTH, &buffers, probe).unwrap();
    assert_eq!((writer.depth(), writer.in_flight()), (DEPTH, 0));
    (writer, buffers)
}

/// What the file must hold: zeros but for the probe and these writes.
fn expected(writes: &[(usize, AlignedBuf)]) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BLOCKS * BLOCK_BYTES];
    let mut put = |block: usize, buffer: &AlignedBuf| {
        let at = block * BLOCK_BYTES;
        bytes[at..at + buffer.as_bytes().len()].copy_from_slice(buffer.as_bytes());
    };
    put(FILE_BLOCKS - 1, &blocks(1, PROBE));
    for (block, buffer) in writes {
        put(*block, buffer);
    }
    bytes
}

fn fill(buffer: &mut AlignedBuf, seed: u8) {
    let count = buffer.as_bytes().len() / BLOCK_BYTES;
    let pattern = blocks(count, seed);
    buffer.as_mut_bytes().copy_from_slice(pattern.as_bytes());
}

fn the_probe_is_written(disk: &dyn Disk) {
    let file = log(disk, "log");
    let _writer = writer(disk, &file);
    assert_eq!(content(disk, "log"), expected(&[]));
}

fn several_in_flight(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, mut free) = writer(disk, &file);
    let mut last = Vec::new();
    for round in 0..20_u8 {
        let mut started = BTreeMap::new();
        while let Some(mut buffer) = free.pop() {
            let tag = u64::from(round) * 100 + started.len() as u64;
            let block = started.len() * 5 + usize::from(round % 3);
            fill(&mut buffer, round ^ started.len() as u8);
            started.insert(tag, (block, buffer.as_bytes().as_ptr().addr(), round));
            writer.start(write(&file, tag, block, buffer));
        }
        assert_eq!(writer.in_flight(), DEPTH);
        last.clear();
        while writer.in_flight() > 0 {
            let written = writer.finish().unwrap();
            let (block, address, _) = started.remove(&written.tag).unwrap();
            assert_eq!(
                written.buffer.as_bytes().as_ptr().addr(),
                address,
                "its own buffer"
            );
            let seed = round ^ (written.tag % 100) as u8;
            assert_eq!(written.buffer.as_bytes(), blocks(4, seed).as_bytes());
            last.push((block, blocks(4, seed)));
            free.push(written.buffer);
            assert_eq!(writer.in_flight(), started.len());
        }
        assert!(started.is_empty());
        let bytes = content(disk, "log");
        for (block, buffer) in &last {
            let at = block * BLOCK_BYTES;
            assert_eq!(bytes[at..at + 4 * BLOCK_BYTES], *buffer.as_bytes());
        }
    }
}

fn foreign_buffers(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, mut buffers) = writer(disk, &file);
    let mut known = buffers.pop().unwrap();
    fill(&mut known, 1);
    writer.start(write(&file, 0, 0, known));
    writer.start(write(&file, 1, 4, blocks(9, 2)));
    let mut partly = write(&file, 2, 20, blocks(9, 3));
    partly.bytes = 2 * BLOCK_BYTES;
    writer.start(partly);
    while writer.in_flight() > 0 {
        writer.finish().unwrap();
    }
    let mut short = AlignedBuf::zeroed(2 * BLOCK_BYTES);
    short
        .as_mut_bytes()
        .copy_from_slice(&blocks(9, 3).as_bytes()[..2 * BLOCK_BYTES]);
    assert_eq!(
        content(disk, "log"),
        expected(&[(0, blocks(4, 1)), (4, blocks(9, 2)), (20, short)])
    );
}

/// A ring that took a new buffer for the registered one that had its address would write old pages.
fn reused_addresses(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, buffers) = writer(disk, &file);
    let places: Vec<_> = buffers
        .iter()
        .map(|it| it.as_bytes().as_ptr().addr())
        .collect();
    drop(buffers);
    let mut reused = 0;
    for seed in 1..100 {
        let fresh = blocks(4, seed);
        reused += usize::from(places.contains(&fresh.as_bytes().as_ptr().addr()));
        writer.start(write(&file, 0, 8, fresh));
        writer.finish().unwrap();
        assert_eq!(content(disk, "log"), expected(&[(8, blocks(4, seed))]));
    }
    println!("{reused} buffers had the address of a freed one");
}

fn depth_is_kept(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, _buffers) = writer(disk, &file);
    assert_panics("waiting for nothing", || drop(writer.finish()));
    for i in 0..DEPTH {
        writer.start(write(&file, i as u64, i, blocks(1, 1)));
        assert_eq!(writer.in_flight(), i + 1);
    }
    assert_panics("one write too many", || {
        writer.start(write(&file, 9, 9, blocks(1, 9)));
    });
    for _ in 0..DEPTH {
        writer.finish().unwrap();
    }
    assert_panics("waiting for nothing", || drop(writer.finish()));
    writer.start(write(&file, 4, 4, blocks(1, 1)));
    assert_eq!(writer.finish().unwrap().tag, 4);
    let written: Vec<_> = (0..=DEPTH).map(|i| (i, blocks(1, 1))).collect();
    assert_eq!(content(disk, "log"), expected(&written));
}

fn unaligned_writes(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, _buffers) = writer(disk, &file);
    let mut refuse = |what: &str, change: fn(&mut LogWrite)| {
        let mut odd = write(&file, 0, 0, blocks(2, 1));
        change(&mut odd);
        assert_panics(what, || writer.start(odd));
        assert_eq!(writer.in_flight(), 0, "{what}");
    };
    refuse("an odd offset", |odd| odd.offset = 512);
    refuse("an odd length", |odd| odd.bytes = BLOCK_BYTES + 512);
    refuse("no length", |odd| odd.bytes = 0);
    refuse("more than the buffer has", |odd| {
        odd.bytes = 3 * BLOCK_BYTES;
    });
    let plain = disk.open("log", OpenMode::ReadWrite).unwrap();
    assert_panics("a plain file", || {
        writer.start(write(&plain, 0, 0, blocks(1, 1)));
        drop(writer.finish());
    });
    assert_eq!(content(disk, "log"), expected(&[]));
}

fn switching_files(disk: &dyn Disk) {
    const FILES: usize = 7;
    let name = |i: usize| format!("log-{i}");
    let probed = log(disk, "log");
    let (mut writer, mut free) = writer(disk, &probed);
    let mut files: Vec<_> = (0..FILES).map(|i| log(disk, &name(i))).collect();
    let mut model = vec![vec![0_u8; FILE_BLOCKS]; FILES];
    for round in 0..300_usize {
        if writer.in_flight() == DEPTH || (round % 5 == 0 && writer.in_flight() > 0) {
            free.push(writer.finish().unwrap().buffer);
        }
        // Files come and go meanwhile, the old handle before the new one.
        if round % 11 == 0 {
            let at = round / 11 % FILES;
            files.remove(at);
            files.insert(at, disk.open(&name(at), OpenMode::Log).unwrap());
        }
        let (at, block) = (round * 3 % FILES, round * 4 % (FILE_BLOCKS - 4));
        let mut buffer = free.pop().unwrap();
        fill(&mut buffer, round as u8);
        model[at][block..block + 4].fill(round as u8);
        // No two in flight overlap: blocks are far apart from round to round.
        writer.start(write(&files[at], round as u64, block, buffer));
    }
    while writer.in_flight() > 0 {
        writer.finish().unwrap();
    }
    for (at, model) in model.iter().enumerate() {
        let bytes = content(disk, &name(at));
        for (block, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
            if model[block] != 0 {
                let is_part_of = |seed| {
                    let pattern = blocks(4, seed);
                    pattern.as_bytes().chunks(BLOCK_BYTES).any(|it| it == bytes)
                };
                assert!(is_part_of(model[block]), "file {at}, block {block}");
            }
        }
    }
}

/// A lock is its file's: a writer that still knows the file must not hold on to it.
fn files_let_go(disk: &dyn Disk) {
    let first = log(disk, "log");
    let (mut writer, _buffers) = writer(disk, &first);
    let file = log(disk, "other");
    assert!(file.try_lock(FileLock::Exclusive).unwrap());
    writer.start(write(&file, 0, 0, blocks(1, 1)));
    writer.finish().unwrap();
    drop(file);
    let again = disk.open("other", OpenMode::Log).unwrap();
    assert!(again.try_lock(FileLock::Exclusive).unwrap());
    writer.start(write(&again, 0, 1, blocks(1, 2)));
    drop(again);
    writer.finish().unwrap();
    let again = disk.open("other", OpenMode::Log).unwrap();
    assert!(again.try_lock(FileLock::Exclusive).unwrap());
}

fn assert_old_or_new(disk: &dyn Disk, new: &[(usize, AlignedBuf)]) {
    let (bytes, old, new) = (content(disk, "log"), expected(&[]), expected(new));
    for (at, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let range = at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES;
        assert!(
            *block == old[range.clone()] || *block == new[range],
            "block {at}"
        );
    }
}

fn draining(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, _buffers) = writer(disk, &file);
    writer.drain();
    let written: Vec<_> = (0..DEPTH)
        .map(|i| (i * 2, blocks(2, 1 + i as u8)))
        .collect();
    for i in 0..DEPTH {
        writer.start(write(&file, i as u64, i * 2, blocks(2, 1 + i as u8)));
    }
    writer.drain();
    assert_eq!(writer.in_flight(), 0);
    assert_old_or_new(disk, &written);
    writer.start(write(&file, 8, 0, blocks(8, 9)));
    assert_eq!(writer.finish().unwrap().tag, 8);
    assert_eq!(content(disk, "log"), expected(&[(0, blocks(8, 9))]));
}

fn dropping(disk: &dyn Disk) {
    let file = log(disk, "log");
    for round in 0..10 {
        let (mut writer, buffers) = writer(disk, &file);
        for (i, mut buffer) in buffers.into_iter().enumerate() {
            fill(&mut buffer, round);
            writer.start(write(&file, i as u64, i * 4, buffer));
        }
        drop(writer);
        // Nothing comes down any more on what is written now.
        for i in 0..DEPTH {
            let at = (i * 4 * BLOCK_BYTES) as u64;
            file.write_durable(at, blocks(4, 100).as_bytes()).unwrap();
        }
        thread::yield_now();
        let now: Vec<_> = (0..DEPTH).map(|i| (i * 4, blocks(4, 100))).collect();
        assert_eq!(content(disk, "log"), expected(&now));
    }
}

fn panicking(disk: &dyn Disk) {
    let file = log(disk, "log");
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let (mut writer, _buffers) = writer(disk, &file);
        for i in 0..DEPTH {
            writer.start(write(&file, i as u64, i * 2, blocks(2, 1)));
        }
        panic!("with writes in flight");
    }));
    assert!(caught.is_err());
    let written: Vec<_> = (0..DEPTH).map(|i| (i * 2, blocks(2, 1))).collect();
    assert_old_or_new(disk, &written);
    file.write_durable(0, blocks(8, 2).as_bytes()).unwrap();
    assert_eq!(content(disk, "log"), expected(&[(0, blocks(8, 2))]));
}

fn moving_between_threads(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, mut free) = writer(disk, &file);
    for round in 0..20 {
        (writer, free) = thread::scope(|scope| {
            let file = &file;
            let leader = scope.spawn(move || {
                for i in 0..DEPTH {
                    let mut buffer = free.pop().unwrap();
                    fill(&mut buffer, round);
                    writer.start(write(file, i as u64, i * 4, buffer));
                }
                while writer.in_flight() > 0 {
                    free.push(writer.finish().unwrap().buffer);
                }
                (writer, free)
            });
            leader.join().unwrap()
        });
        let now: Vec<_> = (0..DEPTH).map(|i| (i * 4, blocks(4, round))).collect();
        assert_eq!(content(disk, "log"), expected(&now));
    }
}

fn errors_are_final(disk: &dyn Disk) {
    let file = log(disk, "log");
    let (mut writer, _buffers) = writer(disk, &file);
    let reader = disk.open("log", OpenMode::LogRead).unwrap();
    writer.start(write(&file, 0, 0, blocks(1, 1)));
    writer.start(write(&reader, 1, 2, blocks(1, 1)));
    writer.start(write(&file, 2, 4, blocks(1, 1)));
    let mut finished = Vec::new();
    let error = loop {
        match writer.finish() {
            Ok(written) => finished.push(written.tag),
            Err(error) => break error,
        }
    };
    assert!(!finished.contains(&1));
    assert_eq!(error.op, DiskOp::WriteDurable);
    assert_eq!(error.offset, Some(2 * BLOCK_BYTES as u64));
    assert_eq!(error.path, disk.path("log"));
    let again = writer.finish().unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_panics("a write after an error", || {
        writer.start(write(&file, 3, 6, blocks(1, 1)));
    });
    writer.drain();
    assert_eq!(writer.in_flight(), 0);
    assert!(writer.finish().is_err());
    drop(writer);
    assert_old_or_new(disk, &[(0, blocks(1, 1)), (4, blocks(1, 1))]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;

    #[test]
    fn simulated_writers_keep_the_contract() {
        log_writer_contract(|| SimDisk::new(0));
    }
}
