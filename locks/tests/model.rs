//! Random interleavings of five transactions on three rows, against a naive model.
//!
//! After every step the table must show exactly what the model holds, and:
//! 1. L1: no two transactions hold conflicting modes.
//! 2. L6: whoever waits has a live obstacle, and whoever was decided was woken.
//! 3. L4: no cycle of waits is left, nobody dies without one, and its victim is the right one.
//! 4. L3, K1: with equal ranks, a request is granted, queued or refused as arrival order says.
//! 5. L9: a rollback restores modes and tokens.
//! 6. At the end nothing is held.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstone_base::{FencingToken, LockMode, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Cycle, Decision, Grant, LockEntry, LockStatus, LockTable, Notify, Outcome, Owner,
    Policy, Refusal, Request, Target, Ticket, Wakes, conflicts,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Lock(usize, u8, LockMode, bool),
    Savepoint(usize),
    Rollback(usize, u32),
    Commit(usize),
    Abort(usize),
    Cancel(usize),
}

const SLOTS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    let mode = (0..4_usize).prop_map(|at| LockMode::ALL[at]);
    prop_oneof![
        12 => (slot.clone(), 0..3_u8, mode, prop::bool::weighted(0.2))
            .prop_map(|(slot, row, mode, nowait)| Step::Lock(slot, row, mode, nowait)),
        2 => slot.clone().prop_map(Step::Savepoint),
        2 => (slot.clone(), 0..4_u32).prop_map(|(slot, back)| Step::Rollback(slot, back)),
        2 => slot.clone().prop_map(Step::Commit),
        1 => slot.clone().prop_map(Step::Abort),
        1 => slot.prop_map(Step::Cancel),
    ]
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Notify for Bell {
    fn notify(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Held = (LockMode, FencingToken);

struct Slot {
    owner: Arc<Owner>,
    bell: Arc<Bell>,
    sub: u32,
    held: BTreeMap<RowKey, Held>,
    undo: Vec<(u32, RowKey, Option<Held>)>,
    wait: Option<Arc<Ticket>>,
}

struct World {
    table: LockTable,
    slots: Vec<Slot>,
    ranks: [u32; SLOTS],
    begun: u64,
    lsn: u64,
    deadlocks: usize,
}

impl World {
    fn new(ranks: [u32; SLOTS]) -> Self {
        let mut world = Self {
            table: LockTable::new(3),
            slots: Vec::new(),
            ranks,
            begun: 0,
            lsn: 0,
            deadlocks: 0,
        };
        for at in 0..SLOTS {
            let slot = world.begin(at);
            world.slots.push(slot);
        }
        world
    }

    fn begin(&mut self, at: usize) -> Slot {
        self.begun += 1;
        let bell = Arc::new(Bell::default());
        let notify: Arc<dyn Notify> = bell.clone();
        let owner = self.table.begin(TxnId::new(1, self.begun), None, notify);
        owner.settle(Priority::normal(self.ranks[at]).settle(0, false));
        Slot {
            owner,
            bell,
            sub: 0,
            held: BTreeMap::new(),
            undo: Vec::new(),
            wait: None,
        }
    }

    fn restart(&mut self, at: usize) {
        self.slots[at] = self.begin(at);
    }

    fn run(&mut self, step: &Step) {
        let mut wakes = Wakes::new();
        match *step {
            Step::Lock(at, ..) | Step::Savepoint(at) | Step::Rollback(at, _) | Step::Commit(at)
                if self.slots[at].wait.is_some() =>
            {
                return;
            }
            Step::Lock(at, row, mode, nowait) => self.lock(at, row, mode, nowait),
            Step::Savepoint(at) => self.slots[at].sub += 1,
            Step::Rollback(at, back) => {
                let slot = &mut self.slots[at];
                let to = slot.sub.saturating_sub(back);
                self.table.rollback_to(&slot.owner, to, &mut wakes);
                while let Some((_, row, before)) = slot.undo.pop_if(|(sub, ..)| *sub >= to) {
                    match before {
                        Some(held) => slot.held.insert(row, held),
                        None => slot.held.remove(&row),
                    };
                }
                slot.sub += 1;
            }
            Step::Commit(at) => {
                let owner = &self.slots[at].owner;
                assert!(owner.try_commit());
                owner.released();
                self.table.end(owner, &mut wakes);
                self.restart(at);
            }
            Step::Abort(at) => {
                let owner = &self.slots[at].owner;
                assert!(self.table.kill(owner, AbortCause::Requested, &mut wakes));
                self.restart(at);
            }
            Step::Cancel(at) => {
                let slot = &mut self.slots[at];
                if let Some(ticket) = slot.wait.take() {
                    let outcome = self.table.cancel(&slot.owner, &ticket, &mut wakes);
                    assert_eq!(outcome, Outcome::Cancelled);
                }
            }
        }
        drop(wakes);
        self.poll();
        self.check();
    }

    fn lock(&mut self, at: usize, row: u8, mode: LockMode, nowait: bool) {
        let row = RowKey::new(TableId(1), &[row]);
        let expected = self.expect(at, &row, mode);
        let before = self.deadlocks;
        let slot = &self.slots[at];
        let request = Request {
            row: &row,
            mode,
            writes: false,
            sub: slot.sub,
            policy: if nowait { Policy::NoWait } else { Policy::Wait },
        };
        let mut wakes = Wakes::new();
        let decision = self.table.request(&slot.owner, request, &mut wakes);
        drop(wakes);
        let got = match decision {
            Decision::Granted(grant) => {
                let had = self.slots[at].held.get(&row);
                assert_eq!(grant.fresh, had.is_none());
                if grant.strengthened {
                    self.joined(at, &row, grant);
                } else {
                    assert!(had.is_some_and(|had| had.0 >= mode), "L2");
                }
                Expected::Granted
            }
            Decision::Queued(ticket) => {
                self.slots[at].wait = Some(ticket);
                Expected::Queued
            }
            Decision::Refused(Refusal::WouldBlock(_)) => {
                assert!(nowait, "only NoWait is refused");
                Expected::Queued
            }
            Decision::Refused(Refusal::Deadlock(cycle)) => {
                self.judge(&cycle);
                self.restart(at);
                Expected::Deadlock
            }
            Decision::Refused(refusal) => panic!("{refusal:?}"),
        };
        self.poll();
        if let Some(mut expected) = expected {
            let died = self.deadlocks > before;
            if nowait && expected != Expected::Granted {
                expected = Expected::Queued;
            }
            assert_eq!(died, expected == Expected::Deadlock, "L4: who dies");
            if !died && expected != Expected::Reordered {
                assert_eq!(got, expected, "L3");
            }
        }
    }

    fn joined(&mut self, at: usize, row: &RowKey, grant: Grant) {
        let mode = grant.mode;
        self.lsn += 1;
        let token = FencingToken::new(Lsn::new(self.lsn));
        let slot = &mut self.slots[at];
        self.table.stamp(&slot.owner, grant.place, token);
        let before = slot.held.insert(row.clone(), (mode, token));
        slot.undo.push((slot.sub, row.clone(), before));
    }

    /// Takes what the waits have come to. Who was decided must have been woken (L6).
    fn poll(&mut self) {
        for at in 0..SLOTS {
            let slot = &mut self.slots[at];
            let woken = slot.bell.0.swap(false, Ordering::Relaxed);
            let Some(ticket) = slot.wait.clone() else {
                continue;
            };
            let Some(outcome) = self.table.outcome(&slot.owner, &ticket) else {
                continue;
            };
            assert!(woken, "L6: decided, and not woken");
            slot.wait = None;
            match (outcome, slot.owner.cause()) {
                (Outcome::Granted(grant), _) => self.joined(at, ticket.row().unwrap(), grant),
                (Outcome::Ended, Some(AbortCause::Deadlock(cycle))) => {
                    self.judge(&cycle);
                    self.restart(at);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn judge(&mut self, cycle: &Cycle) {
        self.deadlocks += 1;
        let rank = |txn: &TxnId| {
            let known = self.slots.iter().zip(self.ranks);
            let mut known = known.filter(|(slot, _)| slot.owner.id() == *txn);
            // Who has died of an earlier cycle of the same request has begun anew since.
            known.next().map(|(_, rank)| (rank, Reverse(*txn)))
        };
        let txns: Vec<TxnId> = cycle.edges.iter().map(|edge| edge.txn).collect();
        let ranked: Option<Vec<_>> = txns.iter().map(rank).collect();
        if let Some(ranked) = ranked {
            let lowest = ranked.into_iter().min().unwrap();
            assert_eq!(lowest.1.0, cycle.victim, "L4: lowest, then youngest");
        }
        assert!(txns.contains(&cycle.victim) && txns.len() > 1);
        for edge in &cycle.edges {
            assert!(conflicts(edge.requested, edge.blocked_by));
        }
    }

    fn check(&self) {
        let list = self.table.list();
        let mut expected: Vec<(RowKey, TxnId, LockMode, Option<FencingToken>)> = Vec::new();
        for slot in &self.slots {
            let held = slot.held.iter();
            expected.extend(
                held.map(|(row, (mode, token))| {
                    (row.clone(), slot.owner.id(), *mode, Some(*token))
                }),
            );
            assert_eq!(self.table.held_by(&slot.owner), slot.held.len());
        }
        let held = list
            .iter()
            .filter(|entry| entry.status == LockStatus::Granted);
        let mut shown: Vec<_> = held
            .map(|entry| (row(entry), entry.txn, entry.mode, entry.token))
            .collect();
        expected.sort();
        shown.sort();
        assert_eq!(shown, expected, "the table and the model hold the same");
        for (at, (row, txn, mode, _)) in shown.iter().enumerate() {
            for (other_row, other, held, _) in &shown[at + 1..] {
                let apart = row != other_row || txn == other || !conflicts(*mode, *held);
                assert!(apart, "L1: {txn} and {other} on {row:?}");
            }
        }
        let waiting = list
            .iter()
            .filter(|entry| entry.status == LockStatus::Waiting);
        let waits = self.slots.iter().filter(|slot| slot.wait.is_some()).count();
        assert_eq!(waiting.clone().count(), waits, "K9: who waits is listed");
        let edges = edges(&list);
        for entry in waiting {
            assert!(
                edges.iter().any(|(from, _)| *from == entry.txn),
                "L6: {} waits for nobody",
                entry.txn
            );
        }
        for slot in &self.slots {
            assert!(
                !reaches_itself(&edges, slot.owner.id()),
                "L4: a cycle is left"
            );
        }
    }

    /// What a request must come to, if arrival order alone decides.
    fn expect(&self, at: usize, row: &RowKey, mode: LockMode) -> Option<Expected> {
        if self.ranks.iter().any(|rank| *rank != self.ranks[0]) {
            return None;
        }
        let slot = &self.slots[at];
        let had = slot.held.get(row).map(|held| held.0);
        if had.is_some_and(|had| had >= mode) {
            return Some(Expected::Granted);
        }
        let mut list = self.table.list();
        let mine = LockEntry {
            target: Target::Row(row.clone()),
            mode,
            txn: slot.owner.id(),
            label: None,
            rank: slot.owner.rank().unwrap(),
            status: LockStatus::Waiting,
            token: None,
        };
        // An upgrade stands behind the upgrades, before the others; anyone else stands last.
        let upgrades = |entry: &LockEntry| {
            let held = self.slots.iter().find(|slot| slot.owner.id() == entry.txn);
            held.is_some_and(|slot| slot.held.contains_key(row))
        };
        let behind = list.iter().position(|entry| {
            entry.target.row() == Some(row)
                && entry.status == LockStatus::Waiting
                && had.is_some()
                && !upgrades(entry)
        });
        list.insert(behind.unwrap_or(list.len()), mine);
        let edges = edges(&list);
        let me = slot.owner.id();
        // A cycle through a place in a queue is resolved by reordering, unless there is one without any.
        let hard = hard_edges(&list);
        Some(if !edges.iter().any(|(from, _)| *from == me) {
            Expected::Granted
        } else if reaches_itself(&hard, me) {
            Expected::Deadlock
        } else if reaches_itself(&edges, me) {
            Expected::Reordered
        } else {
            Expected::Queued
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Granted,
    Queued,
    Deadlock,
    /// It may come to wait or be granted: nobody dies.
    Reordered,
}

fn row(entry: &LockEntry) -> RowKey {
    entry.target.row().unwrap().clone()
}

/// Who waits for whom, read off a list in the plainest way.
fn edges(list: &[LockEntry]) -> Vec<(TxnId, TxnId)> {
    let mut edges = Vec::new();
    for (at, waiter) in list.iter().enumerate() {
        if waiter.status != LockStatus::Waiting {
            continue;
        }
        let holds = |entry: &LockEntry| entry.status == LockStatus::Granted;
        let same = |entry: &LockEntry| entry.target == waiter.target;
        let upgrade = list
            .iter()
            .any(|entry| same(entry) && holds(entry) && entry.txn == waiter.txn);
        for (other_at, other) in list.iter().enumerate() {
            let counts = holds(other) || (!upgrade && other_at < at);
            if same(other)
                && counts
                && other.txn != waiter.txn
                && conflicts(waiter.mode, other.mode)
            {
                edges.push((waiter.txn, other.txn));
            }
        }
    }
    edges
}

/// The same without those who are only ahead in a queue.
fn hard_edges(list: &[LockEntry]) -> Vec<(TxnId, TxnId)> {
    let holds = |waiter: &LockEntry, other: TxnId| {
        list.iter().any(|entry| {
            entry.target == waiter.target
                && entry.txn == other
                && entry.status == LockStatus::Granted
                && conflicts(waiter.mode, entry.mode)
        })
    };
    let waiter = |txn: TxnId| {
        let mut waiting = list
            .iter()
            .filter(|entry| entry.status == LockStatus::Waiting);
        waiting.find(|entry| entry.txn == txn).unwrap()
    };
    let mut edges = edges(list);
    edges.retain(|(from, to)| holds(waiter(*from), *to));
    edges
}

fn reaches_itself(edges: &[(TxnId, TxnId)], start: TxnId) -> bool {
    let mut reached = vec![start];
    let mut at = 0;
    while let Some(from) = reached.get(at).copied() {
        for (_, to) in edges.iter().filter(|(source, _)| *source == from) {
            if *to == start {
                return true;
            }
            if !reached.contains(to) {
                reached.push(*to);
            }
        }
        at += 1;
    }
    false
}

fn play(ranks: [u32; SLOTS], steps: &[Step]) {
    let mut world = World::new(ranks);
    for step in steps {
        world.run(step);
    }
    for at in 0..SLOTS {
        world.run(&Step::Abort(at));
    }
    assert_eq!(world.table.list(), [], "nothing is left");
    assert_eq!(world.table.live_locks(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_ranks_are_served_in_order_of_arrival(steps in prop::collection::vec(step(), 1..60)) {
        play([0; SLOTS], &steps);
    }

    #[test]
    fn ranks_change_who_is_first_and_nothing_else(
        ranks in prop::array::uniform5(0..3_u32),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        play(ranks, &steps);
    }
}
