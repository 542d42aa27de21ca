//! From a row to its entry: a hash table that grows in small steps, one writer, readers beside it.
//!
//! Called by `singles`.
//! 1. The next larger table is made outside the append latch, before it is needed. The writer moves a few
//!    cells with each new row until all have moved: it neither allocates nor stalls (W2).
//! 2. While cells move, a reader looks into the newer table first and the older one second. Cells are never
//!    taken out of the older one, so it misses nothing, whatever the writer does meanwhile.
//! 3. Tables stay until the memtable goes: together they are at most twice the largest.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use lockstone_base::Apart;
use parking_lot::Mutex;

use super::table::{BITS_MAX, BITS_MIN, Table};

const SIZES: usize = (BITS_MAX - BITS_MIN + 1) as usize;

/// How many cells move with each new row. A table has to take half as many rows as the older one has cells
/// before the next one takes over, so 2 would do; more make the time short in which readers look twice.
const CELLS_MOVED: usize = 32;

/// Rows of single versions, by hash.
#[derive(Debug)]
pub(super) struct Index {
    /// By size, the smallest first.
    tables: [OnceLock<Table>; SIZES],
    /// [`State`] in one word.
    state: AtomicU32,
    /// What changes with new rows, apart from what readers look at.
    growth: Apart<Growth>,
}

#[derive(Debug, Default)]
struct Growth {
    /// The writer's: how many cells of the older table have been moved.
    moved: AtomicUsize,
    rows: AtomicUsize,
    /// How many rows the largest table takes. Raised in the latch `growing`.
    room: AtomicUsize,
    growing: Mutex<()>,
}

/// Which tables are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    newer: usize,
    /// While its cells are moved.
    older: Option<usize>,
}

impl State {
    fn pack(self) -> u32 {
        let older = self.older.map_or(0, |older| older + 1);
        (self.newer | older << 8) as u32
    }

    fn unpack(word: u32) -> Self {
        Self {
            newer: (word & 0xff) as usize,
            older: (word as usize >> 8).checked_sub(1),
        }
    }
}

impl Index {
    /// Makes room for `more` rows beyond those that are there. Allocates; outside the append latch.
    pub(super) fn make_room(&self, more: usize) {
        let wanted = self.growth.rows.load(Ordering::Acquire) + more;
        let ahead = wanted + wanted / 4;
        let room = self.growth.room.load(Ordering::Acquire);
        if ahead <= room {
            return;
        }
        // One makes the next table ahead of need; the others wait for it only if they need it now.
        let growing = if wanted <= room {
            self.growth.growing.try_lock()
        } else {
            Some(self.growth.growing.lock())
        };
        if growing.is_none() || ahead <= self.growth.room.load(Ordering::Relaxed) {
            return;
        }
        let bits = Table::bits_for(ahead).max(BITS_MIN);
        let made = self
            .tables
            .get((bits - BITS_MIN) as usize)
            .is_some_and(|table| table.set(Table::new(bits)).is_ok());
        assert!(made, "a table is made once, in the latch");
        self.growth
            .room
            .store(Table::rows_max(bits), Ordering::Release);
    }

    /// The number of the row with this hash for which `is_row` holds.
    pub(super) fn find(&self, hash: u64, is_row: impl Fn(u32) -> bool) -> Option<u32> {
        // One load for both: a table that is still being moved here is not forgotten on the way there.
        let state = State::unpack(self.state.load(Ordering::Acquire));
        let found = self.table(state.newer)?.find(hash, &is_row);
        match (found, state.older) {
            (None, Some(older)) => self.table(older)?.find(hash, is_row),
            (found, _) => found,
        }
    }

    /// Adds a row that is not there, for which room was made. One writer at a time.
    pub(super) fn add(&self, hash: u64, number: u32) {
        let rows = self.growth.rows.load(Ordering::Relaxed) + 1;
        let mut state = State::unpack(self.state.load(Ordering::Relaxed));
        let full = self
            .table(state.newer)
            .is_none_or(|table| Table::rows_max(table.len().ilog2()) < rows);
        if full {
            state = self.take_next(state, rows);
        }
        state = self.move_some(state);
        self.table(state.newer)
            .expect("W2: room is made before the append latch is taken")
            .add(hash, number);
        self.growth.rows.store(rows, Ordering::Release);
    }

