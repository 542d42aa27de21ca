//! Lock requests that wait as futures, on any executor.
//!
//! 1. L6: a task looks, leaves its waker, and looks again if there was a notice in between: none is lost.
//! 2. K4: a future that is dropped leaves the queue, and gives back a grant that it has not seen, to what was held before.
//!    One that is forgotten does so at the transaction's next call.
//! 3. The engine wakes it itself when its time is up: `alarm`.
//!
//! Crash: memory only, until the lock's record is in the log, which it is before the future answers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lockstone_base::{FencingToken, LockMode, RowKey};
use lockstone_locks::Grant;

use crate::alarm::Due;
use crate::error::{Error, Result};
use crate::key_value::Value;
use crate::lock_request::{Asked, InLine};
use crate::options::OnConflict;
use crate::table::Table;
use crate::transaction::Transaction;
use crate::write_path;

/// A lock request that waits as a future: [`Transaction::lock_async`].
///
/// Dropping it leaves the queue, and gives back a lock that it has not told of. A waker may be called on a thread of the
/// engine or of another transaction: like any waker it must not block, nor wait for this database.
#[derive(Debug)]
#[must_use = "it asks for nothing before it is polled"]
pub struct LockAsync<'a>(Asking<'a>);

/// A locked read that waits as a future: [`Transaction::get_for_async`]. As [`LockAsync`].
#[derive(Debug)]
#[must_use = "it asks for nothing before it is polled"]
pub struct GetForAsync<'a>(Asking<'a>);

impl Transaction {
    /// [`Transaction::lock`], as a future on any executor. Its timeout counts from the first poll, and needs no timer of the
    /// executor. The key is copied.
    ///
    /// Only the wait for the lock is a future's: like every call that writes, a poll may wait for room in the log.
    ///
    /// # Errors
    /// As [`Transaction::lock`].
    pub fn lock_async(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> LockAsync<'_> {
        let policy = self.state().policy;
        LockAsync(Asking::new(self, table, key.as_ref(), mode, policy))
    }

    /// [`Transaction::get_for`], as [`Transaction::lock_async`].
    ///
    /// # Errors
    /// As [`Transaction::get_for`].
    pub fn get_for_async(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> GetForAsync<'_> {
        let policy = self.state().policy;
        GetForAsync(Asking::new(self, table, key.as_ref(), mode, policy))
    }
}

impl LockAsync<'_> {
    pub(crate) fn under(mut self, policy: OnConflict) -> Self {
        self.0.policy = policy;
        self
    }
}

impl GetForAsync<'_> {
    pub(crate) fn under(mut self, policy: OnConflict) -> Self {
        self.0.policy = policy;
        self
    }
}

impl Future for LockAsync<'_> {
    type Output = Result<FencingToken>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let asking = &mut self.get_mut().0;
        let locked = ready!(asking.poll(context));
        let token = locked.and_then(|row| asking.txn.token_of(&row));
        Poll::Ready(asking.txn.note(token))
    }
}

impl Future for GetForAsync<'_> {
    type Output = Result<Option<Value>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let asking = &mut self.get_mut().0;
        let skips = asking.policy == OnConflict::SkipLocked;
        let value = match ready!(asking.poll(context)) {
            Err(Error::WouldBlock { .. }) if skips => {
                asking.txn.parts().0.counters.skip();
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(row) => asking.txn.read_row(&asking.table, &row),
        };
        Poll::Ready(asking.txn.note(value))
    }
}

/// A request for one row, from before it is made until it is answered.
#[derive(Debug)]
struct Asking<'a> {
    txn: &'a mut Transaction,
    table: Table,
    key: Vec<u8>,
    mode: LockMode,
    policy: OnConflict,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New,
    Waits(Waits),
    Answered,
}

#[derive(Debug)]
struct Waits {
    row: RowKey,
    line: InLine,
    due: Option<Due>,
}

impl<'a> Asking<'a> {
    fn new(
        txn: &'a mut Transaction,
        table: &Table,
        key: &[u8],
        mode: LockMode,
        policy: OnConflict,
    ) -> Self {
        Self {
            txn,
            table: table.clone(),
            key: key.to_vec(),
            mode,
            policy,
            stage: Stage::New,
        }
    }

    /// Asks at the first poll, then looks; the row, once its lock is held and logged. While somebody holds or awaits the table
    /// EXCLUSIVE, it waits for that first, and asks again.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<RowKey>> {
        if matches!(self.stage, Stage::New) {
            self.stage = Stage::Answered;
            match self.ask() {
                Err(error) => return Poll::Ready(Err(error)),
                Ok((row, Asked::Granted(grant))) => {
                    return Poll::Ready(self.log(row, Ok(grant)));
                }
                Ok((row, Asked::InLine(line))) => self.wait(row, line),
            }
        }
        let Stage::Waits(Waits { line, .. }) = &mut self.stage else {
            unreachable!("a future that has answered is not polled again");
        };
        let outcome = loop {
            let (engine, txn) = self.txn.parts_in_line();
            if let Some(outcome) = line.look(engine, txn) {
                break outcome;
            }
            if txn.live.parker.watch(context.waker()) {
                return Poll::Pending;
            }
        };
        self.txn.parts_in_line().1.was_decided();
        match self.stop_waiting() {
            Some(Waits { line, .. }) if line.ticket().row().is_none() && outcome.is_ok() => {
                self.stage = Stage::New;
                self.poll(context)
            }
            Some(Waits { row, .. }) => Poll::Ready(self.log(row, outcome)),
            None => unreachable!("it was just waiting"),
        }
    }

    fn ask(&mut self) -> Result<(RowKey, Asked)> {
        let (table, key, mode) = (&self.table, &self.key, self.mode);
        self.txn.under(self.policy, |txn| {
            let (engine, txn) = txn.parts();
            let row = table.row(engine, key)?;
            let asked = match table.ask_to_enter(engine, txn, true)? {
                Some(in_line) => Asked::InLine(in_line),
                None => write_path::ask(engine, txn, &row, mode)?,
            };
            Ok((row, asked))
        })
    }

    fn wait(&mut self, row: RowKey, line: InLine) {
        let (engine, txn) = self.txn.parts_in_line();
        txn.wait_for(line.ticket());
        let due = line
            .give_up()
            .map(|at| engine.alarm.set(at, txn.live.clone()));
        self.stage = Stage::Waits(Waits { row, line, due });
    }

    /// Takes back what would wake it.
    fn stop_waiting(&mut self) -> Option<Waits> {
        let Stage::Waits(waits) = std::mem::replace(&mut self.stage, Stage::Answered) else {
            return None;
        };
        let (engine, txn) = self.txn.parts_in_line();
        if let Some(due) = waits.due {
            engine.alarm.clear(due);
        }
        txn.live.parker.unwatch();
        Some(waits)
    }

    fn log(&mut self, row: RowKey, granted: Result<Grant>) -> Result<RowKey> {
        let (engine, txn) = self.txn.parts_in_line();
        write_path::log_granted(engine, txn, &row, granted)?;
        Ok(row)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.stop_waiting().is_some() {
            let (engine, txn) = self.txn.parts_in_line();
            txn.leave_line(engine);
        }
    }
}
