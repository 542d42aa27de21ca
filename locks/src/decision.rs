//! What a caller asks of the table, and what it is told.
//!
//! 1. A refusal leaves nothing behind: no ticket, no lock that was not held before.
//!
//! Crash: holds no state.

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, Rank, RowKey, TxnId};

use crate::cycle::Cycle;
use crate::policy::Policy;
use crate::runs::Unreadable;
use crate::target::{RowRange, Target};
use crate::ticket::{Grant, Ticket};

/// A request for one row.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The row; it need not exist.
    pub row: &'a RowKey,
    /// The mode wanted.
    pub mode: LockMode,
    /// Whether the row is to be written: it may be new, so beside ranges that counts as `Update`.
    pub writes: bool,
    /// The sub-transaction that asks; never smaller than at an earlier request.
    pub sub: u32,
    /// What to do when the lock is not free.
    pub policy: Policy,
}

/// A request for a range.
#[derive(Debug, Clone, Copy)]
pub struct RangeRequest<'a> {
    /// The range.
    pub range: &'a Arc<RowRange>,
    /// The mode wanted.
    pub mode: LockMode,
    /// The sub-transaction that asks; never smaller than at an earlier request.
    pub sub: u32,
    /// What to do when the lock is not free.
    pub policy: Policy,
}

/// The answer to a request.
#[derive(Debug)]
#[must_use]
pub enum Decision {
    /// The lock is held.
    Granted(Grant),
    /// The request waits. Poll [`LockTable::outcome`](crate::LockTable::outcome) after each notice.
    Queued(Arc<Ticket>),
    /// The lock is not had.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// [`Policy::NoWait`], and somebody is in the way.
    WouldBlock(Blocker),
    /// [`Policy::Wound`], and somebody in the way is of the same or a higher rank.
    Conflict(Blocker),
    /// The request closed a cycle and its own transaction was the victim: it is aborted and holds
    /// nothing.
    Deadlock(Arc<Cycle>),
    /// The transaction is no longer Active; [`Owner::cause`](crate::Owner::cause) says why.
    Ended,
    /// K2: a run in which the row may be locked cannot be read.
    Unreadable(Unreadable),
}

/// Who is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The transaction.
    pub txn: TxnId,
    /// Its rank.
    pub rank: Rank,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// The mode that it holds, or waits for ahead of the request.
    pub mode: LockMode,
}

/// A line of [`LockTable::list`](crate::LockTable::list).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockEntry {
    /// What it protects.
    pub target: Target,
    /// The mode held or asked for.
    pub mode: LockMode,
    /// The transaction.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// Its rank.
    pub rank: Rank,
    /// Held or waited for.
    pub status: LockStatus,
    /// The token of a lock that is held and in the log.
    pub token: Option<FencingToken>,
}

/// A line of [`LockTable::waits`](crate::LockTable::waits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitEntry {
    /// What is waited for.
    pub target: Target,
    /// The mode that is asked for.
    pub mode: LockMode,
    /// Who waits.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// For whom; nobody, if it is just being granted.
    pub waits_for: Vec<WaitsFor>,
}

/// Who stands in a waiter's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitsFor {
    /// The transaction.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// The mode that it holds, or asks for ahead of the waiter.
    pub mode: LockMode,
    /// Whether it is ahead in the queue, and no holder.
    pub soft: bool,
}

/// Whether a lock is held or waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStatus {
    /// Held.
    Granted,
    /// In the queue of the row.
    Waiting,
}
