//! The rows of a shard as others look at them: who holds and awaits each, and who of them is in the way of a range.
//!
//! Called by `shards`, under the shard's latch; nothing is changed.
//! 1. K5: what is void is not shown, and is in nobody's way.
//! 2. K6: a range meets whoever holds conflicting rows in it, or waits for such before it.
//!
//! Crash: memory only.

use std::ops::Range;
use std::sync::Arc;

use lockstone_base::RowKey;
use smallvec::SmallVec;

use crate::matrix::conflicts;
use crate::met::{Met, Standing};
use crate::nodes::{Alone, Held, Node};
use crate::owner::Owner;
use crate::range_look::{Looking, RangeLook};
use crate::row_lock::RowLock;
use crate::shard::Latch;
use crate::ticket::Hold;
use crate::wait_queue::Waiter;

/// One who holds a row.
pub(crate) type Shown = (Arc<Owner>, Hold, Option<Hold>);

/// Who holds a row and who waits for it.
#[derive(Debug)]
pub(crate) struct RowView<'a> {
    pub(crate) row: &'a RowKey,
    /// With what they hold, and how much of it in memory.
    pub(crate) holders: SmallVec<[Shown; 1]>,
    pub(crate) waiters: Vec<Waiter>,
}

impl Latch<'_> {
    /// All rows that are held or waited for.
    pub(crate) fn views(&self) -> impl Iterator<Item = RowView<'_>> {
        let nodes = self.shard.nodes.iter();
        nodes.filter_map(|node| self.view(node))
    }

    /// Those of them that have these numbers.
    pub(crate) fn views_of(&self, numbers: Range<u32>) -> impl Iterator<Item = RowView<'_>> {
        let nodes = numbers.filter_map(|number| self.shard.nodes.get(number));
        nodes.filter_map(|node| self.view(node))
    }

    /// K6: who is in the way of some ranges here: who holds conflicting rows in them, or waits for such before them. None looks
    /// at a void row.
    pub(crate) fn in_the_way_of(&self, ranges: &mut [Looking]) {
        for node in self.shard.nodes.iter() {
            match &node.held {
                Held::Alone(alone) if !self.slots.binds(alone.owner) => {}
                Held::Alone(alone) => {
                    let beside = alone.hold().beside_ranges();
                    for Looking { look, met } in ranges.iter_mut() {
                        if conflicts(look.view.ticket.mode(), beside)
                            && look.view.range.contains(&node.row)
                        {
                            self.meet_alone(alone, look, met);
                        }
                    }
                }
                Held::Contended(lock) => {
                    for Looking { look, met } in ranges.iter_mut() {
                        if look.view.range.contains(&node.row) {
                            lock.in_the_way_of(look, met);
                        }
                    }
                }
            }
        }
    }

    fn meet_alone(&self, alone: &Alone, look: &RangeLook, met: &mut Met) {
        if alone.owner == look.view.owner.name() {
            met.is_partial = true;
        } else if !met.has_holder(alone.owner) {
            let owner = self.slots.owner(alone.owner);
            let _ = owner.inspect(|owner| met.add(owner, alone.mode, Standing::Holds));
        }
    }

    fn view<'a>(&'a self, node: &'a Node) -> Option<RowView<'a>> {
        let (holders, lock) = match &node.held {
            Held::Alone(alone) => {
                let owner = self.slots.owner(alone.owner)?;
                let hold = alone.hold();
                (SmallVec::from_buf([(owner, hold, Some(hold))]), None)
            }
            Held::Contended(lock) => {
                let holders = lock.holders().iter();
                let holders = holders.filter(|holder| holder.owner.binds());
                let holders = holders.map(|holder| {
                    let owner = Arc::clone(&holder.owner);
                    (owner, holder.hold, holder.in_memory())
                });
                (holders.collect(), Some(&**lock))
            }
        };
        let waiters = lock.into_iter().flat_map(RowLock::waiters);
        let waiters = waiters.filter(|waiter| waiter.is_live());
        Some(RowView {
            row: &node.row,
            holders,
            waiters: waiters.cloned().collect(),
        })
    }
}
