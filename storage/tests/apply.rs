//! W2: applying a commit in the append latch neither allocates nor frees, whatever grows or rotates; nor does one that adopts
//! what it has spilled.
//!
//! A program of its own, because it counts what the whole program allocates in a thread.
#![forbid(unsafe_code)]

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, Lsn, RowKey, TableId, TxnId};
use lockstone_storage::provisional::{Effect, Kind, Record, SpillPlan, SpillWriter};
use lockstone_storage::{
    AdoptedRun, Adoption, DeadSubs, Identity, Manifest, Origin, Prepared, Store, StoreConfig,
    UnfinishedTxn, WriteBatch,
};
use lockstone_testkit::SimDisk;
use std::sync::Arc;

const IDENTITY: Identity = Identity { uuid: 1, salt: 2 };

fn store() -> Store {
    store_on(SimDisk::new(1))
}

fn store_on(disk: Arc<SimDisk>) -> Store {
    let manifest = Manifest {
        uuid: IDENTITY.uuid,
        salt: IDENTITY.salt,
        ..Manifest::default()
    };
    Store::open(disk, StoreConfig::default(), &manifest, Vec::new()).expect("an empty disk")
}

fn batch(rows: impl IntoIterator<Item = u64>, value_bytes: usize) -> WriteBatch {
    let value = Bytes::from(vec![7; value_bytes]);
    let rows = rows.into_iter().map(|id| {
        let row = RowKey::new(TableId(1), &id.to_be_bytes());
        (row, (id % 5 != 0).then(|| value.clone()))
    });
    WriteBatch::from_sorted(rows)
}

/// Applies what was prepared and sees to it that nothing is allocated.
fn apply(store: &Store, prepared: &mut Prepared, stamp: u64) {
    let counted = allocation_counter::measure(|| store.apply_prepared(prepared, Lsn::new(stamp)));
    assert_eq!(
        (counted.count_total, counted.count_current),
        (0, 0),
        "W2: commit {stamp} allocates or frees"
    );
    assert!(prepared.is_empty());
}

/// Who adopts.
fn owner() -> UnfinishedTxn {
    UnfinishedTxn {
        txn: TxnId::new(1, 1),
        state: Bytes::new(),
    }
}

/// Writes a write run of these rows, as the spill number `spill` of its owner.
fn spill(store: &Store, disk: &SimDisk, spill: u64, rows: std::ops::Range<u64>) -> AdoptedRun {
    let owner = TxnId::new(1, 1);
    let plan = SpillPlan {
        identity: IDENTITY,
        kind: Kind::Write,
        owners: vec![owner],
    };
    let mut writer = SpillWriter::new(disk, plan, || store.take_number());
    for id in rows {
        let row = RowKey::new(TableId(1), &id.to_be_bytes());
        let record = Record {
            row: row.as_bytes(),
            owner,
            sub: 0,
            effect: Effect::Put(b"spilled"),
            mode: LockMode::Update,
            token: FencingToken::new(Lsn::new(1)),
            fresh: true,
            writes: true,
        };
        writer.push(&record).expect("an empty disk");
    }
    AdoptedRun {
        entry: writer.finish().expect("an empty disk").remove(0),
        spill,
        through: Lsn::new(spill),
        dead: DeadSubs::NONE,
    }
}

/// Adopts, and sees to it that nothing is allocated.
fn adopt(store: &Store, adoption: &mut Adoption, stamp: u64, prepared: Option<&mut Prepared>) {
    let stamp = Lsn::new(stamp);
    let counted = allocation_counter::measure(|| store.adopt(adoption, stamp, prepared));
    assert_eq!(
        (counted.count_total, counted.count_current),
        (0, 0),
        "W2: the adoption at {stamp:?} allocates or frees"
    );
}

fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

#[test]
fn applying_allocates_nothing_while_everything_grows() {
    let store = store();
    for stamp in 1..=60_000_u64 {
        let value_bytes = if stamp % 100 == 0 { 10_000 } else { 20 };
        let mut prepared = store.prepare(batch([mixed(stamp)], value_bytes));
        apply(&store, &mut prepared, stamp);
    }
    for stamp in 60_001..=61_000 {
        let first = mixed(stamp);
        let mut prepared = store.prepare(batch(first..first + 64, 20));
        apply(&store, &mut prepared, stamp);
    }
    assert_eq!(store.stats().memory_versions, 124_000);
}

#[test]
fn a_chunk_allocates_nothing() {
    let store = store();
    for stamp in 1..=200 {
        let mut prepared = store.prepare(batch(0..65 + stamp, 20));
        apply(&store, &mut prepared, stamp);
    }
    assert_eq!(
        store.stats().memory_versions,
        (1..=200).map(|n| 65 + n).sum::<usize>()
    );
}

