//! What a transaction sees, and what it must find unchanged: the levels of isolation.
//!
//! Begun with the transaction, asked by its reads, and by `write_path` behind each grant and at the commit.
//! 1. W6, W7: above `ReadCommitted` a transaction reads at the commit tail of its begin, which is registered in the
//!    hold that loads it: nothing that it sees is dropped before it has ended. Once it is rolled back, by whomever, that is
//!    let go of: what it reads then is anything, and W10 keeps it from its user.
//! 2. W2: who is granted a row *and then* looks whether it has changed since the snapshot misses no earlier holder's
//!    commit; and later ones are kept out by the lock.
//! 3. W8: a serializable transaction notes what it reads. A commit that writes registers that, lets the holds of
//!    the append latch that have begun pass by, looks whether any of it has changed, and in its own hold whether
//!    anybody has broken it since. So what it read is current at its commit LSN, and the order of commits is a
//!    serial order. Who writes nothing reads a prefix of that order, and registers nothing.
//!
//! Crash: memory only.

use std::cell::RefCell;
use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_locks::{ReadSet, Reads, Registration, Stretch, Walk};
use lockstone_storage::Current;
use smallvec::SmallVec;

use crate::catalog::CatalogEntry;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::key_range::RowBounds;
use crate::live::Notes;
use crate::options::Isolation;
use crate::snapshots::Pin;

/// How one transaction is isolated from the others.
#[derive(Debug)]
pub(crate) struct View {
    /// Absent in `ReadCommitted`.
    snapshot: Option<Moment>,
    /// There in `Serializable`.
    noted: Option<Box<RefCell<Noted>>>,
}

/// The moment that a transaction reads at, kept until this goes or the transaction is rolled back.
#[derive(Debug)]
struct Moment {
    at: Lsn,
    notes: Arc<Notes>,
}

impl Moment {
    fn begin(engine: &Engine, notes: &Arc<Notes>) -> Self {
        let pin = engine.snapshots.pin(|| engine.watermarks.tail());
        let at = pin.lsn();
        notes.keep(pin);
        let notes = Arc::clone(notes);
        Self { at, notes }
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        self.notes.let_go();
    }
}

/// What a serializable transaction has read.
#[derive(Debug)]
struct Noted {
    reads: Reads,
    /// Where.
    tables: SmallVec<[CatalogEntry; 2]>,
}

impl View {
    /// The view of a transaction that begins.
    pub(crate) fn begin(engine: &Engine, notes: &Arc<Notes>) -> Self {
        let level = notes.isolation;
        let noted = || Noted {
            reads: Reads::new(engine.options.optimistic_locks_max),
            tables: SmallVec::new(),
        };
        Self {
            snapshot: (level != Isolation::ReadCommitted).then(|| Moment::begin(engine, notes)),
            noted: (level == Isolation::Serializable).then(|| Box::new(RefCell::new(noted()))),
        }
    }

    /// That of one that reads nothing any more.
    pub(crate) fn none() -> Self {
        Self {
            snapshot: None,
            noted: None,
        }
    }

    /// Its level.
    pub(crate) fn level(&self) -> Isolation {
        match (&self.snapshot, &self.noted) {
            (None, _) => Isolation::ReadCommitted,
            (Some(_), None) => Isolation::Snapshot,
            (Some(_), Some(_)) => Isolation::Serializable,
        }
    }

    /// Whether writing into a row says nothing of what stands there.
    pub(crate) fn writes_blindly(&self) -> bool {
        self.level() != Isolation::Snapshot
    }

    /// The moment that it reads at, if it is one for all reads.
    pub(crate) fn fixed_at(&self) -> Option<Lsn> {
        self.snapshot.as_ref().map(|moment| moment.at)
    }

    /// The newest moment that a read could be of now.
    pub(crate) fn newest_at(&self, engine: &Engine) -> Lsn {
        self.fixed_at().unwrap_or_else(|| engine.watermarks.tail())
    }

    /// What a read sees that begins now.
    pub(crate) fn sources(&self, engine: &Engine) -> (Lsn, Current) {
        let pinned = |moment: &Moment| {
            let look = |pin: &Pin| (pin.lsn(), engine.sources_at(pin));
            moment.notes.pinned(look)
        };
        let kept = self.snapshot.as_ref().and_then(pinned);
        kept.unwrap_or_else(|| engine.newest())
    }

    // -----------------------------------------------------------------------------------------------
    // what was read

    /// Something is read in `table`.
    pub(crate) fn note_table(&self, table: &CatalogEntry) {
        if let Some(noted) = &self.noted {
            let tables = &mut noted.borrow_mut().tables;
            if tables.iter().all(|noted| noted.id != table.id) {
                tables.push(table.clone());
            }
        }
    }

    /// A row is read, or its absence.
    pub(crate) fn note_row(&self, row: &RowKey) {
        if let Some(noted) = &self.noted {
            noted.borrow_mut().reads.row(row);
        }
    }

    /// A walk over a range begins, which notes by itself how far it comes.
    pub(crate) fn note_walk(&self, bounds: &RowBounds) -> Option<Arc<Walk>> {
        let noted = self.noted.as_ref()?;
        let (low, high) = bounds;
        let bounds = Stretch::between(
            low.as_ref().map(|row| &**row),
            high.as_ref().map(|row| &**row),
        );
        Some(noted.borrow_mut().reads.walk(bounds))
    }

