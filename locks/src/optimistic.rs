//! Optimistic locks: who is about to commit on the strength of what it has read, and whom a commit breaks.
//!
//! Registered, checked and broken by the write path of the engine. They block nobody.
//! 1. W8: a transaction registers what it has read, *then* lets every hold of the append latch that has begun pass by,
//!    *then* looks whether any of it has changed. Each commit, in its hold, breaks whoever is registered. So a commit
//!    that writes into what was read is found by the look, or breaks.
//! 2. W8: who commits looks in its own hold whether it was broken: of two that cross, the second sees the first.
//! 3. While nobody is registered a commit pays one load.
//!
//! Crash: memory only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockstone_base::TableId;
use parking_lot::Mutex;

use crate::optimistic_reads::{ReadSet, Written};

/// Everybody who is registered.
#[derive(Debug, Default)]
pub struct OptimisticLocks {
    /// How many there are. Raised before the append latch is passed, so whoever holds that later sees it.
    count: AtomicUsize,
    registered: Mutex<Vec<Arc<Registered>>>,
}

#[derive(Debug)]
struct Registered {
    reads: ReadSet,
    /// One more than the table in which it was broken.
    broken: AtomicU64,
}

/// Not broken.
const UNBROKEN: u64 = 0;

/// What one transaction has registered, until this is dropped.
#[derive(Debug)]
pub struct Registration<'a> {
    locks: &'a OptimisticLocks,
    registered: Arc<Registered>,
}

impl OptimisticLocks {
    /// Registers what a transaction has read.
    pub fn register(&self, reads: ReadSet) -> Registration<'_> {
        let registered = Arc::new(Registered {
            reads,
            broken: AtomicU64::new(UNBROKEN),
        });
        self.registered.lock().push(Arc::clone(&registered));
        self.count.fetch_add(1, Ordering::Relaxed);
        Registration {
            locks: self,
            registered,
        }
    }

    /// Breaks what others have registered of the rows `written`. Only in the hold that commits them.
    pub fn break_others(&self, own: Option<&Registration<'_>>, written: Written<'_>) {
        // W8: the append latch orders this behind every registration that was let pass.
        if self.count.load(Ordering::Relaxed) == usize::from(own.is_some()) {
            return;
        }
        let own = own.map(|own| &own.registered);
        for other in &*self.registered.lock() {
            let is_own = own.is_some_and(|own| Arc::ptr_eq(own, other));
            if !is_own
                && other.is_unbroken()
                && let Some(table) = other.reads.met_by(&written)
            {
                other.break_in(table);
            }
        }
    }

    /// Breaks what was read of a table, which is being dropped (S7). Only in the hold that drops it.
    pub fn break_table(&self, table: TableId) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        for registered in &*self.registered.lock() {
            if registered.reads.has_table(table) {
                registered.break_in(table);
            }
        }
    }
}

impl Registered {
    fn is_unbroken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) == UNBROKEN
    }

    fn break_in(&self, table: TableId) {
        // The append latch orders it before its owner's look.
        let table = u64::from(table.0) + 1;
        self.broken.store(table, Ordering::Relaxed);
    }
}

impl Registration<'_> {
    /// What was registered.
    pub fn reads(&self) -> &ReadSet {
        &self.registered.reads
    }

    /// The table in which another commit has written into what was read. Final only in the hold that commits.
    pub fn broken(&self) -> Option<TableId> {
        let broken = self.registered.broken.load(Ordering::Relaxed);
        let table = broken.checked_sub(1)?;
        Some(TableId(table as u32))
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut registered = self.locks.registered.lock();
        let is_own = |other: &Arc<Registered>| Arc::ptr_eq(other, &self.registered);
        let at = registered.iter().position(is_own);
        let own = at.map(|at| registered.swap_remove(at));
        drop(registered);
        assert!(own.is_some(), "W8: it stays registered until it is dropped");
        self.locks.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use lockstone_base::RowKey;

    use super::*;
    use crate::optimistic_reads::Reads;

    fn row(key: u8) -> RowKey {
        RowKey::new(TableId(7), &[key])
    }

    fn read(locks: &OptimisticLocks, key: u8) -> Registration<'_> {
        let mut reads = Reads::new(10);
        reads.row(&row(key));
        locks.register(reads.finish())
    }

    fn write(locks: &OptimisticLocks, own: Option<&Registration<'_>>, key: u8) {
        let row = row(key);
        let rows = |_| row.as_bytes();
        locks.break_others(own, Written::new(1, &rows));
    }

    /// W8: two that cross break each other, unless one was first; nobody breaks itself.
    #[test]
    fn a_commit_breaks_who_has_read_what_it_writes_and_nobody_else() {
        let locks = OptimisticLocks::default();
        let (a, b, c) = (read(&locks, 1), read(&locks, 2), read(&locks, 3));
        write(&locks, Some(&a), 1);
        write(&locks, Some(&a), 2);
        assert_eq!(a.broken(), None);
        assert_eq!(b.broken(), Some(TableId(7)));
        assert_eq!(c.broken(), None);
        drop((a, b));
        write(&locks, None, 3);
        assert_eq!(c.broken(), Some(TableId(7)));
        drop(c);
        assert_eq!(locks.count.load(Ordering::Relaxed), 0);
        let fresh = read(&locks, 3);
        assert_eq!(fresh.broken(), None);
    }

    /// S7.
    #[test]
    fn a_table_that_is_dropped_breaks_who_has_read_in_it() {
        let locks = OptimisticLocks::default();
        let one = read(&locks, 1);
        locks.break_table(TableId(6));
        locks.break_table(TableId(8));
        assert_eq!(one.broken(), None);
        locks.break_table(TableId(7));
        assert_eq!(one.broken(), Some(TableId(7)));
    }
}
