//! A timeout counts for one call, however often it waits; and each call has its own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::thread;
use std::time::Duration;

use lockstone::{Database, Error, LockMode, OnConflict, Result, Table, Transaction, TxnOptions};
use machine::fresh;

const ROWS: u32 = 3000;

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn filled() -> (tempfile::TempDir, Database, Table) {
    let (dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put_many(&t, (0..ROWS).map(|n| (key(n), "1"))).unwrap();
    txn.commit().unwrap();
    (dir, db, t)
}

fn waiting_for(timeout: Duration) -> TxnOptions {
    TxnOptions::new().on_conflict(OnConflict::Wait {
        timeout: Some(timeout),
    })
}

type Call = fn(&mut Transaction, &Table) -> Result<()>;

/// Others hold `rows`, and let go of one after the other, each `apart` after somebody has begun to wait for it.
fn with_holders(
    rows: &[u32],
    apart: Duration,
    let_go: impl Fn(Transaction, &Table),
    timeout: Duration,
    calls: &[Call],
) -> Result<()> {
    let (_dir, db, t) = filled();
    let mut holders = Vec::new();
    for row in rows {
        let mut holder = db.begin();
        holder.lock(&t, key(*row), LockMode::Update).unwrap();
        holders.push(holder);
    }
    thread::scope(|threads| {
        let waiter = threads.spawn(|| {
            let mut txn = db.begin_with(waiting_for(timeout));
            calls.iter().try_for_each(|call| call(&mut txn, &t))
        });
        for (count, holder) in (1..).zip(holders) {
            while db.stats().lock_waits < count && !waiter.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(apart);
            let_go(holder, &t);
        }
        waiter.join().unwrap()
    })
}

#[test]
fn a_timeout_counts_for_all_waits_of_a_call() {
    // Either wait alone is short enough, both together are not.
    const TIMEOUT: Duration = Duration::from_millis(1500);
    const APART: Duration = Duration::from_secs(1);
    let calls: [Call; 3] = [
        |txn, t| txn.lock_many(t, [key(0), key(ROWS - 1)], LockMode::Share),
        // The two lie in stretches of their own.
        |txn, t| txn.lock_rows(t, .., LockMode::Share).map(|_| ()),
        // The first row goes while it is waited for, and the same step waits for the last one.
        |txn, t| {
            let mut cursor = txn.range_for(t, key(ROWS - 2).., LockMode::Share)?;
            cursor.next().map_or(Ok(()), |row| row.map(|_| ()))
        },
    ];
    thread::scope(|threads| {
        for (number, call) in calls.into_iter().enumerate() {
            let (rows, deletes) = match number {
                2 => ([ROWS - 2, ROWS - 1], true),
                _ => ([0, ROWS - 1], false),
            };
            let let_go = move |mut holder: Transaction, t: &Table| {
                if deletes {
                    holder.delete(t, key(ROWS - 2)).unwrap();
                    holder.commit().unwrap();
                }
            };
            threads.spawn(move || {
                let called = with_holders(&rows, APART, let_go, TIMEOUT, &[call]);
                let timed_out = matches!(called, Err(Error::LockTimeout { .. }));
                assert!(timed_out, "call {number}: {called:?}");
            });
        }
    });
}

#[test]
fn each_call_has_a_timeout_of_its_own() {
    const TIMEOUT: Duration = Duration::from_millis(2500);
    const APART: Duration = Duration::from_millis(500);
    let calls: [Call; 8] = [
        |txn, t| txn.lock(t, key(0), LockMode::Share).map(|_| ()),
        |txn, t| txn.put(t, key(1), "2"),
        |txn, t| txn.get_for(t, key(2), LockMode::Share).map(|_| ()),
        |txn, t| {
            let mut cursor = txn.range_for(t, key(3)..key(5), LockMode::Share)?;
            cursor.try_for_each(|row| row.map(|_| ()))
        },
        |txn, t| {
            txn.lock_range(t, key(5)..key(6), LockMode::Share)
                .map(|_| ())
        },
        |txn, t| txn.put_many(t, [(key(6), "2")]),
        |txn, t| {
            txn.lock_rows(t, key(7)..key(8), LockMode::Share)
                .map(|_| ())
        },
        |txn, t| txn.lock_many(t, [key(8)], LockMode::Share),
    ];
    let rows: Vec<u32> = (0..9).collect();
    with_holders(&rows, APART, |holder, _| drop(holder), TIMEOUT, &calls).unwrap();
}
