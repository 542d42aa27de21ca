//! A run's bytes in a manifest, committed or not.
//!
//! Called by `format` and `spill_format`, and for the log's record of a spill. Little-endian, no padding:
//!
//! ```text
//! Run { level, origin, what its file is, lengths of two rows }  smallest row  largest row
//! of an adopted one: spill (8)  number of intervals (4)  DeadIntervals
//! ```

use bytes::Bytes;
use lockstone_base::Lsn;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dead_subs::DeadSubs;
use crate::error::{Damage, Section};
use crate::run::{Adopted, Origin, RunEntry};

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Run {
    uuid: U128,
    number: U64,
    bytes: U64,
    versions: U64,
    rows: U64,
    tombstones: U64,
    oldest: U64,
    newest: U64,
    checksum: U32,
    smallest_bytes: U16,
    largest_bytes: U16,
    level: u8,
    origin: u8,
}

/// Sub-transactions that were rolled back.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DeadInterval {
    from: U32,
    through: U32,
}

/// Who wrote a run, in its `origin`.
const COMMITTED: u8 = 0;
const PROVISIONAL: u8 = 1;
const ADOPTED: u8 = 2;
const DESCENDED: u8 = 3;

/// What a run takes at least.
pub(super) const RUN_BYTES: usize = size_of::<Run>();

const _: () = assert!(RUN_BYTES == 82);

pub(super) fn encode_run(level: u8, run: &RunEntry, body: &mut Vec<u8>) {
    let head = Run {
        uuid: run.uuid.into(),
        number: run.number.into(),
        bytes: run.bytes.into(),
        versions: run.versions.into(),
        rows: run.rows.into(),
        tombstones: run.tombstones.into(),
        oldest: run.oldest.get().into(),
        newest: run.newest.get().into(),
        checksum: run.checksum.into(),
        smallest_bytes: (run.smallest.len() as u16).into(),
        largest_bytes: (run.largest.len() as u16).into(),
        level,
        origin: match run.origin {
            Origin::Committed => COMMITTED,
            Origin::Descended => DESCENDED,
            Origin::Provisional => PROVISIONAL,
            Origin::Adopted(_) => ADOPTED,
        },
    };
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&run.smallest);
    body.extend_from_slice(&run.largest);
    if let Origin::Adopted(adopted) = &run.origin {
        body.extend_from_slice(&adopted.spill.to_le_bytes());
        encode_dead(&adopted.dead, body);
    }
}

impl RunEntry {
    /// Its bytes, as a manifest has them, behind `bytes`.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        encode_run(0, self, bytes);
    }

    /// The entry that [`RunEntry::encode`] has written in front of `rest`, which is what follows then.
    ///
    /// # Errors
    /// [`Damage`] if there is none.
    pub fn decode(rest: &mut &[u8]) -> Result<Self, Damage> {
        match decode_run(rest)? {
            (0, run) => Ok(run),
            _ => Err(malformed("a run that no level has is in one")),
        }
    }
}

pub(super) fn encode_dead(dead: &DeadSubs, body: &mut Vec<u8>) {
    let intervals = dead.intervals();
    body.extend_from_slice(&(intervals.len() as u32).to_le_bytes());
    for (from, through) in intervals {
        let interval = DeadInterval {
            from: (*from).into(),
            through: (*through).into(),
        };
        body.extend_from_slice(interval.as_bytes());
    }
}

pub(super) fn decode_run(rest: &mut &[u8]) -> Result<(u8, RunEntry), Damage> {
    let cut = malformed("a run is cut off");
    let (run, behind) = Run::ref_from_prefix(rest).map_err(|_| cut)?;
    let (smallest, behind) = behind
        .split_at_checked(run.smallest_bytes.get().into())
        .ok_or(cut)?;
    let (largest, behind) = behind
        .split_at_checked(run.largest_bytes.get().into())
        .ok_or(cut)?;
    *rest = behind;
    let origin = match run.origin {
        COMMITTED => Origin::Committed,
        DESCENDED => Origin::Descended,
        PROVISIONAL => Origin::Provisional,
        ADOPTED => decode_adopted(rest)?,
        _ => return Err(malformed("nobody knows who wrote a run")),
    };
    let entry = RunEntry {
        number: run.number.get(),
        uuid: run.uuid.get(),
        bytes: run.bytes.get(),
        checksum: run.checksum.get(),
        versions: run.versions.get(),
        rows: run.rows.get(),
        tombstones: run.tombstones.get(),
        oldest: Lsn::new(run.oldest.get()),
        newest: Lsn::new(run.newest.get()),
        smallest: Bytes::copy_from_slice(smallest),
        largest: Bytes::copy_from_slice(largest),
        origin,
    };
    Ok((run.level, entry))
}

fn decode_adopted(rest: &mut &[u8]) -> Result<Origin, Damage> {
    let cut = malformed("what was adopted is cut off");
    let (spill, behind) = U64::read_from_prefix(rest).map_err(|_| cut)?;
    *rest = behind;
    let dead = decode_dead(rest)?;
    Ok(Origin::Adopted(Adopted {
        spill: spill.get(),
        dead,
    }))
}

pub(super) fn decode_dead(rest: &mut &[u8]) -> Result<DeadSubs, Damage> {
    let cut = malformed("dead sub-transactions are cut off");
    let (count, behind) = U32::read_from_prefix(rest).map_err(|_| cut)?;
    let count = bounded(count.get(), size_of::<DeadInterval>(), behind)?;
    let (intervals, behind) =
        <[DeadInterval]>::ref_from_prefix_with_elems(behind, count).map_err(|_| cut)?;
    *rest = behind;
    let intervals = intervals.iter();
    let intervals = intervals.map(|it| (it.from.get(), it.through.get()));
    DeadSubs::stored(intervals.collect()).ok_or(malformed("dead sub-transactions are out of order"))
}

/// `count`, if so many things of `each` bytes fit into the rest.
pub(super) fn bounded(count: u32, each: usize, rest: &[u8]) -> Result<usize, Damage> {
    let count = count as usize;
    match count.checked_mul(each) {
        Some(bytes) if bytes <= rest.len() => Ok(count),
        _ => Err(malformed("a count is larger than the file")),
    }
}

pub(super) fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Manifest, what)
}
