//! A place in a queue, and how the wait ended.
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
use crate::target::Target;

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
    /// A request in `mode`, of something that was held so before.
    pub(crate) fn over(before: Option<Hold>, mode: LockMode, place: Place) -> Self {
        Self {
            fresh: before.is_none(),
            strengthened: before.is_none_or(|before| before.mode < mode),
            mode: before.map_or(mode, |before| before.mode.max(mode)),
            place,
        }
    }

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
    /// Whether the row is written: it may be new, so beside ranges that counts as `Update`.
    pub(crate) writes: bool,
    /// The sub-transaction that took or last strengthened it: a batch's rows have its token by that.
    pub(crate) sub: u32,
    /// [`UNSTAMPED`] until its own record is in the log, and of a batch's row for good.
    pub(crate) token: FencingToken,
}

impl Hold {
    /// L1: what one holds by two records: the stronger, and of two in one mode the older. So its token is the one that granted
    /// the mode, or last strengthened it; merged spills keep the same (V3).
    pub(crate) fn join(self, other: Self) -> Self {
        // What has no record yet is the newest.
        let age = |hold: Self| (hold.sub, hold.token == UNSTAMPED, hold.token);
        let is_other = (other.mode, age(self)) > (self.mode, age(other));
        Self {
            writes: self.writes || other.writes,
            ..if is_other { other } else { self }
        }
    }

    /// L2: whether it covers what is wanted, beside rows and beside ranges.
    pub(crate) fn covers(self, mode: LockMode, writes: bool) -> bool {
        self.mode >= mode && self.beside_ranges() >= beside_ranges(mode, writes)
    }

    /// The mode that ranges see.
    pub(crate) fn beside_ranges(self) -> LockMode {
        beside_ranges(self.mode, self.writes)
    }
}

/// The mode that ranges see: a write may insert.
pub(crate) fn beside_ranges(mode: LockMode, writes: bool) -> LockMode {
    if writes { LockMode::Update } else { mode }
}

/// What an owner held of a row before an acquisition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Before {
    /// In all: what makes the request an upgrade.
    pub(crate) held: Option<Hold>,
    /// L9: without what lies in runs, which a rollback leaves there.
    pub(crate) memory: Option<Hold>,
}

/// A queued request.
#[derive(Debug)]
pub struct Ticket {
    target: Target,
    /// Of a row; its entry stays as long as somebody waits.
    hash: u64,
    place: Place,
    /// What is held once it is granted.
    hold: Hold,
    sub: u32,
    before: Before,
    upgrade: bool,
    /// Nobody was ahead of it when it came.
    first: bool,
    /// The order of arrival, among all that queue and all ranges.
    number: u64,
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
/// It may still be refused, and is in nobody's way: a range that looks whether it must wait, where its policy forbids that.
const ASKING: u8 = 4;

/// LOCKING, "Retries": a waiter that has been overtaken so often is not overtaken again.
pub(crate) const OVERTAKEN_MAX: u32 = 10;

/// What a request asks for, with its hash and what the owner held before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    pub(crate) row: &'a RowKey,
    pub(crate) hash: u64,
    pub(crate) mode: LockMode,
    pub(crate) writes: bool,
    pub(crate) sub: u32,
    pub(crate) order: u64,
    pub(crate) policy: Policy,
    /// K2: what the owner itself has spilled of the row, if anything, has been brought in: it may queue, or be refused.
    pub(crate) own_is_known: bool,
}

impl Want<'_> {
    /// What is held once it is granted. One who held it in this mode, and now writes, keeps its token.
    pub(crate) fn hold(&self, before: Option<Hold>) -> Hold {
        let writes = self.writes || before.is_some_and(|before| before.writes);
        match before {
            Some(before) if before.mode >= self.mode => Hold { writes, ..before },
            _ => Hold {
                mode: self.mode,
                writes,
                sub: self.sub,
                token: UNSTAMPED,
            },
        }
    }

    pub(crate) fn granted(&self, place: Place, before: Option<Hold>) -> Grant {
        Grant::over(before, self.mode, place)
    }
}

/// A request that queues for something else than a row.
#[derive(Debug, Clone)]
pub(crate) struct WideWant {
    pub(crate) target: Target,
    pub(crate) mode: LockMode,
    pub(crate) sub: u32,
    pub(crate) upgrade: bool,
    pub(crate) order: u64,
}

impl Ticket {
    /// Of a row at `place`, of which its owner held `before`; `upgrade` if it held that, or a range around it.
    pub(crate) fn of_row(
        want: Want<'_>,
        before: Before,
        upgrade: bool,
        place: Place,
        number: u64,
    ) -> Self {
        let wide = WideWant {
            target: Target::Row(want.row.clone()),
            mode: want.mode,
            sub: want.sub,
            upgrade,
            order: want.order,
        };
        Self {
            hash: want.hash,
            place,
            hold: want.hold(before.held),
            before,
            ..Self::new(wide, number)
        }
    }

