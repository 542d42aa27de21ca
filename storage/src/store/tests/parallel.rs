//! Compactions beside each other, beside flushes, commits of either kind, drops and manifests, against a map: what each of them
//! does is decided by one thread, how they meet by chance. Readers beside all of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;
use std::thread;

use bytes::Bytes;
use lockstone_base::{RowKey, TableId};
use lockstone_testkit::SimDisk;

use super::super::*;
use super::adoption::{Writes, write_run};
use super::rig::*;
use crate::dead_subs::DeadSubs;

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

/// A commit of `writes`, which has spilled the first of them, so many.
fn commit(shared: &Shared, writes: &BTreeMap<RowKey, Option<Bytes>>, spilled: usize, stamp: u64) {
    let store = &shared.store;
    let pair = |(row, value): (&RowKey, &Option<Bytes>)| (row.clone(), value.clone());
    let rest = WriteBatch::from_sorted(writes.iter().skip(spilled).map(pair));
    if spilled == 0 {
        store.apply(rest, Lsn::new(stamp));
        return;
    }
    // What was spilled first was written again since.
    let stale = |(row, _): (&RowKey, _)| {
        (
            (row.clone(), Reverse(1)),
            Some(Bytes::from_static(b"stale")),
        )
    };
    let last = |(row, value): (&RowKey, &Option<Bytes>)| ((row.clone(), Reverse(2)), value.clone());
    let spills: [Writes; 2] = [
        writes.iter().map(stale).collect(),
        writes.iter().take(spilled).map(last).collect(),
    ];
    let runs = (1..).zip(&spills).flat_map(|(spill, writes)| {
        let entries = write_run(store, &*shared.disk, writes).into_iter();
        let dead = DeadSubs::NONE;
        entries.map(move |entry| AdoptedRun {
            entry,
            spill,
            through: Lsn::new(spill),
            dead: dead.clone(),
        })
    });
    let mut adoption = store
        .prepare_adoption(owner(stamp), runs.collect())
        .unwrap();
    let mut rest = store.prepare(rest);
    store.adopt(&mut adoption, Lsn::new(stamp), Some(&mut rest));
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
        let spilled = (draws.below(6) == 0).then(|| draws.below(count));
        commit(shared, &writes, spilled.unwrap_or_default() as usize, stamp);
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

fn shared(disk: &Arc<SimDisk>) -> Shared {
    let manifest = Manifest {
        uuid: UUID,
        salt: SALT,
        generation: 1,
        ..Manifest::default()
    };
    manifest.write(disk.as_ref()).unwrap();
    Shared {
        store: open(disk, SHAPE, &manifest, Vec::new()).unwrap(),
        disk: Arc::clone(disk) as Arc<dyn Disk>,
        manifest: Mutex::new(manifest),
        durable: AtomicU64::new(0),
        droppable: Mutex::default(),
        done: AtomicBool::new(false),
    }
}

/// W5: whoever loads the tail and then the list sees each commit whole, also one part of which was adopted.
#[test]
fn readers_beside_adoptions_see_whole_commits() {
    const ROWS: u64 = 40;
    const COMMITS: u64 = 400;
    let shared = shared(&SimDisk::new(1));
    let tail = AtomicU64::new(0);
    let reads = AtomicU64::new(0);
    let read = |direction: u64| {
        let at = tail.load(Ordering::SeqCst);
        let sources = shared.store.sources();
        if at == 0 || sources.drop_horizon().get() > at {
            return;
        }
        let all = sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::new(at));
        let all = if direction == 0 {
            rows(all)
        } else {
            rows(all.rev())
        };
        let want = at.to_string();
        assert_eq!(all.len() as u64, ROWS, "at {at}");
        assert!(
            all.iter().all(|(_, value)| value == want.as_bytes()),
            "at {at}: {all:?}"
        );
        for number in 0..ROWS {
            let found = sources
                .get(row(1, number).as_bytes(), Lsn::new(at))
                .unwrap();
            assert_eq!(found.unwrap().value.unwrap(), want.as_bytes());
        }
        reads.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|threads| {
        threads.spawn(|| shared.compact());
        for direction in 0..2 {
            let (shared, read) = (&shared, &read);
            threads.spawn(move || {
                while !shared.done.load(Ordering::SeqCst) {
                    read(direction);
                }
            });
        }
        let _ends = Ends(&shared.done);
        let mut draws = Draws(1);
        for stamp in 1..=COMMITS {
            let value = Bytes::from(stamp.to_string());
            let writes = (0..ROWS).map(|number| (row(1, number), Some(value.clone())));
            let spilled = draws.below(2) * draws.below(ROWS);
            commit(&shared, &writes.collect(), spilled as usize, stamp);
            tail.store(stamp, Ordering::SeqCst);
            if draws.below(5) == 0 {
                shared.store.rotate(Lsn::new(stamp));
                shared.durable.store(stamp, Ordering::SeqCst);
                shared.store.flush(Lsn::new(stamp)).unwrap();
                shared.publish();
                shared.droppable.lock().horizon = Lsn::new(stamp);
            }
        }
    });
    read(0);
    assert!(reads.load(Ordering::Relaxed) > 20, "{reads:?}");
}

#[test]
fn compactions_beside_each_other_and_everything_else_agree_with_a_map() {
    for seed in 1..=3 {
        let disk = SimDisk::new(seed);
        let shared = shared(&disk);
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
        let names = disk.names().into_iter();
        let files = names.filter(|name| !name.starts_with("manifest-"));
        assert_eq!(files.count(), shared.store.runs().len(), "S6");
        let after = disk.after_kill(disk.io_count());
        let newest = Manifest::read_newest(after.as_ref()).unwrap().unwrap();
        let store = open(&after, SHAPE, &newest, Vec::new()).unwrap();
        assert_agrees(&store.sources(), &model, model.tail, &[]);
    }
}
