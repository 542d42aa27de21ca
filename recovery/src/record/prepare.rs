//! A transaction that is prepared: it outlives every crash, until somebody commits or aborts it.
//!
//! ```text
//! rows (8)  digest (16)  length of the global id (2)  global id  what it holds besides
//! what it holds besides:
//!     Counts { newest sub-transaction, writes, through, how many of each that follow }
//!     SHARED tables × 4    EXCLUSIVE tables × { table (4)  token (8) }    dead intervals × { from (4)  through (4) }
//!     ranges × { token (8)  length (4)  as a RangeLock has it }    tokens × { length (4)  as Tokens have them }    spilled files × { spill (8)  kind (1)  as a manifest lists a run }
//! ```
//!
//! 1. R2: it says all that the transaction holds but its rows and writes, and of these how many rows there are, and their digest. So
//!    of one that has spilled nothing that the log said before is needed, and of others only what was said of rows.
//! 2. What does not fit one record stands in [`Tag::ValuePart`]s before it.

use std::ops::Bound;

use lockstone_base::limits::GID_BYTES_MAX;
use lockstone_base::{FencingToken, LockMode, Lsn, TableId, TxnId};
use lockstone_storage::RunEntry;
use lockstone_storage::provisional::{self, Digest, Kind};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MalformedRecord;
use super::provisional::RecordBytes;
use super::range_lock::RangeLock;
use super::tag::Tag;
use super::tokens::Tokens;

/// The head of a transaction's preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// What it is known by.
    pub gid: &'a str,
    /// How many rows it has locked: of one that has spilled, how many records its files have.
    pub rows: u64,
    /// The digest of these: [`locked_row`] of each, or the sum of the files'.
    pub digest: Digest,
    /// The last part of what it holds besides, as [`Held::encode`] wrote it.
    pub held: &'a [u8],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PrepareHead {
    rows: U64,
    digest: U128,
    gid_bytes: U16,
}

/// What a body of this kind has besides global id and holdings.
pub const PREPARE_HEAD_BYTES: usize = size_of::<PrepareHead>();

const _: () = assert!(PREPARE_HEAD_BYTES == 26);

impl<'a> Prepare<'a> {
    pub(super) fn encode(self) -> RecordBytes<'a> {
        assert!(
            self.gid.len() <= GID_BYTES_MAX,
            "global ids are checked where they are given"
        );
        let head = PrepareHead {
            rows: self.rows.into(),
            digest: self.digest.get().into(),
            gid_bytes: (self.gid.len() as u16).into(),
        };
        RecordBytes::new(
            Tag::Prepare,
            head.as_bytes(),
            [self.gid.as_bytes(), self.held],
        )
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, rest) = PrepareHead::ref_from_prefix(bytes)
            .map_err(|_| MalformedRecord("head of a preparation"))?;
        let malformed = MalformedRecord("global id");
        let gid = rest.split_at_checked(usize::from(head.gid_bytes.get()));
        let (gid, held) = gid.ok_or(malformed)?;
        let gid = str::from_utf8(gid).map_err(|_| malformed)?;
        if gid.is_empty() || gid.len() > GID_BYTES_MAX {
            return Err(malformed);
        }
        Ok(Self {
            gid,
            rows: head.rows.get(),
            digest: Digest::new(head.digest.get()),
            held,
        })
    }
}

/// The digest of a row that `txn` has locked in `mode`, in the database with this salt; `writes`: ranges meet it as written.
pub fn locked_row(
    salt: u64,
    txn: TxnId,
    row: &[u8],
    (mode, writes): (LockMode, bool),
    token: FencingToken,
) -> Digest {
    let record = provisional::Record {
        row,
        owner: txn,
        sub: 0,
        effect: provisional::Effect::Lock,
        mode,
        token,
        fresh: true,
        writes,
    };
    Digest::of(salt, &record)
}

