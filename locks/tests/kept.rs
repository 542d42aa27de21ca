//! R2: what a transaction holds is told, and restored in another table, exactly: as a look at it, a rollback and everybody else find.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Decision, KeptRow, LockEntry, LockTable, Notify, Owner, OwnerState, Policy,
    RangeRequest, Request, RowRange, TableLock, TableMode, Wakes,
};
use proptest::prelude::*;

const TABLE: TableId = TableId(1);

struct Nobody;

impl Notify for Nobody {
    fn notify(&self) {}
}

fn begin(table: &LockTable, number: u64) -> Arc<Owner> {
    let owner = table.begin(TxnId::new(1, number), None, Arc::new(Nobody));
    owner.settle(Priority::normal(3).settle(0, false));
    owner
}

fn row(key: u8) -> RowKey {
    RowKey::new(TABLE, &[key])
}

fn range(from: u8, to: u8) -> Arc<RowRange> {
    let bounds = (Bound::Included(row(from)), Bound::Excluded(row(to)));
    Arc::new(RowRange::new(TABLE, bounds.0, bounds.1))
}

fn mode(number: u8) -> LockMode {
    LockMode::ALL[usize::from(number % 4)]
}

fn token(lsn: u64) -> FencingToken {
    FencingToken::new(Lsn::new(lsn))
}

fn listed(table: &LockTable) -> Vec<String> {
    let shown = |entry: LockEntry| format!("{} {} {:?}", entry.target, entry.mode, entry.token);
    let mut all: Vec<_> = table.list().into_iter().map(shown).collect();
    all.sort();
    all
}

/// All that is kept of the rows, as their digests see it.
fn rows_of(table: &LockTable, owner: &Owner) -> Vec<String> {
    let mut all = Vec::new();
    let count = table.kept_rows(owner, |row, mode, beside, token| {
        all.push(format!("{row:?} {mode} {beside} {token}"));
    });
    assert_eq!(count, all.len() as u64);
    all.sort();
    all
}

/// The acquisitions, as records in the log tell of them.
fn acquired(table: &LockTable, owner: &Owner) -> Vec<KeptRow> {
    let copied = table.copy_locks(owner, 0).locks.into_iter();
    let kept = copied.map(|copied| KeptRow {
        row: copied.row,
        mode: copied.lock.mode,
        writes: copied.lock.writes,
        sub: copied.lock.sub,
        token: copied.lock.token,
    });
    kept.collect()
}

/// The owner of another table, with all that is kept of this one.
fn restored(from: (&LockTable, &Owner), to: &LockTable, lock: &Arc<TableLock>) -> Arc<Owner> {
    let owner = begin(to, 7);
    let wide = from.0.kept_wide(from.1);
    for table in wide.shared {
        assert_eq!(table, lock.id());
        let exclusive = wide.exclusive.iter().find(|(id, _)| *id == table);
        let exclusive = exclusive.map(|(_, token)| *token);
        to.restore_table(&owner, lock, exclusive).unwrap();
    }
    for row in acquired(from.0, from.1) {
        to.restore_row(&owner, &row).unwrap();
    }
    for range in &wide.ranges {
        to.restore_range(&owner, range).unwrap();
    }
    owner
}

