//! Ranges and tables: every pair of modes and kinds against the written matrix, under every policy; and real threads that lock
//! points, ranges and tables beside each other.
//!
//! 1. L1: no two transactions that bind hold what conflicts, by a ledger kept beside the table.
//! 2. L6: nobody sleeps for good.
//! 3. At the end nothing is held.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

mod written;

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lockstone_base::{LockMode, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, LockTable, Notify, Outcome, Owner, OwnerState, Policy, RangeRequest,
    Refusal, Request, RowRange, TableLock, Ticket, Wakes,
};
use written::{Dice, Parker, What};

const TABLE: TableId = TableId(1);

struct Stage {
    locks: LockTable,
    table: Arc<TableLock>,
    next: AtomicU64,
}

impl Stage {
    fn new() -> Self {
        Self {
            locks: LockTable::new(9),
            table: Arc::new(TableLock::new(TABLE)),
            next: AtomicU64::new(1),
        }
    }

    fn begin(&self, priority: Priority, draw: u32, parker: &Arc<Parker>) -> Arc<Owner> {
        let id = TxnId::new(1, self.next.fetch_add(1, Ordering::Relaxed));
        let notify: Arc<dyn Notify> = parker.clone();
        let owner = self.locks.begin(id, None, notify);
        owner.settle(priority.settle(draw, false));
        owner
    }

    /// `Err`: the table is to be shared first.
    fn ask(
        &self,
        owner: &Arc<Owner>,
        what: What,
        sub: u32,
        policy: Policy,
    ) -> Result<Decision, ()> {
        let wakes = &mut Wakes::new();
        if !matches!(what, What::Table(_)) && !self.locks.share(owner, &self.table) {
            return Err(());
        }
        let row = |key: u8| RowKey::new(TABLE, &[key]);
        Ok(match what {
            What::Row(key, mode, writes) => {
                let request = Request {
                    row: &row(key),
                    mode,
                    writes,
                    sub,
                    policy,
                };
                self.locks.request(owner, request, wakes)
            }
            What::Range(from, to, mode) => {
                let (start, end) = (Bound::Included(row(from)), Bound::Excluded(row(to)));
                let request = RangeRequest {
                    range: &Arc::new(RowRange::new(TABLE, start, end)),
                    mode,
                    sub,
                    policy,
                };
                self.locks.request_range(owner, request, wakes)
            }
            What::Table(mode) => {
                let table = (&self.table, mode);
                self.locks.request_table(owner, table, policy, wakes)
            }
        })
    }

    fn abort(&self, owner: &Arc<Owner>) -> bool {
        self.locks
            .kill(owner, AbortCause::Requested, &mut Wakes::new())
    }
}

fn every_what() -> Vec<What> {
    let mut all = vec![What::SHARED, What::EXCLUSIVE, What::put(5)];
    for mode in LockMode::ALL {
        all.extend([
            What::Row(5, mode, false),
            What::Range(3, 8, mode),
            What::Range(6, 9, mode),
        ]);
    }
    all
}

/// A policy as a caller has it: the last waits in line, and then judges from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Wait,
    NoWait,
    Wound,
    WoundAfter,
}

/// The holder's priority and draw, the requester's, and whether that one exceeds it.
const RANKS: [(Priority, u32, Priority, u32, bool); 9] = [
    (Priority::normal(1), 0, Priority::normal(0), 9, false),
    (Priority::normal(1), 0, Priority::normal(1), 9, false),
    (Priority::normal(1), 9, Priority::normal(2), 0, true),
    (Priority::high(0), 0, Priority::normal(u32::MAX), 9, false),
    (Priority::normal(u32::MAX), 9, Priority::high(0), 0, true),
    (Priority::high(3), 0, Priority::high(3), 9, false),
    (Priority::high(3), 9, Priority::high(4), 0, true),
    (Priority::auto(), 5, Priority::auto(), 5, false),
    (Priority::auto(), 5, Priority::auto(), 6, true),
];

/// One cell of the table: a holder, maybe one that is committing, and a request beside it.
struct Cell {
    held: What,
    asked: What,
    how: How,
    committing: bool,
}

impl Cell {
    fn play(&self, (priority, draw, own, own_draw, exceeds): (Priority, u32, Priority, u32, bool)) {
        let (stage, parker) = (Stage::new(), Arc::default());
        let holder = stage.begin(priority, draw, &parker);
        let asks = stage.begin(own, own_draw, &parker);
        let first = stage.ask(&holder, self.held, 0, Policy::NoWait);
        assert!(matches!(first, Ok(Decision::Granted(_))), "{:?}", self.held);
        assert!(!self.committing || holder.try_commit());
        let policy = match self.how {
            How::Wait | How::WoundAfter => Policy::Wait,
            How::NoWait => Policy::NoWait,
            How::Wound => Policy::Wound,
        };
        let decision = stage.ask(&asks, self.asked, 0, policy);
        let mut decision = decision.unwrap_or_else(|()| {
            assert_eq!(self.held, What::EXCLUSIVE, "only that bars sharers");
            stage.ask(&asks, What::SHARED, 0, policy).unwrap()
        });
        if self.how == How::WoundAfter
            && let Decision::Queued(ticket) = decision
        {
            decision = stage.locks.wound(&asks, &ticket, &mut Wakes::new());
        }
        self.judge(&stage, decision, [&holder, &asks], exceeds);
        assert!(self.committing || !holder.is_active() || stage.abort(&holder));
        assert!(stage.abort(&asks));
        assert_eq!(stage.locks.list(), []);
    }

