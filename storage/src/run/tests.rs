//! Runs: what is written is read back, whatever its shape; bytes that were changed, with checksums made
//! good or not, give errors.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, OsDisk};
use lockstone_testkit::SimDisk;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{BLOCK_HEAD_BYTES, BlockHead, FOOTER_BYTES, Footer, IndexCell, IndexSlot};
use super::window::Fetched;
use super::*;
use crate::checksum::Place;
use crate::cursor::{Cursor, Direction, Quest, RowRange, Step};
use crate::error::{Damage, Section, StorageError};
use crate::row_hash::row_hash;
use crate::version::{RowVersion, Version};
use crate::walk::collect;

mod trust;

const IDENTITY: Identity = Identity {
    uuid: 0x0123_4567_89ab_cdef,
    salt: 0xfeed,
};
const NUMBER: u64 = 0x2a;
const NAME: &str = "run-000000000000002a";

fn version(row: &[u8], stamp: u64, value: Option<&[u8]>) -> RowVersion {
    RowVersion {
        row: Bytes::copy_from_slice(row),
        version: Version {
            stamp: Lsn::new(stamp),
            value: value.map(Bytes::copy_from_slice),
        },
    }
}

fn sorted(mut versions: Vec<RowVersion>) -> Vec<RowVersion> {
    versions.sort_by(|a, b| {
        a.row
            .cmp(&b.row)
            .then(b.version.stamp.cmp(&a.version.stamp))
    });
    versions
}

/// Rows of every kind: many versions of one row, over several blocks; large values; tombstones.
fn varied() -> Vec<RowVersion> {
    let mut versions = Vec::new();
    for n in 0..40_u64 {
        let row = format!("\0\0\0\x01row{n:04}");
        versions.push(version(
            row.as_bytes(),
            500 + n,
            (n % 5 != 0).then_some(&[n as u8; 60]),
        ));
        versions.push(version(row.as_bytes(), 100 + n, Some(&[n as u8; 30])));
    }
    for stamp in 200..330 {
        versions.push(version(b"\0\0\0\x01row0020", stamp, Some(&[7; 90])));
    }
    versions.push(version(b"\0\0\0\x01row0030", 300, Some(&[9; 9000])));
    versions.push(version(b"\0\0\0\x01", 1, Some(b"")));
    versions.push(version(&[0xff; 4100], 2, Some(b"the longest row")));
    sorted(versions)
}

fn written(versions: &[RowVersion]) -> (Arc<SimDisk>, RunEntry) {
    let disk = SimDisk::new(1);
    let plan = RunPlan {
        identity: IDENTITY,
        number: NUMBER,
    };
    let entry = write(disk.as_ref(), plan, versions.iter().cloned().map(Ok))
        .unwrap()
        .unwrap();
    (disk, entry)
}

fn opened(disk: &Arc<SimDisk>, entry: &RunEntry) -> Result<Arc<Run>, StorageError> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as _;
    Run::open(&disk, IDENTITY, entry).map(Arc::new)
}

fn get(run: &Run, row: &[u8], at: u64) -> Result<Option<Version>, StorageError> {
    run.get(row, row_hash(run.salt(), row), Lsn::new(at))
}

fn whole(at: u64, direction: Direction) -> Quest {
    let range = RowRange {
        low: Bound::Unbounded,
        high: Bound::Unbounded,
    };
    Quest {
        range,
        at: Lsn::new(at),
        direction,
    }
}

/// The rows that a cursor yields, and the errors that it meets.
fn walk(run: &Arc<Run>, quest: &Quest) -> (Vec<RowVersion>, Vec<StorageError>) {
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    if let Some(mut cursor) = run.cursor(quest) {
        loop {
            match cursor.step() {
                Step::Row => {
                    let row = cursor.version().to_owned();
                    assert_eq!(cursor.value(), row.version.value);
                    rows.push(row);
                }
                Step::Damaged(hidden) => errors.push(hidden.error),
                Step::End => break,
            }
            assert!(
                rows.len() + errors.len() < 100_000,
                "a cursor comes to an end"
            );
        }
    }
    if quest.direction == Direction::Backward {
        rows.reverse();
    }
    (rows, errors)
}

