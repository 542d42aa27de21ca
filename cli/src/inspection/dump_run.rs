//! `lockstone dump-run`: a run file by itself: what it says of itself, its blocks, and its rows.

use std::path::PathBuf;

use clap::Args;
use lockstone::inspect::{RunFile, RunVersion, open_run};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output::{Output, bytes, count, grouped, say, shown};

#[derive(Debug, Args)]
pub(crate) struct DumpRunArguments {
    /// The run: a file called run- and 16 hexadecimal digits
    file: PathBuf,
    /// Show every version of every row
    #[arg(long)]
    rows: bool,
    /// Show at most this many blocks, or versions with --rows; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// The most of a value that is shown, in bytes.
const VALUE_BYTES_MAX: usize = 64;

/// Prints the run. Damage is told where it is met, and makes the exit code 1.
pub(crate) fn dump_run(arguments: &DumpRunArguments) -> Result {
    let run = open_run(&arguments.file)?;
    let mut dump = Dump {
        output: Output::pages(),
        json: arguments.json,
        left: match arguments.limit {
            0 => u64::MAX,
            limit => limit,
        },
        damaged: 0,
    };
    dump.head(&run)?;
    for number in 0..run.layout().blocks {
        if dump.left == 0 {
            break;
        }
        dump.block(&run, number, arguments.rows)?;
    }
    dump.output.flush()?;
    match dump.damaged {
        0 => Ok(()),
        damaged => Err(Failure::Found(format!(
            "{}: {}",
            arguments.file.display(),
            count(damaged, "damaged section")
        ))),
    }
}

struct Dump {
    output: Output,
    json: bool,
    /// How many blocks or versions are still to be shown.
    left: u64,
    damaged: u64,
}

impl Dump {
    fn head(&mut self, run: &RunFile) -> Result {
        let (entry, layout, filter) = (run.entry(), run.layout(), run.check_filter());
        self.damaged += u64::from(filter.is_err());
        let filter = filter.map_or_else(|error| error.to_string(), |()| "intact".to_owned());
        let (smallest, largest) = (row(&entry.smallest), row(&entry.largest));
        let output = &mut self.output;
        if self.json {
            return output.json(&json!({
                "run": entry.number,
                "uuid": format!("{:032x}", entry.uuid),
                "bytes": entry.bytes,
                "blocks": layout.blocks,
                "filter_at": layout.filter_at,
                "index_at": layout.index_at,
                "footer_at": layout.footer_at,
                "filter": filter,
                "versions": entry.versions,
                "rows": entry.rows,
                "tombstones": entry.tombstones,
                "oldest": entry.oldest,
                "newest": entry.newest,
                "smallest": smallest,
                "largest": largest,
            }));
        }
        say!(
            output,
            "run         {} of database {:032x}",
            entry.number,
            entry.uuid
        )?;
        say!(
            output,
            "file        {}: {}, filter at {}, index at {}, footer at {}",
            bytes(entry.bytes),
            count(layout.blocks, "block"),
            layout.filter_at,
            layout.index_at,
            layout.footer_at
        )?;
        say!(output, "filter      {filter}")?;
        say!(
            output,
            "holds       {} of {}, {}; stamps from LSN {} to {}",
            count(entry.versions, "version"),
            count(entry.rows, "row"),
            count(entry.tombstones, "tombstone"),
            entry.oldest,
            entry.newest
        )?;
        say!(output, "rows        {smallest} to {largest}")?;
        say!(output, "")?;
        say!(
            output,
            "{:>8} {:>12} {:>8} {:>8}  last row",
            "block",
            "offset",
            "bytes",
            "versions"
        )
    }

    fn block(&mut self, run: &RunFile, number: u64, rows: bool) -> Result {
        let Some(block) = run.block(number) else {
            return Ok(());
        };
        let (mut versions, mut left) = (Vec::new(), if rows { self.left } else { 0 });
        let visited = run.visit(number, &mut |version| {
            if left > 0 {
                left -= 1;
                versions.push(if self.json {
                    object(version)
                } else {
                    text(version).into()
                });
            }
        });
        self.damaged += u64::from(visited.is_err());
        let damage = visited.as_ref().err().map(ToString::to_string);
        let held = visited.unwrap_or_default();
        let last = row(&block.last);
        let output = &mut self.output;
        if self.json {
            output.json(&json!({
                "block": number,
                "offset": block.offset,
                "bytes": block.bytes,
                "versions": held,
                "last": last,
                "damage": damage,
            }))?;
        } else {
            let (size, held) = (grouped(block.bytes), grouped(held));
            say!(
                output,
                "{number:>8} {:>12} {size:>8} {held:>8}  {last}",
                block.offset
            )?;
            if let Some(damage) = &damage {
                say!(output, "         finding: {damage}")?;
                say!(
                    output,
                    "         hides rows from {} to {last}",
                    row(&block.above)
                )?;
            }
        }
        for version in &versions {
            match version {
                Value::String(text) => say!(output, "         {text}")?,
                object => output.json(object)?,
            }
        }
        self.left -= if rows { versions.len() as u64 } else { 1 };
        Ok(())
    }
}

/// A row as `#table/key`: a run knows no names.
fn row(encoded: &[u8]) -> String {
    match encoded.split_first_chunk() {
        Some((table, key)) => format!("#{}/{}", u32::from_be_bytes(*table), shown(key)),
        None => shown(encoded),
    }
}

fn text(version: RunVersion<'_>) -> String {
    let (row, stamp) = (row(version.row), version.stamp);
    match version.value {
        None => format!("{row} @{stamp} deleted"),
        Some(value) => format!("{row} @{stamp} = {}", cut(value)),
    }
}

fn cut(value: &[u8]) -> String {
    match value.get(..VALUE_BYTES_MAX) {
        Some(start) if value.len() > VALUE_BYTES_MAX => {
            format!(
                "{}... ({})",
                start.escape_ascii(),
                count(value.len(), "byte")
            )
        }
        _ => shown(value),
    }
}

fn object(version: RunVersion<'_>) -> Value {
    json!({
        "row": row(version.row),
        "stamp": version.stamp,
        "value": version.value.map(|value| value.escape_ascii().to_string()),
        "deleted": version.value.is_none(),
    })
}
