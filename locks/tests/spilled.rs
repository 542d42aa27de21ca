//! K2, K3, V1: locks in runs, met by others at every bad moment; the runs are lists, which act while they are asked.
//!
//! What holds whatever is spilled, and whenever, is in `interleavings.rs`: there nobody may notice.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

mod spilling;
mod written;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::LockMode::{self, KeyShare, NoKeyUpdate, Share, Update};
use lockstone_base::{FencingToken, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, Grant, ListPlace, LockStatus, LockTable, Outcome, Owner, Policy,
    RangeRequest, Refusal, Request, RowRange, Target, Ticket, Wakes,
};
use spilling::{FakeRun, merged, publish, publish_part, spill};
use written::Parker;

const TABLE: TableId = TableId(1);

struct Stage {
    locks: LockTable,
    next: AtomicU64,
}

impl Stage {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            locks: LockTable::new(5),
            next: AtomicU64::new(1),
        })
    }

    fn begin(&self, priority: u32) -> Arc<Owner> {
        let id = TxnId::new(1, self.next.fetch_add(1, Ordering::Relaxed));
        let owner = self.locks.begin(id, None, Arc::new(Parker::default()));
        owner.settle(Priority::normal(priority).settle(0, false));
        owner
    }

    fn ask(
        &self,
        owner: &Arc<Owner>,
        (key, mode, sub): (u8, LockMode, u32),
        policy: Policy,
    ) -> Decision {
        let request = Request {
            row: &row(key),
            mode,
            writes: false,
            sub,
            policy,
        };
        self.locks.request(owner, request, &mut Wakes::new())
    }

    fn lock(&self, owner: &Arc<Owner>, key: u8, mode: LockMode) -> Decision {
        self.ask(owner, (key, mode, 0), Policy::Wait)
    }

    /// One who holds the row in a run alone.
    fn spiller(&self, key: u8, mode: LockMode) -> (Arc<Owner>, Arc<FakeRun>) {
        let owner = self.begin(1);
        granted(self.lock(&owner, key, mode));
        let (_, run) = spill(&self.locks, &owner).unwrap();
        assert!(!self.is_in_memory(&owner));
        (owner, run)
    }

    fn is_in_memory(&self, owner: &Owner) -> bool {
        !self.locks.copy_locks(owner, 0).locks.is_empty()
    }

    fn range(&self, owner: &Arc<Owner>, mode: LockMode, policy: Policy) -> Decision {
        let (start, end) = (Bound::Included(row(0)), Bound::Excluded(row(100)));
        let range = &Arc::new(RowRange::new(TABLE, start, end));
        let request = RangeRequest {
            range,
            mode,
            sub: 0,
            policy,
        };
        self.locks.request_range(owner, request, &mut Wakes::new())
    }

    fn commit(&self, owner: &Arc<Owner>) {
        assert!(owner.try_commit());
        owner.released();
        self.locks.end(owner, &mut Wakes::new());
    }

    fn outcome(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) -> Option<Outcome> {
        self.locks.outcome(owner, ticket)
    }

    fn is_granted(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) -> bool {
        matches!(self.outcome(owner, ticket), Some(Outcome::Granted(_)))
    }

    /// What a list shows as held, in order: transaction, key, mode.
    fn list(&self) -> Vec<(u64, u8, LockMode)> {
        let entries = self.locks.list().into_iter();
        let held = entries.filter(|entry| entry.status == LockStatus::Granted);
        held.map(|entry| match entry.target {
            Target::Row(row) => (entry.txn.sequence, row.key()[0], entry.mode),
            other => panic!("{other:?}"),
        })
        .collect()
    }
}

fn row(key: u8) -> RowKey {
    RowKey::new(TABLE, &[key])
}

