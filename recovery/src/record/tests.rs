//! Records round-trip, their bytes are fixed, and no byte string panics the decoder.

use std::ops::Bound;

use lockstone_base::{LockMode, Lsn, Priority, TableId, TxnId};
use lockstone_storage::provisional::Kind;
use lockstone_storage::{Origin, RunEntry};
use proptest::prelude::*;

use super::*;

fn bytes_of(body: Body<'_>) -> (Tag, Vec<u8>) {
    let bytes = body.encode();
    (bytes.tag, bytes.pieces().concat())
}

fn range_lock(start: Bound<&'static [u8]>, end: Bound<&'static [u8]>) -> Body<'static> {
    Body::RangeLock(RangeLock {
        table: TableId(9),
        start,
        end,
        mode: LockMode::Share,
        sub: 0x0102,
    })
}

fn every_body() -> Vec<Body<'static>> {
    let provisional = |effect, fresh| {
        Body::Provisional(Provisional {
            row: b"\0\0\0\x01key",
            mode: LockMode::NoKeyUpdate,
            fresh,
            sub: 7,
            effect,
        })
    };
    vec![
        Body::Begin { label: "nightly" },
        provisional(Effect::Lock, true),
        provisional(Effect::Put(b"value"), false),
        provisional(Effect::Put(b""), true),
        provisional(Effect::Delete, false),
        Body::ProvisionalMany(ProvisionalMany {
            sub: 7,
            rows: MANY_ROWS,
            granted: &[0x83, 4],
        }),
        Body::LockMany(LockMany {
            sub: 7,
            count: 2,
            rows: LOCKED_ROWS,
        }),
        Body::ValuePart(b"part"),
        Body::RollbackTo {
            from: 2,
            through: 5,
        },
        Body::Commit { rows: 3, adopts: 0 },
        Body::Commit {
            rows: 3,
            adopts: 70_000,
        },
        Body::Abort,
        Body::CreateTable {
            id: TableId(9),
            name: "accounts",
        },
        Body::CleanShutdown,
        Body::DropTable { id: TableId(9) },
        range_lock(Bound::Included(b"a"), Bound::Excluded(b"bc")),
        range_lock(Bound::Excluded(b""), Bound::Included(b"")),
        range_lock(Bound::Unbounded, Bound::Unbounded),
        Body::TableLock { table: TableId(9) },
        Body::Prepare(Prepare {
            gid: "gid",
            rows: 3,
            digest: lockstone_storage::provisional::Digest::new(0x0102),
            held: b"held",
        }),
        Body::Lease(Lease::beginning(30_000)),
        Body::TableShared { table: TableId(9) },
        Body::CallOpens { sub: 7 },
        Body::CallCloses,
        Body::Tokens(Tokens {
            semaphore: b"downloads",
            limit: 5,
            tokens: 2,
            sub: 3,
        }),
    ]
}

#[test]
fn every_body_round_trips() {
    for body in every_body() {
        let (tag, bytes) = bytes_of(body);
        assert_eq!(Body::decode(tag, &bytes), Ok(body));
    }
}

