//! One locked row: who holds it, who waits for it, and what follows from that.
//!
//! Called by `shards` and `deadlock`, under the row latch; knows no other row.
//! 1. L1: no two holders that bind hold conflicting modes.
//! 2. L3, K1: a request queues behind a conflicting holder, or a conflicting waiter ahead; an
//!    upgrade counts holders only.
//! 3. K4: when the latch is dropped, nobody waits who could be granted, and the row is on the
//!    contended stack of every holder that somebody waits for.
//! 4. K5: void holders and void waiters decide nothing; whoever meets them removes them.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey};
use smallvec::SmallVec;

use crate::decision::Blocker;
use crate::matrix::{ModeSet, conflicting, conflicts};
use crate::owner::{AbortCause, Owner};
use crate::ticket::{Hold, Ticket, UNSTAMPED, Want};
use crate::wait_queue::{WaitQueue, Waiter};
use crate::wakes::Wakes;

/// One who holds the row.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) owner: Arc<Owner>,
    pub(crate) hold: Hold,
    /// The row is on the owner's contended stack.
    on_stack: bool,
}

/// A row that is held or waited for.
#[derive(Debug)]
pub(crate) struct RowLock {
    row: RowKey,
    hash: u64,
    holders: SmallVec<[Holder; 1]>,
    /// Only when contended.
    queue: Option<Box<WaitQueue>>,
    /// A waiter of the queue has won, and waits for one that was committing.
    has_winners: bool,
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// L2: what is held covers it.
    Covered(LockMode),
    /// Granted; the hold is what was held before.
    Granted(Option<Hold>),
    /// It would stand at this place of the queue, and this one is in its way.
    Blocked(usize, Option<Hold>, Blocker),
}

/// Why a waiter waits for another transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) mode: LockMode,
    pub(crate) soft: bool,
}

impl RowLock {
    /// A row that `owner` holds alone.
    pub(crate) fn held_by(owner: Arc<Owner>, hold: Hold, row: RowKey, hash: u64) -> Self {
        let holder = Holder {
            owner,
            hold,
            on_stack: false,
        };
        Self {
            row,
            hash,
            holders: SmallVec::from_buf([holder]),
            queue: None,
            has_winners: false,
        }
    }

    /// K5: whether nobody waits and nobody's hold binds.
    pub(crate) fn is_void(&self) -> bool {
        self.queue.is_none() && self.holders.iter().all(|holder| !holder.owner.binds())
    }

    /// The one who holds it, if nobody waits and its contended stack does not name the row, which would be forgotten.
    pub(crate) fn alone(&self) -> Option<&Holder> {
        let alone = self.queue.is_none() && self.holders.len() == 1;
        self.holders
            .first()
            .filter(|holder| alone && !holder.on_stack)
    }

