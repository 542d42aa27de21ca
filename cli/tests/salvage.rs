//! Saving what can be read, sizes, and looks into a run.
#![expect(
    clippy::disallowed_methods,
    reason = "the test damages files; no engine code runs here"
)]

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use program::{SMALL, in_order, path, run, shell};
use serde_json::Value;

/// A database with two tables and a run.
fn made(dir: &Path) -> PathBuf {
    let db = dir.join("db");
    let puts: Vec<_> = (0..300)
        .map(|key| format!("s1 put one key{key:03} {}", "v".repeat(40)))
        .collect();
    let puts = puts.join("\n");
    shell(
        &db,
        &format!("create one\ncreate two\nbegin s1\n{puts}\ns1 put two a 1\ns1 commit\n"),
    );
    db
}

fn the_run(db: &Path) -> PathBuf {
    let entries = fs::read_dir(db)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let mut runs = entries.filter(|path| path.to_string_lossy().contains("/run-"));
    runs.next().expect("a run")
}

fn flip(file: &Path, offset: usize) {
    let mut bytes = fs::read(file).expect("a file");
    *bytes.get_mut(offset).expect("it is that long") ^= 1;
    fs::write(file, bytes).expect("written");
}

#[test]
fn what_was_lost_is_told_and_the_rest_is_saved() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = made(dir.path());
    let to = |name: &str| dir.path().join(name);
    let save = |to: &Path, json: bool| {
        let mut words = vec!["salvage", path(&db), path(to)];
        words.extend(SMALL);
        words.extend(json.then_some("--json"));
        run(&words)
    };
    let said = save(&to("whole"), false).well();
    in_order(
        &said,
        &[
            "manifest generation",
            "read 1 run",
            "saved one: 300 rows",
            "saved two: 1 row",
            "nothing is lost",
        ],
    );
    in_order(
        &run(&["check", path(&to("whole"))]).well(),
        &["all is well"],
    );

    flip(&the_run(&db), 5_000);
    assert!(run(&["check", path(&db)]).badly().contains("1 finding"));
    let damaged = save(&to("damaged"), false);
    in_order(
        &damaged.stdout,
        &[
            "saved one:",
            "checksum of the block",
            "rows from one/key087 to one/key173 may be missing or old",
        ],
    );
    let complaint = damaged.badly();
    assert!(
        complaint.contains(": 1 loss; what could be read is in "),
        "{complaint}"
    );
    let again = save(&to("json"), true);
    let report: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(report["losses"].as_array().expect("a list").len(), 1);
    let rows = report["tables"]["one"].as_u64().expect("a number");
    assert!(rows > 100 && rows < 300, "{rows}");
    assert_eq!(report["tables"]["two"], 1);
}

#[test]
fn a_run_shows_itself_its_blocks_and_its_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = made(dir.path());
    let file = the_run(&db);
    let said = run(&["dump-run", path(&file)]).well();
    in_order(
        &said,
        &[
            "of database",
            "blocks, filter at",
            "filter intact",
            "301 versions of 301 rows, 0 tombstones",
            "#1/key000 to #2/a",
            "block offset bytes versions last row",
        ],
    );
    let rows = run(&["dump-run", path(&file), "--rows", "--limit", "2"]).well();
    in_order(&rows, &["#1/key000 @", "#1/key001 @"]);
    assert!(!rows.contains("key002 @"), "{rows}");
    let lines = run(&["dump-run", path(&file), "--rows", "--json"]).well();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.first().expect("a head")["versions"], 301);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.get("stamp").is_some())
            .count(),
        301
    );

    flip(&file, 5_000);
    let damaged = run(&["dump-run", path(&file)]);
    in_order(&damaged.stdout, &["finding:", "hides rows from #1/key"]);
    assert!(damaged.badly().contains("1 damaged section"));
    let complaint = run(&["dump-run", path(&db.join("lock"))]).badly();
    assert!(complaint.contains("no file of its kind"), "{complaint}");
}

#[test]
fn sizes_are_told_by_level_and_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = made(dir.path());
    let said = run(&["stats", path(&db)]).well();
    in_order(
        &said,
        &[
            "database",
            "manifest generation",
            "in 1 run: 301 versions",
            "level 0",
            "log",
            "2 tables",
            "one",
            "two",
        ],
    );
    let stats: Value =
        serde_json::from_str(&run(&["stats", path(&db), "--json"]).well()).expect("JSON");
    assert_eq!(
        (&stats["runs"], &stats["versions"]),
        (&Value::from(1), &Value::from(301))
    );
    let rows = stats["tables"][0]["rows"].as_u64().expect("a number");
    assert!((290..=300).contains(&rows), "{rows}");
}