#[track_caller]
fn granted(decision: Decision) -> Grant {
    match decision {
        Decision::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn queued(decision: Decision) -> Arc<Ticket> {
    match decision {
        Decision::Queued(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_spilled_lock_is_waited_for_and_passed_on() {
    let stage = Stage::new();
    let (holder, _) = stage.spiller(7, Update);
    let waiter = stage.begin(1);
    let ticket = queued(stage.lock(&waiter, 7, KeyShare));
    granted(stage.lock(&stage.begin(1), 8, Update));
    assert_eq!(stage.locks.waits_of(&waiter)[0].txn, holder.id());
    stage.commit(&holder);
    assert!(stage.is_granted(&waiter, &ticket));
}

/// K2: the epoch. Whoever holds the row in memory while the runs are asked, and in a run when the latch is taken, is met.
#[test]
fn who_spills_while_another_looks_is_met() {
    for upgrades in [false, true] {
        let stage = Stage::new();
        let (_, other) = stage.spiller(1, Update);
        let holder = stage.begin(1);
        granted(stage.lock(&holder, 7, if upgrades { Share } else { Update }));
        let (scene, spills) = (Arc::clone(&stage), Arc::clone(&holder));
        other.meanwhile(move || drop(spill(&scene.locks, &spills).unwrap()));
        let waiter = stage.begin(1);
        let decision = stage.lock(&waiter, 7, Update);
        assert!(!stage.is_in_memory(&holder));
        let ticket = queued(decision);
        stage.commit(&holder);
        assert!(stage.is_granted(&waiter, &ticket));
    }
}

/// K2: whoever was met by a run, and has ended or rolled back since, is not brought in.
#[test]
fn who_ends_or_rolls_back_while_another_looks_is_not_in_the_way() {
    let stage = Stage::new();
    let (holder, run) = stage.spiller(7, Update);
    let (scene, ends) = (Arc::clone(&stage), holder);
    run.meanwhile(move || scene.commit(&ends));
    granted(stage.lock(&stage.begin(1), 7, Update));

    let stage = Stage::new();
    let (holder, run) = stage.spiller(7, Update);
    let (scene, rolls_back) = (Arc::clone(&stage), Arc::clone(&holder));
    run.meanwhile(move || scene.locks.rollback_to(&rolls_back, 0, &mut Wakes::new()));
    granted(stage.lock(&stage.begin(1), 7, Update));
    assert_eq!(stage.locks.holds(&holder, &row(7)), None);
}

/// V1: a rollback between the copy and the publication makes the records of the run dead.
#[test]
fn what_is_rolled_back_while_the_run_is_written_is_not_held() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    granted(stage.ask(&holder, (1, Update, 0), Policy::Wait));
    granted(stage.ask(&holder, (2, Update, 1), Policy::Wait));
    let run = FakeRun::new(stage.locks.copy_locks(&holder, 0).locks);
    stage.locks.rollback_to(&holder, 1, &mut Wakes::new());
    granted(stage.ask(&holder, (3, Update, 2), Policy::Wait));
    publish(&stage.locks, &holder, &run, &[]).unwrap();
    assert_eq!(stage.locks.drop_copied(&holder), 1, "row 3 was not copied");
    assert_eq!(stage.list(), [(1, 1, Update), (1, 3, Update)]);
    granted(stage.lock(&stage.begin(1), 2, Update));
    queued(stage.lock(&stage.begin(1), 1, Update));
    queued(stage.lock(&stage.begin(1), 3, Update));
}

/// L9: who has written again what it held already has acquired nothing; its record goes with its sub-transaction all the same.
#[test]
fn a_record_without_an_acquisition_is_rolled_back_too() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    granted(stage.ask(&holder, (1, Update, 1), Policy::Wait));
    let mut locks = stage.locks.copy_locks(&holder, 3).locks;
    let mut again = locks[0].clone();
    again.lock.sub = 3;
    locks.push(again);
    publish(&stage.locks, &holder, &FakeRun::new(locks), &[]).unwrap();
    assert_eq!(stage.locks.drop_copied(&holder), 1);
    stage.locks.rollback_to(&holder, 3, &mut Wakes::new());
    assert_eq!(stage.list(), [(1, 1, Update)]);
    stage.locks.rollback_to(&holder, 1, &mut Wakes::new());
    assert_eq!(stage.list(), []);
    granted(stage.lock(&stage.begin(1), 1, Update));
}

/// V1: no run is listed for one who has ended, nor when the log refuses.
#[test]
fn a_run_is_listed_for_the_living_alone() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    granted(stage.lock(&holder, 1, Update));
    let run = FakeRun::new(stage.locks.copy_locks(&holder, 0).locks);
    let listed: Arc<dyn lockstone_locks::LockRun> = run.clone();
    let refused = stage
        .locks
        .publish(&holder, &[(listed, 0)], &[], |_| Err("full"));
    assert_eq!(refused, Err("full"));
    stage.commit(&holder);
    assert_eq!(publish(&stage.locks, &holder, &run, &[]), None);
    granted(stage.lock(&stage.begin(1), 1, Update));
}

/// K3, V1: what somebody waits for stays in memory; so does a row in a range that somebody waits for.
#[test]
fn what_is_waited_for_does_not_leave_memory() {
    let stage = Stage::new();
    let (holder, ranger) = (stage.begin(1), stage.begin(1));
    for key in [1, 2] {
        granted(stage.lock(&holder, key, Update));
    }
    let waiter = stage.begin(1);
    let ticket = queued(stage.lock(&waiter, 1, Update));
    let run = FakeRun::new(stage.locks.copy_locks(&holder, 0).locks);
    publish(&stage.locks, &holder, &run, &[]).unwrap();
    assert_eq!(stage.locks.drop_copied(&holder), 1);
    assert_eq!(stage.list(), [(1, 1, Update), (1, 2, Update)]);

    let third = stage.begin(1);
    granted(stage.lock(&third, 3, Update));
    let range = queued(stage.range(&ranger, Share, Policy::Wait));
    let run = FakeRun::new(stage.locks.copy_locks(&third, 0).locks);
    publish(&stage.locks, &third, &run, &[]).unwrap();
    assert_eq!(stage.locks.drop_copied(&third), 0);
    stage.commit(&holder);
    assert!(stage.is_granted(&waiter, &ticket));
    assert_eq!(stage.outcome(&ranger, &range), None);
    stage.commit(&waiter);
    assert_eq!(stage.outcome(&ranger, &range), None);
    stage.commit(&third);
    assert!(stage.is_granted(&ranger, &range));
}

/// L2, L3: what one has spilled itself makes a request an upgrade, which goes to the front.
#[test]
fn an_own_spilled_lock_makes_an_upgrade() {
    let stage = Stage::new();
    let (holder, _) = stage.spiller(7, Share);
    let waiter = stage.begin(1);
    let ticket = queued(stage.lock(&waiter, 7, Update));
    let behind = stage.ask(&holder, (7, KeyShare, 0), Policy::NoWait);
    assert!(!granted(behind).fresh, "L2: it is covered");
    granted(stage.ask(&holder, (7, Update, 1), Policy::NoWait));
    // L9: the upgrade goes, the spilled lock stays.
    stage.locks.rollback_to(&holder, 1, &mut Wakes::new());
    assert_eq!(stage.locks.holds(&holder, &row(7)), Some(Share));
    assert_eq!(stage.outcome(&waiter, &ticket), None);
    granted(stage.lock(&stage.begin(1), 9, Share));
    // And then it goes too.
    stage.locks.rollback_to(&holder, 0, &mut Wakes::new());
    assert!(stage.is_granted(&waiter, &ticket));
}

/// L3: nobody has met what it has spilled, and still it goes to the front, past whoever has a higher priority.
#[test]
fn an_own_spilled_lock_that_nobody_has_met_makes_an_upgrade() {
    let stage = Stage::new();
    let (holder, other) = (stage.begin(1), stage.begin(1));
    granted(stage.lock(&holder, 7, Share));
    granted(stage.lock(&other, 7, Share));
    spill(&stage.locks, &holder).unwrap();
    let ticket = queued(stage.lock(&holder, 7, Update));
    let high = stage.begin(9);
    let behind = queued(stage.lock(&high, 7, Update));
    stage.commit(&other);
    assert!(stage.is_granted(&holder, &ticket));
    assert_eq!(stage.outcome(&high, &behind), None);
}

/// K1: `NoWait` is refused by a spilled lock, and brings nothing in.
#[test]
fn no_wait_brings_nothing_in() {
    let stage = Stage::new();
    let (holder, _) = stage.spiller(7, NoKeyUpdate);
    let other = stage.begin(1);
    match stage.ask(&other, (7, Share, 0), Policy::NoWait) {
        Decision::Refused(Refusal::WouldBlock(by)) => {
            assert_eq!((by.txn, by.mode), (holder.id(), NoKeyUpdate));
        }
        decision => panic!("{decision:?}"),
    }
    assert_eq!(stage.locks.entries(), 0);
    granted(stage.ask(&other, (7, KeyShare, 0), Policy::NoWait));
    stage.locks.rollback_to(&holder, 0, &mut Wakes::new());
    granted(stage.ask(&other, (7, Update, 0), Policy::NoWait));
}

/// L5: spilled locks are judged and wounded like others.
#[test]
fn wound_judges_spilled_locks() {
    let stage = Stage::new();
    let (holder, _) = stage.spiller(7, Update);
    let (weaker, stronger) = (stage.begin(1), stage.begin(2));
    let died = stage.ask(&weaker, (7, Update, 0), Policy::Wound);
    assert!(
        matches!(&died, Decision::Refused(Refusal::Conflict(by)) if by.txn == holder.id()),
        "{died:?}"
    );
    granted(stage.ask(&stronger, (7, Update, 0), Policy::Wound));
    let by = stronger.id();
    assert_eq!(holder.cause(), Some(AbortCause::Wounded { by }));
}

/// L4: a ring that runs through spilled locks alone is found when it closes.
#[test]
fn a_ring_through_spilled_locks_is_found() {
    let stage = Stage::new();
    let ((a, _), (b, _)) = (stage.spiller(1, Update), stage.spiller(2, Update));
    let ticket = queued(stage.lock(&a, 2, Share));
    let decision = stage.lock(&b, 1, Share);
    let cycle = match decision {
        Decision::Refused(Refusal::Deadlock(cycle)) => cycle,
        other => panic!("{other:?}"),
    };
    assert_eq!(cycle.victim, b.id());
    assert!(stage.is_granted(&a, &ticket));
}

/// V3: runs that take the place of others, and runs of several owners.
#[test]
fn merged_and_mixed_runs_hold_what_they_held() {
    let stage = Stage::new();
    let (a, b) = (stage.begin(1), stage.begin(1));
    let mut runs = Vec::new();
    for key in 1..4 {
        granted(stage.lock(&a, key, Update));
        runs.push(spill(&stage.locks, &a).unwrap());
    }
    let merged = merged(runs.iter().map(|(_, run)| run));
    let replaced: Vec<_> = runs.iter().map(|(id, _)| *id).collect();
    publish(&stage.locks, &a, &merged, &replaced).unwrap();
    assert_eq!(stage.list().len(), 3);
    granted(stage.lock(&a, 4, Update));
    granted(stage.lock(&b, 5, Update));
    let of = |owner| stage.locks.copy_locks(owner, 0).locks;
    let mixed = FakeRun::mixed(vec![of(&a), of(&b)]);
    let first = publish_part(&stage.locks, &a, (&mixed, 0), &[]);
    assert_eq!(first, publish_part(&stage.locks, &b, (&mixed, 1), &[]));
    assert_eq!(
        (stage.locks.drop_copied(&a), stage.locks.drop_copied(&b)),
        (1, 1)
    );
    let tickets: Vec<_> = (1..6)
        .map(|key| {
            let waiter = stage.begin(1);
            let ticket = queued(stage.lock(&waiter, key, Update));
            (waiter, ticket)
        })
        .collect();
    stage.commit(&b);
    let states = tickets
        .iter()
        .map(|(waiter, ticket)| stage.is_granted(waiter, ticket));
    assert_eq!(
        states.collect::<Vec<_>>(),
        [false, false, false, false, true]
    );
    stage.commit(&a);
    assert!(
        tickets
            .iter()
            .all(|(waiter, ticket)| ticket.is_granted() && waiter.is_active())
    );
    for (waiter, _) in &tickets {
        stage.commit(waiter);
    }
    stage.locks.sweep(usize::MAX);
    assert_eq!((stage.locks.entries(), stage.list()), (0, vec![]));
}

/// K6: ranges wait for one who holds a row of theirs by a run, until the last of these is gone.
#[test]
fn a_range_waits_for_spilled_rows() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    for sub in 0..3 {
        granted(stage.ask(&holder, (10 + sub, Share, u32::from(sub)), Policy::Wait));
    }
    spill(&stage.locks, &holder).unwrap();
    granted(stage.range(&stage.begin(1), Share, Policy::NoWait));
    let ranger = stage.begin(1);
    let refused = stage.range(&ranger, NoKeyUpdate, Policy::NoWait);
    assert!(
        matches!(refused, Decision::Refused(Refusal::WouldBlock(_))),
        "{refused:?}"
    );
}

#[test]
fn a_range_is_granted_when_the_last_spilled_row_is_rolled_back() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    for sub in 0..3 {
        granted(stage.ask(&holder, (10 + sub, Share, u32::from(sub)), Policy::Wait));
    }
    spill(&stage.locks, &holder).unwrap();
    let ranger = stage.begin(1);
    let ticket = queued(stage.range(&ranger, Update, Policy::Wait));
    for sub in [2, 1] {
        stage.locks.rollback_to(&holder, sub, &mut Wakes::new());
        assert_eq!(stage.outcome(&ranger, &ticket), None, "{sub}");
    }
    stage.locks.rollback_to(&holder, 0, &mut Wakes::new());
    assert!(stage.is_granted(&ranger, &ticket));
}

