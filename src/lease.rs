//! Leases: transactions that live until commit, abort, or the end of their lease, whatever crashes in between; and how one that would
//! outlive a crash is ended.
//!
//! Called when such a transaction begins or is restored, by the alarm, and by whoever ends one.
//! 1. W9: who ends it makes it Ending; its locks bind until its Abort is in the log, in the hold in which it becomes Aborted. So no
//!    record of the next holder lies before it, and nothing that says that it has a lease behind it.
//! 2. A lease is over by the monotonic clock alone. It is looked at by the transaction's own calls and by the alarm; where no thread is
//!    in the background, also by everyone who asks for a lock.
//! 3. S6: what it has spilled goes when that it is not needed any more is on the device: before, the next open would miss it. While
//!    it is Ending it is needed.
//! 4. Who is no longer Active (it commits, is prepared, or has ended) is not ended by its lease.
//!
//! Crash: before the Abort is durable it is there again, with the full lease; nobody who came after it is then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lockstone_locks::{AbortCause, Notify, Owner, OwnerState, Wakes};
use lockstone_recovery::record::{Body, CONTEXT_BYTES, Context};
use lockstone_storage::provisional::ProvisionalRun;
use lockstone_wal::Record;
use parking_lot::Mutex;

use crate::alarm::Due;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lease_clock::LeaseClock;
use crate::live::Notes;
use crate::naming::name_cycle;

/// An end that could not be logged is tried again so much later.
const AGAIN: Duration = Duration::from_millis(100);

/// A transaction whose lease is looked after.
struct Leased {
    engine: Weak<Engine>,
    owner: Weak<Owner>,
    notes: Weak<Notes>,
    watch: Weak<Watch>,
}

/// When the alarm looks at it next. Goes with the transaction, and has the alarm forget it: a lease may last for ever.
struct Watch {
    engine: Weak<Engine>,
    next: Mutex<Option<Due>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let engine = self.engine.upgrade();
        if let Some((engine, due)) = engine.zip(self.next.get_mut().take()) {
            engine.alarm.clear(due);
        }
    }
}

impl Leased {
    fn with(&self, act: impl FnOnce(&Arc<Engine>, &Arc<Owner>, &Arc<Notes>)) {
        let engine = self.engine.upgrade();
        let txn = self.owner.upgrade().zip(self.notes.upgrade());
        if let Some((engine, (owner, notes))) = engine.zip(txn) {
            act(&engine, &owner, &notes);
        }
    }
}

/// The alarm's notice.
impl Notify for Leased {
    fn notify(&self) {
        self.with(|engine, owner, notes| {
            expire(engine, owner, notes);
            if let Some(watch) = self.watch.upgrade() {
                watch.look_later(owner, notes);
            }
        });
    }
}

/// From now on the transaction outlives crashes, for as long as it is pinged; before its first lock.
pub(crate) fn begin(engine: &Arc<Engine>, owner: &Arc<Owner>, notes: &Arc<Notes>, lasts: Duration) {
    owner.outlive();
    let watch = Arc::new(Watch {
        engine: Arc::downgrade(engine),
        next: Mutex::new(None),
    });
    let leased = watch.leased(owner, notes);
    let kept = Arc::clone(&watch);
    let end = move || {
        let _lives_as_long = &kept;
        leased.with(|engine, owner, notes| end(engine, owner, notes));
    };
    let clock = LeaseClock::new(lasts, engine.ports.clock.now());
    notes.note_lease(clock, Box::new(end));
    engine.counters.leased.fetch_add(1, Ordering::Relaxed);
    watch.look_later(owner, notes);
}

impl Watch {
    fn leased(self: &Arc<Self>, owner: &Arc<Owner>, notes: &Arc<Notes>) -> Leased {
        Leased {
            engine: self.engine.clone(),
            owner: Arc::downgrade(owner),
            notes: Arc::downgrade(notes),
            watch: Arc::downgrade(self),
        }
    }

    /// Has the alarm look at it when its lease is over, or, if it is still to be ended, soon.
    fn look_later(self: &Arc<Self>, owner: &Arc<Owner>, notes: &Arc<Notes>) {
        let Some(engine) = self
            .engine
            .upgrade()
            .filter(|engine| engine.ports.background)
        else {
            return;
        };
        let now = engine.ports.clock.now();
        let at = match owner.state() {
            OwnerState::Active => notes.lease().map(LeaseClock::until),
            OwnerState::Preparing | OwnerState::Ending => Some(now.saturating_add(AGAIN)),
            _ => None,
        };
        let leased = || Arc::new(self.leased(owner, notes));
        *self.next.lock() = at.map(|at| engine.alarm.set(at, leased()));
    }
}

