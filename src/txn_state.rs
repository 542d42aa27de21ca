//! What a transaction is between its calls: its place in the lock table, its writes, its savepoints.
//! Owned by the handle; only the write path changes it.
//!
//! 1. Sub-transaction numbers only grow and are never reused; a savepoint is the number that it began.
//! 2. The rank is settled before the first lock and never changes.
//! 3. A transaction that is rolled back answers each later call with the first error.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lockstone_base::{Lsn, Rank, RowKey, TableId};
use lockstone_locks::{Owner, OwnerState, Ticket, Wakes};
use lockstone_recovery::record::{CONTEXT_BYTES, Context};
use lockstone_storage::{Current, OwnRuns, Sources};
use smallvec::SmallVec;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::held_back::HeldBack;
use crate::isolation::View;
use crate::lease::{self, why_aborted};
use crate::live::Notes;
use crate::options::{OnConflict, TxnOptions};
use crate::prerequisites::Prerequisites;
use crate::provisional_memory::{Share, Used};
use crate::write_set::WriteSet;

/// The state of one transaction.
pub(crate) struct TxnState {
    pub(crate) owner: Arc<Owner>,
    pub(crate) live: Arc<Notes>,
    pub(crate) options: TxnOptions,
    /// What the present call does on a conflict.
    pub(crate) policy: OnConflict,
    /// The largest draw of the attempts before, if it is a retry.
    draw_min: u32,
    /// What it sees, and what must be unchanged for it.
    pub(crate) view: View,
    pub(crate) writes: WriteSet,
    /// What it has written and spilled, as it reads that itself.
    pub(crate) own: Option<OwnRuns>,
    /// How often that was another.
    pub(crate) own_changes: u64,
    /// How many rows it has.
    own_rows: u64,
    /// What its locks take.
    pub(crate) memory: Share,
    /// The id and rank as its records carry them; there once the rank is settled.
    pub(crate) context: Option<[u8; CONTEXT_BYTES]>,
    pub(crate) sub: u32,
    /// The tables that it holds SHARED.
    pub(crate) tables: SmallVec<[TableId; 4]>,
    /// Of one that outlives a crash: the first sub-transaction of the call under way, if that takes more than one record.
    pub(crate) open_call: Option<u32>,
    /// The savepoints that are still valid, the innermost last.
    savepoints: Vec<u32>,
    /// The highest commit that it could have seen (W6).
    pub(crate) seen: Cell<Lsn>,
    /// Locks of a cursor whose records are still to be appended; there once a cursor was.
    pub(crate) held_back: Option<Arc<HeldBack>>,
    /// The wait of a future that has not ended yet.
    pending: Option<Arc<Ticket>>,
    /// Whether it was rolled back, counted and logged as such.
    pub(crate) rolled_back: bool,
    /// What must be there when it commits.
    pub(crate) prerequisites: Prerequisites,
    /// It is prepared, and this is what its handle has left of it.
    parted: bool,
    /// Why it was rolled back, if its own call did it.
    failed: Option<Error>,
    /// Whether its last failing call may succeed when run again: what `transact` asks.
    retryable: Cell<bool>,
    refused: Cell<bool>,
    /// When the time of the call under way is up, once it has waited: a timeout counts for all its waits.
    give_up: Cell<Option<Duration>>,
}

/// What a read sees.
#[derive(Debug)]
pub(crate) enum Seen {
    /// What is committed.
    Committed(Current),
    /// The same, under what the transaction has spilled.
    WithOwn(Arc<Sources>),
}

impl Deref for Seen {
    type Target = Arc<Sources>;

    fn deref(&self) -> &Arc<Sources> {
        match self {
            Self::Committed(sources) => sources,
            Self::WithOwn(sources) => sources,
        }
    }
}

/// Whose records are appended: what that takes of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author<'a> {
    pub(crate) owner: &'a Arc<Owner>,
    pub(crate) notes: &'a Notes,
    pub(crate) context: [u8; CONTEXT_BYTES],
}

/// Who it is, and nothing of its rows.
impl fmt::Debug for TxnState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxnState")
            .field("id", &self.owner.id())
            .field("label", &self.options.label)
            .field("state", &self.owner.state())
            .finish_non_exhaustive()
    }
}

impl TxnState {
    pub(crate) fn new(
        owner: Arc<Owner>,
        live: Arc<Notes>,
        options: TxnOptions,
        (view, memory): (View, Share),
        draw_min: u32,
    ) -> Self {
        Self {
            owner,
            live,
            failed: options.validate().err(),
            policy: options.on_conflict,
            draw_min,
            // What it begins with, it could have seen.
            seen: Cell::new(view.fixed_at().unwrap_or(Lsn::ZERO)),
            view,
            options,
            writes: WriteSet::default(),
            own: None,
            own_changes: 0,
            own_rows: 0,
            memory,
            context: None,
            sub: 0,
            tables: SmallVec::new(),
            open_call: None,
            savepoints: Vec::new(),
            held_back: None,
            pending: None,
            rolled_back: false,
            prerequisites: Prerequisites::default(),
            parted: false,
            retryable: Cell::new(false),
            refused: Cell::new(false),
            give_up: Cell::new(None),
        }
    }

