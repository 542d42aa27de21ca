//! An open spill: the records of a row, of a range, all of them.
//!
//! Opened by whoever has spilled, by recovery, and for merges.
//! 1. Opening reads head, footer and summary, and maps the file. What a look-up touches first is verified first, as
//!    in a committed run (F6, F11).
//! 2. V4: what is dead is told with the run, and nothing of it is shown; a spill that lies wholly inside an interval
//!    is known to be empty without a look at it.
//! 3. A row outside the ends of a spill costs two comparisons, one that the filter denies a cache line.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, TableId, TxnId};
use smallvec::SmallVec;

use super::record::{Effect, Record, owner_and_sub};
use super::summary::{Kind, OwnerPart, Summary};
use crate::dead_subs::DeadSubs;
use crate::error::{Damage, Section, StorageError};
use crate::row_hash::row_hash;
use crate::run::{Adopted, Identity, Mark, Run, RunEntry};
use crate::version::VersionRef;

/// A row that is looked for, in as many spills as one likes.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    row: &'a [u8],
    hash: u64,
}

impl<'a> Sought<'a> {
    /// The encoded row `row`, in the database with this salt.
    pub fn new(salt: u64, row: &'a [u8]) -> Self {
        Self {
            row,
            hash: row_hash(salt, row),
        }
    }
}

/// The records of a row that are alive: the last owner's first, of an owner the newest first.
pub type Found<'a> = SmallVec<[Record<'a>; 2]>;

/// What an owner has written to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// In which sub-transaction.
    pub sub: u32,
    /// The value; `None`: it has deleted the row.
    pub value: Option<Bytes>,
}

/// An open spill. Clones share the file.
#[derive(Debug, Clone)]
pub struct ProvisionalRun {
    pub(super) run: Arc<Run>,
    summary: Arc<Summary>,
    owners: Arc<[TxnId]>,
    /// Of each owner.
    dead: Arc<[DeadSubs]>,
    /// Nothing is alive.
    is_dead: bool,
    /// Some of it is dead.
    has_dead: bool,
}

impl ProvisionalRun {
    /// Opens the spill that was written as `entry`. Nothing of it is dead yet.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] and [`StorageError::NewerVersion`].
    pub fn open(
        disk: &Arc<dyn Disk>,
        identity: Identity,
        entry: &RunEntry,
    ) -> Result<Self, StorageError> {
        let run = Arc::new(Run::open(disk, identity, entry)?);
        let summary = Summary::decode(&run.summary()?).and_then(|summary| {
            let records: u64 = summary.owners.iter().map(|part| part.records).sum();
            let rule = "it counts other records than the footer";
            (records == entry.versions)
                .then_some(summary)
                .ok_or(Damage::malformed(Section::Summary, rule))
        });
        let summary = summary.map_err(|what| run.corrupt_at(run.summary_at(), what))?;
        Ok(Self {
            run,
            owners: summary.owners.iter().map(|part| part.owner).collect(),
            dead: summary.owners.iter().map(|_| DeadSubs::NONE).collect(),
            summary: Arc::new(summary),
            is_dead: false,
            has_dead: false,
        })
    }

    /// The run that a commit at `stamp` makes of this spill, which nobody else has.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is no write run: what is only locked is no version (V2).
    pub(crate) fn into_adopted(self, stamp: Lsn, adopted: Adopted) -> Result<Run, StorageError> {
        if self.kind() != Kind::Write {
            let what = Damage::malformed(Section::Summary, "V2: what is adopted is no write run");
            return Err(self.run.corrupt_at(self.run.summary_at(), what));
        }
        let mut run = Arc::into_inner(self.run).expect("S1: who adopts a spill has just opened it");
        run.adopt(stamp, adopted);
        Ok(run)
    }

    /// The same spill, of which these sub-transactions of `owner` are dead, and no others of it (V4).
    #[must_use]
    pub fn with_dead(&self, owner: TxnId, dead: &DeadSubs) -> Self {
        let all = self.owners.iter().zip(self.dead.iter());
        let all: Arc<[_]> = all
            .map(|(other, before)| if *other == owner { dead } else { before }.clone())
            .collect();
        let mut parts = self.summary.owners.iter().zip(all.iter());
        Self {
            is_dead: parts.all(|(part, dead)| part.is_dead(dead)),
            has_dead: all.iter().any(|dead| !dead.is_empty()),
            dead: all,
            ..self.clone()
        }
    }

    /// How a manifest lists its file.
    pub fn entry(&self) -> &RunEntry {
        self.run.entry()
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.summary.kind
    }

    /// What it has of each owner, dead records included; ascending.
    pub fn owners(&self) -> &[OwnerPart] {
        &self.summary.owners
    }

    /// The tables that it has rows of, ascending.
    pub fn tables(&self) -> &[TableId] {
        &self.summary.tables
    }

    /// Whether there is another clone of it.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.run) > 1
    }

    /// V4: whether nothing of it is alive, so that it can go.
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// The records of a row that are alive.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    #[inline]
    pub fn find<'a>(&'a self, sought: &Sought<'a>) -> Result<Found<'a>, StorageError> {
        let mut found = Found::new();
        if self.may_have(sought) {
            self.each(sought, &mut |record, _| found.push(record))?;
        }
        Ok(found)
    }

    /// What `owner` has written to a row last; `None` if nothing of that is here.
    ///
    /// # Errors
    /// As [`ProvisionalRun::find`].
    pub fn get(&self, sought: &Sought<'_>, owner: TxnId) -> Result<Option<Written>, StorageError> {
        let mut newest = None;
        if self.may_have(sought) {
            self.each(sought, &mut |record, place| {
                let is_write = record.owner == owner && record.effect != Effect::Lock;
                if newest.is_none() && is_write {
                    newest = Some((record.sub, place));
                }
            })?;
        }
        Ok(newest.map(|(sub, place)| Written {
            sub,
            value: place.map(|place| self.run.value(place)),
        }))
    }

    /// Whether the row may be here, as far as the ends of the spill tell.
    #[inline]
    fn may_have(&self, sought: &Sought<'_>) -> bool {
        !self.is_dead && self.entry().spans(sought.row)
    }

    /// Shows the records of a row that are alive, each with its value's place in the map.
    fn each<'a>(
        &'a self,
        sought: &Sought<'a>,
        see: &mut dyn FnMut(Record<'a>, Option<Range<usize>>),
    ) -> Result<(), StorageError> {
        let row = sought.row;
        self.run.find(row, sought.hash, &mut |marked| {
            if self.is_alive(marked.order) {
                let version = VersionRef {
                    row,
                    stamp: marked.order,
                    value: marked.value,
                };
                see(self.record(version, marked.mark)?, marked.place);
            }
            Ok(())
        })
    }

    /// Whether the record with this order is alive.
    #[inline]
    pub(super) fn is_alive(&self, order: Lsn) -> bool {
        if !self.has_dead {
            return true;
        }
        let (owner, sub) = owner_and_sub(order);
        !self.dead.get(owner).is_some_and(|dead| dead.has(sub))
    }

    pub(super) fn record<'a>(
        &self,
        version: VersionRef<'a>,
        mark: Mark,
    ) -> Result<Record<'a>, StorageError> {
        let record = Record::decode(version, mark, &self.owners);
        record.map_err(|what| self.run.corrupt_at(0, what))
    }

    pub(super) fn unmarked(&self) -> StorageError {
        let what = Damage::malformed(Section::Block, "it has no marks");
        self.run.corrupt_at(0, what)
    }
}
