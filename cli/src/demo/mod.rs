//! `lockstone demo`: real work on real files, killed at a random moment, and the count of what was kept.
//!
//! One process works, another watches it: the child moves money between accounts and says after every
//! commit that it returned; this process kills it, opens the database, and compares. What it compares
//! with, the oracle, has never been inside the database.
//!
//! Modules, lowest first: a file uses only what stands above it in this list.

mod bank;
mod message;
mod two_sessions;
mod transfers;
mod child;
mod oracle;
mod verdict;
mod summary;
mod rounds;

pub(crate) use rounds::{DemoArguments, demo};
pub(crate) use transfers::{TransfersArguments, transfers};
