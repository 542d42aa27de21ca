//! Who is prepared, by global id: each transaction as a whole, without a handle, until somebody commits or aborts it.
//!
//! Kept beside the engine; filled by `prepare` and at an open, asked by the database's handle.
//! 1. A global id is one transaction's from before its record is appended until its end is on the device: of two that want the
//!    same, one is refused. Then it can be used again.
//! 2. R2: whoever ends a prepared transaction has taken it out: nobody else can meanwhile. Whoever fails puts it back.
//!
//! Crash: memory only; recovery fills it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstone_base::limits::GID_BYTES_MAX;
use lockstone_base::{Lsn, Rank, TxnId};
use lockstone_locks::OwnerState;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::atomic::Ordering;

use crate::commit;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::txn_state::TxnState;

/// A transaction that is prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PreparedInfo {
    /// What it is known by.
    pub gid: String,
    /// The transaction.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// Its priority.
    pub priority: Option<Rank>,
    /// How many rows and ranges it has locked.
    pub locks: u64,
    /// How many puts and deletes it has done.
    pub writes: u64,
}

/// All who are prepared.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<BTreeMap<Arc<str>, Slot>>);

#[derive(Debug)]
enum Slot {
    /// Its record is being written, or its end is.
    Taken,
    Prepared(Box<TxnState>),
}

/// A global id that nobody else gets, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    registry: &'a Registry,
    gid: Arc<str>,
    stays: bool,
}

impl Reservation<'_> {
    /// The transaction that is prepared under it.
    pub(crate) fn fill(mut self, txn: TxnState) {
        self.stays = true;
        self.registry.set(&self.gid, Some(txn));
    }

    /// Nobody knows whether a transaction is prepared under it: it stays in use.
    pub(crate) fn leave(mut self) {
        self.stays = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.registry.0.lock().remove(&self.gid);
        }
    }
}

