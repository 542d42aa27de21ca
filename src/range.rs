//! The iterator over a range of rows: committed versions, and a transaction's own writes over them.
//!
//! 1. All rows are as of one moment: the LSN that the range was opened with.
//! 2. Both ends may be used on one iterator; they meet in the middle.
//! 3. W10: each step checks the transaction's state after it has read.
//! 4. A committed row stays where it lies; what is given out as a handle is copied if it is short.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use lockstone_base::{Lsn, RowKey};
use lockstone_locks::Walk;
use lockstone_storage::{Direction, Scan, Sources, StorageError};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::key_range::{RowBounds, borrowed};
use crate::key_value::{Key, Value};
use crate::own_rows::{OwnRow, OwnRows};
use crate::txn_state::TxnState;

/// The rows of a range, in order of their keys.
#[derive(Debug)]
pub struct Range<'a> {
    /// Nothing when the bounds leave no room for a row.
    rows: Option<Merged<'a>>,
    /// Where a serializable transaction notes how far it has come (W8).
    walk: Option<Arc<Walk>>,
    checks: Checks<'a>,
}

/// Whom a step asks whether its row may still be given out.
#[derive(Debug)]
enum Checks<'a> {
    Transaction(&'a Engine, &'a TxnState),
    Snapshot(&'a Engine),
}

#[derive(Debug)]
struct Merged<'a> {
    committed: Peeked,
    own: Option<OwnRows<'a>>,
}

/// Where the row lies that a step has come to.
#[derive(Debug)]
enum Found<'a> {
    /// At this end of the scan.
    Committed(Direction),
    Own(OwnRow<'a>),
}

/// A visit asks for a snapshot's sake whether the database is still open at every so many rows.
const VISITED_MAX: u32 = 256;

impl<'a> Range<'a> {
    pub(crate) fn of_transaction(
        engine: &'a Engine,
        txn: &'a TxnState,
        sources: &Arc<Sources>,
        bounds: Option<RowBounds>,
        at: Lsn,
    ) -> Self {
        let walk = bounds.as_ref().and_then(|it| txn.view.note_walk(it));
        let rows = bounds.map(|bounds| Merged {
            own: (!txn.writes.is_empty()).then(|| txn.writes.range(borrowed(&bounds))),
            committed: Peeked::new(sources.scan(bounds, at)),
        });
        Self {
            rows,
            walk,
            checks: Checks::Transaction(engine, txn),
        }
    }

    pub(crate) fn of_snapshot(
        engine: &'a Engine,
        sources: &Arc<Sources>,
        bounds: Option<RowBounds>,
        at: Lsn,
    ) -> Self {
        let committed = |bounds| Merged {
            own: None,
            committed: Peeked::new(sources.scan(bounds, at)),
        };
        Self {
            rows: bounds.map(committed),
            walk: None,
            checks: Checks::Snapshot(engine),
        }
    }