/// Ends the transaction, if its lease is over, or if it is to be ended still.
pub(crate) fn expire(engine: &Engine, owner: &Arc<Owner>, notes: &Notes) {
    if engine.check_open().is_err() {
        // Who is detached is there again at the next open.
        return;
    }
    let mut wakes = Wakes::default();
    if let Some(lease) = notes.lease()
        && let Some(_not_renewed) = lease.over(engine.ports.clock.now())
    {
        let killed = engine
            .locks
            .kill(owner, AbortCause::LeaseExpired, &mut wakes);
        if killed {
            let label = owner.label().map(|label| &**label);
            tracing::info!(target: "lockstone::locks", txn = %owner.id(), label, "a lease is over");
        }
    }
    wakes.fire();
    has_ended(engine, owner, notes);
}

/// Renews a lease.
pub(crate) fn ping(engine: &Engine, owner: &Arc<Owner>, notes: &Notes) -> Result<()> {
    engine.check_serving()?;
    let lease = notes.lease();
    let lease =
        lease.ok_or_else(|| Error::invalid("the transaction has no lease: TxnOptions::lease"))?;
    if owner.is_active() && !lease.renew(engine.ports.clock.now()) {
        expire(engine, owner, notes);
    }
    match owner.state() {
        OwnerState::Active => Ok(()),
        OwnerState::Ending | OwnerState::Aborted => Err(why_aborted(engine, owner, notes)),
        _ => Err(Error::TransactionEnded),
    }
}

/// The error that stands for the way somebody else ended a transaction.
pub(crate) fn why_aborted(engine: &Engine, owner: &Owner, notes: &Notes) -> Error {
    match owner.cause() {
        Some(AbortCause::Deadlock(cycle)) => Error::Deadlock {
            cycle: Arc::new(name_cycle(engine, &cycle)),
        },
        Some(AbortCause::Wounded { by }) => Error::Wounded { by },
        Some(AbortCause::LogFull) => Error::LogFull {
            max: engine.options.log_bytes,
        },
        Some(AbortCause::Closed) => Error::Closed,
        Some(AbortCause::Poisoned) => Error::Poisoned,
        Some(AbortCause::LeaseExpired) => Error::LeaseExpired {
            txn: owner.id(),
            lease_ms: notes.lease().map_or(0, LeaseClock::lasts_ms),
        },
        _ => Error::TransactionEnded,
    }
}

/// S6: nobody needs these files of the transaction any more. Of one that outlives a crash that is so when what says it is on the device.
pub(crate) fn discard(engine: &Engine, notes: &Notes, spills: Vec<ProvisionalRun>) {
    if spills.is_empty() {
        return;
    }
    if notes.lease().is_some() && engine.log.wait_durable(engine.log.end()).is_err() {
        // W11: the next open finds out whether they are needed.
        return;
    }
    engine.discard_spills(spills);
}

/// Looks at all leases: where nobody does in the background.
pub(crate) fn expire_all(engine: &Engine) {
    if engine.ports.background || engine.counters.leased.load(Ordering::Relaxed) == 0 {
        return;
    }
    for txn in engine.live.all() {
        expire(engine, &txn.owner, &txn.notes);
    }
}

/// W9: Ending -> Aborted, behind the record that says so; then the release pass. Harmless when somebody else has done it.
fn end(engine: &Engine, owner: &Arc<Owner>, notes: &Notes) {
    if !end_in_log(engine, owner, notes) {
        return;
    }
    let mut wakes = Wakes::default();
    engine.locks.end(owner, &mut wakes);
    wakes.fire();
    // Its records are needed no more, and what it saw.
    notes.let_go();
    engine.live.end(notes, owner.id());
    engine.forget(owner.id());
}

/// Whether this call has ended it.
fn end_in_log(engine: &Engine, owner: &Owner, notes: &Notes) -> bool {
    let room = engine.log.reserve(CONTEXT_BYTES).ok();
    let mut hold = engine.log.hold();
    // In the hold, for it may be about to say that it has a lease. W11: once the log has failed nobody is told of anything any more.
    let is_found = notes.first_record().is_some() && hold.check().is_ok();
    if let Some(rank) = owner.rank().filter(|_| is_found) {
        let Some(room) = room else {
            return false; // There will be some.
        };
        if owner.state() != OwnerState::Ending {
            return false;
        }
        let (txn, body) = (owner.id(), Body::Abort.encode());
        let record = Record {
            tag: body.tag as u8,
            context: &Context { txn, rank }.encode(),
            body: &body.pieces(),
        };
        hold.append(room, &record);
    }
    owner.end()
}

/// S6: whether its end is in the log, if it is to be there; it is put there if it can be. Till then its files are needed.
pub(crate) fn has_ended(engine: &Engine, owner: &Arc<Owner>, notes: &Notes) -> bool {
    if owner.state() == OwnerState::Ending {
        end(engine, owner, notes);
    }
    owner.state() != OwnerState::Ending
}

#[cfg(test)]
mod tests;
