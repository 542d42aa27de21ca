//! The hot paths of the log: appending a record, committing one, building a frame, scanning what was written.
//!
//! Where there is memory to write to (`/dev/shm`), the log lies there: what is measured is this crate's
//! own work. Frames are built for a disk that forgets every byte: that of a frame's header and checksum is
//! seen, and the copy of its one record, but no write. What the device adds is the throughput program's to say.

#[path = "discarding_disk/mod.rs"]
mod discarding_disk;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use discarding_disk::DiscardingDisk;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, OsDisk};
use lockstone_wal::{
    Access, ChainPoint, Log, LogConfig, LogVisitor, Record, ScanOptions, ScannedRecord, Segments,
    VisitError,
};
use tempfile::TempDir;

const UUID: u128 = 1;
const SALT: u64 = 2;
const GENERATION: u64 = 1;
const SEGMENT_BYTES: u64 = 8 << 20;
/// A record of one row: 16 bytes of key, 100 of value, and what the engine writes before them.
const BODY: [u8; 150] = [7; 150];
const CONTEXT: [u8; 20] = [8; 20];

fn record() -> Record<'static> {
    Record {
        tag: 1,
        context: &CONTEXT,
        body: &[&BODY],
    }
}

struct Place {
    _dir: TempDir,
    disk: Arc<dyn Disk>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a temporary directory");
        let disk = Arc::new(OsDisk::open(dir.path(), false).expect("it was made just now"));
        Self { _dir: dir, disk }
    }

    fn segments(&self) -> Segments {
        Segments::open(Arc::clone(&self.disk), Access::Recover).expect("nobody else has it")
    }

    /// A log without a record.
    fn log(&self) -> Log {
        start(self.segments())
    }
}

fn start(segments: Segments) -> Log {
    let scan = segments.scan(&WHOLE, &mut Nothing).expect("an empty log");
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        uuid: UUID,
        salt: SALT,
        boot_epoch: 1,
        manifest_generation: GENERATION,
        frames_in_flight: LogConfig::FRAMES_IN_FLIGHT,
    };
    Log::start(segments, config, &scan).expect("room for two segments")
}

const WHOLE: ScanOptions = ScanOptions {
    salt: SALT,
    from: ChainPoint::START,
    durable: Lsn::ZERO,
    manifest_generation: GENERATION,
    log_end: Lsn::ZERO,
};

struct Nothing;

impl LogVisitor for Nothing {
    fn record(&mut self, _record: ScannedRecord<'_>) -> Result<(), VisitError> {
        Ok(())
    }
}

/// Frees what is written, as checkpoints do, so that the log stays within a few segments.
fn recycle_when_long(log: &Log) {
    if log.used_bytes() > 2 * SEGMENT_BYTES {
        log.recycle(log.durable()).expect("the log is intact");
    }
}

fn append(c: &mut Criterion) {
    let place = Place::new();
    let log = place.log();
    let mut group = c.benchmark_group("wal");
    group.throughput(Throughput::Elements(1));
    group.bench_function("append", |b| {
        b.iter(|| {
            log.append(&record()).expect("there is room");
            recycle_when_long(&log);
        });
    });
    group.bench_function("commit", |b| {
        b.iter(|| {
            let record = record();
            let room = log.reserve(record.bytes()).expect("there is room");
            let appended = log.hold().append(room, &record);
            log.wait_durable(appended.end).expect("the log is intact");
            recycle_when_long(&log);
        });
    });
    // A frame of many records: what group commit makes of a hundred clients.
    group.throughput(Throughput::Elements(FRAME_RECORDS));
    group.bench_function("commit/frame of 100 records", |b| {
        b.iter(|| {
            let end = (0..FRAME_RECORDS)
                .map(|_| log.append(&record()).expect("there is room").end)
                .max();
            log.wait_durable(end.expect("not empty"))
                .expect("the log is intact");
            recycle_when_long(&log);
        });
    });
}

const FRAME_RECORDS: u64 = 100;

/// One record that fills the frame: copied, checksummed, and given a header.
fn frame(c: &mut Criterion) {
    /// What the headers of frame and record take.
    const HEADERS: usize = 64 + 6;
    let disk = Arc::new(DiscardingDisk::default());
    let log = start(Segments::open(disk, Access::Recover).expect("an empty disk"));
    let mut group = c.benchmark_group("wal");
    for frame_bytes in [4 << 10, 64 << 10, 1 << 20] {
        let body = vec![7; frame_bytes - HEADERS];
        group.throughput(Throughput::Bytes(frame_bytes as u64));
        group.bench_function(format!("frame/{} KiB", frame_bytes >> 10), |b| {
            b.iter(|| {
                let record = Record {
                    tag: 1,
                    context: &[],
                    body: &[&body],
                };
                let before = log.durable();
                let appended = log.append(&record).expect("there is room");
                log.wait_durable(appended.end)
                    .expect("the disk cannot fail");
                // Nothing but the frame, unless a segment ended: its first block is its header.
                assert!(log.durable().since(before) >= frame_bytes as u64);
                recycle_when_long(&log);
            });
        });
    }
}

fn scan(c: &mut Criterion) {
    const RECORDS: u64 = 20_000;
    let place = Place::new();
    let log = place.log();
    for _ in 0..RECORDS {
        log.append(&record()).expect("there is room");
    }
    log.cover().expect("the log is intact");
    drop(log);
    let segments = place.segments();
    let mut group = c.benchmark_group("wal");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let scan = segments
                .scan(&WHOLE, &mut Nothing)
                .expect("the log is intact");
            assert_eq!(black_box(scan.records), RECORDS);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = append, frame, scan
}
criterion_main!(benches);
