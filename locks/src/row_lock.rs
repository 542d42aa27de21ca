//! One locked row: who holds it, who waits for it, and what follows from that.
//!
//! Called by `shards` and `deadlock`, under the row latch; knows no other row.
//! 1. L1: no two holders that bind hold conflicting modes.
//! 2. L3, K1: a request queues behind a conflicting holder, or a conflicting waiter ahead; an
//!    upgrade counts holders only.
//! 3. K4: when the latch is dropped, nobody waits who could be granted, and the row is on the
//!    contended stack of every holder that somebody waits for.
//! 4. K5: void holders and void waiters decide nothing; whoever meets them removes them.
//! 5. K6: ranges around the row decide like holders and waiters of it: [`Around`] knows them.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey};

use crate::decision::Blocker;
use crate::holders::{Holder, Holders};
use crate::judge::{blocker, blocker_of, is_called, wound};
use crate::matrix::{ModeSet, conflicting, conflicts};
use crate::met::{InTheWay, Met, Obstacle, Standing};
use crate::owner::Owner;
use crate::policy::Policy;
use crate::range_look::{RangeLook, RangesMet, RowAsk};
use crate::ranges::RangeBook;
use crate::ticket::{Before, Hold, Ticket, Want};
use crate::wait_queue::{WaitQueue, Waiter};
use crate::wide::Around;

/// A row that is held or waited for.
#[derive(Debug)]
pub(crate) struct RowLock {
    row: RowKey,
    hash: u64,
    holders: Holders,
    /// Only when contended.
    queue: Option<Box<WaitQueue>>,
    /// A waiter of the queue has won, and waits for one that was committing.
    has_winners: bool,
    /// The row is on the contended stack of the owner of a range around it.
    is_within: bool,
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// L2: what is held covers it.
    Covered(LockMode),
    /// Granted; the hold is what was held before.
    Granted(Before),
    /// It would queue.
    Blocked(Blocked),
}

/// A request that would queue.
#[derive(Debug)]
pub(crate) struct Blocked {
    /// At which place.
    pub(crate) place: usize,
    pub(crate) before: Before,
    /// It counts no waiters: the row, or a range around it, is held.
    pub(crate) upgrade: bool,
    /// One who is in its way.
    pub(crate) by: Blocker,
}

impl RowLock {
    /// A row that nobody holds, or one alone.
    pub(crate) fn new(row: RowKey, hash: u64, alone: Option<(Arc<Owner>, Hold)>) -> Self {
        Self {
            row,
            hash,
            holders: alone.map(Holders::alone).unwrap_or_default(),
            queue: None,
            has_winners: false,
            is_within: false,
        }
    }

    /// K5: whether nobody waits and nobody's hold binds.
    pub(crate) fn is_void(&self) -> bool {
        self.queue.is_none() && self.holders.iter().all(|holder| !holder.owner.binds())
    }

    /// The one who holds it, if nobody waits, and nothing would be forgotten: that its contended stack names the row, or what it
    /// holds by runs.
    pub(crate) fn alone(&self) -> Option<&Holder> {
        let only = self.holders.only().filter(|holder| holder.is_plain());
        only.filter(|_| self.queue.is_none())
    }

    pub(crate) fn holders(&self) -> &Holders {
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
        self.holders.of(owner).map(|holder| holder.hold)
    }

    /// V1: what `owner` holds of it in memory.
    pub(crate) fn in_memory(&self, owner: &Owner) -> Option<Hold> {
        self.holders.of(owner).and_then(Holder::in_memory)
    }

