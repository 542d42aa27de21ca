//! Asks for a range or a table that somebody waits for; and asks again when one who was in the way has gone.
//!
//! Called by `table`, `standoff` and `release`, with no latch held.
//! 1. K6: a range looks through every shard, one latch at a time. What was granted past it meanwhile makes it look again.
//! 2. L6: whoever is in the way is registered with, and then looked at again: it is in the way still, and comes back when it
//!    ends, rolls back or stops waiting; or it is not.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{LockMode, TableId};

use crate::contended::{HashedRow, Wider};
use crate::lookup;
use crate::met::{InTheWay, Met, Standing};
use crate::owner::Owner;
use crate::range_look::{RangeLook, RangeView};
use crate::ranges::Asked;
use crate::shards::Shards;
use crate::target::Target;
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Asks for what the ticket waits for, if it is a range or a table.
pub(crate) fn ask(shards: &Shards, ticket: &Ticket, wakes: &mut Wakes) {
    match ticket.target() {
        Target::Row(_) => {}
        Target::Range(_) => drop(ask_range(shards, ticket.number(), wakes)),
        Target::Table(table) => ask_table(shards, *table, wakes),
    }
}

/// Whom the range has met, if it is undecided still.
pub(crate) fn ask_range(shards: &Shards, number: u64, wakes: &mut Wakes) -> Met {
    loop {
        let look = shards.wide().latch().ranges.look(number);
        let Some(look) = look else {
            return Met::default();
        };
        let mut met = Met::default();
        look_into_runs(shards, &look, &mut met);
        shards.in_the_way_of(&look, &mut met);
        let mut books = shards.wide().latch();
        if books.ranges.conclude(&look, &mut met, wakes) == Asked::Done {
            return met;
        }
    }
}

/// K6: brings in those who have spilled rows in the range's way. Nobody can say whether a run that cannot be read has such: its
/// owners keep the range waiting.
fn look_into_runs(shards: &Shards, look: &RangeLook, met: &mut Met) {
    // Not by the count of runs, which is ordered by nothing here. The range was counted before this takes the list; whoever lists a
    // run later takes the same latch, and sees that count when he is about to drop an entry.
    let (_, list) = shards.runs().now();
    if list.is_empty() {
        return;
    }
    let RangeView {
        owner,
        ticket,
        range,
        ..
    } = &look.view;
    // Another who looks there may meet what this one has spilled.
    met.is_partial = true;
    for unreadable in lookup::look_in_range(shards, &list, owner, (range, ticket.mode())) {
        met.add(&unreadable, LockMode::Update, Standing::Holds);
    }
}

pub(crate) fn ask_table(shards: &Shards, table: TableId, wakes: &mut Wakes) {
    let mut books = shards.wide().latch();
    books.tables.ask(table, wakes);
    shards.wide().count_tables(&books);
}

/// Takes a ticket that is no longer waiting out of its queue; a range goes, whether it was granted or not.
pub(crate) fn withdraw(shards: &Shards, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
    match ticket.target() {
        Target::Row(_) => shards.latch(ticket.hash()).leave_queue(ticket, wakes),
        Target::Range(_) => give_back(shards, ticket.number(), wakes),
        Target::Table(table) => {
            let mut books = shards.wide().latch();
            books.tables.leave_queue(*table, ticket, wakes);
            shards.wide().count_tables(&books);
        }
    }
}

/// A range goes; the rows that wait for it are settled.
pub(crate) fn give_back(shards: &Shards, number: u64, wakes: &mut Wakes) {
    for row in &shards.wide().withdraw(number) {
        settle(shards, row, wakes);
    }
}

/// K4: brings what an owner has given back to those who wait for the row.
pub(crate) fn settle(shards: &Shards, (hash, row): &HashedRow, wakes: &mut Wakes) {
    shards.latch(*hash).settle(*hash, row, wakes);
}

/// K6: the owner has given these back, or stopped waiting for them: each range around one of them that is registered with it
/// asks again, if there is nobody else whom that waits for. Tables wait for its end.
pub(crate) fn left(shards: &Shards, owner: &Owner, targets: &[Target], wakes: &mut Wakes) {
    let wide: Vec<Wider> = owner.contended().wide().collect();
    if targets.is_empty() || !shards.wide().has_ranges() {
        return;
    }
    let range = |wider| match wider {
        Wider::Range(number) => Some(number),
        Wider::Table(_) => None,
    };
    let ranges = wide.into_iter().filter_map(range);
    let ranges = shards
        .wide()
        .latch()
        .ranges
        .gave_back(owner, ranges, targets);
    for wider in ranges.into_iter().map(Wider::Range) {
        owner.contended().forget_wide(wider);
        tell(shards, owner, wider, wakes);
    }
}

/// K6: the owner has ended, or left: the same, of one that is registered.
pub(crate) fn tell(shards: &Shards, owner: &Owner, wider: Wider, wakes: &mut Wakes) {
    match wider {
        Wider::Range(number) => {
            let asks = shards.wide().latch().ranges.left(number, owner.id());
            if asks {
                ask_range(shards, number, wakes);
            }
        }
        Wider::Table(table) => {
            let asks = shards.wide().latch().tables.left(table, owner);
            if asks {
                ask_table(shards, table, wakes);
            }
        }
    }
}

/// L4: whom a range that is undecided waits for; latches one thing at a time.
pub(crate) fn met_by_range(shards: &Shards, number: u64) -> Met {
    let mut met = Met::default();
    let look = shards.wide().latch().ranges.look(number);
    if let Some(look) = look {
        meet(shards, &look, &mut met);
    }
    met
}

/// The same, for one who looks.
pub(crate) fn meet(shards: &Shards, look: &RangeLook, met: &mut Met) {
    shards.in_the_way_of(look, met);
    shards.wide().latch().ranges.meet(look, met);
}

/// L4: whom it waits for.
pub(crate) fn obstacles(shards: &Shards, waiter: &Waiter) -> Vec<InTheWay> {
    let ticket = &waiter.ticket;
    match ticket.target() {
        Target::Row(row) => {
            let latch = shards.latch(ticket.hash());
            let books = shards.wide().latch_if_ranges(row.table());
            let ranges = books.as_ref().map(|books| &books.ranges);
            let lock = latch.find(ticket.hash(), row);
            lock.map_or_else(Vec::new, |lock| lock.obstacles(waiter, ranges))
        }
        Target::Range(_) => met_by_range(shards, ticket.number()).into_obstacles(),
        Target::Table(table) => {
            let books = shards.wide().latch();
            books.tables.obstacles(*table, waiter)
        }
    }
}
