//! Rows, ranges and tables: every pair of modes and kinds against the written matrix, under every policy.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

mod asking;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use asking::Asking;
use lockstone_base::{LockMode, Priority, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, LockTable, Notify, Outcome, Owner, Policy, Refusal, TableLock, Wakes,
};
use written::{Parker, What};

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

    fn ask(&self, owner: &Arc<Owner>, what: What, policy: Policy) -> Option<Decision> {
        let (locks, table) = (&self.locks, &self.table);
        Asking { locks, table }.ask_within(owner, what, 0, policy)
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
        let first = stage.ask(&holder, self.held, Policy::NoWait);
        assert!(
            matches!(first, Some(Decision::Granted(_))),
            "{:?}",
            self.held
        );
        assert!(!self.committing || holder.try_commit());
        let policy = match self.how {
            How::Wait | How::WoundAfter => Policy::Wait,
            How::NoWait => Policy::NoWait,
            How::Wound => Policy::Wound,
        };
        let decision = stage.ask(&asks, self.asked, policy);
        let mut decision = decision.unwrap_or_else(|| {
            assert_eq!(self.held, What::EXCLUSIVE, "only that bars sharers");
            stage.ask(&asks, What::SHARED, policy).unwrap()
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
