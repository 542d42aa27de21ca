//! Log writes of the simulated disk, several in flight.
//!
//! Made by `sim_disk` only.
//!
//! 1. A write is at stake from its start on, and durable from its end on. Between the two a crash keeps,
//!    tears or loses it, whatever becomes of the others.
//! 2. What ends next is the disk's to say. An error is told at a write's end, and is final.
//! 3. Who drains, or drops, the writer ends all writes: like a real one, it does not stop what has begun.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use lockstone_base::disk::{
    AlignedBuf, DiskError, DiskFile, DiskOp, DiskResult, LogWrite, LogWriter, Written,
};
use parking_lot::Mutex;

use super::call::Write;
use super::machine::{Machine, Started};
use super::payload::Payload;
use super::sim_file::SimFile;

#[derive(Debug)]
struct Aloft {
    tag: u64,
    buffer: AlignedBuf,
    file: Arc<SimFile>,
    offset: u64,
    /// An error where the write was refused before it began.
    started: Result<Started, DiskError>,
}

#[derive(Debug)]
pub(super) struct SimWriter {
    machine: Arc<Mutex<Machine>>,
    depth: usize,
    /// In the order of their starts.
    aloft: VecDeque<Aloft>,
    /// The first error.
    broken: Option<DiskError>,
}

impl SimWriter {
    pub(super) fn new(machine: Arc<Mutex<Machine>>, depth: usize) -> Self {
        Self {
            machine,
            depth,
            aloft: VecDeque::new(),
            broken: None,
        }
    }

    fn begin(&self, file: &SimFile, write: &LogWrite) -> DiskResult<Started> {
        let error = |kind| file.error(DiskOp::WriteDurable, kind).at(write.offset);
        file.check_writable(DiskOp::WriteDurable)
            .map_err(|e| e.at(write.offset))?;
        let bytes = Write {
            file: file.file,
            offset: write.offset,
            payload: Payload::new(write.payload()),
        };
        let started = self.machine.lock().start(&file.name, bytes);
        started.map_err(error)
    }

    /// Ends one of the writes in flight.
    fn end_next(&mut self) -> DiskResult<Written> {
        let at = self.machine.lock().next_to_finish(self.aloft.len());
        let aloft = self.aloft.remove(at).expect("disk: a write is in flight");
        let (started, file) = (aloft.started?, aloft.file);
        // The latch is given back before the file is: that needs it, if this was its last handle.
        let ended = self.machine.lock().finish(&file.name, started);
        ended.map_err(|kind| file.error(DiskOp::WriteDurable, kind).at(aloft.offset))?;
        Ok(Written {
            tag: aloft.tag,
            buffer: aloft.buffer,
        })
    }

    fn sim_file(&self, file: &Arc<dyn DiskFile>) -> Arc<SimFile> {
        let any: Arc<dyn Any + Send + Sync> = file.clone();
        let file = any.downcast::<SimFile>();
        let file = file.expect("disk 5: a writer writes files of its own disk");
        let is_own = Arc::ptr_eq(&file.machine, &self.machine);
        assert!(is_own, "disk 5: a writer writes files of its own disk");
        assert!(file.is_log(), "disk 5: durable writes are for log files");
        file
    }
}

impl LogWriter for SimWriter {
    fn start(&mut self, write: LogWrite) {
        write.check();
        assert!(
            self.aloft.len() < self.depth,
            "disk: too many writes in flight"
        );
        assert!(
            self.broken.is_none(),
            "F7: nothing is started after an error"
        );
        let file = self.sim_file(&write.file);
        self.aloft.push_back(Aloft {
            started: self.begin(&file, &write),
            tag: write.tag,
            offset: write.offset,
            buffer: write.buffer,
            file,
        });
    }

    fn finish(&mut self) -> DiskResult<Written> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        assert!(!self.aloft.is_empty(), "disk: a write is in flight");
        self.end_next()
            .map_err(|error| self.broken.insert(error).clone())
    }

    fn drain(&mut self) {
        while !self.aloft.is_empty() {
            // Whoever wanted to know would have waited.
            let _ = self.end_next();
        }
    }

    fn in_flight(&self) -> usize {
        self.aloft.len()
    }

    fn depth(&self) -> usize {
        self.depth
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.drain();
    }
}
