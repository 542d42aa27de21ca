//! Visits against a map: rows that are shown a stretch at a time are those that are stepped through.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::cursor::Direction;

/// A source's rows, each with one version, or nothing; stamps say which source is newer.
type Rows = BTreeMap<usize, Option<Bytes>>;

fn source(rows: Vec<(usize, Option<u8>)>, even: bool, stamp: u64) -> Rows {
    let value = |n: usize, byte: u8| {
        let bytes = if even { 90 } else { 60 + n % 50 };
        Bytes::from([vec![byte; bytes], stamp.to_le_bytes().to_vec()].concat())
    };
    let rows = rows.into_iter();
    rows.map(|(n, byte)| (n, byte.map(|byte| value(n, byte))))
        .collect()
}

/// The run number `number` with these rows.
fn write_rows(disk: &SimDisk, number: u64, rows: &Rows) -> Option<RunEntry> {
    let versions = rows.iter().map(|(n, value)| {
        Ok(RowVersion {
            row: row(*n),
            version: Version {
                stamp: Lsn::new(number),
                value: value.clone(),
            },
        })
    });
    let plan = RunPlan {
        identity: IDENTITY,
        number,
    };
    run::write(disk, plan, versions).unwrap()
}

fn sources(all: &[Rows]) -> (Arc<Sources>, Live) {
    let disk = SimDisk::new(1);
    let mut live = Live::new();
    let mut runs = Vec::new();
    for (number, rows) in (1..).zip(all) {
        live.extend(rows.iter().map(|(n, value)| (row(*n), value.clone())));
        let entry = write_rows(&disk, number, rows);
        let disk: Arc<dyn Disk> = Arc::clone(&disk) as _;
        let open = |entry| (0, Arc::new(Run::open(&disk, IDENTITY, &entry).unwrap()));
        runs.extend(entry.map(open));
    }
    runs.reverse();
    let sources = Sources {
        memtables: vec![Arc::new(Memtable::above(Lsn::new(all.len() as u64)))],
        tree: Arc::new(Tree::new(runs)),
        drop_horizon: Lsn::ZERO,
        salt: IDENTITY.salt,
        _departure: Departure::new(&Arc::default()),
    };
    live.retain(|_, value| value.is_some());
    (Arc::new(sources), live)
}

fn rows() -> impl Strategy<Value = Vec<(usize, Option<u8>)>> {
    // Neighbours, so that stretches are long; or anything, so that sources alternate.
    let near = (0..700_usize, 1..300_usize, any::<u8>())
        .prop_map(|(from, count, byte)| (from..from + count).map(|n| (n, Some(byte))).collect());
    let some = prop::collection::vec(
        (0..1000_usize, prop::option::weighted(0.9, any::<u8>())),
        0..200,
    );
    prop_oneof![near, some]
}

fn bound() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![
        Just(Bound::Unbounded),
        (0..1000_usize).prop_map(|n| Bound::Included(row(n))),
        (0..1000_usize).prop_map(|n| Bound::Excluded(row(n))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn visits_and_steps_between_them_agree_with_a_map(
        all in prop::collection::vec((rows(), any::<bool>()), 1..5),
        low in bound(),
        high in bound(),
        stops in prop::collection::vec(0..120_usize, 0..6),
    ) {
        let all: Vec<_> = (1..).zip(all).map(|(stamp, (rows, even))| source(rows, even, stamp)).collect();
        let (sources, live) = sources(&all);
        let within = |row: &Bytes| {
            let range: (Bound<&Bytes>, Bound<&Bytes>) = (low.as_ref(), high.as_ref());
            std::ops::RangeBounds::contains(&range, &row)
        };
        let want: Vec<_> = live.into_iter().filter(|(row, _)| within(row)).collect();
        let mut scan = sources.scan((low.clone(), high.clone()), Lsn::MAX);
        let mut seen = Vec::new();
        for stop in stops {
            let mut left = stop;
            let end = scan.visit(|row, value| {
                seen.push((Bytes::copy_from_slice(row), Some(Bytes::copy_from_slice(value))));
                left = left.wrapping_sub(1);
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            prop_assert!(end.is_ok());
            // Steps behind a visit that was stopped go on where that was, the short ones too.
            for _ in 0..stop / 2 {
                if scan.step_on() || scan.advance(Direction::Forward).transpose().unwrap().is_some() {
                    let (row, value) = scan.row(Direction::Forward);
                    prop_assert_eq!(value, scan.value(Direction::Forward));
                    seen.push((Bytes::copy_from_slice(row), Some(Bytes::copy_from_slice(value))));
                }
            }
        }
        let _ = scan.visit(|row, value| -> ControlFlow<()> {
            seen.push((Bytes::copy_from_slice(row), Some(Bytes::copy_from_slice(value))));
            ControlFlow::Continue(())
        });
        prop_assert_eq!(seen, want);
    }
}

#[test]
fn every_flipped_byte_of_an_older_run_is_told_to_a_visit_or_does_no_harm() {
    let older = source((0..120).map(|n| (n, Some(1))).collect(), true, 1);
    let newer = source((40..44).map(|n| (n, Some(2))).collect(), true, 2);
    let disk = SimDisk::new(1);
    let entries = [&older, &newer].map(|rows| {
        let number = rows.values().flatten().next().unwrap()[90];
        write_rows(&disk, u64::from(number), rows).unwrap()
    });
    let live: Live = (older.iter().chain(&newer))
        .map(|(n, value)| (row(*n), value.clone()))
        .collect();
    let name = "run-0000000000000001";
    let bytes = disk.read_file(name);
    let mut told = 0;
    for offset in 0..bytes.len() {
        disk.flip_byte(name, offset as u64);
        let shared: Arc<dyn Disk> = Arc::clone(&disk) as _;
        let open = |entry| Run::open(&shared, IDENTITY, entry).map(|run| (0, Arc::new(run)));
        let runs: Result<Vec<_>, _> = entries.iter().rev().map(open).collect();
        if let Ok(runs) = runs {
            let sources = Arc::new(Sources {
                memtables: Vec::new(),
                tree: Arc::new(Tree::new(runs)),
                drop_horizon: Lsn::ZERO,
                salt: IDENTITY.salt,
                _departure: Departure::new(&Arc::default()),
            });
            let mut scan = sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::MAX);
            let (mut shown, mut errors) = (0, 0);
            while scan
                .visit(|row, value| {
                    assert_eq!(live[row].as_deref(), Some(value), "F11: byte {offset}");
                    shown += 1;
                    ControlFlow::<()>::Continue(())
                })
                .is_err()
            {
                errors += 1;
            }
            // The filter alone is not asked by scans.
            assert!(shown == live.len() || errors == 1, "byte {offset}");
            assert!(shown >= newer.len() && errors <= 1);
            told += errors;
        }
        disk.flip_byte(name, offset as u64);
    }
    assert!(told > 10_000, "{told} of {} bytes", bytes.len());
}
