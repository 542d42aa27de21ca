//! Names for what is locked, as errors and listings show it: tables, rows, resources and semaphores by their names.
//!
//! Called by whoever tells a user of locks.

use lockstone_base::{RowKey, TableId};
use lockstone_locks::Target;

use crate::engine::Engine;
use crate::names::{Cycle, CycleWait, RowName};
use crate::resource;

/// The encoded row as errors show it.
pub(crate) fn name_encoded_row(engine: &Engine, row: &[u8]) -> RowName {
    let (table, key) = row.split_first_chunk().unwrap_or((&[0; 4], row));
    let table = TableId(u32::from_be_bytes(*table));
    RowName::new(engine.catalog.name(table), key, engine.options.redact)
}

/// The row, or the resource that it stands for, as errors and listings show it.
pub(crate) fn name_row(engine: &Engine, row: &RowKey) -> RowName {
    let redact = engine.options.redact;
    if let Some(name) = resource::semaphore_name(row) {
        return RowName::semaphore(name, redact);
    }
    match resource::decode(row) {
        Some((path, key)) => RowName::resource(path, key, redact),
        None => RowName::new(engine.catalog.name(row.table()), row.key(), redact),
    }
}

/// What is locked, as errors and listings show it.
pub(crate) fn name_target(engine: &Engine, target: &Target) -> RowName {
    match target {
        Target::Row(row) => name_row(engine, row),
        Target::Table(table) => RowName::table(engine.catalog.name(*table)),
        Target::Tokens(request) => name_row(engine, &request.semaphore),
        Target::Range(range) => {
            let bounds = (range.start().map(RowKey::key), range.end().map(RowKey::key));
            let table = engine.catalog.name(range.table());
            RowName::range(table, bounds, engine.options.redact)
        }
    }
}

/// The deadlock with its rows by name.
pub(crate) fn name_cycle(engine: &Engine, cycle: &lockstone_locks::Cycle) -> Cycle {
    let wait = |edge: &lockstone_locks::CycleEdge| CycleWait {
        txn: edge.txn,
        label: edge.label.clone(),
        row: name_target(engine, &edge.target),
        mode: edge.requested,
    };
    Cycle {
        waits: cycle.edges.iter().map(wait).collect(),
        victim: cycle.victim,
    }
}
