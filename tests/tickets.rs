//! Commits on their way to the device: tickets, early lock release, and what nobody may be told before it is
//! durable (W1, W3, W6, G9, W11).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for clocks itself"
)]

mod machine;

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use lockstone::{
    CommitTicket, Database, Durability, Error, LockMode, Lsn, Options, Ports, Result, TxnOptions,
};
use lockstone_base::clock::MonotonicClock;
use lockstone_base::disk::{Disk, DiskOp};
use lockstone_testkit::{GatedDisk, SeededEntropy, SimDisk, Survivors, block_on};
use machine::{open, smallest};

/// An engine with its background threads on a simulated disk.
fn threaded(disk: Arc<dyn Disk>) -> Database {
    let ports = Ports {
        disk,
        clock: Arc::new(MonotonicClock::new()),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: true,
    };
    Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(16 << 20)
        .memory_bytes(16 << 20)
        .open_with(ports)
        .unwrap()
}

fn poll_once(ticket: &mut CommitTicket) -> Poll<Result<Lsn>> {
    Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
}

fn put_async(db: &Database, key: &str, value: &str) -> CommitTicket {
    let table = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put(&table, key, value).unwrap();
    txn.commit_async()
}

fn value_in(db: &Database, key: &str) -> Option<Vec<u8>> {
    let table = db.table("t").unwrap();
    let value = db.snapshot().get(&table, key).unwrap();
    value.map(|value| value.to_vec())
}

/// Waits for what a background thread does in its own time.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_ticket_that_is_kept_is_durable() {
    let disk = SimDisk::new(1);
    let db = threaded(disk.clone());
    put_async(&db, "waited", "1").wait().unwrap();
    block_on(put_async(&db, "awaited", "2")).unwrap();
    let cut = disk.after_crash(disk.io_count(), &Survivors::None);
    let found = open(&cut).unwrap();
    assert_eq!(value_in(&found, "waited").unwrap(), b"1");
    assert_eq!(value_in(&found, "awaited").unwrap(), b"2");
}

#[test]
fn a_ticket_that_is_dropped_becomes_durable_all_the_same() {
    let disk = SimDisk::new(1);
    let db = threaded(disk.clone());
    drop(put_async(&db, "dropped", "1"));
    // Read-only, at what is durable or acknowledged: nobody acknowledged it.
    eventually("nobody drove the flush", || {
        value_in(&db, "dropped").is_some()
    });
    let cut = disk.after_crash(disk.io_count(), &Survivors::None);
    assert_eq!(value_in(&open(&cut).unwrap(), "dropped").unwrap(), b"1");
}

#[test]
fn a_future_that_is_polled_again_answers_again_and_moves_between_threads() {
    let gate = GatedDisk::new(SimDisk::new(1));
    let db = threaded(gate.clone());
    db.create_table("t").unwrap();
    gate.shut();
    let mut ticket = put_async(&db, "a", "1");
    assert!(poll_once(&mut ticket).is_pending());
    assert!(poll_once(&mut ticket).is_pending());
    let waiter = thread::spawn(move || {
        let first = block_on(&mut ticket).unwrap();
        (first, poll_once(&mut ticket))
    });
    gate.wait_for_a_write();
    gate.open_gate();
    let (first, again) = waiter.join().unwrap();
    assert!(matches!(again, Poll::Ready(Ok(lsn)) if lsn == first));
}

#[test]
fn one_thread_keeps_a_thousand_commits_in_flight() {
    let db = threaded(SimDisk::new(1));
    let tickets: Vec<_> = (0..1000)
        .map(|i| put_async(&db, &format!("{i:04}"), "x"))
        .collect();
    let lsns: Vec<_> = tickets.into_iter().map(|t| t.wait().unwrap()).collect();
    assert!(lsns.is_sorted());
    let table = db.table("t").unwrap();
    assert_eq!(db.snapshot().range(&table, ..).unwrap().count(), 1000);
}

