//! The rows of a shard whose locks lie in runs, or are on the way there.
//!
//! Called by `lookup`, `listing` and `spill`, under the row latch.
//! 1. K2: one who holds a row by runs is brought in while it binds, and stays as long as it does.
//! 2. V1, K3: an entry leaves memory only where nobody waits for its row, by itself or by a range around it.
//!
//! Crash: memory only.

use std::sync::Arc;

use lockstone_base::RowKey;

use crate::nodes::Held;
use crate::owner::Owner;
use crate::place::Place;
use crate::row_lock::RowLock;
use crate::shard::Latch;
use crate::ticket::Hold;
use crate::wakes::Wakes;

impl Latch<'_> {
    /// K2: `owner` holds the row by runs. Where that is, if it was not known. It may have been wounded on the way here, and its locks
    /// given to others: under the latch it binds, or is nobody.
    pub(crate) fn bring_in(
        &mut self,
        owner: &Arc<Owner>,
        (hash, row): (u64, &RowKey),
        spilled: Hold,
    ) -> Option<Place> {
        if !owner.binds() {
            return None;
        }
        let free = || RowLock::new(row.clone(), hash, None);
        let (number, _) = self.node((hash, row), || Held::Contended(Box::new(free())));
        let is_new = self.contended(number).bring_in(owner, spilled);
        is_new.then(|| Place::new(self.number, number))
    }

    /// L9: what `owner` holds at `place` by runs, after a rollback.
    pub(crate) fn look_again(
        &mut self,
        place: Place,
        owner: &Owner,
        spilled: Option<Hold>,
        wakes: &mut Wakes,
    ) {
        self.change(place.node(), wakes, |lock| lock.look_again(owner, spilled));
    }

    /// Whether `owner` holds the row in memory.
    pub(crate) fn is_in_memory(&self, owner: &Owner, hash: u64, row: &RowKey) -> bool {
        let number = self.shard.number(hash, row);
        let held = number.and_then(|number| self.in_memory(Place::new(self.number, number), owner));
        held.is_some()
    }

    /// V1: the row at `place`, and what `owner` holds of it in memory.
    pub(crate) fn in_memory(&self, place: Place, owner: &Owner) -> Option<(RowKey, Hold)> {
        let node = self.shard.nodes.get(place.node())?;
        let hold = match &node.held {
            Held::Alone(alone) => (alone.owner == owner.name()).then(|| alone.hold()),
            Held::Contended(lock) => lock.in_memory(owner),
        };
        Some((node.row.clone(), hold?))
    }

    /// V1: what `owner` holds at `place` is in a run, and leaves memory, unless somebody waits for it. Whether it has.
    pub(crate) fn drop_memory(&mut self, place: Place, owner: &Owner) -> bool {
        let Some(node) = self.shard.nodes.get_mut(place.node()) else {
            return true;
        };
        let books = self.wide.latch_if_ranges(node.row.table());
        if books.is_some_and(|books| books.ranges.is_awaited_at(&node.row)) {
            return false;
        }
        match &mut node.held {
            Held::Alone(alone) => {
                if alone.owner == owner.name() {
                    self.shard.remove(place.node());
                }
                true
            }
            Held::Contended(lock) => {
                let dropped = lock.drop_memory(owner);
                self.tidy(place.node());
                dropped
            }
        }
    }
}
