//! Bad input gives an error that says what and where, and loses nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

mod machine;

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use lockstone::{
    Database, Error, KEY_BYTES_MAX, LockMode, Options, Outcome, TxnOptions, VALUE_BYTES_MAX,
};
use lockstone_base::disk::DiskOp;
use lockstone_testkit::SimDisk;
use machine::{no_wait, open, ports, smallest};

fn fails(options: Options, path: &Path) -> (Error, String) {
    let error = options.open(path).unwrap_err();
    let text = error.to_string();
    (error, text)
}

#[test]
fn a_file_is_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let (error, text) = fails(smallest(), &file);
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert!(
        text.contains("notes.txt") && text.contains("a file"),
        "{text}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_directory_with_other_files_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let (error, text) = fails(smallest(), dir.path());
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was created"
    );
}

#[test]
fn nothing_is_created_where_that_was_not_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let (error, text) = fails(smallest().create(false), &absent);
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert!(text.contains("absent"), "{text}");
    assert!(!absent.exists());
    let (error, _) = fails(smallest(), &absent.join("below"));
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    let (error, _) = fails(smallest().create(false), dir.path());
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn newest_manifest(disk: &SimDisk) -> String {
    disk.names()
        .into_iter()
        .rfind(|name| name.starts_with("manifest-"))
        .unwrap()
}

/// The manifest as a later version would write it: its prefix is the same in every version.
fn of_a_later_version(manifest: &[u8]) -> Vec<u8> {
    let (magic, rest) = manifest.split_at(8);
    let (version, rest) = rest.split_at(4);
    let (_, behind_checksum) = rest.split_at(4);
    let (salt, generation, body) = (
        &behind_checksum[..8],
        &behind_checksum[8..16],
        &behind_checksum[16..],
    );
    let later = (u32::from_le_bytes(version.try_into().unwrap()) + 1).to_le_bytes();
    let (section, number) = (6u32.to_le_bytes(), 0u64.to_le_bytes());
    let covered = [salt, generation, &section, &number, magic, &later, body].concat();
    let checksum = crc32fast::hash(&covered).to_le_bytes();
    [magic, &later, &checksum, behind_checksum].concat()
}

#[test]
fn a_newer_version_is_named() {
    let disk = SimDisk::new(1);
    drop(open(&disk).unwrap());
    let name = newest_manifest(&disk);
    let bytes = of_a_later_version(&disk.read_file(&name));
    disk.write_file(&name, &bytes);
    let error = open(&disk).unwrap_err();
    let Error::NewerVersion {
        file,
        found,
        supported,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(file.ends_with(&name) && *found == supported + 1, "{error}");
    assert_eq!(disk.read_file(&name), bytes, "nothing was changed");
}

#[test]
fn a_damaged_or_missing_manifest_is_named_and_never_replaced() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    db.create_table("t").unwrap();
    db.close().unwrap();
    let name = newest_manifest(&disk);
    disk.flip_byte(&name, 40);
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { file, .. } if file.ends_with(&name)),
        "{error:?}"
    );

    for name in disk
        .names()
        .into_iter()
        .filter(|name| name.starts_with("manifest-"))
    {
        disk.remove_file(&name);
    }
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("manifest"), "{error}");
}

#[test]
fn an_older_manifest_put_back_is_noticed() {
    let disk = SimDisk::new(1);
    drop(open(&disk).unwrap());
    drop(open(&disk).unwrap());
    disk.remove_file(&newest_manifest(&disk));
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_refused_permission_names_the_file() {
    let disk = SimDisk::new(1);
    drop(open(&disk).unwrap());
    disk.fail_matching(DiskOp::Open, "lock", ErrorKind::PermissionDenied);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, Error::Io(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("open") && text.contains("lock") && text.contains("permission denied"),
        "{text}"
    );
    disk.clear_faults();
    open(&disk).unwrap();
}

#[test]
fn a_second_open_is_refused_and_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = smallest().open(&path).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for second in [&path, &link] {
        let (error, text) = fails(smallest(), second);
        assert!(
            matches!(error, Error::Locked { pid: Some(_), .. }),
            "{error:?}"
        );
        assert!(text.contains(&std::process::id().to_string()), "{text}");
    }
    let error = lockstone::inspect::Inspection::open(&path).unwrap_err();
    assert!(
        matches!(error, Error::Locked { pid: Some(_), .. }),
        "{error:?}"
    );
    let other_handle = db.clone();
    db.close().unwrap();
    // Closed, though a handle is left: the directory is free.
    let db = smallest().open(&link).unwrap();
    assert!(matches!(
        other_handle.begin().get(&other_handle_table(&db), "k"),
        Err(Error::Closed)
    ));
    assert!(matches!(other_handle.close(), Err(Error::Closed)));
    db.close().unwrap();
}

fn other_handle_table(db: &Database) -> lockstone::Table {
    db.create_table("t").unwrap()
}

