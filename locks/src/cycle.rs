//! A deadlock as its victim sees it: who waited for whom, for what, in which mode.
//!
//! Built by `deadlock`, carried by [`AbortCause`](crate::AbortCause) and by a refusal.
//! 1. Edge i waits for the transaction of edge i + 1, the last one for that of the first.
//! 2. Every edge was true at one moment, under the latches of all that is waited for.
//!
//! Crash: memory only.

use std::fmt;
use std::sync::Arc;

use lockstone_base::{LockMode, TxnId};

use crate::target::Target;

/// A closed chain of waits, and the transaction that was aborted to break it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// The waits, in order; the one whose request closed the cycle is first.
    pub edges: Vec<CycleEdge>,
    /// The lowest priority among them, then the youngest.
    pub victim: TxnId,
}

/// One wait of a [`Cycle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CycleEdge {
    /// Who waits.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// What it waits for.
    pub target: Target,
    /// The mode that it asks for.
    pub requested: LockMode,
    /// The mode that stands in its way: held, or asked for by one who is ahead.
    pub blocked_by: LockMode,
    /// Whether it waits behind one who is queued ahead, and not for a holder.
    pub soft: bool,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for edge in &self.edges {
            write!(f, "{}", edge.txn)?;
            if let Some(label) = &edge.label {
                write!(f, " ({label})")?;
            }
            write!(f, " waits for {} of {}, ", edge.requested, edge.target)?;
            let verb = if edge.soft { "asked for" } else { "held" };
            write!(f, "{verb} in {} by ", edge.blocked_by)?;
        }
        if let Some(first) = self.edges.first() {
            write!(f, "{}", first.txn)?;
        }
        write!(f, "; victim {}", self.victim)
    }
}
