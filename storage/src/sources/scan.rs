//! A scan: the live rows of a range at one LSN, from both ends, over all sources.
//!
//! Made by `Sources::scan`; owns what it reads.
//! 1. Each end merges the sources' cursors: of one row's versions the newest counts, and a tombstone
//!    hides the row.
//! 2. The ends meet: no row is yielded twice, none is missed.
//! 3. A damaged block is one `Err`, whichever end meets it first. The rows that it hides are left out,
//!    unless a newer source has them: an older version never takes the place of a lost one (F11).
//! 4. Rows are shown where they lie; whoever keeps one copies it.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::damages::Damages;
use super::end::End;
use super::list::Sources;
use crate::cursor::{Direction, Quest, RowRange};
use crate::error::StorageError;
use crate::version::Version;

/// The live rows of a range at one LSN, in order, from both ends: encoded row and version.
#[derive(Debug)]
pub struct Scan {
    range: RowRange,
    at: Lsn,
    front: Option<End>,
    back: Option<End>,
    /// The ends have met, or the range has ended.
    finished: bool,
    damages: Damages,
    /// Let go of last: nothing of it is read any more then (S6).
    sources: Arc<Sources>,
}

impl Sources {
    /// The rows of a range of encoded rows that live at `at`, in order, from both ends.
    pub fn scan(self: &Arc<Self>, range: (Bound<Bytes>, Bound<Bytes>), at: Lsn) -> Scan {
        let (low, high) = range;
        Scan {
            sources: Arc::clone(self),
            range: RowRange { low, high },
            at,
            front: None,
            back: None,
            finished: false,
            damages: Damages::default(),
        }
    }
}

impl Scan {
    /// Goes to the next row from one end. `None`: there is none, the ends have met. The row that the other
    /// end has come to counts as taken.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`]: what is damaged is told once, and the scan goes on behind
    /// it.
    #[inline]
    pub fn advance(&mut self, end: Direction) -> Option<Result<(), StorageError>> {
        if self.finished {
            return None;
        }
        self.open(end);
        let (mine, other) = match end {
            Direction::Forward => (self.front.as_mut()?, self.back.as_ref()),
            Direction::Backward => (self.back.as_mut()?, self.front.as_ref()),
        };
        loop {
            if !mine.pending {
                mine.advance(&mut self.damages);
                mine.pending = true;
            }
            if let Some(error) = self.damages.take_unreported() {
                return Some(Err(error));
            }
            let Some((version, rank)) = mine.now() else {
                self.finished = true;
                return None;
            };
            if other.is_some_and(|other| has_met(end, version.row, other)) {
                self.finished = true;
                return None;
            }
            let lives = version.value.is_some() && !self.damages.hide(rank, version.row);
            mine.pending = false;
            if lives {
                return Some(Ok(()));
            }
        }
    }

    /// Goes to the next row from the front, where nothing is to be decided about it; whether it has. [`Scan::advance`]
    /// does the rest, and anything that this does.
    #[inline]
    pub fn step_on(&mut self) -> bool {
        let alone = !self.finished && self.back.is_none() && self.damages.is_empty();
        alone && self.front.as_mut().is_some_and(End::step_on)
    }

    /// What may be the row that lies `rows` ahead of the one that the front has come to, in two parts: for a hint alone. It
    /// may be no row of the scan, and mostly there is one without an answer.
    pub fn ahead(&self, rows: usize) -> Option<(&[u8], &[u8])> {
        self.front.as_ref()?.ahead(rows)
    }

    fn open(&mut self, end: Direction) {
        let mine = match end {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        if mine.is_none() {
            let quest = Quest {
                range: self.range.clone(),
                at: self.at,
                direction: end,
            };
            *mine = Some(End::new(&self.sources, &quest));
        }
    }

    fn end(&self, end: Direction) -> Option<&End> {
        match end {
            Direction::Forward => self.front.as_ref(),
            Direction::Backward => self.back.as_ref(),
        }
    }

    /// The row that an end has come to, and its value, where they lie: after [`Scan::advance`] said so.
    pub fn row(&self, end: Direction) -> (&[u8], &[u8]) {
        let now = self.end(end).and_then(End::now);
        now.map(|(version, _)| (version.row, version.value.unwrap_or_default()))
            .unwrap_or_default()
    }

    /// The value of the row that an end has come to, for whoever keeps it: shared where a copy costs more.
    pub fn value(&self, end: Direction) -> Bytes {
        let value = self.end(end).and_then(End::value);
        value.unwrap_or_default()
    }

    /// Shows all rows that are left, from the front, until `see` breaks.
    ///
    /// # Errors
    /// As [`Scan::advance`]; the visit may be taken up again behind the damage.
    pub fn visit<B>(
        &mut self,
        mut see: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StorageError> {
        let mut stopped = None;
        let mut see = |row: &[u8], value: &[u8]| match see(row, value) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(with) => {
                stopped = Some(with);
                ControlFlow::Break(())
            }
        };
        while let Some(there) = self.advance(Direction::Forward) {
            there?;
            let (row, value) = self.row(Direction::Forward);
            if see(row, value).is_break() {
                break;
            }
            // Neither the other end nor damage has a say in what follows.
            let alone = self.back.is_none() && self.damages.is_empty();
            if let Some(front) = self.front.as_mut().filter(|_| alone)
                && front.sweep(&mut see).is_break()
            {
                break;
            }
        }
        Ok(stopped.map_or(ControlFlow::Continue(()), ControlFlow::Break))
    }

    fn take(&mut self, end: Direction) -> Option<Result<(Bytes, Version), StorageError>> {
        Some(self.advance(end)?.map(|()| {
            let now = self.end(end).and_then(End::now);
            let (version, _) = now.expect("the end has just come to a row");
            let row = Bytes::copy_from_slice(version.row);
            let version = Version {
                stamp: version.stamp,
                value: Some(self.value(end)),
            };
            (row, version)
        }))
    }
}

/// Whether an end that comes to `row` has met the other one.
fn has_met(end: Direction, row: &[u8], other: &End) -> bool {
    let Some((taken, _)) = other.now() else {
        return true;
    };
    let order = match end {
        Direction::Forward => row.cmp(taken.row),
        Direction::Backward => taken.row.cmp(row),
    };
    // What the other end has come to and not given out is still to be had.
    order.is_gt() || order.is_eq() && !other.pending
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Version), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(Direction::Forward)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(Direction::Backward)
    }
}
