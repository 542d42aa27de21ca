//! The iterator over a range of rows: committed versions, and a transaction's own writes over them.
//!
//! 1. All rows are as of one moment: the LSN that the range was opened with.
//! 2. Both ends may be used on one iterator; they meet in the middle.
//! 3. W10: each step checks the transaction's state after it has read.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{Lsn, RowKey};
use lockstone_storage::{Scan, Sources, StorageError, Version};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::key_range::RowBounds;
use crate::key_value::{Key, Value};
use crate::own_rows::OwnRows;
use crate::txn_state::TxnState;

/// The rows of a range, in order of their keys.
#[derive(Debug)]
pub struct Range<'a> {
    /// Nothing when the bounds leave no room for a row.
    rows: Option<Merged<'a>>,
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
    committed: BothEnds<Scan>,
    own: Option<OwnRows<'a>>,
}

impl<'a> Range<'a> {
    pub(crate) fn of_transaction(
        engine: &'a Engine,
        txn: &'a TxnState,
        sources: &Arc<Sources>,
        bounds: Option<RowBounds>,
        at: Lsn,
    ) -> Self {
        let rows = bounds.map(|bounds| Merged {
            own: (!txn.writes.is_empty()).then(|| txn.writes.range(&bounds)),
            committed: BothEnds::new(sources.scan(bounds, at)),
        });
        Self {
            rows,
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
            committed: BothEnds::new(sources.scan(bounds, at)),
        };
        Self {
            rows: bounds.map(committed),
            checks: Checks::Snapshot(engine),
        }
    }

    fn finish(&self, row: Result<(RowKey, Bytes), StorageError>) -> Result<(Key, Value)> {
        let row = row.map_err(Error::from);
        let (row, value) = match self.checks {
            Checks::Transaction(engine, txn) => txn.note(txn.check(engine).and(row))?,
            Checks::Snapshot(engine) => engine.check_open().and(row)?,
        };
        Ok((Key::new(row.key_bytes()), Value::new(value)))
    }
}

impl Iterator for Range<'_> {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.as_mut()?.step(End::Front)?;
        Some(self.finish(row))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.rows.as_mut()?.step(End::Back)?;
        Some(self.finish(row))
    }
}

/// Which end of a range a step takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
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

impl Merged<'_> {
    /// The next row from one end: the own write where there is one, else what is committed.
    fn step(&mut self, end: End) -> Option<Result<(RowKey, Bytes), StorageError>> {
        loop {
            let own = self.own.as_ref().and_then(|own| end.of(&mut own.clone()));
            let order = match (own, self.committed.peek(end)) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                // An error stands where its block stood: it is given out at once.
                (None, Some(_)) | (Some(_), Some(Err(_))) => Ordering::Greater,
                (Some(own), Some(Ok((committed, _)))) => end.order(own.as_bytes(), committed),
            };
            if order == Ordering::Greater {
                let committed = self.committed.take(end)?;
                match committed {
                    Err(error) => return Some(Err(error)),
                    Ok((
                        row,
                        Version {
                            value: Some(value), ..
                        },
                    )) => {
                        let row = RowKey::from_encoded(row).expect("the bounds hold whole rows");
                        return Some(Ok((row, value)));
                    }
                    Ok((_, Version { value: None, .. })) => continue,
                }
            }
            if order == Ordering::Equal {
                self.committed.take(end);
            }
            let taken = self.own.as_mut().and_then(|own| end.of(own));
            if let Some((row, Some(value))) = taken.map(|own| (own.row(), own.effect())) {
                return Some(Ok((row, value)));
            }
        }
    }
}

/// An iterator that can be looked into from both ends.
#[derive(Debug)]
pub(crate) struct BothEnds<I: DoubleEndedIterator> {
    rows: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<I: DoubleEndedIterator> BothEnds<I> {
    pub(crate) fn new(rows: I) -> Self {
        Self {
            rows,
            front: None,
            back: None,
        }
    }

    pub(crate) fn peek(&mut self, end: End) -> Option<&I::Item> {
        let (mine, other) = match end {
            End::Front => (&mut self.front, &self.back),
            End::Back => (&mut self.back, &self.front),
        };
        if mine.is_none() {
            *mine = end.of(&mut self.rows);
        }
        // The last row may have been looked at from the other end.
        if mine.is_some() {
            mine.as_ref()
        } else {
            other.as_ref()
        }
    }

    pub(crate) fn take(&mut self, end: End) -> Option<I::Item> {
        self.peek(end)?;
        let (mine, other) = match end {
            End::Front => (&mut self.front, &mut self.back),
            End::Back => (&mut self.back, &mut self.front),
        };
        mine.take().or_else(|| other.take())
    }
}
