//! What a transaction has written and not yet committed: private to it, ordered, so that its own reads
//! and scans see it. Called by the transaction and its cursors.
//!
//! 1. Per row, the newest effect of each sub-transaction that can still be rolled back to, oldest first.
//! 2. A rollback forgets what the dead sub-transactions wrote, in time proportional to that.
//!
//! Crash: memory only; the log has it all.

use std::collections::BTreeMap;
use std::collections::btree_map;

use bytes::Bytes;
use lockstone_base::RowKey;
use lockstone_storage::WriteBatch;

use crate::key_range::RowBounds;

/// What a write leaves in its row: a value, or nothing.
pub(crate) type Effect = Option<Bytes>;

/// The uncommitted writes of one transaction.
#[derive(Debug, Default)]
pub(crate) struct WriteSet {
    rows: BTreeMap<RowKey, Effects>,
    /// Which sub-transaction put an effect on which row, in order.
    undo: Vec<(u32, RowKey)>,
    value_bytes: usize,
}

/// The effects on one row: the newest, and those that a rollback would bring back.
#[derive(Debug)]
pub(crate) struct Effects {
    newest: (u32, Effect),
    older: Vec<(u32, Effect)>,
}

impl Effects {
    /// What the transaction sees in the row.
    pub(crate) fn newest(&self) -> &Effect {
        &self.newest.1
    }
}

impl WriteSet {
    /// Remembers what sub-transaction `sub` did to `row`.
    pub(crate) fn stage(&mut self, row: RowKey, sub: u32, effect: Effect) {
        let bytes = |effect: &Effect| effect.as_ref().map_or(0, Bytes::len);
        self.value_bytes += bytes(&effect);
        match self.rows.entry(row) {
            btree_map::Entry::Vacant(entry) => {
                self.undo.push((sub, entry.key().clone()));
                entry.insert(Effects {
                    newest: (sub, effect),
                    older: Vec::new(),
                });
            }
            btree_map::Entry::Occupied(mut entry) => {
                assert!(
                    entry.get().newest.0 <= sub,
                    "sub-transaction numbers only grow"
                );
                if entry.get().newest.0 == sub {
                    self.value_bytes -= bytes(&entry.get().newest.1);
                    entry.get_mut().newest.1 = effect;
                } else {
                    self.undo.push((sub, entry.key().clone()));
                    let effects = entry.get_mut();
                    effects
                        .older
                        .push(std::mem::replace(&mut effects.newest, (sub, effect)));
                }
            }
        }
    }

    /// What the transaction has done to `row`, if anything.
    pub(crate) fn get(&self, row: &[u8]) -> Option<&Effect> {
        self.rows.get(row).map(Effects::newest)
    }

    /// The rows it has written within `bounds`, in order.
    pub(crate) fn range(&self, bounds: RowBounds) -> btree_map::Range<'_, RowKey, Effects> {
        self.rows.range::<[u8], _>((
            bounds.0.as_ref().map(|b| &**b),
            bounds.1.as_ref().map(|b| &**b),
        ))
    }

    /// Forgets what sub-transaction `from` and all later ones wrote.
    pub(crate) fn rollback_to(&mut self, from: u32) {
        while let Some((sub, row)) = self.undo.pop_if(|(sub, _)| *sub >= from) {
            let btree_map::Entry::Occupied(mut entry) = self.rows.entry(row) else {
                unreachable!("every undo entry stands for an effect");
            };
            assert_eq!(
                entry.get().newest.0,
                sub,
                "effects and undo entries run in step"
            );
            let dead = match entry.get_mut().older.pop() {
                Some(older) => std::mem::replace(&mut entry.get_mut().newest, older).1,
                None => entry.remove().newest.1,
            };
            self.value_bytes -= dead.map_or(0, |value| value.len());
        }
    }

    /// How many rows it has written.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has written none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What commits: the newest effect of each row, in order.
    pub(crate) fn into_batch(self) -> WriteBatch {
        WriteBatch::from_sorted(
            self.rows
                .into_iter()
                .map(|(row, effects)| (row, effects.newest.1))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use lockstone_base::TableId;
    use proptest::prelude::*;

    use super::*;

    fn row(key: u8) -> RowKey {
        RowKey::new(TableId(1), &[key])
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "an effect is what the tests compare"
    )]
    fn value(byte: u8) -> Effect {
        Some(Bytes::from(vec![byte]))
    }

    #[test]
    fn a_rollback_brings_back_what_was_written_before() {
        let mut writes = WriteSet::default();
        writes.stage(row(1), 0, value(1));
        writes.stage(row(1), 2, None);
        writes.stage(row(1), 2, value(9));
        writes.stage(row(2), 3, value(2));
        writes.rollback_to(2);
        assert_eq!(writes.get(row(1).as_bytes()), Some(&value(1)));
        assert_eq!(writes.get(row(2).as_bytes()), None);
        assert_eq!((writes.len(), writes.value_bytes), (1, 1));
    }

    proptest! {
        /// Against copies of a plain map, one kept at each savepoint.
        #[test]
        fn it_agrees_with_copies_of_a_map(steps in prop::collection::vec((0u8..4, 0u8..5, any::<u8>()), 1..60)) {
            let (mut writes, mut sub) = (WriteSet::default(), 0);
            let mut model: BTreeMap<u8, Effect> = BTreeMap::new();
            let mut saved: Vec<(u32, BTreeMap<u8, Effect>)> = Vec::new();
            for (step, key, byte) in steps {
                match step {
                    0 => {
                        sub += 1;
                        saved.push((sub, model.clone()));
                    }
                    1 if !saved.is_empty() => {
                        let keep = usize::from(byte) % saved.len() + 1;
                        saved.truncate(keep);
                        let (from, state) = saved.last().expect("one is kept").clone();
                        writes.rollback_to(from);
                        model = state;
                        sub += 1;
                    }
                    _ => {
                        let effect = if step == 2 { None } else { value(byte) };
                        writes.stage(row(key), sub, effect.clone());
                        model.insert(key, effect);
                    }
                }
                let all = (Bound::Unbounded, Bound::Unbounded);
                let found: Vec<_> = writes.range(all).map(|(row, e)| (row.key()[0], e.newest().clone())).collect();
                prop_assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
                let bytes: usize = writes.rows.values().map(|e| {
                    e.older.iter().chain([&e.newest]).map(|(_, v)| v.as_ref().map_or(0, Bytes::len)).sum::<usize>()
                }).sum();
                prop_assert_eq!(writes.value_bytes, bytes);
            }
        }
    }
}
