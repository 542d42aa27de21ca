//! K2, K3: what a request has to know of runs before the row latch decides: whoever holds the row by a run comes to hold it in the
//! table too.
//!
//! Called by `table`, `batch`'s requests, `ask` and `release`, without any latch held: runs may have to be read.
//! 1. K2: a look that began under one epoch, with all that it met brought in, and a row latch under the same epoch: then the table
//!    knows every holder of the row. So nothing is granted, queued, judged or refused beside a holder that it does not know.
//! 2. K3: an entry of a row that somebody waits for leaves the table only with its holder (V1), and a range that is undecided keeps
//!    those of its rows. So the table knows all holders as long as anybody waits, and who is handed the row need not look again.
//! 3. K6: of each owner whose spilled rows are in a range's way one row is brought in: that keeps the range waiting.
//! 4. `NoWait` brings in nothing but its own.
//!
//! Crash: memory only.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use lockstone_base::{LockMode, RowKey};
use smallvec::SmallVec;

use crate::decision::{Blocker, Refusal};
use crate::judge::blocker;
use crate::matrix::conflicts;
use crate::owner::Owner;
use crate::place::Place;
use crate::policy::Policy;
use crate::runs::{Epoch, Listed, Unreadable};
use crate::shards::Shards;
use crate::target::{RowRange, Target};
use crate::ticket::{Hold, Want};
use crate::wakes::Wakes;

/// What an owner holds of a row by runs: its records, some of them dead.
type Records = SmallVec<[Hold; 2]>;

/// Others who hold it so.
type Others = SmallVec<[(Arc<Owner>, Records); 2]>;

/// K2: brings in whoever else holds the row by runs; the epoch under which that is all. `NoWait`: refused, by one of them.
pub(crate) fn look(shards: &Shards, owner: &Arc<Owner>, want: &Want<'_>) -> Result<Epoch, Refusal> {
    let (epoch, list) = shards.runs().now();
    for (other, records) in others(&list, owner, want.row).map_err(Refusal::Unreadable)? {
        let by = match want.policy {
            Policy::NoWait => in_the_way(&other, records, want.mode),
            Policy::Wait | Policy::Wound => {
                bring_in(shards, &other, (want.hash, want.row), records);
                None
            }
        };
        if let Some(by) = by {
            return Err(Refusal::WouldBlock(by));
        }
    }
    Ok(epoch)
}

/// K2, L2: brings in what the owner itself holds of the row by runs.
pub(crate) fn look_for_own(
    shards: &Shards,
    owner: &Arc<Owner>,
    (hash, row): (u64, &RowKey),
) -> Result<(), Unreadable> {
    let (_, list) = shards.runs().now();
    let records = own_records(&list, owner, row)?;
    bring_in(shards, owner, (hash, row), records);
    Ok(())
}

/// What the owner holds of the row by runs.
pub(crate) fn held(
    shards: &Shards,
    owner: &Arc<Owner>,
    row: &RowKey,
) -> Result<Option<Hold>, Unreadable> {
    if !shards.runs().any() {
        return Ok(None);
    }
    held_by(&shards.runs().now().1, owner, row)
}

/// The same, by some runs.
pub(crate) fn held_by(
    list: &[Listed],
    owner: &Owner,
    row: &RowKey,
) -> Result<Option<Hold>, Unreadable> {
    let records = own_records(list, owner, row)?;
    Ok(owner.latch().spilled.union(records))
}

fn own_records(list: &[Listed], owner: &Owner, row: &RowKey) -> Result<Records, Unreadable> {
    let mut records = Records::new();
    for listed in list.iter().filter(|listed| listed.is_of(owner)) {
        listed.run.find(row, &mut |record| {
            if listed.owner(record.owner).is_some_and(|own| owner.is(own)) {
                records.push(record.hold());
            }
        })?;
    }
    Ok(records)
}

fn others(list: &[Listed], owner: &Owner, row: &RowKey) -> Result<Others, Unreadable> {
    let mut holders = Others::new();
    for listed in list.iter().filter(|listed| listed.concerns(owner)) {
        let read = listed.run.find(row, &mut |record| {
            let Some(other) = listed.owner(record.owner) else {
                return;
            };
            if owner.is(other) || !other.binds() {
                return;
            }
            let known = holders.iter_mut().find(|(known, _)| known.is(other));
            if let Some((_, records)) = known {
                records.push(record.hold());
            } else {
                let records = SmallVec::from_iter([record.hold()]);
                holders.push((Arc::clone(other), records));
            }
        });
        // A run of those who have ended says nothing, and its file may be gone.
        if read.is_err() && listed.concerns(owner) {
            read?;
        }
    }
    Ok(holders)
}

