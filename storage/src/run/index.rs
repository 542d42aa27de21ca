//! The index of a run: for each block where it is, its checksum, and the last version in it.
//!
//! Built by the writer, read whole and validated when a run is opened, searched in place.
//!
//! ```text
//! one IndexSlot for each block        smallest row, then the last row of each block
//! ```
//!
//! 1. The first block whose last version is at or behind a place is the only one that can hold the first
//!    version at or behind that place: a look-up touches one block.
//! 2. The blocks tile the file from the head to the filter.
//! 3. In memory stand, for each block, where it starts and eight bytes of its last row, those behind what all
//!    rows of the run share: a search seldom touches more of the index than that, and they tell about
//!    where in its block a row is.

use std::cmp::Ordering;

use bytes::Bytes;
use lockstone_base::Lsn;
use zerocopy::{FromBytes, IntoBytes};

use super::block::ROW_BYTES;
use super::format::{Footer, HEAD_BYTES, IndexSlot};
use crate::error::{Damage, Section};
use crate::version::version_order;

/// An index while its run is written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    slots: Vec<IndexSlot>,
    rows: Vec<u8>,
}

impl IndexBuilder {
    /// The index of a run that begins with the row `smallest`.
    pub(super) fn new(smallest: &[u8]) -> Self {
        Self {
            slots: Vec::new(),
            rows: smallest.to_vec(),
        }
    }

    /// Adds the block at `offset` whose last version is `last`.
    pub(super) fn push(&mut self, offset: u64, bytes: u32, checksum: u32, last: (&[u8], Lsn)) {
        let (row, stamp) = last;
        self.rows.extend_from_slice(row);
        self.slots.push(IndexSlot {
            offset: offset.into(),
            bytes: bytes.into(),
            checksum: checksum.into(),
            stamp: stamp.get().into(),
            row_end: (self.rows.len() as u64).into(),
        });
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.slots.as_slice().as_bytes().to_vec();
        bytes.extend_from_slice(&self.rows);
        bytes
    }
}

/// The index of an open run.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Bytes,
    blocks: usize,
    smallest_bytes: usize,
    /// How many bytes all rows of the run have in common at their start.
    shared_bytes: usize,
    blocks_end: u64,
    landmarks: Vec<Landmark>,
}

/// What a search needs to know of a block.
#[derive(Debug, Clone, Copy)]
struct Landmark {
    /// Of its last row [the bytes behind what all rows share](Index::sketch).
    sketch: u64,
    /// Where it starts in the file.
    start: u64,
}

/// Where a version is, if the run has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) block: usize,
    /// How far into the block's rows, as far as their sketches tell: 0 to `u16::MAX`.
    pub(super) share: u16,
}

impl Index {
    /// The index whose bytes are `bytes`, in a run with this footer.
    pub(super) fn new(bytes: Bytes, footer: &Footer) -> Result<Self, Damage> {
        let blocks = footer.blocks.get() as usize;
        let slots = blocks.checked_mul(size_of::<IndexSlot>());
        if slots.is_none_or(|slots| slots > bytes.len()) {
            return Err(malformed("it is cut off"));
        }
        let mut index = Self {
            bytes,
            blocks,
            smallest_bytes: footer.smallest_bytes.get() as usize,
            shared_bytes: 0,
            blocks_end: footer.filter_at.get(),
            landmarks: Vec::new(),
        };
        index.validate(footer)?;
        let ends = index.smallest().iter().zip(index.largest());
        index.shared_bytes = ends.take_while(|(a, b)| a == b).count();
        index.landmarks = (0..blocks).filter_map(|at| index.landmark(at)).collect();
        assert!(
            index.landmarks.len() == blocks,
            "a validated index has each block's last row"
        );
        Ok(index)
    }

    fn landmark(&self, block: usize) -> Option<Landmark> {
        Some(Landmark {
            sketch: self.sketch(self.last(block)?.0),
            start: self.slot(block)?.offset.get(),
        })
    }

    /// Where a block starts and ends in the file.
    pub(super) fn bounds(&self, block: usize) -> (u64, u64) {
        let start = |block: usize| self.landmarks.get(block).map(|block| block.start);
        // The blocks follow each other, and behind the last one comes the filter.
        let end = start(block + 1).unwrap_or(self.blocks_end);
        (start(block).unwrap_or(end), end)
    }

