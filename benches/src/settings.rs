//! The command line: which workload, and how. The first value named of an option is its default.
//!
//! Settings are serialised into the report as they were given or defaulted, under the names of their
//! options with `_` for `-`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::error::Error;
use crate::log_settings::{AppendSettings, CommitSettings, HoldSettings, LogScanSettings};
use crate::run_settings::{Common, pipeline, threads};

/// Measures the throughput and latency of a Lockstone database.
///
/// Rows have keys of 16 and values of 100 bytes. Clients run a closed loop without think time; what ends
/// inside the measured window counts; a warm-up precedes. The number printed is the median of all runs.
#[derive(Debug, Parser)]
#[command(name = "lockstone-benches")]
pub(crate) struct Program {
    /// What is measured.
    #[command(subcommand)]
    pub(crate) workload: Workload,
}

/// The workloads.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// One operation is one row, written into an empty database in durable batches of 10,000.
    Load(LoadSettings),
    /// One operation is one transaction: reads different rows for update, writes each, and commits.
    Update(UpdateSettings),
    /// One operation is one row lock; one transaction locks all the rows.
    LockMany(LockManySettings),
    /// One operation is one row, read by its key.
    Get(GetSettings),
    /// One operation is one row, read by its key in a call that reads many.
    MultiGet(MultiGetSettings),
    /// One operation is one row, read in order of the keys from a random start.
    Scan(ScanSettings),
    /// One operation is one durable transaction, while others read: what both feel of the background's work.
    Sustain(SustainSettings),
    /// One operation is one recovery: open after kill -9, up to the first commit.
    Recover(RecoverSettings),
    /// One operation is one record, appended to a log alone; the run ends when all are durable.
    WalAppend(AppendSettings),
    /// One operation is one record of a log alone, durable.
    WalCommit(CommitSettings),
    /// One operation is one record of a log alone, read and checked.
    WalScan(LogScanSettings),
    /// One operation is what a commit of one row does around the append latch: how long it is held, and waited for.
    Hold(HoldSettings),
}

/// What the workloads on a database can be told of it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct TableSettings {
    /// Rows in the table.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rows: u64,
}

/// The settings of `load`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct LoadSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// The order of the keys.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) order: LoadOrder,
}

/// The settings of `update`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct UpdateSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// Clients, each a thread that waits for its commits.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
    /// Commits that a client keeps in flight.
    #[arg(long, default_value_t = 1, value_parser = pipeline())]
    pub(crate) pipeline: u32,
    /// Different rows that a transaction updates.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rows_per_txn: u32,
    /// Which rows: all alike, or few often (exponent 0.99).
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dist: Distribution,
    /// A transaction takes its rows in order of their keys: no deadlocks.
    #[arg(long)]
    pub(crate) ordered: bool,
    /// Whether a commit waits for the device.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sync: Sync,
    /// What a lock request does when another transaction stands in its way.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) policy: ConflictPolicy,
}

/// The settings of `lock-many`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct LockManySettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// The order in which the rows are locked; random needs `--via lock`.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) order: LockOrder,
    /// The call that locks: the locking cursor, one call for all rows, or one call for each key.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) via: Via,
    /// How the transaction ends.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) release: Release,
    /// The memory that locks may take before they are spilled, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) provisional_mib: u64,
}

/// The settings of `get`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct GetSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// Readers.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
    /// Rows that are read through one snapshot.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
}

/// The settings of `multi-get`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct MultiGetSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// Readers.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
    /// Rows that are read by one call.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
}

/// The settings of `scan`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ScanSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// Readers.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) threads: u32,
    /// Rows that one scan reads.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
}

/// The settings of `sustain`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct SustainSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// Clients that write.
    #[arg(long, default_value_t = 8, value_parser = threads())]
    pub(crate) writers: u32,
    /// Clients that read.
    #[arg(long, default_value_t = 1, value_parser = threads())]
    pub(crate) readers: u32,
    /// Rows that a transaction writes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rows_per_txn: u32,
}

