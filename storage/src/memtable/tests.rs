//! Memtables: single rows, chunks and both together read as one; one writer beside readers.

use std::ops::Bound;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use lockstone_base::{RowKey, TableId};

use super::*;
use crate::batch::WriteBatch;
use crate::cursor::{Direction, RowRange, Step};
use crate::row_hash::row_hash;

const SALT: u64 = 0x5a17;

fn row(number: u32) -> RowKey {
    RowKey::new(TableId(1), &number.to_be_bytes())
}

fn batch(rows: impl IntoIterator<Item = u32>, value: &str) -> WriteBatch {
    let value = Bytes::copy_from_slice(value.as_bytes());
    WriteBatch::from_sorted(
        rows.into_iter()
            .map(|n| (row(n), Some(value.clone())))
            .collect(),
    )
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
    let all: Vec<_> = memtable.all().unwrap().map(Result::unwrap).collect();
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
        while let Some(Step::Row(row)) = cursor.step() {
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
