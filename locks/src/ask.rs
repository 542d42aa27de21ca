//! Asks for a range, a table or tokens that somebody waits for; and asks again when one who was in the way has gone.
//!
//! Called by `table`, `standoff` and `release`, with no latch held.
//! 1. K6: a range looks through every shard, one latch at a time. What was granted past it meanwhile makes it look again.
//!    One whose policy forbids it to wait looks a few times. Ranges that are told together look together.
//! 2. L6: whoever is in the way is registered with, and then looked at again: it is in the way still, and comes back when it
//!    ends, rolls back or stops waiting; or it is not.
//!
//! Crash: memory only.

use std::slice;
use std::sync::Arc;

use lockstone_base::{LockMode, TableId};

use crate::contended::{HashedRow, Wider};
use crate::decision::Blocker;
use crate::lookup;
use crate::met::{InTheWay, Met, Standing};
use crate::owner::Owner;
use crate::range_look::{Looking, RangeView};
use crate::ranges::Asked;
use crate::shards::Shards;
use crate::target::{Target, TokenRequest};
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Asks for what the ticket waits for, unless it is a row.
pub(crate) fn ask(shards: &Shards, ticket: &Ticket, wakes: &mut Wakes) {
    match ticket.target() {
        Target::Row(_) => {}
        Target::Range(_) => drop(ask_range(shards, ticket.number(), wakes)),
        Target::Table(table) => ask_table(shards, *table, wakes),
        Target::Tokens(request) => {
            let mut books = shards.wide().latch();
            books.semaphores.ask(&request.semaphore, wakes);
            shards.wide().count_semaphores(&books);
        }
    }
}

/// So often a range looks that may not wait, while rows in it are granted and given back all the time.
const LOOKS_MAX: usize = 8;

/// So many ranges look through the shards together, each of which is latched the longer for that.
const RANGES_AT_ONCE: usize = 64;

/// Whom the range has met, if it is undecided still.
///
/// # Errors
/// It only asks, and met nobody in any of its looks; but during each a row in it was granted, the last one to this one.
pub(crate) fn ask_range(shards: &Shards, number: u64, wakes: &mut Wakes) -> Result<Met, Blocker> {
    let mut looks = 0;
    while let Some((Looking { met, .. }, asked)) = look(shards, &[number], wakes).pop() {
        looks += 1;
        if asked == Asked::Done {
            return Ok(met);
        }
        if looks >= LOOKS_MAX
            && let Some(by) = shards.wide().latch().ranges.passed_by(number)
        {
            return Err(by);
        }
    }
    Ok(Met::default())
}

/// Asks for ranges that wait.
fn ask_ranges(shards: &Shards, numbers: &[u64], wakes: &mut Wakes) {
    for some in numbers.chunks(RANGES_AT_ONCE) {
        let mut some = some.to_vec();
        while !some.is_empty() {
            let all = look(shards, &some, wakes).into_iter();
            let again = all.filter(|(_, asked)| *asked == Asked::Again);
            some = again.map(|(it, _)| it.look.view.ticket.number()).collect();
        }
    }
}

/// Looks at everything once, for those of the ranges that are undecided; each with what came of it.
fn look(shards: &Shards, numbers: &[u64], wakes: &mut Wakes) -> Vec<(Looking, Asked)> {
    let mut all: Vec<Looking> = {
        let books = shards.wide().latch();
        let looks = numbers.iter().filter_map(|it| books.ranges.look(*it));
        looks.map(Looking::new).collect()
    };
    if all.is_empty() {
        return Vec::new();
    }
    for looking in &mut all {
        look_into_runs(shards, looking);
    }
    shards.in_the_way_of(&mut all);
    let mut books = shards.wide().latch();
    let conclude = |mut it: Looking| {
        let asked = books.ranges.conclude(&mut it, wakes);
        (it, asked)
    };
    all.into_iter().map(conclude).collect()
}

/// K6: brings in those who have spilled rows in the range's way. Nobody can say whether a run that cannot be read has such: its
/// owners keep the range waiting.
fn look_into_runs(shards: &Shards, Looking { look, met }: &mut Looking) {
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
        Target::Tokens(request) => {
            let mut books = shards.wide().latch();
            let semaphore = &request.semaphore;
            books.semaphores.leave_queue(semaphore, ticket, wakes);
            shards.wide().count_semaphores(&books);
        }
    }
}

/// Tokens that the owner took are there again.
pub(crate) fn give_back_tokens(
    shards: &Shards,
    owner: &Owner,
    taken: &[Arc<TokenRequest>],
    wakes: &mut Wakes,
) {
    if taken.is_empty() {
        return;
    }
    let mut books = shards.wide().latch();
    for request in taken {
        books.semaphores.give_back(request, owner.id(), wakes);
    }
    shards.wide().count_semaphores(&books);
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
    for number in &ranges {
        owner.contended().forget_wide(Wider::Range(*number));
    }
    tell(shards, owner, ranges.into_iter().map(Wider::Range), wakes);
}

/// K6: the owner has ended, or left: the same, of those that are registered.
pub(crate) fn tell(
    shards: &Shards,
    owner: &Owner,
    registered: impl Iterator<Item = Wider>,
    wakes: &mut Wakes,
) {
    let mut ranges = Vec::new();
    for wider in registered {
        match wider {
            Wider::Range(number) => {
                if shards.wide().latch().ranges.left(number, owner.id()) {
                    ranges.push(number);
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
    ask_ranges(shards, &ranges, wakes);
}

/// L4: whom a range that is undecided waits for; latches one thing at a time.
pub(crate) fn met_by_range(shards: &Shards, number: u64) -> Met {
    let look = shards.wide().latch().ranges.look(number);
    look.map_or_else(Met::default, |look| {
        let mut looking = Looking::new(look);
        meet(shards, &mut looking);
        looking.met
    })
}

/// The same, for one who looks.
pub(crate) fn meet(shards: &Shards, looking: &mut Looking) {
    shards.in_the_way_of(slice::from_mut(looking));
    shards.wide().latch().ranges.meet(looking);
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
        Target::Tokens(request) => {
            let books = shards.wide().latch();
            books.semaphores.obstacles(request, waiter)
        }
    }
}
