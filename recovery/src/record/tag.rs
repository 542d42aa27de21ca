//! The registry of record kinds. A tag is never reused; zero is never one.

use super::MalformedRecord;

/// The kind of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tag {
    /// A transaction's first record: its label.
    Begin = 1,
    /// A row locked, written or deleted, and not yet committed.
    Provisional = 2,
    /// A part of the value of the transaction's next provisional record.
    ValuePart = 3,
    /// A rollback to a savepoint: the sub-transactions that are dead from here on.
    RollbackTo = 4,
    /// The transaction is committed; this record's LSN is its commit LSN.
    Commit = 5,
    /// The transaction is over, without effect.
    Abort = 6,
    /// A table exists.
    CreateTable = 7,
    /// The engine was closed in order; nothing was in flight but what is prepared.
    CleanShutdown = 8,
    /// A table is gone, with all its rows.
    DropTable = 9,
    /// Rows locked and written in one call, and not yet committed.
    ProvisionalMany = 10,
    /// A range of rows locked, present or absent.
    RangeLock = 11,
    /// A table locked EXCLUSIVE.
    TableLock = 12,
    /// Rows locked, and not written: many in one record.
    LockMany = 13,
    /// What a transaction has locked and written is in files now.
    Spill = 14,
    /// The transaction outlives every crash, with all that it holds.
    Prepare = 15,
    /// Tokens of a semaphore taken.
    Tokens = 16,
    /// The transaction has a lease, and outlives a crash.
    Lease = 17,
    /// A leased transaction uses a table.
    TableShared = 18,
    /// A call of a leased transaction that takes more than one record begins.
    CallOpens = 19,
    /// It has done all that it was to do.
    CallCloses = 20,
}

impl Tag {
    /// Every tag there is.
    pub const ALL: [Self; 20] = [
        Self::Begin,
        Self::Provisional,
        Self::ValuePart,
        Self::RollbackTo,
        Self::Commit,
        Self::Abort,
        Self::CreateTable,
        Self::CleanShutdown,
        Self::DropTable,
        Self::ProvisionalMany,
        Self::RangeLock,
        Self::TableLock,
        Self::LockMany,
        Self::Spill,
        Self::Prepare,
        Self::Tokens,
        Self::Lease,
        Self::TableShared,
        Self::CallOpens,
        Self::CallCloses,
    ];
}

impl TryFrom<u8> for Tag {
    type Error = MalformedRecord;

    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .into_iter()
            .find(|tag| *tag as u8 == byte)
            .ok_or(MalformedRecord("tag"))
    }
}
