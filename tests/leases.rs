//! Leases: a transaction holds what it holds until it ends or nobody renews it, whatever crashes in between.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lockstone::{
    Database, Error, FencingToken, Isolation, LockMode, OnConflict, Outcome, Ports, Priority,
    Resolution, ResourceMode, Table, Transaction, TxnOptions,
};
use lockstone_testkit::{SeededEntropy, SimClock, SimDisk, Survivors};
use machine::{fresh, no_wait, small_and_real, smallest};

const LEASE: Duration = Duration::from_secs(30);
/// A moment before a lease is over.
const NEARLY: Duration = Duration::from_millis(29_999);

fn leased() -> TxnOptions {
    no_wait().lease(LEASE)
}

fn open(disk: &Arc<SimDisk>, clock: &Arc<SimClock>) -> Database {
    let ports = Ports {
        disk: disk.clone(),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: false,
    };
    smallest().open_with(ports).unwrap()
}

/// What a crash leaves now: what was durable, and nothing else.
fn crashed(disk: &SimDisk) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &Survivors::None)
}

fn would_block<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::WouldBlock { .. }))
}

fn has_expired<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::RolledBack);
    matches!(
        error,
        Error::LeaseExpired {
            lease_ms: 30_000,
            ..
        }
    )
}

#[test]
fn a_lease_that_nobody_renews_is_over_and_its_locks_pass_on() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let db = open(&disk, &clock);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(leased());
    let pinger = txn.pinger();
    let token = txn.lock(&t, "a", LockMode::Update).unwrap();
    txn.put(&t, "b", "1").unwrap();
    for _ in 0..4 {
        clock.advance(NEARLY);
        assert_eq!(
            db.transactions()[0].lease_left,
            Some(Duration::from_millis(1))
        );
        assert!(would_block(db.begin_with(no_wait()).lock(
            &t,
            "a",
            LockMode::KeyShare
        )));
        pinger.ping().unwrap();
        txn.ping().unwrap();
        txn.lock(&t, "a", LockMode::Update).unwrap();
    }
    clock.advance(LEASE);
    let mut next = db.begin_with(no_wait());
    assert!(next.lock(&t, "a", LockMode::Update).unwrap() > token);
    next.put(&t, "b", "2").unwrap();
    assert!(has_expired(pinger.ping()));
    assert!(has_expired(txn.ping()));
    assert!(has_expired(txn.get(&t, "b")));
    assert!(has_expired(txn.put(&t, "c", "1")));
    assert!(has_expired(txn.commit()));
    next.commit().unwrap();
    // One that notices it by itself.
    let mut txn = db.begin_with(leased());
    txn.put(&t, "b", "3").unwrap();
    clock.advance(LEASE);
    assert!(has_expired(txn.commit()));
    assert_eq!(
        db.snapshot().get(&t, "b").unwrap().as_deref(),
        Some(b"2".as_slice())
    );
    assert!(db.locks().next().is_none());
    // One without a lease has none to renew.
    let plain = db.begin();
    assert!(matches!(plain.ping(), Err(Error::InvalidArgument { .. })));
}

