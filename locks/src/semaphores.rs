//! Semaphores: so many tokens there are, of which transactions take some and give them back at their end.
//!
//! Called under the latch of the wide locks.
//! 1. Never more tokens are held than there are. Tokens are counted before the thread that has got them is told.
//! 2. First come, first served, whatever the priorities and however few tokens one behind wants: so nobody is starved who wants
//!    many. Whoever holds some already goes to the front, as an upgrade does (L3).
//! 3. K5: whoever ends, or rolls back, gives back what it holds there, and serves the queue.
//!    So nobody needs to be registered: holders know their semaphores.
//! 4. A semaphore is here while somebody holds or awaits tokens of it. How many there are is told by each request.
//!
//! Crash: memory only; how many tokens there are is a committed row.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lockstone_base::{LockMode, RowKey, TxnId};

use crate::judge::is_called;
use crate::met::{InTheWay, Obstacle};
use crate::owner::Owner;
use crate::target::TokenRequest;
use crate::ticket::Ticket;
use crate::wait_queue::Waiter;
use crate::wakes::Wakes;

/// Some tokens, as a mode.
pub(crate) const TOKENS: LockMode = LockMode::Update;

/// A semaphore of which somebody holds or awaits tokens.
#[derive(Debug)]
struct Semaphore {
    limit: u64,
    /// Who holds how many, and some who have ended.
    held: BTreeMap<TxnId, (Arc<Owner>, u64)>,
    /// All of these.
    taken: u64,
    queue: VecDeque<Waiter>,
}

impl Semaphore {
    fn take(&mut self, owner: &Arc<Owner>, tokens: u64) {
        let held = self.held.entry(owner.id());
        held.or_insert_with(|| (Arc::clone(owner), 0)).1 += tokens;
        self.taken += tokens;
        assert!(
            self.taken <= self.limit,
            "a semaphore's tokens are held once each"
        );
    }

    fn give_back(&mut self, owner: TxnId, tokens: u64) {
        // Whoever has ended may have been found before.
        let Some((_, held)) = self.held.get_mut(&owner) else {
            return;
        };
        *held -= tokens;
        self.taken -= tokens;
        if *held == 0 {
            self.held.remove(&owner);
        }
    }

    fn fits(&self, tokens: u64) -> bool {
        tokens <= self.limit - self.taken
    }

    /// K5: what is held by those who have ended is free, whether they have given it back or not.
    fn drop_void(&mut self) {
        let taken = &mut self.taken;
        self.held.retain(|_, (owner, tokens)| {
            let stays = owner.binds();
            if !stays {
                *taken -= *tokens;
            }
            stays
        });
    }

    /// Grants in the order of the queue; stops at the first for whom there are too few tokens.
    fn promote(&mut self, wakes: &mut Wakes) {
        while let Some(Waiter { owner, ticket }) = self.queue.front().cloned() {
            if !owner.is_active() {
                ticket.try_end();
            } else if ticket.is_waiting() {
                let tokens = wanted(&ticket);
                if !self.fits(tokens) {
                    self.drop_void();
                }
                if !self.fits(tokens) {
                    // `Wound`: as in `ranges`.
                    let others = self.held.values().map(|(other, _)| other);
                    let mut others = others.filter(|other| !owner.is(other));
                    if ticket.has_won() && is_called(&owner, &mut others) {
                        wakes.add(&owner);
                    }
                    return;
                }
                self.take(&owner, tokens);
                if !ticket.try_grant() {
                    self.give_back(owner.id(), tokens);
                }
            }
            wakes.add(&owner);
            self.queue.pop_front();
        }
    }

    fn position(&self, ticket: &Arc<Ticket>) -> Option<usize> {
        let is_it = |waiter: &Waiter| Arc::ptr_eq(&waiter.ticket, ticket);
        self.queue.iter().position(is_it)
    }

