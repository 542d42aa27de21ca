//! F20: the budget of what is locked or written and not committed, `Options::provisional_bytes`, shared by all transactions.
//!
//! Owned by the engine; each transaction has a share, which the write path counts into. How much it uses is kept where others find it.
//! 1. A share is taken in steps, ahead of what is used: what is taken is never less than what is used, but for the first few KiB of
//!    each transaction, which it has for nothing.
//! 2. Who takes more than is left spills, if it has enough for a file to be worth it. Locks that could not leave memory are copied
//!    once more only when there is as much again.
//!    If it has not, the locks of others are spilled (`idle`).
//! 3. A share goes with its transaction.
//! 4. What is taken by all is a number that nobody finds anything by: its one order is its own (Relaxed).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::RowKey;
use parking_lot::{Mutex, MutexGuard};

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
/// The same, of a file for many.
pub(crate) const MIXED_BYTES_MIN: u64 = SPILL_BYTES_MIN;
/// Nor is less than such a part of the budget: while there are files of locks, every request of others asks each of them.
const SPILL_PART: u64 = 64;

/// All shares together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    taken: AtomicU64,
    /// Locks of others are not spilled before more than so much is taken.
    patience: AtomicU64,
    /// Held by who spills for others.
    turn: Mutex<()>,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: AtomicU64::new(0),
            patience: AtomicU64::new(0),
            turn: Mutex::new(()),
        })
    }

    /// The bytes that there are.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether more is taken than there is, and than was when the locks of others could not be spilled.
    fn is_exceeded(&self) -> bool {
        self.taken() > self.limit.max(self.patience.load(Ordering::Relaxed))
    }

    /// Whether so much more is taken that everybody who takes something has to wait for room.
    fn is_far_exceeded(&self) -> bool {
        self.is_exceeded() && self.taken() > self.limit + self.limit / 4
    }

    /// The right to spill the locks of others, if that is called for: one at a time has it.
    pub(crate) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        if !self.is_exceeded() {
            return None;
        }
        let turn = if self.is_far_exceeded() {
            Some(self.turn.lock())
        } else {
            self.turn.try_lock()
        };
        // Whoever had it before may have made room.
        turn.filter(|_| self.is_exceeded())
    }

    /// The locks of others were spilled: if that was not enough, it is not tried again at once.
    pub(crate) fn relieved(&self) {
        let taken = self.taken();
        let patience = if taken > self.limit {
            taken + self.limit / 8
        } else {
            0
        };
        self.patience.store(patience, Ordering::Relaxed);
    }

    /// The bytes that are taken by all.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What a transaction uses, and has taken for that.
#[derive(Debug, Default)]
struct Bytes {
    /// What locks use, and what writes do.
    locks: u64,
    writes: u64,
    taken: u64,
    /// What a spill has left.
    stayed: u64,
    /// What of the locks others could not spill.
    stuck: u64,
}

impl Bytes {
    fn used(&self) -> u64 {
        self.locks + self.writes
    }

    /// What is taken and not used goes back.
    fn settle(&mut self, budget: &Budget) {
        let used = self.used();
        let needed = if used <= FREE_BYTES { 0 } else { used };
        let excess = self.taken.saturating_sub(needed);
        self.taken -= excess;
        budget.taken.fetch_sub(excess, Ordering::Relaxed);
        self.stayed = self.stayed.min(used);
        self.stuck = self.stuck.min(self.locks);
    }
}

/// How much one transaction has of it, as others find it.
#[derive(Debug)]
pub(crate) struct Used {
    budget: Arc<Budget>,
    bytes: Mutex<Bytes>,
}

impl Used {
    pub(crate) fn new(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::clone(budget),
            bytes: Mutex::default(),
        })
    }

    /// The bytes of locks that others might spill, if they are worth it.
    pub(crate) fn idle(&self) -> Option<u64> {
        let bytes = self.bytes.lock();
        let idle = bytes.locks.saturating_sub(bytes.stuck);
        (idle >= FREE_BYTES).then_some(idle)
    }

    /// Others have spilled its locks, but for so many.
    pub(crate) fn spilled_by_others(&self, locks: Left) {
        let mut bytes = self.bytes.lock();
        bytes.locks = locks.part(bytes.locks);
        bytes.stuck = bytes.locks;
        bytes.settle(&self.budget);
    }
}

/// What one transaction has of it.
#[derive(Debug)]
pub(crate) struct Share {
    used: Arc<Used>,
    is_over: bool,
}

impl Share {
    /// The share of one that uses `used`.
    pub(crate) fn new(used: &Arc<Used>) -> Self {
        Self {
            used: Arc::clone(used),
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
            let bytes = lock_bytes(locks, row_bytes as u64);
            self.take(|used| used.locks += bytes);
        }
    }

    /// So many writes are, of rows and values of so many bytes together.
    pub(crate) fn add_writes(&mut self, writes: u64, bytes: usize) {
        self.take(|used| used.writes += writes * WRITE_BYTES + bytes as u64);
    }

