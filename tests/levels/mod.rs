//! Transactions by their level, what they write and see, and how they fail.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panicking"
)]

use lockstone::{Database, Error, Isolation, Outcome, Result, Table, Transaction, TxnOptions};

use crate::machine::fresh;

pub(crate) fn begin(db: &Database, level: Isolation) -> Transaction {
    db.begin_with(TxnOptions::new().isolation(level))
}

pub(crate) fn snapshot(db: &Database) -> Transaction {
    begin(db, Isolation::Snapshot)
}

pub(crate) fn serializable(db: &Database) -> Transaction {
    begin(db, Isolation::Serializable)
}

/// Commits one put in a transaction of its own.
pub(crate) fn put(db: &Database, t: &Table, key: &str, value: &str) {
    db.transact::<_, Error>(|txn| txn.put(t, key, value))
        .unwrap();
}

pub(crate) fn delete(db: &Database, t: &Table, key: &str) {
    db.transact::<_, Error>(|txn| txn.delete(t, key)).unwrap();
}

pub(crate) fn with_rows(rows: &[(&str, &str)]) -> (tempfile::TempDir, Database, Table) {
    let (dir, db) = fresh();
    let t = db.create_table("people").unwrap();
    for (key, value) in rows {
        put(&db, &t, key, value);
    }
    (dir, db, t)
}

pub(crate) fn text(value: Option<lockstone::Value>) -> Option<String> {
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

pub(crate) fn keys(txn: &Transaction, t: &Table) -> Vec<String> {
    let rows = txn.range(t, ..).unwrap();
    rows.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap())
        .collect()
}

#[track_caller]
pub(crate) fn assert_conflict<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::WriteConflict { .. }), "{error}");
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::RolledBack, true)
    );
}

#[track_caller]
pub(crate) fn assert_invalidated<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Transaction locks invalidated. Table: people, code: 2001"
    );
    assert!(matches!(&error, Error::LocksInvalidated { table } if *table == "people"));
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::RolledBack, true)
    );
}
