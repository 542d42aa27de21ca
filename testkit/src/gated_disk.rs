//! A disk whose durable writes can be held up: for tests of what must not be told before they are done.
//!
//! Made by tests around a simulated disk. Reads, plain writes and syncs pass. A log write has begun when it
//! stands before the gate, as one in the kernel has: whoever drains waits for it too.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use lockstone_base::disk::{
    AlignedBuf, Disk, DiskFile, DiskResult, FileLock, LogWrite, LogWriter, Map, OpenMode,
    WritePath, Written,
};
use parking_lot::{Condvar, Mutex};

/// A disk whose durable writes wait while its gate is shut.
#[derive(Debug)]
pub struct GatedDisk {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    /// So many may pass though it is shut.
    passes: usize,
    waiting: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed
            .wait_while(&mut state, |state| state.is_shut && state.passes == 0);
        state.passes = state.passes.saturating_sub(1);
        state.waiting -= 1;
    }
}

impl GatedDisk {
    /// `disk` behind an open gate.
    pub fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self {
            disk,
            gate: Arc::default(),
        })
    }

    /// Holds up every durable write that begins from now on.
    pub fn shut(&self) {
        self.gate.state.lock().is_shut = true;
    }

    /// Lets them all go on.
    pub fn open_gate(&self) {
        self.gate.state.lock().is_shut = false;
        self.gate.changed.notify_all();
    }

    /// Lets one of them go on, or the next that comes.
    pub fn let_one_pass(&self) {
        self.gate.state.lock().passes += 1;
        self.gate.changed.notify_all();
    }

    /// Returns when a write stands before the gate.
    pub fn wait_for_a_write(&self) {
        let mut state = self.gate.state.lock();
        self.gate
            .changed
            .wait_while(&mut state, |state| state.waiting == 0);
    }
}

impl Disk for GatedDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile {
            file: self.disk.open(name, mode)?,
            gate: self.gate.clone(),
        }))
    }

    fn list(&self) -> DiskResult<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
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
        self.gate.pass();
        Ok(Box::new(GatedWriter {
            writer: self.disk.log_writer(depth, buffers, behind_gate(probe))?,
            gate: self.gate.clone(),
        }))
    }
}

/// The same write, to the file behind the gate.
fn behind_gate(write: LogWrite) -> LogWrite {
    let any: Arc<dyn Any + Send + Sync> = write.file.clone();
    let gated = any.downcast::<GatedFile>();
    let file = gated.map_or(write.file, |gated| gated.file.clone());
    LogWrite { file, ..write }
}

#[derive(Debug)]
struct GatedWriter {
    writer: Box<dyn LogWriter>,
    gate: Arc<Gate>,
}

impl LogWriter for GatedWriter {
    fn start(&mut self, write: LogWrite) {
        self.writer.start(behind_gate(write));
    }

    fn finish(&mut self) -> DiskResult<Written> {
        self.gate.pass();
        self.writer.finish()
    }

    fn drain(&mut self) {
        if self.writer.in_flight() > 0 {
            self.gate.pass();
        }
        self.writer.drain();
    }

    fn in_flight(&self) -> usize {
        self.writer.in_flight()
    }

    fn depth(&self) -> usize {
        self.writer.depth()
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for GatedFile {
    fn len(&self) -> DiskResult<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.file.read_at(offset, buffer)
    }

    fn forget_cached(&self, offset: u64, bytes: u64) {
        self.file.forget_cached(offset, bytes);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.file.write_at(offset, bytes)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.gate.pass();
        self.file.write_durable(offset, bytes)
    }

    fn sync(&self) -> DiskResult<()> {
        self.file.sync()
    }

    fn set_len(&self, bytes: u64) -> DiskResult<()> {
        self.file.set_len(bytes)
    }

    fn map(&self) -> DiskResult<Map> {
        self.file.map()
    }

    fn try_lock(&self, lock: FileLock) -> DiskResult<bool> {
        self.file.try_lock(lock)
    }

    fn unlock(&self) -> DiskResult<()> {
        self.file.unlock()
    }
}
