//! The first half of a two-phase commit, as a part of the transaction's handle; the second half is the database's: see `prepared`.

use lockstone_locks::OwnerState;

use crate::error::Result;
use crate::transaction::Transaction;
use crate::write_path;

impl Transaction {
    /// Makes the transaction outlive every crash, with exactly its locks: the first half of a two-phase commit. From then on nothing
    /// but [`Database::commit_prepared`](crate::Database::commit_prepared) or
    /// [`Database::abort_prepared`](crate::Database::abort_prepared) with this global id ends it, in this process or in any that
    /// opens the database later. It cannot be wounded. Each later call on this handle says
    /// [`Error::TransactionEnded`](crate::Error); dropping it aborts nothing. Until it has ended, the log is kept from its first record on, and at
    /// the log's limit others are refused.
    ///
    /// What a serializable transaction has read, if it writes, is locked `Share` here, without waiting.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let options = || lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20);
    /// # let db = options().open(dir.path().join("db"))?;
    /// let accounts = db.create_table("accounts")?;
    /// let mut txn = db.begin();
    /// txn.put(&accounts, "alice", "90")?;
    /// txn.prepare("transfer-17")?;
    /// // Whatever happens to this process: the row stays locked, and the write is not lost.
    /// db.close()?;
    /// # let db = options().open(dir.path().join("db"))?;
    /// assert_eq!(db.prepared()[0].gid, "transfer-17");
    /// db.commit_prepared("transfer-17")?;
    /// # let accounts = db.table("accounts").expect("it was created");
    /// assert_eq!(db.snapshot().get(&accounts, "alice")?.as_deref(), Some(b"90".as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::GidInUse`](crate::Error), [`Error::InvalidArgument`](crate::Error): nothing was changed, the transaction goes on.
    /// [`Error::LocksInvalidated`](crate::Error): what was read has changed, or others have locked it; [`Error::DiskFull`](crate::Error),
    /// [`Error::OutOfRoom`](crate::Error): the transaction is rolled back. [`Error::Poisoned`](crate::Error): whether it is prepared is unknown, reopen and look.
    pub fn prepare(&mut self, gid: impl AsRef<str>) -> Result<()> {
        let (engine, state) = self.parts();
        let mut prepare = || {
            state.check(engine)?;
            let reserved = engine.prepared.reserve(gid.as_ref())?;
            let prepared = write_path::prepare(engine, state, gid.as_ref());
            match state.owner.state() {
                OwnerState::Prepared => reserved.fill(state.part(engine)),
                OwnerState::Preparing => {
                    // W11: it may be prepared, and need its files.
                    drop(state.part(engine));
                    reserved.leave();
                }
                _ => {}
            }
            prepared
        };
        let result = prepare();
        self.note(result)
    }
}
