//! Walking a run: the visible rows of a range, for a scan.
//!
//! Made by `Run::cursors`.
//! 1. A scan's cursor steps over a damaged block and tells what it hides: all rows from the last one of the
//!    block before, which may go on in it, to its own last one, which may go on behind it.
//! 2. A row whose newest visible version may lie in a damaged block is not yielded from the run at all.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::block::Block;
use super::reader::Run;
use crate::cursor::{Cursor, Direction, Hidden, Quest, Step};
use crate::error::StorageError;
use crate::version::{RowVersion, Version};

impl Run {
    /// The cursor over what the quest asks for; none if the run cannot have it.
    pub(crate) fn cursors(self: &Arc<Self>, quest: &Quest) -> Vec<Box<dyn Cursor>> {
        let overlaps = quest.range.above_low(self.index.largest())
            && quest.range.below_high(self.index.smallest())
            && self.entry().oldest <= quest.at;
        if overlaps {
            vec![Box::new(RunCursor::new(Arc::clone(self), quest.clone()))]
        } else {
            Vec::new()
        }
    }

    /// What is lost with the block `number`.
    fn hidden(&self, number: usize, error: StorageError) -> Hidden {
        let first = number
            .checked_sub(1)
            .and_then(|before| self.index.last(before));
        let last = self.index.last(number);
        Hidden {
            block: number as u64,
            first: Bytes::copy_from_slice(first.map_or(self.index.smallest(), |(row, _)| row)),
            last: Bytes::copy_from_slice(last.map_or(self.index.largest(), |(row, _)| row)),
            error,
        }
    }
}

/// Where a cursor is in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Where the range starts, or ends for a cursor that moves backward: not yet looked up.
    Edge,
    /// Before the block's first entry, or behind its last one for a cursor that moves backward.
    Outermost,
    /// At this entry, or behind this many entries for a cursor that moves backward.
    At(usize),
}

#[derive(Debug)]
struct RunCursor {
    run: Arc<Run>,
    quest: Quest,
    /// The block; `None`: at the end.
    block: Option<usize>,
    slot: Slot,
    /// The row passed last: the rest of its versions is skipped.
    passed: Option<Bytes>,
}

type Flow = ControlFlow<Option<Step>>;

impl RunCursor {
    fn new(run: Arc<Run>, quest: Quest) -> Self {
        let edge = match quest.direction {
            Direction::Forward => quest.range.start(),
            Direction::Backward => quest.range.end(),
        };
        let blocks = run.index.blocks();
        let (block, slot) = match (edge, quest.direction) {
            (Some((row, stamp)), direction) => match (run.index.find((row, stamp)), direction) {
                (block, _) if block < blocks => (Some(block), Slot::Edge),
                (_, Direction::Forward) => (None, Slot::Outermost),
                (_, Direction::Backward) => (blocks.checked_sub(1), Slot::Outermost),
            },
            (None, Direction::Forward) => (Some(0), Slot::Outermost),
            (None, Direction::Backward) => (blocks.checked_sub(1), Slot::Outermost),
        };
        Self {
            run,
            quest,
            block,
            slot,
            passed: None,
        }
    }

    /// Looks at the next row: continues, or breaks with a step or at the end.
    fn look(&mut self, number: usize) -> Flow {
        let run = Arc::clone(&self.run);
        let block = match run.block(number) {
            Ok(block) => block,
            Err(error) => return self.step_over(run.hidden(number, error)),
        };
        match self.quest.direction {
            Direction::Forward => self.look_forward(&run, number, &block),
            Direction::Backward => self.look_backward(&run, number, &block),
        }
    }

    fn look_forward(&mut self, run: &Run, number: usize, block: &Block<'_>) -> Flow {
        let index = match self.slot {
            Slot::Edge => self
                .quest
                .range
                .start()
                .map_or(0, |(row, stamp)| block.position((row, stamp))),
            Slot::Outermost => 0,
            Slot::At(index) => index,
        };
        let Some(entry) = block.entry(index) else {
            self.enter(number + 1);
            return Flow::Continue(());
        };
        self.slot = Slot::At(index + 1);
        let passed = self
            .passed
            .as_ref()
            .is_some_and(|row| block.compare(entry.suffix, row).is_le());
        if passed {
            return Flow::Continue(());
        }
        // The range's end before visibility: versions behind it must not be walked, however new they are.
        let row = block.row(entry.suffix);
        if !self.quest.range.below_high(&row) {
            return Flow::Break(None);
        }
        if entry.stamp > self.quest.at {
            return Flow::Continue(());
        }
        self.passed = Some(row.clone());
        self.yield_version(number, row, run.version(number, &entry))
    }

    fn look_backward(&mut self, run: &Run, number: usize, block: &Block<'_>) -> Flow {
        let end = match self.slot {
            Slot::Edge => self
                .quest
                .range
                .end()
                .map_or(block.len(), |(row, stamp)| block.position((row, stamp))),
            Slot::Outermost => block.len(),
            Slot::At(end) => end,
        };
        let Some(entry) = end.checked_sub(1).and_then(|index| block.entry(index)) else {
            match number.checked_sub(1) {
                Some(before) => self.enter(before),
                None => return Flow::Break(None),
            }
            return Flow::Continue(());
        };
        let row = block.row(entry.suffix);
        let start = block.position((&row, Lsn::MAX));
        self.slot = Slot::At(start);
        if self.passed.as_ref() == Some(&row) {
            return Flow::Continue(());
        }
        if !self.quest.range.above_low(&row) {
            return Flow::Break(None);
        }
        self.passed = Some(row.clone());
        // The row's newer versions may lie in blocks before this one; the newest visible one lies in the
        // block that the index names.
        let holder = run.index.find((&row, self.quest.at));
        if holder > number {
            return Flow::Continue(());
        }
        match run.newest_in(holder, &row, self.quest.at) {
            Ok(None) => Flow::Continue(()),
            Ok(Some(version)) => self.yield_version(holder, row, Ok(version)),
            Err(error) => self.yield_version(holder, row, Err(error)),
        }
    }

    fn yield_version(
        &mut self,
        number: usize,
        row: Bytes,
        version: Result<Version, StorageError>,
    ) -> Flow {
        match version {
            Ok(version) => Flow::Break(Some(Step::Row(RowVersion { row, version }))),
            Err(error) => self.step_over(self.run.hidden(number, error)),
        }
    }

    /// Tells of a damaged block and goes on behind it, if the range reaches it.
    fn step_over(&mut self, hidden: Hidden) -> Flow {
        let number = hidden.block as usize;
        let reached = match self.quest.direction {
            Direction::Forward => {
                self.enter(number + 1);
                // The last row may go on in the next block, behind versions that are lost.
                self.passed = Some(hidden.last.clone());
                self.quest.range.below_high(&hidden.first)
            }
            Direction::Backward => {
                match number.checked_sub(1) {
                    Some(before) => self.enter(before),
                    None => self.block = None,
                }
                self.quest.range.above_low(&hidden.last)
            }
        };
        if reached {
            Flow::Break(Some(Step::Damaged(hidden)))
        } else {
            Flow::Break(None)
        }
    }

    fn enter(&mut self, block: usize) {
        self.block = (block < self.run.index.blocks()).then_some(block);
        self.slot = Slot::Outermost;
    }
}

impl Cursor for RunCursor {
    fn step(&mut self) -> Option<Step> {
        loop {
            let number = self.block?;
            if let Flow::Break(step) = self.look(number) {
                if step.is_none() {
                    self.block = None;
                }
                return step;
            }
        }
    }
}
