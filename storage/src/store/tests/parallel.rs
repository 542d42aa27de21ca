//! Compactions beside each other, beside flushes, commits, drops and manifests, against a map: what each of them does
//! is decided by one thread, how they meet by chance.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;
use std::thread;

use lockstone_base::{RowKey, TableId};
use lockstone_testkit::SimDisk;

use super::super::*;
use super::rig::*;

/// Small enough that several jobs find rows of their own in each of several levels.
const SHAPE: Shape = Shape {
    level_0_runs: 2,
    base_bytes: 4000,
    run_bytes: 900,
};
const TABLES: u32 = 4;
const COMPACTORS: usize = 3;

struct Shared {
    store: Store,
    disk: Arc<dyn Disk>,
    manifest: Mutex<Manifest>,
    durable: AtomicU64,
    droppable: Mutex<Droppable>,
    done: AtomicBool,
}

impl Shared {
    fn publish(&self) {
        let mut newest = self.manifest.lock();
        let part = self.store.part();
        let next = Manifest {
            generation: newest.generation + 1,
            durable: Lsn::new(self.durable.load(Ordering::SeqCst)).max(part.flushed_through),
            flushed_through: part.flushed_through,
            next_run: part.next_run,
            runs: part.runs,
            ..newest.clone()
        };
        next.write(self.disk.as_ref()).unwrap();
        *newest = next;
        self.store.manifest_written(&newest).unwrap();
    }

    fn step(&self) -> bool {
        let droppable = self.droppable.lock().clone();
        let worked = self.store.compact(&droppable, &GO_ON).unwrap();
        if worked {
            self.publish();
        }
        worked
    }

    fn compact(&self) {
        while !self.done.load(Ordering::SeqCst) {
            if !self.step() {
                thread::yield_now();
            }
        }
    }
}

/// Ends the compactors, also when what drives them fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Draws(u64);

impl Draws {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn row(table: u32, number: u64) -> RowKey {
    RowKey::new(TableId(table), format!("{number:04}").as_bytes())
}

/// That `sources` says of every row at `at` what the model says; rows of dropped tables may be there or not.
fn assert_agrees(sources: &Arc<Sources>, model: &Model, at: u64, dropped: &[TableId]) {
    let want = model.live(at);
    let all = rows(sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::new(at)));
    let is_there = |row: &[u8]| {
        !dropped
            .iter()
            .any(|table| row.starts_with(&table.0.to_be_bytes()))
    };
    let found: Vec<_> = all.into_iter().filter(|(row, _)| is_there(row)).collect();
    assert_eq!(found, want, "at {at}");
    for (row, versions) in &model.rows {
        let found = sources.get(row, Lsn::new(at)).unwrap();
        let newest = versions.range(..=at).next_back();
        let want = newest.and_then(|(_, value)| value.clone());
        assert_eq!(found.and_then(|found| found.value), want, "{row:?} at {at}");
    }
}

