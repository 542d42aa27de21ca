//! K6: the ranges that are locked or waited for, in order of arrival, and what they have to do with rows and each other.
//!
//! Called under the latch of the wide locks, by `row_lock` for what is around its row, and by `ask`.
//! 1. L1: no range that is held conflicts with another's, or with a row of another's in it. Beside ranges a write counts as
//!    `Update`, for it may insert.
//! 2. L3: between a range and a row, or two ranges, who came first goes first; priorities decide in the queues of rows alone.
//!    A deadlock may turn that round for two of them (L4).
//! 3. A range that waits is registered with everyone who was in its way when it last looked, and not yet gone since: at
//!    least one. When the last of them goes it looks again.
//! 4. A row's waiter that a range is in the way of is on the contended stack of the range's owner.
//! 5. K5: ranges of owners that have ended decide nothing.
//!
//! Crash: memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey, TxnId};

use crate::matrix::conflicts;
use crate::owner::{Awaited, Owner};
use crate::target::{RowRange, Target};
use crate::ticket::{Ticket, UNSTAMPED};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Why a waiter waits for another transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) mode: LockMode,
    pub(crate) soft: bool,
}

/// Who stands in a waiter's way.
pub(crate) type InTheWay = (Arc<Owner>, Obstacle);

/// A range that is held or waited for: its ticket says which.
#[derive(Debug)]
struct RangeLock {
    owner: Arc<Owner>,
    ticket: Arc<Ticket>,
    range: Arc<RowRange>,
    token: FencingToken,
    /// With whom it is registered while it waits.
    registered: BTreeSet<TxnId>,
    /// The rows, with their hashes, that are on its owner's stack for its sake.
    rows: BTreeMap<RowKey, u64>,
    /// How often a row in it was granted past it while it waited: who looked before has to look again.
    changes: u64,
    /// Against whom it comes first, or does not, whatever their order of arrival: by number.
    turned: BTreeMap<u64, bool>,
}

impl RangeLock {
    fn is_granted(&self) -> bool {
        self.ticket.is_granted() && self.owner.binds()
    }

    fn is_waiting(&self) -> bool {
        self.ticket.is_waiting() && self.owner.is_active()
    }

    /// Whether it goes before one that has this number.
    fn goes_before(&self, number: u64, upgrade: bool) -> bool {
        let turned = self.turned.get(&number).copied();
        let first = self.ticket.is_upgrade() || self.ticket.number() < number;
        turned.unwrap_or(!upgrade && first)
    }

    fn obstacle(&self) -> Obstacle {
        Obstacle {
            mode: self.ticket.mode(),
            soft: !self.ticket.is_granted(),
        }
    }
}

/// A row that is asked for, as ranges see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowAsk<'a> {
    pub(crate) row: &'a RowKey,
    pub(crate) owner: &'a Owner,
    /// `Update`, if it is to be written.
    pub(crate) mode: LockMode,
    /// The largest number there is, if it has not queued.
    pub(crate) number: u64,
    /// It counts no waiters.
    pub(crate) upgrade: bool,
}

impl<'a> RowAsk<'a> {
    pub(crate) fn queued(row: &'a RowKey, owner: &'a Owner, ticket: &Ticket) -> Self {
        Self {
            row,
            owner,
            mode: ticket.beside_ranges(),
            number: ticket.number(),
            upgrade: ticket.is_upgrade(),
        }
    }
}

/// What a range that waits looks for in the shards.
#[derive(Debug, Clone)]
pub(crate) struct RangeLook {
    pub(crate) owner: Arc<Owner>,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) range: Arc<RowRange>,
    turned: BTreeMap<u64, bool>,
    changes: u64,
}

impl RangeLook {
    /// Whether the waiter of a row in the range goes before it.
    pub(crate) fn is_behind(&self, waiter: &Ticket) -> bool {
        let turned = self.turned.get(&waiter.number()).copied();
        let first =
            turned.unwrap_or(!waiter.is_upgrade() && self.ticket.number() < waiter.number());
        !first && !self.ticket.is_upgrade()
    }
}

