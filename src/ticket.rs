//! A commit that is on its way to the device: wait for it, await it, or let it go.
//!
//! Made by `Transaction::commit_async`; what it stands for is done by the write path.
//! 1. The transaction has ended when there is a ticket: it is applied, its locks are free. What is open is
//!    whether it is on the device.
//! 2. Someone drives the flush though nobody polls: dropping the ticket neither cancels nor delays.
//! 3. A future that is polled again answers again.
//! 4. Its waker is called by whichever thread has made the commit durable, with nothing of the log held.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lockstone_base::Lsn;
use lockstone_wal::Watch;

use crate::closing::EngineRef;
use crate::error::Result;
use crate::promise::{self, Promise};

/// A commit that is on its way to the device. A `Future` for any executor; [`CommitTicket::wait`] for a
/// thread. One thread can have thousands of them.
///
/// - The transaction has ended when there is a ticket: it is applied, its locks are free. What is open is whether it is
///   on the device. An error of the commit itself is in the ticket too.
/// - Dropping it neither cancels nor delays the commit; its error is then told to nobody.
/// - A future that is polled again answers again. That of a `Buffered` commit is ready at once.
/// - It is a handle: the database stays open while it lives.
/// - A waker may run on a thread of the engine: like any waker it must not block, nor wait for this database.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
/// let events = db.create_table("events")?;
/// let mut tickets = Vec::new();
/// for number in 0..100_u32 {
///     let mut txn = db.begin();
///     txn.put(&events, number.to_be_bytes(), "seen")?;
///     tickets.push(txn.commit_async());
/// }
/// for ticket in tickets {
///     ticket.wait()?; // now it is on the device
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "an error of the commit is told through its ticket: wait for it, await it, or drop it explicitly"]
pub struct CommitTicket {
    engine: Arc<EngineRef>,
    state: State,
    watch: Watch,
}

#[derive(Debug)]
enum State {
    Pending(Promise),
    Done(Result<Lsn>),
}

impl CommitTicket {
    pub(crate) fn new(engine: Arc<EngineRef>, outcome: Result<Promise>) -> Self {
        let state = match outcome {
            Ok(promise) => State::Pending(promise),
            Err(error) => State::Done(Err(error)),
        };
        if let State::Pending(Promise {
            until: Some(until), ..
        }) = state
        {
            engine.log.ask(until);
        }
        Self {
            engine,
            state,
            watch: Watch::default(),
        }
    }

    /// Waits until the commit is on the device; its LSN.
    ///
    /// # Errors
    /// As [`Transaction::commit`](crate::Transaction::commit).
    pub fn wait(self) -> Result<Lsn> {
        match self.state {
            State::Done(outcome) => outcome,
            State::Pending(promise) => promise::keep(&self.engine, promise),
        }
    }

    fn look(&mut self, promise: Promise, context: &mut Context<'_>) -> Poll<Result<Lsn>> {
        let engine = &**self.engine;
        let Some(until) = promise.until else {
            return Poll::Ready(promise::acknowledge(engine, promise, Ok(())));
        };
        if !engine.ports.background {
            // Nobody else is there to drive the flush.
            return Poll::Ready(promise::keep(engine, promise));
        }
        engine
            .log
            .poll_durable(until, &mut self.watch, context)
            .map(|reached| promise::acknowledge(engine, promise, reached))
    }
}

impl Future for CommitTicket {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Lsn>> {
        let ticket = self.get_mut();
        let promise = match &ticket.state {
            State::Done(outcome) => return Poll::Ready(outcome.clone()),
            State::Pending(promise) => *promise,
        };
        let looked = ticket.look(promise, context);
        if let Poll::Ready(outcome) = &looked {
            ticket.state = State::Done(outcome.clone());
        }
        looked
    }
}
