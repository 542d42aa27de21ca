//! `lockstone shell`: several sessions in one prompt, to see locks meet.
//!
//! Modules, lowest first: a file uses only what stands above it in this list.

mod words;
mod command;
mod answers;
mod session;
mod prompt;
mod listing;
mod dialog;

pub(crate) use dialog::{ShellArguments, shell};