    pub(crate) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The queue, the next in line first; with void ones that nobody has met yet.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.queue.as_deref().into_iter().flat_map(WaitQueue::iter)
    }

    pub(crate) fn is_free(&self) -> bool {
        self.holders.is_empty() && self.queue.is_none()
    }

    pub(crate) fn held(&self, owner: &Owner) -> Option<Hold> {
        let own = self.holders.iter().find(|holder| owner.is(&holder.owner));
        own.map(|holder| holder.hold)
    }

    /// K1: grants, or says who is in the way. The row must be settled.
    pub(crate) fn decide(&mut self, owner: &Arc<Owner>, want: &Want<'_>) -> Verdict {
        let (mode, order) = (want.mode, want.order);
        let before = self.held(owner);
        if let Some(hold) = before.filter(|hold| hold.mode >= mode) {
            return Verdict::Covered(hold.mode);
        }
        let place = match self.queue.as_deref() {
            Some(queue) => queue.place(order, before.is_some()),
            None => 0,
        };
        let ahead = if before.is_some() { 0 } else { place };
        if let Some(blocker) = self.blocker(owner, mode, ahead) {
            return Verdict::Blocked(place, before, blocker);
        }
        if let Some(queue) = self.queue.as_deref().filter(|_| before.is_none()) {
            queue.note_overtaking(place, mode);
        }
        self.hold(owner, mode, want.sub);
        self.register_contention();
        Verdict::Granted(before)
    }

    fn blocker(&self, owner: &Owner, mode: LockMode, ahead: usize) -> Option<Blocker> {
        let held = |holder: &&Holder| {
            !owner.is(&holder.owner) && conflicts(mode, holder.hold.mode) && holder.owner.binds()
        };
        if let Some(holder) = self.holders.iter().find(held) {
            return Some(blocker(&holder.owner, holder.hold.mode));
        }
        let queued = |waiter: &&Waiter| conflicts(mode, waiter.ticket.mode()) && waiter.is_live();
        let waiter = self.waiters().take(ahead).find(queued)?;
        Some(blocker(&waiter.owner, waiter.ticket.mode()))
    }

    /// K4: publishes the wait. Returns whether somebody is behind it.
    pub(crate) fn enqueue(&mut self, place: usize, waiter: Waiter) -> bool {
        let queue = self.queue.get_or_insert_default();
        if !waiter.ticket.is_upgrade() {
            queue.note_overtaking(place, waiter.ticket.mode());
        }
        queue.insert(place, waiter);
        queue.get(place + 1).is_some()
    }

    /// Makes `owner` a holder, or its hold stronger.
    fn hold(&mut self, owner: &Arc<Owner>, mode: LockMode, sub: u32) {
        for holder in &self.holders {
            let fits = !holder.owner.binds()
                || owner.is(&holder.owner)
                || !conflicts(mode, holder.hold.mode);
            assert!(fits, "L1: {mode} was granted beside {}", holder.hold.mode);
        }
        let hold = Hold {
            mode,
            sub,
            token: UNSTAMPED,
        };
        let own = self
            .holders
            .iter_mut()
            .find(|holder| owner.is(&holder.owner));
        match own {
            Some(holder) => holder.hold = hold,
            None => self.holders.push(Holder {
                owner: Arc::clone(owner),
                hold,
                on_stack: false,
            }),
        }
    }

    /// The token of what `owner` holds, from its record.
    pub(crate) fn stamp(&mut self, owner: &Owner, token: FencingToken) {
        let own = self
            .holders
            .iter_mut()
            .find(|holder| owner.is(&holder.owner));
        if let Some(holder) = own {
            holder.hold.token = token;
        }
    }

    /// L9: sets what `owner` holds back to `before`. Nothing, if it holds nothing any more.
    pub(crate) fn restore(&mut self, owner: &Owner, before: Option<Hold>) {
        let own = self
            .holders
            .iter()
            .position(|holder| owner.is(&holder.owner));
        match (own, before) {
            (Some(at), None) => {
                let gone = self.holders.remove(at);
                if gone.on_stack && owner.is_active() {
                    owner.forget_contended(self.hash, &self.row);
                }
            }
            (Some(at), Some(before)) => {
                if let Some(holder) = self.holders.get_mut(at) {
                    assert!(
                        before.mode <= holder.hold.mode,
                        "L9: a rollback never strengthens a lock"
                    );
                    holder.hold = before;
                }
            }
            (None, _) => {}
        }
    }

    /// Takes a ticket that is no longer waiting out of the queue.
    pub(crate) fn leave_queue(&mut self, ticket: &Arc<Ticket>) {
        assert!(!ticket.is_waiting(), "K4: who leaves the queue was decided");
        if let Some(queue) = self.queue.as_deref_mut()
            && let Some(place) = queue.position(ticket)
        {
            queue.remove(place);
        }
    }

    /// Brings the row into order: removes what is void, grants whoever can be granted, and makes
    /// sure that every holder in somebody's way will come back here (K4).
    pub(crate) fn settle(&mut self, wakes: &mut Wakes) {
        loop {
            self.holders.retain(|holder| holder.owner.binds());
            if self.queue.is_none() {
                return;
            }
            self.promote(wakes);
            if self.queue.as_deref().is_none_or(WaitQueue::is_empty) {
                self.queue = None;
                self.has_winners = false;
                return;
            }
            self.register_contention();
            // L6: a holder that ended before it was registered does not come back: look again.
            if self.holders.iter().all(|holder| holder.owner.binds()) {
                if self.has_winners {
                    self.call_winners(wakes);
                }
                return;
            }
        }
    }

    /// Grants, in the order of the queue, whoever conflicts with no holder and no one ahead. A void waiter that is met on
    /// the way goes; one behind takes itself out, by its release pass.
    fn promote(&mut self, wakes: &mut Wakes) {
        let (mut ahead, mut upgrades, mut place) = (ModeSet::EMPTY, 0, 0);
        while let Some(queue) = self.queue.as_deref()
            && !queue.is_barred(ahead, upgrades)
            && let Some(waiter) = queue.get(place)
        {
            let ticket = &waiter.ticket;
            let (mode, upgrade) = (ticket.mode(), ticket.is_upgrade());
            let active = waiter.owner.is_active();
            let behind = !upgrade && conflicting(mode).meets(ahead);
            let granted = active
                && !behind
                && self.blocker(&waiter.owner, mode, 0).is_none()
                && ticket.try_grant();
            if !granted && (active || !ticket.try_end()) {
                ahead = ahead.with(mode);
                upgrades += usize::from(upgrade);
                place += 1;
                continue;
            }
            let left = self
                .queue
                .as_deref_mut()
                .and_then(|queue| queue.remove(place));
            if let Some(Waiter { owner, ticket }) = left {
                if granted {
                    self.hold(&owner, mode, ticket.sub());
                }
                wakes.add(&owner);
            }
        }
    }

    /// `Wound`: who has won, and waited for one that was committing, judges again when somebody else is in the way.
    fn call_winners(&self, wakes: &mut Wakes) {
        for waiter in self.waiters().filter(|waiter| waiter.ticket.has_won()) {
            let mut in_the_way = self.obstacles(&waiter.owner, &waiter.ticket);
            if in_the_way.any(|(other, _)| other.is_active()) {
                wakes.add(&waiter.owner);
            }
        }
    }

    /// K4: puts the row on the stack of every holder that somebody waits for.
    fn register_contention(&mut self) {
        let Some(queue) = self.queue.as_deref() else {
            return;
        };
        for holder in self.holders.iter_mut().filter(|holder| !holder.on_stack) {
            let waits = |waiter: &Waiter| {
                conflicts(waiter.ticket.mode(), holder.hold.mode) && !waiter.owner.is(&holder.owner)
            };
            if queue.iter().any(waits) {
                holder.on_stack = true;
                holder.owner.push_contended(self.hash, &self.row);
            }
        }
    }

    /// L4: whom the waiter with `ticket` waits for: conflicting holders, and conflicting waiters
    /// ahead of one that is no upgrade.
    pub(crate) fn obstacles(
        &self,
        owner: &Owner,
        ticket: &Arc<Ticket>,
    ) -> impl Iterator<Item = (&Arc<Owner>, Obstacle)> {
        let mode = ticket.mode();
        let queue = self.queue.as_deref().filter(|_| ticket.is_waiting());
        let place = queue.and_then(|queue| queue.position(ticket));
        let holders = self.holders.iter().filter(move |_| place.is_some());
        let ahead = place.filter(|_| !ticket.is_upgrade()).unwrap_or(0);
        let hard = holders.map(|holder| (&holder.owner, holder.hold.mode, false));
        let soft = self.waiters().take(ahead).filter(|waiter| waiter.is_live());
        let soft = soft.map(|waiter| (&waiter.owner, waiter.ticket.mode(), true));
        hard.chain(soft)
            .filter(move |(other, held, _)| {
                conflicts(mode, *held) && !owner.is(other) && other.binds()
            })
            .map(|(other, mode, soft)| (other, Obstacle { mode, soft }))
    }

    /// L5, `Wound`: judges all who are in the waiter's way, then wounds them, in one hold of the row latch. One that is already
    /// committing is neither: it is waited for. Nobody is wounded by one that dies.
    pub(crate) fn judge(
        &mut self,
        owner: &Arc<Owner>,
        ticket: &Arc<Ticket>,
        wakes: &mut Wakes,
    ) -> Result<Vec<Arc<Owner>>, Blocker> {
        if !owner.is_active() {
            return Ok(Vec::new()); // It ended while it waited, and wounds for nobody.
        }
        let rank = owner.settled_rank();
        let active = |(other, _): &(&Arc<Owner>, Obstacle)| other.is_active();
        let in_the_way = self.obstacles(owner, ticket).filter(active);
        let in_the_way: Vec<_> = in_the_way
            .map(|(other, obstacle)| (Arc::clone(other), obstacle.mode))
            .collect();
        let stronger = |(other, _): &&(Arc<Owner>, LockMode)| !rank.exceeds(other.settled_rank());
        if let Some((other, mode)) = in_the_way.iter().find(stronger) {
            // Who has won once waits for whoever came in between, and does not die of him.
            return if ticket.has_won() {
                Ok(Vec::new())
            } else {
                Err(blocker(other, *mode))
            };
        }
        let wounded = |other: &Arc<Owner>| other.try_abort(AbortCause::Wounded { by: owner.id() });
        let victims = in_the_way.into_iter().map(|(other, _)| other);
        let victims: Vec<_> = victims.filter(wounded).collect();
        ticket.note_won();
        self.has_winners = true;
        self.settle(wakes);
        Ok(victims)
    }

    /// A judged waiter that dies leaves the queue, as if it had never overtaken anyone.
    pub(crate) fn die(&mut self, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
        if ticket.try_cancel() {
            if let Some(queue) = self.queue.as_deref().filter(|_| !ticket.is_upgrade()) {
                queue.forget_overtaking(ticket);
            }
            self.leave_queue(ticket);
            self.settle(wakes);
        }
    }

    /// L4: takes the waiter with `ticket` ahead of the one with `other`; those whom it goes past.
    pub(crate) fn put_ahead(
        &mut self,
        ticket: &Arc<Ticket>,
        other: &Owner,
        wakes: &mut Wakes,
    ) -> Vec<Waiter> {
        let Some(queue) = self.queue.as_deref_mut() else {
            return Vec::new();
        };
        let to = queue.iter().position(|waiter| other.is(&waiter.owner));
        let Some((from, to)) = queue.position(ticket).zip(to) else {
            return Vec::new();
        };
        let passed = queue.advance(from, to);
        self.settle(wakes);
        passed
    }

    /// Inheritance: the waiter with `ticket` is queued as if it were of `order`, if that is higher; those whom it goes past.
    pub(crate) fn raise(
        &mut self,
        ticket: &Arc<Ticket>,
        order: u64,
        wakes: &mut Wakes,
    ) -> Vec<Waiter> {
        let Some(queue) = self.queue.as_deref_mut() else {
            return Vec::new();
        };
        // As it stands before the ticket is raised: it is not to stay behind itself.
        let to = queue.place(order, false);
        let from = queue.position(ticket);
        let Some(from) = from.filter(|_| ticket.raise(order) && !ticket.is_upgrade()) else {
            return Vec::new();
        };
        let passed = queue.advance(from, to);
        self.settle(wakes);
        passed
    }
}

fn blocker(owner: &Arc<Owner>, mode: LockMode) -> Blocker {
    Blocker {
        txn: owner.id(),
        rank: owner.settled_rank(),
        label: owner.label().cloned(),
        mode,
    }
}
