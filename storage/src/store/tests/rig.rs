//! What the store's tests drive: a store on a simulated disk, and a map of all versions to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, RowKey, TableId, TxnId};
use lockstone_testkit::SimDisk;

use super::super::*;
use crate::manifest::{SpillEntry, UnfinishedTxn};
use crate::provisional::Kind;
use crate::version::{Replayed, Version};

pub(super) const UUID: u128 = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321;
pub(super) const SALT: u64 = 0x5a17;

/// Level 0 goes down when it has three runs; everything below fits one run.
pub(super) const ONE_LEVEL: Shape = Shape {
    level_0_runs: 3,
    base_bytes: 1 << 30,
    run_bytes: 1 << 30,
};

/// A hundred rows of some size make three levels below level 0; a run has about one block.
pub(super) const MANY_LEVELS: Shape = Shape {
    level_0_runs: 2,
    base_bytes: 150,
    run_bytes: 3000,
};

/// Nothing ever stops a compaction.
pub(super) static GO_ON: AtomicBool = AtomicBool::new(false);

pub(super) fn row(number: u32) -> RowKey {
    // Some rows share long prefixes, some are prefixes of others.
    let key = match number % 4 {
        0 => format!("{number:03}"),
        1 => format!("{:03}\0suffix", number - 1),
        2 => format!("{:03}\0suffix\0suffix", number - 2),
        _ => "x".repeat(number as usize % 90),
    };
    RowKey::new(TableId(1 + number % 2), key.as_bytes())
}

pub(super) fn value(stamp: u64, number: u32, bytes: usize) -> Bytes {
    let mut value = format!("{stamp}/{number}/").into_bytes();
    value.resize(value.len() + bytes, b'.');
    Bytes::from(value)
}

/// Who has committed at `stamp`.
pub(super) fn owner(stamp: u64) -> UnfinishedTxn {
    UnfinishedTxn {
        txn: TxnId::new(1, stamp),
        state: Bytes::copy_from_slice(&stamp.to_le_bytes()),
    }
}

/// The commits, and all versions that they wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<Bytes, BTreeMap<u64, Option<Bytes>>>,
    /// Of those commits that have adopted, by stamp.
    pub(super) adopted: BTreeMap<u64, Adopting>,
    pub(super) tail: u64,
}

impl Model {
    pub(super) fn commit(&mut self, writes: &BTreeMap<RowKey, Option<Bytes>>, stamp: u64) {
        assert!(stamp > self.tail);
        self.tail = stamp;
        for (row, value) in writes {
            let versions = self.rows.entry(row.to_bytes()).or_default();
            versions.insert(stamp, value.clone());
        }
    }

    pub(super) fn get(&self, row: &[u8], at: u64) -> Option<Bytes> {
        let (_, value) = self.rows.get(row)?.range(..=at).next_back()?;
        value.clone()
    }

    pub(super) fn live(&self, at: u64) -> Vec<(Bytes, Bytes)> {
        self.rows
            .keys()
            .filter_map(|row| Some((row.clone(), self.get(row, at)?)))
            .collect()
    }

    /// What recovery would read from a log that reaches up to `tail`.
    pub(super) fn replayed(&self, above: u64, tail: u64) -> Vec<Replay> {
        let mut replayed = Vec::new();
        let mut from = above + 1;
        for (stamp, commit) in self.adopted_between(above, tail) {
            replayed.extend(self.memtables(from, stamp - 1));
            replayed.push(Replay::Adopted {
                stamp: Lsn::new(*stamp),
                txn: owner(*stamp),
                runs: commit.runs.clone(),
            });
            from = *stamp;
        }
        replayed.extend(self.memtables(from, tail));
        // Adopting twice is a no-op, and what has become of these files is nobody's business.
        let before = self
            .adopted_between(0, above)
            .map(|(stamp, commit)| Replay::Adopted {
                stamp: Lsn::new(*stamp),
                txn: owner(*stamp),
                runs: commit.runs.clone(),
            });
        before.chain(replayed).collect()
    }

