//! The locking cursor: locks exactly the rows that it yields, as it yields them.
//!
//! 1. A row is read again if anything was committed since it was looked for; one that is gone is neither yielded nor kept
//!    locked.
//! 2. Rows inserted ahead of the cursor are seen, in `ReadCommitted`: a step that finds the commit tail moved looks anew.
//! 3. Both ends may be used; they meet in the middle. A damaged block is told of once: until a row behind it is passed, the
//!    cursor looks nowhere anew.
//! 4. The records of its locks are held back, up to 256, and appended before it is left. It may be out of use long before
//!    it is dropped, so it does that through what it shares with the transaction, and borrows nothing for it.
//!
//! Crash: locks whose records are held back are lost, and with them the transaction.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{LockMode, Lsn, RowKey};
use lockstone_locks::{Owner, Walk};
use lockstone_recovery::record::CONTEXT_BYTES;
use lockstone_storage::Direction;

use crate::closing::EngineRef;
use crate::engine::Engine;
use crate::error::{Error, Outcome, Result};
use crate::held_back::HeldBack;
use crate::key_range::{RowBounds, between};
use crate::key_value::{Key, Value};
use crate::live::Notes;
use crate::log_step::append_held_back;
use crate::options::OnConflict;
use crate::range::{End, Peeked, owned};
use crate::txn_state::{Author, TxnState};
use crate::write_path::{self, Write};

/// A cursor that locks what it yields. `put` and `delete` act on the row last yielded, by either end.
#[derive(Debug)]
pub struct RangeFor<'a> {
    engine: &'a Engine,
    txn: &'a mut TxnState,
    /// What it was opened for; nothing when the ends have met.
    bounds: Option<RowBounds>,
    /// The last row that each end has passed.
    passed: [Option<RowKey>; 2],
    /// At which ends a damaged block was told of, and no row behind it passed yet: to look anew would meet it again.
    past_damage: [bool; 2],
    /// What each end has found then, and could not lock: its next step comes back to it.
    again: [Option<RowKey>; 2],
    mode: LockMode,
    policy: OnConflict,
    committed: Option<Committed>,
    /// Where a serializable transaction notes how far it has come (W8).
    walk: Option<Arc<Walk>>,
    current: Option<RowKey>,
    _leaving: Leaving,
}

/// So far ahead the table of locks is told what row may come: until it does the table's memory has time to arrive.
const ROWS_AHEAD: usize = 4;

/// The committed rows of what is left, as of one LSN.
#[derive(Debug)]
struct Committed {
    at: Lsn,
    /// As of which spill of the transaction's own.
    own_changes: u64,
    rows: Peeked,
}

/// Where the row lies that a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At this end of the scan.
    Committed(Direction),
    /// Not there: among the transaction's own writes, or one that it comes back to.
    Own,
}

impl<'a> RangeFor<'a> {
    pub(crate) fn new(
        engine: &'a Arc<EngineRef>,
        txn: &'a mut TxnState,
        bounds: Option<RowBounds>,
        mode: LockMode,
    ) -> Self {
        Self {
            _leaving: Leaving::new(engine, txn),
            policy: txn.policy,
            walk: bounds.as_ref().and_then(|it| txn.view.note_walk(it)),
            engine,
            txn,
            bounds,
            passed: [None, None],
            past_damage: [false; 2],
            again: [None, None],
            mode,
            committed: None,
            current: None,
        }
    }

    /// The same cursor, under another policy.
    pub(crate) fn under(mut self, policy: OnConflict) -> Self {
        self.policy = policy;
        self
    }

    /// Gives the row last yielded a value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no row was yielded yet; else as
    /// [`Transaction::put`](crate::Transaction::put).
    pub fn put(&mut self, value: impl AsRef<[u8]>) -> Result<()> {
        self.write(|| Write::put(value.as_ref()))
    }

    /// Removes the row last yielded.
    ///
    /// # Errors
    /// As [`RangeFor::put`].
    pub fn delete(&mut self) -> Result<()> {
        self.write(|| Ok(Write::Delete))
    }

