//! Manifests: what is written is read back; changed bytes are refused; no older one takes the place of a
//! damaged one.

use std::io::ErrorKind;
use std::sync::Arc;

use lockstone_base::disk::DiskOp;
use lockstone_testkit::{SimDisk, Survivors};
use proptest::prelude::*;

use super::*;
use crate::checksum::Place;
use crate::dead_subs::DeadSubs;
use crate::error::Section;
use crate::provisional::Kind;
use crate::run::{Adopted, Origin, RunEntry};
use bytes::Bytes;
use lockstone_base::{Lsn, TableId, TxnId};

fn entry(number: u64, stamps: (u64, u64), rows: (&str, &str)) -> RunEntry {
    RunEntry {
        number,
        uuid: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        bytes: 4711,
        checksum: 0xdead_beef,
        versions: 17,
        rows: 11,
        tombstones: 3,
        oldest: Lsn::new(stamps.0),
        newest: Lsn::new(stamps.1),
        smallest: format!("\0\0\0\x01{}", rows.0).into(),
        largest: format!("\0\0\0\x01{}", rows.1).into(),
        origin: Origin::Committed,
    }
}

fn spill(kind: Kind, number: u64, owners: &[(TxnId, u64, DeadSubs)]) -> SpillEntry {
    let parts = owners.iter().map(|(owner, spill, dead)| SpillPart {
        owner: *owner,
        spill: *spill,
        through: Lsn::new(0x3456),
        dead: dead.clone(),
    });
    SpillEntry {
        kind,
        run: RunEntry {
            origin: Origin::Provisional,
            ..entry(number, (1, 0x1_0000_0007), ("cat", "dog"))
        },
        parts: parts.collect(),
    }
}

fn manifest(generation: u64) -> Manifest {
    let run = |level, number, stamps: (u64, u64), rows: (&str, &str)| ListedRun {
        level,
        entry: entry(number, stamps, rows),
    };
    let adopted = |number, spill, rows: (&str, &str), dead| ListedRun {
        level: 0,
        entry: entry(number, (1, 2), rows).adopted(Lsn::new(0x2001), Adopted { spill, dead }),
    };
    Manifest {
        uuid: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        salt: 0xfeed,
        generation,
        boot_epoch: 3,
        durable: Lsn::new(0x5000),
        flushed_through: Lsn::new(0x4000),
        scan_end: Lsn::new(0x3000),
        scan_crc: 0x1234_5678,
        log_end: Lsn::new(0x4_0000),
        next_table: 9,
        next_run: 11,
        tables: vec![
            TableEntry {
                id: TableId(1),
                name: "accounts".into(),
                created: Lsn::new(64),
            },
            TableEntry {
                id: TableId(8),
                name: "\u{1f512}".into(),
                created: Lsn::new(0x1000),
            },
        ],
        dropped: vec![DroppedTable {
            id: TableId(3),
            at: Lsn::new(0x4100),
        }],
        runs: vec![
            run(0, 5, (0x2001, 0x4000), ("ant", "wasp")),
            adopted(10, 2, ("ant", "bee"), DeadSubs::new([(4, 9), (12, 12)])),
            adopted(7, 1, ("bee", "wasp"), DeadSubs::NONE),
            run(0, 2, (0x1001, 0x2000), ("", "bee")),
            run(1, 4, (0x0801, 0x1000), ("ant", "bee")),
            run(1, 1, (1, 0x1fff), ("beetle", "wasp")),
            run(6, 3, (1, 1), ("bee", "bee")),
        ],
        spills: vec![
            spill(Kind::Lock, 8, &[(TxnId::new(2, 7), 3, DeadSubs::NONE)]),
            spill(
                Kind::Mixed,
                9,
                &[
                    (TxnId::new(2, 7), 4, DeadSubs::new([(2, 3), (5, u32::MAX)])),
                    (TxnId::new(3, 1), 1, DeadSubs::NONE),
                ],
            ),
        ],
        unfinished: vec![
            UnfinishedTxn {
                txn: TxnId::new(2, 7),
                state: Bytes::from_static(b"prepared"),
            },
            UnfinishedTxn {
                txn: TxnId::new(3, 1),
                state: Bytes::new(),
            },
        ],
    }
}

fn read(disk: &SimDisk) -> Result<Option<Manifest>, StorageError> {
    Manifest::read_newest(disk)
}

