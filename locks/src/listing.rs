//! What the lock table shows of itself: who holds what, and who waits for whom.
//!
//! Called by the engine, for its users.
//! 1. K9: nobody is stopped for longer than a shard, or all ranges and tables, take to be looked at; so no single moment is shown.
//!
//! Crash: memory only.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::slice;
use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, RowKey, TableId, TxnId};

use crate::ask;
use crate::decision::{LockEntry, LockStatus, WaitEntry, WaitsFor};
use crate::lookup;
use crate::matrix::{column, conflicts};
use crate::met::{InTheWay, Met, Standing};
use crate::owner::Owner;
use crate::range_look::RowAsk;
use crate::row_views::RowView;
use crate::runs::{Listed, RunList};
use crate::semaphores::TOKENS;
use crate::table::LockTable;
use crate::tables::{EXCLUSIVE, SHARED};
use crate::target::Target;
use crate::ticket::UNSTAMPED;
use crate::wait_queue::Waiter;

impl LockTable {
    /// K9: who waits, and for whom: those who hold what is in the way, each once; then, of those who wait ahead, one: the
    /// nearest in the queue, or else whoever came last. The list is as long as the queues so;
    /// [`LockTable::waits_of`] tells of all ahead. As [`LockTable::list`], it shows no single moment.
    pub fn waits(&self) -> Vec<WaitEntry> {
        let (mut waits, mut from) = (Vec::new(), (0, 0));
        let mut queues = Vec::new();
        while self
            .shards
            .stretch(&mut from, |view| queues.extend(row_queue(view)))
        {
            for (row, queue) in queues.drain(..) {
                let books = self.shards.wide().latch_if_ranges(row.table());
                queue.waits(&mut waits, |waiter, met| {
                    let ask = RowAsk::queued(&row, &waiter.owner, &waiter.ticket);
                    if let Some(books) = &books {
                        books.ranges.meet_row(ask, met);
                    }
                });
            }
        }
        waits.sort_by(|a, b| a.target.row().cmp(&b.target.row()));
        let (ranges, (tables, semaphores)): (Vec<Waiter>, (Vec<TableId>, Vec<RowKey>)) = {
            let books = self.shards.wide().latch();
            let ranges = books.ranges.all().map(|(waiter, _)| waiter);
            let waiting = ranges.filter(|waiter| waiter.ticket.is_waiting());
            let semaphores = books.semaphores.names().cloned().collect();
            (
                waiting.collect(),
                (books.tables.ids().collect(), semaphores),
            )
        };
        for waiter in ranges {
            let met = ask::met_by_range(&self.shards, waiter.ticket.number());
            waits.push(wait(&waiter, met));
        }
        let tables = tables.into_iter();
        let tables = tables.map(|table| self.shards.wide().latch().tables.view(table));
        let semaphores = semaphores.iter();
        let semaphores = semaphores.map(|name| self.shards.wide().latch().semaphores.view(name));
        for (holders, waiters) in tables.chain(semaphores) {
            let queue = Queue {
                holders,
                waiters,
                upgrades_count_waiters: true,
            };
            queue.waits(&mut waits, |_, _| {});
        }
        waits
    }

    /// Who is in the way of what the owner waits for: those who hold it, and all who wait for it ahead.
    pub fn waits_of(&self, owner: &Arc<Owner>) -> Vec<WaitsFor> {
        let Some(ticket) = self.waiting(owner) else {
            return Vec::new();
        };
        let waiter = Waiter {
            owner: Arc::clone(owner),
            ticket,
        };
        let obstacles = ask::obstacles(&self.shards, &waiter).into_iter();
        obstacles.map(waits_for).collect()
    }

    /// How many rows are held by transactions that live. Visits the whole table.
    pub fn live_locks(&self) -> usize {
        let mut live = 0;
        self.shards.each(|row| live += row.holders.len());
        live
    }

    /// K9: every lock that is held or waited for: by row, holders first, then the queue in order; then the ranges, in order
    /// of arrival; then the tables that somebody holds or awaits EXCLUSIVE, with all who share them.
    /// Stops nobody for longer than a shard takes, so it shows no single moment.
    pub fn list(&self) -> Vec<LockEntry> {
        let (mut entries, mut spilled) = (Vec::new(), None);
        self.shards.each(|row| list_row(&row, &mut entries));
        self.complete(&mut entries);
        while let Some(more) = self.list_runs(&mut spilled) {
            entries.extend(more);
        }
        // Stable: the order within a row is kept.
        entries.sort_by(|a, b| a.target.row().cmp(&b.target.row()));
        entries.extend(self.list_wide());
        entries
    }

    /// K9: as [`LockTable::list`], a stretch of the table at a time, in the table's own order: the entries of the next few
    /// hundred rows. A lock that is held all the while is listed once. `None` at the end.
    pub fn list_on(&self, from: &mut ListPlace) -> Option<Vec<LockEntry>> {
        let mut entries = Vec::new();
        let visit = |row: RowView<'_>| list_row(&row, &mut entries);
        if self.shards.stretch(&mut from.rows, visit) {
            self.complete(&mut entries);
            return Some(entries);
        }
        if let Some(entries) = self.list_runs(&mut from.spilled) {
            return Some(entries);
        }
        let is_over = std::mem::replace(&mut from.wide, true);
        (!is_over).then(|| self.list_wide())
    }

