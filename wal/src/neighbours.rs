//! Do the segments that there are make up the log? (F14)
//!
//! Called by `scan` before it reads a frame. A frame testifies to those before it, but a missing file takes
//! its own frames along; so files testify to files:
//! 1. The manifest says how far the files reached when it was written. The highest base in the directory
//!    only grows, so they reach at least as far for ever.
//! 2. A segment's header names the one that was the highest before it. That goes only when a durable
//!    manifest starts reading behind its end, hence behind the base of whoever names it.
//! 3. A segment's header names the one that was readied behind it, before a position in that is given out.
//!    That one stays, or is renamed to a higher base while it holds nothing (G8).
//! 4. The segment in which the manifest's position lies stays: only those that end below it are recycled.
//!
//! So each segment with acknowledged records is named by another file that is read here: the highest by
//! the manifest or by the one below it, each other one by the one above it. A damaged header is no witness,
//! and loses nothing by itself (G5).

use crate::error::{WalError, Witness};
use crate::format::{SEGMENT_VERSION, SegmentHeader};
use crate::frames::{Frames, Place};
use crate::segment::{Segment, segment_name};
use crate::visit::ScanOptions;

use lockstone_base::Lsn;

/// A segment that is not there, though it must be.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Its name; the highest there is if only its end is known.
    pub(crate) name: Option<String>,
    /// Where it would begin.
    pub(crate) lsn: Lsn,
    pub(crate) witness: Witness,
}

/// Whether anything in `segment` can matter: those that end below the start are behind us (S3).
pub(crate) fn is_in_scope(segment: &Segment, options: &ScanOptions) -> bool {
    segment.end() >= options.from.end
}

/// Whether the segment in which `options.from` lies is there.
pub(crate) fn has_start(segments: &[Segment], options: &ScanOptions) -> bool {
    let from = options.from.end;
    from == Lsn::ZERO
        || segments
            .iter()
            .any(|segment| segment.base < from && from <= segment.end())
}

/// What the manifest says.
pub(crate) fn manifest(options: &ScanOptions) -> Witness {
    Witness::Manifest {
        generation: options.manifest_generation,
        durable: options.durable,
        log_end: options.log_end,
    }
}

/// Reads the headers of all segments that matter. The lowest segment that is missing, if one is.
///
/// # Errors
/// An intact header exposes a file of another database, of a newer format, or of another length.
pub(crate) fn check(
    frames: &mut Frames<'_>,
    options: &ScanOptions,
) -> Result<Option<Missing>, WalError> {
    let mut missing = None;
    for at in 0..frames.segments.len() {
        let found = check_header(frames, at, options)?;
        missing = missing.or(found);
    }
    let highest = frames.segments.last();
    let end = highest.map_or(Lsn::ZERO, Segment::end);
    let cut = (end < options.log_end).then(|| Missing {
        name: highest.map(|highest| highest.name.clone()),
        lsn: end,
        witness: manifest(options),
    });
    Ok(missing.or(cut))
}

fn check_header(
    frames: &mut Frames<'_>,
    at: usize,
    options: &ScanOptions,
) -> Result<Option<Missing>, WalError> {
    let segments = frames.segments;
    let Some(segment) = segments.get(at).filter(|it| is_in_scope(it, options)) else {
        return Ok(None);
    };
    let place = Place {
        segment: at,
        offset: 0,
    };
    let Some(header) = SegmentHeader::decode(frames.first_block(at)?) else {
        return Ok(None);
    };
    if header.version() > SEGMENT_VERSION {
        return Err(WalError::NewerFormat {
            file: frames.path_of(place),
            offset: 0,
            version: header.version(),
        });
    }
    if !header.is_of_salt(options.salt) {
        return Err(WalError::Foreign {
            file: frames.path_of(place),
        });
    }
    let says = header.place();
    if says.base < segment.base {
        // An old header. No file is named before its own is written, but nothing hangs on that.
        return Ok(None);
    }
    // Of a place above, which it was about to take (G8): its neighbour below is the same.
    if says.base == segment.base && says.bytes != segment.bytes {
        let what = "the segment is not as long as its header says";
        return Err(frames.corrupt(place, what));
    }
    let below = says.below.filter(|below| {
        let needed = options.from.end <= segment.base;
        needed && segments.iter().all(|other| other.base != *below)
    });
    let above = says
        .above
        .filter(|above| segments.last().is_none_or(|highest| highest.base < *above));
    Ok(below.or(above).map(|base| Missing {
        name: Some(segment_name(base)),
        lsn: base,
        witness: Witness::Segment {
            file: frames.path_of(place),
            missing: base,
        },
    }))
}
