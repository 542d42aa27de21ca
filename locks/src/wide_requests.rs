//! The part of the lock table that asks for what is wider than a row: ranges (K6) and tables (K7).
//!
//! Called by the engine. Waiting, time and the log are the caller's.
//! 1. A request is published as one that waits, whatever its policy; then it asks, and what it is not granted it waits for or
//!    gives up.
//! 2. L7: a table is taken SHARED by [`LockTable::share`], with no latch; only while somebody holds or awaits it EXCLUSIVE does
//!    it queue, by [`LockTable::request_table`].
//! 3. There is no unlocking a table: it is held to the transaction's end. A range goes with its savepoint (L9).
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{FencingToken, TableId};

use crate::ask;
use crate::decision::{Blocker, Decision, RangeRequest, Refusal};
use crate::judge::blocker;
use crate::owner::{Holdings, Owner};
use crate::place::Place;
use crate::placing::Queued;
use crate::policy::Policy;
use crate::table::LockTable;
use crate::tables::{EXCLUSIVE, SHARED, TableLock};
use crate::target::{RowRange, Target};
use crate::ticket::{Grant, Outcome, Ticket, UNSTAMPED, WideWant};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// How a table is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableMode {
    /// As everyone who locks or writes in it.
    Shared,
    /// Alone.
    Exclusive,
}

impl LockTable {
    /// Asks for every row of a range, present or absent. Grants, queues or refuses; never waits.
    ///
    /// # Panics
    /// If the owner's rank is not settled, or if it waits already.
    pub fn request_range(
        &self,
        owner: &Arc<Owner>,
        request: RangeRequest<'_>,
        wakes: &mut Wakes,
    ) -> Decision {
        let mut holdings = owner.latch();
        if !may_ask(owner, &holdings) {
            return Decision::Refused(Refusal::Ended);
        }
        let wide = self.shards.wide();
        let ticket = {
            let mut books = wide.latch();
            let held = books.ranges.held_range(owner, request.range);
            if let Some((mode, _)) = held.filter(|(mode, _)| *mode >= request.mode) {
                return Decision::Granted(Grant::covered(mode, Place::NONE));
            }
            let want = WideWant {
                target: Target::Range(Arc::clone(request.range)),
                mode: request.mode,
                sub: request.sub,
                upgrade: held.is_some(),
                order: owner.order(),
            };
            let ticket = Arc::new(Ticket::new(want, wide.number()));
            wide.publish(&mut books, owner, &ticket);
            ticket
        };
        holdings.wait_for(Arc::clone(&ticket));
        drop(holdings);
        self.asked(owner, ticket, request.policy, wakes)
    }

    /// The token of the narrowest lock on the whole range that the owner took last, once stamped.
    pub fn range_token(&self, owner: &Owner, range: &RowRange) -> Option<FencingToken> {
        let held = self.shards.wide().latch().ranges.held_range(owner, range);
        held.map(|(_, token)| token)
            .filter(|token| *token != UNSTAMPED)
    }

    /// Gives the range that the owner took last its fencing token, once its record is in the log.
    pub fn stamp_range(&self, owner: &Owner, token: FencingToken) {
        let number = owner.latch().undo.last_range();
        if let Some(number) = number {
            self.shards.wide().latch().ranges.stamp(number, token);
        }
    }

    /// L7: takes a table SHARED, as whoever locks or writes in it does before. `false`: somebody holds or awaits it
    /// EXCLUSIVE, and it is to be asked for by [`LockTable::request_table`]. By the transaction's own thread alone, whose
    /// rank is settled.
    pub fn share(&self, owner: &Arc<Owner>, table: &TableLock) -> bool {
        if owner.tables().has_own(table.id()) {
            return true;
        }
        // K7: the set first, then the flag.
        owner.tables().insert(table.id());
        !table.is_raised() || self.keeps_sharing(owner, table.id())
    }

    /// Whether nobody wants the table any more; else SHARED is given back, and who waits for that is told.
    #[cold]
    fn keeps_sharing(&self, owner: &Arc<Owner>, table: TableId) -> bool {
        if !self.shards.wide().latch().tables.take_back(table, owner) {
            return true;
        }
        let mut wakes = Wakes::new();
        ask::ask_table(&self.shards, table, &mut wakes);
        false
    }

