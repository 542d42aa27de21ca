//! The store against a model: a map from row to all its versions, under random commits, rotations,
//! flushes, compactions, manifests, crashes and reads at every LSN that may be read.

mod adoption;
mod compaction;
mod damage;
mod parallel;
mod rig;
mod scrub;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lockstone_base::disk::{Disk, DiskOp};
use lockstone_base::{Lsn, TableId};
use lockstone_testkit::{SimDisk, Survivors};
use proptest::prelude::*;

use super::*;
use crate::error::Damage;
use rig::*;

#[derive(Debug, Clone)]
enum Action {
    Commit(BTreeMap<u32, Option<usize>>),
    CommitMany {
        from: u32,
        count: u32,
        delete_each: u32,
    },
    Rotate,
    Flush {
        durable_back: u64,
    },
    Merge {
        horizon_back: u64,
    },
    Manifest,
    Reopen {
        lost: u64,
        kept: bool,
    },
    Read,
}

fn action() -> impl Strategy<Value = Action> {
    let bytes = prop_oneof![8 => 0..40_usize, 1 => 3000..9000_usize];
    let writes = prop::collection::btree_map(0..300_u32, prop::option::weighted(0.7, bytes), 1..12);
    prop_oneof![
        8 => writes.prop_map(Action::Commit),
        2 => (0..200_u32, 65..150_u32, 1..9_u32)
            .prop_map(|(from, count, delete_each)| Action::CommitMany { from, count, delete_each }),
        3 => Just(Action::Rotate),
        3 => (0..9_u64).prop_map(|durable_back| Action::Flush { durable_back }),
        2 => (0..20_u64).prop_map(|horizon_back| Action::Merge { horizon_back }),
        3 => Just(Action::Manifest),
        1 => (0..9_u64, any::<bool>()).prop_map(|(lost, kept)| Action::Reopen { lost, kept }),
        2 => Just(Action::Read),
    ]
}

