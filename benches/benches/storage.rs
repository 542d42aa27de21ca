//! The hot paths of the committed store: preparing and applying a commit, reading a row from memory and
//! from a run, scanning both; beside a skip list as control.

use std::cmp::Reverse;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_skiplist::SkipMap;
use fastrand::Rng;
use lockstone_base::disk::{Disk, OsDisk};
use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_storage::{Manifest, Store, StoreConfig, WriteBatch};
use tempfile::TempDir;

/// As many as a memtable holds when it is sealed.
const ROWS: u64 = 275_000;
const VALUE: [u8; 100] = [7; 100];
/// As it reads a row that is there.
const NOW: Lsn = Lsn::MAX;

fn row(id: u64) -> RowKey {
    let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    RowKey::new(
        TableId(1),
        &[id.to_be_bytes(), mixed.to_be_bytes()].concat(),
    )
}

fn batch(id: u64) -> WriteBatch {
    WriteBatch::from_sorted(vec![(row(id), Some(Bytes::from_static(&VALUE)))])
}

struct Place {
    store: Store,
    _dir: TempDir,
}

impl Place {
    /// An empty store.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk: Arc<dyn Disk> =
            Arc::new(OsDisk::open(dir.path(), false).expect("it was made just now"));
        let manifest = Manifest {
            uuid: 1,
            salt: 2,
            next_run: 1,
            ..Manifest::default()
        };
        let store =
            Store::open(disk, StoreConfig::default(), &manifest, Vec::new()).expect("no runs yet");
        Self { store, _dir: dir }
    }

    /// A store whose rows are in its memtable, each committed by itself, in random order.
    fn in_memory() -> Self {
        let place = Self::new();
        let mut ids: Vec<_> = (0..ROWS).collect();
        Rng::with_seed(1).shuffle(&mut ids);
        for (stamp, id) in (1..).zip(ids) {
            place.store.apply(batch(id), Lsn::new(stamp));
        }
        place
    }

    /// A store whose rows are in one run.
    fn in_a_run() -> Self {
        let place = Self::in_memory();
        let end = Lsn::new(ROWS);
        place.store.rotate(end);
        place.store.flush(end.plus(1)).expect("room for a run");
        assert_eq!(place.store.stats().runs, 1);
        place
    }
}

fn insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage");
    group.throughput(Throughput::Elements(1));
    let place = Place::in_memory();
    let mut rng = Rng::with_seed(2);
    group.bench_function("prepare", |b| {
        b.iter_batched(
            || batch(rng.u64(0..ROWS)),
            |batch| place.store.prepare(batch),
            BatchSize::SmallInput,
        );
    });
    let mut stamp = ROWS;
    group.bench_function("apply", |b| {
        b.iter_batched(
            || place.store.prepare(batch(rng.u64(0..ROWS))),
            |mut prepared| {
                stamp += 1;
                place.store.apply_prepared(&mut prepared, Lsn::new(stamp));
                prepared
            },
            BatchSize::SmallInput,
        );
    });
}

/// What the memtable replaced: an ordered map of versions, newest first within a row.
fn control(c: &mut Criterion) {
    let mut group = c.benchmark_group("control");
    group.throughput(Throughput::Elements(1));
    let list = SkipMap::new();
    let mut ids: Vec<_> = (0..ROWS).collect();
    Rng::with_seed(1).shuffle(&mut ids);
    for (stamp, id) in (1..).zip(ids) {
        list.insert((row(id), Reverse(stamp)), Bytes::from_static(&VALUE));
    }
    let mut rng = Rng::with_seed(2);
    let mut stamp = ROWS;
    group.bench_function("skip list insert", |b| {
        b.iter_batched(
            || row(rng.u64(0..ROWS)),
            |row| {
                stamp += 1;
                list.insert((row, Reverse(stamp)), Bytes::from_static(&VALUE));
            },
            BatchSize::SmallInput,
        );
    });
    for (name, ids) in [
        ("skip list get", 0..ROWS),
        ("skip list get of no row", ROWS..2 * ROWS),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let row = row(rng.u64(ids.clone()));
                let found = list.lower_bound(Bound::Included(&(row.clone(), Reverse(u64::MAX))));
                black_box(found.is_some_and(|found| found.key().0 == row))
            });
        });
    }
}

fn get(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage");
    group.throughput(Throughput::Elements(1));
    for (name, place) in [
        ("memtable get", Place::in_memory()),
        ("run get", Place::in_a_run()),
    ] {
        let mut rng = Rng::with_seed(3);
        group.bench_function(name, |b| {
            b.iter(|| {
                let row = row(rng.u64(0..ROWS));
                let found = place
                    .store
                    .sources()
                    .get(row.as_bytes(), NOW)
                    .expect("intact");
                assert!(black_box(found).is_some());
            });
        });
    }
    for (name, place) in [
        ("memtable get of no row", Place::in_memory()),
        ("run get of no row", Place::in_a_run()),
    ] {
        let mut rng = Rng::with_seed(4);
        group.bench_function(name, |b| {
            b.iter(|| {
                let row = row(ROWS + rng.u64(0..ROWS));
                let found = place
                    .store
                    .sources()
                    .get(row.as_bytes(), NOW)
                    .expect("intact");
                assert!(black_box(found).is_none());
            });
        });
    }
}

fn scan(c: &mut Criterion) {
    const SCANNED: usize = 1_000;
    let mut group = c.benchmark_group("storage");
    group.throughput(Throughput::Elements(SCANNED as u64));
    for (name, place) in [
        ("memtable scan", Place::in_memory()),
        ("run scan", Place::in_a_run()),
    ] {
        let mut rng = Rng::with_seed(5);
        group.bench_function(name, |b| {
            b.iter(|| {
                let from = row(rng.u64(0..ROWS - SCANNED as u64)).to_bytes();
                let scan = place
                    .store
                    .sources()
                    .scan((Bound::Included(from), Bound::Unbounded), NOW);
                let rows = scan
                    .take(SCANNED)
                    .filter(|row| black_box(row).is_ok())
                    .count();
                assert_eq!(rows, SCANNED);
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = control, insert, get, scan
}
criterion_main!(benches);