/// What a look at everything has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is granted, or registered with whoever is in its way.
    Done,
    /// Something has changed since it began to look.
    Again,
}

/// All ranges of a database, by number.
#[derive(Debug, Default)]
pub(crate) struct RangeBook(BTreeMap<u64, RangeLock>);

impl RangeBook {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Publishes a range that waits.
    pub(crate) fn insert(&mut self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) {
        let Target::Range(range) = ticket.target() else {
            return;
        };
        let lock = RangeLock {
            owner: Arc::clone(owner),
            ticket: Arc::clone(ticket),
            range: Arc::clone(range),
            token: UNSTAMPED,
            registered: BTreeSet::new(),
            rows: BTreeMap::new(),
            changes: 0,
            turned: BTreeMap::new(),
        };
        let before = self.0.insert(ticket.number(), lock);
        assert!(before.is_none(), "K6: each range has a number of its own");
    }

    /// Takes the range away; the rows on its owner's stack for its sake.
    pub(crate) fn remove(&mut self, number: u64) -> Option<BTreeMap<RowKey, u64>> {
        self.0.remove(&number).map(|lock| lock.rows)
    }

    /// The strongest mode, with its token, in which `owner` holds a range that has the row.
    pub(crate) fn held(&self, owner: &Owner, row: &RowKey) -> Option<(LockMode, FencingToken)> {
        let own = self.own(owner).filter(|lock| lock.range.contains(row));
        own.map(|lock| (lock.ticket.mode(), lock.token)).max()
    }

    /// The strongest mode, with its token, in which `owner` holds a range that has all of this one.
    pub(crate) fn held_range(
        &self,
        owner: &Owner,
        range: &RowRange,
    ) -> Option<(LockMode, FencingToken)> {
        let own = self.own(owner).filter(|lock| range.is_within(&lock.range));
        own.map(|lock| (lock.ticket.mode(), lock.token)).max()
    }

    fn own(&self, owner: &Owner) -> impl Iterator<Item = &RangeLock> {
        let own = self.0.values().filter(move |lock| owner.is(&lock.owner));
        own.filter(|lock| lock.is_granted())
    }

    pub(crate) fn stamp(&mut self, number: u64, token: FencingToken) {
        if let Some(lock) = self.0.get_mut(&number) {
            lock.token = token;
        }
    }

    /// L1, L3: the ranges in the way of a row: those that are held, and those that wait and go before it.
    fn in_the_way_of(&self, ask: RowAsk<'_>) -> impl Iterator<Item = (u64, &RangeLock)> {
        let around = self.0.iter().map(|(number, lock)| (*number, lock));
        let around = around.filter(move |(_, lock)| {
            lock.range.contains(ask.row)
                && !ask.owner.is(&lock.owner)
                && conflicts(ask.mode, lock.ticket.mode())
        });
        around.filter(move |(_, lock)| {
            lock.is_granted() || (lock.is_waiting() && lock.goes_before(ask.number, ask.upgrade))
        })
    }

    /// Who is in the row's way: those who hold ranges, and those who wait for them before it.
    pub(crate) fn obstacles_of_row(
        &self,
        ask: RowAsk<'_>,
    ) -> impl Iterator<Item = (&Arc<Owner>, Obstacle)> {
        let locks = self.in_the_way_of(ask).map(|(_, lock)| lock);
        locks.map(|lock| (&lock.owner, lock.obstacle()))
    }

    /// K4: puts the row on the stack of the owner of each range in its way. `false` if one of them has ended since.
    pub(crate) fn register_row(&mut self, hash: u64, ask: RowAsk<'_>) -> bool {
        let numbers: Vec<u64> = self.in_the_way_of(ask).map(|(number, _)| number).collect();
        let mut stands = true;
        for number in numbers {
            if let Some(lock) = self.0.get_mut(&number) {
                if lock.rows.insert(ask.row.clone(), hash).is_none() {
                    let row = Awaited::Row(hash, ask.row.clone());
                    lock.owner.push_contended(row);
                }
                stands &= lock.owner.binds();
            }
        }
        stands
    }

