//! A lock that is held and whose record is not in the log yet. Kept by the transaction, logged by the write path.
//!
//! 1. At most one, and the newest acquisition: whatever else the transaction locks or writes comes after its record,
//!    so the records of a transaction stand in the order of their sub-transactions.
//! 2. Nobody has been told its token.
//!
//! Crash: memory only; the lock is as free as one whose record was not yet on the device.

use std::cell::RefCell;

use lockstone_base::RowKey;
use lockstone_locks::Grant;
use lockstone_recovery::record::{Effect, Provisional};

/// The lock.
#[derive(Debug)]
pub(crate) struct PutOff {
    pub(crate) row: RowKey,
    pub(crate) sub: u32,
    pub(crate) grant: Grant,
}

impl PutOff {
    /// The record that is owed.
    pub(crate) fn record(&self) -> Provisional<'_> {
        Provisional {
            row: self.row.as_bytes(),
            mode: self.grant.mode,
            fresh: self.grant.fresh,
            sub: self.sub,
            effect: Effect::Lock,
        }
    }

    /// Whether one record can say both that this was locked and that `sub` wrote `row`.
    pub(crate) fn is_of(&self, row: &RowKey, sub: u32) -> bool {
        self.sub == sub && self.row == *row
    }
}

/// The place of the one lock: looked into by a call that only asks, too.
#[derive(Debug, Default)]
pub(crate) struct PutOffLock(RefCell<Option<PutOff>>);

impl PutOffLock {
    /// The lock, for the transaction's own call.
    pub(crate) fn get_mut(&mut self) -> &mut Option<PutOff> {
        self.0.get_mut()
    }

    /// Takes the lock if it is one on `row`.
    pub(crate) fn take_if_of(&self, row: &RowKey) -> Option<PutOff> {
        self.0.borrow_mut().take_if(|lock| lock.row == *row)
    }

    /// Puts back what could not be logged.
    pub(crate) fn put_back(&self, lock: PutOff) {
        *self.0.borrow_mut() = Some(lock);
    }
}
