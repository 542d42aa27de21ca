//! A directory of real files that counts the frames that a log writes to it.
//!
//! Made by `bare_log`. Everything goes through unchanged; counting costs a few nanoseconds a frame.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::disk::{
    AlignedBuf, Disk, DiskFile, DiskResult, LogWrite, LogWriter, OpenMode, OsDisk, WritePath,
    Written,
};

/// Frames that were started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// How many.
    pub(crate) frames: u64,
    /// Their bytes, padding included.
    pub(crate) bytes: u64,
    /// Of each, how many were in flight with it when it started, itself included; all together.
    pub(crate) aloft: u64,
}

impl Counts {
    /// What came after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames - before.frames,
            bytes: self.bytes - before.bytes,
            aloft: self.aloft - before.aloft,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    aloft: AtomicU64,
}

/// A directory of real files.
#[derive(Debug)]
pub(crate) struct CountedDisk {
    inner: OsDisk,
    counters: Arc<Counters>,
}

impl CountedDisk {
    pub(crate) fn new(inner: OsDisk) -> Self {
        Self {
            inner,
            counters: Arc::default(),
        }
    }

    /// What was started so far.
    pub(crate) fn counts(&self) -> Counts {
        let counters = &self.counters;
        Counts {
            frames: counters.frames.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            aloft: counters.aloft.load(Ordering::Relaxed),
        }
    }
}

impl Disk for CountedDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        self.inner.open(name, mode)
    }

    fn list(&self) -> DiskResult<Vec<String>> {
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> DiskResult<()> {
        self.inner.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.path(name)
    }

    fn write_path(&self) -> WritePath {
        self.inner.write_path()
    }

    fn log_writer(
        &self,
        depth: usize,
        buffers: &[AlignedBuf],
        probe: LogWrite,
    ) -> DiskResult<Box<dyn LogWriter>> {
        Ok(Box::new(CountedWriter {
            inner: self.inner.log_writer(depth, buffers, probe)?,
            counters: Arc::clone(&self.counters),
        }))
    }
}

#[derive(Debug)]
struct CountedWriter {
    inner: Box<dyn LogWriter>,
    counters: Arc<Counters>,
}

impl LogWriter for CountedWriter {
    fn start(&mut self, write: LogWrite) {
        let bytes = write.bytes as u64;
        self.inner.start(write);
        let aloft = self.inner.in_flight() as u64;
        self.counters.frames.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.aloft.fetch_add(aloft, Ordering::Relaxed);
    }

    fn finish(&mut self) -> DiskResult<Written> {
        self.inner.finish()
    }

    fn drain(&mut self) {
        self.inner.drain();
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn depth(&self) -> usize {
        self.inner.depth()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_and_the_probe_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = CountedDisk::new(OsDisk::open(dir.path(), false).unwrap());
        let file = disk.open("file", OpenMode::CreateNew).unwrap();
        file.write_at(0, &[0; 3 * 4096]).unwrap();
        let file = disk.open("file", OpenMode::Log).unwrap();
        let write = |blocks: usize| LogWrite {
            tag: 0,
            file: Arc::clone(&file),
            offset: 0,
            buffer: AlignedBuf::zeroed(blocks * 4096),
            bytes: blocks * 4096,
        };
        let mut writer = disk.log_writer(2, &[], write(1)).unwrap();
        assert_eq!(disk.counts(), Counts::default());
        writer.start(write(1));
        let one = disk.counts();
        writer.start(write(2));
        for _ in 0..2 {
            writer.finish().unwrap();
        }
        assert_eq!((one.frames, one.bytes, one.aloft), (1, 4096, 1));
        let second = disk.counts().since(one);
        assert_eq!((second.frames, second.bytes, second.aloft), (1, 8192, 2));
    }
}
