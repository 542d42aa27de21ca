//! Locks that wait as futures: granted, timed out, wounded, dropped at every stage, two hundred in one thread (K4, L6).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and reaches for clocks itself"
)]

mod machine;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use lockstone::{
    Database, Error, LockInfoState, LockMode, OnConflict, Outcome, Priority, Table, TxnOptions,
};
use lockstone_testkit::{Woken, block_on};
use machine::{fresh, no_wait};

fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    let waker = Waker::from(woken.clone());
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

fn table(db: &Database) -> Table {
    let t = db.create_table("t").unwrap();
    db.transact(|txn| txn.put(&t, "k", "0")).unwrap();
    t
}

fn waiting(db: &Database) -> usize {
    let locks = db.locks().map(Result::unwrap);
    locks
        .filter(|lock| lock.state == LockInfoState::Waiting)
        .count()
}

#[test]
fn a_future_is_granted_when_the_holder_ends_and_reads_the_newest() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let mut holder = db.begin();
    holder.put(&t, "k", "1").unwrap();
    let (mut txn, woken) = (db.begin(), Arc::new(Woken::default()));
    let mut future = txn.get_for_async(&t, "k", LockMode::Update);
    assert!(poll(&mut future, &woken).is_pending());
    assert_eq!((waiting(&db), woken.times()), (1, 0));
    assert!(poll(&mut future, &woken).is_pending());
    holder.commit().unwrap();
    assert_eq!(woken.times(), 1);
    let Poll::Ready(value) = poll(&mut future, &woken) else {
        panic!("it was granted");
    };
    assert_eq!(value.unwrap().as_deref(), Some(&b"1"[..]));
    drop(future);
    assert!(txn.fencing_token(&t, "k").is_some());
    txn.commit().unwrap();
    assert_eq!(db.locks().count(), 0);
}

#[test]
fn a_lock_that_is_free_is_had_at_the_first_poll_and_none_is_asked_for_before() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let mut txn = db.begin();
    drop(txn.lock_async(&t, "k", LockMode::Update));
    assert_eq!(db.locks().count(), 0);
    // The key need not outlive the call.
    let future = {
        let key = b"k".to_vec();
        txn.lock_async(&t, &key, LockMode::Update)
    };
    let token = block_on(future).unwrap();
    assert_eq!(txn.fencing_token(&t, "k"), Some(token));
    assert!(matches!(
        block_on(txn.lock_async(&t, "", LockMode::Share)),
        Err(Error::KeyEmpty)
    ));
    txn.put(&t, "k", "goes on").unwrap();
}

/// Each stage at which a future may be dropped, by what was done before it; and what is left behind.
#[test]
fn a_future_that_is_dropped_leaves_nothing_behind() {
    let (_dir, db) = fresh();
    let t = table(&db);
    for (stage, before) in [
        ("unpolled", None),
        ("waiting", None),
        ("granted, unseen", None),
        ("waiting", Some(LockMode::KeyShare)),
        ("granted, unseen", Some(LockMode::KeyShare)),
    ] {
        let what = format!("{stage}, held before: {before:?}");
        let mut holder = db.begin();
        holder.lock(&t, "k", LockMode::NoKeyUpdate).unwrap();
        let (mut txn, woken) = (db.begin(), Arc::new(Woken::default()));
        txn.put(&t, "mine", "stays").unwrap();
        if let Some(mode) = before {
            txn.lock(&t, "k", mode).unwrap();
        }
        let token = txn.fencing_token(&t, "k");
        let mut future = txn.lock_async(&t, "k", LockMode::Update);
        if stage != "unpolled" {
            assert!(poll(&mut future, &woken).is_pending(), "{what}");
        }
        if stage == "granted, unseen" {
            holder.abort();
            assert_eq!(woken.times(), 1, "{what}");
            holder = db.begin();
        }
        drop(future);
        assert_eq!(waiting(&db), 0, "{what}");
        assert_eq!(txn.holds(&t, "k"), before, "{what}");
        assert_eq!(txn.fencing_token(&t, "k"), token, "{what}");
        assert_eq!(
            Arc::strong_count(&woken),
            1,
            "{what}: its waker is let go of"
        );
        // Whoever else may have it has it.
        let mut other = db.begin_with(no_wait());
        holder.lock(&t, "k", LockMode::NoKeyUpdate).unwrap();
        other.lock(&t, "k", LockMode::KeyShare).unwrap();
        drop((holder, other));
        // The transaction goes on, and waits again.
        txn.put(&t, "k", "1").unwrap();
        txn.commit().unwrap();
        assert_eq!(db.locks().count(), 0, "{what}");
    }
}

