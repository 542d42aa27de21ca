//! One level below level 0: runs in row order that share no row.
//!
//! Part of a `Tree`; never changes. What compactions look for in it is found when it is made.

use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{Lsn, TableId};

use crate::run::{Run, RunEntry};

/// Runs in row order that share no row.
#[derive(Debug, Default)]
pub(crate) struct Level {
    runs: Vec<Arc<Run>>,
    bytes: u64,
    /// Where those runs stand half of whose versions, or more, are tombstones.
    deleting: Vec<usize>,
}

impl Level {
    /// A level of these runs.
    pub(super) fn new(runs: Vec<Arc<Run>>) -> Self {
        assert!(
            runs.is_sorted_by(|a, b| a.entry().largest < b.entry().smallest),
            "W5: no row is in two runs of a level"
        );
        let bytes = runs.iter().map(|run| run.entry().bytes).sum();
        let deleting = runs.iter().enumerate();
        let deleting = deleting.filter(|(_, run)| run.entry().deletes());
        Self {
            bytes,
            deleting: deleting.map(|(at, _)| at).collect(),
            runs,
        }
    }

    /// Gives every run, which were all adopted and which nobody reads yet, the stamp of their commit.
    pub(super) fn set_stamp(&mut self, stamp: Lsn) {
        for run in &mut self.runs {
            Arc::get_mut(run)
                .expect("a run that nobody reads yet has one owner")
                .set_stamp(stamp);
        }
    }

    /// The runs, by row.
    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// What the files take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The runs half of whose versions, or more, are tombstones.
    pub(super) fn deleting(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.deleting.iter().filter_map(|at| self.runs.get(*at))
    }

    /// The runs that reach into the rows of a table.
    pub(super) fn spanning(&self, table: TableId) -> &[Arc<Run>] {
        let id = table.0.to_be_bytes();
        let before = |run: &Arc<Run>| run.entry().largest.get(..4) < Some(&id);
        let behind = self.runs.get(self.runs.partition_point(before)..);
        let behind = behind.unwrap_or_default();
        let count = behind.partition_point(|run| run.entry().smallest.get(..4) <= Some(&id));
        behind.get(..count).unwrap_or_default()
    }

    /// Whether the run is in this level.
    pub(super) fn has(&self, run: &RunEntry) -> bool {
        let here = self.run_of(&run.smallest);
        here.is_some_and(|here| here.entry().number == run.number)
    }

    /// The one run that can have `row`.
    pub(crate) fn run_of(&self, row: &[u8]) -> Option<&Arc<Run>> {
        let run = self.runs.get(self.first_reaching(row))?;
        (*run.entry().smallest <= *row).then_some(run)
    }

    /// The runs that reach into the rows between `ends`, both included.
    pub(crate) fn overlapping(&self, ends: &(Bytes, Bytes)) -> &[Arc<Run>] {
        let behind = self.runs.get(self.first_reaching(&ends.0)..);
        let behind = behind.unwrap_or_default();
        let count = behind.partition_point(|run| run.entry().smallest <= ends.1);
        behind.get(..count).unwrap_or_default()
    }

    /// Whether a run reaches into the rows between `ends`.
    pub(crate) fn overlaps(&self, ends: &(Bytes, Bytes)) -> bool {
        !self.overlapping(ends).is_empty()
    }

    /// The position of the first run that reaches to `row` or beyond.
    pub(crate) fn first_reaching(&self, row: &[u8]) -> usize {
        self.runs.partition_point(|run| *run.entry().largest < *row)
    }
}
