//! Spills: what is written is found, walked and merged, whatever its shape; what is dead is not; bytes that were
//! changed give errors; a disk that fails leaves nothing that anybody would believe.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::disk::{Disk, DiskOp};
use lockstone_base::{FencingToken, LockMode, Lsn, TableId, TxnId};
use lockstone_testkit::SimDisk;
use proptest::prelude::*;

use super::summary::Summary;
use super::*;
use crate::cursor::Direction;
use crate::dead_subs::DeadSubs;
use crate::error::StorageError;
use crate::run::{Identity, Mark, RunEntry};
use crate::version::VersionRef;

const IDENTITY: Identity = Identity {
    uuid: 0x0123_4567_89ab_cdef,
    salt: 0xfeed,
};
const OWNERS: [TxnId; 3] = [TxnId::new(1, 9), TxnId::new(2, 3), TxnId::new(2, 40)];
const EVERYTHING: (Bound<Bytes>, Bound<Bytes>) = (Bound::Unbounded, Bound::Unbounded);

/// A record that owns what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::option_option,
    reason = "locked, deleted, written: three things"
)]
struct Owned {
    row: Bytes,
    owner: TxnId,
    sub: u32,
    /// `None`: a lock. `Some(None)`: deleted.
    written: Option<Option<Bytes>>,
    mode: LockMode,
    token: u64,
    fresh: bool,
    writes: bool,
}

impl Owned {
    fn lock(row: &[u8], sub: u32, token: u64) -> Self {
        Self {
            row: Bytes::copy_from_slice(row),
            owner: OWNERS[0],
            sub,
            written: None,
            mode: LockMode::Update,
            token,
            fresh: true,
            writes: false,
        }
    }

    fn put(row: &[u8], sub: u32, token: u64, value: &[u8]) -> Self {
        Self {
            written: Some(Some(Bytes::copy_from_slice(value))),
            mode: LockMode::NoKeyUpdate,
            writes: true,
            ..Self::lock(row, sub, token)
        }
    }

    fn of(record: &Record<'_>) -> Self {
        Self {
            row: Bytes::copy_from_slice(record.row),
            owner: record.owner,
            sub: record.sub,
            written: match record.effect {
                Effect::Lock => None,
                Effect::Put(value) => Some(Some(Bytes::copy_from_slice(value))),
                Effect::Delete => Some(None),
            },
            mode: record.mode,
            token: record.token.get(),
            fresh: record.fresh,
            writes: record.writes,
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            row: &self.row,
            owner: self.owner,
            sub: self.sub,
            effect: match &self.written {
                None => Effect::Lock,
                Some(None) => Effect::Delete,
                Some(Some(value)) => Effect::Put(value),
            },
            mode: self.mode,
            token: FencingToken::new(Lsn::new(self.token)),
            fresh: self.fresh,
            writes: self.writes,
        }
    }
}

/// Rows ascending, owners and sub-transactions descending; of equal ones the first stays.
fn sorted(mut records: Vec<Owned>) -> Vec<Owned> {
    let key = |it: &Owned| (it.row.clone(), std::cmp::Reverse((it.owner, it.sub)));
    records.sort_by_key(key);
    records.dedup_by_key(|it| key(it));
    records
}

fn plan(kind: Kind) -> SpillPlan {
    SpillPlan {
        identity: IDENTITY,
        kind,
        owners: match kind {
            Kind::Mixed => OWNERS.to_vec(),
            Kind::Lock | Kind::Write => vec![OWNERS[0]],
        },
    }
}

fn write(
    disk: &dyn Disk,
    kind: Kind,
    records: &[Owned],
    file_bytes: u64,
    first: u64,
) -> Result<Vec<RunEntry>, StorageError> {
    let mut numbers = first..;
    let number = || numbers.next().unwrap();
    let mut writer = SpillWriter::cut_at(disk, plan(kind), file_bytes, number);
    for record in records {
        writer.push(&record.record())?;
    }
    writer.finish()
}

