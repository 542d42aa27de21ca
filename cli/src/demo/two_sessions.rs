//! The example that YugabyteDB's page on explicit locking gives, played on a real database: session 1
//! locks a row for update, session 2 tries to update it and fails, session 1 updates it and commits.
//!
//! Session 2 asks with `NoWait`, so it is refused at once, as on that page.

use lockstone::{Database, Error, LockMode, OnConflict, TxnOptions};

use crate::failure::{Failure, Result};
use crate::output::{Output, or_dash, say, shown};

/// Plays the example and shows what each step gave.
pub(crate) fn play(db: &Database, output: &mut Output) -> Result {
    let t = db.create_table("t")?;
    db.transact(|txn| txn.put(&t, "k1", "v1"))?;
    let options = |label: &str| {
        TxnOptions::new()
            .label(label)
            .on_conflict(OnConflict::NoWait)
    };
    let mut step = |session: u32, call: &str, outcome: &str| {
        say!(output, "  session {session}   {call:<26} {outcome}")
    };

    let mut first = db.begin_with(options("session 1"));
    let locked = first.get_for(&t, "k1", LockMode::Update)?;
    step(
        1,
        "get k1 for update",
        &format!("k1 = {}", or_dash(locked.as_deref().map(shown).as_ref())),
    )?;
    expect(
        locked.as_deref() == Some(b"v1"),
        "session 1 reads v1 under its lock",
    )?;

    let mut second = db.begin_with(options("session 2"));
    match second.put(&t, "k1", "v1.1") {
        Err(refused @ Error::WouldBlock { .. }) => {
            step(2, "put k1 v1.1", &format!("refused: {refused}"))?;
        }
        Err(other) => return Err(other.into()),
        Ok(()) => return expect(false, "session 2 is refused: session 1 holds the lock"),
    }
    let read = second.get(&t, "k1")?;
    step(
        2,
        "get k1",
        &format!(
            "k1 = {}: plain reads are not in the way",
            or_dash(read.as_deref().map(shown).as_ref())
        ),
    )?;
    expect(
        read.as_deref() == Some(b"v1"),
        "session 2 reads what is committed",
    )?;

    first.put(&t, "k1", "v1.2")?;
    step(1, "put k1 v1.2", "done")?;
    let lsn = first.commit()?;
    step(1, "commit", &format!("committed at LSN {lsn}"))?;

    let now = second.get(&t, "k1")?;
    step(
        2,
        "get k1",
        &format!("k1 = {}", or_dash(now.as_deref().map(shown).as_ref())),
    )?;
    expect(
        now.as_deref() == Some(b"v1.2"),
        "session 2 reads what session 1 committed",
    )?;
    second.put(&t, "k1", "v1.3")?;
    step(
        2,
        "put k1 v1.3",
        "done: the lock ended with session 1's transaction",
    )?;
    second.abort();
    step(2, "abort", "")?;
    expect(
        db.snapshot().get(&t, "k1")?.as_deref() == Some(b"v1.2"),
        "an aborted write leaves nothing",
    )
}

fn expect(holds: bool, what: &str) -> Result {
    if holds {
        Ok(())
    } else {
        Err(Failure::Found(format!(
            "the two-session example: it must hold that {what}"
        )))
    }
}
