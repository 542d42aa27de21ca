//! The demo from its first line to its last: the example, then rounds of work, kill, recovery, verdict.
//!
//! 1. All rounds run on one database; every commit of an earlier round is looked for again.
//! 2. The first round is one kill of a process at work. In later ones some processes are killed while
//!    they still recover from the kill before.
//! 3. A temporary directory is removed when all was well, and kept, and named, when it was not.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use lockstone::Database;

use super::bank::Bank;
use super::child::{KillAt, Killed, run_and_kill};
use super::message::Message;
use super::oracle::Oracle;
use super::summary::Summary;
use super::two_sessions;
use super::verdict::{self, verify};
use crate::engine_arguments::EngineArguments;
use crate::failure::{Failure, Result};
use crate::output::{Output, count, say};
use crate::report;

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Work in this directory, and keep it; a temporary one is removed when all was well
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long a round lets the engine work at most: the kill comes at a random moment within
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// How many rounds of work, kill and recovery to run, on one database
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("from 0.01 to 3600 seconds".to_owned())
    }
}

/// How many threads of the child move money.
const THREADS: u32 = 8;
/// In one of so many later rounds the next process is killed while it starts.
const STARTS_KILLED_ONE_IN: u32 = 3;
/// A bar is shown for what takes longer.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Runs the demo.
pub(crate) fn demo(arguments: &DemoArguments) -> Result {
    let mut output = if arguments.json {
        Output::nowhere()
    } else {
        Output::lines()
    };
    let (dir, is_temporary) = directory(arguments.dir.as_deref())?;
    let kept = if is_temporary {
        "removed at the end if all is well"
    } else {
        "kept"
    };
    say!(output, "lockstone demo in {} ({kept})", dir.display())?;
    let mut demo = Demo {
        arguments,
        output,
        oracle: Oracle::default(),
        summary: Summary::new(&dir),
        random: Rng::new(),
        start: Duration::from_millis(500),
    };
    let outcome = demo.run(&dir);
    let is_well = outcome.is_ok() && demo.summary.ok;
    let goes = is_well || matches!(outcome, Err(Failure::NobodyReads));
    let removed = if is_temporary && goes {
        fs::remove_dir_all(&dir).map_err(Failure::system("removing the directory"))
    } else {
        Ok(())
    };
    demo.summary.dir_kept = dir.exists();
    demo.summary.ok = is_well;
    if let Err(failure) = &outcome {
        demo.summary.failures.push(failure.to_string());
    }
    if arguments.json {
        Output::lines().json(&demo.summary)?;
    }
    removed?;
    if is_well || goes {
        return outcome;
    }
    let failures = demo.summary.failures.join("\n");
    Err(Failure::Found(format!(
        "{failures}\nthe database is kept in {}",
        dir.display()
    )))
}

/// The directory, and whether it is a temporary one.
fn directory(asked: Option<&Path>) -> Result<(PathBuf, bool)> {
    if let Some(dir) = asked {
        return Ok((dir.to_owned(), false));
    }
    let temporary = tempfile::Builder::new().prefix("lockstone-demo-").tempdir();
    let temporary = temporary.map_err(Failure::system("creating a temporary directory"))?;
    // Removed when all was well, by name: a panic must not take the evidence with it.
    Ok((temporary.keep(), true))
}

struct Demo<'a> {
    arguments: &'a DemoArguments,
    output: Output,
    oracle: Oracle,
    summary: Summary,
    random: Rng,
    /// How long the last child took until it was at work.
    start: Duration,
}

