//! Checksums that know where their bytes belong.
//!
//! Used by the run and manifest formats.
//! 1. A section's checksum covers the database's salt, the file's number, the kind of section and its
//!    number: a section that is read from the wrong place, file or database does not fit (F12, F14).
//! 2. It is CRC-32 (IEEE): it finds accidents, not attackers.

use crate::error::Section;

/// Where a section belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The database's salt.
    pub(crate) salt: u64,
    /// The run's number or the manifest's generation.
    pub(crate) file: u64,
    /// The kind of section.
    pub(crate) section: Section,
    /// The block's number; 0 for sections of which there is one.
    pub(crate) number: u64,
}

impl Place {
    /// The checksum of `parts`, one after the other, at this place.
    pub(crate) fn checksum(&self, parts: &[&[u8]]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&self.file.to_le_bytes());
        hasher.update(&tag(self.section).to_le_bytes());
        hasher.update(&self.number.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// The section's number in checksums. Part of the format: never reused.
const fn tag(section: Section) -> u32 {
    match section {
        Section::Head => 1,
        Section::Block => 2,
        Section::Filter => 3,
        Section::Index => 4,
        Section::Footer => 5,
        Section::Manifest => 6,
        Section::Summary => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_place_changes_the_checksum() {
        let here = Place {
            salt: 1,
            file: 2,
            section: Section::Block,
            number: 3,
        };
        let sum = here.checksum(&[b"bytes"]);
        assert_eq!(sum, here.checksum(&[b"by", b"tes"]));
        for other in [
            Place { salt: 9, ..here },
            Place { file: 9, ..here },
            Place { number: 9, ..here },
            Place {
                section: Section::Index,
                ..here
            },
        ] {
            assert_ne!(sum, other.checksum(&[b"bytes"]), "{other:?}");
        }
    }
}