fn perform(rig: &mut Rig, action: &Action) {
    match action {
        Action::Commit(writes) => {
            let stamp = rig.model.tail + 1;
            let writes = writes
                .iter()
                .map(|(n, bytes)| (row(*n), bytes.map(|bytes| value(stamp, *n, bytes))))
                .collect();
            rig.commit(&writes);
        }
        Action::CommitMany {
            from,
            count,
            delete_each,
        } => {
            let stamp = rig.model.tail + 1;
            let writes = (*from..from + count)
                .map(|n| (row(n), (n % delete_each != 0).then(|| value(stamp, n, 9))))
                .collect();
            rig.commit(&writes);
        }
        Action::Rotate => {
            rig.rotate();
        }
        Action::Flush { durable_back } => {
            rig.durable = rig
                .durable
                .max(rig.model.tail.saturating_sub(*durable_back));
            rig.store.flush(Lsn::new(rig.durable)).unwrap();
            assert!(rig.store.flushed_through() <= Lsn::new(rig.durable), "S1");
        }
        Action::Merge { horizon_back } => {
            let before = rig.store.sources();
            let horizon = rig.durable.saturating_sub(*horizon_back);
            if !rig.compact(horizon).unwrap() {
                assert_eq!(before.drop_horizon(), rig.store.sources().drop_horizon());
            }
            // Whoever took the list before still reads from it.
            let horizon = before.drop_horizon().get().min(rig.model.tail);
            rig.assert_reads(&before, horizon);
        }
        Action::Manifest => rig.write_manifest().unwrap(),
        Action::Reopen { lost, kept } => {
            let survivors = if *kept {
                Survivors::All
            } else {
                Survivors::None
            };
            let disk = rig.disk.after_crash(rig.disk.io_count(), &survivors);
            let tail = rig.durable.max(rig.model.tail.saturating_sub(*lost));
            *rig = rig.reopened(disk, tail);
        }
        Action::Read => rig.assert_readable(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300,
        failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_map(many: bool, actions in prop::collection::vec(action(), 1..60)) {
        let mut rig = Rig::shaped(if many { MANY_LEVELS } else { ONE_LEVEL });
        for action in &actions {
            perform(&mut rig, action);
        }
        rig.assert_readable();
        assert!(rig.check().findings.is_empty());
    }
}

/// A rig with three listed runs, in which rows were changed and deleted.
fn rig_with_runs() -> Rig {
    let mut rig = Rig::new();
    for round in 0..3 {
        for n in 0..60 {
            rig.put(n * 5 % 61, 200);
        }
        rig.delete(7 + round);
        rig.checkpoint();
    }
    assert_eq!(rig.store.runs().len(), 3);
    rig
}

#[test]
fn a_full_merge_drops_what_nobody_can_see() {
    let mut rig = rig_with_runs();
    let horizon = rig.model.tail;
    assert!(rig.compact(horizon).unwrap());
    let runs = rig.store.runs();
    assert_eq!(runs.len(), 1);
    assert_eq!(
        runs[0].versions,
        rig.model.live(horizon).len() as u64,
        "one version of each live row"
    );
    assert_eq!(rig.store.sources().drop_horizon(), Lsn::new(horizon), "W7");
    rig.assert_readable();
    rig.write_manifest().unwrap();
    rig.assert_readable();
    let check = rig.check();
    assert!(check.findings.is_empty() && check.versions == runs[0].versions);
}

#[test]
fn a_merge_keeps_every_version_above_the_horizon() {
    let rig = rig_with_runs();
    let all: usize = rig.model.rows.values().map(BTreeMap::len).sum();
    assert!(rig.compact(0).unwrap());
    assert_eq!(rig.store.runs()[0].versions, all as u64);
    for at in 0..=rig.model.tail {
        rig.assert_reads(&rig.store.sources(), at);
    }
}

#[test]
fn a_merge_that_leaves_nothing_leaves_no_run() {
    let mut rig = Rig::new();
    rig.put(1, 1);
    rig.checkpoint();
    rig.put(2, 1);
    rig.checkpoint();
    for n in [1, 2] {
        rig.delete(n);
    }
    rig.checkpoint();
    rig.compact_whole(rig.model.tail).unwrap();
    assert!(rig.store.runs().is_empty());
    assert!(!rig.disk.names().iter().any(|name| name.starts_with("run-")));
    let reopened = rig.reopened(rig.disk.after_kill(rig.disk.io_count()), rig.model.tail);
    reopened.assert_readable();
}

#[test]
fn a_merge_takes_only_runs_that_a_durable_manifest_lists() {
    let mut rig = Rig::new();
    for n in 0..4 {
        rig.put(n, 1);
        rig.put(9, 1);
        rig.rotate();
        rig.flush().unwrap();
    }
    assert!(!rig.compact(rig.model.tail).unwrap(), "S2: none is listed");
    rig.write_manifest().unwrap();
    rig.delete(0);
    rig.rotate();
    rig.flush().unwrap();
    assert!(rig.compact(rig.model.tail).unwrap());
    assert_eq!(rig.store.runs().len(), 2, "S2: the last one stays as it is");
    rig.assert_readable();
}

#[test]
fn a_flush_waits_until_the_memtable_is_durable() {
    let mut rig = Rig::new();
    rig.put(1, 1);
    let first = rig.model.tail;
    rig.rotate();
    rig.put(2, 1);
    rig.rotate();
    assert_eq!(rig.store.flush(Lsn::new(first - 1)).unwrap(), 0);
    assert_eq!(rig.store.flush(Lsn::new(first)).unwrap(), 1);
    assert_eq!(rig.store.flushed_through(), Lsn::new(first), "S1");
    assert_eq!(rig.flush().unwrap(), 1);
    assert_eq!(rig.store.flushed_through(), Lsn::new(rig.model.tail));
    assert_eq!(rig.store.memory_bytes(), 0);
}

#[test]
fn commits_without_writes_move_the_flush_position() {
    let mut rig = Rig::new();
    rig.put(1, 1);
    rig.checkpoint();
    // The tail moves to 50 without a version, then to 60 with one that is not sealed.
    assert!(!rig.store.rotate(Lsn::new(50)));
    rig.store
        .apply(WriteBatch::from_sorted(vec![(row(2), None)]), Lsn::new(60));
    assert_eq!(rig.store.flush(Lsn::new(40)).unwrap(), 0);
    assert_eq!(
        rig.store.flushed_through(),
        Lsn::new(40),
        "S1: not beyond what is durable"
    );
    rig.store.flush(Lsn::new(70)).unwrap();
    assert_eq!(
        rig.store.flushed_through(),
        Lsn::new(50),
        "S1: the version at 60 is not in a run"
    );
}

#[test]
fn replaced_runs_stay_until_a_manifest_does_without_them() {
    let mut rig = rig_with_runs();
    let old = rig.store.runs();
    let names = || rig.disk.names();
    assert!(rig.compact(rig.model.tail).unwrap());
    // Whatever comes by before the manifest: flushes do.
    rig.store.reclaim().unwrap();
    rig.store.flush(Lsn::new(rig.model.tail)).unwrap();
    for run in &old {
        assert!(names().contains(&file_name::run(run.number)), "S6");
    }
    assert_eq!(rig.store.orphans(&names()), Vec::<String>::new());
    let sources = rig.store.sources();
    rig.write_manifest().unwrap();
    for run in &old {
        assert!(
            !rig.disk.names().contains(&file_name::run(run.number)),
            "S6"
        );
    }
    rig.assert_reads(&sources, rig.model.tail);
}

#[test]
fn orphans_are_swept_and_nothing_else() {
    let mut rig = rig_with_runs();
    rig.put(3, 3);
    rig.rotate();
    rig.flush().unwrap();
    let unlisted = file_name::run(rig.store.runs()[0].number);
    let disk = rig.disk.after_kill(rig.disk.io_count());
    for name in [
        "manifest-00000000000000ff.tmp",
        "lock",
        "other.tmp",
        "log-0000000000000000",
    ] {
        disk.write_file(name, b"whatever");
    }
    let names = disk.names();
    let manifest = Manifest::read_newest(disk.as_ref()).unwrap().unwrap();
    let replayed = rig
        .model
        .replayed(manifest.flushed_through.get(), rig.model.tail);
    let store = open(&disk, rig.shape, &manifest, replayed).unwrap();
    assert_eq!(
        store.orphans(&names),
        ["manifest-00000000000000ff.tmp", &unlisted]
    );
    assert!(
        store.part().next_run > rig.store.runs()[0].number,
        "no number is given twice"
    );
    store.rotate(Lsn::new(rig.model.tail));
    store.flush(Lsn::new(rig.model.tail)).unwrap();
    let young = store.runs();
    assert_eq!(store.sweep(&names).unwrap(), 2);
    // A run that a flush is writing just now is in no list yet.
    disk.write_file(&file_name::run(store.part().next_run), b"half a run");
    let after = disk.names();
    assert!(!after.contains(&unlisted) && after.contains(&"other.tmp".to_owned()));
    assert!(
        store.orphans(&after).is_empty(),
        "S6: files made since the open are safe"
    );
    for run in young {
        assert!(after.contains(&file_name::run(run.number)));
    }
}

#[test]
fn every_crash_in_two_checkpoints_and_a_merge_recovers() {
    let mut rig = rig_with_runs();
    let from = rig.disk.io_count();
    let mut states = vec![rig.model.clone()];
    rig.put(1, 5000);
    rig.checkpoint();
    states.push(rig.model.clone());
    assert!(rig.compact(rig.model.tail).unwrap());
    rig.write_manifest().unwrap();
    let mut crashes = 0;
    for moment in from..=rig.disk.io_count() {
        for survivors in Survivors::enumerate(rig.disk.unsynced(moment), 8) {
            let disk = rig.disk.after_crash(moment, &survivors);
            let manifest = Manifest::read_newest(disk.as_ref()).unwrap().unwrap();
            let tail = rig.model.tail.max(manifest.flushed_through.get());
            let reopened = rig.reopened(disk, tail);
            reopened.assert_reads(&reopened.store.sources(), tail);
            crashes += 1;
        }
    }
    assert!(crashes > 500, "{crashes}");
}

#[test]
fn every_failing_call_leaves_a_store_that_can_try_again() {
    let plan = |rig: &mut Rig| -> Result<(), StorageError> {
        rig.rotate();
        rig.flush()?;
        rig.write_manifest()?;
        rig.compact(rig.model.tail)?;
        rig.write_manifest()
    };
    let mut calls = rig_with_runs();
    let from = calls.disk.io_count();
    calls.put(1, 9000);
    plan(&mut calls).unwrap();
    let count = calls.disk.io_count();
    for failing in from + 1..=count {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            let mut rig = rig_with_runs();
            rig.put(1, 9000);
            rig.disk.fail_once(failing, kind);
            let failed = plan(&mut rig);
            assert_eq!(rig.disk.faults_fired(), 1, "call {failing}");
            // Removing what is no longer needed may fail unnoticed.
            assert!(
                failed.is_err() || rig.disk.describe(failing).contains("remove"),
                "{failing}"
            );
            rig.assert_reads(&rig.store.sources(), rig.model.tail);
            let disk = rig.disk.after_crash(rig.disk.io_count(), &Survivors::None);
            rig.reopened(disk, rig.model.tail).assert_readable();
            plan(&mut rig).unwrap();
            rig.assert_readable();
            let disk = rig.disk.after_crash(rig.disk.io_count(), &Survivors::None);
            rig.reopened(disk, rig.model.tail).assert_readable();
        }
    }
}

#[test]
fn a_run_that_cannot_be_read_is_an_error_and_no_older_answer() {
    let rig = rig_with_runs();
    let newest = file_name::run(rig.store.runs()[0].number);
    let disk = rig.disk.after_kill(rig.disk.io_count());
    let store = open(&disk, rig.shape, &rig.manifest, Vec::new()).unwrap();
    disk.fail_matching(DiskOp::Read, &newest, ErrorKind::Other);
    let error = store
        .sources()
        .get(row(5).as_bytes(), Lsn::new(rig.model.tail))
        .unwrap_err();
    assert!(matches!(error, StorageError::Disk(_)), "F6: {error}");
    disk.clear_faults();
    store
        .sources()
        .get(row(5).as_bytes(), Lsn::new(rig.model.tail))
        .unwrap()
        .unwrap();
}

#[test]
fn a_compaction_that_keeps_nothing_is_stopped_too() {
    let rig = rig_with_runs();
    let droppable = Droppable {
        horizon: Lsn::new(rig.model.tail),
        tables: vec![TableId(1), TableId(2)],
    };
    let stop = AtomicBool::new(true);
    assert!(!rig.store.compact(&droppable, &stop).unwrap());
    assert_eq!(rig.store.runs().len(), 3);
    stop.store(false, Ordering::SeqCst);
    assert!(rig.store.compact(&droppable, &stop).unwrap());
    assert!(rig.store.runs().is_empty());
}

/// F6, F11: one run that the device does not read any more once kept all others from being compacted.
#[test]
fn a_run_that_the_device_refuses_to_read_is_asked_again_and_then_left_alone() {
    let rig = rig_with_runs();
    let oldest = rig.store.runs()[2].number;
    rig.disk
        .fail_matching(DiskOp::Read, &file_name::run(oldest), ErrorKind::Other);
    for damaged in [0, 1] {
        assert!(rig.compact(rig.model.tail).is_err());
        assert_eq!(rig.store.stats().damaged_runs, damaged);
    }
    assert!(!rig.compact(rig.model.tail).unwrap());
    rig.disk.clear_faults();
    let retry = rig.store.retry_damaged();
    assert!(rig.compact(rig.model.tail).unwrap());
    assert!(retry.failed().is_empty() && rig.store.stats().damaged_runs == 0);
    rig.assert_readable();
}

#[test]
fn missing_swapped_and_foreign_runs_are_refused() {
    let rig = rig_with_runs();
    let runs = rig.store.runs();
    let (newest, oldest) = (
        file_name::run(runs[0].number),
        file_name::run(runs[2].number),
    );
    let refused = |disk: &Arc<SimDisk>, manifest: &Manifest| match open(
        disk,
        rig.shape,
        manifest,
        Vec::new(),
    ) {
        Err(StorageError::Corrupt { file, what, .. }) => {
            assert_eq!(file, disk.path(&newest));
            what
        }
        other => panic!("{other:?}"),
    };
    let crashed = || rig.disk.after_kill(rig.disk.io_count());
    let disk = crashed();
    disk.remove_file(&newest);
    assert_eq!(refused(&disk, &rig.manifest), Damage::Missing);
    let disk = crashed();
    disk.truncate(&newest, runs[0].bytes - 1);
    assert!(matches!(
        refused(&disk, &rig.manifest),
        Damage::Length { .. }
    ));
    // Of the same length, as the manifest has it: only what is in it tells.
    let disk = crashed();
    disk.write_file(&newest, &disk.read_file(&oldest));
    let mut manifest = rig.manifest.clone();
    manifest.runs[0].entry.bytes = runs[2].bytes;
    assert_eq!(refused(&disk, &manifest), Damage::Swapped);
    let mut foreign = rig.manifest.clone();
    foreign.runs[0].entry.uuid = 7;
    assert_eq!(refused(&crashed(), &foreign), Damage::Foreign);
    let salted = Manifest {
        salt: 7,
        ..rig.manifest.clone()
    };
    assert!(matches!(refused(&crashed(), &salted), Damage::Checksum(_)));
    let mut stale = rig.manifest.clone();
    stale.runs[0].entry.checksum ^= 1;
    assert_eq!(refused(&crashed(), &stale), Damage::Swapped, "F13");
}

#[test]
fn a_reader_keeps_its_list_through_everything() {
    let mut rig = rig_with_runs();
    let (sources, tail) = (rig.store.sources(), rig.model.tail);
    let want = rig.model.live(tail);
    let mut scan = sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::new(tail));
    let mut got = rows(scan.by_ref().take(10));
    for n in 0..200 {
        rig.put(n, 50);
    }
    rig.checkpoint();
    rig.compact(rig.model.tail).unwrap();
    rig.write_manifest().unwrap();
    got.extend(rows(scan));
    assert_eq!(got, want);
}

#[test]
fn a_reader_never_frees_what_a_flush_or_merge_replaced() {
    let mut rig = Rig::new();
    for number in 0..3 {
        rig.put(number, 10);
        rig.put(9, 10);
        rig.checkpoint();
    }
    rig.put(7, 10);
    let reader = rig.store.sources();
    let memtable = Arc::downgrade(&reader.active);
    let run = Arc::downgrade(&reader.tree.l0[0]);
    rig.checkpoint();
    assert!(rig.compact(rig.model.tail).unwrap());
    rig.write_manifest().unwrap();
    drop(reader);
    assert!(memtable.upgrade().is_some() && run.upgrade().is_some());
    // The checkpointer comes by.
    rig.store.reclaim().unwrap();
    assert!(memtable.upgrade().is_none() && run.upgrade().is_none());
}
