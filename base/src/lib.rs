//! The vocabulary of Lockstone and its ports to the kernel.
//!
//! What two crates both need lives here, and nothing else: the words ([`Lsn`], [`TxnId`], [`Priority`],
//! [`LockMode`], [`RowKey`]), the [`limits`], and the ports through which everything above reaches the
//! machine ([`disk`], [`clock`], [`entropy`]). Every port has a real and a simulated side, so the whole
//! engine runs on both unchanged.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.

pub mod limits;
pub mod clock;
pub mod disk;
pub mod entropy;
mod lock_mode;
mod lsn;
mod prefetch;
mod priority;
pub mod process;
mod row_key;
mod striped;
mod txn_id;

pub use lock_mode::{LockMode, UnknownLockMode};
pub use lsn::{FencingToken, Lsn};
pub use prefetch::{prefetch, prefetch_at};
pub use priority::{Priority, Rank};
pub use row_key::{RowKey, TableId};
pub use striped::{Apart, Striped};
pub use txn_id::{InvalidTxnId, TxnId};

/// File offsets and lengths travel as `u64`, memory sizes as `usize`: on this engine's one platform
/// they are the same width, which is what allows the plain casts between them.
const _: () = assert!(usize::BITS == 64);