/// W1, W6: locks are free and writes are visible before the sync, and nobody is told so before it.
#[test]
fn who_reads_what_is_not_durable_is_not_acknowledged_before_it_is() {
    let gate = GatedDisk::new(SimDisk::new(1));
    let db = threaded(gate.clone());
    let table = db.create_table("t").unwrap();
    put_async(&db, "a", "old").wait().unwrap();
    gate.shut();
    let mut writer = put_async(&db, "a", "new");
    gate.wait_for_a_write();

    // W1: its lock is free, and whoever gets it sees what it wrote.
    let mut second = db.begin();
    let seen = second.get_for(&table, "a", LockMode::Update).unwrap();
    assert_eq!(seen.as_deref(), Some(b"new".as_slice()));
    second.put(&table, "b", "after").unwrap();
    let mut second = second.commit_async();
    // W6: one that only reads sees it too, and has to wait as well, whatever its durability.
    let readers = [Durability::Sync, Durability::Buffered].map(|durability| {
        let reader = db.begin_with(TxnOptions::new().durability(durability));
        let seen = reader.get(&table, "a").unwrap();
        assert_eq!(seen.as_deref(), Some(b"new".as_slice()));
        reader.commit_async()
    });
    // W6: a snapshot shows nothing that a crash could take back.
    assert_eq!(value_in(&db, "a").unwrap(), b"old");

    assert!(poll_once(&mut writer).is_pending());
    assert!(poll_once(&mut second).is_pending());
    let mut readers = readers;
    for reader in &mut readers {
        assert!(poll_once(reader).is_pending(), "W6");
    }
    gate.open_gate();
    let first = block_on(writer).unwrap();
    assert!(block_on(second).unwrap() > first);
    for reader in readers {
        assert!(block_on(reader).unwrap() >= first);
    }
    assert_eq!(value_in(&db, "a").unwrap(), b"new");
}

/// W2: whoever is granted a lock sees what its earlier holder committed, durable or not.
#[test]
fn a_counter_that_many_raise_without_waiting_loses_nothing() {
    const THREADS: u64 = 4;
    const RAISES: u64 = 300;
    let db = threaded(SimDisk::new(1));
    let table = db.create_table("t").unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut tickets = Vec::new();
                for _ in 0..RAISES {
                    let mut txn = db.begin();
                    let old = txn.get_for(&table, "n", LockMode::Update).unwrap();
                    let old = old.map_or(0, |old| {
                        u64::from_be_bytes(old.as_ref().try_into().unwrap())
                    });
                    txn.put(&table, "n", (old + 1).to_be_bytes()).unwrap();
                    tickets.push(txn.commit_async());
                }
                for ticket in tickets {
                    ticket.wait().unwrap();
                }
            });
        }
    });
    let count = value_in(&db, "n").unwrap();
    assert_eq!(count, (THREADS * RAISES).to_be_bytes());
}

/// W6: no snapshot lies below one that was taken before it, nor below a commit that was acknowledged.
#[test]
fn no_snapshot_goes_backward() {
    let db = threaded(SimDisk::new(1));
    let table = db.create_table("t").unwrap();
    let (acknowledged, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..3_u8 {
            let (db, table, acknowledged) = (&db, &table, &acknowledged);
            let over = &over;
            scope.spawn(move || {
                for round in 0..400_u32 {
                    let durability = if round % 5 == 0 {
                        Durability::Buffered
                    } else {
                        Durability::Sync
                    };
                    let mut txn = db.begin_with(TxnOptions::new().durability(durability));
                    txn.put(table, [writer], round.to_be_bytes()).unwrap();
                    let lsn = txn.commit().unwrap();
                    acknowledged.fetch_max(lsn.get(), Ordering::SeqCst);
                }
                over.store(true, Ordering::SeqCst);
            });
        }
        let mut last = Lsn::ZERO;
        while !over.load(Ordering::SeqCst) {
            let known = Lsn::new(acknowledged.load(Ordering::SeqCst));
            let snapshot = db.snapshot().lsn();
            assert!(snapshot >= last, "W6: {snapshot} after {last}");
            assert!(snapshot >= known, "W6: {snapshot} misses {known}");
            last = snapshot;
        }
    });
}

