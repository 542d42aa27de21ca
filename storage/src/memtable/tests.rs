//! Memtables: single rows, chunks and both together read as one; one writer beside readers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use lockstone_base::{RowKey, TableId};
use proptest::prelude::*;

use super::*;
use crate::batch::WriteBatch;
use crate::cursor::{Direction, RowRange, Step};
use crate::row_hash::row_hash;
use crate::version::RowVersion;
use crate::walk::collect;

const SALT: u64 = 0x5a17;

fn row(number: u32) -> RowKey {
    RowKey::new(TableId(1), &number.to_be_bytes())
}

fn batch(rows: impl IntoIterator<Item = u32>, value: &str) -> WriteBatch {
    let value = Bytes::copy_from_slice(value.as_bytes());
    WriteBatch::from_sorted(rows.into_iter().map(|n| (row(n), Some(value.clone()))))
}

fn hash(number: u32) -> u64 {
    row_hash(SALT, row(number).as_bytes())
}

fn apply(memtable: &Memtable, batch: WriteBatch, stamp: Lsn) {
    memtable.commit(batch, stamp, SALT);
}

fn value_at(memtable: &Memtable, number: u32, at: u64) -> Option<Bytes> {
    memtable
        .get(row(number).as_bytes(), hash(number), Lsn::new(at))
        .and_then(|version| version.value)
}

#[test]
fn sixty_four_rows_go_one_by_one_and_more_become_a_chunk() {
    let memtable = Memtable::above(Lsn::ZERO);
    apply(&memtable, batch(0..64, "a"), Lsn::new(1));
    assert_eq!(
        (memtable.singles.len(), memtable.chunks.len()),
        (64, 0),
        "W2"
    );
    apply(&memtable, batch(0..65, "b"), Lsn::new(2));
    assert_eq!(
        (memtable.singles.len(), memtable.chunks.len()),
        (64, 1),
        "W2"
    );
    assert_eq!(memtable.versions(), 129);
    assert_eq!(value_at(&memtable, 3, 1).unwrap(), "a");
    assert_eq!(value_at(&memtable, 3, 2).unwrap(), "b");
    assert_eq!(value_at(&memtable, 64, 1), None);
}

#[test]
fn a_single_row_above_a_chunk_and_below_one() {
    let memtable = Memtable::above(Lsn::ZERO);
    apply(&memtable, batch(0..100, "1"), Lsn::new(1));
    apply(&memtable, batch([5], "2"), Lsn::new(2));
    apply(&memtable, batch(0..100, "3"), Lsn::new(3));
    apply(
        &memtable,
        WriteBatch::from_sorted(vec![(row(5), None)]),
        Lsn::new(4),
    );
    let values: Vec<_> = (0..=4).map(|at| value_at(&memtable, 5, at)).collect();
    assert_eq!(
        values,
        [
            None,
            Some("1".into()),
            Some("2".into()),
            Some("3".into()),
            None
        ]
    );
}

#[test]
#[should_panic(expected = "W2")]
fn an_older_commit_is_never_applied_after_a_newer_one() {
    let memtable = Memtable::above(Lsn::ZERO);
    apply(&memtable, batch([1], "a"), Lsn::new(5));
    apply(&memtable, batch([1], "b"), Lsn::new(5));
}

#[test]
#[should_panic(expected = "W5")]
fn a_sealed_memtable_takes_nothing() {
    let memtable = Memtable::above(Lsn::ZERO);
    memtable.seal(Lsn::new(5));
    apply(&memtable, batch([1], "a"), Lsn::new(6));
}

