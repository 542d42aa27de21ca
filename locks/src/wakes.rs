//! Whose threads are to be woken, once every latch is dropped.
//!
//! Filled by `table` while it holds latches, fired by the caller.
//! 1. A thread is woken only after all latches are dropped, so it never wakes into one.
//! 2. Nobody is forgotten: what was not fired is fired when the list is dropped.
//!
//! Crash: memory only.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::owner::Owner;

/// The transactions whose wait was decided. Dropping it wakes them: drop it, or call
/// [`Wakes::fire`], where no latch is held.
#[derive(Debug, Default)]
#[must_use = "whom it names sleeps until it is fired or dropped"]
pub struct Wakes {
    woken: SmallVec<[Arc<Owner>; 2]>,
    /// W9: those whose end is to be logged.
    ending: SmallVec<[Arc<Owner>; 1]>,
}

impl Wakes {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes everyone, and forgets them.
    #[inline]
    pub fn fire(&mut self) {
        if !self.is_empty() {
            self.woken.drain(..).for_each(|owner| owner.notify());
            self.ending.drain(..).for_each(|owner| owner.tell_to_end());
        }
    }

    /// Whether there is nobody to wake.
    pub fn is_empty(&self) -> bool {
        self.woken.is_empty() && self.ending.is_empty()
    }

    pub(crate) fn add(&mut self, owner: &Arc<Owner>) {
        self.woken.push(Arc::clone(owner));
    }

    /// W9: its end is to be logged before its locks are free.
    pub(crate) fn end(&mut self, owner: &Arc<Owner>) {
        self.ending.push(Arc::clone(owner));
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.fire();
    }
}
