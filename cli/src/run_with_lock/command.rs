//! The command that runs under a lock: started, kept alive while the lock is, killed with it.
//!
//! 1. Signals that ask this process to end are handed on to the command; what that makes of them decides.
//! 2. When the lock is lost the command is killed (`SIGKILL`), and waited for. Processes that it has started are its own to end.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use lockstone::Error;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::lock::Lock;
use crate::failure::{Failure, Result};

/// Exit code: the command is not there.
const NOT_FOUND: u8 = 127;
/// Exit code: it cannot be run.
const NOT_RUN: u8 = 126;
/// Added to the number of the signal that has ended it.
const SIGNALLED: i32 = 128;

/// How the command has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With this exit code.
    ByItself(u8),
    /// It was killed, for the lock was lost.
    ForTheLock(Error),
}

/// Runs it to its end, or to that of the lock.
pub(super) fn run(words: &[OsString], lock: &Lock) -> Result<Ended> {
    let signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]);
    let mut signals = signals.map_err(Failure::system("cannot listen to signals"))?;
    let mut child = start(words, lock)?;
    // Not its number, which another process may have by the time that it is used.
    let process = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(process) => process,
        Err(error) => {
            // Nobody could end it with the lock.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::System {
                what: "cannot watch the command",
                source: error.into(),
            });
        }
    };
    let process = &process;
    let hands_on = signals.handle();
    let (tell, told) = mpsc::channel();
    let ended = thread::scope(|scope| {
        scope.spawn(move || {
            for signal in signals.forever() {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    // One that has ended in between needs none.
                    let _ = pidfd_send_signal(process, signal);
                }
            }
        });
        scope.spawn(move || tell.send(wait(child)));
        let ended = keep_until_ended(lock, process, &told);
        hands_on.close();
        ended
    });
    ended.map_err(Failure::system("cannot wait for the command"))
}

fn start(words: &[OsString], lock: &Lock) -> Result<Child> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::Found("no command to run".into()));
    };
    let started = Command::new(program)
        .args(arguments)
        .env(
            "LOCKSTONE_FENCING_TOKEN",
            lock.token().lsn().get().to_string(),
        )
        .spawn();
    started.map_err(|error| Failure::Exit {
        code: if error.kind() == ErrorKind::NotFound {
            NOT_FOUND
        } else {
            NOT_RUN
        },
        why: Some(format!("{}: {error}", program.display())),
    })
}

fn wait(mut child: Child) -> std::io::Result<ExitStatus> {
    child.wait()
}

/// Renews the lease until the command has ended; kills it if that cannot be done.
fn keep_until_ended(
    lock: &Lock,
    process: &OwnedFd,
    told: &mpsc::Receiver<std::io::Result<ExitStatus>>,
) -> std::io::Result<Ended> {
    let mut lost = None;
    loop {
        match told.recv_timeout(lock.keep_every()) {
            Ok(status) => {
                let status = status?;
                return Ok(lost.map_or_else(|| Ended::ByItself(code(status)), Ended::ForTheLock));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(error) = lock.keep().err().filter(|_| lost.is_none()) {
                    let _ = pidfd_send_signal(process, Signal::KILL);
                    lost = Some(error);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(ErrorKind::BrokenPipe.into()),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code();
    let signalled = || SIGNALLED + status.signal().unwrap_or_default();
    u8::try_from(code.unwrap_or_else(signalled)).unwrap_or(u8::MAX)
}
