//! A compaction job: which runs go in, where what becomes of them goes, and what it keeps others from.
//!
//! Made by the picking, in the store's latch; run without it.
//! 1. The inputs of two jobs that run at once are disjoint, and so are the rows that they write into a level.
//! 2. In its own level and in the one it writes to a job takes every run that shares a row with its inputs, but
//!    newer ones of level 0; so what it writes stays below what is newer and above what is older (W5).

use std::sync::Arc;

use bytes::Bytes;

use super::deeper::{Covered, Deeper};
use super::keep::Rules;
use crate::run::Run;
use crate::tree::Level;
use lockstone_base::{Lsn, TableId};

/// What becomes of a job's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// They are merged into new runs.
    Merge,
    /// They are listed one level down, or deeper, as they are: nothing there shares a row with them.
    Move,
    /// They vanish: all their rows are of dropped tables.
    Remove,
}

/// A compaction job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) action: Action,
    /// The runs that go.
    pub(crate) inputs: Vec<Arc<Run>>,
    /// The level where their successors stand.
    pub(crate) to: u8,
    /// The smallest and the largest row of the inputs: successors stay between them.
    pub(crate) ends: (Bytes, Bytes),
    /// The levels below `to`, the nearest first.
    pub(crate) deeper: Vec<Arc<Level>>,
}

impl Job {
    /// The rules for what a merge keeps.
    pub(crate) fn rules(&self, horizon: Lsn, dropped: &[TableId]) -> Rules {
        let mut dropped: Vec<_> = dropped.iter().map(|table| table.0.to_be_bytes()).collect();
        dropped.sort_unstable();
        let entries = || self.inputs.iter().map(|run| run.entry());
        let newest = entries().map(|entry| entry.newest).max();
        let oldest = entries().map(|entry| entry.oldest).min();
        let at_bottom = !self.deeper.iter().any(|level| level.overlaps(&self.ends));
        let settled = newest.is_some_and(|newest| newest <= horizon);
        Rules {
            horizon,
            deeper: Deeper::new(&self.deeper),
            dropped,
            uniform: oldest.filter(|_| at_bottom && settled),
        }
    }

    /// What the outputs cover of the next level.
    pub(crate) fn covered(&self) -> Covered {
        Covered::new(&self.deeper)
    }

    /// The inputs' lengths together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.inputs.iter().map(|run| run.entry().bytes).sum()
    }
}

/// What running jobs keep others from.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    jobs: Vec<Job>,
}

impl Taken {
    /// Whether a running job takes the run `number`.
    pub(crate) fn has(&self, number: u64) -> bool {
        let mut inputs = self.jobs.iter().flat_map(|job| &job.inputs);
        inputs.any(|run| run.entry().number == number)
    }

    /// Whether a running job writes rows between `ends` into `level`.
    pub(crate) fn writes(&self, level: u8, ends: &(Bytes, Bytes)) -> bool {
        self.jobs
            .iter()
            .any(|job| job.to == level && job.ends.0 <= ends.1 && ends.0 <= job.ends.1)
    }

    /// Whether no job runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// A job begins.
    pub(crate) fn begin(&mut self, job: &Job) {
        assert!(
            !job.inputs.iter().any(|run| self.has(run.entry().number))
                && !self.writes(job.to, &job.ends),
            "two jobs never take the same run, nor write the same rows into a level"
        );
        self.jobs.push(job.clone());
    }

    /// The job has ended.
    pub(crate) fn end(&mut self, job: &Job) {
        let first = |job: &Job| job.inputs.first().map(|run| run.entry().number);
        self.jobs.retain(|other| first(other) != first(job));
    }
}
