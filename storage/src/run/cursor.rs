//! Walking a run: the visible rows of a range, for a scan.
//!
//! Made by `Run::cursor`.
//! 1. A scan's cursor steps over a damaged block and tells what it hides: all rows from the last one of the
//!    block before, which may go on in it, to its own last one, which may go on behind it.
//! 2. A row whose newest visible version may lie in a damaged block is not yielded from the run at all.
//! 3. What cannot be read is told by a step: a stretch ends before it (F11).
//! 4. Versions that a step skips are skipped one by one while they are few, then by search: a row that was
//!    written a million times costs a scan what any row costs.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::block::Block;
use super::index::Index;
use super::reader::{Run, Touch};
use super::walked::Walked;
use super::window::Fetched;
use crate::cursor::{Cursor, Direction, Quest, Step};
use crate::error::StorageError;
use crate::version::VersionRef;

/// So many versions are skipped one by one before the rest is skipped by search.
const SKIPS_MAX: usize = 16;

impl Run {
    /// The cursor over what the quest asks for; none if the run cannot have it.
    pub(crate) fn cursor(self: &Arc<Self>, quest: &Quest) -> Option<RunCursor> {
        let overlaps = quest.range.above_low(&self.entry().largest)
            && quest.range.below_high(&self.entry().smallest)
            && self.entry().oldest <= quest.at;
        overlaps.then(|| RunCursor::new(Arc::clone(self), quest.clone()))
    }
}

/// The rows of a range, in one direction.
#[derive(Debug)]
pub(crate) struct RunCursor {
    run: Arc<Run>,
    quest: Quest,
    /// No row is there twice: none has to be compared with the one before.
    single: bool,
    /// Every version is visible.
    all_visible: bool,
    progress: Progress,
    /// The block that is walked.
    here: Walked,
    fetched: Fetched,
    /// Forward: the number of the next entry to look at. Backward: how many entries are left.
    next: usize,
    /// The row passed last, nothing if there was none: the rest of its versions is skipped.
    row: Vec<u8>,
    /// The row begins with the prefix of the block that is walked.
    prefixed: bool,
    scratch: Vec<u8>,
    skips: usize,
    stamp: Lsn,
    /// Where the value lies in the map.
    value: Option<Range<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The range's edge is not yet looked up.
    Fresh,
    Walking,
    Ended,
}

type Flow = ControlFlow<Step>;

const AGAIN: Flow = Flow::Continue(());

impl RunCursor {
    fn new(run: Arc<Run>, quest: Quest) -> Self {
        Self {
            single: run.has_single_versions(),
            all_visible: run.entry().newest <= quest.at,
            run,
            quest,
            progress: Progress::Fresh,
            here: Walked::lost(0),
            fetched: Fetched::default(),
            next: 0,
            row: Vec::new(),
            prefixed: false,
            scratch: Vec::new(),
            skips: 0,
            stamp: Lsn::ZERO,
            value: None,
        }
    }

    fn is_forward(&self) -> bool {
        self.quest.direction == Direction::Forward
    }

    /// Goes to the range's edge from which the walk starts.
    fn start(&mut self) -> Flow {
        let run = Arc::clone(&self.run);
        let index = match run.index() {
            Ok(index) => index,
            Err(error) => return self.lose(error),
        };
        self.progress = Progress::Walking;
        let edge = match self.quest.direction {
            Direction::Forward => self.quest.range.start(),
            Direction::Backward => self.quest.range.end(),
        };
        let edge = edge.map(|(row, stamp)| (row.clone(), stamp));
        match (edge, self.is_forward()) {
            (Some((row, stamp)), _) => self.seek((&row, stamp)),
            (None, true) => self.enter(index, 0),
            (None, false) => self.enter(index, index.blocks() - 1),
        }
    }

    /// Ends the walk where what leads to the blocks cannot be read, or has gone bad on the way: it may have hidden any row.
    fn lose(&mut self, error: StorageError) -> Flow {
        self.progress = Progress::Ended;
        Flow::Break(Step::Damaged(self.run.all_hidden(error)))
    }

    /// Goes to a place in the order of versions.
    fn seek(&mut self, place: (&[u8], Lsn)) -> Flow {
        let run = Arc::clone(&self.run);
        let index = match run.index() {
            Ok(index) => index,
            Err(error) => return self.lose(error),
        };
        let number = index.find(place);
        if number == index.blocks() {
            return if self.is_forward() {
                Flow::Break(Step::End)
            } else {
                self.enter(index, number - 1)
            };
        }
        self.enter(index, number)?;
        self.next = self.block().position(place);
        AGAIN
    }

    /// Goes to the block's end from which the walk comes.
    fn enter(&mut self, index: &Index, number: usize) -> Flow {
        let run = Arc::clone(&self.run);
        let touch = if self.is_forward() {
            Touch::Ahead
        } else {
            Touch::Behind
        };
        let block = match run.block(index, number, touch) {
            Ok(block) => block,
            Err(error) => return self.step_over(index, number, error),
        };
        self.walk_in(index, number, &block);
        AGAIN
    }