/// Commits, rotations, flushes, drops and reads; what is open at the end is for the caller to compare.
fn drive(shared: &Shared, rounds: u64, draws: &mut Draws) -> Model {
    let store = &shared.store;
    let mut model = Model::default();
    let mut dropped = Vec::new();
    let mut held: Option<(Arc<Sources>, u64)> = None;
    for round in 1..=rounds {
        let stamp = model.tail + 1 + draws.below(3);
        let gone = dropped.len() as u32;
        let table = 1 + gone + draws.below(u64::from(TABLES - gone)) as u32;
        let (from, count) = (draws.below(600), 1 + draws.below(30));
        let deletes = draws.below(4) == 0;
        let step = 1 + draws.below(9);
        let writes: BTreeMap<_, _> = (0..count)
            .map(|n| {
                let number = (from + n * step) % 600;
                let value =
                    (!deletes).then(|| value(stamp, number as u32, draws.below(40) as usize));
                (row(table, number), value)
            })
            .collect();
        let batch = writes
            .iter()
            .map(|(row, value)| (row.clone(), value.clone()));
        store.apply(WriteBatch::from_sorted(batch), Lsn::new(stamp));
        model.commit(&writes, stamp);
        if draws.below(4) == 0 {
            store.rotate(Lsn::new(model.tail));
            shared.durable.store(model.tail, Ordering::SeqCst);
            store.flush(Lsn::new(model.tail)).unwrap();
            shared.publish();
        }
        if draws.below(3) == 0 {
            let oldest = held.as_ref().map_or(model.tail, |(_, at)| *at);
            let horizon = model.tail.saturating_sub(draws.below(30)).min(oldest);
            let mut droppable = shared.droppable.lock();
            droppable.horizon = droppable.horizon.max(Lsn::new(horizon));
        }
        if round % (rounds / 3) == 0 {
            let gone = TableId(1 + dropped.len() as u32);
            held = None;
            dropped.push(gone);
            model
                .rows
                .retain(|row, _| !row.starts_with(&gone.0.to_be_bytes()));
            let mut droppable = shared.droppable.lock();
            droppable.horizon = droppable.horizon.max(Lsn::new(model.tail));
            droppable.tables.clone_from(&dropped);
        }
        if draws.below(20) == 0 {
            let horizon = shared.droppable.lock().horizon.get();
            let at = horizon + draws.below(model.tail - horizon + 1);
            // An old list, read again at the end of its life; and the newest, at what must still be there.
            if let Some((sources, at)) = held.replace((store.sources(), at)) {
                assert_agrees(&sources, &model_at(&model, at), at, &dropped);
                assert_agrees(&store.sources(), &model_at(&model, at), at, &dropped);
            }
            assert_agrees(&store.sources(), &model, model.tail, &dropped);
        }
    }
    model
}

/// What an old list can know.
fn model_at(model: &Model, at: u64) -> Model {
    let mut model = model.clone();
    for versions in model.rows.values_mut() {
        versions.retain(|stamp, _| *stamp <= at);
    }
    model
}

#[test]
fn compactions_beside_each_other_and_everything_else_agree_with_a_map() {
    for seed in 1..=3 {
        let disk = SimDisk::new(seed);
        let manifest = Manifest {
            uuid: UUID,
            salt: SALT,
            generation: 1,
            ..Manifest::default()
        };
        manifest.write(disk.as_ref()).unwrap();
        let shared = Shared {
            store: open(&disk, SHAPE, &manifest, Vec::new()).unwrap(),
            disk: Arc::clone(&disk) as Arc<dyn Disk>,
            manifest: Mutex::new(manifest),
            durable: AtomicU64::new(0),
            droppable: Mutex::default(),
            done: AtomicBool::new(false),
        };
        let model = thread::scope(|threads| {
            for _ in 0..COMPACTORS {
                threads.spawn(|| shared.compact());
            }
            let _ends = Ends(&shared.done);
            drive(&shared, 1500, &mut Draws(seed))
        });
        shared.store.rotate(Lsn::new(model.tail));
        shared.durable.store(model.tail, Ordering::SeqCst);
        shared.store.flush(Lsn::new(model.tail)).unwrap();
        shared.publish();
        while shared.step() {}
        let stats = shared.store.stats();
        assert!(
            stats.compactions > 100 && stats.levels.len() > 2,
            "{stats:?}"
        );
        assert_eq!((stats.replaced_runs, stats.damaged_runs), (0, 0));
        let gone: Vec<_> = shared.droppable.lock().tables.clone();
        assert_eq!(gone.len(), 3);
        for table in &gone {
            assert!(
                shared.store.is_gone(*table, Lsn::new(model.tail)),
                "S7: {table:?}"
            );
        }
        // Nothing of what was dropped is left, so nothing need be left out.
        assert_agrees(&shared.store.sources(), &model, model.tail, &[]);
        let check = shared.store.check(&mut |_, _| {}).unwrap();
        assert!(
            check.findings.is_empty() && check.orphans.is_empty(),
            "{check:?}"
        );
        let files = disk
            .names()
            .into_iter()
            .filter(|name| name.starts_with("run-"));
        assert_eq!(files.count(), shared.store.runs().len(), "S6");
        let after = disk.after_kill(disk.io_count());
        let newest = Manifest::read_newest(after.as_ref()).unwrap().unwrap();
        let store = open(&after, SHAPE, &newest, Vec::new()).unwrap();
        assert_agrees(&store.sources(), &model, model.tail, &[]);
    }
}
