//! `lock-many`: one transaction locks every row of the table, and ends.
//!
//! The rate is that of the locking alone; the call that ends the transaction is `release_ms`. Every 64th
//! lock is timed, because reading the clock would take a good part of the time of each. The log that the
//! transaction wrote is the distance between two durable commits before and behind it. Memory is
//! counted from before the first run: later ones take again what the allocator has kept.

use std::time::{Duration, Instant};

use lockstone::{LockMode, Transaction};

use crate::error::Error;
use crate::latency::{Retries, Tally};
use crate::loaded::{self, Loaded};
use crate::memory;
use crate::permutation::Permutation;
use crate::place::Place;
use crate::rows;
use crate::run::Run;
use crate::settings::{LockManySettings, LockOrder, Release, Via};

/// One lock of so many is timed.
const TIMED_EVERY: u64 = 64;

pub(super) fn prepare<'a>(
    settings: &'a LockManySettings,
    place: &Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let options = loaded::options(&settings.common);
    let options = options.provisional_bytes(settings.provisional_mib << 20);
    let loaded = Loaded::open_with(place, &settings.common, settings.table.rows, options)?;
    // What grows while locking is to be locks, not a cache.
    let rows = loaded
        .db
        .snapshot()
        .range(&loaded.table, ..)?
        .try_fold(0, |rows, row| row.map(|_| rows + 1))?;
    Error::unless_equal("rows in the table", settings.table.rows, rows)?;
    let memory_before = memory::resident_bytes();
    Ok(move |number| one_run(&loaded, settings, number, memory_before))
}

fn one_run(
    loaded: &Loaded,
    settings: &LockManySettings,
    number: u32,
    memory_before: u64,
) -> Result<Run, Error> {
    let rows = settings.table.rows;
    let log_before = durable_end(loaded, rows)?;
    let begin = Instant::now();
    let mut txn = loaded.db.begin();
    let mut stopwatch = Stopwatch {
        tally: Tally::new(),
        locks: 0,
        begin,
    };
    match settings.via {
        Via::RangeFor => {
            for row in txn.range_for(&loaded.table, .., LockMode::Update)? {
                row?;
                stopwatch.locked();
            }
        }
        Via::LockRows => {
            stopwatch.locks = txn.lock_rows(&loaded.table, .., LockMode::Update)?;
            // One call, and nothing in it that could be timed by itself.
            let each = begin.elapsed() / u32::try_from(stopwatch.locks).unwrap_or(u32::MAX).max(1);
            stopwatch.tally.count(0, each, Retries::default());
        }
        Via::Lock => lock_each(loaded, settings, number, &mut txn, &mut stopwatch)?,
    }
    let measured = begin.elapsed();
    let memory_bytes = memory::resident_bytes().saturating_sub(memory_before);
    Error::unless_equal("row locks taken", rows, stopwatch.locks)?;
    stopwatch.tally.operations = stopwatch.locks;
    let release_ms = end(txn, settings.release)?;
    let log_bytes = durable_end(loaded, rows)? - log_before;
    Ok(Run {
        io: Some(loaded.backend()),
        release_ms: Some(release_ms),
        memory_bytes_per_lock: Some(memory_bytes as f64 / rows as f64),
        log_bytes: Some(log_bytes),
        ..Run::of(&stopwatch.tally, measured)
    })
}

/// Times one lock of [`TIMED_EVERY`].
struct Stopwatch {
    tally: Tally,
    locks: u64,
    begin: Instant,
}

impl Stopwatch {
    /// A lock was granted.
    fn locked(&mut self) {
        self.locks += 1;
        match self.locks % TIMED_EVERY {
            0 => self.begin = Instant::now(),
            1 if self.locks > 1 => self
                .tally
                .count(0, self.begin.elapsed(), Retries::default()),
            _ => {}
        }
    }
}

fn lock_each(
    loaded: &Loaded,
    settings: &LockManySettings,
    number: u32,
    txn: &mut Transaction,
    stopwatch: &mut Stopwatch,
) -> Result<(), Error> {
    let rows = settings.table.rows;
    let shuffled = Permutation::new(rows, settings.common.seed.wrapping_add(number.into()));
    for place in 0..rows {
        let id = match settings.order {
            LockOrder::Sorted => place,
            LockOrder::Random => shuffled.at(place),
        };
        txn.lock(&loaded.table, rows::key(id), LockMode::Update)?;
        stopwatch.locked();
    }
    Ok(())
}

/// How long the call took that ended the transaction, in milliseconds.
fn end(txn: Transaction, release: Release) -> Result<f64, Error> {
    let begin = Instant::now();
    match release {
        Release::Commit => drop(txn.commit()?),
        Release::Abort => txn.abort(),
    }
    let took: Duration = begin.elapsed();
    Ok(took.as_secs_f64() * 1e3)
}

/// The end of the durable log, with all in it that was appended so far.
fn durable_end(loaded: &Loaded, rows: u64) -> Result<u64, Error> {
    loaded::mark(&loaded.db, rows)?;
    Ok(loaded.db.stats().durable.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lock_of_many_is_timed() {
        let mut stopwatch = Stopwatch {
            tally: Tally::new(),
            locks: 0,
            begin: Instant::now(),
        };
        for _ in 0..=TIMED_EVERY * 3 {
            stopwatch.locked();
        }
        assert_eq!(stopwatch.locks, 3 * TIMED_EVERY + 1);
        assert_eq!(stopwatch.tally.latencies.len(), 3);
    }
}