/// Walks as far as a visit does: a step, and what can be shown behind it.
fn sweep(run: &Arc<Run>, at: u64) {
    let mut cursor = run.cursor(&whole(at, Direction::Forward));
    let mut shown = 0_u32;
    while let Some(cursor) = &mut cursor {
        if matches!(cursor.step(), Step::End) {
            break;
        }
        let _ = cursor.sweep(None, &mut |_, _| {
            shown += 1;
            ControlFlow::Continue(())
        });
        shown += 1;
        assert!(shown < 1_000_000, "a sweep comes to an end");
    }
}

fn visible(versions: &[RowVersion], at: u64) -> Vec<RowVersion> {
    let mut newest: BTreeMap<&Bytes, &RowVersion> = BTreeMap::new();
    for version in versions
        .iter()
        .filter(|version| version.version.stamp.get() <= at)
    {
        newest.entry(&version.row).or_insert(version);
    }
    newest.into_values().cloned().collect()
}

fn assert_reads(run: &Arc<Run>, versions: &[RowVersion]) {
    let all = collect(run.walk()).unwrap();
    assert_eq!(all, versions);
    let stamps = versions.iter().map(|version| version.version.stamp.get());
    for at in stamps.chain([0, u64::MAX]).step_by(7) {
        let want = visible(versions, at);
        for direction in [Direction::Forward, Direction::Backward] {
            let (rows, errors) = walk(run, &whole(at, direction));
            assert!(errors.is_empty());
            assert_eq!(rows, want, "{direction:?} at {at}");
        }
        for found in &want {
            assert_eq!(
                get(run, &found.row, at).unwrap().as_ref(),
                Some(&found.version)
            );
        }
    }
    let check = run.check();
    assert!(check.findings.is_empty(), "{:?}", check.findings);
    assert_eq!(check.versions, versions.len() as u64);
}

#[test]
fn versions_of_every_shape_are_read_back() {
    let versions = varied();
    let (disk, entry) = written(&versions);
    let run = opened(&disk, &entry).unwrap();
    assert!(run.index().unwrap().blocks() > 6, "several blocks");
    assert_reads(&run, &versions);
    for absent in [
        &b"\0\0\0\x01row0020x"[..],
        b"\0\0\0\0",
        b"\0\0\0\x02",
        &[0xff; 4101],
        b"",
    ] {
        assert_eq!(get(&run, absent, u64::MAX).unwrap(), None);
    }
}

#[test]
fn no_versions_make_no_file() {
    let disk = SimDisk::new(1);
    let plan = RunPlan {
        identity: IDENTITY,
        number: NUMBER,
    };
    assert!(
        write(disk.as_ref(), plan, std::iter::empty())
            .unwrap()
            .is_none()
    );
    assert!(disk.names().is_empty());
}

#[test]
fn versions_out_of_order_are_refused() {
    let disk = SimDisk::new(1);
    let plan = RunPlan {
        identity: IDENTITY,
        number: NUMBER,
    };
    let twice = [
        version(b"\0\0\0\x01a", 1, None),
        version(b"\0\0\0\x01a", 1, None),
    ];
    assert!(write(disk.as_ref(), plan, twice.into_iter().map(Ok)).is_err());
}

