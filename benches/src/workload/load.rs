//! `load`: all rows into an empty database, in durable batches.
//!
//! A run is measured from the first batch to the last commit. Creating the database before and closing it
//! behind are not part of it; the device's writes count to the end of the close, when all rows are in runs.
//! A latency is that of one batch. The database of the last run stays, for the workloads that read.

use std::time::Instant;

use fastrand::Rng;
use lockstone::{Database, Table};

use crate::error::Error;
use crate::latency::{Retries, Tally};
use crate::loaded::{self, TABLE};
use crate::permutation::Permutation;
use crate::place::{self, Place};
use crate::rows;
use crate::run::Run;
use crate::settings::{LoadOrder, LoadSettings};

/// Rows of a transaction.
const BATCH_ROWS: u64 = 10_000;

pub(super) fn prepare(
    settings: &LoadSettings,
    place: &Place,
) -> impl FnMut(u32) -> Result<Run, Error> {
    move |number| {
        let path = place.database(settings.table.rows);
        place::remove(&path)?;
        let db = loaded::options(&settings.common).open(&path)?;
        let table = db.create_table(TABLE)?;
        let written_before = place.device_written_bytes();
        let begin = Instant::now();
        let tally = load(&db, &table, settings, number)?;
        let measured = begin.elapsed();
        loaded::mark(&db, settings.table.rows)?;
        let io = db.info().log_writes.backend;
        let closing = Instant::now();
        db.close()?;
        let close_ms = closing.elapsed().as_secs_f64() * 1e3;
        let payload = settings.table.rows * rows::ROW_BYTES;
        let written = place
            .device_written_bytes()
            .zip(written_before)
            .map(|(now, before)| now - before);
        Ok(Run {
            io: Some(io),
            close_ms: Some(close_ms),
            write_amplification: written.map(|written| written as f64 / payload as f64),
            ..Run::of(&tally, measured)
        })
    }
}

fn load(
    db: &Database,
    table: &Table,
    settings: &LoadSettings,
    number: u32,
) -> Result<Tally, Error> {
    let (rows, seed) = (
        settings.table.rows,
        settings.common.seed.wrapping_add(number.into()),
    );
    let shuffled = Permutation::new(rows, seed);
    let mut rng = Rng::with_seed(seed);
    let mut tally = Tally::new();
    let mut loaded = 0;
    while loaded < rows {
        let batch = loaded..rows.min(loaded + BATCH_ROWS);
        let begin = Instant::now();
        let mut txn = db.begin();
        let ids = batch.clone().map(|place| match settings.order {
            LoadOrder::Sorted => place,
            LoadOrder::Random => shuffled.at(place),
        });
        txn.put_many(table, ids.map(|id| (rows::key(id), rows::value(&mut rng))))?;
        txn.commit()?;
        tally.count(batch.end - batch.start, begin.elapsed(), Retries::default());
        loaded = batch.end;
    }
    Ok(tally)
}
