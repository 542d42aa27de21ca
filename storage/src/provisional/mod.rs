//! Provisional runs: what open transactions have locked and written, moved out of memory (V1 to V4).
//!
//! Written, merged and read by the engine, by adoption and by recovery; what they are for stands in DESIGN §3. Nothing
//! here knows a transaction but by its number, nor the log, nor the table of locks.
//! 1. A spill is a run of the committed store's format (`run`), so that a commit adopts one that holds writes without
//!    rewriting a byte. Where a version has its stamp, a record has its owner and its sub-transaction; what else is
//!    known of it is its mark.
//! 2. V3: of a row it has, for each owner, at most one record of each sub-transaction, the newest first.
//! 3. A spill never changes. What was rolled back since it was written, its reader is told (V4).
//! 4. Whatever its bytes are, reading gives what was written or an error (F11, F12, F23).
//!
//! Crash: a spill that neither a manifest nor the log names is an orphan, whole or not (S6).

mod record;
mod digest;
mod summary;
mod writer;
mod reader;
mod cursors;
mod merge;

pub use cursors::{Range, Records};
pub use digest::Digest;
pub use merge::{MergeInput, merge};
pub use reader::{Found, ProvisionalRun, Sought, Written};
pub use record::{Effect, Record};
pub use summary::{Kind, OwnerPart};
pub use writer::{SpillPlan, SpillWriter};

#[cfg(test)]
mod tests;
