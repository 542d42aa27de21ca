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

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use lockstone_base::{LockMode, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, LockTable, Notify, Outcome, Owner, OwnerState, Policy, RangeRequest,
    Refusal, Request, RowRange, TableLock, TableMode, Ticket, Wakes, conflicts,
};

const TABLE: TableId = TableId(1);
const STUCK: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Parker {
    noticed: Mutex<bool>,
    changed: Condvar,
}

impl Notify for Parker {
    fn notify(&self) {
        *self.noticed.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Parker {
    /// Whether it was woken in time.
    fn park(&self) -> bool {
        let noticed = self.noticed.lock().unwrap();
        let asleep = |noticed: &mut bool| !*noticed;
        let waited = self.changed.wait_timeout_while(noticed, STUCK, asleep);
        let (mut noticed, waited) = waited.unwrap();
        *noticed = false;
        !waited.timed_out()
    }
}

/// What is locked, over keys of one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A row that is locked, or that is written.
    Row(u8, LockMode, bool),
    /// The keys from the first up to the second.
    Range(u8, u8, LockMode),
    Table(TableMode),
}

impl What {
    /// The keys, and the mode beside rows and beside ranges; a table has neither.
    fn keys(self) -> Option<(std::ops::Range<u8>, LockMode, LockMode, bool)> {
        match self {
            Self::Row(key, mode, writes) => {
                let beside = if writes { LockMode::Update } else { mode };
                Some((key..key + 1, mode, beside, false))
            }
            Self::Range(from, to, mode) => Some((from..to, mode, mode, true)),
            Self::Table(_) => None,
        }
    }

    /// As the documents say.
    fn conflicts_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Table(one), Self::Table(other)) => {
                one == TableMode::Exclusive || other == TableMode::Exclusive
            }
            // Whoever locks rows shares the table.
            (Self::Table(mode), _) | (_, Self::Table(mode)) => mode == TableMode::Exclusive,
            _ => {
                let (own, row, beside, is_range) = self.keys().unwrap();
                let (others, other_row, other_beside, other_is_range) = other.keys().unwrap();
                let meet = own.start < others.end && others.start < own.end;
                let modes = if is_range || other_is_range {
                    (beside, other_beside)
                } else {
                    (row, other_row)
                };
                meet && conflicts(modes.0, modes.1)
            }
        }
    }
}

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

    fn begin(&self, rank: u32, parker: &Arc<Parker>) -> Arc<Owner> {
        let id = TxnId::new(1, self.next.fetch_add(1, Ordering::Relaxed));
        let notify: Arc<dyn Notify> = parker.clone();
        let owner = self.locks.begin(id, None, notify);
        owner.settle(Priority::normal(rank).settle(0, false));
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

    fn abort(&self, owner: &Arc<Owner>) {
        self.locks
            .kill(owner, AbortCause::Requested, &mut Wakes::new());
    }
}

fn every_what() -> Vec<What> {
    let mut all = vec![
        What::Table(TableMode::Shared),
        What::Table(TableMode::Exclusive),
        What::Row(5, LockMode::NoKeyUpdate, true),
    ];
    for mode in LockMode::ALL {
        all.extend([
            What::Row(5, mode, false),
            What::Range(3, 8, mode),
            What::Range(6, 9, mode),
        ]);
    }
    all
}

#[test]
fn every_pair_of_modes_meets_the_matrix_beside_rows_and_ranges() {
    for held in every_what() {
        for asked in every_what() {
            let clash = asked.conflicts_with(held);
            for policy in [Policy::NoWait, Policy::Wait, Policy::Wound] {
                for rank in [0, 1, 2] {
                    let stage = Stage::new();
                    let parker = Arc::default();
                    let [holder, other] = [1, rank].map(|rank| stage.begin(rank, &parker));
                    let first = stage.ask(&holder, held, 0, Policy::NoWait);
                    assert!(matches!(first, Ok(Decision::Granted(_))), "{held:?}");
                    let is_alone = held == What::Table(TableMode::Exclusive);
                    let decision = stage.ask(&other, asked, 0, policy);
                    let Ok(decision) = decision else {
                        assert!(is_alone, "{asked:?} beside {held:?}");
                        continue;
                    };
                    let wins = policy == Policy::Wound && rank > 1;
                    match decision {
                        Decision::Granted(_) => assert!(!clash || wins),
                        Decision::Queued(_) => assert!(clash && policy == Policy::Wait),
                        Decision::Refused(Refusal::WouldBlock(by)) => {
                            assert!(clash && policy == Policy::NoWait && by.txn == holder.id());
                        }
                        Decision::Refused(Refusal::Conflict(by)) => {
                            assert!(clash && policy == Policy::Wound && !wins);
                            assert!(by.txn == holder.id() && other.is_active());
                        }
                        Decision::Refused(other) => panic!("{asked:?} beside {held:?}: {other:?}"),
                    }
                    assert_eq!(holder.is_active(), !(clash && wins), "{asked:?}, {held:?}");
                    stage.abort(&holder);
                    stage.abort(&other);
                    assert_eq!(stage.locks.list(), []);
                }
            }
        }
    }
}

/// xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn what(&mut self, keys: u8) -> What {
        let mode = LockMode::ALL[self.below(4) as usize];
        let key = self.below(u64::from(keys)) as u8;
        match self.below(20) {
            0 => What::Table(TableMode::Exclusive),
            1..6 => What::Range(key, key + 1 + self.below(u64::from(keys)) as u8, mode),
            6..10 => What::Row(key, LockMode::NoKeyUpdate, true),
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
        let owner = self.stage.begin(dice.below(2) as u32, parker);
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
            let shared = What::Table(TableMode::Shared);
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
