//! What keeps a database in order: copies, compaction.
#![expect(
    clippy::disallowed_methods,
    reason = "the test looks at files; no engine code runs here"
)]

mod program;

use std::fs;

use program::{SMALL, in_order, path, run, shell};

fn with_small(words: &[&str]) -> program::Ran {
    run(&[words, &SMALL].concat())
}

#[test]
fn a_copy_is_a_database_with_the_same_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, copy) = (dir.path().join("db"), dir.path().join("copy"));
    shell(
        &db,
        "create accounts\nbegin s1\ns1 put accounts alice 5\ns1 commit\n",
    );
    let said = with_small(&["backup", path(&db), path(&copy)]).well();
    in_order(&said, &[" bytes in 1 run to "]);
    in_order(
        &run(&["check", path(&copy)]).well(),
        &["closed in order", "1 run", "all is well"],
    );
    let said = shell(&copy, "begin s1\ns1 get accounts alice\n");
    in_order(&said, &["s1: 5"]);
    let complaint = with_small(&["backup", path(&db), path(&copy)]).badly();
    assert!(complaint.contains("is not empty"), "{complaint}");
    let nothing = dir.path().join("nothing");
    let complaint = with_small(&["backup", path(&nothing), path(&dir.path().join("x"))]).badly();
    assert!(
        complaint.contains("is not a Lockstone database"),
        "{complaint}"
    );
    assert!(!nothing.exists());
}

#[test]
fn compaction_makes_one_level_of_many_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let rounds = 3;
    for round in 0..rounds {
        let script = format!("create t\nbegin s1\ns1 put t k {round}\ns1 commit\n");
        shell(dir.path(), &script);
    }
    let runs = || {
        let names = fs::read_dir(dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("run-"))
            .count()
    };
    assert_eq!(runs(), rounds);
    let said = with_small(&["compact", path(dir.path())]).well();
    in_order(&said, &["bytes in 3 runs", "bytes in 1 run"]);
    assert_eq!(runs(), 1);
    in_order(&shell(dir.path(), "begin s1\ns1 get t k\n"), &["s1: 2"]);
}
