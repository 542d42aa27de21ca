//! K6: the ranges that are locked, waited for or asked for, and what they have to do with rows and each other.
//!
//! Called under the latch of the wide locks, by `row_lock` for what is around its row, and by `ask`.
//! 1. L1: no range that is held conflicts with another's, or with a row of another's in it. Beside ranges a write counts as
//!    `Update`, for it may insert.
//! 2. L3: between a range and a row, or two ranges, who came first goes first; priorities decide in the queues of rows alone.
//!    A deadlock may turn that round for two of them (L4). L2: who waits for somebody is not ahead of him.
//! 3. A range that waits is registered with the last of those who wait before it; with all who are in its way, if nobody
//!    waits before it. When the last whom it is registered with has gone, it looks again.
//! 4. A row's waiter that only ranges are in the way of is on the contended stack of their owners.
//! 5. A range that asks is in nobody's way: it may still be refused. Whoever is granted past it makes it look again.
//! 6. K5: ranges of owners that have ended decide nothing.
//!
//! Crash: memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey, TableId, TxnId};

use crate::contended::{HashedRow, Wider};
use crate::decision::Blocker;
use crate::judge::{blocker, is_called};
use crate::matrix::conflicts;
use crate::met::{Met, Obstacle, Standing};
use crate::owner::Owner;
use crate::range_index::RangeIndex;
use crate::range_look::{Looking, RangeLook, RangeView, RangesMet, RowAsk};
use crate::slots::OwnerName;
use crate::target::{RowRange, Target};
use crate::ticket::{Ticket, UNSTAMPED};
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// A range, and what is known of its wait.
#[derive(Debug)]
struct RangeLock {
    view: RangeView,
    token: FencingToken,
    /// With whom it is registered while it waits.
    registered: BTreeMap<TxnId, Arc<Owner>>,
    /// Who held something in its way when it looked last, and has given nothing back since: it waits for them.
    holders: BTreeSet<OwnerName>,
    /// How often a row in it was granted past it: who looked before has to look again.
    changes: u64,
    /// The last to whom one was.
    passed_by: Option<Blocker>,
}

impl RangeLock {
    fn is_undecided(&self) -> bool {
        self.view.ticket.is_undecided() && self.view.owner.is_active()
    }

    /// Whether it was not registered with all of these.
    fn register<'a>(&mut self, owners: impl Iterator<Item = &'a Arc<Owner>>) -> Asked {
        let (number, mut asked) = (self.view.ticket.number(), Asked::Done);
        let mut before = std::mem::take(&mut self.registered);
        for owner in owners {
            if before.remove(&owner.id()).is_none() {
                owner.contended().push_wide(Wider::Range(number));
                asked = Asked::Again;
            }
            self.registered.insert(owner.id(), Arc::clone(owner));
        }
        for owner in before.values() {
            owner.contended().forget_wide(Wider::Range(number));
        }
        asked
    }
}

/// What a look at everything has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is granted, or registered, or somebody is in the way of what only asks.
    Done,
    /// Something has changed since it began to look.
    Again,
}

/// All ranges of a database.
#[derive(Debug, Default)]
pub(crate) struct RangeBook {
    locks: BTreeMap<u64, RangeLock>,
    tables: BTreeMap<TableId, RangeIndex>,
    /// Those that wait, by table.
    waiting: BTreeMap<TableId, BTreeSet<u64>>,
    /// Those that are held, by owner.
    held: BTreeMap<(OwnerName, TableId), RangeIndex>,
}

impl RangeBook {
    /// Publishes a range that waits, or asks.
    pub(crate) fn insert(&mut self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) {
        let Target::Range(range) = ticket.target() else {
            return;
        };
        let view = RangeView {
            owner: Arc::clone(owner),
            ticket: Arc::clone(ticket),
            range: Arc::clone(range),
            turned: BTreeMap::new(),
        };
        let lock = RangeLock {
            view,
            token: UNSTAMPED,
            registered: BTreeMap::new(),
            holders: BTreeSet::new(),
            changes: 0,
            passed_by: None,
        };
        let number = ticket.number();
        let table = self.tables.entry(range.table()).or_default();
        table.insert(range, number);
        if ticket.is_waiting() {
            self.note_waiting(ticket);
        }
        let before = self.locks.insert(number, lock);
        assert!(before.is_none(), "K6: each range has a number of its own");
    }

