//! K7: the tables that somebody holds or awaits EXCLUSIVE, and who waits there.
//!
//! Called under the latch of the wide locks. SHARED is the sets of the transactions ([`TableSet`](crate::table_set)), and one
//! look at the flag.
//! 1. L7: a table is here, and its flag is up, while somebody holds or awaits EXCLUSIVE. New sharers queue then: so EXCLUSIVE
//!    is never starved.
//! 2. First come, first served, whatever the priorities; whoever holds SHARED goes to the front, and its own SHARED does not
//!    stand in its way.
//! 3. The flag is raised before the sets are read, and a set is filled before the flag is read.
//! 4. A table with waiters is registered with everyone who is in the way of the first (as `ranges`, 3).
//!
//! Crash: memory only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use lockstone_base::{FencingToken, LockMode, TableId, TxnId};

use crate::matrix::conflicts;
use crate::owner::{Awaited, Owner};
use crate::ranges::{Asked, InTheWay, Obstacle};
use crate::slots::Slots;
use crate::ticket::{Ticket, UNSTAMPED};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// EXCLUSIVE, as a mode.
pub(crate) const EXCLUSIVE: LockMode = LockMode::Update;
/// SHARED, as a mode.
pub(crate) const SHARED: LockMode = LockMode::Share;

/// A table, as all who use it look at it: whether somebody holds or awaits it EXCLUSIVE.
#[derive(Debug)]
pub struct TableLock {
    id: TableId,
    flag: AtomicBool,
}

impl TableLock {
    /// Of the table with this id.
    pub fn new(id: TableId) -> Self {
        Self {
            id,
            flag: AtomicBool::new(false),
        }
    }

