//! The locked rows of one shard, under its latch: what a request comes to, and what happens to a row later.
//!
//! Called by `shards`, `standoff`, `release` and `table`.
//! 1. A row that is neither held nor waited for has no entry.
//! 2. K4: every change ends with the row settled, before the latch is dropped.
//! 3. A row that one transaction holds, and nobody waits for, is its node alone; as soon as another holds it too or
//!    waits, a [`RowLock`] decides; when that is over, the node does again. While its table has a range, it decides always.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{FencingToken, RowKey};
use parking_lot::MutexGuard;

use crate::decision::Blocker;
use crate::index::{Index, Signpost};
use crate::nodes::{Alone, Held, Node, Nodes};
use crate::owner::Owner;
use crate::place::Place;
use crate::placing::{self, Placed};
use crate::row_lock::RowLock;
use crate::slots::Slots;
use crate::sweep::Sweep;
use crate::ticket::{Grant, Hold, Ticket, Want};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;
use crate::wide::{Around, Wide};

/// The rows of one shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    index: Index,
    pub(crate) nodes: Nodes,
    sweep: Sweep,
}

/// A shard, latched.
#[derive(Debug)]
pub(crate) struct Latch<'a> {
    pub(crate) number: usize,
    pub(crate) shard: MutexGuard<'a, Shard>,
    pub(crate) signpost: &'a Signpost,
    pub(crate) slots: &'a Slots<Owner>,
    pub(crate) wide: &'a Wide,
}

impl Shard {
    pub(crate) fn number(&self, hash: u64, row: &RowKey) -> Option<u32> {
        let is_it = |number| self.nodes.get(number).is_some_and(|node| node.row == *row);
        self.index.find(hash, is_it)
    }

    fn node(&self, hash: u64, row: &RowKey) -> Option<&Node> {
        self.nodes.get(self.number(hash, row)?)
    }

    pub(crate) fn remove(&mut self, number: u32) {
        let Some(node) = self.nodes.get(number) else {
            return;
        };
        self.index.remove(node.hash, number);
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
        let wide = self.wide;
        // L8: one load, while there is no range.
        let mut books = wide.latch_if_ranges(want.row.table());
        if books.is_some() {
            let mut around = Around::new(wide, books.as_deref_mut(), wakes);
            return self.request_within(owner, want, &mut around);
        }
        let own = Alone::new(owner.name(), want.hold(None));
        let row = (want.hash, want.row);
        let (number, is_new) = self.node(row, || Held::Alone(own));
        let place = Place::new(self.number, number);
        if is_new {
            return Placed::Granted(want.granted(place, None), None);
        }
        let node = self.shard.nodes.get_mut(number).expect(USED);
        if let Held::Alone(alone) = &mut node.held {
            if alone.owner == own.owner {
                let before = alone.hold();
                if before.covers(want.mode, want.writes) {
                    return Placed::Covered(Grant::covered(before.mode, place));
                }
                *alone = Alone::new(alone.owner, want.hold(Some(before)));
                return Placed::Granted(want.granted(place, Some(before)), Some(before));
            }
            if !self.slots.binds(alone.owner) {
                *alone = own;
                return Placed::Granted(want.granted(place, None), None);
            }
        }
        let mut around = Around::new(wide, None, wakes);
        self.ask(number, owner, want, &mut around)
    }

    /// K6: the same, while there are ranges. What a range of its own covers needs no entry (L2).
    fn request_within(
        &mut self,
        owner: &Arc<Owner>,
        want: Want<'_>,
        around: &mut Around<'_>,
    ) -> Placed {
        let held = around.held(owner, want.row);
        if let Some(mode) = held.filter(|mode| *mode >= want.hold(None).beside_ranges()) {
            return Placed::Covered(Grant::covered(mode, Place::NONE));
        }
        let free = || RowLock::new(want.row.clone(), want.hash, None);
        let row = (want.hash, want.row);
        let (number, _) = self.node(row, || Held::Contended(Box::new(free())));
        self.ask(number, owner, want, around)
    }

    /// The row's node, and whether it is new: then it is as said.
    pub(crate) fn node(
        &mut self,
        (hash, row): (u64, &RowKey),
        held: impl FnOnce() -> Held,
    ) -> (u32, bool) {
        let Shard { index, nodes, .. } = &mut *self.shard;
        let same = |number| {
            nodes
                .get(number)
                .is_some_and(|node: &Node| node.row == *row)
        };
        match index.locate(hash, same) {
            Ok(number) => (number, false),
            Err(free) => {
                let number = nodes.insert(Node {
                    row: row.clone(),
                    hash,
                    held: held(),
                });
                index.insert(free, hash, number);
                // It may have grown.
                index.tell(self.signpost);
                (number, true)
            }
        }
    }

    /// The row of `hash` is going to be asked for, in this hold of the latch.
    pub(crate) fn expect(&self, hash: u64) {
        self.shard.index.expect(hash);
    }

    #[cfg(test)]
    pub(crate) fn is_signposted(&self) -> bool {
        self.shard.index.is_at(self.signpost)
    }

