//! What a power loss, or a kill, leaves on the simulated disk: each rule by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use lockstone_base::disk::{AlignedBuf, Disk, DiskFile, FileLock, OpenMode};
use lockstone_testkit::{SimDisk, Survivors};

const BLOCK: usize = 4096;

/// A disk with the durable file `name`.
fn disk_with(name: &str, bytes: &[u8]) -> Arc<SimDisk> {
    let disk = SimDisk::new(0);
    disk.write_file(name, bytes);
    disk
}

fn open(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(name, OpenMode::ReadWrite).unwrap()
}

fn create(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(name, OpenMode::CreateNew).unwrap()
}

fn blocks(count: usize, byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(count * BLOCK);
    buffer.as_mut_bytes().fill(byte);
    buffer
}

/// The disk after a power loss now.
fn crash(disk: &SimDisk, survivors: Survivors) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &survivors)
}

/// Every content that the file may have after a power loss at moment `at`; `None` where it is gone.
fn outcomes(disk: &SimDisk, at: u64, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    Survivors::enumerate(disk.unsynced(at), 32)
        .iter()
        .map(|survivors| {
            let after = disk.after_crash(at, survivors);
            let there = after.names().contains(&name.to_owned());
            there.then(|| after.read_file(name))
        })
        .collect()
}

#[test]
fn unsynced_writes_are_lost_or_kept_each_by_itself() {
    let disk = disk_with("file", b"........");
    let file = open(&disk, "file");
    for (at, byte) in [(0, b"a"), (3, b"b"), (6, b"c")] {
        file.write_at(at, byte).unwrap();
    }
    let now = disk.io_count();
    assert_eq!(disk.unsynced(now), 3);
    for (survivors, expected) in [
        (Survivors::None, "........"),
        (Survivors::All, "a..b..c."),
        (Survivors::Prefix(0), "........"),
        (Survivors::Prefix(2), "a..b...."),
        (Survivors::Without(0), "...b..c."),
        (Survivors::Without(1), "a.....c."),
    ] {
        let after = crash(&disk, survivors);
        assert_eq!(
            after.read_file("file"),
            expected.as_bytes(),
            "{survivors:?}"
        );
        assert_eq!(
            (after.io_count(), after.unsynced(0)),
            (0, 0),
            "all durable, nothing recorded"
        );
    }
    let random: BTreeSet<_> = (0..200)
        .map(|seed| crash(&disk, Survivors::Random(seed)).read_file("file"))
        .collect();
    assert_eq!(random.len(), 8, "every subset is drawn");
}

#[test]
fn synced_bytes_survive_everything() {
    let disk = disk_with("file", b"");
    let file = open(&disk, "file");
    file.write_at(0, b"synced").unwrap();
    file.sync().unwrap();
    let synced = disk.io_count();
    assert_eq!(disk.unsynced(synced), 0);
    assert_eq!(
        outcomes(&disk, synced, "file"),
        BTreeSet::from([Some(b"synced".to_vec())])
    );
    // In flight, the sync decides nothing: before it has returned, anything goes.
    assert!(outcomes(&disk, synced - 1, "file").contains(&Some(Vec::new())));
}

#[test]
fn a_sync_is_of_one_file_and_no_name() {
    let disk = disk_with("other", b"old");
    let file = create(&disk, "file");
    file.write_at(0, b"data").unwrap();
    open(&disk, "other").write_at(0, b"new").unwrap();
    file.sync().unwrap();
    let after = crash(&disk, Survivors::None);
    assert_eq!(after.names(), ["other"], "F15: the name was not synced");
    assert_eq!(after.read_file("other"), b"old");
    disk.sync_dir().unwrap();
    let after = crash(&disk, Survivors::None);
    assert_eq!(after.read_file("file"), b"data");
    assert_eq!(after.read_file("other"), b"old");
}

#[test]
fn a_synced_name_does_not_save_the_content() {
    let disk = SimDisk::new(0);
    create(&disk, "file").write_at(0, b"data").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(crash(&disk, Survivors::None).read_file("file"), b"");
}

