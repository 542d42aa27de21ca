//! What comes behind each grant of a row, a range or a table, for whoever sees a snapshot: are the rows still as it sees them?
//! Called by `write_path` and `wide_locks`, and where a call tells what stands in the row that it has locked.
//!
//! 1. First updater wins: the other one is rolled back, and its locks are free before it is told.
//! 2. W2: the look comes behind the grant, so it misses no commit of an earlier holder.
//!
//! Crash: memory only.

use lockstone_base::RowKey;
use lockstone_locks::Target;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::key_range::row_bounds;
use crate::log_step::roll_back;
use crate::names::RowName;
use crate::naming::{name_encoded_row, name_target};
use crate::txn_state::TxnState;

/// Ends the transaction if one of the rows that it has just been granted was changed since its snapshot, or if that cannot be
/// found out. `blindly` if the caller writes, and says nothing of what stands there: so a serializable transaction may.
///
/// # Errors
/// [`Error::WriteConflict`]; [`Error::Corrupt`] and [`Error::Io`] for a row that cannot be read.
pub(crate) fn expect_unchanged<'r>(
    engine: &Engine,
    txn: &mut TxnState,
    blindly: bool,
    rows: impl IntoIterator<Item = &'r [u8]>,
) -> Result<()> {
    if blindly && txn.view.writes_blindly() {
        return Ok(());
    }
    let changed = txn.view.first_changed(engine, rows);
    let changed = changed.map(|row| row.map(|row| name_encoded_row(engine, row)));
    expect_none(engine, txn, changed)
}

/// [`expect_unchanged`], of all rows of a range or a table that it has just been granted.
pub(crate) fn expect_unchanged_within(
    engine: &Engine,
    txn: &mut TxnState,
    granted: &Target,
) -> Result<()> {
    let rows = match granted {
        Target::Row(row) => row_bounds(row.table(), &(row.key()..=row.key())),
        Target::Range(range) => {
            let keys = (range.start().map(RowKey::key), range.end().map(RowKey::key));
            row_bounds(range.table(), &keys)
        }
        Target::Table(table) => row_bounds(*table, &..),
        Target::Tokens(request) => {
            let row = &request.semaphore;
            row_bounds(row.table(), &(row.key()..=row.key()))
        }
    };
    let changed = txn.view.is_changed_within(engine, rows);
    let changed = changed.map(|changed| changed.then(|| name_target(engine, granted)));
    expect_none(engine, txn, changed)
}

fn expect_none(
    engine: &Engine,
    txn: &mut TxnState,
    changed: Result<Option<RowName>>,
) -> Result<()> {
    let error = match changed {
        Ok(None) => return Ok(()),
        Ok(Some(row)) => Error::WriteConflict { row },
        Err(unreadable) => unreadable,
    };
    roll_back(engine, txn);
    txn.fail(&error);
    Err(error)
}
