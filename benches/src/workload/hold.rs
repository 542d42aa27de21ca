//! `hold`: how long a commit holds the append latch, and how long it waits for it. Each operation does what
//! the write path does around the latch, on a log and a store without an engine: prepare a batch of one row,
//! take the latch, reserve, append a commit record, apply the batch, let go. Nobody waits for the device.
//!
//! The clock is read when the latch is had and before it is let go, so what is held contains one look at
//! the clock, and so does what is waited. A thread that loses its core in the hold keeps the latch until it
//! has one again, milliseconds later: the tail is then the scheduler's, and it grows with every thread more
//! than there are cores. So look at p99, and at the maximum of one thread on an idle machine.
//!
//! As in an engine, one thread moves rows from memory to runs and takes the latch for each rotation. Clients
//! wait, without the latch and untimed, while memory is full.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_storage::{Manifest, Store, StoreConfig, WriteBatch};
use lockstone_wal::{Appended, Hold, Log, Record, Room, WalError};

use crate::author::{Author, Ledger};
use crate::bare_log::{BareLog, Keep};
use crate::closed_loop::{self, Around, Done, Window};
use crate::error::Error;
use crate::latency::Held;
use crate::log_settings::HoldSettings;
use crate::place::Place;
use crate::rows;
use crate::run::{Quantiles, Run};
use crate::workload::log_run;

/// When rows are moved from memory to a run.
const ACTIVE_BYTES_MAX: usize = 64 << 20;
/// When clients wait for that.
const MEMORY_BYTES_MAX: usize = 512 << 20;
/// How often a client looks.
const LOOK_EVERY: u64 = 256;

pub(super) fn prepare<'a>(
    settings: &'a HoldSettings,
    place: &'a Place,
) -> impl FnMut(u32) -> Result<Run, Error> + use<'a> {
    move |number| one_run(settings, place, number)
}

fn one_run(settings: &HoldSettings, place: &Place, number: u32) -> Result<Run, Error> {
    let (common, log) = (&settings.common, &settings.log);
    let bare = BareLog::create(&place.log(), log, common, Keep::Tail)?;
    let manifest = Manifest {
        uuid: 1,
        salt: 2,
        next_run: 1,
        ..Manifest::default()
    };
    let config = StoreConfig::default();
    let store = Store::open(bare.disk(), config, &manifest, Vec::new())?;
    let ledger = Ledger::new(settings.threads);
    let seen = log_run::Seen::default();
    let around = Around {
        begin: &|| seen.begin(&bare),
        end: &|| {
            seen.end(&bare);
            Ok(())
        },
    };
    let client = |thread| {
        let author = ledger.author(thread, log.record_bytes, common.seed ^ u64::from(thread));
        committer(bare.log(), &store, author, thread)
    };
    let window = Window::of_run(number, common.seconds);
    let stopping = AtomicBool::new(false);
    let (ran, moved) = thread::scope(|scope| {
        let mover = scope.spawn(|| move_to_runs(bare.log(), &store, &stopping));
        // Also when a client panics: the scope waits for the mover.
        let stop = OnDrop(|| stopping.store(true, Ordering::Release));
        let ran = closed_loop::run_around(settings.threads, window, client, Some(around));
        drop(stop);
        (ran, mover.join())
    });
    let (tally, measured) = ran?;
    match moved {
        Ok(moved) => moved?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let stats = store.stats();
    let versions = stats.memory_versions as u64 + stats.run_versions;
    Error::unless_equal("rows in the store", ledger.total(), versions)?;
    let holds = tally.holds.as_deref();
    let run = Run {
        hold_ns: holds.map(|holds| Quantiles::of(&holds.held)),
        wait_ns: holds.map(|holds| Quantiles::of(&holds.waited)),
        clock_ns: Some(clock_ns()),
        ..seen.run(&bare, log, &tally, measured)
    };
    drop(store);
    bare.close(&ledger)?.remove()?;
    Ok(run)
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn committer<'a>(
    log: &'a Log,
    store: &'a Store,
    mut author: Author<'a>,
    thread: u32,
) -> impl FnMut() -> Result<Done, Error> + use<'a> {
    let value = Bytes::from_owner(rows::value(&mut fastrand::Rng::with_seed(thread.into())));
    let mut next = 0_u64;
    move || {
        while next.is_multiple_of(LOOK_EVERY) && store.memory_bytes() > MEMORY_BYTES_MAX {
            thread::sleep(Duration::from_millis(1));
        }
        // Rows of their own, scattered over all keys.
        let id = rows::mixed(u64::from(thread) << 40 | next);
        next += 1;
        let row = RowKey::new(TableId(1), &rows::key(id));
        let batch = WriteBatch::from_sorted(vec![(row, Some(value.clone()))]);
        let began = Instant::now();
        let held = author.append(|record| commit(log, store, record, batch))?;
        Ok(Done {
            operations: 1,
            began: Some(began),
            held: Some(held),
            ..Done::default()
        })
    }
}

