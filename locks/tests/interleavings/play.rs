//! Plays steps on the table and on the model, and holds the one to the other.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstone_base::{FencingToken, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Copied, CopiedLock, Decision, Grant, LockEntry, LockRun, LockStatus, LockTable,
    Notify, Outcome, Owner, Policy, Refusal, RunId, SpilledLock, TableLock, Target, Ticket, Wakes,
};

use crate::asking::Asking;
use crate::naive::{Edges, Expected, Naive, shown};
use crate::spilling::{FakeRun, merged, publish};
use crate::written::What;

const TABLE: TableId = TableId(1);

/// What a transaction does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) txn: usize,
    pub(crate) call: Call,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Wait(What),
    NoWait(What),
    Wound(What),
    Savepoint,
    Rollback(u32),
    Cancel,
    End,
    /// The first part of that, its state; others may come between.
    Dies,
    /// The second part, its release pass.
    Passes,
    /// V1: all that it holds goes into a run.
    Spill,
    /// The three parts of that, which others may come between.
    Copy,
    Publish,
    Drop,
    /// V3: all its runs become one.
    Merge,
    /// V2: another copies its locks, and, later, lists what was copied of all, and gives each its part.
    CopyForOthers,
    Mix,
}

impl Call {
    /// Something that is done to a transaction, whatever it does itself; nobody may notice.
    fn is_spilling(self) -> bool {
        matches!(
            self,
            Self::Spill
                | Self::Copy
                | Self::Publish
                | Self::Drop
                | Self::Merge
                | Self::CopyForOthers
                | Self::Mix
        )
    }
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Notify for Bell {
    fn notify(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Txn {
    owner: Arc<Owner>,
    bell: Arc<Bell>,
    sub: u32,
    /// What it waits for; and what it goes on with, when that is the table.
    wait: Option<(Arc<Ticket>, Option<What>)>,
    ended: bool,
    /// It has ended, and its release pass is to come.
    passes: bool,
    copied: Option<Arc<FakeRun>>,
    /// The same, by another.
    copied_for_others: Option<Copied>,
    /// It is about to spill itself.
    spills: bool,
    runs: Vec<(RunId, Arc<FakeRun>)>,
}

pub(crate) struct Play {
    table: LockTable,
    lock: Arc<TableLock>,
    txns: Vec<Txn>,
    model: Naive,
    rings: usize,
    steps: Vec<Step>,
}

impl Play {
    /// `ages`: the transactions, the oldest first.
    pub(crate) fn new(ranks: &[u32], ages: &[usize]) -> Self {
        let table = LockTable::new(3);
        let age = |txn: usize| ages.iter().position(|other| *other == txn).unwrap();
        let ages: Vec<usize> = (0..ranks.len()).map(age).collect();
        let begin = |(rank, age): (&u32, &usize)| {
            let bell = Arc::new(Bell::default());
            let owner = table.begin(TxnId::new(1, *age as u64 + 1), None, bell.clone());
            owner.settle(Priority::normal(*rank).settle(0, false));
            Txn {
                owner,
                bell,
                sub: 0,
                wait: None,
                ended: false,
                passes: false,
                copied: None,
                copied_for_others: None,
                spills: false,
                runs: Vec::new(),
            }
        };
        Self {
            txns: ranks.iter().zip(&ages).map(begin).collect(),
            table,
            lock: Arc::new(TableLock::new(TABLE)),
            model: Naive::new(ranks, &ages),
            rings: 0,
            steps: Vec::new(),
        }
    }

    pub(crate) fn has_ended(&self, txn: usize) -> bool {
        self.txns[txn].ended
    }

    /// It has ended, and its release pass is to come.
    pub(crate) fn is_to_pass(&self, txn: usize) -> bool {
        self.txns[txn].passes
    }

    /// K5: locks are void by their owner's state already, but those who wait for them may not know it: what the model has granted
    /// the table grants at the latest with the release pass.
    fn lags(&self) -> bool {
        self.txns.iter().any(|txn| txn.passes)
    }

    pub(crate) fn waits(&self, txn: usize) -> bool {
        self.txns[txn].wait.is_some()
    }

    pub(crate) fn sub(&self, txn: usize) -> u32 {
        self.txns[txn].sub
    }

    pub(crate) fn has_met_a_ring(&self) -> bool {
        self.rings > 0
    }

    /// Does it, if it can be done: who was rolled back does nothing any more, and who waits gives up or ends.
    pub(crate) fn step(&mut self, step: Step) {
        let Step { txn, call } = step;
        let fits = match call {
            Call::End | Call::Dies => true,
            Call::Cancel => self.waits(txn) && self.model.waits(txn),
            Call::Passes => self.is_to_pass(txn),
            call if call.is_spilling() => true,
            _ => !self.waits(txn),
        };
        let is_over = self.has_ended(txn) && !matches!(call, Call::Passes);
        if is_over || !fits {
            return;
        }
        self.steps.push(step);
        let mut wakes = Wakes::new();
        match call {
            Call::Wait(what) => self.lock(txn, what, Policy::Wait),
            Call::NoWait(what) => self.lock(txn, what, Policy::NoWait),
            Call::Wound(what) => self.lock(txn, what, Policy::Wound),
            Call::Savepoint => self.txns[txn].sub += 1,
            Call::Spill
            | Call::Copy
            | Call::Publish
            | Call::Drop
            | Call::Merge
            | Call::CopyForOthers => {
                self.spill(txn, call);
            }
            Call::Rollback(to) => {
                self.table
                    .rollback_to(&self.txns[txn].owner, to, &mut wakes);
                self.model.rollback(txn, to);
                self.txns[txn].sub += 1;
            }
            Call::Cancel => {
                let (ticket, _) = self.txns[txn].wait.take().unwrap();
                let outcome = self
                    .table
                    .cancel(&self.txns[txn].owner, &ticket, &mut wakes);
                assert_eq!(outcome, Outcome::Cancelled, "{:?}", self.steps);
                self.model.cancel(txn);
            }
            Call::End => {
                let owner = &self.txns[txn].owner;
                if self.txns[txn].wait.is_some() {
                    assert!(self.table.kill(owner, AbortCause::Requested, &mut wakes));
                } else {
                    assert!(owner.try_commit());
                    owner.released();
                    self.table.end(owner, &mut wakes);
                }
                self.ended(txn);
            }
            Call::Dies => {
                let owner = &self.txns[txn].owner;
                if self.txns[txn].wait.is_some() {
                    assert!(owner.try_abort(AbortCause::Requested));
                } else {
                    assert!(owner.try_commit());
                    owner.released();
                }
                self.ended(txn);
                self.txns[txn].passes = true;
            }
            Call::Passes => self.pass(txn),
            Call::Mix => self.mix(),
        }
        drop(wakes);
        self.poll();
    }

    fn ended(&mut self, txn: usize) {
        self.model.end(txn);
        self.txns[txn].ended = true;
        self.txns[txn].wait = None;
    }

    fn pass(&mut self, txn: usize) {
        if std::mem::take(&mut self.txns[txn].passes) {
            self.table.end(&self.txns[txn].owner, &mut Wakes::new());
        }
    }

    /// Where LOCKING leaves something open, nobody is between the two parts of his end.
    fn pass_all(&mut self) {
        (0..self.txns.len()).for_each(|txn| self.pass(txn));
    }

    /// V2: whoever has done something meanwhile has no part in it.
    fn mix(&mut self) {
        let taken = |txn: &mut Txn| {
            let copied = txn.copied_for_others.take()?;
            Some((Arc::clone(&txn.owner), copied))
        };
        let mut parts: Vec<_> = self.txns.iter_mut().filter_map(taken).collect();
        parts.sort_by_key(|(owner, _)| owner.id());
        if parts.is_empty() {
            return;
        }
        let run = FakeRun::mixed(
            parts
                .iter()
                .map(|(_, copied)| copied.locks.clone())
                .collect(),
        );
        let owners: Vec<_> = parts.iter().map(|(owner, _)| Arc::clone(owner)).collect();
        let listed: Arc<dyn LockRun> = run.clone();
        let ids = self.table.list_mixed(&[listed], &owners);
        let mut void = Vec::new();
        for ((owner, copied), number) in parts.into_iter().zip(0..) {
            let taken = self.table.take_part(&owner, copied.number, 1, || true);
            let own = run
                .records()
                .iter()
                .filter(|(_, lock)| lock.owner == number);
            let own = own.map(|(row, lock)| CopiedLock {
                row: row.clone(),
                lock: SpilledLock { owner: 0, ..*lock },
            });
            let txn = self
                .txns
                .iter_mut()
                .find(|txn| txn.owner.id() == owner.id());
            match taken {
                Some(_) => txn.unwrap().runs.push((ids[0], FakeRun::new(own))),
                None => void.push(owner),
            }
        }
        self.table.leave_runs(&ids, &void);
    }

    /// V1, V3: what becomes of its records is nobody's business: the model knows nothing of it.
    fn spill(&mut self, txn: usize, call: Call) {
        let Txn {
            owner,
            copied,
            copied_for_others,
            spills,
            runs,
            ..
        } = &mut self.txns[txn];
        match call {
            Call::CopyForOthers => *copied_for_others = self.table.copy_for_others(owner),
            Call::Copy => {
                // Until the drop nobody else spills.
                if !std::mem::replace(spills, true) {
                    self.table.close_to_others(owner);
                }
                *copied = Some(FakeRun::new(self.table.copy_locks(owner, 0).locks));
            }
            Call::Publish => {
                if let Some(run) = copied.take_if(|run| !run.records().is_empty())
                    && let Some(id) = publish(&self.table, owner, &run, &[])
                {
                    runs.push((id, run));
                }
            }
            Call::Drop => {
                let is_published = copied.take().is_none() && *spills;
                if is_published && !runs.is_empty() {
                    self.table.drop_copied(owner);
                }
                if std::mem::take(spills) {
                    self.table.open_to_others(owner);
                }
            }
            Call::Merge if runs.len() > 1 => {
                let run = merged(runs.iter().map(|(_, run)| run));
                let replaces: Vec<RunId> = runs.iter().map(|(id, _)| *id).collect();
                if let Some(id) = publish(&self.table, owner, &run, &replaces) {
                    *runs = vec![(id, run)];
                }
            }
            Call::Spill => {
                for part in [Call::Copy, Call::Publish, Call::Drop] {
                    self.spill(txn, part);
                }
            }
            _ => {}
        }
    }

    /// As the engine does it: whoever locks in a table shares it.
    fn lock(&mut self, txn: usize, what: What, policy: Policy) {
        let is_table = matches!(what, What::Table(_));
        if !is_table && !self.model.covers(txn, What::SHARED) {
            if !self.table.share(&self.txns[txn].owner, &self.lock) {
                return self.ask(txn, What::SHARED, policy, Some(what));
            }
            let expected = self.model.request(txn, What::SHARED, 0, policy);
            assert_eq!(expected, Expected::Granted, "K7: {:?}", self.steps);
        }
        self.ask(txn, what, policy, None);
    }

    fn ask(&mut self, txn: usize, what: What, policy: Policy, then: Option<What>) {
        if self.lags() {
            // Who shares the table goes past those who wait there, if only for one who has ended.
            let (mut model, sub) = (self.model.clone(), self.txns[txn].sub);
            let goes_past = matches!(what, What::Table(_)) && model.is_upgrade(txn, what);
            let is_ring = model.request(txn, what, sub, policy) == Expected::Ring;
            if goes_past || is_ring || model.is_open() {
                self.pass_all();
                self.poll();
            }
        }
        let is_row = matches!(what, What::Row(..));
        let expected = self.model.request(txn, what, self.txns[txn].sub, policy);
        let decision = self.request(txn, what, policy);
        let named = |number: &usize| self.txns[*number].owner.id();
        let what = || format!("{expected:?}, not {decision:?}: {:?}", self.steps);
        match (&expected, &decision) {
            (Expected::Covered, Decision::Granted(grant)) => {
                // K2: a grant needs no look at what it has spilled itself.
                let spilled = !self.txns[txn].runs.is_empty();
                assert!(!grant.strengthened || spilled, "{}", what());
            }
            (Expected::Granted, Decision::Granted(_))
            | (Expected::Queued, Decision::Queued(_))
            | (Expected::Ring, _) => {}
            // Behind some who have ended all: the release pass of any of them will tell.
            (Expected::Granted, Decision::Queued(_)) if self.lags() => {}
            (Expected::Wounds(victims), Decision::Granted(_) | Decision::Queued(_)) => {
                let queued = matches!(decision, Decision::Queued(_));
                assert!(!queued || self.model.is_open(), "L5: {}", what());
                for victim in victims {
                    let by = self.txns[txn].owner.id();
                    let cause = self.txns[*victim].owner.cause();
                    assert_eq!(cause, Some(AbortCause::Wounded { by }), "L5: {}", what());
                }
            }
            (Expected::Refused(by), Decision::Refused(refusal)) => {
                let (blocker, fits) = match refusal {
                    Refusal::WouldBlock(blocker) => (blocker, policy == Policy::NoWait),
                    Refusal::Conflict(blocker) => (blocker, policy == Policy::Wound),
                    _ => panic!("{}", what()),
                };
                assert!(
                    fits && by.iter().map(named).any(|id| id == blocker.txn),
                    "{}",
                    what()
                );
            }
            _ => panic!("{}", what()),
        }
        if let Expected::Wounds(victims) = &expected {
            for victim in victims {
                self.txns[*victim].ended = true;
            }
        }
        let (was_granted, ticket) = match decision {
            Decision::Granted(grant) => {
                self.logged(txn, is_row, grant);
                (true, None)
            }
            Decision::Queued(ticket) => (false, Some(ticket)),
            Decision::Refused(_) => (false, None),
        };
        self.txns[txn].wait = ticket.map(|ticket| (ticket, then));
        if expected == Expected::Ring {
            self.resolved(txn, was_granted);
        } else if self.model.is_open() {
            self.adopt(&[], Some(txn).filter(|_| was_granted));
        }
        if let Some(what) = then.filter(|_| was_granted) {
            self.lock(txn, what, policy);
        }
    }

    /// The lock's record is in the log, but for some that are held back.
    fn logged(&self, txn: usize, is_row: bool, grant: Grant) {
        let at = 100 + self.steps.len() as u64;
        if is_row && grant.strengthened && !at.is_multiple_of(5) {
            let token = FencingToken::new(Lsn::new(at));
            self.table.stamp(&self.txns[txn].owner, grant.place, token);
        }
    }

    fn request(&self, txn: usize, what: What, policy: Policy) -> Decision {
        let Txn { owner, sub, .. } = &self.txns[txn];
        let (locks, table) = (&self.table, &self.lock);
        Asking { locks, table }.ask(owner, what, *sub, policy)
    }

    /// L4: a ring was closed. Who died was the right one, and nobody did whom a reordering would have spared.
    fn resolved(&mut self, asked: usize, was_granted: bool) {
        self.rings += 1;
        let victims = self.model.victims();
        let died = |txn: &Txn| matches!(txn.owner.cause(), Some(AbortCause::Deadlock(_)));
        let all = 0..self.txns.len();
        let dead: Vec<usize> = all
            .filter(|at| !self.txns[*at].ended && died(&self.txns[*at]))
            .collect();
        let right = dead.iter().all(|txn| victims.contains(txn));
        assert!(
            right,
            "L4: {dead:?} and not one of {victims:?}: {:?}",
            self.steps
        );
        assert_eq!(dead.is_empty(), victims.is_empty(), "L4: {:?}", self.steps);
        for txn in &dead {
            self.txns[*txn].ended = true;
        }
        self.adopt(&dead, Some(asked).filter(|_| was_granted));
    }

    /// The model takes from the table what LOCKING leaves open; `granted` was told so already.
    fn adopt(&mut self, dead: &[usize], granted: Option<usize>) {
        let decided = (0..self.txns.len()).filter(|at| {
            let Txn { wait, ended, .. } = &self.txns[*at];
            let is_granted = wait.as_ref().is_some_and(|(ticket, _)| ticket.is_granted());
            !ended && is_granted && self.model.waits(*at)
        });
        let granted: Vec<usize> = decided.chain(granted).collect();
        let list = self.table.list();
        let queue = list
            .iter()
            .filter(|entry| entry.status == LockStatus::Waiting);
        let queue: Vec<usize> = queue.map(|entry| self.number(entry.txn)).collect();
        let soft: Vec<_> = self.waiting_edges().1.into_iter().collect();
        self.model.adopt(dead, &granted, &queue, &soft);
    }

    /// Takes what the waits have come to, and goes on with who waited for a table alone.
    fn poll(&mut self) {
        if self.model.is_open() {
            self.pass_all();
            self.adopt(&[], None);
        }
        let lags = self.lags();
        let mut at = 0;
        while at < self.txns.len() {
            let txn = &mut self.txns[at];
            let woken = txn.bell.0.swap(false, Ordering::Relaxed);
            let Some((ticket, then)) = txn.wait.clone() else {
                at += 1;
                continue;
            };
            let outcome = self.table.outcome(&txn.owner, &ticket);
            let waits = self.model.waits(at) && !txn.ended;
            if outcome.is_none() && !waits && lags {
                at += 1;
                continue;
            }
            assert_eq!(
                outcome.is_none(),
                waits,
                "{at}, {outcome:?}: {:?}",
                self.steps
            );
            at += 1;
            let Some(outcome) = outcome else { continue };
            assert!(woken, "L6: decided, and not woken: {:?}", self.steps);
            txn.wait = None;
            let granted = matches!(outcome, Outcome::Granted(_));
            assert_eq!(granted, !txn.ended, "{outcome:?}: {:?}", self.steps);
            if let Outcome::Granted(grant) = outcome {
                self.logged(at - 1, matches!(ticket.target(), Target::Row(_)), grant);
            }
            if let Some(what) = then.filter(|_| granted) {
                self.lock(at - 1, what, Policy::Wait);
                at = 0;
            }
        }
    }

    fn number(&self, txn: TxnId) -> usize {
        self.txns
            .iter()
            .position(|other| other.owner.id() == txn)
            .unwrap()
    }

    /// Who waits for whom, as the table tells; and for whom who is ahead.
    fn waiting_edges(&self) -> (Edges, BTreeSet<(usize, usize)>) {
        let (mut edges, mut soft) = (Edges::new(), BTreeSet::new());
        for (at, txn) in self.txns.iter().enumerate() {
            for other in self.table.waits_of(&txn.owner) {
                let edge = (at, self.number(other.txn));
                *edges.entry(edge).or_insert(true) &= other.soft;
                if other.soft {
                    soft.insert(edge);
                }
            }
        }
        (edges, soft)
    }

    /// K9: the list of all waits has those of `edges` that end at holders, and one of the others where there are any.
    fn check_waits(&self, edges: &Edges) {
        for wait in self.table.waits() {
            let from = self.number(wait.txn);
            let mut shown = Edges::new();
            for other in &wait.waits_for {
                let is_new = shown.insert((from, self.number(other.txn)), other.soft);
                assert_eq!(is_new, None, "each once: {wait:?}: {:?}", self.steps);
            }
            let of = |soft: bool, edges: &Edges| {
                let of = edges
                    .iter()
                    .filter(|((at, _), is)| *at == from && **is == soft);
                of.map(|(edge, _)| *edge).collect::<BTreeSet<_>>()
            };
            let what = || format!("{wait:?}: {:?}", self.steps);
            assert_eq!(of(false, &shown), of(false, edges), "{}", what());
            let (ahead, all) = (of(true, &shown), of(true, edges));
            assert_eq!(ahead.len(), all.len().min(1), "{}", what());
            assert!(ahead.is_subset(&all), "{}", what());
        }
    }

    /// The table and the model have the same holders and the same waits.
    pub(crate) fn check(&self) {
        if self.lags() {
            return;
        }
        let steps = &self.steps;
        let list = self.table.list();
        for (at, txn) in self.txns.iter().enumerate() {
            let held = list
                .iter()
                .filter(|entry| entry.txn == txn.owner.id() && entry.status == LockStatus::Granted);
            assert_eq!(
                shown(held.map(what)),
                shown(self.model.holds(at)),
                "{at}: {steps:?}"
            );
            let waits = self.model.waits(at);
            assert_eq!(txn.wait.is_some(), waits, "{at}: {steps:?}");
            let waiting = list
                .iter()
                .filter(|entry| entry.txn == txn.owner.id() && entry.status == LockStatus::Waiting);
            assert_eq!(waiting.count(), usize::from(waits), "K9, {at}: {steps:?}");
        }
        let edges = self.model.edges();
        assert_eq!(self.waiting_edges().0, edges, "{steps:?}");
        self.check_waits(&edges);
        assert!(
            self.model.rings().is_empty(),
            "L4: a ring is left: {steps:?}"
        );
        let obstacle = |at: usize| edges.keys().any(|(from, _)| *from == at);
        let idle = (0..self.txns.len()).find(|at| self.model.waits(*at) && !obstacle(*at));
        assert_eq!(idle, None, "L6: it waits for nobody: {steps:?}");
    }

    /// Where it would wait, it is refused under `NoWait`, and nothing has changed.
    pub(crate) fn probe(&mut self, txn: usize, what: What) {
        let shares = self.model.covers(txn, What::SHARED) || what == What::EXCLUSIVE;
        if self.lags() || self.has_ended(txn) || self.waits(txn) || !shares {
            return;
        }
        let expected = self
            .model
            .clone()
            .request(txn, what, self.sub(txn), Policy::NoWait);
        if matches!(expected, Expected::Refused(_)) {
            self.step(Step {
                txn,
                call: Call::NoWait(what),
            });
            self.check();
        }
    }

    /// Ends them all.
    pub(crate) fn finish(mut self) {
        for txn in 0..self.txns.len() {
            let call = if self.has_ended(txn) {
                Call::Passes
            } else {
                Call::End
            };
            self.step(Step { txn, call });
        }
        assert_eq!(self.table.list(), [], "{:?}", self.steps);
        assert_eq!(self.table.live_locks(), 0, "{:?}", self.steps);
    }
}

fn what(entry: &LockEntry) -> What {
    let key = |bound: Bound<&RowKey>| match bound {
        Bound::Included(row) | Bound::Excluded(row) => row.key()[0],
        Bound::Unbounded => panic!("all bounds are keys"),
    };
    match &entry.target {
        Target::Row(row) => What::Row(row.key()[0], entry.mode, false),
        Target::Range(range) => What::Range(key(range.start()), key(range.end()), entry.mode),
        Target::Table(_) if entry.mode == lockstone_base::LockMode::Update => What::EXCLUSIVE,
        Target::Table(_) => What::SHARED,
        Target::Tokens(_) => panic!("nobody asks for tokens here"),
    }
}