    /// The table.
    pub fn id(&self) -> TableId {
        self.id
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

/// A table that somebody holds or awaits EXCLUSIVE.
#[derive(Debug)]
struct Exclusive {
    lock: Arc<TableLock>,
    holder: Option<(Arc<Owner>, FencingToken)>,
    queue: VecDeque<Waiter>,
    registered: BTreeSet<TxnId>,
}

impl Exclusive {
    /// Who is in the way of a waiter that has `ahead` others before it in the queue.
    fn in_the_way(&self, waiter: &Waiter, ahead: usize, slots: &Slots<Owner>) -> Vec<InTheWay> {
        let mode = waiter.ticket.mode();
        let other = |owner: &Arc<Owner>| !owner.is(&waiter.owner) && owner.binds();
        let hard = |mode| Obstacle { mode, soft: false };
        let holder = self.holder.iter().map(|(owner, _)| owner);
        let holder = holder.filter(|owner| other(owner));
        let mut all: Vec<InTheWay> = holder
            .map(|owner| (Arc::clone(owner), hard(EXCLUSIVE)))
            .collect();
        if mode == EXCLUSIVE {
            let sharers = slots
                .all()
                .filter(|owner| owner.tables().has(self.lock.id) && other(owner));
            all.extend(sharers.map(|owner| (owner, hard(SHARED))));
        }
        let waiters = self.queue.iter().take(ahead);
        let waiters =
            waiters.filter(|other| other.is_live() && conflicts(mode, other.ticket.mode()));
        all.extend(waiters.map(|other| {
            let mode = other.ticket.mode();
            (Arc::clone(&other.owner), Obstacle { mode, soft: true })
        }));
        all
    }

    fn position(&self, ticket: &Arc<Ticket>) -> Option<usize> {
        self.queue
            .iter()
            .position(|waiter| Arc::ptr_eq(&waiter.ticket, ticket))
    }

    /// Grants, in the order of the queue, whoever nobody is in the way of; stops at the first whom somebody is.
    fn promote(&mut self, slots: &Slots<Owner>, wakes: &mut Wakes) -> Asked {
        self.holder.take_if(|(owner, _)| !owner.binds());
        while let Some(waiter) = self.queue.front().cloned() {
            let Waiter { owner, ticket } = &waiter;
            if !owner.is_active() {
                ticket.try_end();
            } else if ticket.is_waiting() {
                let in_the_way = self.in_the_way(&waiter, 0, slots);
                if !in_the_way.is_empty() {
                    return self.register(&in_the_way);
                }
                // In the set before the thread is told.
                if !owner.tables().has(self.lock.id) {
                    owner.tables().insert(self.lock.id);
                }
                if ticket.try_grant() && ticket.mode() == EXCLUSIVE {
                    self.holder = Some((Arc::clone(owner), UNSTAMPED));
                }
            }
            wakes.add(owner);
            self.queue.pop_front();
        }
        Asked::Done
    }

    fn register(&mut self, in_the_way: &[InTheWay]) -> Asked {
        let mut asked = Asked::Done;
        let before = std::mem::take(&mut self.registered);
        for (owner, _) in in_the_way {
            if self.registered.insert(owner.id()) && !before.contains(&owner.id()) {
                owner.push_contended(Awaited::Table(self.lock.id));
                asked = Asked::Again;
            }
        }
        asked
    }
}

/// All tables that somebody holds or awaits EXCLUSIVE.
#[derive(Debug, Default)]
pub(crate) struct TableBook(BTreeMap<TableId, Exclusive>);

impl TableBook {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Queues a request; before it, raises the flag.
    pub(crate) fn enqueue(&mut self, lock: &Arc<TableLock>, waiter: Waiter) {
        let table = self.0.entry(lock.id).or_insert_with(|| {
            lock.flag.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            Exclusive {
                lock: Arc::clone(lock),
                holder: None,
                queue: VecDeque::new(),
                registered: BTreeSet::new(),
            }
        });
        let stays_ahead = |other: &Waiter| other.ticket.is_upgrade();
        let place = if waiter.ticket.is_upgrade() {
            table
                .queue
                .iter()
                .take_while(|other| stays_ahead(other))
                .count()
        } else {
            table.queue.len()
        };
        table.queue.insert(place, waiter);
    }

    /// Serves the queue; a table that nobody holds or awaits EXCLUSIVE any more goes, and its flag falls.
    pub(crate) fn ask(&mut self, id: TableId, slots: &Slots<Owner>, wakes: &mut Wakes) -> Asked {
        let Some(table) = self.0.get_mut(&id) else {
            return Asked::Done;
        };
        let asked = table.promote(slots, wakes);
        if asked == Asked::Done && table.holder.is_none() && table.queue.is_empty() {
            table.lock.flag.store(false, Ordering::SeqCst);
            self.0.remove(&id);
        }
        asked
    }

    /// Takes a ticket that is no longer waiting out of the queue.
    pub(crate) fn leave_queue(&mut self, id: TableId, ticket: &Arc<Ticket>) {
        if let Some(table) = self.0.get_mut(&id)
            && let Some(place) = table.position(ticket)
        {
            table.queue.remove(place);
        }
    }

    /// K7: a sharer that came while the flag was up takes its SHARED back. `false` if nobody wants the table any more, and
    /// it keeps that.
    pub(crate) fn take_back(&mut self, id: TableId, owner: &Owner) -> bool {
        let Some(table) = self.0.get_mut(&id) else {
            return false;
        };
        owner.tables().remove(id);
        table.registered.remove(&owner.id());
        true
    }

    /// One with whom the table may be registered has ended, or gave something back. Whether it is to be asked for again.
    pub(crate) fn left(&mut self, id: TableId, owner: TxnId) -> bool {
        let table = self.0.get_mut(&id);
        table.is_some_and(|table| {
            table.registered.remove(&owner);
            table.registered.is_empty()
        })
    }

    pub(crate) fn is_held(&self, id: TableId, owner: &Owner) -> bool {
        self.holder(id, owner).is_some()
    }

    pub(crate) fn token(&self, id: TableId, owner: &Owner) -> Option<FencingToken> {
        self.holder(id, owner).filter(|token| *token != UNSTAMPED)
    }

    fn holder(&self, id: TableId, owner: &Owner) -> Option<FencingToken> {
        let holder = self.0.get(&id)?.holder.as_ref();
        holder
            .filter(|(holder, _)| owner.is(holder))
            .map(|(_, token)| *token)
    }

    pub(crate) fn stamp(&mut self, id: TableId, owner: &Owner, token: FencingToken) {
        let holder = self.0.get_mut(&id).and_then(|table| table.holder.as_mut());
        if let Some((_, stamped)) = holder.filter(|(holder, _)| owner.is(holder)) {
            *stamped = token;
        }
    }

    /// L4: whom the waiter waits for.
    pub(crate) fn obstacles(
        &self,
        id: TableId,
        waiter: &Waiter,
        slots: &Slots<Owner>,
    ) -> Vec<InTheWay> {
        let Some(table) = self.0.get(&id) else {
            return Vec::new();
        };
        match table.position(&waiter.ticket) {
            Some(place) if waiter.ticket.is_waiting() => table.in_the_way(waiter, place, slots),
            _ => Vec::new(),
        }
    }

    /// L4: takes a waiter ahead of another; those whom it goes past.
    pub(crate) fn put_ahead(&mut self, id: TableId, waiter: &Waiter, other: &Owner) -> Vec<Waiter> {
        let Some(table) = self.0.get_mut(&id) else {
            return Vec::new();
        };
        let to = table
            .queue
            .iter()
            .position(|waiter| other.is(&waiter.owner));
        let places = table.position(&waiter.ticket).zip(to);
        let Some((from, to)) = places.filter(|(from, to)| to < from) else {
            return Vec::new();
        };
        let mode = waiter.ticket.mode();
        let passed = table.queue.iter().skip(to).take(from - to);
        let passed = passed.filter(|other| conflicts(mode, other.ticket.mode()));
        let passed = passed.cloned().collect();
        if let Some(waiter) = table.queue.remove(from) {
            table.queue.insert(to, waiter);
        }
        passed
    }

    /// Inheritance: the highest that somebody in the table's queue is queued with.
    pub(crate) fn order(&self, id: TableId) -> Option<u64> {
        let queue = self.0.get(&id).into_iter().flat_map(|table| &table.queue);
        queue.map(|waiter| waiter.ticket.order()).max()
    }

    /// By table: who holds it EXCLUSIVE.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (TableId, &Arc<Owner>, FencingToken)> {
        let held = self
            .0
            .iter()
            .filter_map(|(id, table)| Some((id, table.holder.as_ref()?)));
        let held = held.filter(|(_, (owner, _))| owner.binds());
        held.map(|(id, (owner, token))| (*id, owner, *token))
    }

    /// By table: who waits, the next in line first.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        let queues = self.0.values().flat_map(|table| &table.queue);
        queues.filter(|waiter| waiter.is_live())
    }

    /// The tables that are held or awaited EXCLUSIVE.
    pub(crate) fn ids(&self) -> impl Iterator<Item = TableId> {
        self.0.keys().copied()
    }
}