fn open(disk: &Arc<SimDisk>, entry: &RunEntry) -> Result<ProvisionalRun, StorageError> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as _;
    ProvisionalRun::open(&disk, IDENTITY, entry)
}

fn spilled(disk: &Arc<SimDisk>, kind: Kind, records: &[Owned]) -> ProvisionalRun {
    let entries = write(disk.as_ref(), kind, records, u64::MAX, 0x2a).unwrap();
    assert_eq!(entries.len(), 1);
    open(disk, &entries[0]).unwrap()
}

fn find(run: &ProvisionalRun, row: &[u8]) -> Result<Vec<Owned>, StorageError> {
    let sought = Sought::new(IDENTITY.salt, row);
    let found = run.find(&sought)?;
    Ok(found.iter().map(Owned::of).collect())
}

fn range(
    run: &ProvisionalRun,
    bounds: (Bound<Bytes>, Bound<Bytes>),
    direction: Direction,
) -> Result<Vec<Owned>, StorageError> {
    let mut range = run.range(bounds, direction);
    let mut all = Vec::new();
    while let Some(record) = range.next()? {
        all.push(Owned::of(&record));
    }
    assert!(range.next()?.is_none(), "an end is an end");
    Ok(all)
}

fn records(run: &ProvisionalRun) -> Result<Vec<Owned>, StorageError> {
    let mut records = run.records();
    let mut all = Vec::new();
    while let Some(record) = records.next()? {
        all.push(Owned::of(&record));
    }
    Ok(all)
}

fn row_of(number: u32) -> Vec<u8> {
    let table = 1 + number % 3;
    let key = match number % 4 {
        0 => format!("{number:05}"),
        1 => format!("{:05}\0and more", number - 1),
        2 => "x".repeat(number as usize % 97),
        _ => format!("a long prefix that many rows share {number:07}"),
    };
    [&table.to_be_bytes()[..], key.as_bytes()].concat()
}

