//! K7: the tables that a transaction holds SHARED. This set is the lock: nothing is counted elsewhere.
//!
//! Filled by the transaction's own thread, or while that waits by whoever grants; read by anyone.
//! 1. L7: to take a table for the first time is one swap, and giving it back is nothing: a set of a transaction that has
//!    ended is void with it.
//! 2. An insertion is sequentially consistent, and so is what its caller does next, a look at the table's flag: whoever
//!    raises that and then reads the sets sees the insertion, or is seen.
//!
//! Crash: memory only.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use lockstone_base::TableId;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// No table: this id is never given (S7).
const NONE: u32 = u32::MAX;

/// The tables of one transaction; most use one.
#[derive(Debug)]
pub(crate) struct TableSet {
    first: AtomicU32,
    others: Mutex<SmallVec<[TableId; 4]>>,
}

impl Default for TableSet {
    fn default() -> Self {
        Self {
            first: AtomicU32::new(NONE),
            others: Mutex::default(),
        }
    }
}

impl TableSet {
    pub(crate) fn has(&self, table: TableId) -> bool {
        self.first.load(Ordering::SeqCst) == table.0 || self.others.lock().contains(&table)
    }

    /// Whether it has it, asked by the transaction's own thread, which alone changes it.
    pub(crate) fn has_own(&self, table: TableId) -> bool {
        let first = self.first.load(Ordering::Relaxed);
        first == table.0 || (first != NONE && self.others.lock().contains(&table))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<TableId> {
        let first = TableId(self.first.load(Ordering::SeqCst));
        let first = Some(first).filter(|first| first.0 != NONE);
        let others = self.others.lock();
        first.into_iter().chain(others.iter().copied()).collect()
    }

    pub(crate) fn insert(&self, table: TableId) {
        if self.first.load(Ordering::Relaxed) == NONE {
            // A swap costs less than a store and a fence.
            self.first.swap(table.0, Ordering::SeqCst);
        } else {
            self.others.lock().push(table);
            fence(Ordering::SeqCst);
        }
    }

    /// Takes back what was inserted last.
    pub(crate) fn remove(&self, table: TableId) {
        if self.first.load(Ordering::Relaxed) == table.0 {
            self.first.store(NONE, Ordering::SeqCst);
        } else {
            self.others.lock().retain(|other| *other != table);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_and_the_last_may_go_again() {
        let set = TableSet::default();
        for id in 0..5 {
            assert!(!set.has(TableId(id)) && !set.has_own(TableId(id)));
            set.insert(TableId(id));
            set.remove(TableId(id));
            assert!(!set.has(TableId(id)));
            set.insert(TableId(id));
            assert!((0..=id).all(|id| set.has(TableId(id)) && set.has_own(TableId(id))));
            assert_eq!(set.all(), (0..=id).map(TableId).collect::<Vec<_>>());
        }
    }
}
