//! The locked rows of one shard, under its latch: what a request comes to, and what happens to a row later.
//!
//! Called by `shards`, `standoff`, `release` and `table`.
//! 1. A row that is neither held nor waited for has no entry.
//! 2. K4: every change ends with the row settled, before the latch is dropped.
//! 3. A row that one transaction holds, and nobody waits for, is its node alone; as soon as another holds it too or
//!    waits, a [`RowLock`] decides; when that is over, the node does again.
//!
//! Crash: memory only.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use lockstone_base::{FencingToken, RowKey};
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::decision::Blocker;
use crate::nodes::{Alone, Held, Node, Nodes};
use crate::owner::Owner;
use crate::place::Place;
use crate::policy::Policy;
use crate::row_lock::{RowLock, Verdict};
use crate::slots::Slots;
use crate::sweep::Sweep;
use crate::ticket::{Grant, Hold, Ticket, Want};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// The rows of one shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    index: HashTable<u32>,
    nodes: Nodes,
    sweep: Sweep,
}

/// A shard, latched.
#[derive(Debug)]
pub(crate) struct Latch<'a> {
    pub(crate) number: usize,
    pub(crate) shard: MutexGuard<'a, Shard>,
    pub(crate) slots: &'a Slots<Owner>,
}

/// What became of a request in its shard.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Re-entrant: what is held covers it.
    Covered(Grant),
    /// Held now; before, the hold was this.
    Granted(Grant, Option<Hold>),
    /// In the queue.
    Queued(Queued),
    /// It would have queued.
    Refused(Blocker),
    /// Its rank does not exceed this one's.
    Died(Blocker),
}

/// A request that waits, or did for a moment.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) anyone_behind: bool,
    /// Whom it has wounded; their release passes are the caller's.
    pub(crate) victims: Vec<Arc<Owner>>,
}

/// Who holds a row and who waits for it.
#[derive(Debug)]
pub(crate) struct RowView<'a> {
    pub(crate) row: &'a RowKey,
    pub(crate) holders: SmallVec<[(Arc<Owner>, Hold); 1]>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) lock: Option<&'a RowLock>,
}

impl Shard {
    fn number(&self, hash: u64, row: &RowKey) -> Option<u32> {
        let is_it = |number: &u32| self.nodes.get(*number).is_some_and(|node| node.row == *row);
        self.index.find(hash, is_it).copied()
    }

    fn node(&self, hash: u64, row: &RowKey) -> Option<&Node> {
        self.nodes.get(self.number(hash, row)?)
    }

    fn remove(&mut self, number: u32) {
        let Some(node) = self.nodes.get(number) else {
            return;
        };
        let entry = self.index.find_entry(node.hash, |at| *at == number);
        entry.expect("a node that is used is in the index").remove();
        self.nodes.remove(number);
    }
}

