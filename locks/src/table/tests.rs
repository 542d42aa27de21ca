//! What only the inside can show: waits that nothing but the contended stack (K4) ends.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lockstone_base::{Priority, TableId};

use super::*;
use crate::deadlock::{self, Flipped, Resolution};
use crate::decision::RangeRequest;
use crate::policy::Policy;
use crate::range_look::Looking;
use crate::ranges::Asked;
use crate::target::RowRange;
use crate::ticket::WideWant;

#[derive(Default)]
struct Bell(AtomicBool);

impl Notify for Bell {
    fn notify(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Ring {
    table: LockTable,
    row: RowKey,
}

impl Ring {
    /// Nothing is released but what is on a contended stack.
    fn new() -> Self {
        Self {
            table: LockTable::releasing_at_once(0, 1),
            row: RowKey::new(TableId(1), b"k"),
        }
    }

    fn begin(&self, number: u64, bell: &Arc<Bell>) -> Arc<Owner> {
        let notify: Arc<dyn Notify> = bell.clone();
        let owner = self.table.begin(TxnId::new(1, number), None, notify);
        owner.settle(Priority::auto().settle(0, false));
        owner
    }

    fn lock(&self, owner: &Arc<Owner>) -> Decision {
        let request = Request {
            row: &self.row,
            mode: LockMode::Update,
            writes: false,
            sub: 0,
            policy: Policy::Wait,
        };
        self.table.request(owner, request, &mut Wakes::new())
    }

    fn abort(&self, owner: &Arc<Owner>) {
        let killed = self
            .table
            .kill(owner, AbortCause::Requested, &mut Wakes::new());
        assert!(killed);
    }
}

/// L6: the holder ends while one queues, between the waiter's look at the holder's state and its push
/// onto the holder's stack. The holder has taken its stack and does not come back.
#[test]
fn a_holder_that_ends_while_one_queues_is_not_waited_for() {
    let ring = Ring::new();
    let [holder, waiter] = [1, 2].map(|id| ring.begin(id, &Arc::default()));
    assert!(matches!(ring.lock(&holder), Decision::Granted(_)));
    let hash = ring.table.shards.hash(&ring.row);
    thread::scope(|scope| {
        let stack = holder.contended();
        let asked = scope.spawn(|| ring.lock(&waiter));
        // It holds the row latch, and so is on its way to the stack, or there.
        while !ring.table.shards.is_latched(hash) {
            thread::yield_now();
        }
        for _ in 0..100 {
            thread::yield_now();
        }
        assert!(holder.try_abort(AbortCause::Requested));
        assert!(stack.is_empty(), "the pass finds nothing to release");
        drop(stack);
        let decision = asked.join().unwrap();
        assert!(matches!(decision, Decision::Granted(_)), "{decision:?}");
    });
    ring.table.end(&holder, &mut Wakes::new());
}

/// L6: what wakes a waiter is the stack alone.
#[test]
fn the_contended_stack_brings_the_release_pass_back() {
    let ring = Ring::new();
    let bell = Arc::new(Bell::default());
    let [holder, waiter] = [1, 2].map(|id| ring.begin(id, &bell));
    assert!(matches!(ring.lock(&holder), Decision::Granted(_)));
    let Decision::Queued(ticket) = ring.lock(&waiter) else {
        panic!("the row is held");
    };
    ring.abort(&holder);
    assert!(ticket.is_granted() && bell.0.load(Ordering::Relaxed));
}

/// K5: a kill between the grant and the moment the waiter takes it.
#[test]
fn a_grant_that_its_owner_did_not_live_to_take_passes_on() {
    let ring = Ring::new();
    let bells: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
    let owners: Vec<_> = (1..)
        .zip(&bells)
        .map(|(id, bell)| ring.begin(id, bell))
        .collect();
    let tickets: Vec<_> = owners
        .iter()
        .filter_map(|owner| match ring.lock(owner) {
            Decision::Queued(ticket) => Some(ticket),
            _ => None,
        })
        .collect();
    ring.abort(&owners[0]);
    assert!(tickets[0].is_granted() && tickets[1].is_waiting());
    ring.abort(&owners[1]);
    assert!(tickets[1].is_granted());
    let outcomes = [1, 2].map(|at| ring.table.outcome(&owners[at], &tickets[at - 1]));
    assert_eq!(outcomes[0], Some(Outcome::Ended));
    assert!(matches!(outcomes[1], Some(Outcome::Granted(_))));
    assert!(ring.table.holds(&owners[1], &ring.row).is_none());
}

/// K5: what nobody waits for any more leaves no void entry behind, whichever way it was granted.
#[test]
fn an_untaken_grant_leaves_no_entry() {
    let ring = Ring {
        table: LockTable::new(1),
        ..Ring::new()
    };
    let [holder, waiter] = [1, 2].map(|id| ring.begin(id, &Arc::default()));
    assert!(matches!(ring.lock(&holder), Decision::Granted(_)));
    let Decision::Queued(ticket) = ring.lock(&waiter) else {
        panic!("the row is held");
    };
    ring.abort(&holder);
    assert!(ticket.is_granted());
    ring.abort(&waiter);
    let mut entries = 0;
    ring.table.shards.each(|_| entries += 1);
    assert_eq!(entries, 0);
}

/// The stack of one that locks and rolls back for hours does not grow with it.
#[test]
fn rollbacks_leave_no_rows_on_the_contended_stack() {
    let ring = Ring::new();
    let owner = ring.begin(1, &Arc::default());
    for sub in 1..50 {
        let request = Request {
            row: &ring.row,
            mode: LockMode::Update,
            writes: false,
            sub,
            policy: Policy::Wait,
        };
        let mut wakes = Wakes::new();
        assert!(matches!(
            ring.table.request(&owner, request, &mut wakes),
            Decision::Granted(_)
        ));
        let waiter = ring.begin(1 + u64::from(sub), &Arc::default());
        let Decision::Queued(ticket) = ring.lock(&waiter) else {
            panic!("the row is held");
        };
        assert!(!owner.contended().is_empty());
        ring.table.rollback_to(&owner, sub, &mut wakes);
        assert!(ticket.is_granted() && owner.contended().is_empty());
        ring.abort(&waiter);
    }
}

/// L4: a suspect that is no cycle any more kills nobody.
#[test]
fn nobody_dies_on_a_stale_view() {
    let ring = Ring::new();
    let other = RowKey::new(TableId(1), b"other");
    let [a, b] = [1, 2].map(|id| ring.begin(id, &Arc::default()));
    assert!(matches!(ring.lock(&a), Decision::Granted(_)));
    let ask = |owner, row, policy| {
        let (mode, sub) = (LockMode::Update, 0);
        let request = Request {
            row,
            mode,
            writes: false,
            sub,
            policy,
        };
        ring.table.request(owner, request, &mut Wakes::new())
    };
    assert!(matches!(
        ask(&b, &other, Policy::Wait),
        Decision::Granted(_)
    ));
    let Decision::Queued(of_b) = ring.lock(&b) else {
        panic!("the row is held");
    };
    // The other half of the cycle, published by hand, so that nobody has searched yet.
    let want = Want {
        row: &other,
        hash: ring.table.shards.hash(&other),
        mode: LockMode::Update,
        writes: false,
        sub: 0,
        order: 0,
        policy: Policy::Wait,
        own_is_known: true,
    };
    let placed = {
        let mut latch = ring.table.shards.latch(want.hash);
        latch.request(&a, want, &mut Wakes::new())
    };
    let Placed::Queued(Queued { ticket: of_a, .. }) = placed else {
        panic!("the other row is held");
    };
    a.latch().wait_for(Arc::clone(&of_a));
    let start = Waiter {
        owner: Arc::clone(&a),
        ticket: of_a,
    };
    let suspect = deadlock::search(&ring.table.shards, &start).expect("a cycle of two");
    let outcome = ring.table.cancel(&b, &of_b, &mut Wakes::new());
    assert_eq!(outcome, Outcome::Cancelled);
    let (shards, mut flipped) = (&ring.table.shards, Flipped::new());
    let resolution = suspect.resolve(shards, &mut flipped, &mut Wakes::new());
    assert!(matches!(resolution, Resolution::Stale), "{resolution:?}");
    assert!(a.is_active() && b.is_active());
}

/// K6: between the look through the shards and its end a holder strengthens what is compatible with the range. Nothing that
/// was met tells, so the range looks again.
#[test]
fn a_row_that_is_strengthened_while_a_range_looks_is_seen() {
    let ring = Ring::new();
    let [holder, asks] = [1, 2].map(|id| ring.begin(id, &Arc::default()));
    let row = |mode| Request {
        row: &ring.row,
        mode,
        writes: false,
        sub: 0,
        policy: Policy::Wait,
    };
    let wakes = &mut Wakes::new();
    let weak = ring.table.request(&holder, row(LockMode::KeyShare), wakes);
    assert!(matches!(weak, Decision::Granted(_)));
    let wide = ring.table.shards.wide();
    let range = RowRange::new(TableId(1), Bound::Unbounded, Bound::Unbounded);
    let want = WideWant {
        target: Target::Range(Arc::new(range)),
        mode: LockMode::Share,
        sub: 0,
        upgrade: false,
        order: 0,
    };
    let ticket = Arc::new(Ticket::new(want, wide.number()));
    wide.publish(&mut wide.latch(), &asks, &ticket);
    asks.latch().wait_for(Arc::clone(&ticket));
    let look = wide.latch().ranges.look(ticket.number());
    let look = look.expect("it waits");
    let mut looking = Looking::new(look);
    let shards = &ring.table.shards;
    shards.in_the_way_of(std::slice::from_mut(&mut looking));
    assert!(looking.met.is_empty());
    let strong = ring.table.request(&holder, row(LockMode::Update), wakes);
    assert!(matches!(strong, Decision::Granted(_)));
    let asked = wide.latch().ranges.conclude(&mut looking, wakes);
    assert_eq!(asked, Asked::Again);
    ask::ask(&ring.table.shards, &ticket, wakes);
    assert!(ticket.is_waiting());
    ring.abort(&holder);
    assert!(ticket.is_granted());
}

/// L8: while there is no range, whoever locks, waits for, strengthens and gives back rows takes no notice of the latch of ranges.
#[test]
fn rows_are_locked_without_the_latch_of_ranges_while_there_is_none() {
    let ring = Ring::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let books = ring.table.shards.wide().latch();
        scope.spawn(|| {
            let [holder, waiter] = [1, 2].map(|id| ring.begin(id, &Arc::default()));
            assert!(matches!(ring.lock(&holder), Decision::Granted(_)));
            let request = Request {
                row: &ring.row,
                mode: LockMode::KeyShare,
                writes: false,
                sub: 0,
                policy: Policy::Wait,
            };
            let wakes = &mut Wakes::new();
            let decision = ring.table.request(&waiter, request, wakes);
            assert!(matches!(decision, Decision::Queued(_)));
            ring.table.rollback_to(&holder, 0, wakes);
            ring.abort(&waiter);
            done.store(true, Ordering::Release);
        });
        let patience = (0..2_000_000).take_while(|_| !done.load(Ordering::Acquire));
        patience.for_each(|_| thread::yield_now());
        let is_done = done.load(Ordering::Acquire);
        drop(books);
        assert!(is_done, "L8: it waits for the latch of ranges");
    });
}