    /// The written word: no conflict, no policy; else the policy decides, and priorities only where somebody wounds.
    fn judge(
        &self,
        stage: &Stage,
        decision: Decision,
        [holder, asks]: [&Arc<Owner>; 2],
        exceeds: bool,
    ) {
        let Self {
            held,
            asked,
            how,
            committing,
        } = self;
        let what =
            format!("{asked:?} {how:?} beside {held:?}, committing: {committing}: {decision:?}");
        let clash = asked.conflicts_with(*held);
        let wounds = matches!(how, How::Wound | How::WoundAfter) && !committing;
        assert!(asks.is_active(), "{what}");
        let is_wounded = clash && wounds && exceeds;
        let by = is_wounded.then_some(AbortCause::Wounded { by: asks.id() });
        assert_eq!(holder.cause(), by, "{what}");
        match decision {
            Decision::Granted(_) => assert!(!clash || is_wounded, "{what}"),
            Decision::Refused(Refusal::WouldBlock(by)) => {
                assert!(
                    clash && *how == How::NoWait && by.txn == holder.id(),
                    "{what}"
                );
            }
            Decision::Refused(Refusal::Conflict(by)) => {
                assert!(
                    clash && wounds && !exceeds && by.txn == holder.id(),
                    "{what}"
                );
            }
            Decision::Queued(ticket) => {
                assert!(clash && *how != How::NoWait && !wounds, "{what}");
                if *committing {
                    holder.released();
                    stage.locks.end(holder, &mut Wakes::new());
                } else {
                    assert!(stage.abort(holder));
                }
                let outcome = stage.locks.outcome(asks, &ticket);
                assert!(
                    matches!(outcome, Some(Outcome::Granted(_))),
                    "{what}: {outcome:?}"
                );
                return;
            }
            Decision::Refused(_) => panic!("{what}"),
        }
        if *committing {
            holder.released();
            stage.locks.end(holder, &mut Wakes::new());
        }
    }
}

