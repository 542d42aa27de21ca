//! How far the database has come: the commit tail and the highest acknowledged commit.
//!
//! 1. W2: the commit tail is stored last in the hold of the append latch that applied the commit, so
//!    whoever is granted a lock and then loads the tail sees all that earlier holders committed.
//! 2. W6: the acknowledged mark is raised before a commit's success is returned, so no later snapshot
//!    misses it.

use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::{Apart, Lsn, Striped};

/// The two marks. Both only grow.
#[derive(Debug)]
pub(crate) struct Watermarks {
    /// Every reader loads it, every commit stores it: nothing else is beside it.
    tail: Apart<AtomicU64>,
    /// The highest of all copies counts: commits are acknowledged side by side.
    acknowledged: Striped<AtomicU64>,
}

impl Watermarks {
    /// Everything at or below `tail` is committed, durable and applied: what recovery found.
    pub(crate) fn new(tail: Lsn) -> Self {
        let marks = Self {
            tail: Apart(AtomicU64::new(tail.get())),
            acknowledged: Striped::default(),
        };
        marks.acknowledge(tail);
        marks
    }

    /// The LSN of the last commit.
    pub(crate) fn tail(&self) -> Lsn {
        Lsn::new(self.tail.load(Ordering::Acquire))
    }

    /// Moves the tail to `commit`. Called only inside the append latch, which orders the stores.
    pub(crate) fn move_tail(&self, commit: Lsn) {
        assert!(
            commit > self.tail(),
            "W2: commits are applied in the order of their LSNs"
        );
        self.tail.store(commit.get(), Ordering::Release);
    }

    /// Notes that the success of `commit` is about to be returned.
    pub(crate) fn acknowledge(&self, commit: Lsn) {
        let own = self.acknowledged.own();
        own.fetch_max(commit.get(), Ordering::AcqRel);
    }

    /// The highest commit whose success was returned.
    pub(crate) fn acknowledged(&self) -> Lsn {
        // Whoever was told of a commit before this call is seen here, whichever thread acknowledged it.
        let marks = self.acknowledged.all();
        let highest = marks.map(|mark| mark.load(Ordering::Acquire)).max();
        Lsn::new(highest.unwrap_or_default())
    }

    /// What a new snapshot reads at, when the log is on the device up to `durable` (W6): never what a
    /// crash could take back, unless a buffered commit was acknowledged past it.
    pub(crate) fn snapshot(&self, durable: Lsn) -> Lsn {
        // A record that starts below the durable end is durable: records do not straddle frames (G4).
        let on_device = Lsn::new(durable.get().saturating_sub(1));
        // The tail last: it never lies below what was acknowledged before it was loaded.
        let safe = on_device.max(self.acknowledged());
        safe.min(self.tail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_never_sees_what_is_neither_durable_nor_acknowledged() {
        let marks = Watermarks::new(Lsn::new(10));
        marks.move_tail(Lsn::new(50));
        assert_eq!(marks.snapshot(Lsn::new(20)), Lsn::new(19));
        marks.acknowledge(Lsn::new(50));
        assert_eq!(marks.snapshot(Lsn::new(20)), Lsn::new(50));
        marks.move_tail(Lsn::new(60));
        assert_eq!(marks.snapshot(Lsn::new(60)), Lsn::new(59));
        assert_eq!(marks.snapshot(Lsn::new(4096)), Lsn::new(60));
    }

    #[test]
    fn the_acknowledged_mark_is_the_highest() {
        let marks = Watermarks::new(Lsn::new(1));
        marks.move_tail(Lsn::new(9));
        marks.acknowledge(Lsn::new(9));
        marks.acknowledge(Lsn::new(5));
        assert_eq!(marks.acknowledged(), Lsn::new(9));
    }
}
