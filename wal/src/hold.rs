//! The append latch, held: where a commit gets its LSN and is applied (W2).
//!
//! 1. An append in it, with room reserved before, neither waits nor fails nor allocates.
//! 2. Latch order: the append latch is the last one taken.

use lockstone_base::Lsn;
use parking_lot::MutexGuard;

use crate::error::WalError;
use crate::open_frame::Record;
use crate::progress::Progress;
use crate::rooms::{Promise, Room, Rooms};
use crate::staging::{Appended, Staging};

/// The append latch, held until it is dropped. Hold it shortly: every appender waits for it.
#[derive(Debug)]
pub struct Hold<'a> {
    pub(crate) staging: MutexGuard<'a, Staging>,
    pub(crate) progress: &'a Progress,
    pub(crate) rooms: &'a Rooms,
}

impl<'a> Hold<'a> {
    /// Whether a record appended now can still become durable.
    ///
    /// # Errors
    /// [`WalError::Poisoned`].
    pub fn check(&self) -> Result<(), WalError> {
        self.progress.check()
    }

    /// [`Log::reserve`](crate::Log::reserve) without waiting: `None` if that would be needed. Before the
    /// transaction changes its state, so nothing has happened yet.
    pub fn reserve(&self, bytes: usize) -> Option<Room<'a>> {
        let more = Promise::of_record(bytes);
        self.staging
            .can_promise(self.rooms.promised(), more)
            .is_ok()
            .then(|| self.rooms.promise(more))
    }

    /// Appends `record` into the room reserved for it; its LSN is final, its durability is not.
    ///
    /// # Panics
    /// If the record is longer than what was reserved, its tag 0 or its context longer than 64 bytes, or
    /// the room another log's.
    pub fn append(&mut self, room: Room<'_>, record: &Record<'_>) -> Appended {
        record.check();
        assert!(room.is_of(self.rooms), "G10: the room is this log's");
        let own = room.promise();
        assert!(
            Promise::of_record(record.bytes()).bytes <= own.bytes,
            "G10: the record fits the room reserved for it"
        );
        let others = self.rooms.promised().minus(own);
        let appended = self
            .staging
            .append(record, others)
            .expect("G10: every promise can be kept");
        drop(room);
        appended
    }

    /// Whether a record with up to `bytes` bytes of context and body could be appended now, all promises to others
    /// kept. It stays so as long as nothing is appended in this hold: whoever promises needs the latch.
    pub fn fits(&self, bytes: usize) -> bool {
        let more = Promise::of_record(bytes);
        let promised = self.rooms.promised();
        self.staging.can_promise(promised, more).is_ok()
    }

    /// Appends `record`, of which [`Hold::fits`] has said so in this hold.
    ///
    /// # Panics
    /// If it does not fit, its tag is 0 or its context longer than 64 bytes.
    pub fn append_fitting(&mut self, record: &Record<'_>) -> Appended {
        record.check();
        self.staging
            .append(record, self.rooms.promised())
            .expect("G10: what could be promised can be appended")
    }

    /// Behind the last record, or the last frame.
    pub fn end(&self) -> Lsn {
        self.staging.end()
    }
}
