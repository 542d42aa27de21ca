//! Reads over damaged runs: an error or the right answer, never an older one (F11).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_testkit::SimDisk;

use super::*;
use crate::batch::WriteBatch;
use crate::cursor::Direction;
use crate::error::StorageError;
use crate::memtable::Memtable;
use crate::run::{self, Identity, Run, RunEntry, RunPlan};
use crate::tree::Tree;
use crate::version::RowVersion;
use crate::version::Version;
use std::ops::Bound;

mod visits;

const IDENTITY: Identity = Identity { uuid: 7, salt: 9 };
const NEWER: &str = "run-0000000000000002";

type Live = BTreeMap<Bytes, Option<Bytes>>;

/// Two runs and a memtable: what each says of its rows, and together.
struct Layers {
    disk: Arc<SimDisk>,
    entries: [RunEntry; 2],
    memtable: Arc<Memtable>,
    live: Live,
}

fn row(number: usize) -> Bytes {
    RowKey::new(TableId(1), format!("{number:03}").as_bytes()).to_bytes()
}

fn layers() -> Layers {
    let disk = SimDisk::new(1);
    let older = (0..80).map(|n| (row(n), 10_u64, Some(Bytes::from(vec![b'o'; 40]))));
    // Two versions of each row, so that rows go over the edge of a block.
    let newer = (0..80).filter(|n| n % 5 != 0).flat_map(|n| {
        let value = (n % 3 != 0).then(|| Bytes::from(vec![b'n'; 85]));
        [
            (row(n), 30_u64, value),
            (row(n), 20, Some(Bytes::from(vec![b'm'; 85]))),
        ]
    });
    let entries = [
        (2, Box::new(newer) as Box<dyn Iterator<Item = _>>),
        (1, Box::new(older)),
    ];
    let mut live = Live::new();
    let entries = entries.map(|(number, versions)| {
        let versions: Vec<_> = versions
            .map(|(row, stamp, value)| RowVersion {
                row,
                version: Version {
                    stamp: Lsn::new(stamp),
                    value,
                },
            })
            .collect();
        for version in &versions {
            let value = &version.version.value;
            live.entry(version.row.clone())
                .or_insert_with(|| value.clone());
        }
        let plan = RunPlan {
            identity: IDENTITY,
            number,
        };
        run::write(disk.as_ref(), plan, versions.into_iter().map(Ok))
            .unwrap()
            .unwrap()
    });
    let memtable = Arc::new(Memtable::above(Lsn::new(30)));
    for (n, value) in [(7, Some(Bytes::from_static(b"memory"))), (50, None)] {
        let key = RowKey::from_encoded(row(n)).unwrap();
        memtable.commit(
            WriteBatch::from_sorted(vec![(key, value.clone())]),
            Lsn::new(40 + n as u64),
            IDENTITY.salt,
        );
        live.insert(row(n), value);
    }
    Layers {
        disk,
        entries,
        memtable,
        live,
    }
}

impl Layers {
    fn sources(&self, disk: &Arc<SimDisk>) -> Result<Arc<Sources>, StorageError> {
        Self::sources_of(disk, &self.memtable, &self.entries)
    }

    fn sources_of(
        disk: &Arc<SimDisk>,
        memtable: &Arc<Memtable>,
        entries: &[RunEntry],
    ) -> Result<Arc<Sources>, StorageError> {
        let disk: Arc<dyn Disk> = Arc::clone(disk) as _;
        let open = |entry| Run::open(&disk, IDENTITY, entry).map(Arc::new);
        Ok(Arc::new(Sources {
            active: Arc::clone(memtable),
            stack: Stack::default(),
            tree: Arc::new(Tree::new(
                entries
                    .iter()
                    .map(|entry| Ok((0, open(entry)?)))
                    .collect::<Result<Vec<_>, StorageError>>()?,
            )),
            drop_horizon: Lsn::ZERO,
            salt: IDENTITY.salt,
            _departure: Departure::new(&Arc::default()),
        }))
    }