    /// Begins to walk in the block `number`.
    fn walk_in(&mut self, index: &Index, number: usize, block: &Block<'_>) {
        if let Some(bytes) = self.fetched.step_to(index, number, &self.quest) {
            self.run.will_need(bytes);
        }
        self.next = if self.is_forward() { 0 } else { block.len() };
        self.here = Walked::new(&self.quest, index, number, block);
        self.prefixed = false;
    }

    /// Goes to the next block; there is always one, or an end.
    fn leave(&mut self) -> Flow {
        if self.here.has_end {
            return Flow::Break(Step::End);
        }
        let run = Arc::clone(&self.run);
        let index = match run.index() {
            Ok(index) => index,
            Err(error) => return self.lose(error),
        };
        let next = if self.is_forward() {
            Some(self.here.number + 1).filter(|next| *next < index.blocks())
        } else {
            self.here.number.checked_sub(1)
        };
        match next {
            Some(next) => self.enter(index, next),
            None => Flow::Break(Step::End),
        }
    }

    /// Tells of a damaged block and goes on behind it, if the range reaches it.
    fn step_over(&mut self, index: &Index, number: usize, error: StorageError) -> Flow {
        let hidden = self.run.hidden(index, number, error);
        self.here = Walked::lost(number);
        self.next = 0;
        let reached = if self.is_forward() {
            // The last row may go on in the next block, behind versions that are lost.
            self.row.clear();
            self.row.extend_from_slice(&hidden.last);
            self.quest.range.below_high(&hidden.first)
        } else {
            self.quest.range.above_low(&hidden.last)
        };
        Flow::Break(if reached {
            Step::Damaged(hidden)
        } else {
            Step::End
        })
    }

