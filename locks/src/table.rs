//! The lock table: requests in, decisions out.
//!
//! Called by the engine's write path. Waiting, time and the log are the caller's. Ranges and tables: `wide_requests`.
//! 1. K1, L1, L2, L3: decided by `row_lock` under the row latch, of many rows in one hold too.
//! 2. K5: an acquisition joins its owner under the owner's latch, and only while Active.
//! 3. L4: whoever queues searches before its thread sleeps.
//! 4. L6: whoever's wait is decided is in the caller's [`Wakes`].
//!
//! Latch order: owner, then shard, then the wide locks; never two owners. Crash: memory only.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::{FencingToken, LockMode, RowKey, TxnId};

use crate::ask;
use crate::cycle::Cycle;
use crate::decision::{Blocker, Decision, Refusal, Request};
use crate::judge::{stronger, wound};
use crate::life::OwnerState;
use crate::lookup;
use crate::owner::{AbortCause, Notify, Owner};
use crate::place::Place;
use crate::placing::{Placed, Queued};
use crate::release::{self, Leftovers, RELEASED_AT_ONCE_MAX};
use crate::shards::{SHARDS, Shards};
use crate::standoff::Standoffs;
use crate::tables::EXCLUSIVE;
use crate::target::Target;
use crate::ticket::{Hold, Outcome, Ticket, UNSTAMPED, Want};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

#[cfg(test)]
mod tests;

/// All locks of a database.
#[derive(Debug)]
pub struct LockTable {
    pub(crate) shards: Shards,
    pub(crate) leftovers: Leftovers,
    standoffs: Standoffs,
    wounds: AtomicU64,
}

impl LockTable {
    /// An empty table. `seed` should be random, so that nobody can aim keys at one shard.
    pub fn new(seed: u64) -> Self {
        Self::releasing_at_once(RELEASED_AT_ONCE_MAX, seed)
    }

    fn releasing_at_once(rows: usize, seed: u64) -> Self {
        Self {
            shards: Shards::new(seed),
            leftovers: Leftovers::new(rows),
            standoffs: Standoffs::default(),
            wounds: AtomicU64::new(0),
        }
    }

    /// A transaction that holds nothing yet. `notify` is called when a wait of it is decided. Its
    /// rank is settled ([`Owner::settle`]) before its first request.
    pub fn begin(&self, id: TxnId, label: Option<Arc<str>>, notify: Arc<dyn Notify>) -> Arc<Owner> {
        let seat = self.shards.slots().take();
        let owner = Arc::new(Owner::new(id, label, notify, seat));
        owner.seat().occupy(&owner);
        owner
    }

    /// Asks for a row. Grants, queues or refuses; never waits.
    ///
    /// # Panics
    ///
    /// If the owner's rank is not settled, if it waits already, or if a sub-transaction number
    /// falls.
    pub fn request(&self, owner: &Arc<Owner>, request: Request<'_>, wakes: &mut Wakes) -> Decision {
        let mut want = Want {
            row: request.row,
            hash: self.shards.hash(request.row),
            mode: request.mode,
            writes: request.writes,
            sub: request.sub,
            order: owner.order(),
            policy: request.policy,
            own_is_known: false,
        };
        let (mut looked, mut own_is_known) = (None, false);
        loop {
            let mut holdings = owner.latch();
            if !owner.is_active() {
                return Decision::Refused(Refusal::Ended);
            }
            assert!(
                holdings.waiting().is_none(),
                "K4: a transaction that waits asks for nothing"
            );
            want.own_is_known = own_is_known || holdings.spilled.runs == 0;
            let mut latch = self.shards.latch(want.hash);
            let placed = if self.shards.runs().are_known(looked) {
                self.leftovers.sweep_before(&mut latch, 1);
                latch.request(owner, want, wakes)
            } else {
                Placed::Unknown
            };
            drop(latch);
            match placed {
                Placed::Covered(grant) => return Decision::Granted(grant),
                Placed::Refused(blocker) => {
                    return Decision::Refused(Refusal::WouldBlock(blocker));
                }
                Placed::Granted(grant, before) => {
                    holdings.undo.push(grant.place, request.sub, before);
                    return Decision::Granted(grant);
                }
                Placed::Died(blocker) => return Decision::Refused(Refusal::Conflict(blocker)),
                Placed::Queued(queued) => {
                    holdings.wait_for(Arc::clone(&queued.ticket));
                    drop(holdings);
                    return self.queued(owner, queued, wakes);
                }
                // K2: what it says is to be looked up holds no latch.
                Placed::Unknown => {
                    drop(holdings);
                    match lookup::look(&self.shards, owner, &want) {
                        Ok(epoch) => (looked, own_is_known) = (Some(epoch), false),
                        Err(refusal) => return Decision::Refused(refusal),
                    }
                }
                Placed::OwnUnknown => {
                    drop(holdings);
                    let row = (want.hash, want.row);
                    if let Err(error) = lookup::look_for_own(&self.shards, owner, row) {
                        return Decision::Refused(Refusal::Unreadable(error));
                    }
                    own_is_known = true;
                }
            }
        }
    }

