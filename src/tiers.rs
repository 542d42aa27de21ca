//! Tiers (V3): what one transaction has spilled again and again is merged, so that few files are asked for a row, be it by itself or by
//! others that want to lock it.
//!
//! Called by `spill`, behind each, in the transaction's own thread.
//! 1. V3: neighbours by the number of their spill, of one kind. Four of one tier become one of the next: of n spills about
//!    three times log₄ n are left, and each record was written log₄ n times.
//! 2. The merged files are durable before anybody knows them, and come in the step in which the others go.
//! 3. The old files go at once: a crash finds the commit, and so the record before it that names the new ones, or needs none of
//!    them (S6).
//! 4. F10: what cannot be merged stays as it is, and is tried again behind the next spill.
//!
//! Crash: the next open sweeps what nobody knows; else log or manifest names the merged files in the others' place.

use std::sync::atomic::Ordering;

use lockstone_storage::provisional::{MergeInput, ProvisionalRun, merge};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::spill_step::log_and_publish;
use crate::spilled::Tier;
use crate::txn_state::TxnState;

/// Merges as long as there is something to merge; whether there was.
pub(crate) fn settle(engine: &Engine, txn: &TxnState) -> Result<bool> {
    let mut has_merged = false;
    while let Some(tier) = txn.live.spilled.due() {
        let merged = match merged(engine, txn, &tier) {
            Ok(merged) => merged,
            Err(error) => {
                tracing::warn!(%error, "what a transaction has spilled stays as it is");
                break;
            }
        };
        if !log_and_publish(engine, txn, tier.note, merged, tier.inputs)? {
            break;
        }
        has_merged = true;
        engine.counters.spill_merges.fetch_add(1, Ordering::Relaxed);
    }
    Ok(has_merged)
}

/// All that is alive of the tier, as one spill that is durable.
fn merged(engine: &Engine, txn: &TxnState, tier: &Tier) -> Result<Vec<ProvisionalRun>> {
    let owner = txn.owner.id();
    let inputs = tier.inputs.runs.iter().zip(&tier.spills);
    let inputs = inputs.map(|(run, spill)| MergeInput {
        spill: *spill,
        run: run.with_dead(owner, &tier.dead),
    });
    let mut output = engine.store.spill(tier.kind, vec![owner]);
    merge(inputs.collect(), txn.savepoints(), &mut output)?;
    let entries = output.finish()?.into_iter();
    let open = |entry| engine.store.open_spill(&entry).map_err(Error::from);
    entries.map(open).collect()
}
