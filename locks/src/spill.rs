//! V1, as far as locks are concerned: a transaction's locks go from memory into a run.
//!
//! Called by whoever spills, in this order: copy; write the run; publish; drop.
//! 1. Copy and publish each hold the owner's latch; in between nobody is kept from anything, and the run is written.
//! 2. A run is listed only for an owner who is Active or Prepared, and with the rollbacks that were made since the copy.
//! 3. An entry leaves memory behind the listing, if nothing has strengthened it since the copy and nobody waits for its row (K3).
//! 4. V2: another thread spills the same way, for many owners at once. Their run is listed for all of them in one step: what it says
//!    is true, for the entries are there too. Then, in one hold of each one's latch, the copy counts, or his part of the run is
//!    void; where it counts the entries go. What has no token yet, and what was written, stays.
//!
//! Crash: memory only; what is durable of a run is the caller's.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lockstone_base::RowKey;

use crate::owner::{Holdings, Owner};
use crate::place::Place;
use crate::runs::{LockRun, RunId, SpilledLock};
use crate::table::LockTable;
use crate::ticket::{Hold, UNSTAMPED};

/// A transaction's locks in memory, as they were copied.
#[derive(Debug)]
pub struct Copied {
    /// One for each acquisition, the oldest first: a row that was strengthened is there more than once.
    pub locks: Vec<CopiedLock>,
    /// Which copy of the owner's locks it is.
    pub number: u64,
}

/// A lock that one sub-transaction took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedLock {
    /// The row.
    pub row: RowKey,
    /// What is to be kept of it. Its token is that of the record in the log, or zero while that is not there.
    pub lock: SpilledLock,
}

impl LockTable {
    /// V1, copy: all row locks that the owner holds in memory. A later copy takes the place of an earlier one that was not published.
    /// Up to sub-transaction `newest` runs that are published with it may have other records too: one that has written a row which
    /// was held already has acquired nothing.
    pub fn copy_locks(&self, owner: &Owner, newest: u32) -> Copied {
        let mut holdings = owner.latch();
        let locks = self.acquired(owner, &holdings);
        holdings.undo.copy(usize::MAX);
        let locks = locks.into_iter().map(|(_, copied)| copied).collect();
        let copied = note_copied(&mut holdings, locks);
        holdings.spilled.copied(newest);
        copied
    }

    /// V1, V2, copy, by a thread that is not the owner's: its first acquisitions, up to one that has no token yet, but for rows that
    /// were written. `None`: others may not spill now.
    pub fn copy_for_others(&self, owner: &Owner) -> Option<Copied> {
        let mut holdings = owner.latch();
        if !owner.is_active() || !holdings.spilled.is_open() {
            return None;
        }
        let mut locks = self.acquired(owner, &holdings);
        let unstamped = locks
            .iter()
            .position(|(_, copied)| copied.lock.token == UNSTAMPED);
        let first = unstamped.and_then(|at| locks.get(at).map(|(at, _)| *at));
        locks.truncate(unstamped.unwrap_or(locks.len()));
        holdings.undo.copy(first.unwrap_or(usize::MAX));
        let locks = locks.into_iter().map(|(_, copied)| copied);
        let locks = locks.filter(|copied| !copied.lock.writes).collect();
        Some(note_copied(&mut holdings, locks))
    }

    /// Every acquisition that is in memory, with its place among all, the oldest first.
    fn acquired(&self, owner: &Owner, holdings: &Holdings) -> Vec<(usize, CopiedLock)> {
        let all: Vec<_> = holdings.undo.acquisitions().enumerate().collect();
        // What an acquisition has come to is what the row's next one found.
        let mut found: BTreeMap<Place, Hold> = BTreeMap::new();
        let mut locks = Vec::with_capacity(all.len());
        for (at, (place, sub, before)) in all.into_iter().rev() {
            let now = found.get(&place).copied();
            if let Some(before) = before {
                found.insert(place, before);
            }
            let latch = self.shards.latch_number(place.shard());
            let Some((row, hold)) = latch.in_memory(place, owner) else {
                continue;
            };
            let hold = now.unwrap_or(hold);
            let token = owner.token(hold).unwrap_or(UNSTAMPED);
            let lock = SpilledLock {
                owner: 0,
                mode: hold.mode,
                writes: hold.writes,
                sub,
                token,
            };
            locks.push((at, CopiedLock { row, lock }));
        }
        locks.reverse();
        locks
    }

