//! Tests of the ring writer on a ring that a test plays: short writes, interruptions, refusals, lies.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests make files behind the disk's back"
)]

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::FlockOperation;
use tempfile::TempDir;

use super::super::FileLock;
use super::super::os_file::{Caching, Refused};
use super::*;

const BLOCK: usize = BLOCK_BYTES;

/// A write as the ring got it.
#[derive(Debug, Clone)]
struct Queued {
    serial: u64,
    target: Target,
    offset: usize,
    bytes: Vec<u8>,
    buffer: Option<u16>,
}

/// What a ring may refuse to register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    Buffers,
    Table,
    File,
}

/// What the ring is made to say, and what was asked of it.
#[derive(Debug, Default)]
struct Stage {
    /// What becomes of calls of `enter`, one after the other; then they succeed.
    enters: VecDeque<Errno>,
    /// What becomes of writes, in the order of their ends: the index among those in flight, and the
    /// result; then the oldest succeeds.
    results: VecDeque<(usize, Result<usize, Errno>)>,
    /// A completion that belongs to no write.
    stray: Option<u64>,
    refuses: Option<Registration>,
    /// The kernel leaves the queue alone.
    sees_nothing: bool,
    queued: Vec<Queued>,
    completions: VecDeque<Completion>,
    pushed: Vec<Queued>,
    entered: usize,
    files: Vec<(u32, bool)>,
    device: Vec<u8>,
}

impl Stage {
    /// Brings one write to an end.
    fn complete(&mut self) {
        if let Some(serial) = self.stray.take() {
            let result = Ok(BLOCK);
            self.completions.push_back(Completion { serial, result });
            return;
        }
        let oldest = (0, Ok(usize::MAX));
        let (at, result) = self.results.pop_front().unwrap_or(oldest);
        let write = self.queued.remove(at);
        let result = result.map(|moved| {
            let moved = moved.min(write.bytes.len());
            let end = write.offset + moved;
            let len = self.device.len().max(end);
            self.device.resize(len, 0);
            self.device[write.offset..end].copy_from_slice(&write.bytes[..moved]);
            moved
        });
        let serial = write.serial;
        self.completions.push_back(Completion { serial, result });
    }
}

#[derive(Debug, Clone, Default)]
struct PlayedRing(Arc<Mutex<Stage>>);

impl PlayedRing {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    fn register(&self, what: Registration) -> io::Result<()> {
        if self.refuses == Some(what) {
            return Err(Errno::NOMEM.into());
        }
        Ok(())
    }
}

impl Ring for PlayedRing {
    fn completions_max(&self) -> usize {
        8
    }

    fn register_buffers(&mut self, _buffers: &[AlignedBuf]) -> io::Result<()> {
        self.stage().register(Registration::Buffers)
    }

    fn reserve_files(&mut self, _slots: u32) -> io::Result<()> {
        self.stage().register(Registration::Table)
    }

    fn register_file(&mut self, slot: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut stage = self.stage();
        stage.files.push((slot, file.is_some()));
        stage.register(Registration::File)
    }

    unsafe fn push(&mut self, request: Request<'_>) {
        let queued = Queued {
            serial: request.serial,
            target: request.target,
            offset: request.offset as usize,
            bytes: request.bytes.to_vec(),
            buffer: request.buffer,
        };
        let mut stage = self.stage();
        stage.pushed.push(queued.clone());
        stage.queued.push(queued);
    }

    fn enter(&mut self) -> io::Result<()> {
        let mut stage = self.stage();
        stage.entered += 1;
        if let Some(errno) = stage.enters.pop_front() {
            return Err(errno.into());
        }
        assert!(!stage.queued.is_empty(), "it would wait for ever");
        stage.complete();
        Ok(())
    }

    fn unseen(&mut self) -> usize {
        let stage = self.stage();
        if stage.sees_nothing {
            stage.queued.len()
        } else {
            0
        }
    }

    fn reap(&mut self) -> Option<Completion> {
        self.stage().completions.pop_front()
    }
}

struct Theatre {
    directory: TempDir,
    ring: PlayedRing,
    writer: Option<RingWriter<PlayedRing>>,
    buffers: Vec<AlignedBuf>,
    file: Arc<OsFile>,
}

impl Theatre {
    fn new() -> Self {
        Self::prepared(|_| {})
    }

    fn prepared(prepare: impl FnOnce(&mut Stage)) -> Self {
        let ring = PlayedRing::default();
        prepare(&mut ring.stage());
        let buffers: Vec<_> = (0..4).map(|_| AlignedBuf::zeroed(4 * BLOCK)).collect();
        let writer = Some(RingWriter::new(ring.clone(), 4, &buffers));
        let directory = TempDir::new().unwrap();
        Self {
            file: file(&directory, "log"),
            directory,
            ring,
            writer,
            buffers,
        }
    }

