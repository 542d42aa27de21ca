//! Compaction: runs of one level and what they overlap in the next become runs of the next.
//!
//! Decided here, driven by the store, which gives the latch, the files' numbers and the list of sources.
//! What each part promises stands at its top.
//!
//! Crash: outputs that no manifest lists are orphans; the inputs are still listed.

mod targets;
mod deeper;
mod stoppable;
mod keep;
mod job;
mod pick;
mod outputs;

pub(crate) use job::{Action, Job, Taken};
pub(crate) use keep::Keep;
pub(crate) use outputs::Outputs;
pub(crate) use pick::Picker;
pub use pick::Shape;
pub(crate) use stoppable::{Stop, Stoppable};
