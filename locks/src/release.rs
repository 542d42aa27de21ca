//! Giving locks back: at a transaction's end, at a rollback to a savepoint, and later.
//!
//! Called by `table`.
//! 1. K5: a release pass ends the owner's own wait, releases what others wait for, then up to
//!    [`RELEASED_AT_ONCE_MAX`] other rows. The rest is void by state; it is kept on a list and
//!    swept in bounded steps.
//! 2. L9: a rollback restores mode and token of each acquisition, the newest first.
//! 3. The owner's latch is not held while rows are visited, so a long release stops nobody.
//!
//! Crash: memory only; the log knows which transactions are over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::owner::{Acquisition, Owner};
use crate::shards::Shards;
use crate::ticket::Ticket;
use crate::wakes::Wakes;

/// So many rows that nobody waits for are released by the thread that ends the transaction: some
/// hundred microseconds of work. Those who wait for it were served before.
pub(crate) const RELEASED_AT_ONCE_MAX: usize = 1_000;

/// Void entries still in the table, by the transactions that left them.
#[derive(Debug)]
pub(crate) struct Leftovers {
    /// [`RELEASED_AT_ONCE_MAX`], but for tests that want every entry left over.
    released_at_once: usize,
    /// A hint, so that an acquisition pays one load when there are none.
    entries: AtomicUsize,
    left: Mutex<Vec<Vec<Acquisition>>>,
}

impl Leftovers {
    pub(crate) fn new(released_at_once: usize) -> Self {
        Self {
            released_at_once,
            entries: AtomicUsize::new(0),
            left: Mutex::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    fn add(&self, acquired: Vec<Acquisition>) {
        if !acquired.is_empty() {
            let mut left = self.left.lock();
            self.entries.fetch_add(acquired.len(), Ordering::Relaxed);
            left.push(acquired);
        }
    }

    /// Up to `steps` entries of one transaction.
    fn next(&self, steps: usize) -> Option<Vec<Acquisition>> {
        let mut left = self.left.lock();
        let acquired = left.last_mut()?;
        let keep = acquired.len().saturating_sub(steps);
        let next = acquired.split_off(keep);
        self.entries.fetch_sub(next.len(), Ordering::Relaxed);
        if acquired.is_empty() {
            left.pop();
        }
        Some(next)
    }

    /// Removes up to `steps` void entries; returns how many it met.
    pub(crate) fn sweep(&self, shards: &Shards, steps: usize, wakes: &mut Wakes) -> usize {
        let mut swept = 0;
        while swept < steps
            && self.len() > 0
            && let Some(left) = self.next(steps - swept)
        {
            shards.settle_each(left.iter(), wakes);
            swept += left.len();
        }
        swept
    }
}

/// K5: the release pass of an owner whose locks no longer bind.
pub(crate) fn release_pass(
    shards: &Shards,
    leftovers: &Leftovers,
    owner: &Arc<Owner>,
    wakes: &mut Wakes,
) {
    assert!(!owner.binds(), "K5: only what ended is released");
    let (waiting, mut acquired) = owner.latch().take();
    if let Some(ticket) = waiting {
        end_wait(shards, &ticket, wakes);
        wakes.add(owner);
    }
    // K4: the state was stored before the stack is taken. Who pushes later sees the state.
    for (hash, row) in owner.take_contended() {
        shards.latch(hash).settle(hash, &row, wakes);
    }
    let left = acquired.len().saturating_sub(leftovers.released_at_once);
    let at_once = acquired.get(left..).unwrap_or_default();
    shards.settle_each(at_once.iter().rev(), wakes);
    acquired.truncate(left);
    if left > 0 {
        leftovers.add(acquired.into_vec());
    }
}

/// L9: undoes what sub-transactions from `sub` on acquired.
pub(crate) fn roll_back(shards: &Shards, owner: &Arc<Owner>, sub: u32, wakes: &mut Wakes) {
    let undone = {
        let mut holdings = owner.latch();
        assert!(
            holdings.waiting().is_none(),
            "K4: a transaction that waits does not roll back"
        );
        if !owner.is_active() {
            return; // Its release pass gives everything back.
        }
        holdings.split_off(sub)
    };
    for step in undone.iter().rev() {
        let mut shard = shards.latch(step.hash);
        shard.change(step.hash, &step.row, wakes, |lock| {
            lock.restore(owner, step.before);
        });
    }
}

/// Ends the wait of an owner that ended. A grant that it did not take is void, as all it held.
fn end_wait(shards: &Shards, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
    let mut shard = shards.latch(ticket.hash());
    let was_waiting = ticket.try_end();
    shard.change(ticket.hash(), ticket.row(), wakes, |lock| {
        if was_waiting {
            lock.leave_queue(ticket);
        }
    });
}