    fn write(&mut self, write: impl FnOnce() -> Result<Write>) -> Result<()> {
        self.under_own_policy(|cursor| {
            let result = cursor.current_row().and_then(|row| {
                write_path::write(cursor.engine, cursor.txn, row, write()?)?;
                write_path::settle(cursor.engine, cursor.txn)
            });
            cursor.txn.note(result)
        })
    }

    fn current_row(&self) -> Result<RowKey> {
        self.current
            .clone()
            .ok_or_else(|| Error::invalid("the cursor has not yielded a row yet"))
    }

    /// One step, or one write, under the cursor's policy.
    fn under_own_policy<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        struct Restores<'c, 'a>(&'c mut RangeFor<'a>, OnConflict);
        impl Drop for Restores<'_, '_> {
            fn drop(&mut self) {
                self.0.txn.policy = self.1;
            }
        }
        let before = std::mem::replace(&mut self.txn.policy, self.policy);
        call(Restores(self, before).0)
    }

    fn step(&mut self, end: Direction) -> Option<Result<(Key, Value)>> {
        let step = self.walk_on(end);
        self.txn.call_ended();
        step
    }

    fn walk_on(&mut self, end: Direction) -> Option<Result<(Key, Value)>> {
        loop {
            let next = self.next_row(end);
            self.note(end, next.as_ref());
            let (row, place) = match next? {
                Ok(found) => found,
                Err(error) => return Some(self.txn.note(Err(error))),
            };
            let locked = self.lock_and_read(&row, place);
            let is_locked = matches!(locked, Err(Error::WouldBlock { .. }));
            let skipped = is_locked && self.policy == OnConflict::SkipLocked;
            let unchanged = |error: &Error| error.outcome() == Outcome::Unchanged;
            if !skipped && locked.as_ref().is_err_and(unchanged) {
                self.come_back(end, row, place);
                return Some(
                    self.txn
                        .note(locked.map(|_| unreachable!("it is an error"))),
                );
            }
            self.pass(end, &row, place);
            match locked {
                Ok(Some(found)) => {
                    self.current = Some(row);
                    return Some(Ok(found));
                }
                Err(error) if !skipped => return Some(self.txn.note(Err(error))),
                Err(_) => self.engine.counters.skip(),
                Ok(None) => {}
            }
        }
    }

    /// W8: notes how far it has come, whatever becomes of the row.
    fn note(&self, end: Direction, next: Option<&Result<(RowKey, Place)>>) {
        match (&self.walk, next) {
            (Some(walk), Some(Ok((row, _)))) => {
                walk.came_to(end == Direction::Forward, row.as_bytes());
            }
            (Some(walk), None) => walk.ended(),
            _ => {}
        }
    }

    fn pass(&mut self, end: Direction, row: &RowKey, place: Place) {
        let is_again = self.again.iter().flatten().any(|again| again == row);
        if is_again {
            self.again = self
                .again
                .clone()
                .map(|again| again.filter(|again| again != row));
        }
        if is_again || place != Place::Own {
            *at(end, &mut self.past_damage) = false;
        }
        *at(end, &mut self.passed) = Some(row.clone());
    }

    /// The row is not passed over.
    fn come_back(&mut self, end: Direction, row: RowKey, place: Place) {
        match place {
            Place::Own => {}
            Place::Committed(_) if self.is_past_damage() => *at(end, &mut self.again) = Some(row),
            Place::Committed(_) => self.committed = None,
        }
    }

    fn is_past_damage(&self) -> bool {
        self.past_damage.contains(&true)
    }

    /// The next row that the transaction sees from one end.
    fn next_row(&mut self, end: Direction) -> Option<Result<(RowKey, Place)>> {
        self.bounds.as_ref()?;
        if let Err(error) = self.txn.check(self.engine) {
            self.bounds = None;
            return Some(Err(error));
        }
        if let Some(row) = at(end, &mut self.again) {
            return Some(Ok((row.clone(), Place::Own)));
        }
        let newest = self.txn.view.newest_at(self.engine);
        let committed = self.committed.as_mut();
        let found = match committed
            .filter(|rows| rows.is_of(newest, self.txn) && self.txn.writes.is_empty())
        {
            Some(committed) => committed.take(end),
            None => self.found_anew(end),
        };
        *at(end, &mut self.past_damage) |= matches!(found, Some(Err(_)));
        let mut others = || at(end.reversed(), &mut self.again).clone();
        let found = found.or_else(|| Some(Ok((others()?, Place::Own))));
        // Whatever the scan has there: a wrong row does no harm.
        let ahead = self.committed.as_ref();
        if let Some(ahead) = ahead.and_then(|rows| rows.rows.scan.ahead(ROWS_AHEAD)) {
            self.engine.locks.expect(ahead);
        }
        if found.is_none() {
            self.bounds = None;
        }
        found
    }

    /// The same, where the committed rows are not up to date, or not all there is.
    fn found_anew(&mut self, end: Direction) -> Option<Result<(RowKey, Place)>> {
        let left = left(self.bounds.as_ref()?, &self.passed)?;
        let walks_on = self.is_past_damage();
        let committed = refreshed(self.engine, self.txn, (&mut self.committed, walks_on), left);
        if self.txn.writes.is_empty() {
            committed.take(end)
        } else {
            committed.merged(self.txn, left, end)
        }
    }

    /// Locks the row, then reads its newest value. If it is gone and was not held before, the lock is given back.
    fn lock_and_read(&mut self, row: &RowKey, place: Place) -> Result<Option<(Key, Value)>> {
        let (engine, txn) = (self.engine, &mut *self.txn);
        let grant = write_path::lock_one_of_many(engine, txn, row, self.mode)?;
        // Whoever is granted a lock and then loads the tail sees all that earlier holders committed (W2); and of a snapshot
        // the row is known to be unchanged.
        let as_found = self
            .committed
            .as_ref()
            .filter(|rows| rows.is_of(txn.view.newest_at(engine), txn));
        let found = match (place, as_found) {
            (Place::Committed(at), Some(rows)) => Ok(Some(owned(&rows.rows.scan, at))),
            _ => txn
                .read(engine, row)
                .map(|value| value.map(|value| (Key::from_slice(row.key()), Value::new(value)))),
        };
        if grant.fresh && !matches!(found, Ok(Some(_))) {
            write_path::give_back(engine, txn, |place| place == grant.place);
        } else {
            write_path::hold_back(engine, txn, row, grant)?;
        }
        write_path::hold_nothing_back_of_leased(engine, txn)?;
        txn.check(engine)?;
        found
    }
}

