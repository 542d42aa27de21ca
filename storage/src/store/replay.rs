//! What recovery has read of the log, as the layers above the tree: commits in memory, and what commits have adopted.
//!
//! Used by `Store::open`; adoptions open their runs here.
//! 1. W5: layers come in the order of their stamps, and what a commit kept in memory lies above what it has adopted.
//! 2. S1: what was adopted at or below `flushed_through` is in the runs, or in what has become of them: nothing is adopted
//!    twice, and its files may be gone.
//!
//! Crash: opening changes nothing.

use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;

use crate::dead_subs::DeadSubs;
use crate::error::StorageError;
use crate::manifest::{Manifest, OpenSpills, SpillEntry, SpillPart, UnfinishedTxn};
use crate::memtable::Memtable;
use crate::provisional::{Kind, ProvisionalRun};
use crate::run::{Adopted, Identity, Run, RunEntry};
use crate::sources::{Layer, Stack};
use crate::tree::Group;

/// A write run that a commit adopts.
#[derive(Debug, Clone)]
pub struct AdoptedRun {
    /// Its file, as it was spilled.
    pub entry: RunEntry,
    /// Its number among its owner's spills: a higher one is newer (S1).
    pub spill: u64,
    /// The owner's records in the log up to here are superseded by it (V1).
    pub through: Lsn,
    /// The owner's dead sub-transactions, as far as it has any of them (V4).
    pub dead: DeadSubs,
}

/// What recovery has read of the log, in the order of the log.
#[derive(Debug)]
pub enum Replay {
    /// Rows of commits.
    Memtable(Box<Memtable>),
    /// What a commit has adopted. Rows that it kept in memory come behind, in a memtable that has nothing of earlier
    /// commits.
    Adopted {
        /// The commit's stamp.
        stamp: Lsn,
        /// Whose they were.
        txn: UnfinishedTxn,
        /// The runs, in any order.
        runs: Vec<AdoptedRun>,
    },
}

impl From<Memtable> for Replay {
    fn from(memtable: Memtable) -> Self {
        Self::Memtable(Box::new(memtable))
    }
}

/// The group of what the commit of `txn` at `stamp` adopts.
pub(super) fn open_group(
    disk: &Arc<dyn Disk>,
    identity: Identity,
    stamp: Lsn,
    (txn, runs): (UnfinishedTxn, Vec<AdoptedRun>),
) -> Result<Group, StorageError> {
    let spill = |run: &AdoptedRun| SpillEntry {
        kind: Kind::Write,
        run: run.entry.clone(),
        parts: vec![SpillPart {
            owner: txn.txn,
            spill: run.spill,
            through: run.through,
            dead: run.dead.clone(),
        }],
    };
    let spills = runs.iter().map(spill).collect();
    let group = Group::new(stamp, open_runs(disk, identity, stamp, runs)?)?;
    Ok(group.of(OpenSpills { txn, spills }))
}

/// Spills as runs that a commit at `stamp` has adopted.
pub(super) fn open_runs(
    disk: &Arc<dyn Disk>,
    identity: Identity,
    stamp: Lsn,
    runs: Vec<AdoptedRun>,
) -> Result<Vec<Run>, StorageError> {
    let open = |run: AdoptedRun| {
        let AdoptedRun {
            entry, spill, dead, ..
        } = run;
        let spilled = ProvisionalRun::open(disk, identity, &entry)?;
        spilled.into_adopted(stamp, Adopted { spill, dead })
    };
    runs.into_iter().map(open).collect()
}

/// The layers of a store that begins with `replayed`, and the tail that they reach.
pub(super) fn layers(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
    replayed: Vec<Replay>,
) -> Result<(Stack, Lsn), StorageError> {
    let mut tail = manifest.flushed_through;
    // What commits before it have adopted is older than everything in a memtable.
    let mut adopted = Lsn::ZERO;
    let mut layers = Vec::with_capacity(replayed.len());
    for replay in replayed {
        match replay {
            Replay::Memtable(mut memtable) => {
                memtable.index(manifest.salt);
                let end = memtable.end().expect("recovery seals what it replays");
                assert!(
                    tail <= end && adopted.get() <= memtable.floor().get() + 1,
                    "W5: what is replayed comes oldest first, above what was flushed"
                );
                tail = end;
                layers.push(Layer::Memtable(Arc::from(memtable)));
            }
            // Its runs are in the tree, or what has become of them: nothing is adopted twice.
            Replay::Adopted { stamp, .. } if stamp <= manifest.flushed_through => {}
            Replay::Adopted { stamp, txn, runs } => {
                assert!(
                    tail < stamp,
                    "W5: what is replayed comes oldest first, above what was flushed"
                );
                let group = open_group(disk, manifest.identity(), stamp, (txn, runs))?;
                (tail, adopted) = (stamp, stamp);
                layers.push(Layer::Adopted(Arc::new(group)));
            }
        }
    }
    Ok((layers.into_iter().collect(), tail))
}
