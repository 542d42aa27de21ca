//! `update`: each operation is one transaction that reads K different rows for update, writes each, and
//! commits.
//!
//! A transaction that was rolled back, or refused a lock, is run again with the same rows until it
//! commits, as `Database::transact` does it: with its age kept, in line with the others. Its latency includes that.
//!
//! With a pipeline, a client goes on to its next transaction while earlier commits are on their way to the
//! device, and waits for the oldest when as many as asked for are. A latency is from before the transaction
//! began until its ticket's success. One that has to run again is then a new one: its age is not kept.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use lockstone::{CommitTicket, Durability, LockMode, OnConflict, Transaction, TxnOptions};

use crate::closed_loop::{self, Done, Window};
use crate::error::Error;
use crate::latency::Retries;
use crate::loaded::Loaded;
use crate::place::Place;
use crate::rows;
use crate::run::Run;
use crate::settings::{ConflictPolicy, Distribution, Sync, UpdateSettings};
use crate::zipf::Choice;

pub(super) fn prepare<'a>(
    settings: &'a UpdateSettings,
    place: &Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let loaded = Loaded::open(place, &settings.common, settings.table.rows)?;
    let choice = match settings.dist {
        Distribution::Uniform => Choice::uniform(settings.table.rows),
        Distribution::Zipf => Choice::skewed(settings.table.rows),
    };
    Ok(move |number| {
        let window = Window::of_run(number, settings.common.seconds);
        let client =
            |thread| Client::new(&loaded, settings, choice, seed(settings, number, thread));
        let (tally, measured) = if settings.pipeline == 1 {
            let one_by_one = |thread| client(thread).one_by_one();
            closed_loop::run(settings.threads, window, one_by_one)?
        } else {
            let pipelined = |thread| client(thread).pipelined();
            closed_loop::run(settings.threads, window, pipelined)?
        };
        Ok(Run {
            io: Some(loaded.backend()),
            ..Run::of(&tally, measured)
        })
    })
}

fn seed(settings: &UpdateSettings, run: u32, thread: u32) -> u64 {
    rows::mixed(settings.common.seed ^ (u64::from(run) << 32 | u64::from(thread)))
}

fn options(settings: &UpdateSettings) -> TxnOptions {
    let policy = match settings.policy {
        ConflictPolicy::Wait => OnConflict::Wait { timeout: None },
        ConflictPolicy::NoWait => OnConflict::NoWait,
        ConflictPolicy::Wound => OnConflict::Wound,
        ConflictPolicy::WoundAfter => OnConflict::WoundAfter(Duration::from_millis(10)),
    };
    let durability = match settings.sync {
        Sync::On => Durability::Sync,
        Sync::Off => Durability::Buffered,
    };
    TxnOptions::new().on_conflict(policy).durability(durability)
}

struct Client<'a> {
    loaded: &'a Loaded,
    options: TxnOptions,
    choice: Choice,
    ordered: bool,
    rows: usize,
    pipeline: usize,
    rng: Rng,
}

/// A transaction whose commit is on its way.
struct InFlight {
    ticket: CommitTicket,
    began: Instant,
    ids: Vec<u64>,
    retries: Retries,
}

impl<'a> Client<'a> {
    fn new(loaded: &'a Loaded, settings: &UpdateSettings, choice: Choice, seed: u64) -> Self {
        Self {
            loaded,
            options: options(settings),
            choice,
            ordered: settings.ordered,
            rows: settings.rows_per_txn as usize,
            pipeline: settings.pipeline as usize,
            rng: Rng::with_seed(seed),
        }
    }

    fn draw(&mut self, ids: &mut Vec<u64>) {
        self.choice.distinct(self.rows, &mut self.rng, ids);
        if self.ordered {
            ids.sort_unstable();
        }
    }