impl Demo<'_> {
    fn run(&mut self, dir: &Path) -> Result {
        say!(self.output, "\nTwo sessions and one row")?;
        self.two_sessions(dir)?;
        for round in 1..=self.arguments.rounds {
            say!(self.output, "\nRound {round} of {}", self.arguments.rounds)?;
            self.round(dir, round == 1)?;
            if !self.summary.ok {
                // What a later round would find says nothing any more.
                break;
            }
        }
        self.summary.print(&mut self.output)?;
        self.output.flush()
    }

    /// Makes a new database the demo's; refuses one that holds anything else.
    fn claim(&self, db: &Database) -> Result {
        const MARK: &str = "lockstone demo";
        if db.table(MARK).is_none() && !db.tables().is_empty() {
            let dir = self.summary.dir.display();
            return Err(Failure::Found(format!(
                "the database in {dir} was not made by the demo: name another directory"
            )));
        }
        db.create_table(MARK)?;
        Ok(())
    }

    fn two_sessions(&mut self, dir: &Path) -> Result {
        let db = self.arguments.engine.options().open(dir)?;
        self.claim(&db)?;
        two_sessions::play(&db, &mut self.output)?;
        // A directory from an earlier demo has transfers already: they are committed, and must stay.
        let bank = Bank::open(&db)?;
        for row in db.snapshot().range(&bank.transfers, ..)? {
            let (key, value) = row?;
            let id = String::from_utf8_lossy(&key).into_owned();
            let transfer = str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok());
            let transfer =
                transfer.ok_or_else(|| Failure::Found(format!("transfer {id} is damaged")))?;
            self.oracle.saw([(id, transfer)]);
        }
        Ok(db.close()?)
    }

    fn round(&mut self, dir: &Path, is_first: bool) -> Result {
        let most = self.arguments.seconds;
        // Not before anything has happened, so that the one round of a short demo shows something.
        let work = Duration::from_secs_f64(most * (0.1 + 0.9 * self.random.f64()));
        self.kill(dir, KillAt::Working(work))?;
        let mut is_single = true;
        while !is_first && self.random.u32(0..STARTS_KILLED_ONE_IN) == 0 {
            let within = self.start.mul_f64(self.random.f64());
            self.kill(dir, KillAt::Starting(within))?;
            is_single = false;
        }
        self.recover(dir, is_single)
    }

    /// Starts a child, hears it, kills it.
    fn kill(&mut self, dir: &Path, kill_at: KillAt) -> Result {
        self.oracle.next_child(THREADS);
        let acknowledged_before = self.oracle.acknowledged;
        let bar = Bar::new(kill_at);
        let oracle = &mut self.oracle;
        let engine = self.arguments.engine;
        let killed = run_and_kill(dir, engine, kill_at, &mut |message: Option<Message>| {
            if let Some(message) = message {
                oracle.hear(message);
            }
            bar.show(oracle.acknowledged - acknowledged_before);
        });
        bar.clear();
        let killed = killed?;
        self.start = killed.started.unwrap_or(self.start);
        self.summary.kills += 1;
        self.summary.acked = self.oracle.acknowledged;
        self.summary.deadlocks += self.oracle.counts.deadlocks;
        self.summary.checkpoints += self.oracle.counts.checkpoints;
        self.say_killed(&killed, self.oracle.acknowledged - acknowledged_before)
    }

    fn say_killed(&mut self, killed: &Killed, acknowledged: u64) -> Result {
        let (Some(holding), Some(started)) = (self.oracle.holding, killed.started) else {
            self.summary.kills_while_starting += 1;
            return say!(
                self.output,
                "  killed      with SIGKILL {:.1?} after its start, before it was at work",
                killed.lived
            );
        };
        say!(
            self.output,
            "  at work     {:.1?} after its start: {THREADS} threads moving money, {} left open with {}",
            started,
            count(holding.transactions, "transaction"),
            count(holding.locks, "row lock"),
        )?;
        let counts = self.oracle.counts;
        say!(
            self.output,
            "  killed      with SIGKILL {:.2?} later: {} acknowledged, {} and {} on the way, {}",
            killed.worked,
            count(acknowledged, "commit"),
            count(counts.lock_waits, "lock wait"),
            count(counts.deadlocks, "deadlock"),
            count(counts.checkpoints, "checkpoint"),
        )
    }

    fn recover(&mut self, dir: &Path, is_single: bool) -> Result {
        let begun = Instant::now();
        let db = self.arguments.engine.options().open(dir)?;
        let opened = begun.elapsed();
        say!(
            self.output,
            "  reopened    in {opened:.1?}; the recovery report:"
        )?;
        report::print(&mut self.output, db.recovery_report(), 4)?;
        let mut verdict = verify(&db, &self.oracle)?;
        // After a second crash, the first one's transactions may have been forgotten in order.
        if is_single && self.oracle.holding.is_some() {
            verdict::report_is_complete(db.recovery_report(), &mut verdict);
        }
        say!(self.output, "  verified")?;
        for check in &verdict.checks {
            say!(self.output, "    {check}")?;
        }
        self.summary.add(db.recovery_report(), &verdict);
        self.oracle.saw(verdict.news);
        db.close()?;
        Ok(())
    }
}

/// The time that a round has left, on a terminal.
struct Bar {
    drawn: ProgressBar,
    begun: Instant,
    length: Duration,
}

impl Bar {
    fn new(kill_at: KillAt) -> Self {
        let length = match kill_at {
            KillAt::Starting(after) | KillAt::Working(after) => after,
        };
        let is_shown = length > BAR_AFTER && io::stderr().is_terminal();
        let bar = if is_shown {
            ProgressBar::new(length.as_millis() as u64)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("  at work     {bar:40} {msg}");
        bar.set_style(style.expect("the template is well formed"));
        Self {
            drawn: bar,
            begun: Instant::now(),
            length,
        }
    }

    fn show(&self, acknowledged: u64) {
        if self.drawn.is_hidden() {
            return;
        }
        self.drawn
            .set_position(self.begun.elapsed().min(self.length).as_millis() as u64);
        self.drawn
            .set_message(format!("{} acknowledged", count(acknowledged, "commit")));
    }

    fn clear(&self) {
        self.drawn.finish_and_clear();
    }
}
