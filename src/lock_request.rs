//! The first step of the write path: asks the lock table for a row, and waits in line if the policy says so.
//! Called by `write_path`, and by futures that wait for a lock.
//!
//! 1. K1: what is not granted is queued or refused; `NoWait` never queues.
//! 2. A timeout counts per call; whoever gives up has one last look, and is told who stands in the way. Who wounds after a
//!    while judges from its place in the queue.
//! 3. W10: a grant counts only for a transaction that is still active.
//!
//! Crash: memory only.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockstone_base::{LockMode, RowKey};
use lockstone_locks::{
    Batch, Blocker, Decision, Grant, Outcome, Policy, Refusal, Request, Terms, Ticket, Wakes,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names::Holder;
use crate::options::OnConflict;
use crate::txn_state::{TxnState, name_row};

/// A row that is asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    row: &'a RowKey,
    mode: LockMode,
    patience: Patience,
}

/// What a call does when it would have to wait, and for how long it does.
#[derive(Debug, Clone, Copy)]
struct Patience {
    policy: Policy,
    /// How long to wait; it is zero for a `NoWait` that speaks of a timeout when it is refused.
    timeout: Option<Duration>,
    /// Whether it judges then, and does not give up.
    then_wounds: bool,
}

/// A request that waits. Whoever has it looks after each notice, until it is decided.
#[derive(Debug, Clone)]
pub(crate) struct InLine {
    ticket: Arc<Ticket>,
    patience: Patience,
    since: Duration,
    /// When its time is up.
    give_up: Option<Duration>,
}

/// What a request has come to.
#[derive(Debug)]
pub(crate) enum Asked {
    Granted(Grant),
    InLine(InLine),
}

impl Patience {
    fn of(policy: OnConflict) -> Self {
        let (policy, timeout, then_wounds) = match policy {
            OnConflict::NoWait | OnConflict::SkipLocked => (Policy::NoWait, None, false),
            OnConflict::Wait {
                timeout: Some(Duration::ZERO),
            } => (Policy::NoWait, Some(Duration::ZERO), false),
            OnConflict::Wait { timeout } => (Policy::Wait, timeout, false),
            OnConflict::Wound | OnConflict::WoundAfter(Duration::ZERO) => {
                (Policy::Wound, None, false)
            }
            OnConflict::WoundAfter(while_waiting) => (Policy::Wait, Some(while_waiting), true),
        };
        Self {
            policy,
            timeout,
            then_wounds,
        }
    }
}

/// *lock*: asks for the row, and waits in line if the policy says so.
pub(crate) fn request(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
    explicit: bool,
) -> Result<Grant> {
    txn.check(engine)?;
    txn.settle(engine, explicit);
    let grant = granted(engine, txn, row, mode, &mut None)?;
    holds(engine, txn, grant)
}

/// [`request`] of an explicit lock, as one of several of a call, which counts it and looks at the state itself. `give_up`:
/// when the call's time is up, once it is known.
pub(crate) fn granted(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
    give_up: &mut Option<Duration>,
) -> Result<Grant> {
    match ask_for(engine, txn, row, mode)? {
        Asked::Granted(grant) => Ok(grant),
        Asked::InLine(in_line) => in_line.wait(engine, txn, give_up),
    }
}

/// [`request`] of an explicit lock, but for the wait.
pub(crate) fn ask_for(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
) -> Result<Asked> {
    txn.check(engine)?;
    txn.settle(engine, true);
    let patience = Patience::of(txn.policy);
    let wanted = Wanted {
        row,
        mode,
        patience,
    };
    let decision = ask(engine, txn, &wanted, patience.policy);
    decided(engine, txn, &wanted, decision)
}

/// The grant is counted only for a transaction that is still active (W10).
pub(crate) fn holds(engine: &Engine, txn: &TxnState, grant: Grant) -> Result<Grant> {
    txn.check(engine)?;
    if grant.fresh {
        txn.count_locks(1);
    }
    Ok(grant)
}