    /// Takes the transaction out of its handle, which has nothing in its hands from then on: each of its calls says that the
    /// transaction has ended, and its end is nobody's.
    pub(crate) fn part(&mut self, engine: &Engine) -> Self {
        // What it sees is needed no more (W7).
        self.live.let_go();
        self.view = View::none();
        let begun = (View::none(), Share::new(&Used::new(&engine.provisional)));
        let (owner, live) = (Arc::clone(&self.owner), Arc::clone(&self.live));
        let mut left = Self::new(owner, live, self.options.clone(), begun, 0);
        left.failed = Some(Error::TransactionEnded);
        left.parted = true;
        std::mem::replace(self, left)
    }

    /// Whether it was.
    pub(crate) fn is_parted(&self) -> bool {
        self.parted
    }

    /// Whether the transaction goes on: asked before each call's work and again after it (W10).
    pub(crate) fn check(&self, engine: &Engine) -> Result<()> {
        engine.check_open()?;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.live.lease().is_some() {
            // Its locks are free before it is told.
            lease::expire(engine, &self.owner, &self.live);
        }
        match self.owner.state() {
            OwnerState::Active => {
                self.options.check_policy(self.policy)?;
                engine.check_serving()
            }
            OwnerState::Preparing
            | OwnerState::Prepared
            | OwnerState::Committing
            | OwnerState::Released => Err(Error::TransactionEnded),
            OwnerState::Ending | OwnerState::Aborted => {
                Err(why_aborted(engine, &self.owner, &self.live))
            }
        }
    }

    /// Why it does not go on, for one that does not hold what it was granted.
    pub(crate) fn ended(&self, engine: &Engine) -> Error {
        self.check(engine).err().unwrap_or(Error::TransactionEnded)
    }

