//! A transaction as the lock table knows it: its state, what it has acquired, what it waits for.
//!
//! Made by [`LockTable::begin`](crate::LockTable::begin); entries of the table hold it, and read its
//! state to know whether they still bind.
//! 1. L5: one compare-and-swap decides each change of state; who wins it runs the release pass, once.
//! 2. K5: its locks bind in every state but Released and Aborted. In these two every entry that
//!    names it is void, at once, whatever is left of it in memory.
//! 3. K5: an acquisition joins under the owner's latch and only while Active, so a release pass,
//!    which takes the latch after the state has changed, misses none.
//! 4. Latch order: owner, then shard, then the small latches here (stack, cause, batch tokens). A thread
//!    latches one owner at a time, and none while it holds a shard.
//!
//! 5. R2: only who is Active can be aborted by others. Prepared is left by its commit or its own abort alone.
//!
//! Crash: memory only; the log knows who committed, and who is prepared.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use lockstone_base::{FencingToken, Rank, TableId, TxnId};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::contended::Contended;
use crate::cycle::Cycle;
use crate::life::{Life, OwnerState, Pinning};
use crate::slots::{OwnerName, Seat};
use crate::spilled::Spilled;
use crate::table_set::TableSet;
use crate::ticket::{Hold, Ticket, UNSTAMPED};
use crate::undo::Undo;

/// Whom to wake when a wait is decided. Called without any latch held; a notice that comes before
/// the sleep must not be lost.
pub trait Notify: Send + Sync {
    /// The transaction's wait may be over: its thread should look.
    fn notify(&self);

    /// W9: the transaction, which outlives a crash, is Ending: its end is to be logged, and then it is to be
    /// [ended](Owner::end). Called at least once; without any latch held.
    fn ending(&self) {}
}

/// Why a transaction was aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortCause {
    /// Its user asked for it, or dropped it.
    Requested,
    /// It was the victim of this deadlock.
    Deadlock(Arc<Cycle>),
    /// One of higher rank wanted what it held, or waited for.
    Wounded {
        /// Who.
        by: TxnId,
    },
    /// It held back a full log.
    LogFull,
    /// Its lease was over.
    LeaseExpired,
    /// The database was closed.
    Closed,
    /// The log failed.
    Poisoned,
}

/// What the owner's latch protects.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) undo: Undo,
    /// K4: the one queue it waits in. Stays here when granted, until the grant is taken.
    waiting: Option<Arc<Ticket>>,
    /// K7: the tables that it holds EXCLUSIVE.
    pub(crate) exclusive: SmallVec<[TableId; 1]>,
    /// V1: what of it lies in runs.
    pub(crate) spilled: Spilled,
}

impl Holdings {
    pub(crate) fn waiting(&self) -> Option<&Arc<Ticket>> {
        self.waiting.as_ref()
    }

    pub(crate) fn wait_for(&mut self, ticket: Arc<Ticket>) {
        assert!(
            self.waiting.is_none(),
            "K4: a transaction waits in one queue at a time"
        );
        self.waiting = Some(ticket);
    }

    /// Whether `ticket` was the wait; it is over now.
    pub(crate) fn stop_waiting(&mut self, ticket: &Arc<Ticket>) -> bool {
        let is_it = self
            .waiting
            .as_ref()
            .is_some_and(|waiting| Arc::ptr_eq(waiting, ticket));
        if is_it {
            self.waiting = None;
        }
        is_it
    }

    /// Whether any row is held, in memory or by runs, and whether any range is.
    pub(crate) fn holds(&self) -> (bool, bool) {
        let (rows, ranges) = self.undo.holds();
        (rows || self.spilled.runs > 0, ranges)
    }

    /// K5: everything, for the release pass.
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }
}

/// A transaction that holds locks or may come to.
pub struct Owner {
    id: TxnId,
    /// The attempt of which it is a retry, if it is one.
    first: OnceLock<TxnId>,
    label: Option<Arc<str>>,
    rank: OnceLock<Rank>,
    life: Life,
    /// W9: it would be there again after a crash.
    outlives: AtomicBool,
    /// Taken around the swap to Aborted, so that whoever sees that state finds the cause.
    cause: Mutex<Option<AbortCause>>,
    holdings: Mutex<Holdings>,
    /// K4: the rows on which somebody waits for this owner, the ranges and tables that do (K6), and perhaps some where
    /// nobody does any more. Pushed by others, under the row latch or that of the wide locks.
    contended: Mutex<Contended>,
    /// K7: the tables that it holds SHARED.
    tables: TableSet,
    /// The tokens of batches, by the sub-transactions that made them.
    batch_tokens: Mutex<Vec<(u32, FencingToken)>>,
    notify: Arc<dyn Notify>,
    /// Its name in the table's entries.
    seat: Seat<Self>,
}

