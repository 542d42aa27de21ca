//! `sustain`: what readers and writers feel while the store takes writes without a pause, with its flushes, merges
//! and checkpoints in the background.
//!
//! Each operation is one durable transaction that writes K uniformly chosen rows; readers beside the writers read one
//! row after the other. The rate and the latencies in microseconds are the writers'; `get_ns` is the readers'.

use fastrand::Rng;

use crate::closed_loop::{self, Done, Window};
use crate::error::Error;
use crate::latency::Tally;
use crate::loaded::Loaded;
use crate::place::Place;
use crate::rows;
use crate::run::{Quantiles, Run};
use crate::settings::SustainSettings;

pub(super) fn prepare<'a>(
    settings: &'a SustainSettings,
    place: &Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let loaded = Loaded::open(place, &settings.common, settings.table.rows)?;
    Ok(move |number| {
        let window = Window::of_run(number, settings.common.seconds);
        let (gets, commits) = std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                let reader =
                    |thread| reader(&loaded, settings, rng(settings, number, 1 << 16 | thread));
                closed_loop::run(settings.readers, window, reader)
            });
            let writer = |thread| writer(&loaded, settings, rng(settings, number, thread));
            let commits = closed_loop::run(settings.writers, window, writer);
            let gets = reads
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (gets, commits)
        });
        let (gets, (commits, measured)): (Tally, _) = (gets?.0, commits?);
        Ok(Run {
            io: Some(loaded.backend()),
            gets: Some(gets.operations),
            get_ns: Some(Quantiles::of(&gets.latencies)),
            ..Run::of(&commits, measured)
        })
    })
}

fn rng(settings: &SustainSettings, number: u32, client: u32) -> Rng {
    let number = u64::from(number) << 32;
    Rng::with_seed(rows::mixed(
        settings.common.seed ^ (number | u64::from(client)),
    ))
}

fn writer<'a>(
    loaded: &'a Loaded,
    settings: &'a SustainSettings,
    mut rng: Rng,
) -> impl FnMut() -> Result<Done, Error> + use<'a> {
    let mut ids = Vec::with_capacity(settings.rows_per_txn as usize);
    move || {
        // In order, so that no two writers wait for each other in a ring.
        ids.clear();
        ids.extend((0..settings.rows_per_txn).map(|_| rng.u64(0..settings.table.rows)));
        ids.sort_unstable();
        let mut txn = loaded.db.begin();
        for id in &ids {
            txn.put(&loaded.table, rows::key(*id), rows::value(&mut rng))?;
        }
        txn.commit()?;
        Ok(Done {
            operations: 1,
            ..Done::default()
        })
    }
}

fn reader<'a>(
    loaded: &'a Loaded,
    settings: &'a SustainSettings,
    mut rng: Rng,
) -> impl FnMut() -> Result<Done, Error> + use<'a> {
    move || {
        let key = rows::key(rng.u64(0..settings.table.rows));
        let found = loaded.db.snapshot().get(&loaded.table, key)?;
        Error::unless_equal(
            "bytes found",
            rows::VALUE_BYTES as u64,
            found.map_or(0, |value| value.len() as u64),
        )?;
        Ok(Done {
            operations: 1,
            ..Done::default()
        })
    }
}