#[test]
fn what_was_replayed_twice_counts_once() {
    let version = |number, stamp| Replayed {
        row: row(number),
        stamp: Lsn::new(stamp),
        value: None,
    };
    let versions = vec![version(2, 7), version(1, 3), version(2, 7), version(2, 9)];
    let memtable = Memtable::replayed(versions, Lsn::new(9));
    let all = collect(memtable.walk()).unwrap();
    let stamps: Vec<_> = all.iter().map(|found| found.version.stamp.get()).collect();
    assert_eq!(stamps, [3, 9, 7]);
    assert_eq!(memtable.end(), Some(Lsn::new(9)));
    assert!(Memtable::replayed(Vec::new(), Lsn::new(9)).is_empty());
}

fn walk(memtable: &Arc<Memtable>, direction: Direction, at: u64) -> Vec<(Bytes, u64)> {
    let range = RowRange {
        low: Bound::Unbounded,
        high: Bound::Unbounded,
    };
    let quest = Quest {
        range,
        at: Lsn::new(at),
        direction,
    };
    let mut found = Vec::new();
    for mut cursor in memtable.cursors(&quest) {
        while let Step::Row = cursor.step() {
            let row = cursor.version().to_owned();
            found.push((row.row, row.version.stamp.get()));
        }
    }
    found
}

#[test]
fn a_cursor_finds_its_place_again_after_each_fetch() {
    let memtable = Arc::new(Memtable::above(Lsn::ZERO));
    for stamp in 1..=3_u64 {
        for n in 0..500_u32 {
            apply(
                &memtable,
                batch([n], "v"),
                Lsn::new(stamp * 1000 + u64::from(n)),
            );
        }
    }
    let want: Vec<_> = (0..500_u32)
        .map(|n| {
            (
                row(n).to_bytes(),
                if n <= 200 { 3000 } else { 2000 } + u64::from(n),
            )
        })
        .collect();
    assert_eq!(walk(&memtable, Direction::Forward, 3200), want);
    let mut backward = walk(&memtable, Direction::Backward, 3200);
    backward.reverse();
    assert_eq!(backward, want);
}

#[test]
fn readers_beside_the_writer_see_whole_commits() {
    // Every commit writes its number to the same ten rows; whoever reads at the tail sees one number.
    let memtable = Arc::new(Memtable::above(Lsn::ZERO));
    let tail = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (memtable, tail, done) = (Arc::clone(&memtable), Arc::clone(&tail), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::Acquire) || rounds == 0 {
                let at = tail.load(Ordering::Acquire);
                if at == 0 {
                    continue;
                }
                for direction in [Direction::Forward, Direction::Backward] {
                    let mut stamps: Vec<_> = walk(&memtable, direction, at)
                        .iter()
                        .map(|(_, stamp)| *stamp)
                        .collect();
                    stamps.sort_unstable();
                    let newest = stamps.split_off(stamps.len().saturating_sub(10));
                    assert_eq!(newest, [at; 10], "W2");
                }
                assert_eq!(
                    memtable
                        .get(row(4).as_bytes(), hash(4), Lsn::new(at))
                        .unwrap()
                        .stamp
                        .get(),
                    at
                );
                rounds += 1;
            }
            rounds
        })
    };
    for stamp in 1..=5000_u64 {
        let rows = if stamp % 50 == 0 { 0..70 } else { 0..10 };
        apply(&memtable, batch(rows, "v"), Lsn::new(stamp));
        tail.store(stamp, Ordering::Release);
    }
    done.store(true, Ordering::Release);
    assert!(reader.join().unwrap() > 0);
}

/// Rows that differ early or late, whose first bytes are equal, or of which one begins as another.
fn odd_row(number: u32) -> RowKey {
    let key = match number % 5 {
        0 => number.to_be_bytes().to_vec(),
        1 => format!("all begin with the same words {number:04}").into_bytes(),
        2 => [&(number / 5).to_be_bytes()[..], &[0; 9]].concat(),
        3 => vec![0; number as usize % 40],
        _ => format!("all begin with t{number:04}").into_bytes(),
    };
    RowKey::new(TableId(1 + number % 2), &key)
}

type Model = BTreeMap<Bytes, BTreeMap<u64, Option<Bytes>>>;