#[test]
fn one_handle_at_a_time_has_a_leased_transaction() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let db = open(&disk, &clock);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(leased());
    let before = txn.savepoint();
    txn.put(&t, "a", "1").unwrap();
    let (id, pinger) = (txn.id(), txn.pinger());
    assert!(matches!(db.resume(id), Err(Error::InUse { .. })));
    assert_eq!(txn.detach(), id);
    clock.advance(LEASE / 2);
    pinger.ping().unwrap();
    clock.advance(LEASE / 2);
    assert!(would_block(db.begin_with(no_wait()).put(&t, "a", "2")));
    let mut txn = db.resume(id).unwrap();
    assert!(matches!(db.resume(id), Err(Error::InUse { .. })));
    assert_eq!(txn.get(&t, "a").unwrap().as_deref(), Some(b"1".as_slice()));
    txn.rollback_to(before).unwrap();
    txn.put(&t, "c", "1").unwrap();
    txn.commit().unwrap();
    let unknown = |id| matches!(db.resume(id), Err(Error::UnknownTransaction { .. }));
    assert!(unknown(id));
    // Without a lease it goes with its handle; over it is nobody's; dropping one that was resumed rolls it back.
    let mut plain = db.begin();
    plain.put(&t, "c", "2").unwrap();
    assert!(unknown(plain.id()));
    assert!(unknown(plain.detach()));
    let late = db.begin_with(leased()).detach();
    clock.advance(LEASE);
    assert!(unknown(late));
    let mut dropped = db.begin_with(leased());
    dropped.put(&t, "c", "3").unwrap();
    let dropped = dropped.detach();
    drop(db.resume(dropped).unwrap());
    assert!(unknown(dropped));
    assert!(db.transactions().is_empty() && db.locks().next().is_none());
    assert_eq!(
        db.snapshot().get(&t, "c").unwrap().as_deref(),
        Some(b"1".as_slice())
    );
}

/// Locks and writes of every kind, some of which are rolled back.
fn hold_everything(db: &Database, txn: &mut Transaction) -> FencingToken {
    let t = db.table("t").unwrap();
    let token = txn.lock(&t, "share", LockMode::Share).unwrap();
    txn.put(&t, "put", "new").unwrap();
    txn.delete(&t, "there").unwrap();
    txn.put_many(&t, (0..100_u32).map(|n| (n.to_be_bytes(), "many")))
        .unwrap();
    txn.lock_range(&t, "r".."s", LockMode::Update).unwrap();
    let savepoint = txn.savepoint();
    txn.lock(&t, "share", LockMode::Update).unwrap();
    txn.lock(&t, "undone", LockMode::Update).unwrap();
    txn.put(&t, "put", "undone").unwrap();
    txn.lock_range(&t, "x".."z", LockMode::Update).unwrap();
    txn.acquire("s", 2).unwrap();
    txn.lock_resource("undone", ResourceMode::Exclusive)
        .unwrap();
    txn.rollback_to(savepoint).unwrap();
    txn.lock_resource("path", ResourceMode::SharedKey(b"k".to_vec()))
        .unwrap();
    txn.acquire("s", 1).unwrap();
    txn.lock_table(&db.table("alone").unwrap()).unwrap();
    txn.range_for(&db.table("empty").unwrap(), .., LockMode::Share)
        .unwrap()
        .for_each(|_| ());
    let mut cursor = txn.range_for(&t, "y".., LockMode::KeyShare).unwrap();
    for row in cursor.by_ref() {
        row.unwrap();
    }
    drop(cursor);
    token
}

/// Asks for what conflicts with the above, and for what does not.
fn check_everything_is_held(db: &Database) {
    let t = db.table("t").unwrap();
    let try_one =
        |ask: &dyn Fn(&mut Transaction) -> Result<(), Error>| ask(&mut db.begin_with(no_wait()));
    let lock = |t: &Table, key: &[u8], mode| try_one(&|txn| txn.lock(t, key, mode).map(drop));
    for key in [
        b"put".as_slice(),
        b"there",
        b"r",
        b"rz",
        &7_u32.to_be_bytes(),
    ] {
        assert!(would_block(lock(&t, key, LockMode::Share)), "{key:?}");
    }
    assert!(would_block(lock(&t, b"share", LockMode::NoKeyUpdate)));
    lock(&t, b"share", LockMode::Share).unwrap();
    assert!(would_block(lock(&t, b"yy", LockMode::Update)));
    lock(&t, b"yy", LockMode::NoKeyUpdate).unwrap();
    lock(&t, b"put", LockMode::KeyShare).unwrap();
    for key in [b"undone".as_slice(), b"x", b"s", b"else"] {
        lock(&t, key, LockMode::Update).unwrap();
    }
    let resource = |path: &str, mode: ResourceMode| {
        try_one(&|txn| txn.lock_resource(path, mode.clone()).map(drop))
    };
    assert!(would_block(resource(
        "path",
        ResourceMode::SharedKey(b"k".to_vec())
    )));
    resource("path", ResourceMode::SharedKey(b"other".to_vec())).unwrap();
    resource("undone", ResourceMode::Exclusive).unwrap();
    assert!(would_block(try_one(&|txn| txn.acquire("s", 3))));
    try_one(&|txn| txn.acquire("s", 2)).unwrap();
    let alone = db.table("alone").unwrap();
    assert!(would_block(lock(&alone, b"any", LockMode::KeyShare)));
    for table in ["t", "empty"] {
        let table = db.table(table).unwrap();
        assert!(would_block(try_one(&|txn| txn
            .lock_table(&table)
            .map(drop))));
    }
    let free = db.table("free").unwrap();
    try_one(&|txn| txn.lock_table(&free).map(drop)).unwrap();
}