#[test]
fn buffered_commits_reach_the_device_within_their_bound_and_bring_all_before_them() {
    let disk = SimDisk::new(1);
    let db = threaded(disk.clone());
    let table = db.create_table("t").unwrap();
    let buffered = TxnOptions::new().durability(Durability::Buffered);
    for i in 0..50_u8 {
        let mut txn = db.begin_with(buffered.clone());
        txn.put(&table, [i], "x").unwrap();
        let mut ticket = txn.commit_async();
        assert!(
            poll_once(&mut ticket).is_ready(),
            "a Buffered commit waits for nothing"
        );
    }
    let rows_durable = || {
        let cut = disk.after_crash(disk.io_count(), &Survivors::None);
        let found = open(&cut).unwrap();
        let rows = found
            .table("t")
            .map(|t| found.snapshot().range(&t, ..).unwrap().count());
        rows.unwrap_or_default()
    };
    eventually("a buffered commit stays off the device", || {
        rows_durable() == 50
    });
}

/// W11: whoever waits for a log that fails is told that the outcome is unknown, task or thread.
#[test]
fn every_ticket_of_a_failed_log_says_so() {
    let sim = SimDisk::new(1);
    let gate = GatedDisk::new(sim.clone());
    let db = threaded(gate.clone());
    db.create_table("t").unwrap();
    gate.shut();
    let tickets: Vec<_> = (0..20)
        .map(|i| put_async(&db, &format!("{i}"), "x"))
        .collect();
    gate.wait_for_a_write();
    let waiters: Vec<_> = tickets
        .into_iter()
        .enumerate()
        .map(|(i, ticket)| {
            thread::spawn(move || {
                if i % 2 == 0 {
                    ticket.wait()
                } else {
                    block_on(ticket)
                }
            })
        })
        .collect();
    sim.fail_matching(DiskOp::WriteDurable, "wal-", ErrorKind::Other);
    gate.open_gate();
    for waiter in waiters {
        assert!(matches!(waiter.join().unwrap(), Err(Error::Poisoned)));
    }
}

/// On one thread, without background threads, the future itself drives the flush.
#[test]
fn a_harness_with_one_thread_can_await_a_ticket() {
    let disk = SimDisk::new(1);
    let db = smallest().open_with(machine::ports(&disk)).unwrap();
    let mut ticket = put_async(&db, "a", "1");
    assert!(matches!(poll_once(&mut ticket), Poll::Ready(Ok(_))));
}

/// Nobody asked for a checkpoint where nobody waited: the log ran into its limit.
#[test]
fn tickets_that_are_dropped_bring_checkpoints_about() {
    let db = threaded(SimDisk::new(1));
    let table = db.create_table("t").unwrap();
    for i in 0..300_u32 {
        let mut txn = db.begin();
        txn.put(&table, i.to_be_bytes(), vec![7; 40_000]).unwrap();
        drop(txn.commit_async());
    }
    eventually("no checkpoint was taken", || db.stats().checkpoints > 0);
}

/// A waker that drops the last handle runs on a thread that the closing has to wait for.
#[test]
fn a_waker_may_drop_the_last_handle() {
    struct Holds(std::sync::Mutex<Option<Database>>);
    impl Wake for Holds {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().take();
        }
    }
    let sim = SimDisk::new(1);
    let gate = GatedDisk::new(sim.clone());
    let db = threaded(gate.clone());
    db.create_table("t").unwrap();
    gate.shut();
    let mut ticket = put_async(&db, "a", "1");
    let waker = Waker::from(Arc::new(Holds(std::sync::Mutex::new(Some(db)))));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
    drop((ticket, waker));
    gate.open_gate();
    eventually("the database was never closed", || open(&sim).is_ok());
    assert_eq!(value_in(&open(&sim).unwrap(), "a").unwrap(), b"1");
}
