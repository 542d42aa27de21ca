//! Visits against a map: rows that are shown a stretch at a time are those that are stepped through.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::cursor::Direction;

/// A source's rows, each with one version, or nothing; stamps say which source is newer.
type Rows = BTreeMap<usize, Option<Bytes>>;

/// Every version that there is.
type Versions = BTreeMap<Bytes, BTreeMap<u64, Option<Bytes>>>;

/// So far are the stamps of two sources apart; a row's older version in a source is one older.
const APART: u64 = 10;

fn source(rows: Vec<(usize, Option<u8>)>, even: bool, stamp: u64) -> Rows {
    let value = |n: usize, byte: u8| {
        let bytes = if even { 90 } else { 60 + n % 50 };
        Bytes::from([vec![byte; bytes], stamp.to_le_bytes().to_vec()].concat())
    };
    let rows = rows.into_iter();
    rows.map(|(n, byte)| (n, byte.map(|byte| value(n, byte))))
        .collect()
}

/// The run number `number` with these rows, stamped `stamp`; each `doubled`th has an older version too.
fn write_rows(
    disk: &SimDisk,
    (number, stamp): (u64, u64),
    rows: &Rows,
    doubled: Option<usize>,
) -> Option<RunEntry> {
    let versions = rows.iter().flat_map(|(n, value)| {
        let older = doubled.filter(|each| n.is_multiple_of(*each));
        let older = older.map(|_| (stamp - 1, Some(Bytes::from_static(b"older"))));
        let versions = [(stamp, value.clone())].into_iter().chain(older);
        versions.map(|(stamp, value)| RowVersion {
            row: row(*n),
            version: Version {
                stamp: Lsn::new(stamp),
                value,
            },
        })
    });
    let plan = RunPlan {
        identity: IDENTITY,
        number,
    };
    run::write(disk, plan, versions.map(Ok)).unwrap()
}

/// Where sources stand.
#[derive(Debug, Clone)]
struct Stand {
    /// So many of the oldest ones have a level each below level 0, where each is cut into this many runs.
    deep: usize,
    cut: usize,
    /// The newest one is in memory.
    in_memory: bool,
    /// Each such row has an older version as well, in runs.
    doubled: Option<usize>,
}

fn sources(all: &[Rows], stand: &Stand) -> (Arc<Sources>, Versions) {
    let disk = SimDisk::new(1);
    let mut versions = Versions::new();
    let (mut runs, mut numbers) = (Vec::new(), 1..);
    let active = Memtable::above(Lsn::ZERO);
    for (place, rows) in all.iter().enumerate() {
        let stamp = (place as u64 + 1) * APART;
        let is_memory = stand.in_memory && place + 1 == all.len();
        for (n, value) in rows {
            let here = versions.entry(row(*n)).or_default();
            here.insert(stamp, value.clone());
            let doubled = stand.doubled.filter(|_| !is_memory);
            if doubled.is_some_and(|each| n.is_multiple_of(each)) {
                here.insert(stamp - 1, Some(Bytes::from_static(b"older")));
            }
        }
        if is_memory {
            let keys = rows.iter().map(|(n, value)| {
                let key = RowKey::from_encoded(row(*n)).unwrap();
                (key, value.clone())
            });
            active.commit(
                WriteBatch::from_sorted(keys),
                Lsn::new(stamp),
                IDENTITY.salt,
            );
            continue;
        }
        // The oldest stands deepest.
        let level = stand.deep.saturating_sub(place);
        let cut = if level == 0 { 1 } else { stand.cut };
        let part = rows.len().div_ceil(cut).max(1);
        let rows: Vec<_> = rows.iter().map(|(n, value)| (*n, value.clone())).collect();
        let mut here = Vec::new();
        for part in rows.chunks(part) {
            let number = numbers.next().unwrap();
            let part = part.iter().cloned().collect();
            let entry = write_rows(&disk, (number, stamp), &part, stand.doubled);
            let disk: Arc<dyn Disk> = Arc::clone(&disk) as _;
            let open = |entry| Arc::new(Run::open(&disk, IDENTITY, &entry).unwrap());
            here.extend(entry.map(open).map(|run| (level as u8, run)));
        }
        // Newest first, and in a level by row.
        runs.splice(0..0, here);
    }
    let sources = Sources {
        active: Arc::new(active),
        stack: Stack::default(),
        tree: Arc::new(Tree::new(runs)),
        drop_horizon: Lsn::ZERO,
        salt: IDENTITY.salt,
        _departure: Departure::new(&Arc::default()),
    };
    (Arc::new(sources), versions)
}

