//! The order of keys is the order of their bytes, everything round-trips, and no bytes panic a decoder.

use std::fmt::Debug;

use proptest::prelude::*;

use super::key::{KeyPrefix, KeyReader, KeyWriter, TableKey};
use super::value::TableValue;

fn key<K: TableKey>(value: &K) -> Vec<u8> {
    KeyWriter::of::<K>(value).as_ref().to_vec()
}

fn value<V: TableValue>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode_value(&mut bytes);
    bytes
}

/// Both round-trip, and their bytes stand to each other as they do; neither's begin with the other's.
fn keys_agree<K: TableKey + Ord + Debug>(a: &K, b: &K) -> Result<(), TestCaseError> {
    let (a_bytes, b_bytes) = (key(a), key(b));
    prop_assert_eq!(a.cmp(b), a_bytes.cmp(&b_bytes));
    prop_assert_eq!(a == b, b_bytes.starts_with(&a_bytes));
    prop_assert!(!a_bytes.is_empty());
    let read = KeyReader::whole::<K>(&a_bytes);
    prop_assert_eq!(read.as_ref(), Some(a));
    let longer = [&*a_bytes, &[0]].concat();
    prop_assert_eq!(KeyReader::whole::<K>(&longer), None);
    Ok(())
}

/// Strings that meet every special byte often.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\u{0}\u{1}\u{2}ab]{0,4}"]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let special = prop_oneof![Just(0), Just(1), Just(2), Just(254), Just(255)];
    prop_oneof![any::<Vec<u8>>(), prop::collection::vec(special, 0..5)]
}

proptest! {
    #[test]
    fn keys_of_every_type_keep_their_order(
        a in any::<(u8, u16, u32, u64, u128)>(), b in any::<(u8, u16, u32, u64, u128)>(),
        c in any::<(i8, i16, i32, i64, i128)>(), d in any::<(i8, i16, i32, i64, i128)>(),
        e in any::<(bool, char, [u8; 3], Option<u8>)>(), f in any::<(bool, char, [u8; 3], Option<u8>)>(),
    ) {
        keys_agree(&a, &b)?;
        keys_agree(&c, &d)?;
        keys_agree(&e, &f)?;
        keys_agree(&a.4, &b.4)?;
        keys_agree(&c.4, &d.4)?;
        keys_agree(&e.1, &f.1)?;
        keys_agree(&e.3, &f.3)?;
    }

    #[test]
    fn keys_of_any_length_keep_their_order_wherever_they_stand(
        a in (text(), bytes(), any::<u8>()), b in (text(), bytes(), any::<u8>()),
    ) {
        keys_agree(&a.0, &b.0)?;
        keys_agree(&a.1, &b.1)?;
        keys_agree(&a, &b)?;
        // Equal in front, so that what stands behind decides.
        let c = (a.0.clone(), b.1.clone(), b.2);
        keys_agree(&a, &c)?;
        keys_agree(&(a.1.clone(), a.0.clone()), &(a.1.clone(), b.0.clone()))?;
        keys_agree(&Some(a.0.clone()), &Some(b.0.clone()))?;
        keys_agree(&(None::<String>, 7_u8), &(Some(b.0.clone()), 7_u8))?;
    }

    #[test]
    fn every_key_with_the_same_first_parts_begins_with_their_bytes(a in text(), b in bytes(), c in any::<i32>()) {
        let whole = key(&(a.clone(), b.clone(), c));
        let mut one = KeyWriter::default();
        KeyPrefix::<(String, Vec<u8>, i32)>::write_prefix(&(a.clone(),), &mut one);
        prop_assert!(whole.starts_with(one.as_ref()));
        let mut two = KeyWriter::default();
        KeyPrefix::<(String, Vec<u8>, i32)>::write_prefix(&(a, b), &mut two);
        prop_assert!(whole.starts_with(two.as_ref()));
    }

    #[test]
    fn values_of_every_type_round_trip(
        a in any::<(u8, i16, u32, i64, u128)>(), b in any::<(bool, char, [u8; 3], Option<u16>, String, Vec<u8>)>(),
        long in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        prop_assert_eq!(TableValue::decode_value(&value(&a)), Some(a));
        prop_assert_eq!(TableValue::decode_value(&value(&b)), Some(b.clone()));
        prop_assert_eq!(TableValue::decode_value(&value(&b.4)), Some(b.4));
        let nested = ((long.clone(), ()), Some(long));
        prop_assert_eq!(TableValue::decode_value(&value(&nested)), Some(nested));
    }

    /// What is decoded from hostile bytes is what those bytes are the encoding of.
    #[test]
    fn hostile_bytes_never_panic_and_one_value_has_one_encoding(bytes in bytes()) {
        if let Some(found) = KeyReader::whole::<(String, Option<char>, Vec<u8>)>(&bytes) {
            prop_assert_eq!(key(&found), bytes.clone());
        }
        if let Some(found) = KeyReader::whole::<(bool, Vec<u8>, i16)>(&bytes) {
            prop_assert_eq!(key(&found), bytes.clone());
        }
        if let Some(found) = <(bool, Vec<u8>, String) as TableValue>::decode_value(&bytes) {
            prop_assert_eq!(value(&found), bytes.clone());
        }
        if let Some(found) = <(Option<u32>, (), Vec<u8>, char) as TableValue>::decode_value(&bytes) {
            prop_assert_eq!(value(&found), bytes);
        }
    }
}

#[test]
fn the_bytes_are_as_documented() {
    assert_eq!(key(&0x0102_u16), [1, 2]);
    assert_eq!(key(&-1_i16), [0x7f, 0xff]);
    assert_eq!(key(&String::new()), [0]);
    assert_eq!(key(&"a\0\u{1}b".to_owned()), [b'a', 1, 1, 1, 2, b'b', 0]);
    assert_eq!(key(&(Some(7_u8), None::<u8>)), [1, 7, 0]);
    assert_eq!(value(&("ab".to_owned(), 1_u16)), [2, b'a', b'b', 1, 0]);
    assert_eq!(value(&(vec![7; 300], ()))[..3], [0xac, 2, 7]);
    assert_eq!(
        <(Vec<u8>, ()) as TableValue>::decode_value(&[0x80, 0]),
        None
    );
    assert_eq!(
        <(Vec<u8>, ()) as TableValue>::decode_value(&[0xff; 9]),
        None
    );
}
