//! Many threads commit at once: every acknowledged record is there, in the order of its position, and
//! a failing device acknowledges nothing more.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod fixture;

use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;

use fixture::{NOTHING, append, body, commit, inspect, start};
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, OsDisk};
use lockstone_testkit::{SimDisk, Survivors};
use lockstone_wal::{Log, WalError};

const THREADS: usize = 8;

/// Commits from eight threads; what each had acknowledged, until its first error.
fn storm(log: &Log, commits: usize) -> Vec<(Lsn, Vec<u8>)> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut acked = Vec::new();
                    for number in 0..commits {
                        let body = body(thread * commits + number, 20 + (number * 97) % 3000);
                        if append(log, b"a lock record").is_err() {
                            break;
                        }
                        match commit(log, &body) {
                            Ok(appended) => acked.push((appended.lsn, body)),
                            // A device that fails while a spare is filled refuses the record, cleanly.
                            Err(WalError::Poisoned | WalError::Disk(_)) => break,
                            Err(error) => panic!("{error}"),
                        }
                        assert!(log.durable() >= acked.last().unwrap().0);
                    }
                    acked
                })
            })
            .collect();
        let mut acked: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        acked.sort_unstable();
        acked
    })
}

fn commits_in(disk: Arc<dyn Disk>) -> Vec<(Lsn, Vec<u8>)> {
    let (_, seen) = inspect(disk, NOTHING).unwrap();
    let commits = seen.records.into_iter().filter(|record| record.1 == 5);
    commits.map(|record| (record.0, record.3)).collect()
}

#[test]
fn what_eight_threads_committed_is_there_in_order() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    let acked = storm(&log, 300);
    assert_eq!(acked.len(), THREADS * 300);
    drop(log);
    assert_eq!(commits_in(disk), acked);
}

#[test]
fn the_same_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = || Arc::new(OsDisk::open(dir.path(), true).unwrap());
    let (log, ..) = start(disk(), NOTHING).unwrap();
    let acked = storm(&log, 100);
    assert_eq!(acked.len(), THREADS * 100);
    drop(log);
    assert_eq!(commits_in(disk()), acked);
}

#[test]
fn a_failing_device_loses_no_acknowledged_commit_and_wakes_everyone() {
    for (seed, calls) in [(1, 20), (2, 100), (3, 250), (4, 600)] {
        let disk = SimDisk::new(seed);
        let (log, ..) = start(disk.clone(), NOTHING).unwrap();
        disk.fail_from(disk.io_count() + calls, ErrorKind::Other);
        let acked = storm(&log, 300);
        assert!(acked.len() < THREADS * 300 && log.is_poisoned());
        drop(log);
        disk.clear_faults();
        let cut = disk.after_crash(disk.io_count(), &Survivors::None);
        let found = commits_in(cut);
        for commit in &acked {
            assert!(found.contains(commit), "W11: {} was acknowledged", commit.0);
        }
    }
}

#[test]
fn poison_from_outside_wakes_everyone() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk, NOTHING).unwrap();
    thread::scope(|scope| {
        let storm = scope.spawn(|| storm(&log, usize::MAX >> 8));
        while log.durable() < Lsn::new(100_000) {
            thread::yield_now();
        }
        log.poison();
        assert!(!storm.join().unwrap().is_empty());
    });
}
