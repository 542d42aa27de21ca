//! Many rows of one call, asked for in the order of shards: the public face of batches.
//!
//! Called by the engine's write path.
//! 1. K1, K5: each row is decided as by [`LockTable::request`]; a hold of a shard's latch serves many.
//! 2. K2: while there are runs, each row is looked up in them, by itself.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::RowKey;

use crate::batch::{Batch, Terms};
use crate::decision::{Decision, Refusal};
use crate::owner::Owner;
use crate::placing::Placed;
use crate::shards::{SHARDS, Shards};
use crate::table::LockTable;
use crate::wakes::Wakes;

impl LockTable {
    /// The rows number 0 to `rows`, to be asked for by [`LockTable::request_batch`].
    pub fn batch<'r>(
        &self,
        rows: impl Iterator<Item = &'r [u8]>,
        row: impl Fn(usize) -> RowKey,
    ) -> Batch {
        let hashes: Vec<u64> = rows.map(|row| self.shards.hash_bytes(row)).collect();
        Batch::new(&hashes, row, SHARDS, Shards::index)
    }

    /// Asks for the rows of a batch, many in one hold of a shard's latch; each is decided as by
    /// [`LockTable::request`]. `None` when all are held. Else the decision of the row at which the batch
    /// stands: once that is granted, [`Batch::granted`] says so, and the call is made again.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    pub fn request_batch(
        &self,
        owner: &Arc<Owner>,
        batch: &mut Batch,
        terms: Terms,
        wakes: &mut Wakes,
    ) -> Option<Decision> {
        let terms = Terms {
            order: owner.order(),
            ..terms
        };
        loop {
            let visit = batch.visit(|a, b| Shards::index(a) == Shards::index(b));
            let first = batch.next()?;
            let decision = if self.shards.runs().any() {
                // K2: row by row.
                let row = &first.row.clone();
                Some(self.request(owner, terms.request(row), wakes))
            } else {
                self.request_visit(owner, batch, (terms, visit), wakes)
            };
            match decision {
                Some(Decision::Granted(grant)) => batch.granted(grant),
                Some(decision) => return Some(decision),
                None => {}
            }
        }
    }

    /// Asks for the next rows, which are one shard's, in one hold of its latch, while there are no runs.
    fn request_visit(
        &self,
        owner: &Arc<Owner>,
        batch: &mut Batch,
        (terms, visit): (Terms, usize),
        wakes: &mut Wakes,
    ) -> Option<Decision> {
        let hash = batch.next()?.hash;
        let mut holdings = owner.latch();
        if !owner.is_active() {
            return Some(Decision::Refused(Refusal::Ended));
        }
        assert!(
            holdings.waiting().is_none(),
            "K4: a transaction that waits asks for nothing"
        );
        let mut latch = self.shards.latch(hash);
        if self.shards.runs().any() {
            return None;
        }
        self.leftovers.sweep_before(&mut latch, visit);
        for _ in 0..visit {
            if let Some(ahead) = batch.ahead() {
                latch.expect(ahead.hash);
            }
            let ask = batch.next()?;
            match latch.request(owner, terms.want(ask), wakes) {
                Placed::Covered(grant) => batch.granted(grant),
                Placed::Refused(blocker) => {
                    return Some(Decision::Refused(Refusal::WouldBlock(blocker)));
                }
                Placed::Granted(grant, before) => {
                    holdings.undo.push(grant.place, terms.sub, before);
                    batch.granted(grant);
                }
                Placed::Died(blocker) => {
                    return Some(Decision::Refused(Refusal::Conflict(blocker)));
                }
                Placed::Queued(queued) => {
                    drop(latch);
                    holdings.wait_for(Arc::clone(&queued.ticket));
                    drop(holdings);
                    return Some(self.queued(owner, queued, wakes));
                }
                Placed::Unknown | Placed::OwnUnknown => {
                    unreachable!("K2: there is no run under this latch")
                }
            }
        }
        None
    }
}
