//! Who is in whose way, and what it costs to find out: in crowds, beside ranges and tables, and for what was never granted.
//!
//! 1. Costs are held to bounds that a loaded machine keeps and the quadratic does not.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected fails, and takes the time"
)]

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockstone_base::LockMode::{self, KeyShare, NoKeyUpdate, Share, Update};
use lockstone_base::{Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, LockTable, Notify, Outcome, Owner, Policy, RangeRequest, Refusal,
    Request, RowRange, TableLock, TableMode, Ticket, Wakes,
};

#[derive(Default)]
struct Bell(AtomicUsize);

impl Notify for Bell {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One table of rows and ranges, and another beside it.
struct Stage {
    locks: LockTable,
    table: Arc<TableLock>,
    next: AtomicU64,
}

const HERE: TableId = TableId(1);
const BESIDE: TableId = TableId(99);

impl Stage {
    fn new() -> Self {
        Self {
            locks: LockTable::new(7),
            table: Arc::new(TableLock::new(HERE)),
            next: AtomicU64::new(1),
        }
    }

    fn begin(&self, priority: Priority) -> (Arc<Owner>, Arc<Bell>) {
        let bell = Arc::new(Bell::default());
        let id = TxnId::new(1, self.next.fetch_add(1, Ordering::Relaxed));
        let owner = self.locks.begin(id, None, bell.clone());
        owner.settle(priority.settle(1, false));
        (owner, bell)
    }

    fn auto(&self) -> Arc<Owner> {
        self.begin(Priority::auto()).0
    }

    fn row_at(
        &self,
        owner: &Arc<Owner>,
        key: &[u8],
        (mode, sub): (LockMode, u32),
        policy: Policy,
    ) -> Decision {
        let request = Request {
            row: &RowKey::new(HERE, key),
            mode,
            writes: false,
            sub,
            policy,
        };
        self.locks.request(owner, request, &mut Wakes::new())
    }

    fn row(&self, owner: &Arc<Owner>, key: &[u8], mode: LockMode, policy: Policy) -> Decision {
        self.row_at(owner, key, (mode, 0), policy)
    }

    fn range_in(
        &self,
        owner: &Arc<Owner>,
        (table, from, to): (TableId, &[u8], &[u8]),
        (mode, sub): (LockMode, u32),
        policy: Policy,
    ) -> Decision {
        let start = Bound::Included(RowKey::new(table, from));
        let end = Bound::Excluded(RowKey::new(table, to));
        let request = RangeRequest {
            range: &Arc::new(RowRange::new(table, start, end)),
            mode,
            sub,
            policy,
        };
        self.locks.request_range(owner, request, &mut Wakes::new())
    }

    fn range(
        &self,
        owner: &Arc<Owner>,
        (from, to): (&[u8], &[u8]),
        mode: LockMode,
        policy: Policy,
    ) -> Decision {
        self.range_in(owner, (HERE, from, to), (mode, 0), policy)
    }

    fn table(&self, owner: &Arc<Owner>, mode: TableMode, policy: Policy) -> Decision {
        let asked = (&self.table, mode);
        self.locks
            .request_table(owner, asked, policy, &mut Wakes::new())
    }

    fn released(&self, owner: &Arc<Owner>) {
        owner.released();
        self.locks.end(owner, &mut Wakes::new());
    }

    fn commit(&self, owner: &Arc<Owner>) {
        assert!(owner.try_commit());
        self.released(owner);
    }

    fn abort(&self, owner: &Arc<Owner>) {
        let cause = AbortCause::Requested;
        assert!(self.locks.kill(owner, cause, &mut Wakes::new()));
    }

    fn cancel(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) {
        let outcome = self.locks.cancel(owner, ticket, &mut Wakes::new());
        assert_eq!(outcome, Outcome::Cancelled);
    }
}

fn granted(decision: Decision) {
    assert!(matches!(decision, Decision::Granted(_)), "{decision:?}");
}

fn queued(decision: Decision) -> Arc<Ticket> {
    match decision {
        Decision::Queued(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

fn would_block(decision: &Decision) -> bool {
    matches!(decision, Decision::Refused(Refusal::WouldBlock(_)))
}

fn dies(decision: &Decision) -> bool {
    matches!(decision, Decision::Refused(Refusal::Conflict(_)))
}

const ALL: (&[u8], &[u8]) = (&[0], &[255]);

/// One that waited and then lost counted itself back at those behind it, whom it had never overtaken: from nought to the
/// largest number there is, so nobody could overtake them any more.
#[test]
fn who_loses_where_it_has_waited_leaves_those_behind_as_they_were() {
    let stage = Stage::new();
    let (holder, _) = stage.begin(Priority::high(9));
    granted(stage.row(&holder, b"a", Update, Policy::Wait));
    let (loser, _) = stage.begin(Priority::normal(1));
    let lost = queued(stage.row(&loser, b"a", Update, Policy::Wait));
    let (behind, _) = stage.begin(Priority::normal(1));
    let waits = queued(stage.row(&behind, b"a", Update, Policy::Wait));
    let judged = stage.locks.wound(&loser, &lost, &mut Wakes::new());
    assert!(dies(&judged), "{judged:?}");
    stage.abort(&loser);
    let (high, _) = stage.begin(Priority::high(5));
    let first = queued(stage.row(&high, b"a", Update, Policy::Wait));
    stage.commit(&holder);
    assert!(first.is_granted() && waits.is_waiting());
}
