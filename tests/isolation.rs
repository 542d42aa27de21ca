//! What each isolation level sees, what it refuses, and with which words.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts threads itself"
)]

mod levels;
mod machine;

use levels::{
    assert_conflict, assert_invalidated, begin, delete, keys, put, serializable, snapshot, text,
    with_rows,
};
use lockstone::{
    Error, Isolation, LockMode, OnConflict, Result, Table, Transaction, TxnOptions, prefix,
};

const MODES: [LockMode; 4] = [
    LockMode::KeyShare,
    LockMode::Share,
    LockMode::NoKeyUpdate,
    LockMode::Update,
];

#[test]
fn reads_are_of_the_moment_of_begin_and_own_writes_stand_over_them() {
    let (_dir, db, t) = with_rows(&[("a", "1"), ("b", "1"), ("c", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        put(&db, &t, "b", "1");
        let mut txn = begin(&db, level);
        assert_eq!(db.transactions()[0].isolation, level);
        put(&db, &t, "b", "2");
        put(&db, &t, "d", "2");
        delete(&db, &t, "c");
        assert_eq!(text(txn.get(&t, "b").unwrap()).as_deref(), Some("1"));
        assert_eq!(txn.get(&t, "d").unwrap(), None);
        let many = txn.multi_get(&t, ["c", "d", "b"]).unwrap();
        let many: Vec<_> = many.into_iter().map(text).collect();
        assert_eq!(many, [Some("1".to_owned()), None, Some("1".to_owned())]);
        txn.put(&t, "e", "own").unwrap();
        assert_eq!(keys(&txn, &t), ["a", "b", "c", "e"]);
        let backward = txn.range(&t, ..).unwrap().rev();
        assert_eq!(backward.count(), 4);
        // Its own begin, not that of its first read.
        assert_eq!(text(txn.get(&t, "e").unwrap()).as_deref(), Some("own"));
        drop(txn);
        put(&db, &t, "c", "1");
        delete(&db, &t, "d");
    }
    let read_committed = db.begin();
    put(&db, &t, "b", "3");
    assert_eq!(
        text(read_committed.get(&t, "b").unwrap()).as_deref(),
        Some("3")
    );
}

/// W7: what it sees is not compacted away, and is let go of at its end.
#[test]
fn what_a_transaction_sees_stays_through_checkpoints_and_compactions() {
    let (_dir, db, t) = with_rows(&[("a", "old"), ("b", "old")]);
    let before = db.stats().snapshots;
    let txn = snapshot(&db);
    let mut late = snapshot(&db);
    let mut reader = serializable(&db);
    reader.get(&t, "a").unwrap();
    reader.put(&t, "x", "1").unwrap();
    assert_eq!(db.stats().snapshots, before + 3);
    put(&db, &t, "a", "new");
    delete(&db, &t, "b");
    db.compact().unwrap();
    put(&db, &t, "a", "newer");
    db.compact().unwrap();
    assert_eq!(text(txn.get(&t, "a").unwrap()).as_deref(), Some("old"));
    assert_eq!(keys(&txn, &t), ["a", "b"]);
    // A change that lies in a run by now is one all the same, a removal too.
    assert_conflict(late.put(&t, "b", "1"));
    assert_invalidated(reader.commit());
    txn.commit().unwrap();
    drop(late);
    assert_eq!(db.stats().snapshots, before);
}

type Call = fn(&mut Transaction, &Table, LockMode) -> Result<()>;

/// Every call that locks the row `k`, by name; the first ones say nothing of what stands there, the last ones do.
const CALLS: [(&str, Call); 10] = [
    ("put", |txn, t, _| txn.put(t, "k", "own")),
    ("put_many", |txn, t, _| {
        txn.put_many(t, [("a", "own"), ("k", "own")])
    }),
    ("delete", |txn, t, _| txn.delete(t, "k").map(drop)),
    ("insert_new", |txn, t, _| {
        txn.insert_new(t, "k", "own").map(drop)
    }),
    ("lock", |txn, t, mode| txn.lock(t, "k", mode).map(drop)),
    ("get_for", |txn, t, mode| {
        txn.get_for(t, "k", mode).map(drop)
    }),
    ("lock_many", |txn, t, mode| {
        txn.lock_many(t, ["a", "k"], mode)
    }),
    ("lock_rows", |txn, t, mode| {
        txn.lock_rows(t, .., mode).map(drop)
    }),
    ("range_for", |txn, t, mode| {
        txn.range_for(t, "k"..="k", mode)?
            .try_for_each(|row| row.map(drop))
    }),
    ("range_for from behind", |txn, t, mode| {
        txn.range_for(t, .., mode)?
            .rev()
            .try_for_each(|row| row.map(drop))
    }),
];
/// How many of them are blind in a serializable transaction.
const BLIND: usize = 3;

#[test]
fn a_row_that_was_changed_since_cannot_be_locked_or_written() {
    let (_dir, db, t) = with_rows(&[("a", "1"), ("k", "1"), ("z", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        let blind = if level == Isolation::Snapshot {
            0
        } else {
            BLIND
        };
        for (index, (name, call)) in CALLS.into_iter().enumerate() {
            for mode in MODES {
                let mut txn = begin(&db, level);
                let mut unhurt = begin(&db, level);
                let mut later = begin(&db, level);
                put(&db, &t, "k", "2");
                assert!(unhurt.put(&t, "other", "1").is_ok());
                if index < blind {
                    call(&mut txn, &t, mode).unwrap_or_else(|error| panic!("{name}: {error}"));
                    continue;
                }
                txn.lock(&t, "z", LockMode::Update).unwrap();
                assert_conflict(call(&mut txn, &t, mode));
                // Rolled back before it was told, and each later call says so again.
                let mut other = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
                other.put(&t, "z", "1").unwrap();
                other.put(&t, "k", "1").unwrap();
                drop(other);
                assert_conflict(txn.get(&t, "a"));
                assert_conflict(txn.commit());
                // There and gone again is a change as well.
                delete(&db, &t, "k");
                put(&db, &t, "k", "1");
                assert_conflict(call(&mut later, &t, mode));
            }
        }
    }
    // And whoever begins now finds it unchanged.
    for (_, call) in CALLS {
        call(&mut snapshot(&db), &t, LockMode::Update).unwrap();
    }
}

/// At once, and not only at the row that was changed; what it covers then, nobody changes.
#[test]
fn a_wider_lock_is_refused_where_a_row_was_changed_and_else_covers_all() {
    type Widely = fn(&mut Transaction, &Table) -> Result<()>;
    let wide: [(&str, Widely); 3] = [
        ("a range", |txn, t| {
            txn.lock_range(t, .., LockMode::Update).map(drop)
        }),
        ("a table", |txn, t| txn.lock_table(t).map(drop)),
        ("both", |txn, t| {
            txn.lock_table(t)?;
            txn.lock_range(t, "j".."l", LockMode::Share).map(drop)
        }),
    ];
    let (_dir, db, t) = with_rows(&[("a", "1"), ("k", "1"), ("z", "1")]);
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        for (_, widely) in wide {
            let mut txn = begin(&db, level);
            put(&db, &t, "k", "2");
            assert_eq!(text(txn.get(&t, "k").unwrap()).as_deref(), Some("1"));
            assert_conflict(widely(&mut txn, &t));
            assert_conflict(txn.commit());
            put(&db, &t, "k", "1");
            // Nobody has changed anything since: it goes on, and nobody can.
            let mut txn = begin(&db, level);
            widely(&mut txn, &t).unwrap();
            let mut other = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
            assert!(other.put(&t, "k", "3").is_err());
            txn.put(&t, "k", "1").unwrap();
            txn.commit().unwrap();
        }
    }
    // At the lowest level the newest is seen, and goes on.
    for (name, widely) in wide {
        let mut txn = db.begin();
        assert_eq!(text(txn.get(&t, "k").unwrap()).as_deref(), Some("1"));
        put(&db, &t, "k", "2");
        widely(&mut txn, &t).unwrap();
        assert_eq!(
            text(txn.get(&t, "k").unwrap()).as_deref(),
            Some("2"),
            "{name}"
        );
        txn.put(&t, "k", "1").unwrap();
        txn.commit().unwrap();
    }
}

/// The look comes behind the grant: what the holder commits while one waits for it counts.
#[test]
fn who_waits_for_a_writer_conflicts_if_it_commits_and_goes_on_if_it_does_not() {
    let (_dir, db, t) = with_rows(&[("k", "1")]);
    for commits in [true, false] {
        let mut holder = db.begin();
        holder.put(&t, "k", "2").unwrap();
        let mut txn = snapshot(&db);
        let waits = db.stats().lock_waits;
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| txn.put(&t, "k", "3"));
            while db.stats().lock_waits == waits {
                std::thread::yield_now();
            }
            if commits {
                holder.commit().unwrap();
            } else {
                holder.abort();
            }
            let result = waiter.join().unwrap();
            if commits {
                assert_conflict(result);
            } else {
                result.unwrap();
            }
        });
    }
}

