//! Variable-length integers: zigzag, then seven bits a byte, lowest first; the top bit says that more follow.
//!
//! | value | zigzag | bytes |
//! |---|---|---|
//! | 0 | 0 | `00` |
//! | -1 | 1 | `01` |
//! | 63 | 126 | `7e` |
//! | 64 | 128 | `80 01` |
//! | `i32::MIN` | 2^32-1 | `ff ff ff ff 0f` |
//!
//! An `i32` takes 1 to 5 bytes, an `i64` 1 to 10. Decoding accepts exactly what Kafka's `ByteUtils` accepts:
//! padded forms too, and bits above the integer's width are dropped, because a batch that a broker reads must
//! not be damage here.

/// The most bytes that an `i32` takes.
pub const VARINT_LEN_MAX: usize = 5;
/// The most bytes that an `i64` takes.
pub const VARLONG_LEN_MAX: usize = 10;

/// Decodes the `i32` at `bytes[at..]`: the value, and the place behind it. `None` where it does not end
/// within five bytes or within `bytes`.
#[inline]
pub fn decode_varint(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    let mut rest = bytes.get(at..)?;
    let value = take_varint(&mut rest)?;
    Some((value, bytes.len() - rest.len()))
}

/// Decodes the `i64` at `bytes[at..]`: the value, and the place behind it. `None` where it does not end
/// within ten bytes or within `bytes`.
#[inline]
pub fn decode_varlong(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut rest = bytes.get(at..)?;
    let value = take_varlong(&mut rest)?;
    Some((value, bytes.len() - rest.len()))
}

/// Writes `value` to the front of `out` and returns how many bytes that took; `None`, with nothing written,
/// where `out` is too short.
#[inline]
pub fn encode_varint(value: i32, out: &mut [u8]) -> Option<usize> {
    put(u64::from(zigzag32(value)), varint_len(value), out)
}

/// Writes `value` to the front of `out` and returns how many bytes that took; `None`, with nothing written,
/// where `out` is too short.
#[inline]
pub fn encode_varlong(value: i64, out: &mut [u8]) -> Option<usize> {
    put(zigzag64(value), varlong_len(value), out)
}

