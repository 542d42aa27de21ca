//! What recovery found and did, for people and programs (R6).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstone_base::{Lsn, Rank, TxnId};
use serde::Serialize;

/// What opening a database found in its log, and what became of it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the database was created by this open.
    pub created: bool,
    /// Whether the run before was closed in order.
    pub clean_shutdown: bool,
    /// This run's epoch: the first half of its transaction ids.
    pub boot_epoch: u32,
    /// Every commit up to here was in runs already.
    pub flushed_through: Lsn,
    /// Where reading the log began.
    pub log_from: Lsn,
    /// Where the intact log ended.
    pub log_end: Lsn,
    /// Bytes of log read.
    pub log_bytes: u64,
    /// Frames read.
    pub frames: u64,
    /// Records read.
    pub records: u64,
    /// What the log held behind its end and was dropped: no later frame says that it was acknowledged.
    pub torn: Option<TornTail>,
    /// Transactions whose commit was replayed.
    pub committed: u64,
    /// Rows that these had written and not spilled.
    pub rows_replayed: u64,
    /// Rows in the files that these have adopted.
    pub rows_adopted: u64,
    /// Transactions that had ended without effect.
    pub aborted: u64,
    /// Transactions that were in flight, the oldest first. Each is resolved: none holds a lock but those that are prepared.
    pub in_flight: Vec<InFlight>,
    /// Time spent reading the log.
    #[serde(serialize_with = "as_micros", rename = "scan_us")]
    pub scan: Duration,
    /// Time spent sorting and installing what had committed.
    #[serde(serialize_with = "as_micros", rename = "replay_us")]
    pub replay: Duration,
    /// Time of the whole recovery.
    #[serde(serialize_with = "as_micros", rename = "total_us")]
    pub total: Duration,
}

impl RecoveryReport {
    /// Those of the transactions in flight that are prepared, and hold what they held.
    pub fn prepared(&self) -> impl Iterator<Item = &InFlight> {
        let in_flight = self.in_flight.iter();
        in_flight.filter(|txn| matches!(txn.resolution, Resolution::Prepared { .. }))
    }

    /// Those of them that are prepared or leased, and hold what they held.
    pub fn survivors(&self) -> impl Iterator<Item = &InFlight> {
        let in_flight = self.in_flight.iter();
        in_flight.filter(|txn| !matches!(txn.resolution, Resolution::Aborted))
    }

    /// How many row locks the transactions in flight had.
    pub fn locks_in_flight(&self) -> u64 {
        self.in_flight.iter().map(|txn| txn.locks).sum()
    }
}

/// The part of the log behind its end.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment file in which the first of it lies.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// Where in the log.
    pub lsn: Lsn,
    /// How much it is.
    pub bytes: u64,
    /// Frames behind the end whose header is intact.
    pub frames: u64,
    /// Those of them that are whole: written beside one that is not, and never acknowledged.
    pub whole: u64,
    /// The records that these headers count.
    pub records: u64,
}

impl TornTail {
    pub(crate) fn of(torn: &lockstone_wal::TornTail) -> Self {
        Self {
            file: torn.file.clone(),
            offset: torn.offset,
            lsn: torn.at,
            bytes: torn.bytes,
            frames: torn.frames,
            whole: torn.whole,
            records: torn.records,
        }
    }
}

/// A transaction that was in flight when the run before ended.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InFlight {
    /// Its id.
    pub txn: TxnId,
    /// What its owner called it.
    pub label: Option<Arc<str>>,
    /// Its priority.
    pub priority: Rank,
    /// How many rows it had locked.
    pub locks: u64,
    /// How many ranges it had locked.
    pub ranges: u64,
    /// How many tokens of semaphores it had taken.
    pub tokens: u64,
    /// How many tables it had locked.
    pub tables: u64,
    /// How many puts and deletes it had done.
    pub writes: u64,
    /// What became of it.
    pub resolution: Resolution,
}

/// What became of a transaction that was in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Resolution {
    /// It had no commit record: it is aborted by definition, and its locks are void.
    Aborted,
    /// It is prepared, and holds exactly what it held.
    Prepared {
        /// What it is known by.
        gid: Arc<str>,
    },
    /// It has a lease, and holds exactly what it held, until nobody renews that.
    Leased {
        /// How long the lease lasts, from the open on, in milliseconds.
        lease_ms: u64,
    },
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("aborted"),
            Self::Prepared { gid } => write!(f, "prepared as {gid}"),
            Self::Leased { lease_ms } => write!(f, "leased for {lease_ms} ms"),
        }
    }
}

fn as_micros<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_micros() as u64)
}
