//! The scrubber: reads all runs through, slowly, so that what has gone bad where nobody reads is known before the
//! other copies of it are gone.
//!
//! Run by a background thread of its own.
//! 1. F11: what is found is told as an event, counted in the stats, and left alone by compactions; rows that are
//!    intact can be read as before.
//! 2. It reads at the rate that is set, all of it: blocks, indexes, filters.
//! 3. A round over all runs begins a day behind the one before at the earliest. Where a round has come to is kept as
//!    long as the database is open.
//! 4. Closing waits for at most one slice.
//!
//! Crash: it writes nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Engine;

/// Read at once at most: the index of a run is read anew with each slice.
const SLICE_BYTES_MAX: u64 = 4 << 20;
/// A slice is what may be read in this time, and then there is a pause.
const SLICE: Duration = Duration::from_secs(1);
/// Behind a slice that could not be read, for a reason that may pass.
const FAILED_PAUSE: Duration = Duration::from_mins(1);
/// From the beginning of a round to that of the next: a small database is not read all day.
const ROUND_MIN: Duration = Duration::from_hours(24);

/// The body of the thread that scrubs.
pub(crate) fn serve(engine: &Engine) {
    while engine.scrubbing.pause(slice(engine)) {}
}

/// Reads a slice, if it is time; how long to pause behind it.
fn slice(engine: &Engine) -> Duration {
    let rate = engine.options.scrub_bytes_per_second;
    let now = engine.ports.clock.now();
    let mut round = engine.scrubbing.round.lock();
    let begun = *round.get_or_insert(now);
    if let Some(early) = begun.checked_sub(now).filter(|early| !early.is_zero()) {
        // The round before has ended, and this one begins later.
        return early;
    }
    let scrub = engine.store.scrub(rate.min(SLICE_BYTES_MAX));
    for error in &scrub.findings {
        tracing::error!(%error, "the scrubber has found damage");
    }
    if let Some(error) = &scrub.failure {
        tracing::warn!(%error, left_out = scrub.left_out, "the scrubber could not read on; it tries again later");
    }
    let counters = &engine.counters;
    counters
        .scrubbed_bytes
        .fetch_add(scrub.bytes, Ordering::Relaxed);
    if scrub.left_out {
        counters.scrub_left_out.fetch_add(1, Ordering::Relaxed);
    }
    if scrub.round_done {
        counters.scrub_rounds.fetch_add(1, Ordering::Relaxed);
        // Of a round that took longer the next one begins at once, and owes nothing for it.
        *round = Some(begun.saturating_add(ROUND_MIN).max(now));
    }
    // A slice may be longer than it should, by a block or an index: the pause makes up for it.
    let least = match scrub.failure {
        Some(_) => FAILED_PAUSE,
        None => Duration::from_millis(1),
    };
    let nanos = u128::from(scrub.bytes) * SLICE.as_nanos() / u128::from(rate.max(1));
    Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX)).max(least)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use lockstone_base::disk::DiskOp;
    use lockstone_testkit::{SeededEntropy, SimClock, SimDisk};

    use super::*;
    use crate::engine::Ports;
    use crate::options::Options;
    use crate::{checkpoint, closing, compaction, opening, schema};

    fn engine(disk: &Arc<SimDisk>, clock: &Arc<SimClock>) -> Arc<Engine> {
        let ports = Ports {
            disk: disk.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        let options = Options::new().scrub_bytes_per_second(20_000);
        opening::start(options, ports).expect("a disk that works").0
    }

    /// A database with one run, of several slices.
    fn with_a_run(disk: &Arc<SimDisk>, clock: &Arc<SimClock>) -> (Arc<Engine>, String) {
        let engine = engine(disk, clock);
        let table = schema::create(&engine, "t").expect("a table");
        let rows = (0..400_u32).map(|n| {
            let row = lockstone_base::RowKey::new(table.id, &n.to_be_bytes());
            (row, Some(bytes::Bytes::from(vec![7; 200])))
        });
        let stamp = lockstone_base::Lsn::new(engine.log.end().get() - 1);
        let batch = lockstone_storage::WriteBatch::from_sorted(rows);
        engine.store.apply(batch, stamp);
        checkpoint::run(&engine).expect("a checkpoint");
        let mut names = disk.names().into_iter();
        let run = names.rfind(|name| name.starts_with("run-"));
        (engine, run.expect("a run"))
    }

    /// Slices with their pauses, until a round has ended; how long it took.
    fn round(engine: &Engine, clock: &SimClock) -> Duration {
        let rounds = || engine.counters.scrub_rounds.load(Ordering::Relaxed);
        let (before, begun) = (rounds(), engine.ports.clock.now());
        while rounds() == before {
            clock.advance(slice(engine));
        }
        engine.ports.clock.now().saturating_sub(begun)
    }

    #[test]
    fn a_byte_that_flips_where_nobody_reads_is_found() {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
        let (engine, run) = with_a_run(&disk, &clock);
        disk.flip_byte(&run, 50_000);
        round(&engine, &clock);
        let damaged = || engine.store.stats().damaged_runs;
        assert_eq!(damaged(), 1, "F11: nobody has read it");
        let found = engine.store.damage();
        assert!(found[0].to_string().contains(&run), "{}", found[0]);
        // The device has the byte again: the next round takes the mark away.
        disk.flip_byte(&run, 50_000);
        clock.advance(ROUND_MIN);
        round(&engine, &clock);
        assert_eq!(damaged(), 0);
        closing::close(&engine).expect("closed");
    }

    /// Too many open files marked one run after the other, and then nothing was compacted any more.
    #[test]
    fn what_may_pass_is_tried_again_later_and_marks_nothing() {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
        let (engine, run) = with_a_run(&disk, &clock);
        disk.fail_matching(DiskOp::Open, &run, ErrorKind::Other);
        for _ in 0..3 {
            assert_eq!(slice(&engine), FAILED_PAUSE);
        }
        disk.clear_faults();
        disk.fail_matching(DiskOp::Read, &run, ErrorKind::Other);
        assert_eq!(slice(&engine), FAILED_PAUSE, "F6: once is no damage");
        assert_eq!(engine.store.stats().damaged_runs, 0);
        assert!(slice(&engine) < FAILED_PAUSE);
        assert_eq!(engine.store.stats().damaged_runs, 1);
        closing::close(&engine).expect("closed");
    }

    /// After rounds that took days, those of a database that had become small followed each other without a pause.
    #[test]
    fn a_round_that_took_days_is_not_made_up_for() {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
        let (engine, _) = with_a_run(&disk, &clock);
        for _ in 0..3 {
            slice(&engine);
            clock.advance(ROUND_MIN * 3);
            round(&engine, &clock);
        }
        // One that begins when it may.
        round(&engine, &clock);
        let rest = slice(&engine);
        assert!(rest > ROUND_MIN / 2, "{rest:?}");
        closing::close(&engine).expect("closed");
    }

    /// A compaction of everything cleared the mark of a run that it never read.
    #[test]
    fn a_mark_outlives_a_compaction_that_does_not_read_the_run() {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
        let (engine, _) = with_a_run(&disk, &clock);
        compaction::everything(&engine).expect("intact");
        let run = disk
            .names()
            .into_iter()
            .rfind(|name| name.starts_with("run-"));
        disk.flip_byte(&run.expect("a run"), 50_000);
        round(&engine, &clock);
        assert_eq!(engine.store.stats().damaged_runs, 1);
        compaction::everything(&engine).expect("there is nothing to do");
        assert_eq!(
            engine.store.stats().damaged_runs,
            1,
            "F11: nobody has found it intact"
        );
        closing::close(&engine).expect("closed");
    }

    #[test]
    fn it_reads_at_its_rate_and_once_a_day() {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new()));
        let (engine, run) = with_a_run(&disk, &clock);
        let bytes = disk.read_file(&run).len() as u64;
        let took = round(&engine, &clock);
        let read = engine.counters.scrubbed_bytes.load(Ordering::Relaxed);
        assert!(read >= bytes * 9 / 10, "{read} of {bytes}");
        assert!(took >= Duration::from_millis(read / 20), "{took:?}");
        assert!(took < ROUND_MIN);
        let rest = slice(&engine);
        assert!(rest < ROUND_MIN && rest + took + SLICE > ROUND_MIN);
        assert_eq!(engine.counters.scrubbed_bytes.load(Ordering::Relaxed), read);
        closing::close(&engine).expect("closed");
    }
}
