//! What the program prints: lines, tables, JSON. Every command writes through an [`Output`].
//!
//! 1. A closed pipe ends the command quietly ([`Failure::NobodyReads`]), it never panics.
//! 2. Bytes that came from a user are escaped, so no key can send codes to the terminal.

use std::fmt::{Arguments, Display};
use std::io::{self, BufWriter, ErrorKind, Write};

use comfy_table::{LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where lines go.
pub(crate) struct Output(Box<dyn Write>);

impl Output {
    /// Standard output, line by line: for commands that take their time.
    pub(crate) fn lines() -> Self {
        Self(Box::new(io::stdout()))
    }

    /// Standard output, in large pieces: for long lists.
    pub(crate) fn pages() -> Self {
        Self(Box::new(BufWriter::with_capacity(64 << 10, io::stdout())))
    }

    /// Nowhere: for people's lines where a program reads the JSON.
    pub(crate) fn nowhere() -> Self {
        Self(Box::new(io::sink()))
    }

    pub(crate) fn line(&mut self, line: Arguments<'_>) -> Result {
        writeln!(self.0, "{line}").map_err(refused)
    }

    /// A table with its lines moved right by `indent` spaces.
    pub(crate) fn table(&mut self, indent: usize, table: &Table) -> Result {
        for line in table.lines() {
            self.line(format_args!("{:indent$}{}", "", line.trim_end()))?;
        }
        Ok(())
    }

    /// One JSON object, on one line.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> Result {
        let text = serde_json::to_string(object).map_err(io::Error::from);
        let text = text.map_err(Failure::system("writing JSON"))?;
        self.line(format_args!("{text}"))
    }

    /// What was written so far is on its way. Called at the end of each command.
    pub(crate) fn flush(&mut self) -> Result {
        self.0.flush().map_err(refused)
    }
}

/// Prints one line to an [`Output`].
macro_rules! say {
    ($output:expr, $($line:tt)*) => { $output.line(format_args!($($line)*)) };
}
pub(crate) use say;

fn refused(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::System {
            what: "writing the output",
            source: error,
        },
    }
}

/// A line below the headings, and no other: rows that can be read, searched and cut.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// An empty table with these headings.
pub(crate) fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(headings);
    table
}

/// Bytes of a user, for people: text stays text, the rest is escaped.
pub(crate) fn shown(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// What may be absent, or `-`.
pub(crate) fn or_dash<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// How many, in words: `1 lock`, `2 locks`.
pub(crate) fn count(number: impl TryInto<u64>, what: &str) -> String {
    // A `usize` has 64 bits wherever this is built; what would not fit is more than anyone counts.
    let number = number.try_into().unwrap_or(u64::MAX);
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A size, with the unit that leaves it readable.
pub(crate) fn bytes(number: u64) -> String {
    let tenths_of = |unit: u64| {
        let tenths = number.saturating_mul(10) / unit;
        format!("{}.{}", grouped(tenths / 10), tenths % 10)
    };
    match number {
        0..=9_999 => count(number, "byte"),
        10_000..=9_999_999 => format!("{} KiB", tenths_of(1 << 10)),
        _ => format!("{} MiB", tenths_of(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_users_cannot_reach_the_terminal_as_codes() {
        assert_eq!(shown("käse 1".as_bytes()), "käse 1");
        assert_eq!(shown(b"a\x1b[31m"), "a\\x1b[31m");
        assert_eq!(shown(b"\xff\x00"), "\\xff\\x00");
    }

    #[test]
    fn sizes_have_the_unit_that_leaves_them_readable() {
        let shown: Vec<_> = [1, 9_999, 10_240, 15 << 20]
            .into_iter()
            .map(bytes)
            .collect();
        assert_eq!(shown, ["1 byte", "9 999 bytes", "10.0 KiB", "15.0 MiB"]);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown: Vec<_> = [0, 999, 1_000, 1_234_567]
            .into_iter()
            .map(grouped)
            .collect();
        assert_eq!(shown, ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(
            [count(1_u64, "lock"), count(2_u64, "lock")],
            ["1 lock", "2 locks"]
        );
    }
}
