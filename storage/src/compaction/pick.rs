//! Which runs are compacted next.
//!
//! Called by the store in its latch; looks at what is there and decides.
//!
//! | due | when | what is taken |
//! | --- | --- | --- |
//! | level 0 | four listed runs | all of them, with what they overlap in the base level |
//! | a level below | it is over its target | one run, with what it overlaps one level down |
//! | a dropped table | one of its rows may be there | the run, rewritten; nothing is read if it has no other table |
//! | tombstones | half of a run's versions | the run, with what it overlaps one level down |
//!
//! The fullest level comes first. Of a level that run is taken whose bytes cost the least below it, among
//! some that follow the one taken last, so that all have their turn.
//!
//! 1. S2: only runs that the newest durable manifest lists are taken.
//! 2. Runs that a running job takes, or rows that it writes, are left alone.
//! 3. A run that could not be read is left alone, and what would need it (F11).
//! 4. While level 0 is due and held up by nothing but running jobs, no job begins that touches the base level: it
//!    would hold level 0 up in turn, and another one after it.
//! 5. Nothing goes over all runs: the store's latch is held. What a level has to look at it knows since it was made.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::TableId;

use super::job::{Action, Job, Taken};
use super::targets::{FULL, Targets, share};
use crate::error::StorageError;
use crate::manifest::LEVEL_MAX;
use crate::run::{Run, RunEntry};
use crate::tree::Tree;

/// How many runs of a level are compared before one is taken.
const CANDIDATES_MAX: usize = 64;

/// How a tree is kept in shape.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Level 0 is merged down when it has this many runs.
    pub level_0_runs: usize,
    /// No level below is aimed to be smaller than this, in bytes.
    pub base_bytes: u64,
    /// A compaction begins another run when one has this many bytes.
    pub run_bytes: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            level_0_runs: 4,
            base_bytes: 256 << 20,
            run_bytes: 64 << 20,
        }
    }
}

/// What decides about the next job.
#[derive(Debug)]
pub(crate) struct Picker<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) shape: Shape,
    pub(crate) listed: &'a HashSet<u64>,
    pub(crate) taken: &'a Taken,
    /// Runs that could not be read.
    pub(crate) damaged: &'a BTreeMap<u64, StorageError>,
    /// Those of them that may be tried once more.
    pub(crate) retried: &'a HashSet<u64>,
    /// Dropped tables, and the runs that are known to have none of their rows.
    pub(crate) dropped: &'a [TableId],
    pub(crate) cleaned: &'a HashSet<u64>,
    /// Of each level, the largest row of the run taken last.
    pub(crate) turns: &'a [Bytes],
    /// A level that only a job of level 0 may touch.
    pub(crate) kept_clear: Option<u8>,
}