#[test]
fn a_newer_version_is_named_and_not_read() {
    let versions = varied();
    let (disk, entry) = written(&versions);
    let mut bytes = disk.read_file(NAME);
    bytes[8] = 2;
    disk.write_file(NAME, &bytes);
    assert!(matches!(
        opened(&disk, &entry).unwrap_err(),
        StorageError::Corrupt {
            what: Damage::Checksum(Section::Head),
            ..
        }
    ));
    let place = Place {
        salt: IDENTITY.salt,
        file: NUMBER,
        section: Section::Head,
        number: 0,
    };
    let checksum = place.checksum(&[&bytes[..12], &bytes[16..24]]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    disk.write_file(NAME, &bytes);
    assert!(matches!(
        opened(&disk, &entry).unwrap_err(),
        StorageError::NewerVersion {
            found: 2,
            supported: 1,
            ..
        }
    ));
}

#[test]
fn blocks_in_each_others_place_are_found() {
    let versions: Vec<_> = (0..400_u32)
        .map(|n| version(format!("\0\0\0\x01{n:04}").as_bytes(), 1, Some(&[1; 50])))
        .collect();
    let (disk, entry) = written(&versions);
    let run = opened(&disk, &entry).unwrap();
    let bounds = |number| {
        let (start, end) = run.index().unwrap().bounds(number);
        start as usize..end as usize
    };
    let blocks = run.index().unwrap().blocks();
    let pairs = (0..blocks).flat_map(|one| (one + 1..blocks).map(move |two| (one, two)));
    let mut same = pairs.filter(|(one, two)| bounds(*one).len() == bounds(*two).len());
    let (one, two) = same.next_back().expect("some blocks are of one length");
    let mut bytes = disk.read_file(NAME);
    let (first, second) = (bytes[bounds(one)].to_vec(), bytes[bounds(two)].to_vec());
    bytes[bounds(one)].copy_from_slice(&second);
    bytes[bounds(two)].copy_from_slice(&first);
    disk.write_file(NAME, &bytes);
    let run = opened(&disk, &entry).unwrap();
    let (rows, errors) = walk(&run, &whole(1, Direction::Forward));
    assert_eq!(errors.len(), 2, "F12");
    let (backward, errors) = walk(&run, &whole(1, Direction::Backward));
    assert_eq!(errors.len(), 2, "F12");
    assert_eq!(rows, backward);
    assert!(!rows.is_empty() && rows.len() < 400 && rows.iter().all(|row| versions.contains(row)));
}

/// What a hostile writer changes.
#[derive(Debug, Clone, Copy)]
enum Target {
    Block(usize),
    Filter,
    Index,
    Footer,
}

/// Changes `bytes` in the target, and makes all checksums above it good.
fn forge(bytes: &mut [u8], target: Target, changes: &[(usize, u8)]) -> u32 {
    let footer_at = bytes.len() - FOOTER_BYTES;
    let mut footer = Footer::read_from_bytes(&bytes[footer_at..]).unwrap();
    let (filter_at, index_at) = (
        footer.filter_at.get() as usize,
        footer.index_at.get() as usize,
    );
    let blocks = footer.blocks.get() as usize;
    let slot_at =
        |block: usize| index_at + blocks * size_of::<IndexCell>() + block * size_of::<IndexSlot>();
    let block_bounds = |bytes: &[u8], block: usize| {
        let cells = &bytes[index_at..];
        let cells = <[IndexCell]>::ref_from_prefix_with_elems(cells, blocks)
            .unwrap()
            .0;
        let start = |block: usize| cells.get(block).map(|cell| cell.start.get() as usize);
        start(block).unwrap()..start(block + 1).unwrap_or(filter_at)
    };
    let bounds = match target {
        Target::Block(block) => block_bounds(bytes, block % blocks),
        Target::Filter => filter_at..index_at,
        Target::Index => index_at..footer_at,
        Target::Footer => footer_at + 8..bytes.len(),
    };
    let part = &mut bytes[bounds.clone()];
    for (at, to) in changes {
        let at = at % part.len();
        part[at] = *to;
    }
    let place = |section, number| Place {
        salt: IDENTITY.salt,
        file: NUMBER,
        section,
        number,
    };
    if let Target::Block(block) = target {
        let block = block % blocks;
        let bytes_of_block = &mut bytes[bounds];
        let sum = place(Section::Block, block as u64)
            .checksum(&[&bytes_of_block[4..]])
            .to_le_bytes();
        bytes_of_block[..4].copy_from_slice(&sum);
        bytes[slot_at(block)..][..4].copy_from_slice(&sum);
    }
    if matches!(target, Target::Footer) {
        footer = Footer::read_from_bytes(&bytes[footer_at..]).unwrap();
    } else {
        let filter = place(Section::Filter, 0).checksum(&[&bytes[filter_at..index_at]]);
        let index = place(Section::Index, 0).checksum(&[&bytes[index_at..footer_at]]);
        (footer.filter_checksum, footer.index_checksum) = (filter.into(), index.into());
    }
    // Its own identity stays: another is refused before anything is read.
    (footer.uuid, footer.number) = (IDENTITY.uuid.into(), NUMBER.into());
    footer.seal(IDENTITY.salt);
    bytes[footer_at..].copy_from_slice(footer.as_bytes());
    footer.checksum.get()
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        4 => any::<usize>().prop_map(Target::Block),
        1 => Just(Target::Filter),
        4 => Just(Target::Index),
        4 => Just(Target::Footer),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    // The first bytes of a section decide more than the rest.
    let at = prop_oneof![0..64_usize, any::<usize>()];
    let to = prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()];
    prop::collection::vec((at, to), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_with_good_checksums_never_panic(target in target(), changes in changes()) {
        let versions = varied();
        let (disk, mut entry) = written(&versions);
        let mut bytes = disk.read_file(NAME);
        entry.checksum = forge(&mut bytes, target, &changes);
        let footer = Footer::read_from_bytes(&bytes[bytes.len() - FOOTER_BYTES..]).unwrap();
        entry.versions = footer.versions.get();
        entry.oldest = Lsn::new(footer.oldest.get());
        entry.newest = Lsn::new(footer.newest.get());
        disk.write_file(NAME, &bytes);
        // F23: whatever it says, it says it without a panic, within bounds, and comes to an end.
        if let Ok(run) = opened(&disk, &entry) {
            for at in [0, 250, u64::MAX] {
                for direction in [Direction::Forward, Direction::Backward] {
                    walk(&run, &whole(at, direction));
                }
                sweep(&run, at);
                for version in versions.iter().step_by(9) {
                    get(&run, &version.row, at).ok();
                }
            }
            let read = collect(run.walk()).map_or(0, |all| all.len());
            prop_assert!(read <= bytes.len());
            run.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        rows in prop::collection::btree_map(
            (prop::collection::vec(0..3_u8, 0..9), 1..30_u64),
            prop::option::of(0..500_usize),
            1..300,
        )
    ) {
        let versions = rows.iter().map(|((key, stamp), bytes)| {
            let row = [&b"\0\0\0\x01"[..], key].concat();
            let value = bytes.map(|bytes| vec![*stamp as u8; bytes]);
            version(&row, *stamp, value.as_deref())
        });
        let versions = sorted(versions.collect());
        let (disk, entry) = written(&versions);
        assert_reads(&opened(&disk, &entry).unwrap(), &versions);
    }
}

#[test]
fn a_footer_cannot_ask_for_more_memory_than_its_file_has_bytes() {
    let (disk, mut entry) = written(&varied());
    let mut bytes = disk.read_file(NAME);
    // The fourth bytes of the numbers of versions and of blocks: each block takes a bit of memory.
    entry.checksum = forge(&mut bytes, Target::Footer, &[(35, 1), (59, 1)]);
    entry.versions |= 1 << 24;
    disk.write_file(NAME, &bytes);
    let error = opened(&disk, &entry).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::Corrupt {
                what: Damage::Malformed {
                    section: Section::Footer,
                    ..
                },
                ..
            }
        ),
        "F23: {error}"
    );
}

