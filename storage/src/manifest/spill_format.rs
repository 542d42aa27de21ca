//! The bytes of spills and of unfinished transactions in a manifest.
//!
//! Called by `format`. Little-endian, no padding:
//!
//! ```text
//! spill        kind (1)  number of owners (4)  a run (run_format)  for each owner: Part, dead sub-transactions
//! transaction  Unfinished { id, length of its state }  state
//! ```

use bytes::Bytes;
use lockstone_base::{Lsn, TxnId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::run_format::{
    RUN_BYTES, bounded, decode_dead, decode_run, encode_dead, encode_run, malformed,
};
use super::spills::{SpillEntry, SpillPart, UnfinishedTxn};
use crate::error::Damage;
use crate::provisional::Kind;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    owners: U32,
}

/// What a spill is to one of its owners. Behind it: the dead sub-transactions.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Part {
    epoch: U32,
    sequence: U64,
    spill: U64,
    through: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Unfinished {
    epoch: U32,
    sequence: U64,
    state_bytes: U32,
}

const _: () = {
    assert!(size_of::<Head>() == 5);
    assert!(size_of::<Part>() == 28);
    assert!(size_of::<Unfinished>() == 16);
};

pub(super) fn encode_spill(spill: &SpillEntry, body: &mut Vec<u8>) {
    let head = Head {
        kind: spill.kind as u8,
        owners: (spill.parts.len() as u32).into(),
    };
    body.extend_from_slice(head.as_bytes());
    encode_run(0, &spill.run, body);
    for part in &spill.parts {
        let head = Part {
            epoch: part.owner.epoch.into(),
            sequence: part.owner.sequence.into(),
            spill: part.spill.into(),
            through: part.through.get().into(),
        };
        body.extend_from_slice(head.as_bytes());
        encode_dead(&part.dead, body);
    }
}

pub(super) fn encode_unfinished(unfinished: &UnfinishedTxn, body: &mut Vec<u8>) {
    let head = Unfinished {
        epoch: unfinished.txn.epoch.into(),
        sequence: unfinished.txn.sequence.into(),
        state_bytes: (unfinished.state.len() as u32).into(),
    };
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&unfinished.state);
}

pub(super) fn decode_spills(count: u32, rest: &mut &[u8]) -> Result<Vec<SpillEntry>, Damage> {
    let count = bounded(count, size_of::<Head>() + RUN_BYTES, rest)?;
    (0..count).map(|_| decode_spill(rest)).collect()
}

fn decode_spill(rest: &mut &[u8]) -> Result<SpillEntry, Damage> {
    let cut = malformed("a spill is cut off");
    let (head, behind) = Head::ref_from_prefix(rest).map_err(|_| cut)?;
    *rest = behind;
    let (level, run) = decode_run(rest)?;
    if level != 0 {
        return Err(malformed("a spill has a level"));
    }
    let count = bounded(head.owners.get(), size_of::<Part>(), rest)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let (part, behind) = Part::ref_from_prefix(rest).map_err(|_| cut)?;
        *rest = behind;
        parts.push(SpillPart {
            owner: TxnId::new(part.epoch.get(), part.sequence.get()),
            spill: part.spill.get(),
            through: Lsn::new(part.through.get()),
            dead: decode_dead(rest)?,
        });
    }
    Ok(SpillEntry {
        kind: Kind::of(head.kind).ok_or(malformed("a spill's kind is unknown"))?,
        run,
        parts,
    })
}

pub(super) fn decode_unfinished(
    count: u32,
    rest: &mut &[u8],
) -> Result<Vec<UnfinishedTxn>, Damage> {
    let cut = malformed("a transaction is cut off");
    let count = bounded(count, size_of::<Unfinished>(), rest)?;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let (head, behind) = Unfinished::ref_from_prefix(rest).map_err(|_| cut)?;
        let state = behind.split_at_checked(head.state_bytes.get() as usize);
        let (state, behind) = state.ok_or(cut)?;
        *rest = behind;
        all.push(UnfinishedTxn {
            txn: TxnId::new(head.epoch.get(), head.sequence.get()),
            state: Bytes::copy_from_slice(state),
        });
    }
    Ok(all)
}
