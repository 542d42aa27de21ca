//! Whom a look has met in the way of a request: each transaction once.
//!
//! Filled by `shard` and `ranges` for a range that looks, read by whoever decides.
//! 1. Who holds something, and waits for something else there, is met as one who holds.
//! 2. The last to go: if somebody waits before the request, it is granted only after the last of these is gone; so it is
//!    enough to come back then. Else everyone has to be gone.
//!
//! Crash: holds no state.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstone_base::LockMode;

use crate::owner::Owner;
use crate::slots::OwnerName;

/// Why a waiter waits for another transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) mode: LockMode,
    /// That one waits too, ahead.
    pub(crate) soft: bool,
}

/// Who stands in a waiter's way.
pub(crate) type InTheWay = (Arc<Owner>, Obstacle);

/// How another stands to one who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They have nothing to do with each other.
    Apart,
    /// It holds what is wanted.
    Holds,
    /// It waits, before the one who looks, with a ticket of this number.
    Ahead(u64),
    /// It waits, and came later.
    Behind,
    /// L2: it is the one who looks, or waits for that.
    Own,
}

/// Those who were met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    holders: Vec<(Arc<Owner>, LockMode)>,
    names: BTreeSet<OwnerName>,
    /// With the numbers of their tickets.
    waiters: Vec<(Arc<Owner>, LockMode, u64)>,
    /// Somebody waits there behind the one who looks.
    pub(crate) is_behind: bool,
    /// Another who looks there may meet somebody else: something of the one who looks was passed over, or an order was turned.
    pub(crate) is_partial: bool,
}

impl Met {
    pub(crate) fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    /// Those who were met as holders.
    pub(crate) fn holders(&self) -> &BTreeSet<OwnerName> {
        &self.names
    }

    /// Whether one who bears this name was met as a holder.
    pub(crate) fn has_holder(&self, name: OwnerName) -> bool {
        self.names.contains(&name)
    }

    pub(crate) fn add(&mut self, owner: &Arc<Owner>, mode: LockMode, standing: Standing) {
        match standing {
            Standing::Apart => {}
            Standing::Holds => {
                if self.names.insert(owner.name()) {
                    self.holders.push((Arc::clone(owner), mode));
                }
            }
            Standing::Ahead(number) => self.waiters.push((Arc::clone(owner), mode, number)),
            Standing::Behind => self.is_behind = true,
            Standing::Own => (self.is_behind, self.is_partial) = (true, true),
        }
    }

    pub(crate) fn owners(&self) -> impl Iterator<Item = &Arc<Owner>> {
        let waiters = self.waiters.iter().map(|(owner, ..)| owner);
        let holders = self.holders.iter().map(|(owner, _)| owner);
        holders.chain(waiters)
    }

    /// The last of those who wait, by their arrival; all, if nobody waits.
    pub(crate) fn last_to_go(&self) -> impl Iterator<Item = &Arc<Owner>> {
        let last = self.waiters.iter().max_by_key(|(.., number)| *number);
        let holders = self.holders.iter().map(|(owner, _)| owner);
        let all = holders.filter(move |_| last.is_none());
        all.chain(last.map(|(owner, ..)| owner))
    }

    /// For a list: all who hold, and of those who only wait the last to go.
    pub(crate) fn shorten(&mut self) {
        let names = &self.names;
        let waiters = self.waiters.drain(..);
        let waiters = waiters.filter(|(owner, ..)| !names.contains(&owner.name()));
        let last = waiters.max_by_key(|(.., number)| *number);
        self.waiters.extend(last);
    }

    /// Holders first.
    pub(crate) fn into_obstacles(self) -> Vec<InTheWay> {
        let Self { holders, names, .. } = self;
        let waiters = self.waiters.into_iter();
        let waiters = waiters.filter(|(owner, ..)| !names.contains(&owner.name()));
        let hard = |(owner, mode)| (owner, Obstacle { mode, soft: false });
        let soft = |(owner, mode, _)| (owner, Obstacle { mode, soft: true });
        let holders = holders.into_iter().map(hard);
        holders.chain(waiters.map(soft)).collect()
    }
}
