//! What the tests of Lockstone run on: a simulated disk, a clock that a test moves, random numbers from
//! one seed, tasks without an executor, and the contract that every disk must pass.
//!
//! For tests only: nothing that is shipped depends on it.
//!
//! Modules, lowest first.

#![forbid(unsafe_code)]

mod seeded_entropy;
mod sim_clock;
mod disk;
mod contract;
mod writer_contract;
mod gated_disk;
mod hooked_disk;
mod tasks;

pub use contract::disk_contract;
pub use disk::{FinishOrder, SimDisk, Survivors};
pub use gated_disk::GatedDisk;
pub use hooked_disk::HookedDisk;
pub use seeded_entropy::SeededEntropy;
pub use sim_clock::SimClock;
pub use tasks::{Woken, block_on};
pub use writer_contract::log_writer_contract;