/// F4: the length may be durable without the bytes, and then there is anything in their place.
#[test]
fn a_file_may_have_grown_without_its_bytes() {
    let disk = disk_with("file", b"head");
    open(&disk, "file").write_at(4, &[7; 6000]).unwrap();
    let now = disk.io_count();
    assert_eq!(disk.unsynced(now), 2);
    let mut zeros = b"head".to_vec();
    zeros.resize(6004, 0);
    assert_eq!(crash(&disk, Survivors::Prefix(1)).read_file("file"), zeros);
    assert_eq!(
        crash(&disk, Survivors::Without(0)).read_file("file"),
        b"head",
        "bytes without their growth are behind the end"
    );
    let all = outcomes(&disk, now, "file");
    assert!(
        all.iter()
            .flatten()
            .all(|bytes| bytes.starts_with(b"head") && [4, 6004].contains(&bytes.len()))
    );
    let garbage = |bytes: &Vec<u8>| bytes[4..].iter().any(|byte| ![0, 7].contains(byte));
    assert!(all.iter().flatten().any(garbage), "some seed spoils growth");
}

/// Bytes behind the end of a crashed file are gone for good.
#[test]
fn lost_growth_does_not_come_back() {
    let disk = disk_with("file", b"head");
    open(&disk, "file").write_at(4, b"tail").unwrap();
    let after = crash(&disk, Survivors::Without(0));
    open(&after, "file").set_len(8).unwrap();
    assert_eq!(after.read_file("file"), b"head\0\0\0\0");
}

#[test]
fn lengths_are_lost_or_kept() {
    let disk = disk_with("file", b"0123456789");
    let file = open(&disk, "file");
    file.set_len(3).unwrap();
    file.set_len(5).unwrap();
    let contents = |survivors| crash(&disk, survivors).read_file("file");
    assert_eq!(contents(Survivors::None), b"0123456789");
    assert_eq!(contents(Survivors::Prefix(1)), b"012");
    assert_eq!(contents(Survivors::All), b"012\0\0");
    assert_eq!(contents(Survivors::Without(0)), b"0123456789");
    file.sync().unwrap();
    assert_eq!(contents(Survivors::None), b"012\0\0");
}

#[test]
fn a_durable_write_survives_and_takes_nothing_else_along() {
    let disk = disk_with("log", &vec![1; 4 * BLOCK]);
    let log = disk.open("log", OpenMode::Log).unwrap();
    log.write_at(0, blocks(4, 2).as_bytes()).unwrap();
    log.write_durable(BLOCK as u64, blocks(2, 3).as_bytes())
        .unwrap();
    let sums = |survivors| -> Vec<u8> {
        let bytes = crash(&disk, survivors).read_file("log");
        bytes.chunks(BLOCK).map(|block| block[0]).collect()
    };
    assert_eq!(sums(Survivors::None), [1, 3, 3, 1]);
    // The older write comes down around the durable one, never on top of it.
    assert_eq!(sums(Survivors::All), [2, 3, 3, 2]);
    for seed in 0..50 {
        let bytes = crash(&disk, Survivors::Torn { seed }).read_file("log");
        assert!(bytes[BLOCK..3 * BLOCK].iter().all(|byte| *byte == 3));
    }
}

#[test]
fn a_durable_write_survives_an_unsynced_length() {
    let disk = SimDisk::new(0);
    let plain = create(&disk, "log");
    disk.sync_dir().unwrap();
    plain.set_len(4 * BLOCK as u64).unwrap();
    plain.set_len(2 * BLOCK as u64).unwrap();
    let log = disk.open("log", OpenMode::Log).unwrap();
    log.write_durable(BLOCK as u64, blocks(1, 9).as_bytes())
        .unwrap();
    for survivors in [Survivors::None, Survivors::All, Survivors::Random(3)] {
        let bytes = crash(&disk, survivors).read_file("log");
        assert_eq!(bytes.len(), 2 * BLOCK);
        assert_eq!(bytes[BLOCK..], *blocks(1, 9).as_bytes(), "{survivors:?}");
    }
}

