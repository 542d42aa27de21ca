//! The control: what the bare device gives, measured beside every run, because the same machine gives
//! another figure on another day.
//!
//! 1. One operation overwrites 4 KiB of a file that is filled with zeros, one at a time, and ends when they
//!    are on the device: the least that a durable commit can cost.
//! 2. Beside a workload that writes much at once, frames of 1 MiB too, as many in flight as its log has.
//! 3. The writes go through the same port as the log's, with the same calls and flags. The file lies in the
//!    database's directory and is walked through in order, as a log is.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstone_base::disk::{
    AlignedBuf, Disk, DiskFile, IoMode, LogWrite, LogWriter, OpenMode, OsDisk,
};
use lockstone_base::limits::BLOCK_BYTES;

use crate::error::Error;

const NAME: &str = "control";
/// As long as a log segment.
const FILE_BYTES: u64 = 64 << 20;
/// As long as the longest frame.
const FRAME_BYTES: usize = 1 << 20;

/// What the control has shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare {
    /// Overwrites of 4 KiB a second, one at a time.
    pub(crate) ops_per_s: f64,
    /// Megabytes a second in frames of 1 MiB.
    pub(crate) mb_per_s: Option<f64>,
}

/// The open control file, and who writes to it.
#[derive(Debug)]
pub(crate) struct Control {
    blocks: Overwriter,
    frames: Option<Overwriter>,
}

impl Control {
    /// Fills a file in `dir` with zeros and makes that durable. It is written to by the calls of `io`; in
    /// large frames as well, if it is told how many of them are in flight.
    pub(crate) fn prepare(
        dir: &Path,
        io: IoMode,
        frames_in_flight: Option<u32>,
    ) -> Result<Self, Error> {
        let disk = OsDisk::open(dir, false)?.with_io(io);
        if disk.list()?.iter().any(|name| name == NAME) {
            disk.remove(NAME)?;
        }
        let file = disk.open(NAME, OpenMode::CreateNew)?;
        let zeros = vec![0; FRAME_BYTES];
        for offset in (0..FILE_BYTES).step_by(FRAME_BYTES) {
            file.write_at(offset, &zeros)?;
        }
        file.sync()?;
        disk.sync_dir()?;
        let file = disk.open(NAME, OpenMode::Log)?;
        let frames =
            frames_in_flight.map(|depth| Overwriter::new(&disk, &file, depth, FRAME_BYTES));
        Ok(Self {
            blocks: Overwriter::new(&disk, &file, 1, BLOCK_BYTES)?,
            frames: frames.transpose()?,
        })
    }

    /// Overwrites for `time`, of each kind.
    pub(crate) fn run(&mut self, time: Duration) -> Result<Bare, Error> {
        let per_megabyte = FRAME_BYTES as f64 / 1e6;
        let frames = self.frames.as_mut().map(|frames| frames.run(time));
        Ok(Bare {
            ops_per_s: self.blocks.run(time)?,
            mb_per_s: frames.transpose()?.map(|rate| rate * per_megabyte),
        })
    }
}

/// Walks through the file, with several writes in flight.
#[derive(Debug)]
struct Overwriter {
    file: Arc<dyn DiskFile>,
    writer: Box<dyn LogWriter>,
    free: Vec<AlignedBuf>,
    bytes: usize,
    next: u64,
}

impl Overwriter {
    fn new(
        disk: &OsDisk,
        file: &Arc<dyn DiskFile>,
        depth: u32,
        bytes: usize,
    ) -> Result<Self, Error> {
        let random = |_| {
            let mut buffer = AlignedBuf::zeroed(bytes);
            fastrand::fill(buffer.as_mut_bytes());
            buffer
        };
        let free: Vec<_> = (0..depth).map(random).collect();
        let probe = LogWrite {
            tag: 0,
            file: Arc::clone(file),
            offset: 0,
            buffer: AlignedBuf::zeroed(BLOCK_BYTES),
            bytes: BLOCK_BYTES,
        };
        Ok(Self {
            file: Arc::clone(file),
            writer: disk.log_writer(depth as usize, &free, probe)?,
            free,
            bytes,
            next: 0,
        })
    }

    /// Overwrites for `time`; how often a second.
    fn run(&mut self, time: Duration) -> Result<f64, Error> {
        let begin = Instant::now();
        let mut written = 0_u32;
        loop {
            let is_time = begin.elapsed() < time;
            while is_time && let Some(buffer) = self.free.pop() {
                self.writer.start(LogWrite {
                    tag: self.next,
                    file: Arc::clone(&self.file),
                    offset: self.next,
                    buffer,
                    bytes: self.bytes,
                });
                self.next = (self.next + self.bytes as u64) % FILE_BYTES;
            }
            if self.writer.in_flight() == 0 {
                return Ok(f64::from(written) / begin.elapsed().as_secs_f64());
            }
            self.free.push(self.writer.finish()?.buffer);
            written += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_measured_in_blocks_and_in_frames() {
        let dir = tempfile::tempdir().unwrap();
        for (io, depth) in [(IoMode::Auto, Some(3)), (IoMode::Blocking, None)] {
            let mut control = Control::prepare(dir.path(), io, depth).unwrap();
            let bare = control.run(Duration::from_millis(20)).unwrap();
            assert!(bare.ops_per_s > 0.0);
            assert_eq!(
                bare.mb_per_s.is_some_and(|rate| rate > 0.0),
                depth.is_some()
            );
            let file = dir.path().join(NAME);
            assert_eq!(file.metadata().unwrap().len(), FILE_BYTES);
            // All that was begun is over, every buffer is back, and the random bytes are in the file.
            assert_eq!(
                (control.blocks.writer.in_flight(), control.blocks.free.len()),
                (0, 1)
            );
            assert!(std::fs::read(file).unwrap().iter().any(|byte| *byte != 0));
        }
    }

    #[test]
    fn only_what_is_on_the_device_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::prepare(dir.path(), IoMode::Auto, Some(2)).unwrap();
        let time = Duration::from_millis(50);
        let begin = Instant::now();
        let frames = control.frames.as_mut().unwrap();
        let rate = frames.run(time).unwrap();
        let took = begin.elapsed().as_secs_f64();
        let written = rate * took;
        // The file is walked through in order: where the next one goes tells how many there were.
        let walked = (frames.next / FRAME_BYTES as u64) as f64;
        let rounds = FILE_BYTES as f64 / FRAME_BYTES as f64;
        assert!(
            written >= 1.0 && (written.floor() - walked) % rounds <= 1.0,
            "{written} {walked}"
        );
    }
}
