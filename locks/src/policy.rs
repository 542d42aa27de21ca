//! What a request does when it meets a conflict.
//!
//! Chosen by the caller, carried out by `shards`.
//! 1. How long to wait is the caller's: it cancels the ticket, or wounds from its place in the queue.
//!
//! Crash: holds no state.

/// What to do when a lock is not free. How long to wait is the caller's: it cancels the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Queue.
    Wait,
    /// Take it from whoever is in the way, if the requester's rank exceeds all of theirs; else refuse. One that is committing
    /// is waited for.
    Wound,
    /// Refuse whenever the call would queue.
    NoWait,
}
