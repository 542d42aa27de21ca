//! One end of a scan: the cursors of all sources in one direction, merged.
//!
//! Driven by `scan`.
//! 1. Rows come in the cursors' direction; of one row's versions the newest, and each row once.
//! 2. A heap of cursors: a row costs as many comparisons as the number of sources has bits, and none where
//!    there is one source.
//! 3. Nothing is allocated for a row.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use super::damages::Damages;
use super::level_cursor::LevelCursor;
use super::list::Sources;
use crate::cursor::{Cursor, Direction, Quest, See, Step, Swept};
use crate::merge::first_bytes;
use crate::version::VersionRef;

/// All sources' cursors in one direction.
pub(super) struct End {
    direction: Direction,
    /// A heap: the cursor with the next row's newest version is the first. Unordered while fresh.
    heads: Vec<Head>,
    fresh: bool,
    /// A row, while those cursors are moved that have it too.
    passed: Vec<u8>,
    /// It has come to a row that was not given out yet.
    pub(super) pending: bool,
}

/// A cursor that has come to a row.
struct Head {
    /// The place of its source in the list: smaller is newer.
    rank: usize,
    /// The first bytes of the row.
    first: u128,
    cursor: Box<dyn Cursor>,
}

impl End {
    pub(super) fn new(sources: &Sources, quest: &Quest) -> Self {
        let memtables = sources
            .memtables
            .iter()
            .map(|memtable| memtable.cursors(quest));
        let boxed = |cursor| Box::new(cursor) as Box<dyn Cursor>;
        let l0 = sources.tree.l0.iter();
        let l0 = l0.map(|run| run.cursor(quest).map(boxed).into_iter().collect());
        let boxed = |cursor| Box::new(cursor) as Box<dyn Cursor>;
        let levels = sources.tree.levels.iter();
        let levels = levels.map(|level| {
            let cursor = LevelCursor::new(level, quest);
            cursor.map(boxed).into_iter().collect()
        });
        let heads = memtables.chain(l0).chain(levels).enumerate();
        let heads = heads.flat_map(|(rank, cursors)| {
            cursors.into_iter().map(move |cursor| Head {
                rank,
                first: 0,
                cursor,
            })
        });
        Self {
            direction: quest.direction,
            heads: heads.collect(),
            fresh: true,
            passed: Vec::new(),
            pending: false,
        }
    }

    /// Goes to the next row.
    pub(super) fn advance(&mut self, damages: &mut Damages) {
        if self.fresh {
            self.begin(damages);
        } else if self.heads.len() > 1 {
            self.advance_all(damages);
        } else if let Some(head) = self.heads.first_mut()
            && !head.advance(damages)
        {
            self.heads.clear();
        }
    }

    fn begin(&mut self, damages: &mut Damages) {
        self.fresh = false;
        self.heads.retain_mut(|head| head.advance(damages));
        self.heads.iter_mut().for_each(Head::note_row);
        for at in (0..self.heads.len() / 2).rev() {
            self.sift_down(at);
        }
    }

    /// Moves every cursor that has come to the row which the first one has come to.
    fn advance_all(&mut self, damages: &mut Damages) {
        let mut passed = std::mem::take(&mut self.passed);
        passed.clear();
        passed.extend_from_slice(self.now().map_or(&[], |(version, _)| version.row));
        loop {
            match self.heads.first_mut() {
                None => break,
                Some(head) if head.cursor.version().row != passed => break,
                Some(head) => {
                    if head.advance(damages) {
                        head.note_row();
                    } else {
                        self.heads.swap_remove(0);
                    }
                }
            }
            self.sift_down(0);
        }
        self.passed = passed;
    }

    /// Shows the live rows that follow the one that it has come to, as long as only one source has any; whether
    /// who they are shown to has had enough.
    pub(super) fn sweep(&mut self, see: See<'_>) -> bool {
        // The children of the heap's first have the next rows of other sources.
        let others = self.heads.get(1..).unwrap_or_default().iter().take(2);
        let limit = others.map(|head| head.first).min();
        let Some(head) = self.heads.first_mut() else {
            return false;
        };
        let swept = head.cursor.sweep(limit, see);
        head.note_row();
        if swept == Swept::Before {
            self.pending = true;
            self.sift_down(0);
        }
        swept == Swept::Stopped
    }

    /// The version that it has come to, and the rank of its source; `None` at the end.
    #[inline]
    pub(super) fn now(&self) -> Option<(VersionRef<'_>, usize)> {
        let head = self.heads.first().filter(|_| !self.fresh)?;
        Some((head.cursor.version(), head.rank))
    }

    /// Its value, for whoever keeps it.
    pub(super) fn value(&self) -> Option<Bytes> {
        self.heads.first()?.cursor.value()
    }

    /// Lets the head at `at` sink below those that come before it.
    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            let first = left + usize::from(self.is_before(left + 1, left));
            if !self.is_before(first, at) {
                return;
            }
            self.heads.swap(first, at);
            at = first;
        }
    }

    /// Whether the head at `a` comes before the one at `b`; one that is not there comes before none.
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.heads.get(a), self.heads.get(b)) {
            (Some(a), Some(b)) => a.order(b, self.direction).is_lt(),
            _ => false,
        }
    }
}

impl Head {
    /// Goes to its next row; whether there is one.
    fn advance(&mut self, damages: &mut Damages) -> bool {
        loop {
            match self.cursor.step() {
                Step::Row => return true,
                Step::Damaged(hidden) => damages.note(self.rank, hidden),
                Step::End => return false,
            }
        }
    }

    /// Takes note of its row's first bytes, for comparisons with other heads.
    fn note_row(&mut self) {
        self.first = first_bytes(self.cursor.version().row);
    }

    /// By row in the direction, then newest first.
    fn order(&self, other: &Self, direction: Direction) -> Ordering {
        let by_row = self.first.cmp(&other.first);
        let (a, b) = (self.cursor.version(), other.cursor.version());
        let by_row = by_row.then_with(|| a.row.cmp(b.row));
        match direction {
            Direction::Forward => by_row,
            Direction::Backward => by_row.reverse(),
        }
        .then_with(|| b.stamp.cmp(&a.stamp))
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End")
            .field("direction", &self.direction)
            .field("sources", &self.heads.len())
            .finish_non_exhaustive()
    }
}
