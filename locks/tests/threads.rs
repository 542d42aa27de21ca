//! Real threads that park, upgrade, deadlock, wound, time out, roll back, take many rows at once and kill each other, on rows,
//! ranges and a table, beside one that lists and one that sweeps. Each of them goes on at points that its seed chooses.
//!
//! 1. L1: no two transactions that bind hold what conflicts, by a ledger kept beside the table, and the README's matrix.
//! 2. K4, L9: what a transaction was told that it has is what the table says, in mode and token, after each of its steps.
//! 3. L6: nobody sleeps for good: a sleeper that nobody wakes within seconds fails the test.
//! 4. K9: whatever goes on, no list shows two holders of one row whose modes conflict.
//! 5. At the end nothing is held.
//!
//! `LOCKSTONE_LOCK_SEEDS=100` plays so many seeds. A model checker for threads (loom, shuttle) would have to stand in for each
//! latch and each atomic of ten files; here the scheduler is the machine's, and more threads than cores see to it that it
//! changes its mind anywhere.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected fails, and reads its own variables"
)]

mod asking;
mod spilling;
mod written;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use asking::Asking;
use lockstone_base::{FencingToken, LockMode, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, Grant, ListPlace, LockEntry, LockStatus, LockTable, Notify, Outcome,
    Owner, OwnerState, Policy, Refusal, RunId, TableLock, Target, Terms, Ticket, Wakes,
};
use spilling::{FakeRun, merged, publish, spill};
use written::{Dice, Parker, What, conflict};

const TABLE: TableId = TableId(1);
/// Where a batch leaves more than a release pass takes away.
const PRIVATE: TableId = TableId(2);

/// What was told to its owner, by which sub-transaction it was asked for, and the token of what was new.
#[derive(Debug, Clone)]
struct Told {
    owner: Arc<Owner>,
    what: What,
    sub: u32,
    token: Option<FencingToken>,
}

#[derive(Debug, Clone, Copy)]
enum Counted {
    Commits,
    Deadlocks,
    Cancels,
    Waits,
    Wounded,
    Dead,
    Batches,
    Lists,
    Spilled,
    Swept,
}

const COUNTED: usize = Counted::Swept as usize + 1;

struct Arena {
    locks: LockTable,
    table: Arc<TableLock>,
    keys: u8,
    /// Transactions spill what they hold, now and then. Then no list shows a single moment, not even of a row.
    spills: bool,
    ledger: Mutex<Vec<Told>>,
    next: AtomicU64,
    lsn: AtomicU64,
    /// What other threads may kill.
    owners: Vec<Mutex<Option<Arc<Owner>>>>,
    counts: [AtomicUsize; COUNTED],
}

/// A transaction, as its thread has it.
struct Mine<'a> {
    arena: &'a Arena,
    owner: Arc<Owner>,
    parker: &'a Parker,
    dice: &'a mut Dice,
    sub: u32,
    runs: Vec<(RunId, Arc<FakeRun>)>,
}

fn binds(owner: &Owner) -> bool {
    matches!(owner.state(), OwnerState::Active | OwnerState::Committing)
}

fn row(key: u8) -> RowKey {
    RowKey::new(TABLE, &[key])
}

impl Arena {
    fn new(threads: usize, keys: u8, spills: bool) -> Self {
        Self {
            locks: LockTable::new(5),
            table: Arc::new(TableLock::new(TABLE)),
            keys,
            spills,
            ledger: Mutex::default(),
            next: AtomicU64::new(1),
            lsn: AtomicU64::new(1),
            owners: (0..threads).map(|_| Mutex::default()).collect(),
            counts: Default::default(),
        }
    }

    fn count(&self, what: Counted, number: usize) {
        self.counts[what as usize].fetch_add(number, Ordering::Relaxed);
    }

    fn transaction(&self, at: usize, dice: &mut Dice, parker: &Arc<Parker>, wide: bool) {
        let id = TxnId::new(1, self.next.fetch_add(1, Ordering::Relaxed));
        let notify: Arc<dyn Notify> = parker.clone();
        let owner = self.locks.begin(id, None, notify);
        owner.settle(Priority::normal(dice.below(3) as u32).settle(0, false));
        *self.owners[at].lock().unwrap() = Some(Arc::clone(&owner));
        let mut mine = Mine {
            arena: self,
            owner,
            parker,
            dice,
            sub: 0,
            runs: Vec::new(),
        };
        for _ in 0..mine.dice.below(8) {
            mine.pause();
            if !mine.step(wide) {
                break;
            }
            mine.check();
        }
        mine.end();
    }

