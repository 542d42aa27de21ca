//! `lockstone wal dump`: the log from where recovery starts, frame by frame and record by record; what lies
//! behind its end; and the watermarks.
//!
//! A frame's columns are what recovery decides by: where it stands, which frame it follows (by end and
//! checksum), which run wrote it, how far the log was durable and which manifest was the newest then.

use std::path::PathBuf;

use clap::Args;
use lockstone::Lsn;
use lockstone::inspect::{
    Body, ChainPoint, Context, DumpSink, FrameInfo, Inspection, Leftover, SegmentInfo, Tag,
};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::inspection::log_summary;
use crate::inspection::record_text::{TableNames, object, words, wrapped};
use crate::output::{Output, count, say};

#[derive(Debug, Args)]
pub(crate) struct DumpArguments {
    /// The database's directory
    dir: PathBuf,
    /// Show at most this many records, or frames with --frames, and stop there; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// Begin with the frame that holds this position
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    from: u64,
    /// One line a frame, without records
    #[arg(long)]
    frames: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints the log.
pub(crate) fn wal_dump(arguments: &DumpArguments) -> Result {
    let inspection = Inspection::open(&arguments.dir)?;
    let mut dump = Dump {
        output: Output::pages(),
        names: TableNames::new(inspection.tables()),
        json: arguments.json,
        frames_only: arguments.frames,
        from: Lsn::new(arguments.from),
        left: match arguments.limit {
            0 => u64::MAX,
            limit => limit,
        },
        is_shown: false,
        end: None,
        written: Ok(()),
    };
    if arguments.frames && !arguments.json {
        dump.line(&format!(
            "{:>14} {:>8} {:>7} {:>8} {:>8} {:>5} {:>14} {:>8}  chain",
            "frame", "length", "records", "payload", "crc", "run", "durable", "manifest"
        ));
    }
    let dumped = inspection.dump(&mut dump);
    dump.written?;
    let output = &mut dump.output;
    // What comes before a failure has been shown, so that is printed first.
    let Ok(Some(log)) = &dumped else {
        if dumped.is_ok() && !arguments.json {
            say!(
                output,
                "stopped after {}; what follows was not read",
                count(
                    arguments.limit,
                    if arguments.frames { "frame" } else { "record" }
                ),
            )?;
        }
        output.flush()?;
        dumped?;
        return Ok(());
    };
    if arguments.json {
        output.json(&json!({ "log": log }))?;
    } else {
        say!(output, "")?;
        log_summary::print(output, log)?;
    }
    output.flush()?;
    log_summary::outcome(log)
}

struct Dump {
    output: Output,
    names: TableNames,
    json: bool,
    frames_only: bool,
    from: Lsn,
    /// How many records, or frames, are still to be shown.
    left: u64,
    /// Whether the frame whose records come is shown.
    is_shown: bool,
    /// The end of the chain so far, once a frame was read.
    end: Option<ChainPoint>,
    /// A sink cannot fail: what did is kept, and what follows is not written.
    written: Result,
}

impl Dump {
    fn line(&mut self, line: &str) {
        if self.written.is_ok() {
            self.written = say!(self.output, "{line}");
        }
    }

    fn object(&mut self, object: &Value) {
        if self.written.is_ok() {
            self.written = self.output.json(object);
        }
    }

    fn frame_line(&mut self, frame: &FrameInfo, chain: &str) {
        if self.frames_only {
            self.line(&format!(
                "{:>14} {:>8} {:>7} {:>8} {:08x} {:>5} {:>14} {:>8}  {chain}",
                frame.start,
                frame.point.end.since(frame.start),
                frame.records,
                frame.payload_bytes,
                frame.point.crc,
                frame.boot_epoch,
                frame.durable_through,
                frame.manifest_generation,
            ));
            return;
        }
        self.line(&format!(
            "frame {} to {}  crc {:08x}  {}, {}",
            frame.start,
            frame.point.end,
            frame.point.crc,
            count(frame.records, "record"),
            count(frame.payload_bytes, "byte"),
        ));
        let after = format!(
            "after {}/{:08x} ({chain})",
            frame.before.end, frame.before.crc
        );
        let marks = [
            after,
            format!("run {}", frame.boot_epoch),
            format!("durable {}", frame.durable_through),
            format!("manifest {}", frame.manifest_generation),
        ];
        self.line(&wrapped(6, &marks));
    }
}

fn frame_object(frame: &FrameInfo, chain: &str) -> Value {
    json!({
        "start": frame.start,
        "end": frame.point.end,
        "crc": frame.point.crc,
        "before_end": frame.before.end,
        "before_crc": frame.before.crc,
        "chain": chain,
        "records": frame.records,
        "payload_bytes": frame.payload_bytes,
        "boot_epoch": frame.boot_epoch,
        "durable_through": frame.durable_through,
        "manifest_generation": frame.manifest_generation,
    })
}

impl DumpSink for Dump {
    fn segment(&mut self, segment: &SegmentInfo) {
        if segment.base.plus(segment.bytes) <= self.from || self.frames_only {
            return;
        }
        if self.json {
            let SegmentInfo { name, base, bytes } = segment;
            self.object(&json!({ "segment": { "file": name, "base": base, "bytes": bytes } }));
        } else {
            self.line(&format!("{} at {}", segment.name, segment.base));
        }
    }

    fn frame(&mut self, frame: &FrameInfo) {
        // It is of the chain, so the frame before it is the one that it names.
        let chain = match frame.before.end {
            end if end == Lsn::ZERO => "first",
            end if end == frame.start => "ok",
            _ => "ok, jump",
        };
        self.end = Some(frame.point);
        self.is_shown = frame.point.end > self.from;
        if !self.is_shown {
            return;
        }
        if self.frames_only {
            self.left = self.left.saturating_sub(1);
        }
        if self.json {
            self.object(&json!({ "frame": frame_object(frame, chain) }));
        } else {
            self.frame_line(frame, chain);
        }
    }

    fn record(&mut self, lsn: Lsn, context: Option<Context>, tag: Tag, body: Body<'_>) {
        self.names.learn(&body);
        if !self.is_shown || self.frames_only || self.left == 0 {
            return;
        }
        self.left -= 1;
        if self.json {
            let object = object(lsn, context, tag, &body, &self.names);
            self.object(&json!({ "record": object }));
        } else {
            let mut words = words(lsn, context, &body, &self.names);
            if let (Body::Begin { .. } | Body::Commit { .. }, Some(context)) = (&body, context) {
                words.push(format!("({})", context.rank));
            }
            self.line(&wrapped(2, &words));
        }
    }

    fn leftover(&mut self, leftover: &Leftover) {
        let frame = &leftover.frame;
        let follows = self.end.is_none_or(|end| end == frame.before);
        let chain = match (follows, leftover.is_whole) {
            (true, true) => "behind the end, not read",
            (true, false) => "behind the end, payload torn",
            (false, true) => "behind the end, not its successor",
            (false, false) => "behind the end, not its successor, payload torn",
        };
        if self.json {
            let place = json!({ "file": leftover.file, "offset": leftover.offset });
            let whole = leftover.is_whole;
            let frame = frame_object(frame, chain);
            self.object(&json!({ "leftover": { "frame": frame, "place": place, "whole": whole } }));
        } else {
            self.frame_line(frame, chain);
        }
    }

    fn wants_more(&self) -> bool {
        self.left > 0 && self.written.is_ok()
    }
}
