//! Compactions one by one: what they take, where it goes, what they drop, and what they leave alone.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lockstone_base::disk::{Disk, DiskOp};
use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_testkit::{HookedDisk, SimDisk, Survivors};

use super::super::compact::Aim;
use super::super::*;
use super::rig::*;
use crate::error::Damage;
use crate::manifest::{LEVEL_MAX, ListedRun};

/// Small runs, one level: every row has its place in one of many runs.
const MANY_RUNS: Shape = Shape {
    level_0_runs: 2,
    base_bytes: 1 << 30,
    run_bytes: 600,
};

/// Takes down what is in level 0.
const TOP: Aim = Aim::Level {
    level: 0,
    below: u64::MAX,
};

fn key(number: u32) -> RowKey {
    RowKey::new(TableId(1), format!("{number:05}").as_bytes())
}

pub(super) fn names_of_runs(disk: &SimDisk) -> BTreeSet<String> {
    let names = disk.names().into_iter();
    names.filter(|name| name.starts_with("run-")).collect()
}

impl Rig {
    fn put_all(&mut self, numbers: impl Iterator<Item = u32>, bytes: usize) {
        let stamp = self.model.tail + 1;
        let row = |n| (key(n), Some(value(stamp, n, bytes)));
        self.commit(&numbers.map(row).collect());
    }

    fn delete_all(&mut self, numbers: impl Iterator<Item = u32>) {
        self.commit(&numbers.map(|n| (key(n), None)).collect());
    }

    /// Runs compactions, each with a manifest behind it, until none is due.
    fn settle(&mut self, horizon: u64) -> usize {
        let mut done = 0;
        while self.compact(horizon).unwrap() {
            self.write_manifest().unwrap();
            self.assert_levels();
            done += 1;
            assert!(done < 1000, "compactions come to an end");
        }
        done
    }

    fn compact_for(&mut self, aim: Aim) {
        let droppable = Droppable::default();
        assert!(self.store.compact_for(aim, &droppable, &GO_ON).unwrap());
        self.write_manifest().unwrap();
    }

    fn levels(&self) -> Vec<ListedRun> {
        self.store.part().runs
    }

    pub(super) fn runs_in(&self, level: u8) -> Vec<RunEntry> {
        let runs = self.levels().into_iter();
        let runs = runs.filter(|run| run.level == level);
        runs.map(|run| run.entry).collect()
    }

    /// That every row has its versions in order from the top down, and no row is twice in a level.
    fn assert_levels(&self) {
        let manifest = self.next_manifest();
        let bytes = manifest.encode();
        let read = Manifest::decode(self.disk.as_ref(), "manifest", &bytes).unwrap();
        assert_eq!(read, manifest, "W5");
    }
}

/// A rig whose rows stand in several levels, some with old versions above, some deleted.
pub(super) fn rig_with_levels() -> Rig {
    let mut rig = Rig::shaped(MANY_LEVELS);
    for round in 0..12 {
        rig.put_all((0..40).map(|n| (n * 7 + round * 3) % 90), 200);
        rig.delete_all((0..5).map(|n| (n * 11 + round) % 90));
        rig.checkpoint();
        rig.settle(0);
    }
    let used: BTreeSet<u8> = rig.levels().iter().map(|run| run.level).collect();
    assert!(used.len() >= 2, "{used:?}");
    rig
}

#[test]
fn rows_sink_through_the_levels_and_stay_readable() {
    let mut rig = rig_with_levels();
    rig.assert_readable();
    rig.settle(rig.model.tail);
    rig.assert_readable();
    assert!(rig.check().findings.is_empty());
    let sizes = rig.store.stats().levels;
    assert!(sizes[6].bytes >= sizes[5].bytes, "{sizes:?}");
}

