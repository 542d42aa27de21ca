//! Is the append latch worth its mutex? Appending a record of 150 bytes to a frame under a mutex, as the log
//! does it, against reserving room by one atomic addition and copying outside; and the log itself.
//!
//! `cargo bench -p lockstone-benches --bench append_latch [-- --rounds N]`. All copy the same bytes and
//! checksum every full frame; whoever appends does it. The contestants take turns, and what counts is the
//! median of many short runs: the machine is never the same twice. First each sketch has to
//! show that it loses, doubles and tears nothing.
//!
//! Two threads contend only while both have a core. So a run in which one of them waited for a core for more than
//! a tenth of the time does not count; how many did is printed. With none, the machine was too busy to tell.
//!
//! The rule: the mutex, which is simpler, stays unless the other is more than 20 % faster with two threads.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.
#![allow(
    clippy::disallowed_methods,
    reason = "a program that measures the real machine, not library code"
)]

mod frame;
mod latched;
mod reserving;
#[path = "../discarding_disk/mod.rs"]
mod discarding_disk;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lockstone_base::Lsn;
use lockstone_wal::{
    Access, ChainPoint, Log, LogConfig, LogVisitor, Record, ScanOptions, ScannedRecord, Segments,
    VisitError,
};

use discarding_disk::DiscardingDisk;
use frame::{Frames, bodies};
use latched::Latched;
use reserving::Reserving;

const BODY_BYTES: usize = 150;
/// What the log has: two in flight, and three.
const BUFFERS: usize = 5;
const FRAMES: [usize; 2] = [64 << 10, 1 << 20];
const THREADS: [u32; 2] = [1, 2];
const CONTESTANTS: [&str; 3] = ["mutex", "reservation", "log"];

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let given = arguments.windows(2).find_map(|pair| match pair {
        [name, value] if name == "--rounds" => value.parse::<usize>().ok(),
        _ => None,
    });
    let (rounds, appends) = if has("--test") {
        (1, 10_000)
    } else {
        (given.unwrap_or(200), 200_000)
    };
    check();
    println!(
        "{BODY_BYTES}-byte records, {appends} a thread, {rounds} runs each in turns; median, in millions a second\n"
    );
    println!(
        "{:<8}{:>9}{:>10}{:>14}{:>10}{:>22}{:>18}",
        "threads", "frame", "mutex", "reservation", "the log", "reservation / mutex", "counted"
    );
    for frame_bytes in FRAMES {
        for threads in THREADS {
            let [mutex, reservation, log] = take_turns(frame_bytes, threads, (rounds, appends));
            let counted = [&mutex, &reservation, &log].map(|runs| runs.len().to_string());
            let [mutex, reservation, log] = [mutex, reservation, log].map(median);
            println!(
                "{threads:<8}{:>6} KiB{mutex:>10.2}{reservation:>14.2}{log:>10.2}{:>22.2}{:>18}",
                frame_bytes >> 10,
                reservation / mutex,
                counted.join(" "),
            );
        }
    }
}

/// Millions of appends a second of all threads together, and how much of the time one of them waited for a
/// core.
#[derive(Debug, Clone, Copy)]
struct Run {
    rate: f64,
    delayed: f64,
}

/// The rates of each contestant's runs that nothing disturbed.
fn take_turns(
    frame_bytes: usize,
    threads: u32,
    (rounds, appends): (usize, u32),
) -> [Vec<f64>; CONTESTANTS.len()] {
    const DELAYED_MAX: f64 = 0.1;
    let mut all = CONTESTANTS.map(|_| Vec::new());
    for round in 0..=rounds {
        for (contestant, rates) in CONTESTANTS.iter().zip(&mut all) {
            let run = measure(contestant, frame_bytes, threads, appends);
            // The first round only warms caches.
            if round > 0 && run.delayed <= DELAYED_MAX {
                rates.push(run.rate);
            }
        }
    }
    all
}

/// No number if there is none.
fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    let middle = rates.len().saturating_sub(1) / 2;
    rates.get(middle).copied().unwrap_or(f64::NAN)
}

fn measure(contestant: &str, frame_bytes: usize, threads: u32, appends: u32) -> Run {
    let sealed = |_: &[u8]| {};
    match contestant {
        "mutex" => run(
            &Latched::new(BUFFERS, frame_bytes, &sealed),
            threads,
            appends,
        ),
        "reservation" => run(
            &Reserving::new(BUFFERS, frame_bytes, &sealed),
            threads,
            appends,
        ),
        _ => run(&WholeLog::new(frame_bytes), threads, appends),
    }
}

