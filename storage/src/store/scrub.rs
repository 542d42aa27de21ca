//! Reading runs anew, a part at a time: what has gone bad on the device, or in memory, since a block was first
//! touched becomes an error for its next reader instead of a wrong answer.
//!
//! Called by the engine's scrubber.
//! 1. A round goes over all runs in the order of their numbers; runs that come or go meanwhile do no harm.
//! 2. F11: a run in which something is damaged is left alone by compactions; one that has been read through from its
//!    beginning without a finding, of the scrub's or of anybody's meanwhile, is so no longer.
//! 3. F6: a read that the device refuses is tried again by the next call, and only then a finding. What says nothing
//!    of a run's bytes, as too many open files, ends the call, and the next one goes on there; a run that cannot be
//!    read for too long is left out of the round, and said to be.
//! 4. A call reads about as much as it was given leave to; nothing is written.

use super::{ScrubPlace, Store};
use crate::error::StorageError;
use crate::run::Run;

/// So many calls get no further at a run before it is left out of the round.
const FAILURES_MAX: u32 = 10;

/// What [`Store::scrub`] did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreScrub {
    /// How much it read, in bytes.
    pub bytes: u64,
    /// It came to the end of the last run; the next call begins anew.
    pub round_done: bool,
    /// What is wrong. Empty: nothing.
    pub findings: Vec<StorageError>,
    /// What ended it early, though it may be no damage: the next call tries again.
    pub failure: Option<StorageError>,
    /// That was tried often enough: the run is left out of this round.
    pub left_out: bool,
}

impl Store {
    /// Reads about `bytes_max` bytes of runs from the device, on from where the call before ended, and
    /// verifies them. Blocks that are damaged are trusted no longer: whoever reads them gets an error.
    pub fn scrub(&self, bytes_max: u64) -> StoreScrub {
        let mut place = self.scrubbed.lock();
        let sources = self.sources();
        let mut runs: Vec<_> = sources.runs().collect();
        runs.sort_by_key(|run| run.entry().number);
        let mut scrub = StoreScrub::default();
        for run in runs {
            let number = run.entry().number;
            if number < place.run {
                continue;
            }
            if number > place.run {
                *place = ScrubPlace {
                    run: number,
                    ..ScrubPlace::default()
                };
            }
            if place.block == 0 {
                self.catalogue.lock().begin_reading(number);
            }
            let left = bytes_max.saturating_sub(scrub.bytes);
            let (next, bytes) = run.scrub(place.block, left, &mut |error| {
                let is_damage = self.note_found(run, &error);
                if is_damage {
                    scrub.findings.push(error);
                } else {
                    scrub.failure = Some(error);
                }
                is_damage
            });
            scrub.bytes += bytes;
            let behind = ScrubPlace {
                run: number + 1,
                ..ScrubPlace::default()
            };
            if let Some(block) = next {
                let failures = scrub.failure.as_ref().map_or(0, |_| place.failures + 1);
                place.failures = if block == place.block {
                    failures
                } else {
                    failures.min(1)
                };
                place.block = block;
                scrub.left_out = place.failures == FAILURES_MAX;
                if scrub.left_out {
                    *place = behind;
                }
                return scrub;
            }
            self.catalogue.lock().end_reading(number);
            *place = behind;
        }
        *place = ScrubPlace::default();
        scrub.round_done = true;
        scrub
    }

    /// Takes note of what was found in a run; whether it is damage. A run that a compaction has replaced meanwhile is
    /// nobody's any more.
    fn note_found(&self, run: &Run, error: &StorageError) -> bool {
        let mut catalogue = self.catalogue.lock();
        if self.current().has(run.entry()) {
            catalogue.note_failed_read(run.entry().number, error)
        } else {
            matches!(error, StorageError::Corrupt { .. })
        }
    }
}
