//! What every workload can be told: where, how long, how often, through which calls.
//!
//! Part of the command line: `settings` and `log_settings` take it in.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum};
use lockstone::IoMode;
use serde::Serialize;

/// What all workloads can be told.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Common {
    /// Where the files go; a database that is loaded there is used again. Without it: a temporary directory
    /// under ./target, or under $TMPDIR.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// How long a run is measured; load, lock-many, recover and wal-scan end by themselves.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How many runs the median is of.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The calls that move the log to the device, in the control too.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) io: Io,
    /// Measures the bare device before and behind every run: 4 KiB overwrites, one at a time, each on the
    /// device before the next.
    #[arg(long)]
    pub(crate) control: bool,
    /// Ends the output with one line that holds a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The calls that move the log to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Io {
    /// io_uring where the kernel lets us, else blocking calls.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// pwritev2, one frame after the other.
    Blocking,
}

impl From<Io> for IoMode {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Uring => Self::Uring,
            Io::Blocking => Self::Blocking,
        }
    }
}

/// How many clients there may be.
pub(crate) fn threads() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=4096)
}

/// How many operations a client may have in flight.
pub(crate) fn pipeline() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=4096)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("more than zero and at most a day".into()),
    }
}