    /// Shows every row that is left, key and value, from the front, until `see` breaks: without a copy. Short of
    /// that it is as if the rows were taken with [`next`](Iterator::next), and the range may be used further.
    ///
    /// ```
    /// # fn main() -> lockstone::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = lockstone::Database::open(dir.path().join("db"))?;
    /// # let fruit = db.create_table("fruit")?;
    /// use std::ops::ControlFlow;
    ///
    /// let mut bytes = 0;
    /// let seen = db.snapshot().range(&fruit, ..)?.visit(|key, value| {
    ///     bytes += key.len() + value.len();
    ///     if bytes < 1_000_000 { ControlFlow::Continue(()) } else { ControlFlow::Break("enough") }
    /// })?;
    /// assert_eq!(seen, ControlFlow::Continue(()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As each step of the iterator; a visit that is begun anew goes on behind what could not be read.
    pub fn visit<B>(
        &mut self,
        mut see: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let Some(rows) = &mut self.rows else {
            return Ok(ControlFlow::Continue(()));
        };
        if rows.own.is_some() || !rows.committed.is_untouched() {
            return self.visit_merged(see);
        }
        let mut failed = None;
        let mut unchecked = 0;
        let (checks, walk) = (&self.checks, &self.walk);
        let seen = rows.committed.scan.visit(|row, value| {
            note(walk.as_ref(), Direction::Forward, row);
            unchecked += 1;
            if unchecked == VISITED_MAX || matches!(checks, Checks::Transaction(..)) {
                unchecked = 0;
                if let Err(error) = checks.check(Ok(())) {
                    failed = Some(error);
                    return ControlFlow::Break(None);
                }
            }
            see(key_of(row), value).map_break(Some)
        });
        match (seen, failed) {
            (_, Some(error)) => Err(error),
            (Ok(ControlFlow::Break(Some(stopped))), _) => Ok(ControlFlow::Break(stopped)),
            (read, _) => {
                checks.check(read.as_ref().map(|_| ()))?;
                note_end(walk.as_ref());
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Shows rows one by one, where own writes stand between them.
    fn visit_merged<B>(
        &mut self,
        mut see: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let Some(rows) = &mut self.rows else {
            return Ok(ControlFlow::Continue(()));
        };
        while let Some(found) = rows.step(Direction::Forward) {
            self.checks.check(found.as_ref().map(|_| ()))?;
            let shown = match &found {
                Ok(Found::Committed(end)) => Some(rows.committed.scan.row(*end)),
                Ok(Found::Own(own)) => Some((own.as_bytes(), own.value().unwrap_or_default())),
                Err(_) => None,
            };
            if let Some((row, _)) = shown {
                note(self.walk.as_ref(), Direction::Forward, row);
            }
            if let Some((row, value)) = shown
                && let ControlFlow::Break(stopped) = see(key_of(row), value)
            {
                return Ok(ControlFlow::Break(stopped));
            }
        }
        note_end(self.walk.as_ref());
        Ok(ControlFlow::Continue(()))
    }

    #[inline]
    fn take(&mut self, end: Direction) -> Option<Result<(Key, Value)>> {
        let rows = self.rows.as_mut()?;
        if end == Direction::Forward && rows.step_on() {
            note(self.walk.as_ref(), end, rows.committed.scan.row(end).0);
            if let Err(error) = self.checks.check(Ok(())) {
                return Some(Err(error));
            }
            return Some(Ok(owned(&rows.committed.scan, end)));
        }
        self.take_decided(end)
    }

    /// The next row, wherever it is.
    fn take_decided(&mut self, end: Direction) -> Option<Result<(Key, Value)>> {
        let rows = self.rows.as_mut()?;
        let Some(found) = rows.step(end) else {
            note_end(self.walk.as_ref());
            return None;
        };
        match &found {
            Ok(Found::Committed(at)) => {
                note(self.walk.as_ref(), end, rows.committed.scan.row(*at).0);
            }
            Ok(Found::Own(own)) => note(self.walk.as_ref(), end, own.as_bytes()),
            Err(_) => {}
        }
        if let Err(error) = self.checks.check(found.as_ref().map(|_| ())) {
            return Some(Err(error));
        }
        let row = match found.ok()? {
            Found::Committed(end) => owned(&rows.committed.scan, end),
            Found::Own(own) => {
                let value = own.effect().unwrap_or_default();
                (Key::from_slice(key_of(own.as_bytes())), Value::new(value))
            }
        };
        Some(Ok(row))
    }
}

/// Notes that the walk, if it is to be noted, has come to `row` from one end.
#[inline]
fn note(walk: Option<&Arc<Walk>>, end: Direction, row: &[u8]) {
    if let Some(walk) = walk {
        walk.came_to(end == Direction::Forward, row);
    }
}

/// Notes that it has found nothing left.
fn note_end(walk: Option<&Arc<Walk>>) {
    if let Some(walk) = walk {
        walk.ended();
    }
}

/// The row that an end of a scan has come to, in handles.
#[inline]
pub(crate) fn owned(scan: &Scan, end: Direction) -> (Key, Value) {
    /// What is longer may be shared.
    const COPY_BYTES_MAX: usize = 1024;
    let (row, value) = scan.row(end);
    let value = if value.len() <= COPY_BYTES_MAX {
        Value::from_slice(value)
    } else {
        Value::new(scan.value(end))
    };
    (Key::from_slice(key_of(row)), value)
}

/// The key of an encoded row.
fn key_of(row: &[u8]) -> &[u8] {
    row.get(RowKey::TABLE_BYTES..).unwrap_or_default()
}

impl Checks<'_> {
    /// Whether what was just read may be given out (W10): the check comes behind the read.
    #[inline]
    fn check(&self, read: Result<(), &StorageError>) -> Result<()> {
        let read = read.map_err(|error| Error::from(error.clone()));
        match self {
            Self::Transaction(engine, txn) => txn.note_read(txn.check(engine).and(read)),
            Self::Snapshot(engine) => engine.check_open().and(read),
        }
    }
}

impl Iterator for Range<'_> {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(Direction::Forward)
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(Direction::Backward)
    }
}

/// Which end of a range a step takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

impl From<Direction> for End {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self::Front,
            Direction::Backward => Self::Back,
        }
    }
}

