//! A write set on its way into the memtable: all that can be done before the append latch is taken.
//!
//! Made by `Store::prepare`, linked by `Store::apply_prepared` (W2).
//! 1. Rows and values are in their final place, hashed, and room is promised for all of them.
//! 2. A promise holds in whatever memtable is the active one when the commit gets its LSN: a rotation
//!    makes room for what is promised (W5).
//! 3. Linked once. One that is dropped instead gives its room back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::Apart;
use smallvec::SmallVec;

use super::chunk::Chunk;
use super::entry::Entry;
use super::packing::Packing;
use crate::batch::{Rows, WriteBatch};
use crate::row_hash::row_hash;

/// A write set whose applying neither allocates nor waits nor fails.
#[derive(Debug)]
pub struct Prepared {
    pub(super) writes: Writes,
    pub(super) bytes: usize,
    /// Given back when this is dropped: by then what was linked counts in the memtable.
    _room: Room,
}

#[derive(Debug)]
pub(super) enum Writes {
    /// Each with its row's hash. Most commits write one row.
    Singles(SmallVec<[(u64, Entry); 1]>),
    Chunk(Option<Arc<Chunk>>),
}

/// Packs write sets and keeps count of what is promised.
#[derive(Debug)]
pub(crate) struct Preparing {
    salt: u64,
    packing: Packing,
    promised: Arc<Promised>,
}

/// Room that prepared write sets will need: chunks in the upper bits, single rows in the lower ones.
#[derive(Debug, Default)]
pub(crate) struct Promised(Apart<AtomicU64>);

/// Where the number of chunks begins. There are fewer single rows than this leaves room for: a memtable's numbers
/// have 32 bits.
const CHUNKS_SHIFT: u32 = 40;

/// One promise.
#[derive(Debug)]
struct Room {
    promised: Arc<Promised>,
    packed: u64,
}

impl Preparing {
    pub(crate) fn new(salt: u64) -> Self {
        Self {
            salt,
            packing: Packing::default(),
            promised: Arc::default(),
        }
    }

    /// What all prepared write sets that are not yet applied will need.
    pub(crate) fn promised(&self) -> &Promised {
        &self.promised
    }

    /// Brings `batch` into its final shape. Room is promised, but not yet made.
    pub(crate) fn prepare(&self, batch: WriteBatch) -> Prepared {
        let bytes = batch.bytes();
        let writes = match batch.into_rows() {
            Rows::Chunk(rows) => Writes::Chunk(Some(Arc::new(Chunk::uncommitted(rows, self.salt)))),
            Rows::Singles(rows) => {
                let mut packer = self.packing.packer();
                let singles = rows.into_iter().map(|(row, value)| {
                    let hash = row_hash(self.salt, row.as_bytes());
                    (hash, packer.entry(&row, value))
                });
                Writes::Singles(singles.collect())
            }
        };
        let (singles, chunks) = match &writes {
            Writes::Singles(singles) => (singles.len(), 0),
            Writes::Chunk(_) => (0, 1),
        };
        Prepared {
            writes,
            bytes,
            _room: Room::promise(&self.promised, singles, chunks),
        }
    }
}

impl Prepared {
    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many rows it writes, until it is applied.
    pub fn rows(&self) -> usize {
        match &self.writes {
            Writes::Singles(singles) => singles.len(),
            Writes::Chunk(chunk) => chunk.as_ref().map_or(0, |chunk| chunk.len()),
        }
    }

    /// The encoded row number `index`, of [`Prepared::rows`] that ascend.
    pub fn row(&self, index: usize) -> Option<&[u8]> {
        match &self.writes {
            Writes::Singles(singles) => singles.get(index).map(|(_, entry)| entry.row()),
            Writes::Chunk(chunk) => chunk.as_ref()?.row(index),
        }
    }

    /// Whether it writes nothing, or has been applied.
    pub fn is_empty(&self) -> bool {
        match &self.writes {
            Writes::Singles(singles) => singles.is_empty(),
            Writes::Chunk(chunk) => chunk.is_none(),
        }
    }
}

impl Promised {
    /// Single rows and chunks, all promises together.
    pub(super) fn all(&self) -> (usize, usize) {
        // A promise that is given back was linked before: whoever sees it gone sees the versions.
        let all = self.0.load(Ordering::Acquire);
        let singles = all & ((1 << CHUNKS_SHIFT) - 1);
        (singles as usize, (all >> CHUNKS_SHIFT) as usize)
    }
}

impl Room {
    fn promise(promised: &Arc<Promised>, singles: usize, chunks: usize) -> Self {
        let room = Self {
            promised: Arc::clone(promised),
            packed: (chunks as u64) << CHUNKS_SHIFT | singles as u64,
        };
        room.promised.0.fetch_add(room.packed, Ordering::AcqRel);
        room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.promised.0.fetch_sub(self.packed, Ordering::AcqRel);
    }
}
