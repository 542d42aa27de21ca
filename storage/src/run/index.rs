//! The index of a run: for each block where it is, its checksum, and the last version in it.
//!
//! Built by the writer; read whole and validated when it is first used, then searched in the map.
//!
//! ```text
//! one IndexCell for each block   one IndexSlot for each   smallest row, then the last row of each block
//! ```
//!
//! 1. The first block whose last version is at or behind a place is the only one that can hold the first
//!    version at or behind that place: a look-up touches one block.
//! 2. The blocks tile the file from the head to the filter.
//! 3. A cell has where its block starts and eight bytes of the block's last row, those behind what all rows
//!    of the run share: a search seldom touches more than some neighbouring cells, and they tell about
//!    where in its block a row is. It begins where the row would be if rows were spread evenly.
//! 4. Nothing of it stands in memory of its own: a run costs the same however many blocks it has.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "floats say where a search begins, never what it finds"
)]

use std::cmp::Ordering;

use bytes::Bytes;
use lockstone_base::Lsn;
use zerocopy::{FromBytes, IntoBytes};

use super::block::ROW_BYTES;
use super::format::{Footer, HEAD_BYTES, IndexCell, IndexSlot};
use crate::error::{Damage, Section};
use crate::version::version_order;

/// How often a search guesses from the distance that is left before it goes step by step: each guess takes
/// about the root of the distance, where rows are spread evenly.
const GUESSES_MAX: usize = 3;

/// A search that is so near goes step by step.
const NEAR_BLOCKS: f64 = 4.0;

/// An index while its run is written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    starts: Vec<u64>,
    slots: Vec<IndexSlot>,
    rows: Vec<u8>,
    smallest_bytes: usize,
}

impl IndexBuilder {
    /// The index of a run that begins with the row `smallest`.
    pub(super) fn new(smallest: &[u8]) -> Self {
        Self {
            rows: smallest.to_vec(),
            smallest_bytes: smallest.len(),
            ..Self::default()
        }
    }

    /// Adds the block that starts at `start`, has this checksum and the last version `last`.
    pub(super) fn push(&mut self, start: u64, checksum: u32, last: (&[u8], Lsn)) {
        let (row, stamp) = last;
        self.rows.extend_from_slice(row);
        self.starts.push(start);
        self.slots.push(IndexSlot {
            checksum: checksum.into(),
            stamp: stamp.get().into(),
            row_end: (self.rows.len() as u64).into(),
        });
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.slots.len() as u64
    }

    /// How long it would be now, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * (size_of::<IndexCell>() + size_of::<IndexSlot>()) + self.rows.len()
    }

    /// Its bytes, and how many bytes all rows of the run share at their start.
    pub(super) fn into_bytes(self) -> (Vec<u8>, usize) {
        let smallest = self.rows.get(..self.smallest_bytes).unwrap_or_default();
        let before_last = self.slots.len().checked_sub(2);
        let before_last = before_last.and_then(|before| self.slots.get(before));
        let last_at =
            before_last.map_or(self.smallest_bytes, |before| before.row_end.get() as usize);
        let largest = self.rows.get(last_at..).unwrap_or_default();
        let shared_bytes = shared(smallest, largest);
        let mut bytes = Vec::with_capacity(self.bytes());
        let mut row_at = self.smallest_bytes;
        for (slot, start) in self.slots.iter().zip(&self.starts) {
            let row_end = slot.row_end.get() as usize;
            let row = self.rows.get(row_at..row_end).unwrap_or_default();
            let cell = IndexCell {
                sketch: sketch(row, shared_bytes).into(),
                start: (*start).into(),
            };
            bytes.extend_from_slice(cell.as_bytes());
            row_at = row_end;
        }
        bytes.extend_from_slice(self.slots.as_slice().as_bytes());
        bytes.extend_from_slice(&self.rows);
        (bytes, shared_bytes)
    }
}