impl Registry {
    /// Takes a global id for a transaction that is about to be prepared.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; [`Error::GidInUse`].
    pub(crate) fn reserve(&self, gid: &str) -> Result<Reservation<'_>> {
        if gid.is_empty() || gid.len() > GID_BYTES_MAX {
            let what = format!(
                "a global id has 1 to {GID_BYTES_MAX} bytes, not {}",
                gid.len()
            );
            return Err(Error::invalid(what));
        }
        let mut slots = self.0.lock();
        if slots.contains_key(gid) {
            return Err(Error::GidInUse { gid: gid.into() });
        }
        let gid: Arc<str> = gid.into();
        slots.insert(Arc::clone(&gid), Slot::Taken);
        Ok(Reservation {
            registry: self,
            gid,
            stays: false,
        })
    }

    fn set(&self, gid: &Arc<str>, txn: Option<TxnState>) {
        let slot = txn.map_or(Slot::Taken, |txn| Slot::Prepared(Box::new(txn)));
        self.0.lock().insert(Arc::clone(gid), slot);
    }

    /// Takes a transaction out, to end it.
    fn take(&self, gid: &str) -> Result<(Arc<str>, Box<TxnState>)> {
        let mut slots = self.0.lock();
        let unknown = || Error::UnknownPrepared { gid: gid.into() };
        let (known, _) = slots.get_key_value(gid).ok_or_else(unknown)?;
        let known = Arc::clone(known);
        match slots.insert(Arc::clone(&known), Slot::Taken) {
            Some(Slot::Prepared(txn)) => Ok((known, txn)),
            // It is taken still.
            _ => Err(unknown()),
        }
    }

    /// All of them, by global id.
    pub(crate) fn list(&self) -> Vec<PreparedInfo> {
        let slots = self.0.lock();
        let prepared = slots.iter().filter_map(|(gid, slot)| match slot {
            Slot::Prepared(txn) => Some(PreparedInfo {
                gid: gid.to_string(),
                txn: txn.owner.id(),
                label: txn.owner.label().cloned(),
                priority: txn.owner.rank(),
                locks: txn.live.locks.load(Ordering::Relaxed),
                writes: txn.live.writes.load(Ordering::Relaxed),
            }),
            Slot::Taken => None,
        });
        prepared.collect()
    }

    /// Commits one of them. The LSN of its commit, which is on the device.
    ///
    /// # Errors
    /// [`Error::UnknownPrepared`]. [`Error::Poisoned`]: the outcome is unknown. After any other it is prepared, as before.
    pub(crate) fn commit(&self, engine: &Engine, gid: &str) -> Result<Lsn> {
        self.end(engine, gid, commit::commit_prepared)
    }

    /// Aborts one of them: that is on the device, and its locks are free.
    ///
    /// # Errors
    /// As [`Registry::commit`].
    pub(crate) fn abort(&self, engine: &Engine, gid: &str) -> Result<()> {
        self.end(engine, gid, commit::abort_prepared)
    }

    fn end<T>(
        &self,
        engine: &Engine,
        gid: &str,
        end: impl FnOnce(&Engine, &mut TxnState) -> Result<T>,
    ) -> Result<T> {
        engine.check_serving()?;
        let (gid, mut txn) = self.take(gid)?;
        let ended = end(engine, &mut txn);
        if ended.is_ok() {
            self.0.lock().remove(&gid);
        } else if txn.owner.state() == OwnerState::Prepared {
            self.set(&gid, Some(*txn));
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use lockstone_base::LockMode;
    use lockstone_testkit::{SeededEntropy, SimClock, SimDisk};

    use super::*;
    use crate::closing::EngineRef;
    use crate::engine::Ports;
    use crate::opening;
    use crate::options::{OnConflict, Options, TxnOptions};
    use crate::schema;
    use crate::table::Table;
    use crate::transaction::Transaction;

    /// W9: as long as its Commit or Abort cannot be appended, a prepared transaction holds what it holds.
    #[test]
    fn a_prepared_transaction_ends_in_the_log_first() {
        let ports = Ports {
            disk: SimDisk::new(1),
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        let (engine, prepared) = opening::start(Options::new(), ports).expect("an empty disk");
        let engine = Arc::new(EngineRef::new(engine, prepared));
        let t = Table::new(&engine, schema::create(&engine, "t").expect("a table"));
        let lock = || {
            let options = TxnOptions::new().on_conflict(OnConflict::NoWait);
            let mut txn = Transaction::begin(Arc::clone(&engine), options, None);
            let locked = txn.lock(&t, "k", LockMode::Update);
            locked.map(|_| txn)
        };
        for commits in [false, true] {
            let mut txn = lock().expect("it is free");
            txn.prepare("gid").expect("prepared");
            let held = engine.live.all();
            let owner = &held.first().expect("it is listed").owner;
            let latch = engine.log.hold();
            thread::scope(|threads| {
                let end = threads.spawn(|| {
                    if commits {
                        engine.prepared.commit(&engine, "gid").map(drop)
                    } else {
                        engine.prepared.abort(&engine, "gid")
                    }
                });
                #[expect(
                    clippy::disallowed_methods,
                    reason = "what must not happen gets its time"
                )]
                thread::sleep(Duration::from_millis(50));
                assert_eq!(owner.state(), OwnerState::Prepared);
                drop(latch);
                end.join().expect("no panic").expect("it has ended");
            });
            assert!(!owner.is_active() && lock().is_ok());
        }
    }

    #[test]
    fn a_global_id_is_one_transactions_at_a_time() {
        let registry = Registry::default();
        let first = registry.reserve("a").expect("it is free");
        assert!(matches!(registry.reserve("a"), Err(Error::GidInUse { .. })));
        assert!(matches!(
            registry.take("a"),
            Err(Error::UnknownPrepared { .. })
        ));
        // Nor does a look take it away from who has it.
        assert!(matches!(registry.reserve("a"), Err(Error::GidInUse { .. })));
        let other = registry.reserve("b").expect("it is free");
        drop(first);
        registry.reserve("a").expect("it is free again").leave();
        assert!(matches!(registry.reserve("a"), Err(Error::GidInUse { .. })));
        drop(other);
        for wrong in ["", &"x".repeat(GID_BYTES_MAX + 1)] {
            let refused = registry.reserve(wrong);
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
        }
        assert!(registry.reserve(&"x".repeat(GID_BYTES_MAX)).is_ok());
        assert_eq!(registry.list(), []);
    }
}