    // -----------------------------------------------------------------------------------------------
    // what must be unchanged

    /// Since when it must find things unchanged, and the newest sources: taken while what it sees is kept, so they tell of all that
    /// changed since. Nothing, if it reads the newest rows anyway, or was rolled back and let go of (W7): then W10 tells its user.
    fn newest_since(&self, engine: &Engine) -> Option<(Lsn, Lsn, Current)> {
        let moment = self.snapshot.as_ref()?;
        let (at, sources) = moment.notes.pinned(|_| engine.newest())?;
        Some((moment.at, at, sources))
    }

    /// The first of some rows, of which it has just been granted the locks, that a commit has changed which it does not see.
    ///
    /// # Errors
    /// For a row that cannot be read.
    pub(crate) fn first_changed<'r>(
        &self,
        engine: &Engine,
        rows: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Option<&'r [u8]>> {
        // W2: the tail is loaded behind the grant.
        let Some((since, at, sources)) = self.newest_since(engine) else {
            return Ok(None);
        };
        if at > since {
            for row in rows {
                if sources.changed(row, since, at)? {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }

    /// As [`View::first_changed`], whether one of all rows between two bounds, of which it has just been granted the lock.
    ///
    /// # Errors
    /// For a row that cannot be read.
    pub(crate) fn is_changed_within(
        &self,
        engine: &Engine,
        rows: Option<RowBounds>,
    ) -> Result<bool> {
        // W2, as above.
        let Some(((since, at, sources), rows)) = self.newest_since(engine).zip(rows) else {
            return Ok(false);
        };
        Ok(at > since && changed_within(engine, &sources, rows, (since, at))?)
    }

    /// W8: registers what was read, for a commit that writes; `None` if that is nothing.
    ///
    /// # Errors
    /// [`Error::LocksInvalidated`]: some of it has changed already. For a row that cannot be read.
    pub(crate) fn register<'e>(&self, engine: &'e Engine) -> Result<Option<Registration<'e>>> {
        let Some(noted) = &self.noted else {
            return Ok(None);
        };
        let reads = std::mem::take(&mut noted.borrow_mut().reads).finish();
        if reads.is_empty() {
            return Ok(None);
        }
        let registration = engine.optimistic.register(reads);
        // W8: whoever holds the latch from here on finds the registration; what earlier holds applied is found by the look.
        drop(engine.log.hold());
        let tables = self.noted.as_ref().map(|noted| noted.borrow());
        let tables = tables.as_ref().map_or(&[][..], |noted| &noted.tables);
        match self.changed_table(engine, tables, registration.reads())? {
            Some(table) => Err(self.invalidated(engine, table)),
            None => Ok(Some(registration)),
        }
    }

    /// What was read, and where; `None` if that is nothing, or does not count.
    pub(crate) fn take_reads(&self) -> Option<(Vec<CatalogEntry>, ReadSet)> {
        let mut noted = self.noted.as_ref()?.borrow_mut();
        let reads = std::mem::take(&mut noted.reads).finish();
        (!reads.is_empty()).then(|| (noted.tables.to_vec(), reads))
    }

    /// A table in which something has changed that was read, or which is gone.
    pub(crate) fn changed_table(
        &self,
        engine: &Engine,
        tables: &[CatalogEntry],
        reads: &ReadSet,
    ) -> Result<Option<TableId>> {
        if let Some(gone) = tables.iter().find(|it| it.gate.is_gone()) {
            return Ok(Some(gone.id));
        }
        let Some((since, at, sources)) = self.newest_since(engine) else {
            return Ok(None);
        };
        if at == since {
            return Ok(None);
        }
        for row in reads.rows() {
            if sources.changed(row.as_bytes(), since, at)? {
                return Ok(Some(row.table()));
            }
        }
        for stretch in reads.stretches() {
            let low = Bound::Included(stretch.low().to_bytes());
            let high = stretch.high().map(RowKey::to_bytes);
            let range = (low, high.map_or(Bound::Unbounded, Bound::Excluded));
            if changed_within(engine, &sources, range, (since, at))? {
                return Ok(Some(stretch.low().table()));
            }
        }
        Ok(None)
    }

    /// The error of a commit whose reads in `table` are no longer true.
    pub(crate) fn invalidated(&self, engine: &Engine, table: TableId) -> Error {
        let noted = self.noted.as_ref().and_then(|noted| {
            let noted = noted.borrow();
            let read = noted.tables.iter().find(|read| read.id == table);
            read.map(|read| read.name.to_string())
        });
        Error::LocksInvalidated {
            table: noted.unwrap_or_else(|| engine.catalog.name(table).to_string()),
        }
    }
}

/// Whether a commit behind `since` has changed one of the rows.
///
/// # Errors
/// For a row that cannot be read. [`Error::Closed`]: closing waits for no look at many rows.
fn changed_within(
    engine: &Engine,
    sources: &Current,
    rows: RowBounds,
    moments: (Lsn, Lsn),
) -> Result<bool> {
    let goes_on = || engine.check_open().is_ok();
    let changed = sources.changed_within(rows, moments, &goes_on)?;
    changed.ok_or(Error::Closed)
}
