//! The hash table of locked rows, cut into shards with a latch each.
//!
//! Called by `deadlock`, `release` and `table`.
//! 1. A row that is neither held nor waited for has no entry.
//! 2. A shard's latch is the row latch of all its rows. More than one is taken in order of index.
//! 3. K4: every change ends with the row settled, before the latch is dropped.
//!
//! Crash: memory only.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use lockstone_base::RowKey;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::batch::VISIT_ROWS_MAX;
use crate::decision::Policy;
use crate::owner::{Acquisition, Asker, Owner};
use crate::row_lock::{RowLock, Verdict};
use crate::ticket::{Grant, Hold, Ticket, Want};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Enough that a few dozen threads seldom meet in one; a power of two.
pub(crate) const SHARDS: usize = 64;

const SHARD_BIT: u32 = 48;

/// The shards, each on cache lines of its own.
#[derive(Debug)]
pub(crate) struct Shards(Box<[Aligned]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

/// The rows of one shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    rows: HashTable<RowLock>,
}

/// What became of a request in its shard.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Re-entrant: what is held covers it.
    Covered(Grant),
    /// Held now; before, the hold was this.
    Granted(Grant, Option<Hold>),
    /// In the queue; whether somebody is behind.
    Queued(Arc<Ticket>, bool),
    /// It would have queued.
    Refused(crate::decision::Blocker),
}

impl Shards {
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| Aligned::default()).collect())
    }

    /// Which shard a hash is in.
    pub(crate) fn index(hash: u64) -> usize {
        // Within a shard, hashbrown tells rows apart by the lowest bits and the seven highest.
        (hash >> SHARD_BIT) as usize % SHARDS
    }

    /// The latch of the shard of `hash`.
    pub(crate) fn latch(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let shard = self.0.get(Self::index(hash));
        let shard = shard.expect("the index has as many bits as there are shards");
        shard.0.lock()
    }

    #[cfg(test)]
    pub(crate) fn is_latched(&self, hash: u64) -> bool {
        let shard = self.0.get(Self::index(hash));
        shard.is_some_and(|shard| shard.0.is_locked())
    }

    /// The latches of all the shards of `hashes`, taken in order of index.
    pub(crate) fn latch_all(&self, hashes: impl Iterator<Item = u64>) -> Latched<'_> {
        let mut indices: SmallVec<[usize; 8]> = hashes.map(Self::index).collect();
        indices.sort_unstable();
        indices.dedup();
        let guards = indices.into_iter();
        let guards = guards.filter_map(|index| Some((index, self.0.get(index)?.0.lock())));
        Latched(guards.collect())
    }

    /// Settles the rows of `acquired` one after the other. Neighbours in one shard share a hold of its latch,
    /// as a batch leaves them.
    pub(crate) fn settle_each<'a>(
        &self,
        acquired: impl Iterator<Item = &'a Acquisition>,
        wakes: &mut Wakes,
    ) {
        let mut acquired = acquired.peekable();
        let mut gone = Vec::new();
        while let Some(first) = acquired.next() {
            let mut shard = self.latch(first.hash);
            shard.let_go(first, wakes, &mut gone);
            let same = |next: &&Acquisition| Self::index(next.hash) == Self::index(first.hash);
            for _ in 1..VISIT_ROWS_MAX {
                let Some(next) = acquired.next_if(same) else {
                    break;
                };
                shard.let_go(next, wakes, &mut gone);
            }
            drop(shard);
            // Behind the latch, and all at once: see [`Asker`](crate::owner::Asker).
            gone.clear();
        }
    }

    /// One shard after the other, latched while `visit` looks.
    pub(crate) fn each(&self, mut visit: impl FnMut(&RowLock)) {
        for shard in &self.0 {
            shard.0.lock().rows.iter().for_each(&mut visit);
        }
    }
}

/// Several shards, latched together.
#[derive(Debug)]
pub(crate) struct Latched<'a>(SmallVec<[(usize, MutexGuard<'a, Shard>); 4]>);