proptest! {
    #[test]
    fn what_is_kept_is_restored(
        steps in prop::collection::vec((0u8..12, 0u8..6, 0u8..6, any::<u8>()), 1..60),
        back in any::<u8>(),
    ) {
        let (table, lock) = (LockTable::new(1), Arc::new(TableLock::new(TABLE)));
        let owner = begin(&table, 7);
        let (mut sub, mut marks, mut lsn) = (0, Vec::new(), 100);
        let mut wakes = Wakes::new();
        for (step, key, other, draw) in steps {
            lsn += 1;
            match step {
                0 => { sub += 1; marks.push(sub); }
                1 if !marks.is_empty() => {
                    let at = usize::from(draw) % marks.len();
                    table.rollback_to(&owner, marks[at], &mut wakes);
                    marks.truncate(at + 1);
                    sub += 1;
                }
                2 | 3 => {
                    let range = range(key, key + 1 + other);
                    let request = RangeRequest { range: &range, mode: mode(draw), sub, policy: Policy::NoWait };
                    if let Decision::Granted(grant) = table.request_range(&owner, request, &mut wakes)
                        && grant.strengthened
                    {
                        table.stamp_range(&owner, token(lsn));
                    }
                }
                4 => {
                    prop_assert!(table.share(&owner, &lock));
                    if draw > 200 {
                        let exclusive = (&lock, TableMode::Exclusive);
                        let granted = table.request_table(&owner, exclusive, Policy::NoWait, &mut wakes);
                        if let Decision::Granted(grant) = granted && grant.strengthened {
                            table.stamp_table(&owner, TABLE, token(lsn));
                        }
                    }
                }
                _ => {
                    let (row, writes) = (row(key), draw > 127);
                    let mode = if writes { LockMode::NoKeyUpdate } else { mode(draw) };
                    let request = Request { row: &row, mode, writes, sub, policy: Policy::NoWait };
                    if let Decision::Granted(grant) = table.request(&owner, request, &mut wakes)
                        && grant.strengthened
                    {
                        table.stamp(&owner, grant.place, token(lsn));
                    }
                }
            }
        }
        let again = LockTable::new(2);
        let twin = restored((&table, &owner), &again, &lock_of(&lock));
        prop_assert_eq!(listed(&table), listed(&again));
        prop_assert_eq!(rows_of(&table, &owner), rows_of(&again, &twin));
        prop_assert_eq!(table.kept_wide(&owner), again.kept_wide(&twin));
        // Nobody else gets more of the one than of the other.
        for key in 0..12 {
            for mode in LockMode::ALL {
                let tried = [&table, &again].map(|table| {
                    let other = begin(table, 9);
                    let row = row(key);
                    let request = Request { row: &row, mode, writes: false, sub: 0, policy: Policy::NoWait };
                    let decision = table.request(&other, request, &mut Wakes::new());
                    let granted = matches!(decision, Decision::Granted(_));
                    table.kill(&other, AbortCause::Requested, &mut Wakes::new());
                    granted
                });
                prop_assert_eq!(tried[0], tried[1], "{} {}", key, mode);
            }
        }
        // L9: each step back is there.
        if !marks.is_empty() {
            let mark = marks[usize::from(back) % marks.len()];
            table.rollback_to(&owner, mark, &mut wakes);
            again.rollback_to(&twin, mark, &mut Wakes::new());
            prop_assert_eq!(listed(&table), listed(&again));
            prop_assert_eq!(rows_of(&table, &owner), rows_of(&again, &twin));
        }
    }
}

/// Another handle of the same table, as another open would make.
fn lock_of(lock: &TableLock) -> Arc<TableLock> {
    Arc::new(TableLock::new(lock.id()))
}

/// Two that say they hold what conflicts are not both believed.
#[test]
fn what_conflicts_is_not_restored() {
    let table = LockTable::new(1);
    let lock = Arc::new(TableLock::new(TABLE));
    let (one, other) = (begin(&table, 1), begin(&table, 2));
    let kept = |mode| KeptRow {
        row: row(1),
        mode,
        writes: false,
        sub: 0,
        token: token(9),
    };
    table.restore_row(&one, &kept(LockMode::Share)).unwrap();
    table.restore_row(&other, &kept(LockMode::Share)).unwrap();
    assert!(table.restore_row(&other, &kept(LockMode::Update)).is_err());
    table.restore_table(&one, &lock, None).unwrap();
    let exclusive = Some(token(9));
    assert!(table.restore_table(&other, &lock, exclusive).is_err());
}

/// The state diagram: from each state, what each call does.
#[test]
fn only_who_is_active_is_aborted_and_only_its_own_end_ends_who_is_prepared() {
    let table = LockTable::new(1);
    let owner = begin(&table, 1);
    assert!(owner.try_prepare() && !owner.try_prepare());
    assert!(!owner.try_commit() && !owner.try_abort(AbortCause::Requested));
    owner.prepared();
    assert_eq!(owner.state(), OwnerState::Prepared);
    assert!(!owner.try_commit() && !owner.try_abort(AbortCause::Closed));
    assert!(!owner.try_prepare() && !owner.is_active());
    owner.commit_prepared();
    owner.released();
    table.end(&owner, &mut Wakes::new());
    let owner = begin(&table, 2);
    assert!(owner.try_prepare());
    owner.prepared();
    owner.abort_prepared(AbortCause::Requested);
    table.end(&owner, &mut Wakes::new());
    assert_eq!(owner.cause(), Some(AbortCause::Requested));
}
