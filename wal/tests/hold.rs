//! W2: what happens in the hold of the append latch allocates nothing, whatever frame or segment it meets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use fixture::{CONTEXT, NOTHING, append, body, start};
use lockstone_testkit::SimDisk;
use lockstone_wal::Record;

#[test]
fn an_append_in_the_hold_allocates_nothing() {
    let disk = SimDisk::new(1);
    let (log, ..) = start(disk, NOTHING).unwrap();
    let (mut before_hold, mut last) = (0, None);
    for number in 0..20_000 {
        // Others' records push the commit into every place of a frame, and into new frames and segments.
        append(&log, &body(number, 20 + number * 7 % 900)).unwrap();
        let body = body(number, 30);
        let record = Record {
            tag: 5,
            context: CONTEXT,
            body: &[&body],
        };
        let bytes = CONTEXT.len() + body.len();
        // As the write path does it: room in the hold if there is some, else before it.
        let has_room = log.hold().reserve(bytes).is_some();
        let room = (!has_room).then(|| log.reserve(bytes).unwrap());
        before_hold += u32::from(room.is_some());
        let mut appended = None;
        let counted = allocation_counter::measure(|| {
            let mut hold = log.hold();
            hold.check().unwrap();
            let room = room.or_else(|| hold.reserve(bytes)).unwrap();
            appended = Some(hold.append(room, &record));
        });
        assert_eq!(counted.count_total, 0, "W2: record {number} allocated");
        last = appended;
    }
    assert!(before_hold > 0, "some had to be reserved before the hold");
    log.wait_durable(last.unwrap().end).unwrap();
}
