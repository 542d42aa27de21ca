//! Closing a log that has failed, while a write of it is still in the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::thread;

use fixture::{NOTHING, commit, start};
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
