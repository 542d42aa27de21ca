//! The shell: reads lines, hands them to sessions, prints what they answer.
//!
//! 1. A command is over when every session has answered or stands in the lock table as waiting: so what
//!    a command sets free is printed below it, and scripts give the same transcript every time. Only a
//!    timeout comes later.
//! 2. A session that waits takes no other command; the others go on.
//! 3. At the end every session is let go of: what is not committed is aborted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lockstone::Database;

use super::answers::{Answer, Answers};
use super::command::{Call, Command, HELP};
use super::listing;
use super::prompt::Prompt;
use super::session::Session;
use crate::engine_arguments::EngineArguments;
use crate::failure::Result;
use crate::output::{Output, count, say};
use crate::report;

#[derive(Debug, Args)]
pub(crate) struct ShellArguments {
    /// The database's directory; created if it is absent
    dir: PathBuf,
    #[command(flatten)]
    engine: EngineArguments,
}

/// How long to wait for an answer before the lock table is asked whether one can come.
const ANSWER_WAIT: Duration = Duration::from_millis(2);

/// Runs the shell.
pub(crate) fn shell(arguments: &ShellArguments) -> Result {
    let mut prompt = Prompt::new()?;
    let db = arguments.engine.options().open(&arguments.dir)?;
    let answers = Arc::new(Answers::default());
    if let Some(announcer) = prompt.announcer() {
        answers.announce_with(announcer);
    }
    let mut dialog = Dialog {
        db,
        answers,
        sessions: BTreeMap::new(),
        spoken_to: None,
        output: Output::lines(),
    };
    let talked = dialog.talk(&mut prompt);
    let ended = dialog.end();
    talked.and(ended)
}

struct Dialog {
    db: Database,
    answers: Arc<Answers>,
    sessions: BTreeMap<String, Session>,
    /// Whom the last command was for.
    spoken_to: Option<String>,
    output: Output,
}

impl Dialog {
    fn talk(&mut self, prompt: &mut Prompt) -> Result {
        loop {
            self.answers.at_prompt(true);
            let line = prompt.line();
            self.answers.at_prompt(false);
            let Some(line) = line? else { return Ok(()) };
            match Command::parse(&line) {
                Ok(Command::Quit) => return Ok(()),
                Ok(command) => self.run(command)?,
                Err(why) => self.refuse(&why)?,
            }
            self.settle()?;
            self.output.flush()?;
        }
    }

    fn run(&mut self, command: Command) -> Result {
        // What came while the line was typed belongs above its answer.
        while let Some(answer) = self.answers.take(Duration::ZERO) {
            self.take(&answer)?;
        }
        match command {
            Command::Nothing | Command::Quit => Ok(()),
            Command::Begin { session, options } => {
                if self
                    .sessions
                    .get(&session)
                    .is_some_and(|it| it.txn.is_some())
                {
                    return self.refuse(&format!(
                        "{session} has a transaction: commit or abort it first"
                    ));
                }
                let txn = self.db.begin_with(options);
                let start = || Session::start(&session, &self.db, &self.answers);
                self.sessions
                    .entry(session.clone())
                    .or_insert_with(start)
                    .begin(txn);
                self.spoken_to = Some(session);
                Ok(())
            }
            Command::Call { session, call } => self.call(&session, call),
            Command::Await { session } => self.wait_for(&session),
            Command::CreateTable { name } => match self.db.create_table(&name) {
                Ok(_) => say!(self.output, "ok"),
                Err(error) => self.refuse(&error.to_string()),
            },
            Command::Help => say!(self.output, "{HELP}"),
            shown => self.show(&shown),
        }
    }

    /// Commands that only look; what the engine refuses is an answer, not the end of the shell.
    fn show(&mut self, command: &Command) -> Result {
        let output = &mut self.output;
        match command {
            Command::Tables => {
                for table in self.db.tables() {
                    say!(output, "{}", table.name())?;
                }
                Ok(())
            }
            Command::Locks { table: Some(name) } if self.db.table(name).is_none() => {
                let name = name.clone();
                self.refuse(&lockstone::Error::UnknownTable { name }.to_string())
            }
            Command::Locks { table } => listing::locks(output, &self.db, table.as_deref()),
            Command::Waits => listing::waits(output, &self.db.waits()),
            Command::Transactions => listing::transactions(output, &self.db.transactions()),
            Command::Stats => listing::fields(output, &self.db.stats()),
            Command::Info => listing::fields(output, &self.db.info()),
            Command::Report => report::print(output, self.db.recovery_report(), 0),
            _ => match self.db.check() {
                Ok(check) => {
                    for finding in &check.findings {
                        say!(output, "finding: {finding}")?;
                    }
                    let (runs, findings) = (
                        count(check.runs, "run"),
                        count(check.findings.len(), "finding"),
                    );
                    say!(output, "{runs} read: {findings}")
                }
                Err(error) => self.refuse(&error.to_string()),
            },
        }
    }