#[test]
fn a_directory_without_a_manifest_has_none() {
    let disk = SimDisk::new(1);
    disk.write_file("manifest-0000000000000001.tmp", b"unfinished");
    assert_eq!(read(&disk).unwrap(), None);
}

#[test]
fn the_newest_one_is_read_and_the_previous_one_kept() {
    let disk = SimDisk::new(1);
    for generation in [1, 2, 5, 6] {
        manifest(generation).write(disk.as_ref()).unwrap();
        assert_eq!(read(&disk).unwrap(), Some(manifest(generation)));
    }
    assert_eq!(
        disk.names(),
        ["manifest-0000000000000005", "manifest-0000000000000006"]
    );
}

#[test]
fn every_flipped_byte_is_refused() {
    let disk = SimDisk::new(1);
    manifest(1).write(disk.as_ref()).unwrap();
    manifest(2).write(disk.as_ref()).unwrap();
    let name = file_name::manifest(2);
    let bytes = disk.read_file(&name);
    for offset in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[offset] ^= 1 << bit;
            disk.write_file(&name, &flipped);
            let error = read(&disk).unwrap_err();
            assert!(
                matches!(error, StorageError::Corrupt { ref file, .. } if *file == disk.path(&name)),
                "S5"
            );
        }
    }
    for len in 0..bytes.len() {
        disk.write_file(&name, &bytes[..len]);
        assert!(
            matches!(read(&disk), Err(StorageError::Corrupt { .. })),
            "S5: {len} bytes"
        );
    }
    disk.write_file(&name, &[&bytes[..], b"\0"].concat());
    assert!(read(&disk).is_err());
}

#[test]
fn a_manifest_under_another_name_is_refused() {
    let disk = SimDisk::new(1);
    disk.write_file(&file_name::manifest(7), &manifest(6).encode());
    let error = read(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::Corrupt {
                what: Damage::Swapped,
                ..
            }
        ),
        "F13: {error}"
    );
}

