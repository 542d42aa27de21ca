//! What readers read: the list of sources, and scans over it.
//!
//! Replaced by the store, taken by every reader.

mod departure;
mod stack;
mod list;
mod damages;
mod level_cursor;
mod end;
mod scan;
mod newer;

pub(crate) use departure::{Departure, Departures};
pub use list::{OwnRuns, Sources};
pub use scan::Scan;
pub(crate) use stack::{Layer, Place, Stack};

#[cfg(test)]
mod tests;
