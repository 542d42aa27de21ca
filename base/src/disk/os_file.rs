//! One real file, moved by blocking system calls.
//!
//! Made by [`OsDisk`](super::OsDisk) only; `ring_writer` writes to it by its descriptor.
//!
//! 1. A log file's offsets, lengths and addresses are whole blocks, with or without `O_DIRECT`: a
//!    caller that would fail on one filesystem fails on all.
//! 2. A durable write is one call where the kernel has one (`RWF_DSYNC`), else a write and `fdatasync`.
//! 3. A sync is never repeated, not even after `EINTR`: a failure may be reported once only (F8).
//! 4. The descriptor is closed, and its `flock` gone, when the last owner drops it, also while a ring still
//!    knows the file.

use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use super::error::{DiskError, DiskOp, DiskResult};
use super::map::Map;
use super::transfer::{read_all, retry, write_all};
use super::{DiskFile, FileLock};
use crate::limits::BLOCK_BYTES;

/// What the filesystem was found to refuse; shared by all files of a directory.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// It does not open files past the page cache.
    pub(super) direct: AtomicBool,
    /// It does not write and sync in one call.
    pub(super) dsync: AtomicBool,
}

/// How transfers go past, or through, the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// Through it, any offset and length: everything but the log.
    Cached,
    /// Whole blocks, past it.
    Direct,
    /// Whole blocks, through it, as the filesystem has no other way.
    AlignedCached,
}

#[derive(Debug)]
pub(super) struct OsFile {
    file: File,
    path: PathBuf,
    caching: Caching,
    refused: Arc<Refused>,
    /// It may have a lock.
    was_locked: AtomicBool,
    /// A write to it may still come, nobody knows when: it stays locked for as long as the process lives.
    keeps_lock: AtomicBool,
}

impl OsFile {
    pub(super) fn new(file: File, path: PathBuf, caching: Caching, refused: Arc<Refused>) -> Self {
        Self {
            file,
            path,
            caching,
            refused,
            was_locked: AtomicBool::new(false),
            keeps_lock: AtomicBool::new(false),
        }
    }

    /// A write to it is in flight that nobody can wait for: its lock is not given up any more.
    pub(super) fn keep_lock(&self) {
        self.keeps_lock.store(true, Ordering::Release);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_log(&self) -> bool {
        self.caching != Caching::Cached
    }

    fn error(&self, op: DiskOp, source: impl Into<io::Error>) -> DiskError {
        DiskError::new(op, &self.path, source)
    }

    /// The multiple at which transfers resume.
    fn step(&self) -> usize {
        match self.caching {
            Caching::Cached => 1,
            Caching::Direct | Caching::AlignedCached => BLOCK_BYTES,
        }
    }

    fn check_alignment(&self, offset: u64, bytes: &[u8]) {
        if self.is_log() {
            let block = BLOCK_BYTES as u64;
            assert!(
                offset.is_multiple_of(block)
                    && bytes.len().is_multiple_of(BLOCK_BYTES)
                    && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES),
                "disk 5: log files move whole aligned blocks (offset {offset}, {} bytes)",
                bytes.len()
            );
        }
    }

    fn write_cached_then_sync(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes)?;
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all(bytes.len(), self.step(), |start| {
            let rest = bytes.get(start..).unwrap_or_default();
            rustix::io::pwrite(&self.file, rest, offset + start as u64)
        })
    }

    fn write_dsync(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all(bytes.len(), self.step(), |start| {
            let rest = [IoSlice::new(bytes.get(start..).unwrap_or_default())];
            let at = offset + start as u64;
            rustix::io::pwritev2(&self.file, &rest, at, ReadWriteFlags::DSYNC)
        })
    }
}

impl DiskFile for OsFile {
    fn len(&self) -> DiskResult<u64> {
        let stat = rustix::fs::fstat(&self.file).map_err(|e| self.error(DiskOp::Len, e))?;
        u64::try_from(stat.st_size).map_err(|_| self.error(DiskOp::Len, io::ErrorKind::InvalidData))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.check_alignment(offset, buffer);
        if self.caching == Caching::AlignedCached {
            // A page may hold what a dead process wrote and a failed sync left behind.
            self.forget_cached(offset, buffer.len() as u64);
        }
        let len = buffer.len();
        read_all(len, self.step(), |start| {
            let rest = buffer.get_mut(start..).unwrap_or_default();
            rustix::io::pread(&self.file, rest, offset + start as u64)
        })
        .map_err(|e| self.error(DiskOp::Read, e).at(offset))
    }

