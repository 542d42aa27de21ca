//! The entries of a run as they stand, with their marks: what a spill's reader asks for.
//!
//! Called by `provisional` alone.
//! 1. What stands for a stamp is shown as it is: it is no commit's.
//! 2. Blocks are verified at their first touch, as for readers of versions; an error ends a walk (F11).
//! 3. Nothing is allocated for an entry.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::filter;
use super::layout::Layout;
use super::marks::Mark;
use super::reader::{Run, Touch};
use crate::cursor::{Direction, RowRange};
use crate::error::{Damage, Section, StorageError};
use crate::version::VersionRef;

/// An entry where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Marked<'a> {
    /// What stands for its stamp.
    pub(crate) order: Lsn,
    /// Where the value lies in the map; `None`: it is a tombstone.
    pub(crate) place: Option<Range<usize>>,
    /// The value.
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) mark: Mark,
}

impl Run {
    /// Shows the entries of `row`, whose hash is `hash`, the newest first.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    pub(crate) fn find<'a>(
        &'a self,
        row: &[u8],
        hash: u64,
        see: &mut dyn FnMut(Marked<'a>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if !filter::may_contain(self.filter()?, hash) {
            return Ok(());
        }
        let index = self.index()?;
        let place = (row, Lsn::MAX);
        let mut spot = index.spot(place);
        while spot.block < index.blocks() {
            let block = self.block(index, spot.block, Touch::One)?;
            let start = index.bounds(spot.block).0 as usize;
            for at in block.position_near(place, spot.share)..block.len() {
                let entry = block
                    .entry(at)
                    .filter(|it| block.compare(it.suffix, row).is_eq());
                let Some(entry) = entry else {
                    return Ok(());
                };
                let mark = block.mark(at).ok_or_else(|| self.unmarked(start as u64))?;
                let value = entry.value.clone();
                see(Marked {
                    order: entry.stamp,
                    place: entry
                        .value
                        .map(|value| value.start + start..value.end + start),
                    value: value.map(|value| block.bytes_at(value)),
                    mark,
                })?;
            }
            (spot.block, spot.share) = (spot.block + 1, 0);
        }
        Ok(())
    }

    /// The entries of a range of rows, from the end that the direction says.
    pub(crate) fn entries(self: &Arc<Self>, range: RowRange, direction: Direction) -> Entries {
        Entries {
            run: Arc::clone(self),
            range,
            direction,
            blocks: None,
            layout: Layout::EMPTY,
            start: 0,
            bytes: 0..0,
            left: 0..0,
            at: 0,
            row: Vec::new(),
        }
    }

    fn unmarked(&self, offset: u64) -> StorageError {
        self.corrupt_at(offset, Damage::malformed(Section::Block, "it has no marks"))
    }
}

/// A walk over the entries of a range.
#[derive(Debug)]
pub(crate) struct Entries {
    run: Arc<Run>,
    range: RowRange,
    direction: Direction,
    /// The blocks that are still to be entered; `None` before the first step.
    blocks: Option<Range<usize>>,
    layout: Layout,
    /// Where the block that is walked starts in the file, and where it lies in the map.
    start: u64,
    bytes: Range<usize>,
    /// Its entries that are still to be shown.
    left: Range<usize>,
    at: usize,
    row: Vec<u8>,
}

impl Entries {
    /// Goes to the next entry, the first one at first; whether there is one.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`]; the walk is over then.
    pub(crate) fn advance(&mut self) -> Result<bool, StorageError> {
        loop {
            let next = match self.direction {
                Direction::Forward => self.left.next(),
                Direction::Backward => self.left.next_back(),
            };
            if let Some(at) = next {
                let block = self.layout.of(self.run.bytes(self.bytes.clone()));
                block.row_into(block.suffix(at).unwrap_or_default(), &mut self.row);
                self.at = at;
                return Ok(true);
            }
            if !self.enter()? {
                return Ok(false);
            }
        }
    }

    /// Enters the next block; whether there is one.
    fn enter(&mut self) -> Result<bool, StorageError> {
        let run = Arc::clone(&self.run);
        let index = run.index()?;
        let (start, end) = (self.range.start(), self.range.end());
        let blocks = self.blocks.get_or_insert_with(|| {
            let first = start.map_or(0, |(row, order)| index.find((row, order)));
            let last = end.map(|(row, order)| index.find((row, order)) + 1);
            first..last.unwrap_or(usize::MAX).min(index.blocks())
        });
        let (next, touch) = match self.direction {
            Direction::Forward => (blocks.next(), Touch::Ahead),
            Direction::Backward => (blocks.next_back(), Touch::Behind),
        };
        let Some(number) = next else {
            return Ok(false);
        };
        let block = run.block(index, number, touch).inspect_err(|_| {
            // The walk is over.
            *blocks = 0..0;
        })?;
        let position = |place: Option<(&Bytes, Lsn)>, open: usize| {
            place.map_or(open, |(row, order)| block.position((row, order)))
        };
        self.left = position(start, 0)..position(end, block.len());
        self.layout = block.layout();
        let (start, end) = index.bounds(number);
        (self.start, self.bytes) = (start, start as usize..end as usize);
        Ok(true)
    }

    /// The entry that the walk has come to.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it has no mark.
    pub(crate) fn entry(&self) -> Result<(VersionRef<'_>, Mark), StorageError> {
        let block = self.layout.of(self.run.bytes(self.bytes.clone()));
        let cut = || self.run.unmarked(self.start);
        let entry = block.entry(self.at).ok_or_else(cut)?;
        let mark = block.mark(self.at).ok_or_else(cut)?;
        let version = VersionRef {
            row: &self.row,
            stamp: entry.stamp,
            value: entry.value.map(|value| block.bytes_at(value)),
        };
        Ok((version, mark))
    }
}
