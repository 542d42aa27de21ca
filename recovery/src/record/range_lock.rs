//! A range of rows that a transaction locked, present or absent, as the log has it.

use std::ops::Bound;

use lockstone_base::limits::KEY_BYTES_MAX;
use lockstone_base::{LockMode, TableId};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::provisional::RecordBytes;
use super::{MalformedRecord, Tag};

/// All keys of a table between two bounds, locked by a transaction that has not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeLock<'a> {
    /// The table.
    pub table: TableId,
    /// The first key.
    pub start: Bound<&'a [u8]>,
    /// The last key.
    pub end: Bound<&'a [u8]>,
    /// The mode in which it is locked.
    pub mode: LockMode,
    /// The sub-transaction, for rollbacks.
    pub sub: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RangeLockHead {
    mode: u8,
    start_kind: u8,
    end_kind: u8,
    /// Zero.
    reserved: u8,
    table: U32,
    sub: U32,
    start_bytes: U16,
}

const _: () = assert!(size_of::<RangeLockHead>() == 14);

const INCLUDED: u8 = 1;
const EXCLUDED: u8 = 2;
const UNBOUNDED: u8 = 3;

fn split<'a>(bound: &Bound<&'a [u8]>) -> (u8, &'a [u8]) {
    match bound {
        Bound::Included(key) => (INCLUDED, key),
        Bound::Excluded(key) => (EXCLUDED, key),
        Bound::Unbounded => (UNBOUNDED, &[]),
    }
}

fn bound(kind: u8, key: &[u8]) -> Result<Bound<&[u8]>, MalformedRecord> {
    match kind {
        INCLUDED if key.len() <= KEY_BYTES_MAX => Ok(Bound::Included(key)),
        EXCLUDED if key.len() <= KEY_BYTES_MAX => Ok(Bound::Excluded(key)),
        UNBOUNDED if key.is_empty() => Ok(Bound::Unbounded),
        _ => Err(MalformedRecord("bound of a range")),
    }
}

impl<'a> RangeLock<'a> {
    pub(super) fn encode(self) -> RecordBytes<'a> {
        let (start_kind, start) = split(&self.start);
        let (end_kind, end) = split(&self.end);
        let head = RangeLockHead {
            mode: self.mode as u8,
            start_kind,
            end_kind,
            reserved: 0,
            table: self.table.0.into(),
            sub: self.sub.into(),
            start_bytes: u16::try_from(start.len())
                .expect("key lengths are checked")
                .into(),
        };
        RecordBytes::new(Tag::RangeLock, head.as_bytes(), [start, end])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, rest) = RangeLockHead::ref_from_prefix(bytes)
            .map_err(|_| MalformedRecord("head of a range"))?;
        let (start, end) = rest
            .split_at_checked(usize::from(head.start_bytes.get()))
            .ok_or(MalformedRecord("bound of a range"))?;
        if head.reserved != 0 || head.table.get() == TableId::ENGINE.0 {
            return Err(MalformedRecord("range"));
        }
        Ok(Self {
            table: TableId(head.table.get()),
            start: bound(head.start_kind, start)?,
            end: bound(head.end_kind, end)?,
            mode: LockMode::try_from(head.mode).map_err(|_| MalformedRecord("lock mode"))?,
            sub: head.sub.get(),
        })
    }
}