    /// A row is going to be asked for soon: a hint, which costs little and may be wrong. The row is in two parts.
    pub fn expect(&self, row: (&[u8], &[u8])) {
        if let Some(row) = RowKey::in_place(row.0, row.1) {
            self.shards.expect(self.shards.hash(&row));
        }
    }

    /// L4: the wait is published; now the search.
    pub(crate) fn queued(&self, owner: &Arc<Owner>, queued: Queued, wakes: &mut Wakes) -> Decision {
        let Queued {
            ticket,
            anyone_behind,
            victims,
        } = queued;
        self.wounded(&victims, wakes);
        let start = Waiter {
            owner: Arc::clone(owner),
            ticket: Arc::clone(&ticket),
        };
        if start.is_live() {
            let release = |victim: &Arc<Owner>, wakes: &mut Wakes| self.release(victim, wakes);
            let cycle = self
                .standoffs
                .queued(&self.shards, &start, anyone_behind, wakes, release);
            if let Some(cycle) = cycle {
                return Decision::Refused(Refusal::Deadlock(cycle));
            }
        }
        match self.outcome(owner, &ticket) {
            Some(Outcome::Granted(grant)) => Decision::Granted(grant),
            Some(_) => Decision::Refused(Refusal::Ended),
            None => Decision::Queued(ticket),
        }
    }

    /// A request that has waited long enough goes on as one under [`Policy::Wound`](crate::Policy), from its place in the
    /// queue. `Queued` with the same ticket: it waits for one that is committing.
    pub fn wound(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>, wakes: &mut Wakes) -> Decision {
        let waiter = Waiter {
            owner: Arc::clone(owner),
            ticket: Arc::clone(ticket),
        };
        let judged = self.judge(&waiter, wakes);
        let victims = judged.as_deref().unwrap_or_default();
        self.wounded(victims, wakes);
        match (self.outcome(owner, ticket), judged) {
            (Some(Outcome::Granted(grant)), _) => Decision::Granted(grant),
            (Some(Outcome::Cancelled), Err(blocker)) => {
                Decision::Refused(Refusal::Conflict(blocker))
            }
            (Some(_), _) => Decision::Refused(Refusal::Ended),
            (None, _) => Decision::Queued(Arc::clone(ticket)),
        }
    }

    /// The victims' release passes.
    fn wounded(&self, victims: &[Arc<Owner>], wakes: &mut Wakes) {
        self.wounds
            .fetch_add(victims.len() as u64, Ordering::Relaxed);
        for victim in victims {
            self.release(victim, wakes);
        }
    }

    /// How many transactions were wounded.
    pub fn wounds(&self) -> u64 {
        self.wounds.load(Ordering::Relaxed)
    }

    /// Whom the waiter has wounded, or to whom it has lost; then it waits no more.
    fn judge(&self, waiter: &Waiter, wakes: &mut Wakes) -> Result<Vec<Arc<Owner>>, Blocker> {
        let Waiter { owner, ticket } = waiter;
        if ticket.row().is_some() {
            let judged = self.shards.latch(ticket.hash()).judge(waiter, wakes);
            if ticket.is_cancelled() {
                ask::left(&self.shards, owner, slice::from_ref(ticket.target()), wakes);
            }
            return judged;
        }
        let judged = self.judge_wide(waiter);
        if ticket.is_cancelled() {
            ask::withdraw(&self.shards, ticket, wakes);
            ask::left(&self.shards, owner, slice::from_ref(ticket.target()), wakes);
        } else {
            ask::ask(&self.shards, ticket, wakes);
        }
        judged
    }