/// Whether those of the records that are not dead stand in the way.
fn in_the_way(other: &Arc<Owner>, records: Records, mode: LockMode) -> Option<Blocker> {
    let holdings = other.latch();
    let hold = holdings.spilled.union(records)?;
    drop(holdings);
    (other.binds() && conflicts(mode, hold.mode)).then(|| blocker(other, hold.mode))
}

/// Makes an owner a holder of the row in the table, for those of the records that are not dead; what they come to.
fn bring_in(
    shards: &Shards,
    owner: &Arc<Owner>,
    (hash, row): (u64, &RowKey),
    records: Records,
) -> Option<Hold> {
    if records.is_empty() {
        return None;
    }
    // Under the owner's latch: a rollback either has made them dead, or finds the row among those that it looks up again.
    let mut holdings = owner.latch();
    let hold = holdings.spilled.union(records)?;
    let met = shards.latch(hash).bring_in(owner, (hash, row), hold);
    holdings.spilled.met.extend(met);
    owner.binds().then_some(hold)
}

/// K6: of everyone else who holds rows of the range by runs in the range's way, one row is brought in. Those of whom nobody can say
/// whether they do, because a run cannot be read.
pub(crate) fn look_in_range(
    shards: &Shards,
    list: &[Listed],
    owner: &Owner,
    (range, mode): (&RowRange, LockMode),
) -> Vec<Arc<Owner>> {
    let mut unreadable = Vec::new();
    for listed in list {
        let others = listed.owners.iter();
        let others = others.filter(|(_, other)| !owner.is(other) && other.binds());
        let mut looked_for: BTreeSet<u32> = others.map(|(number, _)| *number).collect();
        if looked_for.is_empty() {
            continue;
        }
        let start = range.first_row();
        let read = listed.run.visit(start.as_ref(), &mut |row, record| {
            if !range.contains(row) {
                return ControlFlow::Break(());
            }
            let known = looked_for.get(&record.owner);
            let Some(other) = known.and_then(|number| listed.owner(*number)) else {
                return ControlFlow::Continue(());
            };
            if conflicts(mode, record.hold().beside_ranges()) {
                // With all that it holds of the row, by whatever run; some of it may be dead.
                let records = own_records(list, other, row);
                let hold = records.map(|records| {
                    let hash = shards.hash(row);
                    bring_in(shards, other, (hash, row), records)
                });
                let stops = |hold: Hold| conflicts(mode, hold.beside_ranges());
                if hold.is_err() {
                    unreadable.push(Arc::clone(other));
                }
                if hold.map_or(true, |hold| hold.is_some_and(stops)) {
                    looked_for.remove(&record.owner);
                }
            }
            if looked_for.is_empty() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if read.is_err() {
            let others = looked_for.iter().filter_map(|other| listed.owner(*other));
            unreadable.extend(others.cloned());
        }
    }
    unreadable.retain(|other| other.binds());
    unreadable
}

/// L9: looks the rows up again that others have met by runs of an owner that has rolled back; which these are.
pub(crate) fn look_again(
    shards: &Shards,
    owner: &Arc<Owner>,
    met: &[Place],
    wakes: &mut Wakes,
) -> Vec<Target> {
    let mut looked_at = Vec::new();
    for place in met {
        let row = shards.latch_number(place.shard()).row(*place).cloned();
        let Some(row) = row else { continue };
        let (_, list) = shards.runs().now();
        let records = own_records(&list, owner, &row);
        let mut holdings = owner.latch();
        let left = records.map(|records| holdings.spilled.union(records));
        // What cannot be read is held on to: it goes with the transaction.
        if !matches!(left, Ok(None)) {
            holdings.spilled.met.push(*place);
        }
        if let Ok(left) = left {
            let mut latch = shards.latch_number(place.shard());
            latch.look_again(*place, owner, left, wakes);
            looked_at.push(Target::Row(row));
        }
    }
    looked_at
}
