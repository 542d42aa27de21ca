//! R2, as far as the log says it: who is prepared is found with what it held, and nobody else is (R3); what does not fit the count or the
//! digest that it has said of itself is refused, and nothing is changed for that.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::disk::Disk;
use lockstone_base::{FencingToken, LockMode, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_recovery::record::{
    Body, Context, Effect, Held, HeldRange, Prepare, Provisional, locked_row,
};
use lockstone_recovery::{
    Config, Identity, Inspection, Recovered, RecoveryError, Resolution, Survives, recover,
};
use lockstone_storage::provisional::Digest;
use lockstone_storage::{Shape, StoreConfig};
use lockstone_testkit::{SimClock, SimDisk};
use lockstone_wal::{Log, Record};

const SALT: u64 = 2;
const TABLE: TableId = TableId(1);

fn open(disk: &Arc<SimDisk>) -> Result<Recovered, RecoveryError> {
    let is_new = disk.names() == ["lock"];
    let identity = Identity {
        uuid: 1,
        salt: SALT,
    };
    let config = Config {
        segment_bytes: 256 << 10,
        memory_bytes: 1 << 20,
        store: StoreConfig {
            shape: Shape {
                level_0_runs: 4,
                base_bytes: 1 << 30,
                run_bytes: 1 << 30,
            },
        },
        create: is_new.then_some(identity),
    };
    let disk: Arc<dyn Disk> = disk.clone();
    recover(&disk, &SimClock::new(), &config)
}

fn append(log: &Log, txn: u64, body: Body<'_>) -> Lsn {
    let context = Context {
        txn: TxnId::new(1, txn),
        rank: Priority::normal(3).settle(0, false),
    };
    let bytes = body.encode();
    let is_engines = matches!(body, Body::CreateTable { .. });
    let context = context.encode();
    let record = Record {
        tag: bytes.tag as u8,
        context: if is_engines { &[] } else { &context },
        body: &bytes.pieces(),
    };
    let appended = log.append(&record).unwrap();
    log.wait_durable(appended.end).unwrap();
    appended.lsn
}

fn row(key: &[u8]) -> RowKey {
    RowKey::new(TABLE, key)
}

struct Locks(Vec<(RowKey, LockMode, bool, Lsn)>);

/// What a prepared transaction with these locks says of itself.
fn prepare(log: &Log, txn: u64, gid: &str, locks: &Locks, held: &Held) -> Lsn {
    let mut digest = Digest::default();
    for (row, mode, writes, token) in &locks.0 {
        let token = FencingToken::new(*token);
        digest += locked_row(
            SALT,
            TxnId::new(1, txn),
            row.as_bytes(),
            (*mode, *writes),
            token,
        );
    }
    let rows = locks.0.len() as u64;
    let held = held.encode();
    let prepare = Prepare {
        gid,
        rows,
        digest,
        held: &held,
    };
    append(log, txn, Body::Prepare(prepare))
}

fn provisional<'k>(
    key: &'k RowKey,
    mode: LockMode,
    (fresh, sub): (bool, u32),
    effect: Effect<'k>,
) -> Body<'k> {
    Body::Provisional(Provisional {
        row: key.as_bytes(),
        mode,
        fresh,
        sub,
        effect,
    })
}

