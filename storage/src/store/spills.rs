//! Spills of open transactions: where their files are made, opened, and let go.
//!
//! Called by whoever spills, and at the end of a transaction that has.
//! 1. V1: a file has a number that none ever had, and is durable before anybody is told of it.
//! 2. S6: a spill goes when its owner has ended and nobody adopted it, or when all that it has was rolled back. Its file is removed
//!    by the first `reclaim` that finds nobody else who has it: others may be looking for a row there, and open it by its name.
//!
//! Crash: a file that was to be removed is an orphan, swept after the next open.

use lockstone_base::{Lsn, TxnId};

use super::Store;
use super::replay::{AdoptedRun, open_runs};
use crate::error::StorageError;
use crate::provisional::{Kind, ProvisionalRun, SpillPlan, SpillWriter};
use crate::run::RunEntry;
use crate::sources::OwnRuns;
use crate::tree::Group;

impl Store {
    /// A writer of a spill of these owners, ascending: one, unless it is mixed.
    pub fn spill(&self, kind: Kind, owners: Vec<TxnId>) -> SpillWriter<'_> {
        let plan = SpillPlan {
            identity: self.identity,
            kind,
            owners,
        };
        SpillWriter::new(&*self.disk, plan, || self.take_number())
    }

    /// Opens a spill that was written as `entry`.
    ///
    /// # Errors
    /// As [`ProvisionalRun::open`].
    pub fn open_spill(&self, entry: &RunEntry) -> Result<ProvisionalRun, StorageError> {
        ProvisionalRun::open(&self.disk, self.identity, entry)
    }

    /// Opens what a transaction has written and spilled, so that it reads that itself
    /// ([`Sources::under`](crate::Sources::under)): all of it, or, of one that has `earlier` spills open, a later one.
    ///
    /// # Errors
    /// As [`Store::prepare_adoption`].
    pub fn open_own(
        &self,
        earlier: Option<&OwnRuns>,
        runs: Vec<AdoptedRun>,
    ) -> Result<OwnRuns, StorageError> {
        let stamp = Lsn::MAX;
        let runs = open_runs(&self.disk, self.identity, stamp, runs)?;
        let group = match earlier {
            Some(earlier) => earlier.group().below(runs)?,
            None => Group::new(stamp, runs)?,
        };
        Ok(OwnRuns::new(group))
    }

    /// The salt of the database's files.
    pub fn salt(&self) -> u64 {
        self.identity.salt
    }

    /// S6: nobody needs these any more. They are freed, and their files removed, by the next [`Store::reclaim`] behind the last look
    /// into them.
    pub fn discard_spills(&self, spills: Vec<ProvisionalRun>) {
        let mut catalogue = self.catalogue.lock();
        catalogue.retired.spills.extend(spills);
    }
}