type Edges<'b> = (Bound<&'b [u8]>, Bound<&'b [u8]>);

/// What the ends have left between them, if that has room for a row.
fn left<'b>(bounds: &'b RowBounds, passed: &'b [Option<RowKey>; 2]) -> Option<Edges<'b>> {
    let [front, back] = passed;
    let behind = |passed: &'b Option<RowKey>, bound: &'b Bound<Bytes>| match passed {
        Some(row) => Bound::Excluded(row.as_bytes()),
        None => bound.as_ref().map(|row| &**row),
    };
    between(behind(front, &bounds.0), behind(back, &bounds.1))
}

/// Of the front's and the back's.
fn at<T>(end: Direction, [front, back]: &mut [T; 2]) -> &mut T {
    match end {
        Direction::Forward => front,
        Direction::Backward => back,
    }
}

/// The committed rows of what is left, as of the newest commit, or as of the transaction's snapshot; those that there are, if
/// it `walks_on` there.
fn refreshed<'c>(
    engine: &Engine,
    txn: &TxnState,
    (committed, walks_on): (&'c mut Option<Committed>, bool),
    left: Edges<'_>,
) -> &'c mut Committed {
    let newest = txn.view.newest_at(engine);
    // What has left memory is in files, of which these rows do not know.
    let is_stale =
        |rows: &Committed| rows.own_changes != txn.own_changes || (rows.at != newest && !walks_on);
    let stale = committed.as_ref().is_none_or(is_stale);
    if stale {
        let (at, sources) = txn.sources(engine);
        let copied = |edge: Bound<&[u8]>| edge.map(Bytes::copy_from_slice);
        *committed = Some(Committed {
            at,
            own_changes: txn.own_changes,
            rows: Peeked::new(sources.scan((copied(left.0), copied(left.1)), at)),
        });
        txn.saw(at);
    }
    committed.as_mut().expect("made above if it was absent")
}