#[derive(Debug, Clone)]
enum Action {
    Commit(BTreeMap<u32, Option<u16>>),
    /// So many rows from a first one on: a chunk, if there are more than 64.
    CommitMany(u32, u32),
    Get(u32, u64),
    Scan {
        from: u32,
        to: u32,
        back: u64,
    },
}

const ROWS: u32 = 3_000;

fn action() -> impl Strategy<Value = Action> {
    let bytes = prop_oneof![9 => 0..40_u16, 1 => 2_000..9_000_u16];
    let rows = prop::collection::btree_map(0..ROWS, prop::option::weighted(0.8, bytes), 1..8);
    prop_oneof![
        4 => rows.prop_map(Action::Commit),
        4 => (0..ROWS, 1..64_u32).prop_map(|(from, count)| Action::CommitMany(from, count)),
        1 => (0..ROWS, 65..300_u32).prop_map(|(from, count)| Action::CommitMany(from, count)),
        3 => (0..ROWS, 0..40_u64).prop_map(|(row, back)| Action::Get(row, back)),
        2 => (0..ROWS, 0..ROWS, 0..40_u64).prop_map(|(from, to, back)| Action::Scan { from, to, back }),
    ]
}

/// The rows of a range with their newest stamps at or below `at`.
fn expected(model: &Model, range: &RowRange, at: u64) -> BTreeMap<Bytes, (u64, Option<Bytes>)> {
    let inside = model
        .iter()
        .filter(|(row, _)| range.above_low(row) && range.below_high(row));
    inside
        .filter_map(|(row, versions)| {
            let (stamp, value) = versions.range(..=at).next_back()?;
            Some((row.clone(), (*stamp, value.clone())))
        })
        .collect()
}

/// What all cursors give together; each by itself must be in order.
fn scanned(memtable: &Arc<Memtable>, quest: &Quest) -> BTreeMap<Bytes, (u64, Option<Bytes>)> {
    let mut all = BTreeMap::new();
    for mut cursor in memtable.cursors(quest) {
        let mut before: Option<Bytes> = None;
        while let Step::Row = cursor.step() {
            let found = cursor.version().to_owned();
            assert_eq!(cursor.value(), found.version.value);
            let in_order = before.is_none_or(|before| match quest.direction {
                Direction::Forward => before < found.row,
                Direction::Backward => before > found.row,
            });
            assert!(in_order);
            before = Some(found.row.clone());
            let version = (found.version.stamp.get(), found.version.value);
            let newest = all.entry(found.row).or_insert_with(|| version.clone());
            if newest.0 < version.0 {
                *newest = version;
            }
        }
    }
    all
}

