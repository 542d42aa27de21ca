//! A manifest's bytes.
//!
//! Called by `manifest`. Little-endian, no padding:
//!
//! ```text
//! Prefix   magic "LKSMANIF"  version  checksum  salt  generation       the same in every version
//! Fixed    uuid, epoch, LSNs, counters, number of tables, of dropped ones, of runs, spills and transactions
//! tables   Table { id, created, length of the name }, name             ids ascend
//! dropped  Dropped { id, at }                                          ids ascend
//! runs     run_format.rs
//! spills, transactions     spill_format.rs
//! ```
//!
//! 1. The checksum covers every byte but its own, bound to the salt and the generation; it is checked
//!    before anything else is believed, the version before anything behind the prefix.
//! 2. Nothing is left over behind the last part.
//! 3. A hostile manifest costs no more memory than its length (F23).

use lockstone_base::{Lsn, TableId};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::run_format::{RUN_BYTES, bounded, decode_run, encode_run, malformed};
use super::spill_format::{decode_spills, decode_unfinished, encode_spill, encode_unfinished};
use super::state::{DroppedTable, ListedRun, Manifest, TableEntry};
use crate::checksum::Place;
use crate::error::{Damage, Section};

const MAGIC: [u8; 8] = *b"LKSMANIF";
/// The version that is written, and the latest that is read.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Prefix {
    magic: [u8; 8],
    version: U32,
    checksum: U32,
    salt: U64,
    generation: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fixed {
    uuid: U128,
    durable: U64,
    flushed_through: U64,
    scan_end: U64,
    log_end: U64,
    scan_crc: U32,
    boot_epoch: U32,
    next_run: U64,
    next_table: U32,
    tables: U32,
    dropped: U32,
    runs: U32,
    spills: U32,
    unfinished: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Table {
    id: U32,
    created: U64,
    name_bytes: U16,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Dropped {
    id: U32,
    at: U64,
}

const _: () = {
    assert!(size_of::<Prefix>() == 32);
    assert!(size_of::<Fixed>() == 88);
    assert!(size_of::<Table>() == 14);
    assert!(size_of::<Dropped>() == 12);
};

/// Why a manifest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Damaged(Damage),
    NewerVersion(u32),
}

impl From<Damage> for Refusal {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut body = Vec::new();
    let fixed = Fixed {
        uuid: manifest.uuid.into(),
        durable: manifest.durable.get().into(),
        flushed_through: manifest.flushed_through.get().into(),
        scan_end: manifest.scan_end.get().into(),
        log_end: manifest.log_end.get().into(),
        scan_crc: manifest.scan_crc.into(),
        boot_epoch: manifest.boot_epoch.into(),
        next_run: manifest.next_run.into(),
        next_table: manifest.next_table.into(),
        tables: (manifest.tables.len() as u32).into(),
        dropped: (manifest.dropped.len() as u32).into(),
        runs: (manifest.runs.len() as u32).into(),
        spills: (manifest.spills.len() as u32).into(),
        unfinished: (manifest.unfinished.len() as u32).into(),
    };
    body.extend_from_slice(fixed.as_bytes());
    for table in &manifest.tables {
        let head = Table {
            id: table.id.0.into(),
            created: table.created.get().into(),
            name_bytes: (table.name.len() as u16).into(),
        };
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(table.name.as_bytes());
    }
    for table in &manifest.dropped {
        let dropped = Dropped {
            id: table.id.0.into(),
            at: table.at.get().into(),
        };
        body.extend_from_slice(dropped.as_bytes());
    }
    for listed in &manifest.runs {
        encode_run(listed.level, &listed.entry, &mut body);
    }
    for spill in &manifest.spills {
        encode_spill(spill, &mut body);
    }
    for unfinished in &manifest.unfinished {
        encode_unfinished(unfinished, &mut body);
    }
    let mut prefix = Prefix {
        magic: MAGIC,
        version: VERSION.into(),
        checksum: 0.into(),
        salt: manifest.salt.into(),
        generation: manifest.generation.into(),
    };
    prefix.checksum = checksum(&prefix, &body).into();
    let mut bytes = prefix.as_bytes().to_vec();
    bytes.append(&mut body);
    bytes
}

fn checksum(prefix: &Prefix, body: &[u8]) -> u32 {
    let place = Place {
        salt: prefix.salt.get(),
        file: prefix.generation.get(),
        section: Section::Manifest,
        number: 0,
    };
    place.checksum(&[&prefix.magic, prefix.version.as_bytes(), body])
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Refusal> {
    let short = Damage::Length {
        found: bytes.len() as u64,
        expected: size_of::<Prefix>() as u64,
    };
    let (prefix, body) = Prefix::ref_from_prefix(bytes).map_err(|_| short)?;
    if prefix.magic != MAGIC {
        return Err(Damage::Magic.into());
    }
    if prefix.checksum.get() != checksum(prefix, body) {
        return Err(Damage::Checksum(Section::Manifest).into());
    }
    if prefix.version.get() != VERSION {
        return Err(match prefix.version.get() {
            0 => malformed("version 0").into(),
            newer => Refusal::NewerVersion(newer),
        });
    }
    let (fixed, mut rest) = Fixed::ref_from_prefix(body).map_err(|_| malformed("too short"))?;
    let tables = decode_tables(fixed, &mut rest)?;
    let dropped = decode_dropped(fixed, &mut rest)?;
    let runs = decode_runs(fixed, &mut rest)?;
    let spills = decode_spills(fixed.spills.get(), &mut rest)?;
    let unfinished = decode_unfinished(fixed.unfinished.get(), &mut rest)?;
    if !rest.is_empty() {
        return Err(malformed("bytes behind its last part").into());
    }
    let manifest = Manifest {
        uuid: fixed.uuid.get(),
        salt: prefix.salt.get(),
        generation: prefix.generation.get(),
        boot_epoch: fixed.boot_epoch.get(),
        durable: Lsn::new(fixed.durable.get()),
        flushed_through: Lsn::new(fixed.flushed_through.get()),
        scan_end: Lsn::new(fixed.scan_end.get()),
        scan_crc: fixed.scan_crc.get(),
        log_end: Lsn::new(fixed.log_end.get()),
        next_table: fixed.next_table.get(),
        next_run: fixed.next_run.get(),
        tables,
        dropped,
        runs,
        spills,
        unfinished,
    };
    match manifest.broken_rule() {
        Some(rule) => Err(malformed(rule).into()),
        None => Ok(manifest),
    }
}

fn decode_tables(fixed: &Fixed, rest: &mut &[u8]) -> Result<Vec<TableEntry>, Damage> {
    // Each takes more than its head's bytes of the file, so the count cannot ask for more memory.
    let count = bounded(fixed.tables.get(), size_of::<Table>(), rest)?;
    let mut tables = Vec::with_capacity(count);
    for _ in 0..count {
        let (table, behind) =
            Table::ref_from_prefix(rest).map_err(|_| malformed("a table is cut off"))?;
        let (name, behind) = behind
            .split_at_checked(table.name_bytes.get().into())
            .ok_or(malformed("a table's name is cut off"))?;
        *rest = behind;
        let name = str::from_utf8(name).map_err(|_| malformed("a table's name is not UTF-8"))?;
        tables.push(TableEntry {
            id: TableId(table.id.get()),
            name: name.to_owned(),
            created: Lsn::new(table.created.get()),
        });
    }
    Ok(tables)
}

fn decode_dropped(fixed: &Fixed, rest: &mut &[u8]) -> Result<Vec<DroppedTable>, Damage> {
    let count = bounded(fixed.dropped.get(), size_of::<Dropped>(), rest)?;
    let mut tables = Vec::with_capacity(count);
    for _ in 0..count {
        let (table, behind) =
            Dropped::ref_from_prefix(rest).map_err(|_| malformed("a dropped table is cut off"))?;
        *rest = behind;
        tables.push(DroppedTable {
            id: TableId(table.id.get()),
            at: Lsn::new(table.at.get()),
        });
    }
    Ok(tables)
}

fn decode_runs(fixed: &Fixed, rest: &mut &[u8]) -> Result<Vec<ListedRun>, Damage> {
    let count = bounded(fixed.runs.get(), RUN_BYTES, rest)?;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let (level, entry) = decode_run(rest)?;
        runs.push(ListedRun { level, entry });
    }
    Ok(runs)
}
