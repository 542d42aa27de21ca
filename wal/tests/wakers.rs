//! Whoever waits for the log is woken: threads and tasks together, with a driver and without timeouts, and
//! whatever a task's waker does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use fixture::{NOTHING, append, commit, start};
use lockstone_testkit::{GatedDisk, SimDisk};
use lockstone_wal::{Log, Watch, is_waking};

const LONG: Duration = Duration::from_secs(20);

/// Says that it was called, and inside what; then panics if it is told to.
struct Caller {
    called: Sender<bool>,
    panics: bool,
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        let _ = self.called.send(is_waking());
        assert!(!self.panics, "a waker that panics");
    }
}

fn waker(called: &Sender<bool>, panics: bool) -> Waker {
    Waker::from(Arc::new(Caller {
        called: called.clone(),
        panics,
    }))
}

/// A log that a driver serves until it is closed.
fn driven(log: &Arc<Log>) -> thread::JoinHandle<()> {
    let log = log.clone();
    thread::spawn(move || while log.drive(None).is_ok() {})
}

/// A leader that leaves a task behind has to see to it that somebody leads for it.
#[test]
fn a_leaving_leader_nudges_the_driver_for_the_tasks_behind_it() {
    let gate = GatedDisk::new(SimDisk::new(1));
    let (log, ..) = start(gate.clone(), NOTHING).unwrap();
    let log = Arc::new(log);
    let driver = driven(&log);
    gate.shut();
    let (called, calls) = mpsc::channel();
    let leader = thread::spawn({
        let log = log.clone();
        move || commit(&log, b"leads").map(drop)
    });
    gate.wait_for_a_write();
    let behind = append(&log, b"behind it").unwrap();
    let mut watch = Watch::default();
    let waker = waker(&called, false);
    let polled = log.poll_durable(behind.end, &mut watch, &mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    gate.open_gate();
    leader.join().unwrap().unwrap();
    assert!(calls.recv_timeout(LONG).expect("nobody led for the task"));
    assert!(log.durable() >= behind.end && !is_waking());
    log.close();
    log.wake_driver();
    driver.join().unwrap();
}

/// A waker that panicked took the threads behind it, and the driver, with it.
#[test]
fn a_waker_that_panics_strands_nobody() {
    let gate = GatedDisk::new(SimDisk::new(1));
    let (log, ..) = start(gate.clone(), NOTHING).unwrap();
    let log = Arc::new(log);
    let driver = driven(&log);
    let (called, calls) = mpsc::channel();
    let waker = waker(&called, true);
    for _ in 0..3 {
        gate.shut();
        let record = append(&log, b"a task's").unwrap();
        let mut watch = Watch::default();
        let polled = log.poll_durable(record.end, &mut watch, &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        gate.wait_for_a_write();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || log.wait_durable(record.end))
            })
            .collect();
        gate.open_gate();
        assert!(calls.recv_timeout(LONG).expect("the task is woken"));
        for waiter in threads {
            waiter.join().unwrap().unwrap();
        }
    }
    assert!(!log.is_poisoned());
    log.close();
    log.wake_driver();
    driver.join().unwrap();
}

/// A destructor that commits while its thread unwinds poisoned the log of everybody.
#[test]
fn a_leader_on_an_unwinding_thread_poisons_nothing() {
    struct Commits<'a>(&'a Log);
    impl Drop for Commits<'_> {
        fn drop(&mut self) {
            commit(self.0, b"in a destructor").unwrap();
        }
    }
    let (log, ..) = start(SimDisk::new(1), NOTHING).unwrap();
    thread::scope(|scope| {
        let unwinding = scope.spawn(|| {
            let _commits = Commits(&log);
            panic!("a user's own");
        });
        assert!(unwinding.join().is_err());
    });
    assert!(!log.is_poisoned());
    commit(&log, b"afterwards").unwrap();
}
