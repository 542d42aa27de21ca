//! The example that YugabyteDB's page on explicit locking gives, played on a real database: session 1
//! locks a row for update, session 2 tries to update it and fails, session 1 updates it and commits.
//!
//! Both fail on conflict: session 1, which locks explicitly, has one fixed high priority, and session 2 draws a normal one, so it
//! is session 2 that is told to try again.

use lockstone::{Database, Error, LockMode, OnConflict, TxnOptions, Value};

use crate::failure::{Failure, Result};
use crate::output::{Output, or_dash, say, shown};

/// Plays the example and shows what each step gave.
pub(crate) fn play(db: &Database, output: &mut Output) -> Result {
    let t = db.create_table("t")?;
    db.transact(|txn| txn.put(&t, "k1", "v1"))?;
    let begin = |label: &str| {
        let options = TxnOptions::new().label(label);
        db.begin_with(options.on_conflict(OnConflict::Wound))
    };
    let mut play = Play { output };

    let mut first = begin("session 1");
    let locked = first.get_for(&t, "k1", LockMode::Update)?;
    play.reads(1, "get k1 for update", locked.as_ref(), "v1")?;

    let mut second = begin("session 2");
    match second.put(&t, "k1", "v1.1") {
        Err(died @ Error::Conflict { .. }) => {
            play.step(2, "put k1 v1.1", &format!("refused: {died}"))?;
        }
        Err(other) => return Err(other.into()),
        Ok(()) => {
            return Err(unexpected(
                "session 2 updates the row that session 1 has locked",
            ));
        }
    }
    let mut second = begin("session 2");
    play.reads(2, "get k1", second.get(&t, "k1")?.as_ref(), "v1")?;

    first.put(&t, "k1", "v1.2")?;
    play.step(1, "put k1 v1.2", "done")?;
    let lsn = first.commit()?;
    play.step(1, "commit", &format!("committed at LSN {lsn}"))?;

    play.reads(2, "get k1", second.get(&t, "k1")?.as_ref(), "v1.2")?;
    second.put(&t, "k1", "v1.3")?;
    play.step(
        2,
        "put k1 v1.3",
        "done: the lock ended with session 1's transaction",
    )?;
    second.abort();
    play.step(2, "abort", "done")?;
    let left = db.snapshot().get(&t, "k1")?;
    play.reads(1, "get k1", left.as_ref(), "v1.2")
}

struct Play<'a> {
    output: &'a mut Output,
}

impl Play<'_> {
    fn step(&mut self, session: u32, call: &str, outcome: &str) -> Result {
        say!(self.output, "  session {session}   {call:<18} {outcome}")
    }

    fn reads(&mut self, session: u32, call: &str, value: Option<&Value>, expected: &str) -> Result {
        let read = or_dash(value.map(|value| shown(value)).as_ref());
        if read != expected {
            return Err(unexpected(&format!(
                "session {session}, {call}: {read}, not {expected}"
            )));
        }
        self.step(session, call, &read)
    }
}

fn unexpected(what: &str) -> Failure {
    Failure::Found(format!("the two-session example goes another way: {what}"))
}