    /// Remembers why it was rolled back by its own call.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.failed.get_or_insert_with(|| error.clone());
    }

    /// When the time of the call under way is up, that begins to wait at `since`.
    pub(crate) fn give_up(&self, since: Duration, timeout: Duration) -> Duration {
        let first = self.give_up.get();
        let give_up = first.unwrap_or_else(|| since.saturating_add(timeout));
        self.give_up.set(Some(give_up));
        give_up
    }

    /// Its call has ended: the next one has a timeout of its own.
    pub(crate) fn call_ended(&self) {
        self.give_up.set(None);
    }

    /// Notes how its call ended, for `transact`.
    pub(crate) fn note<T>(&self, result: Result<T>) -> Result<T> {
        self.call_ended();
        self.note_read(result)
    }

    /// Notes how a read went, which may be a part of a call.
    pub(crate) fn note_read<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.retryable.set(error.is_retryable());
            self.refused.set(matches!(error, Error::WouldBlock { .. }));
        }
        result
    }

    /// Whether its last failing call may succeed when run again.
    pub(crate) fn is_retryable(&self) -> bool {
        self.retryable.get()
    }

    /// Whether that was refused at once.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// Whether any of its records is in the log.
    pub(crate) fn is_logged(&self) -> bool {
        self.live.first_record().is_some()
    }

    /// Settles the rank at the first locking call; `explicit` if that one locks and does not write.
    pub(crate) fn settle(&mut self, engine: &Engine, explicit: bool) -> [u8; CONTEXT_BYTES] {
        *self.context.get_or_insert_with(|| {
            let draw = self.draw_min.max(engine.draw_of(self.owner.id()));
            let rank: Rank = self.options.priority.settle(draw, explicit);
            self.owner.settle(rank);
            Context {
                txn: self.owner.id(),
                rank,
            }
            .encode()
        })
    }

    /// Who it is for the log. The rank is settled.
    pub(crate) fn author(&self) -> Author<'_> {
        let context = self.context;
        Author {
            owner: &self.owner,
            notes: &self.live,
            context: context.expect("the rank is settled before the first lock"),
        }
    }

    /// What its cursors hold back.
    pub(crate) fn held_back(&mut self, engine: &Engine) -> &Arc<HeldBack> {
        let make = || Arc::new(HeldBack::new(engine.log.record_bytes_max()));
        self.held_back.get_or_insert_with(make)
    }

    /// Begins the next sub-transaction; its number.
    pub(crate) fn next_sub(&mut self) -> Result<u32> {
        let full =
            || Error::invalid("a transaction has at most 4294967295 savepoints and rollbacks");
        self.sub = self.sub.checked_add(1).ok_or_else(full)?;
        Ok(self.sub)
    }

    /// Marks a savepoint that the user holds; its number.
    pub(crate) fn mark(&mut self) -> Result<u32> {
        let sub = self.next_sub()?;
        self.savepoints.push(sub);
        Ok(sub)
    }

    /// Whether `sub` is a savepoint that can be rolled back to.
    pub(crate) fn is_marked(&self, sub: u32) -> bool {
        self.savepoints.binary_search(&sub).is_ok()
    }

    /// The sub-transactions that can be rolled back to, ascending.
    pub(crate) fn savepoints(&self) -> &[u32] {
        &self.savepoints
    }

    /// Forgets the savepoints that a rollback to `from` undoes: those behind it.
    pub(crate) fn unmark_behind(&mut self, from: u32) {
        let keep = self.savepoints.partition_point(|sub| *sub <= from);
        self.savepoints.truncate(keep);
    }

    /// Forgets a savepoint that nobody holds any more.
    pub(crate) fn unmark(&mut self, sub: u32) {
        if let Ok(at) = self.savepoints.binary_search(&sub) {
            self.savepoints.remove(at);
        }
    }

    /// A future waits for this, until it leaves the line.
    pub(crate) fn wait_for(&mut self, ticket: &Arc<Ticket>) {
        self.pending = Some(Arc::clone(ticket));
    }

    /// The wait of a future was decided.
    pub(crate) fn was_decided(&mut self) {
        self.pending = None;
    }

    /// K4: if a future waits that was dropped, or that nobody polls any more, it leaves the queue; a grant that it has not
    /// seen is given back.
    pub(crate) fn leave_line(&mut self, engine: &Engine) {
        if let Some(ticket) = self.pending.take() {
            let mut wakes = Wakes::default();
            engine.locks.abandon(&self.owner, &ticket, &mut wakes);
            wakes.fire();
            self.call_ended();
        }
    }

    /// Notes that it has seen what was committed up to `lsn`.
    pub(crate) fn saw(&self, lsn: Lsn) {
        self.seen.set(self.seen.get().max(lsn));
    }

    /// What it sees in `row`: its own write, or what its view has.
    pub(crate) fn read(&self, engine: &Engine, row: &RowKey) -> Result<Option<Bytes>> {
        if let Some(own) = self.writes.get(row.as_bytes()) {
            return Ok(own);
        }
        self.view.note_row(row);
        let (at, sources) = self.sources(engine);
        self.saw(at);
        let version = sources.get(row.as_bytes(), at)?;
        Ok(version.and_then(|version| version.value))
    }

    /// What a read sees that begins now, but for what is in memory of its own writes.
    pub(crate) fn sources(&self, engine: &Engine) -> (Lsn, Seen) {
        let (at, sources) = self.view.sources(engine);
        match &self.own {
            None => (at, Seen::Committed(sources)),
            Some(own) => (at, Seen::WithOwn(Arc::new(sources.under(own)))),
        }
    }

    /// What it has spilled has changed, or what is dead of it: its reads look again. What was spilled before number `behind`, and has
    /// not, stays open.
    pub(crate) fn look_at_spilled(&mut self, engine: &Engine, behind: u64) -> Result<()> {
        let earlier = self.own.take().filter(|_| behind > 0);
        if earlier.is_none() {
            self.own_rows = 0;
        }
        let writes = self
            .live
            .spilled
            .to_adopt(if earlier.is_some() { behind } else { 0 });
        self.own_changes += 1;
        self.own_rows += writes.iter().map(|run| run.entry.rows).sum::<u64>();
        self.own = if writes.is_empty() {
            earlier
        } else {
            Some(engine.store.open_own(earlier.as_ref(), writes)?)
        };
        Ok(())
    }

    /// Notes that it holds a table SHARED, or EXCLUSIVE.
    pub(crate) fn tables_held(&mut self, table: TableId) {
        if !self.tables.contains(&table) {
            self.tables.push(table);
        }
    }

    /// Notes `more` locks, for listings.
    pub(crate) fn count_locks(&self, more: u64) {
        self.live.locks.fetch_add(more, Ordering::Relaxed);
    }

    /// Notes that it has `held` locks in memory; those that are held back are counted when they are appended.
    pub(crate) fn recount_locks(&self, held: u64) {
        let waiting = self.held_back.as_ref().map_or(0, |held| held.fresh());
        let counted = held.saturating_sub(waiting) + self.live.spilled.locks();
        self.live.locks.store(counted, Ordering::Relaxed);
    }

    /// How many of its writes stand.
    pub(crate) fn effects(&self) -> u64 {
        self.writes.effects() + self.own_rows
    }

    /// Notes that, for listings.
    pub(crate) fn count_writes(&self) {
        self.live.writes.store(self.effects(), Ordering::Relaxed);
    }
}
