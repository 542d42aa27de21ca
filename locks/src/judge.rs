//! `Wound`: who dies when somebody stronger wants what he has.
//!
//! Called under the latch of what is wanted: by `row_lock`, and by `table` for ranges and tables.
//! 1. L5: all are judged, then wounded, each by one compare-and-swap. Nobody is wounded by one that dies.
//!
//! Crash: holds no state.

use std::sync::Arc;

use lockstone_base::LockMode;

use crate::decision::Blocker;
use crate::owner::{AbortCause, Owner};
use crate::ranges::{InTheWay, Obstacle};
use crate::wait_queue::Waiter;

/// L5, `Wound`: judges all of these, then wounds them. One that is already committing is neither: it is waited for. Nobody is
/// wounded by one that dies.
pub(crate) fn wound(
    waiter: &Waiter,
    in_the_way: Vec<InTheWay>,
) -> Result<Vec<Arc<Owner>>, Blocker> {
    let Waiter { owner, ticket } = waiter;
    if !owner.is_active() {
        return Ok(Vec::new()); // It ended while it waited, and wounds for nobody.
    }
    let rank = owner.settled_rank();
    let active = in_the_way
        .into_iter()
        .filter(|(other, _)| other.is_active());
    let active: Vec<InTheWay> = active.collect();
    let stronger = |(other, _): &&InTheWay| !rank.exceeds(other.settled_rank());
    if let Some((other, obstacle)) = active.iter().find(stronger) {
        // Who has won once waits for whoever came in between, and does not die of him.
        return if ticket.has_won() {
            Ok(Vec::new())
        } else {
            Err(blocker(other, obstacle.mode))
        };
    }
    let wounded = |other: &Arc<Owner>| other.try_abort(AbortCause::Wounded { by: owner.id() });
    let victims = active.into_iter().map(|(other, _)| other);
    let victims = victims.filter(wounded).collect();
    ticket.note_won();
    Ok(victims)
}

pub(crate) fn blocker_of(in_the_way: Option<(&Arc<Owner>, Obstacle)>) -> Option<Blocker> {
    in_the_way.map(|(owner, obstacle)| blocker(owner, obstacle.mode))
}

pub(crate) fn blocker(owner: &Arc<Owner>, mode: LockMode) -> Blocker {
    Blocker {
        txn: owner.id(),
        rank: owner.settled_rank(),
        label: owner.label().cloned(),
        mode,
    }
}
