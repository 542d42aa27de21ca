//! The port's files: what may be done with an open one.
//!
//! Implemented by each disk for its own files; used by everything above. What holds for them is said at
//! the top of `mod.rs`.
//!
//! Crash: what was made durable is there; of the rest, any part.

use std::any::Any;
use std::fmt::Debug;

use super::error::DiskResult;
use super::map::Map;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A new file, to read and write; an error of kind `AlreadyExists` if the name is taken.
    CreateNew,
    /// An existing log segment: past the page cache where the filesystem allows it. Every offset,
    /// length and buffer address is a multiple of [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES).
    Log,
    /// As [`OpenMode::Log`], for reading alone (inspection of a directory that it must not change).
    LogRead,
}

/// How a file is locked against other openers, by open file description (`flock`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileLock {
    /// Beside other shared lockers.
    Shared,
    /// Alone.
    Exclusive,
}

/// One open file. Dropping it closes it and releases its lock. By `Any` a disk's `LogWriter` knows its own
/// files again.
pub trait DiskFile: Any + Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn len(&self) -> DiskResult<u64>;

    /// Whether it holds nothing.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> DiskResult<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from `offset` until `buffer` is full or the file ends; how many bytes it read.
    ///
    /// # Errors
    /// The kernel's; the buffer's content is then unspecified.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<usize>;

    /// Asks that a part of the file be forgotten by the page cache, so that a read sees the device and what is read
    /// once takes no place. Advice: pages that are not written back yet stay, and those that a map shows to whoever
    /// has touched them; and a filesystem need not obey.
    fn forget_cached(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }

    /// Writes all of `bytes` at `offset`; not durable.
    ///
    /// # Errors
    /// The kernel's; any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> DiskResult<()>;

    /// Writes all of `bytes` at `offset` and returns when they are on the device. For files opened as
    /// [`OpenMode::Log`], inside their present length.
    ///
    /// # Errors
    /// The kernel's; any part may be durable, now or later.
    fn write_durable(&self, offset: u64, bytes: &[u8]) -> DiskResult<()>;

    /// Makes the file's data and length durable (`fdatasync`).
    ///
    /// # Errors
    /// The kernel's; nothing is known about any write since the last success, for good (F8).
    fn sync(&self) -> DiskResult<()>;

    /// Cuts or extends the file; what is added reads as zeros.
    ///
    /// # Errors
    /// The kernel's.
    fn set_len(&self, bytes: u64) -> DiskResult<()>;

    /// Maps the whole file as it is now. The file must not change while the map lives: only
    /// immutable files are mapped.
    ///
    /// # Errors
    /// The kernel's.
    fn map(&self) -> DiskResult<Map>;

    /// Tries to take the lock without waiting; whether it was taken.
    ///
    /// # Errors
    /// The kernel's, other than that someone else has it.
    fn try_lock(&self, lock: FileLock) -> DiskResult<bool>;

    /// Releases the lock, if this handle has one; the file stays open.
    ///
    /// # Errors
    /// The kernel's.
    fn unlock(&self) -> DiskResult<()>;
}
