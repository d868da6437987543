//! Messages of formats 0 and 1, which Kafka wrote before 0.11: recognised, so that they can be named, and not read.
//!
//! | byte | type | field | notes |
//! |---|---|---|---|
//! | 0 | i64 | offset | of the last message inside, where it is a compressed set |
//! | 8 | i32 | message size | of what follows |
//! | 12 | u32 | crc | CRC-32 of byte 16 to the end |
//! | 16 | i8 | magic | 0 or 1; a record batch has its magic here too |
//! | 17 | i8 | attributes | bits 0-2 codec; 3 timestamp type (format 1) |
//! | 18 | i64 | timestamp | format 1 alone |
//! | | i32 | key length | -1: null; the key follows |
//! | | i32 | value length | -1: null; the value follows |
//!
//! All big-endian. The lengths have to add up to the message size: a record batch whose magic byte is damaged does not
//! pass for an old message. Source: Kafka's `LegacyRecord`.

use crate::error::DecodeError;
use crate::units::Offset;

/// The size field ends here; the size is that of what follows.
const SIZE_END: usize = 12;

/// A message of format 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldMessage {
    /// Its format, 0 or 1.
    pub magic: i8,
    /// Its offset; of a compressed set, that of the last message inside.
    pub offset: Offset,
    /// Its size in bytes, with the offset and the size field.
    pub size: usize,
}

impl OldMessage {
    /// The message of format 0 or 1 that `bytes` begin with; `None` where they begin with anything else.
    ///
    /// `bytes` have to reach the length of the value: the lengths have to add up to the message's size, so that neither
    /// noise nor a batch that is read from the wrong byte passes for a message. The CRC is not computed.
    pub fn peek(bytes: &[u8]) -> Option<OldMessage> {
        const CODEC_MAX: u8 = 3;
        const ATTRIBUTE_CODEC: u8 = 0x07;
        let &[magic, attributes] = bytes.get(16..)?.first_chunk()?;
        let (key_at, attributes_known) = match magic {
            0 => (18, ATTRIBUTE_CODEC),
            1 => (26, ATTRIBUTE_CODEC | 0x08),
            _ => return None,
        };
        let offset = Offset(i64::from_be_bytes(*bytes.first_chunk()?));
        let size = SIZE_END.checked_add(length_at(bytes, 8)?)?;
        let holds = offset >= 0 && attributes & !attributes_known == 0 && attributes & ATTRIBUTE_CODEC <= CODEC_MAX;
        let value_at = length_at(bytes, key_at)?.checked_add(key_at + 4)?;
        let adds_up = length_at(bytes, value_at)?.checked_add(value_at + 4) == Some(size);
        (holds && adds_up).then_some(OldMessage { magic: magic as i8, offset, size })
    }

    /// The error that names the old format where `bytes` begin with such a message; else `error`.
    #[cold]
    pub(crate) fn named_or(bytes: &[u8], error: DecodeError) -> DecodeError {
        OldMessage::peek(bytes).map_or(error, |message| DecodeError::OldFormat { magic: message.magic })
    }
}

/// The length field at `at`, where -1 (null) counts as nothing; `None` where it is out of sight or negative otherwise.
fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    match i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) {
        -1 => Some(0),
        length => usize::try_from(length).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{HEADER_LEN, RecordBatch};
    use crate::record_batch_builder::RecordBatchBuilder;
    use crate::segment_scan::{ScanRules, ScanStep, scan_step};
    use crate::units::TimestampMs;
    use std::vec;
    use std::vec::Vec;

    fn message(magic: i8, offset: Offset, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![0xde, 0xad, 0xbe, 0xef, magic as u8, 0];
        if magic == 1 {
            body.extend(1_500_000_000_000_i64.to_be_bytes());
        }
        for bytes in [key, value] {
            body.extend(bytes.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
            body.extend(bytes.unwrap_or_default());
        }
        let mut message = offset.0.to_be_bytes().to_vec();
        message.extend((body.len() as i32).to_be_bytes());
        message.extend(body);
        message
    }

    fn rules() -> ScanRules<'static> {
        ScanRules {
            expected_offset: Some(Offset(0)),
            contiguous: true,
            epochs: None,
            batch_bytes_max: usize::MAX,
            check_crc: true,
        }
    }

    #[test]
    fn old_messages_of_any_size_are_named() {
        let long = vec![b'x'; 300];
        for magic in [0, 1] {
            for (key, value) in
                [(None, Some(&b"old"[..])), (Some(&b"k"[..]), None), (Some(&long[..]), Some(&long[..])), (None, None)]
            {
                let bytes = message(magic, Offset(7), key, value);
                let expected = OldMessage { magic, offset: Offset(7), size: bytes.len() };
                // Of a long key no value is seen behind it in the first bytes: then it is not decided.
                let is_long = key.is_some_and(|key| key.len() > HEADER_LEN);
                for seen in [bytes.len(), if is_long { bytes.len() } else { bytes.len().min(HEADER_LEN) }] {
                    assert_eq!(OldMessage::peek(&bytes[..seen]), Some(expected));
                    let error = RecordBatch::parse(&bytes[..seen]).unwrap_err();
                    assert_eq!(error, DecodeError::OldFormat { magic });
                    let step = scan_step(&bytes[..seen], &rules());
                    assert!(matches!(step, ScanStep::Invalid(DecodeError::OldFormat { .. })), "{step:?}");
                }
            }
        }
    }

    #[test]
    fn damage_to_a_batch_does_not_make_it_an_old_message() {
        let mut builder = RecordBatchBuilder::new(vec![0; 1000]);
        for _ in 0..5 {
            builder.append(TimestampMs(1000), Some(b"key"), Some(b"value"), &[]).unwrap();
        }
        let batch = builder.finish().to_vec();
        for magic in [0, 1] {
            let mut damaged = batch.clone();
            damaged[16] = magic;
            assert_eq!(RecordBatch::parse(&damaged).unwrap_err(), DecodeError::BadMagic { given: magic as i8 });
        }
        // Read from the wrong byte, the fields of a batch are others.
        let long = [&batch[..], &batch].concat();
        for at in 0..batch.len() {
            assert_eq!(OldMessage::peek(&long[at..]), None, "byte {at}");
        }
        assert_eq!(OldMessage::peek(&[0; 100]), None);
        for len in 0..18 {
            assert_eq!(OldMessage::peek(&message(0, Offset(0), None, None)[..len]), None);
        }
    }
}