/// A run that cannot be read gives nothing away.
#[test]
fn what_cannot_be_read_is_not_granted() {
    let stage = Stage::new();
    let (holder, run) = stage.spiller(7, Update);
    run.damage();
    let other = stage.begin(1);
    for policy in [Policy::Wait, Policy::NoWait, Policy::Wound] {
        let refused = stage.ask(&other, (8, Share, 0), policy);
        let Decision::Refused(Refusal::Unreadable(why)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(why.to_string(), "damaged");
    }
    let ticket = queued(stage.range(&other, Share, Policy::Wait));
    assert_eq!(stage.outcome(&other, &ticket), None);
    stage.commit(&holder);
    assert!(stage.is_granted(&other, &ticket));
}

/// The fencing token stays that of the first record of the mode, wherever it lies.
#[test]
fn tokens_are_kept() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    let token = |at: u64| FencingToken::new(Lsn::new(at));
    for (sub, mode) in [(0, Share), (1, Update)] {
        let grant = granted(stage.ask(&holder, (7, mode, sub), Policy::Wait));
        let at = token(u64::from(sub) + 100);
        stage.locks.stamp(&holder, grant.place, at);
    }
    spill(&stage.locks, &holder).unwrap();
    assert_eq!(stage.locks.token(&holder, &row(7)), Some(token(101)));
    queued(stage.lock(&stage.begin(1), 7, Share));
    assert_eq!(stage.locks.token(&holder, &row(7)), Some(token(101)));
    stage.locks.rollback_to(&holder, 1, &mut Wakes::new());
    assert_eq!(stage.locks.token(&holder, &row(7)), Some(token(100)));
}