    fn judge_wide(&self, waiter: &Waiter) -> Result<Vec<Arc<Owner>>, Blocker> {
        let Waiter { owner, ticket } = waiter;
        // A range that loses already by a look at one thing after the other stops nobody.
        if !ticket.has_won()
            && let Target::Range(_) = ticket.target()
        {
            let in_the_way = ask::met_by_range(&self.shards, ticket.number()).into_obstacles();
            if let Some(blocker) = stronger(owner, &in_the_way) {
                self.try_cancel(ticket);
                return Err(blocker);
            }
        }
        // All of them in one hold, as for a row.
        let mut latched = self.shards.latch_all([waiter].into_iter());
        let in_the_way = latched.obstacles(waiter);
        let judged = wound(waiter, in_the_way);
        match judged {
            Err(_) => drop(ticket.try_cancel()),
            Ok(_) => drop(latched.books.ranges.wait(ticket)),
        }
        judged
    }

    /// The last deadlocks that cost a victim, the newest last.
    pub fn recent_deadlocks(&self) -> Vec<Arc<Cycle>> {
        self.standoffs.recent()
    }

    /// How the wait ended; `None` while it lasts. Taking a grant makes the lock part of the
    /// transaction, so ask with the owner that made the request, until the answer is `Some`.
    pub fn outcome(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) -> Option<Outcome> {
        if ticket.is_undecided() && owner.is_active() {
            return None;
        }
        let mut holdings = owner.latch();
        if !owner.is_active() {
            return Some(Outcome::Ended); // Its release pass undoes the wait, or has.
        }
        if ticket.is_undecided() {
            return None;
        }
        if ticket.is_granted() {
            if holdings.stop_waiting(ticket) {
                let (sub, undo) = (ticket.sub(), &mut holdings.undo);
                match ticket.target() {
                    Target::Row(_) => undo.push(ticket.place(), sub, ticket.before()),
                    Target::Range(_) => undo.push_range(sub, ticket.number()),
                    Target::Table(table) if ticket.mode() == EXCLUSIVE => {
                        holdings.exclusive.push(*table);
                    }
                    Target::Table(_) => {}
                    Target::Tokens(request) => undo.push_tokens(sub, Arc::clone(request)),
                }
            }
            return Some(Outcome::Granted(ticket.grant()));
        }
        holdings.stop_waiting(ticket);
        Some(if ticket.is_cancelled() {
            Outcome::Cancelled
        } else {
            Outcome::Ended
        })
    }

    fn try_cancel(&self, ticket: &Ticket) -> bool {
        // Under the latch: whoever is about to grant a table fills the owner's set first.
        let is_wide = ticket.row().is_none();
        let _books = is_wide.then(|| self.shards.wide().latch());
        ticket.try_cancel()
    }

    /// Ends the wait, as at a timeout. `Granted` if the grant won the race: then the lock is held.
    pub fn cancel(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>, wakes: &mut Wakes) -> Outcome {
        if self.try_cancel(ticket) {
            ask::withdraw(&self.shards, ticket, wakes);
            ask::left(&self.shards, owner, slice::from_ref(ticket.target()), wakes);
        }
        let outcome = self.outcome(owner, ticket);
        outcome.expect("K4: a ticket that was cancelled, or could not be, is decided")
    }

    /// Ends a wait whose outcome nobody will ask for: a grant that came first is undone, to what was held before (K4).
    pub fn abandon(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
        if self.try_cancel(ticket) {
            ask::withdraw(&self.shards, ticket, wakes);
            ask::left(&self.shards, owner, slice::from_ref(ticket.target()), wakes);
        }
        {
            let mut holdings = owner.latch();
            // The release pass of an owner that has ended undoes the wait.
            if !owner.is_active() || !holdings.stop_waiting(ticket) || !ticket.is_granted() {
                return;
            }
            match ticket.target() {
                Target::Row(_) => {
                    let mut latch = self.shards.latch_number(ticket.place().shard());
                    latch.restore(ticket.place(), owner, ticket.before(), wakes);
                }
                // K7: there is no unlocking a table.
                Target::Table(table) if ticket.mode() == EXCLUSIVE => {
                    holdings.exclusive.push(*table);
                }
                Target::Range(_) | Target::Table(_) | Target::Tokens(_) => {}
            }
        }
        match ticket.target() {
            Target::Range(_) => ask::give_back(&self.shards, ticket.number(), wakes),
            Target::Tokens(request) => {
                ask::give_back_tokens(&self.shards, owner, slice::from_ref(request), wakes);
            }
            Target::Row(_) | Target::Table(_) => {}
        }
        ask::left(&self.shards, owner, slice::from_ref(ticket.target()), wakes);
    }

    /// What the owner waits for.
    pub fn waiting(&self, owner: &Owner) -> Option<Arc<Ticket>> {
        let waiting = owner.latch().waiting().cloned();
        waiting.filter(|ticket| ticket.is_waiting())
    }

