//! What readers read: the list of sources, and scans over it.
//!
//! Replaced by the store, taken by every reader.

mod list;
mod damages;
mod level_cursor;
mod end;
mod scan;

pub use list::Sources;
pub use scan::Scan;

#[cfg(test)]
mod tests;
