//! Without a latch: room is reserved by adding to one word, the record copied outside, and a count in each
//! frame tells how much of it is filled.
//!
//! The word holds the frame's number (upper half) and the end of what is reserved in it (lower half).
//! 1. Who reserves from within a frame to within it owns that stretch alone: the word only grows while a
//!    frame is open, so no two additions give overlapping stretches.
//! 2. Exactly one addition crosses the end of a frame: who made it closes the frame at where it found it,
//!    opens the next one, waits until all of the old one is filled, and seals it. Who added behind that
//!    waits for the next frame.
//! 3. A frame is opened only when its buffer was given back, which is after it was sealed.
//!
//! What it leaves out: records that share the context of their neighbour (who the neighbour is turns out in
//! the copy), promises and segments (W2, G10, G1: a decision over several counts, which one addition cannot
//! make), frames that are taken before they are full (a swap of the word, beside every appender), and the
//! commit, which is applied in the order of its LSN and so needs a latch whatever the append does.

use std::cell::UnsafeCell;
use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::frame::{FRAME_HEADER_BYTES, Frames, Sealed, put_record, record_bytes, seal};

const NUMBER_SHIFT: u32 = 32;
const END_MASK: u64 = (1 << NUMBER_SHIFT) - 1;
/// How often somebody looks again before it gives up its core.
const SPINS: u32 = 100;

/// Frames without a latch.
pub(crate) struct Reserving<'a> {
    position: Line,
    slots: Vec<Slot>,
    frame_bytes: usize,
    sealed: &'a Sealed<'a>,
}

/// A counter on cache lines of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// One buffer, for every frame whose number leaves the same rest.
struct Slot {
    bytes: Box<[UnsafeCell<u8>]>,
    /// How much of the present frame is filled.
    filled: Line,
    /// The number of the frame that may be opened here.
    vacant_for: Line,
}

// SAFETY: a byte is written by the one thread that has reserved it (1), and read and written by the one
// that seals its frame (2), which has seen in `filled`, released by all writers, that they are done; the
// frame that comes next into the buffer is opened only behind `vacant_for`, released after the seal (3).
unsafe impl Sync for Slot {}

impl Slot {
    fn new(number: u64, frame_bytes: usize) -> Self {
        Self {
            bytes: (0..frame_bytes).map(|_| UnsafeCell::new(0)).collect(),
            filled: Line(AtomicU64::new(0)),
            vacant_for: Line(AtomicU64::new(number)),
        }
    }

    /// The bytes from `start` to `end`.
    ///
    /// # Safety
    /// The caller alone has them, for as long as it uses them.
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller proves that it has them alone"
    )]
    unsafe fn stretch(&self, start: usize, end: usize) -> &mut [u8] {
        let cells = self.bytes.get(start..end).expect("within the frame");
        let first = UnsafeCell::raw_get(cells.as_ptr());
        // SAFETY: the cells are `end - start` bytes in one piece, initialised, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(first, cells.len()) }
    }
}

impl<'a> Reserving<'a> {
    pub(crate) fn new(buffers: usize, frame_bytes: usize, sealed: &'a Sealed<'a>) -> Self {
        assert!(
            frame_bytes < 1 << 24,
            "waiters add to the word too: there must be room for them"
        );
        Self {
            position: Line(AtomicU64::new(FRAME_HEADER_BYTES as u64)),
            slots: (0..buffers as u64)
                .map(|number| Slot::new(number, frame_bytes))
                .collect(),
            frame_bytes,
            sealed,
        }
    }

    fn slot(&self, number: u64) -> &Slot {
        let at = number as usize % self.slots.len();
        self.slots.get(at).expect("a remainder is less")
    }

    /// By who crossed the end of frame `number`, which is reserved up to `used`.
    fn close(&self, number: u64, used: usize) {
        let next = number + 1;
        wait_until(|| self.slot(next).vacant_for.0.load(Ordering::Acquire) == next);
        let opened = next << NUMBER_SHIFT | FRAME_HEADER_BYTES as u64;
        self.position.0.store(opened, Ordering::Release);
        self.seal(number, used);
    }

    fn seal(&self, number: u64, used: usize) {
        let slot = self.slot(number);
        let expected = (used - FRAME_HEADER_BYTES) as u64;
        wait_until(|| slot.filled.0.load(Ordering::Acquire) == expected);
        // SAFETY: all that was reserved is filled, nobody reserves any more, and one thread seals (2).
        let frame = unsafe { slot.stretch(0, self.frame_bytes) };
        seal(frame, used, number);
        (self.sealed)(frame);
        slot.filled.0.store(0, Ordering::Relaxed);
        let next = number + self.slots.len() as u64;
        slot.vacant_for.0.store(next, Ordering::Release);
    }
}

impl Frames for Reserving<'_> {
    fn append(&self, body: &[u8]) -> u64 {
        let bytes = record_bytes(body);
        loop {
            let found = self.position.0.fetch_add(bytes as u64, Ordering::Acquire);
            let (number, start) = (found >> NUMBER_SHIFT, (found & END_MASK) as usize);
            if start + bytes <= self.frame_bytes {
                let slot = self.slot(number);
                // SAFETY: reserved by this addition, and no other gives any of it (1).
                put_record(unsafe { slot.stretch(start, start + bytes) }, body);
                slot.filled.0.fetch_add(bytes as u64, Ordering::Release);
                return number * self.frame_bytes as u64 + start as u64;
            }
            if start <= self.frame_bytes {
                self.close(number, start);
            } else {
                wait_until(|| self.position.0.load(Ordering::Relaxed) >> NUMBER_SHIFT > number);
            }
        }
    }

    fn finish(&self) {
        let position = self.position.0.load(Ordering::Acquire);
        self.seal(position >> NUMBER_SHIFT, (position & END_MASK) as usize);
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let mut spins = 0;
    while !is_so() {
        spins += 1;
        if spins % SPINS == 0 {
            thread::yield_now();
        } else {
            hint::spin_loop();
        }
    }
}