#[test]
fn who_waits_behind_a_future_that_is_dropped_is_granted() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let mut holder = db.begin();
    holder.lock(&t, "k", LockMode::Share).unwrap();
    let woken = Arc::new(Woken::default());
    let (mut writer, mut sharer) = (db.begin(), db.begin());
    let mut writes = writer.lock_async(&t, "k", LockMode::Update);
    assert!(poll(&mut writes, &woken).is_pending());
    let mut shares = sharer.lock_async(&t, "k", LockMode::Share);
    assert!(poll(&mut shares, &woken).is_pending());
    drop(writes);
    assert_eq!(woken.times(), 1);
    assert!(poll(&mut shares, &woken).is_ready());
}

/// A program may forget a future instead of dropping it.
#[test]
fn a_future_that_is_forgotten_leaves_the_queue_at_the_next_call() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let mut holder = db.begin();
    holder.lock(&t, "k", LockMode::Update).unwrap();
    for granted in [false, true] {
        let (mut txn, woken) = (db.begin(), Arc::new(Woken::default()));
        let savepoint = txn.savepoint();
        let mut future = txn.lock_async(&t, "k", LockMode::Update);
        assert!(poll(&mut future, &woken).is_pending());
        std::mem::forget(future);
        if granted {
            holder.abort();
            holder = db.begin();
            txn.rollback_to(savepoint).unwrap();
        } else {
            txn.put(&t, "other", "1").unwrap();
        }
        assert_eq!((waiting(&db), txn.holds(&t, "k")), (0, None));
        txn.commit().unwrap();
    }
}

#[test]
fn the_engine_itself_wakes_it_when_its_time_is_up() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let mut holder = db.begin_with(TxnOptions::new().label("nightly"));
    holder.lock(&t, "k", LockMode::Update).unwrap();
    let patience = Duration::from_millis(30);
    let timeout = Some(patience);
    let mut txn = db.begin_with(TxnOptions::new().on_conflict(OnConflict::Wait { timeout }));
    let begun = Instant::now();
    let error = block_on(txn.lock_async(&t, "k", LockMode::Share)).unwrap_err();
    assert!(begun.elapsed() >= patience);
    assert!(matches!(error, Error::LockTimeout { .. }), "{error}");
    assert!(error.to_string().contains("nightly"), "{error}");
    assert_eq!((waiting(&db), db.stats().lock_timeouts), (0, 1));
    txn.put(&t, "other", "goes on").unwrap();
    txn.commit().unwrap();
}

#[test]
fn policies_hold_for_futures_too() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let with = |priority| TxnOptions::new().priority(priority);
    let mut holder = db.begin_with(with(Priority::normal(2)));
    holder.put(&t, "k", "holder").unwrap();
    let mut txn = db.begin_with(with(Priority::normal(1)));
    txn.lock(&t, "first", LockMode::Update).unwrap();
    let refused = txn.on_conflict(OnConflict::NoWait);
    let error = block_on(refused.lock_async(&t, "k", LockMode::Share)).unwrap_err();
    assert!(matches!(error, Error::WouldBlock { .. }), "{error}");
    let skips = txn.on_conflict(OnConflict::SkipLocked);
    assert_eq!(
        block_on(skips.get_for_async(&t, "k", LockMode::Share)).unwrap(),
        None
    );
    assert_eq!(db.stats().skipped_rows, 1);

    // Weaker, it dies when its time is up; stronger, it takes the lock.
    let a_moment = OnConflict::WoundAfter(Duration::from_millis(20));
    let mut stronger = db.begin_with(with(Priority::normal(3)).on_conflict(a_moment));
    let error = block_on(
        txn.on_conflict(a_moment)
            .lock_async(&t, "k", LockMode::Share),
    );
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::RolledBack);
    block_on(stronger.lock_async(&t, "k", LockMode::Update)).unwrap();
    let wounded = holder.get(&t, "k").unwrap_err();
    assert!(matches!(wounded, Error::Wounded { .. }), "{wounded}");
    let stats = db.stats();
    assert_eq!((stats.wounds, stats.conflicts), (1, 1));
}

#[test]
fn a_deadlock_of_futures_in_one_thread_ends_with_one_victim() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let woken = Arc::new(Woken::default());
    let (mut a, mut b) = (db.begin(), db.begin());
    a.lock(&t, "a", LockMode::Update).unwrap();
    b.lock(&t, "b", LockMode::Update).unwrap();
    let mut first = a.lock_async(&t, "b", LockMode::Update);
    assert!(poll(&mut first, &woken).is_pending());
    let mut second = b.lock_async(&t, "a", LockMode::Update);
    let Poll::Ready(Err(error)) = poll(&mut second, &woken) else {
        panic!("the youngest dies");
    };
    assert!(matches!(error, Error::Deadlock { .. }), "{error}");
    assert!(matches!(poll(&mut first, &woken), Poll::Ready(Ok(_))));
}