/// The settings of `recover`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct RecoverSettings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) table: TableSettings,
    /// How much log the recovery is to find, in bytes.
    #[arg(long, default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(..=LOG_BYTES_MAX))]
    pub(crate) log_bytes: u64,
    /// Row locks of open transactions at the kill.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) locks_in_flight: u64,
    /// The child: fills the log and waits to be killed.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub(crate) fill: bool,
}

/// What was committed since the last checkpoint must fit memory beside the log that holds it.
const LOG_BYTES_MAX: u64 = 4 << 30;

/// The order of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LoadOrder {
    #[default]
    Random,
    Sorted,
}

/// The order of many locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LockOrder {
    #[default]
    Sorted,
    Random,
}

/// Which rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Distribution {
    #[default]
    Uniform,
    Zipf,
}

/// Whether commits are durable when they return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sync {
    #[default]
    On,
    Off,
}

/// What a request does that cannot be granted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ConflictPolicy {
    #[default]
    Wait,
    #[value(name = "nowait")]
    #[serde(rename = "nowait")]
    NoWait,
    Wound,
    /// Waits for 10 ms, then wounds.
    WoundAfter,
}

/// The call that locks many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Via {
    #[default]
    RangeFor,
    LockRows,
    Lock,
}

/// How a transaction ends that has only locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Release {
    #[default]
    Commit,
    Abort,
}

