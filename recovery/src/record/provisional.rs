//! A row that a transaction locked or wrote, as the log has it, and the pieces that a body goes to the log in.

use lockstone_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lockstone_base::{LockMode, TableId};
use smallvec::SmallVec;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{MalformedRecord, Tag};

/// What a provisional record does to its row besides locking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Nothing.
    Lock,
    /// The row gets this value; the parts logged before it come first.
    Put(&'a [u8]),
    /// The row goes.
    Delete,
}

/// A row locked, written or deleted by a transaction that has not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provisional<'a> {
    /// The row's encoding: table, then key.
    pub row: &'a [u8],
    /// The mode in which it is locked.
    pub mode: LockMode,
    /// Whether the transaction did not hold the row before: so locks are counted without a set.
    pub fresh: bool,
    /// The sub-transaction, for rollbacks.
    pub sub: u32,
    /// What else it does.
    pub effect: Effect<'a>,
}

/// A body in the pieces that the log takes, without a copy of key and value.
#[derive(Debug)]
pub struct RecordBytes<'a> {
    /// The kind.
    pub tag: Tag,
    head: SmallVec<[u8; 16]>,
    tail: [&'a [u8]; 2],
}

impl RecordBytes<'_> {
    /// The pieces of the body, in order.
    pub fn pieces(&self) -> [&[u8]; 3] {
        let [row, value] = self.tail;
        [&self.head, row, value]
    }
}

impl<'a> RecordBytes<'a> {
    pub(super) fn new(tag: Tag, head: &[u8], tail: [&'a [u8]; 2]) -> Self {
        Self {
            tag,
            head: SmallVec::from_slice(head),
            tail,
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ProvisionalHead {
    kind: u8,
    mode: u8,
    row_bytes: U16,
    sub: U32,
}

const _: () = assert!(size_of::<ProvisionalHead>() == 8);

const KIND_LOCK: u8 = 1;
const KIND_PUT: u8 = 2;
const KIND_DELETE: u8 = 3;
/// Set in the mode byte of a record whose row the transaction did not hold before.
pub(super) const FRESH_BIT: u8 = 0x80;

impl<'a> Provisional<'a> {
    pub(super) fn encode(self) -> RecordBytes<'a> {
        let (kind, value) = match self.effect {
            Effect::Lock => (KIND_LOCK, &[][..]),
            Effect::Put(value) => (KIND_PUT, value),
            Effect::Delete => (KIND_DELETE, &[][..]),
        };
        let head = ProvisionalHead {
            kind,
            mode: self.mode as u8 | if self.fresh { FRESH_BIT } else { 0 },
            row_bytes: u16::try_from(self.row.len())
                .expect("key lengths are checked")
                .into(),
            sub: self.sub.into(),
        };
        RecordBytes::new(Tag::Provisional, head.as_bytes(), [self.row, value])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, rest) = ProvisionalHead::ref_from_prefix(bytes)
            .map_err(|_| MalformedRecord("provisional head"))?;
        let (row, value) = rest
            .split_at_checked(usize::from(head.row_bytes.get()))
            .ok_or(MalformedRecord("row length"))?;
        let row_bytes = size_of::<TableId>()..=size_of::<TableId>() + KEY_BYTES_MAX;
        if !row_bytes.contains(&row.len()) || value.len() > VALUE_BYTES_MAX {
            return Err(MalformedRecord("row"));
        }
        let effect = match head.kind {
            KIND_LOCK if value.is_empty() => Effect::Lock,
            KIND_PUT => Effect::Put(value),
            KIND_DELETE if value.is_empty() => Effect::Delete,
            _ => return Err(MalformedRecord("provisional kind")),
        };
        Ok(Self {
            row,
            mode: LockMode::try_from(head.mode & !FRESH_BIT)
                .map_err(|_| MalformedRecord("lock mode"))?,
            fresh: head.mode & FRESH_BIT != 0,
            sub: head.sub.get(),
            effect,
        })
    }
}
