//! The part of the lock table that asks for tokens of semaphores.
//!
//! Called by the engine, which knows how many tokens there are. Decided in one hold of the latch, as a table is.
//! 1. What can never be had is the caller's to refuse: more tokens than there are, those that it holds included.
//! 2. Tokens go with the savepoint behind which they were taken (L9), and with the transaction.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::RowKey;

use crate::decision::{Blocker, Decision, Refusal};
use crate::judge::{blocker, wound};
use crate::met::InTheWay;
use crate::owner::Owner;
use crate::place::Place;
use crate::placing::Queued;
use crate::policy::Policy;
use crate::semaphores::TOKENS;
use crate::table::LockTable;
use crate::target::{Target, TokenRequest};
use crate::ticket::{Grant, Ticket, WideWant};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

impl LockTable {
    /// Asks for tokens, for sub-transaction `sub`. Grants, queues or refuses; never waits. First come, first served: only who
    /// holds some already goes to the front.
    ///
    /// # Panics
    /// If the owner's rank is not settled, or if it waits already.
    pub fn request_tokens(
        &self,
        owner: &Arc<Owner>,
        (request, sub): (&Arc<TokenRequest>, u32),
        policy: Policy,
        wakes: &mut Wakes,
    ) -> Decision {
        let mut holdings = owner.latch();
        if !owner.is_active() {
            return Decision::Refused(Refusal::Ended);
        }
        assert!(
            holdings.waiting().is_none(),
            "K4: a transaction that waits asks for nothing"
        );
        let wide = self.shards.wide();
        let mut books = wide.latch();
        let held = books.semaphores.held(&request.semaphore, owner);
        let want = WideWant {
            target: Target::Tokens(Arc::clone(request)),
            mode: TOKENS,
            sub,
            upgrade: held > 0,
            order: owner.order(),
        };
        let waiter = Waiter {
            owner: Arc::clone(owner),
            ticket: Arc::new(Ticket::new(want, wide.number())),
        };
        let ticket = &waiter.ticket;
        let semaphore = &request.semaphore;
        let anyone_behind = books.semaphores.enqueue(request, waiter.clone());
        let judged = loop {
            books.semaphores.ask(semaphore, wakes);
            if policy == Policy::Wait || !ticket.is_waiting() {
                break Ok(Vec::new());
            }
            let in_the_way = books.semaphores.obstacles(request, &waiter);
            match judge(&waiter, in_the_way, policy) {
                // K1: judged too early: who was in the way has ended since.
                Ok(victims) if policy == Policy::NoWait => drop(victims),
                judged => break judged,
            }
        };
        if judged.is_err() && ticket.try_cancel() {
            books.semaphores.leave_queue(semaphore, ticket, wakes);
        } else {
            // Who was wounded stands in nobody's way any more.
            books.semaphores.ask(semaphore, wakes);
        }
        wide.count_semaphores(&books);
        drop(books);
        let victims = match judged {
            Ok(victims) => victims,
            Err(refusal) => return Decision::Refused(refusal),
        };
        if ticket.is_granted() && victims.is_empty() {
            holdings.undo.push_tokens(sub, Arc::clone(request));
            return Decision::Granted(Grant::over(None, TOKENS, Place::NONE));
        }
        holdings.wait_for(Arc::clone(ticket));
        drop(holdings);
        let queued = Queued {
            ticket: Arc::clone(ticket),
            anyone_behind,
            victims,
        };
        self.queued(owner, queued, wakes)
    }

    /// Gives the owner tokens that it is known to have held, by sub-transaction `sub`, before anybody asks (R2). `false`: others
    /// hold so many that there are too few.
    pub fn restore_tokens(
        &self,
        owner: &Arc<Owner>,
        request: &Arc<TokenRequest>,
        sub: u32,
    ) -> bool {
        let mut holdings = owner.latch();
        let mut books = self.shards.wide().latch();
        let fits = books.semaphores.restore(request, owner);
        self.shards.wide().count_semaphores(&books);
        if fits {
            holdings.undo.push_tokens(sub, Arc::clone(request));
        }
        fits
    }

    /// How many tokens of the semaphore the owner holds.
    pub fn tokens(&self, owner: &Owner, semaphore: &RowKey) -> u64 {
        let books = self.shards.wide().latch();
        let held = books.semaphores.held(semaphore, owner);
        if owner.binds() { held } else { 0 }
    }
}

/// What the policy says of one for whom there are too few tokens, or who is not the first: whom it has wounded, or why it is
/// refused.
fn judge(
    waiter: &Waiter,
    in_the_way: Vec<InTheWay>,
    policy: Policy,
) -> Result<Vec<Arc<Owner>>, Refusal> {
    let refused = |refusal: fn(Blocker) -> Refusal| {
        let first = in_the_way.first();
        first.map(|(other, obstacle)| refusal(blocker(other, obstacle.mode)))
    };
    match policy {
        Policy::Wait => Ok(Vec::new()),
        Policy::NoWait => refused(Refusal::WouldBlock).map_or(Ok(Vec::new()), Err),
        Policy::Wound => wound(waiter, in_the_way).map_err(Refusal::Conflict),
    }
}
