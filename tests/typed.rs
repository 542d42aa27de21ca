//! Typed tables through the facade: every call, in order of the types, and rows that are something else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod machine;

use std::ops::Bound;

use lockstone::{Error, LockMode, Outcome, TypedTable};
use machine::fresh;

#[test]
fn every_call_speaks_the_types() {
    let (_dir, db) = fresh();
    let t: TypedTable<i32, String> = db.typed_table("t").unwrap();
    let mut txn = db.begin();
    for key in [5, -7, 0, i32::MIN, i32::MAX] {
        t.put(&mut txn, &key, &key.to_string()).unwrap();
    }
    assert!(!t.insert_new(&mut txn, &5, "again").unwrap());
    assert!(t.insert_new(&mut txn, &6, "six").unwrap());
    assert!(t.delete(&mut txn, &6).unwrap());
    assert_eq!(t.get(&txn, &6).unwrap(), None);
    assert!(t.lock(&mut txn, &8, LockMode::Update).unwrap().get() > 0);
    let five = t.get_for(&mut txn, &5, LockMode::Update).unwrap();
    assert_eq!(five.as_deref(), Some("5"));
    txn.commit().unwrap();

    let now = db.snapshot();
    let keys = |range: (Bound<i32>, Bound<i32>)| -> Vec<i32> {
        t.range(&now, range)
            .unwrap()
            .map(|row| row.unwrap().0)
            .collect()
    };
    let all = [i32::MIN, -7, 0, 5, i32::MAX];
    assert_eq!(keys((Bound::Unbounded, Bound::Unbounded)), all);
    assert_eq!(keys((Bound::Included(-7), Bound::Excluded(5))), [-7, 0]);
    assert_eq!(keys((Bound::Excluded(-7), Bound::Included(5))), [0, 5]);
    assert!(keys((Bound::Included(5), Bound::Included(-7))).is_empty());
    assert_eq!(t.range(&now, -7..).unwrap().count(), 4);
    let mut ends = t.range(&now, ..).unwrap();
    assert_eq!(
        ends.next_back().unwrap().unwrap(),
        (i32::MAX, i32::MAX.to_string())
    );
    assert_eq!(ends.next().unwrap().unwrap().0, i32::MIN);
    assert_eq!(
        ends.rev().map(|row| row.unwrap().0).collect::<Vec<_>>(),
        [5, 0, -7]
    );
    let found = t.multi_get(&now, &[0, 1, 5]).unwrap();
    assert_eq!(found, [Some("0".to_owned()), None, Some("5".to_owned())]);

    let mut txn = db.begin();
    let mut cursor = t.range_for(&mut txn, ..=0, LockMode::Update).unwrap();
    while let Some(row) = cursor.next_back() {
        match row.unwrap().0 {
            0 => cursor.put("zero").unwrap(),
            _ => cursor.delete().unwrap(),
        }
    }
    drop(cursor);
    let left: Vec<_> = t.range(&txn, ..).unwrap().map(Result::unwrap).collect();
    assert_eq!(left[0], (0, "zero".to_owned()));
    assert_eq!(left.len(), 3);
    assert_eq!((t.name(), t.clone().table().name()), ("t", "t"));
}

#[test]
fn many_typed_rows_are_put_in_one_call() {
    let (_dir, db) = fresh();
    let t = db.typed_table::<(i32, String), u64>("t").unwrap();
    let mut txn = db.begin();
    let rows = (0..100).map(|n: i32| ((50 - n, n.to_string()), u64::from(n.unsigned_abs())));
    t.put_many(&mut txn, rows).unwrap();
    // By reference as well; the last value counts.
    let (key, twice) = ((7, "x".to_owned()), [1, 2]);
    t.put_many(&mut txn, twice.iter().map(|value| (&key, value)))
        .unwrap();
    assert_eq!(t.get(&txn, &key).unwrap(), Some(2));
    txn.commit().unwrap();
    let now = db.snapshot();
    let rows: Vec<_> = t.range(&now, ..).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 101);
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
    let mut others = rows.iter().filter(|row| row.0 != key);
    assert!(others.all(|((at, n), value)| *n == value.to_string() && 50 - at == *value as i32));
}

#[test]
fn empty_strings_are_keys_and_prefixes_end_where_they_end() {
    let (_dir, db) = fresh();
    let t = db.typed_table::<(String, Option<u8>), ()>("t").unwrap();
    let mut txn = db.begin();
    let names = ["", "a", "a\0", "ab", "b", "\u{10ffff}"];
    for name in names {
        for number in [None, Some(0), Some(255)] {
            t.put(&mut txn, &(name.to_owned(), number), &()).unwrap();
        }
    }
    for name in names {
        let rows = t.prefix(&txn, &(name.to_owned(),)).unwrap();
        let keys: Vec<_> = rows.map(|row| row.unwrap().0).collect();
        let own = [None, Some(0), Some(255)].map(|number| (name.to_owned(), number));
        assert_eq!(keys, own);
    }
    let bytes = db.typed_table::<(u8, u8), u8>("bytes").unwrap();
    bytes.put(&mut txn, &(255, 255), &1).unwrap();
    assert_eq!(bytes.prefix(&txn, &(255,)).unwrap().count(), 1);
    let words = db.typed_table::<String, Vec<u8>>("words").unwrap();
    words.put(&mut txn, "", b"empty").unwrap();
    assert_eq!(words.get(&txn, "").unwrap().unwrap(), b"empty");
    // The one key without a byte is refused as the engine refuses it.
    let none = db.typed_table::<[u8; 0], ()>("none").unwrap();
    let error = none.put(&mut txn, &[], &()).unwrap_err();
    assert!(matches!(error, Error::KeyEmpty), "{error}");
}

#[test]
fn a_row_of_another_type_is_an_error_and_no_end() {
    let (_dir, db) = fresh();
    let t = db.typed_table::<u32, bool>("t").unwrap();
    let mut txn = db.begin();
    t.put(&mut txn, &1, &true).unwrap();
    txn.put(t.table(), [0, 0, 0, 2], "no boolean").unwrap();
    txn.put(t.table(), "key", [1]).unwrap();
    t.put(&mut txn, &0x7000_0000, &false).unwrap();
    let error = t.get(&txn, &2).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unchanged);
    let rows: Vec<_> = t.range(&txn, ..).unwrap().collect();
    let texts: Vec<_> = rows
        .iter()
        .map(|row| {
            row.as_ref()
                .map_or_else(ToString::to_string, |row| format!("{row:?}"))
        })
        .collect();
    assert_eq!(
        texts,
        [
            "(1, true)",
            "a row of table `t`: its value is no bool: it was written as something else",
            "row `key` of table `t`: its key is no u32: it was written as something else",
            "(1879048192, false)",
        ]
    );
    assert_eq!(
        t.range(&txn, ..)
            .unwrap()
            .rev()
            .filter(Result::is_err)
            .count(),
        2
    );
    txn.commit().unwrap();
}
