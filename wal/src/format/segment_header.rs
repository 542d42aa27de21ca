//! The first block of a segment: whose it is and where it lies in the log.
//!
//! It carries nothing that the chain needs: a damaged one loses nothing (G5). It exposes files of
//! another database, files cut short, and files of a newer format; and it names its neighbours, so that a
//! missing file is noticed though every frame that would testify to it went with it (F14).

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

/// Where a segment lies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentPlace {
    pub(crate) base: Lsn,
    pub(crate) bytes: u64,
    /// The base of the segment that was the highest before it.
    pub(crate) below: Option<Lsn>,
    /// The base of the segment that was readied behind it.
    pub(crate) above: Option<Lsn>,
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
    below: U64,
    above: U64,
    unused_too: U32,
    crc: U32,
}

const _: () = assert!(size_of::<SegmentHeader>() == 80);

impl SegmentHeader {
    /// The header of the segment at `place`. No segment lies below itself, nor above one at 0: that is
    /// how it says that there is none.
    pub(crate) fn new(place: SegmentPlace, stamp: SegmentStamp) -> Self {
        let mut header = Self {
            magic: MAGIC,
            version: SEGMENT_VERSION.into(),
            unused: 0.into(),
            base: place.base.get().into(),
            bytes: place.bytes.into(),
            uuid: stamp.uuid.into(),
            salt_check: salt_check(stamp.salt).into(),
            below: place.below.unwrap_or(place.base).get().into(),
            above: place.above.unwrap_or_default().get().into(),
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

    pub(crate) fn place(&self) -> SegmentPlace {
        let (below, above) = (self.below.get(), self.above.get());
        SegmentPlace {
            base: Lsn::new(self.base.get()),
            bytes: self.bytes.get(),
            below: (below != self.base.get()).then_some(Lsn::new(below)),
            above: (above != 0).then_some(Lsn::new(above)),
        }
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

    const PLACE: SegmentPlace = SegmentPlace {
        base: Lsn::new(0x40000),
        bytes: 0x40000,
        below: Some(Lsn::ZERO),
        above: Some(Lsn::new(0x80000)),
    };

    fn encoded(place: SegmentPlace) -> [u8; 80] {
        let mut block = [0; 80];
        SegmentHeader::new(place, STAMP).encode_into(&mut block);
        block
    }

    #[test]
    fn a_header_round_trips() {
        let alone = SegmentPlace {
            base: Lsn::ZERO,
            below: None,
            above: None,
            ..PLACE
        };
        for place in [PLACE, alone] {
            let header = SegmentHeader::decode(&encoded(place)).unwrap();
            assert_eq!(header.place(), place);
            assert_eq!(header.uuid.get(), STAMP.uuid);
            assert_eq!(header.version(), SEGMENT_VERSION);
            assert!(header.is_of_salt(STAMP.salt) && !header.is_of_salt(STAMP.salt + 1));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut block = encoded(PLACE);
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
        assert!(SegmentHeader::decode(&block[..79]).is_none());
        assert!(SegmentHeader::decode(&[0; 80]).is_none());
    }

    #[test]
    fn golden_bytes() {
        let golden = include_bytes!("../../testdata/segment_header.golden");
        assert_eq!(
            &encoded(PLACE),
            golden,
            "changing the format needs docs/format.md changed too"
        );
    }
}
