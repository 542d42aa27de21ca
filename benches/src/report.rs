//! What the program prints: a table for people, and with `--json` one object as the last line.

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::place::Place;
use crate::run::{Quantiles, Run, Series};
use crate::settings::Workload;

/// Before the first run: what is measured, where.
pub(crate) fn heading(workload: &Workload, place: &Place) -> Result<String, Error> {
    let mut settings = Vec::new();
    if let Value::Object(all) = workload.to_json()? {
        settings.extend(
            all.iter()
                .filter(|(name, _)| !matches!(name.as_str(), "dir" | "json"))
                .map(setting),
        );
    }
    let (name, filesystem) = (workload.name(), place.filesystem());
    let mut text = format!(
        "{name}: {}\nin {} ({filesystem})\n",
        settings.join(" "),
        place.dir().display()
    );
    if place.is_memory() {
        text += "THIS IS MEMORY, NOT A DISK: nothing is durable here, and the figures say nothing about durable commits\n";
    }
    let columns = [
        "run", "ops/s", "p50 us", "p99 us", "p99.9 us", "max us", "aborts",
    ];
    Ok(text + "\n" + &line(columns.map(String::from)))
}

/// One run as a line of the table.
pub(crate) fn row(name: &str, run: &Run) -> String {
    let columns = [
        name.to_owned(),
        rate(run.ops_per_s),
        micros(run.p50_us),
        micros(run.p99_us),
        micros(run.p999_us),
        micros(run.max_us),
        grouped(run.aborts),
    ];
    let mut parts = vec![line(columns)];
    if let (Some(control), Some(ratio)) = (run.control_ops_per_s, run.control_ratio) {
        parts.push(format!("control {}, ratio {ratio:.3}", rate(control)));
    }
    if let (Some(control), Some(ratio)) = (run.control_mb_per_s, run.mb_ratio) {
        parts.push(format!("control {control:.0} MB/s, ratio {ratio:.3}"));
    }
    parts.extend(of_the_log(run));
    let milliseconds = [
        ("release", run.release_ms),
        ("open", run.open_ms),
        ("first transaction", run.first_txn_ms),
        ("close", run.close_ms),
    ];
    parts.extend(
        milliseconds
            .into_iter()
            .filter_map(|(what, took)| Some(format!("{what} {:.3} ms", took?))),
    );
    parts.extend(
        run.log_bytes
            .map(|bytes| format!("log {} bytes", grouped(bytes))),
    );
    parts.extend(
        run.memory_bytes_per_lock
            .map(|bytes| format!("{bytes:.1} bytes of memory a lock")),
    );
    parts.extend(
        run.write_amplification
            .map(|factor| format!("write amplification {factor:.2}")),
    );
    parts.join("  ")
}

/// What a run shows besides, and one on a log alone.
fn of_the_log(run: &Run) -> Vec<String> {
    let mut parts = Vec::new();
    if let (Some(records), Some(device)) = (run.mb_per_s, run.device_mb_per_s) {
        parts.push(format!(
            "{records:.1} MB/s of records, {device:.1} MB/s of frames"
        ));
    }
    if let (Some(frames), Some(records)) = (run.frames, run.records_per_frame) {
        parts.push(format!(
            "{} frames of {records:.1} records",
            grouped(frames)
        ));
    }
    parts.extend(run.in_flight.map(|frames| format!("{frames:.2} in flight")));
    parts.extend(run.direct.map(|direct| {
        let how = if direct {
            "past the page cache: cold"
        } else {
            "through the page cache: warm"
        };
        format!("read {how}")
    }));
    let histograms = [
        ("held", run.hold_ns),
        ("waited", run.wait_ns),
        ("get", run.get_ns),
    ];
    parts.extend(histograms.into_iter().filter_map(|(what, ns)| {
        let Quantiles {
            p50,
            p90,
            p99,
            p999,
            max,
        } = ns?;
        Some(format!(
            "{what} ns: p50 {p50} p90 {p90} p99 {p99} p99.9 {p999} max {max}"
        ))
    }));
    parts.extend(
        run.clock_ns
            .map(|ns| format!("a look at the clock {ns:.0} ns")),
    );
    parts
}

