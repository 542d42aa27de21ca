//! LOCKING as a list of requests: those of a row in the order of its queue, everything else in order of arrival.
//!
//! It is slow, and knows neither states nor tickets nor stacks: each question is answered by a look at the whole list.

use std::collections::{BTreeMap, BTreeSet};

use lockstone_locks::{Policy, TableMode};

use crate::written::What;

#[derive(Debug, Clone)]
struct Request {
    txn: usize,
    what: What,
    sub: u32,
    /// Its number in the order of arrival.
    number: u64,
    held: bool,
    /// L3: it counts no waiters, for it has a part of what it asks for.
    upgrade: bool,
    /// The priority it is queued with: its own, or one that it has inherited.
    order: u32,
}

impl Request {
    /// Rows and ranges do not meet tables: that is what SHARED is for.
    fn clashes_with(&self, other: &Self) -> bool {
        let is_table = |request: &Self| matches!(request.what, What::Table(_));
        self.txn != other.txn
            && is_table(self) == is_table(other)
            && self.what.conflicts_with(other.what)
    }

    /// They wait in one queue.
    fn queues_with(&self, other: &Self) -> bool {
        let row = |request: &Self| match request.what {
            What::Row(key, ..) => Some(Some(key)),
            What::Table(_) => Some(None),
            What::Range(..) => None,
        };
        !self.held && !other.held && row(self).is_some() && row(self) == row(other)
    }
}

/// What a request must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Granted,
    /// L2.
    Covered,
    Queued,
    /// One of these is in the way: it is refused, or dies.
    Refused(Vec<usize>),
    /// L5.
    Wounds(Vec<usize>),
    /// L4: it closes a ring of waits.
    Ring,
}

/// Who waits for whom; soft if only for one who is ahead.
pub(crate) type Edges = BTreeMap<(usize, usize), bool>;

#[derive(Debug, Clone)]
pub(crate) struct Naive {
    list: Vec<Request>,
    ranks: Vec<u32>,
    /// The larger, the younger.
    ages: Vec<usize>,
    arrivals: u64,
    /// Pairs with a range that a ring has turned round: whether the first goes before the second.
    turned: BTreeMap<(u64, u64), bool>,
    /// LOCKING does not say who of some is granted.
    is_open: bool,
}

impl Naive {
    pub(crate) fn new(ranks: &[u32], ages: &[usize]) -> Self {
        Self {
            list: Vec::new(),
            ranks: ranks.to_vec(),
            ages: ages.to_vec(),
            arrivals: 0,
            turned: BTreeMap::new(),
            is_open: false,
        }
    }

    fn of(&self, txn: usize) -> impl Iterator<Item = &Request> {
        self.list.iter().filter(move |request| request.txn == txn)
    }

    fn waiting(&self, txn: usize) -> Option<usize> {
        let is_it = |request: &Request| request.txn == txn && !request.held;
        self.list.iter().position(is_it)
    }

    pub(crate) fn waits(&self, txn: usize) -> bool {
        self.waiting(txn).is_some()
    }

    pub(crate) fn covers(&self, txn: usize, what: What) -> bool {
        self.of(txn)
            .any(|request| request.held && request.what.covers(what))
    }

    pub(crate) fn holds(&self, txn: usize) -> impl Iterator<Item = What> {
        self.of(txn)
            .filter(|request| request.held)
            .map(|request| request.what)
    }

    /// It holds a weaker mode of it, by itself or by a range around it; or shares the table that it wants alone.
    pub(crate) fn is_upgrade(&self, txn: usize, what: What) -> bool {
        self.holds(txn).any(|held| match (held, what) {
            (What::Table(_), What::Table(_)) => true,
            (What::Row(own, ..), What::Row(key, ..)) => own == key,
            (What::Range(from, to, _), What::Row(..) | What::Range(..)) => {
                let (keys, ..) = what.keys().unwrap();
                from <= keys.start && keys.end <= to
            }
            _ => false,
        })
    }