impl Committed {
    /// Whether the transaction would see the same now, but for what it has written in memory.
    fn is_of(&self, newest: Lsn, txn: &TxnState) -> bool {
        self.at == newest && self.own_changes == txn.own_changes
    }

    /// The next committed row from one end.
    fn take(&mut self, end: Direction) -> Option<Result<(RowKey, Place)>> {
        if end == Direction::Forward && self.rows.is_untouched() && self.rows.scan.step_on() {
            return Some(Ok(self.found(end)));
        }
        Some(match self.rows.take(end)? {
            Ok(at) => Ok(self.found(at)),
            Err(error) => Err(error.into()),
        })
    }

    fn found(&self, at: Direction) -> (RowKey, Place) {
        let (row, _) = self.rows.scan.row(at);
        let row = RowKey::from_part(row, || Bytes::copy_from_slice(row));
        let row = row.expect("the bounds hold whole rows");
        (row, Place::Committed(at))
    }

    /// The next row from one end, of those that the transaction has written and the committed ones.
    fn merged(
        &mut self,
        txn: &TxnState,
        left: Edges<'_>,
        end: Direction,
    ) -> Option<Result<(RowKey, Place)>> {
        let mut own_rows = txn.writes.range(left);
        loop {
            let own = End::from(end).of(&mut own_rows.clone());
            let order = match (own, self.rows.peek(end)) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                // An error stands where its block stood: it is given out at once.
                (None, Some(_)) | (Some(_), Some(Err(()))) => Ordering::Greater,
                (Some(own), Some(Ok(at))) => {
                    let (row, _) = self.rows.scan.row(at);
                    End::from(end).order(own.as_bytes(), row)
                }
            };
            if order == Ordering::Greater {
                return self.take(end);
            }
            if order == Ordering::Equal {
                // The own one stands over it.
                let _ = self.rows.take(end);
            }
            let own = End::from(end).of(&mut own_rows);
            if let Some(own) = own.filter(|own| !own.is_deleted()) {
                return Some(Ok((own.row(), Place::Own)));
            }
        }
    }
}

/// What appends the records that are held back when the cursor goes.
struct Leaving {
    engine: Arc<EngineRef>,
    held: Arc<HeldBack>,
    owner: Arc<Owner>,
    notes: Arc<Notes>,
    context: [u8; CONTEXT_BYTES],
}

impl Leaving {
    fn new(engine: &Arc<EngineRef>, txn: &mut TxnState) -> Self {
        Self {
            engine: Arc::clone(engine),
            held: Arc::clone(txn.held_back(engine)),
            owner: Arc::clone(&txn.owner),
            notes: Arc::clone(&txn.live),
            context: txn.settle(engine, true),
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let author = Author {
            owner: &self.owner,
            notes: &self.notes,
            context: self.context,
        };
        // What cannot be appended waits on, and the transaction's next call fails.
        let _ = append_held_back(&self.engine, author, &self.held);
    }
}

impl std::fmt::Debug for Leaving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaving").finish_non_exhaustive()
    }
}

impl Iterator for RangeFor<'_> {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.under_own_policy(|cursor| cursor.step(Direction::Forward))
    }
}

impl DoubleEndedIterator for RangeFor<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.under_own_policy(|cursor| cursor.step(Direction::Backward))
    }
}
