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
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockstone_base::LockMode::{self, KeyShare, NoKeyUpdate, Share, Update};
use lockstone_base::{Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, LockTable, Notify, Outcome, Owner, Policy, RangeRequest, Refusal,
    Request, RowRange, TableLock, TableMode, Ticket, Wakes,
};

#[path = "obstacles/crowds.rs"]
mod crowds;

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

/// It holds the row, and somebody waits for that: a range that is only this row is no more than it has.
#[test]
fn who_waits_for_the_owner_of_a_row_is_not_ahead_of_its_range() {
    for policy in [Policy::NoWait, Policy::Wound, Policy::Wait] {
        let stage = Stage::new();
        let owner = stage.auto();
        granted(stage.row(&owner, b"m", Update, Policy::Wait));
        let waiter = stage.auto();
        let waits = queued(stage.row(&waiter, b"m", Update, Policy::Wait));
        granted(stage.range(&owner, (b"m", b"m\0"), Update, policy));
        assert!(waits.is_waiting());
        stage.commit(&owner);
        assert!(waits.is_granted());
    }
}

/// The same of two ranges that overlap, and of a row beside an own range.
#[test]
fn who_waits_for_the_owner_of_a_range_is_not_ahead_of_what_it_asks_for_next() {
    for policy in [Policy::NoWait, Policy::Wound, Policy::Wait] {
        let stage = Stage::new();
        let owner = stage.auto();
        granted(stage.range(&owner, (b"c", b"m"), Update, Policy::Wait));
        let waiter = stage.auto();
        let waits = queued(stage.range(&waiter, (b"a", b"z"), Share, Policy::Wait));
        granted(stage.range(&owner, (b"k", b"p"), Update, policy));
        granted(stage.row(&owner, b"x", Update, policy));
        assert!(waits.is_waiting());
        stage.commit(&owner);
        assert!(waits.is_granted());
    }
}

/// One that had won waited for a transaction that was committing; meanwhile a weaker one strengthened another row past it.
/// Nobody woke it to judge again, and it waited for the weaker.
#[test]
fn a_winner_whose_range_somebody_else_is_in_the_way_of_is_called_to_judge() {
    let stage = Stage::new();
    let (commits, _) = stage.begin(Priority::normal(1));
    granted(stage.row(&commits, b"b", Update, Policy::Wait));
    let (weak, _) = stage.begin(Priority::normal(1));
    granted(stage.row(&weak, b"c", KeyShare, Policy::Wait));
    assert!(commits.try_commit());
    let (winner, bell) = stage.begin(Priority::high(9));
    let ticket = queued(stage.range(&winner, (b"a", b"z"), Share, Policy::Wound));
    granted(stage.row(&weak, b"c", Update, Policy::Wait));
    let before = bell.rung();
    stage.released(&commits);
    assert!(bell.rung() > before);
    let judged = stage.locks.wound(&winner, &ticket, &mut Wakes::new());
    granted(judged);
    assert!(!weak.is_active());
}

/// A range that nobody waits for in the end is refused before it was ever in anybody's way: while it looks, rows in it are
/// granted, and it is refused because of them.
#[test]
fn a_range_that_is_refused_was_in_nobodys_way() {
    let stage = Stage::new();
    let holder = stage.auto();
    for key in 0..100_000_u32 {
        let key = [&[9][..], &key.to_be_bytes()].concat();
        granted(stage.row(&holder, &key, Update, Policy::Wait));
    }
    let (asks, done) = (stage.auto(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                let refused = stage.range(&asks, ALL, Update, Policy::NoWait);
                assert!(would_block(&refused), "{refused:?}");
                let refused = stage.range(&asks, ALL, Update, Policy::Wound);
                assert!(dies(&refused), "{refused:?}");
            }
            done.store(1, Ordering::Release);
        });
        let mut asked = 0;
        while done.load(Ordering::Acquire) == 0 {
            for policy in [Policy::NoWait, Policy::Wound, Policy::Wait] {
                let other = stage.auto();
                granted(stage.row(&other, &[1], Update, policy));
                stage.commit(&other);
                asked += 1;
            }
        }
        assert!(asked > 10, "{asked}");
    });
}

