//! One measured run, and many of them with the control between.

use std::time::Duration;

use lockstone_base::disk::Backend;
use serde::Serialize;

use crate::control::{Bare, Control};
use crate::error::Error;
use crate::latency::{Latencies, Tally};
use crate::memory;
use crate::place::Place;
use crate::run_settings::Common;

/// What one run has shown. Fields that a workload has nothing to say about are absent from the report.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Run {
    /// How long it was measured.
    pub(crate) measured_s: f64,
    /// Operations that ended meanwhile.
    pub(crate) operations: u64,
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) aborts: u64,
    pub(crate) deadlocks: u64,
    pub(crate) timeouts: u64,
    /// The mean of the controls before and behind this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control_ops_per_s: Option<f64>,
    /// This run's operations for one of the control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control_ratio: Option<f64>,
    /// The mean of the controls before and behind this run, in large frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control_mb_per_s: Option<f64>,
    /// What this run gave the device for each byte of the control's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mb_ratio: Option<f64>,
    /// What carried the log, as it turned out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io: Option<Backend>,
    /// A log alone: megabytes of records a second, headers and padding left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mb_per_s: Option<f64>,
    /// A log alone: megabytes of frames a second, as written or read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_mb_per_s: Option<f64>,
    /// A log alone: frames that were written or read, each with one call to the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) records_per_frame: Option<f64>,
    /// A log alone: how many frames were in flight when one started, itself included; the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_flight: Option<f64>,
    /// `wal-scan`: whether the log was read past the page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direct: Option<bool>,
    /// `hold`: how long the append latch was held, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold_ns: Option<Quantiles>,
    /// `hold`: how long it was waited for, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_ns: Option<Quantiles>,
    /// `hold`: what reading the clock once takes, in nanoseconds; each figure of the two contains one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clock_ns: Option<f64>,
    /// `sustain`: rows that the readers read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gets: Option<u64>,
    /// `sustain`: how long each took, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) get_ns: Option<Quantiles>,
    /// `lock-many`: the call that ended the transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) release_ms: Option<f64>,
    /// `lock-many`: by how much memory grew, for each lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes_per_lock: Option<f64>,
    /// `recover`: the open alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open_ms: Option<f64>,
    /// `recover`: from before the open until the first commit was durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_txn_ms: Option<f64>,
    /// `recover`: log that was read. `lock-many`: log that the transaction wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_bytes: Option<u64>,
    /// `load`: closing the database, which moves to runs what the log still held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) close_ms: Option<f64>,
    /// `load`: bytes that the device wrote, up to the closed database, for each byte of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) write_amplification: Option<f64>,
}

/// A histogram in a few numbers, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Quantiles {
    pub(crate) fn of(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.quantile_ns(0.5),
            p90: latencies.quantile_ns(0.9),
            p99: latencies.quantile_ns(0.99),
            p999: latencies.quantile_ns(0.999),
            max: latencies.max_ns(),
        }
    }
}

impl Run {
    /// The run in which `tally` was counted.
    pub(crate) fn of(tally: &Tally, measured: Duration) -> Self {
        let latencies = &tally.latencies;
        Self {
            measured_s: measured.as_secs_f64(),
            operations: tally.operations,
            ops_per_s: tally.operations as f64 / measured.as_secs_f64(),
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            p999_us: latencies.quantile_us(0.999),
            max_us: latencies.max_us(),
            aborts: tally.retries.aborts,
            deadlocks: tally.retries.deadlocks,
            timeouts: tally.retries.timeouts,
            ..Self::default()
        }
    }

    /// Sets it beside the controls before and behind it.
    fn compare(&mut self, before: Bare, behind: Bare) {
        let beside = f64::midpoint(before.ops_per_s, behind.ops_per_s);
        self.control_ops_per_s = Some(beside);
        self.control_ratio = Some(self.ops_per_s / beside);
        if let Some((before, behind)) = before.mb_per_s.zip(behind.mb_per_s) {
            let beside = f64::midpoint(before, behind);
            self.control_mb_per_s = Some(beside);
            self.mb_ratio = self.device_mb_per_s.map(|rate| rate / beside);
        }
    }
}

/// All runs of a workload.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) runs: Vec<Run>,
    /// The peak over all of them.
    pub(crate) rss_bytes: u64,
    /// The medians of all controls, one more than the runs.
    pub(crate) control_ops_per_s: Option<f64>,
    pub(crate) control_mb_per_s: Option<f64>,
}

/// How often, and beside which control.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) common: &'a Common,
    /// The control writes large frames too, so many in flight.
    pub(crate) control_frames: Option<u32>,
}

/// How long a control takes at most.
const CONTROL_MAX: Duration = Duration::from_secs(2);

