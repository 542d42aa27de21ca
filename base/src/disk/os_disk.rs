//! A directory of real files, reached by blocking system calls.
//!
//! Made by whoever opens a database; used through [`Disk`] by everything above.
//!
//! 1. Every name is resolved below one held directory descriptor: renaming the directory, or a parent,
//!    does no harm, and a path cannot lead out of it.
//! 2. Directories are made 0700, files 0600; descriptors close on exec; a link, a pipe or a device in
//!    the place of a file is refused.
//! 3. Whether log files go past the page cache, and whether one call writes and syncs, is tried once
//!    and remembered for the directory. What carries the log is found when its writer is made (`log_backend`).
//!
//! Crash: nothing of its own is on disk. A directory that was asked for is durable with its name when
//! `open` has returned.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::aligned::AlignedBuf;
use super::error::{DiskError, DiskOp, DiskResult};
use super::log_backend::{self, Asked};
use super::log_writer::{LogWrite, LogWriter};
use super::os_file::{Caching, OsFile, Refused};
use super::ring::Uring;
use super::transfer::retry;
use super::{Backend, Disk, DiskFile, IoMode, OpenMode, WritePath};
use crate::limits::BLOCK_BYTES;

const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A directory of real files.
#[derive(Debug)]
pub struct OsDisk {
    directory: OwnedFd,
    path: PathBuf,
    refused: Arc<Refused>,
    io: IoMode,
    /// What the newest log writer is, and why it is no ring.
    found: Mutex<Option<(Backend, Option<String>)>>,
}

impl OsDisk {
    /// Opens the directory `path`; with `create` it is made if it is missing (its parent is not), and
    /// its name made durable. Links in `path` are followed once, here.
    ///
    /// # Errors
    /// The kernel's, with the path: of kind `NotFound` if there is nothing, `NotADirectory` if it is
    /// something else.
    pub fn open(path: impl AsRef<Path>, create: bool) -> DiskResult<Self> {
        let asked = path.as_ref();
        let made = create && make_directory(asked)?;
        let path =
            std::fs::canonicalize(asked).map_err(|e| DiskError::new(DiskOp::OpenDir, asked, e))?;
        let directory =
            open_directory(&path).map_err(|e| DiskError::new(DiskOp::OpenDir, &path, e))?;
        if create {
            sync_name_of(&path, made)?;
        }
        Ok(Self {
            directory,
            path,
            refused: Arc::default(),
            io: IoMode::Auto,
            found: Mutex::default(),
        })
    }

    /// The same directory, its log carried by these calls.
    #[must_use]
    pub fn with_io(self, io: IoMode) -> Self {
        Self { io, ..self }
    }

    fn error(&self, op: DiskOp, name: &str, source: impl Into<io::Error>) -> DiskError {
        DiskError::new(op, &self.path.join(name), source)
    }

    fn open_descriptor(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // NONBLOCK: opening a pipe that someone put there must not wait for its writer.
        let always = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        retry(|| rustix::fs::openat(&self.directory, name, flags | always, FILE_MODE))
    }

    /// Opens a log file past the page cache, or through it where the filesystem has no other way.
    fn open_log(&self, name: &str, access: OFlags) -> Result<(OwnedFd, Caching), Errno> {
        if !self.refused.direct.load(Ordering::Relaxed) {
            match self.open_descriptor(name, access | OFlags::DIRECT) {
                Ok(file) if takes_blocks(&file) => return Ok((file, Caching::Direct)),
                Ok(_) | Err(Errno::INVAL) => {}
                Err(e) => return Err(e),
            }
            let file = self.open_descriptor(name, access)?;
            self.refused.direct.store(true, Ordering::Relaxed);
            return Ok((file, Caching::AlignedCached));
        }
        let file = self.open_descriptor(name, access)?;
        Ok((file, Caching::AlignedCached))
    }

    fn open_mode(&self, name: &str, mode: OpenMode) -> Result<(OwnedFd, Caching), Errno> {
        let flags = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            OpenMode::Log => return self.open_log(name, OFlags::RDWR),
            OpenMode::LogRead => return self.open_log(name, OFlags::RDONLY),
        };
        Ok((self.open_descriptor(name, flags)?, Caching::Cached))
    }

    /// The entry's name if it is a plain file's. A name that is no UTF-8 is none of the engine's.
    fn plain_name(&self, name: &CStr, kind: FileType) -> Result<Option<String>, Errno> {
        let kind = match kind {
            FileType::Unknown => self.kind_of(name)?,
            known => known,
        };
        let text = name.to_str().ok().filter(|_| kind == FileType::RegularFile);
        Ok(text.map(str::to_owned))
    }

    fn kind_of(&self, name: &CStr) -> Result<FileType, Errno> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
            // Removed since the directory was read.
            Err(Errno::NOENT) => Ok(FileType::Unknown),
            Err(e) => Err(e),
        }
    }
}

