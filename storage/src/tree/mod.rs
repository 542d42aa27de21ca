//! The runs in their levels: level 0 newest first, below it levels whose runs share no row.
//!
//! Built by the store, outside every latch, and replaced as a whole; read through the list of sources.
//! 1. W5: in level 0 every stamp of a run is above every stamp of the runs behind it; of one stamp only runs that
//!    were adopted may follow, the later spill first (S1).
//! 2. W5: of a row, what a level has is newer than what the levels below it have; so the first level, from
//!    the top, with a visible version has the newest one.
//! 3. In a level below 0 the runs ascend by row, and no row is in two of them: at most one can have it.

mod level;
mod group;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{Lsn, TableId};

use crate::error::StorageError;
use crate::manifest::ListedRun;
use crate::question::Question;
use crate::run::{Run, RunEntry};
use crate::version::Version;

pub(crate) use group::Group;
pub(crate) use level::Level;

/// The runs in their levels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// Level 0, newest first.
    pub(crate) l0: Vec<Arc<Run>>,
    /// The levels below it: the first one is level 1. Shared with the trees before and behind this one
    /// where they do not differ.
    pub(crate) levels: Vec<Arc<Level>>,
}

impl Tree {
    /// The tree of these runs, which come as a manifest lists them.
    pub(crate) fn new(runs: impl IntoIterator<Item = (u8, Arc<Run>)>) -> Self {
        let mut l0 = Vec::new();
        let mut levels: Vec<Vec<Arc<Run>>> = Vec::new();
        for (level, run) in runs {
            let Some(below) = usize::from(level).checked_sub(1) else {
                l0.push(run);
                continue;
            };
            while levels.len() <= below {
                levels.push(Vec::new());
            }
            if let Some(level) = levels.get_mut(below) {
                level.push(run);
            }
        }
        assert_ordered(&l0);
        Self {
            l0,
            levels: levels.into_iter().map(Level::new).map(Arc::new).collect(),
        }
    }

