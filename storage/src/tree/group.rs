//! The runs that one commit has adopted, while the tree has not got them yet.
//!
//! Made before the commit has its LSN; a layer of the list of sources from then on, until a flush gives its runs to level 0.
//! 1. S1: of a row, what a later spill has is newer. Files of one spill share no row, so each spill is a level.
//! 2. Every run has the commit's stamp, which is set before anybody reads it: in the hold that gives it (W2).

use std::sync::Arc;

use lockstone_base::Lsn;

use super::{Level, Tree};
use crate::error::{Damage, Section, StorageError};
use crate::manifest::OpenSpills;
use crate::run::{Origin, Run};

/// The runs that one commit has adopted.
#[derive(Debug)]
pub(crate) struct Group {
    stamp: Lsn,
    /// No level 0; of the levels the first one is the last spill.
    tree: Tree,
    /// Whose it was, and what a manifest says of it until a level has it (S1).
    open: Option<OpenSpills>,
}

impl Group {
    /// The group of these adopted runs, in any order.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if two files of one spill have the same row between their ends.
    pub(crate) fn new(stamp: Lsn, runs: Vec<Run>) -> Result<Self, StorageError> {
        let mut runs: Vec<_> = runs.into_iter().map(Arc::new).collect();
        // The last spill first, and in a spill by row.
        runs.sort_by(|a, b| {
            let (a, b) = (a.entry(), b.entry());
            (spill_of(b).cmp(&spill_of(a))).then_with(|| a.smallest.cmp(&b.smallest))
        });
        let mut tree = Tree::default();
        for spill in runs.chunk_by(|a, b| spill_of(a.entry()) == spill_of(b.entry())) {
            for (a, b) in spill.iter().zip(spill.iter().skip(1)) {
                if a.entry().overlaps(b.entry()) {
                    let rule = "two files of a spill have the same rows";
                    return Err(b.corrupt_at(0, Damage::malformed(Section::Summary, rule)));
                }
            }
            tree.levels.push(Arc::new(Level::new(spill.to_vec())));
        }
        Ok(Self {
            stamp,
            tree,
            open: None,
        })
    }

    /// The same group, below the runs of a later spill.
    ///
    /// # Errors
    /// As [`Group::new`], of these.
    pub(crate) fn below(&self, newer: Vec<Run>) -> Result<Self, StorageError> {
        let mut group = Self::new(self.stamp, newer)?;
        let last = |group: &Self| {
            let first = group.runs().next();
            first.and_then(|run| spill_of(run.entry()))
        };
        assert!(
            last(self) < last(&group),
            "V3: a later spill has a higher number"
        );
        group.tree.levels.extend(self.tree.levels.iter().cloned());
        Ok(group)
    }

    /// The group of what this transaction has adopted.
    pub(crate) fn of(self, open: OpenSpills) -> Self {
        Self {
            open: Some(open),
            ..self
        }
    }

    /// What a manifest says of it until a level has it, if it is a commit's.
    pub(crate) fn open(&self) -> Option<&OpenSpills> {
        self.open.as_ref()
    }

    /// The commit's stamp.
    pub(crate) fn stamp(&self) -> Lsn {
        self.stamp
    }

    /// The runs, as who reads them finds them.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The runs, as level 0 orders them: the newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.tree.runs()
    }

    /// Gives every run the commit's stamp. Allocates nothing.
    pub(crate) fn set_stamp(&mut self, stamp: Lsn) {
        self.stamp = stamp;
        for level in &mut self.tree.levels {
            Arc::get_mut(level)
                .expect("a group that nobody reads yet has its runs for itself")
                .set_stamp(stamp);
        }
    }
}

fn spill_of(entry: &crate::run::RunEntry) -> Option<u64> {
    match &entry.origin {
        Origin::Adopted(adopted) => Some(adopted.spill),
        Origin::Committed | Origin::Descended | Origin::Provisional => None,
    }
}