#[test]
fn closing_the_database_ends_a_future() {
    let (_dir, db) = fresh();
    let t = table(&db);
    let mut holder = db.begin();
    holder.lock(&t, "k", LockMode::Update).unwrap();
    let (mut txn, woken) = (db.begin(), Arc::new(Woken::default()));
    let mut future = txn.lock_async(&t, "k", LockMode::Update);
    assert!(poll(&mut future, &woken).is_pending());
    db.close().unwrap();
    assert!(woken.times() >= 1);
    assert!(matches!(
        poll(&mut future, &woken),
        Poll::Ready(Err(Error::Closed))
    ));
}

/// A waker that takes the last handle with it must not make a thread of the engine wait for itself.
#[test]
fn a_waker_may_let_go_of_the_last_handle_and_may_panic() {
    type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
    struct Last(Mutex<Option<Task>>, AtomicBool);
    impl Wake for Last {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            self.1.store(true, Ordering::SeqCst);
            panic!("a waker of somebody else's");
        }
    }
    let (dir, db) = fresh();
    let t = table(&db);
    let mut task: Task = Box::pin(async move {
        let mut holder = db.begin();
        holder.lock(&t, "k", LockMode::Update).unwrap();
        let timeout = Some(Duration::from_millis(100));
        let mut txn = db.begin_with(TxnOptions::new().on_conflict(OnConflict::Wait { timeout }));
        let _ = txn.lock_async(&t, "k", LockMode::Share).await;
    });
    let last = Arc::new(Last(Mutex::default(), AtomicBool::new(false)));
    let waker = Waker::from(last.clone());
    let waits = task.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(waits.is_pending());
    *last.0.lock().unwrap() = Some(task);
    let path = dir.path().join("db");
    // Held by this process until the close, which goes on beside.
    let begun = Instant::now();
    while !last.1.load(Ordering::SeqCst) || machine::small_and_real().open(&path).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(1));
    }
}

/// One thread, two hundred transactions, one row: each raises it once, in the order in which they came.
#[test]
fn two_hundred_wait_for_one_row_in_one_thread() {
    const CLIENTS: usize = 200;
    let (_dir, db) = fresh();
    let t = table(&db);
    let order = std::cell::RefCell::new(Vec::new());
    let client = async |number: usize| {
        let mut txn = db.begin();
        let value = txn.get_for_async(&t, "k", LockMode::Update).await.unwrap();
        let value: u32 = str::from_utf8(&value.unwrap()).unwrap().parse().unwrap();
        order.borrow_mut().push(number);
        txn.put(&t, "k", (value + 1).to_string()).unwrap();
        txn.commit_async().await.unwrap();
    };
    let mut holder = db.begin();
    holder.lock(&t, "k", LockMode::Update).unwrap();
    let mut tasks: Vec<_> = (0..CLIENTS)
        .map(|number| (Box::pin(client(number)), Arc::new(Woken::default())))
        .collect();
    for (task, woken) in &mut tasks {
        assert!(poll(task, woken).is_pending());
    }
    assert_eq!(waiting(&db), CLIENTS);
    holder.commit().unwrap();
    while !tasks.is_empty() {
        // Who was not woken is not polled: a lost wake-up would stop it for ever.
        tasks.retain_mut(|(task, woken)| woken.take() == 0 || poll(task, woken).is_pending());
        thread::yield_now();
    }
    assert_eq!(*order.borrow(), (0..CLIENTS).collect::<Vec<_>>());
    let value = db.begin().get(&t, "k").unwrap().unwrap();
    assert_eq!(*value, *b"200");
}

/// Tasks on several threads take two rows each, in any order, and give up or are dropped in between.
#[test]
fn tasks_on_many_threads_lose_nothing() {
    const ROUNDS: u32 = 300;
    let (_dir, db) = fresh();
    let t = table(&db);
    let raised = AtomicU32::new(0);
    thread::scope(|threads| {
        for number in 0..4_u32 {
            let (db, t, raised) = (&db, &t, &raised);
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    let mut txn = db.begin();
                    if (round + number) % 3 == 0 {
                        let woken = Arc::new(Woken::default());
                        let mut dropped = txn.lock_async(t, "k", LockMode::Update);
                        let _ = poll(&mut dropped, &woken);
                    }
                    let rows = if (round + number) % 2 == 0 {
                        ["k", "l"]
                    } else {
                        ["l", "k"]
                    };
                    let done = block_on(async {
                        for row in rows {
                            let value = txn.get_for_async(t, row, LockMode::Update).await?;
                            let value = value.map_or(0, |v| v.len());
                            txn.put(t, row, vec![1; value + 1])?;
                        }
                        Ok::<(), Error>(())
                    });
                    match done {
                        Ok(()) => {
                            txn.commit_async().wait().unwrap();
                            raised.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => assert!(matches!(error, Error::Deadlock { .. }), "{error}"),
                    }
                }
            });
        }
    });
    let length = |key| db.begin().get(&t, key).unwrap().unwrap().len() as u32;
    let raised = raised.load(Ordering::SeqCst);
    assert_eq!((length("k"), length("l")), (1 + raised, raised));
    assert_eq!(db.locks().count(), 0);
}
