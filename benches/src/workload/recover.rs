//! `recover`: how long it takes from a killed process to the first commit of the next one.
//!
//! Each run is a crash of its own. A child process fills the log, takes row locks in transactions that
//! stay open, makes all of that durable, says so, and is killed with SIGKILL. Then this process opens the
//! database and commits one transaction, on a row that a dead transaction had locked. Opening and first
//! transaction are measured; filling is not. One operation is one such recovery.
//!
//! What must be there afterwards is looked at: the last acknowledged commit, and every lock in flight in
//! the recovery's report.

use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use lockstone::{LockMode, Options};

use crate::error::Error;
use crate::latency::{Retries, Tally};
use crate::loaded::TABLE;
use crate::place::{self, Place};
use crate::rows;
use crate::run::Run;
use crate::settings::RecoverSettings;

/// Rows of a transaction that fills the log.
const BATCH_ROWS: u64 = 1_000;
/// Open transactions among which the locks are dealt out.
const OPEN_TRANSACTIONS: u64 = 16;
/// Holds the row that is committed last before the kill.
const MARKS: &str = "marks";
const LAST: &str = "last";
/// What the child says when it may be killed.
const FILLED: &str = "filled";
const FILLS: &str = "fills the log";

pub(super) fn prepare(
    settings: &RecoverSettings,
    place: &Place,
) -> impl FnMut(u32) -> Result<Run, Error> {
    move |number| {
        let path = place.recovered();
        place::remove(&path)?;
        let last_word = crash(settings, place, number)?;
        let begin = Instant::now();
        let db = options(settings).create(false).open(&path)?;
        let opened = begin.elapsed();
        let table = db.create_table(TABLE)?;
        db.transact(|txn| {
            let old = txn.get_for(&table, rows::key(0), LockMode::Update)?;
            txn.put(
                &table,
                rows::key(0),
                rows::next_value(old.as_deref().unwrap_or_default(), &mut Rng::new()),
            )
        })?;
        let first_txn = begin.elapsed();

        let report = db.recovery_report().clone();
        Error::unless_equal(
            "locks in flight",
            settings.locks_in_flight,
            report.locks_in_flight(),
        )?;
        let marks = db.create_table(MARKS)?;
        let mark = db.snapshot().get(&marks, LAST)?;
        Error::unless_equal(
            "last commit",
            last_word,
            rows::counter(mark.as_deref().unwrap_or_default()),
        )?;
        let io = db.info().log_writes.backend;
        db.close()?;
        place::remove(&path)?;

        let mut tally = Tally::new();
        tally.count(1, first_txn, Retries::default());
        Ok(Run {
            io: Some(io),
            open_ms: Some(milliseconds(opened)),
            first_txn_ms: Some(milliseconds(first_txn)),
            log_bytes: Some(report.log_bytes),
            ..Run::of(&tally, first_txn)
        })
    }
}

/// Memory and log large enough that no checkpoint shortens the log before the kill.
fn options(settings: &RecoverSettings) -> Options {
    /// A checkpoint starts when the memtable has a quarter of the memory, and at half of the log's limit.
    const ROOM: u64 = 4;
    const LEAST_BYTES: u64 = 1 << 30;
    let log_bytes = (settings.log_bytes * ROOM).max(LEAST_BYTES);
    Options::new()
        .io(settings.common.io.into())
        .log_bytes(log_bytes)
        .memory_bytes(log_bytes * ROOM)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Lets a child fill the log and kills it; the number that it committed last.
fn crash(settings: &RecoverSettings, place: &Place, number: u32) -> Result<u64, Error> {
    let program = std::env::current_exe().map_err(Error::at(Path::new("/proc/self/exe")))?;
    let mut command = Command::new(&program);
    command
        .args(["recover", "--fill", "--dir"])
        .arg(place.dir());
    command.args(["--rows", &settings.table.rows.to_string()]);
    command.args(["--log-bytes", &settings.log_bytes.to_string()]);
    command.args(["--locks-in-flight", &settings.locks_in_flight.to_string()]);
    command.args([
        "--seed",
        &settings.common.seed.wrapping_add(number.into()).to_string(),
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::at(&program))?;
    let last_word = last_word(&mut child);
    // SIGKILL: no handler, no destructor, no last flush.
    child.kill().map_err(Error::at(&program))?;
    child.wait().map_err(Error::at(&program))?;
    last_word.ok_or(Error::Child(FILLS))
}

/// Waits until the child may be killed; nothing if it ended before.
fn last_word(child: &mut Child) -> Option<u64> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    lines.find_map(|line| line.ok()?.strip_prefix(FILLED)?.trim().parse().ok())
}

/// The child: fills the log, leaves locks in open transactions, says so, and waits to be killed.
pub(super) fn fill(settings: &RecoverSettings, place: &Place) -> Result<(), Error> {
    let db = options(settings).open(place.recovered())?;
    let table = db.create_table(TABLE)?;
    let marks = db.create_table(MARKS)?;
    let mut rng = Rng::with_seed(settings.common.seed);
    let mut batches = 0;
    while db.stats().log_bytes < settings.log_bytes {
        let mut txn = db.begin();
        for _ in 0..BATCH_ROWS {
            txn.put(
                &table,
                rows::key(rng.u64(0..settings.table.rows)),
                rows::value(&mut rng),
            )?;
        }
        txn.commit()?;
        batches += 1;
    }
    let mut open: Vec<_> = (0..OPEN_TRANSACTIONS).map(|_| db.begin()).collect();
    for (id, dealt) in (0..settings.locks_in_flight).zip((0..open.len()).cycle()) {
        if let Some(txn) = open.get_mut(dealt) {
            txn.lock(&table, rows::key(id), LockMode::Update)?;
        }
    }
    // The log is durable in order: with this commit, all the locks are.
    let mut txn = db.begin();
    txn.put(&marks, LAST, u64::to_le_bytes(batches))?;
    txn.commit()?;
    let said = writeln!(stdout(), "{FILLED} {batches}").and_then(|()| stdout().flush());
    said.map_err(Error::at(Path::new("stdout")))?;
    // The parent's end of the pipe closes when it is gone itself: then there is nobody to kill this one.
    let mut nothing = Vec::new();
    stdin()
        .read_to_end(&mut nothing)
        .map_err(Error::at(Path::new("stdin")))?;
    Ok(())
}