fn assert_scans(memtable: &Arc<Memtable>, model: &Model, range: &RowRange, at: u64) {
    let want = expected(model, range, at);
    for direction in [Direction::Forward, Direction::Backward] {
        let quest = Quest {
            range: range.clone(),
            at: Lsn::new(at),
            direction,
        };
        assert_eq!(scanned(memtable, &quest), want, "{quest:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_memtable_agrees_with_a_map(actions in prop::collection::vec(action(), 1..80)) {
        let memtable = Arc::new(Memtable::above(Lsn::new(10)));
        let (mut model, mut tail) = (Model::new(), 10_u64);
        for action in actions {
            let rows: BTreeMap<RowKey, Option<Bytes>> = match action {
                Action::Commit(rows) => rows
                    .into_iter()
                    .map(|(n, bytes)| (odd_row(n), bytes.map(|bytes| Bytes::from(vec![7; bytes.into()]))))
                    .collect(),
                Action::CommitMany(from, count) => (from..from + count)
                    .map(|n| (odd_row(n), Some(Bytes::copy_from_slice(&n.to_be_bytes()))))
                    .collect(),
                Action::Get(number, back) => {
                    let (row, at) = (odd_row(number), tail.saturating_sub(back));
                    let found = memtable.get(row.as_bytes(), row_hash(SALT, row.as_bytes()), Lsn::new(at));
                    let versions = model.get(row.as_bytes());
                    let want = versions.and_then(|versions| versions.range(..=at).next_back());
                    let found = found.as_ref().map(|version| (version.stamp.get(), &version.value));
                    prop_assert_eq!(found, want.map(|(stamp, value)| (*stamp, value)));
                    continue;
                }
                Action::Scan { from, to, back } => {
                    let (from, to) = (odd_row(from).to_bytes(), odd_row(to).to_bytes());
                    let low = [Bound::Included(from.clone()), Bound::Excluded(from), Bound::Unbounded];
                    let high = [Bound::Included(to.clone()), Bound::Excluded(to), Bound::Unbounded];
                    let (low, high) = (low[back as usize % 3].clone(), high[back as usize / 3 % 3].clone());
                    assert_scans(&memtable, &model, &RowRange { low, high }, tail.saturating_sub(back));
                    continue;
                }
            };
            tail += 2;
            for (row, value) in &rows {
                model.entry(row.to_bytes()).or_default().insert(tail, value.clone());
            }
            apply(&memtable, WriteBatch::from_sorted(rows), Lsn::new(tail));
        }
        memtable.seal(Lsn::new(tail));
        let all = collect(memtable.walk()).unwrap();
        let want: Vec<_> = model
            .iter()
            .flat_map(|(row, versions)| versions.iter().rev().map(move |(stamp, value)| RowVersion {
                row: row.clone(),
                version: Version { stamp: Lsn::new(*stamp), value: value.clone() },
            }))
            .collect();
        prop_assert_eq!(all.len(), memtable.versions());
        prop_assert!(all == want, "the flush gets every version in order");
    }
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn readers_beside_the_writer_find_every_version() {
    // Commit number s writes one row, which s decides: whoever reads that row at s finds stamp s, though
    // the index grows and others put rows in order meanwhile.
    const COMMITS: u64 = 60_000;
    let row_of =
        |stamp: u64| row((stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % 20_000);
    let memtable = Arc::new(Memtable::above(Lsn::ZERO));
    let (tail, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let reads = |seed: u64| {
        let (mut draw, mut rounds) = (seed, 0_u64);
        loop {
            let newest = tail.load(Ordering::Acquire);
            if newest > 0 {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = 1 + ((u128::from(draw) * u128::from(newest)) >> 64) as u64;
                let row = row_of(at);
                let hash = row_hash(SALT, row.as_bytes());
                let found = memtable.get(row.as_bytes(), hash, Lsn::new(at));
                assert_eq!(found.map(|version| version.stamp.get()), Some(at), "W2");
                if rounds % 64 == 0 {
                    let direction =
                        [Direction::Forward, Direction::Backward][rounds as usize / 64 % 2];
                    let range = RowRange {
                        low: Bound::Included(row.to_bytes()),
                        high: Bound::Included(row.to_bytes()),
                    };
                    let quest = Quest {
                        range,
                        at: Lsn::new(at),
                        direction,
                    };
                    let stamps: Vec<_> = scanned(&memtable, &quest)
                        .into_values()
                        .map(|it| it.0)
                        .collect();
                    assert_eq!(stamps, [at], "W2");
                }
                rounds += 1;
            }
            if newest == COMMITS || done.load(Ordering::Acquire) {
                return rounds;
            }
        }
    };
    std::thread::scope(|scope| {
        // A writer that fails must not leave the readers waiting for it.
        let _done = Done(&done);
        let readers = [1, 2].map(|seed| scope.spawn(move || reads(seed)));
        for stamp in 1..=COMMITS {
            let value = Some(Bytes::copy_from_slice(&stamp.to_be_bytes()));
            let batch = WriteBatch::from_sorted(vec![(row_of(stamp), value)]);
            apply(&memtable, batch, Lsn::new(stamp));
            tail.store(stamp, Ordering::Release);
        }
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}
