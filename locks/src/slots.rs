//! Names of transactions that fit into a word, and whether who bears one still binds.
//!
//! An entry of the table names its holder by a slot and the slot's generation, so it counts no share of the owner and
//! keeps nothing alive; one load tells whether it is void.
//! 1. K5: a name binds from [`Slots::take`] to [`Seat::void`], and never again: a slot that is given anew has another
//!    generation.
//! 2. Void comes at the latest with the change of the owner's state plus the time that takes; the owner's own state is
//!    what decides where somebody is in somebody's way.
//!
//! Crash: memory only.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use lockstone_base::Striped;
use parking_lot::Mutex;

/// Slots in the first segment; each further segment has as many as all before it.
const FIRST_SEGMENT: u32 = 1 << FIRST_SEGMENT_BITS;
const FIRST_SEGMENT_BITS: u32 = 10;
/// So many transactions may be in flight at once: 268 million, some hundred gigabytes of them.
const SLOT_BITS: u32 = 28;
const SEGMENTS: usize = (SLOT_BITS - FIRST_SEGMENT_BITS) as usize;

/// A transaction's name: its slot, and above it the slot's generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerName(u64);

impl OwnerName {
    fn slot(self) -> u32 {
        (self.0 & ((1 << SLOT_BITS) - 1)) as u32
    }

    fn generation(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

/// What a slot knows, apart from its neighbours: who sits there changes it.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<T> {
    /// The generation, and in the lowest bit whether its name binds.
    word: AtomicU64,
    owner: Mutex<Weak<T>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(0),
            owner: Mutex::new(Weak::new()),
        }
    }
}

impl<T> Slot<T> {
    fn binds(&self, name: OwnerName) -> bool {
        self.word.load(Ordering::Acquire) == (name.generation() << 1 | 1)
    }
}

/// A slot, while one transaction has it.
#[derive(Debug)]
pub(crate) struct Seat<T> {
    slot: Arc<Slot<T>>,
    name: OwnerName,
}

impl<T> Seat<T> {
    /// Who sits here, for those who meet the name in the table.
    pub(crate) fn occupy(&self, owner: &Arc<T>) {
        *self.slot.owner.lock() = Arc::downgrade(owner);
    }

    pub(crate) fn name(&self) -> OwnerName {
        self.name
    }

    /// K5: the name binds no more.
    pub(crate) fn void(&self) {
        self.slot
            .word
            .store(self.name.generation() << 1, Ordering::Release);
    }
}

type Segment<T> = Box<[OnceLock<Arc<Slot<T>>>]>;

/// All slots, by number; made when needed, never taken away.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    segments: [OnceLock<Segment<T>>; SEGMENTS],
    /// Numbers never given.
    fresh: AtomicU32,
    /// Numbers given back, by the threads that did so.
    free: Striped<Mutex<Vec<u32>>>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self {
            segments: [const { OnceLock::new() }; SEGMENTS],
            fresh: AtomicU32::new(0),
            free: Striped::default(),
        }
    }

    /// A slot for an owner that does not exist yet: [`Seat::occupy`] names it.
    pub(crate) fn take(&self) -> Seat<T> {
        let number = self.freed().unwrap_or_else(|| {
            let fresh = self.fresh.fetch_add(1, Ordering::SeqCst);
            assert!(
                fresh < (1 << SLOT_BITS) - FIRST_SEGMENT,
                "K5: there is a slot for each transaction in flight"
            );
            fresh
        });
        let slot = Arc::clone(self.slot_or_new(number));
        let generation = slot.word.load(Ordering::Relaxed) >> 1;
        slot.word.store(generation << 1 | 1, Ordering::Release);
        let name = OwnerName(generation << SLOT_BITS | u64::from(number));
        Seat { slot, name }
    }

    fn freed(&self) -> Option<u32> {
        let own = self.free.own().lock().pop();
        own.or_else(|| self.free.all().find_map(|free| free.lock().pop()))
    }

    /// The slot may be given to another; its owner's name is void for ever.
    pub(crate) fn give_back(&self, seat: &Seat<T>) {
        *seat.slot.owner.lock() = Weak::new();
        // The generation's top bits are lost to the name's slot after 2^36 givings of one slot.
        let next = (seat.name.generation() + 1) & (u64::MAX >> SLOT_BITS);
        let was = seat.slot.word.swap(next << 1, Ordering::AcqRel);
        assert!(
            was == seat.name.generation() << 1,
            "K5: only what is void is given back, and once"
        );
        self.free.own().lock().push(seat.name.slot());
    }

    /// K5: whether what bears the name holds its locks.
    pub(crate) fn binds(&self, name: OwnerName) -> bool {
        self.slot(name.slot()).is_some_and(|slot| slot.binds(name))
    }

    /// Who bears the name; `None` if it is void.
    pub(crate) fn owner(&self, name: OwnerName) -> Option<Arc<T>> {
        let slot = self.slot(name.slot())?;
        let owner = slot.owner.lock();
        slot.binds(name).then(|| owner.upgrade()).flatten()
    }

    /// Everyone who sits in a slot. One who took a table SHARED before the caller raised its flag is among them (K7).
    /// Visits every slot there is, a latch each: as many as there were transactions at once.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<T>> {
        let numbers = 0..self.fresh.load(Ordering::SeqCst);
        numbers.filter_map(|number| self.slot(number)?.owner.lock().upgrade())
    }

    fn place(number: u32) -> (usize, usize) {
        let shifted = number + FIRST_SEGMENT;
        let segment = shifted.ilog2() - FIRST_SEGMENT_BITS;
        let within = shifted - (FIRST_SEGMENT << segment);
        (segment as usize, within as usize)
    }

    fn slot(&self, number: u32) -> Option<&Slot<T>> {
        let (segment, within) = Self::place(number);
        let slot = self.segments.get(segment)?.get()?.get(within)?.get()?;
        Some(slot)
    }

    fn slot_or_new(&self, number: u32) -> &Arc<Slot<T>> {
        let (segment, within) = Self::place(number);
        let make = || {
            (0..FIRST_SEGMENT << segment)
                .map(|_| OnceLock::new())
                .collect()
        };
        let slot = self
            .segments
            .get(segment)
            .and_then(|slots| slots.get_or_init(make).get(within));
        slot.expect("numbers are below the segments' slots")
            .get_or_init(Arc::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let places: Vec<_> = (0..10_000).map(Slots::<()>::place).collect();
        let slots = |segment| (0..(FIRST_SEGMENT as usize) << segment).map(move |at| (segment, at));
        let expected: Vec<_> = (0..4).flat_map(slots).take(10_000).collect();
        assert_eq!(places, expected);
        let last = Slots::<()>::place((1 << SLOT_BITS) - FIRST_SEGMENT - 1);
        assert_eq!(last.0, SEGMENTS - 1);
    }

    #[test]
    fn a_name_binds_until_it_is_void_and_never_again() {
        let slots = Slots::<()>::new();
        let first = slots.take();
        assert!(slots.binds(first.name()));
        first.void();
        assert!(!slots.binds(first.name()));
        slots.give_back(&first);
        let second = slots.take();
        assert_eq!(first.name().slot(), second.name().slot());
        assert!(slots.binds(second.name()) && !slots.binds(first.name()));
        let beside = slots.take();
        assert_ne!(beside.name().slot(), second.name().slot());
    }

    #[test]
    #[should_panic(expected = "K5")]
    fn what_binds_is_not_given_back() {
        let slots = Slots::<()>::new();
        slots.give_back(&slots.take());
    }
}