fn schema(db: &Database) {
    for name in ["t", "alone", "empty", "free"] {
        db.create_table(name).unwrap();
    }
    db.create_semaphore("s", 3).unwrap();
    let mut txn = db.begin();
    let t = db.table("t").unwrap();
    for key in ["put", "there", "yy"] {
        txn.put(&t, key, "old").unwrap();
    }
    txn.commit().unwrap();
}

fn check_committed(db: &Database) {
    let t = db.table("t").unwrap();
    let seen = db.snapshot();
    let value = |key: &[u8]| seen.get(&t, key).unwrap().map(Vec::from);
    assert_eq!(value(b"put"), Some(b"new".to_vec()));
    assert_eq!(value(b"there"), None);
    assert_eq!(value(&99_u32.to_be_bytes()), Some(b"many".to_vec()));
    assert!(db.locks().next().is_none() && db.transactions().is_empty());
}

#[test]
fn everything_that_was_granted_is_held_after_every_crash() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let db = open(&disk, &clock);
    schema(&db);
    let mut txn = db.begin_with(leased().label("job").priority(Priority::high(9)));
    let token = hold_everything(&db, &mut txn);
    check_everything_is_held(&db);
    let id = txn.id();
    let listed = |db: &Database| {
        let mut all: Vec<String> = db
            .locks()
            .map(|lock| format!("{:?}", lock.unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = listed(&db);
    let mut disk = crashed(&disk);
    for round in 0..3 {
        let db = open(&disk, &clock);
        let report = db.recovery_report();
        assert_eq!(report.in_flight.len(), 1);
        let found = &report.in_flight[0];
        assert_eq!((found.txn, found.label.as_deref()), (id, Some("job")));
        assert_eq!(found.resolution, Resolution::Leased { lease_ms: 30_000 });
        check_everything_is_held(&db);
        assert_eq!(listed(&db), before, "after {round} crashes");
        // The full lease begins anew, and it is counted by nothing else.
        clock.advance(NEARLY);
        check_everything_is_held(&db);
        assert_eq!(
            db.transactions()[0].lease_left,
            Some(Duration::from_millis(1))
        );
        if round == 1 {
            db.close().unwrap();
        } else {
            disk = crashed(&disk);
        }
    }
    let db = open(&disk, &clock);
    let t = db.table("t").unwrap();
    let mut txn = db.resume(id).unwrap();
    assert_eq!(txn.fencing_token(&t, "share"), Some(token));
    assert_eq!(txn.holds(&t, "put"), Some(LockMode::NoKeyUpdate));
    assert_eq!(
        txn.get(&t, "put").unwrap().as_deref(),
        Some(b"new".as_slice())
    );
    assert_eq!(txn.get(&t, "there").unwrap(), None);
    // It goes on as it was: also what it does now is undone, or not.
    let savepoint = txn.savepoint();
    txn.put(&t, "put", "undone again").unwrap();
    txn.rollback_to(savepoint).unwrap();
    let disk = crashed(&disk);
    let db = open(&disk, &clock);
    check_everything_is_held(&db);
    db.resume(id).unwrap().commit().unwrap();
    check_committed(&db);
    check_committed(&open(&crashed(&disk), &clock));
}

#[test]
fn what_is_spilled_is_held_after_a_crash_as_well() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let options = || smallest().log_bytes(4 << 20).provisional_bytes(256 << 10);
    let ports = |disk: &Arc<SimDisk>| Ports {
        disk: disk.clone(),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(7)),
        background: false,
    };
    let db = options().open_with(ports(&disk)).unwrap();
    schema(&db);
    let t = db.table("t").unwrap();
    let mut txn = db.begin_with(leased());
    hold_everything(&db, &mut txn);
    for chunk in 0..20_u32 {
        let keys: Vec<_> = (0..100)
            .map(|n| format!("lock-{}", chunk * 100 + n))
            .collect();
        txn.lock_many(&t, &keys, LockMode::Update).unwrap();
        let rows = keys.iter().map(|key| (format!("w{key}"), "spilled"));
        txn.put_many(&t, rows).unwrap();
        clock.advance(LEASE / 2);
        txn.ping().unwrap();
    }
    assert!(db.stats().spills > 1, "nothing was spilled");
    let id = txn.id();
    let check = |db: &Database| {
        check_everything_is_held(db);
        let t = db.table("t").unwrap();
        for n in (0..2000).step_by(37) {
            for key in [format!("lock-{n}"), format!("wlock-{n}")] {
                assert!(would_block(db.begin_with(no_wait()).lock(
                    &t,
                    &key,
                    LockMode::Share
                )));
            }
        }
    };
    check(&db);
    let mut disk = crashed(&disk);
    for _ in 0..2 {
        let db = options().open_with(ports(&disk)).unwrap();
        check(&db);
        disk = crashed(&disk);
    }
    let db = options().open_with(ports(&disk)).unwrap();
    db.resume(id).unwrap().commit().unwrap();
    check_committed(&db);
    let db = options().open_with(ports(&crashed(&disk))).unwrap();
    check_committed(&db);
    let (t, seen) = (db.table("t").unwrap(), db.snapshot());
    for n in 0..2000 {
        let value = seen.get(&t, format!("wlock-{n}")).unwrap();
        assert_eq!(value.as_deref(), Some(b"spilled".as_slice()));
    }
}