/// What a transaction holds besides rows that the log says, and where its rows are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its newest sub-transaction.
    pub sub: u32,
    /// How many rows it had written in all.
    pub writes: u64,
    /// What the log says of rows up to here is in its files.
    pub through: Lsn,
    /// The tables that it holds SHARED.
    pub shared: Vec<TableId>,
    /// Those that it holds EXCLUSIVE.
    pub exclusive: Vec<(TableId, FencingToken)>,
    /// The first and the last of each interval of sub-transactions that were rolled back.
    pub dead: Vec<(u32, u32)>,
    /// The ranges, the oldest first.
    pub ranges: Vec<HeldRange>,
    /// Tokens of semaphores, the oldest first.
    pub tokens: Vec<HeldTokens>,
    /// Its files, each with the number of its spill, which ascend.
    pub files: Vec<(u64, Kind, RunEntry)>,
}

/// A range that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRange {
    /// Its table.
    pub table: TableId,
    /// The first key.
    pub start: Bound<Vec<u8>>,
    /// The last key.
    pub end: Bound<Vec<u8>>,
    /// Its mode.
    pub mode: LockMode,
    /// The sub-transaction that took it.
    pub sub: u32,
    /// Its fencing token.
    pub token: FencingToken,
}

/// Tokens of a semaphore that are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTokens {
    /// The semaphore's name.
    pub semaphore: Box<[u8]>,
    /// How many there are of it.
    pub limit: u64,
    /// How many are held.
    pub tokens: u64,
    /// The sub-transaction that took them.
    pub sub: u32,
}

impl HeldTokens {
    /// What a record says.
    pub(crate) fn of(taken: &Tokens<'_>) -> Self {
        Self {
            semaphore: taken.semaphore.into(),
            limit: taken.limit,
            tokens: taken.tokens,
            sub: taken.sub,
        }
    }

    fn taken(&self) -> Tokens<'_> {
        Tokens {
            semaphore: &self.semaphore,
            limit: self.limit,
            tokens: self.tokens,
            sub: self.sub,
        }
    }
}

impl HeldRange {
    /// The range that a record says, whose position is the token.
    pub(crate) fn of(lock: &RangeLock<'_>, token: FencingToken) -> Self {
        Self {
            table: lock.table,
            start: lock.start.map(<[u8]>::to_vec),
            end: lock.end.map(<[u8]>::to_vec),
            mode: lock.mode,
            sub: lock.sub,
            token,
        }
    }

