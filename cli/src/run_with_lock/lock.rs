//! The lock under which a command runs: a resource of a database that this process has open.
//!
//! 1. Only one process opens a directory at a time: whoever comes later waits for that first, then for the lock, within one time.
//! 2. What a process that died has left is leased: it is waited for until that is over.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lockstone::{
    Database, Error, FencingToken, OnConflict, Options, Pinger, ResourceMode, Transaction,
    TxnOptions,
};

use crate::failure::{Failure, Result};

/// How often a directory that is in use is tried.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// Exit code: the lock was not had in time.
const NOT_HAD: u8 = 75;
/// Exit code: the lock was lost.
const LOST: u8 = 76;
/// The log's least limit, in bytes.
const LOG_BYTES_MIN: u64 = 64 << 20;

/// Which lock is wanted, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) dir: &'a Path,
    pub(super) path: &'a str,
    /// How long it is waited for; without end, if it has none.
    pub(super) wait: Option<Duration>,
    pub(super) lease: Duration,
    pub(super) segment_bytes: u64,
}

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock {
    txn: Transaction,
    pinger: Pinger,
    token: FencingToken,
    path: String,
    lease: Duration,
}

impl Lock {
    /// Waits for the directory and for the lock.
    pub(super) fn take(wanted: &Wanted<'_>) -> Result<Self> {
        let until = wanted.wait.map(|wait| (Instant::now(), wait));
        let db = open(wanted, until)?;
        let timeout = left(until);
        let options = TxnOptions::new()
            .label("run-with-lock")
            .lease(wanted.lease)
            .on_conflict(OnConflict::Wait { timeout });
        let mut txn = db.begin_with(options);
        let pinger = txn.pinger();
        // To wait is to be alive.
        let token = keep_alive(&pinger, wanted.lease, || {
            txn.lock_resource(wanted.path, ResourceMode::Exclusive)
        });
        let token = token.map_err(|error| match error {
            Error::LockTimeout { .. } | Error::WouldBlock { .. } => not_had(&error),
            error => error.into(),
        })?;
        Ok(Self {
            txn,
            pinger,
            token,
            path: wanted.path.to_owned(),
            lease: wanted.lease,
        })
    }

    /// What outside systems can tell it from earlier holders by.
    pub(super) fn token(&self) -> FencingToken {
        self.token
    }

    /// How often it has to be kept.
    pub(super) fn keep_every(&self) -> Duration {
        self.lease / 3
    }

    /// It is still held, and its lease lasts anew.
    pub(super) fn keep(&self) -> Result<(), Error> {
        self.pinger.ping()
    }

    /// The command has ended with this exit code.
    pub(super) fn give_back(self, code: u8) -> Result {
        match self.txn.commit() {
            Ok(_) if code == 0 => Ok(()),
            Ok(_) => Err(Failure::Exit { code, why: None }),
            Err(error) => Err(lost(&self.path, error)),
        }
    }
}

/// Calls `wait` while another thread renews the lease.
fn keep_alive<T: Send>(pinger: &Pinger, lease: Duration, wait: impl FnOnce() -> T) -> T {
    let (ended, waits) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let timeout = std::sync::mpsc::RecvTimeoutError::Timeout;
            while waits.recv_timeout(lease / 3) == Err(timeout) && pinger.ping().is_ok() {}
        });
        let done = wait();
        drop(ended);
        done
    })
}

fn open(wanted: &Wanted<'_>, until: Option<(Instant, Duration)>) -> Result<Database> {
    let segment_bytes = wanted.segment_bytes;
    let log_bytes = LOG_BYTES_MIN.max(segment_bytes.saturating_mul(4));
    loop {
        let options = Options::new()
            .segment_bytes(segment_bytes)
            .log_bytes(log_bytes);
        match options.open(wanted.dir) {
            Err(error @ Error::Locked { .. }) => {
                let left = left(until).unwrap_or(TRY_EVERY);
                if left.is_zero() {
                    return Err(not_had(&error));
                }
                thread::sleep(left.min(TRY_EVERY));
            }
            opened => return Ok(opened?),
        }
    }
}

/// What is left of the time; `None`: it has no end.
fn left(until: Option<(Instant, Duration)>) -> Option<Duration> {
    until.map(|(since, wait)| wait.saturating_sub(since.elapsed()))
}

fn not_had(error: &Error) -> Failure {
    Failure::Exit {
        code: NOT_HAD,
        why: Some(error.to_string()),
    }
}

/// The lock was lost, and the command is not under it any more.
pub(super) fn lost(path: &str, error: Error) -> Failure {
    Failure::Exit {
        code: LOST,
        why: Some(format!("the lock on `{path}` was lost: {error}")),
    }
}
