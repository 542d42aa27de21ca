//! Real threads that park, upgrade, deadlock, time out, roll back and kill each other.
//!
//! 1. L1: no two transactions that bind hold conflicting modes, by a ledger kept beside the table.
//! 2. L6: nobody sleeps for good: a sleeper that nobody wakes within seconds fails the test.
//! 3. At the end nothing is held.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

mod written;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lockstone_base::{LockMode, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, LockTable, Notify, Outcome, Owner, OwnerState, Policy, Refusal, Request,
    Ticket, Wakes,
};
use written::{Dice, Parker, conflict};

/// Who holds a row, by what its threads were told.
type Ledger = Vec<Mutex<Vec<(Arc<Owner>, LockMode)>>>;

struct Arena {
    table: LockTable,
    ledger: Ledger,
    next: AtomicU64,
    /// What other threads may kill.
    stage: Vec<Mutex<Option<Arc<Owner>>>>,
    commits: AtomicUsize,
    deadlocks: AtomicUsize,
    cancels: AtomicUsize,
}

fn binds(owner: &Owner) -> bool {
    matches!(owner.state(), OwnerState::Active | OwnerState::Committing)
}

impl Arena {
    fn new(threads: usize, rows: usize) -> Self {
        Self {
            table: LockTable::new(5),
            ledger: (0..rows).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(1),
            stage: (0..threads).map(|_| Mutex::default()).collect(),
            commits: AtomicUsize::new(0),
            deadlocks: AtomicUsize::new(0),
            cancels: AtomicUsize::new(0),
        }
    }

    /// Enters a grant. Both were told that they hold: if both still bind, that is a violation.
    fn note_grant(&self, owner: &Arc<Owner>, row: usize, mode: LockMode) {
        let mut holders = self.ledger[row].lock().unwrap();
        for (other, held) in holders.iter() {
            let clash = !Arc::ptr_eq(other, owner) && conflict(mode, *held);
            let clash = clash && binds(other) && binds(owner);
            assert!(!clash, "L1: {owner:?} has {mode}, {other:?} has {held}");
        }
        holders.push((Arc::clone(owner), mode));
    }

    fn forget(&self, owner: &Arc<Owner>, from: &[usize]) {
        for row in from {
            let mut holders = self.ledger[*row].lock().unwrap();
            holders.retain(|(holder, _)| !Arc::ptr_eq(holder, owner));
        }
    }

    fn transaction(&self, at: usize, dice: &mut Dice, parker: &Arc<Parker>) {
        let id = TxnId::new(1, self.next.fetch_add(1, Ordering::Relaxed));
        let notify: Arc<dyn Notify> = parker.clone();
        let owner = self.table.begin(id, None, notify);
        owner.settle(Priority::normal(dice.below(2) as u32).settle(0, false));
        *self.stage[at].lock().unwrap() = Some(Arc::clone(&owner));
        let mut rows = Vec::new();
        let mut sub = 0;
        let mut below = 0;
        for _ in 0..dice.below(8) {
            if dice.below(2) == 0 {
                thread::yield_now();
            }
            match dice.below(12) {
                0 => {
                    sub += 1;
                    below = rows.len();
                }
                1 if sub > 0 => {
                    let undone = rows.split_off(below);
                    self.forget(&owner, &undone);
                    let mut wakes = Wakes::new();
                    self.table.rollback_to(&owner, sub, &mut wakes);
                    sub += 1;
                    below = rows.len();
                }
                2 => self.kill_somebody(dice),
                _ => {
                    let row = dice.below(self.ledger.len() as u64) as usize;
                    // Below a savepoint only other rows, so that a rollback frees them whole.
                    if !rows.contains(&row) || below == 0 {
                        if !self.lock(&owner, row, sub, dice, parker) {
                            break;
                        }
                        rows.push(row);
                    }
                }
            }
        }
        if dice.below(8) > 0 && owner.try_commit() {
            self.forget(&owner, &rows);
            owner.released();
            self.table.end(&owner, &mut Wakes::new());
            self.commits.fetch_add(1, Ordering::Relaxed);
        } else {
            self.forget(&owner, &rows);
            self.table
                .kill(&owner, AbortCause::Requested, &mut Wakes::new());
        }
    }

