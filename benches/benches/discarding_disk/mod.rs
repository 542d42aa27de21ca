//! A disk that keeps names and lengths and forgets every byte, so that a log on it shows its own work alone.
//!
//! Used by the benches `wal` and `append_latch`. Reads give zeros: a log on it cannot be read again.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::disk::{
    Backend, Disk, DiskError, DiskFile, DiskOp, DiskResult, FileLock, Map, OpenMode, WritePath,
};
use parking_lot::Mutex;

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct DiscardingDisk {
    files: Mutex<BTreeMap<String, Arc<Length>>>,
}

/// What is left of a file.
#[derive(Debug, Default)]
struct Length(AtomicU64);

fn refused(op: DiskOp, name: &str, kind: ErrorKind) -> DiskError {
    DiskError::new(op, Path::new(name), Error::from(kind))
}

impl Disk for DiscardingDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        let is_new = mode == OpenMode::CreateNew;
        match files.get(name) {
            Some(_) if is_new => Err(refused(DiskOp::Create, name, ErrorKind::AlreadyExists)),
            Some(file) => Ok(Arc::<Length>::clone(file)),
            None if is_new => {
                let file = files.entry(name.to_owned()).or_default();
                Ok(Arc::<Length>::clone(file))
            }
            None => Err(refused(DiskOp::Open, name, ErrorKind::NotFound)),
        }
    }

    fn list(&self) -> DiskResult<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        let mut files = self.files.lock();
        let file = files.remove(from);
        let file = file.ok_or_else(|| refused(DiskOp::Rename, from, ErrorKind::NotFound))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        let gone = self.files.lock().remove(name);
        gone.map(|_| ())
            .ok_or_else(|| refused(DiskOp::Remove, name, ErrorKind::NotFound))
    }

    fn sync_dir(&self) -> DiskResult<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn write_path(&self) -> WritePath {
        WritePath {
            direct: true,
            dsync: true,
            backend: Backend::Blocking,
            refused: None,
        }
    }
}

impl Length {
    fn reach(&self, end: u64) {
        self.0.fetch_max(end, Ordering::Relaxed);
    }
}

impl DiskFile for Length {
    fn len(&self) -> DiskResult<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        let left = self.len()?.saturating_sub(offset);
        let bytes = buffer.len().min(left as usize);
        let (read, _) = buffer.split_at_mut(bytes);
        read.fill(0);
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.reach(offset + bytes.len() as u64);
        Ok(())
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.write_at(offset, bytes)
    }

    fn sync(&self) -> DiskResult<()> {
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> DiskResult<()> {
        self.0.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn map(&self) -> DiskResult<Map> {
        Err(refused(
            DiskOp::Map,
            "a file of which nothing is left",
            ErrorKind::Unsupported,
        ))
    }

    fn try_lock(&self, _lock: FileLock) -> DiskResult<bool> {
        Ok(true)
    }

    fn unlock(&self) -> DiskResult<()> {
        Ok(())
    }
}
