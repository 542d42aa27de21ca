//! The bodies of the log's records.

use lockstone_base::limits::{
    KEY_BYTES_MAX, LABEL_BYTES_MAX, TABLE_NAME_BYTES_MAX, VALUE_BYTES_MAX,
};
use lockstone_base::{LockMode, TableId};
use smallvec::SmallVec;
use zerocopy::little_endian::{U16, U32, U64};
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

/// The content of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// [`Tag::Begin`]: the label, empty if there is none.
    Begin {
        /// What the user calls the transaction.
        label: &'a str,
    },
    /// [`Tag::Provisional`].
    Provisional(Provisional<'a>),
    /// [`Tag::ValuePart`]: bytes that go in front of the next provisional record's value.
    ValuePart(&'a [u8]),
    /// [`Tag::RollbackTo`]: sub-transactions `from..=through` are dead.
    RollbackTo {
        /// The first dead one.
        from: u32,
        /// The last dead one.
        through: u32,
    },
    /// [`Tag::Commit`].
    Commit {
        /// How many rows it wrote: recovery checks that it found as many.
        rows: u64,
    },
    /// [`Tag::Abort`].
    Abort,
    /// [`Tag::CreateTable`].
    CreateTable {
        /// Its number, never used before.
        id: TableId,
        /// Its name.
        name: &'a str,
    },
    /// [`Tag::CleanShutdown`].
    CleanShutdown,
    /// [`Tag::DropTable`].
    DropTable {
        /// Its number, which no table gets again.
        id: TableId,
    },
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
const FRESH_BIT: u8 = 0x80;

impl<'a> Body<'a> {
    /// The bytes for the log.
    pub fn encode(self) -> RecordBytes<'a> {
        match self {
            Self::Begin { label } => {
                assert!(
                    label.len() <= LABEL_BYTES_MAX,
                    "labels are checked where they are given"
                );
                RecordBytes::new(Tag::Begin, &[], [label.as_bytes(), &[]])
            }
            Self::Provisional(provisional) => provisional.encode(),
            Self::ValuePart(part) => RecordBytes::new(Tag::ValuePart, &[], [part, &[]]),
            Self::RollbackTo { from, through } => {
                let bounds = [U32::new(from), U32::new(through)];
                RecordBytes::new(Tag::RollbackTo, bounds.as_bytes(), [&[], &[]])
            }
            Self::Commit { rows } => RecordBytes::new(Tag::Commit, &rows.to_le_bytes(), [&[], &[]]),
            Self::Abort => RecordBytes::new(Tag::Abort, &[], [&[], &[]]),
            Self::CreateTable { id, name } => {
                assert!(
                    name.len() <= TABLE_NAME_BYTES_MAX,
                    "names are checked where they are given"
                );
                RecordBytes::new(
                    Tag::CreateTable,
                    &id.0.to_le_bytes(),
                    [name.as_bytes(), &[]],
                )
            }
            Self::CleanShutdown => RecordBytes::new(Tag::CleanShutdown, &[], [&[], &[]]),
            Self::DropTable { id } => {
                RecordBytes::new(Tag::DropTable, &id.0.to_le_bytes(), [&[], &[]])
            }
        }
    }

    /// The content of a record of kind `tag`.
    ///
    /// # Errors
    /// [`MalformedRecord`] if the bytes are no such body.
    pub fn decode(tag: Tag, bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        match tag {
            Tag::Begin => Ok(Self::Begin {
                label: text(bytes, LABEL_BYTES_MAX, "label")?,
            }),
            Tag::Provisional => Provisional::decode(bytes).map(Self::Provisional),
            Tag::ValuePart => Ok(Self::ValuePart(bytes)),
            Tag::RollbackTo => {
                let [from, through] = exactly::<[U32; 2]>(bytes, "dead interval")?;
                let (from, through) = (from.get(), through.get());
                if from > through {
                    return Err(MalformedRecord("dead interval"));
                }
                Ok(Self::RollbackTo { from, through })
            }
            Tag::Commit => Ok(Self::Commit {
                rows: exactly::<U64>(bytes, "commit")?.get(),
            }),
            Tag::Abort => exactly::<[u8; 0]>(bytes, "abort").map(|_| Self::Abort),
            Tag::CreateTable => {
                let (id, name) =
                    U32::ref_from_prefix(bytes).map_err(|_| MalformedRecord("table"))?;
                let name = text(name, TABLE_NAME_BYTES_MAX, "table name")?;
                if name.is_empty() || id.get() == TableId::ENGINE.0 {
                    return Err(MalformedRecord("table"));
                }
                Ok(Self::CreateTable {
                    id: TableId(id.get()),
                    name,
                })
            }
            Tag::CleanShutdown => {
                exactly::<[u8; 0]>(bytes, "shutdown").map(|_| Self::CleanShutdown)
            }
            Tag::DropTable => match exactly::<U32>(bytes, "table")?.get() {
                id if id == TableId::ENGINE.0 => Err(MalformedRecord("table")),
                id => Ok(Self::DropTable { id: TableId(id) }),
            },
        }
    }
}

impl<'a> Provisional<'a> {
    fn encode(self) -> RecordBytes<'a> {
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

    fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
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

impl<'a> RecordBytes<'a> {
    fn new(tag: Tag, head: &[u8], tail: [&'a [u8]; 2]) -> Self {
        Self {
            tag,
            head: SmallVec::from_slice(head),
            tail,
        }
    }
}

fn exactly<T: FromBytes + KnownLayout + Immutable>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, MalformedRecord> {
    T::read_from_bytes(bytes).map_err(|_| MalformedRecord(what))
}

fn text<'a>(bytes: &'a [u8], max: usize, what: &'static str) -> Result<&'a str, MalformedRecord> {
    let text = str::from_utf8(bytes).map_err(|_| MalformedRecord(what))?;
    if text.len() > max {
        Err(MalformedRecord(what))
    } else {
        Ok(text)
    }
}