    /// Asserts that everything read is right; how many reads failed.
    fn assert_right_or_error(&self, sources: &Arc<Sources>) -> usize {
        let mut errors = 0;
        for (row, value) in &self.live {
            match sources.get(row, Lsn::MAX) {
                Ok(found) => assert_eq!(found.and_then(|version| version.value), *value, "{row:?}"),
                Err(_) => errors += 1,
            }
        }
        let rows: Vec<_> = self.live.keys().rev().collect();
        let together = sources.get_many(&rows, Lsn::MAX);
        for (row, found) in rows.into_iter().zip(together) {
            match (sources.get(row, Lsn::MAX), found) {
                (Ok(alone), Ok(found)) => assert_eq!(alone, found, "{row:?}"),
                (Err(_), Err(_)) => {}
                (alone, found) => panic!("{row:?}: {alone:?} and {found:?}"),
            }
        }
        let got = sources.get(b"\0\0\0\x01nobody", Lsn::MAX);
        assert!(matches!(got, Ok(None) | Err(_)));
        let all = || sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::MAX);
        let mut back_and_forth = all();
        let alternating =
            std::iter::from_fn(|| Some([back_and_forth.next(), back_and_forth.next_back()]))
                .map_while(|ends| ends.iter().any(Option::is_some).then_some(ends))
                .flatten()
                .flatten();
        let mut visit = all();
        let visited = std::iter::from_fn(|| {
            let mut seen = Vec::new();
            let end = visit.visit(|row, value| {
                let (stamp, value) = (Lsn::ZERO, Some(Bytes::copy_from_slice(value)));
                seen.push(Ok((Bytes::copy_from_slice(row), Version { stamp, value })));
                std::ops::ControlFlow::<()>::Continue(())
            });
            let failed = end.err().map(Err);
            let items: Vec<_> = seen.into_iter().chain(failed).collect();
            (!items.is_empty()).then_some(items)
        });
        let visited: Vec<_> = visited.flatten().collect();
        let scans: [(&str, Vec<_>); 4] = [
            ("visited", visited),
            ("forward", all().collect()),
            ("backward", all().rev().collect()),
            ("alternating", alternating.collect()),
        ];
        for (scan, items) in scans {
            let (rows, failed): (Vec<_>, Vec<_>) = items.into_iter().partition(Result::is_ok);
            let rows: Live = rows
                .into_iter()
                .flatten()
                .map(|(row, found)| (row, found.value))
                .collect();
            for (row, value) in &rows {
                assert_eq!(self.live.get(row), Some(value), "{scan}: {row:?}");
            }
            let missing = self
                .live
                .iter()
                .filter(|(row, value)| value.is_some() && !rows.contains_key(*row));
            assert!(
                missing.count() == 0 || !failed.is_empty(),
                "{scan}: rows are missing without an error"
            );
            assert!(
                failed.len() <= 2,
                "{scan}: one error for each damaged block"
            );
            errors += failed.len();
        }
        errors
    }
}

#[test]
fn every_flipped_byte_of_a_run_is_an_error_or_does_no_harm() {
    let layers = layers();
    let intact = layers.sources(&layers.disk).unwrap();
    assert_eq!(layers.assert_right_or_error(&intact), 0);
    let bytes = layers.disk.read_file(NEWER);
    let (mut refused, mut failed) = (0, 0);
    for offset in 0..bytes.len() {
        let disk = SimDisk::new(1);
        disk.write_file(
            "run-0000000000000001",
            &layers.disk.read_file("run-0000000000000001"),
        );
        let mut flipped = bytes.clone();
        // One bit, another one each time.
        flipped[offset] ^= 1 << (offset % 8);
        disk.write_file(NEWER, &flipped);
        let Ok(sources) = layers.sources(&disk) else {
            refused += 1;
            continue;
        };
        assert!(
            layers.assert_right_or_error(&sources) > 0,
            "byte {offset} is not covered"
        );
        assert_eq!(
            sources.tree.l0[0].check().findings.len(),
            1,
            "byte {offset}"
        );
        failed += 1;
    }
    assert!(
        refused > 120 && failed > 9_000,
        "{refused} refused, {failed} failed at the first touch"
    );
}

