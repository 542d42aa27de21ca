//! The one error type, and what a caller may assume after each.
//!
//! 1. [`Error::outcome`] says what became of the transaction; [`Error::is_retryable`] whether running
//!    it again may succeed. Both are tables, tested against every variant.
//! 2. Bad input, a damaged file and a full disk are errors that say what, where and what to do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use lockstone_base::disk::DiskError;
use lockstone_base::{LockMode, Lsn, Rank, TxnId};
use lockstone_storage::StorageError;
use thiserror::Error as ThisError;

use crate::names::{Cycle, Holder, RowName};

/// What a call of the engine returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What became of the transaction whose call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The call left no trace; the transaction goes on and keeps its locks.
    Unchanged,
    /// The transaction is rolled back and its locks are free; each later call repeats the error.
    RolledBack,
    /// Whether the commit is durable is not known: reopen the database and look.
    Unknown,
    /// It is not about a transaction. One whose read met damage ([`Error::Corrupt`], [`Error::Io`]) goes on; one whose
    /// engine was closed ([`Error::Closed`]) is rolled back.
    NoTransaction,
}

/// Everything that can go wrong.
#[derive(Debug, Clone, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The lock is held by another transaction, and the policy is not to wait.
    #[error("{row} is locked: {holder} holds {held}, which conflicts with {asked}")]
    WouldBlock {
        /// The row.
        row: RowName,
        /// Who stands in the way.
        holder: Box<Holder>,
        /// The mode that the holder has, or waits for ahead of this request.
        held: LockMode,
        /// The mode asked for.
        asked: LockMode,
    },
    /// The lock was not granted within the timeout.
    #[error("{row} was not granted in mode {asked} within {waited_ms} ms: {holder} holds {held}")]
    LockTimeout {
        /// The row.
        row: RowName,
        /// Who stood in the way when the time was up.
        holder: Box<Holder>,
        /// The mode that the holder had, or waited for ahead of this request.
        held: LockMode,
        /// The mode asked for.
        asked: LockMode,
        /// The timeout, in milliseconds.
        waited_ms: u64,
    },
    /// The savepoint belongs to another transaction, or a rollback has undone it.
    #[error("the savepoint belongs to another transaction, or a rollback behind it has undone it")]
    InvalidSavepoint,
    /// Another transaction is prepared, or being prepared or ended, under this global id.
    #[error("the global id `{gid}` is in use: another transaction is prepared under it")]
    GidInUse {
        /// The global id.
        gid: String,
    },
    /// No transaction is prepared under this global id.
    #[error("no transaction is prepared as `{gid}`")]
    UnknownPrepared {
        /// The global id.
        gid: String,
    },
    /// No transaction with this id lives without a handle: it has ended, or never had a lease.
    #[error(
        "there is no transaction {txn} to resume: it has ended, its lease is over, or it never had one"
    )]
    UnknownTransaction {
        /// The id.
        txn: TxnId,
    },
    /// Another handle has the transaction.
    #[error("transaction {txn} has a handle already: detach that, or drop it")]
    InUse {
        /// The id.
        txn: TxnId,
    },
    /// A key must have at least one byte.
    #[error("the key is empty: a key has at least one byte")]
    KeyEmpty,
    /// A key longer than [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX).
    #[error("the key has {bytes} bytes: at most {max} are allowed")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A value longer than [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
    #[error("the value has {bytes} bytes: at most {max} are allowed")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The table was dropped.
    #[error("there is no table `{name}`: create it with create_table")]
    UnknownTable {
        /// The name.
        name: String,
    },
    /// The table was not dropped: a transaction that has locked or written in it goes on and on.
    #[error(
        "table `{table}` was not dropped: {holder} has locked or written in it and has not ended within \
         {waited_ms} ms; commit it or drop its handle, then call again"
    )]
    TableInUse {
        /// The table's name.
        table: Arc<str>,
        /// One of the transactions that use it.
        holder: Box<Holder>,
        /// How long the call waited, in milliseconds.
        waited_ms: u64,
    },
    /// A row of a typed table holds bytes that are no value of the type.
    #[error("{row}: its {what} is no {type_name}: it was written as something else")]
    Undecodable {
        /// The row.
        row: RowName,
        /// Which of the two: `key` or `value`.
        what: &'static str,
        /// The type that it should have.
        type_name: &'static str,
    },
    /// The table handle belongs to another database.
    #[error("table `{name}` belongs to another database")]
    ForeignTable {
        /// The table's name.
        name: String,
    },
    /// An option or argument outside its range, or a combination that is refused.
    #[error("invalid argument: {what}")]
    InvalidArgument {
        /// Which one, why, and what is allowed.
        what: String,
    },

    /// The transaction was chosen to end a deadlock.
    #[error("deadlock: {cycle}")]
    Deadlock {
        /// Who waits for whom.
        cycle: Arc<Cycle>,
    },
    /// Under [`OnConflict::Wound`](crate::OnConflict): somebody in the way has the same or a higher priority, so this
    /// transaction is rolled back.
    #[error("Operation failed. Try again.: {txn} Conflicts with higher priority transaction: {}", holder.txn)]
    Conflict {
        /// This transaction.
        txn: TxnId,
        /// The row.
        row: RowName,
        /// Who stood in the way.
        holder: Box<Holder>,
        /// That one's priority.
        holder_priority: Rank,
        /// The mode that it holds, or waits for ahead of this request.
        held: LockMode,
        /// The mode asked for.
        asked: LockMode,
    },
    /// Above [`Isolation::ReadCommitted`](crate::Isolation): the row was changed after the transaction began, by another one
    /// that has committed.
    #[error("{row} was changed by another transaction after this one began: run it again")]
    WriteConflict {
        /// The row.
        row: RowName,
    },
    /// Of a serializable transaction: another commit has written into what it has read.
    #[error("Transaction locks invalidated. Table: {table}, code: 2001")]
    LocksInvalidated {
        /// The table's name.
        table: String,
    },
    /// A transaction of higher priority took a lock that this one held or waited for; this one is rolled back.
    #[error(
        "transaction {by}, of higher priority, took a lock from this one, which is rolled back: run it again"
    )]
    Wounded {
        /// Who.
        by: TxnId,
    },
    /// The disk, a quota or a file-size limit left no room; the transaction is rolled back.
    #[error("no room on the disk: {source}; free some space and run the transaction again")]
    DiskFull {
        /// The call that failed.
        source: DiskError,
    },
    /// The log or the memory had reached its limit, and no room could be made; the transaction is rolled
    /// back.
    #[error(
        "no room could be made in log or memory: {source}; mend that and run the transaction again"
    )]
    OutOfRoom {
        /// What failed.
        source: Box<Error>,
    },
    /// The log has grown to its limit behind a transaction that was idle all the while: this one, which was rolled back for it, or
    /// one that is prepared, and then nobody can write before that is committed or aborted.
    #[error(
        "the log has grown to its limit of {max} bytes behind a transaction that was idle, and this one was rolled back; commit \
         earlier, end what is prepared, or raise Options::log_bytes"
    )]
    LogFull {
        /// The log's limit in bytes.
        max: u64,
    },

    /// What [`Transaction::require`](crate::Transaction::require) or
    /// [`Transaction::require_lock`](crate::Transaction::require_lock) has named was not there at the commit.
    #[error("a prerequisite of the commit failed: {what}")]
    PrerequisiteFailed {
        /// Which one.
        what: String,
    },
    /// Nobody has pinged the transaction for as long as its lease lasts.
    #[error("the lease of transaction {txn} is over: nobody has renewed it within {lease_ms} ms")]
    LeaseExpired {
        /// The transaction.
        txn: TxnId,
        /// How long the lease lasts, in milliseconds.
        lease_ms: u64,
    },

    /// A log write failed: nothing is acknowledged any more. Out of a commit or a prepare: its outcome is unknown.
    #[error(
        "a write or sync of the log failed, so nothing more is acknowledged: reopen the database"
    )]
    Poisoned,

    /// A backup goes into an empty directory only.
    #[error("{} is not empty: a backup goes into a directory that is empty or does not exist", path.display())]
    DirectoryNotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The path holds something else than a Lockstone database.
    #[error("{} is not a Lockstone database: {why}", path.display())]
    NotADatabase {
        /// The path.
        path: PathBuf,
        /// What was found there.
        why: &'static str,
    },
    /// The database was written by a newer version.
    #[error("{} has format version {found}; this program reads up to {supported}: use a newer one", file.display())]
    NewerVersion {
        /// The file that says so.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is understood here.
        supported: u32,
    },
    /// A file is damaged. Nothing was changed.
    #[error("{} is damaged{}: {what}", file.display(), Place { offset: *offset, lsn: *lsn })]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in the file.
        offset: Option<u64>,
        /// Where in the log.
        lsn: Option<Lsn>,
        /// What does not fit.
        what: String,
    },
    /// Another process, or another handle of this one, has the database open.
    #[error("{} is in use{}", path.display(), ByPid(*pid))]
    Locked {
        /// The database's directory.
        path: PathBuf,
        /// The process that has it open, if its lock file says so.
        pid: Option<u32>,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// The transaction has already ended.
    #[error("the transaction has ended")]
    TransactionEnded,
    /// The kernel gave no thread for the engine's background work.
    #[error("cannot start a background thread: {source}")]
    NoThread {
        /// Its reason.
        source: Arc<std::io::Error>,
    },
    /// The kernel refused a call.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl Error {
    /// What became of the transaction.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::WouldBlock { .. }
            | Self::LockTimeout { .. }
            | Self::InvalidSavepoint
            | Self::GidInUse { .. }
            | Self::UnknownPrepared { .. }
            | Self::UnknownTransaction { .. }
            | Self::InUse { .. }
            | Self::KeyEmpty
            | Self::KeyTooLong { .. }
            | Self::ValueTooLong { .. }
            | Self::UnknownTable { .. }
            | Self::Undecodable { .. }
            | Self::TableInUse { .. }
            | Self::ForeignTable { .. }
            | Self::InvalidArgument { .. } => Outcome::Unchanged,
            Self::Deadlock { .. }
            | Self::Conflict { .. }
            | Self::Wounded { .. }
            | Self::WriteConflict { .. }
            | Self::LocksInvalidated { .. }
            | Self::DiskFull { .. }
            | Self::OutOfRoom { .. }
            | Self::LogFull { .. }
            | Self::PrerequisiteFailed { .. }
            | Self::LeaseExpired { .. } => Outcome::RolledBack,
            Self::Poisoned => Outcome::Unknown,
            Self::NotADatabase { .. }
            | Self::DirectoryNotEmpty { .. }
            | Self::NewerVersion { .. }
            | Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::Closed
            | Self::TransactionEnded
            | Self::NoThread { .. }
            | Self::Io(_) => Outcome::NoTransaction,
        }
    }

    /// Whether running the transaction again may succeed.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::WouldBlock { .. }
                | Self::LockTimeout { .. }
                | Self::Deadlock { .. }
                | Self::Conflict { .. }
                | Self::Wounded { .. }
                | Self::WriteConflict { .. }
                | Self::LocksInvalidated { .. }
        )
    }

    /// What it is called when a transaction could not go on because of it: what says itself that the
    /// transaction is over, or that the engine is, keeps its name.
    pub(crate) fn for_want_of_room(self) -> Self {
        match self {
            Self::DiskFull { .. } | Self::Poisoned | Self::Closed | Self::OutOfRoom { .. } => self,
            other => Self::OutOfRoom {
                source: Box::new(other),
            },
        }
    }

    /// The first of these damages, with the files of the others named; `None` if there are none.
    pub(crate) fn of_damage(damages: Vec<StorageError>) -> Option<Self> {
        let mut damages = damages.into_iter().map(Self::from);
        let first = damages.next()?;
        let others: Vec<_> = damages.map(|error| error.to_string()).collect();
        if others.is_empty() {
            return Some(first);
        }
        let with_others = |what: String| format!("{what}; and {}", others.join("; and "));
        Some(match first {
            Self::Corrupt {
                file,
                offset,
                lsn,
                what,
            } => Self::Corrupt {
                file,
                offset,
                lsn,
                what: with_others(what),
            },
            Self::Io(error) => Self::Corrupt {
                file: error.path.clone(),
                offset: None,
                lsn: None,
                what: with_others(error.to_string()),
            },
            first => first,
        })
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidArgument { what: what.into() }
    }
}

struct Place {
    offset: Option<u64>,
    lsn: Option<Lsn>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        match self.lsn {
            Some(lsn) => write!(f, " (LSN {lsn})"),
            None => Ok(()),
        }
    }
}

struct ByPid(Option<u32>);

impl fmt::Display for ByPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " by process {pid}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