#[test]
fn keys_and_values_outside_their_limits_leave_no_trace() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    let long_key = vec![b'k'; KEY_BYTES_MAX + 1];
    let long_value = vec![0; VALUE_BYTES_MAX + 1];
    let errors = [
        txn.put(&t, "", "v").unwrap_err(),
        txn.get(&t, "").unwrap_err(),
        txn.lock(&t, &long_key, LockMode::Share).unwrap_err(),
        txn.put(&t, &long_key, "v").unwrap_err(),
        txn.put(&t, "k", &long_value).unwrap_err(),
        txn.insert_new(&t, "k", &long_value).unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
    }
    assert!(matches!(errors[0], Error::KeyEmpty));
    assert!(matches!(
        errors[2],
        Error::KeyTooLong {
            bytes: 4097,
            max: 4096
        }
    ));
    assert!(matches!(errors[4], Error::ValueTooLong { .. }));
    assert!(errors[4].to_string().contains(&VALUE_BYTES_MAX.to_string()));
    assert_eq!(db.locks().count(), 0);
    let longest = &long_key[1..];
    txn.put(&t, longest, "").unwrap();
    txn.commit().unwrap();
    assert_eq!(db.begin().get(&t, longest).unwrap().unwrap(), b"");
}

#[test]
fn a_table_of_another_database_is_refused() {
    let (one, two) = (
        open(&SimDisk::new(1)).unwrap(),
        open(&SimDisk::new(2)).unwrap(),
    );
    let foreign = two.create_table("theirs").unwrap();
    let mut txn = one.begin();
    let error = txn.put(&foreign, "k", "v").unwrap_err();
    assert!(
        matches!(&error, Error::ForeignTable { name } if name == "theirs"),
        "{error:?}"
    );
    assert_eq!(error.outcome(), Outcome::Unchanged);
    assert!(matches!(
        one.snapshot().get(&foreign, "k"),
        Err(Error::ForeignTable { .. })
    ));
    assert!(one.table("theirs").is_none());
}

#[test]
fn options_out_of_range_are_said_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (error, text) = fails(smallest().log_bytes(1), dir.path());
    assert!(
        matches!(error, Error::InvalidArgument { .. }) && text.contains("log_bytes"),
        "{text}"
    );
    let db = open(&SimDisk::new(1)).unwrap();
    for name in ["", "a\nb", &"x".repeat(256)] {
        assert!(
            matches!(db.create_table(name), Err(Error::InvalidArgument { .. })),
            "{name:?}"
        );
    }
    // `begin_with` never fails: the first call says it, and each later one.
    let txn = db.begin_with(TxnOptions::new().label("x".repeat(300)));
    let t = db.create_table("t").unwrap();
    for _ in 0..2 {
        assert!(matches!(
            txn.get(&t, "k"),
            Err(Error::InvalidArgument { .. })
        ));
    }
    assert!(matches!(txn.commit(), Err(Error::InvalidArgument { .. })));
}

#[test]
fn a_closed_database_answers_closed_everywhere() {
    let disk = SimDisk::new(1);
    let db = open(&disk).unwrap();
    let t = db.create_table("t").unwrap();
    let mut txn = db.begin_with(no_wait());
    txn.put(&t, "k", "v").unwrap();
    let snapshot = db.snapshot();
    let clone = db.clone();
    db.close().unwrap();
    assert!(matches!(txn.get(&t, "k"), Err(Error::Closed)));
    assert!(matches!(txn.put(&t, "k", "v"), Err(Error::Closed)));
    assert!(matches!(txn.commit(), Err(Error::Closed)));
    assert!(matches!(snapshot.get(&t, "k"), Err(Error::Closed)));
    assert!(matches!(clone.create_table("u"), Err(Error::Closed)));
    assert!(matches!(clone.begin().get(&t, "k"), Err(Error::Closed)));
    assert!(matches!(clone.locks().next(), Some(Err(Error::Closed))));
    assert!(matches!(clone.check(), Err(Error::Closed)));
    let db = smallest().open_with(ports(&disk)).unwrap();
    let t = db.table("t").unwrap();
    assert!(
        db.begin().get(&t, "k").unwrap().is_none(),
        "what was live at the close was rolled back"
    );
}

/// Handles were printed with the whole engine behind them: rows, keys, the log's salt.
#[test]
fn printing_a_handle_shows_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new()
        .redact(true)
        .segment_bytes(1 << 20)
        .log_bytes(4 << 20)
        .open(dir.path().join("db"))
        .unwrap();
    let table = db.create_table("t").unwrap();
    let mut txn = db.begin();
    txn.put(&table, "the-key", "the-value").unwrap();
    let mut printed = format!("{db:?} {table:?} {txn:?} {:?}", db.snapshot());
    let ticket = txn.commit_async();
    write!(printed, "{ticket:?} {db:?}").unwrap();
    ticket.wait().unwrap();
    write!(printed, "{:?}", db.snapshot()).unwrap();
    let shown = |bytes: &[u8]| printed.contains(&format!("{bytes:?}").replace(['[', ']'], ""));
    for secret in ["the-key", "the-value"] {
        assert!(
            !printed.contains(secret) && !shown(secret.as_bytes()),
            "{printed}"
        );
    }
    assert!(printed.len() < 4000, "{printed}");
}
