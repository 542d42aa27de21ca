//! The database after a crash, compared with the oracle.
//!
//! 1. Locks are looked for before anything is asked of the engine that could release one.
//! 2. Every check runs, whatever the others found; a failed one says what and where.
//! 3. Rows are read through the public interface of the engine alone.

use std::fmt;

use lockstone::{Database, LockMode, OnConflict, RecoveryReport, Transaction, TxnOptions};

use super::bank::{
    ACCOUNTS, Bank, OPEN_TRANSACTIONS, OPENING_BALANCE, SEATS_EACH, Transfer, account,
    account_number, holder_label, seat,
};
use super::oracle::Oracle;
use crate::failure::Result;
use crate::output::{count, grouped};

/// How many offenders a failed check names.
const NAMED_MAX: usize = 5;
/// Every so manieth seat is locked again.
const SEAT_STEP: usize = 7;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) checks: Vec<Check>,
    pub(crate) committed_found: u64,
    pub(crate) lost: u64,
    pub(crate) resurrected: u64,
    pub(crate) unacknowledged_found: u64,
    pub(crate) leaked_locks: u64,
    pub(crate) sum_ok: bool,
    /// Committed transfers of which the oracle did not know.
    pub(crate) news: Vec<(String, Transfer)>,
}

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    /// What holds, with numbers.
    pub(crate) what: String,
    /// Why it does not.
    pub(crate) failed: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failed {
            None => write!(f, "ok      {}", self.what),
            Some(why) => write!(f, "FAILED  {}: {why}", self.what),
        }
    }
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.failed.is_none())
    }

    fn check(&mut self, what: String, offenders: &Offenders) {
        self.checks.push(Check {
            what,
            failed: offenders.shown(),
        });
    }
}

/// What speaks against a check.
#[derive(Debug, Default)]
struct Offenders {
    named: Vec<String>,
    count: u64,
}

impl Offenders {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(name());
        }
    }

    fn add_if(&mut self, offends: bool, name: impl FnOnce() -> String) {
        if offends {
            self.add(name);
        }
    }

    fn shown(&self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let more = match self.count - self.named.len() as u64 {
            0 => String::new(),
            more => format!("; and {} more", grouped(more)),
        };
        Some(format!("{}{more}", self.named.join("; ")))
    }
}

/// Compares an opened database with what the children said.
///
/// # Errors
/// What the engine refuses to answer; what it answers wrongly is in the verdict.
pub(crate) fn verify(db: &Database, oracle: &Oracle) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    no_lock_is_left(db, &mut verdict);
    let bank = Bank::open(db)?;
    transfers_and_balances(db, &bank, oracle, &mut verdict)?;
    seats_are_empty(db, &bank, &mut verdict)?;
    rows_can_be_locked(db, &bank, &mut verdict);
    let check = db.check()?;
    let mut findings = Offenders::default();
    for finding in check.findings {
        findings.add(|| finding);
    }
    let read = format!("every block of {} is intact", count(check.runs, "run"));
    verdict.check(read, &findings);
    Ok(verdict)
}

/// The report names every transaction that was left open, with every lock that it had.
pub(crate) fn report_is_complete(report: &RecoveryReport, verdict: &mut Verdict) {
    let mut offenders = Offenders::default();
    for holder in 0..OPEN_TRANSACTIONS {
        let label = holder_label(holder);
        let found = report
            .in_flight
            .iter()
            .find(|txn| txn.label.as_deref() == Some(&*label));
        let locks = found.map(|txn| txn.locks);
        offenders.add_if(locks != Some(SEATS_EACH.into()), || {
            format!("{label} is listed with {locks:?} locks")
        });
    }
    let what = format!(
        "the report lists the {} left open, each with {}",
        count(OPEN_TRANSACTIONS, "transaction"),
        count(SEATS_EACH, "lock")
    );
    verdict.check(what, &offenders);
}

fn no_lock_is_left(db: &Database, verdict: &mut Verdict) {
    let mut offenders = Offenders::default();
    for lock in db.locks() {
        offenders.add(|| match lock {
            Ok(lock) => format!(
                "{} holds {:?} of table `{}` in mode {}",
                lock.txn,
                lock.key.as_deref().unwrap_or("a row"),
                lock.table,
                lock.mode
            ),
            Err(error) => error.to_string(),
        });
    }
    for txn in db.transactions() {
        offenders.add(|| format!("transaction {} is live", txn.txn));
    }
    verdict.leaked_locks += offenders.count;
    verdict.check("no lock is left".to_owned(), &offenders);
}

/// The transfers, as they are compared with the oracle.
#[derive(Default)]
struct Compared {
    lost: Offenders,
    torn: Offenders,
    resurrected: Offenders,
    /// What the transfers leave in each account.
    balances: Vec<i128>,
}