/// *lock*, for many rows in one call: as [`request`] for each of them, but that rows which are locked are passed over if
/// the call `skips` them.
pub(crate) fn request_many(
    engine: &Engine,
    txn: &mut TxnState,
    batch: &mut Batch,
    mode: LockMode,
    skips: bool,
) -> Result<()> {
    txn.check(engine)?;
    txn.settle(engine, false);
    let patience = Patience::of(txn.policy);
    let terms = Terms::new(mode, txn.sub, patience.policy);
    let mut give_up = None;
    loop {
        let mut wakes = Wakes::default();
        let decision = engine
            .locks
            .request_batch(&txn.owner, batch, terms, &mut wakes);
        wakes.fire();
        let Some((decision, row)) = decision.zip(batch.current().cloned()) else {
            break;
        };
        let wanted = Wanted {
            row: &row,
            mode,
            patience,
        };
        let granted = match decided(engine, txn, &wanted, decision) {
            Ok(Asked::InLine(in_line)) => in_line.wait(engine, txn, &mut give_up),
            Ok(Asked::Granted(grant)) => Ok(grant),
            Err(error) => Err(error),
        };
        match granted {
            Ok(grant) => batch.granted(grant),
            Err(Error::WouldBlock { .. }) if skips => {
                batch.skipped();
                engine.counters.skip();
            }
            Err(error) => return Err(error),
        }
    }
    txn.check(engine)
}

/// What a decision of the table means for a call.
fn decided(
    engine: &Engine,
    txn: &TxnState,
    wanted: &Wanted<'_>,
    decision: Decision,
) -> Result<Asked> {
    match decision {
        Decision::Granted(grant) => Ok(Asked::Granted(grant)),
        Decision::Refused(refusal) => Err(refused(engine, txn, wanted, refusal)),
        Decision::Queued(ticket) => {
            engine.counters.waits.fetch_add(1, Ordering::Relaxed);
            let since = engine.ports.clock.now();
            let timeout = wanted.patience.timeout;
            Ok(Asked::InLine(InLine {
                ticket,
                patience: wanted.patience,
                since,
                give_up: timeout.map(|timeout| since.saturating_add(timeout)),
            }))
        }
    }
}

fn ask(engine: &Engine, txn: &TxnState, wanted: &Wanted<'_>, policy: Policy) -> Decision {
    let mut wakes = Wakes::default();
    let Wanted { row, mode, .. } = *wanted;
    let request = Request {
        row,
        mode,
        sub: txn.sub,
        policy,
    };
    let decision = engine.locks.request(&txn.owner, request, &mut wakes);
    wakes.fire();
    decision
}

impl InLine {
    /// Sleeps until the request is decided or its time is up. `give_up`: that of the call, if an earlier wait of it has
    /// set one.
    fn wait(
        mut self,
        engine: &Engine,
        txn: &TxnState,
        give_up: &mut Option<Duration>,
    ) -> Result<Grant> {
        if let Some(own) = self.give_up {
            self.give_up = Some(*give_up.get_or_insert(own));
        }
        loop {
            if let Some(outcome) = self.look(engine, txn) {
                return outcome;
            }
            let now = engine.ports.clock.now();
            let left = self.give_up.map(|at| at.saturating_sub(now));
            txn.live.parker.park(left);
        }
    }

    /// When its time is up, if it ever is.
    pub(crate) fn give_up(&self) -> Option<Duration> {
        self.give_up
    }

    /// How it was decided; `None` while it is not.
    pub(crate) fn look(&mut self, engine: &Engine, txn: &TxnState) -> Option<Result<Grant>> {
        let outcome = match engine.locks.outcome(&txn.owner, &self.ticket) {
            Some(Outcome::Granted(grant)) => Ok(grant),
            Some(_) => Err(ended(engine, txn)),
            None => self.give_up_or_wound(engine, txn)?,
        };
        self.note_end(engine, txn);
        Some(outcome)
    }