/// W9: whoever takes over a leased transaction's lock, by a wound, its rollback or its end, is behind its record in the log. So at no
/// crash do two have the lock.
#[test]
fn no_crash_gives_a_lock_to_two() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let db = open(&disk, &clock);
    let t = db.create_table("t").unwrap();
    let ranked = |rank| {
        leased()
            .priority(Priority::high(rank))
            .on_conflict(OnConflict::Wound)
    };
    let begun = disk.io_count();
    let mut first = db.begin_with(ranked(1));
    first.lock(&t, "a", LockMode::Update).unwrap();
    let mut second = db.begin_with(ranked(2));
    second.lock(&t, "a", LockMode::Update).unwrap();
    assert!(matches!(
        first.lock(&t, "b", LockMode::Share),
        Err(Error::Wounded { .. })
    ));
    drop(first);
    let savepoint = second.savepoint();
    second.lock(&t, "b", LockMode::Update).unwrap();
    second.rollback_to(savepoint).unwrap();
    let mut third = db.begin_with(ranked(1));
    third.lock(&t, "b", LockMode::Update).unwrap();
    drop(second);
    third.lock(&t, "a", LockMode::Update).unwrap();
    clock.advance(LEASE);
    let mut fourth = db.begin_with(ranked(1));
    fourth.lock(&t, "a", LockMode::Update).unwrap();
    fourth.lock(&t, "b", LockMode::Update).unwrap();
    fourth.commit().unwrap();
    let mut held = 0;
    for at in begun..=disk.io_count() {
        for survivors in [Survivors::None, Survivors::All] {
            let crashed = disk.after_crash(at, &survivors);
            // Two who held it would be damage to recovery.
            let db = open(&crashed, &clock);
            let leased = db.transactions();
            held += leased.len();
            for txn in leased {
                drop(db.resume(txn.txn).unwrap());
            }
            assert!(db.locks().next().is_none());
        }
    }
    assert!(held > 20, "{held}");
}