#[test]
fn a_sorted_load_is_moved_down_and_never_rewritten() {
    let mut rig = Rig::new();
    for round in 0..9 {
        rig.put_all(round * 50..(round + 1) * 50, 20);
        rig.checkpoint();
        let before = names_of_runs(&rig.disk);
        rig.settle(rig.model.tail);
        assert_eq!(names_of_runs(&rig.disk), before, "no file is made or goes");
    }
    let stats = rig.store.stats();
    assert!(stats.compactions >= 2 && stats.compaction_written_bytes == 0);
    assert!(stats.levels[6].runs >= 6, "{:?}", stats.levels);
    rig.assert_readable();
}

#[test]
fn a_run_is_not_moved_below_an_older_one_that_stays() {
    let mut rig = Rig::shaped(Shape {
        level_0_runs: 5,
        ..ONE_LEVEL
    });
    for _ in 0..5 {
        rig.put_all(0..40, 30);
        rig.checkpoint();
    }
    rig.settle(0);
    // The first shares rows with the bottom, the second with the first alone: both stay, and three are moved.
    for rows in [20..60, 50..55, 100..110, 200..210, 300..310] {
        rig.put_all(rows, 30);
        rig.checkpoint();
    }
    assert!(rig.compact(0).unwrap());
    assert_eq!(rig.runs_in(0).len(), 2, "W5");
    assert_eq!(rig.runs_in(LEVEL_MAX).len(), 4);
    rig.write_manifest().unwrap();
    rig.assert_levels();
    rig.assert_readable();
}

#[test]
fn outputs_are_cut_between_rows_and_share_none() {
    let mut rig = Rig::shaped(MANY_RUNS);
    for _ in 0..120 {
        // Many versions of few rows: more than fits a run, all of it kept.
        rig.put_all(0..6, 40);
    }
    rig.checkpoint();
    rig.put_all(0..200, 300);
    rig.checkpoint();
    assert!(rig.compact(0).unwrap());
    rig.write_manifest().unwrap();
    let runs = rig.runs_in(LEVEL_MAX);
    assert!(runs.len() > 10, "{}", runs.len());
    assert!(runs.is_sorted_by(|a, b| a.largest < b.smallest), "W5");
    assert_eq!(runs[0].rows, 1, "one row is larger than a run");
    rig.assert_readable();
}

/// A tombstone that went while a deeper level still had the row: the old value came back.
#[test]
fn a_tombstone_stays_while_a_deeper_level_can_have_its_row() {
    let mut rig = rig_with_levels();
    let tail = rig.model.tail;
    rig.put_all(0..90, 60);
    rig.delete_all(0..90);
    rig.checkpoint();
    let gone = |rig: &Rig| {
        let sources = rig.store.sources();
        for n in 0..90 {
            let found = sources.get(key(n).as_bytes(), Lsn::new(rig.model.tail));
            assert!(found.unwrap().is_none_or(|version| version.value.is_none()));
        }
    };
    assert!(rig.model.live(tail).len() > 30 && rig.model.live(rig.model.tail).is_empty());
    // One step at a time: whatever goes goes for good.
    for _ in 0..200 {
        gone(&rig);
        if !rig.compact(rig.model.tail).unwrap() {
            break;
        }
        rig.write_manifest().unwrap();
    }
    rig.compact_whole(rig.model.tail).unwrap();
    gone(&rig);
    assert!(
        rig.store.runs().is_empty(),
        "at the bottom the tombstones go"
    );
}

#[test]
fn a_whole_compaction_leaves_one_live_version_of_each_row_at_the_bottom() {
    let mut rig = rig_with_levels();
    let horizon = rig.model.tail;
    rig.compact_whole(horizon).unwrap();
    assert!(rig.levels().iter().all(|run| run.level == LEVEL_MAX));
    let versions: u64 = rig.store.runs().iter().map(|run| run.versions).sum();
    assert_eq!(versions, rig.model.live(horizon).len() as u64);
    rig.assert_readable();
    // Everything is settled: once more does nothing.
    let before = rig.store.runs();
    rig.compact_whole(horizon).unwrap();
    assert_eq!(rig.store.runs(), before);
}