impl Workload {
    /// Its name on the command line and in the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Update(_) => "update",
            Self::LockMany(_) => "lock-many",
            Self::Get(_) => "get",
            Self::MultiGet(_) => "multi-get",
            Self::Scan(_) => "scan",
            Self::Sustain(_) => "sustain",
            Self::Recover(_) => "recover",
            Self::WalAppend(_) => "wal-append",
            Self::WalCommit(_) => "wal-commit",
            Self::WalScan(_) => "wal-scan",
            Self::Hold(_) => "hold",
        }
    }

    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Load(LoadSettings { common, .. })
            | Self::Update(UpdateSettings { common, .. })
            | Self::LockMany(LockManySettings { common, .. })
            | Self::Get(GetSettings { common, .. })
            | Self::MultiGet(MultiGetSettings { common, .. })
            | Self::Scan(ScanSettings { common, .. })
            | Self::Sustain(SustainSettings { common, .. })
            | Self::Recover(RecoverSettings { common, .. })
            | Self::WalAppend(AppendSettings { common, .. })
            | Self::WalCommit(CommitSettings { common, .. })
            | Self::WalScan(LogScanSettings { common, .. })
            | Self::Hold(HoldSettings { common, .. }) => common,
        }
    }

    /// How many large frames its control has in flight, if it is to write any.
    pub(crate) fn control_frames(&self) -> Option<u32> {
        match self {
            Self::WalAppend(append) => Some(append.log.frames_in_flight),
            _ => None,
        }
    }

    /// All settings as a JSON object.
    pub(crate) fn to_json(&self) -> Result<serde_json::Value, Error> {
        Ok(match self {
            Self::Load(settings) => serde_json::to_value(settings),
            Self::Update(settings) => serde_json::to_value(settings),
            Self::LockMany(settings) => serde_json::to_value(settings),
            Self::Get(settings) => serde_json::to_value(settings),
            Self::MultiGet(settings) => serde_json::to_value(settings),
            Self::Scan(settings) => serde_json::to_value(settings),
            Self::Sustain(settings) => serde_json::to_value(settings),
            Self::Recover(settings) => serde_json::to_value(settings),
            Self::WalAppend(settings) => serde_json::to_value(settings),
            Self::WalCommit(settings) => serde_json::to_value(settings),
            Self::WalScan(settings) => serde_json::to_value(settings),
            Self::Hold(settings) => serde_json::to_value(settings),
        }?)
    }

    /// Refuses what does not go together.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = match self {
            Self::Update(update) if u64::from(update.rows_per_txn) > update.table.rows => {
                "--rows-per-txn is more than --rows: the rows of a transaction are different ones"
            }
            Self::LockMany(lock) if lock.order == LockOrder::Random && lock.via != Via::Lock => {
                "--order random needs --via lock: the other calls go in order of the keys"
            }
            Self::Scan(scan) if u64::from(scan.batch) > scan.table.rows => {
                "--batch is more than --rows"
            }
            Self::Recover(recover) if recover.locks_in_flight > recover.table.rows => {
                "--locks-in-flight is more than --rows"
            }
            _ => return Ok(()),
        };
        Err(Error::Setting(refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Workload, clap::Error> {
        let program = Program::try_parse_from(std::iter::once("bench").chain(line.split(' ')));
        program.map(|program| program.workload)
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Program as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_first_value_named_is_the_default() {
        let value = |line: &str, name: &str| parsed(line).unwrap().to_json().unwrap()[name].clone();
        for (workload, name, expected) in [
            ("load", "order", "random"),
            ("update", "dist", "uniform"),
            ("update", "sync", "on"),
            ("update", "policy", "wait"),
            ("update", "io", "auto"),
            ("lock-many", "order", "sorted"),
            ("lock-many", "via", "range-for"),
            ("lock-many", "release", "commit"),
        ] {
            assert_eq!(value(workload, name), expected, "{workload} --{name}");
        }
        assert_eq!(value("get", "batch"), 1);
        assert_eq!(value("update", "pipeline"), 1);
        assert_eq!(value("wal-append", "record_bytes"), 150);
        assert_eq!(value("wal-commit", "frames_in_flight"), 2);
        assert_eq!(value("wal-scan", "log_bytes"), 1 << 30);
        assert_eq!(value("hold", "segment_bytes"), 64 << 20);
        assert_eq!(value("scan", "threads"), 1);
        assert_eq!(value("sustain", "writers"), 8);
        assert_eq!(value("recover", "log_bytes"), 64 << 20);
    }

    #[test]
    fn settings_are_reported_as_given_under_their_options_names() {
        let line = "update --dir d --rows 50 --threads 3 --pipeline 5 --seconds 0.5 --runs 2 --rows-per-txn 4 \
                    --io uring --dist zipf --ordered --sync off --policy nowait --seed 9 --control --json";
        let workload = parsed(line).unwrap();
        let expected = serde_json::json!({
            "dir": "d", "rows": 50, "threads": 3, "pipeline": 5, "io": "uring", "seconds": 0.5, "runs": 2, "rows_per_txn": 4, "dist": "zipf",
            "ordered": true, "sync": "off", "policy": "nowait", "seed": 9, "control": true, "json": true,
        });
        assert_eq!(workload.to_json().unwrap(), expected);
        assert_eq!(workload.name(), "update");
        assert!(workload.check().is_ok());
    }

    #[test]
    fn every_workload_is_named_as_on_the_command_line() {
        for name in [
            "load",
            "update",
            "lock-many",
            "get",
            "multi-get",
            "scan",
            "sustain",
            "recover",
            "wal-append",
            "wal-commit",
            "wal-scan",
            "hold",
        ] {
            assert_eq!(parsed(name).unwrap().name(), name);
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        for line in [
            "update --rows 2 --rows-per-txn 3",
            "lock-many --order random",
            "scan --rows 10 --batch 11",
            "recover --rows 10 --locks-in-flight 11",
        ] {
            assert!(parsed(line).unwrap().check().is_err(), "{line}");
        }
        assert!(
            parsed("lock-many --order random --via lock")
                .unwrap()
                .check()
                .is_ok()
        );
        for line in [
            "update --threads 0",
            "get --seconds 0",
            "load --threads 2",
            "scan --rows 0",
            "update --pipeline 0",
            "update --io fast",
            "wal-append --pipeline 2",
            "wal-append --rows 2",
            "wal-commit --frames-in-flight 9",
            "wal-commit --record-bytes 15",
            "hold --segment-bytes 4096",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
