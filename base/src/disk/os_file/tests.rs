//! Tests of the ways that the filesystem under the tests may not take by itself.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests look behind the disk's back"
)]

use std::fs::OpenOptions;

use tempfile::TempDir;

use super::super::AlignedBuf;
use super::*;

fn file(directory: &TempDir, caching: Caching, refused: &Arc<Refused>) -> OsFile {
    let path = directory.path().join("log");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).unwrap();
    file.set_len(65536).unwrap();
    OsFile::new(file, path, caching, refused.clone())
}

fn filled(byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(3 * BLOCK_BYTES);
    buffer.as_mut_bytes().fill(byte);
    buffer
}

#[test]
fn without_o_direct_and_dsync_durable_writes_still_arrive() {
    let directory = TempDir::new().unwrap();
    for dsync_refused in [false, true] {
        let refused = Arc::new(Refused::default());
        refused.dsync.store(dsync_refused, Ordering::Relaxed);
        let log = file(&directory, Caching::AlignedCached, &refused);
        log.write_durable(4096, filled(7).as_bytes()).unwrap();
        let mut buffer = filled(0);
        assert_eq!(log.read_at(4096, buffer.as_mut_bytes()).unwrap(), 12288);
        assert_eq!(buffer.as_bytes(), filled(7).as_bytes());
    }
}

/// A read past the cache is best effort without `O_DIRECT`; it must never drop what is not yet written.
#[test]
fn forgetting_the_cache_keeps_dirty_pages() {
    let directory = TempDir::new().unwrap();
    let log = file(&directory, Caching::AlignedCached, &Arc::default());
    for round in 0..50 {
        log.write_at(0, filled(round).as_bytes()).unwrap();
        let mut buffer = filled(0);
        log.read_at(0, buffer.as_mut_bytes()).unwrap();
        assert_eq!(buffer.as_bytes(), filled(round).as_bytes());
    }
}

/// How many pages of the file are in memory.
fn cached_pages(map: &memmap2::Mmap) -> usize {
    let mut pages = vec![0_u8; map.len().div_ceil(BLOCK_BYTES)];
    let start = map.as_ptr().cast_mut().cast();
    // SAFETY: The map is as long as is said, and there is a byte for each of its pages; nothing is kept.
    let done = unsafe { libc::mincore(start, map.len(), pages.as_mut_ptr()) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    pages.iter().filter(|page| **page & 1 != 0).count()
}

#[test]
fn clean_pages_that_nobody_has_touched_in_a_map_are_forgotten() {
    let directory = TempDir::new().unwrap();
    let run = file(&directory, Caching::Cached, &Arc::default());
    let tmpfs = 0x0102_1994;
    if rustix::fs::statfs(directory.path()).unwrap().f_type == tmpfs {
        eprintln!("skipped: a file in memory is nowhere else");
        return;
    }
    run.write_at(0, &vec![7; 65000]).unwrap();
    run.sync().unwrap();
    // SAFETY: Nobody changes the file while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&run.file) }.unwrap();
    assert_eq!(cached_pages(&map), 16);
    // Up to the edges of pages; a part of nothing is nothing.
    run.forget_cached(100, 0);
    run.forget_cached(4000, 64_900 - 4000);
    assert_eq!(cached_pages(&map), 0);
    let mut buffer = [0; 1];
    assert_eq!(run.read_at(64_999, &mut buffer).unwrap(), 1);
    assert_eq!(buffer, [7]);
}

/// The kernel fetches the first part of what one request asks for, and forgets the rest: a large value came page by page.
#[test]
fn all_of_a_large_part_is_fetched_that_is_asked_for() {
    const BYTES: usize = 24 << 20;
    let directory = TempDir::new().unwrap();
    let run = file(&directory, Caching::Cached, &Arc::default());
    run.write_at(0, &vec![7; BYTES]).unwrap();
    run.sync().unwrap();
    run.forget_cached(0, BYTES as u64);
    // SAFETY: Nobody changes the file while it is mapped.
    let shown = unsafe { memmap2::Mmap::map(&run.file) }.unwrap();
    if cached_pages(&shown) > 0 {
        eprintln!("skipped: this filesystem forgets nothing");
        return;
    }
    let map = run.map().unwrap();
    map.will_need(BYTES / 2 - 100, BYTES);
    assert_eq!(cached_pages(&shown), 0, "it does not reach so far");
    map.will_need(5000, BYTES - 10_000);
    // What is asked for has its page when the call returns, and its content later.
    let begun = std::time::Instant::now();
    while cached_pages(&shown) < BYTES / BLOCK_BYTES - 2 {
        let pages = cached_pages(&shown);
        assert!(begun.elapsed().as_secs() < 30, "{pages} pages");
        std::thread::yield_now();
    }
}

#[test]
fn an_error_of_the_write_itself_is_not_taken_for_a_refusal() {
    let directory = TempDir::new().unwrap();
    let refused = Arc::new(Refused::default());
    let log = file(&directory, Caching::AlignedCached, &refused);
    // Behind every possible file: EINVAL with the flag and without it.
    let error = log
        .write_durable(u64::MAX - 4095, filled(1).as_bytes())
        .unwrap_err();
    assert_eq!(error.op, DiskOp::WriteDurable);
    assert_eq!(error.offset, Some(u64::MAX - 4095));
    assert!(!refused.dsync.load(Ordering::Relaxed));
}

/// This machine's filesystem forgives an unaligned resumption at the end of a file; others answer EINVAL.
#[test]
fn log_files_resume_at_blocks_and_others_anywhere() {
    let directory = TempDir::new().unwrap();
    for (caching, step) in [
        (Caching::Cached, 1),
        (Caching::Direct, BLOCK_BYTES),
        (Caching::AlignedCached, BLOCK_BYTES),
    ] {
        assert_eq!(file(&directory, caching, &Arc::default()).step(), step);
    }
}

#[test]
fn only_a_refused_flag_falls_back() {
    for (errno, falls_back) in [
        (Errno::OPNOTSUPP, true),
        (Errno::NOSYS, true),
        (Errno::INVAL, true),
        (Errno::IO, false),
        (Errno::NOSPC, false),
        (Errno::INTR, false),
    ] {
        assert_eq!(refuses_the_flag(&errno.into()), falls_back, "{errno}");
    }
    assert!(!refuses_the_flag(&io::ErrorKind::WriteZero.into()));
}
