//! `update`: each operation is one transaction that reads K different rows for update, writes each, and
//! commits.
//!
//! A transaction that was rolled back, or refused a lock, is run again with the same rows until it
//! commits, as `Database::transact` does it: with its age kept and a backoff. Its latency includes that.

use fastrand::Rng;
use lockstone::{Durability, LockMode, OnConflict, TxnOptions};

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
    let loaded = Loaded::open(place, &settings.common)?;
    let choice = match settings.dist {
        Distribution::Uniform => Choice::uniform(settings.common.rows),
        Distribution::Zipf => Choice::skewed(settings.common.rows),
    };
    Ok(move |number| {
        let window = Window::of_run(number, settings.common.seconds);
        let client = |thread| client(&loaded, settings, choice, seed(settings, number, thread));
        let (tally, measured) = closed_loop::run(settings.threads, window, client)?;
        Ok(Run::of(&tally, measured))
    })
}

fn seed(settings: &UpdateSettings, run: u32, thread: u32) -> u64 {
    rows::mixed(settings.common.seed ^ (u64::from(run) << 32 | u64::from(thread)))
}

fn options(settings: &UpdateSettings) -> TxnOptions {
    let policy = match settings.policy {
        ConflictPolicy::Wait => OnConflict::Wait { timeout: None },
        ConflictPolicy::NoWait => OnConflict::NoWait,
    };
    let durability = match settings.sync {
        Sync::On => Durability::Sync,
        Sync::Off => Durability::Buffered,
    };
    TxnOptions::new().on_conflict(policy).durability(durability)
}

fn client<'a>(
    loaded: &'a Loaded,
    settings: &'a UpdateSettings,
    choice: Choice,
    seed: u64,
) -> impl FnMut() -> Result<Done, Error> + use<'a> {
    let mut rng = Rng::with_seed(seed);
    let options = options(settings);
    let (db, table) = (&loaded.db, &loaded.table);
    let mut ids = Vec::with_capacity(settings.rows_per_txn as usize);
    move || {
        choice.distinct(settings.rows_per_txn as usize, &mut rng, &mut ids);
        if settings.ordered {
            ids.sort_unstable();
        }
        let mut retries = Retries::default();
        db.transact_with(options.clone(), |txn| {
            let mut update = |id| {
                let key = rows::key(id);
                let old = txn.get_for(table, key, LockMode::Update)?;
                let new = rows::next_value(old.as_deref().unwrap_or_default(), &mut rng);
                txn.put(table, key, new)
            };
            let updated = ids.iter().try_for_each(|id| update(*id));
            if let Err(error) = &updated {
                retries.count(error);
            }
            updated
        })?;
        Ok(Done {
            operations: 1,
            retries,
        })
    }
}