/// K9: a list by stretches shows every lock once, in the strongest mode that is held.
#[test]
fn lists_show_spilled_locks_once() {
    let stage = Stage::new();
    let holder = stage.begin(1);
    for key in 0..200 {
        granted(stage.lock(&holder, key, Share));
        if key % 50 == 49 {
            spill(&stage.locks, &holder).unwrap();
        }
    }
    // In memory again, weaker or stronger than in the runs.
    granted(stage.lock(&holder, 3, KeyShare));
    granted(stage.lock(&holder, 4, Update));
    let _waits = queued(stage.lock(&stage.begin(1), 5, Update));
    let expected: Vec<_> = (0..200)
        .map(|key| (1, key, if key == 4 { Update } else { Share }))
        .collect();
    assert_eq!(stage.list(), expected);
    let (mut place, mut streamed) = (ListPlace::default(), Vec::new());
    while let Some(entries) = stage.locks.list_on(&mut place) {
        let held = entries
            .into_iter()
            .filter(|entry| entry.status == LockStatus::Granted);
        streamed.extend(held.map(|entry| (entry.target.row().unwrap().key()[0], entry.mode)));
    }
    streamed.sort_unstable();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(_, key, mode)| (key, mode))
        .collect();
    assert_eq!(streamed, expected);
}