#[test]
fn a_checksum_covers_its_whole_block() {
    // Guards the helper above: a change without new checksums is found.
    let (disk, _) = written(&varied());
    let bytes = disk.read_file(NAME);
    let head = BlockHead::read_from_prefix(&bytes[24..]).unwrap().0;
    let mut forged = bytes.clone();
    forge(&mut forged, Target::Block(0), &[(20, bytes[44])]);
    assert_eq!(forged, bytes, "nothing changed, so nothing changes");
    forge(&mut forged, Target::Block(0), &[(20, !bytes[44])]);
    assert_ne!(
        BlockHead::read_from_prefix(&forged[24..])
            .unwrap()
            .0
            .checksum,
        head.checksum
    );
}

#[test]
fn a_scan_verifies_what_lies_ahead_and_a_damaged_neighbour_hides_nothing() {
    let versions: Vec<_> = (0..20_000_u32)
        .map(|n| version(format!("\0\0\0\x01{n:06}").as_bytes(), 1, Some(&[1; 50])))
        .collect();
    let (disk, entry) = written(&versions);
    let run = opened(&disk, &entry).unwrap();
    let index = run.index().unwrap();
    let (start, _) = index.bounds(10);
    disk.flip_byte(NAME, start + 100);
    let mut cursor = run.cursor(&whole(1, Direction::Forward)).unwrap();
    assert!(matches!(cursor.step(), Step::Row));
    let ahead = (0..index.blocks()).take_while(|block| *block == 10 || run.trusts(*block));
    assert!(ahead.count() > 32 && !run.trusts(10) && !run.trusts(index.blocks() - 1));
    let (rows, errors) = walk(&run, &whole(1, Direction::Forward));
    assert_eq!(errors.len(), 1);
    let (backward, errors) = walk(&run, &whole(1, Direction::Backward));
    assert_eq!((errors.len(), rows), (1, backward));
}

