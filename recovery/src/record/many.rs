//! Rows that a transaction locked and wrote in one call: one record for many of them.
//!
//! ```text
//! sub-transaction (4)  count (4)   count × { row length (2)  value length (4)  row key  value }   count × mode (1)
//! ```
//!
//! 1. The writer packs the rows before it knows what was granted, so the modes stand behind them.
//! 2. A record that decodes is whole: as many rows as it says, as many modes, and nothing else.

use lockstone_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lockstone_base::{LockMode, TableId};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MalformedRecord;
use super::provisional::{Effect, FRESH_BIT, Provisional, RecordBytes};
use super::tag::Tag;

/// Rows locked and given values by a transaction that has not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvisionalMany<'a> {
    /// The sub-transaction, for rollbacks.
    pub sub: u32,
    /// The rows: each [`row_head`], row key, value.
    pub rows: &'a [u8],
    /// For each row a byte: [`granted_byte`].
    pub granted: &'a [u8],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ManyHead {
    sub: U32,
    count: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RowHead {
    row_bytes: U16,
    value_bytes: U32,
}

const _: () = assert!(size_of::<RowHead>() == ROW_HEAD_BYTES);

/// What stands in front of each row.
pub const ROW_HEAD_BYTES: usize = 6;

/// What stands in front of a row with an encoding and a value of these lengths, which are checked.
pub fn row_head(row_bytes: usize, value_bytes: usize) -> [u8; ROW_HEAD_BYTES] {
    zerocopy::transmute!(RowHead {
        row_bytes: (row_bytes as u16).into(),
        value_bytes: (value_bytes as u32).into(),
    })
}

/// What stands for the grant of a row: its mode, and whether the transaction did not hold it before.
pub fn granted_byte(mode: LockMode, fresh: bool) -> u8 {
    mode as u8 | if fresh { FRESH_BIT } else { 0 }
}

impl<'a> ProvisionalMany<'a> {
    pub(super) fn encode(self) -> RecordBytes<'a> {
        let head = ManyHead {
            sub: self.sub.into(),
            count: (self.granted.len() as u32).into(),
        };
        RecordBytes::new(
            Tag::ProvisionalMany,
            head.as_bytes(),
            [self.rows, self.granted],
        )
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, rest) =
            ManyHead::ref_from_prefix(bytes).map_err(|_| MalformedRecord("head of many rows"))?;
        let count = head.count.get() as usize;
        let (rows, granted) = rest
            .len()
            .checked_sub(count)
            .and_then(|rows| rest.split_at_checked(rows))
            .ok_or(MalformedRecord("number of rows in one record"))?;
        let many = Self {
            sub: head.sub.get(),
            rows,
            granted,
        };
        let mut at = rows;
        for granted in granted {
            let (_, behind) = split_row(at)?;
            LockMode::try_from(granted & !FRESH_BIT).map_err(|_| MalformedRecord("lock mode"))?;
            at = behind;
        }
        if at.is_empty() {
            Ok(many)
        } else {
            Err(MalformedRecord("number of rows in one record"))
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.granted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.granted.is_empty()
    }

    /// The rows, each as a record of its own would have it.
    pub fn rows(self) -> impl Iterator<Item = Provisional<'a>> {
        let (mut at, sub) = (self.rows, self.sub);
        self.granted.iter().map_while(move |granted| {
            let ((row, value), behind) = split_row(at).ok()?;
            at = behind;
            Some(Provisional {
                row,
                mode: LockMode::try_from(granted & !FRESH_BIT).ok()?,
                fresh: granted & FRESH_BIT != 0,
                sub,
                effect: Effect::Put(value),
            })
        })
    }
}

type Row<'a> = (&'a [u8], &'a [u8]);

/// The first row of `bytes` with its value, and what follows.
fn split_row(bytes: &[u8]) -> Result<(Row<'_>, &[u8]), MalformedRecord> {
    let (head, rest) = RowHead::ref_from_prefix(bytes).map_err(|_| MalformedRecord("row head"))?;
    let (row_bytes, value_bytes) = (
        usize::from(head.row_bytes.get()),
        head.value_bytes.get() as usize,
    );
    let rows = size_of::<TableId>()..=size_of::<TableId>() + KEY_BYTES_MAX;
    if !rows.contains(&row_bytes) || value_bytes > VALUE_BYTES_MAX {
        return Err(MalformedRecord("row"));
    }
    let (row, rest) = rest
        .split_at_checked(row_bytes)
        .ok_or(MalformedRecord("row length"))?;
    let (value, rest) = rest
        .split_at_checked(value_bytes)
        .ok_or(MalformedRecord("value length"))?;
    Ok(((row, value), rest))
}