    /// K1: grants, or says who is in the way. The row must be settled.
    pub(crate) fn decide(
        &mut self,
        owner: &Arc<Owner>,
        want: &Want<'_>,
        around: &mut Around<'_>,
    ) -> Verdict {
        let before = self.holders.before(owner);
        if let Some(hold) = before
            .held
            .filter(|hold| hold.covers(want.mode, want.writes))
        {
            return Verdict::Covered(hold.mode);
        }
        let hold = want.hold(before.held);
        let upgrade = before.held.is_some() || around.held(owner, want.row).is_some();
        let place = match self.queue.as_deref() {
            Some(queue) => queue.place(want.order, upgrade),
            None => 0,
        };
        let ask = RowAsk {
            row: want.row,
            owner,
            mode: hold.beside_ranges(),
            number: u64::MAX,
            upgrade,
            may_pass: want.policy == Policy::Wait,
        };
        let ahead = if upgrade { 0 } else { place };
        let by = self.blocker(owner, hold.mode, ahead);
        if let Some(by) = by.or_else(|| blocker_of(around.blocker(ask))) {
            return Verdict::Blocked(Blocked {
                place,
                before,
                upgrade,
                by,
            });
        }
        if let Some(queue) = self.queue.as_deref().filter(|_| !upgrade) {
            queue.note_overtaking(place, want.mode);
        }
        self.holders.add(owner, hold);
        around.granted(ask);
        self.register_holders();
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
        let queue = self.queue.as_deref();
        let queue = queue.filter(|queue| queue.conflicts_with(mode))?;
        let waiter = queue.iter().take(ahead).find(queued)?;
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

    /// The token of what `owner` holds, from its record.
    pub(crate) fn stamp(&mut self, owner: &Owner, token: FencingToken) {
        self.holders.stamp(owner, token);
    }

    /// L9: sets what `owner` holds in memory back to `before`. Nothing, if it holds nothing any more.
    pub(crate) fn restore(&mut self, owner: &Owner, before: Option<Hold>) {
        let gone = self.holders.restore(owner, before);
        self.gone(gone);
    }

    /// K2: `owner` holds the row by runs. Whether that was not known. K4: if somebody waits, it is on its stack, its own too.
    pub(crate) fn bring_in(&mut self, owner: &Arc<Owner>, spilled: Hold) -> bool {
        let is_new = self.holders.bring_in(owner, spilled);
        self.register_holders();
        is_new
    }

    /// L9: what `owner` holds by runs, after a rollback. Nothing, if nobody has met it.
    pub(crate) fn look_again(&mut self, owner: &Owner, spilled: Option<Hold>) {
        let gone = self.holders.look_again(owner, spilled);
        self.gone(gone);
    }

    /// V1, K3: `owner` holds the row by a run from now on, unless somebody waits for it: then by both. Whether by the run alone.
    pub(crate) fn drop_memory(&mut self, owner: &Owner) -> bool {
        let drops = self.queue.is_none();
        if drops {
            let gone = self.holders.drop_memory(owner);
            self.gone(gone);
        }
        drops
    }

    /// The contended stack of one who holds the row no more does not name it.
    fn gone(&self, holder: Option<Holder>) {
        if let Some(holder) = holder.filter(|holder| holder.on_stack) {
            let row = (self.hash, self.row.clone());
            holder.owner.contended().forget_row(None, &row);
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
    pub(crate) fn settle(&mut self, around: &mut Around<'_>) {
        loop {
            self.holders.drop_void();
            if self.queue.is_none() {
                return;
            }
            let stands = self.promote(around);
            if self.queue.as_deref().is_none_or(WaitQueue::is_empty) {
                self.queue = None;
                self.has_winners = false;
                if std::mem::take(&mut self.is_within) {
                    around.forget(self.hash, &self.row);
                }
                return;
            }
            self.register_holders();
            // L6: a holder that ended before it was registered does not come back: look again.
            if stands && self.holders.iter().all(|holder| holder.owner.binds()) {
                if self.has_winners {
                    self.call_winners(around);
                }
                return;
            }
        }
    }

    /// Grants, in the order of the queue, whoever conflicts with no holder and no one ahead. A void waiter that is met on
    /// the way goes; one behind takes itself out, by its release pass. Who has only ranges in his way is registered with
    /// them; `false` if one of these has ended meanwhile.
    fn promote(&mut self, around: &mut Around<'_>) -> bool {
        let (mut upgrades, mut place, mut stands) = (0, 0, true);
        let held = self.holders.iter().map(|holder| holder.hold.mode);
        // Those who hold the row are upgrades: so all holders are ahead of all others.
        let mut ahead = held.fold(ModeSet::EMPTY, ModeSet::with);
        // A range that is held is in the way of all of these modes, whoever asks for them.
        let mut barred = ModeSet::EMPTY;
        while let Some(queue) = self.queue.as_deref()
            && !queue.is_barred(ahead, barred, upgrades)
            && let Some(waiter) = queue.get(place)
        {
            let ticket = &waiter.ticket;
            let (mode, upgrade) = (ticket.mode(), ticket.is_upgrade());
            let active = waiter.owner.is_active();
            let behind = if upgrade {
                self.blocker(&waiter.owner, mode, 0).is_some()
            } else {
                conflicting(mode).meets(ahead)
            };
            let ask = RowAsk::queued(&self.row, &waiter.owner, ticket);
            let is_barred = !upgrade && barred.has(mode);
            let is_first = active && !behind && !is_barred;
            let met = if is_first {
                around.register(self.hash, ask)
            } else {
                RangesMet::NONE
            };
            stands &= met.stand;
            self.is_within |= met.any;
            if met.held && !upgrade && !ticket.writes() {
                barred = barred.with_stronger(mode);
            }
            let granted = is_first && !met.any && ticket.try_grant();
            if granted {
                around.granted(ask);
            }
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
                    ahead = ahead.with(mode);
                    self.holders.add(&owner, ticket.hold());
                }
                around.wakes.add(&owner);
            }
        }
        stands
    }

    /// `Wound`: who has won, and waited for one that was committing, judges again when somebody else is in the way.
    fn call_winners(&self, around: &mut Around<'_>) {
        for waiter in self.waiters().filter(|waiter| waiter.ticket.has_won()) {
            let in_the_way = self.obstacles(waiter, around.ranges());
            if is_called(&waiter.owner, in_the_way.iter().map(|(other, _)| other)) {
                around.wakes.add(&waiter.owner);
            }
        }
    }

    /// K4: puts the row on the stack of every holder whom somebody waits for.
    fn register_holders(&mut self) {
        let Some(queue) = self.queue.as_deref() else {
            return;
        };
        for holder in self.holders.iter_mut().filter(|holder| !holder.on_stack) {
            let waits = |waiter: &Waiter| {
                conflicts(waiter.ticket.mode(), holder.hold.mode) && !waiter.owner.is(&holder.owner)
            };
            if queue.conflicts_with(holder.hold.mode) && queue.iter().any(waits) {
                holder.on_stack = true;
                let row = (self.hash, self.row.clone());
                holder.owner.contended().push_row(None, row);
            }
        }
    }

    /// L4: whom the waiter with `ticket` waits for: conflicting holders, conflicting waiters ahead of one that is no
    /// upgrade, and those who have, or are before it in asking for, conflicting ranges around the row.
    pub(crate) fn obstacles(&self, waiter: &Waiter, ranges: Option<&RangeBook>) -> Vec<InTheWay> {
        let Waiter { owner, ticket } = waiter;
        let mode = ticket.mode();
        let queue = self.queue.as_deref().filter(|_| ticket.is_waiting());
        let Some(place) = queue.and_then(|queue| queue.position(ticket)) else {
            return Vec::new();
        };
        let ahead = if ticket.is_upgrade() { 0 } else { place };
        let holders = self.holders.iter();
        let hard = holders.map(|holder| (&holder.owner, holder.hold.mode, false));
        let soft = self.waiters().take(ahead).filter(|waiter| waiter.is_live());
        let soft = soft.map(|waiter| (&waiter.owner, waiter.ticket.mode(), true));
        let here = hard
            .chain(soft)
            .filter(|(other, held, _)| conflicts(mode, *held) && !owner.is(other) && other.binds());
        let here = here.map(|(other, mode, soft)| (other, Obstacle { mode, soft }));
        let ask = RowAsk::queued(&self.row, owner, ticket);
        let around = ranges
            .into_iter()
            .flat_map(|ranges| ranges.obstacles_of_row(ask));
        here.chain(around)
            .map(|(other, obstacle)| (Arc::clone(other), obstacle))
            .collect()
    }

    /// Those of them who hold the row, or a range around it.
    pub(crate) fn holders_in_the_way(
        &self,
        waiter: &Waiter,
        ranges: Option<&RangeBook>,
    ) -> Vec<Arc<Owner>> {
        let Waiter { owner, ticket } = waiter;
        let held = self.holders.iter().filter(|holder| {
            conflicts(ticket.mode(), holder.hold.mode) && !owner.is(&holder.owner)
        });
        let ask = RowAsk::queued(&self.row, owner, ticket);
        let around = ranges
            .into_iter()
            .flat_map(|ranges| ranges.obstacles_of_row(ask));
        let around = around.filter(|(_, obstacle)| !obstacle.soft);
        let all = held.map(|holder| &holder.owner);
        all.chain(around.map(|(owner, _)| owner)).cloned().collect()
    }

    /// K6: who is in the way of a range that has the row.
    pub(crate) fn in_the_way_of(&self, look: &RangeLook, met: &mut Met) {
        let (asks, mode) = (&look.view.owner, look.view.ticket.mode());
        for Holder { owner, hold, .. } in self.holders.iter() {
            if conflicts(mode, hold.beside_ranges()) && owner.binds() {
                let own = asks.is(owner);
                let standing = if own { Standing::Own } else { Standing::Holds };
                met.add(owner, hold.mode, standing);
            }
        }
        let own = || self.held(asks).map(|hold| hold.mode);
        for Waiter { owner, ticket } in self.waiters().filter(|waiter| waiter.is_live()) {
            if conflicts(mode, ticket.beside_ranges()) && !asks.is(owner) {
                let standing = look.standing_of(&self.row, ticket, own);
                met.add(owner, ticket.mode(), standing);
            }
        }
    }

    /// L5, `Wound`: judges all who are in the waiter's way, then wounds them, in one hold of the row latch.
    pub(crate) fn judge(
        &mut self,
        waiter: &Waiter,
        around: &mut Around<'_>,
    ) -> Result<Vec<Arc<Owner>>, Blocker> {
        let victims = wound(waiter, self.obstacles(waiter, around.ranges()))?;
        self.has_winners |= waiter.ticket.has_won();
        self.settle(around);
        Ok(victims)
    }

    /// A judged waiter that dies leaves the queue, as if it had never overtaken anyone.
    pub(crate) fn die(&mut self, ticket: &Arc<Ticket>, around: &mut Around<'_>) {
        if ticket.try_cancel() {
            if let Some(queue) = self.queue.as_deref().filter(|_| !ticket.is_upgrade()) {
                queue.forget_overtaking(ticket);
            }
            self.leave_queue(ticket);
            self.settle(around);
        }
    }

    /// L4: takes the waiter with `ticket` ahead of the one with `other`.
    pub(crate) fn put_ahead(
        &mut self,
        ticket: &Arc<Ticket>,
        other: &Owner,
        around: &mut Around<'_>,
    ) {
        let Some(queue) = self.queue.as_deref_mut() else {
            return;
        };
        let to = queue.iter().position(|waiter| other.is(&waiter.owner));
        if let Some((from, to)) = queue.position(ticket).zip(to) {
            queue.advance(from, to);
            self.settle(around);
        }
    }

    /// Inheritance: the waiter with `ticket` is queued as if it were of `order`, if that is higher. Whether it goes past
    /// somebody.
    pub(crate) fn raise(
        &mut self,
        ticket: &Arc<Ticket>,
        order: u64,
        around: &mut Around<'_>,
    ) -> bool {
        let Some(queue) = self.queue.as_deref_mut() else {
            return false;
        };
        // As it stands before the ticket is raised: it is not to stay behind itself.
        let to = queue.place(order, false);
        let from = queue.position(ticket);
        let Some(from) = from.filter(|_| ticket.raise(order) && !ticket.is_upgrade()) else {
            return false;
        };
        let passes = queue.advance(from, to);
        self.settle(around);
        passes
    }
}
