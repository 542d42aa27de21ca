//! A list that only grows: room is made beside its one writer, readers read beside both.
//!
//! Called by `memtable` and `singles`.
//! 1. Room is made by anyone, in blocks, outside the append latch; the writer only fills it (W2): a push
//!    neither allocates nor waits.
//! 2. An element never moves and never changes its number; whoever has learned a number from the writer's
//!    later stores finds the element.
//! 3. Blocks have one size, so making room takes a bounded time; the directory above them doubles.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

/// Parts of the directory: the one number `n` has room for 2ⁿ blocks.
const PARTS: usize = 24;

/// A part of the directory.
type Part<T> = Box<[OnceLock<Block<T>>]>;
type Block<T> = Box<[Slot<T>]>;

/// One element, on cache lines of its own: the writer fills one while readers read its neighbour.
#[repr(align(64))]
struct Slot<T>(OnceLock<T>);

/// Elements by number, in blocks of 2^`BLOCK_BITS`.
pub(super) struct Slots<T, const BLOCK_BITS: u32> {
    parts: [OnceLock<Part<T>>; PARTS],
    len: AtomicU32,
    /// How many elements have room. Raised in the latch `growing`.
    room: AtomicU32,
    growing: Mutex<()>,
}

impl<T, const BLOCK_BITS: u32> Slots<T, BLOCK_BITS> {
    /// How many elements it has: as many as were pushed before this load.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// The element number `number`.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slot(number)?.0.get()
    }

    /// The element number `number`, to be changed by whoever has the list for itself.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (part, block) = place(number >> BLOCK_BITS);
        let block = self.parts.get_mut(part)?.get_mut()?.get_mut(block)?;
        let slot = (number & ((1 << BLOCK_BITS) - 1)) as usize;
        block.get_mut()?.get_mut(slot)?.0.get_mut()
    }

    fn slot(&self, number: u32) -> Option<&Slot<T>> {
        let (part, block) = place(number >> BLOCK_BITS);
        let block = self.parts.get(part)?.get()?.get(block)?.get()?;
        block.get((number & ((1 << BLOCK_BITS) - 1)) as usize)
    }

    /// Makes room for `more` elements beyond those that are there. Allocates; outside the append latch.
    pub(super) fn make_room(&self, more: usize) {
        let wanted = self.len() as usize + more;
        if self.room.load(Ordering::Acquire) as usize >= wanted {
            return;
        }
        let _growing = self.growing.lock();
        let mut room = self.room.load(Ordering::Relaxed);
        while (room as usize) < wanted {
            let (part, block) = place(room >> BLOCK_BITS);
            let blocks = self.parts.get(part).expect("a memtable has fewer versions");
            let blocks =
                blocks.get_or_init(|| (0..1_usize << part).map(|_| OnceLock::new()).collect());
            let slots = (0..1 << BLOCK_BITS).map(|_| Slot(OnceLock::new()));
            let fresh = blocks
                .get(block)
                .is_some_and(|block| block.set(slots.collect()).is_ok());
            assert!(fresh, "a block is made once, in the latch");
            room += 1 << BLOCK_BITS;
            self.room.store(room, Ordering::Release);
        }
    }

    /// Appends an element, for which room was made; its number. One writer at a time.
    pub(super) fn push(&self, element: T) -> u32 {
        let number = self.len.load(Ordering::Relaxed);
        let slot = self
            .slot(number)
            .expect("W2: room is made before the append latch is taken");
        let free = slot.0.set(element).is_ok();
        assert!(free, "W2: one writer at a time");
        self.len.store(number + 1, Ordering::Release);
        number
    }
}

/// Where the block number `block` stands: the part of the directory, and the place in it.
fn place(block: u32) -> (usize, usize) {
    let part = (block + 1).ilog2();
    (part as usize, (block + 1 - (1 << part)) as usize)
}

impl<T, const BLOCK_BITS: u32> Default for Slots<T, BLOCK_BITS> {
    fn default() -> Self {
        Self {
            parts: [const { OnceLock::new() }; PARTS],
            len: AtomicU32::new(0),
            room: AtomicU32::new(0),
            growing: Mutex::new(()),
        }
    }
}

impl<T, const BLOCK_BITS: u32> fmt::Debug for Slots<T, BLOCK_BITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_numbers_over_many_blocks() {
        let slots = Slots::<u32, 2>::default();
        for n in 0..1000 {
            slots.make_room(1);
            assert_eq!(slots.push(n * 3), n);
        }
        assert_eq!(slots.len(), 1000);
        assert!((0..1000).all(|n| slots.get(n) == Some(&(n * 3))));
        assert_eq!(slots.get(1000), None);
        assert_eq!(slots.get(u32::MAX), None);
    }

    #[test]
    fn room_is_made_once_however_many_ask() {
        let slots = Slots::<u32, 4>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|more| slots.make_room(more)));
            }
        });
        assert_eq!(slots.room.load(Ordering::Relaxed), 112);
    }

    #[test]
    #[should_panic(expected = "W2")]
    fn a_push_without_room_is_refused() {
        let slots = Slots::<u32, 2>::default();
        slots.make_room(4);
        for n in 0..5 {
            slots.push(n);
        }
    }
}