#[test]
fn settled_rows_get_one_stamp_below_everything_newer() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        rig.put_all(0..50, 20);
        rig.checkpoint();
    }
    let horizon = rig.model.tail;
    rig.settle(horizon);
    let [run] = &rig.runs_in(LEVEL_MAX)[..] else {
        panic!("one run");
    };
    assert_eq!(run.oldest, run.newest, "one stamp for all");
    assert!(
        run.newest <= Lsn::new(horizon),
        "W7: visible to all who may read"
    );
    rig.put_all(10..20, 20);
    rig.delete_all(5..12);
    rig.assert_readable();
    rig.checkpoint();
    rig.compact_whole(rig.model.tail).unwrap();
    rig.assert_readable();
    // Where a snapshot is open, every version keeps its own.
    let mut rig = Rig::new();
    for _ in 0..3 {
        rig.put_all(0..50, 20);
        rig.checkpoint();
    }
    rig.settle(1);
    let run = &rig.runs_in(LEVEL_MAX)[0];
    assert!(run.oldest < run.newest);
    for at in 1..=rig.model.tail {
        rig.assert_reads(&rig.store.sources(), at);
    }
}

#[test]
fn a_reader_keeps_the_files_of_its_list() {
    let mut rig = rig_with_levels();
    let tail = rig.model.tail;
    let sources = rig.store.sources();
    let old: BTreeSet<_> = rig
        .store
        .runs()
        .iter()
        .map(|run| file_name::run(run.number))
        .collect();
    rig.put_all(0..90, 10);
    rig.checkpoint();
    rig.compact_whole(rig.model.tail).unwrap();
    assert!(
        old.is_subset(&names_of_runs(&rig.disk)),
        "S6: a reader has them"
    );
    assert_eq!(rig.store.orphans(&rig.disk.names()), Vec::<String>::new());
    rig.assert_reads(&sources, tail);
    drop(sources);
    assert!(rig.store.reclaim().unwrap() > 0);
    let listed: BTreeSet<_> = rig
        .store
        .runs()
        .iter()
        .map(|run| file_name::run(run.number))
        .collect();
    assert_eq!(
        names_of_runs(&rig.disk),
        listed,
        "S6: nobody has them any more"
    );
    rig.assert_readable();
}

/// W7: who took its list before the horizon rose reads from it what was dropped since.
#[test]
fn a_list_taken_before_a_compaction_has_what_the_compaction_drops() {
    let mut rig = rig_with_levels();
    let (before, horizon) = (rig.store.sources(), rig.model.tail);
    let at = before.drop_horizon().get().max(horizon / 2);
    rig.compact_whole(horizon).unwrap();
    let after = rig.store.sources();
    assert_eq!(after.drop_horizon(), Lsn::new(horizon), "W7");
    assert!(before.drop_horizon() <= Lsn::new(at));
    rig.assert_reads(&before, at);
}

