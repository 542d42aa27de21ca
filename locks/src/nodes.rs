//! The entries of one shard, by number: in pieces that never move, so that growing copies nothing.
//!
//! Called by `shards`, under the row latch.
//! 1. A number is one row's from `insert` to `remove`; then it may be another's.
//! 2. A row that one transaction holds and nobody waits for takes no memory but its node of 64 bytes: the row (in place
//!    up to a key of 19 bytes), its hash, and the hold.
//!
//! Crash: memory only.

use lockstone_base::{FencingToken, LockMode, RowKey, prefetch};

use crate::place::NODE_BITS;
use crate::row_lock::RowLock;
use crate::slots::OwnerName;
use crate::ticket::Hold;

/// Nodes in a piece: 16 KiB.
const PIECE_BITS: u32 = 8;
const PIECE: usize = 1 << PIECE_BITS;

/// Nobody's number: the end of the list of free nodes.
const NONE: u32 = u32::MAX;

/// A row that is held or waited for.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) row: RowKey,
    pub(crate) hash: u64,
    pub(crate) held: Held,
}

/// Who holds a row.
#[derive(Debug)]
pub(crate) enum Held {
    /// One transaction, and nobody waits: nearly always.
    Alone(Alone),
    /// Anything else.
    Contended(Box<RowLock>),
}

/// The one who holds a row, by name: nothing is counted, and nothing is kept alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alone {
    pub(crate) owner: OwnerName,
    pub(crate) token: FencingToken,
    pub(crate) sub: u32,
    pub(crate) mode: LockMode,
    pub(crate) writes: bool,
}

impl Alone {
    pub(crate) fn new(owner: OwnerName, hold: Hold) -> Self {
        Self {
            owner,
            token: hold.token,
            sub: hold.sub,
            mode: hold.mode,
            writes: hold.writes,
        }
    }

    pub(crate) fn hold(&self) -> Hold {
        Hold {
            mode: self.mode,
            writes: self.writes,
            sub: self.sub,
            token: self.token,
        }
    }
}

#[derive(Debug)]
enum Cell {
    Free(u32),
    Used(Node),
}

impl Cell {
    fn used(&self) -> Option<&Node> {
        match self {
            Self::Used(node) => Some(node),
            Self::Free(_) => None,
        }
    }
}

const _: () = assert!(size_of::<Cell>() == 64, "a lock takes one cache line");

/// All nodes of a shard.
#[derive(Debug)]
pub(crate) struct Nodes {
    pieces: Vec<Vec<Cell>>,
    free: u32,
    used: usize,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            free: NONE,
            used: 0,
        }
    }
}

impl Nodes {
    /// How many numbers were ever given and may be in use.
    pub(crate) fn numbers(&self) -> u32 {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        (full + self.pieces.last().map_or(0, Vec::len)) as u32
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Node> {
        let piece = self.pieces.get((number >> PIECE_BITS) as usize)?;
        piece.get(number as usize % PIECE)?.used()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Node> {
        match self.cell(number)? {
            Cell::Used(node) => Some(node),
            Cell::Free(_) => None,
        }
    }

    fn cell(&mut self, number: u32) -> Option<&mut Cell> {
        let piece = self.pieces.get_mut((number >> PIECE_BITS) as usize)?;
        piece.get_mut(number as usize % PIECE)
    }

    /// The cell is going to be looked at.
    pub(crate) fn expect(&self, number: u32) {
        let piece = self.pieces.get((number >> PIECE_BITS) as usize);
        if let Some(cell) = piece.and_then(|piece| piece.get(number as usize % PIECE)) {
            prefetch(cell);
        }
    }

    pub(crate) fn insert(&mut self, node: Node) -> u32 {
        let number = self.free;
        if let Some(cell) = self.cell(number)
            && let Cell::Free(next) = *cell
        {
            *cell = Cell::Used(node);
            self.free = next;
            self.used += 1;
            // The next one's: by then it is there.
            self.expect(next);
            return number;
        }
        let number = self.numbers();
        assert!(
            number < 1 << NODE_BITS,
            "two thousand million rows are locked at once"
        );
        self.used += 1;
        if let Some(last) = self.pieces.last_mut().filter(|last| last.len() < PIECE) {
            last.push(Cell::Used(node));
            // The next one's: by then it is there.
            if let Some(next) = last.spare_capacity_mut().first() {
                prefetch(next);
            }
        } else {
            let mut piece = Vec::with_capacity(PIECE);
            piece.push(Cell::Used(node));
            self.pieces.push(piece);
        }
        number
    }

    /// The number is free; when none is used, so is the memory of all but one piece.
    pub(crate) fn remove(&mut self, number: u32) {
        let free = self.free;
        let Some(cell) = self.cell(number) else {
            return;
        };
        assert!(matches!(cell, Cell::Used(_)), "a node is removed once");
        *cell = Cell::Free(free);
        self.free = number;
        self.used -= 1;
        if self.used == 0 {
            self.pieces.truncate(1);
            self.pieces.iter_mut().for_each(Vec::clear);
            self.free = NONE;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.pieces.iter().flatten().filter_map(Cell::used)
    }
}
