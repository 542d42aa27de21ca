//! The control: what the bare device gives a lone client, measured beside every run, because the same
//! machine gives another figure on another day.
//!
//! One operation overwrites 4 KiB of a file that is filled with zeros, past the page cache, and returns
//! when they are on the device (`O_DIRECT|O_DSYNC`): the least that a durable commit can cost. The file
//! lies in the database's directory and is walked through in order, as a log is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;

const BLOCK_BYTES: usize = 4096;
/// As long as a log segment.
const FILE_BYTES: u64 = 64 << 20;

/// The open control file.
#[derive(Debug)]
pub(crate) struct Control {
    file: File,
    /// The block lies somewhere inside, at a multiple of its length.
    memory: Vec<u8>,
    next: u64,
}

impl Control {
    /// Fills a file in `dir` with zeros and makes that durable.
    pub(crate) fn prepare(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("control");
        let open = |flags: rustix::fs::OFlags| {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(flags.bits().cast_signed());
            options.open(&path).map_err(Error::at(&path))
        };
        let file = open(rustix::fs::OFlags::empty())?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)
                .map_err(Error::at(&path))?;
        }
        file.sync_all().map_err(Error::at(&path))?;
        drop(file);
        let file = open(rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC)?;
        let mut memory = vec![0; 2 * BLOCK_BYTES];
        fastrand::fill(&mut memory);
        Ok(Self {
            file,
            memory,
            next: 0,
        })
    }

    /// Overwrites block after block for `time`; how many a second.
    pub(crate) fn run(&mut self, time: Duration) -> Result<f64, Error> {
        let begin = Instant::now();
        let mut operations = 0_u32;
        while begin.elapsed() < time {
            let aligned = self.memory.as_ptr().align_offset(BLOCK_BYTES);
            let block = self
                .memory
                .get(aligned..)
                .and_then(|rest| rest.get(..BLOCK_BYTES));
            let block = block.expect("twice a block's length holds an aligned block");
            self.file
                .write_all_at(block, self.next)
                .map_err(Error::at(Path::new("control")))?;
            self.next = (self.next + BLOCK_BYTES as u64) % FILE_BYTES;
            operations += 1;
        }
        Ok(f64::from(operations) / begin.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_measured_where_the_filesystem_allows_it() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(mut control) = Control::prepare(dir.path()) else {
            return;
        };
        let rate = control.run(Duration::from_millis(20)).unwrap();
        assert!(rate > 0.0);
        assert_eq!(
            dir.path().join("control").metadata().unwrap().len(),
            FILE_BYTES
        );
        let whole_blocks = control.next / BLOCK_BYTES as u64;
        assert!(whole_blocks > 0);
    }
}