#[test]
fn a_newer_version_is_named_and_not_read() {
    let disk = SimDisk::new(1);
    let mut bytes = manifest(1).encode();
    bytes[8] = 2;
    reseal(&mut bytes);
    disk.write_file(&file_name::manifest(1), &bytes);
    let error = read(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::NewerVersion {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_file_too_large_to_be_a_manifest_is_refused_unread() {
    let disk = SimDisk::new(1);
    let file = disk
        .open(&file_name::manifest(1), OpenMode::CreateNew)
        .unwrap();
    file.set_len(MANIFEST_BYTES_MAX + 1).unwrap();
    assert!(matches!(
        read(&disk),
        Err(StorageError::Corrupt {
            what: Damage::Length { .. },
            ..
        })
    ));
}

#[test]
fn what_no_open_would_read_is_not_written() {
    let disk = SimDisk::new(1);
    assert!(check_length(disk.as_ref(), "manifest", 9, 9).is_ok());
    let error = check_length(disk.as_ref(), "manifest", 10, 9).unwrap_err();
    assert!(error.to_string().contains("10 bytes"), "{error}");
}

#[test]
fn every_crash_leaves_the_old_or_the_new_one() {
    let disk = SimDisk::new(1);
    manifest(1).write(disk.as_ref()).unwrap();
    let from = disk.io_count();
    manifest(2).write(disk.as_ref()).unwrap();
    manifest(3).write(disk.as_ref()).unwrap();
    let (mut old, mut new) = (0, 0);
    for moment in from..=disk.io_count() {
        for survivors in Survivors::enumerate(disk.unsynced(moment), 16) {
            let found = read(&disk.after_crash(moment, &survivors))
                .unwrap()
                .unwrap();
            match found.generation {
                1 => old += 1,
                _ => new += 1,
            }
            assert_eq!(found, manifest(found.generation));
        }
    }
    assert!(old > 10 && new > 10, "{old} old, {new} new");
}

#[test]
fn a_failing_write_leaves_the_old_or_the_new_one_and_can_be_repeated() {
    for op in [
        DiskOp::Create,
        DiskOp::Write,
        DiskOp::Sync,
        DiskOp::Rename,
        DiskOp::SyncDir,
    ] {
        let disk = SimDisk::new(1);
        manifest(1).write(disk.as_ref()).unwrap();
        disk.fail_matching(op, "", ErrorKind::StorageFull);
        let error = manifest(2).write(disk.as_ref()).unwrap_err();
        assert!(
            matches!(error, StorageError::Disk(ref error) if error.is_full()),
            "{op}"
        );
        let found = read(&disk).unwrap().unwrap();
        assert_eq!(
            found.generation,
            if op == DiskOp::SyncDir { 2 } else { 1 },
            "{op}"
        );
        disk.clear_faults();
        manifest(3).write(disk.as_ref()).unwrap();
        assert_eq!(read(&disk).unwrap(), Some(manifest(3)));
        assert!(
            !disk
                .names()
                .iter()
                .any(|name| name.ends_with(TEMPORARY) && op != DiskOp::Rename)
        );
    }
}

#[test]
fn runs_that_cannot_stand_so_in_levels_are_refused() {
    type Change = fn(&mut Vec<ListedRun>);
    let changes: [(&str, Change); 21] = [
        ("W5", |runs| runs.swap(0, 1)),
        ("W5", |runs| runs.swap(1, 2)),
        ("W5", |runs| runs[3].entry.newest = Lsn::new(0x2001)),
        ("W5", |runs| {
            runs[1].entry.origin = runs[2].entry.origin.clone();
        }),
        ("W5", |runs| runs[1].entry.origin = Origin::Committed),
        ("W5", |runs| runs[2].entry.origin = Origin::Committed),
        ("S1", |runs| runs[1].entry.oldest = Lsn::new(0x2000)),
        ("S1", |runs| runs[0].entry.origin = Origin::Provisional),
        ("W5", |runs| runs.swap(4, 5)),
        ("W5", |runs| {
            runs[4].entry.largest = runs[5].entry.smallest.clone();
        }),
        ("levels", |runs| runs[4].level = 0xff),
        ("levels", |runs| runs[6].level = 0),
        ("levels", |runs| runs[6].level = LEVEL_MAX + 1),
        ("number", |runs| runs[5].entry.number = 5),
        ("number", |runs| runs[5].entry.number = 8),
        ("number", |runs| runs[5].entry.number = 11),
        ("rows", |runs| {
            runs[6].entry.largest = Bytes::from_static(b"\0\0\0\0");
        }),
        ("rows", |runs| {
            runs[6].entry.smallest = Bytes::from_static(b"\0\0\0");
        }),
        ("counts", |runs| runs[6].entry.rows = 0),
        ("counts", |runs| runs[6].entry.rows = 18),
        ("counts", |runs| runs[6].entry.tombstones = 18),
    ];
    let disk = SimDisk::new(1);
    for (rule, change) in changes {
        let mut broken = manifest(1);
        change(&mut broken.runs);
        let error = Manifest::decode(disk.as_ref(), "manifest", &broken.encode()).unwrap_err();
        assert!(error.to_string().contains(rule), "{rule}: {error}");
    }
}

#[test]
fn spills_without_an_owner_or_of_another_kind_are_refused() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 8] = [
        ("S4", |all| all.unfinished.swap(0, 1)),
        ("S4", |all| drop(all.unfinished.pop())),
        ("S1", |all| all.spills[0].run.origin = Origin::Committed),
        ("V2", |all| all.spills[1].kind = Kind::Write),
        ("V2", |all| all.spills[1].parts.swap(0, 1)),
        ("V2", |all| all.spills[1].parts.clear()),
        ("rows", |all| all.spills[0].run.rows = 0),
        ("number", |all| all.spills[0].run.number = 1),
    ];
    let disk = SimDisk::new(1);
    for (rule, change) in changes {
        let mut broken = manifest(1);
        change(&mut broken);
        let error = Manifest::decode(disk.as_ref(), "manifest", &broken.encode()).unwrap_err();
        assert!(error.to_string().contains(rule), "{rule}: {error}");
    }
}

/// Lists are read one after the other while transactions go on: what is in two of them is told once.
#[test]
fn what_is_listed_twice_is_told_once_and_nothing_that_a_level_has() {
    let mut manifest = manifest(1);
    let owner = |sequence, state| UnfinishedTxn {
        txn: TxnId::new(4, sequence),
        state: Bytes::from_static(state),
    };
    let of = |sequence, state, numbers: &[(u64, u32)]| OpenSpills {
        txn: owner(sequence, state),
        spills: (numbers.iter())
            .map(|(number, dead)| {
                let dead = DeadSubs::new([(1, *dead)]);
                spill(Kind::Write, *number, &[(TxnId::new(4, sequence), 1, dead)])
            })
            .collect(),
    };
    let level = manifest.runs[0].entry.number;
    manifest.list_open([
        of(9, b"nine", &[]),
        of(3, b"live", &[(12, 1), (11, 1), (level, 1)]),
        of(3, b"committed", &[(11, 2), (level, 2)]),
    ]);
    let listed: Vec<_> = (manifest.spills.iter())
        .map(|spill| (spill.run.number, spill.parts[0].dead.intervals()[0]))
        .collect();
    assert_eq!(listed, [(11, (1, 2)), (12, (1, 1))]);
    assert_eq!(
        manifest.unfinished,
        [owner(3, b"committed"), owner(9, b"nine")]
    );
    manifest.next_run = 13;
    let disk = SimDisk::new(1);
    let read = Manifest::decode(disk.as_ref(), "manifest", &manifest.encode()).unwrap();
    assert_eq!(read, manifest);
    manifest.list_open([]);
    assert_eq!((manifest.spills.len(), manifest.unfinished.len()), (0, 0));
}

#[test]
fn what_manifest_and_log_name_is_needed_while_its_owner_outlives_a_crash() {
    let (first, second, third) = (TxnId::new(2, 7), TxnId::new(3, 1), TxnId::new(3, 2));
    let logged = |number, owner, replaces: &[u64]| LoggedSpill {
        number,
        owners: vec![owner],
        replaces: replaces.to_vec(),
    };
    let log = [
        logged(20, third, &[]),
        logged(21, second, &[]),
        // In the place of one that the manifest lists, and of one of the log.
        logged(22, first, &[8]),
        logged(23, third, &[20]),
    ];
    let manifest = manifest(1);
    let needed = |alive: &[TxnId]| {
        let needed = manifest.needed_spills(&log, &|owner| alive.contains(&owner));
        needed.into_iter().collect::<Vec<_>>()
    };
    // S6: a mixed one is needed for any of its owners.
    assert_eq!(needed(&[]), []);
    assert_eq!(needed(&[first]), [9, 22]);
    assert_eq!(needed(&[second]), [9, 21]);
    assert_eq!(needed(&[third]), [23]);
    assert_eq!(needed(&[first, second, third]), [9, 21, 22, 23]);
    assert_eq!(manifest.needed_spills(&[], &|_| true).len(), 2);
}

#[test]
fn an_unfinished_manifest_of_the_same_generation_is_replaced() {
    let disk = SimDisk::new(1);
    disk.write_file("manifest-0000000000000001.tmp", &[1; 9000]);
    manifest(1).write(disk.as_ref()).unwrap();
    assert_eq!(read(&disk).unwrap(), Some(manifest(1)));
}

#[test]
#[should_panic(expected = "S1")]
fn a_manifest_beyond_the_durable_lsn_is_never_written() {
    let disk = SimDisk::new(1);
    let beyond = Manifest {
        durable: Lsn::new(0x3fff),
        ..manifest(1)
    };
    beyond.write(disk.as_ref()).ok();
}

#[test]
#[should_panic(expected = "G1")]
fn a_manifest_beyond_the_files_of_the_log_is_never_written() {
    let disk = SimDisk::new(1);
    let beyond = Manifest {
        log_end: Lsn::new(0x4fff),
        ..manifest(1)
    };
    beyond.write(disk.as_ref()).ok();
}

/// Makes the checksum good.
fn reseal(bytes: &mut [u8]) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let place = Place {
        salt: number(16),
        file: number(24),
        section: Section::Manifest,
        number: 0,
    };
    let sum = place.checksum(&[&bytes[..12], &bytes[32..]]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_with_a_good_checksum_never_panic(
        changes in prop::collection::vec((16..1600_usize, prop_oneof![Just(0), Just(0xff), any::<u8>()]), 1..8),
        len in prop_oneof![3 => Just(usize::MAX), 1 => 32..1600_usize],
    ) {
        let disk: Arc<SimDisk> = SimDisk::new(1);
        let mut bytes = manifest(1).encode();
        bytes.truncate(len);
        for (at, to) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
        }
        reseal(&mut bytes);
        // F23: what is accepted says exactly what the bytes say.
        if let Ok(read) = Manifest::decode(disk.as_ref(), "manifest", &bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}

#[test]
fn golden_bytes() {
    let bytes = manifest(0xa).encode();
    assert_eq!(
        bytes,
        include_bytes!("../../testdata/manifest.golden"),
        "docs/format.md says what a manifest is"
    );
}
