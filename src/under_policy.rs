//! The locking calls of a transaction, under another policy than its own: for one call each.
//!
//! 1. The policy counts for what the call locks; a cursor keeps it as long as it lives.

use lockstone_base::{FencingToken, LockMode};

use crate::error::Result;
use crate::key_range::KeyRange;
use crate::key_value::Value;
use crate::lock_async::{GetForAsync, LockAsync};
use crate::options::OnConflict;
use crate::range_for::RangeFor;
use crate::resource::ResourceMode;
use crate::table::Table;
use crate::transaction::Transaction;

/// What [`Transaction::on_conflict`] gives: the calls that lock, each as the transaction's own, under this policy.
#[derive(Debug)]
#[must_use = "it does nothing by itself: call what locks"]
pub struct UnderPolicy<'a> {
    txn: &'a mut Transaction,
    policy: OnConflict,
}

impl Transaction {
    /// The locking calls, with another policy for the one that follows:
    /// `txn.on_conflict(OnConflict::NoWait).lock(..)`.
    pub fn on_conflict(&mut self, policy: OnConflict) -> UnderPolicy<'_> {
        UnderPolicy { txn: self, policy }
    }
}

impl<'a> UnderPolicy<'a> {
    /// As [`Transaction::get_for`].
    ///
    /// # Errors
    /// As there.
    pub fn get_for(
        self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> Result<Option<Value>> {
        self.txn
            .under(self.policy, |txn| txn.get_for(table, key, mode))
    }

    /// As [`Transaction::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn lock(
        self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> Result<FencingToken> {
        self.txn
            .under(self.policy, |txn| txn.lock(table, key, mode))
    }

    /// As [`Transaction::lock_range`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_range(
        self,
        table: &Table,
        range: impl KeyRange,
        mode: LockMode,
    ) -> Result<FencingToken> {
        self.txn
            .under(self.policy, |txn| txn.lock_range(table, range, mode))
    }

    /// As [`Transaction::lock_table`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_table(self, table: &Table) -> Result<FencingToken> {
        self.txn.under(self.policy, |txn| txn.lock_table(table))
    }

    /// As [`Transaction::lock_resource`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_resource(self, path: impl AsRef<[u8]>, mode: ResourceMode) -> Result<FencingToken> {
        self.txn
            .under(self.policy, |txn| txn.lock_resource(path, mode))
    }

    /// As [`Transaction::acquire`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire(self, semaphore: impl AsRef<[u8]>, tokens: u64) -> Result<()> {
        self.txn
            .under(self.policy, |txn| txn.acquire(semaphore, tokens))
    }

    /// As [`Transaction::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(self, table: &Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.txn
            .under(self.policy, |txn| txn.put(table, key, value))
    }

    /// As [`Transaction::put_many`].
    ///
    /// # Errors
    /// As there.
    pub fn put_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        self,
        table: &Table,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.txn.under(self.policy, |txn| txn.put_many(table, rows))
    }

    /// As [`Transaction::insert_new`].
    ///
    /// # Errors
    /// As there.
    pub fn insert_new(
        self,
        table: &Table,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        self.txn
            .under(self.policy, |txn| txn.insert_new(table, key, value))
    }

    /// As [`Transaction::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(self, table: &Table, key: impl AsRef<[u8]>) -> Result<bool> {
        self.txn.under(self.policy, |txn| txn.delete(table, key))
    }

    /// As [`Transaction::range_for`]; the cursor's steps are under the policy too.
    ///
    /// # Errors
    /// As there.
    pub fn range_for(
        self,
        table: &Table,
        range: impl KeyRange,
        mode: LockMode,
    ) -> Result<RangeFor<'a>> {
        self.txn.range_for_under(self.policy, table, range, mode)
    }

    /// As [`Transaction::lock_many`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_many<K: AsRef<[u8]>>(
        self,
        table: &Table,
        keys: impl IntoIterator<Item = K>,
        mode: LockMode,
    ) -> Result<()> {
        self.txn
            .under(self.policy, |txn| txn.lock_many(table, keys, mode))
    }

    /// As [`Transaction::lock_rows`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_rows(self, table: &Table, range: impl KeyRange, mode: LockMode) -> Result<u64> {
        self.txn
            .under(self.policy, |txn| txn.lock_rows(table, range, mode))
    }

    /// As [`Transaction::lock_async`]; the wait is under the policy too.
    ///
    /// # Errors
    /// As there.
    pub fn lock_async(self, table: &Table, key: impl AsRef<[u8]>, mode: LockMode) -> LockAsync<'a> {
        self.txn.lock_async(table, key, mode).under(self.policy)
    }

    /// As [`Transaction::get_for_async`]; the wait is under the policy too.
    ///
    /// # Errors
    /// As there.
    pub fn get_for_async(
        self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> GetForAsync<'a> {
        self.txn.get_for_async(table, key, mode).under(self.policy)
    }
}
