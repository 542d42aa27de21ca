//! How a range, a row that is asked for, and a range that looks stand to each other.
//!
//! Made and asked by `ranges`, under the latch of the wide locks; a look is read by `shard` and `row_lock` too.
//! 1. L3: between a range and a row, or two ranges, who came first goes first, unless a deadlock has turned that round (L4).
//! 2. L2: who waits for the one who looks is not before it.
//!
//! Crash: memory only.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstone_base::{LockMode, RowKey};

use crate::matrix::conflicts;
use crate::met::{Met, Standing};
use crate::owner::Owner;
use crate::target::RowRange;
use crate::ticket::Ticket;

/// A range that is held, waited for or asked for, as its ticket says.
#[derive(Debug, Clone)]
pub(crate) struct RangeView {
    pub(crate) owner: Arc<Owner>,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) range: Arc<RowRange>,
    /// Against whom it comes first, or does not, whatever their order of arrival: by number.
    pub(crate) turned: BTreeMap<u64, bool>,
}

impl RangeView {
    pub(crate) fn is_granted(&self) -> bool {
        self.ticket.is_granted() && self.owner.binds()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.ticket.is_waiting() && self.owner.is_active()
    }

    /// Whether it goes before one that has this number.
    pub(crate) fn goes_before(&self, number: u64, upgrade: bool) -> bool {
        let turned = self.turned.get(&number).copied();
        let first = self.ticket.is_upgrade() || self.ticket.number() < number;
        turned.unwrap_or(!upgrade && first)
    }

    /// Its number, if it waits.
    pub(crate) fn waits(&self) -> Option<u64> {
        (!self.ticket.is_granted()).then(|| self.ticket.number())
    }
}

/// A row that is asked for, as ranges see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowAsk<'a> {
    pub(crate) row: &'a RowKey,
    pub(crate) owner: &'a Owner,
    /// `Update`, if it is to be written.
    pub(crate) mode: LockMode,
    /// The largest number there is, if it has not queued.
    pub(crate) number: u64,
    /// It counts no waiters.
    pub(crate) upgrade: bool,
    /// L2: it goes past ranges that wait for its owner, as it would once the ring that they close is turned round.
    pub(crate) may_pass: bool,
}

impl<'a> RowAsk<'a> {
    pub(crate) fn queued(row: &'a RowKey, owner: &'a Owner, ticket: &Ticket) -> Self {
        Self {
            row,
            owner,
            mode: ticket.beside_ranges(),
            number: ticket.number(),
            upgrade: ticket.is_upgrade(),
            may_pass: false,
        }
    }
}

/// The ranges in the way of a row's waiter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangesMet {
    /// There are some.
    pub(crate) any: bool,
    /// One of them is held.
    pub(crate) held: bool,
    /// None of their owners has ended meanwhile.
    pub(crate) stand: bool,
}

impl RangesMet {
    pub(crate) const NONE: Self = Self {
        any: false,
        held: false,
        stand: true,
    };
}

/// What an undecided range looks for in the shards.
#[derive(Debug)]
pub(crate) struct RangeLook {
    pub(crate) view: RangeView,
    /// Those of the ranges that its owner holds already which meet it.
    pub(crate) own: Vec<(Arc<RowRange>, LockMode)>,
    pub(crate) changes: u64,
}

/// A look, and whom it has met so far.
#[derive(Debug)]
pub(crate) struct Looking {
    pub(crate) look: RangeLook,
    pub(crate) met: Met,
}

impl Looking {
    pub(crate) fn new(look: RangeLook) -> Self {
        let met = Met::default();
        Self { look, met }
    }
}

impl RangeLook {
    /// L1, L2, L3: how another range stands to it, which it overlaps; `waits_for_own` if that waits by a range that this one's
    /// owner holds.
    pub(crate) fn standing(
        &self,
        other: &RangeView,
        waits_for_own: impl FnOnce() -> bool,
    ) -> Standing {
        let RangeView { owner, ticket, .. } = &self.view;
        let mode = other.ticket.mode();
        if !conflicts(ticket.mode(), mode) {
            return Standing::Apart;
        }
        match (other.is_granted(), owner.is(&other.owner)) {
            (true, true) => Standing::Own,
            (true, false) => Standing::Holds,
            (false, false) if other.is_waiting() => {
                if waits_for_own() {
                    Standing::Own
                } else if other.goes_before(ticket.number(), ticket.is_upgrade()) {
                    Standing::Ahead(other.ticket.number())
                } else {
                    Standing::Behind
                }
            }
            (false, _) => Standing::Apart,
        }
    }

    /// L1, L2, L3: how the waiter of a row in it stands to it, of which its owner holds `own`.
    pub(crate) fn standing_of(
        &self,
        row: &RowKey,
        waiter: &Ticket,
        own: impl FnOnce() -> Option<LockMode>,
    ) -> Standing {
        let (ticket, mode) = (&self.view.ticket, waiter.beside_ranges());
        let has_row = |(range, held): &(Arc<RowRange>, LockMode)| {
            conflicts(mode, *held) && range.contains(row)
        };
        if self.own.iter().any(has_row) || own().is_some_and(|held| conflicts(waiter.mode(), held))
        {
            return Standing::Own;
        }
        let turned = self.view.turned.get(&waiter.number()).copied();
        let is_later = !waiter.is_upgrade() && ticket.number() < waiter.number();
        if ticket.is_upgrade() || turned.unwrap_or(is_later) {
            Standing::Behind
        } else {
            Standing::Ahead(waiter.number())
        }
    }

    /// Whether whoever the other meets was met by this one, which passed over nothing of its owner's.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let (own, others) = (&self.view.ticket, &other.view.ticket);
        let is_plain = |look: &Self| look.view.turned.is_empty() && !look.view.ticket.is_upgrade();
        is_plain(self)
            && is_plain(other)
            && others.number() <= own.number()
            && others.mode() <= own.mode()
            && other.view.range.is_within(&self.view.range)
    }
}