fn transfers_and_balances(
    db: &Database,
    bank: &Bank,
    oracle: &Oracle,
    verdict: &mut Verdict,
) -> Result {
    let compared = compare(db, bank, oracle, verdict)?;
    (verdict.lost, verdict.resurrected) = (compared.lost.count, compared.resurrected.count);
    verdict.unacknowledged_found = verdict.news.len() as u64;
    let expected = count(oracle.expected.len(), "commit");
    verdict.check(
        format!("every one of {expected} that were acknowledged is there"),
        &compared.lost,
    );
    verdict.check("each with its content".to_owned(), &compared.torn);
    let abandoned = count(oracle.abandoned.len(), "transfer");
    verdict.check(
        format!("none of {abandoned} that were rolled back is there"),
        &compared.resurrected,
    );
    let mut strangers = Offenders::default();
    let most = oracle.unacknowledged_max;
    strangers.add_if(verdict.unacknowledged_found > most, || {
        format!("at most {most} can have been under way")
    });
    let under_way = count(verdict.unacknowledged_found, "commit");
    verdict.check(
        format!("{under_way} had been under way, and reached the disk"),
        &strangers,
    );
    let wrong = wrong_balances(db, bank, &compared.balances, verdict)?;
    verdict.check("each balance is what the transfers say".to_owned(), &wrong);
    Ok(())
}

fn compare(db: &Database, bank: &Bank, oracle: &Oracle, verdict: &mut Verdict) -> Result<Compared> {
    let snapshot = db.snapshot();
    let balances = vec![i128::from(OPENING_BALANCE); ACCOUNTS as usize];
    let mut compared = Compared {
        balances,
        ..Compared::default()
    };
    for row in snapshot.range(&bank.transfers, ..)? {
        let (key, value) = row?;
        let id = String::from_utf8_lossy(&key).into_owned();
        let parsed = str::from_utf8(&value)
            .ok()
            .and_then(|text| text.parse::<Transfer>().ok());
        let Some(transfer) = parsed else {
            compared
                .torn
                .add(|| format!("transfer {id} reads `{}`", value.escape_ascii()));
            continue;
        };
        for (number, amount) in [
            (transfer.from, -i128::from(transfer.amount)),
            (transfer.to, transfer.amount.into()),
        ] {
            if let Some(balance) = compared.balances.get_mut(number as usize) {
                *balance += amount;
            }
        }
        match oracle.expected.get(&id) {
            Some(expected) if *expected == transfer => verdict.committed_found += 1,
            Some(expected) => {
                compared
                    .torn
                    .add(|| format!("transfer {id} reads `{transfer}`, not `{expected}`"));
            }
            None if oracle.abandoned.contains(&id) => {
                compared
                    .resurrected
                    .add(|| format!("transfer {id} was rolled back"));
            }
            None => verdict.news.push((id, transfer)),
        }
    }
    if verdict.committed_found < oracle.expected.len() as u64 {
        for (id, transfer) in &oracle.expected {
            let row = snapshot.get(&bank.transfers, id)?;
            let lost = || format!("transfer {id} ({transfer}) was acknowledged and is gone");
            compared.lost.add_if(row.is_none(), lost);
        }
    }
    Ok(compared)
}

fn wrong_balances(
    db: &Database,
    bank: &Bank,
    expected: &[i128],
    verdict: &mut Verdict,
) -> Result<Offenders> {
    let mut wrong = Offenders::default();
    let (mut sum, mut rows) = (0_i128, 0_u32);
    for row in db.snapshot().range(&bank.accounts, ..)? {
        let (key, value) = row?;
        rows += 1;
        let found = str::from_utf8(&value)
            .ok()
            .and_then(|text| text.parse::<i128>().ok());
        sum += found.unwrap_or_default();
        let expected = account_number(&key)
            .and_then(|number| expected.get(number as usize))
            .copied();
        wrong.add_if(found.is_none() || found != expected, || {
            format!(
                "{} has `{}`, not {expected:?}",
                key.escape_ascii(),
                value.escape_ascii()
            )
        });
    }
    let due = i128::from(ACCOUNTS) * i128::from(OPENING_BALANCE);
    verdict.sum_ok = sum == due && rows == ACCOUNTS;
    let mut off = Offenders::default();
    off.add_if(!verdict.sum_ok, || format!("{rows} accounts have {sum}"));
    verdict.check(
        format!(
            "the {} add up to {}",
            count(ACCOUNTS, "account"),
            grouped(u64::from(ACCOUNTS) * OPENING_BALANCE)
        ),
        &off,
    );
    Ok(wrong)
}