/// How many bytes `value` takes, 1 to 5.
#[inline]
pub const fn varint_len(value: i32) -> usize {
    // Seven bits a byte: ceil(bits / 7) without a division; | 1 because zero takes a byte as well.
    let bits = 32 - (zigzag32(value) | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// How many bytes `value` takes, 1 to 10.
#[inline]
pub const fn varlong_len(value: i64) -> usize {
    let bits = 64 - (zigzag64(value) | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Takes an `i32` off the front of `rest`; leaves `rest` as it was on `None`.
#[inline(always)]
#[allow(clippy::inline_always)] // Seven calls a record: the call would cost more than the work.
pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<i32> {
    match **rest {
        [a, ref tail @ ..] if a < 0x80 => {
            *rest = tail;
            Some(unzigzag32(u32::from(a)))
        }
        [a, b, ref tail @ ..] if b < 0x80 => {
            *rest = tail;
            Some(unzigzag32(u32::from(a & 0x7f) | u32::from(b) << 7))
        }
        _ => {
            let (value, tail) = long_varint(rest)?;
            *rest = tail;
            Some(value)
        }
    }
}

/// Takes an `i64` off the front of `rest`; leaves `rest` as it was on `None`.
#[inline(always)]
#[allow(clippy::inline_always)] // As above.
pub(crate) fn take_varlong(rest: &mut &[u8]) -> Option<i64> {
    match **rest {
        [a, ref tail @ ..] if a < 0x80 => {
            *rest = tail;
            Some(unzigzag64(u64::from(a)))
        }
        [a, b, ref tail @ ..] if b < 0x80 => {
            *rest = tail;
            Some(unzigzag64(u64::from(a & 0x7f) | u64::from(b) << 7))
        }
        _ => {
            let (value, tail) = long_varlong(rest)?;
            *rest = tail;
            Some(value)
        }
    }
}

// Three bytes and more stay out of line, so that the callers stay small. These take and give slices by value:
// a reference to the caller's slice would keep that in memory, also where the call is never made.

#[inline(never)]
fn long_varint(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let mut value = 0_u32;
    for (index, &byte) in bytes.iter().take(VARINT_LEN_MAX).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((unzigzag32(value), bytes.get(index + 1..)?));
        }
    }
    None
}

#[inline(never)]
fn long_varlong(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(VARLONG_LEN_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((unzigzag64(value), bytes.get(index + 1..)?));
        }
    }
    None
}

#[inline]
fn put(mut value: u64, len: usize, out: &mut [u8]) -> Option<usize> {
    let (last, more) = out.get_mut(..len)?.split_last_mut()?;
    for byte in more {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    *last = value as u8;
    Some(len)
}

#[inline]
const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
const fn unzigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline]
const fn unzigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The definition, one bit at a time: the oracle for the lengths and the shifts.
    fn naive(value: i64) -> Vec<u8> {
        let mut zigzag = if value < 0 { (-(i128::from(value)) * 2 - 1) as u64 } else { (i128::from(value) * 2) as u64 };
        let mut bytes = Vec::new();
        loop {
            let low = (zigzag % 128) as u8;
            zigzag /= 128;
            if zigzag == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low + 128);
        }
    }

    #[test]
    fn the_table_of_the_head_holds() {
        let vectors: [(i32, &[u8]); 8] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in vectors {
            let mut out = [0; 5];
            let len = encode_varint(value, &mut out).unwrap();
            assert_eq!(&out[..len], bytes);
            assert_eq!(decode_varint(bytes, 0), Some((value, len)));
        }
    }

    #[test]
    fn every_length_changes_where_the_definition_says() {
        for bit in 0..64 {
            for value in [(1_i64 << bit).wrapping_sub(1), 1 << bit, (-1_i64) << bit, ((-1_i64) << bit).wrapping_sub(1)]
            {
                assert_eq!(varlong_len(value), naive(value).len(), "{value}");
                if let Ok(value) = i32::try_from(value) {
                    assert_eq!(varint_len(value), naive(i64::from(value)).len(), "{value}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_end_is_refused() {
        assert_eq!(decode_varint(&[], 0), None);
        assert_eq!(decode_varint(&[0], 2), None);
        assert_eq!(decode_varint(&[0x80], 0), None);
        assert_eq!(decode_varint(&[0x80; 5], 0), None);
        assert_eq!(decode_varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 0), None);
        assert_eq!(decode_varlong(&[0xff; 10], 0), None);
        assert_eq!(encode_varint(64, &mut [0]), None);
    }

    #[test]
    fn padded_forms_and_spare_bits_read_as_java_reads_them() {
        assert_eq!(decode_varint(&[0x80, 0x00], 0), Some((0, 2)));
        assert_eq!(decode_varint(&[0xff, 0xff, 0xff, 0xff, 0x7f], 0), Some((i32::MIN, 5)));
    }

    proptest! {
        #[test]
        fn varlong_is_the_definition(value: i64, lead in 0_usize..4) {
            let mut out = [0xaa_u8; 16];
            let len = encode_varlong(value, &mut out[lead..]).unwrap();
            prop_assert_eq!(&out[lead..lead + len], &naive(value)[..]);
            prop_assert_eq!(len, varlong_len(value));
            prop_assert_eq!(decode_varlong(&out, lead), Some((value, lead + len)));
        }

        #[test]
        fn varint_is_the_definition(value: i32) {
            let mut out = [0xaa_u8; 5];
            let len = encode_varint(value, &mut out).unwrap();
            prop_assert_eq!(&out[..len], &naive(i64::from(value))[..]);
            prop_assert_eq!(len, varint_len(value));
            prop_assert_eq!(decode_varint(&out, 0), Some((value, len)));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12), at in 0_usize..14) {
            if let Some((_, end)) = decode_varint(&bytes, at) {
                prop_assert!(end > at && end <= bytes.len() && end - at <= VARINT_LEN_MAX);
            }
            if let Some((_, end)) = decode_varlong(&bytes, at) {
                prop_assert!(end > at && end <= bytes.len() && end - at <= VARLONG_LEN_MAX);
            }
        }
    }
}
