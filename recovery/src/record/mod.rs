//! What the log says: the records that the engine appends and recovery reads back.
//!
//! The log itself knows a tag, a context and a body as bytes; their meaning is here, for the writer
//! (the write path) and the reader ([`Analysis`](crate::analysis::Analysis)) alike.
//!
//! 1. Tags stand in one registry ([`Tag`]) and are never reused; zero is none of them.
//! 2. The context of a transaction's record is its id and rank; adjacent records of one transaction
//!    share it in the log (G4). The engine's own records have an empty context.
//! 3. Bytes from disk give a [`MalformedRecord`], never a panic.

mod tag;
mod context;
mod provisional;
mod many;
mod lock_many;
mod range_lock;
mod spill;
mod tokens;
mod prepare;
mod lease;
mod body;

pub use body::Body;
pub use context::{CONTEXT_BYTES, Context};
pub use lease::{LEASE_HEAD_BYTES, Lease};
pub use lock_many::{LOCKED_ROW_HEAD_BYTES, LockMany, locked_row_head};
pub use many::{ProvisionalMany, ROW_HEAD_BYTES, granted_byte, row_head};
pub use prepare::{Held, HeldRange, HeldTokens, PREPARE_HEAD_BYTES, Prepare, locked_row};
pub use provisional::{Effect, Provisional, RecordBytes};
pub use range_lock::RangeLock;
pub use spill::{Spill, SpillFiles};
pub use tag::Tag;
pub use tokens::Tokens;

use thiserror::Error;

/// The longest body that is not a provisional record or a part of a value: what `reserve` asks of
/// the log for a commit.
pub const COMMIT_BODY_BYTES: usize = 12;

/// The body of a [`Tag::DropTable`] record: what dropping a table asks of the log.
pub const DROP_BODY_BYTES: usize = 4;

/// A record whose frame is intact and whose content makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record's {0} is malformed")]
pub struct MalformedRecord(pub &'static str);

#[cfg(test)]
mod tests;
