//! Which snapshots are open: what a merge of runs must keep.
//!
//! 1. W7: a snapshot is registered before anybody can drop what it sees: its LSN is read and
//!    registered in one hold of the registry's latch, in which the horizon is taken too.

use std::collections::BTreeMap;

use lockstone_base::Lsn;
use parking_lot::Mutex;

/// The LSNs of the open snapshots, with how many stand at each.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Mutex<BTreeMap<Lsn, usize>>);

impl Snapshots {
    /// Registers a snapshot at the LSN that `newest` gives.
    pub(crate) fn register(&self, newest: impl FnOnce() -> Lsn) -> Lsn {
        let mut open = self.0.lock();
        let lsn = newest();
        *open.entry(lsn).or_default() += 1;
        lsn
    }

    /// One more at an LSN that is registered.
    pub(crate) fn register_again(&self, lsn: Lsn) {
        *self.0.lock().entry(lsn).or_default() += 1;
    }

    /// One less at `lsn`.
    pub(crate) fn release(&self, lsn: Lsn) {
        let mut open = self.0.lock();
        let count = open
            .get_mut(&lsn)
            .expect("W7: a snapshot stays registered while it lives");
        *count -= 1;
        if *count == 0 {
            open.remove(&lsn);
        }
    }

    /// Below this nobody reads: the oldest open snapshot, or what a new one would get.
    pub(crate) fn horizon(&self, newest: impl FnOnce() -> Lsn) -> Lsn {
        let open = self.0.lock();
        let newest = newest();
        open.keys()
            .next()
            .copied()
            .map_or(newest, |oldest| oldest.min(newest))
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_the_oldest_open_snapshot() {
        let snapshots = Snapshots::default();
        let at = |lsn| move || Lsn::new(lsn);
        assert_eq!(snapshots.horizon(at(9)), Lsn::new(9));
        let old = snapshots.register(at(5));
        snapshots.register_again(old);
        snapshots.register(at(7));
        assert_eq!(snapshots.horizon(at(9)), old);
        snapshots.release(old);
        assert_eq!(snapshots.horizon(at(9)), old);
        snapshots.release(old);
        assert_eq!(
            (snapshots.horizon(at(9)), snapshots.len()),
            (Lsn::new(7), 1)
        );
    }
}
