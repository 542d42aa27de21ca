//! The ranges of one table, by where they start: which of them hold a row, or meet another range.
//!
//! Kept by `ranges`, under the latch of the wide locks.
//! 1. A search tree in which each node knows how far the ranges below it reach. A look leaves out what starts behind it or
//!    does not reach it: so it takes the tree's depth for each range that it meets, however long others are.
//! 2. A node is above those of smaller weights, and weights are as good as random: so the tree is about as deep as the
//!    logarithm of its size, in whatever order ranges come and go.
//!
//! Crash: memory only.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::RowKey;
use smallvec::SmallVec;

use crate::target::RowRange;

type Tree = Option<Box<Node>>;

/// A range, by its number.
#[derive(Debug)]
struct Node {
    range: Arc<RowRange>,
    number: u64,
    weight: u64,
    /// Of this range and all below it the one that ends last.
    furthest: Arc<RowRange>,
    before: Tree,
    behind: Tree,
}

impl Node {
    fn new(range: &Arc<RowRange>, number: u64) -> Self {
        Self {
            range: Arc::clone(range),
            number,
            weight: weight(number),
            furthest: Arc::clone(range),
            before: None,
            behind: None,
        }
    }

    /// How its range and number compare with these.
    fn compare(&self, range: &RowRange, number: u64) -> Ordering {
        let starts = by_start(self.range.start(), range.start());
        starts.then(self.number.cmp(&number))
    }

    /// Says anew how far all reach, after what is below has changed.
    fn measure(&mut self) {
        let below = [&self.before, &self.behind].into_iter().flatten();
        let all = below.map(|node| &node.furthest).chain([&self.range]);
        let furthest = all.max_by(|a, b| by_end(a.end(), b.end()));
        self.furthest = Arc::clone(furthest.unwrap_or(&self.range));
    }
}

/// The ranges of one table.
#[derive(Debug, Default)]
pub(crate) struct RangeIndex(Tree);

impl RangeIndex {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn insert(&mut self, range: &Arc<RowRange>, number: u64) {
        let (before, behind) = split(self.0.take(), range, number);
        let node = Some(Box::new(Node::new(range, number)));
        self.0 = join(join(before, node), behind);
    }

    pub(crate) fn remove(&mut self, range: &RowRange, number: u64) {
        self.0 = without(self.0.take(), range, number);
    }

    /// The numbers of those that hold the row.
    pub(crate) fn around(&self, row: &RowKey) -> impl Iterator<Item = u64> {
        let point = Bound::Included(row);
        let met = self.back_from(point, point);
        met.filter(|node| node.range.contains(row))
            .map(|node| node.number)
    }

    /// The numbers of those that have a row with `range` in common.
    pub(crate) fn meeting(&self, range: &RowRange) -> impl Iterator<Item = u64> {
        let met = self.back_from(range.start(), range.end());
        met.filter(|node| node.range.overlaps(range))
            .map(|node| node.number)
    }

    /// Those that start before `end` and reach `start`, the last to start first.
    fn back_from<'t, 'b>(
        &'t self,
        start: Bound<&'b RowKey>,
        end: Bound<&'b RowKey>,
    ) -> Back<'t, 'b> {
        let mut stack = SmallVec::new();
        stack.extend(self.0.as_deref().map(Step::Below));
        Back { stack, start, end }
    }
}

/// What a look has still to do, the last first.
#[derive(Debug)]
enum Step<'a> {
    /// The node and all below it.
    Below(&'a Node),
    /// The node alone.
    Itself(&'a Node),
}

/// A look at the tree, backwards.
#[derive(Debug)]
struct Back<'t, 'b> {
    stack: SmallVec<[Step<'t>; 16]>,
    start: Bound<&'b RowKey>,
    end: Bound<&'b RowKey>,
}

impl<'t> Iterator for Back<'t, '_> {
    type Item = &'t Node;

    fn next(&mut self) -> Option<&'t Node> {
        loop {
            let node = match self.stack.pop()? {
                Step::Itself(node) => return Some(node),
                Step::Below(node) => node,
            };
            if !RowRange::reaches(self.start, node.furthest.end()) {
                continue;
            }
            self.stack.extend(node.before.as_deref().map(Step::Below));
            if RowRange::reaches(node.range.start(), self.end) {
                self.stack.push(Step::Itself(node));
                self.stack.extend(node.behind.as_deref().map(Step::Below));
            }
        }
    }
}

/// Those before a range, and those behind it.
fn split(tree: Tree, range: &RowRange, number: u64) -> (Tree, Tree) {
    let Some(mut node) = tree else {
        return (None, None);
    };
    if node.compare(range, number).is_lt() {
        let (before, behind) = split(node.behind.take(), range, number);
        node.behind = before;
        node.measure();
        (Some(node), behind)
    } else {
        let (before, behind) = split(node.before.take(), range, number);
        node.before = behind;
        node.measure();
        (before, Some(node))
    }
}

/// Two trees, of which all of one is before the other.
fn join(before: Tree, behind: Tree) -> Tree {
    let (mut first, mut last) = match (before, behind) {
        (Some(first), Some(last)) => (first, last),
        (before, behind) => return before.or(behind),
    };
    let mut top = if first.weight > last.weight {
        first.behind = join(first.behind.take(), Some(last));
        first
    } else {
        last.before = join(Some(first), last.before.take());
        last
    };
    top.measure();
    Some(top)
}

fn without(tree: Tree, range: &RowRange, number: u64) -> Tree {
    let mut node = tree?;
    match node.compare(range, number) {
        Ordering::Equal => return join(node.before, node.behind),
        Ordering::Less => node.behind = without(node.behind.take(), range, number),
        Ordering::Greater => node.before = without(node.before.take(), range, number),
    }
    node.measure();
    Some(node)
}

/// What decides who is above whom: every bit of it depends on every bit of the number.
fn weight(number: u64) -> u64 {
    let mixed = (number ^ (number >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
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

    /// A range as long as the table hides none of ten thousand short ones beside it, and a look at one of these goes past few.
    #[test]
    fn a_long_range_makes_no_look_longer() {
        let row = |key: u32| RowKey::new(TABLE, &key.to_be_bytes());
        let mut index = RangeIndex::default();
        let all = RowRange::new(TABLE, Bound::Unbounded, Bound::Unbounded);
        index.insert(&Arc::new(all), 0);
        for at in 1..10_000 {
            let (start, end) = (row(at * 2), row(at * 2 + 1));
            let range = RowRange::new(TABLE, Bound::Included(start), Bound::Excluded(end));
            index.insert(&Arc::new(range), u64::from(at));
        }
        for at in [1_u32, 2, 5_000, 9_999, 1_000_000] {
            let row = row(at * 2);
            let point = Bound::Included(&row);
            let steps = index.back_from(point, point).count();
            assert!(steps < 60, "{steps} ranges were looked at");
            let short = Some(u64::from(at)).filter(|at| *at < 10_000);
            let expected: Vec<_> = short.into_iter().chain([0]).collect();
            let mut met: Vec<_> = index.around(&row).collect();
            met.sort_by_key(|number| std::cmp::Reverse(*number));
            assert_eq!(met, expected);
        }
    }
}
