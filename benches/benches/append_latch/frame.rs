//! What both sketches have in common: the bytes of a record in a frame, and the seal of a full frame.
//!
//! The bytes are as the log's: a header of 6 bytes before each record, one of 64 before the frame, with the
//! checksum of all records in it.

/// The room for the frame's header.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 6;
const NUMBER_BYTES: usize = size_of::<u64>();

/// How many bytes a record with this body takes.
pub(crate) const fn record_bytes(body: &[u8]) -> usize {
    RECORD_HEADER_BYTES + body.len()
}

/// Writes a record to where it belongs, which is just as long as it is.
pub(crate) fn put_record(to: &mut [u8], body: &[u8]) {
    let (header, rest) = to.split_at_mut(RECORD_HEADER_BYTES);
    let (tag, length) = header.split_at_mut(2);
    tag.copy_from_slice(&[1, 0]);
    length.copy_from_slice(&(body.len() as u32).to_le_bytes());
    rest.copy_from_slice(body);
}

/// Writes the header of a frame whose records end at `used`; the checksum that it names.
pub(crate) fn seal(frame: &mut [u8], used: usize, number: u64) -> u32 {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let (payload, _) = payload.split_at_mut(used - FRAME_HEADER_BYTES);
    let crc = crc32fast::hash(payload);
    header.fill(0);
    let (first, rest) = header.split_at_mut(NUMBER_BYTES);
    first.copy_from_slice(&number.to_le_bytes());
    let (second, rest) = rest.split_at_mut(NUMBER_BYTES);
    second.copy_from_slice(&(used as u64).to_le_bytes());
    let (third, _) = rest.split_at_mut(size_of::<u32>());
    third.copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The bodies in a sealed frame; `None` if it is not intact.
pub(crate) fn bodies(frame: &[u8]) -> Option<Vec<&[u8]>> {
    let (header, _) = frame.split_at_checked(FRAME_HEADER_BYTES)?;
    let (_, rest) = header.split_at_checked(NUMBER_BYTES)?;
    let (used, rest) = rest.split_first_chunk::<NUMBER_BYTES>()?;
    let crc = u32::from_le_bytes(*rest.first_chunk()?);
    let mut payload = frame.get(FRAME_HEADER_BYTES..u64::from_le_bytes(*used) as usize)?;
    if crc32fast::hash(payload) != crc {
        return None;
    }
    let mut bodies = Vec::new();
    while !payload.is_empty() {
        let (header, rest) = payload.split_at_checked(RECORD_HEADER_BYTES)?;
        let length = header.last_chunk::<4>()?;
        let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bodies.push(body);
        payload = rest;
    }
    Some(bodies)
}

/// What takes records, in two ways.
pub(crate) trait Frames: Sync {
    /// Appends a record; what it tells is where.
    fn append(&self, body: &[u8]) -> u64;

    /// Seals the open frame, though it is not full. Nobody appends meanwhile.
    fn finish(&self);
}

/// Sees each frame when it is sealed, its header included.
pub(crate) type Sealed<'a> = dyn Fn(&[u8]) + Sync + 'a;