/// EXCLUSIVE that is refused has raised no flag that anybody met.
#[test]
fn a_table_that_is_refused_was_in_nobodys_way() {
    let stage = Stage::new();
    let holder = stage.auto();
    assert!(stage.locks.share(&holder, &stage.table));
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                let other = stage.auto();
                let refused = stage.table(&other, TableMode::Exclusive, Policy::NoWait);
                assert!(would_block(&refused), "{refused:?}");
                let refused = stage.table(&other, TableMode::Exclusive, Policy::Wound);
                assert!(dies(&refused), "{refused:?}");
                stage.commit(&other);
            }
            done.store(1, Ordering::Release);
        });
        while done.load(Ordering::Acquire) == 0 {
            let other = stage.auto();
            if !stage.locks.share(&other, &stage.table) {
                granted(stage.table(&other, TableMode::Shared, Policy::NoWait));
            }
            stage.commit(&other);
        }
    });
    assert_eq!(stage.locks.list(), []);
}

/// K7: EXCLUSIVE raises its flag before it reads who shares the table: whoever shares it while that lasts is read, or meets the
/// flag. The sharer has the first slot, and many come behind it, so that reading takes long.
#[test]
fn nobody_comes_to_share_a_table_between_the_look_and_the_flag() {
    let stage = Stage::new();
    let first = stage.auto();
    let _crowd: Vec<_> = (0..5_000).map(|_| stage.auto()).collect();
    // Each thread goes on with the slot that it has given back.
    stage.commit(&stage.auto());
    let (asked, shared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (shares, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.commit(&first);
            while !done.load(Ordering::SeqCst) {
                let owner = stage.auto();
                if stage.locks.share(&owner, &stage.table) {
                    shares.store(true, Ordering::SeqCst);
                    // Long enough for the other one to be granted the table, if it has not been seen.
                    let asked_before = asked.load(Ordering::SeqCst);
                    let granted = || asked.load(Ordering::SeqCst) >= asked_before + 2;
                    while !granted() && !done.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    shares.store(false, Ordering::SeqCst);
                    shared.fetch_add(1, Ordering::SeqCst);
                }
                stage.commit(&owner);
            }
        });
        let alone = (0..).find_map(|_| {
            let owner = stage.auto();
            let decided = stage.table(&owner, TableMode::Exclusive, Policy::NoWait);
            let granted = matches!(decided, Decision::Granted(_));
            let both = granted && shares.load(Ordering::SeqCst);
            stage.commit(&owner);
            asked.fetch_add(1, Ordering::SeqCst);
            (both || shared.load(Ordering::SeqCst) == 300).then_some(both)
        });
        done.store(true, Ordering::SeqCst);
        assert_eq!(alone, Some(false), "K7: shared, and held alone");
    });
}

/// What `count` transactions do, one after the other; and how long that takes in all.
fn crowd(count: usize, mut each: impl FnMut(usize)) -> Duration {
    let begun = Instant::now();
    (0..count).for_each(&mut each);
    begun.elapsed()
}

