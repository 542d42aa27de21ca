//! The locks of a cursor whose records are not in the log yet: up to so many, which go there in one record.
//!
//! Filled and emptied by the write path; shared by the transaction and the cursor, so that whichever of the two goes on
//! first appends them.
//! 1. At most [`HELD_BACK_MAX`] records wait. They are appended before the cursor is left, and before anything else of the
//!    transaction is.
//! 2. The locks have a sub-transaction of their own, and with it one token: that record's position.
//!
//! Crash: memory only; a lost lock implies a lost transaction.

use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::RowKey;
use lockstone_base::limits::KEY_BYTES_MAX;
use lockstone_locks::Grant;
use lockstone_recovery::record::{CONTEXT_BYTES, LOCKED_ROW_HEAD_BYTES, LockMany, locked_row_head};
use parking_lot::Mutex;

/// So many records wait at most.
const HELD_BACK_MAX: u32 = 256;

/// The bytes of a row in the record, from the length of its encoding.
pub(crate) const fn row_bytes(encoded: usize) -> usize {
    LOCKED_ROW_HEAD_BYTES + encoded
}

/// Whoever has so many bytes of rows takes no more of them: a record of at most `record_bytes_max` has room for these and
/// one more row, however long.
pub(crate) fn row_bytes_max(record_bytes_max: usize) -> usize {
    /// The fixed head of the body.
    const HEAD_BYTES: usize = 8;
    let longest = row_bytes(RowKey::TABLE_BYTES + KEY_BYTES_MAX);
    let others = CONTEXT_BYTES + HEAD_BYTES + longest;
    assert!(
        record_bytes_max > others,
        "G4: a record has room for one row"
    );
    record_bytes_max - others
}

/// What a transaction's cursors hold back.
#[derive(Debug)]
pub(crate) struct HeldBack {
    /// The sub-transaction whose locks may join; [`NONE`] if none may.
    open: AtomicU64,
    rows: Mutex<HeldRows>,
    bytes_max: usize,
}

/// No sub-transaction's number.
const NONE: u64 = u64::MAX;

/// Rows that one sub-transaction has locked.
#[derive(Debug, Default)]
pub(crate) struct HeldRows {
    sub: u32,
    count: u32,
    fresh: u64,
    rows: Vec<u8>,
}

impl HeldBack {
    /// Nothing yet; for a log whose records have at most so many bytes.
    pub(crate) fn new(record_bytes_max: usize) -> Self {
        Self {
            open: AtomicU64::new(NONE),
            rows: Mutex::default(),
            bytes_max: row_bytes_max(record_bytes_max),
        }
    }

    /// Whether locks of sub-transaction `sub` may join.
    pub(crate) fn is_open_to(&self, sub: u32) -> bool {
        self.open.load(Ordering::Relaxed) == u64::from(sub)
    }

    /// Locks of sub-transaction `sub`, a new one, may join from now on.
    pub(crate) fn open_to(&self, sub: u32) {
        self.open.store(sub.into(), Ordering::Relaxed);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.lock().count == 0
    }

    /// The sub-transaction of what waits, if anything does.
    pub(crate) fn sub(&self) -> Option<u32> {
        let held = self.rows.lock();
        (held.count > 0).then_some(held.sub)
    }

    /// How many rows wait that were not held before.
    pub(crate) fn fresh(&self) -> u64 {
        self.rows.lock().fresh
    }

    /// A lock that sub-transaction `sub` was granted. Whether no more may wait.
    pub(crate) fn push(&self, row: &RowKey, sub: u32, grant: Grant) -> bool {
        assert!(
            self.is_open_to(sub),
            "L9: what waits for one record is one sub-transaction's"
        );
        let mut held = self.rows.lock();
        held.push(row.as_bytes(), sub, grant);
        held.count == HELD_BACK_MAX || held.rows.len() >= self.bytes_max
    }

    /// What waits, to be appended or forgotten. Nothing may join it any more.
    pub(crate) fn take(&self) -> HeldRows {
        self.open.store(NONE, Ordering::Relaxed);
        std::mem::take(&mut *self.rows.lock())
    }

    /// Keeps the memory of what was appended.
    pub(crate) fn reuse(&self, mut appended: HeldRows) {
        appended.rows.clear();
        *self.rows.lock() = HeldRows {
            rows: appended.rows,
            ..HeldRows::default()
        };
    }

    /// It was not appended: it waits on.
    pub(crate) fn put_back(&self, rows: HeldRows) {
        *self.rows.lock() = rows;
    }
}

impl HeldRows {
    /// The rows of sub-transaction `sub`, as they were granted.
    pub(crate) fn of<'a>(sub: u32, rows: impl Iterator<Item = (&'a RowKey, Grant)>) -> Self {
        let mut held = Self::default();
        for (row, grant) in rows {
            held.push(row.as_bytes(), sub, grant);
        }
        held
    }

    fn push(&mut self, row: &[u8], sub: u32, grant: Grant) {
        self.sub = sub;
        self.count += 1;
        self.fresh += u64::from(grant.fresh);
        let head = locked_row_head(row.len(), grant.mode, grant.fresh);
        self.rows.extend_from_slice(&head);
        self.rows.extend_from_slice(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many rows were not held before.
    pub(crate) fn fresh(&self) -> u64 {
        self.fresh
    }

    /// The sub-transaction.
    pub(crate) fn sub(&self) -> u32 {
        self.sub
    }

    /// The record that says it all.
    pub(crate) fn record(&self) -> LockMany<'_> {
        LockMany {
            sub: self.sub,
            count: self.count,
            rows: &self.rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockstone_base::{LockMode, Priority, TableId, TxnId};
    use lockstone_locks::{Decision, LockTable, Notify, Policy, Request, Wakes};

    use super::*;

    struct Nobody;

    impl Notify for Nobody {
        fn notify(&self) {}
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let table = LockTable::new(1);
        let owner = table.begin(TxnId::new(1, 1), None, Arc::new(Nobody));
        owner.settle(Priority::auto().settle(1, true));
        for (key_bytes, most) in [(4, HELD_BACK_MAX), (4096, 3)] {
            let held = HeldBack::new(16 << 10);
            assert!(!held.is_open_to(3));
            held.open_to(3);
            for number in 1..=most {
                let key = [&number.to_be_bytes()[..], &[7; 4096]].concat();
                let row = RowKey::new(TableId(1), &key[..key_bytes]);
                let request = Request {
                    row: &row,
                    mode: LockMode::Update,
                    writes: false,
                    sub: 3,
                    policy: Policy::NoWait,
                };
                let decision = table.request(&owner, request, &mut Wakes::default());
                let Decision::Granted(grant) = decision else {
                    panic!("{decision:?}");
                };
                assert_eq!(held.push(&row, 3, grant), number == most);
            }
            let rows = held.take();
            assert_eq!((rows.fresh(), rows.sub()), (u64::from(most), 3));
            assert_eq!(rows.record().rows().count(), most as usize);
            assert!(held.is_empty() && !held.is_open_to(3));
            held.reuse(rows);
            assert!(held.take().is_empty());
        }
    }
}
