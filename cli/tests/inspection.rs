//! Looks into directories: what a killed program left, and what is no database at all.
#![expect(
    clippy::disallowed_methods,
    reason = "the test spoils files and counts them; no engine code runs here"
)]

mod program;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use lockstone::{LockMode, Options, TxnOptions};
use program::{in_order, lockstone, open_shell, path, run, shell};
use serde_json::Value;

/// A shell whose answers are read one line at a time.
struct Talk {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Talk {
    fn start(dir: &Path) -> Self {
        let mut child = open_shell(dir);
        let stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Self { child, stdout }
    }

    /// Says a line and waits for the answer that holds `expected`.
    fn say(&mut self, line: &str, expected: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is a pipe");
        writeln!(stdin, "{line}").expect("the shell reads");
        let mut said = String::new();
        loop {
            let from = said.len();
            assert!(
                self.stdout.read_line(&mut said).expect("text") > 0,
                "no `{expected}`:\n{said}"
            );
            if !said.split_at(from).1.starts_with('>') && said.split_at(from).1.contains(expected) {
                return;
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

/// A database whose program was killed: `s1` had locked three rows, and written one of them.
fn killed(dir: &Path) {
    let mut talk = Talk::start(dir);
    talk.say("create accounts", "ok");
    talk.say("begin s1 label nightly high 7", "transaction 1-1");
    talk.say("s1 lock accounts alice share", "token");
    talk.say("s1 get accounts bob for update", "(none)");
    talk.say("s1 put accounts carol 5", "ok");
    talk.say("s1 get accounts alice for update", "(none)");
    // A durable commit behind s1's records.
    talk.say("begin s2", "transaction 1-2");
    talk.say("s2 put accounts dave 6", "ok");
    talk.say("s2 commit", "committed");
    talk.kill();
}

#[test]
fn the_locks_of_a_killed_program_are_listed_and_nobody_holds_them() {
    let dir = tempfile::tempdir().expect("a directory");
    killed(dir.path());
    let before = listing(dir.path());
    let said = run(&["locks", path(dir.path())]).well();
    in_order(
        &said,
        &[
            "Nobody holds a lock",
            "1 transaction held 3 row locks",
            "1-1           nightly   accounts   alice   Update",
            "1-1           nightly   accounts   bob     Update",
            "1-1           nightly   accounts   carol   NoKeyUpdate",
        ],
    );
    let said = run(&["locks", path(dir.path()), "--limit", "1"]).well();
    in_order(&said, &["alice", "and 2 more"]);
    assert!(!said.contains("bob"));

    let said = run(&["locks", path(dir.path()), "--json", "--limit", "2"]).well();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&said["held"], &said["locks_in_flight"]),
        (&Value::from(0), &Value::from(3))
    );
    assert_eq!(said["locks"].as_array().expect("a list").len(), 2);
    assert_eq!(said["locks"][1]["key"], "bob");
    assert_eq!(said["locks"][1]["txn"], "1-1");

    let said = run(&["check", path(dir.path())]).well();
    in_order(
        &said,
        &[
            "ended without closing",
            "1 transaction with 3 row locks",
            "nightly         high 7",
            "all is well",
        ],
    );
    assert_eq!(listing(dir.path()), before, "a look changes nothing");

    let said = shell(
        dir.path(),
        "locks\nreport\nbegin s1 nowait\ns1 lock accounts alice update\ns1 scan accounts\n",
    );
    in_order(
        &said,
        &[
            "no locks",
            "1 transaction with 3 row locks",
            "s1: locked Update",
            "s1: dave = 6",
            "s1: 1 row",
        ],
    );
    let said = run(&["locks", path(dir.path())]).well();
    in_order(&said, &["Nobody was in flight"]);
}

/// Each column of the report says what its head does.
#[test]
fn ranges_and_tables_of_a_killed_program_are_counted_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (running, killed) = (dir.path().join("running"), dir.path().join("killed"));
    let options = Options::new().segment_bytes(1 << 20).log_bytes(16 << 20);
    let db = options.open(&running).expect("a database");
    let [bank, audit] = ["bank", "audit"].map(|name| db.create_table(name).expect("a table"));
    let mut txn = db.begin_with(TxnOptions::new().label("nightly"));
    for from in ["a", "f", "n"] {
        let range = from..&*format!("{from}z");
        txn.lock_range(&bank, range, LockMode::Update)
            .expect("a range");
    }
    txn.lock_table(&audit).expect("a table");
    txn.lock(&bank, "zero", LockMode::Share).expect("a row");
    txn.put(&bank, "zoo", "1").expect("a row");
    // A durable commit behind its records.
    db.transact(|other| other.put(&bank, "k", "2"))
        .expect("a commit");
    fs::create_dir(&killed).expect("a directory");
    for (file, bytes) in listing(&running) {
        let name = Path::new(&file).file_name().expect("a name");
        fs::write(killed.join(name), bytes).expect("a copy");
    }
    drop(txn);
    let said = run(&["check", path(&killed)]).well();
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let mut lines = said.lines().map(words);
    let head = lines
        .find(|line| line.iter().any(|word| word == "ranges"))
        .expect("a head");
    let txn = lines
        .find(|line| line.iter().any(|word| word == "nightly"))
        .expect("a line");
    // A priority is more words than one.
    let of = |name: &str| {
        let behind = head
            .iter()
            .rev()
            .position(|word| word == name)
            .expect("a column");
        txn[txn.len() - 1 - behind].as_str()
    };
    assert_eq!(
        ["rows", "ranges", "tables", "writes"].map(of),
        ["2", "3", "1", "1"],
        "{said}"
    );
}

fn listing(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .map(|file| (path(&file).to_owned(), fs::read(&file).expect("a file")))
        .collect();
    files.sort();
    files
}

#[test]
fn the_log_is_shown_frame_by_frame_and_record_by_record() {
    let dir = tempfile::tempdir().expect("a directory");
    killed(dir.path());
    let said = run(&["wal", "dump", path(dir.path())]).well();
    in_order(
        &said,
        &[
            "wal-0000000000000000 at 0",
            "frame 4096 to 8192",
            "after 0/00000000 (first) run 1 durable 0 manifest 2",
            "engine create-table 1 `accounts`",
            "(ok) run 1 durable 8192 manifest 2",
            "1-1 begin `nightly` (high 7)",
            "1-1 lock accounts `alice` Share new",
            "1-1 lock accounts `bob` Update new",
            "1-1 put accounts `carol` = `5` (1 byte) NoKeyUpdate new",
            "1-1 lock accounts `alice` Update",
            "commit 1 row (",
            "manifest 2, written by run 1",
            "read from 0",
            "files to 1048576",
            "chain ends at",
            "verdict clean",
            "wal-0000000000000000 0 1 048 576",
            "spare wal-spare-0",
        ],
    );
    narrow(&said);
    let said = run(&["wal", "dump", path(dir.path()), "--limit", "2"]).well();
    let records = said.lines().filter(|line| line.starts_with("  "));
    assert_eq!(
        records.filter(|line| !line.starts_with("   ")).count(),
        2,
        "{said}"
    );
    in_order(&said, &["stopped after 2 records"]);

    let said = run(&["wal", "dump", path(dir.path()), "--frames"]).well();
    in_order(
        &said,
        &[
            "frame length records payload crc run durable manifest chain",
            "4096 4096 1",
            "8192 4096",
            "verdict",
        ],
    );
    assert!(!said.contains("alice"));
    narrow(&said);
    let said = run(&["wal", "dump", path(dir.path()), "--frames", "--limit", "1"]).well();
    assert_eq!(said.lines().count(), 3, "{said}");

    let said = run(&["wal", "dump", path(dir.path()), "--from", "8300"]).well();
    assert!(!said.contains("frame 4096"), "{said}");
    in_order(&said, &["frame 8192", "lock accounts `alice`", "verdict"]);
}

/// What people read fits the screen.
#[track_caller]
fn narrow(said: &str) {
    for line in said.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn the_log_is_shown_as_json_one_object_a_line() {
    let dir = tempfile::tempdir().expect("a directory");
    killed(dir.path());
    let said = run(&["wal", "dump", path(dir.path()), "--json"]).well();
    let objects: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let frames: Vec<_> = objects.iter().filter_map(|it| it.get("frame")).collect();
    for pair in frames.windows(2) {
        let [before, after] = pair else { continue };
        assert_eq!(
            (&before["end"], &before["crc"]),
            (&after["before_end"], &after["before_crc"])
        );
    }
    let put = objects
        .iter()
        .filter_map(|it| it.get("record"))
        .find(|it| it["key"] == "carol")
        .expect("a record");
    assert_eq!(
        (&put["table"], &put["txn"], &put["value"], &put["new"]),
        (&"accounts".into(), &"1-1".into(), &"5".into(), &true.into())
    );
    let log = &objects.last().expect("an end")["log"];
    assert_eq!(log["verdict"], "clean");
    assert_eq!(log["chain"]["frames"], frames.len());
    let verified = run(&["wal", "verify", path(dir.path()), "--json"]).well();
    let verified: Value = serde_json::from_str(&verified).expect("JSON");
    assert_eq!(&verified, log, "one code says both");
}

/// The segment in which a killed program's log lies, and its bytes up to the last that is no zero.
fn segment(dir: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let file = dir.join("wal-0000000000000000");
    let bytes = fs::read(&file).expect("a file");
    (file, bytes)
}

#[test]
fn the_end_of_a_log_is_clean_torn_or_corrupt() {
    let dir = tempfile::tempdir().expect("a directory");
    killed(dir.path());
    let before = listing(dir.path());
    let verify = || run(&["wal", "verify", path(dir.path())]);
    let said = verify().well();
    in_order(&said, &["chain ends at", "verdict clean: nothing"]);
    narrow(&said);
    assert_eq!(listing(dir.path()), before, "a look changes nothing");

    // The last frame begins with the last magic.
    let (file, good) = segment(dir.path());
    let last = good
        .windows(4)
        .rposition(|four| four == b"LKfr")
        .expect("a frame");
    let mut torn = good.clone();
    torn[last + 60] ^= 1;
    fs::write(&file, &torn).expect("it is written");
    let said = verify().well();
    in_order(
        &said,
        &[
            "torn tail 4 096 bytes",
            &format!("wal-0000000000000000, offset {last}"),
            "verdict torn",
        ],
    );
    let said = run(&["wal", "verify", path(dir.path()), "--json"]).well();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["verdict"], "torn");
    assert_eq!(said["torn"]["offset"], last);

    // The first one is testified to by every other.
    let mut corrupt = good.clone();
    corrupt[4096 + 70] ^= 1;
    fs::write(&file, &corrupt).expect("it is written");
    let ran = verify();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    in_order(
        &ran.stdout,
        &[
            "damage the chain ends here, but a later frame",
            "wal-0000000000000000, offset 4096",
            "position 4096",
            "witness the frame at",
            "verdict corrupt",
        ],
    );
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    let ran = run(&["wal", "verify", path(dir.path()), "--json"]);
    let said: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &said["verdict"]), (Some(1), &"corrupt".into()));
    assert_eq!(said["corrupt"]["offset"], 4096);
    let ran = run(&["wal", "dump", path(dir.path())]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    in_order(&ran.stdout, &["behind the end", "verdict corrupt"]);

    // And all of it: nothing is left that could testify, but the manifest.
    fs::remove_file(&file).expect("it was there");
    let ran = verify();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    in_order(
        &ran.stdout,
        &["a segment of the log is missing", "witness manifest 2"],
    );
    let error = run(&["shell", path(dir.path())]).badly();
    assert!(error.contains("a segment of the log is missing"), "{error}");
}

#[test]
fn a_directory_in_use_is_refused_with_its_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut talk = Talk::start(dir.path());
    talk.say("create t", "ok");
    let owner = format!("is in use by process {}", talk.child.id());
    for command in [
        ["check"].as_slice(),
        &["locks"],
        &["wal", "dump"],
        &["wal", "verify"],
        &["shell"],
        &["demo", "--dir"],
    ] {
        let arguments: Vec<_> = command.iter().copied().chain([path(dir.path())]).collect();
        let error = run(&arguments).badly();
        assert!(error.contains(&owner), "{arguments:?}: {error}");
    }
    talk.say("tables", "t");
    talk.kill();
    run(&["check", path(dir.path())]).well();
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty");
    let file = dir.path().join("file");
    let full = dir.path().join("full");
    let missing = dir.path().join("missing");
    fs::create_dir(&empty).expect("a directory");
    fs::write(&file, "text").expect("a file");
    fs::create_dir(&full).expect("a directory");
    fs::write(full.join("letter.txt"), "text").expect("a file");
    for at in [&empty, &file, &full, &missing] {
        for command in [
            ["check"].as_slice(),
            &["locks"],
            &["wal", "dump"],
            &["wal", "verify"],
        ] {
            let arguments: Vec<_> = command.iter().copied().chain([path(at)]).collect();
            let error = run(&arguments).badly();
            assert!(error.contains(path(at)), "{arguments:?}: {error}");
        }
    }
    for at in [&file, &full] {
        let error = run(&["shell", path(at)]).badly();
        assert!(error.contains("is not a Lockstone database"), "{error}");
    }
    assert_eq!(fs::read_dir(&empty).expect("a directory").count(), 0);
    assert_eq!(fs::read_dir(&full).expect("a directory").count(), 1);
    assert!(!missing.exists());
}

