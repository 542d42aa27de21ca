//! The ranges of one table, by where they start: which of them hold a row, or meet another range.
//!
//! Kept by `ranges`, under the latch of the wide locks.
//! 1. Each entry knows how far it and all before it reach. So a look goes backwards from where it is, and ends where nothing
//!    before reaches that far: among ranges that lie side by side it meets none in vain.
//!
//! Crash: memory only.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::RowKey;

use crate::target::RowRange;

/// A range, by its number.
#[derive(Debug)]
struct Entry {
    range: Arc<RowRange>,
    number: u64,
    /// Of this range and all before it the one that ends last.
    furthest: Arc<RowRange>,
}

/// The ranges of one table.
#[derive(Debug, Default)]
pub(crate) struct RangeIndex(Vec<Entry>);

impl RangeIndex {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, range: &Arc<RowRange>, number: u64) {
        let at = self.place(range, number);
        let entry = Entry {
            range: Arc::clone(range),
            number,
            furthest: Arc::clone(range),
        };
        self.0.insert(at, entry);
        self.measure(at);
    }

    pub(crate) fn remove(&mut self, range: &RowRange, number: u64) {
        let at = self.place(range, number);
        if self.0.get(at).is_some_and(|entry| entry.number == number) {
            self.0.remove(at);
            self.measure(at);
        }
    }

    fn place(&self, range: &RowRange, number: u64) -> usize {
        let before = |entry: &Entry| {
            let starts = by_start(entry.range.start(), range.start());
            starts.then(entry.number.cmp(&number)) == Ordering::Less
        };
        self.0.partition_point(before)
    }

    /// Says anew how far all reach, from `at` on, until nothing changes behind it.
    fn measure(&mut self, at: usize) {
        let mut reach = at
            .checked_sub(1)
            .and_then(|last| self.0.get(last))
            .map(|last| Arc::clone(&last.furthest));
        for (steps, entry) in self.0.iter_mut().skip(at).enumerate() {
            let furthest = match reach {
                Some(reach) if by_end(reach.end(), entry.range.end()).is_ge() => reach,
                _ => Arc::clone(&entry.range),
            };
            if steps > 0 && Arc::ptr_eq(&entry.furthest, &furthest) {
                return;
            }
            entry.furthest = Arc::clone(&furthest);
            reach = Some(furthest);
        }
    }

    /// The numbers of those that hold the row.
    pub(crate) fn around(&self, row: &RowKey) -> impl Iterator<Item = u64> {
        let point = Bound::Included(row);
        let met = self.back_from(point, point);
        met.filter(|entry| entry.range.contains(row))
            .map(|entry| entry.number)
    }

    /// The numbers of those that have a row with `range` in common.
    pub(crate) fn meeting(&self, range: &RowRange) -> impl Iterator<Item = u64> {
        let met = self.back_from(range.start(), range.end());
        met.filter(|entry| entry.range.overlaps(range))
            .map(|entry| entry.number)
    }

    /// Backwards from the last that starts before `end`, to where none before reaches `start`.
    fn back_from(
        &self,
        start: Bound<&RowKey>,
        end: Bound<&RowKey>,
    ) -> impl Iterator<Item = &Entry> {
        let starts = |entry: &Entry| RowRange::reaches(entry.range.start(), end);
        let last = self.0.partition_point(starts);
        let back = self.0.iter().take(last).rev();
        back.take_while(move |entry| RowRange::reaches(start, entry.furthest.end()))
    }
}

/// Which of two starts is first.
fn by_start(a: Bound<&RowKey>, b: Bound<&RowKey>) -> Ordering {
    let of = |bound| match bound {
        Bound::Unbounded => None,
        Bound::Included(row) => Some((row, false)),
        Bound::Excluded(row) => Some((row, true)),
    };
    of(a).cmp(&of(b))
}

/// Which of two ends is first.
fn by_end(a: Bound<&RowKey>, b: Bound<&RowKey>) -> Ordering {
    let of = |bound| match bound {
        Bound::Excluded(row) => (false, Some((row, false))),
        Bound::Included(row) => (false, Some((row, true))),
        Bound::Unbounded => (true, None),
    };
    of(a).cmp(&of(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::{TABLE, bounds};

    fn sorted(numbers: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        numbers
    }

    /// Ranges come and go, and every answer is that of a look at each.
    #[test]
    fn it_answers_as_a_look_at_each_range() {
        let bounds = bounds();
        let pairs = bounds
            .iter()
            .flat_map(|start| bounds.iter().map(move |end| (start, end)));
        let mut all: Vec<(u64, Arc<RowRange>)> = (0..)
            .zip(pairs.map(|(start, end)| RowRange::new(TABLE, start.clone(), end.clone())))
            .map(|(number, range)| (number * 7919 % 1009, Arc::new(range)))
            .collect();
        all.sort_by_key(|(number, _)| *number);
        let (mut index, mut live) = (RangeIndex::default(), Vec::new());
        for (step, (number, range)) in all.iter().enumerate() {
            index.insert(range, *number);
            live.push((*number, Arc::clone(range)));
            if step % 3 == 2 {
                let (number, range) = live.remove(step * 31 % live.len());
                index.remove(&range, number);
            }
            for key in 0..9 {
                let row = RowKey::new(TABLE, &[key]);
                let naive = live.iter().filter(|(_, range)| range.contains(&row));
                let naive = sorted(naive.map(|(number, _)| *number));
                assert_eq!(sorted(index.around(&row)), naive, "{row:?}");
            }
            for (_, other) in &all {
                let naive = live.iter().filter(|(_, range)| range.overlaps(other));
                let naive = sorted(naive.map(|(number, _)| *number));
                assert_eq!(sorted(index.meeting(other)), naive, "{other}");
            }
        }
        for (number, range) in live {
            index.remove(&range, number);
        }
        assert!(index.is_empty());
    }
}