impl Latch<'_> {
    /// K1, K4: grants, queues or refuses.
    pub(crate) fn request(
        &mut self,
        owner: &Arc<Owner>,
        want: Want<'_>,
        wakes: &mut Wakes,
    ) -> Placed {
        let Shard { index, nodes, .. } = &mut *self.shard;
        let own = Alone::new(owner.name(), want.hold());
        let node = |number: &u32| nodes.get(*number);
        let same = |number: &u32| node(number).is_some_and(|node| node.row == *want.row);
        let hash = |number: &u32| node(number).map_or(0, |node| node.hash);
        let number = match index.entry(want.hash, same, hash) {
            Entry::Vacant(entry) => {
                let number = nodes.insert(Node {
                    row: want.row.clone(),
                    hash: want.hash,
                    held: Held::Alone(own),
                });
                entry.insert(number);
                return Placed::Granted(want.granted(Place::new(self.number, number), true), None);
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let place = Place::new(self.number, number);
        let node = nodes
            .get_mut(number)
            .expect("the index names nodes that are used");
        if let Held::Alone(alone) = &mut node.held {
            if alone.owner == own.owner {
                let before = alone.hold();
                if before.mode >= want.mode {
                    return Placed::Covered(Grant::covered(before.mode, place));
                }
                *alone = own;
                return Placed::Granted(want.granted(place, false), Some(before));
            }
            let Some(other) = self.slots.owner(alone.owner) else {
                *alone = own;
                return Placed::Granted(want.granted(place, true), None);
            };
            let lock = RowLock::held_by(other, alone.hold(), node.row.clone(), node.hash);
            node.held = Held::Contended(Box::new(lock));
        }
        let Held::Contended(lock) = &mut node.held else {
            unreachable!("what is held alone was decided above");
        };
        let placed = ask(lock, owner, want, place, wakes);
        self.tidy(number);
        placed
    }

    /// A lock that nobody needs any more goes, or becomes its node again.
    fn tidy(&mut self, number: u32) {
        let Some(node) = self.shard.nodes.get_mut(number) else {
            return;
        };
        let Held::Contended(lock) = &node.held else {
            return;
        };
        if lock.is_free() {
            self.shard.remove(number);
        } else if let Some(holder) = lock.alone() {
            node.held = Held::Alone(Alone::new(holder.owner.name(), holder.hold));
        }
    }

    /// The row's lock, if somebody waits for it or several hold it.
    pub(crate) fn find(&self, hash: u64, row: &RowKey) -> Option<&RowLock> {
        match &self.shard.node(hash, row)?.held {
            Held::Contended(lock) => Some(lock),
            Held::Alone(_) => None,
        }
    }

    /// What `owner` holds of the row.
    pub(crate) fn held(&self, owner: &Owner, hash: u64, row: &RowKey) -> Option<Hold> {
        match &self.shard.node(hash, row)?.held {
            Held::Contended(lock) => lock.held(owner),
            Held::Alone(alone) => (alone.owner == owner.name()).then(|| alone.hold()),
        }
    }

    /// Settles the row, if it has a lock: whoever has ended is gone from it, who can run does.
    pub(crate) fn settle(&mut self, hash: u64, row: &RowKey, wakes: &mut Wakes) {
        if let Some(number) = self.shard.number(hash, row) {
            self.change(number, wakes, |_| {});
        }
    }

    /// Takes a ticket that is no longer waiting out of the queue.
    pub(crate) fn leave_queue(&mut self, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
        self.with_lock(ticket, wakes, |lock, wakes| {
            lock.leave_queue(ticket);
            lock.settle(wakes);
        });
    }

    /// Inheritance: queues the ticket as if it were of `order`; those whom it goes past.
    pub(crate) fn raise(
        &mut self,
        ticket: &Arc<Ticket>,
        order: u64,
        wakes: &mut Wakes,
    ) -> Vec<Waiter> {
        let raise = |lock: &mut RowLock, wakes: &mut Wakes| lock.raise(ticket, order, wakes);
        self.with_lock(ticket, wakes, raise).unwrap_or_default()
    }

    /// `Wound`, for one that waits already: whom it has wounded, or to whom it has lost; then it waits no more.
    pub(crate) fn judge(
        &mut self,
        owner: &Arc<Owner>,
        ticket: &Arc<Ticket>,
        wakes: &mut Wakes,
    ) -> Result<Vec<Arc<Owner>>, Blocker> {
        let judge = |lock: &mut RowLock, wakes: &mut Wakes| judge(lock, owner, ticket, wakes);
        self.with_lock(ticket, wakes, judge)
            .unwrap_or(Ok(Vec::new()))
    }

    /// The lock in whose queue the ticket is, or was.
    pub(crate) fn with_lock<T>(
        &mut self,
        ticket: &Ticket,
        wakes: &mut Wakes,
        act: impl FnOnce(&mut RowLock, &mut Wakes) -> T,
    ) -> Option<T> {
        let number = self.shard.number(ticket.hash(), ticket.row())?;
        let Held::Contended(lock) = &mut self.shard.nodes.get_mut(number)?.held else {
            return None;
        };
        let done = act(lock, wakes);
        self.tidy(number);
        Some(done)
    }

    /// Changes a lock, if the node has one, and settles it.
    fn change(&mut self, number: u32, wakes: &mut Wakes, change: impl FnOnce(&mut RowLock)) {
        let Some(node) = self.shard.nodes.get_mut(number) else {
            return;
        };
        match &mut node.held {
            Held::Contended(lock) => {
                change(lock);
                lock.settle(wakes);
                self.tidy(number);
            }
            Held::Alone(alone) if !self.slots.binds(alone.owner) => self.shard.remove(number),
            Held::Alone(_) => {}
        }
    }

    /// K5: what one that ended left at `place` goes; if the place is another row's by now, that is none the worse.
    pub(crate) fn let_go(&mut self, place: Place, wakes: &mut Wakes) {
        self.change(place.node(), wakes, |_| {});
    }

    /// L9: sets what `owner`, which is active, holds at `place` back to `before`.
    pub(crate) fn restore(
        &mut self,
        place: Place,
        owner: &Owner,
        before: Option<Hold>,
        wakes: &mut Wakes,
    ) {
        let Some(node) = self.shard.nodes.get_mut(place.node()) else {
            return;
        };
        match &mut node.held {
            Held::Alone(alone) if alone.owner == owner.name() => match before {
                None => self.shard.remove(place.node()),
                Some(before) => {
                    assert!(
                        before.mode <= alone.mode,
                        "L9: a rollback never strengthens a lock"
                    );
                    *alone = Alone::new(alone.owner, before);
                }
            },
            Held::Alone(_) => {}
            Held::Contended(_) => {
                self.change(place.node(), wakes, |lock| lock.restore(owner, before));
            }
        }
    }

    /// The token of what `owner` holds at `place`, from its record. It is no concern of anyone who waits, so nothing is
    /// settled.
    pub(crate) fn stamp(&mut self, place: Place, owner: &Owner, token: FencingToken) {
        match self
            .shard
            .nodes
            .get_mut(place.node())
            .map(|node| &mut node.held)
        {
            Some(Held::Contended(lock)) => lock.stamp(owner, token),
            Some(Held::Alone(alone)) if alone.owner == owner.name() => alone.token = token,
            _ => {}
        }
    }

    /// All rows that are held or waited for.
    pub(crate) fn views(&self) -> impl Iterator<Item = RowView<'_>> {
        let nodes = self.shard.nodes.iter();
        nodes.filter_map(|node| self.view(node))
    }

    /// Those of them that have these numbers.
    pub(crate) fn views_of(&self, numbers: Range<u32>) -> impl Iterator<Item = RowView<'_>> {
        let nodes = numbers.filter_map(|number| self.shard.nodes.get(number));
        nodes.filter_map(|node| self.view(node))
    }

    /// No row has a number that is not below this.
    pub(crate) fn numbers(&self) -> u32 {
        self.shard.nodes.numbers()
    }

    fn view<'a>(&'a self, node: &'a Node) -> Option<RowView<'a>> {
        let (holders, lock) = match &node.held {
            Held::Alone(alone) => {
                let owner = self.slots.owner(alone.owner)?;
                (SmallVec::from_buf([(owner, alone.hold())]), None)
            }
            Held::Contended(lock) => {
                let holders = lock.holders().iter();
                let holders = holders.filter(|holder| holder.owner.binds());
                let holders = holders.map(|holder| (Arc::clone(&holder.owner), holder.hold));
                (holders.collect(), Some(&**lock))
            }
        };
        let waiters = lock.into_iter().flat_map(RowLock::waiters);
        let waiters = waiters.filter(|waiter| waiter.is_live());
        Some(RowView {
            row: &node.row,
            holders,
            waiters: waiters.cloned().collect(),
            lock,
        })
    }

    /// K5: looks at the next `steps` nodes, if there may be void ones; returns how many it removed.
    pub(crate) fn sweep(&mut self, ends: u64, steps: usize) -> usize {
        let mut removed = 0;
        for _ in 0..steps {
            let numbers = self.shard.nodes.numbers();
            let Some(number) = self.shard.sweep.next(ends, numbers) else {
                break;
            };
            let void = |node: &Node| match &node.held {
                Held::Alone(alone) => !self.slots.binds(alone.owner),
                Held::Contended(lock) => lock.is_void(),
            };
            if self.shard.nodes.get(number).is_some_and(void) {
                self.shard.remove(number);
                removed += 1;
            }
        }
        removed
    }

    pub(crate) fn entries(&self) -> usize {
        self.shard.nodes.len()
    }

    pub(crate) fn is_clean(&self, ends: u64) -> bool {
        self.shard.sweep.is_clean(ends)
    }
}