/// The rows that live at `at`.
fn live_at(versions: &Versions, at: u64) -> Live {
    let newest = versions.iter().filter_map(|(row, versions)| {
        let (_, value) = versions.range(..=at).next_back()?;
        Some((row.clone(), Some(value.clone()?)))
    });
    newest.collect()
}

fn stand() -> impl Strategy<Value = Stand> {
    let doubled = prop::option::weighted(0.3, 1..40_usize);
    let all = (0..4_usize, 1..4_usize, any::<bool>(), doubled);
    all.prop_map(|(deep, cut, in_memory, doubled)| Stand {
        deep,
        cut,
        in_memory,
        doubled,
    })
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
        stand in stand(),
        // Mostly all of it; or of the moment of a version, or just before it.
        at in prop_oneof![3 => Just(u64::MAX), 2 => 0..60_u64],
    ) {
        let all: Vec<_> = (1..).zip(all).map(|(stamp, (rows, even))| source(rows, even, stamp)).collect();
        let (sources, versions) = sources(&all, &stand);
        let live = live_at(&versions, at);
        let within = |row: &Bytes| {
            let range: (Bound<&Bytes>, Bound<&Bytes>) = (low.as_ref(), high.as_ref());
            std::ops::RangeBounds::contains(&range, &row)
        };
        let want: Vec<_> = live.into_iter().filter(|(row, _)| within(row)).collect();
        let mut scan = sources.scan((low.clone(), high.clone()), Lsn::new(at));
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
        let number = u64::from(number);
        write_rows(&disk, (number, number), rows, None).unwrap()
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
                active: Arc::default(),
                stack: Stack::default(),
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

/// Blocks that a visit has trusted when it began are trusted no longer when it gets there.
#[test]
fn trust_that_is_lost_on_the_way_is_told_and_lets_nothing_older_through() {
    let older = source((0..300).map(|n| (n, Some(1))).collect(), true, 1);
    let newer = source((0..300).map(|n| (n, Some(2))).collect(), true, 2);
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::clone(&disk) as _;
    for (base, level) in [(0, 0), (10, 3)] {
        let runs = [(2, &newer, level), (1, &older, 6)].map(|(number, rows, level)| {
            let number = base + number;
            let entry = write_rows(&disk, (number, number), rows, None).unwrap();
            (
                level,
                Arc::new(Run::open(&shared, IDENTITY, &entry).unwrap()),
            )
        });
        let victim = Arc::clone(&runs[0].1);
        let name = crate::file_name::run(victim.entry().number);
        let sources = Arc::new(Sources {
            active: Arc::default(),
            stack: Stack::default(),
            tree: Arc::new(Tree::new(runs)),
            drop_horizon: Lsn::ZERO,
            salt: IDENTITY.salt,
            _departure: Departure::new(&Arc::default()),
        });
        let scrub = || victim.scrub(0, u64::MAX, &mut |_| true);
        let (mut told, len) = (0, victim.entry().bytes);
        for offset in (30..len - 124).step_by(len as usize / 60) {
            for when in [0, 1, 40, 170, 299] {
                let mut shown = Vec::new();
                let mut see = |row: &[u8], value: &[u8]| {
                    if shown.len() == when {
                        disk.flip_byte(&name, offset);
                        scrub();
                    }
                    assert_eq!(
                        newer[&shown_number(row)].as_deref(),
                        Some(value),
                        "F11: byte {offset}"
                    );
                    shown.push(Bytes::copy_from_slice(row));
                    ControlFlow::<()>::Continue(())
                };
                let mut scan = sources.scan((Bound::Unbounded, Bound::Unbounded), Lsn::MAX);
                let mut errors = 0;
                while scan.visit(&mut see).is_err() {
                    errors += 1;
                }
                assert!(shown.is_sorted() && shown.len() > when);
                assert_eq!(
                    shown.len() < newer.len(),
                    errors > 0,
                    "F11: byte {offset}, behind {when}"
                );
                assert!(errors <= 1);
                told += errors;
                disk.flip_byte(&name, offset);
                assert_eq!(scrub().0, None);
            }
        }
        assert!(told > 60, "{told}");
    }
}

fn shown_number(row: &[u8]) -> usize {
    let digits = std::str::from_utf8(&row[4..]).unwrap();
    digits.parse().unwrap()
}