    /// That of one whom nobody is ahead of, if so.
    pub(crate) fn came_first_if(self, first: bool) -> Self {
        Self { first, ..self }
    }

    /// Whether nobody was ahead of it when it came: then it may not have to wait for long.
    pub fn came_first(&self) -> bool {
        self.first
    }

    /// Of a range that is in nobody's way until it is granted or [waits](Self::try_wait).
    pub(crate) fn asking(want: WideWant, number: u64) -> Self {
        Self {
            state: AtomicU8::new(ASKING),
            ..Self::new(want, number)
        }
    }

    /// Of a range or a table.
    pub(crate) fn new(want: WideWant, number: u64) -> Self {
        Self {
            target: want.target,
            hash: 0,
            place: Place::NONE,
            hold: Hold {
                mode: want.mode,
                writes: false,
                sub: want.sub,
                token: UNSTAMPED,
            },
            sub: want.sub,
            before: Before::default(),
            upgrade: want.upgrade,
            first: false,
            number,
            order: AtomicU64::new(want.order),
            won: AtomicBool::new(false),
            overtaken: AtomicU32::new(0),
            state: AtomicU8::new(WAITING),
        }
    }

    /// What is waited for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The row that is waited for, if it is one.
    pub fn row(&self) -> Option<&RowKey> {
        self.target.row()
    }

    /// The mode that is waited for.
    pub fn mode(&self) -> LockMode {
        self.hold.mode
    }

    /// Whether the row is to be written.
    pub fn writes(&self) -> bool {
        self.hold.writes
    }

    /// Whether the request waits, undecided.
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    /// Whether nothing has decided the request.
    pub(crate) fn is_undecided(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), WAITING | ASKING)
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

    /// L9: what was held in memory before it was granted.
    pub(crate) fn before(&self) -> Option<Hold> {
        self.before.memory
    }

    /// What is held once it is granted.
    pub(crate) fn hold(&self) -> Hold {
        self.hold
    }

    /// The mode that ranges see.
    pub(crate) fn beside_ranges(&self) -> LockMode {
        self.hold.beside_ranges()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// L3: the request of one that holds it in a weaker mode, by itself or by a range or table around it.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// Inheritance: whether `order` is higher than its own, which it then takes.
    pub(crate) fn raise(&self, order: u64) -> bool {
        self.order.fetch_max(order, Ordering::Relaxed) < order
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant::over(self.before.held, self.hold.mode, self.place)
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

    /// Whoever went ahead of it is gone, and counts no more.
    pub(crate) fn forget_overtaken(&self) {
        let overtaken = self.overtaken.load(Ordering::Relaxed);
        let left = overtaken.saturating_sub(1);
        self.overtaken.store(left, Ordering::Relaxed);
    }

    /// From asking to waiting. `false` if something has decided it.
    pub(crate) fn try_wait(&self) -> bool {
        self.is_waiting() || self.swap(ASKING, WAITING)
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
        // In this order: who asks may come to wait in between, and not the other way round.
        self.swap(ASKING, to) || self.swap(WAITING, to)
    }

    fn swap(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
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
            writes: false,
            sub: 0,
            order: 0,
            policy: Policy::Wait,
            own_is_known: true,
        };
        Ticket::of_row(want, Before::default(), false, Place::new(0, 0), 0)
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

    /// L1: whichever is met first: the stronger mode with its token, and of two in one mode the older's.
    #[test]
    fn two_records_have_the_token_that_granted_their_mode() {
        use LockMode::{NoKeyUpdate, Share};
        let hold = |mode, sub, token| Hold {
            mode,
            writes: false,
            sub,
            token: FencingToken::new(Lsn::new(token)),
        };
        let cases = [
            (hold(Share, 1, 10), hold(NoKeyUpdate, 2, 20), 20),
            (hold(NoKeyUpdate, 1, 10), hold(Share, 2, 20), 10),
            (hold(Share, 1, 10), hold(Share, 2, 20), 10),
            (hold(Share, 1, 10), hold(Share, 1, 20), 10),
            (
                hold(Share, 1, 10),
                Hold {
                    token: UNSTAMPED,
                    ..hold(Share, 1, 0)
                },
                10,
            ),
        ];
        for (older, newer, token) in cases {
            for joined in [older.join(newer), newer.join(older)] {
                assert_eq!(joined.token, FencingToken::new(Lsn::new(token)));
                assert_eq!(joined.mode, older.mode.max(newer.mode));
            }
        }
    }
}