    /// Lists, and holds what it sees to what may be.
    fn list(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let (mut place, mut all) = (ListPlace::default(), self.locks.list());
            while let Some(stretch) = self.locks.list_on(&mut place) {
                all.extend(stretch);
                // Each stretch, and the whole before, is a list of its own.
                let stretch = std::mem::take(&mut all);
                if !self.spills {
                    check_list(&stretch);
                }
            }
            for wait in self.locks.waits() {
                let own = wait.waits_for.iter().any(|other| other.txn == wait.txn);
                assert!(!own, "L2: {wait:?}");
            }
            self.locks.live_locks();
            self.count(Counted::Lists, 1);
            thread::yield_now();
        }
    }

    fn sweep(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.count(Counted::Swept, self.locks.sweep(50));
            thread::yield_now();
        }
    }
}

fn check_list(list: &[LockEntry]) {
    let held = |entry: &&LockEntry| entry.status == LockStatus::Granted;
    let rows = list
        .iter()
        .filter(held)
        .filter(|entry| matches!(entry.target, Target::Row(_)));
    let rows: Vec<_> = rows.collect();
    for same in rows.chunk_by(|a, b| a.target == b.target) {
        for (at, a) in same.iter().enumerate() {
            let clash = same[..at]
                .iter()
                .find(|b| a.txn != b.txn && conflict(a.mode, b.mode));
            assert!(clash.is_none(), "L1: {a:?} {clash:?}");
        }
    }
}