    fn forget_cached(&self, offset: u64, bytes: u64) {
        // Of a page in part nothing is dropped.
        let page = BLOCK_BYTES as u64;
        let start = offset / page * page;
        let len = offset.saturating_add(bytes).saturating_sub(start);
        if let Some(len) = len.checked_next_multiple_of(page).and_then(NonZeroU64::new) {
            // The kernel need not obey; hence the result is of no use.
            let _ = rustix::fs::fadvise(&self.file, start, Some(len), Advice::DontNeed);
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.check_alignment(offset, bytes);
        self.write(offset, bytes)
            .map_err(|e| self.error(DiskOp::Write, e).at(offset))
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        assert!(self.is_log(), "disk 5: durable writes are for log files");
        self.check_alignment(offset, bytes);
        let written = if self.refused.dsync.load(Ordering::Relaxed) {
            self.write_cached_then_sync(offset, bytes)
        } else {
            match self.write_dsync(offset, bytes) {
                // A refusal of the flag writes nothing, so the whole range is written again.
                Err(refusal) if refuses_the_flag(&refusal) => {
                    let written = self.write_cached_then_sync(offset, bytes);
                    // EINVAL has other causes too: only a success without the flag proves which.
                    if written.is_ok() {
                        self.refused.dsync.store(true, Ordering::Relaxed);
                    }
                    written
                }
                written => written,
            }
        };
        written.map_err(|e| self.error(DiskOp::WriteDurable, e).at(offset))
    }

    fn sync(&self) -> DiskResult<()> {
        rustix::fs::fdatasync(&self.file).map_err(|e| self.error(DiskOp::Sync, e))
    }

    fn set_len(&self, bytes: u64) -> DiskResult<()> {
        retry(|| rustix::fs::ftruncate(&self.file, bytes))
            .map_err(|e| self.error(DiskOp::SetLen, e))
    }

    fn map(&self) -> DiskResult<Map> {
        // A map of no bytes is an error of the system call; there is nothing to map.
        if self.is_empty()? {
            return Ok(Map::from_owner([]));
        }
        // SAFETY: The slice that the map gives out is sound for as long as nobody changes or
        // truncates the file. The port's contract allows maps of immutable files only: runs, which are written and
        // synced under a temporary name before they are mapped, never opened for writing after,
        // and only ever unlinked, which leaves the pages in place. Another process is kept away by
        // the directory's lock file. The map is private to this process and read-only.
        let map = unsafe { memmap2::Mmap::map(&self.file) };
        map.map(Map::of_file)
            .map_err(|e| self.error(DiskOp::Map, e))
    }

    fn try_lock(&self, lock: FileLock) -> DiskResult<bool> {
        let operation = match lock {
            FileLock::Shared => FlockOperation::NonBlockingLockShared,
            FileLock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        self.was_locked.store(true, Ordering::Relaxed);
        match retry(|| rustix::fs::flock(&self.file, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(self.error(DiskOp::Lock, e)),
        }
    }

    fn unlock(&self) -> DiskResult<()> {
        if self.keeps_lock.load(Ordering::Acquire) {
            return Ok(());
        }
        retry(|| rustix::fs::flock(&self.file, FlockOperation::Unlock))
            .map_err(|e| self.error(DiskOp::Lock, e))
    }
}

impl AsFd for OsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for OsFile {
    fn drop(&mut self) {
        if *self.was_locked.get_mut() {
            // Closing would do, were it the last that knows the file: a ring may keep it for longer. Nothing
            // can be done if it fails.
            let _ = self.unlock();
        }
    }
}

/// Whether the kernel, or the filesystem, may have refused `RWF_DSYNC` itself.
fn refuses_the_flag(error: &io::Error) -> bool {
    [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests;