    /// The commits that have adopted, with stamps above the first and not above the second.
    fn adopted_between(
        &self,
        above: u64,
        through: u64,
    ) -> impl DoubleEndedIterator<Item = (&u64, &Adopting)> + Clone {
        let is_between = move |stamp: &u64| above < *stamp && *stamp <= through;
        self.adopted
            .iter()
            .filter(move |(stamp, _)| is_between(stamp))
    }

    /// What commits with these stamps had in memory, in two memtables.
    fn memtables(&self, from: u64, through: u64) -> [Replay; 2] {
        let versions = self.rows.iter().flat_map(|(row, versions)| {
            let key = RowKey::from_encoded(row.clone()).unwrap();
            let in_memory = |stamp: &u64| {
                let adopted = self.adopted.get(stamp);
                adopted.is_none_or(|commit| commit.kept.contains_key(&key))
            };
            versions
                .range(from..=through.max(from))
                .filter(|(stamp, _)| **stamp <= through && in_memory(stamp))
                .map(|(stamp, value)| Replayed {
                    row: key.clone(),
                    stamp: Lsn::new(*stamp),
                    value: value.clone(),
                })
                .collect::<Vec<_>>()
        });
        let middle = Lsn::new(from.midpoint(through));
        let (older, newer): (Vec<_>, Vec<_>) =
            versions.partition(|version| version.stamp <= middle);
        [(older, middle), (newer, Lsn::new(through))]
            .map(|(versions, end)| Memtable::replayed(versions, end).into())
    }
}

/// A commit that has adopted.
#[derive(Debug, Clone)]
pub(super) struct Adopting {
    pub(super) runs: Vec<AdoptedRun>,
    /// What it kept in memory.
    pub(super) kept: BTreeMap<RowKey, Option<Bytes>>,
}