#[test]
fn closing_keeps_who_is_detached_and_ends_who_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let open = || small_and_real().open(dir.path().join("db")).unwrap();
    let db = open();
    let t = db.create_table("t").unwrap();
    let (mut kept, mut ended) = (db.begin_with(leased()), db.begin_with(leased()));
    kept.put(&t, "kept", "1").unwrap();
    ended.put(&t, "ended", "1").unwrap();
    let (kept, ended_id) = (kept.detach(), ended.id());
    db.close().unwrap();
    assert!(matches!(ended.get(&t, "ended"), Err(Error::Closed)));
    drop((ended, t));
    let db = open();
    assert!(db.recovery_report().clean_shutdown);
    assert!(matches!(
        db.resume(ended_id),
        Err(Error::UnknownTransaction { .. })
    ));
    let t = db.table("t").unwrap();
    assert!(would_block(db.begin_with(no_wait()).put(&t, "kept", "2")));
    // The last handle closes as `close` does.
    drop((db, t));
    let db = open();
    db.resume(kept).unwrap().commit().unwrap();
    let t = db.table("t").unwrap();
    assert_eq!(
        db.snapshot().get(&t, "kept").unwrap().as_deref(),
        Some(b"1".as_slice())
    );
}

#[test]
fn who_waits_for_an_expired_lease_is_woken() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let lease = Duration::from_millis(300);
    let mut holder = db.begin_with(TxnOptions::new().lease(lease));
    holder.lock(&t, "a", LockMode::Update).unwrap();
    let begun = Instant::now();
    for _ in 0..3 {
        thread::sleep(lease / 3);
        holder.ping().unwrap();
    }
    let detached = holder.detach();
    let mut next = db.begin();
    next.lock(&t, "a", LockMode::Update).unwrap();
    assert!(begun.elapsed() >= lease * 2, "{:?}", begun.elapsed());
    assert!(matches!(
        db.resume(detached),
        Err(Error::UnknownTransaction { .. })
    ));
    assert_eq!(db.transactions().len(), 1);
    // One that waits when its own lease is over is told so.
    let mut waiter = db.begin_with(TxnOptions::new().lease(lease));
    assert!(matches!(
        waiter.lock(&t, "a", LockMode::Update),
        Err(Error::LeaseExpired { .. })
    ));
    // What is prepared has no end but one.
    let mut prepared = db.begin_with(TxnOptions::new().lease(lease));
    prepared.lock(&t, "b", LockMode::Update).unwrap();
    prepared.prepare("p").unwrap();
    thread::sleep(lease * 2);
    assert!(would_block(db.begin_with(no_wait()).lock(
        &t,
        "b",
        LockMode::Update
    )));
    db.commit_prepared("p").unwrap();
}

#[test]
fn what_a_lease_cannot_be_is_refused() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let refused = |options: TxnOptions| {
        let mut txn = db.begin_with(options);
        matches!(txn.put(&t, "a", "1"), Err(Error::InvalidArgument { .. }))
            && matches!(txn.commit(), Err(Error::InvalidArgument { .. }))
    };
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        assert!(refused(leased().isolation(isolation)));
    }
    assert!(refused(TxnOptions::new().lease(Duration::ZERO)));
    assert!(refused(TxnOptions::new().lease(Duration::from_micros(999))));
    let mut endless = db.begin_with(TxnOptions::new().lease(Duration::MAX));
    endless.put(&t, "a", "1").unwrap();
    endless.ping().unwrap();
    endless.commit().unwrap();
}

