//! What is known of a log as a whole, for people: the end of `wal dump`, and all of `wal verify`.
//!
//! The watermarks stand below each other, so that one sees which lags behind which.

use lockstone::inspect::{ChainMarks, LogCheck, LogVerdict, Span};

use crate::failure::{Failure, Result};
use crate::output::{Output, bytes, count, grouped, say, table};

/// Prints all of it.
pub(crate) fn print(output: &mut Output, log: &LogCheck) -> Result {
    let (manifest, chain) = (&log.manifest, &log.chain);
    say!(
        output,
        "manifest     {}, written by run {}",
        manifest.generation,
        manifest.boot_epoch
    )?;
    say!(output, "  read from  {}", manifest.scan_from)?;
    say!(
        output,
        "  flushed    {}: every commit up to here is in runs",
        manifest.flushed_through
    )?;
    say!(output, "  durable    {}", manifest.durable)?;
    say!(output, "  files to   {}", manifest.log_end)?;
    say!(
        output,
        "chain        ends at {} ({:08x})",
        chain.end,
        chain.crc
    )?;
    say!(
        output,
        "  read       {}, {}, {}, {}",
        count(chain.frames, "frame"),
        count(chain.records, "record"),
        bytes(chain.bytes),
        count(chain.jumps, "jump"),
    )?;
    say!(
        output,
        "  durable    {}, as far as manifest and headers testify",
        chain.testified
    )?;
    print_covered(output, chain)?;
    print_end(output, log)?;
    print_files(output, log)
}

/// What came of it, as an outcome of the program.
pub(crate) fn outcome(log: &LogCheck) -> Result {
    match &log.corrupt {
        Some(corrupt) => Err(Failure::Found(format!(
            "{}: {}",
            corrupt.file.display(),
            corrupt.what
        ))),
        None => Ok(()),
    }
}

/// The limit of what can be told (G6): damage to a frame that nothing covers looks like a torn write.
fn print_covered(output: &mut Output, chain: &ChainMarks) -> Result {
    if let Some(Span { start, end, .. }) = chain.covered {
        say!(
            output,
            "  covered    {start} to {end}, the last frame read that they cover"
        )?;
    }
    let Some(Span { start, end, .. }) = chain.recorded else {
        return Ok(());
    };
    let covered = if chain.is_covered {
        "covered"
    } else {
        "not covered; damage would look torn"
    };
    say!(
        output,
        "  records    {start} to {end}, the last frame with any: {covered}"
    )
}

fn print_end(output: &mut Output, log: &LogCheck) -> Result {
    if let Some(torn) = &log.torn {
        say!(
            output,
            "torn tail    {} at {}: {} with {}; opening drops it",
            bytes(torn.bytes),
            torn.lsn,
            count(torn.frames, "intact header"),
            count(torn.records, "record"),
        )?;
        say!(
            output,
            "  file       {}, offset {}",
            torn.file.display(),
            torn.offset
        )?;
        if torn.whole > 0 {
            say!(
                output,
                "  in flight  {} behind the end, never acknowledged",
                count(torn.whole, "intact frame"),
            )?;
        }
    }
    if let Some(corrupt) = &log.corrupt {
        say!(output, "damage       {}", corrupt.what)?;
        say!(
            output,
            "  file       {}, offset {}",
            corrupt.file.display(),
            corrupt.offset
        )?;
        if let Some(lsn) = corrupt.lsn {
            say!(output, "  position   {lsn}")?;
        }
        if let Some(witness) = &corrupt.witness {
            say!(output, "  witness    {witness}")?;
        }
    }
    say!(
        output,
        "verdict      {}",
        match log.verdict {
            LogVerdict::Clean => "clean: nothing lies behind the end",
            LogVerdict::Torn => "torn: what lies behind the end was never acknowledged",
            LogVerdict::Corrupt =>
                "corrupt: acknowledged data is damaged or missing; opening is refused",
            _ => "unknown to this program",
        }
    )
}

fn print_files(output: &mut Output, log: &LogCheck) -> Result {
    if !log.segments.is_empty() {
        let mut rows = table(["segment", "base", "bytes", "used"]);
        for segment in &log.segments {
            rows.add_row([
                segment.file.clone(),
                segment.base.to_string(),
                grouped(segment.bytes),
                grouped(segment.used),
            ]);
        }
        output.table(0, &rows)?;
    }
    for spare in &log.spares {
        say!(
            output,
            "spare        {}, {}",
            spare.file,
            bytes(spare.bytes)
        )?;
    }
    Ok(())
}