#[test]
fn rows_of_a_dropped_table_go_and_runs_that_have_no_others_are_not_read() {
    let mut rig = Rig::shaped(MANY_RUNS);
    let table = |id: u32, n: u32| RowKey::new(TableId(id), format!("{n:04}").as_bytes());
    for round in 0..2 {
        let stamp = rig.model.tail + 1;
        let rows = (1..=3).flat_map(|id| {
            (0..80).map(move |n| (table(id, n), Some(value(stamp, n, 200 + round))))
        });
        rig.commit(&rows.collect());
        rig.checkpoint();
    }
    rig.settle(0);
    let dropped_at = rig.model.tail + 1;
    rig.model.tail = dropped_at;
    rig.rotate();
    rig.flush().unwrap();
    rig.write_manifest().unwrap();
    let droppable = Droppable {
        horizon: Lsn::new(dropped_at),
        tables: vec![TableId(2)],
    };
    let at = Lsn::new(dropped_at);
    assert!(!rig.store.is_gone(TableId(2), at));
    // Whole runs vanish unread, even from a disk that cannot be read.
    rig.disk
        .fail_matching(DiskOp::Read, "run-", ErrorKind::Other);
    let runs = rig.store.runs().len();
    let mut unread = 0;
    while rig.store.compact(&droppable, &GO_ON).is_ok_and(|done| done) {
        unread += 1;
    }
    rig.disk.clear_faults();
    assert!(
        unread >= 2 && rig.store.runs().len() == runs - unread,
        "{unread} of {runs}"
    );
    while rig.store.compact(&droppable, &GO_ON).unwrap() {
        rig.write_manifest().unwrap();
    }
    assert!(rig.store.is_gone(TableId(2), at), "S7");
    assert!(!rig.store.is_gone(TableId(1), at) && rig.store.is_gone(TableId(9), at));
    rig.model.rows.retain(|row, _| row[..4] != [0, 0, 0, 2]);
    rig.assert_reads(&rig.store.sources(), dropped_at);
    let whole = (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(rig.store.sources().scan(whole, Lsn::MAX).count(), 160);
}

#[test]
fn a_stopped_compaction_changes_nothing() {
    let mut rig = rig_with_levels();
    rig.put_all(0..90, 40);
    rig.checkpoint();
    rig.put_all(0..90, 40);
    rig.checkpoint();
    let (runs, names) = (rig.store.runs(), names_of_runs(&rig.disk));
    let droppable = Droppable::default();
    let stop = AtomicBool::new(true);
    assert!(!rig.store.compact(&droppable, &stop).unwrap());
    assert_eq!((rig.store.runs(), names_of_runs(&rig.disk)), (runs, names));
    // What it took is free again.
    assert!(rig.compact(0).unwrap());
    rig.assert_readable();
}

#[test]
fn a_damaged_run_fails_one_job_and_is_left_alone() {
    let mut rig = rig_with_levels();
    let victim = rig.runs_in(LEVEL_MAX)[0].clone();
    rig.disk.flip_byte(&file_name::run(victim.number), 60);
    let run_was_named = |error: &StorageError, rig: &Rig| {
        matches!(error, StorageError::Corrupt { file, .. }
            if *file == rig.disk.path(&file_name::run(victim.number)))
    };
    let mut failures = 0;
    for round in 0..20 {
        rig.put_all((0..40).map(|n| (n * 5 + round) % 90), 200);
        rig.checkpoint();
        for _ in 0..100 {
            match rig.compact(0) {
                Ok(true) => rig.write_manifest().unwrap(),
                Ok(false) => break,
                Err(error) => {
                    assert!(run_was_named(&error, &rig), "F11: {error}");
                    failures += 1;
                }
            }
        }
    }
    assert_eq!(failures, 1, "F11: it is tried once");
    let stats = rig.store.stats();
    assert_eq!(stats.damaged_runs, 1);
    assert!(stats.compactions > 10, "what can be compacted is");
    assert!(
        rig.store.runs().contains(&victim),
        "F11: it stays, with what can be read of it"
    );
}

#[test]
fn a_full_disk_fails_the_job_and_leaves_no_file() {
    let mut rig = rig_with_levels();
    rig.put_all(0..90, 3000);
    rig.checkpoint();
    rig.put_all(0..90, 3000);
    rig.checkpoint();
    let (runs, names) = (rig.store.runs(), names_of_runs(&rig.disk));
    rig.disk.set_capacity(Some(rig.disk.room_taken() + 20_000));
    let error = rig.compact(0).unwrap_err();
    assert!(
        matches!(error, StorageError::Disk(ref error) if error.is_full()),
        "F10: {error}"
    );
    assert_eq!((rig.store.runs(), names_of_runs(&rig.disk)), (runs, names));
    rig.assert_readable();
    rig.disk.set_capacity(None);
    assert!(rig.compact(0).unwrap());
    rig.assert_readable();
}

#[test]
fn runs_that_share_rows_in_a_level_are_refused_at_open() {
    let rig = rig_with_levels();
    let mut manifest = rig.manifest.clone();
    let twice: Vec<_> = (0..manifest.runs.len())
        .filter(|at| manifest.runs[*at].level == LEVEL_MAX)
        .collect();
    let [first, second, ..] = twice[..] else {
        panic!("several runs at the bottom");
    };
    manifest.runs[first].entry.largest = manifest.runs[second].entry.largest.clone();
    let bytes = manifest.encode();
    let name = file_name::manifest(manifest.generation);
    rig.disk.write_file(&name, &bytes);
    let error = Manifest::read_newest(rig.disk.as_ref()).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::Corrupt {
                what: Damage::Malformed { .. },
                ..
            }
        ),
        "W5: {error}"
    );
}