/// A prepared transaction among others; `says` changes what it says of its locks.
fn life(says: impl Fn(&mut Locks)) -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    disk.write_file("lock", b"");
    let opened = open(&disk).unwrap();
    let log = &opened.log;
    append(
        log,
        0,
        Body::CreateTable {
            id: TABLE,
            name: "t",
        },
    );
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|key| row(key));
    append(
        log,
        9,
        provisional(&d, LockMode::Update, (true, 0), Effect::Put(b"other")),
    );
    append(log, 7, Body::Begin { label: "half" });
    let share = append(
        log,
        7,
        provisional(&a, LockMode::Share, (true, 0), Effect::Lock),
    );
    let put = append(
        log,
        7,
        provisional(&b, LockMode::NoKeyUpdate, (true, 0), Effect::Put(b"1")),
    );
    // Strengthened, and undone.
    append(
        log,
        7,
        provisional(&a, LockMode::Update, (false, 1), Effect::Delete),
    );
    append(
        log,
        7,
        provisional(&d, LockMode::Share, (true, 1), Effect::Lock),
    );
    append(
        log,
        7,
        Body::RollbackTo {
            from: 1,
            through: 1,
        },
    );
    // Covered by what is held; covered by a range; strengthened, which gives another token; written, which gives none.
    append(
        log,
        7,
        provisional(&b, LockMode::NoKeyUpdate, (false, 2), Effect::Put(b"2")),
    );
    let range = append(log, 7, Body::ValuePart(b"what nothing follows"));
    append(
        log,
        7,
        provisional(&c, LockMode::Update, (false, 3), Effect::Put(b"3")),
    );
    let update = append(
        log,
        7,
        provisional(&a, LockMode::NoKeyUpdate, (false, 4), Effect::Lock),
    );
    append(
        log,
        7,
        provisional(&a, LockMode::NoKeyUpdate, (false, 5), Effect::Put(b"4")),
    );
    assert!(share < update);
    let held = Held {
        sub: 5,
        writes: 4,
        shared: vec![TABLE],
        dead: vec![(1, 1)],
        ranges: vec![HeldRange {
            table: TABLE,
            start: Bound::Included(b"c".to_vec()),
            end: Bound::Excluded(b"d".to_vec()),
            mode: LockMode::Update,
            sub: 3,
            token: FencingToken::new(range),
        }],
        ..Held::default()
    };
    let mut locks = Locks(vec![
        (a, LockMode::NoKeyUpdate, true, update),
        (b, LockMode::NoKeyUpdate, true, put),
    ]);
    says(&mut locks);
    prepare(log, 7, "gid", &locks, &held);
    // One more, that was ended: it is nobody.
    prepare(log, 8, "ended", &Locks(Vec::new()), &Held::default());
    append(log, 8, Body::Abort);
    drop(opened);
    disk.after_kill(disk.io_count())
}

#[test]
fn who_is_prepared_is_found_with_what_it_held_and_nobody_else_is() {
    let disk = life(|_| {});
    let looked_at = Inspection::open(disk.clone(), Arc::new(SimClock::new()));
    let report = looked_at.unwrap().report().unwrap();
    assert_eq!(report.prepared().count(), 1);
    let opened = open(&disk).unwrap();
    let resolutions = opened.report.in_flight.iter().map(|txn| &txn.resolution);
    let gid: Arc<str> = "gid".into();
    let prepared = Resolution::Prepared { gid: gid.clone() };
    assert_eq!(
        resolutions.collect::<Vec<_>>(),
        [&Resolution::Aborted, &prepared]
    );
    let [one] = &opened.survivors[..] else {
        panic!("{:?}", opened.survivors);
    };
    assert_eq!(
        (one.txn, one.label.as_deref()),
        (TxnId::new(1, 7), Some("half"))
    );
    assert_eq!(one.survives, Survives::Prepared { gid });
    let rows = one
        .rows
        .iter()
        .map(|row| (row.row.key(), row.mode, row.writes, row.sub));
    let (share, update) = (LockMode::Share, LockMode::NoKeyUpdate);
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [
            (&b"a"[..], share, false, 0),
            (b"b", update, true, 0),
            (b"a", update, false, 4),
            (b"a", update, true, 5),
        ]
    );
    assert_eq!(one.rows[2].token, one.rows[3].token);
    let writes = one.writes.iter().map(|write| (write.row.key(), write.sub));
    assert_eq!(
        writes.collect::<Vec<_>>(),
        [(&b"b"[..], 0), (b"b", 2), (b"c", 3), (b"a", 5)]
    );
    assert_eq!((one.held.ranges.len(), one.files.len()), (1, 0));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_changed() {
    let lies: [fn(&mut Locks); 6] = [
        |locks| drop(locks.0.pop()),
        |locks| {
            let more = (row(b"x"), LockMode::Share, false, Lsn::new(9));
            locks.0.push(more);
        },
        |locks| locks.0[0].0 = row(b"x"),
        |locks| locks.0[0].1 = LockMode::Update,
        |locks| locks.0[1].2 = false,
        |locks| locks.0[0].3 = Lsn::new(9),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let disk = life(lie);
        let names = disk.names();
        let looked_at = Inspection::open(disk.clone(), Arc::new(SimClock::new()));
        let refused = looked_at.unwrap().report().unwrap_err();
        assert!(matches!(refused, RecoveryError::Unlike { .. }), "{number}");
        let error = open(&disk).unwrap_err();
        let RecoveryError::Unlike { file, gid, .. } = &error else {
            panic!("{number}: {error}");
        };
        assert!(file.to_string_lossy().contains("wal-"), "{error}");
        assert_eq!(gid, "gid");
        // But for syncs: no segment, no manifest.
        assert_eq!(disk.names(), names, "{number}");
    }
}
