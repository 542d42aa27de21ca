//! The log files that a ring knows by a number of its own.
//!
//! Kept by `ring_writer`.
//! 1. A slot belongs to one file for as long as a write to it is in flight.
//! 2. The table keeps no file open on this side of the kernel: whoever drops the last handle of a file closes it
//!    and gives up its lock. The kernel keeps the file until its slot is cleared, when the next new file comes
//!    or the ring is closed; the room of a removed file is free then.
//!
//! Crash: memory only.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use super::os_file::OsFile;
use super::ring::Ring;

/// How many files the ring knows at once: the log's newest segment, the one before it while its last frames
/// are in flight, and as many more for the next ones.
const SLOTS: usize = 4;

#[derive(Debug, Default)]
struct Slot {
    /// Its memory is not used again while it is known here, so the same address is the same file.
    file: Weak<OsFile>,
    is_filled: bool,
    in_flight: usize,
    /// When it was last taken.
    taken: u64,
}

#[derive(Debug, Default)]
pub(super) struct RingFiles {
    /// Empty if the kernel keeps no table for us.
    slots: Vec<Slot>,
    clock: u64,
}

impl RingFiles {
    /// Makes the kernel's table.
    pub(super) fn new(ring: &mut impl Ring) -> Self {
        let mut files = Self::default();
        match ring.reserve_files(SLOTS as u32) {
            Ok(()) => files.slots.resize_with(SLOTS, Slot::default),
            Err(error) => tracing::debug!(%error, "io_uring keeps no files"),
        }
        files
    }

    /// The file's slot for one write, to be given back; `None` if there is no slot for it.
    pub(super) fn take(&mut self, ring: &mut impl Ring, file: &Arc<OsFile>) -> Option<u32> {
        self.clock += 1;
        let known = |slot: &Slot| slot.is_filled && slot.file.as_ptr() == Arc::as_ptr(file);
        let at = match self.slots.iter().position(known) {
            Some(at) => at,
            None => self.fill(ring, file)?,
        };
        let slot = self.slots.get_mut(at)?;
        slot.in_flight += 1;
        slot.taken = self.clock;
        Some(at as u32)
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        let slot = self.slots.get_mut(slot as usize);
        let slot = slot.expect("ring_files 1: the slot was taken");
        assert!(
            slot.in_flight > 0,
            "ring_files 1: the slot is given back once"
        );
        slot.in_flight -= 1;
    }

    /// Puts the file in the slot that was idle for longest.
    fn fill(&mut self, ring: &mut impl Ring, file: &Arc<OsFile>) -> Option<usize> {
        self.clear_closed(ring);
        let idle = self.slots.iter_mut().enumerate();
        let idle = idle.filter(|(_, slot)| slot.in_flight == 0);
        let (at, slot) = idle.min_by_key(|(_, slot)| (slot.is_filled, slot.taken))?;
        match ring.register_file(at as u32, Some(file.as_fd())) {
            Ok(()) => {
                slot.file = Arc::downgrade(file);
                slot.is_filled = true;
                Some(at)
            }
            Err(error) => {
                // What the kernel has in the slot now is not known; the file is written without it.
                tracing::debug!(%error, "io_uring does not keep a file");
                slot.is_filled = false;
                None
            }
        }
    }

    /// Empties the slots of files that nobody has open any more.
    fn clear_closed(&mut self, ring: &mut impl Ring) {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let is_closed = slot.is_filled && slot.file.strong_count() == 0;
            if is_closed && ring.register_file(at as u32, None).is_ok() {
                slot.is_filled = false;
            }
        }
    }
}