/// What decides about jobs looks at no run of which the level does not know already that there is something to do.
#[test]
fn a_level_knows_of_its_runs_what_a_look_at_each_would_show() {
    let mut rig = rig_with_levels();
    rig.commit(&(0..60).map(|n| (row(n), Some(value(1, n, 300)))).collect());
    rig.checkpoint();
    rig.settle(rig.model.tail);
    // Rows that never were: nothing but tombstones.
    rig.delete_all(1000..1400);
    rig.checkpoint();
    rig.compact_whole(0).unwrap();
    let sources = rig.store.sources();
    let numbers = |runs: Vec<&Arc<Run>>| {
        runs.iter()
            .map(|run| run.entry().number)
            .collect::<Vec<_>>()
    };
    let (mut deleting, mut spanning) = (0, 0);
    for level in 1..=LEVEL_MAX {
        let all = || sources.tree.runs_of(level).iter();
        let found = numbers(sources.tree.deleting(level).collect());
        let half = |run: &&Arc<Run>| run.entry().tombstones * 2 >= run.entry().versions;
        assert_eq!(
            found,
            numbers(all().filter(half).collect()),
            "level {level}"
        );
        deleting += found.len();
        for table in (0..4).map(TableId) {
            let found = numbers(sources.tree.spanning(level, table).iter().collect());
            let spans = |run: &&Arc<Run>| run.entry().spans_table(table);
            assert_eq!(
                found,
                numbers(all().filter(spans).collect()),
                "level {level}"
            );
            spanning += found.len();
        }
        let catalogue = rig.store.catalogue.lock();
        assert_eq!(catalogue.taken.bytes_of(level), 0);
    }
    assert!(deleting > 0 && spanning > 2, "{deleting} {spanning}");
}

#[test]
fn what_a_job_takes_of_a_level_is_told_until_it_ends() {
    let mut rig = Rig::new();
    rig.put_all(0..90, 40);
    rig.checkpoint();
    rig.compact_whole(0).unwrap();
    rig.put_all(0..90, 40);
    rig.checkpoint();
    let job = rig.store.begin(TOP, &Droppable::default()).unwrap();
    assert!(job.inputs.len() > job.upper && job.from < job.to);
    let bytes = |level| rig.store.catalogue.lock().taken.bytes_of(level);
    let (from, to) = (job.from, job.to);
    let upper: u64 = job.inputs[..job.upper]
        .iter()
        .map(|run| run.entry().bytes)
        .sum();
    assert_eq!(
        (bytes(job.from), bytes(job.to)),
        (upper, job.bytes() - upper)
    );
    drop(job);
    assert_eq!((bytes(from), bytes(to)), (0, 0));
}

/// The runs of a job that panicked were kept from all others for ever.
#[test]
fn what_a_job_took_that_panicked_is_free_again() {
    static PANICS: AtomicBool = AtomicBool::new(true);
    let mut rig = rig_with_levels();
    for _ in 0..2 {
        rig.put_all(0..90, 40);
        rig.checkpoint();
    }
    let disk = HookedDisk::new(rig.disk.clone(), |op, name| {
        let fails = op == DiskOp::Open && name.starts_with("run-");
        assert!(!fails || !PANICS.load(Ordering::SeqCst), "planted");
    });
    PANICS.store(false, Ordering::SeqCst);
    let config = StoreConfig { shape: rig.shape };
    rig.store = Store::open(disk, config, &rig.manifest, Vec::new()).unwrap();
    PANICS.store(true, Ordering::SeqCst);
    let compact = std::panic::AssertUnwindSafe(|| rig.compact(0));
    assert!(std::panic::catch_unwind(compact).is_err());
    PANICS.store(false, Ordering::SeqCst);
    rig.assert_levels();
    assert!(rig.compact(0).unwrap());
    rig.write_manifest().unwrap();
    rig.assert_readable();
}