    /// Goes over to the next table that was made.
    fn take_next(&self, state: State, rows: usize) -> State {
        assert!(
            state.older.is_none(),
            "W2: a table has moved long before its successor is full"
        );
        let largest = (0..SIZES)
            .rev()
            .find(|size| self.table(*size).is_some())
            .filter(|_| rows <= self.growth.room.load(Ordering::Acquire))
            .expect("W2: room is made before the append latch is taken");
        let next = State {
            newer: largest,
            // There is none yet when the first row comes.
            older: self.table(state.newer).map(|_| state.newer),
        };
        self.growth.moved.store(0, Ordering::Relaxed);
        self.state.store(next.pack(), Ordering::Release);
        next
    }

    /// Moves a few cells of the older table, if there is one.
    fn move_some(&self, state: State) -> State {
        let Some(older) = state.older.and_then(|older| self.table(older)) else {
            return state;
        };
        let newer = self.table(state.newer).expect("it is in use");
        let start = self.growth.moved.load(Ordering::Relaxed);
        let end = (start + CELLS_MOVED).min(older.len());
        for cell in (start..end).map(|place| older.cell(place)) {
            if cell != 0 {
                newer.add_cell(cell);
            }
        }
        self.growth.moved.store(end, Ordering::Relaxed);
        if end < older.len() {
            return state;
        }
        let alone = State {
            older: None,
            ..state
        };
        self.state.store(alone.pack(), Ordering::Release);
        alone
    }

    fn table(&self, size: usize) -> Option<&Table> {
        self.tables.get(size)?.get()
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            tables: [const { OnceLock::new() }; SIZES],
            state: AtomicU32::new(0),
            growth: Apart::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(row: u32) -> u64 {
        // Some rows share all that the table sees of their hashes.
        u64::from(row / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn rows_are_found_while_tables_grow_and_move() {
        let index = Index::default();
        let (mut moving, mut sizes) = (0, std::collections::BTreeSet::new());
        for row in 0..60_000_u32 {
            index.make_room(3);
            assert_eq!(index.find(hash(row), |found| found == row), None);
            index.add(hash(row), row);
            let state = State::unpack(index.state.load(Ordering::Relaxed));
            moving += usize::from(state.older.is_some());
            sizes.insert(state.newer);
            for old in [0, row / 7, row / 2, row.saturating_sub(1), row] {
                assert_eq!(index.find(hash(old), |found| found == old), Some(old));
            }
        }
        assert!(moving > 1000 && moving < 10_000, "{moving}");
        assert!(sizes.len() >= 5, "{sizes:?}");
    }

    /// A writer that fails must not leave the readers waiting for it.
    struct End<'a>(&'a AtomicU32);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(u32::MAX, Ordering::Release);
        }
    }

    #[test]
    fn readers_beside_the_moves_miss_nothing() {
        const ROWS: u32 = 100_000;
        let index = Index::default();
        let written = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let readers = [1, 2].map(|seed: u32| {
                let (index, written) = (&index, &written);
                scope.spawn(move || {
                    let mut draw = seed;
                    loop {
                        let seen = written.load(Ordering::Acquire);
                        if seen > ROWS {
                            return;
                        }
                        if seen > 0 {
                            draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            let row = ((u64::from(draw) * u64::from(seen)) >> 32) as u32;
                            assert_eq!(index.find(hash(row), |found| found == row), Some(row));
                        }
                    }
                })
            });
            let end = End(&written);
            for row in 0..ROWS {
                index.make_room(1);
                index.add(hash(row), row);
                written.store(row + 1, Ordering::Release);
            }
            drop(end);
            assert!(readers.into_iter().all(|reader| reader.join().is_ok()));
        });
    }

    #[test]
    #[should_panic(expected = "W2")]
    fn a_row_without_room_is_refused() {
        let index = Index::default();
        index.make_room(1);
        (0..3000).for_each(|row| index.add(hash(row), row));
    }
}
