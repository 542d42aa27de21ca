//! Spills that a commit has adopted: read, scanned, compacted and reopened as what their commit's stamp makes of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, Lsn, RowKey, TxnId};
use lockstone_testkit::{SimDisk, Survivors};
use proptest::prelude::*;

use super::super::*;
use super::Action;
use super::rig::*;
use crate::dead_subs::DeadSubs;
use crate::provisional::{Effect, Kind, Record, SpillPlan, SpillWriter};

const OWNER: TxnId = TxnId::new(1, 5);

/// What a sub-transaction has written to a row.
pub(super) type Writes = BTreeMap<(RowKey, std::cmp::Reverse<u32>), Option<Bytes>>;

/// A file is cut where it has this: most spills are several.
const FILE_BYTES: u64 = 1500;

/// What a transaction does that spills.
#[derive(Debug, Clone, Default)]
struct Spilled {
    /// The oldest first.
    spills: Vec<Writes>,
    dead: DeadSubs,
    /// What it has in memory when it commits: newer.
    kept: BTreeMap<RowKey, Option<Bytes>>,
}

impl Spilled {
    /// The same writes, with values that nobody else writes.
    fn at(&self, stamp: u64) -> Self {
        let marked = |place: usize, value: &Option<Bytes>| {
            let value = value.as_ref()?;
            Some(
                [format!("{stamp}.{place}:").as_bytes(), value]
                    .concat()
                    .into(),
            )
        };
        let mark = |(place, writes): (usize, &Writes)| {
            let writes = writes
                .iter()
                .map(|(row, value)| (row.clone(), marked(place, value)));
            writes.collect()
        };
        let kept = self
            .kept
            .iter()
            .map(|(row, value)| (row.clone(), marked(9, value)));
        Self {
            spills: self.spills.iter().enumerate().map(mark).collect(),
            dead: self.dead.clone(),
            kept: kept.collect(),
        }
    }

    /// What its commit writes.
    fn committed(&self) -> BTreeMap<RowKey, Option<Bytes>> {
        let mut committed = BTreeMap::new();
        for writes in &self.spills {
            let mut newest: BTreeMap<RowKey, Option<Bytes>> = BTreeMap::new();
            for ((row, sub), value) in writes {
                if !self.dead.has(sub.0) {
                    newest.entry(row.clone()).or_insert_with(|| value.clone());
                }
            }
            committed.append(&mut newest);
        }
        committed.extend(self.kept.clone());
        committed
    }
}

impl Rig {
    /// A commit that adopts what it has spilled.
    fn adopt(&mut self, spilled: &Spilled) {
        let stamp = self.model.tail + 1 + self.model.tail % 3;
        let spilled = spilled.at(stamp);
        let runs = self.spill(&spilled);
        let mut adoption = self
            .store
            .prepare_adoption(owner(stamp), runs.clone())
            .unwrap();
        let kept = spilled.kept.clone();
        let mut prepared =
            (!kept.is_empty()).then(|| self.store.prepare(WriteBatch::from_sorted(kept.clone())));
        let before = self.store.sources();
        self.store
            .adopt(&mut adoption, Lsn::new(stamp), prepared.as_mut());
        drop((adoption, prepared));
        // Neither a list from before nor a snapshot below sees any of it.
        self.assert_reads(&before, self.model.tail);
        self.assert_reads(&self.store.sources(), self.model.tail);
        self.model.commit(&spilled.committed(), stamp);
        self.model.adopted.insert(stamp, Adopting { runs, kept });
    }

    /// Writes what a transaction spills: each spill as some files.
    fn spill(&self, spilled: &Spilled) -> Vec<AdoptedRun> {
        let runs = (1..).zip(&spilled.spills).flat_map(|(spill, writes)| {
            let entries = write_run(&self.store, self.disk.as_ref(), writes).into_iter();
            entries.map(move |entry| AdoptedRun {
                entry,
                spill,
                through: Lsn::new(spill),
                dead: spilled.dead.clone(),
            })
        });
        runs.collect()
    }
}

