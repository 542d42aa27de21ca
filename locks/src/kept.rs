//! R2: what a transaction that outlives a crash holds: all of it, for its record and for a look at it; and all of it again.
//!
//! Called by whoever prepares, and at an open, before anybody else is admitted.
//! 1. What is restored is asked for, without waiting, in the order in which it was taken: so it comes to the same entries, which a
//!    rollback undoes step by step, and two who hold what conflicts are found out.
//! 2. Rows come before runs of the same owner are listed: none of them is looked up.
//! 3. Each lock has the token that it had.
//!
//! Crash: memory only; the log, and files, have it all.

use std::ops::RangeInclusive;
use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey, TableId};

use crate::decision::{Decision, RangeRequest, Refusal, Request};
use crate::owner::Owner;
use crate::policy::Policy;
use crate::table::LockTable;
use crate::tables::TableLock;
use crate::target::{RowRange, TokenRequest};
use crate::ticket::Grant;
use crate::wakes::Wakes;
use crate::wide_requests::TableMode;

/// A row that one sub-transaction has locked, or locked more strongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRow {
    /// The row.
    pub row: RowKey,
    /// The mode from then on.
    pub mode: LockMode,
    /// Whether it was locked in order to be written.
    pub writes: bool,
    /// The sub-transaction.
    pub sub: u32,
    /// The fencing token from then on.
    pub token: FencingToken,
}

/// A range that is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRange {
    /// The range.
    pub range: Arc<RowRange>,
    /// Its mode.
    pub mode: LockMode,
    /// The sub-transaction that took it.
    pub sub: u32,
    /// Its fencing token.
    pub token: FencingToken,
}

/// What a transaction holds that is no row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptWide {
    /// The tables that it holds SHARED, those included that it holds EXCLUSIVE.
    pub shared: Vec<TableId>,
    /// Those that it holds EXCLUSIVE.
    pub exclusive: Vec<(TableId, FencingToken)>,
    /// The ranges, the oldest first.
    pub ranges: Vec<KeptRange>,
    /// The tokens of semaphores, with the sub-transactions that took them, the oldest first.
    pub tokens: Vec<(u32, Arc<TokenRequest>)>,
}

impl LockTable {
    /// R2: what the owner holds that is no row, with its tokens. For one whose own thread asks, or who is prepared.
    pub fn kept_wide(&self, owner: &Owner) -> KeptWide {
        let holdings = owner.latch();
        let books = self.shards.wide().latch();
        let ranges = holdings.undo.ranges().iter();
        let ranges = ranges.filter_map(|(sub, number)| {
            let (range, mode, token) = books.ranges.kept(*number)?;
            Some(KeptRange {
                range,
                mode,
                sub: *sub,
                token,
            })
        });
        let exclusive = holdings.exclusive.iter();
        let token = |table: &TableId| Some((*table, books.tables.token(*table, owner)?));
        KeptWide {
            shared: owner.tables().all(),
            exclusive: exclusive.filter_map(token).collect(),
            ranges: ranges.collect(),
            tokens: holdings.undo.tokens_by_sub().to_vec(),
        }
    }

    /// R2: shows each row that the owner holds in memory once, in no order: what its acquisitions have come to, the mode as
    /// ranges see it, and the token. How many there are.
    pub fn kept_rows(
        &self,
        owner: &Owner,
        mut see: impl FnMut(&RowKey, LockMode, LockMode, FencingToken),
    ) -> u64 {
        let mut places = owner.latch().undo.places().to_vec();
        places.sort_unstable();
        places.dedup();
        let mut rows = 0;
        for place in places {
            let latch = self.shards.latch_number(place.shard());
            if let Some((row, hold)) = latch.in_memory(place, owner) {
                let token = owner.token(hold).unwrap_or(hold.token);
                see(&row, hold.mode, hold.beside_ranges(), token);
                rows += 1;
            }
        }
        rows
    }

    /// R2: takes a row that the owner, who is Active still, has held before the crash. Whether it is the first time.
    ///
    /// # Errors
    /// Somebody has what conflicts with it.
    pub fn restore_row(&self, owner: &Arc<Owner>, kept: &KeptRow) -> Result<bool, Refusal> {
        let request = Request {
            row: &kept.row,
            mode: kept.mode,
            writes: kept.writes,
            sub: kept.sub,
            policy: Policy::NoWait,
        };
        let grant = granted(|wakes| self.request(owner, request, wakes))?;
        self.stamp(owner, grant.place, kept.token);
        Ok(grant.fresh)
    }

    /// R2: the same of a range.
    ///
    /// # Errors
    /// As [`LockTable::restore_row`].
    pub fn restore_range(&self, owner: &Arc<Owner>, kept: &KeptRange) -> Result<(), Refusal> {
        let request = RangeRequest {
            range: &kept.range,
            mode: kept.mode,
            sub: kept.sub,
            policy: Policy::NoWait,
        };
        let grant = granted(|wakes| self.request_range(owner, request, wakes))?;
        if grant.strengthened {
            self.stamp_range(owner, kept.token);
        }
        Ok(())
    }

    /// R2, K7: the same of a table that it has held SHARED; EXCLUSIVE, if there is a token of that.
    ///
    /// # Errors
    /// As [`LockTable::restore_row`].
    pub fn restore_table(
        &self,
        owner: &Arc<Owner>,
        table: &Arc<TableLock>,
        exclusive: Option<FencingToken>,
    ) -> Result<(), Refusal> {
        let policy = Policy::NoWait;
        let ask = |mode| granted(|wakes| self.request_table(owner, (table, mode), policy, wakes));
        if !self.share(owner, table) {
            ask(TableMode::Shared)?;
        }
        if let Some(token) = exclusive {
            ask(TableMode::Exclusive)?;
            self.stamp_table(owner, table.id(), token);
        }
        Ok(())
    }

    /// R2, V4: the sub-transactions that the owner had rolled back, before its runs are listed by [`LockTable::publish`].
    pub fn restore_dead(&self, owner: &Owner, dead: impl IntoIterator<Item = RangeInclusive<u32>>) {
        owner.latch().spilled.restore(dead);
    }
}

fn granted(ask: impl FnOnce(&mut Wakes) -> Decision) -> Result<Grant, Refusal> {
    let mut wakes = Wakes::new();
    match ask(&mut wakes) {
        Decision::Granted(grant) => Ok(grant),
        Decision::Refused(refusal) => Err(refusal),
        Decision::Queued(_) => unreachable!("K1: NoWait does not wait"),
    }
}