    /// The bytes that its writes use.
    pub(crate) fn writes(&self) -> u64 {
        self.used.bytes.lock().writes
    }

    fn take(&mut self, add: impl FnOnce(&mut Bytes)) {
        let Used { budget, bytes } = &*self.used;
        let mut bytes = bytes.lock();
        add(&mut bytes);
        let used = bytes.used();
        if used <= bytes.taken.max(FREE_BYTES) {
            return;
        }
        let step = (used / 4).clamp(*STEP_BYTES.start(), *STEP_BYTES.end());
        let needed = used - bytes.taken;
        let before = budget.taken.fetch_add(needed, Ordering::Relaxed);
        bytes.taken += needed;
        self.is_over = before + needed > budget.limit;
        // Ahead, while there is room.
        if before + needed + step <= budget.limit {
            budget.taken.fetch_add(step, Ordering::Relaxed);
            bytes.taken += step;
        }
    }

    /// Whether the transaction has to make room.
    pub(crate) fn must_spill(&self) -> bool {
        let worth = (self.used.budget.limit / SPILL_PART).max(SPILL_BYTES_MIN);
        self.is_over && {
            let bytes = self.used.bytes.lock();
            bytes.used() >= worth.max(2 * bytes.stayed)
        }
    }

    /// Whether there was no room for what it has taken last.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// It has spilled all writes, and its locks but for those that could not leave memory.
    pub(crate) fn spilled(&mut self, locks: Left) {
        self.keep(locks, Left::NOTHING);
        let mut bytes = self.used.bytes.lock();
        bytes.stayed = bytes.used();
    }

    /// So much is left of its locks and writes in memory.
    pub(crate) fn keep(&mut self, locks: Left, writes: Left) {
        let mut bytes = self.used.bytes.lock();
        bytes.locks = locks.part(bytes.locks);
        bytes.writes = writes.part(bytes.writes);
        bytes.settle(&self.used.budget);
        self.is_over = false;
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
    pub(crate) const ALL: Self = Self { left: 1, of: 1 };

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
        let mut bytes = self.used.bytes.lock();
        *bytes = Bytes {
            taken: bytes.taken,
            ..Bytes::default()
        };
        bytes.settle(&self.used.budget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often one spills that takes `bytes` in all, a KiB at a time, where others have the whole budget.
    fn spills(bytes: u64, locks: bool, left: Left) -> u64 {
        let budget = Budget::new(1 << 20);
        let mut other = Share::new(&Used::new(&budget));
        other.add_writes(0, 1 << 20);
        let mut share = Share::new(&Used::new(&budget));
        let mut spills = 0;
        for _ in 0..bytes >> 10 {
            if locks {
                share.used.bytes.lock().locks += 1 << 10;
            }
            share.add_writes(0, if locks { 0 } else { 1 << 10 });
            if share.must_spill() {
                share.spilled(left);
                spills += 1;
            }
        }
        drop(share);
        assert_eq!(budget.taken(), other.used.bytes.lock().taken);
        spills
    }

    #[test]
    fn what_cannot_leave_memory_is_not_written_at_each_call() {
        assert_eq!(spills(1 << 20, true, Left::NOTHING), 16);
        assert_eq!(spills(1 << 20, true, Left::ALL), 5);
    }

    #[test]
    fn what_others_spill_is_room_at_once_and_what_they_cannot_is_not_tried_at_each_call() {
        let budget = Budget::new(1 << 20);
        let mut share = Share::new(&Used::new(&budget));
        share.add_locks(20_000, 0);
        assert!(budget.is_far_exceeded() && share.is_over());
        assert_eq!(share.used.idle(), Some(20_000 * LOCK_BYTES));
        share.used.spilled_by_others(Left {
            left: 15_000,
            of: 20_000,
        });
        budget.relieved();
        assert_eq!(
            (budget.taken(), share.used.idle()),
            (15_000 * LOCK_BYTES, None)
        );
        assert!(!budget.is_exceeded(), "it was tried");
        share.add_locks(1_500, 0);
        assert_eq!(
            (budget.is_exceeded(), share.used.idle()),
            (true, Some(1_500 * LOCK_BYTES))
        );
        share.used.spilled_by_others(Left::NOTHING);
        budget.relieved();
        assert_eq!(budget.taken(), 0);
        share.add_locks(12_000, 0);
        assert!(budget.is_exceeded(), "there was room in between");
        drop(share);
        assert_eq!(budget.taken(), 0);
    }

    /// Ranges stay, and rows that others wait for; what was written does not.
    #[test]
    fn writes_leave_memory_whatever_locks_stay() {
        assert_eq!(spills(1 << 20, false, Left::ALL), 16);
        let budget = Budget::new(1 << 20);
        let mut share = Share::new(&Used::new(&budget));
        share.add_locks(1, 8);
        for _ in 0..1000 {
            share.add_writes(1, 100_000);
            share.keep(Left::ALL, Left { left: 1, of: 2 });
        }
        assert!(budget.taken() < 250_000, "{}", budget.taken());
    }
}
