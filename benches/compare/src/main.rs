//! The same work given to Lockstone and to its peers, in one run, interleaved: in each round every store does every
//! piece of work, in an order that turns from round to round. Medians over the rounds are printed, and how Lockstone
//! stands to the best peer.
//!
//! 1. One store is open at a time, so that no other's background work or cache is in its way.
//! 2. Before anything is measured each row has been read once.

mod device;
mod rows;
mod stores;
mod work;

use std::path::PathBuf;

use clap::Parser;
use comfy_table::Table;
use serde_json::json;

use work::{Done, Measure, Work};

/// Gives the same work to several stores and compares.
#[derive(Parser)]
struct Settings {
    /// Whom to compare.
    #[arg(long, value_delimiter = ',', default_values_t = stores::NAMES.iter().map(ToString::to_string))]
    stores: Vec<String>,
    /// What they do.
    #[arg(long, value_delimiter = ',', value_enum, default_values = ["load-random", "load-sorted", "get", "multi-get", "scan", "update"])]
    work: Vec<Work>,
    /// How many rows there are.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How many threads do it, one figure for each; a load has one.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<u32>,
    /// How long each is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Where the stores are kept; by default a directory that goes afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The cache of stores that have one of their own.
    #[arg(long, default_value_t = 4 << 30)]
    cache_bytes: u64,
    /// One JSON object for each figure instead of tables.
    #[arg(long)]
    json: bool,
}

/// One row of the result: a piece of work on so many threads.
struct Line {
    work: Work,
    threads: u32,
    /// For each store what it did in each round.
    done: Vec<Vec<Done>>,
}

fn main() -> stores::Result<()> {
    let settings = Settings::parse();
    let temporary = tempfile::tempdir_in(".")?;
    let place = settings
        .dir
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let mut lines: Vec<Line> = Vec::new();
    for work in &settings.work {
        let threads = if work.is_load() {
            &[1][..]
        } else {
            &settings.threads
        };
        for &threads in threads {
            lines.push(Line {
                work: *work,
                threads,
                done: vec![Vec::new(); settings.stores.len()],
            });
        }
    }
    let measure = |store: usize, round, threads| -> stores::Result<(PathBuf, Measure<'static>)> {
        let directory = place.join(settings.stores.get(store).ok_or("no such store")?);
        let measure = Measure {
            directory: Box::leak(directory.clone().into_boxed_path()),
            rows: settings.rows,
            seconds: settings.seconds,
            threads,
            round,
            cache_bytes: settings.cache_bytes,
        };
        Ok((directory, measure))
    };
    for round in 0..settings.rounds {
        for line in &mut lines {
            for turn in 0..settings.stores.len() {
                let store = (turn + round as usize) % settings.stores.len();
                let (directory, measure) = measure(store, round, line.threads)?;
                let name = &settings.stores[store];
                if !line.work.is_load() && !directory.exists() {
                    Work::LoadSorted.run(name, measure)?;
                }
                let done = line
                    .work
                    .run(name, measure)
                    .map_err(|error| format!("{name}: {:?}: {error}", line.work))?;
                eprintln!(
                    "round {round} {:?} x{} {name}: {:.0}/s",
                    line.work, line.threads, done.ops_per_s
                );
                line.done[store].push(done);
            }
        }
    }
    if settings.json {
        print_json(&settings, &lines);
    } else {
        print_table(&settings, &lines);
    }
    Ok(())
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn print_json(settings: &Settings, lines: &[Line]) {
    for line in lines {
        for (name, done) in settings.stores.iter().zip(&line.done) {
            let figure = json!({
                "work": format!("{:?}", line.work),
                "store": name,
                "rows": settings.rows,
                "threads": line.threads,
                "ops_per_s": median(done.iter().map(|done| done.ops_per_s)),
                "runs": done.iter().map(|done| done.ops_per_s).collect::<Vec<_>>(),
                "max_us": median(done.iter().map(|done| done.max_us)),
                "write_amplification": median(done.iter().filter_map(|done| done.write_amplification)),
                "space": median(done.iter().filter_map(|done| done.space)),
            });
            println!("{figure}");
        }
    }
}

fn print_table(settings: &Settings, lines: &[Line]) {
    let mut table = Table::new();
    let names = settings.stores.iter().cloned();
    table.set_header(
        ["work".into(), "threads".into()]
            .into_iter()
            .chain(names)
            .chain(["of the best peer".into()]),
    );
    for line in lines {
        let medians: Vec<_> = line
            .done
            .iter()
            .map(|done| median(done.iter().map(|done| done.ops_per_s)))
            .collect();
        let is_own = |at: usize| {
            settings
                .stores
                .get(at)
                .is_some_and(|name| name == "lockstone")
        };
        let own = (0..)
            .zip(&medians)
            .find(|(at, _)| is_own(*at))
            .and_then(|(_, median)| *median);
        let best = (0..)
            .zip(&medians)
            .filter(|(at, _)| !is_own(*at))
            .filter_map(|(_, median)| *median)
            .fold(0.0, f64::max);
        let mut cells = vec![format!("{:?}", line.work), line.threads.to_string()];
        cells.extend(line.done.iter().zip(&medians).map(|(done, ops)| {
            let mut cell = format!("{:.0}/s", ops.unwrap_or_default());
            let amplification = median(done.iter().filter_map(|done| done.write_amplification));
            let space = median(done.iter().filter_map(|done| done.space));
            if let (Some(amplification), Some(space)) = (amplification, space) {
                cell += &format!("\nwrites x{amplification:.2}, space x{space:.2}");
            }
            cell
        }));
        cells.push(
            own.filter(|_| best > 0.0)
                .map_or_else(String::new, |own| format!("{:.2}", own / best)),
        );
        table.add_row(cells);
    }
    println!(
        "{} rows, {} rounds\n{table}",
        settings.rows, settings.rounds
    );
}
