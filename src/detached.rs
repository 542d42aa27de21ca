//! Leased transactions without a handle: each as a whole, until somebody resumes it or its lease is over.
//!
//! Kept beside the engine; filled by `Transaction::detach` and at an open, asked by `Database::resume`.
//! 1. One handle at a time has a transaction: whoever resumes it has taken it out.
//! 2. Whoever ends one forgets it here, and frees what it had.
//! 3. S3: one that holds the log back is spilled by the checkpoint; it makes no call that could.
//!
//! Crash: memory only; recovery fills it again.

use std::collections::BTreeMap;

use lockstone_base::{Lsn, TxnId};
use parking_lot::Mutex;

use crate::engine::{Engine, Handleless};
use crate::error::{Error, Result};
use crate::live::LiveTxn;
use crate::spill;
use crate::txn_state::TxnState;
use crate::write_path;

/// All who are detached.
#[derive(Debug, Default)]
pub(crate) struct Detached {
    txns: Mutex<BTreeMap<TxnId, Box<TxnState>>>,
    /// Held while one of them is out, to be spilled.
    spilling: Mutex<()>,
}

impl Detached {
    /// The transaction has no handle from now on.
    pub(crate) fn put(&self, engine: &Engine, txn: TxnState) {
        let owner = txn.owner.clone();
        txn.live.note_detached(true);
        self.txns.lock().insert(owner.id(), Box::new(txn));
        if !owner.is_active() {
            // It has ended in between, and was not found here.
            self.forget(engine, owner.id());
        }
    }

    /// The transaction, for one handle.
    ///
    /// # Errors
    /// [`Error::UnknownTransaction`]; [`Error::InUse`].
    pub(crate) fn take(&self, engine: &Engine, id: TxnId) -> Result<TxnState> {
        loop {
            engine.check_serving()?;
            let taken = self.txns.lock().remove(&id);
            if let Some(txn) = taken {
                txn.live.note_detached(false);
                if txn.check(engine).is_ok() {
                    return Ok(*txn);
                }
                write_path::abort(engine, *txn);
                return Err(Error::UnknownTransaction { txn: id });
            }
            let live = engine.live.find(id);
            let is_leased = |live: &LiveTxn| live.owner.is_active() && live.notes.lease().is_some();
            match live.filter(is_leased) {
                None => return Err(Error::UnknownTransaction { txn: id }),
                // It is spilled, and comes back.
                Some(live) if live.notes.is_detached() => drop(self.spilling.lock()),
                Some(_) => return Err(Error::InUse { txn: id }),
            }
        }
    }
}

impl Handleless for Detached {
    fn forget(&self, engine: &Engine, id: TxnId) {
        let ended = self.txns.lock().remove(&id);
        if let Some(txn) = ended {
            write_path::abort(engine, *txn);
        }
    }

    fn free_log(&self, engine: &Engine, holds_back: &dyn Fn(Lsn) -> bool) {
        let first = |txn: &TxnState| txn.live.first_record();
        let mut due: Vec<TxnId> = Vec::new();
        for (id, txn) in self.txns.lock().iter() {
            if first(txn).is_some_and(holds_back) {
                due.push(*id);
            }
        }
        for id in due {
            let _is_out = self.spilling.lock();
            let taken = self.txns.lock().remove(&id);
            let Some(mut txn) = taken else { continue };
            if let Err(error) = spill::unasked(engine, &mut txn) {
                tracing::warn!(%error, txn = %id, "it holds the log back, and cannot spill");
            }
            self.put(engine, *txn);
        }
    }
}