    /// Gives the lock that was granted at `place` its fencing token, once its record is in the log. Nothing, if the owner
    /// has ended meanwhile.
    pub fn stamp(&self, owner: &Arc<Owner>, place: Place, token: FencingToken) {
        let mut latch = self.shards.latch_number(place.shard());
        latch.stamp(place, owner, token);
    }

    /// Gives all locks of a batch their fencing token: one record's position, or the first of several's. The
    /// batch was made by sub-transaction `sub`, which makes no other acquisition.
    ///
    /// # Panics
    /// If it, or a later one, has a batch with a token.
    pub fn stamp_batch(&self, owner: &Owner, sub: u32, token: FencingToken) {
        owner.stamp_batch(sub, token);
    }

    /// L9: undoes every acquisition of the sub-transactions from `sub` on, the newest first: the
    /// row is released, or held again in the mode and with the token of before.
    ///
    /// # Panics
    ///
    /// If the owner waits.
    pub fn rollback_to(&self, owner: &Arc<Owner>, sub: u32, wakes: &mut Wakes) {
        release::roll_back(&self.shards, owner, sub, wakes);
    }

    /// L9: undoes those acquisitions of sub-transaction `sub`, the newest, of which `gone` says so by their places: what
    /// has turned out not to be wanted.
    ///
    /// # Panics
    ///
    /// As [`LockTable::rollback_to`].
    pub fn give_back(
        &self,
        owner: &Arc<Owner>,
        sub: u32,
        gone: impl FnMut(Place) -> bool,
        wakes: &mut Wakes,
    ) {
        release::give_back(&self.shards, owner, sub, gone, wakes);
    }

    /// The release pass: called once, by whoever moved the owner to Released or Aborted. Of one that is Ending it is still to come.
    ///
    /// # Panics
    ///
    /// If the owner has not ended.
    pub fn end(&self, owner: &Arc<Owner>, wakes: &mut Wakes) {
        self.release(owner, wakes);
    }

    /// Aborts an Active transaction and runs its release pass. `false` if it was not Active.
    pub fn kill(&self, owner: &Arc<Owner>, cause: AbortCause, wakes: &mut Wakes) -> bool {
        let killed = owner.try_abort(cause);
        if killed {
            self.release(owner, wakes);
        }
        killed
    }

    fn release(&self, owner: &Arc<Owner>, wakes: &mut Wakes) {
        if owner.state() == OwnerState::Ending {
            wakes.end(owner);
            return;
        }
        release::release_pass(&self.shards, &self.leftovers, owner, wakes);
    }

    /// Removes up to `steps` entries of transactions that ended; returns how many.
    pub fn sweep(&self, steps: usize) -> usize {
        self.leftovers.sweep(&self.shards, steps)
    }

    /// How many rows have an entry, void ones included.
    pub fn entries(&self) -> usize {
        (0..SHARDS)
            .map(|number| self.shards.latch_number(number).entries())
            .sum()
    }

    /// The mode in which the owner holds the row, by itself or by a range around it.
    pub fn holds(&self, owner: &Arc<Owner>, row: &RowKey) -> Option<LockMode> {
        self.held(owner, row).map(|(mode, _)| mode)
    }

    /// The token of the owner's lock on the row, once stamped.
    pub fn token(&self, owner: &Arc<Owner>, row: &RowKey) -> Option<FencingToken> {
        self.held(owner, row).and_then(|(_, token)| token)
    }

    fn held(&self, owner: &Arc<Owner>, row: &RowKey) -> Option<(LockMode, Option<FencingToken>)> {
        let hash = self.shards.hash(row);
        let hold = self.shards.latch(hash).held(owner, hash, row);
        // A run that cannot be read shows no lock; it is not given to anybody else for that (K2).
        let spilled = lookup::held(&self.shards, owner, row).ok().flatten();
        let hold = hold.into_iter().chain(spilled).reduce(Hold::join);
        let hold = hold.filter(|_| owner.binds());
        let hold = hold.map(|hold| (hold.mode, owner.token(hold)));
        let around = self.shards.wide().latch_if_ranges(row.table());
        let around = around.and_then(|books| books.ranges.held(owner, row));
        let around = around.map(|(mode, token)| (mode, Some(token).filter(|it| *it != UNSTAMPED)));
        hold.max(around)
    }

    /// How many rows and ranges the owner holds, and how often it took tokens.
    pub fn held_by(&self, owner: &Arc<Owner>) -> usize {
        owner.latch().undo.locks()
    }
}
