//! `wal-append`: each operation appends one record to a log alone; the run ends when all are durable.
//!
//! Nobody waits for a record: the thread that serves the log writes what has gathered, and whoever finds no
//! room waits for it. What was appended before the window and written in it, a few frames, counts to nothing.
//! One append of 64 is timed, because reading the clock takes a good part of the time of one.

use std::time::Instant;

use crate::author::Ledger;
use crate::bare_log::{BareLog, Keep};
use crate::closed_loop::{self, Around, Done, Window};
use crate::error::Error;
use crate::log_settings::AppendSettings;
use crate::place::Place;
use crate::run::Run;
use crate::workload::log_run;

/// One append of so many is timed.
const TIMED_EVERY: u64 = 64;

pub(super) fn prepare<'a>(
    settings: &'a AppendSettings,
    place: &'a Place,
) -> impl FnMut(u32) -> Result<Run, Error> + use<'a> {
    move |number| one_run(settings, place, number)
}

fn one_run(settings: &AppendSettings, place: &Place, number: u32) -> Result<Run, Error> {
    let (common, log) = (&settings.common, &settings.log);
    let bare = BareLog::create(&place.log(), log, common, Keep::Tail)?;
    let ledger = Ledger::new(settings.threads);
    let window = Window::of_run(number, common.seconds);
    let client = |thread| {
        let mut author = ledger.author(thread, log.record_bytes, common.seed ^ u64::from(thread));
        let log = bare.log();
        move || {
            for _ in 1..TIMED_EVERY {
                author.append(|record| log.append(record))?;
            }
            let began = Instant::now();
            author.append(|record| log.append(record))?;
            Ok(Done {
                operations: TIMED_EVERY,
                began: Some(began),
                ..Done::default()
            })
        }
    };
    let seen = log_run::Seen::default();
    let around = Around {
        begin: &|| seen.begin(&bare),
        end: &|| {
            bare.log().wait_durable(bare.log().end())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_settings::tests::settings;

    #[test]
    fn records_are_appended_by_many_and_all_are_there_in_the_end() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let (common, log) = settings();
        let settings = AppendSettings {
            common,
            log,
            threads: 2,
        };
        let run = prepare(&settings, &place)(0).unwrap();
        assert!(run.operations > 0 && run.operations.is_multiple_of(TIMED_EVERY));
        assert!(run.frames.unwrap() > 0 && run.mb_per_s.unwrap() > 0.0);
        assert!(run.records_per_frame.unwrap() > 1.0);
        assert!(!place.log().exists());
    }
}
