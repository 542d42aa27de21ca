//! What a crash leaves, and what opening makes of it: analysis, replay, resolution, report.
//!
//! [`recover`] turns a directory into a log and a store that can be used; [`Inspection`] looks at one
//! without changing it; [`record`] is what the log's records mean, for the writer and the reader alike.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.
#![forbid(unsafe_code)]

mod error;
pub mod record;
mod report;
mod unfinished;
mod log_check;
pub mod directory;
mod tally;
mod open_lease;
mod open_txn;
mod survivor;
pub mod analysis;
mod recover;
pub mod backup;
mod sizes;
mod dead_locks;
mod inspect;
mod loss;
pub mod salvage;

pub use dead_locks::DeadLock;
pub use error::RecoveryError;
pub use inspect::{DumpSink, Inspection};
pub use lockstone_storage::StoreCheck;
pub use lockstone_wal::{ChainPoint, FrameInfo, Leftover, SegmentInfo};
pub use log_check::{
    ChainMarks, Corruption, LogCheck, LogVerdict, ManifestMarks, SegmentUse, Span, Spare,
};
pub use recover::{Config, Identity, Recovered, recover};
pub use report::{InFlight, RecoveryReport, Resolution, TornTail};
pub use sizes::Sizes;
pub use survivor::{HeldRow, HeldWrite, Survives, Survivor};
pub use unfinished::UnfinishedState;
