//! The last step of the write path, *ack*: what has to be on the device before the success of a commit is told.
//! Called by `write_path`, the transaction's handle and its ticket.
//!
//! 1. W3: a commit is acknowledged when the device has it, with all before it.
//! 2. W6: what was read is acknowledged or on the device before a reader's success is told; a commit is noted as
//!    acknowledged before its success is returned.
//! 3. W11: once the log has failed nothing is acknowledged any more.
//!
//! Crash: memory only.

use lockstone_base::Lsn;
use lockstone_wal::{Appended, WalError};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Durability;

/// What is still to come about before the success of a commit may be told: the *ack* step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    /// The LSN of the commit, or what a transaction that wrote nothing has read at.
    lsn: Lsn,
    /// What has to be on the device.
    pub(crate) until: Option<Lsn>,
    wrote: bool,
}

impl Promise {
    /// The same, where the log up to `end` has to be on the device too.
    pub(crate) fn behind(self, end: Lsn) -> Self {
        Self {
            until: self.until.max(Some(end)),
            ..self
        }
    }
}

/// Of a transaction that wrote: its commit has to be on the device, unless it is `Buffered`.
pub(crate) fn promise(engine: &Engine, commit: Appended, durability: Durability) -> Promise {
    let until = match durability {
        Durability::Sync => Some(commit.end),
        Durability::Buffered => {
            checkpoint::attend(engine);
            None
        }
    };
    Promise {
        lsn: commit.lsn,
        until,
        wrote: true,
    }
}

/// Of a transaction that wrote nothing (W6): all that it could have seen has to be on the device, or to be
/// acknowledged.
pub(crate) fn promise_reader(engine: &Engine, seen: Lsn) -> Promise {
    let lsn = if seen == Lsn::ZERO {
        engine.snapshot_lsn()
    } else {
        seen
    };
    Promise {
        lsn,
        until: (lsn > engine.watermarks.acknowledged()).then(|| lsn.plus(1)),
        wrote: false,
    }
}

/// *ack*: waits for the device. The LSN of the commit, or what was read at.
pub(crate) fn keep(engine: &Engine, promise: Promise) -> Result<Lsn> {
    let reached = promise
        .until
        .map_or(Ok(()), |until| engine.log.wait_durable(until));
    acknowledge(engine, promise, reached)
}

/// *ack*: `reached` tells how the device has answered. Notes the commit as acknowledged before its success
/// is returned (W6).
pub(crate) fn acknowledge(
    engine: &Engine,
    promise: Promise,
    reached: std::result::Result<(), WalError>,
) -> Result<Lsn> {
    // W11: nothing is acknowledged once the log has failed, a buffered commit neither.
    let failed = promise.wrote && engine.log.is_poisoned();
    let reached = reached.map_err(Error::from);
    if let Err(error) = reached.and(if failed { Err(Error::Poisoned) } else { Ok(()) }) {
        engine.spread_poison();
        return Err(error);
    }
    if promise.wrote {
        engine.watermarks.acknowledge(promise.lsn);
    }
    Ok(promise.lsn)
}
