//! Where a transaction is in its life: one word, which is changed by compare-and-swap alone.
//!
//! Kept by `owner`.
//! 1. L5: one compare-and-swap decides each change; only who wins it acts on it.
//! 2. W9: who outlives a crash is *Ending* before it is Aborted: its locks bind until its end is in the log.
//! 3. While it is pinned it neither changes its state nor rolls anything back: whoever wants that waits. Pinned is who is alive, for the
//!    moment in which a commit that requires it is decided, so there is nothing but that moment to wait for.
//!
//! Crash: memory only; the log knows who committed, and who is prepared.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a transaction is in its life, as far as locks are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OwnerState {
    /// Takes locks, and can be aborted by anyone.
    Active = 0,
    /// Its prepare record is being written: it takes no more locks, and nobody can abort it.
    Preparing = 1,
    /// It is on the device with all its locks, and waits for somebody to commit or abort it, through any crash.
    Prepared = 2,
    /// Its commit record is being written: it waits for nobody and nobody can abort it.
    Committing = 3,
    /// It would outlive a crash, and is being aborted: that is to be in the log before its locks are free.
    Ending = 4,
    /// Committed; its locks are void.
    Released = 5,
    /// Aborted; its locks are void.
    Aborted = 6,
}

/// What came of an attempt to pin a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    /// It is pinned.
    Pinned,
    /// It is alive, but has rolled something back since it was looked at.
    Changed,
    /// It has ended, or is ending.
    Gone,
}

/// The word: the state, whether it is pinned, and how often it was rolled back.
#[derive(Debug)]
pub(crate) struct Life(AtomicU32);

const STATE: u32 = 7;
const PINNED: u32 = 8;
const ROLLBACK: u32 = 16;

fn state_of(word: u32) -> OwnerState {
    match word & STATE {
        0 => OwnerState::Active,
        1 => OwnerState::Preparing,
        2 => OwnerState::Prepared,
        3 => OwnerState::Committing,
        4 => OwnerState::Ending,
        5 => OwnerState::Released,
        _ => OwnerState::Aborted,
    }
}

impl Life {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(OwnerState::Active as u32))
    }

    pub(crate) fn state(&self) -> OwnerState {
        state_of(self.0.load(Ordering::Acquire))
    }

    /// Whether it was `from`, and is `to` now.
    pub(crate) fn swap(&self, from: OwnerState, to: OwnerState) -> bool {
        self.change(|word| (state_of(word) == from).then_some(word - from as u32 + to as u32))
    }

    /// A rollback to a savepoint begins: what it gives back is held no more.
    pub(crate) fn note_rollback(&self) {
        self.change(|word| Some(word.wrapping_add(ROLLBACK)));
    }

    /// How often it has rolled back.
    pub(crate) fn rollbacks(&self) -> u32 {
        self.0.load(Ordering::Acquire) / ROLLBACK
    }

    /// Pins it, if it is alive and has rolled back so often.
    pub(crate) fn pin(&self, rollbacks: u32) -> Pinning {
        use OwnerState::{Active, Prepared, Preparing};
        loop {
            let word = self.0.load(Ordering::Acquire);
            if !matches!(state_of(word), Active | Preparing | Prepared) {
                return Pinning::Gone;
            }
            if word / ROLLBACK != rollbacks {
                return Pinning::Changed;
            }
            if word & PINNED != 0 {
                // The commit before, of which nothing is left to be done.
                spin_loop();
            } else if self.exchange(word, word | PINNED) {
                return Pinning::Pinned;
            }
        }
    }

    pub(crate) fn unpin(&self) {
        let before = self.0.fetch_and(!PINNED, Ordering::AcqRel);
        assert_ne!(before & PINNED, 0, "who is unpinned was pinned");
    }

    fn change(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        loop {
            let word = self.0.load(Ordering::Acquire);
            let Some(next) = change(word) else {
                return false;
            };
            if word & PINNED != 0 {
                spin_loop();
            } else if self.exchange(word, next) {
                return true;
            }
        }
    }

    fn exchange(&self, from: u32, to: u32) -> bool {
        let exchanged = self
            .0
            .compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire);
        exchanged.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn one_change_wins() {
        let life = Life::new();
        assert!(life.swap(OwnerState::Active, OwnerState::Ending));
        assert!(!life.swap(OwnerState::Active, OwnerState::Committing));
        life.note_rollback();
        assert_eq!((life.state(), life.rollbacks()), (OwnerState::Ending, 1));
        assert_eq!(life.pin(1), Pinning::Gone);
        assert!(life.swap(OwnerState::Ending, OwnerState::Aborted));
        assert_eq!(life.state(), OwnerState::Aborted);
    }

    #[test]
    fn who_is_pinned_is_ended_when_that_is_over_and_not_before() {
        for end in [true, false] {
            let (life, ended) = (Life::new(), AtomicBool::new(false));
            assert_eq!(life.pin(1), Pinning::Changed);
            assert_eq!(life.pin(0), Pinning::Pinned);
            thread::scope(|scope| {
                let ending = scope.spawn(|| {
                    if end {
                        assert!(life.swap(OwnerState::Active, OwnerState::Aborted));
                    } else {
                        life.note_rollback();
                    }
                    ended.store(true, Ordering::SeqCst);
                });
                for _ in 0..1000 {
                    assert!(!ended.load(Ordering::SeqCst), "it was pinned");
                    thread::yield_now();
                }
                life.unpin();
                ending.join().expect("it has ended");
            });
            let now = life.pin(0);
            assert_eq!(now, if end { Pinning::Gone } else { Pinning::Changed });
        }
    }
}