    /// Who holds tokens, but for `owner`.
    fn holders(&self, owner: &Owner) -> impl Iterator<Item = (&Arc<Owner>, u64)> {
        let held = self.held.values();
        let held = held.filter(move |(other, _)| !owner.is(other) && other.binds());
        held.map(|(other, tokens)| (other, *tokens))
    }
}

/// How many tokens the ticket is for.
fn wanted(ticket: &Ticket) -> u64 {
    ticket.target().tokens().map_or(0, |request| request.tokens)
}

/// What a waiter for tokens waits for: everyone ahead; and of those who hold some so many as have enough together.
#[derive(Debug)]
pub(crate) struct Shortage<'a> {
    pub(crate) ahead: Vec<&'a Waiter>,
    /// Tokens that are missing.
    pub(crate) missing: u64,
    pub(crate) holders: Vec<(&'a Arc<Owner>, u64)>,
}

/// All semaphores of which somebody holds or awaits tokens.
#[derive(Debug, Default)]
pub(crate) struct SemaphoreBook(BTreeMap<RowKey, Semaphore>);

impl SemaphoreBook {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many tokens the owner holds.
    pub(crate) fn held(&self, semaphore: &RowKey, owner: &Owner) -> u64 {
        let semaphore = self.0.get(semaphore);
        let held = semaphore.and_then(|semaphore| semaphore.held.get(&owner.id()));
        held.map_or(0, |(_, tokens)| *tokens)
    }

    /// R2: takes tokens for one who is known to have held them, before anybody asks. Whether there are as many.
    pub(crate) fn restore(&mut self, request: &TokenRequest, owner: &Arc<Owner>) -> bool {
        let semaphore = self.of(request);
        let fits = request.tokens <= semaphore.limit.saturating_sub(semaphore.taken);
        if fits {
            semaphore.take(owner, request.tokens);
        }
        fits
    }

    fn of(&mut self, request: &TokenRequest) -> &mut Semaphore {
        let semaphore = self.0.entry(request.semaphore.clone());
        semaphore.or_insert_with(|| Semaphore {
            limit: request.limit,
            held: BTreeMap::new(),
            taken: 0,
            queue: VecDeque::new(),
        })
    }

    /// Queues a request. Whether somebody is behind it.
    pub(crate) fn enqueue(&mut self, request: &TokenRequest, waiter: Waiter) -> bool {
        let queue = &mut self.of(request).queue;
        let stays_ahead = |other: &&Waiter| other.ticket.is_upgrade();
        let place = if waiter.ticket.is_upgrade() {
            queue.iter().take_while(stays_ahead).count()
        } else {
            queue.len()
        };
        queue.insert(place, waiter);
        place + 1 < queue.len()
    }

    /// Serves the queue.
    pub(crate) fn ask(&mut self, semaphore: &RowKey, wakes: &mut Wakes) {
        let Some(found) = self.0.get_mut(semaphore) else {
            return;
        };
        found.promote(wakes);
        if found.queue.is_empty() && found.held.is_empty() {
            self.0.remove(semaphore);
        }
    }

    /// Takes a ticket that is no longer waiting out of the queue, and serves that.
    pub(crate) fn leave_queue(
        &mut self,
        semaphore: &RowKey,
        ticket: &Arc<Ticket>,
        wakes: &mut Wakes,
    ) {
        if let Some(found) = self.0.get_mut(semaphore)
            && let Some(place) = found.position(ticket)
        {
            found.queue.remove(place);
        }
        self.ask(semaphore, wakes);
    }

    /// The owner gives tokens back; the queue is served.
    pub(crate) fn give_back(&mut self, request: &TokenRequest, owner: TxnId, wakes: &mut Wakes) {
        if let Some(found) = self.0.get_mut(&request.semaphore) {
            found.give_back(owner, request.tokens);
        }
        self.ask(&request.semaphore, wakes);
    }

    /// L4, inheritance: the highest that somebody is queued with for what an owner has taken.
    pub(crate) fn order_behind(&self, taken: &[Arc<TokenRequest>]) -> Option<u64> {
        let taken = taken.iter();
        let semaphores = taken.filter_map(|request| self.0.get(&request.semaphore));
        let waiters = semaphores.flat_map(|semaphore| &semaphore.queue);
        waiters.map(|waiter| waiter.ticket.order()).max()
    }

