//! Closing a log that has failed, while a write of it is still in the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for clocks itself"
)]

mod fixture;

use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fixture::{NOTHING, append, body, commit, start};
use lockstone_base::disk::DiskOp;
use lockstone_testkit::{GatedDisk, SimDisk};
use lockstone_wal::WalError;

/// While writes are held up nobody else gets the segments, however often one tries.
fn nobody_gets_the_segments(sim: &Arc<SimDisk>) {
    for _ in 0..200 {
        assert!(
            start(sim.clone(), NOTHING).is_err(),
            "the segments are free too early"
        );
        thread::yield_now();
    }
}

/// The segments were free while the write was in flight, and it landed in what another owner had continued:
/// a commit that this one had acknowledged was gone.
#[test]
fn a_failed_log_is_closed_when_the_write_in_flight_has_come_back() {
    let sim = SimDisk::new(1);
    let gate = GatedDisk::new(sim.clone());
    let (log, ..) = start(gate.clone(), NOTHING).unwrap();
    commit(&log, b"acknowledged").unwrap();
    gate.shut();
    thread::scope(|scope| {
        let writer = scope.spawn(|| commit(&log, b"in flight"));
        gate.wait_for_a_write();
        log.poison();
        let closer = scope.spawn(|| log.close());
        nobody_gets_the_segments(&sim);
        gate.open_gate();
        closer.join().unwrap();
        assert!(writer.join().unwrap().is_err());
    });
    start(sim, NOTHING).expect("closed: the segments are free");
}

/// One of several writes in flight fails: the others are still in the kernel, and nobody else gets the segments
/// before they have come back.
#[test]
fn a_log_that_failed_with_several_writes_in_flight_waits_for_all_of_them() {
    let sim = SimDisk::new(1);
    let gate = GatedDisk::new(sim.clone());
    let (log, ..) = start(gate.clone(), NOTHING).unwrap();
    for number in 0..5 {
        append(&log, &body(number, 30_000)).unwrap();
    }
    gate.shut();
    thread::scope(|scope| {
        let leader = scope.spawn(|| log.wait_durable(log.end()));
        gate.wait_for_a_write();
        assert!(sim.in_flight(sim.io_count()) > 1);
        sim.fail_matching(DiskOp::WriteDurable, "wal-", ErrorKind::Other);
        gate.let_one_pass();
        while !log.is_poisoned() {
            thread::yield_now();
        }
        sim.clear_faults();
        let closer = scope.spawn(|| log.close());
        nobody_gets_the_segments(&sim);
        gate.open_gate();
        closer.join().unwrap();
        assert!(leader.join().unwrap().is_err());
    });
    start(sim, NOTHING).expect("closed: the segments are free");
}

/// W11: whoever sleeps for room that was promised to another is woken by the failure, and not only when that one
/// gives it back.
#[test]
fn a_failed_write_wakes_who_waits_for_promised_room() {
    let sim = SimDisk::new(1);
    let gate = GatedDisk::new(sim.clone());
    let (log, ..) = start(gate.clone(), NOTHING).unwrap();
    let all = log.record_bytes_max();
    // The first who finds too much promised readies a segment; only the next one sleeps for room.
    thread::scope(|scope| {
        let kept = log.reserve(all).unwrap();
        let sleeper = scope.spawn(|| log.reserve(all).map(drop));
        thread::sleep(Duration::from_millis(50));
        drop(kept);
        sleeper.join().unwrap().unwrap();
    });
    append(&log, b"in flight").unwrap();
    gate.shut();
    thread::scope(|scope| {
        let leader = scope.spawn(|| log.wait_durable(log.end()));
        gate.wait_for_a_write();
        let kept = log.reserve(all).unwrap();
        let sleeper = scope.spawn(|| log.reserve(all).map(drop));
        thread::sleep(Duration::from_millis(50));
        assert!(!sleeper.is_finished(), "the room is promised");
        sim.fail_matching(DiskOp::WriteDurable, "wal-", ErrorKind::Other);
        gate.open_gate();
        assert!(leader.join().unwrap().is_err());
        let begin = Instant::now();
        while !sleeper.is_finished() && begin.elapsed() < Duration::from_secs(20) {
            thread::yield_now();
        }
        let is_woken = sleeper.is_finished();
        drop(kept);
        assert!(is_woken, "W11: it slept on");
        assert!(matches!(sleeper.join().unwrap(), Err(WalError::Poisoned)));
    });
}
