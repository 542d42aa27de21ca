//! Real faults under log writes in flight: file-size limits, full filesystems, locked memory, kills.
//!
//! What a process cannot do to itself without harm to its other tests, a child does: this program, started
//! again for one test, with a role in its environment. Where a machine does not allow it, a test says so.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the tests look behind the disk's back, and fail by panicking"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use lockstone_base::disk::{
    AlignedBuf, Backend, Disk, DiskError, DiskFile, DiskOp, FileLock, IoMode, LogWrite, LogWriter,
    OpenMode, OsDisk,
};
use lockstone_base::limits;
use rustix::process::{Resource, Rlimit};
use tempfile::TempDir;

const BLOCK: usize = 4096;
const DEPTH: usize = 4;
const ROLE: &str = "LOCKSTONE_TEST_ROLE";
const PLACE: &str = "LOCKSTONE_TEST_PLACE";

/// The ways of writing that this kernel has; a ring is missing only if the kernel, asked directly, makes
/// none.
fn modes() -> Vec<IoMode> {
    match IoUring::new(4) {
        Ok(_) => vec![IoMode::Blocking, IoMode::Uring],
        Err(error) => {
            println!("skipped with a ring: this kernel makes none: {error}");
            vec![IoMode::Blocking]
        }
    }
}

/// This program, started again for the test `name` as a child of that test.
fn child(name: &str, io: IoMode, place: &Path) -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let role = format!("{ROLE}={io:?}");
    let place = format!("{PLACE}={}", place.display());
    let words = [
        "env",
        &role,
        &place,
        &program,
        name,
        "--exact",
        "--nocapture",
    ];
    words.map(str::to_owned).to_vec()
}

/// What this process is to do, if it is such a child.
fn role() -> Option<(IoMode, PathBuf)> {
    let io = match std::env::var(ROLE).ok()?.as_str() {
        "Uring" => IoMode::Uring,
        "Auto" => IoMode::Auto,
        _ => IoMode::Blocking,
    };
    Some((io, PathBuf::from(std::env::var(PLACE).unwrap())))
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn assert_succeeds(mut command: Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    assert!(out.contains("1 passed"), "the child ran no test\n{out}");
    print!("{out}");
}

fn filled(byte: u8, blocks: usize) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(blocks * BLOCK);
    buffer.as_mut_bytes().fill(byte);
    buffer
}

fn write(file: &Arc<dyn DiskFile>, block: usize, buffer: AlignedBuf) -> LogWrite {
    LogWrite {
        tag: block as u64,
        file: file.clone(),
        offset: (block * BLOCK) as u64,
        bytes: buffer.as_bytes().len(),
        buffer,
    }
}

/// A disk in `place` with the log file, `blocks` long and a hole behind its first block, and its writer.
fn open_log(
    place: &Path,
    io: IoMode,
    blocks: usize,
) -> (OsDisk, Arc<dyn DiskFile>, Box<dyn LogWriter>) {
    let disk = OsDisk::open(place.join("db"), true).unwrap().with_io(io);
    let plain = disk.open("log", OpenMode::CreateNew).unwrap();
    plain.write_at(0, &[1; BLOCK]).unwrap();
    plain.set_len((blocks * BLOCK) as u64).unwrap();
    plain.sync().unwrap();
    let log = disk.open("log", OpenMode::Log).unwrap();
    let probe = write(&log, 0, filled(2, 1));
    let writer = disk.log_writer(DEPTH, &[], probe).unwrap();
    let wanted = match io {
        IoMode::Blocking => Backend::Blocking,
        IoMode::Auto | IoMode::Uring => Backend::Uring,
    };
    assert_eq!(disk.write_path().backend, wanted);
    (disk, log, writer)
}

/// How many of the first blocks, from `from` on, hold `byte`; the others hold zeros.
fn written(disk: &OsDisk, from: usize, byte: u8) -> usize {
    let bytes = fs::read(disk.path("log")).unwrap();
    let mut blocks = bytes[from * BLOCK..].chunks(BLOCK).enumerate();
    let is_all = |block: &[u8], of: u8| block.iter().all(|it| *it == of);
    let end = blocks.find(|(_, block)| !is_all(block, byte));
    let end = end.map_or(bytes.len() / BLOCK - from, |(at, _)| at);
    assert!(is_all(&bytes[(from + end) * BLOCK..], 0), "behind the end");
    end
}