/// Of two threads one always had a run of the base level, and level 0, which needs all of them, never had its turn.
#[test]
fn jobs_of_the_base_level_end_for_level_0_to_have_its_turn() {
    let mut rig = Rig::shaped(Shape {
        level_0_runs: 2,
        base_bytes: 4000,
        run_bytes: 3000,
    });
    for _ in 0..2 {
        rig.put_all(0..270, 400);
        rig.checkpoint();
    }
    rig.compact_whole(rig.model.tail).unwrap();
    // Two runs in the base level, which is over its target with one of them.
    for rows in [0..100, 170..270] {
        rig.put_all(rows.step_by(3), 400);
        rig.checkpoint();
        rig.compact_for(TOP);
    }
    let droppable = Droppable::default();
    let base = LEVEL_MAX - 1;
    assert_eq!(rig.runs_in(base).len(), 2);
    // Level 0 is due as well, and less full.
    for _ in 0..2 {
        rig.put_all((0..90).map(|n| n * 3), 20);
        rig.checkpoint();
    }
    let mut held = vec![rig.store.begin(Aim::Due, &droppable).unwrap()];
    assert_eq!((held[0].from, held[0].to), (base, LEVEL_MAX));
    // The other thread: it does what it finds to do elsewhere, and leaves the base level alone.
    while let Some(job) = rig.store.begin(Aim::Due, &droppable) {
        assert!(job.from > base, "{} -> {}", job.from, job.to);
        held.push(job);
    }
    drop(held);
    let job = rig.store.begin(TOP, &droppable);
    assert_eq!(job.map(|job| (job.from, job.to)), Some((0, base)));
}

#[test]
fn two_jobs_at_once_take_different_runs() {
    let mut rig = rig_with_levels();
    for round in 0..6 {
        rig.put_all((0..40).map(|n| (n * 7 + round * 3) % 90), 200);
        rig.checkpoint();
    }
    let tail = rig.model.tail;
    let droppable = Droppable {
        horizon: Lsn::new(tail),
        tables: Vec::new(),
    };
    let disk: Arc<dyn Disk> = rig.disk.clone();
    let manifest = std::sync::Mutex::new(rig.manifest.clone());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..40 {
                    if !rig.store.compact(&droppable, &GO_ON).unwrap() {
                        continue;
                    }
                    let mut newest = manifest.lock().unwrap();
                    let part = rig.store.part();
                    newest.generation += 1;
                    (newest.next_run, newest.runs) = (part.next_run, part.runs);
                    newest.write(disk.as_ref()).unwrap();
                    rig.store.manifest_written(&newest).unwrap();
                }
            });
        }
    });
    rig.assert_levels();
    rig.assert_reads(&rig.store.sources(), tail);
    assert!(rig.check().findings.is_empty());
}