/// The steps from the prepared batch to the latch let go, as in the write path.
fn commit(
    log: &Log,
    store: &Store,
    record: &Record<'_>,
    batch: WriteBatch,
) -> Result<Held, WalError> {
    let mut prepared = store.prepare(batch);
    let (mut hold, room, waited, had) = hold_with_room(log, record.bytes())?;
    let Appended { lsn, .. } = hold.append(room, record);
    store.apply_prepared(&mut prepared, lsn);
    let held = had.elapsed();
    drop(hold);
    Ok(Held { waited, held })
}

/// The latch, with room for a record; how long it was waited for, and since when it is held. Room is
/// reserved in the hold if there is some, else before a second one: then only that one counts.
fn hold_with_room(
    log: &Log,
    bytes: usize,
) -> Result<(Hold<'_>, Room<'_>, Duration, Instant), WalError> {
    let take = || {
        let asked = Instant::now();
        let hold = log.hold();
        let had = Instant::now();
        hold.check().map(|()| (hold, had - asked, had))
    };
    let (hold, waited, had) = take()?;
    if let Some(room) = hold.reserve(bytes) {
        return Ok((hold, room, waited, had));
    }
    drop(hold);
    let room = log.reserve(bytes)?;
    let (hold, waited, had) = take()?;
    Ok((hold, room, waited, had))
}

/// Rotates and flushes, as a checkpoint does.
fn move_to_runs(log: &Log, store: &Store, stopping: &AtomicBool) -> Result<(), Error> {
    while !stopping.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(2));
        if store.active_bytes() > ACTIVE_BYTES_MAX {
            let hold = log.hold();
            hold.check()?;
            let end = hold.end();
            store.rotate(Lsn::new(end.get() - 1));
            drop(hold);
            log.wait_durable(end)?;
            store.flush(log.durable())?;
        }
    }
    Ok(())
}

/// What reading the clock once takes, in nanoseconds.
fn clock_ns() -> f64 {
    const LOOKS: u32 = 100_000;
    let begin = Instant::now();
    for _ in 0..LOOKS {
        std::hint::black_box(Instant::now());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(LOOKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_settings::tests::settings;

    #[test]
    fn holds_and_waits_are_told_apart_and_every_row_is_there() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let (common, log) = settings();
        let settings = HoldSettings {
            common,
            log,
            threads: 2,
        };
        let run = prepare(&settings, &place)(0).unwrap();
        let (held, waited) = (run.hold_ns.unwrap(), run.wait_ns.unwrap());
        assert!(run.operations > 0 && held.p50 > 0);
        for ns in [held, waited] {
            assert!(
                [ns.p50, ns.p90, ns.p99, ns.p999, ns.max].is_sorted(),
                "{ns:?}"
            );
        }
        // Both lie within the operation.
        assert!(held.p50 as f64 <= run.p50_us * 1e3 * 1.01);
        assert!(run.clock_ns.unwrap() > 0.0);
        assert!(!place.log().exists());
    }

    #[test]
    fn the_hold_is_measured_and_not_what_is_around_it() {
        const BLOCKED: Duration = Duration::from_millis(30);
        let outer = tempfile::tempdir().unwrap();
        let (common, log) = settings();
        let bare = BareLog::create(&outer.path().join("log"), &log, &common, Keep::Tail).unwrap();
        let manifest = Manifest::default();
        let store =
            Store::open(bare.disk(), StoreConfig::default(), &manifest, Vec::new()).unwrap();
        let ledger = Ledger::new(1);
        let mut author = ledger.author(0, 150, 1);
        let row = RowKey::new(TableId(1), b"row");
        let batch = WriteBatch::from_sorted(vec![(row, None)]);
        let hold = bare.log().hold();
        let held = thread::scope(|scope| {
            let one =
                scope.spawn(|| author.append(|record| commit(bare.log(), &store, record, batch)));
            thread::sleep(BLOCKED);
            drop(hold);
            one.join().unwrap().unwrap()
        });
        assert!(
            held.waited >= BLOCKED / 2 && held.held < held.waited,
            "{held:?}"
        );
        drop(store);
        bare.close(&ledger).unwrap();
    }
}