/// The second block of any scan asked for a megabyte.
#[test]
fn a_walk_asks_for_little_at_first_and_for_nothing_behind_its_end() {
    let row = |n: u32| format!("\0\0\0\x01{n:06}").into_bytes();
    let versions: Vec<_> = (0..80_000)
        .map(|n| version(&row(n), 1, Some(&[1; 50])))
        .collect();
    let (disk, entry) = written(&versions);
    let run = opened(&disk, &entry).unwrap();
    let index = run.index().unwrap();
    let asked = |quest: &Quest| {
        let (mut fetched, mut asked) = (Fetched::default(), Vec::new());
        let last = index.blocks() - 1;
        for step in 0..=last {
            let forward = quest.direction == Direction::Forward;
            let number = if forward { step } else { last - step };
            let place = fetched.step_to(index, number, quest);
            let (start, end) = index.bounds(number);
            asked.extend(place.inspect(|place| {
                let inner = start as usize..end as usize;
                assert!(place.start <= inner.start && inner.end <= place.end);
            }));
        }
        asked
    };
    for direction in [Direction::Forward, Direction::Backward] {
        let mut quest = whole(1, direction);
        let all = asked(&quest);
        let lens: Vec<_> = all.iter().map(ExactSizeIterator::len).collect();
        assert!(lens.len() > 8 && lens[0] <= 16 << 10, "{lens:?}");
        let most = 1 << 20;
        for pair in lens[..lens.len() - 1].windows(2) {
            let want = (pair[0] * 2).min(most);
            assert!((want * 3 / 4..=most).contains(&pair[1]), "{lens:?}");
        }
        assert!(lens.iter().any(|len| *len > most * 9 / 10), "{lens:?}");
        let whole_bytes: usize = lens.iter().sum();
        let (first, _) = index.bounds(1);
        assert!(whole_bytes <= (run.footer.filter_at.get() - first) as usize);
        // One that ends in the third block that it enters.
        let block = if direction == Direction::Forward {
            2
        } else {
            index.blocks() - 3
        };
        let edge = Bytes::copy_from_slice(index.last(block).unwrap().0);
        match direction {
            Direction::Forward => quest.range.high = Bound::Excluded(edge),
            Direction::Backward => quest.range.low = Bound::Included(edge),
        }
        let mut fetched = Fetched::default();
        let entered = [0, 1, 2].map(|step| match direction {
            Direction::Forward => step,
            Direction::Backward => index.blocks() - 1 - step,
        });
        let asked = entered.map(|number| fetched.step_to(index, number, &quest));
        let (start, end) = (
            index.bounds(entered[1].min(block)),
            index.bounds(entered[1].max(block)),
        );
        let want = start.0 as usize..end.1 as usize;
        assert_eq!(asked, [None, Some(want), None]);
    }
}

