//! Closing a log that has failed, while a write of it is still in the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use fixture::{NOTHING, commit, start};
use lockstone_base::disk::{Disk, DiskFile, DiskResult, FileLock, Map, OpenMode, WritePath};
use lockstone_testkit::SimDisk;

/// A disk whose durable writes can be held up.
#[derive(Debug)]
struct Gated(Arc<SimDisk>, Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    somebody_waits: AtomicBool,
}

#[derive(Debug)]
struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for Gated {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(
            self.0.open(name, mode)?,
            self.1.clone(),
        )))
    }
    fn list(&self) -> DiskResult<Vec<String>> {
        self.0.list()
    }
    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> DiskResult<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> DiskResult<()> {
        self.0.sync_dir()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
    fn write_path(&self) -> WritePath {
        self.0.write_path()
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> DiskResult<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.0.write_at(offset, bytes)
    }
    fn write_durable(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        let mut shut = self.1.shut.lock().unwrap();
        while *shut {
            self.1.somebody_waits.store(true, Ordering::SeqCst);
            shut = self.1.opened.wait(shut).unwrap();
        }
        drop(shut);
        self.0.write_durable(offset, bytes)
    }
    fn sync(&self) -> DiskResult<()> {
        self.0.sync()
    }
    fn set_len(&self, bytes: u64) -> DiskResult<()> {
        self.0.set_len(bytes)
    }
    fn map(&self) -> DiskResult<Map> {
        self.0.map()
    }
    fn try_lock(&self, lock: FileLock) -> DiskResult<bool> {
        self.0.try_lock(lock)
    }
    fn unlock(&self) -> DiskResult<()> {
        self.0.unlock()
    }
}

/// The segments were free while the write was in flight, and it landed in what another owner had continued:
/// a commit that this one had acknowledged was gone.
#[test]
fn a_failed_log_is_closed_when_the_write_in_flight_has_come_back() {
    let (sim, gate) = (SimDisk::new(1), Arc::new(Gate::default()));
    let (log, ..) = start(Arc::new(Gated(sim.clone(), gate.clone())), NOTHING).unwrap();
    commit(&log, b"acknowledged").unwrap();
    *gate.shut.lock().unwrap() = true;
    thread::scope(|scope| {
        let writer = scope.spawn(|| commit(&log, b"in flight"));
        while !gate.somebody_waits.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        log.poison();
        let closer = scope.spawn(|| log.close());
        // While the write is held up nobody else gets the segments, however often one tries.
        for _ in 0..200 {
            assert!(
                start(sim.clone(), NOTHING).is_err(),
                "the segments are free too early"
            );
            thread::yield_now();
        }
        *gate.shut.lock().unwrap() = false;
        gate.opened.notify_all();
        closer.join().unwrap();
        assert!(writer.join().unwrap().is_err());
    });
    start(sim, NOTHING).expect("closed: the segments are free");
}