/// F3: a write in flight is absent, whole, or torn at its sectors; its neighbours are safe.
#[test]
fn a_write_in_flight_is_torn_at_its_sectors() {
    let disk = disk_with("log", &vec![1; 4 * BLOCK]);
    let before = disk.io_count();
    let log = disk.open("log", OpenMode::Log).unwrap();
    log.write_durable(BLOCK as u64, blocks(2, 2).as_bytes())
        .unwrap();
    assert_eq!(disk.unsynced(before), 1);
    let (mut torn, mut whole_blocks, mut garbage) = (0, 0, 0);
    for bytes in outcomes(&disk, before, "log").into_iter().flatten() {
        assert!(bytes[..BLOCK].iter().all(|byte| *byte == 1));
        assert!(bytes[3 * BLOCK..].iter().all(|byte| *byte == 1));
        let sectors: Vec<BTreeSet<u8>> = bytes[BLOCK..3 * BLOCK]
            .chunks(512)
            .map(|sector| sector.iter().copied().collect())
            .collect();
        let spoiled = sectors.iter().filter(|sector| sector.len() > 1).count();
        garbage += usize::from(spoiled > 0);
        let mixed = |half: &[BTreeSet<u8>]| half.iter().any(|sector| *sector != half[0]);
        torn += usize::from(mixed(&sectors));
        whole_blocks +=
            usize::from(mixed(&sectors) && !mixed(&sectors[..8]) && !mixed(&sectors[8..]));
    }
    assert!(torn > 10 && garbage > 5 && whole_blocks > 0);
    let outcomes = outcomes(&disk, before, "log");
    assert!(outcomes.contains(&Some(vec![1; 4 * BLOCK])), "absent");
    let whole = disk.after_crash(before, &Survivors::All);
    assert_eq!(whole.read_file("log"), disk.read_file("log"));
}

/// F15: created, renamed and removed names are old or new, whatever survives.
#[test]
fn unsynced_names_are_old_or_new() {
    let disk = disk_with("kept", b"kept");
    disk.write_file("target", b"old");
    create(&disk, "created");
    disk.remove("kept").unwrap();
    let fresh = create(&disk, "fresh.tmp");
    fresh.write_at(0, b"new").unwrap();
    fresh.sync().unwrap();
    disk.rename("fresh.tmp", "target").unwrap();
    let now = disk.io_count();
    assert_eq!(disk.unsynced(now), 4);
    assert_eq!(
        outcomes(&disk, now, "target"),
        BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())])
    );
    assert_eq!(
        outcomes(&disk, now, "created"),
        BTreeSet::from([None, Some(Vec::new())])
    );
    assert_eq!(
        outcomes(&disk, now, "kept"),
        BTreeSet::from([None, Some(b"kept".to_vec())])
    );
    for survivors in Survivors::enumerate(4, 32) {
        let after = crash(&disk, survivors);
        let names = after.names();
        let under_both_names =
            names.contains(&"fresh.tmp".to_owned()) && after.read_file("target") == *b"new";
        assert!(!under_both_names, "a rename is one step: {survivors:?}");
    }
    disk.sync_dir().unwrap();
    assert_eq!(crash(&disk, Survivors::None).names(), ["created", "target"]);
}

#[test]
fn a_removed_name_that_comes_back_brings_its_own_file() {
    let disk = disk_with("name", b"first");
    disk.remove("name").unwrap();
    let again = create(&disk, "name");
    again.write_at(0, b"second").unwrap();
    again.sync().unwrap();
    let now = disk.io_count();
    let (first, second) = (Some(b"first".to_vec()), Some(b"second".to_vec()));
    assert_eq!(
        outcomes(&disk, now, "name"),
        BTreeSet::from([None, first, second])
    );
}

/// The crashed disk is another disk: the old one's handles, locks and faults do not reach it.
#[test]
fn a_crash_releases_locks_and_leaves_handles_behind() {
    let disk = disk_with("lock", b"old");
    let held = open(&disk, "lock");
    assert!(held.try_lock(FileLock::Exclusive).unwrap());
    disk.fail_from(1, ErrorKind::Other);
    for after in [crash(&disk, Survivors::None), disk.after_kill(1)] {
        let file = open(&after, "lock");
        assert!(file.try_lock(FileLock::Exclusive).unwrap());
        file.write_at(0, b"new").unwrap();
        file.sync().unwrap();
        assert_eq!(disk.read_file("lock"), b"old");
    }
}

