//! The identity of a log: 128 random bits, made with the log and never changed.
//!
//! As text it is Kafka's `Uuid`: 22 characters of base64url without padding, as in `partition.metadata`. In our own
//! files and in the bridge's metadata it is 32 hexadecimal digits.

use core::fmt;
use core::str::FromStr;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters of base64url that 128 bits make.
const DIGITS_LEN: usize = 22;

/// The identity of a log. [`Display`](fmt::Display) and [`FromStr`] are Kafka's form, `{:x}` and
/// [`from_hex`](LogId::from_hex) the hexadecimal one.
///
/// ```
/// use edgelog_core::LogId;
///
/// let id = LogId::from_bytes([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]);
/// assert_eq!(id.to_string(), "AAAAAAAAQACAAAAAAAAAAQ");
/// assert_eq!("AAAAAAAAQACAAAAAAAAAAQ".parse(), Ok(id));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId([u8; 16]);

/// Text that is no log identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLogId;

impl fmt::Display for InvalidLogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log identity is 22 characters of base64url")
    }
}

impl core::error::Error for InvalidLogId {}

impl LogId {
    /// No log's identity: all zeros, which Kafka reserves.
    pub const ZERO: LogId = LogId([0; 16]);

    /// The identity of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> LogId {
        LogId(bytes)
    }

    /// An identity of 128 random bits: six of them are set so that it is a UUID of version 4, as Kafka's topic ids are.
    pub const fn from_random(mut bytes: [u8; 16]) -> LogId {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        LogId(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Reads 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<LogId> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = is_hex.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(LogId(bits.to_be_bytes()))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; DIGITS_LEN];
        for (n, digit) in text.iter_mut().enumerate() {
            // The last digit carries two bits of the 128, and four zeros.
            let six = if n < 21 { bits >> (122 - 6 * n) } else { bits << 4 };
            *digit = DIGITS[(six & 63) as usize];
        }
        f.pad(core::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::LowerHex for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for LogId {
    type Err = InvalidLogId;

    fn from_str(text: &str) -> Result<LogId, InvalidLogId> {
        if text.len() != DIGITS_LEN {
            return Err(InvalidLogId);
        }
        let mut bits: u128 = 0;
        for (n, byte) in text.bytes().enumerate() {
            let six = DIGITS.iter().position(|&digit| digit == byte).ok_or(InvalidLogId)? as u128;
            bits = if n < 21 { bits << 6 | six } else { bits << 2 | six >> 4 };
        }
        Ok(LogId(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;

    #[test]
    fn ids_are_written_and_read_as_kafka_does() {
        for (bytes, text) in [
            ([0xff; 16], "_____________________w"),
            ([0; 16], "AAAAAAAAAAAAAAAAAAAAAA"),
            ([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1], "AAAAAAAAQACAAAAAAAAAAQ"),
        ] {
            let id = LogId::from_bytes(bytes);
            assert_eq!((id.to_string().as_str(), text.parse()), (text, Ok(id)));
            let hex = format!("{id:x}");
            assert_eq!((hex.len(), LogId::from_hex(&hex)), (32, Some(id)));
        }
        for bad in ["", "AAAAAAAAQACAAAAAAAAAA=", "AAAAAAAAQACAAAAAAAAAAQ1", "AAAAAAAAQACAAAAAAAAA\u{e9}"] {
            assert_eq!(bad.parse::<LogId>(), Err(InvalidLogId), "{bad}");
        }
        for bad in ["", "+0000000000000000000000000000000", "0000000000000000000000000000000g", "00"] {
            assert_eq!(LogId::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_random_id_is_a_uuid_of_version_4() {
        let id = LogId::from_random([0xff; 16]).to_bytes();
        assert_eq!((id[6], id[8]), (0x4f, 0xbf));
    }
}