fn a_record(kind: Kind) -> impl Strategy<Value = Owned> {
    let written = match kind {
        Kind::Lock => Just(0..1_u8).boxed(),
        Kind::Write => Just(1..4_u8).boxed(),
        Kind::Mixed => Just(0..4_u8).boxed(),
    };
    let owner = if kind == Kind::Mixed {
        0..3_usize
    } else {
        0..1
    };
    let what = (
        written.prop_flat_map(|range| range),
        0..200_usize,
        any::<u8>(),
    );
    (
        (0..120_u32, owner, 0..9_u32),
        what,
        (0..4_usize, 1..100_000_u64, any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((row, owner, sub), (what, bytes, byte), (mode, token, fresh, writes))| Owned {
                row: row_of(row).into(),
                owner: OWNERS[owner],
                sub,
                written: match what {
                    0 => None,
                    1 => Some(None),
                    2 => Some(Some(Bytes::new())),
                    _ => Some(Some(vec![byte; bytes].into())),
                },
                mode: LockMode::ALL[mode],
                token,
                fresh,
                writes,
            },
        )
}

fn a_spill() -> impl Strategy<Value = (Kind, Vec<Owned>)> {
    prop::sample::select(Kind::ALL.to_vec()).prop_flat_map(|kind| {
        let records = prop::collection::vec(a_record(kind), 1..250);
        (Just(kind), records.prop_map(sorted))
    })
}

fn a_bound() -> impl Strategy<Value = Bound<Bytes>> {
    (0..130_u32, 0..3).prop_map(|(row, kind)| match kind {
        0 => Bound::Included(row_of(row).into()),
        1 => Bound::Excluded(row_of(row).into()),
        _ => Bound::Unbounded,
    })
}

fn is_within(row: &[u8], bounds: &(Bound<Bytes>, Bound<Bytes>)) -> bool {
    let low = match &bounds.0 {
        Bound::Included(low) => row >= &low[..],
        Bound::Excluded(low) => row > &low[..],
        Bound::Unbounded => true,
    };
    let high = match &bounds.1 {
        Bound::Included(high) => row <= &high[..],
        Bound::Excluded(high) => row < &high[..],
        Bound::Unbounded => true,
    };
    low && high
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// V3, V4: what was pushed and is alive is found by row, by range and altogether; nothing else is.
    #[test]
    fn what_was_spilled_and_is_alive_is_there(
        (kind, all) in a_spill(),
        dead in prop::collection::vec((0..3_usize, 0..9_u32, 0..4_u32), 0..4),
        bounds in prop::collection::vec((a_bound(), a_bound()), 4),
        file_bytes in prop_oneof![Just(u64::MAX), 200..20_000_u64],
    ) {
        let disk = SimDisk::new(1);
        let entries = write(disk.as_ref(), kind, &all, file_bytes, 7).unwrap();
        prop_assert!(entries.is_sorted_by(|a, b| a.largest < b.smallest), "cut between rows");
        let owners = plan(kind).owners;
        let dead_of = |owner: TxnId| {
            let of = |it: &&(usize, u32, u32)| OWNERS[it.0] == owner;
            DeadSubs::new(dead.iter().filter(of).map(|(_, from, more)| (*from, from + more)))
        };
        let mut total = BTreeMap::new();
        let runs: Vec<_> = entries.iter().map(|entry| {
            let run = open(&disk, entry).unwrap();
            for part in run.owners() {
                let sums: &mut (u64, Digest) = total.entry(part.owner).or_default();
                sums.0 += part.records;
                sums.1 += part.digest;
            }
            owners.iter().fold(run, |run, owner| run.with_dead(*owner, &dead_of(*owner)))
        }).collect();
        let alive: Vec<_> = all.iter().filter(|it| !dead_of(it.owner).has(it.sub)).cloned().collect();
        for number in 0..130 {
            let row = row_of(number);
            let want: Vec<_> = alive.iter().filter(|it| it.row == row).cloned().collect();
            let found: Vec<_> = runs.iter().flat_map(|run| find(run, &row).unwrap()).collect();
            prop_assert_eq!(&found, &want);
            let sought = Sought::new(IDENTITY.salt, &row);
            for owner in &owners {
                let written = want.iter().find(|it| it.owner == *owner && it.written.is_some());
                let written = written.map(|it| (it.sub, it.written.clone().unwrap()));
                let got = runs.iter().find_map(|run| run.get(&sought, *owner).unwrap());
                prop_assert_eq!(got.map(|it| (it.sub, it.value)), written);
            }
        }
        for bounds in bounds.iter().chain([&EVERYTHING]) {
            let want: Vec<_> = alive.iter().filter(|it| is_within(&it.row, bounds)).cloned().collect();
            let forward = runs.iter().flat_map(|run| range(run, bounds.clone(), Direction::Forward).unwrap());
            prop_assert_eq!(&forward.collect::<Vec<_>>(), &want);
            let backward = runs.iter().rev().flat_map(|run| range(run, bounds.clone(), Direction::Backward).unwrap());
            let mut backward: Vec<_> = backward.collect();
            backward.reverse();
            prop_assert_eq!(&backward, &want);
        }
        prop_assert_eq!(runs.iter().flat_map(|run| records(run).unwrap()).collect::<Vec<_>>(), alive.clone());
        for run in &runs {
            let is_here = |it: &&Owned| run.entry().spans(&it.row);
            prop_assert!(!run.is_dead() || !alive.iter().any(|it| is_here(&it)), "V4");
            let mut tables: Vec<_> = all.iter().filter(is_here).map(|it| it.record().row[3]).collect();
            tables.dedup();
            let tables: Vec<_> = tables.into_iter().map(|id| TableId(u32::from(id))).collect();
            prop_assert_eq!(run.tables(), &tables);
        }
        // V3: the digest is the sum over the records, in whatever files they are.
        for owner in owners {
            let mut want = (0, Digest::default());
            for it in all.iter().rev().filter(|it| it.owner == owner) {
                want.0 += 1;
                want.1 += Digest::of(IDENTITY.salt, &it.record());
            }
            prop_assert_eq!(total[&owner], want);
        }
    }

    /// V3: a merge keeps of a row one record for each savepoint that is left, says what all of them said, and drops
    /// what is dead.
    #[test]
    fn a_merge_agrees_with_a_map(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        lists in prop::collection::vec(prop::collection::vec(a_record(Kind::Mixed), 0..120), 1..5),
        mixed in any::<bool>(),
        savepoints in prop::collection::btree_set(0..9_u32, 0..4),
        dead in prop::collection::vec((0..9_u32, 0..3_u32), 0..3),
    ) {
        let disk = SimDisk::new(1);
        let owner = OWNERS[0];
        let (savepoints, dead): (Vec<_>, _) = (
            savepoints.into_iter().collect(),
            DeadSubs::new(dead.iter().map(|(from, more)| (*from, from + more))),
        );
        let is_wanted = |it: &Owned| kind == Kind::Mixed || it.written.is_none() == (kind == Kind::Lock);
        let input_kind = if mixed || kind == Kind::Mixed { Kind::Mixed } else { kind };
        let mut model: BTreeMap<(Bytes, std::cmp::Reverse<usize>), Vec<Owned>> = BTreeMap::new();
        let mut inputs = Vec::new();
        for (at, list) in lists.into_iter().enumerate() {
            let fits = |it: &Owned| input_kind == Kind::Mixed || it.owner == owner && is_wanted(it);
            let list = sorted(list.into_iter().filter(fits).collect());
            for it in list.iter().filter(|it| it.owner == owner && is_wanted(it) && !dead.has(it.sub)) {
                let group = savepoints.iter().filter(|savepoint| **savepoint <= it.sub).count();
                model.entry((it.row.clone(), std::cmp::Reverse(group))).or_default().push(it.clone());
            }
            let entries = write(disk.as_ref(), input_kind, &list, u64::MAX, 10 + at as u64).unwrap();
            for entry in entries {
                let run = open(&disk, &entry).unwrap().with_dead(owner, &dead);
                inputs.push(MergeInput { spill: 1 + at as u64, run });
            }
        }
        let highest = inputs.iter().map(|input| input.spill).max();
        // In whatever order they are given.
        inputs.reverse();
        let plan = SpillPlan { owners: vec![owner], ..plan(kind) };
        let mut writer = SpillWriter::new(disk.as_ref(), plan, || 99);
        prop_assert_eq!(merge(inputs, &savepoints, &mut writer).unwrap(), highest);
        let made = writer.finish().unwrap();
        let got = made.first().map(|entry| records(&open(&disk, entry).unwrap()).unwrap());
        let want: Vec<_> = model.into_values().map(|mut group| {
            // The newest last: by sub-transaction, then as they were spilled.
            group.sort_by_key(|it| it.sub);
            let newest = group.last().unwrap();
            let written = group.iter().rev().find_map(|it| it.written.clone());
            let mode = group.iter().map(|it| it.mode).max().unwrap();
            // Who granted it, or strengthened it last.
            let token = group.iter().find(|it| it.mode == mode).unwrap().token;
            Owned {
                row: newest.row.clone(),
                owner,
                sub: newest.sub,
                written,
                mode,
                token,
                fresh: group[0].fresh,
                writes: group.iter().any(|it| it.writes),
            }
        }).collect();
        prop_assert_eq!(got.unwrap_or_default(), want);
    }

    #[test]
    fn hostile_records_and_summaries_never_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(3), any::<u8>()], 0..140),
        traits in any::<u8>(),
        order in any::<u64>(),
        value in prop::option::of(Just(&b"value"[..])),
    ) {
        // F23: what is accepted says exactly what the bytes say.
        if let Ok(summary) = Summary::decode(&bytes) {
            prop_assert_eq!(summary.encode(), bytes);
        }
        let version = VersionRef { row: b"\0\0\0\x01row", stamp: Lsn::new(order), value };
        let mark = Mark { token: 7, traits };
        if let Ok(record) = Record::decode(version, mark, &OWNERS) {
            let owner = OWNERS.binary_search(&record.owner).unwrap();
            prop_assert_eq!(record.mark(), mark);
            prop_assert_eq!(record.version(owner).value, value);
        }
    }
}

