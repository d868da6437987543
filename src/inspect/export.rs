//! Taking logs elsewhere: as a partition directory for a broker, or record by record.

/// The sixteen bytes of an id as Kafka writes it: 22 characters of base64url without padding.
pub(super) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    for (n, byte) in text.bytes().enumerate() {
        let six = DIGITS.iter().position(|&digit| digit == byte)? as u128;
        // The last digit carries two bits of the 128, and four that are zero.
        bits = if n < 21 { bits << 6 | six } else { bits << 2 | six >> 4 };
    }
    (bits != 0).then(|| bits.to_be_bytes())
}
