//! Records within a frame's payload: a 6-byte header, the context, the body.
//!
//! 1. Adjacent records with the same context store it once (G4): the later ones say
//!    [`CONTEXT_SHARED`]. The first record of a frame never does, so a frame can be read alone.
//! 2. Tag 0 is no record, so zeros never parse as one.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The length of a record header.
pub(crate) const RECORD_HEADER_BYTES: usize = 6;
/// The longest context.
pub(crate) const CONTEXT_BYTES_MAX: usize = 64;
/// The context length that says: as the record before.
pub(crate) const CONTEXT_SHARED: u8 = 255;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHeader {
    pub(crate) tag: u8,
    pub(crate) context_len: u8,
    pub(crate) body_len: U32,
}

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);

/// One record of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParsedRecord<'a> {
    /// Its offset in the payload.
    pub(crate) offset: usize,
    pub(crate) tag: u8,
    pub(crate) context: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Why a payload does not parse, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordDamage {
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
}

/// The records of a payload, in order; ends after the first damage.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    offset: usize,
    context: Option<&'a [u8]>,
}

impl<'a> Records<'a> {
    pub(crate) fn of(payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            offset: 0,
            context: None,
        }
    }

    fn parse(&mut self) -> Result<ParsedRecord<'a>, &'static str> {
        let (header, rest) = RecordHeader::read_from_prefix(self.rest)
            .map_err(|_| "the record header reaches past the frame")?;
        if header.tag == 0 {
            return Err("a record has tag 0");
        }
        let (context, rest) = match header.context_len {
            CONTEXT_SHARED => (
                self.context
                    .ok_or("the first record of a frame shares a context")?,
                rest,
            ),
            len if usize::from(len) <= CONTEXT_BYTES_MAX => rest
                .split_at_checked(usize::from(len))
                .ok_or("a record's context reaches past the frame")?,
            _ => return Err("a record's context is too long"),
        };
        let (body, rest) = rest
            .split_at_checked(header.body_len.get() as usize)
            .ok_or("a record's body reaches past the frame")?;
        let offset = self.offset;
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
        self.context = Some(context);
        Ok(ParsedRecord {
            offset,
            tag: header.tag,
            context,
            body,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<ParsedRecord<'a>, RecordDamage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = self.parse().map_err(|what| {
            self.rest = &[];
            RecordDamage {
                offset: self.offset,
                what,
            }
        });
        Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(tag: u8, context_len: u8, context: &[u8], body: &[u8]) -> Vec<u8> {
        let header = RecordHeader {
            tag,
            context_len,
            body_len: (body.len() as u32).into(),
        };
        [header.as_bytes(), context, body].concat()
    }

    #[test]
    fn records_parse_with_their_own_or_the_shared_context() {
        let payload = [
            record(1, 3, b"ctx", b"one"),
            record(2, CONTEXT_SHARED, b"", b""),
            record(3, 0, b"", b"three"),
            record(4, CONTEXT_SHARED, b"", b"four"),
        ]
        .concat();
        let parsed: Vec<_> = Records::of(&payload)
            .map(|record| {
                let record = record.unwrap();
                (record.offset, record.tag, record.context, record.body)
            })
            .collect();
        let expected: Vec<(usize, u8, &[u8], &[u8])> = vec![
            (0, 1, b"ctx", b"one"),
            (12, 2, b"ctx", b""),
            (18, 3, b"", b"three"),
            (29, 4, b"", b"four"),
        ];
        assert_eq!(parsed, expected);
    }

    #[test]
    fn damage_is_named_with_its_place_and_ends_the_iteration() {
        let good = record(1, 1, b"c", b"body");
        for (bad, what) in [
            (vec![0; 6], "a record has tag 0"),
            (vec![1, 0, 0], "the record header reaches past the frame"),
            (
                record(1, 65, &[7; 65], b""),
                "a record's context is too long",
            ),
            (
                vec![1, 9, 0, 0, 0, 0],
                "a record's context reaches past the frame",
            ),
            (
                vec![1, 0, 9, 0, 0, 0, 5],
                "a record's body reaches past the frame",
            ),
        ] {
            let payload = [good.clone(), bad].concat();
            let mut records = Records::of(&payload);
            assert!(records.next().unwrap().is_ok());
            let damage = records.next().unwrap().unwrap_err();
            assert_eq!((damage.offset, damage.what), (good.len(), what));
            assert!(records.next().is_none());
        }
        let first = record(1, CONTEXT_SHARED, b"", b"");
        assert!(Records::of(&first).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn no_byte_string_panics_the_parser(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let read: usize = Records::of(&payload).map_while(Result::ok).map(|record| record.body.len()).sum();
            prop_assert!(read <= payload.len());
        }
    }
}
