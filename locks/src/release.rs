//! Giving locks back: at a transaction's end, at a rollback to a savepoint, and later.
//!
//! Called by `table`.
//! 1. K5: a release pass ends the owner's own wait, releases what others wait for, then up to
//!    [`RELEASED_AT_ONCE_MAX`] other rows. The rest is void by state, and swept in bounded steps by whoever asks for
//!    rows of the same shards.
//!    Ranges, tables and tokens go at once, all of them.
//! 2. L9: a rollback restores mode and token of each acquisition, the newest first. Tables stay to the end.
//! 3. The owner's latch is not held while rows are visited, so a long release stops nobody. V1: until all are, no other thread
//!    spills the owner's locks.
//!
//! Crash: memory only; the log knows which transactions are over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ask;
use crate::batch::VISIT_ROWS_MAX;
use crate::lookup;
use crate::owner::Owner;
use crate::place::Place;
use crate::shard::Latch;
use crate::shards::{SHARDS, Shards};
use crate::target::Target;
use crate::ticket::Ticket;
use crate::undo::Step;
use crate::wakes::Wakes;

/// So many rows that nobody waits for are released by the thread that ends the transaction: some
/// hundred microseconds of work. Those who wait for it were served before.
pub(crate) const RELEASED_AT_ONCE_MAX: usize = 1_000;

/// Nodes that a request looks at while there may be void ones: more than the one it may leave.
const SWEPT_PER_REQUEST: usize = 4;

/// How many transactions have left void entries in the table.
#[derive(Debug)]
pub(crate) struct Leftovers {
    /// [`RELEASED_AT_ONCE_MAX`], but for tests that want every entry left over.
    released_at_once: usize,
    ends: AtomicU64,
}

impl Leftovers {
    pub(crate) fn new(released_at_once: usize) -> Self {
        Self {
            released_at_once,
            ends: AtomicU64::new(0),
        }
    }

    /// K5: the part of the sweep that `requests` requests in the latched shard do.
    pub(crate) fn sweep_before(&self, latch: &mut Latch<'_>, requests: usize) {
        latch.sweep(
            self.ends.load(Ordering::Acquire),
            SWEPT_PER_REQUEST * requests,
        );
    }

    /// Removes up to `max` void entries, of all that had ended before; returns how many.
    pub(crate) fn sweep(&self, shards: &Shards, max: usize) -> usize {
        let ends = self.ends.load(Ordering::Acquire);
        let mut removed = 0;
        for number in 0..SHARDS {
            loop {
                let mut latch = shards.latch_number(number);
                if latch.is_clean(ends) {
                    break;
                }
                if removed == max {
                    return removed;
                }
                removed += latch.sweep(ends, VISIT_ROWS_MAX.min(max - removed));
            }
        }
        removed
    }
}

/// K5: the release pass of an owner whose locks no longer bind.
pub(crate) fn release_pass(
    shards: &Shards,
    leftovers: &Leftovers,
    owner: &Arc<Owner>,
    wakes: &mut Wakes,
) {
    assert!(!owner.binds(), "K5: only what ended is released");
    let mut held = owner.latch().take();
    if held.spilled.runs > 0 {
        shards.runs().forget(owner);
    }
    if let Some(ticket) = held.waiting() {
        end_wait(shards, ticket, wakes);
        wakes.add(owner);
    }
    for number in held.undo.split_off_ranges(0) {
        ask::give_back(shards, number, wakes);
    }
    ask::give_back_tokens(shards, owner, &held.undo.tokens(), wakes);
    // K4: the state was stored before the stack is taken. Who pushes later sees the state.
    let contended = owner.take_contended();
    for row in contended.rows() {
        ask::settle(shards, row, wakes);
    }
    for table in &held.exclusive {
        ask::ask_table(shards, *table, wakes);
    }
    let places = held.undo.places();
    let left = places.len().saturating_sub(leftovers.released_at_once);
    let at_once = places.get(left..).unwrap_or_default();
    let_go(shards, at_once, wakes);
    let_go(shards, &held.spilled.met, wakes);
    // They look at every row that is left.
    ask::tell(shards, owner, contended.wide(), wakes);
    shards.slots().give_back(owner.seat());
    if left > 0 {
        leftovers.ends.fetch_add(1, Ordering::AcqRel);
    }
}

