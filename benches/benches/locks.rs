//! The hot paths of the lock table: taking free locks and giving them back, alone and beside another
//! thread, a SHARED table, a range, and the conflict matrix.

use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockstone_base::{LockMode, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    Decision, LockTable, Notify, Owner, Policy, RangeRequest, Request, RowRange, TableLock, Wakes,
    conflicts,
};

/// Nobody waits here.
struct NeverWoken;

impl Notify for NeverWoken {
    fn notify(&self) {}
}

fn begin(table: &LockTable, sequence: u64) -> Arc<Owner> {
    let owner = table.begin(TxnId::new(1, sequence), None, Arc::new(NeverWoken));
    owner.settle(Priority::auto().settle(sequence as u32, false));
    owner
}

/// Rows that only this thread asks for.
fn rows(thread: u64, count: u64) -> Vec<RowKey> {
    (0..count)
        .map(|id| {
            RowKey::new(
                TableId(1),
                &[thread.to_be_bytes(), id.to_be_bytes()].concat(),
            )
        })
        .collect()
}

/// One transaction: locks all of `rows`, commits, releases.
fn lock_and_end(table: &LockTable, sequence: u64, rows: &[RowKey]) {
    let owner = begin(table, sequence);
    let mut wakes = Wakes::new();
    for row in rows {
        let request = Request {
            row,
            mode: LockMode::Update,
            writes: false,
            sub: 0,
            policy: Policy::Wait,
        };
        let decision = table.request(&owner, request, &mut wakes);
        assert!(
            matches!(decision, Decision::Granted(_)),
            "nobody else wants it"
        );
    }
    commit(table, &owner, &mut wakes);
}

fn commit(table: &LockTable, owner: &Arc<Owner>, wakes: &mut Wakes) {
    assert!(owner.try_commit());
    owner.released();
    table.end(owner, wakes);
    wakes.fire();
}

fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("locks");
    // Without any: what the others take besides their locks.
    for locks in [0, 1, 1_000] {
        group.throughput(Throughput::Elements(locks.max(1)));
        group.bench_function(BenchmarkId::new("request and end", locks), |b| {
            let (table, rows) = (LockTable::new(1), rows(0, locks));
            let mut sequence = 0;
            b.iter(|| {
                sequence += 1;
                lock_and_end(&table, sequence, &rows);
            });
        });
    }
    group.finish();
}

/// A transaction that commits when it is dropped, which is not measured.
struct Live<'a> {
    table: &'a LockTable,
    owner: Arc<Owner>,
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        commit(self.table, &self.owner, &mut Wakes::new());
    }
}

/// Taking a table SHARED, alone: as the difference of two series with and without it, it would be lost in what a transaction costs.
fn shared_table(c: &mut Criterion) {
    let (table, lock) = (LockTable::new(1), TableLock::new(TableId(1)));
    let sequence = AtomicU64::new(0);
    let live = || Live {
        table: &table,
        owner: begin(&table, sequence.fetch_add(1, Ordering::Relaxed)),
    };
    c.bench_function("locks/share a table for the first time", |b| {
        let share = |live: &mut Live<'_>| table.share(&live.owner, &lock);
        b.iter_batched_ref(live, share, BatchSize::NumIterations(100));
    });
    c.bench_function("locks/share a table again", |b| {
        let live = live();
        b.iter(|| table.share(&live.owner, black_box(&lock)));
    });
}

/// One transaction that takes a range in which nothing is locked: it visits every shard.
fn range(c: &mut Criterion) {
    c.bench_function("locks/lock a range and end", |b| {
        let range = RowRange::new(TableId(1), Bound::Unbounded, Bound::Unbounded);
        let (table, range) = (LockTable::new(1), Arc::new(range));
        let mut sequence = 0;
        b.iter(|| {
            sequence += 1;
            let (owner, mut wakes) = (begin(&table, sequence), Wakes::new());
            let request = RangeRequest {
                range: &range,
                mode: LockMode::Update,
                sub: 0,
                policy: Policy::Wait,
            };
            let decision = table.request_range(&owner, request, &mut wakes);
            assert!(matches!(decision, Decision::Granted(_)), "it is free");
            commit(&table, &owner, &mut wakes);
        });
    });
}

/// Ends the other thread, whatever happens to this one.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The measured thread's rate while another does the same on rows of its own.
fn beside_another(c: &mut Criterion) {
    const LOCKS: u64 = 1_000;
    let table = LockTable::new(1);
    let (sequence, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let lock_all =
        |rows: &[RowKey]| lock_and_end(&table, sequence.fetch_add(1, Ordering::Relaxed), rows);
    thread::scope(|scope| {
        scope.spawn(|| {
            let rows = rows(1, LOCKS);
            while !over.load(Ordering::Relaxed) {
                lock_all(&rows);
            }
        });
        let _stops = Stops(&over);
        let mut group = c.benchmark_group("locks");
        group.throughput(Throughput::Elements(LOCKS));
        let rows = rows(0, LOCKS);
        group.bench_function("request and end/1000 beside another thread", |b| {
            b.iter(|| lock_all(&rows));
        });
        group.finish();
    });
}

fn matrix(c: &mut Criterion) {
    c.bench_function("locks/conflict matrix, all 16 pairs", |b| {
        b.iter(|| {
            let pairs = LockMode::ALL
                .into_iter()
                .flat_map(|asked| LockMode::ALL.map(|held| (asked, held)));
            let refused =
                pairs.filter(|(asked, held)| conflicts(black_box(*asked), black_box(*held)));
            assert!(refused.count() < 16);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = uncontended, shared_table, range, beside_another, matrix
}
criterion_main!(benches);
