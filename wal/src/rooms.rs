//! Room that was promised and not yet used (G10, W2): how much, and who waits for some to be given back.
//!
//! `staging` counts the promises in before it lets anything else in; `log` makes and keeps them.
//! 1. Promises grow only under the append latch; they shrink anywhere, without it, so a [`Room`] may be
//!    dropped wherever its owner fails.
//! 2. Whoever found too much promised sleeps until some was given back, or the log is poisoned: who
//!    gives back looks for sleepers after it gave, who sleeps looks again after it said so.
//!
//! Crash: memory only.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::format::FRAME_HEADER_BYTES;
use crate::open_frame::{padded, record_room};

/// An amount of promised room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Promise {
    /// Bytes within a frame.
    pub(crate) bytes: usize,
    /// Bytes of log, if every record ends up in a frame of its own.
    pub(crate) padded: u64,
}

impl Promise {
    /// Room for one record of `bytes` bytes of context and body.
    pub(crate) fn of_record(bytes: usize) -> Self {
        let bytes = record_room(bytes);
        Self {
            bytes,
            padded: padded(FRAME_HEADER_BYTES + bytes),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            padded: self.padded + other.padded,
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            padded: self.padded.saturating_sub(other.padded),
        }
    }
}

/// All promises that are open. Changed with every reservation: on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Rooms {
    bytes: AtomicUsize,
    padded: AtomicU64,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    given_back: Condvar,
}

impl Rooms {
    /// What is promised. A give-back beside it may be half seen: never less than what is promised.
    pub(crate) fn promised(&self) -> Promise {
        Promise {
            bytes: self.bytes.load(Ordering::SeqCst),
            padded: self.padded.load(Ordering::SeqCst),
        }
    }

    /// Makes a promise; the caller holds the append latch and has found that it can be kept.
    pub(crate) fn promise(&self, promise: Promise) -> Room<'_> {
        self.bytes.fetch_add(promise.bytes, Ordering::SeqCst);
        self.padded.fetch_add(promise.padded, Ordering::SeqCst);
        Room {
            rooms: self,
            promise,
        }
    }

    /// Sleeps until something was given back, if no more than `seen` was promised; or until `give_up` says
    /// so. The caller looks again.
    pub(crate) fn wait_for_less(&self, seen: Promise, give_up: impl Fn() -> bool) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut bed = self.bed.lock();
        if self.promised() == seen && !give_up() {
            self.given_back.wait(&mut bed);
        }
        drop(bed);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes every sleeper to look again.
    pub(crate) fn wake_all(&self) {
        let _bed = self.bed.lock();
        self.given_back.notify_all();
    }

    fn give_back(&self, promise: Promise) {
        self.bytes.fetch_sub(promise.bytes, Ordering::SeqCst);
        self.padded.fetch_sub(promise.padded, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }
}

/// Room for one record, in a buffer and in the log: an append with it neither waits nor fails (W2).
/// Given back on drop.
///
/// Whoever holds one must not wait for the log (`append`, `reserve`) before it is used or dropped: the
/// room that it would wait for may be its own.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub struct Room<'a> {
    rooms: &'a Rooms,
    promise: Promise,
}

impl Room<'_> {
    pub(crate) fn promise(&self) -> Promise {
        self.promise
    }

    pub(crate) fn is_of(&self, rooms: &Rooms) -> bool {
        std::ptr::eq(self.rooms, rooms)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.rooms.give_back(self.promise);
    }
}