    /// L1: who holds a row in memory may hold it in a stronger mode by runs.
    fn complete(&self, entries: &mut [LockEntry]) {
        if !self.shards.runs().any() {
            return;
        }
        let (_, list) = self.shards.runs().now();
        let owners = list.iter().flat_map(|listed| listed.owners.iter());
        let owners: BTreeMap<TxnId, _> = owners.map(|(_, owner)| (owner.id(), owner)).collect();
        for entry in entries {
            if let (Target::Row(row), LockStatus::Granted) = (&entry.target, entry.status)
                && let Some(owner) = owners.get(&entry.txn)
                && let Ok(Some(hold)) = lookup::held_by(&list, owner, row)
                && hold.mode > entry.mode
            {
                (entry.mode, entry.token) = (hold.mode, owner.token(hold));
            }
        }
    }

    /// K9: the next few hundred locks that are in runs alone; `None` at the end. One that is spilled meanwhile may have been listed
    /// before; what cannot be read is not listed.
    fn list_runs(&self, place: &mut Option<RunsPlace>) -> Option<Vec<LockEntry>> {
        let begin = || RunsPlace {
            list: self.shards.runs().now().1,
            run: 0,
            row: None,
        };
        let place = place.get_or_insert_with(begin);
        let (before, listed) = (place.list.get(..place.run)?, place.list.get(place.run)?);
        let found = place.found(listed);
        let last = found.last().map(|(row, _)| row.clone());
        let mut entries = Vec::new();
        for (row, owner) in found {
            let hash = self.shards.hash(&row);
            let is_listed = self.shards.latch(hash).is_in_memory(&owner, hash, &row)
                || !matches!(lookup::held_by(before, &owner, &row), Ok(None));
            // What is dead here, and alive in a later run, is listed there.
            let here = lookup::held_by(slice::from_ref(listed), &owner, &row);
            let is_dead = matches!(here, Ok(None));
            let held = lookup::held_by(&place.list, &owner, &row).ok().flatten();
            if let Some(hold) = held.filter(|_| !is_listed && !is_dead && owner.binds()) {
                let (row, granted) = (Target::Row(row), LockStatus::Granted);
                entries.push(entry(&row, hold.mode, &owner, granted, owner.token(hold)));
            }
        }
        place.run += usize::from(last.is_none());
        place.row = last;
        Some(entries)
    }

    /// K9: ranges, tables and semaphores, as lists show them. Of a table that nobody holds or awaits EXCLUSIVE nobody needs to know who
    /// shares it: that is all who lock rows in it.
    pub(crate) fn list_wide(&self) -> Vec<LockEntry> {
        let books = self.shards.wide().latch();
        let stamped = |token: FencingToken| Some(token).filter(|token| *token != UNSTAMPED);
        let mut entries = Vec::new();
        for (Waiter { owner, ticket }, token) in books.ranges.all() {
            let (target, mode) = (ticket.target(), ticket.mode());
            entries.push(if ticket.is_waiting() {
                entry(target, mode, &owner, LockStatus::Waiting, None)
            } else {
                entry(target, mode, &owner, LockStatus::Granted, stamped(token))
            });
        }
        let granted = LockStatus::Granted;
        for (id, owner, token) in books.tables.holders() {
            let target = Target::Table(id);
            entries.push(entry(&target, EXCLUSIVE, owner, granted, stamped(token)));
        }
        for (id, owner) in books.tables.sharers() {
            entries.push(entry(&Target::Table(id), SHARED, owner, granted, None));
        }
        for Waiter { owner, ticket } in books.tables.waiters() {
            let (target, mode) = (ticket.target(), ticket.mode());
            entries.push(entry(target, mode, owner, LockStatus::Waiting, None));
        }
        for (request, owner) in books.semaphores.holders_of_all() {
            let target = Target::Tokens(Arc::new(request));
            entries.push(entry(&target, TOKENS, owner, granted, None));
        }
        for Waiter { owner, ticket } in books.semaphores.waiters() {
            let (target, mode) = (ticket.target(), ticket.mode());
            entries.push(entry(target, mode, owner, LockStatus::Waiting, None));
        }
        entries
    }
}

/// How far a list of the table has come.
#[derive(Debug, Default)]
pub struct ListPlace {
    rows: (usize, u32),
    /// None: the runs were not begun.
    spilled: Option<RunsPlace>,
    /// Ranges, tables and semaphores were listed.
    wide: bool,
}

/// How far a list of runs has come.
#[derive(Debug)]
struct RunsPlace {
    list: RunList,
    run: usize,
    /// The last row of it that was listed.
    row: Option<RowKey>,
}