/// A row that is locked in a weak mode may be changed by others: the stronger mode is refused.
/// Whoever locks a range or a table goes by what it reads there: a row that it does not see must not be in it.
#[test]
fn what_was_changed_since_cannot_be_locked_as_a_range_or_a_table() {
    for level in [Isolation::Snapshot, Isolation::Serializable] {
        let (_dir, db, t) = with_rows(&[("room1/0800", "eve"), ("room2/0800", "eve")]);
        let mut transactions = [0; 5].map(|_| begin(&db, level));
        put(&db, &t, "room1/0900", "ann");
        let [early, elsewhere, table, again, late] = &mut transactions;
        assert_conflict(early.lock_range(&t, prefix("room1/"), LockMode::KeyShare));
        assert!(matches!(
            early.get(&t, "a"),
            Err(Error::WriteConflict { .. })
        ));
        assert_conflict(table.lock_table(&t));
        let token = elsewhere
            .lock_range(&t, prefix("room2/"), LockMode::Update)
            .unwrap();
        // A range that is covered by one that was looked at is not looked at again, a wider one is.
        assert_eq!(
            elsewhere
                .lock_range(&t, "room2/1".."room2/2", LockMode::Share)
                .unwrap(),
            token
        );
        assert_conflict(elsewhere.lock_range(&t, "room1/0900"..="room1/0900", LockMode::Share));
        delete(&db, &t, "room2/0800");
        assert_conflict(again.lock_range(&t, "room2/".., LockMode::Update));
        assert_conflict(late.lock_range(&t, ..="room1/0900", LockMode::Update));
        // Nobody is kept from what nobody has changed.
        let mut fresh = begin(&db, level);
        fresh.lock_table(&t).unwrap();
        fresh.put(&t, "room1/0930", "bob").unwrap();
        fresh.commit().unwrap();
    }
    let (_dir, db, t) = with_rows(&[]);
    let mut newest = db.begin();
    put(&db, &t, "room1/0900", "ann");
    newest
        .lock_range(&t, prefix("room1/"), LockMode::Update)
        .unwrap();
    newest.lock_table(&t).unwrap();
    assert_eq!(keys(&newest, &t), ["room1/0900"]);
}