/// Whenever the run is looked at, somebody takes a row of the range and gives it back; the number of times, and who did so last.
fn keep_busy(stage: &Arc<Stage>, run: &Arc<FakeRun>, busy: &Arc<(AtomicU64, AtomicU64)>) {
    let (stage, again, busy) = (Arc::clone(stage), Arc::clone(run), Arc::clone(busy));
    run.meanwhile(move || {
        let other = stage.begin(1);
        let decision = stage.ask(&other, (7, Update, 0), Policy::NoWait);
        if matches!(decision, Decision::Granted(_)) {
            busy.1.store(other.id().sequence, Ordering::Relaxed);
        }
        stage.commit(&other);
        if busy.0.fetch_add(1, Ordering::Relaxed) < 1_000 {
            keep_busy(&stage, &again, &busy);
        }
    });
}

/// K6: a range that must not wait looks a few times while rows in it come and go. Then it is refused because of the last one, or
/// has won and waits (L5).
#[test]
fn a_range_that_must_not_wait_looks_a_few_times() {
    for policy in [Policy::NoWait, Policy::Wound] {
        let stage = Stage::new();
        let (_elsewhere, run) = stage.spiller(200, Update);
        let busy = Arc::default();
        keep_busy(&stage, &run, &busy);
        let decision = stage.range(&stage.begin(1), Update, policy);
        let (looks, last) = (
            busy.0.load(Ordering::Relaxed),
            busy.1.load(Ordering::Relaxed),
        );
        assert!((2..20).contains(&looks), "{looks} looks");
        match (policy, decision) {
            (Policy::NoWait, Decision::Refused(Refusal::WouldBlock(by))) => {
                assert_eq!(by.txn.sequence, last);
            }
            (Policy::Wound, decision) => drop(granted(decision)),
            (_, other) => panic!("{other:?}"),
        }
    }
}
