//! Which spills are needed, and so which may go.
//!
//! Asked by recovery, with what it has read of the log; `Store::sweep_spills` removes the others.
//! 1. S6: a spill is needed if the manifest lists it or the log names it, the log does not say that another took its
//!    place, and one of its owners outlives a crash: it has committed behind `flushed_through`, is prepared or leased.

use std::collections::BTreeSet;

use lockstone_base::TxnId;

use super::state::Manifest;

/// A spill that the log names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedSpill {
    /// Its file's number.
    pub number: u64,
    /// Whose it is.
    pub owners: Vec<TxnId>,
    /// The files in whose place it is.
    pub replaces: Vec<u64>,
}

impl Manifest {
    /// S6: the numbers of the spills that are needed, where this is the newest durable manifest, `logged` is what
    /// the whole log names, and `outlives` tells whose spills outlive a crash.
    pub fn needed_spills(
        &self,
        logged: &[LoggedSpill],
        outlives: &dyn Fn(TxnId) -> bool,
    ) -> BTreeSet<u64> {
        let replaced: BTreeSet<_> = logged.iter().flat_map(|spill| &spill.replaces).collect();
        let listed = self.spills.iter().map(|spill| {
            let is_needed = spill.parts.iter().any(|part| outlives(part.owner));
            (spill.run.number, is_needed)
        });
        let named = logged.iter().map(|spill| {
            let is_needed = spill.owners.iter().any(|owner| outlives(*owner));
            (spill.number, is_needed)
        });
        let all = listed.chain(named);
        all.filter(|(number, is_needed)| *is_needed && !replaced.contains(number))
            .map(|(number, _)| number)
            .collect()
    }
}
