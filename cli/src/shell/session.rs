//! A session: a thread that owns one transaction at a time, does what it is told, and answers.
//!
//! 1. One job at a time: the dialog gives the next one only after the answer to the last.
//! 2. When the dialog lets go of it, its transaction is aborted, after the job that it may still wait in.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use lockstone::{
    Database, Error, Key, LockMode, Outcome, Savepoint, Table, Transaction, TxnId, Value,
};

use super::answers::{Answer, Answers};
use super::command::Call;
use crate::output::{count, shown};

/// What a session's thread is given to do.
enum Job {
    Begin(Box<Transaction>),
    Call(Call),
}

/// A session, as the dialog sees it.
pub(crate) struct Session {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
    /// Its transaction, while it has one.
    pub(crate) txn: Option<TxnId>,
    /// Whether it has not answered yet.
    pub(crate) is_busy: bool,
    /// What was last said about its waiting, for this call.
    pub(crate) said_to_wait: Option<String>,
}

impl Session {
    pub(crate) fn start(name: &str, db: &Database, answers: &Arc<Answers>) -> Self {
        let (jobs, inbox) = mpsc::channel();
        let worker = Worker {
            name: name.to_owned(),
            db: db.clone(),
            answers: answers.clone(),
        };
        let thread = thread::spawn(move || worker.work(&inbox));
        Self {
            jobs,
            thread,
            txn: None,
            is_busy: false,
            said_to_wait: None,
        }
    }

    pub(crate) fn begin(&mut self, txn: Transaction) {
        self.txn = Some(txn.id());
        self.give(Job::Begin(Box::new(txn)));
    }

    pub(crate) fn call(&mut self, call: Call) {
        self.give(Job::Call(call));
    }

    fn give(&mut self, job: Job) {
        self.is_busy = true;
        self.said_to_wait = None;
        self.jobs
            .send(job)
            .expect("a session's thread ends when it is let go of");
    }

    /// Lets go of it; its thread is to be joined once all others are let go of too.
    pub(crate) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Worker {
    name: String,
    db: Database,
    answers: Arc<Answers>,
}

/// The transaction that a session has open.
struct Open {
    txn: Transaction,
    savepoints: HashMap<String, Savepoint>,
}

type Lines = lockstone::Result<Vec<String>>;

impl Worker {
    fn work(&self, jobs: &Receiver<Job>) {
        let mut open = None;
        while let Ok(job) = jobs.recv() {
            let lines = match job {
                Job::Begin(txn) => {
                    let said = format!("transaction {}", txn.id());
                    open = Some(Open {
                        txn: *txn,
                        savepoints: HashMap::new(),
                    });
                    vec![said]
                }
                Job::Call(call) => self.call(&mut open, call),
            };
            let session = self.name.clone();
            self.answers.give(Answer {
                session,
                lines,
                ended: open.is_none(),
                is_printed: false,
            });
        }
    }

    fn call(&self, open: &mut Option<Open>, call: Call) -> Vec<String> {
        let Some(mut current) = open.take() else {
            return vec![format!("error: no transaction: begin {}", self.name)];
        };
        let answer = match call {
            Call::Commit => current
                .txn
                .commit()
                .map(|lsn| vec![format!("committed at LSN {lsn}")]),
            Call::Abort => {
                current.txn.abort();
                Ok(vec!["aborted".to_owned()])
            }
            call => {
                let answer = current.call(&self.db, call);
                *open = Some(current);
                answer
            }
        };
        let goes_on = open.is_some();
        answer.unwrap_or_else(|error| vec![refused(&error, goes_on)])
    }
}

/// What an error means for a session whose transaction is still there, or went with the call.
fn refused(error: &Error, goes_on: bool) -> String {
    if goes_on && error.outcome() == Outcome::RolledBack {
        format!("error: {error}; end it with abort")
    } else {
        format!("error: {error}")
    }
}

impl Open {
    fn call(&mut self, db: &Database, call: Call) -> Lines {
        let table = |name: String| db.table(&name).ok_or(Error::UnknownTable { name });
        let done = || vec!["ok".to_owned()];
        match call {
            Call::Get {
                table: name,
                key,
                mode: None,
            } => Ok(value(self.txn.get(&table(name)?, key)?.as_ref())),
            Call::Get {
                table: name,
                key,
                mode: Some(mode),
            } => Ok(value(self.txn.get_for(&table(name)?, key, mode)?.as_ref())),
            Call::Lock {
                table: name,
                key,
                mode,
            } => {
                let token = self.txn.lock(&table(name)?, key, mode)?;
                Ok(vec![format!("locked {mode}, token {token}")])
            }
            Call::Put {
                table: name,
                key,
                value,
            } => self.txn.put(&table(name)?, key, value).map(|()| done()),
            Call::Insert {
                table: name,
                key,
                value,
            } => {
                let is_new = self.txn.insert_new(&table(name)?, key, value)?;
                Ok(vec![
                    if is_new { "inserted" } else { "it exists" }.to_owned(),
                ])
            }
            Call::Delete { table: name, key } => {
                let existed = self.txn.delete(&table(name)?, key)?;
                Ok(vec![if existed { "deleted" } else { "(none)" }.to_owned()])
            }
            Call::Scan {
                table: name,
                from,
                to,
                mode,
            } => self.scan(&table(name)?, bounds(from, to), mode),
            Call::Savepoint { name } => {
                let savepoint = self.txn.savepoint();
                self.savepoints.insert(name, savepoint);
                Ok(done())
            }
            Call::Rollback { name } => match self.savepoints.get(&name) {
                Some(savepoint) => self.txn.rollback_to(*savepoint).map(|()| done()),
                None => Ok(vec![format!("error: no savepoint `{name}`")]),
            },
            Call::Commit | Call::Abort => unreachable!("these take the transaction with them"),
        }
    }

    fn scan(&mut self, table: &Table, range: Bounds, mode: Option<LockMode>) -> Lines {
        let rows: Vec<(Key, Value)> = match mode {
            None => self.txn.range(table, range)?.collect::<Result<_, _>>()?,
            Some(mode) => self
                .txn
                .range_for(table, range, mode)?
                .collect::<Result<_, _>>()?,
        };
        let mut lines: Vec<_> = rows
            .iter()
            .map(|(key, value)| format!("{} = {}", shown(key), shown(value)))
            .collect();
        lines.push(count(rows.len(), "row"));
        Ok(lines)
    }
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn bounds(from: Option<Vec<u8>>, to: Option<Vec<u8>>) -> Bounds {
    (
        from.map_or(Bound::Unbounded, Bound::Included),
        to.map_or(Bound::Unbounded, Bound::Excluded),
    )
}

fn value(value: Option<&Value>) -> Vec<String> {
    vec![value.map_or_else(|| "(none)".to_owned(), |value| shown(value))]
}