/// Runs `one` as often as asked for: control, run, control, run, …, control. `seen` is shown each run as
/// soon as it is over.
pub(crate) fn repeat(
    place: &Place,
    plan: &Plan<'_>,
    mut one: impl FnMut(u32) -> Result<Run, Error>,
    mut seen: impl FnMut(u32, &Run),
) -> Result<Series, Error> {
    let common = plan.common;
    let mut control = if common.control {
        let io = common.io.into();
        Some(Control::prepare(place.dir(), io, plan.control_frames)?)
    } else {
        None
    };
    let control_time = Duration::from_secs_f64(common.seconds).min(CONTROL_MAX);
    let mut bare = || {
        control
            .as_mut()
            .map(|control| control.run(control_time))
            .transpose()
    };
    let all = || {
        let mut runs = Vec::new();
        let mut controls: Vec<_> = bare()?.into_iter().collect();
        for number in 0..common.runs {
            let mut run = one(number)?;
            let before = controls.last().copied();
            let behind = bare()?;
            if let (Some(before), Some(behind)) = (before, behind) {
                run.compare(before, behind);
                controls.push(behind);
            }
            seen(number, &run);
            runs.push(run);
        }
        Ok::<_, Error>((runs, controls))
    };
    let (result, rss_bytes) = memory::watched(all);
    let (runs, controls) = result?;
    let frames: Vec<_> = controls.iter().filter_map(|bare| bare.mb_per_s).collect();
    Ok(Series {
        runs,
        rss_bytes,
        control_ops_per_s: median_by(&controls, |bare| bare.ops_per_s).map(|bare| bare.ops_per_s),
        control_mb_per_s: median_by(&frames, |rate| *rate).copied(),
    })
}

impl Series {
    /// The run with the median rate.
    pub(crate) fn median(&self) -> Option<&Run> {
        median_by(&self.runs, |run| run.ops_per_s)
    }
}

/// The item in the middle by `key`; of an even number the lower one in the middle, since it must be one
/// that was measured.
fn median_by<T>(items: &[T], key: impl Fn(&T) -> f64) -> Option<&T> {
    let mut sorted: Vec<_> = items.iter().collect();
    sorted.sort_by(|a, b| key(a).total_cmp(&key(b)));
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Retries;

    #[test]
    fn a_run_is_its_tally_over_its_time() {
        let mut tally = Tally::new();
        for _ in 0..100 {
            tally.count(
                3,
                Duration::from_micros(50),
                Retries {
                    aborts: 1,
                    ..Retries::default()
                },
            );
        }
        let run = Run::of(&tally, Duration::from_secs(2));
        assert_eq!((run.operations, run.aborts), (300, 100));
        assert!((run.ops_per_s - 150.0).abs() < 1e-9);
        assert!((run.p50_us - 50.0).abs() < 0.5);
    }

    #[test]
    fn the_median_is_one_that_was_measured() {
        let median = |rates: &[f64]| median_by(rates, |rate| *rate).copied();
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.0));
    }

    #[test]
    fn a_run_is_compared_with_what_was_measured_beside_it() {
        let bare = |ops_per_s, mb_per_s| Bare {
            ops_per_s,
            mb_per_s,
        };
        let mut run = Run {
            ops_per_s: 10.0,
            device_mb_per_s: Some(100.0),
            ..Run::default()
        };
        run.compare(bare(15.0, None), bare(25.0, None));
        assert_eq!(
            (run.control_ops_per_s, run.control_ratio),
            (Some(20.0), Some(0.5))
        );
        assert_eq!((run.control_mb_per_s, run.mb_ratio), (None, None));
        run.compare(bare(15.0, Some(150.0)), bare(25.0, Some(250.0)));
        assert_eq!(
            (run.control_mb_per_s, run.mb_ratio),
            (Some(200.0), Some(0.5))
        );
    }

    #[test]
    fn quantiles_are_in_nanoseconds() {
        let mut latencies = Latencies::new();
        for ns in 1..=1000 {
            latencies.record(Duration::from_nanos(ns));
        }
        let found = Quantiles::of(&latencies);
        for (found, expected) in [
            (found.p50, 500),
            (found.p90, 900),
            (found.p99, 990),
            (found.p999, 999),
        ] {
            assert!(
                found.abs_diff(expected) <= expected / 100,
                "{found} {expected}"
            );
        }
        assert_eq!(found.max, 1000);
    }

    #[test]
    fn runs_are_numbered_and_without_control_there_is_none() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let (common, _) = crate::log_settings::tests::settings();
        let common = Common { runs: 3, ..common };
        let plan = Plan {
            common: &common,
            control_frames: None,
        };
        let mut shown = Vec::new();
        let one = |number| {
            Ok(Run {
                ops_per_s: f64::from(10 - number),
                ..Run::default()
            })
        };
        let series = repeat(&place, &plan, one, |number, _| shown.push(number)).unwrap();
        assert_eq!(shown, [0, 1, 2]);
        assert!((series.median().unwrap().ops_per_s - 9.0).abs() < 1e-9);
        assert!(series.control_ops_per_s.is_none() && series.runs[0].control_ratio.is_none());
        assert!(series.rss_bytes > 0);
    }
}
