//! What the shell shows of the engine: locks, transactions, counts.

use lockstone::{
    Database, LockFilter, LockInfo, LockInfoState, TransactionInfo, TransactionState, TxnId,
    WaitBlocker, Waits,
};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::{Output, grouped, or_dash, say, table};

/// How many locks are listed; the rest are counted.
const LOCKS_SHOWN_MAX: usize = 100;

/// Prints every lock that is held or waited for, in all tables or one.
pub(crate) fn locks(output: &mut Output, db: &Database, name: Option<&str>) -> Result {
    let mut filter = LockFilter::new();
    if let Some(name) = name {
        let unknown = || lockstone::Error::UnknownTable {
            name: name.to_owned(),
        };
        filter = filter.table(&db.table(name).ok_or_else(unknown)?);
    }
    // The others are counted and not kept, however many there are.
    let (mut locks, mut more) = (Vec::new(), 0);
    for lock in db.locks_of(filter) {
        let lock = lock?;
        if locks.len() < LOCKS_SHOWN_MAX {
            locks.push(lock);
        } else {
            more += 1;
        }
    }
    if locks.is_empty() {
        return say!(output, "no locks");
    }
    // Stable: the order within a row is kept.
    locks.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
    let mut rows = table([
        "table",
        "key",
        "mode",
        "state",
        "transaction",
        "label",
        "token",
    ]);
    for lock in &locks {
        rows.add_row([
            lock.table.to_string(),
            or_dash(lock.key.as_ref()),
            lock.mode.to_string(),
            match lock.state {
                LockInfoState::Granted => "granted".to_owned(),
                LockInfoState::Waiting => "waiting".to_owned(),
            },
            lock.txn.to_string(),
            or_dash(lock.label.as_ref()),
            or_dash(lock.token.as_ref()),
        ]);
    }
    output.table(0, &rows)?;
    match more {
        0 => Ok(()),
        more => say!(output, "and {} more", grouped(more)),
    }
}

/// Prints who waits for whom, and the deadlocks of late.
pub(crate) fn waits(output: &mut Output, waits: &Waits) -> Result {
    if waits.waits.is_empty() {
        say!(output, "nobody waits")?;
    } else {
        let mut rows = table(["transaction", "label", "table", "key", "mode", "waits for"]);
        for wait in &waits.waits {
            let blockers: Vec<_> = wait.blockers.iter().map(blocker).collect();
            rows.add_row([
                wait.txn.to_string(),
                or_dash(wait.label.as_ref()),
                wait.row.table.to_string(),
                or_dash(wait.row.key.as_ref()),
                wait.mode.to_string(),
                blockers.join(", "),
            ]);
        }
        output.table(0, &rows)?;
    }
    for deadlock in &waits.deadlocks {
        say!(output, "deadlock: {deadlock}")?;
    }
    Ok(())
}

fn blocker(blocker: &WaitBlocker) -> String {
    let how = if blocker.soft { "ahead" } else { "holds" };
    match &blocker.label {
        Some(label) => format!("{} `{label}` ({how} {})", blocker.txn, blocker.mode),
        None => format!("{} ({how} {})", blocker.txn, blocker.mode),
    }
}

/// Prints every live transaction.
pub(crate) fn transactions(output: &mut Output, transactions: &[TransactionInfo]) -> Result {
    if transactions.is_empty() {
        return say!(output, "no transactions");
    }
    let mut rows = table([
        "transaction",
        "label",
        "priority",
        "locks",
        "writes",
        "age",
        "state",
    ]);
    for txn in transactions {
        rows.add_row([
            txn.txn.to_string(),
            or_dash(txn.label.as_ref()),
            or_dash(txn.priority.as_ref()),
            grouped(txn.locks),
            grouped(txn.writes),
            format!("{:.1?}", txn.age),
            state(txn),
        ]);
    }
    output.table(0, &rows)
}

fn state(txn: &TransactionInfo) -> String {
    match (&txn.waits_for, txn.state) {
        (Some(wanted), _) => format!("waits for {}, {}", wanted.row, wanted.mode),
        (None, TransactionState::Active) => "active".to_owned(),
        (None, TransactionState::Committing) => "committing".to_owned(),
        (None, TransactionState::Committed) => "committed".to_owned(),
        (None, _) => "rolled back".to_owned(),
    }
}

/// Prints a plain struct, one field a line.
pub(crate) fn fields(output: &mut Output, of: &impl Serialize) -> Result {
    let object = serde_json::to_value(of).map_err(std::io::Error::from);
    let object = object.map_err(Failure::system("listing"))?;
    let fields = object.as_object().into_iter().flatten();
    for (name, value) in fields {
        match value.as_str() {
            Some(text) => say!(output, "{name:<16} {text}")?,
            None => say!(output, "{name:<16} {value}")?,
        }
    }
    Ok(())
}

/// What a transaction waits for, if it waits: `row k of table t in mode Update, held by …`.
pub(crate) fn wait_of(db: &Database, txn: TxnId) -> Option<String> {
    let locks: Vec<LockInfo> = db.locks().filter_map(Result::ok).collect();
    let at = locks
        .iter()
        .position(|lock| lock.txn == txn && lock.state == LockInfoState::Waiting)?;
    let waits = locks.get(at)?;
    let row = match &waits.key {
        Some(key) => format!("row `{key}` of table `{}`", waits.table),
        None => format!("a row of table `{}`", waits.table),
    };
    let mut text = format!("{row} in mode {}", waits.mode);
    // Without a key it is not known which other locks are on the same row.
    let is_same_row =
        |lock: &LockInfo| lock.table == waits.table && lock.key == waits.key && waits.key.is_some();
    // A row's queue is listed in its order: whoever comes earlier is ahead.
    for (state, how, listed) in [
        (LockInfoState::Granted, "held by", locks.as_slice()),
        (LockInfoState::Waiting, "behind", locks.get(..at)?),
    ] {
        let others = listed
            .iter()
            .filter(|lock| lock.txn != txn && lock.state == state && is_same_row(lock));
        let named: Vec<_> = others.map(named).collect();
        if !named.is_empty() {
            text = format!("{text}, {how} {}", named.join(", "));
        }
    }
    Some(text)
}

fn named(lock: &LockInfo) -> String {
    match &lock.label {
        Some(label) => format!("{} `{label}` ({})", lock.txn, lock.mode),
        None => format!("{} ({})", lock.txn, lock.mode),
    }
}
