//! Prerequisites: what must be there when a transaction commits, or prepares: other transactions, and locks of theirs.
//!
//! Named by users (`require`); asked in the hold of the append latch that decides a commit.
//! 1. Who is named stays alive, and keeps its locks, from the moment it is looked at to the end of the hold: it is *pinned*, and
//!    whoever would end it, or roll it back, waits for that moment. So nobody is granted a lock that a prerequisite had before what
//!    was committed under it can be seen.
//! 2. Whether a lock is held is looked up before the hold, for that takes other latches; in the hold it is enough that its holder has
//!    rolled back nothing since.
//!
//! Crash: memory only; a commit that is there had its prerequisites.

use std::sync::Arc;

use lockstone_base::{FencingToken, RowKey, TxnId};
use lockstone_locks::{Owner, OwnerState, Pinning};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::naming::name_row;

/// All that one transaction requires.
#[derive(Debug, Default)]
pub(crate) struct Prerequisites(Vec<Prerequisite>);

#[derive(Debug)]
struct Prerequisite {
    what: What,
    /// Who was found to be it, or to hold it.
    holder: Option<Arc<Owner>>,
}

#[derive(Debug)]
pub(crate) enum What {
    Txn(TxnId),
    Lock(RowKey, FencingToken),
}

/// Those who are to be pinned, and how often each had rolled back when all that they hold was looked up.
#[derive(Debug)]
pub(crate) struct Looked(Vec<(Arc<Owner>, u32)>);

/// Those who are pinned, until this is dropped: before the hold in which they were.
#[derive(Debug)]
pub(crate) struct Pinned(Vec<Arc<Owner>>);

impl Prerequisites {
    pub(crate) fn add(&mut self, what: What, holder: Option<Arc<Owner>>) {
        self.0.push(Prerequisite { what, holder });
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks whether all is there, before the hold.
    ///
    /// # Errors
    /// [`Error::PrerequisiteFailed`].
    pub(crate) fn look(&self, engine: &Engine, own: &Owner) -> Result<Looked> {
        let mut looked: Vec<(Arc<Owner>, u32)> = Vec::with_capacity(self.0.len());
        for Prerequisite { what, holder } in &self.0 {
            let holder = holder.as_ref().filter(|holder| is_alive(holder));
            let before = holder.map_or(0, |holder| holder.rollbacks());
            let is_there = holder.is_some_and(|holder| match what {
                What::Txn(_) => true,
                What::Lock(row, token) => engine.locks.token(holder, row) == Some(*token),
            });
            let Some(holder) = holder.filter(|_| is_there) else {
                return Err(what.failed(engine));
            };
            let is_known = looked.iter().any(|(known, _)| Arc::ptr_eq(known, holder));
            // Nobody but this transaction ends itself or rolls itself back.
            if !is_known && holder.id() != own.id() {
                looked.push((Arc::clone(holder), before));
            }
        }
        Ok(Looked(looked))
    }
}

fn is_alive(owner: &Owner) -> bool {
    use OwnerState::{Active, Prepared, Preparing};
    matches!(owner.state(), Active | Preparing | Prepared)
}

impl What {
    fn failed(&self, engine: &Engine) -> Error {
        let what = match self {
            Self::Txn(txn) => format!("transaction {txn} has ended"),
            Self::Lock(row, token) => {
                let row = name_row(engine, row);
                format!("nobody holds {row} by the lock with token {token}")
            }
        };
        Error::PrerequisiteFailed { what }
    }
}

impl Looked {
    /// Pins them all, in the hold. `None`: somebody has ended, or rolled back, since; it is to be looked again.
    pub(crate) fn pin(self) -> Option<Pinned> {
        let mut pinned = Pinned(Vec::with_capacity(self.0.len()));
        for (owner, rollbacks) in self.0 {
            if owner.pin(rollbacks) != Pinning::Pinned {
                return None;
            }
            pinned.0.push(owner);
        }
        Some(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.iter().for_each(|owner| owner.unpin());
    }
}
