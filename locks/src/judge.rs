//! `Wound`: who dies when somebody stronger wants what he has.
//!
//! Called under the latch of what is wanted: by `row_lock`, `ranges` and `tables`, and by `table` for ranges and tables.
//! 1. L5: all are judged, then wounded, each by one compare-and-swap. Nobody is wounded by one that dies. Of one that is prepared
//!    everybody dies, whatever the ranks.
//!
//! Crash: holds no state.

use std::sync::Arc;

use lockstone_base::LockMode;

use crate::decision::Blocker;
use crate::met::{InTheWay, Obstacle};
use crate::owner::{AbortCause, Owner};
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
    if let Some(stronger) = stronger(owner, &in_the_way) {
        // Who has won once waits for whoever came in between, and does not die of him.
        return if ticket.has_won() {
            Ok(Vec::new())
        } else {
            Err(stronger)
        };
    }
    let wounded = |other: &Arc<Owner>| other.try_abort(AbortCause::Wounded { by: owner.id() });
    let victims = in_the_way.into_iter().map(|(other, _)| other);
    let victims = victims.filter(wounded).collect();
    ticket.note_won();
    Ok(victims)
}

/// Whether `owner`, which has won and waits, is to be woken because of these: only if it would wound somebody. So each call takes
/// somebody out of its way.
pub(crate) fn is_called<'a>(
    owner: &Owner,
    in_the_way: impl Iterator<Item = &'a Arc<Owner>>,
) -> bool {
    let rank = owner.settled_rank();
    let mut active = in_the_way.filter(|other| other.is_active()).peekable();
    active.peek().is_some() && active.all(|other| rank.exceeds(other.settled_rank()))
}

/// One of these whom `owner` must not wound.
pub(crate) fn stronger(owner: &Owner, in_the_way: &[InTheWay]) -> Option<Blocker> {
    let rank = owner.settled_rank();
    let stronger = in_the_way.iter().find(|(other, _)| other.withstands(rank));
    stronger.map(|(other, obstacle)| blocker(other, obstacle.mode))
}

pub(crate) fn blocker_of(in_the_way: Option<(&Arc<Owner>, Obstacle)>) -> Option<Blocker> {
    in_the_way.map(|(owner, obstacle)| blocker(owner, obstacle.mode))
}

pub(crate) fn blocker(owner: &Owner, mode: LockMode) -> Blocker {
    Blocker {
        txn: owner.id(),
        rank: owner.settled_rank(),
        label: owner.label().cloned(),
        mode,
    }
}