/// Behind the last run: the median and the memory.
pub(crate) fn footing(series: &Series) -> String {
    let median = series.median().map(|run| row("median", run));
    let memory = format!(
        "peak memory without mapped files: {} bytes",
        grouped(series.rss_bytes)
    );
    let control = series.control_ops_per_s.map(rate);
    let control =
        control.map(|rate| format!("median of all controls: {rate} durable 4 KiB overwrites/s"));
    let frames = series.control_mb_per_s;
    let frames = frames.map(|rate| format!("and {rate:.0} MB/s in frames of 1 MiB"));
    median
        .into_iter()
        .chain([memory])
        .chain(control)
        .chain(frames)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The whole report as one JSON object in one line: the settings, the median run beside them, and all
/// runs. Where a result has the name of a setting (`log_bytes`), the result stands.
pub(crate) fn json(workload: &Workload, place: &Place, series: &Series) -> Result<String, Error> {
    let mut report = Map::new();
    report.insert("workload".into(), json!(workload.name()));
    report.extend(object(workload.to_json()?));
    if let Some(median) = series.median() {
        report.extend(object(serde_json::to_value(median)?));
    }
    report.insert("dir".into(), json!(place.dir()));
    report.insert("filesystem".into(), json!(place.filesystem()));
    report.insert("rss_bytes".into(), json!(series.rss_bytes));
    if let Some(control) = series.control_ops_per_s {
        report.insert("control_ops_per_s".into(), json!(control));
    }
    if let Some(control) = series.control_mb_per_s {
        report.insert("control_mb_per_s".into(), json!(control));
    }
    report.insert("number_of_runs".into(), json!(series.runs.len()));
    report.insert("runs".into(), serde_json::to_value(&series.runs)?);
    Ok(Value::Object(report).to_string())
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value {
        object
    } else {
        Map::new()
    }
}

fn setting((name, value): (&String, &Value)) -> String {
    let name = name.replace('_', "-");
    match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    }
}

fn line([name, rate, p50, p99, p999, max, aborts]: [String; 7]) -> String {
    format!("{name:<7}{rate:>12}{p50:>11}{p99:>11}{p999:>11}{max:>12}{aborts:>9}")
}

/// Large rates without, small ones with a fraction.
fn rate(per_second: f64) -> String {
    if per_second < 100.0 {
        format!("{per_second:.2}")
    } else {
        grouped(per_second.round() as u64)
    }
}

fn micros(us: f64) -> String {
    if us < 100.0 {
        format!("{us:.2}")
    } else {
        grouped(us.round() as u64)
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::Program;

    fn workload(arguments: &[&str]) -> Workload {
        Program::try_parse_from(std::iter::once(&"bench").chain(arguments))
            .unwrap()
            .workload
    }

    fn series() -> Series {
        let run = |rate: f64| Run {
            ops_per_s: rate,
            log_bytes: Some(rate as u64),
            ..Run::default()
        };
        Series {
            runs: vec![run(1.0), run(3.0), run(2.0)],
            rss_bytes: 5_000_000,
            control_ops_per_s: Some(10.0),
            control_mb_per_s: None,
        }
    }

    #[test]
    fn the_json_is_one_line_with_settings_median_and_all_runs() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let text = json(
            &workload(&["recover", "--log-bytes", "7"]),
            &place,
            &series(),
        )
        .unwrap();
        assert!(!text.contains('\n'));
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["workload"], "recover");
        assert_eq!(report["rows"], 1_000_000);
        assert_eq!(report["ops_per_s"], 2.0);
        assert_eq!(report["log_bytes"], 2);
        assert_eq!(report["rss_bytes"], 5_000_000);
        assert_eq!(report["control_ops_per_s"], 10.0);
        assert_eq!(report["runs"].as_array().unwrap().len(), 3);
        assert_eq!(report["runs"][1]["ops_per_s"], 3.0);
        assert!(report.get("release_ms").is_none());
    }

    #[test]
    fn every_field_that_readers_rely_on_is_there() {
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let text = json(&workload(&["update", "--control"]), &place, &series()).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let fields = "workload dir rows seconds seed control threads pipeline io rows_per_txn dist ordered sync policy ops_per_s p50_us \
                      p99_us p999_us max_us aborts deadlocks timeouts rss_bytes control_ops_per_s runs";
        for field in fields.split_whitespace() {
            assert!(report.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn tables_are_readable() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [rate(12.345), rate(12_345.6), micros(0.5)],
            ["12.35", "12,346", "0.50"]
        );
        let text = footing(&series());
        assert!(
            text.contains("median") && text.contains("5,000,000 bytes") && text.contains("10.00"),
            "{text}"
        );
        let outer = tempfile::tempdir().unwrap();
        let place = Place::new(Some(outer.path())).unwrap();
        let text = heading(&workload(&["update", "--threads", "8"]), &place).unwrap();
        assert!(
            text.starts_with("update: ") && text.contains("threads=8") && text.contains("p99.9"),
            "{text}"
        );
    }
}