/// One holder, and `count` who wait: how long it takes to queue, and to be served one after the other, each by the end of the
/// one before. Whoever ends wakes one.
fn queue_of(stage: &Stage, count: usize, ask: impl Fn(&Arc<Owner>) -> Decision) -> [Duration; 2] {
    let holder = stage.auto();
    granted(ask(&holder));
    let mut waiters = Vec::new();
    let queues = crowd(count, |_| {
        let (owner, bell) = stage.begin(Priority::auto());
        let ticket = queued(ask(&owner));
        waiters.push((owner, bell.rung(), bell, ticket));
    });
    stage.commit(&holder);
    let serves = crowd(count, |at| {
        let (owner, _, _, ticket) = &waiters[at];
        assert!(ticket.is_granted(), "{at}");
        let outcome = stage.locks.outcome(owner, ticket);
        assert!(matches!(outcome, Some(Outcome::Granted(_))));
        let next = waiters.get(at + 1);
        assert!(next.is_none_or(|(.., next)| next.is_waiting()), "{at}");
        stage.commit(owner);
    });
    for (_, rung, bell, _) in &waiters {
        assert_eq!(bell.rung(), rung + 1, "who is served is woken, once");
    }
    [queues, serves]
}

/// So long may ten thousand waits take, on a machine that does much else; what was quadratic took ten times as long.
const SOON: Duration = Duration::from_secs(2);

fn hot_row(stage: &Stage) {
    let row = |owner: &Arc<Owner>| stage.row(owner, b"a", Update, Policy::Wait);
    let took = queue_of(stage, 10_000, row);
    println!("10,000 on one row: {took:?}");
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
}

#[test]
fn ten_thousand_queue_at_one_row() {
    hot_row(&Stage::new());
}

#[test]
fn a_range_elsewhere_makes_no_queue_slower() {
    let stage = Stage::new();
    let (other, waiter) = (stage.auto(), stage.auto());
    for at in 0..100 {
        let range = (BESIDE, &[at][..], &[at, 0][..]);
        granted(stage.range_in(&other, range, (Update, 0), Policy::Wait));
    }
    hot_row(&stage);
    let all = (BESIDE, &[0][..], &[255][..]);
    queued(stage.range_in(&waiter, all, (Update, 0), Policy::Wait));
    hot_row(&stage);
}

#[test]
fn a_table_elsewhere_makes_no_queue_slower() {
    let stage = Stage::new();
    let (other, waiter) = (stage.auto(), stage.auto());
    granted(stage.table(&other, TableMode::Exclusive, Policy::Wait));
    hot_row(&stage);
    queued(stage.table(&waiter, TableMode::Exclusive, Policy::Wait));
    hot_row(&stage);
}

/// Once somebody had a priority, everyone who queued looked at all who were ahead.
#[test]
fn a_priority_of_long_ago_makes_no_queue_slower() {
    let stage = Stage::new();
    let holder = stage.auto();
    granted(stage.row(&holder, b"z", Update, Policy::Wait));
    let (high, _) = stage.begin(Priority::high(1));
    queued(stage.row(&high, b"z", Update, Policy::Wait));
    stage.abort(&high);
    stage.commit(&holder);
    hot_row(&stage);
}

#[test]
fn a_crowd_queues_for_a_table_and_for_a_range() {
    let stage = Stage::new();
    let took = queue_of(&stage, 1_000, |owner| {
        stage.table(owner, TableMode::Exclusive, Policy::Wait)
    });
    println!("1,000 for a table: {took:?}");
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
    // Each range counts those before it.
    let took = queue_of(&stage, 300, |owner| {
        stage.range(owner, ALL, Update, Policy::Wait)
    });
    println!("300 for a range: {took:?}");
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
}

/// The same, of transactions that somebody may wait for: each search visits the queue once.
#[test]
fn a_thousand_who_hold_something_queue_for_a_table_and_for_a_range() {
    let stage = Stage::new();
    let beside = stage.auto();
    let all = (BESIDE, &[0][..], &[255][..]);
    granted(stage.range_in(&beside, all, (Share, 0), Policy::Wait));
    let waiter = stage.auto();
    queued(stage.range_in(&waiter, all, (Update, 0), Policy::Wait));
    let next = AtomicU64::new(0);
    let holds = |owner: &Arc<Owner>| {
        let key = next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let range = [&[200][..], &key].concat();
        let row = [&[255][..], &key].concat();
        let range = (HERE, &range[..], &[&range[..], &[0]].concat()[..]);
        granted(stage.row(owner, &row, Update, Policy::Wait));
        granted(stage.range_in(owner, range, (KeyShare, 0), Policy::Wait));
    };
    let took = queue_of(&stage, 500, |owner| {
        holds(owner);
        stage.table(owner, TableMode::Exclusive, Policy::Wait)
    });
    println!("500 who hold something, for a table: {took:?}");
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
    let took = queue_of(&stage, 500, |owner| {
        holds(owner);
        stage.range(owner, (&[0], &[100]), Update, Policy::Wait)
    });
    println!("500 who hold something, for a range: {took:?}");
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
}

