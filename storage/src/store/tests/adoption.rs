//! Spills that a commit has adopted: read, scanned, compacted and reopened as what their commit's stamp makes of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, Lsn, RowKey, TxnId};
use lockstone_testkit::SimDisk;
use proptest::prelude::*;

use super::super::*;
use super::rig::*;
use crate::dead_subs::DeadSubs;
use crate::manifest::ListedRun;
use crate::provisional::{Effect, Kind, Record, SpillPlan, SpillWriter};
use crate::run::{Adopted, Origin};

const OWNER: TxnId = TxnId::new(1, 5);

/// What a sub-transaction has written to a row.
type Writes = BTreeMap<(RowKey, std::cmp::Reverse<u32>), Option<Bytes>>;

impl Rig {
    /// Adopts these spills, the oldest first, in a commit of their own, as a manifest lists it once `flushed_through`
    /// has passed its stamp; `kept` is what the transaction kept in memory, which is newer.
    fn adopt(
        &mut self,
        spills: &[Writes],
        dead: &DeadSubs,
        kept: &BTreeMap<RowKey, Option<Bytes>>,
    ) {
        self.checkpoint();
        let stamp = self.model.tail + 1;
        let mut committed = BTreeMap::new();
        let mut manifest = self.next_manifest();
        for (spill, writes) in (1..).zip(spills) {
            let entry = self.spill(writes);
            let Some(entry) = entry else {
                continue;
            };
            let adopted = Adopted {
                spill,
                dead: dead.clone(),
            };
            let entry = entry.adopted(Lsn::new(stamp), adopted);
            manifest.runs.insert(0, ListedRun { level: 0, entry });
            let mut newest: BTreeMap<RowKey, Option<Bytes>> = BTreeMap::new();
            for ((row, sub), value) in writes {
                if !dead.has(sub.0) {
                    newest.entry(row.clone()).or_insert_with(|| value.clone());
                }
            }
            committed.append(&mut newest);
        }
        committed.extend(kept.clone());
        self.model.commit(&committed, stamp);
        manifest.generation += 1;
        manifest.flushed_through = Lsn::new(stamp);
        manifest.durable = Lsn::new(stamp);
        manifest.next_run = self.store.take_number() + 1;
        if !kept.is_empty() {
            // The memtable behind them, which has the same stamp.
            let number = self.store.take_number();
            manifest.next_run = number + 1;
            let identity = manifest.identity();
            let plan = crate::run::RunPlan { identity, number };
            let versions = kept.iter().map(|(row, value)| {
                Ok(crate::version::RowVersion {
                    row: row.to_bytes(),
                    version: crate::version::Version {
                        stamp: Lsn::new(stamp),
                        value: value.clone(),
                    },
                })
            });
            let entry = crate::run::write(self.disk.as_ref(), plan, versions).unwrap();
            let entry = entry.unwrap();
            manifest.runs.insert(0, ListedRun { level: 0, entry });
        }
        manifest.write(self.disk.as_ref()).unwrap();
        let store = open(&self.disk, self.shape, &manifest, Vec::new()).unwrap();
        (self.store, self.manifest, self.durable) = (store, manifest, stamp);
    }

    /// Writes a write run of what the sub-transactions have written.
    fn spill(&self, writes: &Writes) -> Option<RunEntry> {
        let plan = SpillPlan {
            identity: self.manifest.identity(),
            kind: Kind::Write,
            owners: vec![OWNER],
        };
        let number = || self.store.take_number();
        let mut writer = SpillWriter::new(self.disk.as_ref(), plan, number);
        for ((row, sub), value) in writes {
            let record = Record {
                row: row.as_bytes(),
                owner: OWNER,
                sub: sub.0,
                effect: value
                    .as_ref()
                    .map_or(Effect::Delete, |value| Effect::Put(value)),
                mode: LockMode::Update,
                token: FencingToken::new(Lsn::new(u64::from(sub.0) * 1000 + 1)),
                fresh: true,
                writes: true,
            };
            writer.push(&record).unwrap();
        }
        writer.finish().unwrap().pop()
    }
}

