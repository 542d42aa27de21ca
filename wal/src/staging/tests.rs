//! Staging under every order of appends, promises, flushes and readied segments: a promise is always
//! kept (G10), no position is given out twice or outside a ready segment (G1, G4).

use std::collections::VecDeque;

use lockstone_base::disk::{Disk, DiskFile, OpenMode};
use lockstone_testkit::SimDisk;
use proptest::prelude::*;

use super::*;

const SEGMENT_BYTES: u64 = 256 << 10;
const IN_FLIGHT: usize = 3;
const FRAME_BYTES: usize = 64 << 10;
const BODY_MAX: usize = FRAME_BYTES - FRAME_HEADER_BYTES - 6;

fn file() -> Arc<dyn DiskFile> {
    SimDisk::new(0).open("wal", OpenMode::CreateNew).unwrap()
}

fn buffers() -> Vec<AlignedBuf> {
    (0..frame_buffers(IN_FLIGHT))
        .map(|_| AlignedBuf::zeroed(FRAME_BYTES))
        .collect()
}

fn segment(number: u64) -> Arc<Segment> {
    Arc::new(Segment {
        base: Lsn::new(number * SEGMENT_BYTES),
        bytes: SEGMENT_BYTES,
        below: None,
        name: format!("wal-{number}"),
        file: file(),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Promise(usize),
    /// Use a promise, with a record of at most its length.
    Keep {
        which: usize,
        shorter_by: usize,
    },
    Drop {
        which: usize,
    },
    Flush,
    GiveBack,
    Cover,
    Ready,
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..300_usize, 1 => 0..9000_usize, 1 => 0..=BODY_MAX]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => bytes().prop_map(Step::Append),
        4 => bytes().prop_map(Step::Promise),
        4 => (any::<usize>(), 0..200_usize).prop_map(|(which, shorter_by)| Step::Keep { which, shorter_by }),
        1 => any::<usize>().prop_map(|which| Step::Drop { which }),
        3 => Just(Step::Flush),
        3 => Just(Step::GiveBack),
        1 => Just(Step::Cover),
        1 => Just(Step::Ready),
    ]
}

/// One staging with what surrounds it: open promises, frames being written, what was appended.
struct Bench {
    staging: Staging,
    promises: Vec<(Promise, usize)>,
    in_flight: VecDeque<SealedFrame>,
    segments: u64,
    last: Appended,
    last_frame_end: Lsn,
}

impl Bench {
    fn new() -> Self {
        let mut staging = Staging::new(segment(0), Lsn::ZERO, buffers());
        staging.set_spare();
        let zero = Appended {
            lsn: Lsn::ZERO,
            end: Lsn::ZERO,
        };
        Self {
            staging,
            promises: Vec::new(),
            in_flight: VecDeque::new(),
            segments: 1,
            last: zero,
            last_frame_end: Lsn::ZERO,
        }
    }

    fn promised(&self) -> Promise {
        self.promises
            .iter()
            .fold(Promise::default(), |sum, (promise, _)| sum.plus(*promise))
    }

    fn appended(&mut self, appended: Appended) {
        assert!(appended.lsn >= self.last.end, "G1: no position twice");
        assert!(self.staging.current.holds(appended.lsn));
        self.last = appended;
    }

    fn append(&mut self, bytes: usize) {
        let body = vec![7; bytes];
        let record = Record {
            tag: 1,
            context: b"",
            body: &[&body],
        };
        match self.staging.append(&record, self.promised()) {
            Ok(appended) => self.appended(appended),
            Err(Shortage::Buffer) => assert!(self.staging.free.is_empty()),
            Err(Shortage::Segment) => assert!(!self.staging.is_next_ready()),
            Err(Shortage::Rooms) => assert!(!self.promises.is_empty(), "nobody to wait for"),
        }
    }

    fn keep(&mut self, which: usize, shorter_by: usize) {
        if self.promises.is_empty() {
            return;
        }
        let (_, bytes) = self.promises.swap_remove(which % self.promises.len());
        let body = vec![9; bytes.saturating_sub(shorter_by)];
        let record = Record {
            tag: 1,
            context: b"",
            body: &[&body],
        };
        let appended = self.staging.append(&record, self.promised());
        self.appended(appended.expect("G10: a promise is kept"));
    }

