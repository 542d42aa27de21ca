//! As the log does it: one mutex around the frame that is being filled. The record is copied with it held;
//! who finds the frame full takes it out, lets go, and seals it.

use lockstone_base::disk::AlignedBuf;
use parking_lot::Mutex;

use crate::frame::{FRAME_HEADER_BYTES, Frames, Sealed, put_record, record_bytes, seal};

/// Frames behind a mutex.
pub(crate) struct Latched<'a> {
    staging: Mutex<Staging>,
    frame_bytes: usize,
    sealed: &'a Sealed<'a>,
}

struct Staging {
    open: AlignedBuf,
    used: usize,
    number: u64,
    free: Vec<AlignedBuf>,
}

impl<'a> Latched<'a> {
    pub(crate) fn new(buffers: usize, frame_bytes: usize, sealed: &'a Sealed<'a>) -> Self {
        let free = (1..buffers).map(|_| AlignedBuf::zeroed(frame_bytes));
        Self {
            staging: Mutex::new(Staging {
                open: AlignedBuf::zeroed(frame_bytes),
                used: FRAME_HEADER_BYTES,
                number: 0,
                free: free.collect(),
            }),
            frame_bytes,
            sealed,
        }
    }

    fn seal(&self, mut full: AlignedBuf, used: usize, number: u64) {
        seal(full.as_mut_bytes(), used, number);
        (self.sealed)(full.as_bytes());
        self.staging.lock().free.push(full);
    }
}

impl Frames for Latched<'_> {
    fn append(&self, body: &[u8]) -> u64 {
        let bytes = record_bytes(body);
        loop {
            let mut staging = self.staging.lock();
            let start = staging.used;
            if start + bytes <= self.frame_bytes {
                let room = staging.open.as_mut_bytes().get_mut(start..start + bytes);
                put_record(room.expect("it was found to fit"), body);
                staging.used = start + bytes;
                return staging.number * self.frame_bytes as u64 + start as u64;
            }
            let Some(fresh) = staging.free.pop() else {
                drop(staging);
                std::thread::yield_now();
                continue;
            };
            let full = std::mem::replace(&mut staging.open, fresh);
            let number = staging.number;
            staging.number += 1;
            staging.used = FRAME_HEADER_BYTES;
            drop(staging);
            self.seal(full, start, number);
        }
    }

    fn finish(&self) {
        let mut staging = self.staging.lock();
        let fresh = staging.free.pop().expect("every frame was sealed");
        let full = std::mem::replace(&mut staging.open, fresh);
        let (used, number) = (staging.used, staging.number);
        drop(staging);
        self.seal(full, used, number);
    }
}