    fn writer(&mut self) -> &mut RingWriter<PlayedRing> {
        self.writer.as_mut().unwrap()
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.ring.stage()
    }

    /// Starts a write of whole blocks of `byte`.
    fn start(&mut self, tag: u64, block: usize, blocks: usize, byte: u8) {
        let file = self.file.clone();
        self.writer().start(write(&file, tag, block, blocks, byte));
    }
}

fn file(directory: &TempDir, name: &str) -> Arc<OsFile> {
    let path = directory.path().join(name);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).unwrap();
    let refused = Arc::new(Refused::default());
    Arc::new(OsFile::new(file, path, Caching::AlignedCached, refused))
}

fn write(file: &Arc<OsFile>, tag: u64, block: usize, blocks: usize, byte: u8) -> LogWrite {
    let mut buffer = AlignedBuf::zeroed(blocks * BLOCK);
    // Every block differs, so that one in another's place is seen.
    for (i, part) in buffer.as_mut_bytes().chunks_mut(BLOCK).enumerate() {
        part.fill(byte + i as u8);
    }
    LogWrite {
        tag,
        file: file.clone(),
        offset: (block * BLOCK) as u64,
        buffer,
        bytes: blocks * BLOCK,
    }
}

fn raw(error: &DiskError) -> Option<i32> {
    error.source.raw_os_error()
}

/// F5: resumed at the last block that was reached; the bytes behind it move a second time.
#[test]
fn a_short_write_is_resumed_at_a_block() {
    let mut at = Theatre::new();
    at.stage().results.extend([
        (0, Ok(BLOCK + 512)),
        (0, Ok(BLOCK)),
        (0, Err(Errno::INTR)),
        (0, Err(Errno::AGAIN)),
    ]);
    at.start(5, 2, 4, 10);
    assert_eq!(at.writer().finish().unwrap().tag, 5);
    let stage = at.stage();
    let pushed: Vec<_> = stage
        .pushed
        .iter()
        .map(|it| (it.offset / BLOCK, it.bytes.len() / BLOCK))
        .collect();
    assert_eq!(pushed, [(2, 4), (3, 3), (4, 2), (4, 2), (4, 2)]);
    let firsts: Vec<_> = stage.device.chunks(BLOCK).map(|it| it[0]).collect();
    assert_eq!(firsts, [0, 0, 10, 11, 12, 13]);
    assert!(
        stage.device[2 * BLOCK..]
            .chunks(BLOCK)
            .all(|it| it.iter().all(|b| *b == it[0]))
    );
}

#[test]
fn a_write_that_gets_no_further_fails() {
    for moved in [0, 512] {
        let mut at = Theatre::new();
        let nothing = (0, Ok(moved));
        at.stage()
            .results
            .extend([(0, Ok(BLOCK)), nothing, nothing]);
        at.start(1, 2, 3, 1);
        let error = at.writer().finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        assert_eq!(error.op, DiskOp::WriteDurable);
        assert_eq!(error.offset, Some(2 * BLOCK as u64));
        assert_eq!(error.path, at.directory.path().join("log"));
        assert_eq!(at.writer().in_flight(), 0);
    }
}

#[test]
fn a_write_that_is_put_off_for_ever_fails() {
    for errno in [Errno::AGAIN, Errno::INTR] {
        let mut at = Theatre::new();
        let put_off = std::iter::repeat_n((0, Err(errno)), TRIES_MAX as usize + 1);
        at.stage().results.extend(put_off);
        at.start(1, 0, 1, 1);
        let error = at.writer().finish().unwrap_err();
        assert_eq!(raw(&error), Some(errno.raw_os_error()));
    }
}

/// F7: the first error is the last word; what is in flight is waited for, and goes no further.
#[test]
fn an_error_is_final_and_the_rest_is_drained() {
    let mut at = Theatre::new();
    at.stage()
        .results
        .extend([(1, Err(Errno::IO)), (1, Ok(BLOCK))]);
    for tag in 0..3 {
        at.start(tag, tag as usize * 4, 2, 1);
    }
    let error = at.writer().finish().unwrap_err();
    assert_eq!(raw(&error), Some(Errno::IO.raw_os_error()));
    assert_eq!(error.offset, Some(4 * BLOCK as u64));
    assert_eq!(at.writer().in_flight(), 2);
    let again = at.writer().finish().unwrap_err();
    assert_eq!(raw(&again), raw(&error));
    let file = at.file.clone();
    let start = || at.writer().start(write(&file, 9, 0, 1, 1));
    assert!(catch_unwind(AssertUnwindSafe(start)).is_err());
    at.writer().drain();
    assert_eq!(at.writer().in_flight(), 0);
    assert_eq!(at.stage().pushed.len(), 3, "a short one is not resumed");
    assert!(at.writer().finish().is_err());
}

