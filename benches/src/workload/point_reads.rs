//! `get` and `multi-get`: rows by their keys, uniformly chosen, each of which exists.
//!
//! `get` opens a snapshot for each batch (of one row, unless told otherwise) and reads the rows one by
//! one; `multi-get` reads a batch with one call. A latency is that of one batch.

use fastrand::Rng;

use crate::closed_loop::{self, Done, Window};
use crate::error::Error;
use crate::loaded::Loaded;
use crate::place::Place;
use crate::rows;
use crate::run::Run;
use crate::run_settings::Common;
use crate::settings::{GetSettings, MultiGetSettings};

pub(super) fn prepare_get<'a>(
    settings: &'a GetSettings,
    place: &Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let loaded = warm(place, &settings.common, settings.table.rows)?;
    let (common, io) = (&settings.common, loaded.backend());
    let (batch, rows) = (u64::from(settings.batch), settings.table.rows);
    let get = move |rng: &mut Rng| {
        let snapshot = loaded.db.snapshot();
        let mut found = 0;
        for _ in 0..batch {
            let value = snapshot.get(&loaded.table, rows::key(rng.u64(0..rows)))?;
            found += u64::from(value.is_some_and(|value| value.len() == rows::VALUE_BYTES));
        }
        Error::unless_equal("rows found", batch, found)?;
        Ok(batch)
    };
    let mut one = reads(common, settings.threads, get);
    Ok(move |number| {
        let run = one(number)?;
        Ok(Run {
            io: Some(io),
            ..run
        })
    })
}

pub(super) fn prepare_multi_get<'a>(
    settings: &'a MultiGetSettings,
    place: &Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let loaded = warm(place, &settings.common, settings.table.rows)?;
    let (common, io) = (&settings.common, loaded.backend());
    let (batch, rows) = (u64::from(settings.batch), settings.table.rows);
    let get = move |rng: &mut Rng| {
        let keys = (0..batch).map(|_| rows::key(rng.u64(0..rows)));
        let values = loaded.db.snapshot().multi_get(&loaded.table, keys)?;
        let found = values
            .iter()
            .flatten()
            .filter(|value| value.len() == rows::VALUE_BYTES)
            .count() as u64;
        Error::unless_equal("rows found", batch, found)?;
        Ok(batch)
    };
    let mut one = reads(common, settings.threads, get);
    Ok(move |number| {
        let run = one(number)?;
        Ok(Run {
            io: Some(io),
            ..run
        })
    })
}

/// Runs in which every client does what `read` does, which says how many rows it has read.
fn reads(
    common: &Common,
    threads: u32,
    read: impl Fn(&mut Rng) -> Result<u64, Error> + Sync,
) -> impl FnMut(u32) -> Result<Run, Error> {
    move |number| {
        let window = Window::of_run(number, common.seconds);
        let client = |thread: u32| {
            let mut rng = Rng::with_seed(rows::mixed(
                common.seed ^ (u64::from(number) << 32 | u64::from(thread)),
            ));
            let read = &read;
            move || {
                read(&mut rng).map(|operations| Done {
                    operations,
                    ..Done::default()
                })
            }
        };
        let (tally, measured) = closed_loop::run(threads, window, client)?;
        Ok(Run::of(&tally, measured))
    }
}

/// The database, each row of which was read once.
fn warm(place: &Place, common: &Common, expected: u64) -> Result<Loaded, Error> {
    let loaded = Loaded::open(place, common, expected)?;
    let rows = loaded
        .db
        .snapshot()
        .range(&loaded.table, ..)?
        .try_fold(0, |rows, row| row.map(|_| rows + 1))?;
    Error::unless_equal("rows in the table", expected, rows)?;
    Ok(loaded)
}