    /// If the time is up: leaves the queue, or judges from its place there; then how that ended.
    fn give_up_or_wound(&mut self, engine: &Engine, txn: &TxnState) -> Option<Result<Grant>> {
        let is_up = self
            .give_up
            .is_some_and(|at| at <= engine.ports.clock.now());
        if is_up && !self.patience.then_wounds {
            return Some(self.leave(engine, txn));
        }
        // Who has won waits for one that is committing, and judges again when somebody else has come in between.
        let has_won = self.patience.policy == Policy::Wound
            || (self.patience.then_wounds && self.give_up.is_none());
        if !is_up && !has_won {
            return None;
        }
        let mut wakes = Wakes::default();
        let decision = engine.locks.wound(&txn.owner, &self.ticket, &mut wakes);
        wakes.fire();
        match decision {
            Decision::Granted(grant) => Some(Ok(grant)),
            Decision::Refused(refusal) => Some(Err(refused(engine, txn, &self.wanted(), refusal))),
            // It has won, and waits for one that is committing.
            Decision::Queued(_) => {
                self.give_up = None;
                None
            }
        }
    }

    /// The time is up: leaves the queue, unless the grant came first. The last word is one more look
    /// without waiting, which also tells who stands in the way.
    fn leave(&self, engine: &Engine, txn: &TxnState) -> Result<Grant> {
        let mut wakes = Wakes::default();
        let outcome = engine.locks.cancel(&txn.owner, &self.ticket, &mut wakes);
        wakes.fire();
        if let Outcome::Granted(grant) = outcome {
            return Ok(grant);
        }
        match ask(engine, txn, &self.wanted(), Policy::NoWait) {
            Decision::Granted(grant) => Ok(grant),
            Decision::Refused(refusal) => Err(refused(engine, txn, &self.wanted(), refusal)),
            Decision::Queued(_) => unreachable!("K1: NoWait never queues"),
        }
    }

    pub(crate) fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            row: self.ticket.row(),
            mode: self.ticket.mode(),
            patience: self.patience,
        }
    }

    /// The wait is over: counts it by its time, and tells of a long one.
    fn note_end(&self, engine: &Engine, txn: &TxnState) {
        let waited = engine.ports.clock.now().saturating_sub(self.since);
        engine.counters.wait_times.count(waited);
        if waited >= LONG_WAIT {
            tracing::warn!(
                target: "lockstone::locks",
                txn = %txn.owner.id(),
                row = %name_row(engine, self.ticket.row()),
                mode = %self.ticket.mode(),
                waited_ms = waited.as_millis() as u64,
                "a lock was waited for for long"
            );
        }
    }
}

/// A wait from here on is told of in the log of events.
const LONG_WAIT: Duration = Duration::from_secs(1);

fn refused(engine: &Engine, txn: &TxnState, wanted: &Wanted<'_>, refusal: Refusal) -> Error {
    match refusal {
        Refusal::WouldBlock(blocker) => would_block(engine, wanted, blocker),
        Refusal::Conflict(blocker) => {
            engine.counters.conflicts.fetch_add(1, Ordering::Relaxed);
            Error::Conflict {
                txn: txn.owner.id(),
                row: name_row(engine, wanted.row),
                holder_priority: blocker.rank,
                held: blocker.mode,
                asked: wanted.mode,
                holder: Box::new(holder(blocker)),
            }
        }
        _ => ended(engine, txn),
    }
}

/// Why a request of a transaction that is no longer active was not granted.
fn ended(engine: &Engine, txn: &TxnState) -> Error {
    let error = txn.check(engine).err().unwrap_or(Error::TransactionEnded);
    if matches!(error, Error::Deadlock { .. }) {
        engine.counters.deadlocks.fetch_add(1, Ordering::Relaxed);
    }
    error
}

fn would_block(engine: &Engine, wanted: &Wanted<'_>, blocker: Blocker) -> Error {
    let (row, asked, held) = (name_row(engine, wanted.row), wanted.mode, blocker.mode);
    let holder = Box::new(holder(blocker));
    let Some(timeout) = wanted.patience.timeout else {
        return Error::WouldBlock {
            row,
            holder,
            held,
            asked,
        };
    };
    engine.counters.timeouts.fetch_add(1, Ordering::Relaxed);
    let waited_ms = timeout.as_millis() as u64;
    Error::LockTimeout {
        row,
        holder,
        held,
        asked,
        waited_ms,
    }
}

fn holder(blocker: Blocker) -> Holder {
    Holder {
        txn: blocker.txn,
        label: blocker.label,
        priority: Some(blocker.rank),
    }
}