impl Mine<'_> {
    fn pause(&mut self) {
        for _ in 0..self.dice.below(3) {
            thread::yield_now();
        }
    }

    /// Both were told that they hold: if both still bind, that is a violation.
    fn note(&self, what: What, grant: Grant) {
        let lsn = self.arena.lsn.fetch_add(1, Ordering::Relaxed);
        let token = grant.strengthened.then(|| FencingToken::new(Lsn::new(lsn)));
        self.enter(what, token);
        let locks = &self.arena.locks;
        match (what, token) {
            (What::Row(..), Some(token)) => locks.stamp(&self.owner, grant.place, token),
            (What::Range(..), Some(token)) => locks.stamp_range(&self.owner, token),
            (What::Table(_), Some(token)) => locks.stamp_table(&self.owner, TABLE, token),
            (_, None) => {}
        }
    }

    fn enter(&self, what: What, token: Option<FencingToken>) {
        let mut ledger = self.arena.ledger.lock().unwrap();
        for told in ledger.iter() {
            let clash = !Arc::ptr_eq(&told.owner, &self.owner) && what.conflicts_with(told.what);
            let clash = clash && binds(&told.owner) && binds(&self.owner);
            let list = || self.arena.locks.list();
            assert!(
                !clash,
                "L1: {:?} has {what:?}, and {told:?}: {:#?}",
                self.owner,
                list()
            );
        }
        ledger.push(Told {
            owner: Arc::clone(&self.owner),
            what,
            sub: self.sub,
            token,
        });
    }

    fn forget(&self, gone: impl Fn(&Told) -> bool) {
        let mut ledger = self.arena.ledger.lock().unwrap();
        ledger.retain(|told| !Arc::ptr_eq(&told.owner, &self.owner) || !gone(told));
    }

    /// The table says of each row what was told, while the transaction goes on.
    fn check(&self) {
        let ledger = self.arena.ledger.lock().unwrap();
        let own = ledger
            .iter()
            .filter(|told| Arc::ptr_eq(&told.owner, &self.owner));
        let own: Vec<Told> = own.cloned().collect();
        drop(ledger);
        for key in 0..self.arena.keys {
            let here = |told: &&Told| {
                told.what
                    .keys()
                    .is_some_and(|(keys, ..)| keys.contains(&key))
            };
            let around = own.iter().filter(here);
            let mode = around
                .clone()
                .filter_map(|told| told.what.keys())
                .map(|(_, mode, _)| mode)
                .max();
            let is_range = around
                .clone()
                .any(|told| matches!(told.what, What::Range(..)));
            let token = around.filter_map(|told| told.token).next_back();
            let found = self.arena.locks.holds(&self.owner, &row(key));
            let stamped = self.arena.locks.token(&self.owner, &row(key));
            if self.owner.is_active() {
                assert_eq!(found, mode, "K4, L9: {:?} {key} {own:?}", self.owner);
                assert!(
                    // K2: a grant that knew nothing of what was spilled was told a token too many.
                    is_range || stamped == token || !self.runs.is_empty(),
                    "L9: {stamped:?} at {key} {own:?}"
                );
            }
        }
    }

    /// Whether the transaction goes on.
    fn step(&mut self, wide: bool) -> bool {
        match self.dice.below(14) {
            0 => {
                self.sub += 1;
                true
            }
            1 => {
                let to = self.dice.below(u64::from(self.sub) + 1) as u32;
                self.forget(|told| told.sub >= to && !matches!(told.what, What::Table(_)));
                let mut wakes = Wakes::new();
                self.arena.locks.rollback_to(&self.owner, to, &mut wakes);
                self.sub += 1;
                true
            }
            2 if self.dice.below(4) == 0 => {
                let other = self.dice.below(self.arena.owners.len() as u64) as usize;
                let other = self.arena.owners[other].lock().unwrap().clone();
                if let Some(other) = other {
                    let cause = AbortCause::Closed;
                    self.arena.locks.kill(&other, cause, &mut Wakes::new());
                }
                true
            }
            3 if self.dice.below(3) == 0 => self.batch(),
            4 if self.arena.spills && self.dice.below(2) == 0 => {
                self.spill();
                true
            }
            _ => {
                let what = self.what(wide);
                let policy = match self.dice.below(12) {
                    0 => Policy::NoWait,
                    1 | 2 => Policy::Wound,
                    _ => Policy::Wait,
                };
                self.lock(what, policy)
            }
        }
    }

    /// V1, V3: nobody may notice.
    fn spill(&mut self) {
        let (locks, owner) = (&self.arena.locks, &self.owner);
        self.arena.count(Counted::Spilled, 1);
        self.runs.extend(spill(locks, owner));
        if self.runs.len() > 2 {
            let run = merged(self.runs.iter().map(|(_, run)| run));
            let replaces: Vec<RunId> = self.runs.iter().map(|(id, _)| *id).collect();
            let id = publish(locks, owner, &run, &replaces);
            self.runs = id.map(|id| (id, run)).into_iter().collect();
        }
    }

    fn what(&mut self, wide: bool) -> What {
        let keys = u64::from(self.arena.keys);
        let mode = LockMode::ALL[self.dice.below(4) as usize];
        let key = self.dice.below(keys) as u8;
        match self.dice.below(20) {
            0 if wide => What::EXCLUSIVE,
            1..6 if wide => What::Range(key, key + 1 + self.dice.below(keys) as u8, mode),
            6..10 => What::put(key),
            _ => What::Row(key, mode, false),
        }
    }

    /// `None`: the table is to be shared first.
    fn ask(&self, what: What, policy: Policy) -> Option<Decision> {
        let (locks, table) = (&self.arena.locks, &self.arena.table);
        Asking { locks, table }.ask_within(&self.owner, what, self.sub, policy)
    }

    fn lock(&mut self, what: What, policy: Policy) -> bool {
        match self.ask(what, policy) {
            None => self.lock(What::SHARED, policy),
            Some(Decision::Queued(ticket)) => {
                assert!(policy != Policy::NoWait, "K1: {what:?} is not waited for");
                self.wait(what, &ticket, policy == Policy::Wound)
            }
            Some(decision) => self.decided(what, decision),
        }
    }

    fn decided(&mut self, what: What, decision: Decision) -> bool {
        match decision {
            Decision::Granted(grant) => self.note(what, grant),
            Decision::Refused(Refusal::WouldBlock(_)) => {}
            Decision::Refused(Refusal::Conflict(_)) => self.arena.count(Counted::Dead, 1),
            Decision::Refused(refusal) => {
                assert!(!self.owner.is_active(), "{refusal:?}");
                return false;
            }
            Decision::Queued(ticket) => return self.wait(what, &ticket, true),
        }
        true
    }

    /// Waits for the end, gives up, or wounds after a while.
    fn wait(&mut self, what: What, ticket: &Arc<Ticket>, has_wounded: bool) -> bool {
        let (locks, owner) = (&self.arena.locks, Arc::clone(&self.owner));
        self.arena.count(Counted::Waits, 1);
        let mut wounds = has_wounded;
        match self.dice.below(12) {
            0 => {
                self.arena.count(Counted::Cancels, 1);
                let outcome = locks.cancel(&owner, ticket, &mut Wakes::new());
                return self.waited(what, outcome);
            }
            // There is no unlocking a table.
            1 if !matches!(what, What::Table(_)) => {
                locks.abandon(&owner, ticket, &mut Wakes::new());
                return owner.is_active();
            }
            2 if !wounds => {
                self.pause();
                match self.wound(ticket) {
                    Decision::Queued(_) => wounds = true,
                    decision => return self.decided(what, decision),
                }
            }
            _ => {}
        }
        loop {
            if let Some(outcome) = locks.outcome(&owner, ticket) {
                return self.waited(what, outcome);
            }
            let woken = self.parker.park();
            assert!(
                woken,
                "L6: {owner:?} sleeps: {:#?} {:#?}",
                locks.list(),
                locks.waits()
            );
            if wounds && ticket.is_waiting() {
                match self.wound(ticket) {
                    Decision::Queued(_) => {}
                    decision => return self.decided(what, decision),
                }
            }
        }
    }

    fn wound(&self, ticket: &Arc<Ticket>) -> Decision {
        let mut wakes = Wakes::new();
        self.arena.locks.wound(&self.owner, ticket, &mut wakes)
    }

    fn waited(&mut self, what: What, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Granted(grant) => self.note(what, grant),
            Outcome::Cancelled => {}
            Outcome::Ended => return false,
        }
        true
    }

    /// Rows of the others, and now and then many of its own: more than its release pass takes away.
    fn batch(&mut self) -> bool {
        let (locks, owner) = (&self.arena.locks, Arc::clone(&self.owner));
        if !locks.share(&owner, &self.arena.table) {
            return self.lock(What::SHARED, Policy::Wait);
        }
        self.arena.count(Counted::Batches, 1);
        self.sub += 1;
        let mode = LockMode::ALL[self.dice.below(4) as usize];
        let mut keys: Vec<u8> = (0..self.arena.keys).collect();
        keys.retain(|_| self.dice.below(2) == 0);
        let mut rows: Vec<RowKey> = keys.iter().map(|key| row(*key)).collect();
        if self.dice.below(8) == 0 {
            let own = |n: u64| {
                RowKey::new(
                    PRIVATE,
                    &[owner.id().sequence, n].map(u64::to_be_bytes).concat(),
                )
            };
            rows.extend((0..1_500).map(own));
        }
        let mut batch = locks.batch(rows.iter().map(RowKey::as_bytes), |at| rows[at].clone());
        let terms = Terms::new(mode, self.sub, Policy::Wait);
        loop {
            // Whom it names is woken before this one sleeps.
            let decision = locks.request_batch(&owner, &mut batch, terms, &mut Wakes::new());
            let Some(decision) = decision else { break };
            let ticket = match decision {
                Decision::Queued(ticket) => ticket,
                Decision::Granted(grant) => {
                    batch.granted(grant);
                    continue;
                }
                Decision::Refused(refusal) => {
                    assert!(!owner.is_active(), "{refusal:?}");
                    return false;
                }
            };
            loop {
                match locks.outcome(&owner, &ticket) {
                    Some(Outcome::Granted(grant)) => break batch.granted(grant),
                    Some(_) => return false,
                    None => assert!(
                        self.parker.park(),
                        "L6: {owner:?} sleeps: {:#?}",
                        locks.waits()
                    ),
                }
            }
        }
        let lsn = self.arena.lsn.fetch_add(1, Ordering::Relaxed);
        let token = FencingToken::new(Lsn::new(lsn));
        locks.stamp_batch(&owner, self.sub, token);
        for (at, key) in keys.into_iter().enumerate() {
            let is_new = batch.grant(at).unwrap().strengthened;
            self.enter(What::Row(key, mode, false), is_new.then_some(token));
        }
        self.sub += 1;
        true
    }

    fn end(mut self) {
        let (locks, owner) = (&self.arena.locks, Arc::clone(&self.owner));
        if self.dice.below(8) > 0 && owner.try_commit() {
            // It binds still, and nobody can abort it.
            self.pause();
            assert!(!locks.kill(&owner, AbortCause::Closed, &mut Wakes::new()));
            self.forget(|_| true);
            owner.released();
            locks.end(&owner, &mut Wakes::new());
            return self.arena.count(Counted::Commits, 1);
        }
        self.forget(|_| true);
        locks.kill(&owner, AbortCause::Requested, &mut Wakes::new());
        match owner.cause() {
            Some(AbortCause::Deadlock(_)) => self.arena.count(Counted::Deadlocks, 1),
            Some(AbortCause::Wounded { .. }) => self.arena.count(Counted::Wounded, 1),
            _ => {}
        }
    }
}

