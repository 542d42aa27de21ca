//! What a run on a log alone has to tell beside its rate: the frames that were written meanwhile.

use std::cell::Cell;
use std::time::Duration;

use crate::bare_log::BareLog;
use crate::counted_disk::Counts;
use crate::latency::Tally;
use crate::log_settings::LogSettings;
use crate::run::Run;

/// What was written when the window began, and when it ended.
#[derive(Debug, Default)]
pub(super) struct Seen {
    begin: Cell<Counts>,
    end: Cell<Counts>,
}

impl Seen {
    pub(super) fn begin(&self, bare: &BareLog) {
        self.begin.set(bare.counts());
    }

    pub(super) fn end(&self, bare: &BareLog) {
        self.end.set(bare.counts());
    }

    /// The run in which `tally` was counted.
    pub(super) fn run(
        &self,
        bare: &BareLog,
        settings: &LogSettings,
        tally: &Tally,
        measured: Duration,
    ) -> Run {
        let written = self.end.get().since(self.begin.get());
        let per_frame =
            |count: u64| (written.frames > 0).then(|| count as f64 / written.frames as f64);
        let bytes = tally.operations * u64::from(settings.record_bytes);
        Run {
            io: Some(bare.backend()),
            mb_per_s: Some(bytes as f64 / 1e6 / measured.as_secs_f64()),
            device_mb_per_s: Some(written.bytes as f64 / 1e6 / measured.as_secs_f64()),
            frames: Some(written.frames),
            records_per_frame: per_frame(tally.operations),
            in_flight: per_frame(written.aloft),
            ..Run::of(tally, measured)
        }
    }
}