/// S3: what it has spilled frees the log, for it says anew what it holds.
#[test]
fn a_leased_transaction_may_write_more_than_the_log_holds() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let open = |disk: &Arc<SimDisk>| {
        let ports = Ports {
            disk: disk.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        smallest()
            .provisional_bytes(256 << 10)
            .open_with(ports)
            .unwrap()
    };
    let db = open(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(leased());
    let token = txn.lock(&t, "early", LockMode::Share).unwrap();
    txn.lock_range(&t, "x".."z", LockMode::Update).unwrap();
    let row = |n: u32| (format!("row-{n:06}"), vec![n as u8; 500]);
    let mut undone = None;
    let mut crashes = Vec::new();
    for chunk in 0..60_u32 {
        if chunk == 20 {
            undone = Some(txn.savepoint());
        }
        if chunk == 30 {
            txn.rollback_to(undone.unwrap()).unwrap();
        }
        txn.put_many(&t, (chunk * 100..chunk * 100 + 100).map(row))
            .unwrap();
        if chunk % 10 == 9 {
            crashes.push((chunk, crashed(&disk)));
        }
        assert!(db.stats().log_bytes <= 1 << 20);
    }
    let id = txn.id();
    for (last, disk) in crashes {
        let db = open(&disk);
        let t = db.table("t").unwrap();
        let is_there = |chunk: u32| chunk <= last && (last < 30 || !(20..30).contains(&chunk));
        assert!(would_block(db.begin_with(no_wait()).put(&t, "y", "1")));
        assert!(would_block(db.begin_with(no_wait()).put(&t, "early", "1")));
        let txn = db.resume(id).unwrap();
        assert_eq!(txn.fencing_token(&t, "early"), Some(token));
        for chunk in 0..60 {
            let (key, value) = row(chunk * 100 + 37);
            let own = txn.get(&t, &key).unwrap();
            assert_eq!(
                own.as_deref(),
                is_there(chunk).then_some(&value[..]),
                "{chunk} of {last}"
            );
            let locked = would_block(db.begin_with(no_wait()).lock(&t, &key, LockMode::Share));
            assert_eq!(locked, is_there(chunk));
        }
        txn.commit().unwrap();
        let db = open(&crashed(&disk));
        let t = db.table("t").unwrap();
        let found = db.snapshot().range(&t, ..).unwrap().count();
        assert_eq!(
            found,
            (0..60).filter(|chunk| is_there(*chunk)).count() * 100
        );
    }
    txn.commit().unwrap();
}

/// S6: a file goes when that it is not needed is on the device. Wherever a crash comes, in spills, merges, a rollback, and the end, by
/// commit or abort: the next open misses nothing, and the transaction is there with all that it was granted, or has ended.
#[test]
fn no_crash_misses_a_file_of_a_leased_transaction() {
    for commits in [false, true] {
        let disk = SimDisk::new(1);
        // Files go in the background.
        let open = |disk: &Arc<SimDisk>, background| {
            let ports = Ports {
                disk: disk.clone(),
                // Threads in the background make its time pass.
                clock: Arc::new(SimClock::new()),
                entropy: Arc::new(SeededEntropy::new(7)),
                background,
            };
            smallest()
                .provisional_bytes(256 << 10)
                .open_with(ports)
                .unwrap()
        };
        let db = open(&disk, true);
        let t = db.create_table("t").unwrap();
        let mut txn = db.begin_with(leased());
        let id = txn.id();
        // How many chunks were granted when the disk had been called so often; none: it may have ended.
        let mut granted = vec![(disk.io_count(), Some(0))];
        let row = |n: u32| (format!("row-{n:06}"), vec![n as u8; 2000]);
        let mut savepoint = None;
        for chunk in 0..18_u32 {
            if chunk == 12 {
                savepoint = Some(txn.savepoint());
            }
            txn.put_many(&t, (chunk * 60..chunk * 60 + 60).map(row))
                .unwrap();
            let keys: Vec<_> = (0..60)
                .map(|n| format!("lock-{}", chunk * 60 + n))
                .collect();
            txn.lock_many(&t, &keys, LockMode::Share).unwrap();
            granted.push((disk.io_count(), Some(chunk + 1)));
        }
        assert!(
            db.stats().spills > 4 && db.stats().spill_merges > 0,
            "{:?}",
            db.stats()
        );
        txn.rollback_to(savepoint.unwrap()).unwrap();
        granted.push((disk.io_count(), Some(12)));
        // What has gone by now is known to be gone.
        std::thread::sleep(Duration::from_millis(20));
        if commits {
            txn.commit().unwrap();
        } else {
            drop(txn);
        }
        db.compact().unwrap();
        let all = disk.io_count();
        let mut survived = 0;
        for at in (granted[0].0..=all).step_by(7) {
            for survivors in [Survivors::None, Survivors::All] {
                let db = open(&disk.after_crash(at, &survivors), false);
                let t = db.table("t").unwrap();
                let before = granted.partition_point(|(calls, _)| *calls <= at);
                let known = granted[before - 1].1.unwrap();
                match db.resume(id) {
                    Ok(txn) => {
                        survived += 1;
                        for chunk in (0..known.min(12)).chain([0]).filter(|chunk| *chunk < known) {
                            let (key, value) = row(chunk * 60 + 31);
                            assert_eq!(txn.get(&t, key).unwrap().as_deref(), Some(&value[..]));
                            let lock = format!("lock-{}", chunk * 60 + 31);
                            assert_eq!(txn.holds(&t, &lock), Some(LockMode::Share));
                        }
                        txn.commit().unwrap();
                    }
                    Err(Error::UnknownTransaction { .. }) => {
                        let last = granted.len() - 1;
                        assert!(
                            known == 0 || before > last,
                            "{at}: it was granted {known} chunks"
                        );
                        let found = db.snapshot().range(&t, ..).unwrap().count();
                        assert!(found == 0 || commits && found == 12 * 60, "{found}");
                    }
                    Err(error) => panic!("{error}"),
                }
                assert!(db.check().unwrap().is_clean());
            }
        }
        assert!(survived > 20, "{survived}");
    }
}

/// R2: nobody was told of a call that a crash has cut off: none of it is there, also when it had spilled, and nothing that came before
/// or comes later goes with it.
#[test]
fn a_call_that_a_crash_cuts_off_leaves_nothing() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
    let open = |disk: &Arc<SimDisk>| {
        let ports = Ports {
            disk: disk.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        let options = smallest().log_bytes(4 << 20).provisional_bytes(256 << 10);
        options.open_with(ports).unwrap()
    };
    let db = open(&disk);
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(leased());
    txn.put(&t, "before", "1").unwrap();
    let id = txn.id();
    let begun = disk.io_count();
    let keys = |from: u32, rows: u32| (from..from + rows).map(|n| format!("key-{n:06}"));
    txn.lock_many(&t, keys(0, 6000), LockMode::Update).unwrap();
    let locked = disk.io_count();
    txn.put_many(&t, keys(10_000, 3000).map(|key| (key, [7; 200])))
        .unwrap();
    let written = disk.io_count();
    assert!(db.stats().spills > 1);
    let (mut cut, mut whole) = (0, 0);
    for at in (begun..=written).step_by(3) {
        let survivors = Survivors::Prefix(at as usize % 7);
        let mut disk = disk.after_crash(at, &survivors);
        for round in 0..2_u32 {
            let db = open(&disk);
            let t = db.table("t").unwrap();
            let mut txn = db.resume(id).unwrap();
            assert_eq!(
                txn.get(&t, "before").unwrap().as_deref(),
                Some(b"1".as_slice())
            );
            let locks = keys(0, 6000)
                .step_by(97)
                .filter(|key| txn.holds(&t, key).is_some())
                .count();
            assert!(locks == 0 && at < locked || locks == 62, "{locks} at {at}");
            let rows = txn.range(&t, "key".."kez").unwrap().count();
            assert!(rows == 0 && at < written || rows == 3000, "{rows} at {at}");
            cut += usize::from(rows == 0);
            whole += usize::from(rows > 0);
            // What it does now is not taken for a part of that call.
            assert_eq!(txn.get(&t, format!("later-{round}")).unwrap(), None);
            txn.put(&t, format!("later-{round}"), "1").unwrap();
            if round == 1 {
                assert!(txn.get(&t, "later-0").unwrap().is_some());
            }
            disk = crashed(&disk);
        }
    }
    assert!(cut > 20 && whole > 0, "{cut} {whole}");
}