    /// What the waiter waits for.
    pub(crate) fn shortage(&self, request: &TokenRequest, waiter: &Waiter) -> Option<Shortage<'_>> {
        let semaphore = self.0.get(&request.semaphore)?;
        let place = semaphore.position(&waiter.ticket)?;
        let ahead = semaphore.queue.iter().take(place);
        let ahead = ahead.filter(|other| other.is_live());
        let holders: Vec<_> = semaphore.holders(&waiter.owner).collect();
        let own = self.held(&request.semaphore, &waiter.owner);
        let taken = holders.iter().map(|(_, tokens)| tokens).sum::<u64>() + own;
        let free = semaphore.limit.saturating_sub(taken);
        waiter.ticket.is_waiting().then(|| Shortage {
            ahead: ahead.collect(),
            missing: request.tokens.saturating_sub(free),
            holders,
        })
    }

    /// L4: whom the waiter waits for: those ahead, and, if tokens are missing, all who hold some.
    pub(crate) fn obstacles(&self, request: &TokenRequest, waiter: &Waiter) -> Vec<InTheWay> {
        let Some(shortage) = self.shortage(request, waiter) else {
            return Vec::new();
        };
        let met =
            |soft| move |owner: &Arc<Owner>| (Arc::clone(owner), Obstacle { mode: TOKENS, soft });
        let holders = shortage.holders.iter().filter(|_| shortage.missing > 0);
        let holders = holders.map(|(owner, _)| *owner).map(met(false));
        let ahead = shortage.ahead.iter().map(|other| &other.owner);
        holders.chain(ahead.map(met(true))).collect()
    }

    /// L4: takes a waiter ahead of another.
    pub(crate) fn put_ahead(&mut self, semaphore: &RowKey, waiter: &Waiter, other: &Owner) {
        let Some(found) = self.0.get_mut(semaphore) else {
            return;
        };
        let is_other = |waiter: &Waiter| other.is(&waiter.owner);
        let to = found.queue.iter().position(is_other);
        let places = found.position(&waiter.ticket).zip(to);
        if let Some((from, to)) = places.filter(|(from, to)| to < from)
            && let Some(waiter) = found.queue.remove(from)
        {
            found.queue.insert(to, waiter);
        }
    }

    /// Who holds tokens of one, and who waits for some, the next in line first.
    pub(crate) fn view(&self, semaphore: &RowKey) -> (Vec<(Arc<Owner>, LockMode)>, Vec<Waiter>) {
        let Some(found) = self.0.get(semaphore) else {
            return (Vec::new(), Vec::new());
        };
        let held = found.held.values().filter(|(owner, _)| owner.binds());
        let held = held.map(|(owner, _)| (Arc::clone(owner), TOKENS));
        let live = found.queue.iter().filter(|waiter| waiter.is_live());
        (held.collect(), live.cloned().collect())
    }

    /// The semaphores of which somebody holds or awaits tokens.
    pub(crate) fn names(&self) -> impl Iterator<Item = &RowKey> {
        self.0.keys()
    }

    /// By semaphore: who holds how many.
    pub(crate) fn holders_of_all(&self) -> impl Iterator<Item = (TokenRequest, &Arc<Owner>)> {
        self.0.iter().flat_map(|(name, semaphore)| {
            let held = semaphore.held.values();
            let held = held.filter(|(owner, _)| owner.binds());
            held.map(|(owner, tokens)| {
                let request = TokenRequest {
                    semaphore: name.clone(),
                    limit: semaphore.limit,
                    tokens: *tokens,
                };
                (request, owner)
            })
        })
    }

    /// By semaphore: who waits, the next in line first.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        let queues = self.0.values().flat_map(|semaphore| &semaphore.queue);
        queues.filter(|waiter| waiter.is_live())
    }
}
