//! The contract of the disk port, on every disk there is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use lockstone_base::disk::{Disk, OsDisk};
use lockstone_testkit::{SimDisk, disk_contract};
use tempfile::TempDir;

fn contract_on_real_files(parent: &Path) {
    let directories: Mutex<Vec<TempDir>> = Mutex::default();
    disk_contract(|| {
        let directory = TempDir::new_in(parent).unwrap();
        let disk = OsDisk::open(directory.path().join("db"), true).unwrap();
        directories.lock().unwrap().push(directory);
        println!("{:?}", disk.write_path());
        Arc::new(disk) as Arc<dyn Disk>
    });
}

#[test]
fn real_files_keep_the_contract() {
    contract_on_real_files(&std::env::temp_dir());
}

#[test]
fn files_in_memory_keep_the_contract() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        println!("skipped: this machine has no {}", shm.display());
        return;
    }
    contract_on_real_files(shm);
}

#[test]
fn simulated_files_keep_the_contract() {
    disk_contract(|| SimDisk::new(0));
}
