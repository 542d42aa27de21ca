//! What lies below a job's output: whether a row may be there, and how much of it the output covers.
//!
//! Asked in row order by the filter of versions and by the writing of outputs.
//! 1. W7: a row that a deeper run's ends enclose may be there, and a tombstone must then stay.
//! 2. The levels are those of the moment when the job was picked. What comes into them while it runs, between the
//!    ends of what the job reads, comes from the job's own level or from above it, hence from the job.

use std::sync::Arc;

use crate::tree::Level;

/// The levels below a job's output, walked in row order.
#[derive(Debug)]
pub(crate) struct Deeper {
    levels: Vec<Walked>,
}

#[derive(Debug)]
struct Walked {
    level: Arc<Level>,
    /// The first run that reaches to the row asked for last, or beyond.
    at: usize,
}

impl Deeper {
    /// The levels, the nearest one first.
    pub(crate) fn new(levels: &[Arc<Level>]) -> Self {
        let walked = |level: &Arc<Level>| Walked {
            level: Arc::clone(level),
            at: 0,
        };
        Self {
            levels: levels.iter().map(walked).collect(),
        }
    }

    /// Whether `row`, which is at or behind the rows asked for before, may have a version down there.
    pub(crate) fn may_have(&mut self, row: &[u8]) -> bool {
        self.levels.iter_mut().any(|level| level.may_have(row))
    }
}

impl Walked {
    fn may_have(&mut self, row: &[u8]) -> bool {
        let runs = self.level.runs();
        while let Some(run) = runs.get(self.at) {
            if *run.entry().largest >= *row {
                return *run.entry().smallest <= *row;
            }
            self.at += 1;
        }
        false
    }
}

/// How much of the next level an output would be merged with one day.
#[derive(Debug)]
pub(crate) struct Covered {
    level: Option<Arc<Level>>,
    at: usize,
    bytes: u64,
}

impl Covered {
    /// Nothing yet, of the nearest of these levels.
    pub(crate) fn new(levels: &[Arc<Level>]) -> Self {
        Self {
            level: levels.first().cloned(),
            at: 0,
            bytes: 0,
        }
    }

    /// The bytes of the runs that were passed since the last [`Covered::begin`] on the way to `row`.
    pub(crate) fn up_to(&mut self, row: &[u8]) -> u64 {
        let runs = self.level.as_ref().map_or(&[][..], |level| level.runs());
        while let Some(run) = runs.get(self.at) {
            if *run.entry().largest >= *row {
                break;
            }
            self.bytes += run.entry().bytes;
            self.at += 1;
        }
        self.bytes
    }

    /// A new output begins.
    pub(crate) fn begin(&mut self) {
        self.bytes = 0;
    }
}