/// Several blocks, a row that fills more than one, all that a record can be.
fn varied(kind: Kind) -> Vec<Owned> {
    let mut all = Vec::new();
    for number in 0..300_u32 {
        let lock = Owned {
            token: 1000 + u64::from(number) * 77,
            mode: LockMode::ALL[number as usize % 4],
            ..Owned::lock(&row_of(number), number % 5, 0)
        };
        let put = Owned {
            written: Some(
                (!number.is_multiple_of(7)).then(|| Bytes::from(vec![3; number as usize % 50])),
            ),
            ..lock.clone()
        };
        all.push(match kind {
            Kind::Lock => lock,
            Kind::Mixed if number % 2 == 0 => lock,
            Kind::Write | Kind::Mixed => put,
        });
    }
    let often = |sub| match kind {
        Kind::Lock => Owned::lock(b"\0\0\0\x02often", sub, u64::from(sub) + 1),
        _ => Owned::put(b"\0\0\0\x02often", sub, u64::from(sub) + 1, &[9; 20]),
    };
    all.extend((10..900).map(often));
    sorted(all)
}

#[test]
fn a_row_of_many_sub_transactions_is_found_across_blocks() {
    for kind in Kind::ALL {
        let disk = SimDisk::new(1);
        let run = spilled(&disk, kind, &varied(kind));
        let found = find(&run, b"\0\0\0\x02often").unwrap();
        assert_eq!(found.len(), 890);
        assert!(
            found.is_sorted_by(|a, b| a.sub > b.sub),
            "V3: the newest first"
        );
        // V4: what is alive lies behind blocks of what is dead.
        let run = run.with_dead(OWNERS[0], &DeadSubs::new([(0, 9), (12, 899)]));
        let found = find(&run, b"\0\0\0\x02often").unwrap();
        assert_eq!(found.iter().map(|it| it.sub).collect::<Vec<_>>(), [11, 10]);
        assert!(!run.is_dead());
    }
}

