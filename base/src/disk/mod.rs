//! The disk port: one directory of files, as everything above sees it.
//!
//! Two sides implement it: [`OsDisk`] with real files, and the simulated disk of the testkit,
//! which loses, tears and fails what it is told to. Both pass the same contract tests. What holds:
//!
//! 1. Names are plain file names; the port adds the directory.
//! 2. A write is durable when [`DiskFile::sync`] or [`DiskFile::write_durable`] has returned `Ok`, and
//!    not before. A name is durable when [`Disk::sync_dir`] has returned `Ok`, and not before.
//! 3. After a failed sync or durable write nothing is known about the bytes concerned, and a later
//!    sync that succeeds proves nothing (F8). The caller must stop writing.
//! 4. Short transfers are resumed here (F5): a call returns when all bytes have moved, or an error.
//! 5. Log files move whole aligned blocks: offset, length and address of every transfer are multiples
//!    of [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES). Durable writes are for log files alone.
//!
//! A caller that breaks rule 1 or 5 has a bug, and gets a panic.

mod error;
mod map;
mod aligned;
mod transfer;
mod log_writer;
mod os_file;
mod os_disk;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

pub use aligned::AlignedBuf;
pub use error::{DiskError, DiskOp, DiskResult};
pub use log_writer::{LogWrite, LogWriter, Written};
pub use map::Map;
pub use os_disk::OsDisk;

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

/// Which calls move frames of the log to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IoMode {
    /// `io_uring` where the kernel lets us, else blocking calls.
    #[default]
    Auto,
    /// `io_uring`, or an error.
    Uring,
    /// `pwritev2`, one frame after the other.
    Blocking,
}

/// How log writes reach the device, for `Database::info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct WritePath {
    /// Whether log files bypass the page cache (`O_DIRECT`).
    pub direct: bool,
    /// Whether one call writes and makes durable (`RWF_DSYNC`), instead of a write and `fdatasync`.
    pub dsync: bool,
}

/// One directory of files.
pub trait Disk: Debug + Send + Sync {
    /// Opens the file `name`.
    ///
    /// # Errors
    /// The kernel's, with the path; a link in the place of the file is refused.
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>>;

    /// The names of all plain files of the directory, sorted.
    ///
    /// # Errors
    /// The kernel's, with the path.
    fn list(&self) -> DiskResult<Vec<String>>;

    /// Gives the file `from` the name `to`, replacing what had it.
    ///
    /// # Errors
    /// The kernel's, with the path; either name may then be in force.
    fn rename(&self, from: &str, to: &str) -> DiskResult<()>;

    /// Removes the name `name`; open files and maps of it stay readable.
    ///
    /// # Errors
    /// The kernel's, with the path.
    fn remove(&self, name: &str) -> DiskResult<()>;

    /// Makes all names durable: creations, renames, removals.
    ///
    /// # Errors
    /// The kernel's; which names are durable is then unknown.
    fn sync_dir(&self) -> DiskResult<()>;

    /// Where `name` is, for messages; the directory itself for the empty name.
    fn path(&self, name: &str) -> PathBuf;

    /// How log writes reach the device here.
    fn write_path(&self) -> WritePath;

    /// A writer of log frames with up to `depth` of them in flight. `buffers` are those that it will be
    /// given, for registration; others are written too. `probe` is written to find out what the kernel
    /// lets us do, and is durable when this returns.
    ///
    /// # Errors
    /// The kernel's, of the probe, or of the ring if it was asked for by name.
    fn log_writer(
        &self,
        depth: usize,
        buffers: &[AlignedBuf],
        probe: LogWrite,
    ) -> DiskResult<Box<dyn LogWriter>> {
        let _ = buffers;
        let mut writer = Box::new(log_writer::QueuedWriter::new(depth));
        writer.start(probe);
        writer.finish()?;
        Ok(writer)
    }
}

/// One open file. Dropping it closes it and releases its lock.
pub trait DiskFile: Debug + Send + Sync {
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
