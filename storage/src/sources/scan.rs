//! A scan: the live rows of a range at one LSN, from both ends, over all sources.
//!
//! Made by `Sources::scan`; owns what it reads.
//! 1. Each end merges the sources' cursors: of one row's versions the newest counts, and a tombstone
//!    hides the row.
//! 2. The ends meet: no row is yielded twice, none is missed.
//! 3. A damaged block is one `Err`, whichever end meets it first. The rows that it hides are left out,
//!    unless a newer source has them: an older version never takes the place of a lost one (F11).

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;

use super::list::Sources;
use crate::cursor::{Cursor, Direction, Hidden, Quest, RowRange, Step};
use crate::error::StorageError;
use crate::version::{RowVersion, Version};

/// The live rows of a range at one LSN, in order, from both ends: encoded row and version.
pub struct Scan {
    sources: Arc<Sources>,
    /// What neither end has passed.
    left: RowRange,
    at: Lsn,
    front: Option<End>,
    back: Option<End>,
    damages: Damages,
}

impl Sources {
    /// The rows of a range of encoded rows that live at `at`, in order, from both ends.
    pub fn scan(self: &Arc<Self>, range: (Bound<Bytes>, Bound<Bytes>), at: Lsn) -> Scan {
        let (low, high) = range;
        Scan::new(Arc::clone(self), RowRange { low, high }, at)
    }
}

impl Scan {
    fn new(sources: Arc<Sources>, range: RowRange, at: Lsn) -> Self {
        Self {
            sources,
            left: range,
            at,
            front: None,
            back: None,
            damages: Damages::default(),
        }
    }

    fn advance(&mut self, direction: Direction) -> Option<Result<(Bytes, Version), StorageError>> {
        let end = match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        let end = end.get_or_insert_with(|| {
            let quest = Quest {
                range: self.left.clone(),
                at: self.at,
                direction,
            };
            End::new(&self.sources, &quest)
        });
        loop {
            end.fill(&mut self.damages);
            if let Some(error) = self.damages.unreported.pop() {
                return Some(Err(error));
            }
            let (rank, found) = end.take()?;
            if !self.left.above_low(&found.row) || !self.left.below_high(&found.row) {
                // The other end has been here.
                return None;
            }
            match direction {
                Direction::Forward => self.left.low = Bound::Excluded(found.row.clone()),
                Direction::Backward => self.left.high = Bound::Excluded(found.row.clone()),
            }
            if found.version.value.is_some() && !self.damages.hide(rank, &found.row) {
                return Some(Ok((found.row, found.version)));
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Version), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(Direction::Forward)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(Direction::Backward)
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("left", &self.left)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// One end: all sources' cursors in one direction, each with its next row.
struct End {
    direction: Direction,
    cursors: Vec<Ranked>,
}

struct Ranked {
    /// The place of the source in the list: smaller is newer.
    rank: usize,
    cursor: Box<dyn Cursor>,
    head: Option<RowVersion>,
    exhausted: bool,
}

impl End {
    fn new(sources: &Arc<Sources>, quest: &Quest) -> Self {
        let memtables = sources
            .memtables
            .iter()
            .map(|memtable| memtable.cursors(quest));
        let runs = sources.tree.runs().map(|run| run.cursors(quest));
        let cursors = memtables
            .chain(runs)
            .enumerate()
            .flat_map(|(rank, cursors)| {
                cursors.into_iter().map(move |cursor| Ranked {
                    rank,
                    cursor,
                    head: None,
                    exhausted: false,
                })
            })
            .collect();
        Self {
            direction: quest.direction,
            cursors,
        }
    }

    /// Sees to it that every cursor that is not exhausted has its next row.
    fn fill(&mut self, damages: &mut Damages) {
        for ranked in &mut self.cursors {
            while ranked.head.is_none() && !ranked.exhausted {
                match ranked.cursor.step() {
                    Some(Step::Row(row)) => ranked.head = Some(row),
                    Some(Step::Damaged(hidden)) => damages.note(ranked.rank, hidden),
                    None => ranked.exhausted = true,
                }
            }
        }
        self.cursors.retain(|ranked| !ranked.exhausted);
    }

    /// Takes the next row's newest version, and the rank of its source.
    fn take(&mut self) -> Option<(usize, RowVersion)> {
        let heads = self
            .cursors
            .iter()
            .filter_map(|ranked| ranked.head.as_ref());
        let row = match self.direction {
            Direction::Forward => heads.map(|head| &head.row).min(),
            Direction::Backward => heads.map(|head| &head.row).max(),
        }?
        .clone();
        let mut best: Option<(usize, RowVersion)> = None;
        for ranked in &mut self.cursors {
            let Some(head) = ranked.head.take_if(|head| head.row == row) else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|(_, found)| found.version.stamp < head.version.stamp)
            {
                best = Some((ranked.rank, head));
            }
        }
        best
    }
}

/// The damaged blocks that either end has met.
#[derive(Default)]
struct Damages {
    met: Vec<(usize, Hidden)>,
    unreported: Vec<StorageError>,
}

impl Damages {
    fn note(&mut self, rank: usize, hidden: Hidden) {
        let known =
            |(other, known): &(usize, Hidden)| *other == rank && known.block == hidden.block;
        if !self.met.iter().any(known) {
            self.unreported.push(hidden.error.clone());
            self.met.push((rank, hidden));
        }
    }

    /// Whether a version of `row` from the source `rank` could be older than one that is lost.
    fn hide(&self, rank: usize, row: &Bytes) -> bool {
        self.met
            .iter()
            .any(|(newer, hidden)| *newer < rank && hidden.first <= *row && *row <= hidden.last)
    }
}
