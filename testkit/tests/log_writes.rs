//! Several log writes in flight on the simulated disk: what a crash, a kill and a fault make of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;

use fastrand::Rng;
use lockstone_base::disk::{AlignedBuf, Disk, DiskFile, DiskOp, LogWrite, LogWriter, OpenMode};
use lockstone_testkit::{FinishOrder, SimDisk, Survivors};

const BLOCK: usize = 4096;
const BLOCKS: usize = 16;
const DEPTH: usize = 4;

fn buffer(byte: u8, blocks: usize) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(blocks * BLOCK);
    buffer.as_mut_bytes().fill(byte);
    buffer
}

/// A durable log of ones, and a writer whose probe was its last block.
fn log() -> (Arc<SimDisk>, Arc<dyn DiskFile>, Box<dyn LogWriter>) {
    let disk = SimDisk::new(0);
    disk.write_file("log", &vec![1; BLOCKS * BLOCK]);
    let file = disk.open("log", OpenMode::Log).unwrap();
    let probe = write(&file, 0, BLOCKS - 1, buffer(1, 1));
    let writer = disk.log_writer(DEPTH, &[], probe).unwrap();
    (disk, file, writer)
}

fn write(file: &Arc<dyn DiskFile>, tag: u64, block: usize, buffer: AlignedBuf) -> LogWrite {
    LogWrite {
        tag,
        file: file.clone(),
        offset: (block * BLOCK) as u64,
        bytes: buffer.as_bytes().len(),
        buffer,
    }
}

/// The first byte of each of the first blocks.
fn firsts(disk: &SimDisk, count: usize) -> Vec<u8> {
    let bytes = disk.read_file("log");
    bytes.chunks(BLOCK).take(count).map(|it| it[0]).collect()
}

fn crash(disk: &SimDisk, survivors: Survivors) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &survivors)
}

/// F2: the later frame may be on the device without the earlier one.
#[test]
fn writes_in_flight_survive_each_by_itself() {
    let (disk, file, mut writer) = log();
    for i in 0..3 {
        writer.start(write(&file, i, i as usize, buffer(2 + i as u8, 1)));
    }
    let now = disk.io_count();
    assert_eq!((disk.unsynced(now), disk.in_flight(now)), (3, 3));
    for (survivors, expected) in [
        (Survivors::None, [1, 1, 1]),
        (Survivors::All, [2, 3, 4]),
        (Survivors::Prefix(1), [2, 1, 1]),
        (Survivors::Without(0), [1, 3, 4]),
        (Survivors::Without(1), [2, 1, 4]),
    ] {
        assert_eq!(firsts(&crash(&disk, survivors), 3), expected);
    }
    let random: BTreeSet<_> = (0..200)
        .map(|seed| firsts(&crash(&disk, Survivors::Random(seed)), 3))
        .collect();
    assert_eq!(random.len(), 8, "every subset is drawn");
    assert_eq!(firsts(&disk, 3), [2, 3, 4], "programs see what was begun");
}

/// F3: any of them may be torn, not only the last.
#[test]
fn writes_in_flight_are_torn_each_by_itself() {
    let (disk, file, mut writer) = log();
    for i in 0..3 {
        writer.start(write(&file, i, 2 * i as usize, buffer(2, 2)));
    }
    let mut torn = BTreeSet::new();
    for seed in 0..200 {
        let bytes = crash(&disk, Survivors::Torn { seed }).read_file("log");
        for (i, write) in bytes.chunks(2 * BLOCK).take(3).enumerate() {
            if write.contains(&1) && write.contains(&2) {
                torn.insert(i);
            }
        }
        assert!(bytes[6 * BLOCK..].iter().all(|byte| *byte == 1));
    }
    assert_eq!(torn, BTreeSet::from([0, 1, 2]));
}

