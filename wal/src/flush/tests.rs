//! The bytes of a whole frame, against a file made from the format page by another program.

use std::sync::Arc;

use lockstone_base::disk::{AlignedBuf, Disk, OpenMode};
use lockstone_testkit::SimDisk;

use super::*;
use crate::open_frame::{OpenFrame, Record};
use crate::segment::Segment;

#[test]
fn golden_bytes() {
    let disk = SimDisk::new(0);
    disk.open("wal", OpenMode::CreateNew)
        .unwrap()
        .set_len(0x40000)
        .unwrap();
    let segment = Arc::new(Segment {
        base: Lsn::new(0x40000),
        bytes: 0x40000,
        below: None,
        name: "wal".to_owned(),
        file: disk.open("wal", OpenMode::Log).unwrap(),
    });
    let mut buffer = AlignedBuf::zeroed(4096);
    buffer.as_mut_bytes().fill(0xff);
    let mut open = OpenFrame::new(buffer);
    let record = |tag, context, body| Record { tag, context, body };
    open.push(&record(2, b"ctx", &[b"fir", b"st"]));
    open.push(&record(2, b"ctx", &[b"second"]));
    open.push(&record(5, b"", &[]));
    let frame = open.seal(AlignedBuf::zeroed(4096), Lsn::new(0x41000), segment.clone());
    let before = ChainPoint {
        end: Lsn::new(0x3f000),
        crc: 0xdead_beef,
    };
    let probe = LogWrite {
        tag: 0,
        file: segment.file.clone(),
        offset: 0,
        buffer: AlignedBuf::zeroed(4096),
        bytes: 4096,
    };
    let writer = disk.log_writer(1, &[], probe).unwrap();
    let salt = 0x1234_5678_9abc_def0;
    let flush = Flush::new(writer, FrameIndex::new(before), salt, 7, 9);
    let mut flight = flush.flight();
    flush.start(&mut flight, frame, Lsn::new(0x3f000));
    let landed = flush.land(&mut flight).unwrap();
    assert_eq!(landed.durable, Some(Lsn::new(0x42000)));

    let written = disk.read_file("wal");
    let golden = include_bytes!("../../testdata/frame.golden");
    assert_eq!(
        &written[0x1000..0x2000],
        golden,
        "changing the format needs docs/format.md changed too"
    );
    assert!(written[0x2000..].iter().all(|byte| *byte == 0));
}
