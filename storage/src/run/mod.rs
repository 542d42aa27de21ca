//! Runs: immutable sorted files of committed versions.
//!
//! Written by the flush and by merges (`writer`), which walk other runs (`walker`); opened by the store and
//! read through the list of sources (`reader`, `cursor`), checked as a whole (`check`). The bytes: `format`, `block`, `filter`, `index`.
//! 1. A run never changes; its number, hence its name, is never used again.
//! 2. Versions are in version order; every stamp lies between the oldest and the newest of its entry.
//! 3. Whatever its bytes are, reading gives what was written or an error (F11, F12, F23).
//!
//! Crash: a run that no manifest lists is an orphan, whole or not.

mod entry;
mod format;
mod filter;
mod marks;
mod layout;
mod block;
mod stretch;
mod block_builder;
mod index;
mod window;
mod part;
mod writer;
mod reader;
mod adopted;
mod entries;
mod many;
mod lost;
mod walked;
mod cursor;
mod walker;
mod check;
mod alone;

pub use alone::{RunBlock, RunFile, RunLayout, RunVersion};
pub(crate) use block::ROW_BYTES;
pub(crate) use cursor::RunCursor;
pub(crate) use entries::Entries;
pub use entry::{Adopted, Identity, Origin, RunEntry};
pub(crate) use marks::Mark;
pub(crate) use reader::Run;
pub(crate) use walker::RunWalker;
#[cfg(test)]
pub(crate) use writer::write;
pub(crate) use writer::{RunPlan, RunWriter};

#[cfg(test)]
mod tests;
