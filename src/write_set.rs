//! What a transaction has written and not yet committed: private to it, ordered, so that its own reads
//! and scans see it. Called by the transaction and its cursors.
//!
//! 1. Per row, the newest effect of each sub-transaction that can still be rolled back to, oldest first.
//! 2. A rollback forgets what the dead sub-transactions wrote, in time proportional to that.
//! 3. What one call wrote that writes many rows stays together, sorted, as it was packed: at commit it becomes
//!    a chunk of the memtable without a copy. Its sub-transaction wrote nothing else, so numbers tell which of
//!    two effects on a row is the newer one.
//!
//! Crash: memory only; the log has it all.

use std::ops::Bound;

use lockstone_base::RowKey;
use lockstone_storage::{PackedRows, RowPacker, WriteBatch};
use smallvec::SmallVec;

use crate::own_rows::{ManyWritten, OwnRows};
use crate::single_writes::{Effect, Effects, SingleWrites};

/// What a sub-transaction did to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnWrite {
    pub(crate) row: RowKey,
    pub(crate) sub: u32,
    pub(crate) effect: Effect,
}

/// The uncommitted writes of one transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct WriteSet {
    rows: SingleWrites,
    /// Which sub-transaction put an effect on which row, in order.
    undo: SmallVec<[(u32, RowKey); 1]>,
    /// The sub-transactions ascend.
    many: Vec<ManyWritten>,
    /// How many rows these have.
    many_rows: usize,
}

impl WriteSet {
    /// Remembers what sub-transaction `sub` did to `row`.
    pub(crate) fn stage(&mut self, row: RowKey, sub: u32, effect: Effect) {
        let Some(effects) = self.rows.get_mut(row.as_bytes()) else {
            self.undo.push((sub, row.clone()));
            let effects = Effects {
                newest: (sub, effect),
                older: Vec::new(),
            };
            self.rows.insert(row, effects);
            return;
        };
        assert!(effects.newest.0 <= sub, "sub-transaction numbers only grow");
        if effects.newest.0 == sub {
            effects.newest.1 = effect;
        } else {
            self.undo.push((sub, row));
            let older = std::mem::replace(&mut effects.newest, (sub, effect));
            effects.older.push(older);
        }
    }

    /// Remembers the rows that sub-transaction `sub` wrote, and nothing else.
    pub(crate) fn stage_many(&mut self, sub: u32, rows: PackedRows) {
        let newest = self.undo.last().map(|(sub, _)| *sub);
        let newest = newest.max(self.many.last().map(|many| many.sub));
        assert!(
            newest < Some(sub),
            "a call that writes many rows has a sub-transaction of its own"
        );
        self.many_rows += rows.len();
        self.many.push(ManyWritten { sub, rows });
    }

    /// What the transaction has done to `row`, if anything.
    pub(crate) fn get(&self, row: &[u8]) -> Option<Effect> {
        let single = self.rows.get(row).map(|effects| &effects.newest);
        // What is older than the single effect counts no more.
        let newer = |many: &&ManyWritten| single.is_none_or(|(sub, _)| many.sub > *sub);
        let mut many = self.many.iter().rev().take_while(newer);
        many.find_map(|many| many.rows.effect(many.rows.find(row).ok()?))
            .or_else(|| single.map(|(_, effect)| effect.clone()))
    }

