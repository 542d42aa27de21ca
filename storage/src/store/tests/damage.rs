//! Whom a compaction that fails holds to be damaged, and what becomes of it when it is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstone_base::disk::{Disk, DiskOp};
use lockstone_base::{Lsn, RowKey};
use lockstone_testkit::{HookedDisk, SimDisk};

use super::super::*;
use super::compaction::{names_of_runs, rig_with_levels};
use super::rig::*;
use super::rig_with_runs;
use crate::manifest::{LEVEL_MAX, ListedRun};
use crate::run::{self, RunPlan};
use crate::version::{RowVersion, Version};

/// F7, F11: an output that read back damaged matched no input, so all of them were marked, and were intact.
#[test]
fn a_damaged_output_is_no_damage_of_the_inputs() {
    let rig = rig_with_runs();
    let (before, sim) = (names_of_runs(&rig.disk), Arc::clone(&rig.disk));
    let made = Mutex::new(Vec::new());
    let disk = HookedDisk::new(rig.disk.clone(), move |op, name| {
        let is_new = name.starts_with("run-") && !before.contains(name);
        if op == DiskOp::Open && is_new {
            let mut made = made.lock();
            made.push(name.to_owned());
            // Made, and then read back: the first of them.
            if made.len() == 2 {
                sim.flip_byte(name, 3);
            }
        }
    });
    let config = StoreConfig { shape: rig.shape };
    let store = Store::open(disk, config, &rig.manifest, Vec::new()).unwrap();
    let runs = store.runs();
    let droppable = Droppable::default();
    let error = store.compact(&droppable, &GO_ON).unwrap_err();
    let inputs = runs
        .iter()
        .map(|run| rig.disk.path(&file_name::run(run.number)));
    assert!(
        matches!(&error, StorageError::Corrupt { file, .. } if inputs.clone().all(|input| input != *file)),
        "{error}"
    );
    assert_eq!((store.stats().damaged_runs, store.failed_reads()), (0, 0));
    assert_eq!(store.runs(), runs);
    assert!(
        store.compact(&droppable, &GO_ON).unwrap(),
        "the old files are intact"
    );
}

#[test]
fn inputs_that_contradict_each_other_are_left_alone_each_by_its_own_name() {
    let disk = SimDisk::new(1);
    let identity = Identity {
        uuid: UUID,
        salt: SALT,
    };
    // The same version in both: neither could be put before the other.
    let runs = [(1, 0), (2, LEVEL_MAX)].map(|(number, level)| {
        let version = Version {
            stamp: Lsn::new(5),
            value: Some(value(5, 1, 10)),
        };
        let versions = [Ok(RowVersion {
            row: row(1).to_bytes(),
            version,
        })];
        let plan = RunPlan { identity, number };
        let entry = run::write(disk.as_ref(), plan, versions.into_iter())
            .unwrap()
            .unwrap();
        ListedRun { level, entry }
    });
    let manifest = Manifest {
        uuid: UUID,
        salt: SALT,
        generation: 1,
        durable: Lsn::new(5),
        flushed_through: Lsn::new(5),
        next_run: 3,
        runs: runs.to_vec(),
        ..Manifest::default()
    };
    manifest.write(disk.as_ref()).unwrap();
    let store = open(&disk, ONE_LEVEL, &manifest, Vec::new()).unwrap();
    let all = || store.compact_whole(&mut store.whole_compaction(), &Droppable::default(), &GO_ON);
    assert!(all().is_err());
    let named = store.damage().into_iter().map(|error| match error {
        StorageError::Corrupt { file, .. } => file,
        other => panic!("{other}"),
    });
    let names = [1, 2].map(|number| disk.path(&file_name::run(number)));
    assert!(named.eq(names), "F11");
    assert!(!all().unwrap());
}

/// A cold run that a scrub had found damaged was forgotten by a compaction of everything, which never read it.
#[test]
fn what_a_compaction_of_everything_does_not_read_stays_marked() {
    let mut rig = rig_with_levels();
    rig.compact_whole(rig.model.tail).unwrap();
    let bottom = rig.runs_in(LEVEL_MAX);
    assert!(bottom.len() > 2, "several runs");
    let names: Vec<_> = bottom
        .iter()
        .map(|run| file_name::run(run.number))
        .collect();
    let flip = |rig: &Rig| {
        let two = names.iter().take(2);
        two.for_each(|name| rig.disk.flip_byte(name, 60));
    };
    flip(&rig);
    assert_eq!(rig.store.scrub(u64::MAX).findings.len(), 2);
    let retry = rig.store.retry_damaged();
    assert_eq!(rig.store.stats().damaged_runs, 2, "while it runs, too");
    let mut whole = rig.store.whole_compaction();
    assert!(
        !rig.store
            .compact_whole(&mut whole, &Droppable::default(), &GO_ON)
            .unwrap()
    );
    assert!(retry.failed().is_empty(), "nothing was tried");
    drop(retry);
    assert_eq!(
        rig.store.stats().damaged_runs,
        2,
        "F11: nobody has found them intact"
    );
    // Rows of the first alone are written anew: it is read, and the device has it again.
    flip(&rig);
    let first = rig.model.rows.keys().next().unwrap().clone();
    let writes = BTreeMap::from([(RowKey::from_encoded(first).unwrap(), None)]);
    rig.commit(&writes);
    rig.checkpoint();
    let before = rig.store.runs();
    let retry = rig.store.retry_damaged();
    let mut whole = rig.store.whole_compaction();
    while rig
        .store
        .compact_whole(&mut whole, &Droppable::default(), &GO_ON)
        .unwrap()
    {
        rig.manifest = rig.next_manifest();
        rig.manifest.write(rig.disk.as_ref()).unwrap();
        rig.store.manifest_written(&rig.manifest).unwrap();
    }
    assert!(retry.failed().is_empty());
    drop(retry);
    assert!(rig.store.runs() != before && !rig.store.runs().contains(&bottom[0]));
    assert_eq!(
        rig.store.stats().damaged_runs,
        1,
        "the other one was not read"
    );
    assert!(rig.store.runs().contains(&bottom[1]));
    rig.assert_readable();
}