    /// V1, publish: lists runs of the owner's, each with his number in it, instead of some others of his. `log` appends what
    /// the log is to say, and is told which sub-transactions were rolled back since the first copy; it is called in the hold of the
    /// owner's latch in which the runs are listed. `None`: the owner has ended; as when `log` has failed nothing is listed.
    ///
    /// # Errors
    /// Those of `log`.
    pub fn publish<E>(
        &self,
        owner: &Arc<Owner>,
        runs: &[(Arc<dyn LockRun>, u32)],
        replaces: &[RunId],
        log: impl FnOnce(&[RangeInclusive<u32>]) -> Result<(), E>,
    ) -> Result<Option<Vec<RunId>>, E> {
        let mut holdings = owner.latch();
        if !owner.may_spill() {
            return Ok(None);
        }
        log(holdings.spilled.dead())?;
        let (ids, gone) = self.shards.runs().list(owner, runs, replaces);
        holdings.spilled.runs = holdings.spilled.runs + ids.len() - gone;
        Ok(Some(ids))
    }

    /// V1, drop: takes the entries of the last copy out of memory, behind the publication of the run that has them. How many rows
    /// went.
    pub fn drop_copied(&self, owner: &Owner) -> usize {
        let mut holdings = owner.latch();
        if !owner.binds() {
            return 0;
        }
        assert!(
            holdings.spilled.runs > 0,
            "V1: what was copied is in a run before it leaves memory"
        );
        holdings.undo.drop_copied(|place| {
            let mut latch = self.shards.latch_number(place.shard());
            latch.drop_memory(place, owner)
        })
    }

    /// V2, publish, for many: lists runs that have records of all these owners, numbered in this order, which is that of their ids.
    /// [`LockTable::take_part`] is to follow for each of them, then [`LockTable::leave_runs`] for those who had none.
    ///
    /// # Panics
    /// If their ids do not ascend.
    pub fn list_mixed(&self, runs: &[Arc<dyn LockRun>], owners: &[Arc<Owner>]) -> Vec<RunId> {
        self.shards.runs().list_mixed(runs, owners)
    }

    /// V2, publish and drop: in one hold of the owner's latch so many listed runs become his too, and what was copied leaves memory; how
    /// many locks he has there now, and had before. `None`: he has ended, or something of his own has come behind the copy, or
    /// `note`, called before anything leaves memory, says no.
    pub fn take_part(
        &self,
        owner: &Owner,
        copy: u64,
        runs: usize,
        note: impl FnOnce() -> bool,
    ) -> Option<(usize, usize)> {
        assert!(runs > 0, "V1: what leaves memory is in a run");
        let mut holdings = owner.latch();
        if !owner.is_active() || !holdings.spilled.is_last_copy(copy) || !note() {
            return None;
        }
        holdings.spilled.runs += runs;
        let before = holdings.undo.locks();
        holdings.undo.drop_copied(|place| {
            let mut latch = self.shards.latch_number(place.shard());
            // A grant that its thread has not taken yet has strengthened the row without a word to the owner.
            let is_final = latch
                .in_memory(place, owner)
                .is_none_or(|(_, hold)| !hold.writes && owner.token(hold).is_some());
            is_final && latch.drop_memory(place, owner)
        });
        Some((holdings.undo.locks(), before))
    }

    /// V2: these owners have no part in the runs, or need it no more.
    pub fn leave_runs(&self, runs: &[RunId], owners: &[Arc<Owner>]) {
        self.shards.runs().leave(runs, owners);
    }

    /// V1: calls `act` in a hold of the owner's latch, if others may spill its locks.
    pub fn if_open_to_others(&self, owner: &Owner, act: impl FnOnce()) {
        let holdings = owner.latch();
        if owner.is_active() && holdings.spilled.is_open() {
            act();
        }
    }

    /// V1: until [`LockTable::open_to_others`] no other thread spills the owner's locks, and what one has copied counts no more. The
    /// sub-transactions that were rolled back since the first copy.
    pub fn close_to_others(&self, owner: &Owner) -> Vec<RangeInclusive<u32>> {
        let mut holdings = owner.latch();
        holdings.spilled.close();
        holdings.spilled.dead().to_vec()
    }

    /// Ends what [`LockTable::close_to_others`] began.
    pub fn open_to_others(&self, owner: &Owner) {
        owner.latch().spilled.open();
    }
}

fn note_copied(holdings: &mut Holdings, locks: Vec<CopiedLock>) -> Copied {
    for copied in &locks {
        holdings.spilled.copied(copied.lock.sub);
    }
    Copied {
        locks,
        number: holdings.spilled.copy(),
    }
}
