//! What a manifest says of spills and of the transactions that they belong to.
//!
//! Part of a manifest's state.
//! 1. S4: a spill is listed with what it is to each of its owners, and supersedes their log records as its `Spill`
//!    does; each owner is among the unfinished transactions, whose state is the engine's and opaque here.

use bytes::Bytes;
use lockstone_base::{Lsn, TxnId};

use crate::dead_subs::DeadSubs;
use crate::provisional::Kind;
use crate::run::{Origin, RunEntry};

/// A provisional run, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillEntry {
    /// What it holds.
    pub kind: Kind,
    /// Its file.
    pub run: RunEntry,
    /// What it is to each of its owners, ascending: one owner, unless the run is mixed. Of a mixed one those that have
    /// ended may be left out.
    pub parts: Vec<SpillPart>,
}

/// What a provisional run is to one of its owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillPart {
    /// The transaction.
    pub owner: TxnId,
    /// Its number among the owner's spills: a higher one is newer.
    pub spill: u64,
    /// It supersedes the owner's provisional records in the log at or below.
    pub through: Lsn,
    /// The owner's sub-transactions that are dead, as far as the spill has any of them (V4).
    pub dead: DeadSubs,
}

/// A transaction that had not ended by `flushed_through`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedTxn {
    /// The transaction.
    pub txn: TxnId,
    /// What the engine has to know of it.
    pub state: Bytes,
}

/// A transaction that had not ended by `flushed_through`, with all that it has spilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSpills {
    /// The transaction.
    pub txn: UnfinishedTxn,
    /// Its spills; none are left of one that was rolled back to before them.
    pub spills: Vec<SpillEntry>,
}

/// The first rule that they break.
pub(super) fn broken_rule(
    spills: &[SpillEntry],
    unfinished: &[UnfinishedTxn],
) -> Option<&'static str> {
    let is_known = |part: &SpillPart| {
        let found = unfinished.binary_search_by_key(&part.owner, |it| it.txn);
        found.is_ok()
    };
    let has_owners = |spill: &SpillEntry| {
        let parts = &spill.parts;
        parts.is_sorted_by(|a, b| a.owner < b.owner)
            && (parts.len() == 1 || spill.kind == Kind::Mixed && !parts.is_empty())
    };
    let rules = [
        (
            unfinished.is_sorted_by(|a, b| a.txn < b.txn),
            "S4: the transactions do not ascend",
        ),
        (
            spills
                .iter()
                .all(|spill| spill.run.origin == Origin::Provisional),
            "S1: a spill is none, or was adopted",
        ),
        (
            spills.iter().all(has_owners),
            "V2: a spill has another number of owners than its kind",
        ),
        (
            spills.iter().flat_map(|spill| &spill.parts).all(is_known),
            "S4: a spill's owner is not among the transactions",
        ),
    ];
    let mut rules = rules.into_iter();
    rules.find_map(|(holds, rule)| (!holds).then_some(rule))
}