#[test]
fn an_interrupted_or_put_off_wait_is_repeated() {
    let mut at = Theatre::new();
    at.stage()
        .enters
        .extend([Errno::INTR, Errno::AGAIN, Errno::BUSY, Errno::INTR]);
    at.start(3, 0, 1, 1);
    assert_eq!(at.writer().finish().unwrap().tag, 3);
    assert_eq!(at.stage().entered, 5);
    at.writer().put_off = TRIES_MAX;
    at.stage().enters.extend([Errno::AGAIN]);
    at.start(4, 0, 1, 1);
    let error = at.writer().finish().unwrap_err();
    assert_eq!(raw(&error), Some(Errno::AGAIN.raw_os_error()), "in the end");
}

/// The file that a write in flight holds, after the writer is gone.
fn left_behind(mut at: Theatre, lose: impl FnOnce(&mut RingWriter<PlayedRing>)) -> Weak<OsFile> {
    assert!(at.file.try_lock(FileLock::Exclusive).unwrap());
    at.start(1, 0, 1, 1);
    at.start(2, 4, 1, 1);
    lose(at.writer());
    assert_eq!(at.writer().in_flight(), 0, "there is nothing to wait for");
    at.writer = None;
    let file = Arc::downgrade(&at.file);
    drop(at);
    file
}

/// F21: nobody knows when such a ring is done with what it was given, so that is kept for ever.
#[test]
fn what_a_broken_ring_holds_is_never_freed() {
    for errno in [Errno::PERM, Errno::BADF, Errno::NXIO, Errno::FAULT] {
        let at = Theatre::prepared(|stage| stage.enters.push_back(errno));
        let refused = Theatre::prepared(|stage| {
            stage.enters.push_back(errno);
            stage.sees_nothing = true;
        });
        let left = left_behind(refused, |writer| drop(writer.finish().unwrap_err()));
        assert!(left.upgrade().is_none(), "{errno} before anything began");
        let left = left_behind(at, |writer| {
            let error = writer.finish().unwrap_err();
            assert_eq!(raw(&error), Some(errno.raw_os_error()));
            assert!(writer.finish().is_err());
        });
        let left = left.upgrade().unwrap_or_else(|| panic!("{errno}"));
        // Whoever closes the log unlocks its segments: not this one.
        left.unlock().unwrap();
        let again = File::open(format!("/proc/self/fd/{}", left.as_fd().as_raw_fd())).unwrap();
        let lock = rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(lock, Err(Errno::WOULDBLOCK), "{errno}: the lock stays");
    }
    let at = Theatre::prepared(|stage| stage.enters.push_back(Errno::PERM));
    let left = left_behind(at, RingWriter::drain);
    assert!(left.upgrade().is_some(), "when draining");
    for draining in [false, true] {
        let at = Theatre::prepared(|stage| stage.stray = Some(77));
        let left = left_behind(at, |writer| {
            if draining {
                writer.drain();
            } else {
                let error = writer.finish().unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            }
        });
        assert!(left.upgrade().is_some(), "a completion of no write");
    }
    let left = left_behind(Theatre::new(), RingWriter::drain);
    assert!(left.upgrade().is_none(), "a sound ring gives all back");
}

#[test]
fn dropping_waits_also_in_a_panic() {
    for panics in [false, true] {
        let mut at = Theatre::new();
        let ring = at.ring.clone();
        for tag in 0..3 {
            at.start(tag, tag as usize, 1, 1);
        }
        let end = catch_unwind(AssertUnwindSafe(move || {
            assert!(!panics, "with writes in flight");
            drop(at);
        }));
        assert_eq!(end.is_err(), panics);
        let stage = ring.stage();
        assert_eq!((stage.queued.len(), stage.entered), (0, 3));
    }
}

#[test]
fn a_lone_write_is_one_call_and_several_share_it() {
    let mut at = Theatre::new();
    for round in 1..=3 {
        at.start(round, 0, 1, 1);
        at.writer().finish().unwrap();
        assert_eq!(at.stage().entered, round as usize);
    }
    // The kernel may end more than one in a call: the others are found without another.
    for tag in 0..4 {
        at.start(tag, tag as usize, 1, 1);
    }
    at.writer().finish().unwrap();
    for _ in 0..3 {
        at.stage().complete();
    }
    let entered = at.stage().entered;
    for _ in 0..3 {
        at.writer().finish().unwrap();
    }
    assert_eq!(at.stage().entered, entered);
}