    /// K1, L3: whether the waiter at `one` goes before the waiter at `other`.
    fn is_ahead(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.list[one], &self.list[other]);
        match (a.what, b.what) {
            (What::Table(_), _) => one < other,
            (What::Row(..), What::Row(..)) => !b.upgrade && one < other,
            // L2: it waits for that one, by a range, or by the row that it waits for.
            _ if self.waits_by_range(a, b.txn) => false,
            (What::Row(..), _) if self.clashes_with_held(a, b.txn) => false,
            _ => {
                let turned = self.turned.get(&(a.number, b.number)).copied();
                turned.unwrap_or(!b.upgrade && (a.upgrade || a.number < b.number))
            }
        }
    }

    fn clashes_with_held(&self, waiter: &Request, txn: usize) -> bool {
        self.of(txn)
            .any(|request| request.held && waiter.clashes_with(request))
    }

    fn waits_by_range(&self, waiter: &Request, txn: usize) -> bool {
        let ranges = self.of(txn).filter(|request| request.held);
        let mut ranges = ranges.filter(|request| matches!(request.what, What::Range(..)));
        ranges.any(|range| waiter.clashes_with(range))
    }

    /// Who is in the way of the one at `at`, and whether that is only ahead.
    fn in_the_way_of(&self, at: usize) -> BTreeMap<usize, bool> {
        let mut all = BTreeMap::new();
        for (other_at, other) in self.list.iter().enumerate() {
            let counts = other.held || self.is_ahead(other_at, at);
            if counts && self.list[at].clashes_with(other) {
                let soft = all.entry(other.txn).or_insert(true);
                *soft &= !other.held;
            }
        }
        all
    }

    pub(crate) fn edges(&self) -> Edges {
        let waiters = self
            .list
            .iter()
            .enumerate()
            .filter(|(_, request)| !request.held);
        let edges = waiters.flat_map(|(at, waiter)| {
            let met = self.in_the_way_of(at).into_iter();
            met.map(|(other, soft)| ((waiter.txn, other), soft))
        });
        edges.collect()
    }

    /// The place behind which nobody is who is to stand behind a request of this `order`.
    fn place(&self, new: &Request, upgrade: bool) -> usize {
        let queued = || {
            self.list
                .iter()
                .enumerate()
                .filter(|(_, other)| other.queues_with(new))
        };
        let is_row = matches!(new.what, What::Row(..));
        let stays =
            |other: &Request| other.upgrade || (!upgrade && (!is_row || other.order >= new.order));
        let last = queued().rfind(|(_, other)| stays(other));
        let from = last.map_or(0, |(at, _)| at + 1);
        queued()
            .map(|(at, _)| at)
            .find(|at| *at >= from)
            .unwrap_or(self.list.len())
    }

    pub(crate) fn request(&mut self, txn: usize, what: What, sub: u32, policy: Policy) -> Expected {
        if self.covers(txn, what) {
            return Expected::Covered;
        }
        let before = self.clone();
        let (number, upgrade, order) = (self.arrivals, self.is_upgrade(txn, what), self.ranks[txn]);
        self.arrivals += 1;
        let request = Request {
            txn,
            what,
            sub,
            number,
            held: false,
            upgrade,
            order,
        };
        let at = self.place(&request, upgrade);
        self.list.insert(at, request);
        let in_the_way: Vec<usize> = self.in_the_way_of(at).into_keys().collect();
        if in_the_way.is_empty() {
            self.list[at].held = true;
            return Expected::Granted;
        }
        let rank = self.ranks[txn];
        match policy {
            Policy::Wait => {
                self.inherit(txn);
                self.promote();
                match self.waits(txn) {
                    _ if self.is_open || !self.rings().is_empty() => Expected::Ring,
                    true => Expected::Queued,
                    false => Expected::Granted,
                }
            }
            Policy::Wound if in_the_way.iter().all(|other| rank > self.ranks[*other]) => {
                for victim in &in_the_way {
                    self.forget(*victim);
                }
                // Before anybody else who waited for them, but for another who counts no waiters.
                let at = self.waiting(txn).unwrap();
                assert!(self.in_the_way_of(at).is_empty(), "L5: they are gone");
                let rival = |other: &usize| {
                    let request = &self.list[*other];
                    !request.held && request.clashes_with(&self.list[at])
                };
                let mut rivals = (0..self.list.len()).filter(rival);
                self.is_open = rivals.any(|other| self.in_the_way_of(other).is_empty());
                if !self.is_open {
                    self.list[at].held = true;
                    self.promote();
                }
                Expected::Wounds(in_the_way)
            }
            _ => {
                *self = before;
                Expected::Refused(in_the_way)
            }
        }
    }

    fn forget(&mut self, txn: usize) {
        self.list.retain(|request| request.txn != txn);
    }

    pub(crate) fn end(&mut self, txn: usize) {
        self.forget(txn);
        self.promote();
    }

    pub(crate) fn cancel(&mut self, txn: usize) {
        let at = self.waiting(txn).unwrap();
        self.list.remove(at);
        self.promote();
    }

    /// L9: all but tables.
    pub(crate) fn rollback(&mut self, txn: usize, to: u32) {
        self.list.retain(|request| {
            let stays = request.txn != txn || request.sub < to;
            stays || matches!(request.what, What::Table(_))
        });
        self.promote();
    }

    /// Grants whoever nobody is in the way of, the first of each queue first. Of a row and a range, or two ranges, that both
    /// count no waiters, LOCKING does not say which goes first: then it grants neither, and that is open.
    fn promote(&mut self) {
        loop {
            let free = |at: &usize| !self.list[*at].held && self.in_the_way_of(*at).is_empty();
            let free: Vec<usize> = (0..self.list.len()).filter(free).collect();
            let goes_first = |at: &&usize| {
                let one = &self.list[**at];
                let mut others = free.iter().map(|other| (other, &self.list[*other]));
                others.all(|(at_other, other)| {
                    !one.clashes_with(other) || (one.queues_with(other) && *at < at_other)
                })
            };
            let Some(at) = free.iter().find(goes_first).copied() else {
                self.is_open = !free.is_empty();
                return;
            };
            self.list[at].held = true;
        }
    }

    /// Inheritance: whoever holds what the waiter wants, and waits itself, is queued as high as that; and so on.
    fn inherit(&mut self, txn: usize) {
        let hard = |edges: &Edges, from: usize, to: usize| edges.get(&(from, to)) == Some(&false);
        let edges = self.edges();
        let behind = self
            .list
            .iter()
            .filter(|other| !other.held && hard(&edges, other.txn, txn));
        if let Some(order) = behind.map(|other| other.order).max() {
            self.raise(txn, order);
        }
        let mut givers = vec![txn];
        while let Some(giver) = givers.pop() {
            let order = self.list[self.waiting(giver).unwrap()].order;
            let edges = self.edges();
            // Those who came first, first: they end up with the same order.
            let holders: Vec<usize> = self.list.iter().map(|request| request.txn).collect();
            for holder in holders {
                if hard(&edges, giver, holder) && self.raise(holder, order) {
                    givers.push(holder);
                }
            }
        }
    }

    /// Whether the transaction waits, with a lower order.
    fn raise(&mut self, txn: usize, order: u32) -> bool {
        let Some(from) = self.waiting(txn).filter(|at| self.list[*at].order < order) else {
            return false;
        };
        let mut request = self.list[from].clone();
        request.order = order;
        let to = self.place(&request, false);
        self.list[from].order = order;
        if matches!(request.what, What::Row(..)) && !request.upgrade && to < from {
            self.list.remove(from);
            self.list.insert(to, request);
        }
        true
    }

    /// Each ring of waits, without those who are not in it; with two who wait in one queue in either order.
    fn rings_among(&self, edges: &BTreeSet<(usize, usize)>) -> Vec<Vec<usize>> {
        fn walk(
            edges: &BTreeSet<(usize, usize)>,
            path: &mut Vec<usize>,
            rings: &mut Vec<Vec<usize>>,
        ) {
            for (_, to) in
                edges.range((path[path.len() - 1], 0)..=(path[path.len() - 1], usize::MAX))
            {
                if *to == path[0] {
                    rings.push(path.clone());
                } else if *to > path[0] && !path.contains(to) {
                    path.push(*to);
                    walk(edges, path, rings);
                    path.pop();
                }
            }
        }
        let mut rings = Vec::new();
        (0..self.ranks.len()).for_each(|start| walk(edges, &mut vec![start], &mut rings));
        rings
    }

    pub(crate) fn rings(&self) -> Vec<Vec<usize>> {
        self.rings_among(&self.edges().into_keys().collect())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// L4: whom the ring that was just closed may cost: nobody, if holders alone do not close one.
    pub(crate) fn victims(&self) -> Vec<usize> {
        let edges = self.edges();
        let hard = edges
            .iter()
            .filter(|(_, soft)| !**soft)
            .map(|(edge, _)| *edge);
        if self.rings_among(&hard.collect()).is_empty() {
            return Vec::new();
        }
        let mut either: BTreeSet<_> = edges.keys().copied().collect();
        either.extend(
            edges
                .iter()
                .filter(|(_, soft)| **soft)
                .map(|((a, b), _)| (*b, *a)),
        );
        let victim = |ring: Vec<usize>| {
            let lowest = |txn: &usize| (self.ranks[*txn], std::cmp::Reverse(self.ages[*txn]));
            ring.into_iter().min_by_key(lowest).unwrap()
        };
        self.rings_among(&either).into_iter().map(victim).collect()
    }

    /// A ring is resolved: these are dead, these are granted, and the others wait in this order, and for those ahead of them.
    pub(crate) fn adopt(
        &mut self,
        dead: &[usize],
        granted: &[usize],
        queue: &[usize],
        soft: &[(usize, usize)],
    ) {
        for txn in dead {
            self.forget(*txn);
        }
        for txn in granted {
            let at = self.waiting(*txn).unwrap();
            let holders = self.list.iter().filter(|other| other.held);
            let clash = holders
                .clone()
                .any(|other| other.clashes_with(&self.list[at]));
            assert!(!clash, "L1: {txn} is granted among {:?}", self.list);
            self.list[at].held = true;
        }
        let place = |txn: usize| queue.iter().position(|other| *other == txn);
        let (mut waiters, held): (Vec<_>, Vec<_>) =
            self.list.drain(..).partition(|request| !request.held);
        waiters.sort_by_key(|request| place(request.txn));
        self.list = held;
        for (a, b) in waiters
            .iter()
            .flat_map(|a| waiters.iter().map(move |b| (a, b)))
        {
            if a.clashes_with(b) {
                self.turned
                    .insert((a.number, b.number), soft.contains(&(b.txn, a.txn)));
            }
        }
        self.list.append(&mut waiters);
        let count = self.list.iter().filter(|request| request.held).count();
        self.promote();
        let now = self.list.iter().filter(|request| request.held).count();
        assert_eq!(now, count, "K4: somebody can run: {:?}", self.list);
    }
}

/// What a table shows of the holdings of a transaction: the strongest mode of each row, its ranges, and EXCLUSIVE.
pub(crate) fn shown(held: impl Iterator<Item = What>) -> Vec<What> {
    let mut rows = BTreeMap::new();
    let mut shown = Vec::new();
    for what in held {
        match what {
            What::Row(key, mode, _) => {
                let strongest = rows.entry(key).or_insert(mode);
                *strongest = mode.max(*strongest);
            }
            What::Table(TableMode::Shared) => {}
            What::Range(..) | What::Table(_) => shown.push(what),
        }
    }
    shown.extend(
        rows.into_iter()
            .map(|(key, mode)| What::Row(key, mode, false)),
    );
    shown.sort_by_key(|what| format!("{what:?}"));
    shown
}
