//! The first step of the write path: asks the lock table for a row, and waits in line if the policy says so.
//! Called by `write_path` only.
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
use lockstone_storage::PackedRows;

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
    let patience = Patience::of(txn.policy);
    let wanted = Wanted {
        row,
        mode,
        patience,
    };
    let decision = ask(engine, txn, &wanted, patience.policy);
    let grant = decided(engine, txn, &wanted, decision, &mut None)?;
    // The grant is counted only for a transaction that is still active (W10).
    txn.check(engine)?;
    if grant.fresh {
        txn.count_locks(1);
    }
    Ok(grant)
}

/// *lock*, for many rows in one call: as [`request`] for each of them.
pub(crate) fn request_many(
    engine: &Engine,
    txn: &mut TxnState,
    rows: &PackedRows,
    mode: LockMode,
) -> Result<Batch> {
    txn.check(engine)?;
    txn.settle(engine, false);
    let patience = Patience::of(txn.policy);
    let terms = Terms::new(mode, txn.sub, patience.policy);
    let mut batch = engine.locks.batch(
        (0..rows.len()).filter_map(|index| rows.row(index)),
        |index| rows.row_key(index).expect("rows are counted"),
    );
    let mut give_up = None;
    loop {
        let mut wakes = Wakes::default();
        let decision = engine
            .locks
            .request_batch(&txn.owner, &mut batch, terms, &mut wakes);
        wakes.fire();
        let Some((decision, row)) = decision.zip(batch.current().cloned()) else {
            break;
        };
        let wanted = Wanted {
            row: &row,
            mode,
            patience,
        };
        batch.granted(decided(engine, txn, &wanted, decision, &mut give_up)?);
    }
    txn.check(engine)?;
    let grants = (0..rows.len()).filter_map(|index| batch.grant(index));
    txn.count_locks(grants.filter(|grant| grant.fresh).count() as u64);
    Ok(batch)
}

/// Waits in line if that was the decision. `give_up`: when the call's time is up, once it is known.
fn decided(
    engine: &Engine,
    txn: &TxnState,
    wanted: &Wanted<'_>,
    decision: Decision,
    give_up: &mut Option<Duration>,
) -> Result<Grant> {
    let ticket = match decision {
        Decision::Granted(grant) => return Ok(grant),
        Decision::Refused(refusal) => return Err(refused(engine, txn, wanted, refusal)),
        Decision::Queued(ticket) => ticket,
    };
    if let (Some(timeout), None) = (wanted.patience.timeout, &give_up) {
        *give_up = Some(engine.ports.clock.now().saturating_add(timeout));
    }
    wait(engine, txn, wanted, &ticket, *give_up)
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

/// Sleeps until the request is decided or its time is up.
fn wait(
    engine: &Engine,
    txn: &TxnState,
    wanted: &Wanted<'_>,
    ticket: &Arc<Ticket>,
    give_up: Option<Duration>,
) -> Result<Grant> {
    engine.counters.waits.fetch_add(1, Ordering::Relaxed);
    let clock = &engine.ports.clock;
    let mut give_up = give_up;
    loop {
        match engine.locks.outcome(&txn.owner, ticket) {
            Some(Outcome::Granted(grant)) => return Ok(grant),
            Some(_) => return Err(ended(engine, txn)),
            None => {}
        }
        let left = give_up.map(|at| at.saturating_sub(clock.now()));
        let is_up = left == Some(Duration::ZERO);
        if is_up && !wanted.patience.then_wounds {
            return give_up_waiting(engine, txn, wanted, ticket);
        }
        // Who has won waits for one that is committing, and judges again when somebody else has come in between.
        let has_won = wanted.patience.policy == Policy::Wound
            || (wanted.patience.then_wounds && give_up.is_none());
        if is_up || has_won {
            let mut wakes = Wakes::default();
            let decision = engine.locks.wound(&txn.owner, ticket, &mut wakes);
            wakes.fire();
            match decision {
                Decision::Granted(grant) => return Ok(grant),
                Decision::Refused(refusal) => return Err(refused(engine, txn, wanted, refusal)),
                // It has won, and waits for one that is committing.
                Decision::Queued(_) => give_up = None,
            }
        }
        txn.live.parker.park(left);
    }
}

/// The time is up: leaves the queue, unless the grant came first. The last word is one more look
/// without waiting, which also tells who stands in the way.
fn give_up_waiting(
    engine: &Engine,
    txn: &TxnState,
    wanted: &Wanted<'_>,
    ticket: &Arc<Ticket>,
) -> Result<Grant> {
    let mut wakes = Wakes::default();
    let outcome = engine.locks.cancel(&txn.owner, ticket, &mut wakes);
    wakes.fire();
    if let Outcome::Granted(grant) = outcome {
        return Ok(grant);
    }
    match ask(engine, txn, wanted, Policy::NoWait) {
        Decision::Granted(grant) => Ok(grant),
        Decision::Refused(refusal) => Err(refused(engine, txn, wanted, refusal)),
        Decision::Queued(_) => unreachable!("K1: NoWait never queues"),
    }
}

fn refused(engine: &Engine, txn: &TxnState, wanted: &Wanted<'_>, refusal: Refusal) -> Error {
    match refusal {
        Refusal::WouldBlock(blocker) => would_block(engine, wanted, blocker),
        Refusal::Conflict(blocker) => Error::Conflict {
            txn: txn.owner.id(),
            row: name_row(engine, wanted.row),
            holder_priority: blocker.rank,
            held: blocker.mode,
            asked: wanted.mode,
            holder: holder(blocker),
        },
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
    let holder = holder(blocker);
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

fn holder(blocker: Blocker) -> Box<Holder> {
    Box::new(Holder {
        txn: blocker.txn,
        label: blocker.label,
        priority: Some(blocker.rank),
    })
}
