//! `scan`: rows in order of their keys, from a random start, a fixed number of them.
//!
//! Each scan has a snapshot of its own, and looks at every key and value. A latency is that of one scan.

use std::hint::black_box;

use fastrand::Rng;

use crate::closed_loop::{self, Done, Window};
use crate::error::Error;
use crate::loaded::Loaded;
use crate::place::Place;
use crate::rows;
use crate::run::Run;
use crate::settings::ScanSettings;

pub(super) fn prepare<'a>(
    settings: &'a ScanSettings,
    place: &Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let loaded = Loaded::open(place, &settings.common, settings.table.rows)?;
    Ok(move |number| {
        let window = Window::of_run(number, settings.common.seconds);
        let client = |thread: u32| {
            let seed =
                rows::mixed(settings.common.seed ^ (u64::from(number) << 32 | u64::from(thread)));
            client(&loaded, settings, seed)
        };
        let (tally, measured) = closed_loop::run(settings.threads, window, client)?;
        Ok(Run {
            io: Some(loaded.backend()),
            ..Run::of(&tally, measured)
        })
    })
}

fn client<'a>(
    loaded: &'a Loaded,
    settings: &'a ScanSettings,
    seed: u64,
) -> impl FnMut() -> Result<Done, Error> + use<'a> {
    let mut rng = Rng::with_seed(seed);
    let batch = u64::from(settings.batch);
    let last_start = settings.table.rows - batch;
    move || {
        let from = rows::key(rng.u64(0..=last_start));
        let snapshot = loaded.db.snapshot();
        let (mut rows, mut bytes) = (0, 0);
        for row in snapshot
            .range(&loaded.table, &from..)?
            .take(settings.batch as usize)
        {
            let (key, value) = row?;
            rows += 1;
            bytes += (black_box(&*key).len() + black_box(&*value).len()) as u64;
        }
        Error::unless_equal("rows scanned", batch, rows)?;
        Error::unless_equal("bytes scanned", batch * rows::ROW_BYTES, bytes)?;
        Ok(Done {
            operations: rows,
            ..Done::default()
        })
    }
}
