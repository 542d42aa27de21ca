//! The block that a cursor is in, and how far it goes in it.
//!
//! Made by `cursor` for each block that it enters.
//! 1. Where a walk's end lies in a block is looked up once, when the block is entered.

use std::ops::Range;

use super::block::Block;
use super::index::Index;
use super::layout::Layout;
use crate::cursor::{Direction, Quest};

/// A block, and what a walk through it needs to know.
#[derive(Debug, Clone)]
pub(super) struct Walked {
    pub(super) number: usize,
    /// Where it lies in the map.
    pub(super) bytes: Range<usize>,
    pub(super) layout: Layout,
    /// Which entries the walk does not go beyond.
    pub(super) entries: Range<usize>,
    /// The walk ends in it.
    pub(super) has_end: bool,
}

impl Walked {
    /// In the place of a block that cannot be read.
    pub(super) fn lost(number: usize) -> Self {
        Self {
            number,
            bytes: 0..0,
            layout: Layout::EMPTY,
            entries: 0..0,
            has_end: false,
        }
    }

    /// The block number `number`, as a walk for `quest` goes through it.
    pub(super) fn new(quest: &Quest, index: &Index, number: usize, block: &Block<'_>) -> Self {
        let (start, end) = index.bounds(number);
        let (entries, has_end) = within(quest, index, number, block);
        Self {
            number,
            bytes: start as usize..end as usize,
            layout: block.layout(),
            entries,
            has_end,
        }
    }
}

/// Which entries of a block the walk does not go beyond, and whether it ends in it.
fn within(quest: &Quest, index: &Index, number: usize, block: &Block<'_>) -> (Range<usize>, bool) {
    let range = &quest.range;
    if quest.direction == Direction::Forward {
        let last = index.last(number);
        let end = range.end();
        let end = end.filter(|_| !last.is_some_and(|(row, _)| range.below_high(row)));
        let stop = end.map(|(row, stamp)| block.position((row, stamp)));
        (0..stop.unwrap_or(block.len()), stop.is_some())
    } else {
        let before = number.checked_sub(1).and_then(|before| index.last(before));
        let start = range.start();
        let start = start.filter(|_| !before.is_some_and(|(row, _)| range.above_low(row)));
        let stop = start.map(|(row, stamp)| block.position((row, stamp)));
        (stop.unwrap_or(0)..block.len(), stop.is_some())
    }
}
