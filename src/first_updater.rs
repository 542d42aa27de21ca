//! What comes behind each grant of a row, for whoever sees a snapshot: is the row still as it sees it? Called by `write_path`,
//! and where a call tells what stands in the row that it has locked.
//!
//! 1. First updater wins: the other one is rolled back, and its locks are free before it is told.
//! 2. W2: the look comes behind the grant, so it misses no commit of an earlier holder.
//!
//! Crash: memory only.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log_step::roll_back;
use crate::txn_state::{TxnState, name_encoded_row};

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
    let error = match txn.view.first_changed(engine, rows) {
        Ok(None) => return Ok(()),
        Ok(Some(row)) => Error::WriteConflict {
            row: name_encoded_row(engine, row),
        },
        Err(unreadable) => unreadable,
    };
    roll_back(engine, txn);
    txn.fail(&error);
    Err(error)
}
