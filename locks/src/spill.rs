//! V1, as far as locks are concerned: a transaction's locks go from memory into a run.
//!
//! Called by whoever spills, in this order: copy; write the run; publish; drop.
//! 1. Copy and publish each hold the owner's latch; in between nobody is kept from anything, and the run is written.
//! 2. A run is listed only for an owner who is Active or Prepared, and with the rollbacks that were made since the copy.
//! 3. An entry leaves memory behind the listing, if nothing has strengthened it since the copy and nobody waits for its row (K3).
//!
//! Crash: memory only; what is durable of a run is the caller's.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lockstone_base::RowKey;

use crate::owner::Owner;
use crate::place::Place;
use crate::runs::{LockRun, RunId, SpilledLock};
use crate::table::LockTable;
use crate::ticket::Hold;

/// A transaction's locks in memory, as they were copied.
#[derive(Debug)]
pub struct Copied {
    /// One for each acquisition, the oldest first: a row that was strengthened is there more than once.
    pub locks: Vec<CopiedLock>,
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
        let all: Vec<_> = holdings.undo.acquisitions().collect();
        // What an acquisition has come to is what the row's next one found.
        let mut found: BTreeMap<Place, Hold> = BTreeMap::new();
        let mut locks = Vec::with_capacity(all.len());
        for (place, sub, before) in all.into_iter().rev() {
            let now = found.get(&place).copied();
            if let Some(before) = before {
                found.insert(place, before);
            }
            let latch = self.shards.latch_number(place.shard());
            let Some((row, hold)) = latch.in_memory(place, owner) else {
                continue;
            };
            let hold = now.unwrap_or(hold);
            let token = owner.token(hold).unwrap_or(hold.token);
            locks.push(CopiedLock {
                row,
                lock: SpilledLock {
                    owner: 0,
                    mode: hold.mode,
                    writes: hold.writes,
                    sub,
                    token,
                },
            });
            holdings.spilled.copied(sub);
        }
        holdings.spilled.copied(newest);
        holdings.undo.copy();
        locks.reverse();
        Copied { locks }
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
}
