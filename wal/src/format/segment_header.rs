//! The first block of a segment: whose it is and where it lies in the log.
//!
//! It carries nothing that the chain needs: a damaged one loses nothing (G5). It exposes files of
//! another database, files cut short, and files of a newer format.

use lockstone_base::Lsn;
use lockstone_base::limits::BLOCK_BYTES;
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header takes a whole block, so that frames start on one.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = BLOCK_BYTES as u64;
/// The newest segment format that this code reads, and the one it writes.
pub(crate) const SEGMENT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"LKSTNwal";

/// What makes a segment this database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentStamp {
    pub(crate) uuid: u128,
    pub(crate) salt: u64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SegmentHeader {
    magic: [u8; 8],
    version: U32,
    unused: U32,
    base: U64,
    bytes: U64,
    uuid: U128,
    salt_check: U64,
    unused_too: U32,
    crc: U32,
}

const _: () = assert!(size_of::<SegmentHeader>() == 64);

impl SegmentHeader {
    /// The header of the segment of `bytes` bytes at `base`.
    pub(crate) fn new(base: Lsn, bytes: u64, stamp: SegmentStamp) -> Self {
        let mut header = Self {
            magic: MAGIC,
            version: SEGMENT_VERSION.into(),
            unused: 0.into(),
            base: base.get().into(),
            bytes: bytes.into(),
            uuid: stamp.uuid.into(),
            salt_check: salt_check(stamp.salt).into(),
            unused_too: 0.into(),
            crc: 0.into(),
        };
        header.crc = header.computed_crc().into();
        header
    }

    /// The header at the start of `block`, if it is an intact one.
    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        (header.magic == MAGIC && header.crc.get() == header.computed_crc()).then_some(header)
    }

    /// Writes it to the start of `block`.
    pub(crate) fn encode_into(&self, block: &mut [u8]) {
        self.write_to_prefix(block)
            .expect("a block is longer than the segment header");
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.get()
    }

    pub(crate) fn base(&self) -> Lsn {
        Lsn::new(self.base.get())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether it was written under `salt`.
    pub(crate) fn is_of_salt(&self, salt: u64) -> bool {
        self.salt_check.get() == salt_check(salt)
    }

    fn computed_crc(&self) -> u32 {
        let (covered, _) = self
            .as_bytes()
            .split_at(size_of::<Self>() - size_of::<U32>());
        crc32fast::hash(covered)
    }
}

/// Tells salts apart without showing them: two rounds of a 64-bit mixer, xor-folded onto the input.
fn salt_check(salt: u64) -> u64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    mix(mix(salt.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: SegmentStamp = SegmentStamp {
        uuid: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        salt: 0x1234_5678_9abc_def0,
    };

    #[test]
    fn a_header_round_trips() {
        let mut block = [0; BLOCK_BYTES];
        SegmentHeader::new(Lsn::new(1 << 26), 1 << 26, STAMP).encode_into(&mut block);
        let header = SegmentHeader::decode(&block).unwrap();
        assert_eq!(header.base(), Lsn::new(1 << 26));
        assert_eq!(header.bytes(), 1 << 26);
        assert_eq!(header.uuid.get(), STAMP.uuid);
        assert_eq!(header.version(), SEGMENT_VERSION);
        assert!(header.is_of_salt(STAMP.salt) && !header.is_of_salt(STAMP.salt + 1));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut block = [0; 64];
        SegmentHeader::new(Lsn::ZERO, 1 << 18, STAMP).encode_into(&mut block);
        for byte in 0..block.len() {
            for bit in 0..8 {
                block[byte] ^= 1 << bit;
                assert!(
                    SegmentHeader::decode(&block).is_none(),
                    "byte {byte} bit {bit}"
                );
                block[byte] ^= 1 << bit;
            }
        }
        assert!(SegmentHeader::decode(&block[..63]).is_none());
        assert!(SegmentHeader::decode(&[0; 64]).is_none());
    }

    #[test]
    fn golden_bytes() {
        let mut block = [0; 64];
        SegmentHeader::new(Lsn::new(0x40000), 0x40000, STAMP).encode_into(&mut block);
        let golden = include_bytes!("../../testdata/segment_header.golden");
        assert_eq!(
            &block, golden,
            "changing the format needs docs/format.md changed too"
        );
    }
}
