//! Reading runs anew, a part at a time: what has gone bad on the device, or in memory, since a block was first
//! touched becomes an error for its next reader instead of a wrong answer.
//!
//! Called by whoever has time for it.
//! 1. A round goes over all runs in the order of their numbers; runs that come or go meanwhile do no harm.
//! 2. A call reads about as much as it was given leave to; nothing is written.

use super::{ScrubPlace, Store};
use crate::error::StorageError;

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
}

impl Store {
    /// Reads about `bytes_max` bytes of runs from the device, on from where the call before ended, and
    /// verifies them. Blocks that are damaged are trusted no longer: whoever reads them gets an error.
    pub fn scrub(&self, bytes_max: u64) -> StoreScrub {
        let mut place = self.scrubbed.lock();
        let sources = self.sources();
        let mut runs: Vec<_> = sources.tree.runs().collect();
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
                    block: 0,
                };
            }
            let left = bytes_max.saturating_sub(scrub.bytes);
            let (next, bytes) = run.scrub(place.block, left, &mut scrub.findings);
            scrub.bytes += bytes;
            if let Some(block) = next {
                place.block = block;
                return scrub;
            }
            place.run = number + 1;
            place.block = 0;
        }
        *place = ScrubPlace::default();
        scrub.round_done = true;
        scrub
    }
}