/// Those who gave up leave nothing at a range that lives on: its end, and its rollbacks, are as quick as ever.
#[test]
fn a_range_forgets_those_who_have_given_up() {
    let stage = Stage::new();
    let holder = stage.auto();
    granted(stage.range(&holder, ALL, Update, Policy::Wait));
    let waited = crowd(64_000, |at| {
        let owner = stage.auto();
        let key = (at as u32).to_be_bytes();
        let ticket = queued(stage.row(&owner, &[&[1], &key[..]].concat(), Update, Policy::Wait));
        stage.cancel(&owner, &ticket);
        stage.commit(&owner);
    });
    let rollbacks = crowd(100, |_| {
        stage.locks.rollback_to(&holder, 1, &mut Wakes::new());
    });
    let ends = crowd(1, |_| stage.commit(&holder));
    println!("64,000 gave up in {waited:?}; 100 rollbacks {rollbacks:?}, end {ends:?}");
    assert!(ends + rollbacks < Duration::from_millis(100), "{ends:?}");
}

/// What is refused, or given up, leaves nothing with those who were in its way.
#[test]
fn a_holder_forgets_the_ranges_and_tables_that_gave_up() {
    let stage = Stage::new();
    let holder = stage.auto();
    assert!(stage.locks.share(&holder, &stage.table));
    granted(stage.row(&holder, b"b", Update, Policy::Wait));
    for at in 0..80_000 {
        let owner = stage.auto();
        let policy = [Policy::NoWait, Policy::Wait][at / 2 % 2];
        let asked = if at % 2 == 0 {
            stage.range(&owner, (b"a", b"c"), Update, policy)
        } else {
            stage.table(&owner, TableMode::Exclusive, policy)
        };
        match asked {
            Decision::Queued(ticket) => stage.cancel(&owner, &ticket),
            other => assert!(would_block(&other), "{other:?}"),
        }
        stage.commit(&owner);
    }
    let ends = crowd(1, |_| stage.commit(&holder));
    println!("its end: {ends:?}");
    assert!(ends < Duration::from_millis(5), "{ends:?}");
}

/// K9: a list of who waits for whom is as long as those who wait, and each transaction is in it once for each of them.
#[test]
fn a_list_of_waits_is_no_longer_than_the_queues() {
    let stage = Stage::new();
    let holder = stage.auto();
    granted(stage.row(&holder, b"a", Update, Policy::Wait));
    for key in 0..10_000_u32 {
        granted(stage.row(&holder, &key.to_be_bytes(), Share, Policy::Wait));
    }
    let waiters: Vec<_> = (0..4_000)
        .map(|_| {
            let owner = stage.auto();
            queued(stage.row(&owner, b"a", Update, Policy::Wait));
            owner
        })
        .collect();
    let begun = Instant::now();
    let waits = stage.locks.waits();
    let took = begun.elapsed();
    println!("the waits of 4,000: {took:?}");
    assert_eq!(waits.len(), 4_000);
    for (at, wait) in waits.iter().enumerate() {
        assert_eq!(wait.txn, waiters[at].id());
        let ahead = at.checked_sub(1).map(|ahead| waiters[ahead].id());
        let met: Vec<_> = wait.waits_for.iter().map(|other| other.txn).collect();
        let expected: Vec<_> = [Some(holder.id()), ahead].into_iter().flatten().collect();
        assert_eq!(met, expected);
    }
    assert!(took < Duration::from_secs(1), "{took:?}");
    let range = stage.auto();
    queued(stage.range(&range, ALL, Update, Policy::Wait));
    let waits = stage.locks.waits_of(&range);
    assert_eq!(waits.len(), 1 + waiters.len());
    let shown = stage.locks.waits().pop().unwrap().waits_for;
    let shown: Vec<_> = shown.iter().map(|other| (other.txn, other.soft)).collect();
    let last = waiters.last().unwrap().id();
    assert_eq!(shown, [(holder.id(), false), (last, true)]);
}

