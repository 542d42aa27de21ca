//! W2: applying a commit in the append latch neither allocates nor frees, whatever grows or rotates.
//!
//! A program of its own, because it counts what the whole program allocates in a thread.
#![forbid(unsafe_code)]

use bytes::Bytes;
use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_storage::{Manifest, Prepared, Store, StoreConfig, WriteBatch};
use lockstone_testkit::SimDisk;

fn store() -> Store {
    let manifest = Manifest {
        uuid: 1,
        salt: 2,
        ..Manifest::default()
    };
    Store::open(
        SimDisk::new(1),
        StoreConfig::default(),
        &manifest,
        Vec::new(),
    )
    .expect("an empty disk")
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