impl End {
    /// The next item of `rows` from this end.
    pub(crate) fn of<I: DoubleEndedIterator>(self, rows: &mut I) -> Option<I::Item> {
        if self == Self::Front {
            rows.next()
        } else {
            rows.next_back()
        }
    }

    /// How two rows stand to each other for whoever walks from this end.
    pub(crate) fn order(self, a: &[u8], b: &[u8]) -> Ordering {
        if self == Self::Front {
            a.cmp(b)
        } else {
            b.cmp(a)
        }
    }
}

impl<'a> Merged<'a> {
    /// Goes to the next committed row from the front, where nothing is to be decided about it; whether it has.
    #[inline]
    fn step_on(&mut self) -> bool {
        self.own.is_none() && self.committed.is_untouched() && self.committed.scan.step_on()
    }

    /// The next row from one end: the own write where there is one, else what is committed.
    #[inline]
    fn step(&mut self, end: Direction) -> Option<Result<Found<'a>, StorageError>> {
        let Some(own_rows) = &mut self.own else {
            return Some(self.committed.take(end)?.map(Found::Committed));
        };
        loop {
            let own = End::from(end).of(&mut own_rows.clone());
            let order = match (own, self.committed.peek(end)) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                // An error stands where its block stood: it is given out at once.
                (None, Some(_)) | (Some(_), Some(Err(()))) => Ordering::Greater,
                (Some(own), Some(Ok(holder))) => {
                    let (row, _) = self.committed.scan.row(holder);
                    End::from(end).order(own.as_bytes(), row)
                }
            };
            if order == Ordering::Greater {
                return Some(self.committed.take(end)?.map(Found::Committed));
            }
            if order == Ordering::Equal {
                // The row stays where it lies; the own one stands over it.
                self.committed.take(end);
            }
            let own = End::from(end).of(own_rows);
            if let Some(own) = own.filter(|own| !own.is_deleted()) {
                return Some(Ok(Found::Own(own)));
            }
        }
    }
}

/// A scan that can be looked into from both ends.
#[derive(Debug)]
pub(crate) struct Peeked {
    pub(crate) scan: Scan,
    front: Peek,
    back: Peek,
}

/// What a look at one end has found and nobody has taken.
#[derive(Debug, Default)]
enum Peek {
    #[default]
    Nothing,
    Row,
    Failed(StorageError),
}

impl Peeked {
    pub(crate) fn new(scan: Scan) -> Self {
        Self {
            scan,
            front: Peek::Nothing,
            back: Peek::Nothing,
        }
    }

    /// Whether nothing was looked at that is still to be taken.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!((&self.front, &self.back), (Peek::Nothing, Peek::Nothing))
    }

    fn ends(&mut self, end: Direction) -> (&mut Peek, &mut Peek) {
        match end {
            Direction::Forward => (&mut self.front, &mut self.back),
            Direction::Backward => (&mut self.back, &mut self.front),
        }
    }

    /// At which end of the scan the next row from this end lies, or why it cannot be read.
    pub(crate) fn peek(&mut self, end: Direction) -> Option<Result<Direction, ()>> {
        if matches!(self.ends(end).0, Peek::Nothing) {
            *self.ends(end).0 = match self.scan.advance(end) {
                Some(Ok(())) => Peek::Row,
                Some(Err(error)) => Peek::Failed(error),
                None => Peek::Nothing,
            };
        }
        match self.ends(end) {
            (Peek::Row, _) => Some(Ok(end)),
            (Peek::Failed(_), _) | (Peek::Nothing, Peek::Failed(_)) => Some(Err(())),
            // The last row may have been looked at from the other end.
            (Peek::Nothing, Peek::Row) => Some(Ok(end.reversed())),
            (Peek::Nothing, Peek::Nothing) => None,
        }
    }

    /// The next row from this end, taken: at which end of the scan it lies until that is used again.
    #[inline]
    pub(crate) fn take(&mut self, end: Direction) -> Option<Result<Direction, StorageError>> {
        if self.is_untouched() {
            return Some(self.scan.advance(end)?.map(|()| end));
        }
        // Whatever it finds, taken right away.
        let _ = self.peek(end)?;
        let (mine, other) = self.ends(end);
        match (std::mem::take(mine), other) {
            (Peek::Row, _) => Some(Ok(end)),
            (Peek::Failed(error), _) => Some(Err(error)),
            (Peek::Nothing, other) => match std::mem::take(other) {
                Peek::Row => Some(Ok(end.reversed())),
                Peek::Failed(error) => Some(Err(error)),
                Peek::Nothing => None,
            },
        }
    }
}