#[test]
fn damage_is_found_and_makes_the_exit_code_bad() {
    let dir = tempfile::tempdir().expect("a directory");
    let rows: Vec<_> = (0..500)
        .map(|n| format!("s1 put t key-{n:04} value-{n}"))
        .collect();
    let rows = rows.join(
        "
",
    );
    shell(
        dir.path(),
        &format!("create t\nbegin s1\n{rows}\ns1 commit\n"),
    );
    run(&["check", path(dir.path())]).well();
    let entries = fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let mut runs = entries.filter(|file| path(file).contains("/run-"));
    let file = runs.next().expect("closing writes a run");
    let mut bytes = fs::read(&file).expect("a file");
    bytes[1000] ^= 1;
    fs::write(&file, bytes).expect("a file");

    let ran = run(&["check", path(dir.path())]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    in_order(&ran.stdout, &["finding: "]);
    assert!(ran.stderr.contains("finding"), "{ran:?}");
    let ran = run(&["check", path(dir.path()), "--json"]);
    let said: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &said["clean"]), (Some(1), &Value::from(false)));
}

#[test]
fn a_command_line_that_makes_no_sense_gives_two() {
    for arguments in [
        &["fly"][..],
        &[],
        &["locks"],
        &["demo", "--seconds", "x"],
        &["demo", "--rounds", "0"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(!ran.stderr.is_empty());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut talk = Talk::start(dir.path());
    talk.say("create t", "ok");
    talk.say("begin s1", "transaction");
    for n in 0..3_000 {
        talk.say(&format!("s1 put t key-{n:04} {n:0>200}"), "ok");
    }
    talk.say("s1 commit", "committed");
    talk.kill();
    let mut command = lockstone(&["wal", "dump", path(dir.path())]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), b"".as_slice())
    );
}