    fn took(&mut self, frame: SealedFrame) {
        assert!(frame.start >= self.last_frame_end, "G5: frames in order");
        assert!(frame.end() <= frame.segment.end(), "G4: in one segment");
        self.last_frame_end = frame.end();
        self.in_flight.push_back(frame);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(bytes) => self.append(bytes),
            Step::Promise(bytes) => {
                let more = Promise::of_record(bytes);
                if self.staging.can_promise(self.promised(), more).is_ok() {
                    self.promises.push((more, bytes));
                }
            }
            Step::Keep { which, shorter_by } => self.keep(which, shorter_by),
            Step::Drop { which } if !self.promises.is_empty() => {
                self.promises.swap_remove(which % self.promises.len());
            }
            Step::Drop { .. } => {}
            Step::Flush if self.in_flight.len() < IN_FLIGHT => {
                if let Some(frame) = self.staging.take_frame(1) {
                    self.took(frame);
                }
            }
            Step::Flush | Step::GiveBack => {
                if let Some(frame) = self.in_flight.pop_front() {
                    self.staging.give_back(frame.buffer);
                }
            }
            Step::Cover => {
                let idle = self.staging.sealed.is_empty() && self.staging.open.records() == 0;
                if idle
                    && self.in_flight.is_empty()
                    && let Ok(frame) = self.staging.take_empty_frame(self.promised())
                {
                    self.took(frame);
                }
            }
            Step::Ready if !self.staging.has_next() => {
                self.staging.set_next(segment(self.segments));
                self.segments += 1;
            }
            Step::Ready => self.staging.set_spare(),
        }
        assert!(
            self.staging.shape().keeps(self.promised()),
            "G10: what is promised can be kept"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_promise_is_kept_whatever_comes_between(steps in proptest::collection::vec(step(), 1..300)) {
        let mut bench = Bench::new();
        for step in &steps {
            bench.step(step);
        }
        // And then all at once, without a flush in between.
        while !bench.promises.is_empty() {
            bench.keep(0, 0);
        }
    }
}

#[test]
fn a_shortage_goes_away_once_it_is_seen_to() {
    let mut bench = Bench::new();
    let body = vec![7; BODY_MAX];
    let record = Record {
        tag: 1,
        context: b"",
        body: &[&body],
    };
    for _ in 0..300 {
        match bench.staging.append(&record, Promise::default()) {
            Ok(appended) => bench.appended(appended),
            Err(Shortage::Buffer) => {
                let frame = bench.staging.take_frame(1).unwrap();
                bench.staging.give_back(frame.buffer);
            }
            Err(Shortage::Segment) => {
                bench.step(&Step::Ready);
                bench.staging.set_spare();
            }
            Err(Shortage::Rooms) => panic!("nothing is promised"),
        }
    }
    assert!(
        bench.last.lsn > Lsn::new(30 * SEGMENT_BYTES),
        "each shortage costs one step, each record at most two"
    );
}

#[test]
fn the_next_segment_is_entered_only_with_a_spare_behind_it() {
    let mut staging = Staging::new(segment(0), Lsn::ZERO, buffers());
    staging.set_spare();
    staging.set_next(segment(1));
    assert!(staging.has_next() && !staging.is_next_ready());
    let body = vec![7; BODY_MAX];
    let record = Record {
        tag: 1,
        context: b"",
        body: &[&body],
    };
    let mut appended = 0;
    let shortage = loop {
        match staging.append(&record, Promise::default()) {
            Ok(_) => appended += 1,
            Err(Shortage::Buffer) => {
                let frame = staging.take_frame(1).unwrap();
                staging.give_back(frame.buffer);
            }
            Err(shortage) => break shortage,
        }
    };
    assert_eq!((appended, shortage), (3, Shortage::Segment));
}

#[test]
fn adjacent_records_share_their_context_within_a_frame_only() {
    let mut staging = Staging::new(segment(0), Lsn::ZERO, buffers());
    let record = Record {
        tag: 1,
        context: &[5; 20],
        body: &[b"ab", b"c"],
    };
    let none = Promise::default();
    let first = staging.append(&record, none).unwrap();
    let second = staging.append(&record, none).unwrap();
    assert_eq!(first.end.since(first.lsn), 6 + 20 + 3);
    assert_eq!(
        second.end.since(second.lsn),
        6 + 3,
        "G4: the context is shared"
    );
    staging.take_frame(1).unwrap();
    let third = staging.append(&record, none).unwrap();
    assert_eq!(
        third.end.since(third.lsn),
        6 + 20 + 3,
        "a frame can be read alone"
    );
}
