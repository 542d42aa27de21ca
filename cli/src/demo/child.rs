//! The working child as this process sees it: started, listened to, killed.
//!
//! 1. Every line that the child wrote before it died is read: a pipe outlives its writer.
//! 2. The kill is `SIGKILL`: no handler, no destructor, no flush runs in the child.

use std::env;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::message::Message;
use crate::engine_arguments::EngineArguments;
use crate::failure::{Failure, Result};

/// When to kill the child.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KillAt {
    /// So long after it was started, whatever it does then: most likely it recovers.
    Starting(Duration),
    /// So long after it has begun to move money.
    Working(Duration),
}

/// What `Child::kill` sends.
const SIGKILL: i32 = 9;
/// How long a child may take until it works.
const START_MAX: Duration = Duration::from_mins(2);

/// What became of one child.
#[derive(Debug)]
pub(crate) struct Killed {
    /// How long it lived.
    pub(crate) lived: Duration,
    /// How long it took until it worked, if it came to that.
    pub(crate) started: Option<Duration>,
    /// How long it worked.
    pub(crate) worked: Duration,
}

/// Starts a child on the database in `dir`, hands every message to `hear`, and kills it.
///
/// `hear` is also called without a message now and then, so that it can show progress.
pub(crate) fn run_and_kill(
    dir: &Path,
    engine: EngineArguments,
    kill_at: KillAt,
    hear: &mut dyn FnMut(Option<Message>),
) -> Result<Killed> {
    let mut child = Reaped(start(dir, engine)?);
    let started_at = Instant::now();
    let stdout = child.0.stdout.take().expect("it was asked for");
    let (sender, messages) = mpsc::channel();
    let listener = thread::spawn(move || listen(stdout, &sender));
    let working_at = wait_for_the_moment(&messages, started_at, kill_at, hear)?;
    let lived = started_at.elapsed();
    child
        .0
        .kill()
        .map_err(Failure::system("killing the child"))?;
    let status = child
        .0
        .wait()
        .map_err(Failure::system("waiting for the child"))?;
    let mut wrong = None;
    for message in &messages {
        if let Message::Wrong(what) = &message {
            wrong = Some(what.clone());
        }
        hear(Some(message));
    }
    listener.join().expect("the listener does not panic")?;
    match (wrong, status.signal()) {
        (Some(what), _) => Err(went_wrong(&what)),
        (None, Some(SIGKILL)) => Ok(Killed {
            lived,
            started: working_at.map(|at| at - started_at),
            worked: working_at.map_or(Duration::ZERO, |at| lived.saturating_sub(at - started_at)),
        }),
        (None, _) => Err(ended_by_itself(status)),
    }
}

fn start(dir: &Path, engine: EngineArguments) -> Result<process::Child> {
    let program = env::current_exe().map_err(Failure::system("finding this program's own file"))?;
    Command::new(program)
        .arg("demo-transfers")
        .arg("--segment-bytes")
        .arg(engine.segment_bytes.to_string())
        .arg("--")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::system("starting the child"))
}

/// Whatever goes wrong here, the child does not outlive this call.
struct Reaped(process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // After a wait that succeeded both do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn went_wrong(what: &str) -> Failure {
    Failure::Found(format!("while the engine ran: {what}"))
}

fn ended_by_itself(status: process::ExitStatus) -> Failure {
    Failure::Found(format!(
        "the child ended by itself ({status}), not by the kill"
    ))
}

/// Hears messages until it is time to kill; when the child began to work, if it did.
fn wait_for_the_moment(
    messages: &Receiver<Message>,
    started_at: Instant,
    kill_at: KillAt,
    hear: &mut dyn FnMut(Option<Message>),
) -> Result<Option<Instant>> {
    const PROGRESS_EVERY: Duration = Duration::from_millis(50);
    let mut working_at = None;
    loop {
        let moment = match (kill_at, working_at) {
            (KillAt::Starting(after), _) => started_at + after,
            (KillAt::Working(after), Some(at)) => at + after,
            (KillAt::Working(_), None) => started_at + START_MAX,
        };
        let now = Instant::now();
        if now >= moment {
            return match (kill_at, working_at) {
                (KillAt::Working(_), None) => Err(Failure::Found(format!(
                    "the child was not at work {START_MAX:?} after its start"
                ))),
                _ => Ok(working_at),
            };
        }
        match messages.recv_timeout((moment - now).min(PROGRESS_EVERY)) {
            Ok(Message::Wrong(what)) => return Err(went_wrong(&what)),
            Ok(message) => {
                if matches!(message, Message::Holding { .. }) {
                    working_at = Some(Instant::now());
                }
                hear(Some(message));
            }
            Err(RecvTimeoutError::Timeout) => hear(None),
            // It is gone already: the caller finds out how.
            Err(RecvTimeoutError::Disconnected) => return Ok(working_at),
        }
    }
}

fn listen(stdout: impl Read, sender: &Sender<Message>) -> Result {
    let mut stdout = BufReader::with_capacity(1 << 20, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stdout.read_until(b'\n', &mut line);
        read.map_err(Failure::system("listening to the child"))?;
        // The end, or a line that the kill has cut off.
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(());
        };
        let message = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let message = message.ok_or_else(|| {
            Failure::Found(format!(
                "the child said `{}`, which is no message",
                text.escape_ascii()
            ))
        })?;
        if sender.send(message).is_err() {
            return Ok(());
        }
    }
}
