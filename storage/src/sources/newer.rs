//! Whether rows were written since an LSN: what a transaction asks that reads at a snapshot, of the rows that it
//! is about to write, and of those that it has read.
//!
//! 1. A tombstone is a version as any other.
//! 2. Only sources with a stamp above the LSN are looked at: as a rule the newest memtable.
//! 3. A look at many rows is ended at its caller's wish: closing waits for none.
//! 4. W7: nothing above the drop horizon was dropped, so the LSN is one of a registered snapshot.

use std::ops::Bound;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::list::Sources;
use crate::cursor::{Cursor, Direction, Quest, RowRange, Step};
use crate::error::StorageError;
use crate::row_hash::row_hash;

impl Sources {
    /// Whether the encoded row `row` has a version above `since`, at or below `at`.
    ///
    /// # Errors
    /// As [`Sources::get`].
    pub fn changed(&self, row: &[u8], since: Lsn, at: Lsn) -> Result<bool, StorageError> {
        self.assert_keeps(since);
        let hash = row_hash(self.salt, row);
        if self.active.newest() > since
            && let Some(version) = self.active.get(row, hash, at)
        {
            return Ok(version.stamp > since);
        }
        let layers = self.stack.layers();
        for layer in layers.filter(|layer| layer.newest() > since) {
            if let Some(version) = layer.get(row, hash, at)? {
                return Ok(version.stamp > since);
            }
        }
        let l0 = self.tree.l0.iter().filter(|run| run.entry().spans(row));
        let below = self.tree.levels.iter();
        let below = below.filter_map(|level| level.run_of(row));
        for run in l0.chain(below).filter(|run| run.entry().newest > since) {
            if let Some(version) = run.get(row, hash, at)? {
                return Ok(version.stamp > since);
            }
        }
        Ok(false)
    }

    /// Whether a row of a range of encoded rows has a version above `since`, at or below `at`; `None` if it was not to go on, which
    /// is asked every now and then.
    ///
    /// # Errors
    /// The disk's, or [`StorageError::Corrupt`], if a source that could have one cannot be read.
    pub fn changed_within(
        &self,
        range: (Bound<Bytes>, Bound<Bytes>),
        (since, at): (Lsn, Lsn),
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<bool>, StorageError> {
        self.assert_keeps(since);
        let (low, high) = range;
        let quest = Quest {
            range: RowRange { low, high },
            at,
            direction: Direction::Forward,
        };
        for memtable in self.memtables() {
            for mut cursor in memtable.cursors_since(&quest, since) {
                let has_newer = has_newer(cursor.as_mut(), since, goes_on)?;
                if has_newer != Some(false) {
                    return Ok(has_newer);
                }
            }
        }
        let runs = self.runs();
        for run in runs.filter(|run| run.entry().newest > since) {
            if let Some(mut cursor) = run.cursor(&quest) {
                let has_newer = has_newer(&mut cursor, since, goes_on)?;
                if has_newer != Some(false) {
                    return Ok(has_newer);
                }
            }
        }
        Ok(Some(false))
    }

    fn assert_keeps(&self, since: Lsn) {
        assert!(
            self.drop_horizon <= since,
            "W7: what a registered snapshot asks about was not dropped"
        );
    }
}

/// After so many rows it is asked whether to go on: some hundred microseconds, if they come from the disk.
const ROWS_UNASKED: u32 = 256;

/// Whether the cursor comes to a version above `since`; `None` if it was not to go on.
fn has_newer(
    cursor: &mut dyn Cursor,
    since: Lsn,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<bool>, StorageError> {
    let mut rows = 0_u32;
    loop {
        rows = rows.wrapping_add(1);
        match cursor.step() {
            Step::Row if cursor.version().stamp > since => return Ok(Some(true)),
            Step::Row if rows.is_multiple_of(ROWS_UNASKED) && !goes_on() => return Ok(None),
            Step::Row => {}
            Step::Damaged(hidden) => return Err(hidden.error),
            Step::End => return Ok(Some(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::version::VersionRef;

    /// Rows without end, none of them new.
    #[derive(Debug)]
    struct Endless;

    impl Cursor for Endless {
        fn step(&mut self) -> Step {
            Step::Row
        }

        fn version(&self) -> VersionRef<'_> {
            VersionRef {
                row: b"row",
                stamp: Lsn::new(1),
                value: None,
            }
        }

        fn value(&self) -> Option<Bytes> {
            None
        }
    }

    #[test]
    fn a_long_look_ends_when_it_is_not_to_go_on() {
        let asked = Cell::new(0);
        let goes_on = || {
            asked.set(asked.get() + 1);
            asked.get() < 5
        };
        let found = has_newer(&mut Endless, Lsn::new(1), &goes_on);
        assert_eq!((found.unwrap(), asked.get()), (None, 5));
        let found = has_newer(&mut Endless, Lsn::ZERO, &goes_on);
        assert_eq!((found.unwrap(), asked.get()), (Some(true), 5));
    }
}