impl Latched<'_> {
    pub(crate) fn find(&self, hash: u64, row: &RowKey) -> Option<&RowLock> {
        let index = Shards::index(hash);
        let guard = self.0.iter().find(|(latched, _)| *latched == index);
        guard?.1.find(hash, row)
    }
}

impl Shard {
    pub(crate) fn find(&self, hash: u64, row: &RowKey) -> Option<&RowLock> {
        self.rows.find(hash, |lock| lock.row() == row)
    }

    /// Settles the row, if it has a lock: whoever has ended is gone from it, who can run does.
    pub(crate) fn settle(&mut self, hash: u64, row: &RowKey, wakes: &mut Wakes) {
        self.change(hash, row, wakes, |_| {});
    }

    /// [`Shard::settle`]; those who held the row and hold it no more are left in `gone`, if it is free now.
    fn let_go(&mut self, was: &Acquisition, wakes: &mut Wakes, gone: &mut Vec<Arc<Owner>>) {
        let entry = self
            .rows
            .find_entry(was.hash, |lock| *lock.row() == was.row);
        match entry {
            Ok(entry) if entry.get().is_void() => gone.extend(entry.remove().0.into_owners()),
            Ok(_) => self.settle(was.hash, &was.row, wakes),
            Err(_) => {}
        }
    }

    /// Changes the row's lock, if it has one, and settles it.
    pub(crate) fn change(
        &mut self,
        hash: u64,
        row: &RowKey,
        wakes: &mut Wakes,
        change: impl FnOnce(&mut RowLock),
    ) {
        if let Ok(mut entry) = self.rows.find_entry(hash, |lock| lock.row() == row) {
            change(entry.get_mut());
            entry.get_mut().settle(wakes);
            if entry.get().is_free() {
                entry.remove();
            }
        }
    }

    /// The token is no concern of anyone who waits, so nothing is settled.
    pub(crate) fn find_mut(&mut self, hash: u64, row: &RowKey) -> Option<&mut RowLock> {
        self.rows.find_mut(hash, |lock| lock.row() == row)
    }

    /// K1, K4: grants, queues or refuses.
    pub(crate) fn request(
        &mut self,
        asker: &mut Asker<'_>,
        want: Want<'_>,
        policy: Policy,
        wakes: &mut Wakes,
    ) -> Placed {
        let same = |lock: &RowLock| lock.row() == want.row;
        match self.rows.entry(want.hash, same, RowLock::hash) {
            Entry::Vacant(entry) => {
                entry.insert(RowLock::held_by(asker.share(), &want));
                let grant = Grant {
                    fresh: true,
                    strengthened: true,
                    mode: want.mode,
                };
                Placed::Granted(grant, None)
            }
            Entry::Occupied(entry) => ask(entry.into_mut(), asker, want, policy, wakes),
        }
    }
}

fn ask(
    lock: &mut RowLock,
    owner: &Arc<Owner>,
    want: Want<'_>,
    policy: Policy,
    wakes: &mut Wakes,
) -> Placed {
    lock.settle(wakes);
    let (place, before, blocker) = match lock.decide(owner, &want) {
        Verdict::Covered(mode) => {
            return Placed::Covered(Grant {
                fresh: false,
                strengthened: false,
                mode,
            });
        }
        Verdict::Granted(grant, before) => return Placed::Granted(grant, before),
        Verdict::Blocked(place, before, blocker) => (place, before, blocker),
    };
    if policy == Policy::NoWait {
        return Placed::Refused(blocker);
    }
    let ticket = Arc::new(Ticket::new(Want { before, ..want }));
    let waiter = Waiter {
        owner: Arc::clone(owner),
        ticket: Arc::clone(&ticket),
    };
    let anyone_behind = lock.enqueue(place, waiter);
    // Registers with the holders, and looks at their states again.
    lock.settle(wakes);
    Placed::Queued(ticket, anyone_behind)
}
