//! Adoption: what a committing transaction has spilled becomes part of the committed store, as it is (W4).
//!
//! Prepared by the write path before the append latch, done in the hold that gives the commit its LSN; recovery does it again
//! (`replay`).
//! 1. W2: in the hold nothing is allocated, freed or read, and nothing can fail.
//! 2. W5: the memtable is rotated, and what is adopted comes between the two: older than what the transaction kept in
//!    memory and than all later commits, newer than all earlier ones. The sources are there before the commit tail moves.
//! 3. S1: what is adopted is no run of the tree yet. The flush makes it one, with the memtable above it, when
//!    `flushed_through` passes its stamp; until then a manifest lists it as its owner's.
//! 4. S6: its files stay: who has adopted them is told by the log, and sweeps know of them.
//!
//! Crash: the log says who has committed and what that adopts; `flushed_through` says whether runs have it already.

use std::sync::Arc;

use lockstone_base::Lsn;

use super::Store;
use super::replay::{AdoptedRun, open_group};
use super::spares::Spare;
use crate::error::StorageError;
use crate::manifest::UnfinishedTxn;
use crate::memtable::Prepared;
use crate::sources::{Layer, Place, Sources};
use crate::tree::Group;

/// An adoption whose doing neither allocates nor waits nor fails. Dropped behind the hold, it frees what is left; dropped
/// undone, it has changed nothing.
#[derive(Debug)]
pub struct Adoption {
    group: Option<Arc<Group>>,
    /// Where it goes.
    place: Option<Place>,
    /// Where the active memtable goes, if it has anything.
    sealed: Option<Place>,
    /// Takes the commits behind this one then.
    spare: Spare,
    next: Arc<Sources>,
    /// What `next` was made of: kept, so that nothing of it is freed in the hold.
    _seen: Arc<Sources>,
    /// The list that `next` has replaced.
    replaced: Option<Arc<Sources>>,
}

const ONCE: &str = "W2: a commit adopts once";
const ALONE: &str = "W2: nobody reads what is not in the list of sources yet";

impl Store {
    /// How many commits have adopted something that no level has yet: each is asked by every read.
    pub fn unlisted_adoptions(&self) -> usize {
        self.current().groups().count()
    }

    /// Does all that can be done for a commit that adopts `runs` of `txn` before it has its LSN: opens them, and makes what the
    /// hold will need. Reads and allocates; *outside* the append latch, beside anything, before or behind
    /// [`Store::prepare`].
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if a file is damaged, is no write run, or has rows of another file of its spill.
    pub fn prepare_adoption(
        &self,
        txn: UnfinishedTxn,
        runs: Vec<AdoptedRun>,
    ) -> Result<Adoption, StorageError> {
        let group = open_group(&self.disk, self.identity, Lsn::ZERO, (txn, runs))?;
        let spare = self.spares.make(self.preparing.promised());
        let seen = self.sources();
        let place = || Some(Place::new(Layer::Memtable(Arc::clone(&spare.memtable))));
        Ok(Adoption {
            group: Some(Arc::new(group)),
            place: place(),
            sealed: place(),
            spare,
            next: Arc::new(Sources::clone(&seen)),
            _seen: seen,
            replaced: None,
        })
    }

    /// Makes what was prepared part of the store, committed at `stamp`: first the sources, then `prepared`, what the
    /// transaction kept in memory. Allocates nothing. Only in the append latch, before the commit tail moves (W2, W5).
    /// What is left of both is for the caller to drop once it has given up the latch.
    pub fn adopt(&self, adoption: &mut Adoption, stamp: Lsn, prepared: Option<&mut Prepared>) {
        let mut group = adoption.group.take().expect(ONCE);
        Arc::get_mut(&mut group).expect(ALONE).set_stamp(stamp);
        // Every commit before this one is at or below.
        let end = Lsn::new(stamp.get() - 1);
        {
            let _installing = self.installing.lock();
            let current = self.current();
            let next = Arc::get_mut(&mut adoption.next).expect(ALONE);
            next.clone_from(&current);
            // One writer, which holds the append latch, as in a rotation.
            if current.active.is_empty() {
                current.active.raise_floor(end);
            } else {
                current.active.seal(end);
                adoption.spare.memtable.raise_floor(end);
                next.active = Arc::clone(&adoption.spare.memtable);
                let sealed = Layer::Memtable(Arc::clone(&current.active));
                next.stack
                    .put(adoption.sealed.take().expect(ONCE).with(sealed));
            }
            let place = adoption.place.take().expect(ONCE);
            next.stack.put(place.with(Layer::Adopted(group)));
            adoption.replaced = Some(self.sources.swap(Arc::clone(&adoption.next)));
        }
        if let Some(prepared) = prepared {
            self.apply_prepared(prepared, stamp);
        }
    }
}