#[test]
fn a_row_written_very_often_costs_a_scan_what_any_row_costs() {
    let hot = (1..100_000).map(|stamp| version(b"\0\0\0\x01hot", stamp, Some(&[2; 20])));
    let cold = [b"\0\0\0\x01a".as_slice(), b"\0\0\0\x01z"];
    let cold = cold.map(|row| version(row, 3, Some(b"cold")));
    let (disk, entry) = written(&sorted(hot.chain(cold).collect()));
    for (at, direction) in [
        // The newest is visible: all older ones are skipped. None but the oldest: all newer ones are.
        (u64::MAX, Direction::Forward),
        (3, Direction::Forward),
        (u64::MAX, Direction::Backward),
    ] {
        let run = opened(&disk, &entry).unwrap();
        let (rows, _) = walk(&run, &whole(at, direction));
        assert_eq!(rows.len(), 3);
        let blocks = run.index().unwrap().blocks();
        let touched = (0..blocks).filter(|block| run.trusts(*block)).count();
        assert!(
            touched < blocks / 2,
            "{touched} of {blocks} for {at}, {direction:?}"
        );
    }
}

#[test]
fn what_entries_have_in_common_is_written_once() {
    let row = |n: u64| [&b"\0\0\0\x01"[..], &(n << 24).to_be_bytes(), &[7; 8]].concat();
    let uniform = (0..10_000).map(|n| version(&row(n), 9, Some(&[n as u8; 100])));
    let (_, entry) = written(&uniform.collect::<Vec<_>>());
    assert!(
        entry.bytes * 100 < 10_000 * 116 * 106,
        "{} bytes",
        entry.bytes
    );
    // Stamps that differ in two bytes, values of two lengths, some tombstones: five bytes a row more.
    let mixed = (0..10_000).map(|n| {
        let value = [n as u8; 100];
        let value = &value[..99 + n as usize % 2];
        version(
            &row(n),
            9 + n * 77 % 60_000,
            (n % 100 != 0).then_some(value),
        )
    });
    let (_, mixed) = written(&mixed.collect::<Vec<_>>());
    assert!(
        mixed.bytes < entry.bytes + 10_000 * 5,
        "{} bytes",
        mixed.bytes
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "what the kernel says of the process"
)]
fn no_descriptor_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path(), false).unwrap());
    let plan = RunPlan {
        identity: IDENTITY,
        number: NUMBER,
    };
    let entry = write(disk.as_ref(), plan, varied().into_iter().map(Ok));
    let run = Arc::new(Run::open(&disk, IDENTITY, &entry.unwrap().unwrap()).unwrap());
    assert_reads(&run, &varied());
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter(|fd| {
        let target = fd
            .as_ref()
            .ok()
            .and_then(|fd| std::fs::read_link(fd.path()).ok());
        target.is_some_and(|target| target == dir.path().join(NAME))
    });
    assert_eq!(open.count(), 0);
}

#[test]
fn golden_bytes() {
    let versions = [
        version(b"\0\0\0\x01alice", 0x200, Some(b"90")),
        version(b"\0\0\0\x01alice", 0x100, Some(b"100")),
        version(b"\0\0\0\x01bob", 0x200, None),
        version(b"\0\0\0\x02carol", 0x1_0000_0000, Some(b"")),
    ];
    let (disk, entry) = written(&versions);
    let bytes = disk.read_file(NAME);
    assert_eq!(
        bytes,
        include_bytes!("../../testdata/run.golden"),
        "docs/format.md says what a run is"
    );
    assert_eq!(entry.bytes, bytes.len() as u64);
}