/// F17: a kill leaves the cache, and nothing in it is durable before a sync.
#[test]
fn a_kill_leaves_the_cache_unsynced() {
    let disk = disk_with("file", b"old");
    let file = open(&disk, "file");
    file.write_at(0, b"new").unwrap();
    create(&disk, "created");
    let killed = disk.after_kill(disk.io_count());
    assert_eq!(killed.read_file("file"), b"new");
    assert_eq!(killed.names(), ["created", "file"]);
    let lost = killed.after_crash(0, &Survivors::None);
    assert_eq!(lost.read_file("file"), b"old");
    assert_eq!(lost.names(), ["file"]);
    open(&killed, "file").sync().unwrap();
    killed.sync_dir().unwrap();
    let saved = crash(&killed, Survivors::None);
    assert_eq!(saved.read_file("file"), b"new");
    assert_eq!(saved.names(), ["created", "file"]);
    assert_eq!(
        disk.after_kill(1).read_file("file"),
        b"old",
        "a kill at an earlier moment"
    );
}

/// F22: a crashed disk records, and crashes, like any other.
#[test]
fn a_crashed_disk_crashes_again() {
    let disk = disk_with("file", b"0");
    open(&disk, "file").write_at(0, b"1").unwrap();
    let once = crash(&disk, Survivors::All);
    let file = open(&once, "file");
    file.write_at(1, b"2").unwrap();
    file.sync().unwrap();
    file.write_at(2, b"3").unwrap();
    let twice = crash(&once, Survivors::None);
    assert_eq!(twice.read_file("file"), b"12");
    assert_eq!(
        once.after_crash(0, &Survivors::None).read_file("file"),
        b"1"
    );
}

#[test]
fn a_tests_own_hand_is_durable() {
    let disk = disk_with("file", b"abcdef");
    open(&disk, "file").write_at(0, b"X").unwrap();
    disk.flip_byte("file", 1);
    disk.truncate("file", 4);
    let expected = [b'X', !b'b', b'c', b'd'];
    assert_eq!(disk.read_file("file"), expected);
    assert_eq!(crash(&disk, Survivors::None).read_file("file"), expected);
    disk.remove_file("file");
    assert_eq!(crash(&disk, Survivors::None).names(), Vec::<String>::new());
    assert_eq!(
        disk.after_crash(2, &Survivors::None).read_file("file"),
        b"abcdef",
        "moments before it are as they were"
    );
}

#[test]
fn the_choices_cover_every_single_loss() {
    assert_eq!(Survivors::enumerate(0, 9), [Survivors::None]);
    assert_eq!(
        Survivors::enumerate(3, 1),
        [
            Survivors::None,
            Survivors::All,
            Survivors::Prefix(1),
            Survivors::Prefix(2),
            Survivors::Without(0),
            Survivors::Without(1),
            Survivors::Random(0),
            Survivors::Torn { seed: 0 },
        ]
    );
}

#[test]
fn calls_are_described() {
    let disk = disk_with("log", &[0; 8]);
    open(&disk, "log").write_at(4, b"data").unwrap();
    disk.fail_once(3, ErrorKind::StorageFull);
    disk.rename("log", "other").unwrap_err();
    assert_eq!(disk.describe(2), "2: write log [4, +4]");
    assert_eq!(disk.describe(3), "3: rename log: no storage space");
    assert_eq!(disk.describe(4), "4: no call");
}

#[test]
fn what_went_bad_below_the_cache_is_seen_past_it_and_behind_a_power_loss() {
    let disk = disk_with("f", &[7; 2 * BLOCK]);
    let before = disk.io_count();
    // Moments before it has gone bad know nothing of it.
    open(&disk, "f").sync().unwrap();
    disk.flip_byte_below_cache("f", 5);
    let read = |disk: &SimDisk| disk.read_file("f")[5];
    let now = disk.io_count();
    assert_eq!(read(&disk), 7, "the cache has it");
    let log = disk.open("f", OpenMode::LogRead).unwrap();
    let mut buffer = AlignedBuf::zeroed(BLOCK);
    log.read_at(0, buffer.as_mut_bytes()).unwrap();
    assert_eq!(buffer.as_bytes()[4..7], [7, !7, 7]);
    assert_eq!(read(&disk.after_crash(now, &Survivors::All)), !7);
    assert_eq!(read(&disk.after_crash(before, &Survivors::All)), 7);
    for (moment, below) in [(before, 7), (now, !7)] {
        let killed = disk.after_kill(moment);
        assert_eq!(read(&killed), 7, "a kill leaves the cache");
        open(&killed, "f").forget_cached(0, 6);
        assert_eq!(read(&killed), below);
    }
}