/// Neighbours in one shard share a hold of its latch, as a batch leaves them.
fn let_go(shards: &Shards, places: &[Place], wakes: &mut Wakes) {
    for neighbours in places.chunk_by(|a, b| a.shard() == b.shard()) {
        for visit in neighbours.chunks(VISIT_ROWS_MAX) {
            let Some(first) = visit.first() else { continue };
            let mut latch = shards.latch_number(first.shard());
            for place in visit {
                latch.let_go(*place, wakes);
            }
        }
    }
}

/// L9: undoes what sub-transactions from `sub` on acquired.
pub(crate) fn roll_back(shards: &Shards, owner: &Arc<Owner>, sub: u32, wakes: &mut Wakes) {
    let ((undone, ranges, tokens), met) = {
        let mut holdings = owner.latch();
        assert!(
            holdings.waiting().is_none(),
            "K4: a transaction that waits does not roll back"
        );
        if !owner.is_active() {
            return; // Its release pass gives everything back.
        }
        owner.note_rollback();
        holdings.spilled.close();
        let undo = &mut holdings.undo;
        let undone = (
            undo.split_off(sub),
            undo.split_off_ranges(sub),
            undo.split_off_tokens(sub),
        );
        (undone, holdings.spilled.roll_back(sub))
    };
    let mut gone = restore(shards, owner, undone, wakes);
    gone.extend(lookup::look_again(shards, owner, &met, wakes));
    owner.forget_batches(sub);
    for number in ranges.into_iter().rev() {
        let range = shards.wide().latch().ranges.target(number);
        gone.extend(range);
        ask::give_back(shards, number, wakes);
    }
    ask::give_back_tokens(shards, owner, &tokens, wakes);
    owner.latch().spilled.open();
    ask::left(shards, owner, &gone, wakes);
}

/// L9: undoes those acquisitions of rows by `sub`, the newest sub-transaction, of which `gone` says so by their place.
pub(crate) fn give_back(
    shards: &Shards,
    owner: &Arc<Owner>,
    sub: u32,
    mut gone: impl FnMut(Place) -> bool,
    wakes: &mut Wakes,
) {
    let undone: Vec<_> = {
        let mut holdings = owner.latch();
        if !owner.is_active() {
            return; // Its release pass gives everything back.
        }
        holdings.spilled.close();
        let acquired = holdings.undo.split_off(sub).into_iter();
        let (undone, kept): (Vec<_>, Vec<_>) = acquired.partition(|(place, _)| gone(*place));
        for (place, before) in kept.into_iter().rev() {
            holdings.undo.push(place, sub, before);
        }
        undone
    };
    let gone = restore(shards, owner, undone, wakes);
    owner.latch().spilled.open();
    ask::left(shards, owner, &gone, wakes);
}

/// The rows that were restored.
fn restore(shards: &Shards, owner: &Owner, undone: Vec<Step>, wakes: &mut Wakes) -> Vec<Target> {
    let mut rows = Vec::with_capacity(undone.len());
    for (place, before) in undone {
        let mut latch = shards.latch_number(place.shard());
        rows.extend(latch.row(place).cloned().map(Target::Row));
        latch.restore(place, owner, before, wakes);
    }
    rows
}

/// Ends the wait of an owner that ended. A grant that it did not take is void, as all it held.
fn end_wait(shards: &Shards, ticket: &Arc<Ticket>, wakes: &mut Wakes) {
    let ended = ticket.try_end();
    match ticket.row().filter(|_| !ended) {
        Some(row) => shards
            .latch(ticket.hash())
            .settle(ticket.hash(), row, wakes),
        None => ask::withdraw(shards, ticket, wakes),
    }
}
