//! The workloads, one file each: what one operation is, and what a run measures.
//!
//! Each has a `prepare` that does what is not measured, and gives back what `main` repeats: one run.
//!
//! Modules, lowest first: a module uses only what stands above it in this list.

mod load;
mod update;
mod lock_many;
mod point_reads;
mod scan;
mod sustain;
mod recover;
mod log_run;
mod wal_append;
mod wal_commit;
mod wal_scan;
mod hold;

use crate::error::Error;
use crate::place::Place;
use crate::run::Run;
use crate::settings::Workload;

/// One run of the workload, by its number.
type OneRun<'a> = Box<dyn FnMut(u32) -> Result<Run, Error> + 'a>;

/// Does what precedes the first run; what is then called for each.
pub(crate) fn prepare<'a>(workload: &'a Workload, place: &'a Place) -> Result<OneRun<'a>, Error> {
    Ok(match workload {
        Workload::Load(settings) => Box::new(load::prepare(settings, place)),
        Workload::Update(settings) => Box::new(update::prepare(settings, place)?),
        Workload::LockMany(settings) => Box::new(lock_many::prepare(settings, place)?),
        Workload::Get(settings) => Box::new(point_reads::prepare_get(settings, place)?),
        Workload::MultiGet(settings) => Box::new(point_reads::prepare_multi_get(settings, place)?),
        Workload::Scan(settings) => Box::new(scan::prepare(settings, place)?),
        Workload::Sustain(settings) => Box::new(sustain::prepare(settings, place)?),
        Workload::Recover(settings) => Box::new(recover::prepare(settings, place)),
        Workload::WalAppend(settings) => Box::new(wal_append::prepare(settings, place)),
        Workload::WalCommit(settings) => Box::new(wal_commit::prepare(settings, place)),
        Workload::WalScan(settings) => Box::new(wal_scan::prepare(settings, place)?),
        Workload::Hold(settings) => Box::new(hold::prepare(settings, place)),
    })
}

/// The child's part of a workload that needs one; `false` if these settings do not ask for it.
pub(crate) fn play_child(workload: &Workload, place: &Place) -> Result<bool, Error> {
    match workload {
        Workload::Recover(settings) if settings.fill => {
            recover::fill(settings, place).map(|()| true)
        }
        _ => Ok(false),
    }
}
