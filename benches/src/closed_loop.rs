//! The closed loop: clients that start the next operation when the last has ended.
//!
//! 1. Counted are operations that end inside the measured window, those that began before it included.
//! 2. An operation's latency begins where the one before ended, as there is no think time to leave out; or
//!    where the client says, which keeps several in flight or has a part of them timed.
//! 3. The first client that fails ends the run; its error is the run's.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::latency::{Held, Retries, Tally};

/// What one call of a client has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// None: the call only began something, and no latency is counted.
    pub(crate) operations: u64,
    pub(crate) retries: Retries,
    /// When what ended with this call began, if not with the call.
    pub(crate) began: Option<Instant>,
    /// What became of the append latch in this call.
    pub(crate) held: Option<Held>,
}

/// What is done around the measured window, in a run that has more to it than its clients.
pub(crate) struct Around<'a> {
    /// When the window begins.
    pub(crate) begin: &'a dyn Fn(),
    /// When all clients have ended; the measured time goes on until it returns.
    pub(crate) end: &'a dyn Fn() -> Result<(), Error>,
}

/// How long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl Window {
    /// The window of run `number`: the first warms caches, later ones only get into step.
    pub(crate) fn of_run(number: u32, seconds: f64) -> Self {
        let warm_up = Duration::from_millis(if number == 0 { 1_000 } else { 200 });
        let measured = Duration::from_secs_f64(seconds);
        Self {
            warm_up: warm_up.min(measured),
            measured,
        }
    }
}

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// Runs `threads` clients, each made by `client` on its own thread from its number; what they did in the
/// window, and how long that was.
pub(crate) fn run<C>(
    threads: u32,
    window: Window,
    client: impl Fn(u32) -> C + Sync,
) -> Result<(Tally, Duration), Error>
where
    C: FnMut() -> Result<Done, Error>,
{
    run_around(threads, window, client, None)
}

/// As [`run`], with something done around the window.
pub(crate) fn run_around<C>(
    threads: u32,
    window: Window,
    client: impl Fn(u32) -> C + Sync,
    around: Option<Around<'_>>,
) -> Result<(Tally, Duration), Error>
where
    C: FnMut() -> Result<Done, Error>,
{
    let phase = AtomicU8::new(WARMING_UP);
    let started = Barrier::new(threads as usize + 1);
    let director = thread::current();
    let run_client = |number| {
        let mut operate = client(number);
        started.wait();
        let tally = measure(&mut operate, &phase);
        if tally.is_err() {
            phase.store(OVER, Ordering::Release);
            director.unpark();
        }
        tally
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn({
                    let run_client = &run_client;
                    move || run_client(number)
                })
            })
            .collect();
        started.wait();
        rest_until(Instant::now() + window.warm_up, &phase);
        if let Some(around) = &around {
            (around.begin)();
        }
        // Before the clients are told: should this thread lose its core in between, the time counts, and what
        // they do in it does not.
        let begin = Instant::now();
        // A client that failed has ended the run, and it stays ended.
        let _ = phase.compare_exchange(WARMING_UP, MEASURING, Ordering::AcqRel, Ordering::Acquire);
        rest_until(begin + window.measured, &phase);
        phase.store(OVER, Ordering::Release);
        let measured = begin.elapsed();
        let tallies = clients.into_iter().map(|client| match client.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let tally = Tally::of_all(tallies)?;
        let Some(around) = around else {
            return Ok((tally, measured));
        };
        (around.end)()?;
        Ok((tally, begin.elapsed()))
    })
}

fn measure(
    operate: &mut impl FnMut() -> Result<Done, Error>,
    phase: &AtomicU8,
) -> Result<Tally, Error> {
    let mut tally = Tally::new();
    let mut begin = Instant::now();
    loop {
        let done = operate()?;
        let end = Instant::now();
        match phase.load(Ordering::Acquire) {
            WARMING_UP => {}
            MEASURING => {
                if done.operations > 0 {
                    let began = done.began.unwrap_or(begin);
                    tally.count(done.operations, end - began, done.retries);
                }
                if let Some(held) = done.held {
                    tally.count_hold(held);
                }
            }
            _ => return Ok(tally),
        }
        begin = end;
    }
}

fn rest_until(end: Instant, phase: &AtomicU8) {
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        if phase.load(Ordering::Acquire) == OVER {
            return;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Window = Window {
        warm_up: Duration::from_millis(300),
        measured: Duration::from_millis(60),
    };

    #[test]
    fn only_what_ends_in_the_window_counts() {
        const THREADS: u32 = 2;
        const TAKES: Duration = Duration::from_millis(5);
        let client = |_| {
            || {
                thread::sleep(TAKES);
                Ok(Done {
                    operations: 10,
                    ..Done::default()
                })
            }
        };
        let (tally, measured) = run(THREADS, SHORT, client).unwrap();
        assert!(measured >= SHORT.measured);
        let counted = tally.latencies.len();
        assert_eq!(tally.operations, 10 * counted);
        // Each may have one that began before the window; with the warm-up there would be far more.
        let most = THREADS * (measured.div_duration_f64(TAKES) as u32 + 1);
        assert!(counted > 0 && counted <= most.into(), "{counted}, {most}");
        assert!(tally.latencies.quantile_us(0.01) >= 4_900.0);
    }

    /// A latency of the call alone would be that of the last part of an operation.
    #[test]
    fn a_client_says_when_its_operation_began_and_what_only_began_has_no_latency() {
        const TAKES: Duration = Duration::from_millis(2);
        let client = |_| {
            let mut begun = Instant::now();
            let mut calls = 0;
            move || {
                calls += 1;
                let begin = Instant::now();
                thread::sleep(TAKES);
                if calls % 2 == 1 {
                    begun = begin;
                    return Ok(Done::default());
                }
                Ok(Done {
                    operations: 1,
                    began: Some(begun),
                    ..Done::default()
                })
            }
        };
        let (tally, _) = run(1, SHORT, client).unwrap();
        assert_eq!(tally.operations, tally.latencies.len());
        assert!(tally.latencies.quantile_us(0.01) >= 3_900.0);
    }

    #[test]
    fn what_is_done_at_the_end_counts_to_the_time() {
        const LAST: Duration = Duration::from_millis(80);
        let (tally, begun) = (Tally::new(), std::cell::Cell::new(0));
        let around = Around {
            begin: &|| begun.set(begun.get() + 1),
            end: &|| {
                thread::sleep(LAST);
                Ok(())
            },
        };
        let client = |_| {
            || {
                thread::sleep(Duration::from_millis(1));
                Ok(Done::default())
            }
        };
        let (found, measured) = run_around(1, SHORT, client, Some(around)).unwrap();
        assert!(measured >= SHORT.measured + LAST);
        assert_eq!((found.operations, begun.get()), (tally.operations, 1));
        let fails = Around {
            begin: &|| {},
            end: &|| Err(Error::Setting("broken")),
        };
        assert!(run_around(1, SHORT, client, Some(fails)).is_err());
    }

    #[test]
    fn an_error_ends_the_run_at_once() {
        let long = Window {
            warm_up: Duration::from_mins(1),
            measured: Duration::from_mins(1),
        };
        let begin = Instant::now();
        let client = |number| {
            move || {
                thread::sleep(Duration::from_millis(1));
                if number == 1 {
                    Err(Error::Setting("broken"))
                } else {
                    Ok(Done::default())
                }
            }
        };
        assert!(run(3, long, client).is_err());
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
