//! Which snapshots are open: what a merge of runs must keep.
//!
//! 1. W7: a snapshot is registered before anybody can drop what it sees: its LSN is read and
//!    registered in one hold of the registry's latch, in which the horizon is taken too.
//! 2. It stays so until its [`Pin`] goes, and that of each clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstone_base::Lsn;
use parking_lot::Mutex;

/// The LSNs of the open snapshots, with how many stand at each.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Arc<Open>);

type Open = Mutex<BTreeMap<Lsn, usize>>;

/// An open snapshot: what it sees is kept while this lives.
#[derive(Debug)]
pub(crate) struct Pin {
    open: Arc<Open>,
    lsn: Lsn,
}

impl Snapshots {
    /// Registers a snapshot at the LSN that `newest` gives.
    pub(crate) fn pin(&self, newest: impl FnOnce() -> Lsn) -> Pin {
        let mut open = self.0.lock();
        let lsn = newest();
        *open.entry(lsn).or_default() += 1;
        Pin {
            open: Arc::clone(&self.0),
            lsn,
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

impl Pin {
    /// What it sees: every commit at or below.
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        *self.open.lock().entry(self.lsn).or_default() += 1;
        Self {
            open: Arc::clone(&self.open),
            lsn: self.lsn,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let count = open
            .get_mut(&self.lsn)
            .expect("W7: a snapshot stays registered while it lives");
        *count -= 1;
        if *count == 0 {
            open.remove(&self.lsn);
        }
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
        let old = snapshots.pin(at(5));
        let again = old.clone();
        let _newer = snapshots.pin(at(7));
        assert_eq!(snapshots.horizon(at(9)), old.lsn());
        drop(old);
        assert_eq!(snapshots.horizon(at(9)), again.lsn());
        drop(again);
        assert_eq!(
            (snapshots.horizon(at(9)), snapshots.len()),
            (Lsn::new(7), 1)
        );
    }
}