    /// A range that asks waits from now on. `false` if something has decided it.
    pub(crate) fn wait(&mut self, ticket: &Ticket) -> bool {
        let waits = ticket.try_wait();
        if waits {
            self.note_waiting(ticket);
        }
        waits
    }

    fn note_waiting(&mut self, ticket: &Ticket) {
        let waiting = self.waiting.entry(ticket.target().table());
        waiting.or_default().insert(ticket.number());
    }

    fn forget_waiting(&mut self, table: TableId, number: u64) {
        if let Some(waiting) = self.waiting.get_mut(&table) {
            waiting.remove(&number);
            if waiting.is_empty() {
                self.waiting.remove(&table);
            }
        }
    }

    /// Takes the range away; its table, and the rows that are to be settled.
    pub(crate) fn remove(&mut self, number: u64) -> Option<(TableId, BTreeSet<HashedRow>)> {
        let lock = self.locks.remove(&number)?;
        let table = lock.view.range.table();
        self.forget_waiting(table, number);
        let holder = (lock.view.owner.name(), table);
        if let Some(held) = self.held.get_mut(&holder) {
            held.remove(&lock.view.range, number);
            if held.is_empty() {
                self.held.remove(&holder);
            }
        }
        for owner in lock.registered.values() {
            owner.contended().forget_wide(Wider::Range(number));
        }
        if let Some(index) = self.tables.get_mut(&table) {
            index.remove(&lock.view.range, number);
            if index.is_empty() {
                self.tables.remove(&table);
            }
        }
        let rows = lock.view.owner.contended().take_rows_within(number);
        Some((table, rows))
    }

    /// L4: whether some range waits in a table that `owner` shares.
    pub(crate) fn may_await(&self, owner: &Owner) -> bool {
        self.waiting.keys().any(|table| owner.tables().has(*table))
    }

    fn locks(&self, numbers: impl Iterator<Item = u64>) -> impl Iterator<Item = &RangeLock> {
        numbers.filter_map(|number| self.locks.get(&number))
    }

    fn around(&self, row: &RowKey) -> impl Iterator<Item = &RangeLock> {
        let index = self.tables.get(&row.table());
        self.locks(index.into_iter().flat_map(|index| index.around(row)))
    }

    fn meeting(&self, range: &RowRange) -> impl Iterator<Item = &RangeLock> {
        let index = self.tables.get(&range.table());
        self.locks(index.into_iter().flat_map(|index| index.meeting(range)))
    }

    /// The strongest mode, with its token, in which `owner` holds a range that has the row.
    pub(crate) fn held(&self, owner: &Owner, row: &RowKey) -> Option<(LockMode, FencingToken)> {
        let own = self.held_by(owner, row.table());
        strongest(self.locks(own.flat_map(|held| held.around(row))))
    }

    /// The strongest mode, with its token, in which `owner` holds a range that has all of this one.
    pub(crate) fn held_range(
        &self,
        owner: &Owner,
        range: &RowRange,
    ) -> Option<(LockMode, FencingToken)> {
        let own = self.held_by_in(owner, range);
        strongest(own.filter(|lock| range.is_within(&lock.view.range)))
    }

    pub(crate) fn stamp(&mut self, number: u64, token: FencingToken) {
        if let Some(lock) = self.locks.get_mut(&number) {
            lock.token = token;
        }
    }

    /// L2: whether the range waits for `owner`, by a range that this one holds.
    fn waits_for(&self, view: &RangeView, owner: &Owner) -> bool {
        let mut own = self.held_by_in(owner, &view.range);
        own.any(|own| conflicts(view.ticket.mode(), own.view.ticket.mode()))
    }

    fn held_by(&self, owner: &Owner, table: TableId) -> impl Iterator<Item = &RangeIndex> {
        self.held.get(&(owner.name(), table)).into_iter()
    }

    /// The ranges that `owner` holds and that meet this one.
    fn held_by_in(&self, owner: &Owner, range: &RowRange) -> impl Iterator<Item = &RangeLock> {
        let held = self.held_by(owner, range.table());
        self.locks(held.flat_map(|held| held.meeting(range)))
    }