#[derive(Debug)]
pub(super) struct Rig {
    pub(super) disk: Arc<SimDisk>,
    pub(super) shape: Shape,
    pub(super) store: Store,
    pub(super) manifest: Manifest,
    pub(super) model: Model,
    pub(super) durable: u64,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::shaped(ONE_LEVEL)
    }

    pub(super) fn shaped(shape: Shape) -> Self {
        let disk = SimDisk::new(1);
        let manifest = Manifest {
            uuid: UUID,
            salt: SALT,
            generation: 1,
            ..Manifest::default()
        };
        manifest.write(disk.as_ref()).unwrap();
        let store = open(&disk, shape, &manifest, Vec::new()).unwrap();
        Self {
            disk,
            shape,
            store,
            manifest,
            model: Model::default(),
            durable: 0,
        }
    }

    pub(super) fn commit(&mut self, writes: &BTreeMap<RowKey, Option<Bytes>>) {
        let stamp = self.model.tail + 1 + self.model.tail % 3;
        let rows = writes
            .iter()
            .map(|(row, value)| (row.clone(), value.clone()));
        let batch = WriteBatch::from_sorted(rows);
        self.store.apply(batch, Lsn::new(stamp));
        self.model.commit(writes, stamp);
    }

    pub(super) fn put(&mut self, number: u32, bytes: usize) {
        let stamp = self.model.tail + 1 + self.model.tail % 3;
        self.commit(&BTreeMap::from([(
            row(number),
            Some(value(stamp, number, bytes)),
        )]));
    }

    pub(super) fn delete(&mut self, number: u32) {
        self.commit(&BTreeMap::from([(row(number), None)]));
    }

    pub(super) fn rotate(&self) -> bool {
        self.store.rotate(Lsn::new(self.model.tail))
    }

    pub(super) fn flush(&mut self) -> Result<usize, StorageError> {
        self.durable = self.model.tail;
        self.store.flush(Lsn::new(self.durable))
    }

    /// Runs one compaction that is due; whether one was.
    pub(super) fn compact(&self, horizon: u64) -> Result<bool, StorageError> {
        let droppable = Droppable {
            horizon: Lsn::new(horizon),
            tables: Vec::new(),
        };
        self.store.compact(&droppable, &GO_ON)
    }

    /// Merges everything into the deepest level.
    pub(super) fn compact_whole(&mut self, horizon: u64) -> Result<(), StorageError> {
        let droppable = Droppable {
            horizon: Lsn::new(horizon),
            tables: Vec::new(),
        };
        let mut whole = self.store.whole_compaction();
        while self.store.compact_whole(&mut whole, &droppable, &GO_ON)? {
            self.write_manifest()?;
        }
        Ok(())
    }

    pub(super) fn next_manifest(&self) -> Manifest {
        let part = self.store.part();
        self.assert_unlisted(&part);
        let mut next = Manifest {
            generation: self.manifest.generation + 1,
            durable: Lsn::new(self.durable).max(part.flushed_through),
            flushed_through: part.flushed_through,
            next_run: part.next_run,
            runs: part.runs,
            ..self.manifest.clone()
        };
        next.list_open(part.unlisted);
        next
    }

    /// S1, S4: what was adopted and is not listed is still its owners'.
    fn assert_unlisted(&self, part: &StorePart) {
        let want = self.model.adopted.range(part.flushed_through.get() + 1..);
        let want = want.rev().map(|(stamp, commit)| {
            let spill = |run: &AdoptedRun| (run.entry.clone(), run.spill, run.dead.clone());
            (owner(*stamp), commit.runs.iter().map(spill).collect())
        });
        let found = part.unlisted.iter().map(|open| {
            let spill = |spill: &SpillEntry| {
                let part = &spill.parts[0];
                assert_eq!((spill.kind, part.owner), (Kind::Write, open.txn.txn), "S4");
                (spill.run.clone(), part.spill, part.dead.clone())
            };
            (open.txn.clone(), open.spills.iter().map(spill).collect())
        });
        let want: Vec<(UnfinishedTxn, Vec<_>)> = want.collect();
        assert_eq!(found.collect::<Vec<_>>(), want, "S1");
    }

    pub(super) fn write_manifest(&mut self) -> Result<(), StorageError> {
        // A failed try may have taken force: the next one is above it.
        let next = self.next_manifest();
        self.manifest.generation = next.generation;
        next.write(self.disk.as_ref())?;
        self.manifest = next;
        self.store.manifest_written(&self.manifest)?;
        Ok(())
    }

    /// A whole checkpoint.
    pub(super) fn checkpoint(&mut self) {
        self.rotate();
        self.flush().unwrap();
        self.write_manifest().unwrap();
    }

    /// Opens what `disk` holds, with a log that reaches up to `tail`.
    pub(super) fn reopened(&self, disk: Arc<SimDisk>, tail: u64) -> Self {
        let manifest = Manifest::read_newest(disk.as_ref()).unwrap().unwrap();
        let names = disk.names();
        let replayed = self.model.replayed(manifest.flushed_through.get(), tail);
        let store = open(&disk, self.shape, &manifest, replayed).unwrap();
        store.sweep(&names).unwrap();
        // What was adopted and is not listed the store knows; nothing else outlives this crash.
        store.sweep_spills(&names, &BTreeSet::new()).unwrap();
        let mut model = self.model.clone();
        for versions in model.rows.values_mut() {
            versions.retain(|stamp, _| *stamp <= tail);
        }
        model.adopted.retain(|stamp, _| *stamp <= tail);
        model.tail = tail;
        Self {
            disk,
            shape: self.shape,
            store,
            manifest,
            model,
            durable: tail,
        }
    }

    pub(super) fn check(&self) -> StoreCheck {
        self.store.check(&mut |_, _| {}).unwrap()
    }

    pub(super) fn assert_readable(&self) {
        let sources = self.store.sources();
        let tail = self.model.tail;
        let horizon = sources.drop_horizon().get().min(tail);
        for at in [
            horizon,
            horizon.midpoint(tail),
            tail.saturating_sub(1).max(horizon),
            tail,
        ] {
            self.assert_reads(&sources, at);
            self.assert_changes(&sources, at);
        }
    }

    /// What was written behind `since` is known, row by row and between any two.
    fn assert_changes(&self, sources: &Sources, since: u64) {
        let (since_lsn, tail) = (Lsn::new(since), Lsn::new(self.model.tail));
        let rows = self.model.rows.iter();
        let written: Vec<_> = rows
            .map(|(row, versions)| (row.clone(), versions.range(since + 1..).next().is_some()))
            .collect();
        for (row, want) in &written {
            let changed = sources.changed(row, since_lsn, tail).unwrap();
            assert_eq!(changed, *want, "row {row:?} since {since}");
        }
        let step = (written.len() / 6).max(1);
        for low in (0..written.len()).step_by(step) {
            for high in (low..written.len()).step_by(step) {
                let part = &written[low..=high];
                let ends = (part[0].0.clone(), part[high - low].0.clone());
                let range = (
                    Bound::Included(ends.0.clone()),
                    Bound::Included(ends.1.clone()),
                );
                let changed = sources.changed_within(range, (since_lsn, tail), &|| true);
                let want = part.iter().any(|(_, changed)| *changed);
                assert_eq!(changed.unwrap(), Some(want), "from {ends:?} since {since}");
                if high - low < 2 {
                    continue;
                }
                let inner = (
                    Bound::Excluded(ends.0.clone()),
                    Bound::Excluded(ends.1.clone()),
                );
                let changed = sources.changed_within(inner, (since_lsn, tail), &|| true);
                let want = part[1..high - low].iter().any(|(_, changed)| *changed);
                assert_eq!(
                    changed.unwrap(),
                    Some(want),
                    "between {ends:?} since {since}"
                );
            }
        }
    }

    pub(super) fn assert_reads(&self, sources: &Arc<Sources>, at: u64) {
        let want = self.model.live(at);
        for row in self.model.rows.keys() {
            let got = sources.get(row, Lsn::new(at)).unwrap();
            let got = got.and_then(|version| version.value);
            assert_eq!(got, self.model.get(row, at), "row {row:?} at {at}");
        }
        let asked: Vec<_> = self.model.rows.keys().rev().collect();
        let found = sources.get_many(&asked, Lsn::new(at)).into_iter();
        for (row, got) in asked.iter().zip(found) {
            let got = got.unwrap().and_then(|version| version.value);
            assert_eq!(got, self.model.get(row, at), "of many, row {row:?} at {at}");
        }
        let all = || sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::new(at));
        assert_eq!(rows(all()), want, "forwards at {at}");
        let mut backward = rows(all().rev());
        backward.reverse();
        assert_eq!(backward, want, "backwards at {at}");
        assert_eq!(from_both_ends(all(), at), want, "from both ends at {at}");
        let middle = want.len() / 3..(want.len() * 2).div_ceil(3);
        if let (Some(low), Some(high)) = (want.get(middle.start), want.get(middle.end)) {
            let range = (
                Bound::Excluded(low.0.clone()),
                Bound::Included(high.0.clone()),
            );
            let part = &want[middle.start + 1..=middle.end];
            assert_eq!(rows(sources.scan(range.clone(), Lsn::new(at))), part);
            assert_eq!(from_both_ends(sources.scan(range, Lsn::new(at)), at), part);
            let range = (
                Bound::Included(low.0.clone()),
                Bound::Excluded(high.0.clone()),
            );
            let part = &want[middle];
            assert_eq!(rows(sources.scan(range.clone(), Lsn::new(at))), part);
            assert_eq!(from_both_ends(sources.scan(range, Lsn::new(at)), at), part);
        }
    }
}

pub(super) fn open(
    disk: &Arc<SimDisk>,
    shape: Shape,
    manifest: &Manifest,
    replayed: Vec<Replay>,
) -> Result<Store, StorageError> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Store::open(disk, StoreConfig { shape }, manifest, replayed)
}

pub(super) type Item = Result<(Bytes, Version), StorageError>;

pub(super) fn rows(scan: impl Iterator<Item = Item>) -> Vec<(Bytes, Bytes)> {
    scan.map(|item| {
        item.map(|(row, version)| (row, version.value.unwrap()))
            .unwrap()
    })
    .collect()
}

pub(super) fn from_both_ends(
    mut scan: impl DoubleEndedIterator<Item = Item>,
    seed: u64,
) -> Vec<(Bytes, Bytes)> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let mut draw = seed;
    loop {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (end, item) = if draw >> 62 == 0 {
            (&mut back, scan.next_back())
        } else {
            (&mut front, scan.next())
        };
        match item {
            Some(item) => end.extend(rows([item].into_iter())),
            None => break,
        }
    }
    assert!(scan.next().is_none() && scan.next_back().is_none());
    back.reverse();
    front.append(&mut back);
    front
}