/// G2: a finished write is durable, whatever is still in flight before and behind it.
#[test]
fn a_finished_write_is_durable_and_the_others_are_not() {
    let (disk, file, mut writer) = log();
    for i in 0..3 {
        writer.start(write(&file, i, i as usize, buffer(2, 1)));
    }
    disk.finish_order(FinishOrder::Newest);
    assert_eq!(writer.finish().unwrap().tag, 2);
    assert_eq!(firsts(&crash(&disk, Survivors::None), 3), [1, 1, 2]);
    disk.finish_order(FinishOrder::Oldest);
    assert_eq!(writer.finish().unwrap().tag, 0);
    assert_eq!(firsts(&crash(&disk, Survivors::None), 3), [2, 1, 2]);
    for seed in 0..50 {
        let left = firsts(&crash(&disk, Survivors::Random(seed)), 3);
        assert_eq!((left[0], left[2]), (2, 2));
    }
    assert_eq!(writer.finish().unwrap().tag, 1);
    assert_eq!(disk.unsynced(disk.io_count()), 0);
}

#[test]
fn writes_finish_in_the_order_that_was_asked_for() {
    let order = |order| {
        let (disk, file, mut writer) = log();
        disk.finish_order(order);
        for i in 0..3 {
            writer.start(write(&file, i, i as usize, buffer(2, 1)));
        }
        let tags: Vec<u64> = (0..3).map(|_| writer.finish().unwrap().tag).collect();
        tags
    };
    assert_eq!(order(FinishOrder::Oldest), [0, 1, 2]);
    assert_eq!(order(FinishOrder::Newest), [2, 1, 0]);
    let drawn: BTreeSet<_> = (0..100).map(|s| order(FinishOrder::Drawn(s))).collect();
    assert_eq!(drawn.len(), 6);
    assert_eq!(order(FinishOrder::Drawn(5)), order(FinishOrder::Drawn(5)));
}

/// One write in flight has the crash states that a durable write in one call has.
#[test]
fn a_lone_write_crashes_as_a_blocking_one_does() {
    let outcomes = |run: fn(&Arc<dyn DiskFile>, &mut dyn LogWriter)| {
        let (disk, file, mut writer) = log();
        let from = disk.io_count();
        run(&file, &mut *writer);
        let mut all = BTreeSet::new();
        for at in from..=disk.io_count() {
            for survivors in Survivors::enumerate(disk.unsynced(at), 16) {
                all.insert(disk.after_crash(at, &survivors).read_file("log"));
            }
        }
        all
    };
    let blocking = outcomes(|file, _| {
        file.write_durable(0, buffer(2, 2).as_bytes()).unwrap();
    });
    let started = outcomes(|file, writer| {
        writer.start(write(file, 0, 0, buffer(2, 2)));
        writer.finish().unwrap();
    });
    assert!(blocking.len() > 10);
    assert_eq!(blocking, started);
}

/// F7, F9: whichever of its calls a fault strikes, the write's end tells, and its bytes are in doubt.
#[test]
fn a_failed_log_write_is_told_at_its_end() {
    type Fault = fn(&SimDisk);
    let faults: [(&str, Fault); 5] = [
        ("at its start", |disk| {
            disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
        }),
        ("at its end", |disk| {
            disk.fail_once(disk.io_count() + 2, ErrorKind::Other);
        }),
        ("from its start", |disk| {
            disk.fail_from(disk.io_count() + 1, ErrorKind::Other);
        }),
        ("from its end", |disk| {
            disk.fail_from(disk.io_count() + 2, ErrorKind::Other);
        }),
        ("by its kind", |disk| {
            disk.fail_matching(DiskOp::WriteDurable, "log", ErrorKind::Other);
        }),
    ];
    for (when, fault) in faults {
        let (disk, file, mut writer) = log();
        fault(&disk);
        writer.start(write(&file, 7, 3, buffer(2, 1)));
        let error = writer.finish().unwrap_err();
        assert_eq!(error.op, DiskOp::WriteDurable, "{when}");
        assert_eq!(error.offset, Some(3 * BLOCK as u64), "{when}");
        assert_eq!(disk.faults_fired(), 1, "{when}");
        disk.clear_faults();
        assert!(writer.finish().is_err(), "an error is final");
        file.sync().unwrap();
        let left = |survivors| firsts(&crash(&disk, survivors), 4)[3];
        assert_eq!((left(Survivors::None), left(Survivors::All)), (1, 2));
        let mut seen = buffer(0, 1);
        file.read_at(3 * BLOCK as u64, seen.as_mut_bytes()).unwrap();
        assert_eq!(seen.as_bytes()[0], 1, "F17: it is not read past the cache");
        let mut again = disk
            .log_writer(DEPTH, &[], write(&file, 0, 3, buffer(3, 1)))
            .unwrap();
        assert_eq!((left(Survivors::None), left(Survivors::All)), (3, 3));
        again.drain();
    }
}

