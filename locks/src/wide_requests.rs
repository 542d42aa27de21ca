//! The part of the lock table that asks for what is wider than a row: ranges (K6) and tables (K7).
//!
//! Called by the engine. Waiting, time and the log are the caller's.
//! 1. A range under `Wait` is published as one that waits; under `NoWait` and `Wound` as one that asks, and is in nobody's way
//!    before it is granted or has won: nobody is refused, or dies, for what may still be refused itself. A table is decided in
//!    one hold of the latch.
//! 2. L7: a table is taken SHARED by [`LockTable::share`], with no latch; only while somebody holds or awaits it EXCLUSIVE does
//!    it queue, by [`LockTable::request_table`].
//! 3. There is no unlocking a table: it is held to the transaction's end. A range goes with its savepoint (L9).
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{FencingToken, TableId};

use crate::ask;
use crate::decision::{Blocker, Decision, RangeRequest, Refusal};
use crate::judge::{blocker, wound};
use crate::met::Met;
use crate::owner::{Holdings, Owner};
use crate::place::Place;
use crate::placing::Queued;
use crate::policy::Policy;
use crate::table::LockTable;
use crate::tables::{EXCLUSIVE, SHARED, TableBook, TableLock};
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
            let ticket = match request.policy {
                Policy::Wait => Ticket::new(want, wide.number()),
                Policy::NoWait | Policy::Wound => Ticket::asking(want, wide.number()),
            };
            let ticket = Arc::new(ticket);
            wide.publish(&mut books, owner, &ticket);
            ticket
        };
        holdings.wait_for(Arc::clone(&ticket));
        drop(holdings);
        let met = match self.look(&ticket, request.policy, wakes) {
            Ok(met) => met,
            Err(by) => return self.give_up(owner, &ticket, Refusal::WouldBlock(by), wakes),
        };
        let anyone_behind = met.is_behind;
        let met = met.into_obstacles();
        let decided = match (request.policy, met.first()) {
            (Policy::NoWait, Some((other, obstacle))) => {
                let by = Refusal::WouldBlock(blocker(other, obstacle.mode));
                Some(self.give_up(owner, &ticket, by, wakes))
            }
            (Policy::Wound, Some(_)) => Some(self.wound(owner, &ticket, wakes)),
            _ => None,
        };
        match decided {
            None | Some(Decision::Queued(_)) => {
                let queued = Queued {
                    ticket,
                    anyone_behind,
                    victims: Vec::new(),
                };
                self.queued(owner, queued, wakes)
            }
            Some(decided) => decided,
        }
    }

    /// K6: whom the range has met.
    ///
    /// # Errors
    /// `NoWait`: nobody, but rows in it come and go all the time, the last one of this one.
    fn look(&self, ticket: &Ticket, policy: Policy, wakes: &mut Wakes) -> Result<Met, Blocker> {
        let met = ask::ask_range(&self.shards, ticket.number(), wakes);
        if met.is_ok() || policy == Policy::NoWait {
            return met;
        }
        // L5: nobody was in its way when it looked: it has won, and waits for whoever comes in between.
        let mut books = self.shards.wide().latch();
        ticket.note_won();
        books.ranges.wait(ticket);
        drop(books);
        ask::ask_range(&self.shards, ticket.number(), wakes)
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
        let queued = {
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
            let slots = self.shards.slots();
            let (is_first, anyone_behind) = books.tables.enqueue(table, waiter.clone(), slots);
            let judged = loop {
                let judged = judge(&books.tables, &waiter, policy);
                if judged.is_err() || (policy == Policy::Wait && !is_first) {
                    break judged;
                }
                // Those before it may be void, or fit beside it.
                books.tables.ask(table.id(), wakes);
                // K1: it is granted, or was judged too early: who was in the way has ended since.
                if policy != Policy::NoWait || !ticket.is_waiting() {
                    break judged;
                }
            };
            // The flag falls in the same hold: nobody has met it.
            if judged.is_err() && ticket.try_cancel() {
                books.tables.leave_queue(table.id(), &ticket, wakes);
            }
            self.shards.wide().count_tables(&books);
            judged.map(|victims| Queued {
                ticket,
                anyone_behind,
                victims,
            })
        };
        match queued {
            Err(refusal) => Decision::Refused(refusal),
            Ok(queued) => {
                holdings.wait_for(Arc::clone(&queued.ticket));
                drop(holdings);
                self.queued(owner, queued, wakes)
            }
        }
    }

    /// The token of the owner's EXCLUSIVE lock on the table, once stamped.
    pub fn table_token(&self, owner: &Owner, table: TableId) -> Option<FencingToken> {
        self.shards.wide().latch().tables.token(table, owner)
    }

    /// Gives the owner's EXCLUSIVE lock on the table its fencing token, once its record is in the log.
    pub fn stamp_table(&self, owner: &Owner, table: TableId, token: FencingToken) {
        self.shards.wide().latch().tables.stamp(table, owner, token);
    }

    /// K1: a range that is not to be waited for goes again, unless it was granted meanwhile.
    fn give_up(
        &self,
        owner: &Arc<Owner>,
        ticket: &Arc<Ticket>,
        refusal: Refusal,
        wakes: &mut Wakes,
    ) -> Decision {
        match self.cancel(owner, ticket, wakes) {
            Outcome::Granted(grant) => Decision::Granted(grant),
            Outcome::Cancelled => Decision::Refused(refusal),
            Outcome::Ended => Decision::Refused(Refusal::Ended),
        }
    }
}

/// What the policy says of a table's waiter: whom it has wounded, or why it is refused.
fn judge(tables: &TableBook, waiter: &Waiter, policy: Policy) -> Result<Vec<Arc<Owner>>, Refusal> {
    let in_the_way = match policy {
        Policy::Wait => return Ok(Vec::new()),
        Policy::NoWait | Policy::Wound => tables.obstacles(waiter.ticket.target().table(), waiter),
    };
    match (policy, in_the_way.first()) {
        (Policy::NoWait, Some((other, obstacle))) => {
            Err(Refusal::WouldBlock(blocker(other, obstacle.mode)))
        }
        (Policy::Wound, Some(_)) => wound(waiter, in_the_way).map_err(Refusal::Conflict),
        _ => Ok(Vec::new()),
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