    fn call(&mut self, name: &str, call: Call) -> Result {
        let Some(session) = self.sessions.get_mut(name) else {
            return self.refuse(&format!("there is no session {name}: begin {name}"));
        };
        if session.is_busy {
            return self.refuse(&format!(
                "{name} is still waiting: refused; await {name}, or let others end"
            ));
        }
        session.call(call);
        self.spoken_to = Some(name.to_owned());
        Ok(())
    }

    /// Waits until a session has answered.
    fn wait_for(&mut self, name: &str) -> Result {
        if !self.sessions.contains_key(name) {
            return self.refuse(&format!("there is no session {name}: begin {name}"));
        }
        while self
            .sessions
            .get(name)
            .is_some_and(|session| session.is_busy)
        {
            if let Some(answer) = self.answers.take(ANSWER_WAIT) {
                self.take(&answer)?;
            }
        }
        Ok(())
    }

    /// Waits until every session has answered or waits for a lock, then prints: first what the session
    /// that was spoken to says, then the others by name, then who waits.
    fn settle(&mut self) -> Result {
        let mut answers: Vec<Answer> = Vec::new();
        let waits = loop {
            while let Some(answer) = self.answers.take(self.patience()) {
                self.note(&answer);
                answers.push(answer);
            }
            if let Some(waits) = self.waits() {
                break waits;
            }
        };
        let spoken_to = self.spoken_to.take();
        answers.sort_by_key(|answer| {
            (
                Some(&answer.session) != spoken_to.as_ref(),
                answer.session.clone(),
            )
        });
        for answer in answers {
            self.print(&answer)?;
        }
        for (name, what) in waits {
            say!(self.output, "{name} waits for {what}")?;
        }
        Ok(())
    }

    /// Who has come to wait for what; `None` while a session neither waits nor has answered.
    fn waits(&mut self) -> Option<Vec<(String, String)>> {
        let busy = self.sessions.iter().filter(|(_, session)| session.is_busy);
        let waits = busy.map(|(name, session)| {
            let what = listing::wait_of(&self.db, session.txn?)?;
            Some((name.clone(), what))
        });
        let mut waits: Vec<_> = waits.collect::<Option<_>>()?;
        waits.retain(|(name, what)| {
            let session = self.sessions.get_mut(name);
            session.is_some_and(|it| it.said_to_wait.replace(what.clone()).as_ref() != Some(what))
        });
        Some(waits)
    }

    /// Nothing is waited for when nobody can answer.
    fn patience(&self) -> Duration {
        let is_busy = self.sessions.values().any(|session| session.is_busy);
        if is_busy { ANSWER_WAIT } else { Duration::ZERO }
    }

    fn note(&mut self, answer: &Answer) {
        if let Some(session) = self.sessions.get_mut(&answer.session) {
            session.is_busy = false;
            if answer.ended {
                session.txn = None;
            }
        }
    }

    fn print(&mut self, answer: &Answer) -> Result {
        if answer.is_printed {
            return Ok(());
        }
        for line in answer.printed() {
            say!(self.output, "{line}")?;
        }
        Ok(())
    }

    fn take(&mut self, answer: &Answer) -> Result {
        self.note(answer);
        self.print(answer)
    }

    fn refuse(&mut self, why: &str) -> Result {
        say!(self.output, "error: {why}")
    }

    /// Lets go of all sessions: those that hold locks abort, so those that wait for them come to an end too.
    fn end(mut self) -> Result {
        let open = self
            .sessions
            .values()
            .filter(|session| session.txn.is_some())
            .count();
        let threads: Vec<_> = std::mem::take(&mut self.sessions)
            .into_values()
            .map(Session::end)
            .collect();
        for thread in threads {
            thread.join().expect("a session's thread does not panic");
        }
        self.db.clone().close()?;
        if open > 0 {
            say!(self.output, "{} aborted", count(open, "open transaction"))?;
        }
        self.output.flush()
    }
}
