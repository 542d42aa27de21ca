//! What holds writers back when the disk cannot keep up: a full memory budget, or too many runs in level 0.
//! Called by the write path before a commit takes its LSN.
//!
//! | state | what a commit does |
//! | --- | --- |
//! | 12 runs in level 0, or 3 memtables that wait | sleeps as long as its bytes take at a pace that falls |
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
/// What a byte costs when writers begin to be slowed: 64 MB a second.
const SLOW_NS_PER_BYTE: u64 = 16;
/// What is owed is slept off in pieces of this size: sleeping less costs more than it brings.
const NAP: Duration = Duration::from_millis(1);
/// And at most so long at once.
const NAP_MAX: Duration = Duration::from_millis(20);
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

/// Sleeps as long as the bytes take at the pace of the moment.
fn slow_down(engine: &Engine, bytes: usize) {
    let over = engine.store.level_0_runs().saturating_sub(SLOW_RUNS);
    // Half as fast with every second run.
    let price = SLOW_NS_PER_BYTE << (over / 2).min(8);
    let price = price.saturating_mul(bytes as u64);
    let owed = engine.counters.owed_ns.fetch_add(price, Ordering::Relaxed) + price;
    if owed < NAP.as_nanos() as u64 {
        return;
    }
    let owed = engine.counters.owed_ns.swap(0, Ordering::Relaxed);
    if owed > 0 {
        engine.counters.slowdowns.fetch_add(1, Ordering::Relaxed);
        let nap = Duration::from_nanos(owed).min(NAP_MAX);
        engine.ports.clock.sleep(nap);
    }
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
