//! The throughput program of Lockstone: `lockstone-benches WORKLOAD [options] [--json]`.
//!
//! `README.md` beside this crate tells what each workload does and how to read what it prints.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a program that measures the real machine, not library code"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rates and ranks are positive, and 53 bits are plenty for them"
)]

mod error;
mod rows;
mod permutation;
mod zipf;
mod run_settings;
mod log_settings;
mod settings;
mod latency;
mod memory;
mod place;
mod control;
mod run;
mod report;
mod closed_loop;
mod loaded;
mod counted_disk;
mod author;
mod bare_log;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use error::Error;
use place::Place;
use run::Plan;
use settings::{Program, Workload};

fn main() -> ExitCode {
    match measure(&Program::parse().workload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lockstone-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(workload: &Workload) -> Result<(), Error> {
    workload.check()?;
    let common = workload.common();
    let place = Place::new(common.dir.as_deref())?;
    if workload::play_child(workload, &place)? {
        return Ok(());
    }
    println!("{}", report::heading(workload, &place)?);
    let one_run = workload::prepare(workload, &place)?;
    let seen = |number: u32, run: &_| println!("{}", report::row(&(number + 1).to_string(), run));
    let plan = Plan {
        common,
        control_frames: workload.control_frames(),
    };
    let series = run::repeat(&place, &plan, one_run, seen)?;
    println!("{}", report::footing(&series));
    if common.json {
        println!("{}", report::json(workload, &place, &series)?);
    }
    Ok(())
}
