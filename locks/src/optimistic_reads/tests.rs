//! What was read, against a plain set of rows.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const TABLES: u32 = 3;
const KEYS: u8 = 16;

fn row(table: u32, key: u8) -> RowKey {
    RowKey::new(TableId(table), &[key])
}

fn all_rows() -> impl Iterator<Item = RowKey> {
    (1..=TABLES).flat_map(|table| (0..KEYS).map(move |key| row(table, key)))
}

fn met(reads: &ReadSet, written: &[RowKey]) -> Option<TableId> {
    let row = |index: usize| written[index].as_bytes();
    reads.met_by(&Written::new(written.len(), &row))
}

/// One thing that a transaction reads.
#[derive(Debug, Clone)]
enum Step {
    Row(u32, u8),
    /// Over these keys, so many from the front and from the back, and whether to the end.
    Walk(u32, Bound<u8>, Bound<u8>, usize, usize, bool),
}

fn bound() -> impl Strategy<Value = Bound<u8>> {
    prop_oneof![
        Just(Bound::Unbounded),
        (0..KEYS).prop_map(Bound::Included),
        (0..KEYS).prop_map(Bound::Excluded),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let walk = (
        1..=TABLES,
        bound(),
        bound(),
        0..6_usize,
        0..3_usize,
        any::<bool>(),
    );
    prop_oneof![
        (1..=TABLES, 0..KEYS).prop_map(|(table, key)| Step::Row(table, key)),
        walk.prop_map(|(t, low, high, front, back, all)| Step::Walk(
            t, low, high, front, back, all
        )),
    ]
}

/// The stretch of a table between two keys.
fn stretch(table: u32, low: Bound<u8>, high: Bound<u8>) -> Stretch {
    let (first, next) = (
        RowKey::new(TableId(table), &[]),
        RowKey::new(TableId(table + 1), &[]),
    );
    let (low, high) = (
        low.map(|key| row(table, key)),
        high.map(|key| row(table, key)),
    );
    let low = match &low {
        Bound::Unbounded => Bound::Included(first.as_bytes()),
        bound => bound.as_ref().map(RowKey::as_bytes),
    };
    let high = match &high {
        Bound::Unbounded => Bound::Excluded(next.as_bytes()),
        bound => bound.as_ref().map(RowKey::as_bytes),
    };
    Stretch::between(low, high)
}

/// Does a step, in the model too.
fn take(reads: &mut Reads, model: &mut BTreeSet<RowKey>, step: &Step) {
    let (table, low, high, front, back, all) = match *step {
        Step::Row(table, key) => {
            reads.row(&row(table, key));
            model.insert(row(table, key));
            return;
        }
        Step::Walk(table, low, high, front, back, all) => (table, low, high, front, back, all),
    };
    let above = |key: u8| match low {
        Bound::Included(low) => low <= key,
        Bound::Excluded(low) => low < key,
        Bound::Unbounded => true,
    };
    let below = |key: u8| match high {
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
        Bound::Unbounded => true,
    };
    let keys: Vec<u8> = (0..KEYS).filter(|key| above(*key) && below(*key)).collect();
    if keys.is_empty() {
        return;
    }
    let walk = reads.walk(stretch(table, low, high));
    for key in keys.iter().take(front) {
        walk.came_to(true, row(table, *key).as_bytes());
    }
    for key in keys.iter().rev().take(back) {
        walk.came_to(false, row(table, *key).as_bytes());
    }
    let walked = if all {
        walk.ended();
        keys.len()
    } else {
        front
    };
    let from_back = keys.iter().rev().take(back);
    model.extend(
        keys.iter()
            .take(walked)
            .chain(from_back)
            .map(|key| row(table, *key)),
    );
}

proptest! {
    /// Exactly what was read while it is not too much, and never less; a commit meets it where it writes into it.
    #[test]
    fn what_was_read_is_remembered(
        steps in prop::collection::vec(step(), 0..200),
        written in prop::collection::btree_set((1..=TABLES, 0..KEYS), 1..30),
        max in prop_oneof![Just(1_000_usize), 1..20_usize],
    ) {
        let (mut reads, mut model) = (Reads::new(max), BTreeSet::new());
        for step in &steps {
            take(&mut reads, &mut model, step);
        }
        let reads = reads.finish();
        let written: Vec<RowKey> = written.into_iter().map(|(table, key)| row(table, key)).collect();
        for row in all_rows() {
            prop_assert!(!model.contains(&row) || reads.has(row.as_bytes()), "{row:?} is forgotten");
            if max == 1_000 {
                prop_assert_eq!(reads.has(row.as_bytes()), model.contains(&row), "{:?}", row);
            }
        }
        let entries = reads.entries();
        prop_assert!(entries <= max.max(TABLES as usize), "{entries} entries");
        let expected = written.iter().any(|row| reads.has(row.as_bytes()));
        let table = met(&reads, &written);
        prop_assert_eq!(table.is_some(), expected);
        if let Some(table) = table {
            prop_assert!(reads.has_table(table));
            prop_assert!(written.iter().any(|row| row.table() == table && reads.has(row.as_bytes())));
        }
        for table in 1..=TABLES {
            let any = all_rows().any(|row| row.table() == TableId(table) && reads.has(row.as_bytes()));
            prop_assert!(!any || reads.has_table(TableId(table)));
        }
    }
}

/// K8: in between as well, and however long it goes on.
#[test]
fn what_is_remembered_is_bounded_by_whole_tables() {
    const MAX: usize = 100;
    let mut reads = Reads::new(MAX);
    for key in 0..10_000_u32 {
        reads.row(&RowKey::new(TableId(1 + key % 2), &key.to_be_bytes()));
        assert!(reads.set.rows.len() <= 2 * MAX, "{}", reads.set.rows.len());
    }
    reads.row(&row(9, 1));
    let reads = reads.finish();
    let of_table = |table| Stretch::of_table(TableId(table));
    assert_eq!(reads.stretches(), [of_table(1), of_table(2)]);
    assert_eq!(reads.rows(), [row(9, 1)]);
}

/// W4: above a thousand rows a break may be false, by the table's smallest and largest row.
#[test]
fn a_large_commit_breaks_between_its_ends() {
    let many = |table: u32| {
        let keys = (0..600_u32).map(|key| (100 + 2 * key).to_be_bytes());
        keys.map(move |key| RowKey::new(TableId(table), &key))
    };
    let written: Vec<RowKey> = many(1).chain(many(5)).collect();
    let read = |table: u32, key: u32| {
        let mut reads = Reads::new(10);
        reads.row(&RowKey::new(TableId(table), &key.to_be_bytes()));
        reads.finish()
    };
    assert_eq!(met(&read(1, 100), &written), Some(TableId(1)));
    assert_eq!(
        met(&read(5, 101), &written),
        Some(TableId(5)),
        "false, and allowed"
    );
    for (table, key) in [(1, 99), (1, 1299), (3, 100), (5, 99), (5, 1299)] {
        assert_eq!(met(&read(table, key), &written), None);
    }
}

#[test]
fn a_walk_that_goes_on_counts_as_far_as_it_has_come() {
    let mut reads = Reads::new(10);
    let walk = reads.walk(stretch(1, Bound::Unbounded, Bound::Unbounded));
    walk.came_to(true, row(1, 3).as_bytes());
    let reads = reads.finish();
    assert!(reads.has(row(1, 0).as_bytes()) && reads.has(row(1, 3).as_bytes()));
    assert!(!reads.has(row(1, 4).as_bytes()));
    drop(walk);
}
