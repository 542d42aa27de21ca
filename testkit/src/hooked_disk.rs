//! A disk that tells before it does what concerns a name: for tests of what happens just then.
//!
//! Made by tests around a simulated disk. What is told may wait, call the engine, or panic. Reads and writes of open
//! files pass untold.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use lockstone_base::disk::{
    AlignedBuf, Disk, DiskFile, DiskOp, DiskResult, LogWrite, LogWriter, OpenMode, WritePath,
};

/// What is told of a call: which, and the name that it concerns.
type Hook = dyn Fn(DiskOp, &str) + Send + Sync;

/// A disk that tells of calls before it makes them.
pub struct HookedDisk {
    disk: Arc<dyn Disk>,
    hook: Box<Hook>,
}

impl HookedDisk {
    /// `disk`, which tells `hook`.
    pub fn new(
        disk: Arc<dyn Disk>,
        hook: impl Fn(DiskOp, &str) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            disk,
            hook: Box::new(hook),
        })
    }
}

impl fmt::Debug for HookedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HookedDisk").field(&self.disk).finish()
    }
}

impl Disk for HookedDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        (self.hook)(DiskOp::Open, name);
        self.disk.open(name, mode)
    }

    fn list(&self) -> DiskResult<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        (self.hook)(DiskOp::Rename, to);
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        (self.hook)(DiskOp::Remove, name);
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> DiskResult<()> {
        self.disk.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }

    fn write_path(&self) -> WritePath {
        self.disk.write_path()
    }

    fn log_writer(
        &self,
        depth: usize,
        buffers: &[AlignedBuf],
        probe: LogWrite,
    ) -> DiskResult<Box<dyn LogWriter>> {
        self.disk.log_writer(depth, buffers, probe)
    }
}