    fn kill_somebody(&self, dice: &mut Dice) {
        if dice.below(4) == 0 {
            let at = dice.below(self.stage.len() as u64) as usize;
            let other = self.stage[at].lock().unwrap().clone();
            if let Some(other) = other {
                self.table
                    .kill(&other, AbortCause::Closed, &mut Wakes::new());
            }
        }
    }

    /// Whether the transaction goes on.
    fn lock(
        &self,
        owner: &Arc<Owner>,
        row: usize,
        sub: u32,
        dice: &mut Dice,
        parker: &Parker,
    ) -> bool {
        let key = RowKey::new(TableId(1), &[row as u8]);
        let mode = LockMode::ALL[dice.below(4) as usize];
        let nowait = dice.below(10) == 0;
        let request = Request {
            row: &key,
            mode,
            writes: false,
            sub,
            policy: if nowait { Policy::NoWait } else { Policy::Wait },
        };
        let mut wakes = Wakes::new();
        let decision = self.table.request(owner, request, &mut wakes);
        drop(wakes);
        match decision {
            Decision::Granted(grant) => self.note_grant(owner, row, grant.mode),
            Decision::Refused(Refusal::WouldBlock(_)) => {
                assert!(nowait);
                return true;
            }
            Decision::Refused(refusal) => {
                if matches!(refusal, Refusal::Deadlock(_)) {
                    self.deadlocks.fetch_add(1, Ordering::Relaxed);
                }
                assert!(!owner.is_active());
                return false;
            }
            Decision::Queued(ticket) => return self.wait(owner, row, &ticket, dice, parker),
        }
        true
    }

    fn wait(
        &self,
        owner: &Arc<Owner>,
        row: usize,
        ticket: &Arc<Ticket>,
        dice: &mut Dice,
        parker: &Parker,
    ) -> bool {
        let outcome = if dice.below(6) == 0 {
            self.cancels.fetch_add(1, Ordering::Relaxed);
            self.table.cancel(owner, ticket, &mut Wakes::new())
        } else {
            loop {
                if let Some(outcome) = self.table.outcome(owner, ticket) {
                    break outcome;
                }
                let woken = parker.park();
                assert!(woken, "L6: {owner:?} sleeps: {:#?}", self.table.list());
            }
        };
        match outcome {
            Outcome::Granted(grant) => self.note_grant(owner, row, grant.mode),
            Outcome::Cancelled => {}
            Outcome::Ended => {
                let deadlock = matches!(owner.cause(), Some(AbortCause::Deadlock(_)));
                self.deadlocks
                    .fetch_add(usize::from(deadlock), Ordering::Relaxed);
                return false;
            }
        }
        true
    }
}

fn fight(threads: usize, rows: usize, transactions: usize) {
    let arena = Arena::new(threads, rows);
    thread::scope(|scope| {
        for at in 0..threads {
            let arena = &arena;
            scope.spawn(move || {
                let mut dice = Dice(0x9E37_79B9 + at as u64 * 7919);
                let parker = Arc::new(Parker::default());
                for _ in 0..transactions {
                    arena.transaction(at, &mut dice, &parker);
                }
            });
        }
    });
    assert_eq!(arena.table.list(), [], "nothing is left");
    assert_eq!(arena.table.live_locks(), 0);
    let counts = [&arena.commits, &arena.deadlocks, &arena.cancels];
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    println!("commits, deadlocks, cancels: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn four_threads_on_three_rows_end() {
    fight(4, 3, 20_000);
}

#[test]
fn sixteen_threads_on_eight_rows_end() {
    fight(16, 8, 4_000);
}
