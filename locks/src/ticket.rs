//! A place in the queue of one row, and how the wait ended.
//!
//! Made by `table` when a request queues; the caller keeps it while its thread sleeps.
//! 1. K4: grant, timeout and abort race on one compare-and-swap; what it decided stays.
//! 2. It knows nothing of its owner, so an owner may keep its ticket without a cycle of references.
//!
//! Crash: memory only; waiters vanish with the process.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use lockstone_base::{FencingToken, LockMode, Lsn, RowKey};

use crate::place::Place;
use crate::policy::Policy;

/// A granted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The row was not held before.
    pub fresh: bool,
    /// The lock is new or stronger than before, so it needs a record in the log; `false` when the
    /// mode was covered already.
    pub strengthened: bool,
    /// The mode now held.
    pub mode: LockMode,
    /// Where the row's entry is, for [`LockTable::stamp`](crate::LockTable::stamp).
    pub place: Place,
}

impl Grant {
    /// L2: what is held, in `mode`, covers the request.
    pub(crate) fn covered(mode: LockMode, place: Place) -> Self {
        Self {
            fresh: false,
            strengthened: false,
            mode,
            place,
        }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The lock is held.
    Granted(Grant),
    /// The wait was cancelled; what was held before is still held.
    Cancelled,
    /// The transaction ended; it holds nothing.
    Ended,
}

/// What a lock's token is before its record is in the log.
pub(crate) const UNSTAMPED: FencingToken = FencingToken::new(Lsn::ZERO);

/// What was held of a row before an acquisition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) mode: LockMode,
    /// The sub-transaction that took or last strengthened it: a batch's rows have its token by that.
    pub(crate) sub: u32,
    /// [`UNSTAMPED`] until its own record is in the log, and of a batch's row for good.
    pub(crate) token: FencingToken,
}

/// A queued request.
#[derive(Debug)]
pub struct Ticket {
    row: RowKey,
    hash: u64,
    /// The row's entry, which stays as long as somebody waits.
    place: Place,
    mode: LockMode,
    sub: u32,
    before: Option<Hold>,
    /// By the owner's rank, or a higher one that it has inherited; a higher number goes first. Changed under the row latch
    /// only.
    order: AtomicU64,
    /// `Wound`: it was judged once to be stronger than all in its way, and dies no more. Changed under the row latch only.
    won: AtomicBool,
    /// How often a later request went ahead. Changed under the row latch only.
    overtaken: AtomicU32,
    state: AtomicU8,
}

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const CANCELLED: u8 = 2;
const ENDED: u8 = 3;

/// LOCKING, "Retries": a waiter that has been overtaken so often is not overtaken again.
pub(crate) const OVERTAKEN_MAX: u32 = 10;

/// What a request asks for, with its hash and what the owner held before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    pub(crate) row: &'a RowKey,
    pub(crate) hash: u64,
    pub(crate) mode: LockMode,
    pub(crate) sub: u32,
    pub(crate) before: Option<Hold>,
    pub(crate) order: u64,
    pub(crate) policy: Policy,
}

impl Want<'_> {
    /// What is held once it is granted.
    pub(crate) fn hold(&self) -> Hold {
        Hold {
            mode: self.mode,
            sub: self.sub,
            token: UNSTAMPED,
        }
    }

    pub(crate) fn granted(&self, place: Place, fresh: bool) -> Grant {
        Grant {
            fresh,
            strengthened: true,
            mode: self.mode,
            place,
        }
    }
}

impl Ticket {
    pub(crate) fn new(want: Want<'_>, place: Place) -> Self {
        Self {
            row: want.row.clone(),
            hash: want.hash,
            place,
            mode: want.mode,
            sub: want.sub,
            before: want.before,
            order: AtomicU64::new(want.order),
            won: AtomicBool::new(false),
            overtaken: AtomicU32::new(0),
            state: AtomicU8::new(WAITING),
        }
    }

    /// The row that is waited for.
    pub fn row(&self) -> &RowKey {
        &self.row
    }

    /// The mode that is waited for.
    pub fn mode(&self) -> LockMode {
        self.mode
    }

    /// Whether the request is still undecided.
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    /// Whether the wait ended with the lock. The owner takes it by
    /// [`LockTable::outcome`](crate::LockTable::outcome).
    pub fn is_granted(&self) -> bool {
        self.state.load(Ordering::Acquire) == GRANTED
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) == CANCELLED
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn sub(&self) -> u32 {
        self.sub
    }

    pub(crate) fn before(&self) -> Option<Hold> {
        self.before
    }

    /// L3: the request of one that holds the row in a weaker mode.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.before.is_some()
    }

    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// Inheritance: whether `order` is higher than its own, which it then takes.
    pub(crate) fn raise(&self, order: u64) -> bool {
        self.order.fetch_max(order, Ordering::Relaxed) < order
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant {
            fresh: self.before.is_none(),
            strengthened: true,
            mode: self.mode,
            place: self.place,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn has_won(&self) -> bool {
        self.won.load(Ordering::Relaxed)
    }

    pub(crate) fn note_won(&self) {
        self.won.store(true, Ordering::Relaxed);
    }

    pub(crate) fn may_be_overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Relaxed) < OVERTAKEN_MAX
    }

    pub(crate) fn note_overtaken(&self) {
        self.overtaken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn forget_overtaken(&self) {
        self.overtaken.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn try_grant(&self) -> bool {
        self.decide(GRANTED)
    }

    pub(crate) fn try_cancel(&self) -> bool {
        self.decide(CANCELLED)
    }

    pub(crate) fn try_end(&self) -> bool {
        self.decide(ENDED)
    }

    fn decide(&self, to: u8) -> bool {
        self.state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstone_base::TableId;

    fn ticket() -> Ticket {
        let want = Want {
            row: &RowKey::new(TableId(1), b"a"),
            hash: 0,
            mode: LockMode::Share,
            sub: 0,
            before: None,
            order: 0,
            policy: Policy::Wait,
        };
        Ticket::new(want, Place::new(0, 0))
    }

    #[test]
    fn the_first_decision_stays() {
        type Decide = fn(&Ticket) -> bool;
        let ways: [Decide; 3] = [Ticket::try_grant, Ticket::try_cancel, Ticket::try_end];
        for first in ways {
            let ticket = ticket();
            assert!(ticket.is_waiting() && first(&ticket));
            assert!(ways.iter().all(|later| !later(&ticket)));
            assert!(!ticket.is_waiting());
        }
    }
}
