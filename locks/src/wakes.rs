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
pub struct Wakes(SmallVec<[Arc<Owner>; 2]>);

impl Wakes {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes everyone, and forgets them.
    #[inline]
    pub fn fire(&mut self) {
        if !self.is_empty() {
            self.0.drain(..).for_each(|owner| owner.notify());
        }
    }

    /// Whether there is nobody to wake.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, owner: &Arc<Owner>) {
        self.0.push(Arc::clone(owner));
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.fire();
    }
}
