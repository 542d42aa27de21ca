//! What the store knows of its files, behind its latch: numbers, what a manifest lists, what jobs take.
//!
//! Held for moments, never while a file is read or written; so a flush never waits for a compaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::TableId;
use lockstone_base::disk::DiskOp;

use crate::compaction::{Job, Picker, Shape, Taken};
use crate::error::StorageError;
use crate::manifest::LEVEL_MAX;
use crate::memtable::Memtable;
use crate::provisional::ProvisionalRun;
use crate::run::Run;
use crate::tree::Tree;

/// What the store knows of its files.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) next_run: u64,
    /// The runs that the newest durable manifest lists.
    pub(super) listed: HashSet<u64>,
    /// What running compactions keep others from.
    pub(super) taken: Taken,
    /// Runs that could not be read, each with what was found (F11).
    pub(super) damaged: BTreeMap<u64, StorageError>,
    /// Those of them found so since the scrubber began with them.
    found_since: HashSet<u64>,
    /// Damaged runs that compactions may try once more.
    pub(super) retried: HashSet<u64>,
    /// Runs that the device has refused to read once.
    pub(super) refused: HashSet<u64>,
    /// Dropped tables whose rows may go.
    pub(super) dropped: Vec<TableId>,
    /// Runs that have none of their rows, whatever their ends say.
    pub(super) cleaned: HashSet<u64>,
    /// Of each level, the largest row of the run taken last.
    turns: Vec<Bytes>,
    /// What has left the list of sources and may still be read.
    pub(super) retired: Retired,
}

/// What has left the list of sources.
#[derive(Debug, Default)]
pub(super) struct Retired {
    pub(super) memtables: Vec<Arc<Memtable>>,
    pub(super) runs: Vec<Arc<Run>>,
    /// Spills that are needed no more.
    pub(super) spills: Vec<ProvisionalRun>,
    /// Runs and spills that nobody has any more, whose files are still to be removed.
    pub(super) files: BTreeMap<u64, String>,
}

impl Catalogue {
    pub(super) fn new(next_run: u64, listed: HashSet<u64>) -> Self {
        Self {
            next_run,
            listed,
            taken: Taken::default(),
            damaged: BTreeMap::new(),
            found_since: HashSet::new(),
            retried: HashSet::new(),
            refused: HashSet::new(),
            dropped: Vec::new(),
            cleaned: HashSet::new(),
            turns: vec![Bytes::new(); usize::from(LEVEL_MAX) + 1],
            retired: Retired::default(),
        }
    }

    /// A number that no file ever had.
    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.next_run;
        self.next_run += 1;
        number
    }

    pub(super) fn picker<'a>(&'a self, tree: &'a Tree, shape: Shape) -> Picker<'a> {
        Picker {
            tree,
            shape,
            listed: &self.listed,
            taken: &self.taken,
            damaged: &self.damaged,
            retried: &self.retried,
            dropped: &self.dropped,
            cleaned: &self.cleaned,
            turns: &self.turns,
            kept_clear: None,
        }
    }

    /// F11: takes note of why the run `number` could not be read; whether that makes it a damaged one. A device that
    /// refuses to read may do so once, and is asked again (F6). What else fails says nothing of the run.
    pub(super) fn note_failed_read(&mut self, number: u64, error: &StorageError) -> bool {
        let is_damage = match error {
            StorageError::Corrupt { .. } => true,
            StorageError::Disk(error) if error.op == DiskOp::Read => !self.refused.insert(number),
            _ => false,
        };
        if is_damage {
            self.damaged.insert(number, error.clone());
            self.found_since.insert(number);
            self.retried.remove(&number);
        }
        is_damage
    }

    /// The run `number` is read through from its beginning.
    pub(super) fn begin_reading(&mut self, number: u64) {
        self.found_since.remove(&number);
    }

    /// The run `number` has been read through: what was found wrong with it before is no longer what is known of it.
    pub(super) fn end_reading(&mut self, number: u64) {
        if !self.found_since.remove(&number) {
            self.forget_damage_of(number);
        }
    }

    /// What was found wrong with the run `number` is no longer what is known of it.
    pub(super) fn forget_damage_of(&mut self, number: u64) {
        self.damaged.remove(&number);
        self.retried.remove(&number);
        self.refused.remove(&number);
    }

    /// The next job of a level begins behind this one.
    pub(super) fn pass_turn(&mut self, job: &Job) {
        let last = job.inputs.first().map(|run| run.entry().largest.clone());
        if let (Some(turn), Some(last)) = (self.turns.get_mut(usize::from(job.from)), last) {
            *turn = last;
        }
    }

    /// Which tables' rows may go from now on. Runs that were clean of others are not clean of a new one.
    pub(super) fn drop_tables(&mut self, dropped: &[TableId]) {
        if dropped.iter().any(|table| !self.dropped.contains(table)) {
            self.cleaned.clear();
        }
        self.dropped = dropped.to_vec();
    }
}

impl Retired {
    /// Whether something is kept for a reader alone.
    pub(super) fn is_read(&self, listed: &HashSet<u64>) -> bool {
        let is_kept = |run: &Arc<Run>| !listed.contains(&run.entry().number);
        !self.memtables.is_empty() || self.runs.iter().any(is_kept)
    }

    /// Takes out the spills that nobody looks into any more.
    pub(super) fn unread_spills(&mut self) -> Vec<ProvisionalRun> {
        let is_unread = |spill: &mut ProvisionalRun| !spill.is_shared();
        let spills: Vec<_> = self.spills.extract_if(.., is_unread).collect();
        let entries = spills.iter().map(ProvisionalRun::entry);
        self.files
            .extend(entries.map(|run| (run.number, run.file_name())));
        spills
    }

    /// Takes out what no reader has any more. Giving back hundreds of thousands of versions, or a large map, takes
    /// milliseconds: a reader must not be the last to let go, and the latch must not be held.
    pub(super) fn unread(&mut self, listed: &HashSet<u64>) -> (Vec<Arc<Memtable>>, Vec<Arc<Run>>) {
        let memtables = self
            .memtables
            .extract_if(.., |memtable| Arc::strong_count(memtable) == 1);
        let memtables = memtables.collect();
        let is_unread = |run: &mut Arc<Run>| {
            // S6: neither a crash nor a reader asks for it.
            Arc::strong_count(run) == 1 && !listed.contains(&run.entry().number)
        };
        let runs: Vec<_> = self.runs.extract_if(.., is_unread).collect();
        let entries = runs.iter().map(|run| run.entry());
        self.files
            .extend(entries.map(|run| (run.number, run.file_name())));
        (memtables, runs)
    }
}
