//! The contract of the disk port, on every disk there is and by every way of writing a log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use io_uring::IoUring;
use lockstone_base::disk::{Disk, IoMode, OsDisk};
use lockstone_testkit::{SimDisk, disk_contract, log_writer_contract};
use tempfile::TempDir;

/// Makes fresh disks below a directory, and keeps them until all is over.
fn fresh(parent: &Path, io: IoMode) -> impl Fn() -> Arc<dyn Disk> {
    let directories: Mutex<Vec<TempDir>> = Mutex::default();
    move || {
        let directory = TempDir::new_in(parent).unwrap();
        let disk = OsDisk::open(directory.path().join("db"), true).unwrap();
        directories.lock().unwrap().push(directory);
        Arc::new(disk.with_io(io))
    }
}

fn in_memory() -> Option<&'static Path> {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        println!("skipped: this machine has no {}", shm.display());
    }
    shm.is_dir().then_some(shm)
}

#[test]
fn real_files_keep_the_contract() {
    disk_contract(fresh(&std::env::temp_dir(), IoMode::Auto));
}

#[test]
fn files_in_memory_keep_the_contract() {
    if let Some(shm) = in_memory() {
        disk_contract(fresh(shm, IoMode::Auto));
    }
}

#[test]
fn simulated_files_keep_the_contract() {
    disk_contract(|| SimDisk::new(0));
}

#[test]
fn blocking_writers_keep_the_contract() {
    log_writer_contract(fresh(&std::env::temp_dir(), IoMode::Blocking));
}

/// Skipped only where the kernel, asked directly, makes no ring.
#[test]
fn rings_keep_the_contract() {
    if let Err(error) = IoUring::new(4) {
        println!("skipped: this kernel makes no ring: {error}");
        return;
    }
    log_writer_contract(fresh(&std::env::temp_dir(), IoMode::Uring));
}

#[test]
fn writers_in_memory_keep_the_contract() {
    if let Some(shm) = in_memory() {
        for io in [IoMode::Auto, IoMode::Blocking] {
            log_writer_contract(fresh(shm, io));
        }
    }
}

#[test]
fn simulated_writers_keep_the_contract() {
    log_writer_contract(|| SimDisk::new(0));
}
