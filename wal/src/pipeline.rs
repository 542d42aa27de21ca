//! From the open frame to the device: the append latch, the frames in flight, how far they have come.
//!
//! `log` appends to it and waits for it; whoever leads drives it.
//! 1. A flush starts when somebody waits for durability and nobody leads, and takes all that has gathered
//!    (G9). A further frame starts beside it only when it is full or much has gathered: a small one
//!    would only split what a later, larger one takes at the same price.
//! 2. A leader leaves with nothing in flight, so whoever leads next, or closes, finds the device idle.
//! 3. After the first failed write nothing more is started (W11).
//! 4. The append latch is never held across I/O. The lead is no latch: it is held across I/O, by one thread.
//!
//! Crash: what `flush` says.

use lockstone_base::Lsn;
use parking_lot::Mutex;

use crate::error::WalError;
use crate::flush::{Flight, Flush};
use crate::open_frame::SealedFrame;
use crate::progress::{Lead, Progress, Turn};
use crate::rooms::{Promise, Rooms};
use crate::staging::{Shortage, Staging};

/// Why no frame was written.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Room has to be made first; so much was promised then.
    Short(Shortage, Promise),
    /// The log has failed or is closed.
    Failed(WalError),
}

/// What starts a further frame, and asks for a flush that nobody waits for (G9).
pub(crate) const GATHERED_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Pipeline {
    /// The append latch.
    pub(crate) staging: Mutex<Staging>,
    pub(crate) rooms: Rooms,
    pub(crate) progress: Progress,
    pub(crate) flush: Flush,
}

impl Pipeline {
    /// Poisons the log for good: everybody wakes to find it (W11). Wakes tasks too: nothing may be held.
    pub(crate) fn poison(&self) {
        self.mark_poisoned();
        self.progress.wake_all();
    }

    /// [`Pipeline::poison`] for who holds the lead or the shelf: who waits for durability is woken when the
    /// lead is handed on, or by who calls [`Pipeline::poison`] then; who waits for room, now.
    pub(crate) fn mark_poisoned(&self) {
        self.progress.mark_poisoned();
        self.rooms.wake_all();
    }

    /// Returns when all records up to `end` are durable.
    pub(crate) fn wait_durable(&self, end: Lsn) -> Result<(), WalError> {
        while !self.progress.has_reached(end)? {
            if let Turn::Lead(_lead) = self.progress.wait(end) {
                self.flush_through(end)?;
            }
        }
        Ok(())
    }

    /// As the driver: makes durable what was asked for, unless somebody leads, who will see to it.
    pub(crate) fn flush_asked(&self) -> Result<(), WalError> {
        self.progress.check()?;
        if let Some(end) = self.progress.asked()
            && let Some(_lead) = self.progress.try_lead()
        {
            self.flush_through(end)?;
        }
        Ok(())
    }

    /// As the leader: writes frames until `end` is durable or nothing is left.
    fn flush_through(&self, end: Lsn) -> Result<(), WalError> {
        let mut flight = self.flush.flight();
        let flown = self.fly(&mut flight, end);
        if flown.is_err() {
            flight.drain();
        }
        flown
    }

    fn fly(&self, flight: &mut Flight, end: Lsn) -> Result<(), WalError> {
        self.progress.check()?;
        loop {
            while self.progress.durable() < end && flight.has_room() {
                let at_least = if flight.is_empty() { 1 } else { GATHERED_BYTES };
                let Some(frame) = self.staging.lock().take_frame(at_least) else {
                    break;
                };
                self.start(flight, frame)?;
            }
            if flight.is_empty() {
                let is_all = self.progress.durable() >= end || end <= self.staging.lock().end();
                assert!(is_all, "W3: one waits for what was appended");
                return Ok(());
            }
            self.land(flight)?;
            if !flight.is_empty() {
                self.progress.serve();
            }
        }
    }

    /// As the leader: writes one frame, without records if none wait (G7).
    pub(crate) fn write_one(&self) -> Result<(), Stop> {
        let mut staging = self.staging.lock();
        // Under the latch: a promise made before is seen, and none is made before the frame is taken (G10).
        let promised = self.rooms.promised();
        let frame = match staging.take_frame(1) {
            Some(frame) => frame,
            None => staging
                .take_empty_frame(promised)
                .map_err(|shortage| Stop::Short(shortage, promised))?,
        };
        drop(staging);
        let mut flight = self.flush.flight();
        let written = self
            .start(&mut flight, frame)
            .and_then(|()| self.land(&mut flight));
        if written.is_err() {
            flight.drain();
        }
        written.map_err(Stop::Failed)
    }

    fn start(&self, flight: &mut Flight, frame: SealedFrame) -> Result<(), WalError> {
        self.progress.check()?;
        self.flush.start(flight, frame, self.progress.durable());
        Ok(())
    }

    /// Waits for one of the frames in flight.
    fn land(&self, flight: &mut Flight) -> Result<(), WalError> {
        let landed = self.flush.land(flight).map_err(|error| {
            tracing::error!(%error, "a log write failed: poisoned");
            self.mark_poisoned();
            WalError::Poisoned
        })?;
        self.staging.lock().give_back(landed.buffer);
        if let Some(end) = landed.durable {
            self.progress.advance(end);
        }
        Ok(())
    }

    /// The lead for good, with nothing in flight: also when the log has failed, for a leader may still be
    /// in the kernel with what it had begun, and must not reach a segment that others own by then.
    pub(crate) fn last_lead(&self) -> Lead<'_> {
        loop {
            let lead = match self.progress.try_lead() {
                Some(lead) => lead,
                None => match self.progress.wait(Lsn::MAX) {
                    Turn::Lead(lead) => lead,
                    Turn::Look => {
                        std::thread::yield_now();
                        continue;
                    }
                },
            };
            self.flush.flight().drain();
            return lead;
        }
    }
}