#[test]
fn a_failed_write_leaves_the_others_to_their_own_ends() {
    let (disk, file, mut writer) = log();
    disk.fail_once(disk.io_count() + 2, ErrorKind::Other);
    for i in 0..3 {
        writer.start(write(&file, i, i as usize, buffer(2, 1)));
    }
    assert_eq!(writer.finish().unwrap().tag, 0);
    writer.finish().unwrap_err();
    assert_eq!(writer.in_flight(), 1);
    assert_eq!(firsts(&crash(&disk, Survivors::None), 3), [2, 1, 1]);
    writer.drain();
    assert_eq!(firsts(&crash(&disk, Survivors::None), 3), [2, 1, 2]);
    assert_eq!(firsts(&crash(&disk, Survivors::All), 3), [2, 2, 2]);
}

#[test]
fn a_sync_does_not_cover_what_is_in_flight() {
    let (disk, file, mut writer) = log();
    writer.start(write(&file, 0, 0, buffer(2, 1)));
    file.write_at(BLOCK as u64, buffer(3, 1).as_bytes())
        .unwrap();
    file.sync().unwrap();
    assert_eq!(firsts(&crash(&disk, Survivors::None), 2), [1, 3]);
    disk.fail_once(disk.io_count() + 1, ErrorKind::Other);
    file.sync().unwrap_err();
    assert_eq!(
        writer.finish().unwrap().tag,
        0,
        "nor a failed one strand it"
    );
    assert_eq!(firsts(&crash(&disk, Survivors::None), 2), [2, 3]);
}

/// F17: a write in flight when the process dies completes, or never began, or stops at a block.
#[test]
fn a_kill_leaves_writes_in_flight_there_or_not() {
    let (disk, file, mut writer) = log();
    file.write_at(8 * BLOCK as u64, buffer(9, 1).as_bytes())
        .unwrap();
    writer.start(write(&file, 0, 0, buffer(2, 2)));
    writer.start(write(&file, 1, 2, buffer(3, 2)));
    let now = disk.io_count();
    assert_eq!(disk.in_flight(now), 2);
    let left = |survivors| {
        let killed = disk.after_kill_leaving(now, &survivors);
        let bytes = firsts(&killed, 9);
        assert_eq!(bytes[8], 9, "what is in the cache stays there");
        let none = killed.after_crash(0, &Survivors::None);
        assert_eq!(firsts(&none, 9), [1; 9], "nothing is durable yet");
        let again = killed.open("log", OpenMode::Log).unwrap();
        again.sync().unwrap();
        let synced = killed.after_crash(killed.io_count(), &Survivors::None);
        assert_eq!(synced.read_file("log"), killed.read_file("log"));
        bytes[..4].to_vec()
    };
    assert_eq!(firsts(&disk.after_kill(now), 4), [2, 2, 3, 3]);
    assert_eq!(left(Survivors::All), [2, 2, 3, 3]);
    assert_eq!(left(Survivors::None), [1, 1, 1, 1]);
    assert_eq!(left(Survivors::Without(0)), [1, 1, 3, 3]);
    assert_eq!(left(Survivors::Prefix(1)), [2, 2, 1, 1]);
    let torn: BTreeSet<_> = (0..50).map(|seed| left(Survivors::Torn { seed })).collect();
    assert!(torn.contains(&vec![2, 2, 3, 1]), "{torn:?}");
    let swapped = |it: &Vec<u8>| it[..2] == [1, 2] || it[2..] == [1, 3];
    assert!(!torn.iter().any(swapped), "a short write has its front");
    assert_eq!(disk.in_flight(now - 1), 1, "the next call was not made");
    while writer.in_flight() > 0 {
        writer.finish().unwrap();
    }
    assert_eq!(disk.in_flight(disk.io_count()), 0);
}