/// Writes a write run of what the sub-transactions have written.
pub(super) fn write_run(store: &Store, disk: &dyn Disk, writes: &Writes) -> Vec<RunEntry> {
    let plan = SpillPlan {
        identity: store.identity,
        kind: Kind::Write,
        owners: vec![OWNER],
    };
    let number = || store.take_number();
    let mut writer = SpillWriter::cut_at(disk, plan, FILE_BYTES, number);
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
    writer.finish().unwrap()
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

fn some_spills() -> impl Strategy<Value = Spilled> {
    let dead = prop::collection::vec((0..6_u32, 0..3_u32), 0..3);
    let kept = prop::collection::btree_map(0..60_u32, any::<bool>(), 0..6);
    (prop::collection::vec(some_writes(), 0..4), dead, kept).prop_map(|(spills, dead, kept)| {
        let kept = kept.iter().map(|(number, is_put)| {
            let value = is_put.then(|| value(9, *number, 30));
            (row(*number), value)
        });
        Spilled {
            spills,
            dead: DeadSubs::new(dead.iter().map(|(from, more)| (*from, from + more))),
            kept: kept.collect(),
        }
    })
}

/// What may happen beside everything else that a store does.
#[derive(Debug, Clone)]
enum Step {
    Other(Action),
    Adopt(Spilled),
    /// It spills, and is rolled back.
    RollBack(Spilled),
    /// A snapshot is taken, to be read at the end.
    Hold,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => super::action().prop_map(Step::Other),
        2 => some_spills().prop_map(Step::Adopt),
        1 => some_spills().prop_map(Step::RollBack),
        1 => Just(Step::Hold),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Adoption, W5, S1: commits of either kind, rollbacks, rotations, flushes, compactions, manifests and crashes, in any
    /// order, agree with a map of all versions, at every LSN, in every reader.
    #[test]
    fn adoptions_among_everything_else_agree_with_a_map(
        many in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut rig = Rig::shaped(if many { MANY_LEVELS } else { ONE_LEVEL });
        let mut held = Vec::new();
        for step in &steps {
            match step {
                Step::Other(action) => {
                    super::perform(&mut rig, action);
                    if matches!(action, Action::Reopen { .. }) {
                        held.clear();
                    }
                }
                Step::Adopt(spilled) => {
                    rig.adopt(spilled);
                    rig.assert_readable();
                }
                Step::RollBack(spilled) => {
                    let runs = rig.spill(spilled);
                    drop(rig.store.prepare_adoption(owner(1), runs).unwrap());
                }
                Step::Hold => held.push((rig.store.sources(), rig.model.tail)),
            }
        }
        rig.assert_readable();
        prop_assert!(rig.check().findings.is_empty());
        for (sources, at) in held {
            rig.assert_reads(&sources, at);
        }
        let stats = rig.store.stats();
        let unlisted: usize = rig.store.part().unlisted.iter().map(|open| open.spills.len()).sum();
        prop_assert_eq!(stats.adopted_runs, unlisted);
        // Everything is listed in the end, and nothing else is left.
        rig.checkpoint();
        rig.write_manifest().unwrap();
        prop_assert_eq!(rig.store.part().unlisted, []);
        let rig = rig.reopened(rig.disk.clone(), rig.model.tail);
        rig.assert_readable();
        rig.assert_no_spill_is_left_over();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    /// Adoption, S1, V3, V4: under its stamp a spill is what its newest records that are alive say, in every reader,
    /// beside and below other runs, and after every compaction.
    #[test]
    fn what_was_adopted_reads_as_its_commit_wrote_it(
        before in prop::collection::vec((0..60_u32, 0..100_usize), 0..60),
        first in some_spills(),
        second in some_spills(),
        behind in prop::collection::vec((0..60_u32, 0..100_usize), 0..40),
        many_levels in any::<bool>(),
    ) {
        let mut rig = Rig::shaped(if many_levels { MANY_LEVELS } else { ONE_LEVEL });
        for (number, bytes) in &before {
            rig.put(*number, *bytes);
        }
        rig.adopt(&first);
        rig.assert_readable();
        rig.checkpoint();
        rig.assert_readable();
        rig.adopt(&second);
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
        rig.assert_no_spill_is_left_over();
    }
}

impl Rig {
    /// S6: every spill in the directory is an adopted run.
    fn assert_no_spill_is_left_over(&self) {
        let sources = self.store.sources();
        let adopted = sources.runs().filter(|run| run.is_adopted());
        let adopted: BTreeSet<_> = adopted.map(|run| run.entry().file_name()).collect();
        let spills = self.disk.names().into_iter();
        let spills: BTreeSet<_> = spills.filter(|name| name.starts_with("spill-")).collect();
        assert_eq!(spills, adopted, "S6");
    }
}

/// Five rows, two of them written twice, one deleted.
fn twice() -> Spilled {
    let put = |number: u32, sub| {
        (
            (row(number), std::cmp::Reverse(sub)),
            Some(value(1, number, 9)),
        )
    };
    let mut writes: Writes = [put(0, 1), put(1, 1), put(0, 4), put(3, 2)].into();
    writes.insert((row(1), std::cmp::Reverse(3)), None);
    Spilled {
        spills: vec![writes],
        ..Spilled::default()
    }
}

#[test]
fn no_byte_of_what_is_adopted_is_rewritten() {
    let mut rig = Rig::new();
    rig.adopt(&twice());
    let run = rig.model.adopted[&rig.model.tail].runs[0].entry.clone();
    let bytes = rig.disk.read_file(&run.file_name());
    rig.checkpoint();
    assert_eq!(rig.store.runs()[0].number, run.number);
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
    rig.adopt(&Spilled {
        dead: DeadSubs::new([(4, 9)]),
        ..twice()
    });
    let stamp = rig.model.tail;
    // While it is a layer of its own, and as a run of level 0.
    for is_listed in [false, true] {
        assert_eq!(rig.store.part().unlisted.is_empty(), is_listed);
        let sources = rig.store.sources();
        let get = |at: u64| {
            sources
                .get(row(0).as_bytes(), Lsn::new(at))
                .unwrap()
                .unwrap()
        };
        assert_eq!(get(before).stamp.get(), before);
        assert_eq!(get(stamp - 1).stamp.get(), before);
        assert_eq!(get(stamp).stamp.get(), stamp);
        let since = |at: u64| sources.changed(row(3).as_bytes(), Lsn::new(at), Lsn::new(stamp));
        assert!(since(before).unwrap());
        assert!(
            !since(stamp).unwrap(),
            "V3: what stands for stamps is nobody's stamp"
        );
        rig.checkpoint();
    }
}

/// S1: what a commit kept in memory and what it adopted enter the runs in one step.
#[test]
fn a_flush_takes_all_of_a_commit_or_nothing() {
    let mut rig = Rig::new();
    rig.put(5, 1);
    let flushed_through = |rig: &Rig| rig.store.part().flushed_through.get();
    rig.adopt(&Spilled {
        kept: [(row(7), Some(value(0, 7, 5)))].into(),
        ..twice()
    });
    let stamp = rig.model.tail;
    // The memtable before it is sealed and can go, not what is above it.
    rig.flush().unwrap();
    assert_eq!(flushed_through(&rig), stamp - 1);
    assert_eq!(rig.store.part().unlisted.len(), 1);
    rig.write_manifest().unwrap();
    rig.adopt(&twice());
    let second = rig.model.tail;
    rig.durable = second - 1;
    rig.store.flush(Lsn::new(rig.durable)).unwrap();
    assert_eq!(flushed_through(&rig), second - 1);
    let unlisted = rig.store.part().unlisted;
    assert_eq!(unlisted.len(), 1);
    assert_eq!(unlisted[0].txn.txn.sequence, second);
    rig.write_manifest().unwrap();
    assert_eq!(rig.manifest.spills.len(), 1);
    // Nothing is above it, and a rotation says so.
    rig.flush().unwrap();
    assert_eq!(rig.store.part().unlisted.len(), 1);
    rig.checkpoint();
    assert_eq!(flushed_through(&rig), second);
    assert_eq!(rig.store.part().unlisted, []);
    assert_eq!(
        rig.store.load().level_0_runs,
        2,
        "adopted runs do not count"
    );
    assert_eq!(rig.store.runs().len(), 4);
    rig.assert_readable();
}

/// S1, S3: what a rotation has passed is flushed, whatever was adopted between the rotation and the flush: where recovery begins to
/// read was decided at the rotation. Once, a memtable that was sealed behind it kept a commit from the runs, and the log was cut
/// off behind that.
#[test]
fn what_a_rotation_has_passed_is_flushed_whatever_comes_behind_it() {
    for (is_first_empty, is_durable) in [(true, false), (true, true), (false, false), (false, true)]
    {
        let mut rig = Rig::new();
        rig.adopt(&twice());
        if !is_first_empty {
            rig.put(1, 5);
        }
        let passed = rig.model.tail;
        rig.rotate();
        rig.put(2, 5);
        rig.adopt(&twice());
        rig.durable = if is_durable { rig.model.tail } else { passed };
        rig.store.flush(Lsn::new(passed)).unwrap();
        let part = rig.store.part();
        assert_eq!(part.flushed_through.get(), passed);
        assert_eq!(part.unlisted.len(), 1, "the one behind it");
        rig.write_manifest().unwrap();
        rig.assert_readable();
        // The log has what comes behind.
        let rig = rig.reopened(rig.disk.clone(), rig.model.tail);
        rig.assert_readable();
    }
}

/// V2: a lock would become a deleted row.
#[test]
fn what_is_no_write_run_is_not_adopted() {
    let rig = Rig::new();
    let plan = SpillPlan {
        identity: rig.manifest.identity(),
        kind: Kind::Lock,
        owners: vec![OWNER],
    };
    let mut writer = SpillWriter::new(rig.disk.as_ref(), plan, || rig.store.take_number());
    let locked = row(1);
    let record = Record {
        row: locked.as_bytes(),
        owner: OWNER,
        sub: 0,
        effect: Effect::Lock,
        mode: LockMode::Update,
        token: FencingToken::new(Lsn::new(1)),
        fresh: true,
        writes: false,
    };
    writer.push(&record).unwrap();
    let run = AdoptedRun {
        entry: writer.finish().unwrap().remove(0),
        spill: 1,
        through: Lsn::new(1),
        dead: DeadSubs::NONE,
    };
    let refused = rig.store.prepare_adoption(owner(1), vec![run]).unwrap_err();
    assert!(matches!(refused, StorageError::Corrupt { .. }), "{refused}");
    // Nor two files as one spill that have the same rows.
    let spilled = twice();
    let [first, second] = [(); 2].map(|()| rig.spill(&spilled).remove(0));
    let refused = rig
        .store
        .prepare_adoption(owner(1), vec![first, second])
        .unwrap_err();
    assert!(matches!(refused, StorageError::Corrupt { .. }), "{refused}");
}

/// S6: who is looking for a row in a spill opens its file by its name, and may be slow.
#[test]
fn a_spill_goes_when_nobody_looks_into_it_any_more() {
    let rig = Rig::new();
    let entry = rig.spill(&twice()).remove(0).entry;
    let run = rig.store.open_spill(&entry).unwrap();
    let looker = run.clone();
    rig.store.discard_spills(vec![run]);
    assert_eq!(rig.store.reclaim().unwrap(), 0);
    let mut records = looker.records();
    assert!(records.next().unwrap().is_some());
    drop((records, looker));
    assert_eq!(rig.store.reclaim().unwrap(), 1);
    assert!(!rig.disk.names().contains(&entry.file_name()));
}

#[test]
fn spills_that_nobody_needs_are_swept_and_no_others() {
    let mut rig = Rig::new();
    let [dead, alive] = [(); 2].map(|()| rig.spill(&twice()).remove(0).entry);
    rig.adopt(&twice());
    let listed = rig.model.adopted[&rig.model.tail].runs[0].entry.clone();
    rig.checkpoint();
    rig.adopt(&twice());
    let unlisted = rig.model.adopted[&rig.model.tail].runs[0].entry.clone();
    let manifest = Manifest::read_newest(rig.disk.as_ref()).unwrap().unwrap();
    let replayed = rig
        .model
        .replayed(manifest.flushed_through.get(), rig.model.tail);
    rig.store = open(&rig.disk, rig.shape, &manifest, replayed).unwrap();
    let names = rig.disk.names();
    let later = rig.spill(&twice()).remove(0).entry;
    assert!(later.number > unlisted.number, "no name is used twice");
    let needed = [alive.number].into();
    assert_eq!(rig.store.sweep_spills(&names, &needed).unwrap(), 1);
    // S6: neither one that was adopted, nor one made since the open, whoever gives its name.
    assert_eq!(
        rig.store.sweep_spills(&rig.disk.names(), &needed).unwrap(),
        0
    );
    let names = rig.disk.names();
    assert!(!names.contains(&dead.file_name()));
    for entry in [alive, later, listed, unlisted] {
        assert!(names.contains(&entry.file_name()));
    }
    rig.assert_readable();
}

#[test]
fn a_flipped_byte_of_an_adopted_run_is_an_error_or_does_no_harm() {
    let mut rig = Rig::new();
    rig.adopt(&Spilled {
        dead: DeadSubs::new([(4, 4)]),
        ..twice()
    });
    let run = rig.model.adopted[&rig.model.tail].runs[0].entry.clone();
    // As a layer of its own, and as a run of level 0.
    for is_listed in [false, true] {
        if is_listed {
            rig.checkpoint();
        }
        let replayed = || {
            let above = rig.manifest.flushed_through.get();
            rig.model.replayed(above, rig.model.tail)
        };
        for at in 0..run.bytes {
            rig.disk.flip_byte(&run.file_name(), at);
            if let Ok(store) = open(&rig.disk, rig.shape, &rig.manifest, replayed()) {
                let sources = store.sources();
                for number in [0, 1, 3] {
                    let got = sources.get(row(number).as_bytes(), Lsn::MAX);
                    let want = rig.model.get(row(number).as_bytes(), u64::MAX);
                    assert!(
                        got.is_err() || got.unwrap().unwrap().value == want,
                        "F11: byte {at}"
                    );
                }
                let findings = || store.check(&mut |_, _| {}).unwrap().findings;
                assert!(!findings().is_empty(), "F12: byte {at}");
                // What a spill said of itself a scrub of a listed run does not read: nobody does.
                let scrub = store.scrub(u64::MAX);
                assert!(is_listed || !scrub.findings.is_empty(), "F12: byte {at}");
            }
            rig.disk.flip_byte(&run.file_name(), at);
        }
    }
    let foreign = SimDisk::new(2);
    assert!(open(&foreign, rig.shape, &rig.manifest, Vec::new()).is_err());
}

/// R1: at every moment of spilling, committing, flushing, publishing and compacting, and whatever of what was not yet durable the
/// log still has, a commit that adopts is there as a whole or not at all.
#[test]
fn every_crash_around_adoptions_recovers() {
    let mut rig = Rig::shaped(MANY_LEVELS);
    for number in 0..20 {
        rig.put(number, 40);
    }
    rig.checkpoint();
    let from = rig.disk.io_count();
    // From which moment on the log may reach how far, and from where it must.
    let mut log = vec![(from, rig.durable, rig.model.tail)];
    let mut note = |rig: &Rig| log.push((rig.disk.io_count(), rig.durable, rig.model.tail));
    let writes = |from: u32, sub| -> Writes {
        let rows = (from..from + 24).map(|number| {
            let value = (number % 5 != 0).then(|| value(1, number, 90));
            ((row(number), std::cmp::Reverse(sub)), value)
        });
        rows.collect()
    };
    let spilled = Spilled {
        spills: vec![writes(0, 1), writes(10, 3), writes(4, 2)],
        dead: DeadSubs::new([(3, 3)]),
        kept: [(row(11), None), (row(50), Some(value(2, 50, 20)))].into(),
    };
    for round in 0..3 {
        rig.put(30, 10);
        note(&rig);
        rig.spill(&spilled);
        rig.adopt(&spilled);
        note(&rig);
        rig.write_manifest().unwrap();
        if round > 0 {
            rig.adopt(&Spilled {
                kept: BTreeMap::new(),
                ..spilled.clone()
            });
            note(&rig);
        }
        rig.rotate();
        rig.durable = rig.model.tail;
        note(&rig);
        rig.checkpoint();
        while rig.compact(rig.model.tail).unwrap() {
            rig.write_manifest().unwrap();
        }
    }
    let mut crashes = 0;
    for moment in from..=rig.disk.io_count() {
        let &(_, durable, tail) = log.iter().rfind(|(at, ..)| *at <= moment).unwrap();
        for survivors in Survivors::enumerate(rig.disk.unsynced(moment), 3) {
            let stamps = rig
                .model
                .adopted
                .range(durable..=tail)
                .map(|(stamp, _)| *stamp);
            let tails: BTreeSet<_> = stamps.chain([durable, tail]).collect();
            for tail in tails {
                let disk = rig.disk.after_crash(moment, &survivors);
                let mut reopened = rig.reopened(disk, tail);
                reopened.assert_reads(&reopened.store.sources(), tail);
                reopened.assert_no_spill_is_left_over();
                crashes += 1;
                if crashes % 40 == 0 {
                    // And goes on from there.
                    reopened.adopt(&spilled);
                    reopened.checkpoint();
                    while reopened.compact(reopened.model.tail).unwrap() {
                        reopened.write_manifest().unwrap();
                    }
                    reopened.assert_readable();
                }
            }
        }
    }
    assert!(crashes > 500, "{crashes}");
}