impl Owner {
    pub(crate) fn new(
        id: TxnId,
        label: Option<Arc<str>>,
        notify: Arc<dyn Notify>,
        seat: Seat<Self>,
    ) -> Self {
        Self {
            id,
            first: OnceLock::new(),
            label,
            rank: OnceLock::new(),
            life: Life::new(),
            outlives: AtomicBool::new(false),
            cause: Mutex::new(None),
            holdings: Mutex::default(),
            contended: Mutex::default(),
            tables: TableSet::default(),
            batch_tokens: Mutex::default(),
            notify,
            seat,
        }
    }

    /// Gives it the age of `first`, the attempt of which it is a retry; once, before its first request.
    /// A retry must not stay the youngest, which dies in deadlocks.
    pub fn inherit_age(&self, first: TxnId) {
        assert!(
            first <= self.id,
            "a retry is younger than the first attempt"
        );
        self.first.get_or_init(|| first);
    }

    /// What is compared when the youngest is looked for: larger is younger.
    pub(crate) fn age(&self) -> TxnId {
        self.first.get().copied().unwrap_or(self.id)
    }

    /// The transaction.
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// Its label.
    pub fn label(&self) -> Option<&Arc<str>> {
        self.label.as_ref()
    }

    /// Sets the rank, once, before the first lock; returns the rank that stands.
    pub fn settle(&self, rank: Rank) -> Rank {
        *self.rank.get_or_init(|| rank)
    }

    /// The rank, once settled.
    pub fn rank(&self) -> Option<Rank> {
        self.rank.get().copied()
    }

    /// The rank of an owner that has made a request.
    pub(crate) fn settled_rank(&self) -> Rank {
        let rank = self.rank();
        rank.expect("a transaction's rank is settled before its first lock")
    }

    /// What queues and the choice of a deadlock's victim compare; a higher number goes first.
    pub(crate) fn order(&self) -> u64 {
        self.settled_rank().queue_order()
    }

    /// Where it is in its life.
    pub fn state(&self) -> OwnerState {
        self.life.state()
    }

    /// Whether it can still take locks.
    pub fn is_active(&self) -> bool {
        self.state() == OwnerState::Active
    }

    /// Why it was aborted, if it was.
    pub fn cause(&self) -> Option<AbortCause> {
        self.cause.lock().clone()
    }

    /// Active → Committing: from here nobody can abort it. `false` if it was no longer Active.
    #[must_use]
    pub fn try_commit(&self) -> bool {
        self.swap(OwnerState::Active, OwnerState::Committing)
    }

    /// Active → Preparing: from here nobody can abort it, and it takes no more locks. `false` if it was no longer Active.
    #[must_use]
    pub fn try_prepare(&self) -> bool {
        self.swap(OwnerState::Active, OwnerState::Preparing)
    }

    /// Preparing → Prepared: its record is on the device, or recovery has found it there.
    ///
    /// # Panics
    ///
    /// If it was not Preparing.
    pub fn prepared(&self) {
        let was_preparing = self.swap(OwnerState::Preparing, OwnerState::Prepared);
        assert!(was_preparing, "R2: only who prepares is prepared");
    }

    /// Prepared → Committing, for the one who has taken it out of the list of those who are prepared.
    ///
    /// # Panics
    ///
    /// If it was not Prepared.
    pub fn commit_prepared(&self) {
        let was_prepared = self.swap(OwnerState::Prepared, OwnerState::Committing);
        assert!(was_prepared, "R2: one alone ends who is prepared");
    }

    /// Prepared → Aborted, as [`Owner::commit_prepared`]; W9: its abort is in the log. The caller runs
    /// [`LockTable::end`](crate::LockTable::end) next.
    ///
    /// # Panics
    ///
    /// If it was not Prepared.
    pub fn abort_prepared(&self, cause: AbortCause) {
        let was_prepared = self.abort_from(OwnerState::Prepared, cause);
        assert!(was_prepared, "R2: one alone ends who is prepared");
    }

    /// Committing → Released: its locks are void. The caller runs
    /// [`LockTable::end`](crate::LockTable::end) next.
    ///
    /// # Panics
    ///
    /// If it was not Committing.
    pub fn released(&self) {
        let was_committing = self.swap(OwnerState::Committing, OwnerState::Released);
        assert!(
            was_committing,
            "K5: only a committing transaction is released"
        );
    }

    /// Active → Aborted, or, if it outlives a crash, Ending. `true`: the caller runs
    /// [`LockTable::end`](crate::LockTable::end) next.
    #[must_use]
    pub fn try_abort(&self, cause: AbortCause) -> bool {
        self.abort_from(OwnerState::Active, cause)
    }

    /// W9: from now on it would be there again after a crash; before its first lock. Whoever aborts it makes it Ending;
    /// [`Notify::ending`] has it logged, and then [`Owner::end`] is called.
    pub fn outlive(&self) {
        self.outlives.store(true, Ordering::Release);
    }

    /// Ending → Aborted: its end is in the log, or about to be appended in the same hold of the log's latch. `true`: the caller
    /// runs [`LockTable::end`](crate::LockTable::end) next.
    #[must_use]
    pub fn end(&self) -> bool {
        self.swap(OwnerState::Ending, OwnerState::Aborted)
    }

