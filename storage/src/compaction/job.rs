//! A compaction job: which runs go in, where what becomes of them goes, and what it keeps others from.
//!
//! Made by the picking, in the store's latch; run without it.
//! 1. The inputs of two jobs that run at once are disjoint, and so are the rows that they write into a level.
//! 2. What a job takes is taken until it ends, however it ends; the store sees to that.
//! 3. In its own level and in the one it writes to a job takes every run that shares a row with its inputs, but
//!    newer ones of level 0; so what it writes stays below what is newer and above what is older (W5).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::deeper::{Covered, Deeper};
use super::keep::Rules;
use crate::run::{Origin, Run};
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
    /// The runs that go: those of the level `from`, of level 0 the newest first, and behind them those of `to`.
    pub(crate) inputs: Vec<Arc<Run>>,
    /// How many of them stand in the level `from`.
    pub(crate) upper: usize,
    /// The level that the job is for.
    pub(crate) from: u8,
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

    /// Who wrote the outputs: S1, what one commit's runs have twice may go down apart.
    pub(crate) fn origin(&self) -> Origin {
        if self.inputs.iter().any(|run| run.entry().origin.repeats()) {
            Origin::Descended
        } else {
            Origin::Committed
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

    /// The lengths together of those inputs that stand in `level`, in bytes.
    fn bytes_of(&self, level: u8) -> u64 {
        let (upper, lower) = self.inputs.split_at(self.upper.min(self.inputs.len()));
        let bytes = |runs: &[Arc<Run>]| runs.iter().map(|run| run.entry().bytes).sum();
        let of = |stand: u8, runs| if stand == level { bytes(runs) } else { 0 };
        of(self.from, upper) + of(self.to, lower)
    }
}

/// What running jobs keep others from.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    jobs: Vec<Job>,
    /// The numbers of all their inputs.
    runs: HashSet<u64>,
}

impl Taken {
    /// Whether a running job takes the run `number`.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.runs.contains(&number)
    }

    /// What running jobs take of `level`, in bytes.
    pub(crate) fn bytes_of(&self, level: u8) -> u64 {
        self.jobs.iter().map(|job| job.bytes_of(level)).sum()
    }

    /// Whether a running job writes rows between `ends` into `level`.
    pub(crate) fn writes(&self, level: u8, ends: &(Bytes, Bytes)) -> bool {
        self.jobs
            .iter()
            .any(|job| job.to == level && job.ends.0 <= ends.1 && ends.0 <= job.ends.1)
    }

    /// A job begins.
    pub(crate) fn begin(&mut self, job: &Job) {
        assert!(
            !job.inputs.iter().any(|run| self.has(run.entry().number))
                && !self.writes(job.to, &job.ends),
            "two jobs never take the same run, nor write the same rows into a level"
        );
        let numbers = job.inputs.iter().map(|run| run.entry().number);
        self.runs.extend(numbers);
        self.jobs.push(job.clone());
    }

    /// The job has ended.
    pub(crate) fn end(&mut self, job: &Job) {
        let first = |job: &Job| job.inputs.first().map(|run| run.entry().number);
        self.jobs.retain(|other| first(other) != first(job));
        for run in &job.inputs {
            self.runs.remove(&run.entry().number);
        }
    }
}