    /// A client that waits for each commit.
    fn one_by_one(mut self) -> impl FnMut() -> Result<Done, Error> + use<'a> {
        let mut ids = Vec::with_capacity(self.rows);
        move || {
            self.draw(&mut ids);
            let mut retries = Retries::default();
            let (loaded, rng) = (self.loaded, &mut self.rng);
            loaded.db.transact_with(self.options.clone(), |txn| {
                let updated = update(loaded, txn, &ids, rng);
                if let Err(error) = &updated {
                    retries.count(error);
                }
                updated
            })?;
            Ok(Done {
                operations: 1,
                retries,
                ..Done::default()
            })
        }
    }

    /// A client that keeps several commits in flight.
    fn pipelined(mut self) -> impl FnMut() -> Result<Done, Error> + use<'a> {
        let mut in_flight = VecDeque::with_capacity(self.pipeline);
        let mut spent = Vec::new();
        move || {
            let began = Instant::now();
            let mut ids: Vec<u64> = spent.pop().unwrap_or_default();
            self.draw(&mut ids);
            let mut retries = Retries::default();
            let ticket = self.commit(&ids, &mut retries)?;
            in_flight.push_back(InFlight {
                ticket,
                began,
                ids,
                retries,
            });
            if in_flight.len() < self.pipeline {
                return Ok(Done::default());
            }
            let Some(oldest) = in_flight.pop_front() else {
                return Ok(Done::default());
            };
            let done = self.land(oldest.ticket, &oldest.ids, oldest.retries)?;
            spent.push(oldest.ids);
            Ok(Done {
                began: Some(oldest.began),
                ..done
            })
        }
    }

    /// Runs a transaction until it is on its way.
    fn commit(&mut self, ids: &[u64], retries: &mut Retries) -> Result<CommitTicket, Error> {
        loop {
            let mut txn = self.loaded.db.begin_with(self.options.clone());
            match update(self.loaded, &mut txn, ids, &mut self.rng) {
                Ok(()) => return Ok(txn.commit_async()),
                Err(error) if error.is_retryable() => retries.count(&error),
                Err(error) => return Err(error.into()),
            }
            drop(txn);
            thread::yield_now();
        }
    }

    /// Waits until it is on the device; if it did not come to its commit, runs it again.
    fn land(
        &mut self,
        mut ticket: CommitTicket,
        ids: &[u64],
        mut retries: Retries,
    ) -> Result<Done, Error> {
        loop {
            match ticket.wait() {
                Ok(_) => {
                    return Ok(Done {
                        operations: 1,
                        retries,
                        ..Done::default()
                    });
                }
                Err(error) if error.is_retryable() => retries.count(&error),
                Err(error) => return Err(error.into()),
            }
            ticket = self.commit(ids, &mut retries)?;
        }
    }
}

/// Reads each row for update, and writes it.
fn update(
    loaded: &Loaded,
    txn: &mut Transaction,
    ids: &[u64],
    rng: &mut Rng,
) -> lockstone::Result<()> {
    let table = &loaded.table;
    ids.iter().try_for_each(|id| {
        let key = rows::key(*id);
        let old = txn.get_for(table, key, LockMode::Update)?;
        let new = rows::next_value(old.as_deref().unwrap_or_default(), rng);
        txn.put(table, key, new)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lockstone::{Database, Options};

    use super::*;
    use crate::loaded::TABLE;
    use crate::settings::{Program, Workload};

    const ROWS: u64 = 100;

    fn settings(line: &str) -> UpdateSettings {
        let program = Program::try_parse_from(["x", "update"].into_iter().chain(line.split(' ')));
        match program.unwrap().workload {
            Workload::Update(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn small(dir: &std::path::Path) -> Loaded {
        let options = Options::new().segment_bytes(1 << 20).log_bytes(8 << 20);
        let db: Database = options.retries_max(u32::MAX).open(dir.join("db")).unwrap();
        let table = db.create_table(TABLE).unwrap();
        Loaded { db, table }
    }

    fn counted(loaded: &Loaded) -> u64 {
        // A snapshot sees what is on the device: with this commit, all before it is.
        let fence = |txn: &mut Transaction| txn.put(&loaded.table, "fence", "");
        loaded.db.transact(fence).unwrap();
        let snapshot = loaded.db.snapshot();
        let counter = |id| {
            let value = snapshot.get(&loaded.table, rows::key(id)).unwrap();
            value.map_or(0, |value| rows::counter(&value))
        };
        (0..ROWS).map(counter).sum()
    }

    /// Every update counts one in its row: what was acknowledged must be there, and no more than what was
    /// still in flight besides.
    #[test]
    fn a_pipeline_acknowledges_what_it_did_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = small(dir.path());
        let settings = settings("--pipeline 8 --rows-per-txn 2 --rows 100");
        let client = Client::new(&loaded, &settings, Choice::uniform(ROWS), 1);
        let mut operate = client.pipelined();
        let mut begins = Vec::new();
        let mut acknowledged = 0;
        for call in 1..=50 {
            begins.push(Instant::now());
            let done = operate().unwrap();
            assert_eq!(done.operations, u64::from(call >= 8), "{call}");
            assert_eq!(done.began.is_some(), call >= 8);
            acknowledged += done.operations;
            // It is the one that began seven calls ago that is over.
            if let Some(began) = done.began {
                assert!(
                    begins[call - 8] <= began && began <= begins[call - 7],
                    "{call}"
                );
            }
        }
        assert_eq!((acknowledged, counted(&loaded)), (43, 2 * 50));
    }

    /// Two pipelines on rows of each other: refused, run again, and nothing is lost.
    #[test]
    fn pipelines_in_each_others_way_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = small(dir.path());
        for policy in ["wait", "nowait"] {
            let settings = settings(&format!("--pipeline 4 --rows-per-txn 3 --policy {policy}"));
            let before = counted(&loaded);
            thread::scope(|scope| {
                for seed in 0..2 {
                    let (loaded, settings) = (&loaded, &settings);
                    scope.spawn(move || {
                        let client = Client::new(loaded, settings, Choice::uniform(4), seed);
                        let mut operate = client.pipelined();
                        for _ in 0..100 {
                            operate().unwrap();
                        }
                    });
                }
            });
            assert_eq!(counted(&loaded) - before, 2 * 100 * 3);
        }
    }
}
