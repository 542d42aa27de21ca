//! The 64 bytes that open a frame: one group commit (G2, G3).
//!
//! 1. The header's checksum covers the payload's, the predecessor's and everything else, so a frame
//!    whose payload is torn still testifies with its header (G3).
//! 2. Both checksums start from the salt of the database, and the payload's also from the frame's own
//!    LSN: a value cannot forge a frame, and a frame in another place is none (F12, F13).

use crc32fast::Hasher;
use lockstone_base::Lsn;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::chain::ChainPoint;

/// The length of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
/// No frame is longer, header and padding included: bounds what a scan must hold in memory.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// The newest frame format that this code reads, and the one it writes.
pub(crate) const FRAME_VERSION: u16 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"LKfr");

/// The checksum state after the salt: where every checksum of the database's frames starts.
#[derive(Clone, Debug)]
pub(crate) struct Salt(Hasher);

impl Salt {
    pub(crate) fn new(salt: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&salt.to_le_bytes());
        Self(hasher)
    }

    /// The checksum of the payload of the frame at `own`.
    pub(crate) fn payload_crc(&self, own: Lsn, payload: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&own.get().to_le_bytes());
        hasher.update(payload);
        hasher.finalize()
    }

    fn header_crc(&self, covered: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(covered);
        hasher.finalize()
    }
}

/// What a frame header says, its checksum apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameFields {
    pub(crate) payload_bytes: u32,
    pub(crate) records: u32,
    pub(crate) boot_epoch: u32,
    pub(crate) own: Lsn,
    pub(crate) before: ChainPoint,
    pub(crate) durable_through: Lsn,
    pub(crate) manifest_generation: u64,
    pub(crate) payload_crc: u32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FrameHeader {
    magic: U32,
    version: U16,
    flags: U16,
    payload_len: U32,
    record_count: U32,
    boot_epoch: U32,
    pred_crc: U32,
    own_lsn: U64,
    pred_end: U64,
    durable_through: U64,
    manifest_generation: U64,
    payload_crc: U32,
    header_crc: U32,
}

const _: () = assert!(size_of::<FrameHeader>() == FRAME_HEADER_BYTES);

impl FrameHeader {
    pub(crate) fn new(fields: &FrameFields, salt: &Salt) -> Self {
        let mut header = Self {
            magic: MAGIC.into(),
            version: FRAME_VERSION.into(),
            flags: 0.into(),
            payload_len: fields.payload_bytes.into(),
            record_count: fields.records.into(),
            boot_epoch: fields.boot_epoch.into(),
            pred_crc: fields.before.crc.into(),
            own_lsn: fields.own.get().into(),
            pred_end: fields.before.end.get().into(),
            durable_through: fields.durable_through.get().into(),
            manifest_generation: fields.manifest_generation.into(),
            payload_crc: fields.payload_crc.into(),
            header_crc: 0.into(),
        };
        header.header_crc = salt.header_crc(header.covered()).into();
        header
    }

    /// The header at the start of `block`, if it is intact and at its own place, `at`.
    pub(crate) fn decode(block: &[u8], at: Lsn, salt: &Salt) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        let intact = header.magic.get() == MAGIC
            && header.own_lsn.get() == at.get()
            && header.header_crc.get() == salt.header_crc(header.covered());
        intact.then_some(header)
    }

    /// Writes it to the start of `block`.
    pub(crate) fn encode_into(&self, block: &mut [u8]) {
        self.write_to_prefix(block)
            .expect("a frame buffer is longer than the frame header");
    }

    pub(crate) fn version(&self) -> u16 {
        self.version.get()
    }

    /// The checksum by which the successor names this frame.
    pub(crate) fn crc(&self) -> u32 {
        self.header_crc.get()
    }

    pub(crate) fn fields(&self) -> FrameFields {
        FrameFields {
            payload_bytes: self.payload_len.get(),
            records: self.record_count.get(),
            boot_epoch: self.boot_epoch.get(),
            own: Lsn::new(self.own_lsn.get()),
            before: ChainPoint {
                end: Lsn::new(self.pred_end.get()),
                crc: self.pred_crc.get(),
            },
            durable_through: Lsn::new(self.durable_through.get()),
            manifest_generation: self.manifest_generation.get(),
            payload_crc: self.payload_crc.get(),
        }
    }

    fn covered(&self) -> &[u8] {
        let (covered, _) = self
            .as_bytes()
            .split_at(FRAME_HEADER_BYTES - size_of::<U32>());
        covered
    }
}

/// Whether `block` begins like a frame written for the place `at`, intact or not: what a torn first
/// sector may leave.
pub(crate) fn frame_signature(block: &[u8], at: Lsn) -> bool {
    FrameHeader::read_from_prefix(block)
        .is_ok_and(|(header, _)| header.magic.get() == MAGIC && header.own_lsn.get() == at.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: FrameFields = FrameFields {
        payload_bytes: 150,
        records: 3,
        boot_epoch: 7,
        own: Lsn::new(0x41000),
        before: ChainPoint {
            end: Lsn::new(0x3f000),
            crc: 0xdead_beef,
        },
        durable_through: Lsn::new(0x3e000),
        manifest_generation: 9,
        payload_crc: 0x0bad_cafe,
    };
    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn encoded() -> [u8; 64] {
        let mut block = [0; 64];
        FrameHeader::new(&FIELDS, &Salt::new(SALT)).encode_into(&mut block);
        block
    }

    #[test]
    fn a_header_round_trips() {
        let header = FrameHeader::decode(&encoded(), FIELDS.own, &Salt::new(SALT)).unwrap();
        assert_eq!(header.fields(), FIELDS);
        assert_eq!(header.version(), FRAME_VERSION);
    }

    #[test]
    fn any_flipped_bit_another_place_or_another_salt_is_refused() {
        let salt = Salt::new(SALT);
        let mut block = encoded();
        assert!(FrameHeader::decode(&block, FIELDS.own.plus(4096), &salt).is_none());
        assert!(FrameHeader::decode(&block, FIELDS.own, &Salt::new(SALT ^ 1)).is_none());
        for byte in 0..block.len() {
            for bit in 0..8 {
                block[byte] ^= 1 << bit;
                assert!(FrameHeader::decode(&block, FIELDS.own, &salt).is_none());
                block[byte] ^= 1 << bit;
            }
        }
        assert!(FrameHeader::decode(&block[..63], FIELDS.own, &salt).is_none());
    }

    #[test]
    fn the_payload_checksum_is_bound_to_place_and_salt() {
        let payload = b"the same payload";
        let crc = Salt::new(1).payload_crc(Lsn::new(4096), payload);
        assert_ne!(crc, Salt::new(1).payload_crc(Lsn::new(8192), payload));
        assert_ne!(crc, Salt::new(2).payload_crc(Lsn::new(4096), payload));
    }
}