    /// The row's lock decides.
    fn ask(
        &mut self,
        number: u32,
        owner: &Arc<Owner>,
        want: Want<'_>,
        around: &mut Around<'_>,
    ) -> Placed {
        let place = Place::new(self.number, number);
        let placed = placing::ask(self.contended(number), owner, (want, place), around);
        self.tidy(number);
        placed
    }

    /// The row's lock, which decides instead of its node.
    pub(crate) fn contended(&mut self, number: u32) -> &mut RowLock {
        let node = self.shard.nodes.get_mut(number).expect(USED);
        if let Held::Alone(alone) = &node.held {
            let holder = self.slots.owner(alone.owner);
            let holder = holder.map(|holder| (holder, alone.hold()));
            let lock = RowLock::new(node.row.clone(), node.hash, holder);
            node.held = Held::Contended(Box::new(lock));
        }
        let Held::Contended(lock) = &mut node.held else {
            unreachable!("what was held alone has become a lock above");
        };
        lock
    }

    /// A lock that nobody needs any more goes, or becomes its node again.
    pub(crate) fn tidy(&mut self, number: u32) {
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
        self.within(ticket, wakes, |lock, around| {
            lock.leave_queue(ticket);
            lock.settle(around);
        });
    }

    /// Inheritance: queues the ticket as if it were of `order`; whether it goes past somebody.
    pub(crate) fn raise(&mut self, ticket: &Arc<Ticket>, order: u64, wakes: &mut Wakes) -> bool {
        let raised = self.within(ticket, wakes, |lock, around| {
            lock.raise(ticket, order, around)
        });
        raised == Some(true)
    }

    /// `Wound`, for one that waits already: whom it has wounded, or to whom it has lost; then it waits no more.
    pub(crate) fn judge(
        &mut self,
        waiter: &Waiter,
        wakes: &mut Wakes,
    ) -> Result<Vec<Arc<Owner>>, Blocker> {
        let judged = self.within(&waiter.ticket, wakes, |lock, around| {
            placing::judge(lock, waiter, around)
        });
        judged.unwrap_or(Ok(Vec::new()))
    }

    /// The lock in whose queue the ticket is, or was.
    pub(crate) fn with_lock<T>(
        &mut self,
        ticket: &Ticket,
        around: &mut Around<'_>,
        act: impl FnOnce(&mut RowLock, &mut Around<'_>) -> T,
    ) -> Option<T> {
        let number = self.shard.number(ticket.hash(), ticket.row()?)?;
        let Held::Contended(lock) = &mut self.shard.nodes.get_mut(number)?.held else {
            return None;
        };
        let done = act(lock, around);
        self.tidy(number);
        Some(done)
    }

    /// The same, with what is around the row.
    fn within<T>(
        &mut self,
        ticket: &Ticket,
        wakes: &mut Wakes,
        act: impl FnOnce(&mut RowLock, &mut Around<'_>) -> T,
    ) -> Option<T> {
        let wide = self.wide;
        let mut books = wide.latch_if_ranges(ticket.target().table());
        let mut around = Around::new(wide, books.as_deref_mut(), wakes);
        self.with_lock(ticket, &mut around, act)
    }

    /// Changes a lock, if the node has one, and settles it.
    pub(crate) fn change(
        &mut self,
        number: u32,
        wakes: &mut Wakes,
        change: impl FnOnce(&mut RowLock),
    ) {
        let wide = self.wide;
        let Some(node) = self.shard.nodes.get_mut(number) else {
            return;
        };
        match &mut node.held {
            Held::Contended(lock) => {
                let mut books = wide.latch_if_ranges(node.row.table());
                change(lock);
                lock.settle(&mut Around::new(wide, books.as_deref_mut(), wakes));
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

    /// Whose place it is.
    pub(crate) fn row(&self, place: Place) -> Option<&RowKey> {
        let node = self.shard.nodes.get(place.node())?;
        Some(&node.row)
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

    /// No row has a number that is not below this.
    pub(crate) fn numbers(&self) -> u32 {
        self.shard.nodes.numbers()
    }

    /// K5: looks at the next `steps` nodes, if there may be void ones; returns how many it removed.
    pub(crate) fn sweep(&mut self, ends: u64, steps: usize) -> usize {
        let mut removed = 0;
        for _ in 0..steps {
            let numbers = self.shard.nodes.numbers();
            let Some(number) = self.shard.sweep.next(ends, numbers) else {
                break;
            };
            self.expect_swept(number);
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

    /// The nodes behind `number` are going to be swept: their memory is asked for, and some steps later the words of the index
    /// that name them.
    fn expect_swept(&self, number: u32) {
        /// A request sweeps so many nodes, and somewhat later the next one does.
        const STEPS: u32 = 4;
        let Shard { index, nodes, .. } = &*self.shard;
        nodes.expect(number + 2 * STEPS);
        if let Some(node) = nodes.get(number + STEPS) {
            index.expect(node.hash);
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.shard.nodes.len()
    }

    pub(crate) fn is_clean(&self, ends: u64) -> bool {
        self.shard.sweep.is_clean(ends)
    }
}

/// The index names nodes that are used.
const USED: &str = "the index names nodes that are used";
