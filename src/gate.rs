//! The gate of a table: its lock, and from which moment on its rows are gone.
//!
//! Shared by the catalog and the handles of the table; locked EXCLUSIVE by whoever drops it (S7), SHARED by whoever locks or
//! writes in it.
//! 1. S7: a table that is dropped stays so. Whoever has its lock knows whether it is.
//! 2. The moment of the drop is stored before the commit tail reaches it: whoever reads there knows it.
//!
//! Crash: memory only; the log knows what was dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::{Lsn, TableId};
use lockstone_locks::TableLock;
use parking_lot::{Mutex, MutexGuard};

/// The gate of one table.
#[derive(Debug)]
pub(crate) struct Gate {
    lock: Arc<TableLock>,
    /// Held while somebody tries to drop the table.
    dropping: Mutex<()>,
    dropped_at: AtomicU64,
}

/// No moment.
const NEVER: u64 = u64::MAX;

impl Gate {
    /// The gate of a table that is there.
    pub(crate) fn open(table: TableId) -> Self {
        Self {
            lock: Arc::new(TableLock::new(table)),
            dropping: Mutex::new(()),
            dropped_at: AtomicU64::new(NEVER),
        }
    }

    /// The table's lock.
    pub(crate) fn lock(&self) -> &Arc<TableLock> {
        &self.lock
    }

    /// Whether the table was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.dropped_at.load(Ordering::Acquire) != NEVER
    }

    /// Whether the rows are gone for whoever reads at `at`.
    pub(crate) fn is_gone_at(&self, at: Lsn) -> bool {
        self.dropped_at.load(Ordering::Acquire) <= at.get()
    }

    /// Waits until nobody else tries to drop the table; then it was, or the caller alone may try.
    pub(crate) fn drop_alone(&self) -> MutexGuard<'_, ()> {
        self.dropping.lock()
    }

    /// The table is dropped at `at`. Only in the append latch, before the commit tail moves to `at`.
    pub(crate) fn drop_at(&self, at: Lsn) {
        let before = self.dropped_at.swap(at.get(), Ordering::SeqCst);
        assert_eq!(before, NEVER, "S7: a table is dropped once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_gone_from_the_moment_of_its_drop() {
        let gate = Gate::open(TableId(1));
        assert!(!gate.is_gone() && !gate.is_gone_at(Lsn::new(u64::MAX - 1)));
        gate.drop_at(Lsn::new(7));
        assert!(gate.is_gone());
        assert!(!gate.is_gone_at(Lsn::new(6)));
        assert!(gate.is_gone_at(Lsn::new(7)));
    }
}
