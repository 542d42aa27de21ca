//! A transaction that is run again keeps its age: the deadlock's victim is who began last, retries aside.

use std::sync::Arc;

use lockstone_base::{LockMode, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{Decision, LockTable, Notify, Owner, OwnerState, Policy, Request, Wakes};

struct Nobody;

impl Notify for Nobody {
    fn notify(&self) {}
}

fn begin(table: &LockTable, sequence: u64) -> Arc<Owner> {
    let owner = table.begin(TxnId::new(1, sequence), None, Arc::new(Nobody));
    owner.settle(Priority::auto().settle(7, false));
    owner
}

fn ask(table: &LockTable, owner: &Arc<Owner>, key: &[u8]) -> Decision {
    let row = RowKey::new(TableId(1), key);
    let request = Request {
        row: &row,
        mode: LockMode::Update,
        writes: false,
        sub: 0,
        policy: Policy::Wait,
    };
    table.request(owner, request, &mut Wakes::default())
}

/// Who dies when 1-5 and 1-9 (a retry of `first`) lock two rows in opposite order.
fn victim(first: Option<TxnId>) -> TxnId {
    let table = LockTable::new(1);
    let (elder, retry) = (begin(&table, 5), begin(&table, 9));
    if let Some(first) = first {
        retry.inherit_age(first);
    }
    assert!(matches!(ask(&table, &elder, b"a"), Decision::Granted(_)));
    assert!(matches!(ask(&table, &retry, b"b"), Decision::Granted(_)));
    assert!(matches!(ask(&table, &elder, b"b"), Decision::Queued(_)));
    let _ = ask(&table, &retry, b"a");
    match (elder.state(), retry.state()) {
        (OwnerState::Aborted, OwnerState::Active) => elder.id(),
        (OwnerState::Active, OwnerState::Aborted) => retry.id(),
        states => panic!("L4: one victim, not {states:?}"),
    }
}

#[test]
fn the_youngest_dies_unless_it_is_a_retry_of_an_older_one() {
    assert_eq!(victim(None), TxnId::new(1, 9));
    assert_eq!(victim(Some(TxnId::new(1, 2))), TxnId::new(1, 5));
}
