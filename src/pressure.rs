//! What holds writers back when the disk cannot keep up: a full memory budget, or too many runs in level 0.
//! Called by the write path before a commit takes its LSN.
//!
//! | state | what a commit does |
//! | --- | --- |
//! | 12 runs in level 0, or 3 memtables that wait | waits for its turn, at a pace for all that falls; at most 100 ms |
//! | 20 runs in level 0 | waits until a compaction has ended, while compactions can do anything |
//! | the memory budget is used up | waits for a checkpoint |
//!
//! 1. Never an error of its own: what a disk refuses is told by the checkpoint.
//! 2. Memory is bounded by the budget, whatever the disk does.
//! 3. Nobody waits for compactions that fail, or that damage keeps from working (F10, F11).

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checkpoint;
use crate::compaction;
use crate::engine::Engine;
use crate::error::Result;

const SLOW_RUNS: usize = 12;
const STALL_RUNS: usize = 20;
const SLOW_SEALED: usize = 3;
/// How long a memtable should take to fill when writers begin to be slowed.
const SLOW_FILL: Duration = Duration::from_secs(1);
/// What a byte costs then, in nanoseconds: 64 to 4 MB a second, whatever the size of a memtable.
const SLOW_NS_PER_BYTE: std::ops::RangeInclusive<u64> = 16..=256;
/// To sleep less than this costs more than it brings: it is left to who comes next.
const NAP: Duration = Duration::from_millis(1);
/// No commit sleeps longer than this.
const NAP_MAX: Duration = Duration::from_millis(100);
/// No pace is kept for commits that are further ahead of it than this.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// How often who is held up looks for himself.
const LOOK: Duration = Duration::from_millis(20);

/// Before a commit of `bytes` bytes takes its LSN: room in memory, and a store that keeps up.
///
/// # Errors
/// What the checkpoint that should have made room ended with.
pub(crate) fn reserve(engine: &Engine, bytes: usize) -> Result<()> {
    let load = engine.store.load();
    if load.level_0_runs >= SLOW_RUNS || load.sealed_memtables >= SLOW_SEALED {
        hold_back(engine, bytes)?;
    }
    let budget = engine.options.memory_bytes as usize;
    if load.memory_bytes + bytes <= budget {
        return Ok(());
    }
    timed(engine, || {
        // What committed while a checkpoint ran may fill the memory anew, and then another one is needed. A
        // write set that is larger than the budget is let in once everything else is in runs.
        while engine.store.load().memory_bytes + bytes > budget {
            if engine.store.stats().memory_versions == 0 {
                break;
            }
            checkpoint::make_room(engine)?;
        }
        Ok(())
    })
}

fn hold_back(engine: &Engine, bytes: usize) -> Result<()> {
    if !engine.ports.background {
        compaction::settle(engine);
        return Ok(());
    }
    if engine.store.level_0_runs() >= STALL_RUNS {
        return timed(engine, || {
            while engine.store.level_0_runs() >= STALL_RUNS {
                engine.check_serving()?;
                if !engine.bell.wait_for_relief(LOOK) {
                    break;
                }
            }
            Ok(())
        });
    }
    slow_down(engine, bytes);
    Ok(())
}

/// Sleeps until its turn comes, at the pace of the moment, which is one for all writers.
fn slow_down(engine: &Engine, bytes: usize) {
    let over = engine.store.level_0_runs().saturating_sub(SLOW_RUNS);
    // Half as fast with every second run.
    let price = price(engine.options.memory_bytes / 4) << (over / 2).min(8);
    let cost = price.saturating_mul(bytes as u64);
    let now = engine.ports.clock.now().as_nanos() as u64;
    let ahead_max = now + AHEAD_MAX.as_nanos() as u64;
    let turn = |turn: u64| Some(turn.max(now).saturating_add(cost).min(ahead_max));
    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
    let before = engine.counters.turn_ns.fetch_update(set, fetch, turn);
    // Whose turn it is when the one before has had his.
    let turn = before.unwrap_or_else(|turn| turn).max(now) + cost;
    let nap = Duration::from_nanos(turn - now).min(NAP_MAX);
    if nap >= NAP {
        engine.counters.slowdowns.fetch_add(1, Ordering::Relaxed);
        engine.ports.clock.sleep(nap);
    }
}

/// What a byte costs when writers begin to be slowed, in nanoseconds.
fn price(memtable_bytes: u64) -> u64 {
    let (low, high) = (*SLOW_NS_PER_BYTE.start(), *SLOW_NS_PER_BYTE.end());
    (SLOW_FILL.as_nanos() as u64 / memtable_bytes.max(1)).clamp(low, high)
}

/// Counts what a writer waits in `wait`.
fn timed(engine: &Engine, wait: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = engine.ports.clock.now();
    let outcome = wait();
    let waited = engine.ports.clock.now().saturating_sub(begun);
    engine.counters.stalls.fetch_add(1, Ordering::Relaxed);
    let micros = waited.as_micros() as u64;
    engine
        .counters
        .stalled_us
        .fetch_add(micros, Ordering::Relaxed);
    outcome
}