/// F5, F10: the write stops short at the limit, is resumed, and only then told to be too large.
#[test]
fn a_file_size_limit_is_a_clean_error() {
    if let Some((io, place)) = role() {
        let (disk, log, mut writer) = open_log(&place, io, 64);
        let limit = Rlimit {
            current: Some(20 * BLOCK as u64),
            maximum: None,
        };
        rustix::process::setrlimit(Resource::Fsize, limit).unwrap();
        writer.start(write(&log, 1, filled(7, 15)));
        assert_eq!(writer.finish().unwrap().tag, 1);
        writer.start(write(&log, 16, filled(7, 8)));
        let error = writer.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
        assert_eq!(error.op, DiskOp::WriteDurable);
        assert_eq!(error.offset, Some(16 * BLOCK as u64));
        assert!(error.is_full());
        assert_eq!(written(&disk, 1, 7), 19, "up to the limit");
        return;
    }
    for io in modes() {
        let place = TempDir::new().unwrap();
        let words = child("a_file_size_limit_is_a_clean_error", io, place.path());
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
        shell.args(words);
        assert_succeeds(shell);
    }
}

/// Writes into the hole until there is no room; returns the error and how many blocks arrived before.
fn fill(log: &Arc<dyn DiskFile>, writer: &mut dyn LogWriter, blocks: usize) -> (DiskError, usize) {
    const STEP: usize = 16;
    let mut next = 1;
    let mut whole = 1;
    loop {
        while writer.in_flight() < DEPTH && next + STEP <= blocks {
            writer.start(write(log, next, filled(7, STEP)));
            next += STEP;
        }
        assert!(writer.in_flight() > 0, "there was room for all");
        match writer.finish() {
            Ok(_) => whole += STEP,
            Err(error) => {
                writer.drain();
                return (error, whole);
            }
        }
    }
}

/// As the child: in the namespace that the parent has made, on a filesystem that has just been mounted.
fn a_full_filesystem(io: IoMode, place: &Path, blocks: usize) {
    let (disk, log, mut writer) = open_log(place, io, blocks);
    let (error, whole) = fill(&log, &mut *writer, blocks);
    assert!(error.is_full(), "{error}");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(error.op, DiskOp::WriteDurable);
    assert!(whole > 16, "some of it arrived: {whole} blocks");
    let bytes = fs::read(disk.path("log")).unwrap();
    let mut count = 0;
    for block in bytes[BLOCK..].chunks(BLOCK) {
        let is = |byte| block.iter().all(|it| *it == byte);
        assert!(is(7) || is(0), "a block is old or new");
        count += usize::from(is(7));
    }
    assert!(count + 1 >= whole, "what was told to be durable is there");
    println!("{io:?}: {count} blocks, {error}");
}

/// Runs the child in a mount namespace of its own, after `mount`; all mounts go with it.
fn in_own_mounts(test: &str, io: IoMode, place: &Path, mount: &str) {
    let is_root = rustix::process::geteuid().is_root();
    let flags = if is_root { "-m" } else { "-rm" };
    let mut probe = Command::new("unshare");
    probe.args([flags, "sh", "-c", mount, "sh"]).arg(place);
    let allowed = probe.output().is_ok_and(|output| output.status.success());
    if !allowed {
        println!("skipped: this machine does not allow: {mount}");
        return;
    }
    let mut command = Command::new("unshare");
    let script = format!("set -e; {mount}; shift; exec \"$@\"");
    command.args([flags, "sh", "-c", &script, "sh"]).arg(place);
    command.args(child(test, io, place));
    assert_succeeds(command);
}

#[test]
fn a_full_memory_filesystem_is_a_clean_error() {
    const NAME: &str = "a_full_memory_filesystem_is_a_clean_error";
    if let Some((io, place)) = role() {
        return a_full_filesystem(io, &place, 1024);
    }
    for io in modes() {
        let place = TempDir::new().unwrap();
        // Not a multiple of what is written at once, so that a write stops short.
        in_own_mounts(
            NAME,
            io,
            place.path(),
            "mount -t tmpfs -o size=1100k tmpfs \"$1\"",
        );
    }
}

