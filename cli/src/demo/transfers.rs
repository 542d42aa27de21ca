//! The child of the demo: moves money until it is killed, and says what it has done.
//!
//! 1. A commit is reported after it returned, never before.
//! 2. The open transactions have locked and written before anything is reported, and a durable commit
//!    lies behind their records: whatever the log keeps of this run, it keeps those locks.
//! 3. It ends with its parent: standard input closes when that dies.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use fastrand::Rng;
use lockstone::{Database, Error, LockMode, OnConflict, Transaction, TxnOptions};

use super::bank::{
    ACCOUNTS, Bank, OPEN_TRANSACTIONS, OPENING_BALANCE, SEATS_EACH, Transfer, account,
    holder_label, seat, transfer_id,
};
use super::message::{Counts, Message};
use crate::engine_arguments::EngineArguments;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
pub(crate) struct TransfersArguments {
    /// The database's directory
    pub(crate) dir: PathBuf,
    /// How many threads move money
    #[arg(long, default_value_t = 8)]
    pub(crate) threads: u32,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

/// Small, so that checkpoints are under way when the kill comes.
const MEMORY_BYTES: u64 = 16 << 20;
/// The open transactions hold the log for as long as the round lasts: the disk is the limit.
const LOG_BYTES: u64 = 1 << 40;
/// Every second transfer is between two of these few accounts, so that threads meet.
const BUSY_ACCOUNTS: u32 = 24;
/// Some transfers take their time between two locks: others queue behind them, or meet them in a deadlock,
/// and the kill finds them with locks.
const PAUSE_US_MAX: u64 = 2_000;
const AMOUNT_MAX: u64 = 50;
const COUNTS_MS: u64 = 20;

/// Moves money until killed.
pub(crate) fn transfers(arguments: &TransfersArguments) -> Result {
    thread::spawn(end_with_parent);
    let db = arguments
        .engine
        .options()
        .memory_bytes(MEMORY_BYTES)
        .log_bytes(LOG_BYTES)
        .open(&arguments.dir)?;
    let bank = Bank::open(&db)?;
    let open = (0..OPEN_TRANSACTIONS).map(|holder| reserve(&db, &bank, holder));
    let open: Vec<_> = open.collect::<Result<_, _>>()?;
    // The log is written in order: once this is durable, so are the records of the open ones.
    db.transact(|txn| txn.put(&db.create_table("starts")?, "last", txn.id().to_string()))?;
    report(&Message::Holding {
        transactions: OPEN_TRANSACTIONS,
        locks: u64::from(OPEN_TRANSACTIONS) * u64::from(SEATS_EACH),
    })?;
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let mut workers = vec![scope.spawn(|| watch(&db, &bank, &stop))];
        for thread in 0..arguments.threads {
            let mover = Mover {
                db: &db,
                bank: &bank,
                thread,
                stop: &stop,
            };
            workers.push(scope.spawn(move || mover.work()));
        }
        let outcomes = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker panicked"));
        outcomes.fold(Ok(()), Result::and)
    });
    drop(open);
    if let Err(failure) = &outcome {
        report(&Message::Wrong(failure.to_string()))?;
    }
    outcome
}

fn end_with_parent() {
    // Nothing is ever sent: this returns when the other end is gone.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    process::exit(0);
}

fn report(message: &Message) -> Result {
    // In one write, so that no two threads' lines are mixed and a kill cuts off the last one at most.
    let line = format!("{message}\n");
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(Failure::system("reporting"))
}

/// A transaction that locks seats, writes some of them, and stays open.
fn reserve(db: &Database, bank: &Bank, holder: u32) -> lockstone::Result<Transaction> {
    let mut txn = db.begin_with(TxnOptions::new().label(holder_label(holder)));
    for number in 0..SEATS_EACH {
        let seat = seat(holder, number);
        match number % 5 {
            0 => txn.put(&bank.seats, &seat, "taken")?,
            1 => drop(txn.lock(&bank.seats, &seat, LockMode::NoKeyUpdate)?),
            _ => drop(txn.get_for(&bank.seats, &seat, LockMode::Update)?),
        }
    }
    Ok(txn)
}

