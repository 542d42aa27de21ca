//! Many rows that one call asks for: in which order, and what became of each.
//!
//! Made by [`LockTable::batch`](crate::LockTable::batch), worked off by
//! [`LockTable::request_batch`](crate::LockTable::request_batch).
//! 1. Rows are asked for shard by shard, and within a shard in the caller's order. So two batches never wait
//!    for each other in a ring, and a visit to a shard serves many rows.
//! 2. A visit ends at the shard's last row, and at the latest after [`VISIT_ROWS_MAX`].
//!
//! Crash: memory only.

use lockstone_base::{LockMode, RowKey};

use crate::decision::Request;
use crate::policy::Policy;
use crate::ticket::{Grant, Want};

/// So many rows are served in one hold of a shard's latch: some ten microseconds.
pub(crate) const VISIT_ROWS_MAX: usize = 256;

/// So many rows take as long as it takes to fetch a line from memory.
const ROWS_AHEAD: usize = 4;

/// How the rows of a batch are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The mode wanted of each.
    pub mode: LockMode,
    /// The sub-transaction that asks: its own, so that no other acquisition shares the batch's token.
    pub sub: u32,
    /// What to do when a lock is not free.
    pub policy: Policy,
    /// Whether the rows are to be written: they may be new.
    pub writes: bool,
    /// What the owner's rank makes of it; filled in by the table.
    pub(crate) order: u64,
}

impl Terms {
    /// Rows in `mode`, for sub-transaction `sub`.
    pub fn new(mode: LockMode, sub: u32, policy: Policy) -> Self {
        Self {
            mode,
            sub,
            policy,
            writes: false,
            order: 0,
        }
    }

    /// The same, for rows that are to be written: beside ranges that counts as `Update`.
    #[must_use]
    pub fn to_write(self) -> Self {
        Self {
            writes: true,
            ..self
        }
    }

    pub(crate) fn request(self, row: &RowKey) -> Request<'_> {
        Request {
            row,
            mode: self.mode,
            writes: self.writes,
            sub: self.sub,
            policy: self.policy,
        }
    }

    /// While there is no run.
    pub(crate) fn want(self, ask: &Ask) -> Want<'_> {
        Want {
            row: &ask.row,
            hash: ask.hash,
            mode: self.mode,
            writes: self.writes,
            sub: self.sub,
            order: self.order,
            policy: self.policy,
            own_is_known: true,
        }
    }
}

/// The rows of one call, and what was granted so far.
#[derive(Debug)]
pub struct Batch {
    /// In the order in which they are asked for.
    asks: Vec<Ask>,
    /// By the caller's numbers.
    grants: Vec<Option<Grant>>,
    /// How many have been decided.
    decided: usize,
}

/// One row of a batch.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) row: RowKey,
    pub(crate) hash: u64,
    /// The caller's number.
    number: u32,
}

impl Batch {
    /// The rows whose hashes are `hashes`; `shard` tells of a hash which of `shards` it is in.
    pub(crate) fn new(
        hashes: &[u64],
        row: impl Fn(usize) -> RowKey,
        shards: usize,
        shard: impl Fn(u64) -> usize,
    ) -> Self {
        // Sorted by counting: rows of one shard stay in the caller's order.
        let mut ends = vec![0_usize; shards];
        for hash in hashes {
            if let Some(count) = ends.get_mut(shard(*hash)) {
                *count += 1;
            }
        }
        let mut before = 0;
        for end in &mut ends {
            before += std::mem::replace(end, before);
        }
        let mut order = vec![0_u32; hashes.len()];
        for (number, hash) in hashes.iter().enumerate() {
            let Some(place) = ends.get_mut(shard(*hash)) else {
                continue;
            };
            if let Some(spot) = order.get_mut(*place) {
                *spot = number as u32;
            }
            *place += 1;
        }
        let ask = |number: u32| Ask {
            row: row(number as usize),
            hash: hashes.get(number as usize).copied().unwrap_or_default(),
            number,
        };
        Self {
            asks: order.into_iter().map(ask).collect(),
            grants: vec![None; hashes.len()],
            decided: 0,
        }
    }

    /// What was granted of the row with the caller's number `number`.
    pub fn grant(&self, number: usize) -> Option<Grant> {
        self.grants.get(number).copied().flatten()
    }

    /// The row whose place in the shard's index is to be fetched now, to be there when it is asked for.
    pub(crate) fn ahead(&self) -> Option<&Ask> {
        self.asks.get(self.decided + ROWS_AHEAD)
    }

    /// The row at which the batch stands: the one whose decision was returned.
    pub fn current(&self) -> Option<&RowKey> {
        self.asks.get(self.decided).map(|ask| &ask.row)
    }

    /// Notes the grant of the row at which the batch stands, and goes on behind it.
    pub fn granted(&mut self, grant: Grant) {
        if let Some(ask) = self.asks.get(self.decided) {
            if let Some(slot) = self.grants.get_mut(ask.number as usize) {
                *slot = Some(grant);
            }
            self.decided += 1;
        }
    }

    /// Goes on behind the row at which the batch stands, which is not wanted any more.
    pub fn skipped(&mut self) {
        self.decided += 1;
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.grants.len()
    }

    /// The next rows of one shard; `same` tells whether two hashes are in one.
    pub(crate) fn visit(&self, same: impl Fn(u64, u64) -> bool) -> usize {
        let left = self.asks.get(self.decided..).unwrap_or_default();
        let Some(first) = left.first() else { return 0 };
        let fits = |ask: &&Ask| same(ask.hash, first.hash);
        left.iter().take(VISIT_ROWS_MAX).take_while(fits).count()
    }

    pub(crate) fn next(&self) -> Option<&Ask> {
        self.asks.get(self.decided)
    }
}
