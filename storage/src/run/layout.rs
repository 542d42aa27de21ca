//! Where in a block its parts lie.
//!
//! Taken from the block's head once; used by `block` and whoever walks one.
//! 1. Nothing of it was checked: every access with it checks its bounds (F23).

use std::ops::Range;

use zerocopy::FromBytes;

use super::format::{
    BLOCK_HEAD_BYTES, BlockHead, END_BYTES, MARKED, TOMBSTONES, VALUES_VARY, VARIES,
};
use super::marks;
use crate::error::{Damage, Section};

/// Where in a block its parts lie: what is taken from its head once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) entries: usize,
    pub(super) prefix_bytes: usize,
    pub(super) rows: Column,
    /// How many bytes each stamp takes, where they lie, and what they count from.
    pub(super) stamp_bytes: usize,
    pub(super) stamps: usize,
    pub(super) oldest: u64,
    /// Where the bits of tombstones lie, if there are any.
    pub(super) tombstones: Option<usize>,
    /// Where the marks lie, if there are any.
    pub(super) marks: Option<usize>,
    pub(super) values: Column,
}

/// Byte strings, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) start: usize,
    length: Length,
}

/// How long the byte strings of a column are.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// All of one length.
    Each(usize),
    /// Where each ends in the column is told here in the block.
    Ends(usize),
}

/// Byte strings of one length, one behind the other, and how long each is: never nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Even<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) width: usize,
}

impl Column {
    const EMPTY: Self = Self {
        start: 0,
        length: Length::Each(0),
    };

    /// The column that starts with its ends, if they vary, at `at`.
    fn new(at: usize, entries: usize, bytes_each: Option<usize>) -> Self {
        match bytes_each {
            Some(bytes) => Self {
                start: at,
                length: Length::Each(bytes),
            },
            None => Self {
                start: at + entries * END_BYTES,
                length: Length::Ends(at),
            },
        }
    }

    /// Where the byte string number `index` of the column lies in `block`.
    #[inline]
    pub(super) fn range(&self, block: &[u8], index: usize) -> Option<Range<usize>> {
        match self.length {
            Length::Each(bytes) => {
                let start = self.start + index * bytes;
                Some(start..start + bytes)
            }
            Length::Ends(ends) => {
                let end = end_at(block, ends, index)?;
                let before = match index.checked_sub(1) {
                    Some(before) => end_at(block, ends, before)?,
                    None => 0,
                };
                Some(self.start + before..self.start + end)
            }
        }
    }

    /// Those byte strings of the column in `block`, if all are of one length, and that is not nothing.
    pub(super) fn even<'a>(&self, block: &'a [u8], entries: Range<usize>) -> Option<Even<'a>> {
        let Length::Each(width) = self.length else {
            return None;
        };
        let bytes = self.start + entries.start * width..self.start + entries.end * width;
        let bytes = block.get(bytes).filter(|_| width > 0)?;
        Some(Even { bytes, width })
    }

    /// Where the column ends in `block`, which has so many entries.
    fn end(&self, block: &[u8], entries: usize) -> Option<usize> {
        let last = entries.checked_sub(1)?;
        self.range(block, last).map(|last| last.end)
    }
}

#[inline]
fn end_at(block: &[u8], ends: usize, index: usize) -> Option<usize> {
    let bytes = block.get(ends + index * END_BYTES..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*bytes)))
}

impl Layout {
    /// That of no block: no entries.
    pub(super) const EMPTY: Self = Self {
        entries: 0,
        prefix_bytes: 0,
        rows: Column::EMPTY,
        stamp_bytes: 0,
        stamps: 0,
        oldest: 0,
        tombstones: None,
        marks: None,
        values: Column::EMPTY,
    };

    /// The layout of the block whose bytes are `bytes`, unchecked but for what is needed to find its parts.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, Damage> {
        let cut = malformed("it is cut off");
        let (head, _) = BlockHead::ref_from_prefix(bytes).map_err(|_| cut)?;
        let entries = usize::from(head.entries.get());
        let prefix_bytes = usize::from(head.prefix_bytes.get());
        let row_bytes = usize::from(head.row_bytes.get());
        let rows = Column::new(
            BLOCK_HEAD_BYTES + prefix_bytes,
            entries,
            (row_bytes != usize::from(VARIES)).then_some(row_bytes),
        );
        let stamps = rows.end(bytes, entries).ok_or(cut)?;
        let stamp_bytes = usize::from(head.stamp_bytes);
        let tombstones = stamps + entries * stamp_bytes;
        let has_tombstones = head.flags & TOMBSTONES != 0;
        let bits = if has_tombstones {
            entries.div_ceil(8)
        } else {
            0
        };
        let marks = (head.flags & MARKED != 0).then_some(tombstones + bits);
        let marks_bytes = match marks {
            Some(at) => marks::length(bytes, at, entries).ok_or(cut)?,
            None => 0,
        };
        let value_bytes = head.value_bytes.get() as usize;
        let values = Column::new(
            tombstones + bits + marks_bytes,
            entries,
            (head.flags & VALUES_VARY == 0).then_some(value_bytes),
        );
        if values.start > bytes.len() {
            return Err(cut);
        }
        Ok(Self {
            entries,
            prefix_bytes,
            rows,
            stamp_bytes,
            stamps,
            oldest: head.oldest.get(),
            tombstones: has_tombstones.then_some(tombstones),
            marks,
            values,
        })
    }
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Block, what)
}
