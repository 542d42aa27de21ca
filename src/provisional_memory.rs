//! F20: the budget of what is locked or written and not committed, `Options::provisional_bytes`, shared by all transactions.
//!
//! Owned by the engine; each transaction has a share, which the write path counts into.
//! 1. A share is taken in steps, ahead of what is used: what is taken is never less than what is used, but for the first few KiB of
//!    each transaction, which it has for nothing.
//! 2. Who takes more than is left spills, if it has enough for a file to be worth it. Locks that could not leave memory are copied
//!    once more only when there is as much again.
//! 3. A share goes with its transaction.
//! 4. What is taken by all is a number that nobody finds anything by: its one order is its own (Relaxed).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::RowKey;

/// A lock in memory: its entry in the lock table, its place in the table's index, and in the list of what the transaction has acquired.
const LOCK_BYTES: u64 = 96;
/// A row that fits into so many bytes lies within its entry.
const ROW_BYTES_WITHIN: usize = 23;
/// A write in memory, beside its row and its value.
const WRITE_BYTES: u64 = 112;
/// What a transaction has without asking.
const FREE_BYTES: u64 = 4 << 10;
/// What is taken at a time: a quarter of what is used, within these bounds.
const STEP_BYTES: std::ops::RangeInclusive<u64> = (4 << 10)..=(1 << 20);
/// Less than this is not worth a file.
const SPILL_BYTES_MIN: u64 = 64 << 10;
/// Nor is less than such a part of the budget: while there are files of locks, every request of others asks each of them.
const SPILL_PART: u64 = 64;

/// All shares together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    taken: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: AtomicU64::new(0),
        })
    }

    /// The bytes that are taken by all.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What one transaction has of it.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// What locks use, and what writes do.
    locks: u64,
    writes: u64,
    taken: u64,
    is_over: bool,
    /// What a spill has left.
    stayed: u64,
}

impl Share {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            locks: 0,
            writes: 0,
            taken: 0,
            is_over: false,
            stayed: 0,
        }
    }

    /// A lock of `row` is in memory now.
    pub(crate) fn add_lock(&mut self, row: &RowKey) {
        self.add_locks(1, row.as_bytes().len());
    }

    /// So many locks are, of rows of so many bytes together.
    pub(crate) fn add_locks(&mut self, locks: u64, row_bytes: usize) {
        if locks > 0 {
            self.locks += lock_bytes(locks, row_bytes as u64);
            self.take();
        }
    }

    /// So many writes are, of rows and values of so many bytes together.
    pub(crate) fn add_writes(&mut self, writes: u64, bytes: usize) {
        self.writes += writes * WRITE_BYTES + bytes as u64;
        self.take();
    }

    /// The bytes that its writes use.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    fn used(&self) -> u64 {
        self.locks + self.writes
    }

    fn take(&mut self) {
        let used = self.used();
        if used <= self.taken.max(FREE_BYTES) {
            return;
        }
        let step = (used / 4).clamp(*STEP_BYTES.start(), *STEP_BYTES.end());
        let needed = used - self.taken;
        let before = self.budget.taken.fetch_add(needed, Ordering::Relaxed);
        self.taken += needed;
        self.is_over = before + needed > self.budget.limit;
        // Ahead, while there is room.
        if before + needed + step <= self.budget.limit {
            self.budget.taken.fetch_add(step, Ordering::Relaxed);
            self.taken += step;
        }
    }

    /// Whether the transaction has to make room.
    pub(crate) fn must_spill(&self) -> bool {
        let worth = (self.budget.limit / SPILL_PART).max(SPILL_BYTES_MIN);
        self.is_over && self.used() >= worth.max(2 * self.stayed)
    }

    /// It has spilled all writes, and its locks but for those that could not leave memory.
    pub(crate) fn spilled(&mut self, locks: Left) {
        self.keep(locks, Left::NOTHING);
        self.stayed = self.used();
    }

    /// So much is left of its locks and writes in memory.
    pub(crate) fn keep(&mut self, locks: Left, writes: Left) {
        self.locks = locks.part(self.locks);
        self.writes = writes.part(self.writes);
        let used = self.used();
        let needed = if used <= FREE_BYTES { 0 } else { used };
        let excess = self.taken.saturating_sub(needed);
        self.taken -= excess;
        self.budget.taken.fetch_sub(excess, Ordering::Relaxed);
        self.is_over = false;
        self.stayed = self.stayed.min(used);
    }
}

/// How many are left, of how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub(crate) left: u64,
    pub(crate) of: u64,
}

impl Left {
    pub(crate) const NOTHING: Self = Self { left: 0, of: 1 };

    /// Their part of `bytes`.
    fn part(self, bytes: u64) -> u64 {
        let part = u128::from(bytes) * u128::from(self.left) / u128::from(self.of.max(1));
        bytes.min(part as u64)
    }
}

/// What so many locks take.
fn lock_bytes(locks: u64, row_bytes: u64) -> u64 {
    locks * LOCK_BYTES + row_bytes.saturating_sub(locks * ROW_BYTES_WITHIN as u64)
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Left = Left { left: 9, of: 9 };

    /// How often one spills that takes `bytes` in all, a KiB at a time, where others have the whole budget.
    fn spills(bytes: u64, locks: bool, left: Left) -> u64 {
        let budget = Budget::new(1 << 20);
        let mut other = Share::new(&budget);
        other.add_writes(0, 1 << 20);
        let mut share = Share::new(&budget);
        let mut spills = 0;
        for _ in 0..bytes >> 10 {
            if locks {
                share.locks += 1 << 10;
            }
            share.add_writes(0, if locks { 0 } else { 1 << 10 });
            if share.must_spill() {
                share.spilled(left);
                spills += 1;
            }
        }
        drop(share);
        assert_eq!(budget.taken(), other.taken);
        spills
    }

    #[test]
    fn what_cannot_leave_memory_is_not_written_at_each_call() {
        assert_eq!(spills(1 << 20, true, Left::NOTHING), 16);
        assert_eq!(spills(1 << 20, true, ALL), 5);
    }

    /// Ranges stay, and rows that others wait for; what was written does not.
    #[test]
    fn writes_leave_memory_whatever_locks_stay() {
        assert_eq!(spills(1 << 20, false, ALL), 16);
        let budget = Budget::new(1 << 20);
        let mut share = Share::new(&budget);
        share.add_locks(1, 8);
        for _ in 0..1000 {
            share.add_writes(1, 100_000);
            share.keep(ALL, Left { left: 1, of: 2 });
        }
        assert!(budget.taken() < 250_000, "{}", budget.taken());
    }
}
