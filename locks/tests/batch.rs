//! Many rows in one call are decided as one by one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Batch, Decision, LockTable, Notify, Outcome, Owner, Place, Policy, Refusal,
    Request, Terms, Wakes,
};

struct Silent;

impl Notify for Silent {
    fn notify(&self) {}
}

fn rows() -> Vec<RowKey> {
    let row = |n: u16| RowKey::new(TableId(1), &n.to_be_bytes());
    (0..1000).map(row).collect()
}

fn begin(table: &LockTable, sequence: u64) -> Arc<Owner> {
    let owner = table.begin(TxnId::new(1, sequence), None, Arc::new(Silent));
    owner.settle(Priority::normal(1).settle(0, false));
    owner
}

fn batch(table: &LockTable, rows: &[RowKey]) -> Batch {
    table.batch(rows.iter().map(RowKey::as_bytes), |index| {
        rows[index].clone()
    })
}

fn share(table: &LockTable, owner: &Arc<Owner>, row: &RowKey) -> Place {
    let request = Request {
        row,
        mode: LockMode::Share,
        writes: false,
        sub: 0,
        policy: Policy::NoWait,
    };
    match table.request(owner, request, &mut Wakes::new()) {
        Decision::Granted(grant) => grant.place,
        other => panic!("{other:?}"),
    }
}

fn token(lsn: u64) -> FencingToken {
    FencingToken::new(Lsn::new(lsn))
}

#[test]
fn a_batch_stops_where_a_single_request_would_and_goes_on_behind() {
    let (table, rows, wakes) = (LockTable::new(7), rows(), &mut Wakes::new());
    let (holder, owner) = (begin(&table, 1), begin(&table, 2));
    share(&table, &holder, &rows[500]);
    let place = share(&table, &owner, &rows[3]);
    table.stamp(&owner, place, token(5));
    let mut batch = batch(&table, &rows);
    let terms = Terms::new(LockMode::Update, 1, Policy::Wait);
    let stopped = table.request_batch(&owner, &mut batch, terms, wakes);
    let Some(Decision::Queued(ticket)) = stopped else {
        panic!("{stopped:?}");
    };
    assert_eq!(
        (batch.current(), batch.grant(500)),
        (Some(&rows[500]), None)
    );
    assert!(holder.try_commit());
    holder.released();
    table.end(&holder, wakes);
    let Some(Outcome::Granted(grant)) = table.outcome(&owner, &ticket) else {
        panic!("its holder has ended");
    };
    batch.granted(grant);
    assert!(
        table
            .request_batch(&owner, &mut batch, terms, wakes)
            .is_none()
    );
    for (number, row) in rows.iter().enumerate() {
        let grant = batch.grant(number).unwrap();
        assert_eq!((grant.fresh, grant.mode), (number != 3, LockMode::Update));
        assert_eq!(table.holds(&owner, row), Some(LockMode::Update));
        assert_eq!(table.token(&owner, row), None);
    }
    table.stamp_batch(&owner, 1, token(9));
    assert_eq!(table.token(&owner, &rows[999]), Some(token(9)));
    // L9: what was held before is held again, with its token.
    table.rollback_to(&owner, 1, wakes);
    assert_eq!((table.held_by(&owner), table.live_locks()), (1, 1));
    assert_eq!(table.token(&owner, &rows[3]), Some(token(5)));
}

#[test]
fn a_refused_batch_holds_what_came_before_and_a_rollback_gives_it_back() {
    let (table, rows, wakes) = (LockTable::new(7), rows(), &mut Wakes::new());
    let (holder, owner) = (begin(&table, 1), begin(&table, 2));
    share(&table, &holder, &rows[500]);
    let mut batch = batch(&table, &rows);
    let terms = Terms::new(LockMode::NoKeyUpdate, 1, Policy::NoWait);
    let stopped = table.request_batch(&owner, &mut batch, terms, wakes);
    let Some(Decision::Refused(Refusal::WouldBlock(blocker))) = stopped else {
        panic!("{stopped:?}");
    };
    assert_eq!(blocker.txn, holder.id());
    let granted = (0..rows.len()).filter(|number| batch.grant(*number).is_some());
    assert_eq!(granted.count(), table.held_by(&owner));
    table.rollback_to(&owner, 1, wakes);
    assert_eq!((table.held_by(&owner), table.live_locks()), (0, 1));
}

/// K5: whoever was rolled back meanwhile takes nothing more; and what it left is swept by the next.
#[test]
fn a_batch_of_one_who_has_ended_is_refused_and_leftovers_are_swept() {
    let (table, rows, wakes) = (LockTable::new(7), rows(), &mut Wakes::new());
    let many: Vec<_> = (0..20_000_u32)
        .map(|n| RowKey::new(TableId(2), &n.to_be_bytes()))
        .collect();
    let owner = begin(&table, 1);
    let terms = Terms::new(LockMode::Update, 1, Policy::NoWait);
    let mut first = batch(&table, &many);
    assert!(
        table
            .request_batch(&owner, &mut first, terms, wakes)
            .is_none()
    );
    assert!(table.kill(&owner, AbortCause::Requested, wakes));
    let mut refused = batch(&table, &rows);
    let stopped = table.request_batch(&owner, &mut refused, terms, wakes);
    assert!(matches!(stopped, Some(Decision::Refused(Refusal::Ended))));
    let next = begin(&table, 2);
    let mut again = batch(&table, &many);
    assert!(
        table
            .request_batch(&next, &mut again, terms, wakes)
            .is_none()
    );
    assert_eq!(table.held_by(&next), many.len());
    assert_eq!(table.sweep(usize::MAX), 0, "each void entry was met");
}
