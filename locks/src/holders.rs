//! Who holds a row: by an entry in memory, by records in runs that somebody has met (K2), or by both.
//!
//! Owned by `row_lock`, under the row latch.
//! 1. L1: no two that bind hold conflicting modes; what one holds is the union of its records.
//! 2. L9: what is in memory is undone step by step; what is in runs stays, until it is looked up again.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode};
use smallvec::SmallVec;

use crate::matrix::conflicts;
use crate::owner::Owner;
use crate::ticket::{Before, Hold};

/// One who holds the row.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) owner: Arc<Owner>,
    /// L1: the union of the two that follow.
    pub(crate) hold: Hold,
    memory: Option<Hold>,
    spilled: Option<Hold>,
    /// The row is on the owner's contended stack.
    pub(crate) on_stack: bool,
}

impl Holder {
    fn new(owner: Arc<Owner>, hold: Hold) -> Self {
        Self {
            owner,
            hold,
            memory: Some(hold),
            spilled: None,
            on_stack: false,
        }
    }

    /// Whether anything is held still.
    fn set(&mut self, memory: Option<Hold>, spilled: Option<Hold>) -> bool {
        (self.memory, self.spilled) = (memory, spilled);
        let union = memory.into_iter().chain(spilled).reduce(Hold::join);
        self.hold = union.unwrap_or(self.hold);
        union.is_some()
    }

    /// Whether a node that knows but one holder's entry in memory could take its place.
    pub(crate) fn is_plain(&self) -> bool {
        self.spilled.is_none() && !self.on_stack
    }

    /// What it holds in memory.
    pub(crate) fn in_memory(&self) -> Option<Hold> {
        self.memory
    }
}

/// All who hold the row.
#[derive(Debug, Default)]
pub(crate) struct Holders(SmallVec<[Holder; 1]>);

impl Holders {
    pub(crate) fn alone((owner, hold): (Arc<Owner>, Hold)) -> Self {
        Self(SmallVec::from_iter([Holder::new(owner, hold)]))
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Holder> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Holder> {
        self.0.iter_mut()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The only one.
    pub(crate) fn only(&self) -> Option<&Holder> {
        self.0.first().filter(|_| self.0.len() == 1)
    }

    /// K5: those that have ended go.
    pub(crate) fn drop_void(&mut self) {
        self.0.retain(|holder| holder.owner.binds());
    }

    pub(crate) fn of(&self, owner: &Owner) -> Option<&Holder> {
        self.0.iter().find(|holder| owner.is(&holder.owner))
    }

    fn of_mut(&mut self, owner: &Owner) -> Option<&mut Holder> {
        self.0.iter_mut().find(|holder| owner.is(&holder.owner))
    }

    /// What `owner` holds before an acquisition.
    pub(crate) fn before(&self, owner: &Owner) -> Before {
        let own = self.of(owner);
        Before {
            held: own.map(|holder| holder.hold),
            memory: own.and_then(|holder| holder.memory),
        }
    }

    /// Makes `owner` a holder, or its hold stronger.
    pub(crate) fn add(&mut self, owner: &Arc<Owner>, hold: Hold) {
        self.assert_compatible(owner, hold.mode);
        match self.of_mut(owner) {
            Some(holder) => drop(holder.set(Some(hold), holder.spilled)),
            None => self.0.push(Holder::new(Arc::clone(owner), hold)),
        }
    }

    /// K2: `owner` holds the row by runs. Whether that was not known.
    pub(crate) fn bring_in(&mut self, owner: &Arc<Owner>, spilled: Hold) -> bool {
        self.assert_compatible(owner, spilled.mode);
        if let Some(holder) = self.of_mut(owner) {
            let is_new = holder.spilled.is_none();
            holder.set(holder.memory, Some(spilled));
            return is_new;
        }
        let mut holder = Holder::new(Arc::clone(owner), spilled);
        holder.set(None, Some(spilled));
        self.0.push(holder);
        true
    }

    fn assert_compatible(&self, owner: &Owner, mode: LockMode) {
        for holder in &self.0 {
            let fits = !conflicts(mode, holder.hold.mode)
                || owner.is(&holder.owner)
                || !holder.owner.binds();
            assert!(fits, "L1: {mode} is held beside {}", holder.hold.mode);
        }
    }

    /// The token of what `owner` holds in memory, from its record.
    pub(crate) fn stamp(&mut self, owner: &Owner, token: FencingToken) {
        if let Some(holder) = self.of_mut(owner) {
            let memory = holder.memory.map(|hold| Hold { token, ..hold });
            holder.set(memory, holder.spilled);
        }
    }

    /// L9: sets what `owner` holds in memory back to `before`. The holder, if it holds nothing any more.
    pub(crate) fn restore(&mut self, owner: &Owner, before: Option<Hold>) -> Option<Holder> {
        self.weaken(owner, |holder| {
            let falls = before.is_none_or(|before| before.mode <= holder.hold.mode);
            assert!(falls, "L9: a rollback never strengthens a lock");
            (before, holder.spilled)
        })
    }

    /// L9: what `owner` holds by runs after a rollback, if that was known. The holder, if it holds nothing any more.
    pub(crate) fn look_again(&mut self, owner: &Owner, spilled: Option<Hold>) -> Option<Holder> {
        self.weaken(owner, |holder| {
            (holder.memory, spilled.filter(|_| holder.spilled.is_some()))
        })
    }

    /// V1: `owner` holds the row by a run alone. The holder, if nobody has met that.
    pub(crate) fn drop_memory(&mut self, owner: &Owner) -> Option<Holder> {
        self.weaken(owner, |holder| (None, holder.spilled))
    }

    fn weaken(
        &mut self,
        owner: &Owner,
        left: impl FnOnce(&Holder) -> (Option<Hold>, Option<Hold>),
    ) -> Option<Holder> {
        let at = self.0.iter().position(|holder| owner.is(&holder.owner))?;
        let holder = self.0.get_mut(at)?;
        let (memory, spilled) = left(holder);
        (!holder.set(memory, spilled)).then(|| self.0.remove(at))
    }
}
