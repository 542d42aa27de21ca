//! The options of the engine that the command line offers, shared by the commands that open a database.

use clap::Args;
use lockstone::Options;

/// The size of the log's files.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct EngineArguments {
    /// The size of a log segment in bytes, a multiple of 4096; opening writes two of them
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(..=1 << 30))]
    pub(crate) segment_bytes: u64,
}

/// How long the log may grow, in bytes, unless segments are so large that it takes more.
const LOG_BYTES: u64 = 1 << 30;

impl EngineArguments {
    /// The engine's options. What is out of range is said when the database is opened.
    pub(crate) fn options(self) -> Options {
        let log_bytes = LOG_BYTES.max(self.segment_bytes.saturating_mul(4));
        Options::new()
            .segment_bytes(self.segment_bytes)
            .log_bytes(log_bytes)
    }
}