/// Adds up the accounts in one snapshot after another, and reports the counts.
fn watch(db: &Database, bank: &Bank, stop: &AtomicBool) -> Result {
    while !stop.load(Ordering::Relaxed) {
        let sum = sum(db, bank)?;
        let expected = u64::from(ACCOUNTS) * OPENING_BALANCE;
        if sum != expected {
            stop.store(true, Ordering::Relaxed);
            return Err(Failure::Found(format!(
                "a snapshot's accounts add up to {sum}, not to {expected}"
            )));
        }
        let stats = db.stats();
        report(&Message::Counts(Counts {
            lock_waits: stats.lock_waits,
            deadlocks: stats.deadlocks,
            checkpoints: stats.checkpoints,
        }))?;
        thread::sleep(Duration::from_millis(COUNTS_MS));
    }
    Ok(())
}

fn sum(db: &Database, bank: &Bank) -> Result<u64> {
    let mut sum = 0;
    for row in db.snapshot().range(&bank.accounts, ..)? {
        sum += balance(Some(&row?.1))?;
    }
    Ok(sum)
}

fn balance(value: Option<&[u8]>) -> Result<u64, Failure> {
    let text = value.and_then(|bytes| str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::Found(format!("an account's balance is {text:?}")))
}

/// Why a transfer did not commit.
#[derive(Debug)]
enum Stop {
    Failed(Failure),
    ChangedMind,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One thread that moves money.
struct Mover<'a> {
    db: &'a Database,
    bank: &'a Bank,
    thread: u32,
    stop: &'a AtomicBool,
}

impl Mover<'_> {
    fn work(&self) -> Result {
        let mut random = Rng::new();
        let epoch = self.db.info().boot_epoch;
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let id = transfer_id(epoch, self.thread, number);
            let message = match self.transfer(&id, &mut random) {
                Ok(transfer) => Message::Acknowledged(id, transfer),
                Err(Stop::ChangedMind) => Message::Abandoned(id),
                Err(Stop::Failed(failure)) => {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            };
            report(&message)?;
        }
        Ok(())
    }

    /// One transfer, until it is committed or abandoned. Deadlocks are retried within.
    fn transfer(&self, id: &str, random: &mut Rng) -> Result<Transfer, Stop> {
        let accounts = if random.bool() {
            BUSY_ACCOUNTS
        } else {
            ACCOUNTS
        };
        let from = random.u32(0..accounts);
        let to = (from + random.u32(1..accounts)) % accounts;
        let wanted = random.u64(1..=AMOUNT_MAX);
        let (detour, changes_mind) = (random.u32(0..8) == 0, random.u32(0..16) == 0);
        let pause = Duration::from_micros(if random.u32(0..8) == 0 {
            random.u64(0..PAUSE_US_MAX)
        } else {
            0
        });
        let label = format!("transfer-{}", self.thread);
        let options = TxnOptions::new()
            .label(label)
            .on_conflict(OnConflict::Wait { timeout: None });
        self.db.transact_with(options, |txn| {
            if detour {
                self.detour(txn, random)?;
            }
            let asked = Transfer {
                from,
                to,
                amount: wanted,
            };
            let transfer = self.book(txn, asked, pause)?;
            txn.put(&self.bank.transfers, id, transfer.to_string())?;
            if changes_mind {
                Err(Stop::ChangedMind)
            } else {
                Ok(transfer)
            }
        })
    }

    /// Locks both accounts and moves as much as there is. Threads with even numbers lock in the order of
    /// the transfer, which makes deadlocks; the others in the order of the keys, which makes queues.
    fn book(
        &self,
        txn: &mut Transaction,
        asked: Transfer,
        pause: Duration,
    ) -> Result<Transfer, Stop> {
        let Transfer { from, to, amount } = asked;
        let accounts = &self.bank.accounts;
        let is_turned = self.thread % 2 == 1 && from > to;
        let (first, second) = if is_turned { (to, from) } else { (from, to) };
        let first = balance(
            txn.get_for(accounts, account(first), LockMode::Update)?
                .as_deref(),
        )?;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let second = balance(
            txn.get_for(accounts, account(second), LockMode::Update)?
                .as_deref(),
        )?;
        let (balance_from, balance_to) = if is_turned {
            (second, first)
        } else {
            (first, second)
        };
        let amount = amount.min(balance_from);
        txn.put(accounts, account(from), (balance_from - amount).to_string())?;
        txn.put(accounts, account(to), (balance_to + amount).to_string())?;
        Ok(Transfer { from, to, amount })
    }

    /// Spoils an account, and takes it back with a savepoint.
    fn detour(&self, txn: &mut Transaction, random: &mut Rng) -> Result<(), Stop> {
        let before = txn.savepoint();
        txn.put(
            &self.bank.accounts,
            account(random.u32(0..ACCOUNTS)),
            "spoiled",
        )?;
        Ok(txn.rollback_to(before)?)
    }
}
