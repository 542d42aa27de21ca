//! One level below level 0: runs in row order that share no row.
//!
//! Part of a `Tree`; never changes.

use std::sync::Arc;

use bytes::Bytes;

use crate::run::Run;

/// Runs in row order that share no row.
#[derive(Debug, Default)]
pub(crate) struct Level {
    runs: Vec<Arc<Run>>,
    bytes: u64,
}

impl Level {
    /// A level of these runs.
    pub(super) fn new(runs: Vec<Arc<Run>>) -> Self {
        assert!(
            runs.is_sorted_by(|a, b| a.entry().largest < b.entry().smallest),
            "W5: no row is in two runs of a level"
        );
        let bytes = runs.iter().map(|run| run.entry().bytes).sum();
        Self { runs, bytes }
    }

    /// The runs, by row.
    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// What the files take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
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