    /// The row is granted, maybe past a range that waits: by an upgrade, within an own range, or because it came first.
    pub(crate) fn note_grant(&mut self, ask: RowAsk<'_>) {
        for lock in self.0.values_mut() {
            if lock.ticket.is_waiting()
                && lock.range.contains(ask.row)
                && conflicts(ask.mode, lock.ticket.mode())
            {
                lock.changes += 1;
            }
        }
    }

    /// What the range looks for, while it waits.
    pub(crate) fn look(&self, number: u64) -> Option<RangeLook> {
        let lock = self.0.get(&number).filter(|lock| lock.is_waiting())?;
        Some(RangeLook {
            owner: Arc::clone(&lock.owner),
            ticket: Arc::clone(&lock.ticket),
            range: Arc::clone(&lock.range),
            turned: lock.turned.clone(),
            changes: lock.changes,
        })
    }

    /// Those who hold, or wait before it for, ranges that this one conflicts with.
    pub(crate) fn obstacles_of_range(&self, number: u64) -> Vec<InTheWay> {
        let Some(own) = self.0.get(&number) else {
            return Vec::new();
        };
        let mode = own.ticket.mode();
        let others = self.0.values().filter(|lock| {
            lock.range.overlaps(&own.range)
                && !own.owner.is(&lock.owner)
                && conflicts(mode, lock.ticket.mode())
        });
        let upgrade = own.ticket.is_upgrade();
        let others = others.filter(|lock| {
            lock.is_granted() || (lock.is_waiting() && lock.goes_before(number, upgrade))
        });
        others
            .map(|lock| (Arc::clone(&lock.owner), lock.obstacle()))
            .collect()
    }

    /// K6: what was met on the way through the shards, and the other ranges, decide: nobody, and nothing was granted past it
    /// meanwhile: granted. Else it is registered with all; once each of them was registered before it was met, it may wait.
    pub(crate) fn conclude(
        &mut self,
        look: &RangeLook,
        met: &[InTheWay],
        wakes: &mut Wakes,
    ) -> Asked {
        let number = look.ticket.number();
        let ranges = self.obstacles_of_range(number);
        let Some(lock) = self.0.get_mut(&number).filter(|lock| lock.is_waiting()) else {
            return Asked::Done;
        };
        let mut asked = Asked::Done;
        let before = std::mem::take(&mut lock.registered);
        for (owner, _) in met.iter().chain(&ranges) {
            if lock.registered.insert(owner.id()) && !before.contains(&owner.id()) {
                owner.push_contended(Awaited::Range(number));
                asked = Asked::Again;
            }
        }
        if !met.is_empty() || !ranges.is_empty() {
            return asked;
        }
        if lock.changes != look.changes {
            return Asked::Again;
        }
        if lock.ticket.try_grant() {
            wakes.add(&lock.owner);
        }
        Asked::Done
    }

    /// One with whom the range may be registered has ended, or gave something back. Whether it is to look again.
    pub(crate) fn left(&mut self, number: u64, owner: TxnId) -> bool {
        let lock = self.0.get_mut(&number);
        lock.is_some_and(|lock| {
            lock.registered.remove(&owner);
            lock.registered.is_empty() && lock.ticket.is_waiting()
        })
    }

    /// L4: from now on the range goes before the one with `other` as its number, or does not.
    pub(crate) fn turn(&mut self, number: u64, other: u64, first: bool) {
        if let Some(lock) = self.0.get_mut(&number) {
            lock.turned.insert(other, first);
            // Who has looked already saw the order of before.
            lock.changes += 1;
        }
    }

    /// In order of arrival: who holds, and who waits, with the token of the first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Waiter, FencingToken)> {
        let live = self
            .0
            .values()
            .filter(|lock| lock.is_granted() || lock.is_waiting());
        live.map(|lock| {
            let (owner, ticket) = (Arc::clone(&lock.owner), Arc::clone(&lock.ticket));
            (Waiter { owner, ticket }, lock.token)
        })
    }

    /// Inheritance: what the range that waits is queued with.
    pub(crate) fn order(&self, number: u64) -> Option<u64> {
        self.0.get(&number).map(|lock| lock.ticket.order())
    }
}