#[test]
fn a_full_journaling_filesystem_is_a_clean_error() {
    const NAME: &str = "a_full_journaling_filesystem_is_a_clean_error";
    if let Some((io, place)) = role() {
        return a_full_filesystem(io, &place, 8192);
    }
    for io in modes() {
        let images = TempDir::new().unwrap();
        let image = images.path().join("image");
        let made = fs::File::create(&image).and_then(|file| file.set_len(16 << 20));
        made.unwrap();
        let mut format = Command::new("mkfs.ext4");
        format.args(["-q", "-F"]).arg(&image);
        if !format.output().is_ok_and(|it| it.status.success()) {
            println!("skipped: this machine has no mkfs.ext4");
            return;
        }
        let place = TempDir::new().unwrap();
        let mount = format!("mount -o loop '{}' \"$1\"", image.display());
        in_own_mounts(NAME, io, place.path(), &mount);
    }
}

/// How much memory of this process is registered with the kernel, in KiB.
fn pinned() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmPin:"));
    let kib = line.unwrap().trim().trim_end_matches("kB").trim();
    kib.parse().unwrap()
}

/// A user may lock less memory than the buffers take: they are written all the same.
#[test]
fn without_locked_memory_a_ring_still_writes() {
    const NAME: &str = "without_locked_memory_a_ring_still_writes";
    if let Some((io, place)) = role() {
        // Enough for the ring itself, which newer kernels count as well.
        let little = Some(256 << 10);
        let limit = Rlimit {
            current: little,
            maximum: little,
        };
        rustix::process::setrlimit(Resource::Memlock, limit).unwrap();
        let disk = OsDisk::open(place.join("db"), true).unwrap().with_io(io);
        let plain = disk.open("log", OpenMode::CreateNew).unwrap();
        plain.write_at(0, &vec![0; 1024 * BLOCK]).unwrap();
        let log = disk.open("log", OpenMode::Log).unwrap();
        let mut free: Vec<_> = (0..DEPTH).map(|_| filled(0, 128)).collect();
        let probe = write(&log, 0, filled(2, 1));
        let mut writer = disk.log_writer(DEPTH, &free, probe).unwrap();
        assert_eq!(pinned(), 0, "the kernel refuses to register the buffers");
        for byte in 1..20 {
            for (i, mut buffer) in free.drain(..).enumerate() {
                buffer.as_mut_bytes().fill(byte);
                writer.start(write(&log, i * 128, buffer));
            }
            while writer.in_flight() > 0 {
                free.push(writer.finish().unwrap().buffer);
            }
            assert_eq!(written(&disk, 0, byte), DEPTH * 128);
        }
        return;
    }
    if !modes().contains(&IoMode::Uring) {
        return;
    }
    let place = TempDir::new().unwrap();
    let mut words = child(NAME, IoMode::Uring, place.path());
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // For root there is no such limit: let it be somebody else, who must reach program and place.
        let program = place.path().join("program");
        fs::copy(&words[3], &program).unwrap();
        words[3] = program.display().to_string();
        for path in [place.path(), &program] {
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
    }
    let mut command = command(&words);
    command.current_dir("/");
    if is_root {
        command.uid(65534).gid(65534);
    }
    assert_succeeds(command);
}

#[test]
fn buffers_are_registered_and_given_back() {
    const NAME: &str = "buffers_are_registered_and_given_back";
    if let Some((io, place)) = role() {
        let disk = OsDisk::open(place.join("db"), true).unwrap().with_io(io);
        let plain = disk.open("log", OpenMode::CreateNew).unwrap();
        plain.write_at(0, &[1; 4 * BLOCK]).unwrap();
        let log = disk.open("log", OpenMode::Log).unwrap();
        let buffers = vec![filled(7, 4), filled(7, 4)];
        for _ in 0..3 {
            let probe = write(&log, 0, filled(2, 1));
            let writer = disk.log_writer(DEPTH, &buffers, probe).unwrap();
            assert_eq!(pinned(), 32);
            drop(writer);
            assert_eq!(pinned(), 0, "at once, and not when the kernel has time");
        }
        return;
    }
    if modes().contains(&IoMode::Uring) {
        let place = TempDir::new().unwrap();
        assert_succeeds(command(&child(NAME, IoMode::Uring, place.path())));
    }
}

const KILL_BLOCKS: usize = 64;