#[test]
fn an_upgrade_looks_again() {
    let (_dir, db, t) = with_rows(&[("k", "1")]);
    let mut txn = snapshot(&db);
    txn.lock(&t, "k", LockMode::KeyShare).unwrap();
    put(&db, &t, "k", "2");
    assert_conflict(txn.put(&t, "k", "3"));
}

/// The page of YDB on optimistic locks, row by row.
#[test]
fn the_ydb_example() {
    let people = [("ann", "30"), ("bob", "31"), ("john", "20")];
    let (_dir, db, t) = with_rows(&people);
    let update = |txn: &mut Transaction| -> Result<()> { txn.put(&t, "john", "27") };
    // SELECT * FROM people; another transaction inserts; UPDATE … WHERE name = 'JOHN'; COMMIT.
    let mut txn = serializable(&db);
    assert_eq!(keys(&txn, &t).len(), 3);
    put(&db, &t, "carl", "40");
    update(&mut txn).unwrap();
    assert_invalidated(txn.commit());
    assert_eq!(
        text(db.begin().get(&t, "john").unwrap()).as_deref(),
        Some("20")
    );
    // Those that only read, or only write, complete.
    let (reads, mut writes) = (serializable(&db), serializable(&db));
    assert_eq!(keys(&reads, &t).len(), 4);
    put(&db, &t, "dora", "50");
    put(&db, &t, "john", "26");
    update(&mut writes).unwrap();
    reads.commit().unwrap();
    writes.commit().unwrap();
    // "You can try to execute the transaction again."
    let mut attempts = 0;
    let options = TxnOptions::new().isolation(Isolation::Serializable);
    db.transact_with::<_, Error>(options, |txn| {
        attempts += 1;
        let count = keys(txn, &t).len().to_string();
        if attempts < 3 {
            put(&db, &t, &format!("new {attempts}"), "1");
        }
        txn.put(&t, "count", count)
    })
    .unwrap();
    assert_eq!(attempts, 3);
    assert_eq!(
        text(db.begin().get(&t, "count").unwrap()).as_deref(),
        Some("7")
    );
}