    fn block(&self) -> Block<'_> {
        self.here.layout.of(self.run.bytes(self.here.bytes.clone()))
    }

    #[inline]
    fn look_forward(&mut self) -> Flow {
        let block = self.here.layout.of(self.run.bytes(self.here.bytes.clone()));
        let at = self.next;
        if at >= self.here.entries.end {
            return self.leave();
        }
        let Some((suffix, stamp)) = block.suffix(at).zip(block.stamp(at)) else {
            return self.leave();
        };
        self.next += 1;
        if !self.single && !self.row.is_empty() && block.compare(suffix, &self.row).is_le() {
            return self.skip_passed();
        }
        if !self.all_visible && stamp > self.quest.at {
            return self.skip_invisible(at);
        }
        if self.run.behind_dead(stamp).is_some() {
            return AGAIN;
        }
        self.prefixed = block.row_again(suffix, &mut self.row, self.prefixed && self.single);
        let value = block.value(at).flatten();
        self.yielded(self.here.bytes.start, stamp, value)
    }

    /// Skips a version of the row that was passed.
    fn skip_passed(&mut self) -> Flow {
        self.skips += 1;
        if self.skips <= SKIPS_MAX {
            return AGAIN;
        }
        self.skips = 0;
        let row = self.row.clone();
        self.seek((&row, Lsn::ZERO))
    }

    /// Skips the version number `at`, which is too new.
    fn skip_invisible(&mut self, at: usize) -> Flow {
        self.skips += 1;
        if self.single || self.skips <= SKIPS_MAX {
            return AGAIN;
        }
        self.skips = 0;
        let mut row = Vec::new();
        let block = self.block();
        block.row_into(block.suffix(at).unwrap_or_default(), &mut row);
        self.seek((&row, self.quest.at))
    }

    fn look_backward(&mut self) -> Flow {
        let block = self.here.layout.of(self.run.bytes(self.here.bytes.clone()));
        let at = self.next.checked_sub(1);
        let at = at.filter(|at| self.here.entries.contains(at));
        let entry = at.and_then(|at| block.suffix(at).zip(block.stamp(at)));
        let (Some(at), Some((suffix, stamp))) = (at, entry) else {
            return self.leave();
        };
        if self.single {
            self.next = at;
            if !self.all_visible && stamp > self.quest.at {
                return AGAIN;
            }
            self.prefixed = block.row_again(suffix, &mut self.row, self.prefixed);
            let value = block.value(at).flatten();
            return self.yielded(self.here.bytes.start, stamp, value);
        }
        block.row_into(suffix, &mut self.scratch);
        self.next = block.position((&self.scratch, Lsn::MAX));
        if self.row == self.scratch {
            // It may fill many blocks before this one.
            let row = std::mem::take(&mut self.scratch);
            return self.seek((&row, Lsn::MAX));
        }
        std::mem::swap(&mut self.row, &mut self.scratch);
        self.newest_of_row()
    }

    /// Looks for the newest visible version of the row that was just met from behind.
    fn newest_of_row(&mut self) -> Flow {
        let run = Arc::clone(&self.run);
        let index = match run.index() {
            Ok(index) => index,
            Err(error) => return self.lose(error),
        };
        // The row's newer versions may lie in blocks before this one; the newest visible one lies in the
        // block that the index names.
        let mut place = (self.row.as_slice(), run.place_at(self.quest.at));
        loop {
            let holder = index.find(place);
            if holder > self.here.number {
                return AGAIN;
            }
            let block = match run.block(index, holder, Touch::Behind) {
                Ok(block) => block,
                Err(error) => return self.step_over(index, holder, error),
            };
            let entry = block.entry(block.position(place));
            let Some(entry) = entry.filter(|it| block.compare(it.suffix, place.0).is_eq()) else {
                return AGAIN;
            };
            let Some(older) = run.behind_dead(entry.stamp) else {
                let (start, _) = index.bounds(holder);
                return self.yielded(start as usize, entry.stamp, entry.value);
            };
            place.1 = older;
        }
    }

    /// Goes to the next row, where there is nothing to decide about it and no block to be entered; whether it has.
    #[inline]
    pub(crate) fn step_on(&mut self) -> bool {
        let decided = self.single && self.all_visible && self.progress == Progress::Walking;
        if !decided || !self.is_forward() || self.next >= self.here.entries.end {
            return false;
        }
        let block = self.here.layout.of(self.run.bytes(self.here.bytes.clone()));
        let found = block
            .suffix(self.next)
            .zip(block.value(self.next).flatten());
        let Some((suffix, value)) = found.zip(block.stamp(self.next)).map(|(found, stamp)| {
            self.stamp = self.run.stamp_of(stamp);
            found
        }) else {
            return false;
        };
        self.next += 1;
        self.prefixed = block.row_again(suffix, &mut self.row, self.prefixed);
        self.value = Some(value.start + self.here.bytes.start..value.end + self.here.bytes.start);
        true
    }

    /// The row that stands `entries` ahead of the one it has come to, in two parts, if its block has so many: a guess at what
    /// comes, of which nothing was checked; forward alone.
    pub(crate) fn ahead(&self, entries: usize) -> Option<(&[u8], &[u8])> {
        let at = (self.next + entries).checked_sub(1)?;
        if !self.is_forward() || at >= self.here.entries.end {
            return None;
        }
        let block = self.block();
        Some((block.prefix(), block.suffix(at)?))
    }

    /// Shows the live rows that follow, below `limit`, as far as there is nothing to decide about them and no block
    /// to be verified, until `see` breaks. May show none; forward alone. Value and stamp are not to be asked
    /// for before the next step.
    #[inline]
    pub(crate) fn sweep(
        &mut self,
        limit: Option<&[u8]>,
        see: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let decided = self.single && self.all_visible && self.progress == Progress::Walking;
        if !decided || !self.is_forward() {
            return ControlFlow::Continue(());
        }
        loop {
            let block = self.here.layout.of(self.run.bytes(self.here.bytes.clone()));
            let end = self.here.entries.end;
            let stop = limit.map_or(end, |limit| block.position_from(limit, self.next).min(end));
            if self.next < stop {
                let entries = self.next..stop;
                let (next, seen) = block.show(entries, &mut self.row, self.prefixed, see);
                self.next = next;
                // Of a block whose rows were all deleted, none was put together.
                self.prefixed = self.prefixed || !block.has_tombstones();
                seen?;
            }
            if stop < end || !self.enter_trusted() {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Goes to the next block, if there is one that the walk reaches and that is known to be intact. Trust may be gone
    /// by the time it is read: then nothing has changed, and the next step comes here and tells of it (F11).
    fn enter_trusted(&mut self) -> bool {
        let next = self.here.number + 1;
        if self.here.has_end || !self.run.trusts(next) {
            return false;
        }
        let run = Arc::clone(&self.run);
        let Ok(index) = run.index() else {
            return false;
        };
        let block = run.block(index, next, Touch::Ahead);
        block.is_ok_and(|block| {
            self.walk_in(index, next, &block);
            true
        })
    }

    /// Has come to a row, whose value lies there in the block that starts at `start`.
    #[inline]
    fn yielded(&mut self, start: usize, stamp: Lsn, value: Option<Range<usize>>) -> Flow {
        self.stamp = self.run.stamp_of(stamp);
        self.value = value.map(|value| value.start + start..value.end + start);
        self.skips = 0;
        Flow::Break(Step::Row)
    }
}

impl Cursor for RunCursor {
    fn step(&mut self) -> Step {
        let mut flow = match self.progress {
            Progress::Fresh => self.start(),
            Progress::Walking => AGAIN,
            Progress::Ended => return Step::End,
        };
        loop {
            if let Flow::Break(step) = flow {
                if matches!(step, Step::End) {
                    self.progress = Progress::Ended;
                }
                return step;
            }
            flow = match self.quest.direction {
                Direction::Forward => self.look_forward(),
                Direction::Backward => self.look_backward(),
            };
        }
    }

    fn version(&self) -> VersionRef<'_> {
        let value = self.value.as_ref();
        VersionRef {
            row: &self.row,
            stamp: self.stamp,
            value: value.map(|value| self.run.bytes(value.clone())),
        }
    }

    fn value(&self) -> Option<Bytes> {
        let value = self.value.as_ref();
        value.map(|value| self.run.value(value.clone()))
    }
}