    /// L1, L3: the ranges in the way of a row: those that are held, and those that wait and go before it.
    fn in_the_way_of(&self, ask: RowAsk<'_>) -> impl Iterator<Item = &RangeView> {
        let around = self.around(ask.row).filter(move |lock| {
            let view = &lock.view;
            !ask.owner.is(&view.owner) && conflicts(ask.mode, view.ticket.mode())
        });
        let stands = move |lock: &&RangeLock| {
            let view = &lock.view;
            let passes = ask.may_pass && lock.holders.contains(&ask.owner.name());
            view.is_granted()
                || (view.is_waiting()
                    && !passes
                    && view.goes_before(ask.number, ask.upgrade)
                    && !self.waits_for(view, ask.owner))
        };
        around.filter(stands).map(|lock| &lock.view)
    }

    /// Who is in the row's way: those who hold ranges, and those who wait for them before it.
    pub(crate) fn obstacles_of_row(
        &self,
        ask: RowAsk<'_>,
    ) -> impl Iterator<Item = (&Arc<Owner>, Obstacle)> {
        self.in_the_way_of(ask).map(|view| {
            let (mode, soft) = (view.ticket.mode(), view.waits().is_some());
            (&view.owner, Obstacle { mode, soft })
        })
    }

    /// The same, for a list.
    pub(crate) fn meet_row(&self, ask: RowAsk<'_>, met: &mut Met) {
        for view in self.in_the_way_of(ask) {
            let standing = view.waits().map_or(Standing::Holds, Standing::Ahead);
            met.add(&view.owner, view.ticket.mode(), standing);
        }
    }

    /// K4: puts the row on the stack of the owner of each range in its way.
    pub(crate) fn register_row(&self, hash: u64, ask: RowAsk<'_>) -> RangesMet {
        let mut met = RangesMet::NONE;
        for view in self.in_the_way_of(ask) {
            let row = (hash, ask.row.clone());
            let number = view.ticket.number();
            view.owner.contended().push_row(Some(number), row);
            met.any = true;
            met.held |= view.ticket.is_granted();
            met.stand &= view.owner.binds();
        }
        met
    }

    /// Nobody waits for the row any more.
    pub(crate) fn forget_row(&self, hash: u64, row: &RowKey) {
        let row = (hash, row.clone());
        for RangeLock { view, .. } in self.around(&row.1) {
            let number = view.ticket.number();
            view.owner.contended().forget_row(Some(number), &row);
        }
    }

    /// The row is granted, maybe past a range that waits or asks: by an upgrade, within an own range, or because it came first.
    pub(crate) fn note_grant(&mut self, ask: RowAsk<'_>) {
        let index = self.tables.get(&ask.row.table());
        for number in index.into_iter().flat_map(|index| index.around(ask.row)) {
            if let Some(lock) = self.locks.get_mut(&number)
                && lock.view.ticket.is_undecided()
                && conflicts(ask.mode, lock.view.ticket.mode())
            {
                lock.changes += 1;
                lock.passed_by = Some(blocker(ask.owner, ask.mode));
            }
        }
    }

    /// To whom a row in a range that asks was granted last since it began to ask.
    pub(crate) fn passed_by(&self, number: u64) -> Option<Blocker> {
        let lock = self.locks.get(&number);
        let lock = lock.filter(|lock| lock.is_undecided() && !lock.view.is_waiting());
        lock?.passed_by.clone()
    }

    /// K3: whether a range that has the row is undecided.
    pub(crate) fn is_awaited_at(&self, row: &RowKey) -> bool {
        self.around(row).any(RangeLock::is_undecided)
    }

    /// What the range looks for, while it is undecided.
    pub(crate) fn look(&self, number: u64) -> Option<RangeLook> {
        let lock = self.locks.get(&number).filter(|lock| lock.is_undecided())?;
        let own = self.held_by_in(&lock.view.owner, &lock.view.range);
        let own = own.map(|RangeLock { view, .. }| (Arc::clone(&view.range), view.ticket.mode()));
        Some(RangeLook {
            view: lock.view.clone(),
            own: own.collect(),
            changes: lock.changes,
        })
    }

    /// R2: a range that is held: what it covers, its mode, its token.
    pub(crate) fn kept(&self, number: u64) -> Option<(Arc<RowRange>, LockMode, FencingToken)> {
        let lock = self.locks.get(&number)?;
        let view = &lock.view;
        Some((Arc::clone(&view.range), view.ticket.mode(), lock.token))
    }

    /// What the range covers.
    pub(crate) fn target(&self, number: u64) -> Option<Target> {
        let lock = self.locks.get(&number)?;
        Some(lock.view.ticket.target().clone())
    }