#[test]
fn a_spill_inside_a_dead_interval_is_known_to_be_empty() {
    let disk = SimDisk::new(1);
    let all: Vec<_> = (3..8)
        .map(|sub| Owned::lock(&row_of(sub), sub, 1))
        .collect();
    let all = sorted(all);
    let run = spilled(&disk, Kind::Lock, &all);
    for (dead, is_dead) in [
        ((3, 7), true),
        ((0, 90), true),
        ((4, 7), false),
        ((3, 6), false),
    ] {
        let run = run.with_dead(OWNERS[0], &DeadSubs::new([dead]));
        assert_eq!(run.is_dead(), is_dead, "V4: {dead:?}");
        // Nothing is read any more where nothing can be alive.
        disk.fail_matching(DiskOp::Read, "", ErrorKind::Other);
        assert_eq!(
            find(&run, &all[0].row).is_ok_and(|found| found.is_empty()),
            is_dead
        );
        assert_eq!(records(&run).is_ok(), is_dead);
        disk.clear_faults();
    }
    // Of another transaction: nothing to this one.
    assert!(!run.with_dead(OWNERS[1], &DeadSubs::new([(0, 9)])).is_dead());
}

#[test]
fn every_flipped_byte_is_an_error_or_does_no_harm() {
    for kind in Kind::ALL {
        let all = varied(kind);
        let disk = SimDisk::new(1);
        let entry = spilled(&disk, kind, &all).entry().clone();
        let name = entry.file_name();
        let (mut flips, mut errors) = (0, 0);
        for at in (0..entry.bytes)
            .step_by(31)
            .chain(entry.bytes - 200..entry.bytes)
        {
            flips += 1;
            disk.flip_byte(&name, at);
            let read = open(&disk, &entry).and_then(|run| {
                let often = find(&run, b"\0\0\0\x02often")?;
                assert_eq!(often.len(), 890, "byte {at}");
                let first = find(&run, &all[0].row)?;
                assert_eq!(first[..], all[..first.len()]);
                assert_eq!(
                    range(&run, EVERYTHING, Direction::Backward)?.len(),
                    all.len()
                );
                records(&run)
            });
            match read {
                Ok(read) => assert_eq!(read, all, "F11: byte {at}"),
                Err(StorageError::Corrupt { file, .. }) => {
                    assert_eq!(file, disk.path(&name));
                    errors += 1;
                }
                Err(other) => panic!("{other}"),
            }
            disk.flip_byte(&name, at);
        }
        assert_eq!(errors, flips, "F12: every byte is covered");
        for len in (0..entry.bytes).step_by(101) {
            let cut = SimDisk::new(1);
            cut.write_file(&name, &disk.read_file(&name));
            cut.truncate(&name, len);
            assert!(
                matches!(open(&cut, &entry), Err(StorageError::Corrupt { .. })),
                "F12: {len} bytes"
            );
        }
    }
}

