//! K7: the tables that somebody holds or awaits EXCLUSIVE, and who waits there.
//!
//! Called under the latch of the wide locks. SHARED is the sets of the transactions ([`TableSet`](crate::table_set)), and one
//! look at the flag.
//! 1. L7: a table is here, and its flag is up, while somebody holds or awaits EXCLUSIVE. New sharers queue then: so EXCLUSIVE
//!    is never starved.
//! 2. First come, first served, whatever the priorities; whoever holds SHARED goes to the front, and its own SHARED does not
//!    stand in its way.
//! 3. The flag is raised before the sets are read, once, and a set is filled before the flag is read. While it is up nobody
//!    comes to share the table but through the queue: so those who do are known.
//! 4. A table with waiters is registered with everyone who is in the way of the first. When the last of them has gone, the
//!    queue is served again.
//!
//! Crash: memory only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use lockstone_base::{FencingToken, LockMode, TableId, TxnId};

use crate::contended::Wider;
use crate::judge::is_called;
use crate::matrix::conflicts;
use crate::met::{InTheWay, Obstacle};
use crate::owner::Owner;
use crate::ranges::Asked;
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
    /// Who shares it, and some who have ended.
    sharers: BTreeMap<TxnId, Arc<Owner>>,
    queue: VecDeque<Waiter>,
    /// Who was in the way of the first when it was looked at last, but for those who have come back.
    registered: BTreeMap<TxnId, Arc<Owner>>,
    /// The number of that first one.
    first: u64,
}

impl Exclusive {
    /// L7: raises the flag of a table, and looks who shares it.
    fn raise(lock: &Arc<TableLock>, slots: &Slots<Owner>) -> Self {
        lock.flag.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let sharers = slots.all().filter(|owner| owner.tables().has(lock.id));
        Self {
            lock: Arc::clone(lock),
            holder: None,
            sharers: sharers.map(|owner| (owner.id(), owner)).collect(),
            queue: VecDeque::new(),
            registered: BTreeMap::new(),
            first: 0,
        }
    }

    /// Who holds it in the way of a request for `mode`.
    fn holders(&self, owner: &Owner, mode: LockMode) -> Vec<InTheWay> {
        let hard = |owner: &Arc<Owner>, mode| (Arc::clone(owner), Obstacle { mode, soft: false });
        let holder = self.holder.iter().map(|(holder, _)| holder);
        let holder = holder.filter(|holder| !owner.is(holder) && holder.binds());
        let mut all: Vec<InTheWay> = holder.map(|holder| hard(holder, EXCLUSIVE)).collect();
        // Who holds it alone shares it too.
        if mode == EXCLUSIVE && all.is_empty() {
            let sharers = self.sharers.values();
            let sharers = sharers.filter(|sharer| !owner.is(sharer) && sharer.binds());
            all.extend(sharers.map(|sharer| hard(sharer, SHARED)));
        }
        all
    }