fn some_writes() -> impl Strategy<Value = Writes> {
    let write = (0..60_u32, 0..6_u32, any::<bool>(), 0..300_usize);
    prop::collection::vec(write, 0..80).prop_map(|writes| {
        let writes = writes.into_iter().map(|(number, sub, is_put, bytes)| {
            let value = is_put.then(|| value(u64::from(sub), number, bytes));
            ((row(number), std::cmp::Reverse(sub)), value)
        });
        writes.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    /// Adoption, S1, V3, V4: under its stamp a spill is what its newest records that are alive say, in every reader,
    /// beside and below other runs, and after every compaction.
    #[test]
    fn what_was_adopted_reads_as_its_commit_wrote_it(
        before in prop::collection::vec((0..60_u32, 0..100_usize), 0..60),
        first in prop::collection::vec(some_writes(), 1..4),
        second in prop::collection::vec(some_writes(), 0..3),
        dead in prop::collection::vec((0..6_u32, 0..3_u32), 0..3),
        kept in prop::collection::btree_map(0..60_u32, any::<bool>(), 0..6),
        behind in prop::collection::vec((0..60_u32, 0..100_usize), 0..40),
        many_levels in any::<bool>(),
    ) {
        let mut rig = Rig::shaped(if many_levels { MANY_LEVELS } else { ONE_LEVEL });
        for (number, bytes) in &before {
            rig.put(*number, *bytes);
        }
        let dead = DeadSubs::new(dead.iter().map(|(from, more)| (*from, from + more)));
        let kept = kept.iter().map(|(number, is_put)| (row(*number), is_put.then(|| value(9, *number, 30))));
        rig.adopt(&first, &dead, &kept.collect());
        rig.assert_readable();
        rig.adopt(&second, &DeadSubs::NONE, &BTreeMap::new());
        rig.assert_readable();
        prop_assert!(rig.check().findings.is_empty());
        for (number, bytes) in &behind {
            rig.put(*number, *bytes);
        }
        rig.checkpoint();
        rig.assert_readable();
        // One by one, so that runs of one commit stand in different levels for a while.
        while rig.compact(0).unwrap() {
            rig.write_manifest().unwrap();
            rig.assert_readable();
            rig = rig.reopened(rig.disk.clone(), rig.model.tail);
        }
        rig.compact_whole(rig.model.tail).unwrap();
        rig.assert_readable();
        prop_assert!(rig.check().findings.is_empty());
        // S6: what was compacted goes, under the name that it had.
        rig.store.reclaim().unwrap();
        let left = rig.disk.names().into_iter().filter(|name| name.starts_with("spill-"));
        let listed = rig.store.runs().into_iter().filter(|run| matches!(run.origin, Origin::Adopted(_)));
        prop_assert_eq!(left.count(), listed.count());
    }
}

/// Five rows, two of them written twice, one deleted.
fn twice() -> Writes {
    let put = |number: u32, sub| {
        (
            (row(number), std::cmp::Reverse(sub)),
            Some(value(1, number, 9)),
        )
    };
    let mut writes: Writes = [put(0, 1), put(1, 1), put(0, 4), put(3, 2)].into();
    writes.insert((row(1), std::cmp::Reverse(3)), None);
    writes
}

#[test]
fn no_byte_of_what_is_adopted_is_rewritten() {
    let mut rig = Rig::new();
    rig.adopt(&[twice()], &DeadSubs::NONE, &BTreeMap::new());
    let run = rig.store.runs().remove(0);
    let bytes = rig.disk.read_file(&run.file_name());
    rig.assert_readable();
    rig.put(40, 1);
    rig.checkpoint();
    assert_eq!(rig.disk.read_file(&run.file_name()), bytes);
    let names = rig.disk.names();
    assert!(names.contains(&run.file_name()) && run.file_name().starts_with("spill-"));
}

#[test]
fn a_reader_below_the_stamp_sees_nothing_of_it() {
    let mut rig = Rig::new();
    rig.put(0, 3);
    let before = rig.model.tail;
    rig.adopt(&[twice()], &DeadSubs::new([(4, 9)]), &BTreeMap::new());
    let sources = rig.store.sources();
    let get = |at: u64| {
        sources
            .get(row(0).as_bytes(), Lsn::new(at))
            .unwrap()
            .unwrap()
    };
    assert_eq!(get(before).stamp.get(), before);
    assert_eq!(get(before + 1).stamp.get(), before + 1);
    let since = |at: u64| sources.changed(row(3).as_bytes(), Lsn::new(at), Lsn::new(before + 1));
    assert!(
        !since(before + 1).unwrap(),
        "V3: what stands for stamps is nobody's stamp"
    );
}

#[test]
fn spills_that_nobody_needs_are_swept_and_no_others() {
    let mut rig = Rig::new();
    let [dead, alive] = [(); 2].map(|()| rig.spill(&twice()).unwrap());
    rig.adopt(&[twice()], &DeadSubs::NONE, &BTreeMap::new());
    let names = rig.disk.names();
    let rig = rig.reopened(rig.disk.clone(), rig.model.tail);
    let later = rig.spill(&twice()).unwrap();
    assert!(
        later.number > rig.store.runs()[0].number,
        "no name is used twice"
    );
    let needed = [alive.number].into();
    assert_eq!(rig.store.sweep_spills(&names, &needed).unwrap(), 1);
    // S6: neither one that was adopted, nor one made since the open, whoever gives its name.
    assert_eq!(
        rig.store.sweep_spills(&rig.disk.names(), &needed).unwrap(),
        0
    );
    let names = rig.disk.names();
    assert!(!names.contains(&dead.file_name()));
    for entry in [alive, later, rig.store.runs().remove(0)] {
        assert!(names.contains(&entry.file_name()));
    }
    rig.assert_readable();
}

#[test]
fn a_flipped_byte_of_an_adopted_run_is_an_error_or_does_no_harm() {
    let mut rig = Rig::new();
    rig.adopt(&[twice()], &DeadSubs::new([(4, 4)]), &BTreeMap::new());
    let run = rig.store.runs().remove(0);
    for at in 0..run.bytes {
        rig.disk.flip_byte(&run.file_name(), at);
        if let Ok(store) = open(&rig.disk, rig.shape, &rig.manifest, Vec::new()) {
            let sources = store.sources();
            for number in [0, 1, 3] {
                let got = sources.get(row(number).as_bytes(), Lsn::MAX);
                let want = rig.model.get(row(number).as_bytes(), u64::MAX);
                assert!(
                    got.is_err() || got.unwrap().unwrap().value == want,
                    "F11: byte {at}"
                );
            }
            let summary = || store.check(&mut |_, _| {}).unwrap().findings;
            assert!(!summary().is_empty(), "F12: byte {at}");
        }
        rig.disk.flip_byte(&run.file_name(), at);
    }
    let foreign = SimDisk::new(2);
    assert!(open(&foreign, rig.shape, &rig.manifest, Vec::new()).is_err());
}
