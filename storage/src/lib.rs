//! The committed store of Lockstone: memtable, immutable runs, manifest.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.
#![forbid(unsafe_code)]

mod error;
mod version;
mod packed_rows;
mod batch;
mod checksum;
mod row_hash;
mod file_name;
mod question;
mod dead_subs;
mod cursor;
mod walk;
mod merge;
mod memtable;
mod run;
pub mod provisional;
mod manifest;
mod tree;
mod sources;
mod compaction;
mod store;

pub use batch::WriteBatch;
pub use compaction::Shape;
pub use cursor::Direction;
pub use dead_subs::DeadSubs;
pub use error::{Damage, Section, StorageError};
pub use manifest::{
    DroppedTable, LEVEL_MAX, ListedRun, LoggedSpill, Manifest, OpenSpills, SpillEntry, SpillPart,
    TableEntry, UnfinishedTxn,
};
pub use memtable::{Memtable, Prepared};
pub use packed_rows::{PackedRows, RowPacker, Sheet};
pub use run::{Adopted, Identity, Origin, RunBlock, RunEntry, RunFile, RunLayout, RunVersion};
pub use sources::{OwnRuns, Scan, Sources};
pub use store::{
    AdoptedRun, Adoption, Current, Droppable, LevelStats, Load, Pin, Replay, Retry, Store,
    StoreCheck, StoreConfig, StorePart, StoreScrub, StoreStats, WholeCompaction,
};
pub use version::{Replayed, Version};
