//! Workloads that show anomalies if there are any, with a checker for each: at every isolation level, under every policy, on
//! several threads.
//!
//! A million transactions; `LOCKSTONE_ISOLATION_TXNS=20000000 cargo test --test anomalies` runs so many.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts threads itself"
)]

mod machine;

#[path = "anomalies/history.rs"]
mod history;

#[path = "anomalies/graph.rs"]
mod graph;

#[path = "anomalies/checker.rs"]
mod checker;

#[path = "anomalies/planted.rs"]
mod planted;

#[path = "anomalies/work.rs"]
mod work;

#[path = "anomalies/registers.rs"]
mod registers;

#[path = "anomalies/lists.rs"]
mod lists;
