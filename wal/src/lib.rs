//! The log: segments, frames, append, group commit, scan, tail decision.
//!
//! It knows bytes and positions and nothing of what they mean. [`Segments`] opens and reads a log,
//! [`Log`] extends it. `README.md` beside this crate tells the protocol; the numbered rules (G, W) are
//! those of the design.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.

#![forbid(unsafe_code)]

mod error;
mod chain;
mod format;
mod visit;
mod tail;
mod segment;
mod window;
mod frames;
mod neighbours;
mod survey;
mod scan;
mod segments;
mod open_frame;
mod rooms;
mod staging;
mod nudge;
mod waiter;
mod progress;
mod flush;
mod pipeline;
mod shelf;
mod supply;
mod hold;
mod log;

pub use chain::ChainPoint;
pub use error::{VisitError, WalError, Witness};
pub use hold::Hold;
pub use log::{Log, LogConfig};
pub use open_frame::Record;
pub use rooms::Room;
pub use segment::Access;
pub use segments::Segments;
pub use staging::Appended;
pub use visit::{
    FrameInfo, Leftover, LogScan, LogVisitor, ScanOptions, ScannedRecord, SegmentInfo, TornTail,
};
pub use waiter::{Watch, is_waking, wake_task};

/// The newest format of segments and frames that is understood here.
pub const FORMAT_VERSION: u32 = format::SEGMENT_VERSION;
