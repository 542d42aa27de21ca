//! Rows that a transaction locked one after the other, or in one call, and did not write: one record for many of them.
//!
//! ```text
//! sub-transaction (4)  count (4)  count × { mode (1)  row length (2)  row key }
//! ```
//!
//! 1. A record that decodes is whole: as many rows as it says, and nothing else.

use lockstone_base::limits::KEY_BYTES_MAX;
use lockstone_base::{LockMode, TableId};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MalformedRecord;
use super::many::granted_byte;
use super::provisional::{Effect, FRESH_BIT, Provisional, RecordBytes};
use super::tag::Tag;

/// Rows locked, and not written, by a transaction that has not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockMany<'a> {
    /// The sub-transaction, for rollbacks.
    pub sub: u32,
    /// How many rows there are.
    pub count: u32,
    /// The rows: each [`locked_row_head`], row key.
    pub rows: &'a [u8],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LockManyHead {
    sub: U32,
    count: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RowHead {
    granted: u8,
    row_bytes: U16,
}

/// What stands in front of each row.
pub const LOCKED_ROW_HEAD_BYTES: usize = 3;

const _: () = assert!(size_of::<RowHead>() == LOCKED_ROW_HEAD_BYTES);

/// What stands in front of a row whose encoding has this length, which is checked; `fresh`: the transaction did not
/// hold it before.
pub fn locked_row_head(
    row_bytes: usize,
    mode: LockMode,
    fresh: bool,
) -> [u8; LOCKED_ROW_HEAD_BYTES] {
    zerocopy::transmute!(RowHead {
        granted: granted_byte(mode, fresh),
        row_bytes: (row_bytes as u16).into(),
    })
}

impl<'a> LockMany<'a> {
    pub(super) fn encode(self) -> RecordBytes<'a> {
        let head = LockManyHead {
            sub: self.sub.into(),
            count: self.count.into(),
        };
        RecordBytes::new(Tag::LockMany, head.as_bytes(), [self.rows, &[]])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, rows) = LockManyHead::ref_from_prefix(bytes)
            .map_err(|_| MalformedRecord("head of many locks"))?;
        let many = Self {
            sub: head.sub.get(),
            count: head.count.get(),
            rows,
        };
        let (mut at, mut count) = (rows, 0);
        while !at.is_empty() {
            (_, at) = split_row(at, many.sub)?;
            count += 1;
        }
        if count == many.count {
            Ok(many)
        } else {
            Err(MalformedRecord("number of locks in one record"))
        }
    }

    /// The rows, each as a record of its own would have it.
    pub fn rows(self) -> impl Iterator<Item = Provisional<'a>> {
        let mut at = self.rows;
        std::iter::from_fn(move || {
            let (row, behind) = split_row(at, self.sub).ok()?;
            at = behind;
            Some(row)
        })
    }
}

/// The first row of `bytes`, and what follows.
fn split_row(bytes: &[u8], sub: u32) -> Result<(Provisional<'_>, &[u8]), MalformedRecord> {
    let (head, rest) = RowHead::ref_from_prefix(bytes).map_err(|_| MalformedRecord("row head"))?;
    let row_bytes = usize::from(head.row_bytes.get());
    let lengths = size_of::<TableId>()..=size_of::<TableId>() + KEY_BYTES_MAX;
    if !lengths.contains(&row_bytes) {
        return Err(MalformedRecord("row"));
    }
    let (row, rest) = rest
        .split_at_checked(row_bytes)
        .ok_or(MalformedRecord("row length"))?;
    let mode =
        LockMode::try_from(head.granted & !FRESH_BIT).map_err(|_| MalformedRecord("lock mode"))?;
    let locked = Provisional {
        row,
        mode,
        fresh: head.granted & FRESH_BIT != 0,
        sub,
        effect: Effect::Lock,
    };
    Ok((locked, rest))
}
