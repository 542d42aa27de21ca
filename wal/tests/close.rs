//! Closing a log that has failed, while a write of it is still in the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::io::ErrorKind;
use std::thread;

use fixture::{NOTHING, append, body, commit, start};
use lockstone_base::disk::DiskOp;
use lockstone_testkit::{GatedDisk, SimDisk};

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
        // While the write is held up nobody else gets the segments, however often one tries.
        for _ in 0..200 {
            assert!(
                start(sim.clone(), NOTHING).is_err(),
                "the segments are free too early"
            );
            thread::yield_now();
        }
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
        for _ in 0..200 {
            assert!(
                start(sim.clone(), NOTHING).is_err(),
                "the segments are free too early"
            );
            thread::yield_now();
        }
        gate.open_gate();
        closer.join().unwrap();
        assert!(leader.join().unwrap().is_err());
    });
    start(sim, NOTHING).expect("closed: the segments are free");
}