fn seats_are_empty(db: &Database, bank: &Bank, verdict: &mut Verdict) -> Result {
    let mut taken = Offenders::default();
    for row in db.snapshot().range(&bank.seats, ..)? {
        let (key, value) = row?;
        taken.add(|| {
            format!(
                "{} has the uncommitted value `{}`",
                key.escape_ascii(),
                value.escape_ascii()
            )
        });
    }
    verdict.check(
        "nothing that the open transactions wrote is there".to_owned(),
        &taken,
    );
    Ok(())
}

/// Every account and a sample of the seats, each locked without waiting.
fn rows_can_be_locked(db: &Database, bank: &Bank, verdict: &mut Verdict) {
    let mut held = Offenders::default();
    let mut locked = 0_u64;
    let mut txn = db.begin_with(
        TxnOptions::new()
            .label("verifier")
            .on_conflict(OnConflict::NoWait),
    );
    let mut lock =
        |table, key: String, txn: &mut Transaction| match txn.lock(table, &key, LockMode::Update) {
            Ok(_) => locked += 1,
            Err(error) => held.add(|| error.to_string()),
        };
    for number in 0..ACCOUNTS {
        lock(&bank.accounts, account(number), &mut txn);
    }
    for holder in 0..OPEN_TRANSACTIONS {
        for number in (0..SEATS_EACH).step_by(SEAT_STEP) {
            lock(&bank.seats, seat(holder, number), &mut txn);
        }
    }
    txn.abort();
    verdict.leaked_locks += held.count;
    verdict.check(
        format!(
            "{} that were locked can be locked at once",
            count(locked, "row")
        ),
        &held,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstone::Options;

    fn open(dir: &std::path::Path) -> Database {
        let options = Options::new().segment_bytes(1 << 20).log_bytes(8 << 20);
        options.open(dir).expect("a database in an empty directory")
    }

    fn failures(db: &Database, oracle: &Oracle) -> Vec<String> {
        let verdict = verify(db, oracle).expect("a verdict");
        verdict
            .checks
            .iter()
            .filter_map(|check| check.failed.clone())
            .collect()
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path());
        let bank = Bank::open(&db).expect("a bank");
        let mut oracle = Oracle::default();
        assert_eq!(failures(&db, &oracle), Vec::<String>::new());

        // A commit that was acknowledged and is not there.
        let transfer = Transfer {
            from: 1,
            to: 2,
            amount: 3,
        };
        oracle
            .expected
            .insert("000001-00-00000001".into(), transfer);
        let verdict = verify(&db, &oracle).expect("a verdict");
        assert_eq!((verdict.lost, verdict.is_good()), (1, false));

        // It is there, but the accounts do not know of it.
        let put = |table: &_, key: &str, value: &str| {
            db.transact(|txn| txn.put(table, key, value))
                .expect("a put");
        };
        put(&bank.transfers, "000001-00-00000001", "1 2 3");
        let found = failures(&db, &oracle);
        assert!(
            found.len() == 1 && found[0].contains("account-0001"),
            "{found:?}"
        );

        // Money from nowhere.
        put(&bank.accounts, "account-0001", "997");
        put(&bank.accounts, "account-0002", "1004");
        assert!(!verify(&db, &oracle).expect("a verdict").sum_ok);
        put(&bank.accounts, "account-0002", "1003");
        assert_eq!(failures(&db, &oracle), Vec::<String>::new());

        // Another content, a transfer of which nobody knows, and one that was rolled back.
        put(&bank.transfers, "000001-00-00000001", "1 2 4");
        put(&bank.transfers, "000001-00-00000002", "1 2 0");
        put(&bank.transfers, "000001-00-00000003", "1 2 0");
        oracle.abandoned.insert("000001-00-00000003".into());
        let verdict = verify(&db, &oracle).expect("a verdict");
        assert_eq!((verdict.unacknowledged_found, verdict.resurrected), (1, 1));
        let texts = failures(&db, &oracle).join("\n");
        assert!(
            texts.contains("reads `1 2 4`, not `1 2 3`") && texts.contains("was rolled back"),
            "{texts}"
        );
        assert!(
            texts.contains("at most 0 can have been under way"),
            "{texts}"
        );

        // A seat that was written, and a lock that is held.
        put(&bank.seats, "seat-0-00000", "taken");
        let mut holder = db.begin();
        holder
            .lock(&bank.seats, "seat-1-00000", LockMode::Share)
            .expect("a lock");
        let verdict = verify(&db, &oracle).expect("a verdict");
        assert_eq!(
            verdict.leaked_locks, 3,
            "listed, its transaction live, and in the way"
        );
        let texts = failures(&db, &oracle).join("\n");
        assert!(
            texts.contains("uncommitted value `taken`") && texts.contains("is locked"),
            "{texts}"
        );
    }

    #[test]
    fn a_report_without_the_open_transactions_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path());
        let mut verdict = Verdict::default();
        report_is_complete(db.recovery_report(), &mut verdict);
        assert!(!verdict.is_good());
    }
}