/// `kinds`: ranges and tables too; and whether what is held is spilled now and then.
fn fight(threads: usize, keys: u8, transactions: usize, kinds: (bool, bool)) {
    let seeds = std::env::var("LOCKSTONE_LOCK_SEEDS").ok();
    let seeds: u64 = seeds.map_or(1, |seeds| seeds.parse().expect("a number"));
    (0..seeds).for_each(|seed| fight_once(seed, (threads, keys), transactions, kinds));
}

fn fight_once(
    seed: u64,
    (threads, keys): (usize, u8),
    transactions: usize,
    (wide, spills): (bool, bool),
) {
    let arena = Arena::new(threads, keys, spills);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| arena.list(&over));
        scope.spawn(|| arena.sweep(&over));
        let fight = |at: usize| {
            let mut dice = Dice(0x9E37_79B9 + seed * 104_729 + at as u64 * 7919);
            let parker = Arc::new(Parker::default());
            for _ in 0..transactions {
                arena.transaction(at, &mut dice, &parker, wide);
            }
        };
        let all: Vec<_> = (0..threads)
            .map(|at| scope.spawn(move || fight(at)))
            .collect();
        let ends: Vec<_> = all
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        for end in ends {
            end.unwrap();
        }
    });
    assert_eq!(arena.locks.list(), [], "nothing is left");
    assert_eq!(arena.locks.live_locks(), 0);
    arena.locks.sweep(usize::MAX);
    assert_eq!(arena.locks.entries(), 0, "K5: nothing is left over");
    let counts = arena
        .counts
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    println!(
        "commits, deadlocks, cancels, waits, wounded, dead, batches, lists, spilled, swept: {counts:?}"
    );
    let none = counts.iter().filter(|count| **count == 0).count();
    assert_eq!(none, usize::from(!spills), "{counts:?}");
}

