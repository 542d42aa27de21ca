//! The wait queue of one row: who is next when a holder leaves.
//!
//! Called by `row_lock` only, under the row latch; knows no holders and no time.
//! 1. L3: upgrades first, in order of arrival; then by priority, highest first, then by arrival.
//! 2. A waiter that has been overtaken [`OVERTAKEN_MAX`](crate::ticket::OVERTAKEN_MAX) times is not
//!    overtaken again, except by an upgrade, which holds the row already, and to spare the victim of a deadlock (L4).
//! 3. A transaction waits in at most one queue, and once in it.
//! 4. To come and to leave at the front takes the same time, however long the queue is.
//!
//! Crash: memory only; waiters vanish with the process.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;

use lockstone_base::LockMode;

use crate::matrix::{ModeSet, column, conflicting, conflicts};
use crate::owner::Owner;
use crate::ticket::Ticket;

/// One who waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub(crate) owner: Arc<Owner>,
    pub(crate) ticket: Arc<Ticket>,
}

impl Waiter {
    /// Whether it still waits, and its transaction goes on: if not, it is void, and its release pass will take it out.
    pub(crate) fn is_live(&self) -> bool {
        self.owner.is_active() && self.ticket.is_waiting()
    }
}

/// Those who wait for one row, the next in line first.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    waiters: VecDeque<Waiter>,
    /// How many there are of each mode, and how many upgrades.
    modes: [usize; LockMode::ALL.len()],
    upgrades: usize,
}

impl WaitQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn iter(&self) -> Iter<'_, Waiter> {
        self.waiters.iter()
    }

    /// Where a request would stand: how many would be ahead of it.
    pub(crate) fn place(&self, order: u64, upgrade: bool) -> usize {
        if upgrade {
            let other = |waiter: &Waiter| !waiter.ticket.is_upgrade();
            return self
                .waiters
                .iter()
                .position(other)
                .unwrap_or(self.waiters.len());
        }
        let stays_ahead = |waiter: &Waiter| {
            let ticket = &waiter.ticket;
            ticket.is_upgrade() || ticket.order() >= order || !ticket.may_be_overtaken()
        };
        let last = self.waiters.iter().rposition(stays_ahead);
        last.map_or(0, |last| last + 1)
    }

    /// Counts a request of `mode` at `place` as having overtaken whom it keeps waiting there.
    pub(crate) fn note_overtaking(&self, place: usize, mode: LockMode) {
        for waiter in self.waiters.iter().skip(place) {
            if conflicts(mode, waiter.ticket.mode()) {
                waiter.ticket.note_overtaken();
            }
        }
    }

    pub(crate) fn insert(&mut self, place: usize, waiter: Waiter) {
        if let Some(count) = self.modes.get_mut(column(waiter.ticket.mode())) {
            *count += 1;
        }
        self.upgrades += usize::from(waiter.ticket.is_upgrade());
        self.waiters.insert(place, waiter);
    }

    /// Whether nobody in the queue can be granted who is behind waiters of the modes `ahead`, `upgrades` of them upgrades:
    /// an upgrade can, wherever it stands. The modes `barred` can't.
    pub(crate) fn is_barred(&self, ahead: ModeSet, barred: ModeSet, upgrades: usize) -> bool {
        let mut waiting = LockMode::ALL.into_iter().zip(self.modes);
        let is_barred =
            |(mode, count)| count == 0 || barred.has(mode) || conflicting(mode).meets(ahead);
        upgrades == self.upgrades && waiting.all(is_barred)
    }

    /// Whether somebody in the queue conflicts with `mode`, if only the one who has that.
    pub(crate) fn conflicts_with(&self, mode: LockMode) -> bool {
        let mut waiting = LockMode::ALL.into_iter().zip(self.modes);
        waiting.any(|(other, count)| count > 0 && conflicts(other, mode))
    }

    /// Takes back what [`WaitQueue::note_overtaking`] counted for the waiter with `ticket`: at those behind it who had come
    /// before it.
    pub(crate) fn forget_overtaking(&self, ticket: &Arc<Ticket>) {
        let behind = self.waiters.iter().rev();
        let behind = behind.take_while(|waiter| !Arc::ptr_eq(&waiter.ticket, ticket));
        let kept_waiting = |waiter: &&Waiter| {
            let other = &waiter.ticket;
            other.number() < ticket.number() && conflicts(ticket.mode(), other.mode())
        };
        for waiter in behind.filter(kept_waiting) {
            waiter.ticket.forget_overtaken();
        }
    }

    pub(crate) fn position(&self, ticket: &Arc<Ticket>) -> Option<usize> {
        let is_it = |waiter: &Waiter| Arc::ptr_eq(&waiter.ticket, ticket);
        self.waiters.iter().position(is_it)
    }

    pub(crate) fn remove(&mut self, place: usize) -> Option<Waiter> {
        let waiter = self.waiters.remove(place)?;
        if let Some(count) = self.modes.get_mut(column(waiter.ticket.mode())) {
            *count -= 1;
        }
        self.upgrades -= usize::from(waiter.ticket.is_upgrade());
        Some(waiter)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Waiter> {
        self.waiters.get(place)
    }

    /// Takes the waiter at `from` to the place `to` ahead of it. Whether it goes past somebody, and keeps him waiting.
    pub(crate) fn advance(&mut self, from: usize, to: usize) -> bool {
        let Some(waiter) = self.waiters.get(from).cloned().filter(|_| to < from) else {
            return false;
        };
        let mode = waiter.ticket.mode();
        let passed = self.waiters.iter().skip(to).take(from - to);
        let passed = passed.filter(|other| conflicts(mode, other.ticket.mode()));
        let passed = passed.inspect(|other| other.ticket.note_overtaken());
        let passed = passed.count();
        self.waiters.remove(from);
        self.waiters.insert(to, waiter);
        passed > 0
    }
}