    fn lock(&self) -> RangeLock<'_> {
        RangeLock {
            table: self.table,
            start: self.start.as_ref().map(|key| &**key),
            end: self.end.as_ref().map(|key| &**key),
            mode: self.mode,
            sub: self.sub,
        }
    }

    /// Whether it has a row, encoded.
    pub(crate) fn contains(&self, row: &[u8]) -> bool {
        let Some((table, key)) = row.split_first_chunk() else {
            return false;
        };
        let starts = match &self.start {
            Bound::Included(start) => key >= &**start,
            Bound::Excluded(start) => key > &**start,
            Bound::Unbounded => true,
        };
        let ends = match &self.end {
            Bound::Included(end) => key <= &**end,
            Bound::Excluded(end) => key < &**end,
            Bound::Unbounded => true,
        };
        TableId(u32::from_be_bytes(*table)) == self.table && starts && ends
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Counts {
    sub: U32,
    writes: U64,
    through: U64,
    shared: U32,
    exclusive: U32,
    dead: U32,
    ranges: U32,
    tokens: U32,
    files: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExclusiveBytes {
    table: U32,
    token: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DeadBytes {
    from: U32,
    through: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RangeHead {
    token: U64,
    bytes: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FileHead {
    spill: U64,
    kind: u8,
}

const _: () = {
    assert!(size_of::<Counts>() == 44);
    assert!(size_of::<ExclusiveBytes>() == 12);
    assert!(size_of::<DeadBytes>() == 8);
    assert!(size_of::<RangeHead>() == 12);
    assert!(size_of::<FileHead>() == 9);
};

const MALFORMED: MalformedRecord = MalformedRecord("list of what a prepared transaction holds");

/// The next of its kind.
fn next<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(
    rest: &mut &'a [u8],
) -> Result<&'a T, MalformedRecord> {
    let (next, behind) = T::ref_from_prefix(rest).map_err(|_| MALFORMED)?;
    *rest = behind;
    Ok(next)
}

/// So many, each of which takes at least a byte: what is gathered is bounded by the bytes that there are (F23).
fn many<T>(
    count: U32,
    mut one: impl FnMut() -> Result<T, MalformedRecord>,
) -> Result<Vec<T>, MalformedRecord> {
    let mut all = Vec::new();
    for _ in 0..count.get() {
        all.push(one()?);
    }
    Ok(all)
}

impl Held {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = |items: usize| U32::new(items as u32);
        let counts = Counts {
            sub: self.sub.into(),
            writes: self.writes.into(),
            through: self.through.get().into(),
            shared: count(self.shared.len()),
            exclusive: count(self.exclusive.len()),
            dead: count(self.dead.len()),
            ranges: count(self.ranges.len()),
            tokens: count(self.tokens.len()),
            files: count(self.files.len()),
        };
        let mut bytes = counts.as_bytes().to_vec();
        for table in &self.shared {
            bytes.extend(table.0.to_le_bytes());
        }
        for (table, token) in &self.exclusive {
            let (table, token) = (table.0.into(), token.get().into());
            bytes.extend(ExclusiveBytes { table, token }.as_bytes());
        }
        for (from, through) in &self.dead {
            let (from, through) = ((*from).into(), (*through).into());
            bytes.extend(DeadBytes { from, through }.as_bytes());
        }
        for range in &self.ranges {
            let lock = range.lock().encode();
            let lock = lock.pieces().concat();
            let head = RangeHead {
                token: range.token.get().into(),
                bytes: count(lock.len()),
            };
            bytes.extend(head.as_bytes());
            bytes.extend(lock);
        }
        for tokens in &self.tokens {
            let taken = tokens.taken().encode().pieces().concat();
            bytes.extend(count(taken.len()).as_bytes());
            bytes.extend(taken);
        }
        for (spill, kind, entry) in &self.files {
            let (spill, kind) = ((*spill).into(), *kind as u8);
            bytes.extend(FileHead { spill, kind }.as_bytes());
            entry.encode(&mut bytes);
        }
        bytes
    }

    /// What [`Held::encode`] wrote.
    ///
    /// # Errors
    /// [`MalformedRecord`] if the bytes are no such list.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedRecord> {
        let mut rest = bytes;
        let rest = &mut rest;
        let counts = next::<Counts>(rest)?;
        let held = Self {
            sub: counts.sub.get(),
            writes: counts.writes.get(),
            through: Lsn::new(counts.through.get()),
            shared: many(counts.shared, || Ok(TableId(next::<U32>(rest)?.get())))?,
            exclusive: many(counts.exclusive, || {
                let exclusive = next::<ExclusiveBytes>(rest)?;
                let token = FencingToken::new(Lsn::new(exclusive.token.get()));
                Ok((TableId(exclusive.table.get()), token))
            })?,
            dead: many(counts.dead, || {
                let dead = next::<DeadBytes>(rest)?;
                let dead = (dead.from.get(), dead.through.get());
                (dead.0 <= dead.1).then_some(dead).ok_or(MALFORMED)
            })?,
            ranges: many(counts.ranges, || {
                let head = next::<RangeHead>(rest)?;
                let lock = rest.split_at_checked(head.bytes.get() as usize);
                let (lock, behind) = lock.ok_or(MALFORMED)?;
                *rest = behind;
                let token = FencingToken::new(Lsn::new(head.token.get()));
                Ok(HeldRange::of(&RangeLock::decode(lock)?, token))
            })?,
            tokens: many(counts.tokens, || {
                let bytes = next::<U32>(rest)?.get();
                let taken = rest.split_at_checked(bytes as usize);
                let (taken, behind) = taken.ok_or(MALFORMED)?;
                *rest = behind;
                Ok(HeldTokens::of(&Tokens::decode(taken)?))
            })?,
            files: many(counts.files, || {
                let head = next::<FileHead>(rest)?;
                let kind = Kind::of(head.kind).ok_or(MALFORMED)?;
                let entry = RunEntry::decode(rest).map_err(|_| MALFORMED)?;
                Ok((head.spill.get(), kind, entry))
            })?,
        };
        // Spills in the order of their numbers: a later one is newer.
        let ascends = held.files.is_sorted_by_key(|(spill, ..)| *spill);
        (rest.is_empty() && ascends)
            .then_some(held)
            .ok_or(MALFORMED)
    }
}

#[cfg(test)]
mod tests;