    /// Asks for a table. Grants, queues or refuses; never waits. First come, first served: only who holds it SHARED already
    /// goes to the front.
    ///
    /// # Panics
    /// As [`LockTable::request_range`].
    pub fn request_table(
        &self,
        owner: &Arc<Owner>,
        (table, mode): (&Arc<TableLock>, TableMode),
        policy: Policy,
        wakes: &mut Wakes,
    ) -> Decision {
        let mut holdings = owner.latch();
        if !may_ask(owner, &holdings) {
            return Decision::Refused(Refusal::Ended);
        }
        let mode = match mode {
            TableMode::Shared => SHARED,
            TableMode::Exclusive => EXCLUSIVE,
        };
        let shares = owner.tables().has_own(table.id());
        let ticket = {
            let mut books = self.shards.wide().latch();
            if books.tables.is_held(table.id(), owner) || (shares && mode == SHARED) {
                return Decision::Granted(Grant::covered(mode, Place::NONE));
            }
            let want = WideWant {
                target: Target::Table(table.id()),
                mode,
                sub: 0,
                upgrade: shares,
                order: owner.order(),
            };
            let ticket = Arc::new(Ticket::new(want, self.shards.wide().number()));
            let waiter = Waiter {
                owner: Arc::clone(owner),
                ticket: Arc::clone(&ticket),
            };
            books.tables.enqueue(table, waiter);
            self.shards.wide().count_tables(&books);
            ticket
        };
        holdings.wait_for(Arc::clone(&ticket));
        drop(holdings);
        self.asked(owner, ticket, policy, wakes)
    }

    /// The token of the owner's EXCLUSIVE lock on the table, once stamped.
    pub fn table_token(&self, owner: &Owner, table: TableId) -> Option<FencingToken> {
        self.shards.wide().latch().tables.token(table, owner)
    }

    /// Gives the owner's EXCLUSIVE lock on the table its fencing token, once its record is in the log.
    pub fn stamp_table(&self, owner: &Owner, table: TableId, token: FencingToken) {
        self.shards.wide().latch().tables.stamp(table, owner, token);
    }

    /// The request is published: asks, and does what the policy says if it is not granted.
    fn asked(
        &self,
        owner: &Arc<Owner>,
        ticket: Arc<Ticket>,
        policy: Policy,
        wakes: &mut Wakes,
    ) -> Decision {
        ask::ask(&self.shards, &ticket, wakes);
        if ticket.is_waiting() {
            let refused = match policy {
                Policy::Wait => None,
                Policy::NoWait => Some(self.give_up(owner, &ticket, wakes)),
                Policy::Wound => Some(self.wound(owner, &ticket, wakes)),
            };
            if let Some(decided) = refused.filter(|decided| !matches!(decided, Decision::Queued(_)))
            {
                return decided;
            }
        }
        let queued = Queued {
            ticket,
            // Who has seen it since it was published may wait for it.
            anyone_behind: true,
            victims: Vec::new(),
        };
        self.queued(owner, queued, wakes)
    }

    /// K1: `NoWait` leaves, and says who was in the way.
    fn give_up(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>, wakes: &mut Wakes) -> Decision {
        let waiter = Waiter {
            owner: Arc::clone(owner),
            ticket: Arc::clone(ticket),
        };
        let mut by: Option<Blocker> = None;
        while by.is_none() && ticket.is_waiting() && owner.is_active() {
            let in_the_way = ask::obstacles(&self.shards, &waiter);
            by = in_the_way
                .first()
                .map(|(other, obstacle)| blocker(other, obstacle.mode));
            if by.is_none() {
                // Whoever was in the way has just gone.
                ask::ask(&self.shards, ticket, wakes);
            }
        }
        match (self.cancel(owner, ticket, wakes), by) {
            (Outcome::Granted(grant), _) => Decision::Granted(grant),
            (Outcome::Cancelled, Some(by)) => Decision::Refused(Refusal::WouldBlock(by)),
            _ => Decision::Refused(Refusal::Ended),
        }
    }
}

/// Whether the owner goes on.
fn may_ask(owner: &Owner, holdings: &Holdings) -> bool {
    assert!(
        !owner.is_active() || holdings.waiting().is_none(),
        "K4: a transaction that waits asks for nothing"
    );
    owner.is_active()
}
