//! The lock table of Lockstone: who holds which row, who waits, who dies in a deadlock.
//!
//! A pure state machine: requests in, decisions out. No I/O, no thread, no clock; waiting belongs to
//! the caller, which is woken through [`Notify`] and polls [`LockTable::outcome`].
//!
//! Modules, lowest first: a module uses only what stands above it in this list.

#![forbid(unsafe_code)]

mod hash;
mod matrix;
mod target;
mod cycle;
mod place;
mod policy;
mod life;
mod slots;
mod ticket;
mod undo;
mod spilled;
mod table_set;
mod contended;
mod owner;
mod runs;
mod met;
mod wakes;
mod optimistic_reads;
mod optimistic;
mod decision;
mod batch;
mod wait_queue;
mod judge;
mod range_index;
mod range_look;
mod ranges;
mod tables;
mod semaphores;
mod wide;
mod holders;
mod row_lock;
mod placing;
mod nodes;
mod index;
mod sweep;
mod shard;
mod row_views;
mod spilled_rows;
mod shards;
mod lookup;
mod ask;
mod reduction;
mod deadlock;
mod standoff;
mod release;
mod table;
mod batch_requests;
mod spill;
mod wide_requests;
mod token_requests;
mod kept;
mod listing;

pub use batch::{Batch, Terms};
pub use cycle::{Cycle, CycleEdge};
pub use decision::{
    Blocker, Decision, LockEntry, LockStatus, RangeRequest, Refusal, Request, WaitEntry, WaitsFor,
};
pub use kept::{KeptRange, KeptRow, KeptWide};
pub use life::{OwnerState, Pinning};
pub use listing::ListPlace;
pub use matrix::conflicts;
pub use optimistic::{OptimisticLocks, Registration};
pub use optimistic_reads::{ReadSet, Reads, Stretch, Walk, Written};
pub use owner::{AbortCause, Notify, Owner};
pub use place::Place;
pub use policy::Policy;
pub use runs::{LockRun, RunId, SpilledLock, Unreadable};
pub use spill::{Copied, CopiedLock};
pub use table::LockTable;
pub use tables::TableLock;
pub use target::{RowRange, Target, TokenRequest};
pub use ticket::{Grant, Outcome, Ticket};
pub use wakes::Wakes;
pub use wide_requests::TableMode;
