//! The log: segments, frames, append, group commit, scan, tail decision.
//!
//! It knows bytes and positions and nothing of what they mean. [`Segments`] opens and reads a log,
//! [`Log`] extends it. `README.md` beside this crate tells the protocol; the numbered rules (G, W) are
//! those of the design.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.

mod error;
mod chain;
mod format;
mod visit;
mod segments;
mod log;

pub use chain::ChainPoint;
pub use error::{VisitError, WalError};
pub use log::{Appended, Hold, Log, LogConfig, Record, Room};
pub use segments::{Access, Segments};
pub use visit::{FrameInfo, LogScan, LogVisitor, ScanOptions, ScannedRecord, TornTail};