    /// The eight bytes of a row behind what all rows of the run share, zeros behind a shorter row: where
    /// these of two rows differ, the rows are ordered as they are.
    fn sketch(&self, row: &[u8]) -> u64 {
        let behind = row.get(self.shared_bytes..).unwrap_or_default();
        match behind.first_chunk() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => behind
                .iter()
                .zip([56, 48, 40, 32, 24, 16, 8])
                .fold(0, |sketch, (byte, shift)| {
                    sketch | u64::from(*byte) << shift
                }),
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The block number `block`.
    pub(super) fn slot(&self, block: usize) -> Option<&IndexSlot> {
        self.slots().get(block)
    }

    /// The last version of the block number `block`.
    pub(super) fn last(&self, block: usize) -> Option<(&[u8], Lsn)> {
        let slot = self.slot(block)?;
        let start = match block.checked_sub(1) {
            Some(before) => self.slot(before)?.row_end.get() as usize,
            None => self.smallest_bytes,
        };
        let row = self.rows().get(start..slot.row_end.get() as usize)?;
        Some((row, Lsn::new(slot.stamp.get())))
    }

    /// The run's smallest row.
    pub(super) fn smallest(&self) -> &[u8] {
        self.rows().get(..self.smallest_bytes).unwrap_or_default()
    }

    /// The run's largest row.
    pub(super) fn largest(&self) -> &[u8] {
        let last = self
            .blocks
            .checked_sub(1)
            .and_then(|block| self.last(block));
        last.map(|(row, _)| row).unwrap_or_default()
    }

    /// The first block whose last version is at or behind `place`: their number, if there is none.
    pub(super) fn find(&self, place: (&[u8], Lsn)) -> usize {
        self.spot(place).block
    }

    /// As [`Index::find`], and about where in the block.
    pub(super) fn spot(&self, place: (&[u8], Lsn)) -> Spot {
        let at_edge = |block| Spot { block, share: 0 };
        let shared = self.smallest().get(..self.shared_bytes);
        let shared = shared.unwrap_or_default();
        let head = place.0.get(..self.shared_bytes).unwrap_or(place.0);
        match head.cmp(shared) {
            Ordering::Less => return at_edge(0),
            Ordering::Greater => return at_edge(self.blocks),
            Ordering::Equal => {}
        }
        let sketch = self.sketch(place.0);
        let mut low = self.landmarks.partition_point(|last| last.sketch < sketch);
        // Among blocks that end with the same sketch only the rows themselves decide.
        let same = self.landmarks.get(low..).unwrap_or_default();
        let mut high = low + same.iter().take_while(|last| last.sketch == sketch).count();
        while low < high {
            let middle = low.midpoint(high);
            match self.last(middle) {
                Some(last) if version_order(last, place).is_lt() => low = middle + 1,
                _ => high = middle,
            }
        }
        Spot {
            block: low,
            share: self.share(low, sketch),
        }
    }

    /// How far between the ends of the block before and of `block` a row with this sketch lies, if rows
    /// were spread evenly.
    fn share(&self, block: usize, sketch: u64) -> u16 {
        let end_of = |block: usize| self.landmarks.get(block).map(|block| block.sketch);
        let before = block.checked_sub(1).and_then(end_of);
        let start = before.unwrap_or_else(|| self.sketch(self.smallest()));
        let end = end_of(block).unwrap_or(u64::MAX);
        let range = u128::from(end.saturating_sub(start)) + 1;
        let share = u128::from(sketch.saturating_sub(start)) * u128::from(u16::MAX) / range;
        share.min(u16::MAX.into()) as u16
    }

    fn slots(&self) -> &[IndexSlot] {
        <[IndexSlot]>::ref_from_prefix_with_elems(&self.bytes, self.blocks)
            .map(|(slots, _)| slots)
            .unwrap_or_default()
    }

    fn rows(&self) -> &[u8] {
        self.bytes
            .get(self.blocks * size_of::<IndexSlot>()..)
            .unwrap_or_default()
    }

    fn validate(&self, footer: &Footer) -> Result<(), Damage> {
        if !ROW_BYTES.contains(&self.smallest().len()) {
            return Err(malformed("the smallest row is too short or too long"));
        }
        let mut offset = HEAD_BYTES as u64;
        let mut before = (self.smallest(), Lsn::MAX);
        for block in 0..self.blocks {
            let cut = malformed("a row is cut off");
            let slot = self.slot(block).ok_or(cut)?;
            let last = self.last(block).ok_or(cut)?;
            if slot.offset.get() != offset {
                return Err(malformed("the blocks do not follow each other"));
            }
            offset = offset.saturating_add(slot.bytes.get().into());
            if !ROW_BYTES.contains(&last.0.len()) {
                return Err(malformed("a row is too short or too long"));
            }
            if version_order(before, last).is_ge() {
                return Err(malformed("its rows are out of order"));
            }
            before = last;
        }
        let rows_end = self
            .blocks
            .checked_sub(1)
            .and_then(|last| self.slot(last))
            .map(|slot| slot.row_end);
        if rows_end.is_none_or(|end| end.get() != self.rows().len() as u64) {
            return Err(malformed("there is something behind its last row"));
        }
        if offset != footer.filter_at.get() {
            return Err(malformed("the blocks do not end where the filter starts"));
        }
        Ok(())
    }
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Index, what)
}