/// A table lists who holds it alone once: it shares it too.
#[test]
fn a_table_waits_for_its_holder_once() {
    let stage = Stage::new();
    let [holder, first, second] = [stage.auto(), stage.auto(), stage.auto()];
    granted(stage.table(&holder, TableMode::Exclusive, Policy::Wait));
    queued(stage.table(&first, TableMode::Exclusive, Policy::Wait));
    queued(stage.table(&second, TableMode::Exclusive, Policy::Wait));
    let waits = stage.locks.waits();
    let met = |at: usize| -> Vec<_> {
        let other = waits[at].waits_for.iter();
        other
            .map(|other| (other.txn, other.mode, other.soft))
            .collect()
    };
    assert_eq!(met(0), [(holder.id(), Update, false)]);
    let both = [(holder.id(), Update, false), (first.id(), Update, true)];
    assert_eq!(met(1), both);
}

/// K6: a cursor gives a row back; a range that waits for that looks again.
#[test]
fn a_row_given_back_lets_a_range_pass() {
    let stage = Stage::new();
    let holder = stage.auto();
    let place = match stage.row_at(&holder, b"m", (Update, 3), Policy::Wait) {
        Decision::Granted(grant) => grant.place,
        other => panic!("{other:?}"),
    };
    let ranged = stage.auto();
    let ticket = queued(stage.range(&ranged, ALL, Share, Policy::Wait));
    let locks = &stage.locks;
    locks.give_back(&holder, 3, |gone| gone == place, &mut Wakes::new());
    assert!(ticket.is_granted());
}

/// K6, K4: a wait that nobody asks for any more was ahead of a range; so was what it was granted.
#[test]
fn an_abandoned_wait_lets_a_range_pass() {
    for granted_first in [false, true] {
        let stage = Stage::new();
        let [holder, gone, ranged] = [stage.auto(), stage.auto(), stage.auto()];
        granted(stage.row(&holder, b"m", KeyShare, Policy::Wait));
        granted(stage.row(&gone, b"k", KeyShare, Policy::Wait));
        let waits = queued(stage.row(&gone, b"m", Update, Policy::Wait));
        let ticket = queued(stage.range(&ranged, ALL, Share, Policy::Wait));
        if granted_first {
            stage.commit(&holder);
            assert!(waits.is_granted() && ticket.is_waiting());
        }
        stage.locks.abandon(&gone, &waits, &mut Wakes::new());
        assert!(ticket.is_granted(), "granted first: {granted_first}");
    }
}

/// L2: whoever holds a range goes ahead of those who wait for rows in it, as an upgrade does.
#[test]
fn a_row_in_an_own_range_is_an_upgrade() {
    for policy in [Policy::NoWait, Policy::Wait] {
        let stage = Stage::new();
        let [owner, holder, waiter] = [stage.auto(), stage.auto(), stage.auto()];
        granted(stage.range(&owner, ALL, KeyShare, Policy::Wait));
        granted(stage.row(&holder, b"m", Share, Policy::Wait));
        let waits = queued(stage.row(&waiter, b"m", NoKeyUpdate, Policy::Wait));
        granted(stage.row(&owner, b"m", Share, policy));
        assert!(waits.is_waiting());
    }
}
