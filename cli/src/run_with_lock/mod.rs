//! `lockstone run-with-lock`: runs a command while it holds a lock, so that of many who try only one runs at a time.
//!
//! 1. The lock is a resource of a database, held under a lease: a crash of this process, or of the machine, does not let the next one
//!    in before the lease is over. So a command that goes on alone has that long to end.
//! 2. The command is killed as soon as the lock is lost. It is told the lock's fencing token (`LOCKSTONE_FENCING_TOKEN`), so that
//!    what it writes to can refuse one that has lost it.
//! 3. How the lock is had is `lock` alone: a directory, for as long as no server has it. What runs under it is `command`.
//!
//! | exit code | |
//! | --- | --- |
//! | the command's | it has ended; 128 and the signal's number, if a signal has ended it |
//! | 75 | the lock was not had in time; the command was not run |
//! | 76 | the lock was lost; the command was killed |
//! | 126, 127 | the command cannot be run; it is not there |
//! | 1 | anything else |

mod lock;
mod command;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::failure::Result;
use command::Ended;
use lock::{Lock, Wanted};

/// The options of `lockstone run-with-lock`.
#[derive(Debug, Args)]
pub(crate) struct RunWithLockArguments {
    /// The database's directory; it is created if it does not exist
    dir: PathBuf,
    /// What is locked: any name that all who want it agree on
    path: String,
    /// How long to wait for the lock, as in 30s or 5m; as long as it takes, unless given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// How long the lock is kept for a process that no longer answers
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// The size of a log segment in bytes, a multiple of 4096; opening writes two of them
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(..=1 << 30))]
    segment_bytes: u64,
    /// The command, and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Takes the lock, runs the command, gives the lock back.
pub(crate) fn run_with_lock(arguments: &RunWithLockArguments) -> Result {
    let lock = Lock::take(&Wanted {
        dir: &arguments.dir,
        path: &arguments.path,
        wait: arguments.wait,
        lease: arguments.lease,
        segment_bytes: arguments.segment_bytes,
    })?;
    match command::run(&arguments.command, &lock)? {
        Ended::ByItself(code) => lock.give_back(code),
        Ended::ForTheLock(why) => Err(lock::lost(&arguments.path, why)),
    }
}
