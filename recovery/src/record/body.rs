//! The bodies of the log's records.

use lockstone_base::TableId;
use lockstone_base::limits::{LABEL_BYTES_MAX, TABLE_NAME_BYTES_MAX};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::lease::Lease;
use super::lock_many::LockMany;
use super::many::ProvisionalMany;
use super::prepare::Prepare;
use super::provisional::{Provisional, RecordBytes};
use super::range_lock::RangeLock;
use super::spill::Spill;
use super::tokens::Tokens;
use super::{COMMIT_BODY_BYTES, MalformedRecord, Tag};

/// The first part of a commit's body: all of it, where nothing is adopted.
const ROWS_BYTES: usize = 8;

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
    /// [`Tag::ProvisionalMany`].
    ProvisionalMany(ProvisionalMany<'a>),
    /// [`Tag::LockMany`].
    LockMany(LockMany<'a>),
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
        /// How many rows it wrote that were not spilled: recovery checks that it found as many.
        rows: u64,
        /// How many files it adopts: all that it has spilled and that hold writes.
        adopts: u32,
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
    /// [`Tag::RangeLock`].
    RangeLock(RangeLock<'a>),
    /// [`Tag::Spill`].
    Spill(Spill<'a>),
    /// [`Tag::Tokens`].
    Tokens(Tokens<'a>),
    /// [`Tag::Lease`].
    Lease(Lease<'a>),
    /// [`Tag::TableShared`]: a leased transaction has the table SHARED, to its end.
    TableShared {
        /// The table.
        table: TableId,
    },
    /// [`Tag::CallOpens`]: what comes until the call closes is undone if a crash cuts it off.
    CallOpens {
        /// Its first sub-transaction.
        sub: u32,
    },
    /// [`Tag::CallCloses`].
    CallCloses,
    /// [`Tag::Prepare`].
    Prepare(Prepare<'a>),
    /// [`Tag::TableLock`]: the transaction has the table alone, to its end.
    TableLock {
        /// The table.
        table: TableId,
    },
}

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
            Self::ProvisionalMany(many) => many.encode(),
            Self::LockMany(many) => many.encode(),
            Self::ValuePart(part) => RecordBytes::new(Tag::ValuePart, &[], [part, &[]]),
            Self::RollbackTo { from, through } => {
                let bounds = [U32::new(from), U32::new(through)];
                RecordBytes::new(Tag::RollbackTo, bounds.as_bytes(), [&[], &[]])
            }
            Self::Commit { rows, adopts } => {
                let counts = (rows.to_le_bytes(), adopts.to_le_bytes());
                let counts = [&counts.0[..], &counts.1].concat();
                // Nearly none adopts anything.
                let bytes = if adopts == 0 {
                    ROWS_BYTES
                } else {
                    COMMIT_BODY_BYTES
                };
                RecordBytes::new(Tag::Commit, counts.split_at(bytes).0, [&[], &[]])
            }
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
            Self::RangeLock(lock) => lock.encode(),
            Self::Spill(spill) => spill.encode(),
            Self::Tokens(tokens) => tokens.encode(),
            Self::Lease(lease) => lease.encode(),
            Self::CallOpens { sub } => {
                RecordBytes::new(Tag::CallOpens, &sub.to_le_bytes(), [&[], &[]])
            }
            Self::CallCloses => RecordBytes::new(Tag::CallCloses, &[], [&[], &[]]),
            Self::TableShared { table } => {
                RecordBytes::new(Tag::TableShared, &table.0.to_le_bytes(), [&[], &[]])
            }
            Self::Prepare(prepare) => prepare.encode(),
            Self::TableLock { table } => {
                RecordBytes::new(Tag::TableLock, &table.0.to_le_bytes(), [&[], &[]])
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
            Tag::ProvisionalMany => ProvisionalMany::decode(bytes).map(Self::ProvisionalMany),
            Tag::LockMany => LockMany::decode(bytes).map(Self::LockMany),
            Tag::ValuePart => Ok(Self::ValuePart(bytes)),
            Tag::RollbackTo => {
                let [from, through] = exactly::<[U32; 2]>(bytes, "dead interval")?;
                let (from, through) = (from.get(), through.get());
                if from > through {
                    return Err(MalformedRecord("dead interval"));
                }
                Ok(Self::RollbackTo { from, through })
            }
            Tag::Commit => commit(bytes),
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
            Tag::DropTable => Ok(Self::DropTable { id: table(bytes)? }),
            Tag::RangeLock => RangeLock::decode(bytes).map(Self::RangeLock),
            Tag::Spill => Spill::decode(bytes).map(Self::Spill),
            Tag::Tokens => Tokens::decode(bytes).map(Self::Tokens),
            Tag::Lease => Lease::decode(bytes).map(Self::Lease),
            Tag::CallOpens => Ok(Self::CallOpens {
                sub: exactly::<U32>(bytes, "call")?.get(),
            }),
            Tag::CallCloses => exactly::<[u8; 0]>(bytes, "call").map(|_| Self::CallCloses),
            Tag::TableShared => Ok(Self::TableShared {
                table: table(bytes)?,
            }),
            Tag::Prepare => Prepare::decode(bytes).map(Self::Prepare),
            Tag::TableLock => Ok(Self::TableLock {
                table: table(bytes)?,
            }),
        }
    }
}

fn commit<'a>(bytes: &[u8]) -> Result<Body<'a>, MalformedRecord> {
    let (rows, adopts) = bytes.split_at(ROWS_BYTES.min(bytes.len()));
    let adopts = match adopts {
        [] => 0,
        adopts => exactly::<U32>(adopts, "commit")?.get(),
    };
    Ok(Body::Commit {
        rows: exactly::<U64>(rows, "commit")?.get(),
        adopts,
    })
}

/// The number of a user's table.
fn table(bytes: &[u8]) -> Result<TableId, MalformedRecord> {
    match exactly::<U32>(bytes, "table")?.get() {
        id if id == TableId::ENGINE.0 => Err(MalformedRecord("table")),
        id => Ok(TableId(id)),
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
