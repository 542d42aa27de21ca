//! The command line of the workloads that measure the log without a database around it.
//!
//! Part of the command line: `settings` takes it in.

use clap::Args;
use lockstone_wal::LogConfig;
use serde::Serialize;

use crate::run_settings::{Common, pipeline, threads};

/// What a log without a database can be told.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct LogSettings {
    /// Bytes of a record, a context of 16 bytes included, the header of 6 not.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(16..=32_768))]
    pub(crate) record_bytes: u32,
    /// Frames that may be on their way to the device at once.
    #[arg(long, default_value_t = LogConfig::FRAMES_IN_FLIGHT as u32, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) frames_in_flight: u32,
    /// The length of a segment in bytes: a multiple of 4096.
    #[arg(long, default_value_t = LogConfig::SEGMENT_BYTES, value_parser = clap::value_parser!(u64).range(SEGMENT_BYTES_MIN..))]
    pub(crate) segment_bytes: u64,
}

/// The log's own least.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;

/// The settings of `wal-append`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct AppendSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) log: LogSettings,
    /// Appenders.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
}

/// The settings of `wal-commit`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct CommitSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) log: LogSettings,
    /// Committers, each a thread that waits for its records.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
    /// Records that a committer keeps in flight.
    #[arg(long, default_value_t = 1, value_parser = pipeline())]
    pub(crate) pipeline: u32,
}

/// The settings of `wal-scan`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct LogScanSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) log: LogSettings,
    /// How long the log is that is read, in bytes.
    #[arg(long, default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1..=LOG_BYTES_MAX))]
    pub(crate) log_bytes: u64,
}

/// All of it stays on the disk until the last run.
const LOG_BYTES_MAX: u64 = 64 << 30;

/// The settings of `hold`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct HoldSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) log: LogSettings,
    /// Threads that commit without waiting for the device.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        log: LogSettings,
    }

    /// A short run on a log with short segments.
    pub(crate) fn settings() -> (Common, LogSettings) {
        let line = "x --seconds 0.2 --runs 1 --segment-bytes 1048576";
        let alone = Alone::try_parse_from(line.split(' ')).unwrap();
        (alone.common, alone.log)
    }

    #[test]
    fn the_log_is_as_the_engine_s_unless_told_otherwise() {
        let alone = Alone::try_parse_from(["x"]).unwrap();
        assert_eq!(
            alone.log.frames_in_flight as usize,
            LogConfig::FRAMES_IN_FLIGHT
        );
        assert_eq!(alone.log.segment_bytes, LogConfig::SEGMENT_BYTES);
        assert_eq!(alone.log.record_bytes, 150);
    }
}