/// How many bytes two rows share at their start.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The eight bytes of a row behind the first `shared_bytes`, zeros behind a shorter row: where these of two
/// rows differ that share so many bytes, the rows are ordered as they are.
fn sketch(row: &[u8], shared_bytes: usize) -> u64 {
    let behind = row.get(shared_bytes..).unwrap_or_default();
    if let Some(bytes) = behind.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(behind) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

/// The index of an open run.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Bytes,
    blocks: usize,
    smallest_bytes: usize,
    /// How many bytes all rows of the run share at their start.
    shared_bytes: usize,
    blocks_end: u64,
    /// The smallest row's sketch.
    first: u64,
    /// How many blocks there are to a difference of one between sketches, if rows are spread evenly.
    slope: f64,
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
        let table = blocks.checked_mul(size_of::<IndexCell>() + size_of::<IndexSlot>());
        if table.is_none_or(|table| table > bytes.len()) {
            return Err(malformed("it is cut off"));
        }
        let mut index = Self {
            bytes,
            blocks,
            smallest_bytes: footer.smallest_bytes.get() as usize,
            shared_bytes: footer.shared_bytes.get() as usize,
            blocks_end: footer.filter_at.get(),
            first: 0,
            slope: 0.0,
        };
        index.validate()?;
        index.first = sketch(index.smallest(), index.shared_bytes);
        let last = sketch(index.largest(), index.shared_bytes);
        index.slope = blocks as f64 / (last.saturating_sub(index.first) as f64 + 1.0);
        Ok(index)
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Where a block starts and ends in the file.
    pub(super) fn bounds(&self, block: usize) -> (u64, u64) {
        let cells = self.cells();
        let start = |block: usize| cells.get(block).map(|cell| cell.start.get());
        // The blocks follow each other, and behind the last one comes the filter.
        let end = start(block + 1).unwrap_or(self.blocks_end);
        (start(block).unwrap_or(end), end)
    }

    /// The checksum of the block number `block`.
    pub(super) fn checksum(&self, block: usize) -> Option<u32> {
        self.slots().get(block).map(|slot| slot.checksum.get())
    }

    /// The last version of the block number `block`.
    pub(super) fn last(&self, block: usize) -> Option<(&[u8], Lsn)> {
        let slots = self.slots();
        let slot = slots.get(block)?;
        let start = match block.checked_sub(1) {
            Some(before) => slots.get(before)?.row_end.get() as usize,
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
        let last = self.blocks.checked_sub(1);
        let last = last.and_then(|block| self.last(block));
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
        let cells = self.cells();
        let sketch = sketch(place.0, self.shared_bytes);
        let mut low = self.first_at_or_above(cells, sketch);
        // Among blocks that end with the same sketch only the rows themselves decide.
        let same = cells.get(low..).unwrap_or_default();
        let same = same.iter().take_while(|cell| cell.sketch.get() == sketch);
        let mut high = low + same.count();
        while low < high {
            let middle = low.midpoint(high);
            match self.last(middle) {
                Some(last) if version_order(last, place).is_lt() => low = middle + 1,
                _ => high = middle,
            }
        }
        Spot {
            block: low,
            share: self.share(cells, low, sketch),
        }
    }

    /// The first cell whose sketch is not below `sketch`.
    fn first_at_or_above(&self, cells: &[IndexCell], sketch: u64) -> usize {
        let below = |at: usize| {
            let cell = cells.get(at);
            cell.is_some_and(|cell| cell.sketch.get() < sketch)
        };
        let mut guess = self.guess(cells, sketch);
        let mut step = 1;
        let (mut low, mut high) = (0, cells.len());
        if below(guess) {
            while below(guess) {
                low = guess + 1;
                guess += step;
                step *= 2;
            }
            high = guess.min(high);
        } else {
            while guess > 0 && !below(guess) {
                high = guess;
                guess = guess.saturating_sub(step);
                step *= 2;
            }
            low = if below(guess) { guess + 1 } else { 0 };
        }
        while low < high {
            let middle = low.midpoint(high);
            if below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// About which cell has this sketch, if rows are spread evenly; any number of a cell.
    fn guess(&self, cells: &[IndexCell], sketch: u64) -> usize {
        let last = cells.len().saturating_sub(1);
        let mut guess = sketch.saturating_sub(self.first) as f64 * self.slope;
        for _ in 0..GUESSES_MAX {
            // A float becomes the nearest number that there is: no sketch leads out of bounds.
            let Some(cell) = cells.get((guess as usize).min(last)) else {
                break;
            };
            let found = cell.sketch.get();
            let distance = if found < sketch {
                (sketch - found) as f64 * self.slope
            } else {
                -((found - sketch) as f64 * self.slope)
            };
            if distance.abs() < NEAR_BLOCKS {
                break;
            }
            guess = (guess.min(last as f64) + distance).max(0.0);
        }
        (guess as usize).min(last)
    }

    /// How far between the ends of the block before and of `block` a row with this sketch lies, if rows
    /// were spread evenly.
    fn share(&self, cells: &[IndexCell], block: usize, sketch: u64) -> u16 {
        let end_of = |block: usize| cells.get(block).map(|cell| cell.sketch.get());
        let before = block.checked_sub(1).and_then(end_of);
        let start = before.unwrap_or(self.first);
        let end = end_of(block).unwrap_or(u64::MAX);
        let range = end.saturating_sub(start) as f64 + 1.0;
        (sketch.saturating_sub(start) as f64 / range * f64::from(u16::MAX)) as u16
    }

    fn cells(&self) -> &[IndexCell] {
        <[IndexCell]>::ref_from_prefix_with_elems(&self.bytes, self.blocks)
            .map(|(cells, _)| cells)
            .unwrap_or_default()
    }

    fn slots(&self) -> &[IndexSlot] {
        let behind = self.bytes.get(self.blocks * size_of::<IndexCell>()..);
        <[IndexSlot]>::ref_from_prefix_with_elems(behind.unwrap_or_default(), self.blocks)
            .map(|(slots, _)| slots)
            .unwrap_or_default()
    }

    fn rows(&self) -> &[u8] {
        self.bytes
            .get(self.blocks * (size_of::<IndexCell>() + size_of::<IndexSlot>())..)
            .unwrap_or_default()
    }

    fn validate(&self) -> Result<(), Damage> {
        if !ROW_BYTES.contains(&self.smallest().len()) {
            return Err(malformed("the smallest row is too short or too long"));
        }
        let mut start = HEAD_BYTES as u64;
        let mut before = (self.smallest(), Lsn::MAX);
        for (block, cell) in self.cells().iter().enumerate() {
            let last = self.last(block).ok_or(malformed("a row is cut off"))?;
            let in_place = if block == 0 {
                cell.start.get() == start
            } else {
                cell.start.get() > start
            };
            start = cell.start.get();
            let rules = [
                (
                    in_place && start < self.blocks_end,
                    "the blocks do not follow each other",
                ),
                (
                    ROW_BYTES.contains(&last.0.len()),
                    "a row is too short or too long",
                ),
                (
                    version_order(before, last).is_lt(),
                    "its rows are out of order",
                ),
                (
                    cell.sketch.get() == sketch(last.0, self.shared_bytes),
                    "a cell does not show its block's last row",
                ),
            ];
            if let Some((_, rule)) = rules.into_iter().find(|(holds, _)| !holds) {
                return Err(malformed(rule));
            }
            before = last;
        }
        let rows_end = self.slots().last().map(|slot| slot.row_end.get());
        if rows_end != Some(self.rows().len() as u64) {
            return Err(malformed("there is something behind its last row"));
        }
        if shared(self.smallest(), self.largest()) != self.shared_bytes {
            return Err(malformed("its rows share more or fewer bytes"));
        }
        Ok(())
    }
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Index, what)
}