fn ask(
    lock: &mut RowLock,
    owner: &Arc<Owner>,
    want: Want<'_>,
    place: Place,
    wakes: &mut Wakes,
) -> Placed {
    lock.settle(wakes);
    let (at, before, blocker) = match lock.decide(owner, &want) {
        Verdict::Covered(mode) => return Placed::Covered(Grant::covered(mode, place)),
        Verdict::Granted(before) => {
            return Placed::Granted(want.granted(place, before.is_none()), before);
        }
        Verdict::Blocked(at, before, blocker) => (at, before, blocker),
    };
    if want.policy == Policy::NoWait {
        return Placed::Refused(blocker);
    }
    let ticket = Arc::new(Ticket::new(Want { before, ..want }, place));
    let waiter = Waiter {
        owner: Arc::clone(owner),
        ticket: Arc::clone(&ticket),
    };
    let anyone_behind = lock.enqueue(at, waiter);
    // Registers with the holders, and looks at their states again.
    lock.settle(wakes);
    let judged = match want.policy {
        Policy::Wound => judge(lock, owner, &ticket, wakes),
        Policy::Wait | Policy::NoWait => Ok(Vec::new()),
    };
    match judged {
        Err(blocker) => Placed::Died(blocker),
        Ok(victims) => Placed::Queued(Queued {
            ticket,
            anyone_behind,
            victims,
        }),
    }
}

fn judge(
    lock: &mut RowLock,
    owner: &Arc<Owner>,
    ticket: &Arc<Ticket>,
    wakes: &mut Wakes,
) -> Result<Vec<Arc<Owner>>, Blocker> {
    let judged = lock.judge(owner, ticket, wakes);
    if judged.is_err() {
        lock.die(ticket, wakes);
    }
    judged
}
