//! What a call does when a lock is not free: the user's policy, as the lock table and the one who waits need it.
//!
//! Called by `lock_request`.

use std::time::Duration;

use lockstone_locks::Policy;

use crate::options::OnConflict;

/// What a call does when it would have to wait, and for how long it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) policy: Policy,
    /// How long to wait; it is zero for a `NoWait` that speaks of a timeout when it is refused.
    pub(crate) timeout: Option<Duration>,
    /// Whether it judges then, and does not give up.
    pub(crate) then_wounds: bool,
}

impl Patience {
    /// As the user's policy says.
    pub(crate) fn of(policy: OnConflict) -> Self {
        let (policy, timeout, then_wounds) = match policy {
            OnConflict::NoWait | OnConflict::SkipLocked => (Policy::NoWait, None, false),
            OnConflict::Wait {
                timeout: Some(Duration::ZERO),
            } => (Policy::NoWait, Some(Duration::ZERO), false),
            OnConflict::Wait { timeout } => (Policy::Wait, timeout, false),
            OnConflict::Wound | OnConflict::WoundAfter(Duration::ZERO) => {
                (Policy::Wound, None, false)
            }
            OnConflict::WoundAfter(while_waiting) => (Policy::Wait, Some(while_waiting), true),
        };
        Self {
            policy,
            timeout,
            then_wounds,
        }
    }
}