#[test]
fn four_threads_on_three_rows_end() {
    fight(4, 3, 8_000, (false, false));
}

#[test]
fn sixteen_threads_on_eight_rows_end() {
    fight(16, 8, 1_000, (false, false));
    fight(16, 8, 1_000, (false, true));
}

#[test]
fn rows_ranges_and_tables_among_threads_end() {
    fight(4, 4, 3_000, (true, false));
    fight(4, 4, 3_000, (true, true));
    fight(12, 20, 1_000, (true, true));
}

/// K7, L7: one fills its set and looks at the flag, the other raises the flag and looks at the sets; there is no latch between
/// them. That the first does so in this order is beyond what threads show: its two steps are a few nanoseconds apart.
#[test]
fn who_shares_a_table_never_meets_who_has_it_alone() {
    const ROUNDS: u64 = 60_000;
    let arena = Arena::new(0, 0, false);
    let begin = |parker: &Arc<Parker>| {
        let id = TxnId::new(1, arena.next.fetch_add(1, Ordering::Relaxed));
        let owner = arena.locks.begin(id, None, parker.clone());
        owner.settle(Priority::normal(0).settle(0, false));
        owner
    };
    let end = |owner: &Arc<Owner>| {
        assert!(owner.try_commit());
        owner.released();
        arena.locks.end(owner, &mut Wakes::new());
    };
    let (sharing, met, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let parker = Arc::new(Parker::default());
                while !over.load(Ordering::Relaxed) {
                    let owner = begin(&parker);
                    if arena.locks.share(&owner, &arena.table) {
                        sharing.fetch_add(1, Ordering::SeqCst);
                        met.fetch_add(1, Ordering::Relaxed);
                        sharing.fetch_sub(1, Ordering::SeqCst);
                    }
                    end(&owner);
                }
            });
        }
        let (parker, mut others) = (Arc::new(Parker::default()), 0);
        for _ in 0..ROUNDS {
            let owner = begin(&parker);
            let exclusive = (&arena.table, lockstone_locks::TableMode::Exclusive);
            let mut wakes = Wakes::new();
            let decision = arena
                .locks
                .request_table(&owner, exclusive, Policy::Wait, &mut wakes);
            drop(wakes);
            if let Decision::Queued(ticket) = decision {
                while arena.locks.outcome(&owner, &ticket).is_none() {
                    assert!(parker.park(), "L6: {:#?}", arena.locks.waits());
                }
            }
            for _ in 0..20 {
                others += sharing.load(Ordering::SeqCst);
            }
            end(&owner);
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(others, 0, "K7: it was not alone");
    });
    assert!(met.load(Ordering::Relaxed) > ROUNDS / 100, "{met:?}");
}
