//! The gate of a table: whether transactions may begin to use it, and from which moment on its rows are gone.
//!
//! Shared by the catalog and the handles of the table; closed by whoever drops it, passed by whoever locks or
//! writes in it for the first time.
//! 1. S7: who drops closes the gate *and then* looks for transactions that use the table; who uses it notes that
//!    *and then* looks at the gate. Each of the four steps is sequentially consistent, so at least one of the two
//!    sees the other.
//! 2. A gate that is dropped never opens again; one that is closed does if the drop fails.
//! 3. The moment of the drop is stored before the commit tail reaches it: whoever reads there knows it.
//!
//! Crash: memory only; the log knows what was dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lockstone_base::Lsn;

/// What a transaction meets that wants to lock or write in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It may.
    Open,
    /// The table is being dropped: how that ends is not known yet.
    Closed,
    /// There is no such table any more.
    Dropped,
}

/// The gate of one table.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: AtomicBool,
    dropped_at: AtomicU64,
}

/// No moment.
const NEVER: u64 = u64::MAX;

impl Gate {
    /// The gate of a table that is there.
    pub(crate) fn open() -> Self {
        Self {
            closed: AtomicBool::new(false),
            dropped_at: AtomicU64::new(NEVER),
        }
    }

    /// Whether the caller may pass. It has noted before that it uses the table.
    pub(crate) fn passage(&self) -> Passage {
        if !self.closed.load(Ordering::SeqCst) {
            Passage::Open
        } else if self.dropped_at.load(Ordering::SeqCst) == NEVER {
            Passage::Closed
        } else {
            Passage::Dropped
        }
    }

    /// Whether the table was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.dropped_at.load(Ordering::Acquire) != NEVER
    }

    /// Whether the rows are gone for whoever reads at `at`.
    pub(crate) fn is_gone_at(&self, at: Lsn) -> bool {
        self.dropped_at.load(Ordering::Acquire) <= at.get()
    }

    /// Closes the gate for newcomers until the guard goes; `None` if somebody else has closed it.
    pub(crate) fn close(&self) -> Option<Closing<'_>> {
        let was_closed = self.closed.swap(true, Ordering::SeqCst);
        (!was_closed).then(|| Closing(self))
    }
}

/// A gate closed by the one who wants to drop the table. Opens it again unless that was done.
#[derive(Debug)]
pub(crate) struct Closing<'a>(&'a Gate);

impl Closing<'_> {
    /// The table is dropped at `at`. Only in the append latch, before the commit tail moves to `at`.
    pub(crate) fn drop_at(&self, at: Lsn) {
        let before = self.0.dropped_at.swap(at.get(), Ordering::SeqCst);
        assert_eq!(before, NEVER, "S7: a table is dropped once");
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if self.0.dropped_at.load(Ordering::SeqCst) == NEVER {
            self.0.closed.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_again_unless_the_table_was_dropped() {
        let gate = Gate::open();
        let closing = gate.close().expect("nobody has closed it");
        assert!(gate.close().is_none());
        assert_eq!(gate.passage(), Passage::Closed);
        drop(closing);
        assert_eq!(gate.passage(), Passage::Open);

        let closing = gate.close().expect("it is open again");
        closing.drop_at(Lsn::new(7));
        drop(closing);
        assert_eq!(gate.passage(), Passage::Dropped);
        assert!(gate.close().is_none());
        assert!(!gate.is_gone_at(Lsn::new(6)));
        assert!(gate.is_gone_at(Lsn::new(7)));
    }
}
