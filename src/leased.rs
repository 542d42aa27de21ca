//! Leases as users see them: a transaction that is pinged, detached, and resumed by its id, in this process or after a crash.

use std::sync::Arc;

use lockstone_base::TxnId;
use lockstone_locks::Owner;

use crate::closing::EngineRef;
use crate::error::Result;
use crate::lease;
use crate::live::Notes;
use crate::transaction::Transaction;

/// Renews the lease of one transaction, from any thread: [`Transaction::pinger`]. Like a handle it keeps the database open.
#[derive(Debug, Clone)]
pub struct Pinger {
    engine: Arc<EngineRef>,
    owner: Arc<Owner>,
    notes: Arc<Notes>,
}

impl Pinger {
    /// The transaction's lease lasts anew from now on.
    ///
    /// # Errors
    /// [`Error::LeaseExpired`](crate::Error): it was over already. [`Error::InvalidArgument`](crate::Error): the transaction has no
    /// lease. [`Error::TransactionEnded`](crate::Error), or why the transaction was rolled back.
    pub fn ping(&self) -> Result<()> {
        lease::ping(&self.engine, &self.owner, &self.notes)
    }
}

impl Transaction {
    /// The lease lasts anew from now on.
    ///
    /// # Errors
    /// As [`Pinger::ping`].
    pub fn ping(&self) -> Result<()> {
        let txn = self.state();
        txn.note_read(lease::ping(&self.engine, &txn.owner, &txn.live))
    }

    /// Renews the lease from another thread, while this one works.
    pub fn pinger(&self) -> Pinger {
        let txn = self.state();
        Pinger {
            engine: Arc::clone(&self.engine),
            owner: Arc::clone(&txn.owner),
            notes: Arc::clone(&txn.live),
        }
    }

    /// Leaves the transaction running without a handle, with all that it holds, until
    /// [`Database::resume`](crate::Database::resume) gives it one again, or its lease is over: through closing and reopening, and
    /// through any crash. A transaction without a lease is rolled back, as if it were dropped.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let options = || lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20);
    /// # let db = options().open(dir.path().join("db"))?;
    /// use std::time::Duration;
    /// use lockstone::{ResourceMode, TxnOptions};
    ///
    /// let mut txn = db.begin_with(TxnOptions::new().lease(Duration::from_secs(30)));
    /// txn.lock_resource("jobs/nightly", ResourceMode::Exclusive)?;
    /// let id = txn.detach();
    /// // Whatever happens to this process: for thirty seconds nobody else gets the resource.
    /// db.close()?;
    /// # let db = options().open(dir.path().join("db"))?;
    /// let txn = db.resume(id)?;
    /// txn.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(self) -> TxnId {
        self.detached()
    }
}
