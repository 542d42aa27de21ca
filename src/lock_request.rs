//! The first step of the write path: asks the lock table for a row, a range or a table, and waits in line if the policy says
//! so. Called by `write_path`, by `wide_locks`, by tables' handles, and by futures that wait for a lock.
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
    Batch, Decision, Grant, Outcome, Policy, RangeRequest, Request, TableLock, TableMode, Target,
    Terms, Ticket, Wakes,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lease;
use crate::naming::name_target;
use crate::patience::Patience;
use crate::txn_state::TxnState;
use crate::wanted::{Wanted, ended, refused};

pub(crate) use crate::wanted::Sought;

/// A request that waits. Whoever has it looks after each notice, until it is decided.
#[derive(Debug, Clone)]
pub(crate) struct InLine {
    ticket: Arc<Ticket>,
    /// What is waited for, if it is a table.
    table: Option<(Arc<TableLock>, TableMode)>,
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

/// *lock*: asks for the row, and waits in line if the policy says so.
pub(crate) fn request(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    mode: LockMode,
    explicit: bool,
) -> Result<Grant> {
    txn.settle(engine, explicit);
    // Who locks a row not for its own sake writes it.
    let writes = !explicit;
    let grant = granted(engine, txn, Sought::Row { row, writes }, mode)?;
    holds(engine, txn, row, grant)
}

/// [`request`] of a range or a table, which is explicit, unless the rank is settled.
pub(crate) fn request_wide(
    engine: &Engine,
    txn: &mut TxnState,
    sought: Sought<'_>,
    mode: LockMode,
) -> Result<Grant> {
    let grant = granted(engine, txn, sought, mode)?;
    txn.check(engine)?;
    Ok(grant)
}

/// [`request`] of an explicit lock, as one of several of a call, which counts it and looks at the state itself.
pub(crate) fn granted(
    engine: &Engine,
    txn: &mut TxnState,
    sought: Sought<'_>,
    mode: LockMode,
) -> Result<Grant> {
    match ask_for(engine, txn, sought, mode)? {
        Asked::Granted(grant) => Ok(grant),
        Asked::InLine(in_line) => in_line.wait(engine, txn),
    }
}

/// [`request`] of an explicit lock, but for the wait.
pub(crate) fn ask_for(
    engine: &Engine,
    txn: &mut TxnState,
    sought: Sought<'_>,
    mode: LockMode,
) -> Result<Asked> {
    txn.check(engine)?;
    txn.settle(engine, true);
    let patience = Patience::of(txn.policy);
    let wanted = Wanted {
        sought,
        mode,
        patience,
    };
    let decision = ask(engine, txn, &wanted, patience.policy);
    decided(engine, txn, &wanted, decision)
}

/// The grant is counted only for a transaction that is still active (W10).
pub(crate) fn holds(
    engine: &Engine,
    txn: &mut TxnState,
    row: &RowKey,
    grant: Grant,
) -> Result<Grant> {
    txn.check(engine)?;
    if grant.fresh {
        txn.count_locks(1);
        txn.memory.add_lock(row);
    }
    Ok(grant)
}

/// L7: takes a table SHARED, as whoever locks or writes in it does before; `explicit` as in [`request`]. `None`: it is had.
pub(crate) fn share(
    engine: &Engine,
    txn: &mut TxnState,
    table: &Arc<TableLock>,
    explicit: bool,
) -> Result<Option<InLine>> {
    txn.check(engine)?;
    txn.settle(engine, explicit);
    if engine.locks.share(&txn.owner, table) {
        return Ok(None);
    }
    let sought = Sought::Table(table, TableMode::Shared);
    match ask_for(engine, txn, sought, LockMode::Share)? {
        Asked::Granted(_) => Ok(None),
        Asked::InLine(in_line) => Ok(Some(in_line)),
    }
}

/// What many rows are asked for, for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be written.
    Write,
    /// For the locks' own sake; those that others have locked are passed over, if it skips them.
    Lock {
        /// Whether it does.
        skips: bool,
    },
}

