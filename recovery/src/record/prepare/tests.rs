//! What a prepared transaction says of itself: its bytes are fixed, it round-trips, and hostile bytes are refused.

use bytes::Bytes;
use lockstone_storage::Origin;

use super::super::Body;
use super::*;

/// One of everything.
fn held() -> Held {
    let token = |at| FencingToken::new(Lsn::new(at));
    let range = |start, end| HeldRange {
        table: TableId(9),
        start,
        end,
        mode: LockMode::Share,
        sub: 2,
        token: token(70),
    };
    let entry = RunEntry {
        number: 4,
        uuid: 5,
        bytes: 6,
        checksum: 7,
        versions: 8,
        rows: 8,
        tombstones: 1,
        oldest: Lsn::new(1),
        newest: Lsn::new(9),
        smallest: Bytes::from_static(b"\0\0\0\x09a"),
        largest: Bytes::from_static(b"\0\0\0\x09b"),
        origin: Origin::Provisional,
    };
    Held {
        sub: 6,
        writes: 11,
        through: Lsn::new(90),
        shared: vec![TableId(9), TableId(10)],
        exclusive: vec![(TableId(10), token(60))],
        dead: vec![(1, 1), (3, 5)],
        ranges: vec![
            range(
                Bound::Included(b"a".to_vec()),
                Bound::Excluded(b"bc".to_vec()),
            ),
            range(Bound::Unbounded, Bound::Unbounded),
        ],
        tokens: vec![HeldTokens {
            semaphore: (*b"pool").into(),
            limit: 3,
            tokens: 2,
            sub: 0,
        }],
        files: vec![(1, Kind::Lock, entry.clone()), (1, Kind::Write, entry)],
    }
}

#[test]
fn the_bytes_of_a_preparation_are_as_documented() {
    let prepare = Prepare {
        gid: "gid",
        rows: 3,
        digest: Digest::new(0x0102),
        held: b"held",
    };
    let bytes = Body::Prepare(prepare).encode();
    let (tag, bytes) = (bytes.tag, bytes.pieces().concat());
    assert_eq!((tag as u8, bytes.len()), (15, PREPARE_HEAD_BYTES + 7));
    assert_eq!(bytes[..10], *b"\x03\0\0\0\0\0\0\0\x02\x01");
    assert_eq!(bytes[24..], *b"\x03\0gidheld");
    assert_eq!(Body::decode(tag, &bytes), Ok(Body::Prepare(prepare)));
    let no_gid = [&[0; 26][..]].concat();
    for wrong in [Vec::new(), bytes[..28].to_vec(), no_gid] {
        assert!(Body::decode(tag, &wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_bytes_of_what_is_held_are_as_documented() {
    let held = Held {
        files: Vec::new(),
        ..held()
    };
    let expected: [&[u8]; 8] = [
        b"\x06\0\0\0\x0b\0\0\0\0\0\0\0\x5a\0\0\0\0\0\0\0",
        b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0",
        b"\x09\0\0\0\x0a\0\0\0",
        b"\x0a\0\0\0\x3c\0\0\0\0\0\0\0",
        b"\x01\0\0\0\x01\0\0\0\x03\0\0\0\x05\0\0\0",
        b"\x46\0\0\0\0\0\0\0\x11\0\0\0\x02\x01\x02\0\x09\0\0\0\x02\0\0\0\x01\0abc",
        b"\x46\0\0\0\0\0\0\0\x0e\0\0\0\x02\x03\x03\0\x09\0\0\0\x02\0\0\0\0\0",
        b"\x18\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0pool",
    ];
    assert_eq!(held.encode(), expected.concat());
}

#[test]
fn what_is_held_round_trips_and_hostile_bytes_are_refused() {
    let held = held();
    let bytes = held.encode();
    assert_eq!(Held::decode(&bytes), Ok(held));
    for cut in 0..bytes.len() {
        assert!(Held::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(Held::decode(&[&bytes[..], &[0]].concat()).is_err());
    // Whatever is changed, it is refused or means what it says.
    for at in 0..bytes.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = byte;
            if let Ok(held) = Held::decode(&changed) {
                assert_eq!(held.encode(), changed, "{at}");
            }
        }
    }
}