    /// Those who hold, or wait before it for, ranges that this one conflicts with.
    pub(crate) fn meet(&self, Looking { look, met }: &mut Looking) {
        for RangeLock { view, .. } in self.meeting(&look.view.range) {
            let standing = look.standing(view, || self.waits_for(view, &look.view.owner));
            met.add(&view.owner, view.ticket.mode(), standing);
            met.is_partial |= !view.turned.is_empty();
        }
    }

    /// K6: what was met on the way through the shards, and the other ranges, decide: nobody, and nothing was granted past it
    /// meanwhile: granted. Else, if it waits, it is registered; once it was so before it met them, it may go on waiting.
    pub(crate) fn conclude(&mut self, looking: &mut Looking, wakes: &mut Wakes) -> Asked {
        self.meet(looking);
        let Looking { look, met } = looking;
        let number = look.view.ticket.number();
        let lock = self.locks.get_mut(&number);
        let Some(lock) = lock.filter(|lock| lock.view.ticket.is_undecided()) else {
            return Asked::Done;
        };
        let RangeView { owner, ticket, .. } = &lock.view;
        if met.is_empty() {
            if lock.changes != look.changes {
                return Asked::Again;
            }
            if ticket.try_grant() {
                let table = look.view.range.table();
                let held = self.held.entry((owner.name(), table)).or_default();
                held.insert(&look.view.range, number);
                wakes.add(owner);
                self.forget_waiting(table, number);
            }
            return Asked::Done;
        }
        if !ticket.is_waiting() {
            return Asked::Done;
        }
        // `Wound`: who has won, and waited for one that was committing, judges again when somebody else is in the way.
        if ticket.has_won() && is_called(owner, met.owners()) {
            wakes.add(owner);
        }
        lock.holders.clone_from(met.holders());
        lock.register(met.last_to_go())
    }

    /// One with whom the range may be registered has ended, or gave something back. Whether it is to look again.
    pub(crate) fn left(&mut self, number: u64, owner: TxnId) -> bool {
        let lock = self.locks.get_mut(&number);
        lock.is_some_and(|lock| {
            lock.registered.remove(&owner);
            lock.registered.is_empty() && lock.view.is_waiting()
        })
    }

    /// L9: the owner has given something back, and may hold nothing any more that a range waits for. Which of `ranges` have, or
    /// meet, one of `targets`.
    pub(crate) fn gave_back(
        &mut self,
        owner: &Owner,
        ranges: impl Iterator<Item = u64>,
        targets: &[Target],
    ) -> Vec<u64> {
        for number in self.waiting.values().flatten() {
            if let Some(lock) = self.locks.get_mut(number) {
                lock.holders.remove(&owner.name());
            }
        }
        let meets = |number: &u64| {
            let lock = self.locks.get(number);
            lock.is_some_and(|lock| targets.iter().any(|it| lock.view.range.meets(it)))
        };
        ranges.filter(meets).collect()
    }

    /// L4: from now on the range goes before the one with `other` as its number, or does not.
    pub(crate) fn turn(&mut self, number: u64, other: u64, first: bool) {
        if let Some(lock) = self.locks.get_mut(&number) {
            lock.view.turned.insert(other, first);
            // Who has looked already saw the order of before.
            lock.changes += 1;
        }
    }

    /// In order of arrival: who holds, and who waits, with the token of the first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Waiter, FencingToken)> {
        let live = self
            .locks
            .values()
            .filter(|lock| lock.view.is_granted() || lock.view.is_waiting());
        live.map(|lock| {
            let RangeView { owner, ticket, .. } = &lock.view;
            let (owner, ticket) = (Arc::clone(owner), Arc::clone(ticket));
            (Waiter { owner, ticket }, lock.token)
        })
    }

    /// Inheritance: what the range that waits is queued with.
    pub(crate) fn order(&self, number: u64) -> Option<u64> {
        let lock = self.locks.get(&number);
        lock.map(|lock| lock.view.ticket.order())
    }
}

/// Of some that are held.
fn strongest<'a>(locks: impl Iterator<Item = &'a RangeLock>) -> Option<(LockMode, FencingToken)> {
    let binding = locks.filter(|lock| lock.view.owner.binds());
    binding
        .map(|lock| (lock.view.ticket.mode(), lock.token))
        .max()
}
