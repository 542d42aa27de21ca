//! What is measured: each piece of work, given to one store once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::device;
use crate::rows::{self, KEY_BYTES, Key, Shuffled, VALUE_BYTES, Value};
use crate::stores::{self, Result, Session, Setting, Store};

/// A piece of work. Figures are operations a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Insert all rows in random order, in durable batches.
    LoadRandom,
    /// Insert all rows in the order of their keys, in durable batches.
    LoadSorted,
    /// Read rows by their keys, one at a time.
    Get,
    /// Read rows by their keys, a hundred as of one moment.
    MultiGet,
    /// Walk all rows.
    Scan,
    /// Read a row for update, write it, commit; not synced.
    Update,
    /// The same, synced.
    UpdateSync,
}

/// How it is measured.
#[derive(Clone, Copy)]
pub struct Measure<'a> {
    pub directory: &'a Path,
    pub rows: u64,
    pub seconds: f64,
    pub threads: u32,
    pub round: u64,
    pub cache_bytes: u64,
}

/// What one store did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    pub ops_per_s: f64,
    /// The longest operation (a batch, where there are batches), in microseconds.
    pub max_us: f64,
    /// A load: bytes that the device wrote for each byte of a row, until the store was settled and closed.
    pub write_amplification: Option<f64>,
    /// A load: bytes on the disk for each byte of a row, after that.
    pub space: Option<f64>,
}

const BATCH_ROWS: u64 = 10_000;
const READ_BATCH: usize = 100;
const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

impl Work {
    pub fn is_load(self) -> bool {
        matches!(self, Self::LoadRandom | Self::LoadSorted)
    }

    /// Does it with the store called `name`, in a directory that a load fills anew.
    pub fn run(self, name: &str, measure: Measure<'_>) -> Result<Done> {
        match self {
            Self::LoadRandom => load(name, measure, true),
            Self::LoadSorted => load(name, measure, false),
            _ => self.run_open(name, measure),
        }
    }

    fn run_open(self, name: &str, measure: Measure<'_>) -> Result<Done> {
        let sync = self == Self::UpdateSync;
        let store = stores::open(name, setting(measure, sync))?;
        let (rows, bytes) = store.session()?.scan()?;
        // Some lend a value with a few bytes of their own before it.
        if rows != measure.rows || bytes < rows * ROW_BYTES {
            return Err(format!("{name} has {rows} rows of {bytes} bytes").into());
        }
        let done = closed_loop(&*store, measure, |session, rng| {
            self.once(session, rng, measure.rows)
        })?;
        store.close()?;
        Ok(done)
    }

    fn once(self, session: &mut dyn Session, rng: &mut fastrand::Rng, rows: u64) -> Result<u64> {
        let mut key = || rows::key(rng.u64(..rows));
        match self {
            Self::Get => expect(1, session.get(&[key()])?),
            Self::MultiGet => {
                let keys: [Key; READ_BATCH] = std::array::from_fn(|_| key());
                expect(READ_BATCH as u64, session.get(&keys)?)
            }
            Self::Scan => expect(rows, session.scan()?.0),
            _ => {
                let key = key();
                let value = rows::value(rng);
                while !session.update(&key, &value)? {}
                Ok(1)
            }
        }
    }
}

fn expect(expected: u64, found: u64) -> Result<u64> {
    if found == expected {
        Ok(found)
    } else {
        Err(format!("{found} rows found instead of {expected}").into())
    }
}

fn setting(measure: Measure<'_>, sync: bool) -> Setting<'_> {
    Setting {
        directory: measure.directory,
        sync,
        cache_bytes: measure.cache_bytes,
    }
}

fn load(name: &str, measure: Measure<'_>, shuffled: bool) -> Result<Done> {
    std::fs::remove_dir_all(measure.directory).ok();
    std::fs::create_dir_all(measure.directory)?;
    let order = Shuffled::new(measure.rows);
    let mut rng = fastrand::Rng::with_seed(measure.round);
    let sectors = device::written_bytes(measure.directory);
    let store = stores::open(name, setting(measure, true))?;
    let mut batch: Vec<(Key, Value)> = Vec::with_capacity(BATCH_ROWS as usize);
    let (mut inside, mut longest) = (Duration::ZERO, Duration::ZERO);
    let mut session = store.session()?;
    for first in (0..measure.rows).step_by(BATCH_ROWS as usize) {
        batch.clear();
        for index in first..measure.rows.min(first + BATCH_ROWS) {
            let id = if shuffled { order.at(index) } else { index };
            batch.push((rows::key(id), rows::value(&mut rng)));
        }
        // Making the rows is not the store's work.
        let begun = Instant::now();
        session.insert(&batch)?;
        let took = begun.elapsed();
        inside += took;
        longest = longest.max(took);
    }
    drop(session);
    store.settle()?;
    store.close()?;
    let payload = (measure.rows * ROW_BYTES) as f64;
    let written = sectors.zip(device::written_bytes(measure.directory));
    Ok(Done {
        ops_per_s: measure.rows as f64 / inside.as_secs_f64(),
        max_us: longest.as_secs_f64() * 1e6,
        write_amplification: written.map(|(before, after)| (after - before) as f64 / payload),
        space: Some(device::used_bytes(measure.directory)? as f64 / payload),
    })
}

/// Runs `once`, which says how many operations it was, on all threads until the time is up.
fn closed_loop(
    store: &dyn Store,
    measure: Measure<'_>,
    once: impl Fn(&mut dyn Session, &mut fastrand::Rng) -> Result<u64> + Sync,
) -> Result<Done> {
    let stop = AtomicBool::new(false);
    let client = |thread: u32| -> Result<(u64, Duration, Duration)> {
        let mut session = store.session()?;
        let mut rng = fastrand::Rng::with_seed(measure.round << 32 | u64::from(thread));
        let (begun, mut operations, mut longest) = (Instant::now(), 0, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            operations += once(&mut *session, &mut rng)?;
            longest = longest.max(started.elapsed());
            // Whoever is done sees to it that all are.
            if begun.elapsed().as_secs_f64() >= measure.seconds {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok((operations, longest, begun.elapsed()))
    };
    let mut done = Done::default();
    std::thread::scope(|scope| -> Result<()> {
        let client = &client;
        let clients: Vec<_> = (0..measure.threads)
            .map(|thread| scope.spawn(move || client(thread)))
            .collect();
        for client in clients {
            let (operations, longest, took) = client.join().map_err(|_| "a client panicked")??;
            done.ops_per_s += operations as f64 / took.as_secs_f64();
            done.max_us = done.max_us.max(longest.as_secs_f64() * 1e6);
        }
        Ok(())
    })?;
    Ok(done)
}
