//! The demo itself: real kills of real processes, and the count of what was kept.

mod program;

use program::{SMALL, in_order, path, run};
use serde_json::Value;

fn demo(arguments: &[&str]) -> Vec<String> {
    let all = ["demo"].iter().chain(arguments).chain(&SMALL);
    all.map(ToString::to_string).collect()
}

#[test]
fn a_killed_engine_keeps_every_acknowledged_commit_and_no_lock() {
    let arguments = demo(&["--seconds", "0.5", "--rounds", "2", "--json"]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let said = run(&arguments).well();
    assert_eq!(
        said.lines().count(),
        1,
        "one object and nothing else: {said}"
    );
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let number = |field: &str| {
        said[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} in {said}"))
    };
    assert_eq!(
        (said["ok"].as_bool(), said["sum_ok"].as_bool()),
        (Some(true), Some(true))
    );
    assert_eq!(number("rounds"), 2);
    assert!(number("kills") >= 2);
    assert!(
        number("acked") > 0 && number("committed_found") >= number("acked"),
        "{said}"
    );
    assert_eq!(
        (
            number("lost"),
            number("leaked_locks"),
            number("resurrected")
        ),
        (0, 0, 0)
    );
    // The first round kills a process at work, which holds that many.
    assert!(
        number("in_flight") >= 4 && number("locks_in_flight") >= 10_000,
        "{said}"
    );
    assert_eq!(said["recovery_us"].as_array().map(Vec::len), Some(2));
    let dir = said["dir"].as_str().expect("a path");
    assert!(
        !std::path::Path::new(dir).exists(),
        "a temporary directory is removed"
    );
}

#[test]
fn the_demo_tells_what_it_does_and_a_second_one_goes_on_with_its_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = demo(&["--seconds", "0.3", "--dir", path(dir.path())]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    for _ in 0..2 {
        let said = run(&arguments).well();
        in_order(
            &said,
            &[
                path(dir.path()),
                "session 1 get k1 for update v1",
                "session 2 put k1 v1.1 refused: Operation failed. Try again.: ",
                "session 1 commit committed at LSN",
                "Round 1 of 1",
                "4 transactions left open with 10 000 row locks",
                "killed with SIGKILL",
                "in flight",
                "reservation-0",
                "ok no lock is left",
                "that were acknowledged is there",
                "ok the 1 000 accounts add up to 1 000 000",
                "1 round, 1 kill: ",
            ],
        );
        assert!(!said.contains("FAILED"), "{said}");
    }
    run(&["check", path(dir.path())]).well();
}

#[test]
fn a_database_that_the_demo_did_not_make_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    program::shell(
        dir.path(),
        "create accounts\nbegin s1\ns1 put accounts alice 100\ns1 commit\n",
    );
    let error = run(&["demo", "--dir", path(dir.path())]).badly();
    assert!(error.contains("not made by the demo"), "{error}");
    let said = program::shell(dir.path(), "tables\nbegin s1\ns1 scan accounts\n");
    in_order(&said, &["accounts", "s1: alice = 100", "s1: 1 row"]);
}
