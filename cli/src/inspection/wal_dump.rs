//! `lockstone wal dump`: the log from where recovery starts, one line a frame, one line a record.
//!
//! The columns of a frame are what recovery decides by: where it stands, which frame it follows (by end
//! and checksum), which run wrote it, how far the log was durable and which manifest was the newest then.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use lockstone::Lsn;
use lockstone::inspect::{
    Body, Context, DumpSink, Effect, FrameInfo, Inspection, Provisional, Tag,
};
use lockstone_base::RowKey;

use crate::failure::{Failure, Result};
use crate::output::{Output, count, grouped, say, shown};

#[derive(Debug, Args)]
pub(crate) struct DumpArguments {
    /// The database's directory
    dir: PathBuf,
    /// Show at most this many records; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

/// How many bytes of a value are shown.
const VALUE_SHOWN_MAX: usize = 32;

/// Prints the log.
pub(crate) fn wal_dump(arguments: &DumpArguments) -> Result {
    let inspection = Inspection::open(&arguments.dir)?;
    let limit = if arguments.limit == 0 {
        u64::MAX
    } else {
        arguments.limit
    };
    let mut dump = Dump {
        output: Output::pages(),
        limit,
        frames: 0,
        records: 0,
        written: Ok(()),
    };
    let scanned = inspection.dump(&mut dump);
    dump.written?;
    // What comes before the damage has been shown, so that is printed first.
    if scanned.is_ok() {
        say!(
            dump.output,
            "{}, {}{}",
            count(dump.frames, "frame"),
            count(dump.records, "record"),
            match dump.records.saturating_sub(limit) {
                0 => String::new(),
                more => format!("; {} not shown", grouped(more)),
            }
        )?;
    }
    dump.output.flush()?;
    match scanned?.and_then(|log| log.corrupt) {
        Some(corrupt) => Err(Failure::Found(corrupt.what.to_owned())),
        None => Ok(()),
    }
}

struct Dump {
    output: Output,
    limit: u64,
    frames: u64,
    records: u64,
    /// The sink cannot stop a dump: what failed is kept, and what follows is not written.
    written: Result,
}

impl Dump {
    fn line(&mut self, line: &str) {
        if self.written.is_ok() {
            self.written = say!(self.output, "{line}");
        }
    }
}

impl DumpSink for Dump {
    fn frame(&mut self, frame: &FrameInfo) {
        self.frames += 1;
        if self.records >= self.limit {
            return;
        }
        self.line(&format!(
            "frame {} to {} crc {:08x} after {}/{:08x} run {} durable {} manifest {} records {} payload {}",
            frame.start,
            frame.point.end,
            frame.point.crc,
            frame.before.end,
            frame.before.crc,
            frame.boot_epoch,
            frame.durable_through,
            frame.manifest_generation,
            frame.records,
            frame.payload_bytes,
        ));
    }

    fn record(&mut self, lsn: Lsn, context: Option<Context>, _tag: Tag, body: Body<'_>) {
        self.records += 1;
        if self.records > self.limit {
            return;
        }
        let owner = match context {
            Some(Context { txn, rank }) => format!("{txn} ({rank})"),
            None => "engine".to_owned(),
        };
        self.line(&format!("  {lsn} {owner} {}", described(body)));
    }
}

fn described(body: Body<'_>) -> String {
    match body {
        Body::Begin { label: "" } => "begin".to_owned(),
        Body::Begin { label } => format!("begin `{}`", shown(label.as_bytes())),
        Body::Provisional(provisional) => provisional_described(&provisional),
        Body::ValuePart(part) => format!("value-part {}", count(part.len(), "byte")),
        Body::RollbackTo { from, through } => format!("rollback of parts {from} to {through}"),
        Body::Commit { rows } => format!("commit {}", count(rows, "row")),
        Body::Abort => "abort".to_owned(),
        Body::CreateTable { id, name } => {
            format!("create-table {} `{}`", id.0, shown(name.as_bytes()))
        }
        Body::CleanShutdown => "clean-shutdown".to_owned(),
    }
}

fn provisional_described(provisional: &Provisional<'_>) -> String {
    let row = match RowKey::from_encoded(Bytes::copy_from_slice(provisional.row)) {
        Some(row) => format!("table {} key `{}`", row.table().0, shown(row.key())),
        None => format!("row {}", provisional.row.escape_ascii()),
    };
    let effect = match provisional.effect {
        Effect::Lock => "lock".to_owned(),
        Effect::Delete => "delete".to_owned(),
        Effect::Put(value) => {
            let (head, rest) = value.split_at(value.len().min(VALUE_SHOWN_MAX));
            let more = if rest.is_empty() { "" } else { "…" };
            format!("put {} `{}{more}`", count(value.len(), "byte"), shown(head))
        }
    };
    let fresh = if provisional.fresh { " new" } else { "" };
    format!(
        "{effect} {row} mode {}{fresh} part {}",
        provisional.mode, provisional.sub
    )
}