fn run(frames: &impl Frames, threads: u32, appends: u32) -> Run {
    let waiting = AtomicU32::new(threads);
    let body = [7; BODY_BYTES];
    // The appenders look at the clock themselves: whoever waits for them may have lost its core.
    let append_all = || {
        // Who slept here would have to be given a core first.
        waiting.fetch_sub(1, Ordering::AcqRel);
        while waiting.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        let before = delay();
        for _ in 0..appends {
            std::hint::black_box(frames.append(std::hint::black_box(&body)));
        }
        (begin, Instant::now(), delay().saturating_sub(before))
    };
    let times: Vec<_> = thread::scope(|scope| {
        let appenders: Vec<_> = (0..threads).map(|_| scope.spawn(append_all)).collect();
        let joined = appenders
            .into_iter()
            .map(|appender| appender.join().expect("nothing panics"));
        joined.collect()
    });
    let begins = || times.iter().map(|(begin, _, _)| *begin);
    let ends = times.iter().map(|(_, end, _)| *end);
    let delays = times.iter().map(|(_, _, delay)| *delay);
    let first = begins().min().expect("there is a thread");
    let took = ends.max().map_or(Duration::MAX, |end| end - first);
    // Who had no core at the start began late.
    let late = begins().map(|begin| begin - first);
    let delay = delays.chain(late).max().unwrap_or_default();
    Run {
        rate: f64::from(threads) * f64::from(appends) / took.as_secs_f64() / 1e6,
        delayed: delay.div_duration_f64(took),
    }
}

/// How long this thread has been ready to run without a core, as its kernel counts it; nothing where it does
/// not.
fn delay() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1);
    let nanoseconds = nanoseconds.and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// The log itself, on a disk that forgets every byte. Nobody serves it: who finds no room flushes.
struct WholeLog {
    log: Log,
    segment_bytes: u64,
}

struct Nothing;

impl LogVisitor for Nothing {
    fn record(&mut self, _record: ScannedRecord<'_>) -> Result<(), VisitError> {
        Ok(())
    }
}

impl WholeLog {
    /// A frame is at most a quarter of a segment, and that is what bounds it here.
    fn new(frame_bytes: usize) -> Self {
        let disk = Arc::new(DiscardingDisk::default());
        let segments = Segments::open(disk, Access::Recover).expect("an empty disk");
        let (salt, generation) = (2, 1);
        let whole = ScanOptions {
            salt,
            from: ChainPoint::START,
            durable: Lsn::ZERO,
            manifest_generation: generation,
            log_end: Lsn::ZERO,
        };
        let scan = segments.scan(&whole, &mut Nothing).expect("an empty log");
        let segment_bytes = 4 * frame_bytes as u64;
        let config = LogConfig {
            segment_bytes,
            uuid: 1,
            salt,
            boot_epoch: 1,
            manifest_generation: generation,
            frames_in_flight: LogConfig::FRAMES_IN_FLIGHT,
        };
        let log = Log::start(segments, config, &scan).expect("nothing can fail here");
        Self { log, segment_bytes }
    }
}

impl Frames for WholeLog {
    fn append(&self, body: &[u8]) -> u64 {
        let record = Record {
            tag: 1,
            context: &[],
            body: &[body],
        };
        let appended = self.log.append(&record).expect("nothing can fail here");
        let into_segment = appended.lsn.get() % self.segment_bytes;
        if into_segment < BODY_BYTES as u64 * 64 {
            self.log
                .recycle(self.log.durable())
                .expect("nothing can fail here");
        }
        appended.lsn.get()
    }

    fn finish(&self) {
        self.log
            .wait_durable(self.log.end())
            .expect("nothing can fail here");
    }
}

/// That each sketch keeps every record once, whole, where it said.
fn check() {
    const FRAME_BYTES: usize = 4096;
    const FEW_BUFFERS: usize = 3;
    let kept = Mutex::new(Vec::new());
    // A torn frame gives nothing, and that is found in the end: a panic here would leave the others waiting.
    let sealed = |frame: &[u8]| {
        let bodies = bodies(frame).into_iter().flatten().map(<[u8]>::to_vec);
        kept.lock().expect("nothing panics").extend(bodies);
    };
    append_numbered(
        &Latched::new(FEW_BUFFERS, FRAME_BYTES, &sealed),
        &kept,
        "mutex",
    );
    append_numbered(
        &Reserving::new(FEW_BUFFERS, FRAME_BYTES, &sealed),
        &kept,
        "reservation",
    );
}

fn append_numbered(frames: &impl Frames, kept: &Mutex<Vec<Vec<u8>>>, name: &str) {
    const AUTHORS: u64 = 4;
    const RECORDS: u64 = 60_000;
    let append = |author: u64| {
        let body = |number: u64| {
            // Of many lengths, so that frames end at many places.
            let mut body = vec![author as u8; 16 + (number % 200) as usize];
            for (byte, from) in body.iter_mut().zip((author << 32 | number).to_be_bytes()) {
                *byte = from;
            }
            body
        };
        (0..RECORDS)
            .map(|number| (frames.append(&body(number)), body(number)))
            .collect::<Vec<_>>()
    };
    let mut appended = thread::scope(|scope| {
        let authors: Vec<_> = (0..AUTHORS)
            .map(|author| scope.spawn(move || append(author)))
            .collect();
        let joined = authors
            .into_iter()
            .map(|author| author.join().expect("nothing panics"));
        joined.flatten().collect::<Vec<_>>()
    });
    frames.finish();
    appended.sort_unstable();
    assert!(
        appended.is_sorted_by(|(one, _), (other, _)| one < other),
        "{name}: a place was given twice"
    );
    let mut appended: Vec<_> = appended.into_iter().map(|(_, body)| body).collect();
    appended.sort_unstable();
    let mut kept = std::mem::take(&mut *kept.lock().expect("nothing panics"));
    kept.sort_unstable();
    assert!(
        kept == appended,
        "{name}: {} records of {}",
        kept.len(),
        appended.len()
    );
}