    /// Committing → Aborted, for the thread that made it Committing and has not handed its commit
    /// record to the log: a failed prerequisite, or a poisoned log. `true`: the caller runs
    /// [`LockTable::end`](crate::LockTable::end) next.
    #[must_use]
    pub fn abort_commit(&self, cause: AbortCause) -> bool {
        self.abort_from(OwnerState::Committing, cause)
    }

    fn abort_from(&self, from: OwnerState, cause: AbortCause) -> bool {
        let mut slot = self.cause.lock();
        let outlives = from == OwnerState::Active && self.outlives.load(Ordering::Acquire);
        let to = if outlives {
            OwnerState::Ending
        } else {
            OwnerState::Aborted
        };
        let won = self.swap(from, to);
        if won {
            assert!(slot.is_none(), "K5: a transaction is aborted once");
            *slot = Some(cause);
        }
        won
    }

    fn swap(&self, from: OwnerState, to: OwnerState) -> bool {
        let swapped = self.life.swap(from, to);
        if swapped && matches!(to, OwnerState::Released | OwnerState::Aborted) {
            self.seat.void();
        }
        swapped
    }

    /// How often it has rolled back to a savepoint.
    pub fn rollbacks(&self) -> u32 {
        self.life.rollbacks()
    }

    /// Keeps it from ending and from rolling back for a moment, if it is alive and has rolled back so often: until
    /// [`Owner::unpin`], by whoever holds the latch in which commits are decided. Once for each commit.
    pub fn pin(&self, rollbacks: u32) -> Pinning {
        self.life.pin(rollbacks)
    }

    /// What was pinned goes on.
    ///
    /// # Panics
    ///
    /// If it was not.
    pub fn unpin(&self) {
        self.life.unpin();
    }

    pub(crate) fn note_rollback(&self) {
        self.life.note_rollback();
    }

    pub(crate) fn seat(&self) -> &Seat<Self> {
        &self.seat
    }

    pub(crate) fn name(&self) -> OwnerName {
        self.seat.name()
    }

    /// K5: whether its locks bind; if not, every entry that names it is void.
    pub(crate) fn binds(&self) -> bool {
        !matches!(self.state(), OwnerState::Released | OwnerState::Aborted)
    }

    /// V1: whether runs of its locks may be listed.
    pub(crate) fn may_spill(&self) -> bool {
        matches!(self.state(), OwnerState::Active | OwnerState::Prepared)
    }

    /// L5: whether a request of `rank` dies of it. Who prepares or commits is waited for: that takes but a moment.
    pub(crate) fn withstands(&self, rank: Rank) -> bool {
        match self.state() {
            OwnerState::Active => !rank.exceeds(self.settled_rank()),
            OwnerState::Prepared => true,
            _ => false,
        }
    }

    pub(crate) fn is(&self, other: &Arc<Self>) -> bool {
        std::ptr::eq(self, Arc::as_ptr(other))
    }

    /// The owner's latch.
    pub(crate) fn latch(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock()
    }

    /// The rows that sub-transaction `sub` acquired in a batch have this token.
    pub(crate) fn stamp_batch(&self, sub: u32, token: FencingToken) {
        let mut tokens = self.batch_tokens.lock();
        let newest = tokens.last().map_or(0, |(sub, _)| *sub);
        assert!(
            newest < sub,
            "L9: each batch has a sub-transaction of its own"
        );
        tokens.push((sub, token));
    }

    /// L9: the batches of sub-transactions from `sub` on are undone.
    pub(crate) fn forget_batches(&self, sub: u32) {
        let mut tokens = self.batch_tokens.lock();
        let keep = tokens.partition_point(|(batch, _)| *batch < sub);
        tokens.truncate(keep);
    }

    /// The token of a hold, once stamped by itself or with its batch.
    pub(crate) fn token(&self, hold: Hold) -> Option<FencingToken> {
        if hold.token != UNSTAMPED {
            return Some(hold.token);
        }
        let tokens = self.batch_tokens.lock();
        let at = tokens.binary_search_by_key(&hold.sub, |(sub, _)| *sub);
        at.ok()
            .and_then(|at| tokens.get(at))
            .map(|(_, token)| *token)
    }

    /// K7: the tables that it holds SHARED.
    pub(crate) fn tables(&self) -> &TableSet {
        &self.tables
    }

    /// Where somebody waits for this owner (K4, K6). Filled under the latch of what is waited for.
    pub(crate) fn contended(&self) -> MutexGuard<'_, Contended> {
        self.contended.lock()
    }

    /// K4: all of it, for the release pass.
    pub(crate) fn take_contended(&self) -> Contended {
        mem::take(&mut *self.contended.lock())
    }

    pub(crate) fn notify(&self) {
        self.notify.notify();
    }

    pub(crate) fn tell_to_end(&self) {
        self.notify.ending();
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("id", &self.id)
            .field("label", &self.label)
            .field("rank", &self.rank())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
