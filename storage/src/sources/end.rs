//! One end of a scan: the cursors of all sources in one direction, merged.
//!
//! Driven by `scan`.
//! 1. Rows come in the cursors' direction; of one row's versions the newest, and each row once.
//! 2. A heap of cursors: a row costs as many comparisons as the number of sources has bits, and none where
//!    there is one source.
//! 3. Nothing is allocated for a row.

use std::cmp::Ordering;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::damages::Damages;
use super::level_cursor::LevelCursor;
use super::list::Sources;
use super::stack::Layer;
use crate::cursor::{Cursor, Direction, Quest, Step};
use crate::memtable::Memtable;
use crate::merge::first_bytes;
use crate::run::RunCursor;
use crate::tree::Level;
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
    lane: Lane,
}

/// The cursor of one source: those of files by name, so that nothing stands between them and whom a row is shown to.
enum Lane {
    Memtable(Box<dyn Cursor>),
    Run(Box<RunCursor>),
    Level(Box<LevelCursor>),
}

impl End {
    pub(super) fn new(sources: &Sources, quest: &Quest) -> Self {
        let of_memtable = |memtable: &Arc<Memtable>| {
            let cursors = memtable.cursors(quest).into_iter();
            cursors.map(Lane::Memtable).collect()
        };
        let of_level_at = |level: &Arc<Level>, quest: &Quest| {
            let cursor = LevelCursor::new(level, quest).map(Box::new);
            cursor.map(Lane::Level).into_iter().collect()
        };
        let of_level = |level: &Arc<Level>| of_level_at(level, quest);
        let own = Quest {
            at: Lsn::MAX,
            ..quest.clone()
        };
        let of_own = |level: &Arc<Level>| of_level_at(level, &own);
        let active = std::iter::once(of_memtable(&sources.active));
        let stack = sources.stack.layers().flat_map(|layer| match layer {
            Layer::Memtable(memtable) => vec![of_memtable(memtable)],
            Layer::Adopted(group) => group.tree().levels.iter().map(of_level).collect(),
            Layer::Own(group) => group.tree().levels.iter().map(of_own).collect(),
        });
        let l0 = sources.tree.l0.iter().map(|run| {
            let cursor = run.cursor(quest).map(Box::new);
            cursor.map(Lane::Run).into_iter().collect()
        });
        let levels = sources.tree.levels.iter().map(of_level);
        let heads = active.chain(stack).chain(l0).chain(levels);
        let heads = heads.enumerate().flat_map(|(rank, lanes): (_, Vec<Lane>)| {
            lanes.into_iter().map(move |lane| Head {
                rank,
                first: 0,
                lane,
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
        let first = self.heads.first().map(|head| head.first);
        passed.clear();
        passed.extend_from_slice(self.now().map_or(&[], |(version, _)| version.row));
        loop {
            match self.heads.first_mut() {
                None => break,
                Some(head) if Some(head.first) != first => break,
                Some(head) if head.lane.version().row != passed => break,
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
    #[inline]
    pub(super) fn sweep(
        &mut self,
        see: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some((head, others)) = self.heads.split_first_mut() else {
            return ControlFlow::Continue(());
        };
        // The children of the heap's first have the next rows of other sources.
        let others = others.iter().take(2);
        let nearest = others.min_by(|a, b| a.order(b, Direction::Forward));
        let limit = nearest.map(|head| head.lane.version().row);
        let swept = match &mut head.lane {
            Lane::Memtable(_) => ControlFlow::Continue(()),
            Lane::Run(run) => run.sweep(limit, see),
            Lane::Level(level) => level.sweep(limit, see),
        };
        // It has come to the row shown last, which is still the first.
        head.note_row();
        swept
    }

    /// Goes to the next row where there is nothing to decide about it; whether it has.
    #[inline]
    pub(super) fn step_on(&mut self) -> bool {
        let [head] = self.heads.as_mut_slice() else {
            return false;
        };
        !self.pending
            && match &mut head.lane {
                Lane::Memtable(_) => false,
                Lane::Run(run) => run.step_on(),
                Lane::Level(level) => level.step_on(),
            }
    }

    /// As [`RunCursor::ahead`], in the source of the row that it has come to.
    pub(super) fn ahead(&self, entries: usize) -> Option<(&[u8], &[u8])> {
        match &self.heads.first()?.lane {
            Lane::Memtable(_) => None,
            Lane::Run(run) => run.ahead(entries),
            Lane::Level(level) => level.ahead(entries),
        }
    }

    /// The version that it has come to, and the rank of its source; `None` at the end.
    #[inline]
    pub(super) fn now(&self) -> Option<(VersionRef<'_>, usize)> {
        let head = self.heads.first().filter(|_| !self.fresh)?;
        Some((head.lane.version(), head.rank))
    }

    /// Its value, for whoever keeps it.
    pub(super) fn value(&self) -> Option<Bytes> {
        self.heads.first()?.lane.value()
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
            match self.lane.step() {
                Step::Row => return true,
                Step::Damaged(hidden) => damages.note(self.rank, hidden),
                Step::End => return false,
            }
        }
    }

    /// Takes note of its row's first bytes, for comparisons with other heads.
    fn note_row(&mut self) {
        self.first = first_bytes(self.lane.version().row);
    }

    /// By row in the direction, then newest first; of one stamp, of which a commit may have adopted several runs, the
    /// newer source first. The first bytes decide most of it: nothing else is looked at then.
    #[inline]
    fn order(&self, other: &Self, direction: Direction) -> Ordering {
        let toward = |order: Ordering| match direction {
            Direction::Forward => order,
            Direction::Backward => order.reverse(),
        };
        if self.first != other.first {
            return toward(self.first.cmp(&other.first));
        }
        let (a, b) = (self.lane.version(), other.lane.version());
        toward(a.row.cmp(b.row))
            .then_with(|| b.stamp.cmp(&a.stamp))
            .then(self.rank.cmp(&other.rank))
    }
}

impl Lane {
    #[inline]
    fn step(&mut self) -> Step {
        match self {
            Self::Memtable(cursor) => cursor.step(),
            Self::Run(cursor) => cursor.step(),
            Self::Level(cursor) => cursor.step(),
        }
    }

    #[inline]
    fn version(&self) -> VersionRef<'_> {
        match self {
            Self::Memtable(cursor) => cursor.version(),
            Self::Run(cursor) => cursor.version(),
            Self::Level(cursor) => cursor.version(),
        }
    }

    #[inline]
    fn value(&self) -> Option<Bytes> {
        match self {
            Self::Memtable(cursor) => cursor.value(),
            Self::Run(cursor) => cursor.value(),
            Self::Level(cursor) => cursor.value(),
        }
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
