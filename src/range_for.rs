//! The locking cursor: locks exactly the rows that it yields, as it yields them.
//!
//! 1. After a wait the row is read anew; one that is gone is neither yielded nor kept locked.
//! 2. Rows inserted ahead of the cursor are seen: a step that finds the commit tail moved looks anew.
//! 3. Both ends may be used; they meet in the middle.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;
use lockstone_base::{LockMode, Lsn, RowKey};
use lockstone_storage::Scan;

use crate::engine::Engine;
use crate::error::{Error, Outcome, Result};
use crate::key_range::{RowBounds, between};
use crate::key_value::{Key, Value};
use crate::options::OnConflict;
use crate::range::{BothEnds, End};
use crate::txn_state::TxnState;
use crate::write_path::{self, Write};

/// A cursor that locks what it yields. `put` and `delete` act on the row last yielded, by either end.
#[derive(Debug)]
pub struct RangeFor<'a> {
    engine: &'a Engine,
    txn: &'a mut TxnState,
    /// What is left to yield; nothing when the ends have met.
    left: Option<RowBounds>,
    mode: LockMode,
    policy: OnConflict,
    committed: Option<Committed>,
    current: Option<RowKey>,
}

/// The committed rows of what is left, as of one LSN.
#[derive(Debug)]
struct Committed {
    at: Lsn,
    rows: BothEnds<Scan>,
    /// A damaged block was met: looking anew would meet it again, so these rows are walked on.
    past_damage: bool,
}

impl<'a> RangeFor<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        txn: &'a mut TxnState,
        bounds: Option<RowBounds>,
        mode: LockMode,
    ) -> Self {
        Self {
            policy: txn.policy,
            engine,
            txn,
            left: bounds,
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
            let result = cursor
                .current_row()
                .and_then(|row| write_path::write(cursor.engine, cursor.txn, row, write()?));
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

    fn step(&mut self, end: End) -> Option<Result<(Key, Value)>> {
        loop {
            let left = self.left.clone();
            let found = match self.next_row(end)? {
                Ok(row) => self.lock_and_read(&row).map(|value| (row, value)),
                Err(error) => Err(error),
            };
            if self.policy == OnConflict::SkipLocked
                && matches!(found, Err(Error::WouldBlock { .. }))
            {
                continue;
            }
            if found
                .as_ref()
                .is_err_and(|error| error.outcome() == Outcome::Unchanged)
            {
                // The row is not passed over: the next step comes back to it.
                self.left = left;
                self.committed = None;
            }
            match self.txn.note(found) {
                Ok((row, Some(value))) => {
                    let key = Key::from_slice(row.key());
                    self.current = Some(row);
                    return Some(Ok((key, Value::new(value))));
                }
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next row that the transaction sees from one end; what is left no longer holds it.
    fn next_row(&mut self, end: End) -> Option<Result<RowKey>> {
        loop {
            let bounds = self.left.clone()?;
            if let Err(error) = self.txn.check(self.engine) {
                self.left = None;
                return Some(Err(error));
            }
            let committed = refreshed(self.engine, self.txn, &mut self.committed, &bounds);
            let own = end.of(&mut self.txn.writes.range(&bounds));
            let order = match (own, committed.rows.peek(end)) {
                (None, None) => {
                    self.left = None;
                    return None;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) | (Some(_), Some(Err(_))) => Ordering::Greater,
                (Some(own), Some(Ok((row, _)))) => end.order(own.as_bytes(), row),
            };
            let taken = if order == Ordering::Less {
                None
            } else {
                committed.rows.take(end)
            };
            let (row, deleted) = match (own.filter(|_| order != Ordering::Greater), taken) {
                (Some(own), _) => (own.row(), own.is_deleted()),
                (None, Some(Ok((row, _)))) => (
                    RowKey::from_encoded(row).expect("the bounds hold whole rows"),
                    false,
                ),
                (None, Some(Err(error))) => {
                    committed.past_damage = true;
                    return Some(Err(error.into()));
                }
                (None, None) => unreachable!("the order was taken from one of the two"),
            };
            committed.past_damage = false;
            let edge = Bound::Excluded(row.to_bytes());
            self.left = match end {
                End::Front => between(edge, bounds.1),
                End::Back => between(bounds.0, edge),
            };
            if !deleted {
                return Some(Ok(row));
            }
        }
    }

    /// Locks the row, then reads its newest value. If it is gone and was not held before, the lock is
    /// given back: by an implicit savepoint.
    fn lock_and_read(&mut self, row: &RowKey) -> Result<Option<Bytes>> {
        let mode = self.mode;
        let (engine, txn) = (self.engine, &mut *self.txn);
        let held = engine.locks.holds(&txn.owner, row);
        let implicit = if held.is_none() {
            Some(txn.next_sub()?)
        } else {
            None
        };
        write_path::lock(engine, txn, row, mode, true)?;
        let value = txn.read(engine, row)?;
        if value.is_none()
            && let Some(from) = implicit
        {
            write_path::rollback_to(engine, txn, from)?;
        }
        txn.check(engine)?;
        Ok(value)
    }
}

/// The committed rows of what is left, as of the newest commit.
fn refreshed<'c>(
    engine: &Engine,
    txn: &TxnState,
    committed: &'c mut Option<Committed>,
    left: &RowBounds,
) -> &'c mut Committed {
    let tail = engine.watermarks.tail();
    let stale = committed
        .as_ref()
        .is_none_or(|rows| rows.at != tail && !rows.past_damage);
    if stale {
        let (at, sources) = engine.newest();
        let rows = BothEnds::new(sources.scan(left.clone(), at));
        *committed = Some(Committed {
            at,
            rows,
            past_damage: false,
        });
    }
    let committed = committed.as_mut().expect("made above if it was absent");
    txn.saw(committed.at);
    committed
}

impl Iterator for RangeFor<'_> {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.under_own_policy(|cursor| cursor.step(End::Front))
    }
}

impl DoubleEndedIterator for RangeFor<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.under_own_policy(|cursor| cursor.step(End::Back))
    }
}