impl Picker<'_> {
    /// The most urgent job, if one is due.
    pub(crate) fn due(&self) -> Option<Job> {
        let targets = self.targets();
        let kept_clear = self.is_level_0_held_up(&targets).then_some(targets.base);
        let picker = Picker {
            kept_clear,
            ..*self
        };
        picker.most_urgent(&targets)
    }

    fn most_urgent(&self, targets: &Targets) -> Option<Job> {
        let mut levels: Vec<_> = (0_u8..)
            .zip(self.tree.sizes())
            .map(|(level, (_, bytes))| (self.fill(level, bytes, targets), level))
            .filter(|(fill, _)| *fill >= FULL)
            .collect();
        levels.sort_by_key(|(fill, _)| Reverse(*fill));
        let full = levels.into_iter().find_map(|(_, level)| match level {
            0 => self.level_0(targets),
            level => self.one_of_level(level),
        });
        full.or_else(|| self.dropped())
            .or_else(|| self.tombstones())
    }

    /// Whether level 0 is due and would have its job if no other ran.
    fn is_level_0_held_up(&self, targets: &Targets) -> bool {
        if self.fill(0, 0, targets) < FULL || self.level_0(targets).is_some() {
            return false;
        }
        let nothing = Taken::default();
        let alone = Picker {
            taken: &nothing,
            ..*self
        };
        alone.level_0(targets).is_some()
    }

    /// By how much the levels are over their targets, in bytes.
    pub(crate) fn debt(&self) -> u64 {
        let targets = self.targets();
        let over = (0_u8..).zip(self.tree.sizes());
        over.map(|(level, (runs, bytes))| match level {
            0 if runs < self.shape.level_0_runs => 0,
            0 => bytes,
            level => targets.debt(level, bytes),
        })
        .sum()
    }

    /// The job that takes a level down, or rewrites the deepest one, run by run: of those with a number below
    /// `below`.
    pub(crate) fn push(&self, level: u8, below: u64) -> Option<Job> {
        let runs = self.runs_of(level).iter();
        let mut runs = runs.filter(|run| run.entry().number < below);
        match level {
            0 => runs.next().and_then(|_| self.level_0(&self.targets())),
            LEVEL_MAX => runs
                .filter(|run| has_more_than_rows(run.entry()))
                .find_map(|run| self.alone(LEVEL_MAX, run, Action::Merge)),
            _ => runs.find_map(|run| self.down(level, run)),
        }
    }

    fn targets(&self) -> Targets {
        let sizes = self.tree.sizes().skip(1).map(|(_, bytes)| bytes);
        Targets::of(sizes, self.shape.base_bytes)
    }

    fn fill(&self, level: u8, bytes: u64, targets: &Targets) -> u64 {
        if level == 0 {
            let runs = self.tree.l0.iter().filter(|run| self.is_free(run)).count();
            return share(runs as u64, self.shape.level_0_runs as u64);
        }
        // Bytes that a running job takes are on their way. Of one that has just ended they may have left already.
        let going = self.taken.bytes_of(level);
        targets.fill(level, bytes.saturating_sub(going))
    }

    fn runs_of(&self, level: u8) -> &[Arc<Run>] {
        self.tree.runs_of(level)
    }

    /// S2: whether a job may take the run.
    fn is_free(&self, run: &Arc<Run>) -> bool {
        let number = run.entry().number;
        self.listed.contains(&number)
            && !self.taken.has(number)
            && (!self.damaged.contains_key(&number) || self.retried.contains(&number))
    }

    /// Level 0 goes down from its old end: if most of what may be taken shares no row with anything, that is
    /// moved; else all of it is merged into the base level.
    fn level_0(&self, targets: &Targets) -> Option<Job> {
        let to = targets.base;
        let oldest_first = self.tree.l0.iter().rev();
        let free: Vec<_> = oldest_first.take_while(|run| self.is_free(run)).collect();
        let mut moved: Vec<Arc<Run>> = Vec::new();
        let mut left: Vec<&RunEntry> = Vec::new();
        for run in &free {
            let entry = run.entry();
            let alone = !left.iter().any(|older| older.overlaps(entry))
                && !moved.iter().any(|older| older.entry().overlaps(entry))
                && self.tree.overlapping(to, &entry.ends()).is_empty();
            if alone && !is_worth_reading(entry) && !self.concerns_dropped(entry) {
                moved.push(Arc::clone(run));
            } else {
                left.push(entry);
            }
        }
        // To move a few of many that overlap would only put the merge off.
        if moved.len() * 2 > free.len() {
            return self.job(Action::Move, (0, to), moved, &[]);
        }
        self.with_below((0, to), free.into_iter().rev().cloned().collect())
    }

    /// One run of the level, and what it overlaps one level down.
    fn one_of_level(&self, level: u8) -> Option<Job> {
        let runs = self.runs_of(level);
        let turn = self.turns.get(usize::from(level));
        let turn = turn.map_or(&[][..], |row| row);
        let first = runs.partition_point(|run| *run.entry().smallest <= *turn);
        let (before, behind) = runs.split_at_checked(first)?;
        let candidates = behind.iter().chain(before).take(CANDIDATES_MAX);
        let mut jobs: Vec<_> = candidates
            .filter(|run| self.is_free(run))
            .map(|run| (self.cost(level, run), run))
            .collect();
        jobs.sort_by_key(|(cost, _)| *cost);
        jobs.into_iter().find_map(|(_, run)| self.down(level, run))
    }

    /// What it costs to take the run down: bytes below it for each thousand of its own; less, the more of it are
    /// tombstones.
    fn cost(&self, level: u8, run: &Arc<Run>) -> u64 {
        let entry = run.entry();
        let below = self.tree.overlapping(level + 1, &entry.ends());
        let below: u64 = below.iter().map(|run| run.entry().bytes).sum();
        let thousandth = (entry.bytes / 1000).max(1);
        let tombstones = 1 + 4 * entry.tombstones / entry.versions.max(1);
        below / thousandth / tombstones
    }

    fn down(&self, level: u8, run: &Arc<Run>) -> Option<Job> {
        self.with_below((level, level.checked_add(1)?), vec![Arc::clone(run)])
    }

    /// The inputs, which stand in the level `from`, with all that they overlap in the level `to`.
    fn with_below(&self, (from, to): (u8, u8), inputs: Vec<Arc<Run>>) -> Option<Job> {
        if to > LEVEL_MAX || !inputs.iter().all(|run| self.is_free(run)) {
            return None;
        }
        let below = self.tree.overlapping(to, &ends(&inputs)?);
        let keeps = |run: &Arc<Run>| {
            let entry = run.entry();
            !is_worth_reading(entry) && !self.concerns_dropped(entry)
        };
        let action = if below.is_empty() && inputs.len() == 1 && inputs.iter().all(keeps) {
            Action::Move
        } else {
            Action::Merge
        };
        self.job(action, (from, to), inputs, below)
    }

    /// The run by itself, in its own level.
    fn alone(&self, level: u8, run: &Arc<Run>, action: Action) -> Option<Job> {
        self.job(action, (level, level), vec![Arc::clone(run)], &[])
    }

    fn job(
        &self,
        action: Action,
        (from, to): (u8, u8),
        inputs: Vec<Arc<Run>>,
        below: &[Arc<Run>],
    ) -> Option<Job> {
        let upper = inputs.len();
        let mut inputs = inputs;
        inputs.extend_from_slice(below);
        let ends = ends(&inputs)?;
        let is_free = inputs.iter().all(|run| self.is_free(run));
        let touches = |level| from == level || to == level;
        if from > 0 && self.kept_clear.is_some_and(touches) {
            return None;
        }
        if !is_free || self.taken.writes(to, &ends) {
            return None;
        }
        let deeper = self.tree.levels.get(usize::from(to)..);
        Some(Job {
            action,
            inputs,
            upper,
            from,
            to,
            ends,
            deeper: deeper.unwrap_or_default().to_vec(),
        })
    }

    /// A run that may have rows of a dropped table.
    fn dropped(&self) -> Option<Job> {
        if self.dropped.is_empty() {
            return None;
        }
        let inside = |entry: &RunEntry| {
            entry.smallest.first_chunk::<4>() == entry.largest.first_chunk::<4>()
        };
        // What costs nothing first.
        for action in [Action::Remove, Action::Merge] {
            for (level, table) in (1..=LEVEL_MAX)
                .rev()
                .flat_map(|level| self.of_tables(level))
            {
                let mut runs = table.iter().filter(|run| {
                    let entry = run.entry();
                    self.concerns_dropped(entry) && (action == Action::Merge || inside(entry))
                });
                if let Some(job) = runs.find_map(|run| self.alone(level, run, action)) {
                    return Some(job);
                }
            }
        }
        let mut l0 = self.tree.l0.iter();
        l0.any(|run| self.concerns_dropped(run.entry()))
            .then(|| self.level_0(&self.targets()))
            .flatten()
    }

    /// The level, and of each dropped table the runs that reach into its rows.
    fn of_tables(&self, level: u8) -> impl Iterator<Item = (u8, &[Arc<Run>])> {
        let runs_of = move |table: &TableId| (level, self.tree.spanning(level, *table));
        self.dropped.iter().map(runs_of)
    }

    /// Whether the run may have rows of a dropped table.
    pub(crate) fn concerns_dropped(&self, entry: &RunEntry) -> bool {
        !self.dropped.is_empty()
            && !self.cleaned.contains(&entry.number)
            && self.dropped.iter().any(|table| entry.spans_table(*table))
    }

    /// A run that is half tombstones, above others that they hide.
    fn tombstones(&self) -> Option<Job> {
        (1..LEVEL_MAX).find_map(|level| {
            let mut runs = self.tree.deleting(level);
            runs.find_map(|run| self.down(level, run))
        })
    }
}

/// Whether so much of the run is tombstones that it is read rather than moved.
fn is_worth_reading(entry: &RunEntry) -> bool {
    entry.tombstones * 4 > entry.versions
}

/// Whether the run has anything but one live version of each row.
fn has_more_than_rows(entry: &RunEntry) -> bool {
    entry.tombstones > 0 || entry.rows < entry.versions
}

/// The smallest and the largest row of all the runs.
fn ends(runs: &[Arc<Run>]) -> Option<(Bytes, Bytes)> {
    let smallest = runs.iter().map(|run| &run.entry().smallest).min()?;
    let largest = runs.iter().map(|run| &run.entry().largest).max()?;
    Some((smallest.clone(), largest.clone()))
}
