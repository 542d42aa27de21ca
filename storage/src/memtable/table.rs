//! A hash table from rows to numbers, of one size: open addressing, filled by one writer, read beside it.
//!
//! Called by `index`, which grows by moving to a larger one, and by `chunk`.
//! 1. A cell is 0, or the upper half of a row's hash and the number of what it stands for, plus one. It is
//!    written once and never changes: a reader that meets it finds all that the writer stored before.
//! 2. At most five cells of eight are taken, so that a row that is not there mostly costs one cache line.
//! 3. Cells stand in the order of the hashes, but for collisions: moving a table reads and writes in order.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cells of the smallest table, as a power of two: 32 KiB.
pub(super) const BITS_MIN: u32 = 12;
pub(super) const BITS_MAX: u32 = 31;

/// Cells, 2^n of them.
pub(super) struct Table {
    cells: Box<[AtomicU64]>,
    bits: u32,
}

impl Table {
    /// An empty table of 2^`bits` cells.
    pub(super) fn new(bits: u32) -> Self {
        assert!(bits <= BITS_MAX, "a memtable has fewer rows");
        Self {
            cells: (0..1_usize << bits).map(|_| AtomicU64::new(0)).collect(),
            bits,
        }
    }

    /// The size of a table for `rows` rows, as a power of two.
    pub(super) fn bits_for(rows: usize) -> u32 {
        (0..=BITS_MAX)
            .find(|bits| rows <= Self::rows_max(*bits))
            .expect("a memtable has fewer rows")
    }

    /// How many rows a table of 2^`bits` cells takes.
    pub(super) const fn rows_max(bits: u32) -> usize {
        (1 << bits) / 8 * 5
    }

    /// How many cells it has.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The cell number `place`.
    pub(super) fn cell(&self, place: usize) -> u64 {
        let place = place & (self.cells.len() - 1);
        self.cells
            .get(place)
            .map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// The number of the row with this hash for which `is_row` holds.
    pub(super) fn find(&self, hash: u64, is_row: impl Fn(u32) -> bool) -> Option<u32> {
        let mut place = self.home(hash);
        loop {
            let cell = self.cell(place);
            let number = (cell as u32).checked_sub(1)?;
            if cell >> 32 == hash >> 32 && is_row(number) {
                return Some(number);
            }
            place += 1;
        }
    }

    /// Adds a row that is not there. One writer at a time.
    pub(super) fn add(&self, hash: u64, number: u32) {
        self.add_cell((hash & !u64::from(u32::MAX)) | u64::from(number + 1));
    }

    /// Adds a cell of another table.
    pub(super) fn add_cell(&self, cell: u64) {
        let mut place = self.home(cell);
        while self.cell(place) != 0 {
            place += 1;
        }
        if let Some(free) = self.cells.get(place & (self.cells.len() - 1)) {
            free.store(cell, Ordering::Release);
        }
    }

    /// Where the search for a hash starts: its uppermost bits.
    fn home(&self, hash: u64) -> usize {
        hash.checked_shr(u64::BITS - self.bits).unwrap_or_default() as usize
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("bits", &self.bits)
            .finish_non_exhaustive()
    }
}
