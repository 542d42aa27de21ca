//! Some neighbouring blocks of a run, read from the device at once.
//!
//! Used by walkers, by the first touch of a scan, by checks and scrubs.
//! 1. Memory: [`WINDOW_BYTES`], or one block where that is larger.
//! 2. What lies behind the end of a file that has become shorter reads as zeros, which no checksum fits.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::DiskFile;

use super::index::Index;
use crate::cursor::{Direction, Quest};
use crate::error::StorageError;

/// What is read at once: large enough that a call costs little beside the bytes, small enough for the
/// processor's cache.
pub(super) const WINDOW_BYTES: u64 = 256 << 10;

/// Blocks in memory of their own.
#[derive(Debug, Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// Where the first block starts in the file.
    start: u64,
    blocks: Range<usize>,
}

/// What a walk asks the kernel to fetch at once: little at first, as it may be short, and twice as much each time, up to
/// as much as keeps a device busy while it is walked.
const FETCH_BYTES: RangeInclusive<u64> = 16 << 10..=1 << 20;

/// The blocks of a window of `bytes` bytes that begins with `first`.
pub(super) fn ahead(index: &Index, first: usize, bytes: u64) -> Range<usize> {
    let (start, _) = index.bounds(first);
    let mut end = first + 1;
    while end < index.blocks() && index.bounds(end).1 - start <= bytes {
        end += 1;
    }
    first..end
}

/// The blocks of a window of `bytes` bytes that ends with `last`.
pub(super) fn behind(index: &Index, last: usize, bytes: u64) -> Range<usize> {
    let (_, end) = index.bounds(last);
    let mut first = last;
    while first > 0 && end - index.bounds(first - 1).0 <= bytes {
        first -= 1;
    }
    first..last + 1
}

/// The blocks that a walk need not ask for: the first one, which may be all it enters, and then those that it did.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    blocks: Range<usize>,
    /// How much it asked for last, in bytes.
    bytes: u64,
}

impl Fetched {
    /// The walk enters the block `number`: where the bytes lie that it asks the kernel for, if it has to. None of them is
    /// behind its end.
    pub(super) fn step_to(
        &mut self,
        index: &Index,
        number: usize,
        quest: &Quest,
    ) -> Option<Range<usize>> {
        if self.blocks.contains(&number) {
            return None;
        }
        if self.blocks.is_empty() {
            self.blocks = number..number + 1;
            return None;
        }
        self.bytes = (self.bytes * 2).clamp(*FETCH_BYTES.start(), *FETCH_BYTES.end());
        let within =
            |edge: Option<(&Bytes, Lsn)>| edge.map(|(row, stamp)| index.find((row, stamp)));
        self.blocks = match quest.direction {
            Direction::Forward => {
                let blocks = ahead(index, number, self.bytes);
                let last = within(quest.range.end()).unwrap_or(blocks.end);
                number..blocks.end.min(last.max(number) + 1)
            }
            Direction::Backward => {
                let blocks = behind(index, number, self.bytes);
                let first = within(quest.range.start()).unwrap_or(blocks.start);
                blocks.start.max(first.min(number))..blocks.end
            }
        };
        let (start, _) = index.bounds(self.blocks.start);
        let (_, end) = index.bounds(self.blocks.end.saturating_sub(1));
        Some(start as usize..end as usize)
    }
}

impl Window {
    /// Reads these blocks in the place of those that were there.
    ///
    /// # Errors
    /// The disk's; the window is empty then.
    pub(super) fn read(
        &mut self,
        file: &dyn DiskFile,
        index: &Index,
        blocks: Range<usize>,
    ) -> Result<(), StorageError> {
        self.blocks = 0..0;
        let (start, _) = index.bounds(blocks.start);
        let (_, end) = index.bounds(blocks.end.saturating_sub(1));
        self.bytes.clear();
        self.bytes.resize((end - start) as usize, 0);
        file.read_at(start, &mut self.bytes)?;
        (self.start, self.blocks) = (start, blocks);
        Ok(())
    }

    pub(super) fn has(&self, block: usize) -> bool {
        self.blocks.contains(&block)
    }

    /// Where a block that the window has lies in it.
    pub(super) fn place(&self, index: &Index, block: usize) -> Range<usize> {
        let (start, end) = index.bounds(block);
        let shift = |at: u64| at.saturating_sub(self.start) as usize;
        shift(start)..shift(end)
    }

    pub(super) fn get(&self, place: Range<usize>) -> &[u8] {
        self.bytes.get(place).unwrap_or_default()
    }
}
