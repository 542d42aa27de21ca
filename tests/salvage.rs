//! Salvage: everything that can be read comes over, what cannot is told to the row, nothing is made up.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and damages files itself"
)]

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lockstone::inspect::{SalvageReport, salvage};
use lockstone::{Database, Error};
use machine::small_and_real;

type Rows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

fn rows(db: &Database) -> Rows {
    let snapshot = db.snapshot();
    let mut found = Rows::new();
    for t in db.tables() {
        for row in snapshot.range(&t, ..).unwrap() {
            let (key, value) = row.unwrap();
            found.insert((t.name().to_owned(), key.into()), value.into());
        }
    }
    found
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

fn file(dir: &Path, prefix: &str) -> PathBuf {
    let name = files(dir)
        .into_keys()
        .filter(|name| name.starts_with(prefix))
        .max();
    dir.join(name.unwrap())
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// A directory as a crash leaves it: one large run, a small one, and commits in the log alone. Everything that was
/// ever committed, and what is there now.
fn crashed() -> (tempfile::TempDir, PathBuf, Rows, BTreeSet<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small_and_real().open(&path).unwrap();
    let mut ever = BTreeSet::new();
    let (one, two) = (
        db.create_table("one").unwrap(),
        db.create_table("two").unwrap(),
    );
    let gone = db.create_table("gone").unwrap();
    for (t, name) in [(&one, "one"), (&two, "two"), (&gone, "gone")] {
        let mut txn = db.begin();
        for key in 0..400_u32 {
            let value = format!("{name} {key} {}", "x".repeat(60)).into_bytes();
            txn.put(t, key.to_be_bytes(), &value).unwrap();
            ever.insert(value);
        }
        txn.commit().unwrap();
    }
    db.drop_table(&gone).unwrap();
    db.compact().unwrap();
    let mut put = |keys: std::ops::Range<u32>, value: &str| {
        let mut txn = db.begin();
        for key in keys {
            txn.put(&one, key.to_be_bytes(), value).unwrap();
            ever.insert(value.into());
        }
        txn.delete(&two, 7_u32.to_be_bytes()).unwrap();
        txn.commit().unwrap();
    };
    put(10..20, "second");
    // A checkpoint, by way of a copy.
    db.backup(dir.path().join("unused")).unwrap();
    put(15..25, "in the log");
    let mut open = db.begin();
    open.put(&one, "open", "never").unwrap();
    put(30..31, "later in the log");
    let expected = rows(&db);
    let lying = dir.path().join("lying");
    fs::create_dir(&lying).unwrap();
    for (name, bytes) in files(&path) {
        fs::write(lying.join(name), bytes).unwrap();
    }
    open.abort();
    (dir, lying, expected, ever)
}

fn saved(from: &Path) -> (SalvageReport, Rows) {
    let to = from.with_file_name("saved");
    drop(fs::remove_dir_all(&to));
    let before = files(from);
    let report = salvage(from, &to, small_and_real()).unwrap();
    assert!(files(from) == before, "the source is not changed");
    let db = small_and_real().create(false).open(&to).unwrap();
    assert!(db.check().unwrap().is_clean());
    let found = rows(&db);
    let counted: u64 = report.tables.values().sum();
    assert_eq!(counted, found.len() as u64);
    (report, found)
}

#[test]
fn what_is_whole_comes_over_as_it_is() {
    let (_dir, path, expected, _) = crashed();
    let (report, found) = saved(&path);
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    assert!(report.manifest.is_some() && report.commits > 0 && report.runs > 0);
    assert!(found == expected);
    assert_eq!(report.tables.keys().collect::<Vec<_>>(), ["one", "two"]);
    // It never writes where anything is.
    let error = salvage(&path, &path, small_and_real()).unwrap_err();
    assert!(matches!(error, Error::DirectoryNotEmpty { .. }), "{error}");
    let empty = path.with_file_name("empty");
    fs::create_dir(&empty).unwrap();
    let error = salvage(&empty, &path.with_file_name("x"), small_and_real()).unwrap_err();
    assert!(matches!(error, Error::NotADatabase { .. }), "{error}");
}

#[test]
fn a_damaged_block_costs_the_rows_that_are_named_and_no_others() {
    let (_dir, path, expected, _) = crashed();
    let largest = files(&path)
        .into_iter()
        .filter(|(name, _)| name.starts_with("run-"));
    let largest = largest.max_by_key(|(_, bytes)| bytes.len()).unwrap().0;
    flip(&path.join(&largest), 9_000);
    let error = small_and_real()
        .open(&path)
        .and_then(|db| Ok(db.check()?.is_clean()));
    assert!(matches!(error, Ok(false)), "{error:?}");
    let (report, found) = saved(&path);
    let [loss] = &report.losses[..] else {
        panic!("{:?}", report.losses)
    };
    assert!(
        loss.file.ends_with(&largest) && loss.offset.is_some(),
        "{loss:?}"
    );
    assert!(loss.what.contains("checksum"), "{loss:?}");
    let shown = |(table, key): &(String, Vec<u8>)| format!("{table}/{}", key.escape_ascii());
    let (first, last) = (
        loss.first_row.clone().unwrap(),
        loss.last_row.clone().unwrap(),
    );
    let keys: Vec<_> = expected.keys().map(shown).collect();
    let (from, to) = (position(&keys, &first), position(&keys, &last));
    for (at, (row, value)) in expected.iter().enumerate() {
        match found.get(row) {
            Some(found) => assert_eq!(found, value),
            None => assert!((from..=to).contains(&at), "{} was lost", shown(row)),
        }
    }
    let lost = expected.len() - found.len();
    assert!(lost > 0 && lost < 60, "{lost} rows were lost");
}

fn position(keys: &[String], key: &str) -> usize {
    keys.iter()
        .position(|other| other == key)
        .unwrap_or_else(|| panic!("{key} is no row"))
}

#[test]
fn without_its_newest_manifest_everything_is_there_and_the_doubt_is_told() {
    let (_dir, path, expected, _) = crashed();
    let newest = file(&path, "manifest-");
    let bytes = fs::read(&newest).unwrap();
    flip(&newest, 50);
    let (report, found) = saved(&path);
    assert!(found == expected, "damaged");
    assert!(
        report.losses.iter().any(|loss| loss.file == newest),
        "{:?}",
        report.losses
    );
    assert!(
        report
            .losses
            .iter()
            .any(|loss| loss.what.contains("may be back"))
    );
    // Gone without a trace, but for the frames of the log that name it.
    fs::remove_file(&newest).unwrap();
    let (report, found) = saved(&path);
    assert!(found == expected, "gone");
    assert!(
        report
            .losses
            .iter()
            .any(|loss| loss.what.contains("may be back")),
        "{:?}",
        report.losses
    );
    fs::write(&newest, bytes).unwrap();
    assert!(saved(&path).0.losses.is_empty());
}

/// What a commit has adopted does not say so of itself.
#[test]
fn what_was_adopted_is_found_by_an_older_manifest_or_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = || small_and_real().provisional_bytes(256 << 10).open(&path);
    let db = open().unwrap();
    let t = db.create_table("t").unwrap();
    db.transact(|txn| {
        for number in 0..60_u32 {
            txn.put(&t, number.to_be_bytes(), vec![7; 10_000])?;
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    assert!(db.stats().spills > 0);
    db.close().unwrap();
    // Each open writes a manifest.
    let db = open().unwrap();
    let expected = rows(&db);
    assert_eq!(expected.len(), 60);
    db.close().unwrap();
    let spill = file(&path, "spill-");
    flip(&file(&path, "manifest-"), 50);
    let (report, found) = saved(&path);
    assert!(
        found == expected,
        "{} of 60: {:?}",
        found.len(),
        report.losses
    );
    assert!(report.losses.iter().all(|loss| loss.file != spill));
    for name in files(&path).into_keys() {
        if name.starts_with("manifest-") || name.starts_with("wal-") {
            fs::remove_file(path.join(name)).unwrap();
        }
    }
    let (report, found) = saved(&path);
    assert!(found.len() < 60);
    assert!(
        report.losses.iter().any(|loss| loss.file == spill),
        "{:?}",
        report.losses
    );
}

/// No manifest at all: runs describe themselves, and the log is read from its first frame.
#[test]
fn runs_and_log_alone_give_the_rows_without_the_names() {
    let (_dir, path, expected, _) = crashed();
    for name in files(&path)
        .into_keys()
        .filter(|name| name.starts_with("manifest-"))
    {
        fs::remove_file(path.join(name)).unwrap();
    }
    fs::remove_file(path.join("lock")).unwrap();
    let (report, found) = saved(&path);
    assert_eq!(report.manifest, None);
    let values = |rows: &Rows| rows.values().cloned().collect::<Vec<_>>();
    assert!(
        values(&found) == values(&expected),
        "{} of {}: {:?}",
        found.len(),
        expected.len(),
        report.losses
    );
}

#[test]
fn a_damaged_log_gives_the_commits_before_the_damage() {
    let (_dir, path, expected, _) = crashed();
    let log = file(&path, "wal-00");
    let bytes = fs::read(&log).unwrap();
    let at = bytes
        .windows(16)
        .rposition(|window| window == b"later in the log")
        .unwrap();
    flip(&log, at);
    let (report, found) = saved(&path);
    assert!(!report.losses.is_empty());
    let row = |key: u32| ("one".to_owned(), key.to_be_bytes().to_vec());
    assert_eq!(found[&row(24)], b"in the log");
    assert_ne!(found[&row(30)], b"later in the log");
    assert_eq!(found.len(), expected.len());
}

/// Wherever a byte is flipped: no panic, nothing that was never written, and a loss is told if a row differs.
#[test]
fn a_flipped_byte_anywhere_is_survived_and_told() {
    let (_dir, path, expected, ever) = crashed();
    let mut state = 1_u64;
    for (name, bytes) in files(&path) {
        if name == "lock" || name.starts_with("wal-spare") {
            continue;
        }
        for _ in 0..5 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Of the log, where there is something.
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let at = (state >> 33) as usize % end;
            flip(&path.join(&name), at);
            let (report, found) = saved(&path);
            assert!(
                found.values().all(|value| ever.contains(value)),
                "{name} at {at}"
            );
            let is_told = found == expected || !report.losses.is_empty();
            // What was written last may be a torn write as well: no later frame covers it.
            assert!(
                is_told || name.starts_with("wal-"),
                "{name} at {at}: {} rows",
                found.len()
            );
            fs::write(path.join(&name), &bytes).unwrap();
        }
    }
}