    /// Who is in the way of a waiter that has `ahead` others before it in the queue.
    fn in_the_way(&self, waiter: &Waiter, ahead: usize) -> Vec<InTheWay> {
        let mode = waiter.ticket.mode();
        let mut all = self.holders(&waiter.owner, mode);
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

    /// Whether the first waits, as it did when it was looked at last, for somebody who is still there and will come back.
    fn stands(&self) -> bool {
        let first = self.queue.front().filter(|waiter| waiter.is_live());
        let is_it = first.is_some_and(|waiter| waiter.ticket.number() == self.first);
        is_it && self.registered.values().any(|owner| owner.binds())
    }

    /// Grants, in the order of the queue, whoever nobody is in the way of; stops at the first whom somebody is.
    fn promote(&mut self, wakes: &mut Wakes) -> Asked {
        self.holder.take_if(|(owner, _)| !owner.binds());
        while let Some(waiter) = self.queue.front().cloned() {
            let Waiter { owner, ticket } = &waiter;
            if !owner.is_active() {
                ticket.try_end();
            } else if ticket.is_waiting() {
                let in_the_way = self.holders(owner, ticket.mode());
                if !in_the_way.is_empty() {
                    // `Wound`: as in `ranges`.
                    let others = in_the_way.iter().map(|(other, _)| other);
                    if ticket.has_won() && is_called(owner, others) {
                        wakes.add(owner);
                    }
                    self.first = ticket.number();
                    return self.register(&in_the_way);
                }
                // In the set before the thread is told.
                if !owner.tables().has(self.lock.id) {
                    owner.tables().insert(self.lock.id);
                }
                self.sharers.insert(owner.id(), Arc::clone(owner));
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
            let again = self.registered.insert(owner.id(), Arc::clone(owner));
            if again.is_none() && !before.contains_key(&owner.id()) {
                owner.contended().push_wide(Wider::Table(self.lock.id));
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

    /// Queues a request; before it, raises the flag. Whether it is the first, and whether somebody is behind it.
    pub(crate) fn enqueue(
        &mut self,
        lock: &Arc<TableLock>,
        waiter: Waiter,
        slots: &Slots<Owner>,
    ) -> (bool, bool) {
        let table = self.0.entry(lock.id);
        let table = table.or_insert_with(|| Exclusive::raise(lock, slots));
        let stays_ahead = |other: &&Waiter| other.ticket.is_upgrade();
        let place = if waiter.ticket.is_upgrade() {
            table.queue.iter().take_while(stays_ahead).count()
        } else {
            table.queue.len()
        };
        table.queue.insert(place, waiter);
        (place == 0, place + 1 < table.queue.len())
    }

    /// Serves the queue; a table that nobody holds or awaits EXCLUSIVE any more goes, and its flag falls.
    pub(crate) fn ask(&mut self, id: TableId, wakes: &mut Wakes) {
        let Some(table) = self.0.get_mut(&id) else {
            return;
        };
        if table.stands() {
            return;
        }
        // L6: who ended before the table was registered with him does not come back.
        while table.promote(wakes) == Asked::Again {}
        if table.holder.is_none() && table.queue.is_empty() {
            table.lock.flag.store(false, Ordering::SeqCst);
            self.0.remove(&id);
        }
    }

    /// Takes a ticket that is no longer waiting out of the queue, and serves that.
    pub(crate) fn leave_queue(&mut self, id: TableId, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
        let place = self.0.get(&id).and_then(|table| table.position(ticket));
        if let Some((table, place)) = self.0.get_mut(&id).zip(place) {
            table.queue.remove(place);
        }
        // Behind others nobody waited for it; in front, or granted already, it was in the way of all.
        if place.is_none_or(|place| place == 0) {
            self.ask(id, wakes);
        }
    }

    /// L4: whether somebody waits for a table that the owner shares.
    pub(crate) fn may_await(&self, owner: &Owner) -> bool {
        let mut awaited = self.0.iter().filter(|(_, table)| !table.queue.is_empty());
        awaited.any(|(id, _)| owner.tables().has(*id))
    }

    /// K7: a sharer that came while the flag was up takes its SHARED back. `false` if nobody wants the table any more, and
    /// it keeps that.
    pub(crate) fn take_back(&mut self, id: TableId, owner: &Owner) -> bool {
        let Some(table) = self.0.get_mut(&id) else {
            return false;
        };
        owner.tables().remove(id);
        table.registered.remove(&owner.id());
        table.sharers.remove(&owner.id());
        true
    }

    /// One with whom the table may be registered has ended, or gave something back. Whether it is to be asked for again.
    pub(crate) fn left(&mut self, id: TableId, owner: &Owner) -> bool {
        let table = self.0.get_mut(&id);
        table.is_some_and(|table| {
            table.registered.remove(&owner.id());
            if !owner.binds() {
                table.sharers.remove(&owner.id());
            }
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
    pub(crate) fn obstacles(&self, id: TableId, waiter: &Waiter) -> Vec<InTheWay> {
        let Some(table) = self.0.get(&id) else {
            return Vec::new();
        };
        match table.position(&waiter.ticket) {
            Some(place) if waiter.ticket.is_waiting() => table.in_the_way(waiter, place),
            _ => Vec::new(),
        }
    }

    /// Those of them who hold the table.
    pub(crate) fn holders_in_the_way(&self, id: TableId, waiter: &Waiter) -> Vec<InTheWay> {
        let table = self.0.get(&id);
        table.map_or_else(Vec::new, |table| {
            table.holders(&waiter.owner, waiter.ticket.mode())
        })
    }

    /// Who holds the table, and who waits for it, the next in line first.
    pub(crate) fn view(&self, id: TableId) -> (Vec<(Arc<Owner>, LockMode)>, Vec<Waiter>) {
        let Some(table) = self.0.get(&id) else {
            return (Vec::new(), Vec::new());
        };
        let live = table.queue.iter().filter(|waiter| waiter.is_live());
        let holder = table.holder.iter().map(|(owner, _)| (owner, EXCLUSIVE));
        let sharers = table.sharers.values().map(|owner| (owner, SHARED));
        let held = holder.chain(sharers).filter(|(owner, _)| owner.binds());
        let held = held.map(|(owner, mode)| (Arc::clone(owner), mode));
        (held.collect(), live.cloned().collect())
    }

    /// L4: takes a waiter ahead of another.
    pub(crate) fn put_ahead(&mut self, id: TableId, waiter: &Waiter, other: &Owner) {
        let Some(table) = self.0.get_mut(&id) else {
            return;
        };
        let to = table
            .queue
            .iter()
            .position(|waiter| other.is(&waiter.owner));
        let places = table.position(&waiter.ticket).zip(to);
        if let Some((from, to)) = places.filter(|(from, to)| to < from)
            && let Some(waiter) = table.queue.remove(from)
        {
            table.queue.insert(to, waiter);
        }
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

    /// By table that is held or awaited EXCLUSIVE: who shares it.
    pub(crate) fn sharers(&self) -> impl Iterator<Item = (TableId, &Arc<Owner>)> {
        self.0.iter().flat_map(|(id, table)| {
            let alone = |owner: &Owner| table.holder.as_ref().is_some_and(|(it, _)| owner.is(it));
            let sharers = table.sharers.values();
            let sharers = sharers.filter(move |owner| owner.binds() && !alone(owner));
            sharers.map(|owner| (*id, owner))
        })
    }
}