impl Disk for OsDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        check_name(name);
        let op = match mode {
            OpenMode::CreateNew => DiskOp::Create,
            _ => DiskOp::Open,
        };
        let failed = |e: Errno| self.error(op, name, e);
        let (descriptor, caching) = self.open_mode(name, mode).map_err(failed)?;
        let stat = rustix::fs::fstat(&descriptor).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(failed(Errno::ISDIR)),
            _ => return Err(failed(Errno::INVAL)),
        }
        // It was for the opening alone; asynchronous I/O would take it at its word.
        let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(failed)?;
        rustix::fs::fcntl_setfl(&descriptor, flags - OFlags::NONBLOCK).map_err(failed)?;
        Ok(Arc::new(OsFile::new(
            File::from(descriptor),
            self.path.join(name),
            caching,
            self.refused.clone(),
        )))
    }

    fn list(&self) -> DiskResult<Vec<String>> {
        let failed = |e: Errno| DiskError::new(DiskOp::List, &self.path, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = self.plain_name(entry.file_name(), entry.file_type());
            names.extend(name.map_err(failed)?);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        check_name(from);
        check_name(to);
        retry(|| rustix::fs::renameat(&self.directory, from, &self.directory, to))
            .map_err(|e| self.error(DiskOp::Rename, from, e))
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        check_name(name);
        retry(|| rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()))
            .map_err(|e| self.error(DiskOp::Remove, name, e))
    }

    fn link_from(&self, from: &dyn Disk, name: &str) -> DiskResult<bool> {
        check_name(name);
        let Some(source) = from.descriptor() else {
            return Ok(false);
        };
        let linked =
            retry(|| rustix::fs::linkat(source, name, &self.directory, name, AtFlags::empty()));
        match linked {
            Ok(()) => Ok(true),
            // Each kernel and filesystem has its own way to say that it has no links, or none here.
            Err(
                Errno::XDEV
                | Errno::PERM
                | Errno::ACCESS
                | Errno::MLINK
                | Errno::OPNOTSUPP
                | Errno::NOSYS
                | Errno::INVAL,
            ) => Ok(false),
            Err(e) => Err(self.error(DiskOp::Link, name, e)),
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.directory.as_fd())
    }

    fn sync_dir(&self) -> DiskResult<()> {
        // Once: see rule 3 of `os_file`.
        rustix::fs::fsync(&self.directory)
            .map_err(|e| DiskError::new(DiskOp::SyncDir, &self.path, e))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            return self.path.clone();
        }
        self.path.join(name)
    }

    fn write_path(&self) -> WritePath {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (backend, refused) = found.clone().unwrap_or(match self.io {
            IoMode::Auto | IoMode::Uring => (Backend::Uring, None),
            IoMode::Blocking => (Backend::Blocking, None),
        });
        WritePath {
            direct: !self.refused.direct.load(Ordering::Relaxed),
            dsync: !self.refused.dsync.load(Ordering::Relaxed),
            backend,
            refused,
        }
    }

    fn log_writer(
        &self,
        depth: usize,
        buffers: &[AlignedBuf],
        probe: LogWrite,
    ) -> DiskResult<Box<dyn LogWriter>> {
        let asked = Asked {
            io: self.io,
            refused: &self.refused,
            path: &self.path,
            depth,
            buffers,
        };
        let chosen = log_backend::choose(&asked, probe, Uring::new)?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Some((chosen.backend, chosen.refused));
        Ok(chosen.writer)
    }
}

/// Whether an open file past the page cache moves single blocks. What a kernel or filesystem does not tell
/// is believed.
fn takes_blocks(file: &OwnedFd) -> bool {
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let Ok(told) = told else {
        return true;
    };
    let is_told = told.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    !is_told || fits_blocks(told.stx_dio_mem_align, told.stx_dio_offset_align)
}

/// Whether blocks fulfil these demands on addresses and offsets; zero means that there is no way past the
/// page cache.
fn fits_blocks(memory: u32, offset: u32) -> bool {
    [memory, offset]
        .into_iter()
        .all(|align| align > 0 && BLOCK_BYTES.is_multiple_of(align as usize))
}

/// Makes the directory if nothing has its name; whether it did.
fn make_directory(path: &Path) -> DiskResult<bool> {
    match retry(|| rustix::fs::mkdirat(CWD, path, DIRECTORY_MODE)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(DiskError::new(DiskOp::CreateDir, path, e)),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// Makes the directory's own name durable (F15), also when it was there: whoever made it may have
/// died before its sync. A parent that may not be read can only be left alone, unless the name is new.
fn sync_name_of(path: &Path, made: bool) -> DiskResult<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    match open_directory(parent) {
        Ok(parent_directory) => rustix::fs::fsync(&parent_directory),
        Err(Errno::ACCESS | Errno::PERM) if !made => Ok(()),
        Err(e) => Err(e),
    }
    .map_err(|e| DiskError::new(DiskOp::SyncDir, parent, e))
}

fn check_name(name: &str) {
    assert!(
        !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']),
        "disk 1: {name:?} is no plain file name"
    );
}

#[cfg(test)]
mod tests;