/// W7: whoever was rolled back without knowing kept everything that it could have read, and nobody saw it.
#[test]
fn what_was_rolled_back_keeps_nothing_from_being_dropped() {
    // At the log's limit.
    let dir = tempfile::tempdir().unwrap();
    let options = lockstone::Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(4 << 20);
    let db = options.open(dir.path().join("db")).unwrap();
    let t = db.create_table("t").unwrap();
    let mut idle = begin(&db, Isolation::Snapshot);
    idle.put(&t, "idle", "1").unwrap();
    for n in 0..200_u8 {
        let mut txn = db.begin();
        txn.put(&t, [n], vec![n; 60_000]).unwrap();
        txn.commit().unwrap();
    }
    let stats = db.stats();
    assert_eq!((stats.transactions, stats.snapshots), (0, 0));
    assert!(matches!(
        idle.get(&t, "a").unwrap_err(),
        Error::LogFull { .. }
    ));
    drop(idle);

    // By its own call, and by somebody stronger.
    let mut own = begin(&db, Isolation::Snapshot);
    put(&db, &t, "own", "1");
    own.put(&t, "own", "2").unwrap_err();
    assert_eq!(db.stats().snapshots, 0);
    let mut idle = begin(&db, Isolation::Snapshot);
    idle.put(&t, "idle", "2").unwrap();
    let options = TxnOptions::new().on_conflict(OnConflict::Wound);
    let mut high = db.begin_with(options.priority(lockstone::Priority::high(1)));
    high.put(&t, "idle", "3").unwrap();
    high.commit().unwrap();
    put(&db, &t, "other", "1");
    db.compact().unwrap();
    assert_eq!(db.stats().snapshots, 0, "its handle lives");
    assert!(matches!(
        idle.get(&t, "a").unwrap_err(),
        Error::Wounded { .. }
    ));
    drop((own, idle));
    // Who lives keeps what it sees.
    let view = begin(&db, Isolation::Serializable);
    put(&db, &t, "other", "2");
    db.compact().unwrap();
    assert_eq!(db.stats().snapshots, 1);
    assert_eq!(text(view.get(&t, "other").unwrap()).as_deref(), Some("1"));
    view.commit().unwrap();
    assert_eq!(db.stats().snapshots, 0);
}