#[test]
fn a_spill_of_the_same_name_is_not_taken_for_another() {
    let disk = SimDisk::new(1);
    let old = spilled(&disk, Kind::Lock, &varied(Kind::Lock))
        .entry()
        .clone();
    disk.remove_file(&old.file_name());
    let new = spilled(&disk, Kind::Mixed, &varied(Kind::Mixed))
        .entry()
        .clone();
    assert!(open(&disk, &old).is_err(), "F13");
    assert!(open(&disk, &new).is_ok());
}

#[test]
fn every_failing_call_leaves_no_spill() {
    let all = varied(Kind::Write);
    let whole = SimDisk::new(1);
    write(whole.as_ref(), Kind::Write, &all, 3000, 1).unwrap();
    assert!(whole.names().len() > 2 && whole.io_count() > 6);
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for call in 1..=whole.io_count() {
            let disk = SimDisk::new(1);
            disk.fail_once(call, kind);
            let failed = write(disk.as_ref(), Kind::Write, &all, 3000, 1);
            assert!(matches!(failed, Err(StorageError::Disk(_))), "call {call}");
            assert_eq!(disk.names(), [""; 0], "F7, F10: call {call}");
            // Numbers are not used twice; the same spill is written under others.
            let again = write(disk.as_ref(), Kind::Write, &all, 3000, 100).unwrap();
            assert!(open(&disk, &again[0]).is_ok());
        }
        // Where nothing works any more, what stays is not believed.
        for call in 1..=whole.io_count() {
            let disk = SimDisk::new(1);
            disk.fail_from(call, kind);
            assert!(write(disk.as_ref(), Kind::Write, &all, 3000, 1).is_err());
        }
    }
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(20_000));
    let full = write(disk.as_ref(), Kind::Write, &all, 3000, 1);
    assert!(
        matches!(full, Err(StorageError::Disk(ref error)) if error.is_full()),
        "F10"
    );
    assert_eq!(disk.names(), [""; 0]);
}

#[test]
fn a_spill_that_is_dropped_leaves_no_file() {
    let disk = SimDisk::new(1);
    let mut writer = SpillWriter::cut_at(disk.as_ref(), plan(Kind::Lock), 1000, || 5);
    writer
        .push(&Owned::lock(b"\0\0\0\x01row", 1, 1).record())
        .unwrap();
    drop(writer);
    assert_eq!(disk.names(), [""; 0]);
    assert_eq!(write(disk.as_ref(), Kind::Lock, &[], 1, 1).unwrap(), []);
}

#[test]
#[should_panic(expected = "V2")]
fn a_lock_run_takes_no_write() {
    let put = Owned::put(b"\0\0\0\x01row", 1, 1, b"value");
    write(SimDisk::new(1).as_ref(), Kind::Lock, &[put], 1, 1).ok();
}

