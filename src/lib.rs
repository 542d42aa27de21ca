//! Lockstone: an embedded, durable, transactional key-value engine in which a row lock is a record on
//! disk.
//!
//! Open a [`Database`], create [`Table`]s, and work in [`Transaction`]s: they lock rows, read, write, and
//! commit all or nothing. Every lock and every uncommitted write is a provisional record in the log that
//! carries its transaction's id and priority; after a crash the locks of whoever was in flight are void,
//! and [`Database::recovery_report`] says who that was.
//!
//! `ARCHITECTURE.md` tells the life of a write and the life of a crash. The write path is one file,
//! `src/write_path.rs`.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.
#![forbid(unsafe_code)]

mod names;
mod error;
mod lower_errors;
mod key_value;
mod key_range;
mod resource;
mod options;
mod parker;
mod row_limits;
mod many_rows;
mod single_writes;
mod own_rows;
mod write_set;
mod snapshots;
mod watermarks;
mod gate;
mod catalog;
mod counters;
mod requests;
mod bell;
mod provisional_memory;
mod spilled;
mod scrub_pace;
mod lease_clock;
mod live;
mod held_back;
mod alarm;
mod retry_gate;
mod engine;
mod naming;
mod lease;
mod prerequisites;
mod isolation;
mod txn_state;
mod publish;
mod compaction;
mod checkpoint;
mod pressure;
mod patience;
mod wanted;
mod lock_request;
mod log_step;
mod first_updater;
mod holdings;
mod spill_step;
mod idle;
mod tiers;
mod spill;
mod promise;
mod commit;
mod prepare;
mod write_path;
mod prepared;
mod detached;
mod scrub;
mod background;
mod restore;
mod closing;
mod opening;
mod table;
mod range;
mod listing;
mod lock_listing;
mod snapshot;
mod range_for;
mod ticket;
mod transaction;
mod reading;
mod wide_locks;
mod semaphore;
mod require;
mod leased;
mod two_phase;
mod bulk_locks;
mod lock_async;
mod under_policy;
mod schema;
mod backup;
mod typed;
mod database;
mod salvage;
pub mod inspect;

pub use database::Database;
pub use engine::Ports;
pub use error::{Error, Outcome, Result};
pub use key_range::{KeyRange, Prefix, prefix};
pub use key_value::{Key, Value};
pub use leased::Pinger;
pub use listing::{CheckReport, Info, Stats};
pub use lock_async::{GetForAsync, LockAsync};
pub use lock_listing::{
    LockFilter, LockInfo, LockInfoState, TransactionInfo, TransactionState, Wait, WaitBlocker,
    Waits, WantedLock,
};
pub use lockstone_base::disk::{Backend, IoMode, WritePath};
pub use lockstone_base::limits::{BUFFERED_MS_MAX, GID_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use lockstone_base::{FencingToken, InvalidTxnId, LockMode, Lsn, Priority, Rank, TxnId};
pub use lockstone_recovery::{InFlight, RecoveryReport, Resolution, TornTail};
pub use lockstone_storage::LevelStats;
pub use names::{Cycle, CycleWait, Holder, LockKind, RowName};
pub use options::{Durability, Isolation, OnConflict, Options, TxnOptions};
pub use prepared::PreparedInfo;
pub use range::Range;
pub use range_for::RangeFor;
pub use resource::ResourceMode;
pub use snapshot::Snapshot;
pub use table::Table;
pub use ticket::CommitTicket;
pub use transaction::{Savepoint, Transaction};
pub use typed::{
    AsKey, AsValue, KeyPrefix, KeyReader, KeyWriter, Read, TableKey, TableValue, TypedRange,
    TypedRangeFor, TypedTable,
};
pub use under_policy::UnderPolicy;

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of which call is for what, compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/calls.md")]
struct Calls;
