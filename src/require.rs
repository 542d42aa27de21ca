//! What a user requires of others for a commit, as a part of the transaction's handle: see `prerequisites`. And that what is locked is
//! durable.

use std::sync::Arc;

use lockstone_base::{FencingToken, TxnId};
use lockstone_locks::Owner;

use crate::error::Result;
use crate::prerequisites::What;
use crate::table::Table;
use crate::transaction::Transaction;
use crate::write_path;

impl Transaction {
    /// Makes the commit, or [`Transaction::prepare`], fail unless the transaction `txn` is alive at that moment: neither committed nor
    /// aborted. It cannot end between the look and the commit. One that has ended already is no error here, but then. May be called
    /// for any number of transactions.
    ///
    /// # Errors
    /// What has ended this transaction.
    pub fn require(&mut self, txn: TxnId) -> Result<()> {
        let (engine, state) = self.parts();
        let mut require = || {
            state.check(engine)?;
            if txn != state.owner.id() {
                let holder = engine.live.find(txn).map(|live| live.owner);
                state.prerequisites.add(What::Txn(txn), holder);
            }
            Ok(())
        };
        let result = require();
        self.note(result)
    }

    /// Makes the commit, or [`Transaction::prepare`], fail unless somebody, this transaction included, then holds `key` by the lock
    /// that has this fencing token: one that was released since, be it by a rollback to a savepoint, or strengthened, is another.
    /// It cannot be released between the look and the commit.
    ///
    /// # Errors
    /// As [`Transaction::get`](crate::Transaction::get), of table and key.
    pub fn require_lock(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        token: FencingToken,
    ) -> Result<()> {
        let (engine, state) = self.parts();
        let mut require = || {
            state.check(engine)?;
            let row = table.row(engine, key.as_ref())?;
            let holds = |owner: &Arc<Owner>| engine.locks.token(owner, &row) == Some(token);
            let all = engine.live.all().into_iter().map(|live| live.owner);
            let holder = { all }.find(holds);
            state.prerequisites.add(What::Lock(row, token), holder);
            Ok(())
        };
        let result = require();
        self.note(result)
    }

    /// Waits until all that the transaction has locked and written so far is on the device: *durable locks*. A crash still ends it, and
    /// frees them, unless it is prepared or leased; but the next open's report names it, with their number.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error); else what has ended the transaction.
    pub fn flush(&mut self) -> Result<()> {
        let (engine, state) = self.parts();
        let result = write_path::flush(engine, state);
        self.note(result)
    }
}