    /// The newest version at or below `at` of `row`, whose hash is `hash`.
    ///
    /// # Errors
    /// The disk's, or [`StorageError::Corrupt`], if a run that could hold the answer cannot be read: an
    /// older one is never asked in its place.
    pub(crate) fn get(
        &self,
        row: &[u8],
        hash: u64,
        at: Lsn,
    ) -> Result<Option<Version>, StorageError> {
        let l0 = self.l0.iter().filter(|run| run.entry().spans(row));
        let below = self.levels.iter().filter_map(|level| level.run_of(row));
        for run in l0.chain(below) {
            if let Some(version) = run.get(row, hash, at)? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Answers those of the questions, which are sorted by row, that a run has a version at or below `at` for,
    /// and those that one fails.
    pub(crate) fn get_many(&self, questions: &mut [Question<'_>], at: Lsn) {
        for run in &self.l0 {
            let open = questions
                .iter_mut()
                .filter(|question| question.answer.is_none() && run.entry().spans(question.row));
            run.get_many(&mut open.collect::<Vec<_>>(), at);
        }
        for level in &self.levels {
            let mut open = Vec::new();
            let mut here: Option<&Arc<Run>> = None;
            for question in questions.iter_mut().filter(|it| it.answer.is_none()) {
                // Sorted by row, questions to one run follow each other.
                if !here.is_some_and(|run| run.entry().spans(question.row)) {
                    ask(here, &mut open, at);
                    here = level.run_of(question.row);
                }
                if here.is_some() {
                    open.push(question);
                }
            }
            ask(here, &mut open, at);
        }
    }

    /// All runs, from the top: level 0 newest first, the others by row.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        let below = self.levels.iter().flat_map(|level| level.runs());
        self.l0.iter().chain(below)
    }

    /// The runs of a level.
    pub(crate) fn runs_of(&self, level: u8) -> &[Arc<Run>] {
        match level {
            0 => &self.l0,
            level => self.level(level).map_or(&[], |level| level.runs()),
        }
    }

    /// The runs of a level below 0 that reach into the rows between `ends`, both included.
    pub(crate) fn overlapping(&self, level: u8, ends: &(Bytes, Bytes)) -> &[Arc<Run>] {
        self.level(level)
            .map_or(&[], |level| level.overlapping(ends))
    }

    /// The runs of a level below 0 that reach into the rows of a table.
    pub(crate) fn spanning(&self, level: u8, table: TableId) -> &[Arc<Run>] {
        self.level(level).map_or(&[], |level| level.spanning(table))
    }

    /// The runs of a level below 0 half of whose versions, or more, are tombstones.
    pub(crate) fn deleting(&self, level: u8) -> impl Iterator<Item = &Arc<Run>> {
        self.level(level)
            .into_iter()
            .flat_map(|level| level.deleting())
    }

    /// Whether the run is in the tree.
    pub(crate) fn has(&self, run: &RunEntry) -> bool {
        let is_it = |other: &Arc<Run>| other.entry().number == run.number;
        self.l0.iter().any(is_it) || self.levels.iter().any(|level| level.has(run))
    }

    fn level(&self, level: u8) -> Option<&Arc<Level>> {
        self.levels.get(usize::from(level).checked_sub(1)?)
    }

    /// The tree without the runs `gone`, and with `added` in the level `to`. Levels that do not change are shared.
    pub(crate) fn changed(&self, gone: &[Arc<Run>], added: &[Arc<Run>], to: u8) -> Self {
        let numbers: HashSet<u64> = gone.iter().map(|run| run.entry().number).collect();
        let stays = |run: &&Arc<Run>| !numbers.contains(&run.entry().number);
        let mut levels: Vec<_> = (1_u8..)
            .zip(&self.levels)
            .map(|(number, level)| {
                if number != to && !gone.iter().any(|run| level.has(run.entry())) {
                    return Arc::clone(level);
                }
                let mut runs: Vec<_> = level.runs().iter().filter(stays).cloned().collect();
                if number == to {
                    runs.extend_from_slice(added);
                    runs.sort_by(|a, b| a.entry().smallest.cmp(&b.entry().smallest));
                }
                Arc::new(Level::new(runs))
            })
            .collect();
        if usize::from(to) > levels.len() {
            levels.resize_with(usize::from(to) - 1, Arc::default);
            let mut runs = added.to_vec();
            runs.sort_by(|a, b| a.entry().smallest.cmp(&b.entry().smallest));
            levels.push(Arc::new(Level::new(runs)));
        }
        let l0 = self.l0.iter().filter(stays).cloned().collect();
        assert!(
            to > 0 || added.is_empty(),
            "W5: only a flush adds to level 0"
        );
        Self { l0, levels }
    }

    /// The tree with these runs above all others: what a flush has made, and behind it what was adopted.
    pub(crate) fn flushed(&self, newest_first: impl IntoIterator<Item = Arc<Run>>) -> Self {
        let mut l0: Vec<_> = newest_first.into_iter().collect();
        l0.extend_from_slice(&self.l0);
        let levels = self.levels.clone();
        assert_ordered(&l0);
        Self { l0, levels }
    }

    /// How many runs of level 0 were not adopted.
    pub(crate) fn flushed_runs(&self) -> usize {
        let flushed = |run: &&Arc<Run>| !run.is_adopted();
        self.l0.iter().filter(flushed).count()
    }

    /// Of each level, from level 0 down, how many runs it has and what their files take, in bytes.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (usize, u64)> {
        let l0 = self.l0.iter().map(|run| run.entry().bytes).sum();
        let below = self.levels.iter();
        std::iter::once((self.l0.len(), l0))
            .chain(below.map(|level| (level.runs().len(), level.bytes())))
    }

    /// All runs with their levels, as a manifest lists them.
    pub(crate) fn listed(&self) -> impl Iterator<Item = ListedRun> {
        let listed = |level, run: &Arc<Run>| ListedRun {
            level,
            entry: run.entry().clone(),
        };
        let below = (1..).zip(&self.levels);
        let below = below.flat_map(move |(number, level)| {
            level.runs().iter().map(move |run| listed(number, run))
        });
        self.l0.iter().map(move |run| listed(0, run)).chain(below)
    }
}

impl RunEntry {
    /// The run's smallest and its largest row.
    pub(crate) fn ends(&self) -> (Bytes, Bytes) {
        (self.smallest.clone(), self.largest.clone())
    }

    /// Whether half of the run's versions, or more, are tombstones.
    pub(crate) fn deletes(&self) -> bool {
        self.tombstones * 2 >= self.versions
    }

    /// Whether the run reaches into the rows of a table.
    pub(crate) fn spans_table(&self, table: TableId) -> bool {
        let id = table.0.to_be_bytes();
        self.smallest.get(..4) <= Some(&id) && Some(&id[..]) <= self.largest.get(..4)
    }

    /// Whether the two runs reach into the same rows.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.smallest <= other.largest && other.smallest <= self.largest
    }

    /// Whether `row` lies between the run's smallest and its largest row.
    pub(crate) fn spans(&self, row: &[u8]) -> bool {
        *self.smallest <= *row && *row <= *self.largest
    }
}

fn assert_ordered(l0: &[Arc<Run>]) {
    assert!(
        l0.is_sorted_by(|newer, older| newer.entry().is_newer_than(older.entry())),
        "W5: level 0 is ordered by stamp"
    );
}

/// Asks a run what is open, if there is one.
fn ask(run: Option<&Arc<Run>>, open: &mut Vec<&mut Question<'_>>, at: Lsn) {
    if let Some(run) = run.filter(|_| !open.is_empty()) {
        run.get_many(open, at);
    }
    open.clear();
}