impl RunsPlace {
    /// The next rows of a run, with those who have locked them.
    fn found(&self, listed: &Listed) -> Vec<(RowKey, Arc<Owner>)> {
        let from = match &self.row {
            Some(row) => Bound::Excluded(row),
            None => Bound::Unbounded,
        };
        let mut found: Vec<(RowKey, Arc<Owner>)> = Vec::new();
        let read = listed.run.visit(from, &mut |row, record| {
            let is_new = found.last().is_none_or(|(last, _)| last != row);
            if is_new && found.len() >= RUN_ROWS {
                return ControlFlow::Break(());
            }
            let owner = listed.owner(record.owner);
            let is_known = |owner: &&Arc<Owner>| {
                let same = found.iter().rev().take_while(|(last, _)| last == row);
                same.clone().any(|(_, known)| known.is(owner))
            };
            if let Some(owner) = owner.filter(|owner| !is_known(owner)) {
                found.push((row.clone(), Arc::clone(owner)));
            }
            ControlFlow::Continue(())
        });
        match read {
            Ok(()) => found,
            Err(_) => Vec::new(),
        }
    }
}

/// Rows of a run that are listed in one step.
const RUN_ROWS: usize = 256;

/// A line of a list: held with a token or without, or waited for.
fn entry(
    target: &Target,
    mode: LockMode,
    owner: &Owner,
    status: LockStatus,
    token: Option<FencingToken>,
) -> LockEntry {
    LockEntry {
        target: target.clone(),
        mode,
        txn: owner.id(),
        label: owner.label().cloned(),
        rank: owner.settled_rank(),
        status,
        token,
    }
}

fn list_row(view: &RowView<'_>, entries: &mut Vec<LockEntry>) {
    let row = Target::Row(view.row.clone());
    let in_memory = view.holders.iter();
    for (owner, hold) in in_memory.filter_map(|(owner, _, hold)| Some((owner, (*hold)?))) {
        let token = owner.token(hold);
        entries.push(entry(&row, hold.mode, owner, LockStatus::Granted, token));
    }
    for waiter in &view.waiters {
        let mode = waiter.ticket.mode();
        entries.push(entry(&row, mode, &waiter.owner, LockStatus::Waiting, None));
    }
}

/// A queue with those who hold what it is for.
struct Queue {
    holders: Vec<(Arc<Owner>, LockMode)>,
    waiters: Vec<Waiter>,
    /// K1, K7: an upgrade of a row counts no waiters, one of a table those ahead.
    upgrades_count_waiters: bool,
}

fn row_queue(view: RowView<'_>) -> Option<(RowKey, Queue)> {
    let holders = view.holders.into_iter();
    let queue = Queue {
        holders: holders.map(|(owner, hold, _)| (owner, hold.mode)).collect(),
        waiters: view.waiters,
        upgrades_count_waiters: false,
    };
    (!queue.waiters.is_empty()).then(|| (view.row.clone(), queue))
}

impl Queue {
    /// Each waiter with whom it waits for; `around` adds those who are in its way elsewhere.
    fn waits(&self, waits: &mut Vec<WaitEntry>, around: impl Fn(&Waiter, &mut Met)) {
        // By mode: the last that was passed.
        let mut last: [Option<&Waiter>; LockMode::ALL.len()] = Default::default();
        let mut places: [usize; LockMode::ALL.len()] = Default::default();
        for (place, waiter) in self.waiters.iter().enumerate() {
            let Waiter { owner, ticket } = waiter;
            let mode = ticket.mode();
            let mut met = Met::default();
            for (holder, held) in &self.holders {
                if conflicts(mode, *held) && !owner.is(holder) {
                    met.add(holder, *held, Standing::Holds);
                }
            }
            let nearest = last
                .iter()
                .zip(places)
                .filter_map(|(last, place)| Some(((*last)?, place)));
            let nearest = nearest.filter(|(ahead, _)| conflicts(mode, ahead.ticket.mode()));
            let nearest = nearest.max_by_key(|(_, place)| *place);
            match nearest {
                Some((ahead, _)) if !ticket.is_upgrade() || self.upgrades_count_waiters => {
                    met.add(&ahead.owner, ahead.ticket.mode(), Standing::Ahead(u64::MAX));
                }
                _ => {}
            }
            around(waiter, &mut met);
            waits.push(wait(waiter, met));
            let at = column(mode);
            if let Some((last, seen)) = last.get_mut(at).zip(places.get_mut(at)) {
                (*last, *seen) = (Some(waiter), place);
            }
        }
    }
}

fn waits_for((other, obstacle): InTheWay) -> WaitsFor {
    WaitsFor {
        txn: other.id(),
        label: other.label().cloned(),
        mode: obstacle.mode,
        soft: obstacle.soft,
    }
}

fn wait(waiter: &Waiter, mut met: Met) -> WaitEntry {
    met.shorten();
    WaitEntry {
        target: waiter.ticket.target().clone(),
        mode: waiter.ticket.mode(),
        txn: waiter.owner.id(),
        label: waiter.owner.label().cloned(),
        waits_for: met.into_obstacles().into_iter().map(waits_for).collect(),
    }
}