/// L6, K6: the same as of a row, of a range around it: its holder ends between the look at its state and the push.
#[test]
fn a_range_whose_holder_ends_while_one_queues_for_a_row_is_not_waited_for() {
    let ring = Ring::new();
    let [holder, waiter] = [1, 2].map(|id| ring.begin(id, &Arc::default()));
    let range = RowRange::new(TableId(1), Bound::Unbounded, Bound::Unbounded);
    let request = RangeRequest {
        range: &Arc::new(range),
        mode: LockMode::Update,
        sub: 0,
        policy: Policy::Wait,
    };
    let decision = ring
        .table
        .request_range(&holder, request, &mut Wakes::new());
    assert!(matches!(decision, Decision::Granted(_)));
    let hash = ring.table.shards.hash(&ring.row);
    thread::scope(|scope| {
        let stack = holder.contended();
        let asked = scope.spawn(|| ring.lock(&waiter));
        while !ring.table.shards.is_latched(hash) {
            thread::yield_now();
        }
        for _ in 0..1_000 {
            thread::yield_now();
        }
        assert!(holder.try_abort(AbortCause::Requested));
        drop(stack);
        let decision = asked.join().unwrap();
        assert!(matches!(decision, Decision::Granted(_)), "{decision:?}");
    });
    ring.table.end(&holder, &mut Wakes::new());
}

/// A hint for a row that is asked for later needs no latch: each shard tells where its index has come to be.
#[test]
fn every_shard_says_where_its_index_is() {
    let ring = Ring::new();
    let owner = ring.begin(1, &Arc::default());
    for number in 0..10_000_u32 {
        let row = RowKey::new(TableId(1), &number.to_be_bytes());
        ring.table
            .expect((&row.as_bytes()[..3], &row.as_bytes()[3..]));
        let request = Request {
            row: &row,
            mode: LockMode::Update,
            writes: false,
            sub: 0,
            policy: Policy::Wait,
        };
        let decision = ring.table.request(&owner, request, &mut Wakes::new());
        assert!(matches!(decision, Decision::Granted(_)));
    }
    for number in 0..SHARDS {
        assert!(ring.table.shards.latch_number(number).is_signposted());
    }
    // What names no table, or is long, is passed over.
    ring.table.expect((b"", b"row"));
    ring.table.expect((&[1; 100], &[1; 100]));
}
