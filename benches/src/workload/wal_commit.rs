//! `wal-commit`: each operation makes one record durable in a log alone: append it, wait until it is on the
//! device. What is left of `update` when locks, store and engine are taken away.
//!
//! With a pipeline, a client appends, asks, and waits for the oldest of those it has in flight; a latency is
//! from before the append until the wait for that record has returned.

use std::collections::VecDeque;
use std::time::Instant;

use lockstone_base::Lsn;
use lockstone_wal::Log;

use crate::author::{Author, Ledger};
use crate::bare_log::{BareLog, Keep};
use crate::closed_loop::{self, Around, Done, Window};
use crate::error::Error;
use crate::log_settings::CommitSettings;
use crate::place::Place;
use crate::run::Run;
use crate::workload::log_run;

pub(super) fn prepare<'a>(
    settings: &'a CommitSettings,
    place: &'a Place,
) -> impl FnMut(u32) -> Result<Run, Error> + use<'a> {
    move |number| one_run(settings, place, number)
}

fn one_run(settings: &CommitSettings, place: &Place, number: u32) -> Result<Run, Error> {
    let (common, log) = (&settings.common, &settings.log);
    let bare = BareLog::create(&place.log(), log, common, Keep::Tail)?;
    let ledger = Ledger::new(settings.threads);
    let window = Window::of_run(number, common.seconds);
    let client = |thread| {
        let seed = common.seed ^ u64::from(thread);
        let author = ledger.author(thread, log.record_bytes, seed);
        committer(bare.log(), author, settings.pipeline as usize)
    };
    let seen = log_run::Seen::default();
    let around = Around {
        begin: &|| seen.begin(&bare),
        end: &|| {
            seen.end(&bare);
            Ok(())
        },
    };
    let (tally, measured) =
        closed_loop::run_around(settings.threads, window, client, Some(around))?;
    let run = seen.run(&bare, log, &tally, measured);
    bare.close(&ledger)?.remove()?;
    Ok(run)
}

fn committer<'a>(
    log: &'a Log,
    mut author: Author<'a>,
    pipeline: usize,
) -> impl FnMut() -> Result<Done, Error> + use<'a> {
    let mut in_flight: VecDeque<(Lsn, Instant)> = VecDeque::with_capacity(pipeline);
    move || {
        let began = Instant::now();
        let end = author.append(|record| log.append(record))?.end;
        if pipeline > 1 {
            log.ask(end);
        }
        in_flight.push_back((end, began));
        if in_flight.len() < pipeline {
            return Ok(Done::default());
        }
        let Some((end, began)) = in_flight.pop_front() else {
            return Ok(Done::default());
        };
        log.wait_durable(end)?;
        Error::unless_equal(
            "durable when the wait is over",
            1,
            u64::from(log.durable() >= end),
        )?;
        Ok(Done {
            operations: 1,
            began: Some(began),
            ..Done::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_settings::tests::settings;

    fn run(threads: u32, pipeline: u32) -> Run {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let (common, log) = settings();
        let settings = CommitSettings {
            common,
            log,
            threads,
            pipeline,
        };
        prepare(&settings, &place)(0).unwrap()
    }

    #[test]
    fn a_lone_committer_writes_a_frame_a_record() {
        let run = run(1, 1);
        assert!(run.operations > 0 && run.max_us > 0.0);
        let records = run.records_per_frame.unwrap();
        assert!((0.9..1.1).contains(&records), "{records}");
    }

    #[test]
    fn committers_and_pipelines_share_frames() {
        for run in [run(4, 1), run(1, 16)] {
            let records = run.records_per_frame.unwrap();
            assert!(run.operations > 0 && records > 1.1, "{records}");
        }
    }
}