/// Completions come in any order; each gives back its own buffer under its own tag.
#[test]
fn a_completion_is_of_its_own_write() {
    let mut at = Theatre::new();
    at.stage()
        .results
        .extend([(2, Ok(usize::MAX)), (0, Ok(BLOCK)), (1, Ok(usize::MAX))]);
    for tag in 0..3 {
        at.start(100 + tag, tag as usize * 4, 2, 10 * tag as u8);
    }
    let mut tags = Vec::new();
    for _ in 0..3 {
        let written = at.writer().finish().unwrap();
        assert_eq!(written.buffer.as_bytes()[0], 10 * (written.tag - 100) as u8);
        tags.push(written.tag);
    }
    // The first was short: what is left of it was queued behind the second.
    assert_eq!(tags, [102, 100, 101]);
}

#[test]
fn registered_buffers_are_known_by_their_numbers() {
    for refuses in [None, Some(Registration::Buffers)] {
        let mut at = Theatre::prepared(|stage| stage.refuses = refuses);
        let file = at.file.clone();
        for i in [2, 0, 1] {
            let mut known = write(&file, 0, 0, 1, 1);
            known.buffer = at.buffers.remove(i.min(at.buffers.len() - 1));
            at.writer().start(known);
        }
        at.start(0, 0, 1, 1);
        let pushed: Vec<_> = at.stage().pushed.iter().map(|it| it.buffer).collect();
        if refuses.is_some() {
            assert_eq!(pushed, [None; 4]);
        } else {
            assert_eq!(pushed, [Some(2), Some(0), Some(3), None]);
        }
        while at.writer().in_flight() > 0 {
            at.writer().finish().unwrap();
        }
    }
}

fn targets(at: &Theatre) -> Vec<Option<u32>> {
    let slot = |queued: &Queued| match queued.target {
        Target::Slot(slot) => Some(slot),
        Target::Descriptor(_) => None,
    };
    at.stage().pushed.iter().map(slot).collect()
}

#[test]
fn files_take_slots_in_turn() {
    let mut at = Theatre::new();
    let files: Vec<_> = (0..6)
        .map(|i| file(&at.directory, &format!("{i}")))
        .collect();
    let mut once = |i: usize| {
        at.writer().start(write(&files[i], 0, 0, 1, 1));
        at.writer().finish().unwrap();
    };
    for i in [0, 1, 2, 3, 0, 4, 0, 5, 1] {
        once(i);
    }
    let expected = [0, 1, 2, 3, 0, 1, 0, 2, 3].map(Some);
    assert_eq!(
        targets(&at),
        expected,
        "the one that was idle for longest goes"
    );
}

#[test]
fn a_slot_in_flight_is_not_taken_away() {
    let mut at = Theatre::new();
    let files: Vec<_> = (0..6)
        .map(|i| file(&at.directory, &format!("{i}")))
        .collect();
    at.writer().depth = 8;
    for file in &files {
        at.writer().start(write(file, 0, 0, 1, 1));
    }
    let expected = [Some(0), Some(1), Some(2), Some(3), None, None];
    assert_eq!(targets(&at), expected);
    at.writer().finish().unwrap();
    at.writer().start(write(&files[5], 0, 0, 1, 1));
    assert_eq!(targets(&at).last(), Some(&Some(0)));
    at.writer().drain();
}

#[test]
fn slots_of_closed_files_are_cleared() {
    let mut at = Theatre::new();
    let once = |at: &mut Theatre, name: &str| {
        let file = file(&at.directory, name);
        at.writer().start(write(&file, 0, 0, 1, 1));
        drop(at.writer().finish().unwrap());
    };
    once(&mut at, "a");
    once(&mut at, "b");
    once(&mut at, "c");
    let files = at.stage().files.clone();
    let (clear, fill) = (false, true);
    assert_eq!(files[..2], [(0, fill), (0, clear)]);
    assert_eq!(files.iter().filter(|it| it.1).count(), 3);
    assert_eq!(files.iter().filter(|it| !it.1).count(), 2);
}

#[test]
fn without_a_table_files_are_written_by_their_descriptors() {
    for refuses in [Registration::Table, Registration::File] {
        let mut at = Theatre::prepared(|stage| stage.refuses = Some(refuses));
        for round in 0..3 {
            at.start(round, 0, 1, 1);
            at.writer().finish().unwrap();
        }
        assert_eq!(targets(&at), [None; 3]);
    }
}

#[test]
#[should_panic(expected = "F21")]
fn a_ring_that_could_lose_completions_is_not_used() {
    drop(RingWriter::new(PlayedRing::default(), 9, &[]));
}
