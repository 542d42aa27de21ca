//! Memtables that are made ahead of a hold of the append latch, for adoptions: a commit that adopts rotates, and allocates
//! nothing.
//!
//! Used by `Store::prepare` and by adoptions.
//! 1. W2, W5: a spare has room for whatever is promised when it begins to take commits. Who makes one says so, *and then*
//!    makes room for all promises; who promises does that, *and then* looks for spares: one of the two sees the other.
//! 2. A spare that takes commits stays among them until its adoption is dropped, behind the hold: who does not find it here
//!    finds it in the list of sources, which is why he looks there second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use lockstone_base::Lsn;
use parking_lot::Mutex;

use crate::memtable::{Memtable, Promised};

/// The memtables made ahead.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// How many there are: none, as a rule.
    count: AtomicUsize,
    memtables: Mutex<Vec<Arc<Memtable>>>,
}

/// A memtable made ahead.
#[derive(Debug)]
pub(super) struct Spare {
    spares: Arc<Spares>,
    pub(super) memtable: Arc<Memtable>,
}

impl Spares {
    /// An empty memtable with room for all that is promised, now and as long as the answer is kept.
    pub(super) fn make(self: &Arc<Self>, promised: &Promised) -> Spare {
        let memtable = Arc::new(Memtable::above(Lsn::ZERO));
        {
            let mut memtables = self.memtables.lock();
            memtables.push(Arc::clone(&memtable));
            self.count.store(memtables.len(), Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        memtable.make_room(promised);
        Spare {
            spares: Arc::clone(self),
            memtable,
        }
    }

    /// Makes room in all of them. Behind a promise and a fence, before the look into the list of sources.
    pub(super) fn make_room(&self, promised: &Promised) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let memtables = self.memtables.lock().clone();
        for memtable in memtables {
            memtable.make_room(promised);
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let mut memtables = self.spares.memtables.lock();
        memtables.retain(|other| !Arc::ptr_eq(other, &self.memtable));
        self.spares.count.store(memtables.len(), Ordering::SeqCst);
    }
}