#[test]
fn a_log_write_into_a_hole_may_find_no_room() {
    let disk = SimDisk::new(0);
    let file = disk.open("log", OpenMode::CreateNew).unwrap();
    file.set_len(4 * BLOCK as u64).unwrap();
    file.sync().unwrap();
    disk.set_capacity(Some(2 * BLOCK as u64));
    let log = disk.open("log", OpenMode::Log).unwrap();
    let mut writer = disk
        .log_writer(DEPTH, &[], write(&log, 0, 0, buffer(2, 1)))
        .unwrap();
    writer.start(write(&log, 1, 1, buffer(3, 2)));
    assert!(writer.finish().unwrap_err().is_full(), "F10");
    assert_eq!(disk.room_taken(), 2 * BLOCK as u64);
}

#[test]
fn both_calls_of_a_log_write_are_described() {
    let (disk, file, mut writer) = log();
    let from = disk.io_count();
    writer.start(write(&file, 0, 1, buffer(2, 2)));
    writer.finish().unwrap();
    let describe = |number| disk.describe(number);
    assert_eq!(
        describe(from + 1),
        format!("{}: begin to write and sync log [4096, +8192]", from + 1)
    );
    assert_eq!(
        describe(from + 2),
        format!("{}: write and sync log [4096, +8192]", from + 2)
    );
    drop(writer);
    assert_eq!(disk.io_count(), from + 2);
}

/// What a naive model says of each block: what is durable, and what is on its way.
#[derive(Clone)]
struct Model {
    durable: Vec<u8>,
    aloft: BTreeMap<u64, (usize, usize, u8)>,
}

impl Model {
    /// With those of the writes in flight that `keeps` keeps, by the order of their starts.
    fn with(&self, keeps: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut blocks = self.durable.clone();
        for (i, (block, count, byte)) in self.aloft.values().enumerate() {
            if keeps(i) {
                blocks[*block..block + count].fill(*byte);
            }
        }
        blocks
    }
}

fn check(disk: &SimDisk, at: u64, model: &Model) {
    let units = model.aloft.len();
    assert_eq!(disk.in_flight(at), units, "moment {at}");
    let after = |survivors| firsts(&disk.after_crash(at, &survivors), BLOCKS);
    let killed = |survivors| firsts(&disk.after_kill_leaving(at, &survivors), BLOCKS);
    for (survivors, expected) in [
        (Survivors::None, model.with(|_| false)),
        (Survivors::Prefix(1), model.with(|i| i < 1)),
        (Survivors::Without(0), model.with(|i| i != 0)),
    ] {
        // The call in flight, in a crash, is one more unit than there are in a kill.
        if survivors != Survivors::Without(0) && units > 0 {
            assert_eq!(after(survivors), expected, "moment {at}, {survivors:?}");
        }
        assert_eq!(killed(survivors), expected, "moment {at}, {survivors:?}");
    }
    assert_eq!(killed(Survivors::All), model.with(|_| true), "moment {at}");
}

#[test]
fn every_moment_of_random_flights_is_as_the_model_says() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let (disk, file, mut writer) = log();
        disk.finish_order(FinishOrder::Drawn(seed));
        let mut model = Model {
            durable: vec![1; BLOCKS],
            aloft: BTreeMap::new(),
        };
        let from = disk.io_count();
        let mut history = Vec::new();
        for tag in 0..150 {
            let block = rng.usize(..BLOCKS - 3);
            let count = rng.usize(1..=3);
            let is_free = |(at, n, _): &(usize, usize, u8)| at + n <= block || block + count <= *at;
            let is_room = writer.in_flight() < DEPTH && model.aloft.values().all(is_free);
            if is_room && (writer.in_flight() == 0 || rng.bool()) {
                let byte = rng.u8(2..);
                writer.start(write(&file, tag, block, buffer(byte, count)));
                model.aloft.insert(tag, (block, count, byte));
            } else {
                let written = writer.finish().unwrap();
                let (block, count, byte) = model.aloft.remove(&written.tag).unwrap();
                model.durable[block..block + count].fill(byte);
            }
            history.push(model.clone());
            check(&disk, disk.io_count(), &model);
        }
        // And later, from the recording.
        for (i, model) in history.iter().enumerate() {
            let at = from + 1 + i as u64;
            let none = firsts(&disk.after_crash(at, &Survivors::None), BLOCKS);
            assert_eq!(none, model.durable, "moment {at}");
            let killed = firsts(&disk.after_kill(at), BLOCKS);
            assert_eq!(killed, model.with(|_| true), "moment {at}");
        }
    }
}