#[test]
fn a_spill_round_trips_with_what_it_replaces_and_no_changed_byte_panics() {
    let entry = |number| RunEntry {
        number,
        uuid: 7,
        bytes: 100,
        checksum: 9,
        versions: 2,
        rows: 1,
        tombstones: 1,
        oldest: Lsn::new(1),
        newest: Lsn::new(2),
        smallest: b"\0\0\0\x01a"[..].into(),
        largest: b"\0\0\0\x01a"[..].into(),
        origin: Origin::Provisional,
    };
    for (count, replaces) in [
        (0, vec![]),
        (1, vec![]),
        (2, vec![3, u64::MAX]),
        (0, vec![1]),
    ] {
        let kinds = [Kind::Lock, Kind::Write];
        let files = kinds.into_iter().zip([entry(4), entry(5)]);
        let files = SpillFiles {
            files: files.take(count).collect(),
            replaces,
        };
        let encoded = files.encode();
        let spill = Spill::new(6, Lsn::new(77), (8, 9), &encoded);
        assert_eq!(spill.files(), Ok(files));
        let (tag, bytes) = bytes_of(Body::Spill(spill));
        assert_eq!(Body::decode(tag, &bytes), Ok(Body::Spill(spill)));
        for cut in 0..bytes.len() {
            assert!(Body::decode(tag, &bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            for changed in [0, 1, 0x7f, u8::MAX] {
                let mut bytes = bytes.clone();
                bytes[at] = changed;
                let _ = Body::decode(tag, &bytes);
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Body::decode(tag, &longer).is_err());
    }
}

/// A row with a value, and one with an empty one.
const MANY_ROWS: &[u8] = b"\x05\0\x01\0\0\0\0\0\0\x01kv\x05\0\0\0\0\0\0\0\0\x01l";

#[test]
fn many_rows_are_what_a_record_each_would_be() {
    let many = ProvisionalMany {
        sub: 0x0102,
        rows: MANY_ROWS,
        granted: &[
            granted_byte(LockMode::NoKeyUpdate, true),
            granted_byte(LockMode::Update, false),
        ],
    };
    let (tag, bytes) = bytes_of(Body::ProvisionalMany(many));
    assert_eq!((tag as u8, many.len()), (10, 2));
    assert_eq!(
        bytes,
        [b"\x02\x01\0\0\x02\0\0\0", MANY_ROWS, b"\x83\x04"].concat()
    );
    assert_eq!(MANY_ROWS[..ROW_HEAD_BYTES], row_head(5, 1));
    let row = |row, mode, fresh, value| Provisional {
        row,
        mode,
        fresh,
        sub: 0x0102,
        effect: Effect::Put(value),
    };
    let rows: Vec<_> = many.rows().collect();
    assert_eq!(
        rows,
        [
            row(b"\0\0\0\x01k", LockMode::NoKeyUpdate, true, b"v"),
            row(b"\0\0\0\x01l", LockMode::Update, false, b""),
        ]
    );
    // Whatever is cut, or said to be more or less than there is, is damage.
    for cut in 0..bytes.len() {
        assert!(Body::decode(tag, &bytes[..cut]).is_err(), "{cut}");
    }
    for count in [0, 1, 3, u8::MAX] {
        let mut bytes = bytes.clone();
        bytes[4] = count;
        assert!(Body::decode(tag, &bytes).is_err(), "{count}");
    }
}

/// A row that was not held before, and one that was.
const LOCKED_ROWS: &[u8] = b"\x84\x05\0\0\0\0\x01k\x02\x04\0\0\0\0\x01";

#[test]
fn many_locks_are_what_a_record_each_would_be() {
    let many = LockMany {
        sub: 0x0102,
        count: 2,
        rows: LOCKED_ROWS,
    };
    let (tag, bytes) = bytes_of(Body::LockMany(many));
    assert_eq!(tag as u8, 13);
    assert_eq!(bytes, [b"\x02\x01\0\0\x02\0\0\0", LOCKED_ROWS].concat());
    assert_eq!(
        LOCKED_ROWS[..LOCKED_ROW_HEAD_BYTES],
        locked_row_head(5, LockMode::Update, true)
    );
    let row = |row, mode, fresh| Provisional {
        row,
        mode,
        fresh,
        sub: 0x0102,
        effect: Effect::Lock,
    };
    let rows: Vec<_> = many.rows().collect();
    assert_eq!(
        rows,
        [
            row(b"\0\0\0\x01k", LockMode::Update, true),
            row(b"\0\0\0\x01", LockMode::Share, false),
        ]
    );
    // Whatever is cut, or said to be more or less than there is, is damage.
    for cut in 0..bytes.len() {
        assert!(Body::decode(tag, &bytes[..cut]).is_err(), "{cut}");
    }
    for count in [0, 1, 3, u8::MAX] {
        let mut bytes = bytes.clone();
        bytes[4] = count;
        assert!(Body::decode(tag, &bytes).is_err(), "{count}");
    }
}

#[test]
fn the_bytes_of_a_put_are_as_documented() {
    let put = Provisional {
        row: b"\0\0\0\x01k",
        mode: LockMode::NoKeyUpdate,
        fresh: true,
        sub: 0x0102,
        effect: Effect::Put(b"v"),
    };
    let (tag, bytes) = bytes_of(Body::Provisional(put));
    assert_eq!(tag as u8, 2);
    assert_eq!(bytes, b"\x02\x83\x05\0\x02\x01\0\0\0\0\0\x01kv");
}

#[test]
fn the_bytes_of_wide_locks_are_as_documented() {
    let (tag, bytes) = bytes_of(range_lock(Bound::Included(b"a"), Bound::Excluded(b"bc")));
    assert_eq!(tag as u8, 11);
    assert_eq!(bytes, b"\x02\x01\x02\0\x09\0\0\0\x02\x01\0\0\x01\0abc");
    let wrong: [(usize, u8); 6] = [(0, 0), (1, 0), (2, 3), (3, 1), (4, 0), (12, 4)];
    for (at, byte) in wrong {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert!(Body::decode(tag, &bytes).is_err(), "{at}");
    }
    let (tag, bytes) = bytes_of(Body::TableLock { table: TableId(9) });
    assert_eq!((tag as u8, bytes.as_slice()), (12, &b"\x09\0\0\0"[..]));
    assert!(Body::decode(tag, &[0; 4]).is_err());
}

#[test]
fn the_context_round_trips_and_strangers_are_refused() {
    let context = Context {
        txn: TxnId::new(3, 17),
        rank: Priority::high(5).settle(0, false),
    };
    let mut bytes = context.encode();
    assert_eq!(Context::decode(&bytes), Ok(context));
    assert_eq!(
        Context::decode(&bytes[1..]),
        Err(MalformedRecord("context"))
    );
    bytes[19] = 0xff;
    assert_eq!(Context::decode(&bytes), Err(MalformedRecord("rank")));
}

#[test]
fn zero_is_no_tag() {
    assert!(Tag::try_from(0).is_err());
    for tag in Tag::ALL {
        assert_eq!(Tag::try_from(tag as u8), Ok(tag));
    }
}

/// Whatever is accepted means what it says: it encodes to the same bytes.
fn decode_hostile(tag: Tag, bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(body) = Body::decode(tag, bytes) {
        prop_assert_eq!(bytes_of(body), (tag, bytes.to_vec()));
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_byte_string_panics_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for tag in Tag::ALL {
            decode_hostile(tag, &bytes)?;
        }
        let _ = Context::decode(&bytes);
    }

    #[test]
    fn no_changed_body_panics_the_decoder(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        for body in every_body() {
            let (tag, mut bytes) = bytes_of(body);
            for (at, byte) in &changes {
                let at = at.index(bytes.len().max(1));
                bytes.get_mut(at).into_iter().for_each(|at| *at = *byte);
            }
            decode_hostile(tag, &bytes)?;
            decode_hostile(tag, &bytes[..end.index(bytes.len() + 1)])?;
        }
    }
}
