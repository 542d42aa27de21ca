//! The program as tests start it: arguments and lines in, output and exit code out.
#![allow(dead_code, reason = "each test program uses its part of it")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Small log segments: a test opens in milliseconds.
pub(crate) const SMALL: [&str; 2] = ["--segment-bytes", "1048576"];

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The output of a run that went well.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The complaint of a run that failed, without its `error: `.
    #[track_caller]
    pub(crate) fn badly(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        let error = self.stderr.strip_prefix("error: ").map(str::to_owned);
        error.unwrap_or_else(|| panic!("every failure is an error: {self:?}"))
    }
}

/// The program with these arguments, not yet started.
pub(crate) fn lockstone(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstone"));
    command.args(arguments);
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, "")
}

/// Runs the program to its end, with `input` on its standard input.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> Ran {
    let mut command = lockstone(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin
        .write_all(input.as_bytes())
        .expect("the program reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs a script in the shell; its transcript.
#[track_caller]
pub(crate) fn shell(dir: &Path, script: &str) -> String {
    let mut arguments = vec!["shell", path(dir)];
    arguments.extend(SMALL);
    run_with(&arguments, script).well()
}

/// A shell that stays open, its lines to be written to its standard input.
pub(crate) fn open_shell(dir: &Path) -> Child {
    let mut command = lockstone(&["shell", path(dir)]);
    command
        .args(SMALL)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().expect("the program starts")
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str()
        .expect("temporary directories have plain names")
}

/// Each of `expected` is a part of a line of `text`, in this order; columns may be any number of spaces
/// apart.
#[track_caller]
pub(crate) fn in_order(text: &str, expected: &[&str]) {
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = text.lines().map(squeezed);
    for part in expected {
        let found = lines.any(|line| line.contains(&squeezed(part)));
        assert!(found, "`{part}` does not come where it should in:\n{text}");
    }
}
