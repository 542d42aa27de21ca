//! The visible rows of a range in one level: run by run, each opened when the walk gets there.
//!
//! Made by a scan's end.
//! 1. No row is in two runs of a level, so their rows follow each other.
//! 2. One run's cursor at a time, however many runs the range touches.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Cursor, Direction, Quest, Step};
use crate::run::RunCursor;
use crate::tree::Level;
use crate::version::VersionRef;

/// The rows of a range, in one direction.
#[derive(Debug)]
pub(super) struct LevelCursor {
    level: Arc<Level>,
    quest: Quest,
    /// Forward: the number of the next run. Backward: how many runs are left.
    next: usize,
    run: Option<RunCursor>,
}

impl LevelCursor {
    /// The cursor over what the quest asks for; none if the level has no run that could have it.
    pub(super) fn new(level: &Arc<Level>, quest: &Quest) -> Option<Self> {
        let next = match quest.direction {
            Direction::Forward => {
                let start = quest.range.start();
                start.map_or(0, |(row, _)| level.first_reaching(row))
            }
            Direction::Backward => {
                let runs = level.runs();
                runs.partition_point(|run| quest.range.below_high(&run.entry().smallest))
            }
        };
        let mut cursor = Self {
            level: Arc::clone(level),
            quest: quest.clone(),
            next,
            run: None,
        };
        cursor.open().then_some(cursor)
    }

    /// Opens the next run; whether there is one that the range reaches.
    fn open(&mut self) -> bool {
        loop {
            let at = match self.quest.direction {
                Direction::Forward => Some(self.next),
                Direction::Backward => self.next.checked_sub(1),
            };
            let Some(run) = at.and_then(|at| self.level.runs().get(at)) else {
                return false;
            };
            let (entry, range) = (run.entry(), &self.quest.range);
            let reached = match self.quest.direction {
                Direction::Forward => range.below_high(&entry.smallest),
                Direction::Backward => range.above_low(&entry.largest),
            };
            if !reached {
                return false;
            }
            self.next = match self.quest.direction {
                Direction::Forward => self.next + 1,
                Direction::Backward => self.next - 1,
            };
            self.run = run.cursor(&self.quest);
            if self.run.is_some() {
                return true;
            }
        }
    }

    /// As [`RunCursor::step_on`], in the run that is walked.
    #[inline]
    pub(super) fn step_on(&mut self) -> bool {
        self.run.as_mut().is_some_and(RunCursor::step_on)
    }

    /// As [`RunCursor::ahead`], in the run that is walked.
    pub(super) fn ahead(&self, entries: usize) -> Option<(&[u8], &[u8])> {
        self.run.as_ref()?.ahead(entries)
    }

    /// As [`RunCursor::sweep`], in the run that is walked.
    #[inline]
    pub(super) fn sweep(
        &mut self,
        limit: Option<&[u8]>,
        see: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match &mut self.run {
            Some(run) => run.sweep(limit, see),
            None => ControlFlow::Continue(()),
        }
    }

    fn now(&self) -> &RunCursor {
        let run = self.run.as_ref();
        run.expect("a version is asked for while there is one")
    }
}

impl Cursor for LevelCursor {
    fn step(&mut self) -> Step {
        loop {
            let Some(run) = &mut self.run else {
                return Step::End;
            };
            match run.step() {
                Step::End => {
                    self.run = None;
                    self.open();
                }
                step => return step,
            }
        }
    }

    fn version(&self) -> VersionRef<'_> {
        self.now().version()
    }

    fn value(&self) -> Option<Bytes> {
        self.now().value()
    }
}
