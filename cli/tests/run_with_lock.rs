//! `run-with-lock`: one at a time, the command's own exit code, and nobody in before a lease is over.
#![expect(
    clippy::disallowed_methods,
    reason = "the test starts processes and has a clock; no engine code runs here"
)]

mod program;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use program::{Ran, lockstone, path, run};

fn under_lock(dir: &Path, options: &[&str], command: &[&str]) -> Ran {
    let words = ["run-with-lock", path(dir), "job"];
    run(&[&words, options, &["--"], command].concat())
}

/// Started, and holding the lock: the command has made the file.
fn start(dir: &Path, options: &[&str], script: &str, file: &Path) -> Child {
    let script = format!("touch {}; {script}", path(file));
    let words = ["run-with-lock", path(dir), "job"];
    let words = [&words, options, &["--", "sh", "-c", &script]].concat();
    let mut command = lockstone(&words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    while !file.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
}

#[test]
fn the_exit_code_is_the_commands() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = dir.path().join("db");
    let code = |command: &[&str]| under_lock(&db, &[], command).code;
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["/no/such/program"]), Some(127));
    assert_eq!(code(&[path(dir.path())]), Some(126));
    let refused = under_lock(&db, &["--lease", "0s"], &["true"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("lease"), "{refused:?}");
    let no_command = run(&["run-with-lock", path(&db), "job"]);
    assert_eq!(no_command.code, Some(2));
}

#[test]
fn every_holder_has_a_larger_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = dir.path().join("db");
    let script = "echo $LOCKSTONE_FENCING_TOKEN";
    let token = || {
        let said = under_lock(&db, &[], &["sh", "-c", script]).well();
        said.trim().parse::<u64>().expect("a number")
    };
    let tokens = [token(), token(), token()];
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[test]
fn of_many_one_runs_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, inside) = (dir.path().join("db"), dir.path().join("inside"));
    // Only who finds nobody inside may make the directory.
    let script = format!("mkdir {0} && sleep 0.05 && rmdir {0}", path(&inside));
    thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| under_lock(&db, &[], &["sh", "-c", &script]).code))
            .collect();
        for one in all {
            assert_eq!(one.join().expect("it has ended"), Some(0));
        }
    });
}

#[test]
fn who_does_not_get_it_in_time_runs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, begun) = (dir.path().join("db"), dir.path().join("begun"));
    let mut holder = start(&db, &[], "sleep 5", &begun);
    let ran = dir.path().join("ran");
    for wait in ["0s", "200ms"] {
        let late = under_lock(&db, &["--wait", wait], &["touch", path(&ran)]);
        assert_eq!(late.code, Some(75), "{late:?}");
    }
    assert!(!ran.exists());
    signal(&holder, "-TERM");
    assert_eq!(holder.wait().expect("it has ended").code(), Some(143));
    assert_eq!(under_lock(&db, &["--wait", "5s"], &["true"]).code, Some(0));
}

#[test]
fn signals_are_handed_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, begun) = (dir.path().join("db"), dir.path().join("begun"));
    let script = "trap 'exit 9' TERM; sleep 20 & wait";
    let mut holder = start(&db, &[], script, &begun);
    // The trap is set behind the file.
    thread::sleep(Duration::from_millis(100));
    signal(&holder, "-TERM");
    assert_eq!(holder.wait().expect("it has ended").code(), Some(9));
}

#[test]
fn after_a_kill_nobody_gets_it_before_the_lease_is_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, begun) = (dir.path().join("db"), dir.path().join("begun"));
    let mut holder = start(&db, &["--lease", "1500ms"], "sleep 2", &begun);
    signal(&holder, "-KILL");
    holder.wait().expect("it has ended");
    let killed = Instant::now();
    let hurried = under_lock(&db, &["--wait", "500ms"], &["true"]);
    assert_eq!(hurried.code, Some(75), "{hurried:?}");
    assert_eq!(under_lock(&db, &[], &["true"]).code, Some(0));
    assert!(killed.elapsed() >= Duration::from_millis(1500));
}

#[test]
fn a_command_is_killed_when_its_lock_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, begun) = (dir.path().join("db"), dir.path().join("begun"));
    let after = dir.path().join("after");
    let script = format!("sleep 3; touch {}", path(&after));
    let mut holder = start(&db, &["--lease", "300ms"], &script, &begun);
    signal(&holder, "-STOP");
    thread::sleep(Duration::from_millis(800));
    signal(&holder, "-CONT");
    let begun = Instant::now();
    assert_eq!(holder.wait().expect("it has ended").code(), Some(76));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(!after.exists());
    assert!(fs::exists(&db).expect("it can be looked at"));
}
