//! F20: the budget of what is locked or written and not committed, `Options::provisional_bytes`, shared by all transactions.
//!
//! Owned by the engine; each transaction has a share, which the write path counts into.
//! 1. A share is taken in steps, ahead of what is used: what is taken is never less than what is used, but for the first few KiB of
//!    each transaction, which it has for nothing.
//! 2. Who takes more than is left spills, if it has enough for a file to be worth it.
//! 3. A share goes with its transaction.

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
    used: u64,
    taken: u64,
    is_over: bool,
}

impl Share {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            used: 0,
            taken: 0,
            is_over: false,
        }
    }

    /// A lock of `row` is in memory now.
    pub(crate) fn add_lock(&mut self, row: &RowKey) {
        self.add_locks(1, row.as_bytes().len());
    }

    /// So many locks are, of rows of so many bytes together.
    pub(crate) fn add_locks(&mut self, locks: u64, row_bytes: usize) {
        if locks > 0 {
            self.add(lock_bytes(locks, row_bytes as u64));
        }
    }

    /// So many writes are, of rows and values of so many bytes together.
    pub(crate) fn add_writes(&mut self, writes: u64, bytes: usize) {
        self.add(writes * WRITE_BYTES + bytes as u64);
    }

    fn add(&mut self, bytes: u64) {
        self.used += bytes;
        if self.used <= self.taken.max(FREE_BYTES) {
            return;
        }
        let step = (self.used / 4).clamp(*STEP_BYTES.start(), *STEP_BYTES.end());
        let needed = self.used - self.taken;
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
        self.is_over && self.used >= (self.budget.limit / SPILL_PART).max(SPILL_BYTES_MIN)
    }

    /// So many of its `before` locks are left in memory.
    pub(crate) fn keep(&mut self, left: usize, before: usize) {
        let share = u128::from(self.used) * left as u128 / before.max(1) as u128;
        self.used = self.used.min(share as u64);
        let needed = if self.used <= FREE_BYTES {
            0
        } else {
            self.used
        };
        let excess = self.taken.saturating_sub(needed);
        self.taken -= excess;
        self.budget.taken.fetch_sub(excess, Ordering::Relaxed);
        self.is_over = false;
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