#[test]
fn versions_of_one_row_allocate_nothing() {
    let store = store();
    for stamp in 1..=20_000 {
        let mut prepared = store.prepare(batch([1], 20));
        apply(&store, &mut prepared, stamp);
    }
}

#[test]
fn a_promise_holds_behind_a_rotation() {
    // W5: the memtable that takes a commit may be newer than the one in which room was made for it.
    let store = store();
    store.apply(batch([0], 20), Lsn::new(1));
    let mut many: Vec<_> = (0..300)
        .map(|n| store.prepare(batch(n * 64..n * 64 + 64, 20)))
        .collect();
    let mut chunks: Vec<_> = (0..50)
        .map(|n| store.prepare(batch(n..n + 100, 20)))
        .collect();
    assert!(store.rotate(Lsn::new(1)));
    let late = store.prepare(batch(0..64, 20));
    let given_up = store.prepare(batch(0..64, 20));
    drop(given_up);
    many.push(late);
    for (stamp, prepared) in (2..).zip(many.iter_mut().chain(&mut chunks)) {
        apply(&store, prepared, stamp);
    }
    assert_eq!(store.stats().memory_versions, 1 + 301 * 64 + 50 * 100);
}

#[test]
fn room_is_promised_to_each_of_many_threads() {
    let store = store();
    let latch = std::sync::Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (store, latch) = (&store, &latch);
            scope.spawn(move || {
                for n in 0..4_000 {
                    let first = mixed(thread << 32 | n);
                    let mut prepared = store.prepare(batch(first..=first + n % 9, 20));
                    let mut stamp = latch.lock().unwrap();
                    *stamp += 1;
                    apply(store, &mut prepared, *stamp);
                    if *stamp % 3_000 == 0 {
                        assert!(store.rotate(Lsn::new(*stamp)));
                    }
                }
            });
        }
    });
    assert_eq!(store.stats().memtables, 6);
}

#[test]
fn an_adoption_allocates_nothing() {
    let disk = SimDisk::new(1);
    let store = store_on(Arc::clone(&disk));
    let mut stamp = 0;
    for round in 0..120_u64 {
        let runs = (1..4).map(|number| spill(&store, &disk, number, round..round + 5));
        let mut adoption = store
            .prepare_adoption(owner(), runs.collect())
            .expect("intact runs");
        // Beside it everything else goes on, and what it has seen may have gone when it comes to its turn.
        for _ in 0..round % 7 {
            stamp += 1;
            apply(&store, &mut store.prepare(batch([mixed(stamp)], 20)), stamp);
            if round < 40 && round % 3 == 0 {
                store.rotate(Lsn::new(stamp));
                store.flush(Lsn::new(stamp)).expect("an empty disk");
            }
        }
        stamp += 1;
        let mut prepared = (round % 2 == 0).then(|| store.prepare(batch(0..round, 20)));
        adopt(&store, &mut adoption, stamp, prepared.as_mut());
        drop((adoption, prepared));
        stamp += 1;
        apply(&store, &mut store.prepare(batch(0..3, 20)), stamp);
    }
    assert!(store.stats().adopted_runs >= 80 * 3);
    store.rotate(Lsn::new(stamp));
    store.flush(Lsn::new(stamp)).expect("an empty disk");
    let runs = store.runs().into_iter();
    let adopted = runs.filter(|run| matches!(run.origin, Origin::Adopted(_)));
    assert_eq!(adopted.count(), 120 * 3);
}

#[test]
fn a_promise_holds_behind_adoptions() {
    // W5: an adoption rotates, with a memtable that was made before others prepared what it will take.
    let disk = SimDisk::new(1);
    let store = store_on(Arc::clone(&disk));
    store.apply(batch([0], 20), Lsn::new(1));
    let many = |from: u64| {
        let singles = (from..from + 200).map(|n| batch(n * 64..n * 64 + 64, 20));
        let chunks = (from..from + 50).map(|n| batch(n..n + 100, 20));
        let all = singles.chain(chunks).map(|batch| store.prepare(batch));
        all.collect::<Vec<_>>()
    };
    let adoption = || store.prepare_adoption(owner(), vec![spill(&store, &disk, 1, 5..9)]);
    let mut prepared = many(0);
    let mut adoptions = [(); 2].map(|()| adoption().expect("intact runs"));
    prepared.extend(many(300));
    let mut rest = store.prepare(batch(0..64, 20));
    adopt(&store, &mut adoptions[0], 2, Some(&mut rest));
    adopt(&store, &mut adoptions[1], 3, None);
    prepared.extend(many(600));
    for (stamp, prepared) in (4..).zip(&mut prepared) {
        apply(&store, prepared, stamp);
    }
    let rows = 3 * (200 * 64 + 50 * 100);
    assert_eq!(store.stats().memory_versions, 1 + 64 + rows);
    drop(adoptions);
}
