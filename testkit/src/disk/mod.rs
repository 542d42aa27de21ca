//! The simulated disk: files in memory that a test can crash at every moment, tear, fill and fail.
//!
//! Modules, lowest first.

mod payload;
mod content;
mod call;
mod state;
mod survivors;
mod faults;
mod machine;
mod sim_file;
mod sim_writer;
mod sim_disk;

pub use machine::FinishOrder;
pub use sim_disk::SimDisk;
pub use survivors::Survivors;

/// The unit in which contents are shared and room is counted: a page of the cache, a block of the
/// filesystem.
const PAGE_BYTES: usize = 4096;