/// *lock*, for many rows in one call: as [`request`] for each of them, but for what may be passed over.
pub(crate) fn request_many(
    engine: &Engine,
    txn: &mut TxnState,
    batch: &mut Batch,
    mode: LockMode,
    purpose: Purpose,
) -> Result<()> {
    txn.check(engine)?;
    txn.settle(engine, false);
    let patience = Patience::of(txn.policy);
    let writes = purpose == Purpose::Write;
    let terms = Terms::new(mode, txn.sub, patience.policy);
    let terms = if writes { terms.to_write() } else { terms };
    loop {
        let mut wakes = Wakes::default();
        let decision = engine
            .locks
            .request_batch(&txn.owner, batch, terms, &mut wakes);
        wakes.fire();
        let Some((decision, row)) = decision.zip(batch.current().cloned()) else {
            break;
        };
        let sought = Sought::Row { row: &row, writes };
        let wanted = Wanted {
            sought,
            mode,
            patience,
        };
        let granted = match decided(engine, txn, &wanted, decision) {
            Ok(Asked::InLine(in_line)) => in_line.wait(engine, txn),
            Ok(Asked::Granted(grant)) => Ok(grant),
            Err(error) => Err(error),
        };
        match granted {
            Ok(grant) => batch.granted(grant),
            Err(Error::WouldBlock { .. }) if purpose == (Purpose::Lock { skips: true }) => {
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
            let table = match wanted.sought {
                Sought::Table(table, mode) => Some((Arc::clone(table), mode)),
                Sought::Row { .. } | Sought::Range(_) | Sought::Tokens(_) => None,
            };
            Ok(Asked::InLine(InLine {
                ticket,
                table,
                patience: wanted.patience,
                since,
                give_up: timeout.map(|timeout| txn.give_up(since, timeout)),
            }))
        }
    }
}

fn ask(engine: &Engine, txn: &TxnState, wanted: &Wanted<'_>, policy: Policy) -> Decision {
    lease::expire_all(engine);
    let mut wakes = Wakes::default();
    let (mode, sub) = (wanted.mode, txn.sub);
    let decision = match wanted.sought {
        Sought::Row { row, writes } => {
            let request = Request {
                row,
                mode,
                writes,
                sub,
                policy,
            };
            engine.locks.request(&txn.owner, request, &mut wakes)
        }
        Sought::Range(range) => {
            let request = RangeRequest {
                range,
                mode,
                sub,
                policy,
            };
            engine.locks.request_range(&txn.owner, request, &mut wakes)
        }
        Sought::Table(table, mode) => {
            let locks = &engine.locks;
            locks.request_table(&txn.owner, (table, mode), policy, &mut wakes)
        }
        Sought::Tokens(request) => {
            let locks = &engine.locks;
            locks.request_tokens(&txn.owner, (request, sub), policy, &mut wakes)
        }
    };
    wakes.fire();
    decision
}

impl InLine {
    /// Sleeps until the request is decided or its time is up.
    pub(crate) fn wait(mut self, engine: &Engine, txn: &TxnState) -> Result<Grant> {
        if self.ticket.came_first() && engine.ports.background {
            txn.live.parker.linger();
        }
        loop {
            if let Some(outcome) = self.look(engine, txn) {
                return outcome;
            }
            let now = engine.ports.clock.now();
            let left = self.give_up.map(|at| at.saturating_sub(now));
            sleep(engine, txn, left);
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
        let mut ticket = Arc::clone(&self.ticket);
        loop {
            let mut wakes = Wakes::default();
            let outcome = engine.locks.cancel(&txn.owner, &ticket, &mut wakes);
            wakes.fire();
            if let Outcome::Granted(grant) = outcome {
                return Ok(grant);
            }
            ticket = match ask(engine, txn, &self.wanted(), Policy::NoWait) {
                Decision::Granted(grant) => return Ok(grant),
                Decision::Refused(refusal) => {
                    return Err(refused(engine, txn, &self.wanted(), refusal));
                }
                // K1: NoWait does not wait.
                Decision::Queued(ticket) => ticket,
            };
        }
    }

    pub(crate) fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    fn wanted(&self) -> Wanted<'_> {
        let sought = match (self.ticket.target(), &self.table) {
            (_, Some((table, mode))) => Sought::Table(table, *mode),
            (Target::Range(range), _) => Sought::Range(range),
            (Target::Tokens(request), _) => Sought::Tokens(request),
            (Target::Row(row), _) => {
                let writes = self.ticket.writes();
                Sought::Row { row, writes }
            }
            (Target::Table(_), None) => unreachable!("who waits for a table knows its lock"),
        };
        Wanted {
            sought,
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
                row = %name_target(engine, self.ticket.target()),
                mode = %self.ticket.mode(),
                waited_ms = waited.as_millis() as u64,
                "a lock was waited for for long"
            );
        }
    }
}

/// Until the parker is noticed, or so long. A harness of one thread has nobody who could notice it: there time passes by
/// steps.
fn sleep(engine: &Engine, txn: &TxnState, at_most: Option<Duration>) {
    const STEP: Duration = Duration::from_millis(1);
    lease::expire_all(engine);
    match at_most.filter(|_| !engine.ports.background) {
        Some(at_most) => engine.ports.clock.sleep(at_most.min(STEP)),
        None => txn.live.parker.park(at_most),
    }
}

/// A wait from here on is told of in the log of events.
const LONG_WAIT: Duration = Duration::from_secs(1);