/// Rows, ranges and tables in every mode beside each other, under every policy and pair of priorities, the holder active or
/// committing: nobody is granted, wounded, refused or left waiting but as written.
#[test]
fn every_pair_of_modes_meets_the_matrix_beside_rows_and_ranges() {
    let mut cells = 0;
    for held in every_what() {
        for asked in every_what() {
            for how in [How::Wait, How::NoWait, How::Wound, How::WoundAfter] {
                for committing in [false, true] {
                    let cell = Cell {
                        held,
                        asked,
                        how,
                        committing,
                    };
                    for ranks in RANKS {
                        cell.play(ranks);
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cells, 15 * 15 * 4 * 2 * RANKS.len());
}

impl Dice {
    fn what(&mut self, keys: u8) -> What {
        let mode = LockMode::ALL[self.below(4) as usize];
        let key = self.below(u64::from(keys)) as u8;
        match self.below(20) {
            0 => What::EXCLUSIVE,
            1..6 => What::Range(key, key + 1 + self.below(u64::from(keys)) as u8, mode),
            6..10 => What::put(key),
            _ => What::Row(key, mode, false),
        }
    }
}

struct Arena {
    stage: Stage,
    ledger: Mutex<Vec<(Arc<Owner>, What)>>,
    /// What other threads may kill.
    owners: Vec<Mutex<Option<Arc<Owner>>>>,
    /// Commits, deadlocks, cancels, waits.
    counts: [AtomicUsize; 4],
}

fn binds(owner: &Owner) -> bool {
    matches!(owner.state(), OwnerState::Active | OwnerState::Committing)
}

impl Arena {
    fn count(&self, what: usize) {
        self.counts[what].fetch_add(1, Ordering::Relaxed);
    }

    /// Both were told that they hold: if both still bind, that is a violation.
    fn note_grant(&self, owner: &Arc<Owner>, what: What) {
        let mut ledger = self.ledger.lock().unwrap();
        for (other, held) in ledger.iter() {
            let clash = !Arc::ptr_eq(other, owner) && what.conflicts_with(*held);
            let clash = clash && binds(other) && binds(owner);
            assert!(
                !clash,
                "L1: {owner:?} has {what:?}, {other:?} has {held:?}: {:#?}",
                self.stage.locks.list()
            );
        }
        ledger.push((Arc::clone(owner), what));
    }

    fn forget(&self, owner: &Arc<Owner>, gone: impl Fn(&What) -> bool) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.retain(|(other, what)| !Arc::ptr_eq(other, owner) || !gone(what));
    }

    fn transaction(&self, at: usize, keys: u8, dice: &mut Dice, parker: &Arc<Parker>) {
        let locks = &self.stage.locks;
        let owner = self
            .stage
            .begin(Priority::normal(dice.below(2) as u32), 0, parker);
        *self.owners[at].lock().unwrap() = Some(Arc::clone(&owner));
        let mut sub = 0;
        for _ in 0..dice.below(7) {
            if dice.below(2) == 0 {
                thread::yield_now();
            }
            match dice.below(12) {
                0 => {
                    // Everything but tables is given back.
                    self.forget(&owner, |what| !matches!(what, What::Table(_)));
                    locks.rollback_to(&owner, 0, &mut Wakes::new());
                    sub += 1;
                }
                1 if dice.below(4) == 0 => {
                    let other = dice.below(self.owners.len() as u64) as usize;
                    let other = self.owners[other].lock().unwrap().clone();
                    if let Some(other) = other {
                        locks.kill(&other, AbortCause::Closed, &mut Wakes::new());
                    }
                }
                _ => {
                    let what = dice.what(keys);
                    if !self.lock(&owner, what, sub, (dice, parker)) {
                        break;
                    }
                }
            }
        }
        if dice.below(8) > 0 && owner.try_commit() {
            self.forget(&owner, |_| true);
            owner.released();
            locks.end(&owner, &mut Wakes::new());
            self.count(0);
        } else {
            self.forget(&owner, |_| true);
            self.stage.abort(&owner);
        }
    }

    /// Whether the transaction goes on.
    fn lock(
        &self,
        owner: &Arc<Owner>,
        what: What,
        sub: u32,
        (dice, parker): (&mut Dice, &Parker),
    ) -> bool {
        let policy = match dice.below(12) {
            0 => Policy::NoWait,
            1 => Policy::Wound,
            _ => Policy::Wait,
        };
        let Ok(decision) = self.stage.ask(owner, what, sub, policy) else {
            let shared = What::SHARED;
            return self.lock(owner, shared, sub, (dice, parker));
        };
        match decision {
            Decision::Granted(_) => self.note_grant(owner, what),
            Decision::Refused(Refusal::WouldBlock(_)) => assert_eq!(policy, Policy::NoWait),
            Decision::Refused(Refusal::Conflict(_)) => assert_eq!(policy, Policy::Wound),
            Decision::Refused(refusal) => {
                if matches!(refusal, Refusal::Deadlock(_)) {
                    self.count(1);
                }
                assert!(!owner.is_active(), "{refusal:?}");
                return false;
            }
            Decision::Queued(ticket) => return self.wait(owner, what, &ticket, (dice, parker)),
        }
        true
    }

    fn wait(
        &self,
        owner: &Arc<Owner>,
        what: What,
        ticket: &Arc<Ticket>,
        (dice, parker): (&mut Dice, &Parker),
    ) -> bool {
        let locks = &self.stage.locks;
        self.count(3);
        let outcome = if dice.below(6) == 0 {
            self.count(2);
            locks.cancel(owner, ticket, &mut Wakes::new())
        } else {
            loop {
                if let Some(outcome) = locks.outcome(owner, ticket) {
                    break outcome;
                }
                let woken = parker.park();
                assert!(
                    woken,
                    "L6: {owner:?} sleeps: {:#?} {:#?}",
                    locks.list(),
                    locks.waits()
                );
            }
        };
        match outcome {
            Outcome::Granted(_) => self.note_grant(owner, what),
            Outcome::Cancelled => {}
            Outcome::Ended => {
                if matches!(owner.cause(), Some(AbortCause::Deadlock(_))) {
                    self.count(1);
                }
                return false;
            }
        }
        true
    }
}

fn fight(threads: usize, keys: u8, transactions: usize) {
    let arena = Arena {
        stage: Stage::new(),
        ledger: Mutex::default(),
        owners: (0..threads).map(|_| Mutex::default()).collect(),
        counts: Default::default(),
    };
    thread::scope(|scope| {
        for at in 0..threads {
            let arena = &arena;
            scope.spawn(move || {
                let mut dice = Dice(0x9E37_79B9 + at as u64 * 7919);
                let parker = Arc::new(Parker::default());
                for _ in 0..transactions {
                    arena.transaction(at, keys, &mut dice, &parker);
                }
            });
        }
    });
    assert_eq!(arena.stage.locks.list(), [], "nothing is left");
    let counts = arena.counts.each_ref();
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    println!("commits, deadlocks, cancels, waits: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn rows_ranges_and_tables_among_threads_end() {
    fight(4, 4, 8_000);
    fight(12, 20, 2_000);
}
