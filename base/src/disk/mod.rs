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
mod disk_file;
mod log_writer;
mod os_file;
mod ring;
mod ring_files;
mod ring_writer;
mod log_backend;
mod os_disk;

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub use aligned::AlignedBuf;
pub use disk_file::{DiskFile, FileLock, OpenMode};
pub use error::{DiskError, DiskOp, DiskResult};
pub use log_writer::{LogWrite, LogWriter, Written};
pub use map::{Map, major_faults};
pub use os_disk::OsDisk;

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

/// What carries frames of the log to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `io_uring`, several frames at once.
    Uring,
    /// Blocking calls, one frame after the other.
    Blocking,
}

/// How log writes reach the device, for `Database::info`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WritePath {
    /// Whether log files bypass the page cache (`O_DIRECT`).
    pub direct: bool,
    /// Whether one call writes and makes durable (`RWF_DSYNC`), instead of a write and `fdatasync`.
    pub dsync: bool,
    /// What carries them; before there was a [`LogWriter`], what is to carry them.
    pub backend: Backend,
    /// Why it is not `io_uring`, where that was wanted and refused.
    pub refused: Option<String>,
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

    /// Gives the file `name` of the directory `from` the same name in this one as well: one file with two
    /// names. `false` if these two directories cannot share files: another filesystem, or one without links; then
    /// nothing was done.
    ///
    /// # Errors
    /// The kernel's, with the path; of kind `AlreadyExists` if the name is taken.
    fn link_from(&self, from: &dyn Disk, name: &str) -> DiskResult<bool> {
        let _ = (from, name);
        Ok(false)
    }

    /// The directory, for [`Disk::link_from`] of another one; `None` if it is none of the kernel's.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

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