/// As the child: tells that it is ready, and writes until it is killed. Every word of a block is the
/// number of the write, which is the block's own in each round.
fn write_for_ever(place: &Path, io: IoMode) {
    let disk = OsDisk::open(place, false).unwrap().with_io(io);
    let log = disk.open("log", OpenMode::Log).unwrap();
    assert!(log.try_lock(FileLock::Exclusive).unwrap());
    let mut free: Vec<_> = (0..DEPTH).map(|_| AlignedBuf::zeroed(BLOCK)).collect();
    let probe = write(&log, 0, AlignedBuf::zeroed(BLOCK));
    let mut writer = disk.log_writer(DEPTH, &free, probe).unwrap();
    for number in 0_u64.. {
        let mut buffer = match free.pop() {
            Some(buffer) => buffer,
            None => writer.finish().unwrap().buffer,
        };
        for word in buffer.as_mut_bytes().chunks_mut(8) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        writer.start(write(&log, number as usize % KILL_BLOCKS, buffer));
        if number == 20 {
            println!("\nready");
        }
    }
}

/// What an opener waits for at most.
const UNLOCKED_WITHIN: Duration = Duration::from_millis(limits::UNLOCK_MS_MAX);

/// F16, F17: a killed process's lock is gone soon, and each block is what some write has made it.
#[test]
fn a_kill_with_writes_in_flight_leaves_whole_blocks_and_no_lock() {
    const NAME: &str = "a_kill_with_writes_in_flight_leaves_whole_blocks_and_no_lock";
    if let Some((io, place)) = role() {
        return write_for_ever(&place, io);
    }
    for io in modes() {
        for round in 0..8 {
            let place = TempDir::new().unwrap();
            let disk = OsDisk::open(place.path(), false).unwrap();
            let plain = disk.open("log", OpenMode::CreateNew).unwrap();
            plain.write_at(0, &vec![0; KILL_BLOCKS * BLOCK]).unwrap();
            plain.sync().unwrap();
            let words = child(NAME, io, place.path());
            let mut writing = command(&words).stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(writing.stdout.take().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
            std::thread::park_timeout(Duration::from_micros(700 * round));
            let held = disk.open("log", OpenMode::Log).unwrap();
            assert!(
                !held.try_lock(FileLock::Exclusive).unwrap(),
                "it has the lock"
            );
            writing.kill().unwrap();
            writing.wait().unwrap();
            let killed = Instant::now();
            while !held.try_lock(FileLock::Exclusive).unwrap() {
                let waited = killed.elapsed();
                assert!(waited < UNLOCKED_WITHIN, "{io:?}: {waited:?}");
                std::thread::park_timeout(Duration::from_micros(100));
            }
            println!("{io:?}: unlocked after {:?}", killed.elapsed());
            check_blocks(&fs::read(disk.path("log")).unwrap());
        }
    }
}

fn check_blocks(bytes: &[u8]) {
    assert_eq!(bytes.len(), KILL_BLOCKS * BLOCK);
    let mut newest = 0;
    for (at, block) in bytes.chunks(BLOCK).enumerate() {
        let number = u64::from_le_bytes(block[..8].try_into().unwrap());
        assert!(
            block.chunks(8).all(|word| word == number.to_le_bytes()),
            "block {at} is of one write"
        );
        assert!(
            number == 0 || number as usize % KILL_BLOCKS == at,
            "block {at}"
        );
        newest = newest.max(number);
    }
    assert!(newest >= 20 - DEPTH as u64, "{newest}");
}

/// A ring that the kernel itself refuses: more entries than it allows.
#[test]
fn a_ring_that_is_too_large_is_refused_with_its_reason() {
    let place = TempDir::new().unwrap();
    let disk = |io| OsDisk::open(place.path(), false).unwrap().with_io(io);
    let auto = disk(IoMode::Auto);
    let plain = auto.open("log", OpenMode::CreateNew).unwrap();
    plain.write_at(0, &[1; BLOCK]).unwrap();
    let log = auto.open("log", OpenMode::Log).unwrap();
    let probe = || write(&log, 0, filled(9, 1));
    let writer = auto.log_writer(1_000_000, &[], probe()).unwrap();
    assert_eq!(writer.depth(), 1_000_000);
    let told = auto.write_path();
    assert_eq!(told.backend, Backend::Blocking);
    assert!(told.refused.is_some_and(|why| !why.is_empty()));
    assert_eq!(fs::read(auto.path("log")).unwrap(), [9; BLOCK]);
    let uring = disk(IoMode::Uring);
    let error = uring.log_writer(1_000_000, &[], probe()).unwrap_err();
    assert_eq!(error.op, DiskOp::SetUpRing);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    println!("{error}");
}
