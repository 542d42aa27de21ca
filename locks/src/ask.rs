//! Asks for a range or a table that somebody waits for; and asks again when one who was in the way has gone.
//!
//! Called by `table`, `standoff` and `release`, with no latch held.
//! 1. K6: a range looks through every shard, one latch at a time. What was granted past it meanwhile makes it look again.
//! 2. L6: whoever is in the way is registered with, and then looked at again: it is in the way still, and comes back when it
//!    ends, rolls back or stops waiting; or it is not.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{RowKey, TableId};

use crate::owner::{Awaited, Owner};
use crate::ranges::{Asked, InTheWay, RowAsk};
use crate::shards::{SHARDS, Shards};
use crate::target::Target;
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Asks for what the ticket waits for, if it is a range or a table.
pub(crate) fn ask(shards: &Shards, ticket: &Ticket, wakes: &mut Wakes) {
    match ticket.target() {
        Target::Row(_) => {}
        Target::Range(_) => ask_range(shards, ticket.number(), wakes),
        Target::Table(table) => ask_table(shards, *table, wakes),
    }
}

fn ask_range(shards: &Shards, number: u64, wakes: &mut Wakes) {
    loop {
        let Some(look) = shards.wide().latch().ranges.look(number) else {
            return;
        };
        let mut met = Vec::new();
        for number in 0..SHARDS {
            met.extend(shards.latch_number(number).in_the_way_of(&look));
        }
        let asked = shards.wide().latch().ranges.conclude(&look, &met, wakes);
        if asked == Asked::Done {
            return;
        }
    }
}

pub(crate) fn ask_table(shards: &Shards, table: TableId, wakes: &mut Wakes) {
    loop {
        let mut books = shards.wide().latch();
        let asked = books.tables.ask(table, shards.slots(), wakes);
        shards.wide().count_tables(&books);
        drop(books);
        if asked == Asked::Done {
            return;
        }
    }
}

/// Takes a ticket that is no longer waiting out of its queue; a range goes, whether it was granted or not.
pub(crate) fn withdraw(shards: &Shards, owner: &Owner, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
    match ticket.target() {
        Target::Row(_) => shards.latch(ticket.hash()).leave_queue(ticket, wakes),
        Target::Range(_) => give_back(shards, owner, ticket.number(), wakes),
        Target::Table(table) => {
            shards.wide().latch().tables.leave_queue(*table, ticket);
            ask_table(shards, *table, wakes);
        }
    }
}

/// A range goes; the rows that wait for it are settled.
pub(crate) fn give_back(shards: &Shards, owner: &Owner, number: u64, wakes: &mut Wakes) {
    for (row, hash) in shards.wide().withdraw(number) {
        owner.forget_contended(hash, &row);
        shards.latch(hash).settle(hash, &row, wakes);
    }
}

/// K6: the owner goes on, but has given something back, or stopped waiting: whoever is registered with it asks again.
pub(crate) fn left(shards: &Shards, owner: &Owner, wakes: &mut Wakes) {
    for awaited in owner.take_contended_wide() {
        tell(shards, owner, awaited, wakes);
    }
}

/// K4, K6: brings what the owner has given back to who waits for it there.
pub(crate) fn tell(shards: &Shards, owner: &Owner, awaited: Awaited, wakes: &mut Wakes) {
    let id = owner.id();
    match awaited {
        Awaited::Row(hash, row) => shards.latch(hash).settle(hash, &row, wakes),
        Awaited::Range(number) => {
            if shards.wide().latch().ranges.left(number, id) {
                ask_range(shards, number, wakes);
            }
        }
        Awaited::Table(table) => {
            if shards.wide().latch().tables.left(table, id) {
                ask_table(shards, table, wakes);
            }
        }
    }
}

/// L4: whom it waits for; latches one thing at a time.
pub(crate) fn obstacles(shards: &Shards, waiter: &Waiter) -> Vec<InTheWay> {
    let ticket = &waiter.ticket;
    match ticket.target() {
        Target::Row(row) => {
            let latch = shards.latch(ticket.hash());
            let books = shards.wide().latch_if_ranges();
            let ranges = books.as_ref().map(|books| &books.ranges);
            let lock = latch.find(ticket.hash(), row);
            lock.map_or_else(Vec::new, |lock| lock.obstacles(waiter, ranges))
        }
        Target::Range(_) => {
            let Some(look) = shards.wide().latch().ranges.look(ticket.number()) else {
                return Vec::new();
            };
            let mut met = Vec::new();
            for number in 0..SHARDS {
                met.extend(shards.latch_number(number).in_the_way_of(&look));
            }
            met.extend(
                shards
                    .wide()
                    .latch()
                    .ranges
                    .obstacles_of_range(ticket.number()),
            );
            met
        }
        Target::Table(table) => {
            let books = shards.wide().latch();
            books.tables.obstacles(*table, waiter, shards.slots())
        }
    }
}

/// The ranges in the way of a row's waiter.
pub(crate) fn ranges_in_the_way(shards: &Shards, waiter: &Waiter, row: &RowKey) -> Vec<InTheWay> {
    let books = shards.wide().latch_if_ranges();
    let ask = RowAsk::queued(row, &waiter.owner, &waiter.ticket);
    let ranges = books
        .iter()
        .flat_map(|books| books.ranges.obstacles_of_row(ask));
    ranges
        .map(|(owner, obstacle)| (Arc::clone(owner), obstacle))
        .collect()
}
