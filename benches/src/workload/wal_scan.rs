//! `wal-scan`: how fast a log alone is read and checked, as a recovery reads it: one operation is one
//! record. The log is written once, and read once a run.
//!
//! Segments are read past the page cache where the filesystem has a way, so no run is warmer than another
//! but for the device's own cache; where it has none, all but perhaps the first are warm, and the output
//! says so.

use crate::author::{Ledger, Reader};
use crate::bare_log::{BareLog, ClosedLog, Keep};
use crate::error::Error;
use crate::latency::{Retries, Tally};
use crate::log_settings::LogScanSettings;
use crate::place::Place;
use crate::run::Run;

pub(super) fn prepare<'a>(
    settings: &'a LogScanSettings,
    place: &'a Place,
) -> Result<impl FnMut(u32) -> Result<Run, Error> + use<'a>, Error> {
    let (closed, ledger) = write(settings, place)?;
    Ok(move |_| one_run(&closed, &ledger))
}

fn write(settings: &LogScanSettings, place: &Place) -> Result<(ClosedLog, Ledger), Error> {
    /// How often somebody looks how long the log is.
    const LOOK_EVERY: u32 = 256;
    let (common, log) = (&settings.common, &settings.log);
    let bare = BareLog::create(&place.log(), log, common, Keep::All)?;
    let ledger = Ledger::new(1);
    let mut author = ledger.author(0, log.record_bytes, common.seed);
    while bare.log().used_bytes() < settings.log_bytes {
        for _ in 0..LOOK_EVERY {
            author.append(|record| bare.log().append(record))?;
        }
    }
    drop(author);
    Ok((bare.close(&ledger)?, ledger))
}

fn one_run(closed: &ClosedLog, ledger: &Ledger) -> Result<Run, Error> {
    let mut reader = Reader::default();
    let read = closed.scan(&mut reader)?;
    reader.compare(ledger)?;
    Error::unless_equal("records in the log", ledger.total(), read.scan.records)?;
    let mut tally = Tally::new();
    tally.count(read.scan.records, read.took, Retries::default());
    let seconds = read.took.as_secs_f64();
    Ok(Run {
        io: Some(closed.backend()),
        direct: Some(closed.is_direct()),
        mb_per_s: Some(reader.bytes as f64 / 1e6 / seconds),
        device_mb_per_s: Some(read.scan.bytes as f64 / 1e6 / seconds),
        frames: Some(read.scan.frames),
        records_per_frame: Some(read.scan.records as f64 / read.scan.frames as f64),
        log_bytes: Some(read.scan.bytes),
        ..Run::of(&tally, read.took)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_settings::tests::settings;

    fn short() -> LogScanSettings {
        let (common, log) = settings();
        LogScanSettings {
            common,
            log,
            log_bytes: 3 << 20,
        }
    }

    #[test]
    fn every_run_reads_the_whole_log() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let settings = short();
        let mut one = prepare(&settings, &place).unwrap();
        let (first, second) = (one(0).unwrap(), one(1).unwrap());
        assert!(first.log_bytes.unwrap() >= settings.log_bytes);
        assert_eq!(
            (first.operations, first.log_bytes),
            (second.operations, second.log_bytes)
        );
        assert!(first.mb_per_s.unwrap() < first.device_mb_per_s.unwrap());
    }

    #[test]
    fn a_log_that_lost_a_segment_gives_no_number() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let settings = short();
        let mut one = prepare(&settings, &place).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(place.log())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.to_string_lossy().contains("spare"))
            .collect();
        names.sort();
        std::fs::remove_file(&names[1]).unwrap();
        assert!(one(0).is_err());
    }
}