#[test]
#[should_panic(expected = "V2")]
fn a_write_run_takes_no_lock() {
    let lock = Owned::lock(b"\0\0\0\x01row", 1, 1);
    write(SimDisk::new(1).as_ref(), Kind::Write, &[lock], 1, 1).ok();
}

#[test]
fn records_out_of_order_are_refused() {
    let disk = SimDisk::new(1);
    let (a, b) = (
        Owned::lock(b"\0\0\0\x01a", 1, 1),
        Owned::lock(b"\0\0\0\x01b", 1, 1),
    );
    for list in [
        [b.clone(), a.clone()],
        [a.clone(), a.clone()],
        [a.clone(), Owned { sub: 2, ..a }],
    ] {
        let written = write(disk.as_ref(), Kind::Lock, &list, u64::MAX, 1);
        assert!(matches!(written, Err(StorageError::Corrupt { .. })), "V3");
    }
}

#[test]
fn a_lock_takes_few_bytes() {
    let bytes_each = |token: &dyn Fn(u64) -> u64, key: &dyn Fn(u64) -> u128| {
        let count = 100_000_u64;
        let all = (0..count).map(|n| {
            let row = [&[0, 0, 0, 1], &key(n).to_be_bytes()[..]].concat();
            Owned::lock(&row, 1, token(n))
        });
        let disk = SimDisk::new(1);
        let run = spilled(&disk, Kind::Lock, &sorted(all.collect()));
        run.entry().bytes * 100 / count
    };
    let scattered =
        |n: u64| u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    let counted = |n: u64| u128::from(n);
    // Tokens of locks that were taken one by one lie some fifty bytes apart, in any order of rows.
    let one_by_one = |n: u64| (1 << 40) + (n * 7919 % 100_000) * 50;
    let at_once = |_| 1 << 40;
    let measured = [
        bytes_each(&one_by_one, &scattered),
        bytes_each(&one_by_one, &counted),
        bytes_each(&at_once, &scattered),
        bytes_each(&at_once, &counted),
    ];
    println!("hundredths of a byte a lock: {measured:?}");
    let most = [2200, 650, 1900, 350];
    assert!(
        measured.iter().zip(most).all(|(got, most)| *got <= most),
        "{measured:?}"
    );
}

#[test]
fn golden_bytes() {
    let locks = [
        Owned {
            mode: LockMode::KeyShare,
            fresh: false,
            ..Owned::lock(b"\0\0\0\x01alice", 7, 0x1234)
        },
        Owned::lock(b"\0\0\0\x01alice", 3, 0x1200),
        Owned {
            writes: true,
            ..Owned::lock(b"\0\0\0\x02carol", 3, 0x1300)
        },
    ];
    let writes = [
        Owned::put(b"\0\0\0\x01alice", 7, 0x1234, b"90"),
        Owned {
            written: Some(None),
            ..Owned::put(b"\0\0\0\x01bob", 3, 0x1234, b"")
        },
    ];
    let other = Owned {
        owner: OWNERS[2],
        ..locks[1].clone()
    };
    let mixed = [vec![other], locks[..1].to_vec(), writes[1..].to_vec()].concat();
    let goldens = [
        (
            Kind::Lock,
            locks.to_vec(),
            include_bytes!("../../testdata/lock_spill.golden").to_vec(),
        ),
        (
            Kind::Write,
            writes.to_vec(),
            include_bytes!("../../testdata/write_spill.golden").to_vec(),
        ),
        (
            Kind::Mixed,
            mixed,
            include_bytes!("../../testdata/mixed_spill.golden").to_vec(),
        ),
    ];
    for (kind, all, golden) in goldens {
        let disk = SimDisk::new(1);
        let run = spilled(&disk, kind, &all);
        let bytes = disk.read_file(&run.entry().file_name());
        assert_eq!(
            bytes, golden,
            "docs/format.md says what a spill is: {kind:?}"
        );
    }
}
