//! What a request comes to at its row: granted, queued, refused, or dead.
//!
//! Called by `shard`, under the row latch.
//! 1. K1: the row decides; if it blocks, the policy does.
//! 2. K4: a wait is published, and the holders told, before anybody is judged.
//!
//! Crash: memory only.

use std::sync::Arc;

use crate::decision::Blocker;
use crate::owner::Owner;
use crate::place::Place;
use crate::policy::Policy;
use crate::row_lock::{Blocked, RowLock, Verdict};
use crate::ticket::{Grant, Hold, Ticket, Want};
use crate::wait_queue::Waiter;
use crate::wide::Around;

/// What became of a request in its shard.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Re-entrant: what is held covers it.
    Covered(Grant),
    /// Held now; before, the hold in memory was this.
    Granted(Grant, Option<Hold>),
    /// In the queue.
    Queued(Queued),
    /// It would have queued.
    Refused(Blocker),
    /// Its rank does not exceed this one's.
    Died(Blocker),
    /// K2: it would have queued, or been refused; what its owner itself has spilled of the row is to be brought in first.
    OwnUnknown,
    /// K2: there are runs that were not looked at.
    Unknown,
}

/// A request that waits, or did for a moment.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) anyone_behind: bool,
    /// Whom it has wounded; their release passes are the caller's.
    pub(crate) victims: Vec<Arc<Owner>>,
}

/// Asks the row's lock.
pub(crate) fn ask(
    lock: &mut RowLock,
    owner: &Arc<Owner>,
    (want, place): (Want<'_>, Place),
    around: &mut Around<'_>,
) -> Placed {
    lock.settle(around);
    let Blocked {
        place: at,
        before,
        upgrade,
        by,
    } = match lock.decide(owner, &want, around) {
        Verdict::Covered(mode) => return Placed::Covered(Grant::covered(mode, place)),
        Verdict::Granted(before) => {
            return Placed::Granted(want.granted(place, before.held), before.memory);
        }
        Verdict::Blocked(_) if !want.own_is_known => return Placed::OwnUnknown,
        Verdict::Blocked(blocked) => blocked,
    };
    if want.policy == Policy::NoWait {
        return Placed::Refused(by);
    }
    let ticket = Ticket::of_row(want, before, upgrade, place, around.number());
    let ticket = Arc::new(ticket.came_first_if(at == 0));
    let waiter = Waiter {
        owner: Arc::clone(owner),
        ticket: Arc::clone(&ticket),
    };
    let anyone_behind = lock.enqueue(at, waiter.clone());
    // Registers with the holders, and looks at their states again.
    lock.settle(around);
    let judged = match want.policy {
        Policy::Wound => judge(lock, &waiter, around),
        Policy::Wait | Policy::NoWait => Ok(Vec::new()),
    };
    match judged {
        Err(blocker) => Placed::Died(blocker),
        Ok(victims) => Placed::Queued(Queued {
            ticket,
            anyone_behind,
            victims,
        }),
    }
}

/// Judges for a waiter; one that loses waits no more.
pub(crate) fn judge(
    lock: &mut RowLock,
    waiter: &Waiter,
    around: &mut Around<'_>,
) -> Result<Vec<Arc<Owner>>, Blocker> {
    let judged = lock.judge(waiter, around);
    if judged.is_err() {
        lock.die(&waiter.ticket, around);
    }
    judged
}
