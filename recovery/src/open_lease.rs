//! What a leased transaction in flight holds besides rows, as its records say it one after the other.
//!
//! Kept by `open_txn`.
//! 1. A call that takes more than one record opens and closes: one that a crash has cut off is undone, for nobody was told of it.
//! 2. R2: a rollback gives ranges and tokens back, as it did (L9); tables stay (K7).
//!
//! Crash: nothing is written.

use lockstone_base::{FencingToken, Lsn, TableId};

use crate::record::{Held, HeldRange, HeldTokens, RangeLock, Spill, Tokens};

/// A lease, and what is held under it.
#[derive(Debug)]
pub(crate) struct OpenLease {
    pub(crate) lasts_ms: u64,
    /// The first record that is needed.
    pub(crate) from: Lsn,
    pub(crate) held: Held,
    /// The first sub-transaction of a call that takes more than one record, while it is under way.
    pub(crate) open_call: Option<u32>,
}

impl OpenLease {
    pub(crate) fn range(&mut self, lock: &RangeLock<'_>, at: Lsn) {
        let range = HeldRange::of(lock, FencingToken::new(at));
        self.held.ranges.push(range);
    }

    pub(crate) fn tokens(&mut self, taken: &Tokens<'_>) {
        self.held.tokens.push(HeldTokens::of(taken));
    }

    pub(crate) fn share(&mut self, table: TableId) {
        if !self.held.shared.contains(&table) {
            self.held.shared.push(table);
        }
    }

    pub(crate) fn exclude(&mut self, table: TableId, at: Lsn) {
        self.share(table);
        self.held.exclusive.push((table, FencingToken::new(at)));
    }

    pub(crate) fn spill(&mut self, spill: &Spill<'_>) {
        self.held.through = self.held.through.max(spill.through);
    }

    pub(crate) fn rollback(&mut self, from: u32, through: u32) {
        self.open_call.take_if(|sub| *sub >= from);
        let held = &mut self.held;
        held.dead.push((from, through));
        held.ranges.retain(|range| range.sub < from);
        held.tokens.retain(|taken| taken.sub < from);
    }
}