#[test]
fn only_a_damaged_blocks_rows_are_lost() {
    let layers = layers();
    let blocks = layers.sources(&layers.disk).unwrap().tree.l0[0]
        .check()
        .blocks;
    assert!(blocks >= 3, "{blocks}");
    let total = layers.live.values().filter(|value| value.is_some()).count();
    for offset in (100..9_000).step_by(1500) {
        let disk = SimDisk::new(1);
        for name in layers.disk.names() {
            disk.write_file(&name, &layers.disk.read_file(&name));
        }
        disk.flip_byte(NEWER, offset);
        let sources = layers.sources(&disk).unwrap();
        let items: Vec<_> = sources
            .scan((Bound::Unbounded, Bound::Unbounded), Lsn::MAX)
            .collect();
        let errors = items.iter().filter(|item| item.is_err()).count();
        let rows = items.iter().flatten().count();
        assert_eq!(errors, 1);
        assert!(rows < total && rows + 40 > total, "{rows} of {total}");
        // Newer sources are not hidden by it.
        let memory = items
            .iter()
            .flatten()
            .find(|(found, _)| *found == row(7))
            .unwrap();
        assert_eq!(memory.1.value, Some(Bytes::from_static(b"memory")));
        let denied = layers
            .live
            .keys()
            .filter(|row| sources.get(row, Lsn::MAX).is_err())
            .count();
        assert!(denied > 0 && denied < 60, "{denied}");
        assert!(layers.assert_right_or_error(&sources) > 0);
    }
}

#[test]
fn an_unfinished_scan_reports_a_block_once_from_both_ends() {
    let layers = layers();
    layers.disk.flip_byte(NEWER, 6000);
    let sources = layers.sources(&layers.disk).unwrap();
    let mut scan = sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::MAX);
    while scan.next().unwrap().is_ok() {}
    let rest: Vec<_> = scan.rev().collect();
    assert!(!rest.is_empty() && rest.iter().all(Result::is_ok));
}

#[test]
fn a_scan_that_does_not_reach_a_damaged_block_does_not_see_it() {
    let layers = layers();
    layers.disk.flip_byte(NEWER, 7_500);
    let sources = layers.sources(&layers.disk).unwrap();
    let items = sources.scan((Bound::Unbounded, Bound::Excluded(row(20))), Lsn::MAX);
    assert!(items.collect::<Vec<_>>().iter().all(Result::is_ok));
    layers.disk.flip_byte(NEWER, 7_500);
    layers.disk.flip_byte(NEWER, 30);
    let sources = layers.sources(&layers.disk).unwrap();
    let items = sources.scan((Bound::Included(row(70)), Bound::Unbounded), Lsn::MAX);
    assert!(items.rev().collect::<Vec<_>>().iter().all(Result::is_ok));
}

#[test]
fn an_inverted_range_is_empty() {
    let layers = layers();
    let sources = layers.sources(&layers.disk).unwrap();
    for (low, high) in [
        (Bound::Included(row(9)), Bound::Excluded(row(9))),
        (Bound::Excluded(row(9)), Bound::Included(row(9))),
        (Bound::Excluded(row(9)), Bound::Excluded(row(9))),
        (Bound::Included(row(50)), Bound::Included(row(9))),
    ] {
        let range = (low, high);
        assert_eq!(
            sources.scan(range.clone(), Lsn::MAX).count(),
            0,
            "{range:?}"
        );
        assert_eq!(
            sources.scan(range.clone(), Lsn::MAX).rev().count(),
            0,
            "{range:?}"
        );
    }
}

#[test]
fn what_is_ahead_is_what_comes() {
    const AHEAD: usize = 3;
    let layers = layers();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let sources = Layers::sources_of(&layers.disk, &Arc::default(), &layers.entries[1..]).unwrap();
    let rows: Vec<_> = sources
        .scan(all.clone(), Lsn::MAX)
        .map(Result::unwrap)
        .collect();
    let mut scan = sources.scan(all.clone(), Lsn::MAX);
    assert_eq!(scan.ahead(AHEAD), None);
    let mut told = 0;
    for at in 0..rows.len() {
        scan.advance(Direction::Forward).unwrap().unwrap();
        if let Some((head, tail)) = scan.ahead(AHEAD) {
            assert_eq!([head, tail].concat(), rows[at + AHEAD].0);
            told += 1;
        }
    }
    assert!(
        (rows.len() / 2..=rows.len() - AHEAD).contains(&told),
        "{told}"
    );
    // From behind nobody tells.
    let mut scan = sources.scan(all, Lsn::MAX);
    scan.advance(Direction::Backward).unwrap().unwrap();
    assert_eq!(scan.ahead(AHEAD), None);
}