    /// The rows it has written within `bounds`, in order.
    pub(crate) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> OwnRows<'_> {
        let within = |many: &ManyWritten| {
            let place = |row, behind| match many.rows.find(row) {
                Ok(at) => at + usize::from(behind),
                Err(at) => at,
            };
            let start = match bounds.0 {
                Bound::Included(row) => place(row, false),
                Bound::Excluded(row) => place(row, true),
                Bound::Unbounded => 0,
            };
            let end = match bounds.1 {
                Bound::Included(row) => place(row, true),
                Bound::Excluded(row) => place(row, false),
                Bound::Unbounded => many.rows.len(),
            };
            start..end
        };
        OwnRows {
            singles: self.rows.range(bounds),
            many: self.many.iter().map(|many| (many, within(many))).collect(),
        }
    }

    /// Forgets what sub-transaction `from` and all later ones wrote.
    pub(crate) fn rollback_to(&mut self, from: u32) {
        while let Some(many) = self.many.pop_if(|many| many.sub >= from) {
            self.many_rows -= many.rows.len();
        }
        while self.undo.last().is_some_and(|(sub, _)| *sub >= from) {
            let Some((sub, row)) = self.undo.pop() else {
                break;
            };
            let effects = self.rows.get_mut(row.as_bytes());
            let effects = effects.expect("every undo entry stands for an effect");
            assert_eq!(
                effects.newest.0, sub,
                "effects and undo entries run in step"
            );
            match effects.older.pop() {
                Some(older) => effects.newest = older,
                None => self.rows.remove(row.as_bytes()),
            }
        }
    }

    /// How many effects on rows stand, those included that a rollback would bring back.
    pub(crate) fn effects(&self) -> u64 {
        (self.undo.len() + self.many_rows) as u64
    }

    /// Whether it has written none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.many.is_empty()
    }

    /// Everything, for a spill: by row, and of a row the newest first.
    pub(crate) fn drain(&mut self) -> Vec<OwnWrite> {
        let Self {
            rows,
            many,
            many_rows,
            ..
        } = std::mem::take(self);
        let mut writes = Vec::with_capacity(rows.len() + many_rows);
        rows.drain(|(row, effects)| {
            let older = effects.older.into_iter().rev();
            let all = std::iter::once(effects.newest).chain(older);
            writes.extend(all.map(|(sub, effect)| OwnWrite {
                row: row.clone(),
                sub,
                effect,
            }));
        });
        if many.is_empty() {
            return writes;
        }
        for ManyWritten { sub, rows } in many {
            let numbers = 0..rows.len();
            let written = numbers.filter_map(|index| {
                Some(OwnWrite {
                    row: rows.row_key(index)?,
                    sub,
                    effect: rows.effect(index)?,
                })
            });
            writes.extend(written);
        }
        writes.sort_by(|a, b| a.row.cmp(&b.row).then(b.sub.cmp(&a.sub)));
        writes
    }

    /// What commits: the newest effect of each row, in order.
    pub(crate) fn into_batch(mut self) -> WriteBatch {
        if self.rows.is_empty()
            && self.many.len() == 1
            && let Some(only) = self.many.pop()
        {
            return WriteBatch::packed(only.rows);
        }
        if self.many.is_empty() {
            let newest = |(row, effects): (RowKey, Effects)| (row, effects.newest.1);
            return match self.rows {
                SingleWrites::Few(rows) => WriteBatch::from_sorted(rows.into_iter().map(newest)),
                SingleWrites::Many(rows) => WriteBatch::from_sorted(rows.into_iter().map(newest)),
            };
        }
        let mut packer = RowPacker::default();
        let mut subs = Vec::with_capacity(self.rows.len());
        self.rows.drain(|(row, effects)| {
            subs.push(effects.newest.0);
            packer.add(&row, effects.newest.1);
        });
        let mut all = packer.finish();
        for many in self.many {
            subs.resize(subs.len() + many.rows.len(), many.sub);
            all.absorb(many.rows);
        }
        all.sort(|index| subs.get(index).copied().unwrap_or_default().into());
        WriteBatch::packed(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Bound;

    use bytes::Bytes;
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

    fn packed(keys: impl IntoIterator<Item = u8>, byte: u8) -> PackedRows {
        let mut packer = RowPacker::default();
        for key in keys {
            packer.add(&row(key), value(byte));
        }
        packer.finish()
    }

    #[test]
    fn a_rollback_brings_back_what_was_written_before() {
        let mut writes = WriteSet::default();
        writes.stage(row(1), 0, value(1));
        writes.stage(row(1), 2, None);
        writes.stage(row(1), 2, value(9));
        writes.stage(row(2), 3, value(2));
        writes.rollback_to(2);
        assert_eq!(writes.get(row(1).as_bytes()), Some(value(1)));
        assert_eq!(writes.get(row(2).as_bytes()), None);
        assert_eq!((writes.rows.len(), writes.undo.len()), (1, 1));
    }

    #[test]
    fn rows_that_one_call_wrote_are_handed_over_as_they_are() {
        let rows = packed(0..=200, 1);
        let first = rows.row(0).unwrap().as_ptr();
        let mut writes = WriteSet::default();
        writes.stage_many(1, rows);
        assert!(!writes.is_empty());
        let staged = writes.many[0].rows.row(0).unwrap().as_ptr();
        assert_eq!((first, writes.into_batch().rows()), (staged, 201));
    }

    #[test]
    #[should_panic(expected = "sub-transaction of its own")]
    fn two_calls_in_one_sub_transaction_are_refused() {
        let mut writes = WriteSet::default();
        writes.stage(row(1), 1, value(1));
        writes.stage_many(1, packed([1], 1));
    }

    proptest! {
        /// Against copies of a plain map, one kept at each savepoint.
        #[test]
        fn it_agrees_with_copies_of_a_map(
            steps in prop::collection::vec((0u8..8, 0u8..24, any::<u8>()), 1..90),
            turns in prop::collection::vec(any::<bool>(), 12),
        ) {
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
                    2 => {
                        let keys: BTreeSet<u8> = (0..24).filter(|key| byte >> (key % 8) & 1 == 1).collect();
                        sub += 1;
                        writes.stage_many(sub, packed(keys.clone(), byte));
                        model.extend(keys.into_iter().map(|key| (key, value(byte))));
                        sub += 1;
                    }
                    _ => {
                        let effect = if step == 3 { None } else { value(byte) };
                        writes.stage(row(key), sub, effect.clone());
                        model.insert(key, effect);
                    }
                }
                let found: Vec<_> = (0..24).filter_map(|key| Some((key, writes.get(row(key).as_bytes())?))).collect();
                prop_assert_eq!(&found, &model.clone().into_iter().collect::<Vec<_>>());
                let bounds = (Bound::Included(row(key / 2).to_bytes()), Bound::Excluded(row(key).to_bytes()));
                let mut rows = writes.range((bounds.0.as_ref().map(|row| &**row), bounds.1.as_ref().map(|row| &**row)));
                let mut expected: std::collections::VecDeque<_> =
                    model.range(key / 2..key).map(|(key, effect)| (row(*key), effect.clone())).collect();
                for turn in &turns {
                    let (found, want) = if *turn {
                        (rows.next(), expected.pop_front())
                    } else {
                        (rows.next_back(), expected.pop_back())
                    };
                    if let Some(found) = found {
                        prop_assert_eq!(found.is_deleted(), found.effect().is_none());
                    }
                    prop_assert_eq!(found.map(|found| (found.row(), found.effect())), want);
                }
            }
            let want = WriteBatch::from_sorted(model.iter().map(|(key, effect)| (row(*key), effect.clone())));
            prop_assert_eq!(format!("{:?}", writes.into_batch()), format!("{want:?}"));
        }
    }
}