#[test]
fn every_crash_in_compactions_and_moves_recovers() {
    let mut rig = rig_with_levels();
    let from = rig.disk.io_count();
    // Rows behind all others: they are moved; and rows among them: they are merged.
    rig.put_all(200..230, 30);
    rig.checkpoint();
    rig.put_all(230..260, 30);
    rig.checkpoint();
    rig.compact(0).unwrap();
    rig.write_manifest().unwrap();
    rig.put_all(0..60, 30);
    rig.delete_all(20..40);
    rig.checkpoint();
    rig.settle(rig.model.tail);
    let mut crashes = 0;
    for moment in from..=rig.disk.io_count() {
        for survivors in Survivors::enumerate(rig.disk.unsynced(moment), 4) {
            let disk = rig.disk.after_crash(moment, &survivors);
            let manifest = Manifest::read_newest(disk.as_ref()).unwrap().unwrap();
            let tail = rig.model.tail.max(manifest.flushed_through.get());
            let mut reopened = rig.reopened(disk, tail);
            reopened.assert_reads(&reopened.store.sources(), tail);
            let listed = manifest.runs.len();
            assert_eq!(names_of_runs(&reopened.disk).len(), listed, "S6: swept");
            crashes += 1;
            if crashes % 40 == 0 {
                // And goes on from there.
                reopened.checkpoint();
                reopened.settle(tail);
                reopened.assert_readable();
            }
        }
    }
    assert!(crashes > 500, "{crashes}");
}

#[test]
fn every_failing_call_of_a_compaction_leaves_the_old_runs() {
    let prepared = || {
        let mut rig = rig_with_levels();
        rig.put_all(0..60, 30);
        rig.checkpoint();
        rig.put_all(0..60, 30);
        rig.checkpoint();
        rig
    };
    let plan = |rig: &mut Rig| -> Result<(), StorageError> {
        while rig.compact(rig.model.tail)? {
            rig.write_manifest()?;
        }
        Ok(())
    };
    let mut calls = prepared();
    let from = calls.disk.io_count();
    plan(&mut calls).unwrap();
    let mut failed = 0;
    for failing in from + 1..=calls.disk.io_count() {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            let mut rig = prepared();
            rig.disk.fail_once(failing, kind);
            failed += u32::from(plan(&mut rig).is_err());
            rig.assert_reads(&rig.store.sources(), rig.model.tail);
            let disk = rig.disk.after_crash(rig.disk.io_count(), &Survivors::None);
            rig.reopened(disk, rig.model.tail).assert_readable();
            plan(&mut rig).unwrap();
            rig.write_manifest().unwrap();
            rig.assert_readable();
            let listed = rig.store.runs().len();
            assert_eq!(
                names_of_runs(&rig.disk).len(),
                listed,
                "F7: {failing} leaves a file"
            );
        }
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn random_work_in_many_levels_agrees_with_the_model_at_every_moment() {
    for seed in 0..30 {
        let mut random = random_numbers(seed);
        let mut rig = Rig::shaped(MANY_LEVELS);
        let mut snapshots: Vec<(Arc<Sources>, u64)> = Vec::new();
        for _ in 0..60 {
            match random() % 10 {
                0..4 => {
                    let (from, step) = (random() as u32 % 90, 1 + random() as u32 % 9);
                    rig.put_all(
                        (0..20).map(|n| (from + n * step) % 120),
                        random() as usize % 300,
                    );
                }
                4 => {
                    let from = random() as u32 % 90;
                    rig.delete_all(from..from + 15);
                }
                5 | 6 => rig.checkpoint(),
                7 => {
                    // At or below every snapshot that is open.
                    let oldest = snapshots.iter().map(|(_, at)| *at).min();
                    let horizon = oldest.unwrap_or(rig.durable);
                    if rig.compact(horizon.min(rig.durable)).unwrap() && random().is_multiple_of(2)
                    {
                        rig.write_manifest().unwrap();
                    }
                }
                8 => snapshots.push((rig.store.sources(), rig.model.tail)),
                _ if snapshots.is_empty() => {
                    let disk = rig.disk.after_crash(rig.disk.io_count(), &Survivors::None);
                    rig = rig.reopened(disk, rig.model.tail);
                }
                _ => {
                    let at = random() as usize % snapshots.len();
                    let (sources, at) = snapshots.swap_remove(at);
                    rig.assert_reads(&sources, at);
                    rig.assert_reads(&rig.store.sources(), at);
                }
            }
            rig.assert_levels();
        }
        rig.assert_readable();
    }
}

/// Random numbers from a seed (SplitMix64).
fn random_numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
