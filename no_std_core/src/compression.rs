//! The codecs that a batch's attributes can name. The codecs themselves live upstairs: they need an
//! allocator.
//!
//! | id | name | payload |
//! |---|---|---|
//! | 0 | none | the records |
//! | 1 | gzip | one gzip member |
//! | 2 | snappy | xerial stream, or one raw block |
//! | 3 | lz4 | one LZ4 frame |
//! | 4 | zstd | one zstd frame |

use core::fmt;
use core::str::FromStr;

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum CompressionType {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// snappy, in xerial's framing (read also raw).
    Snappy = 2,
    /// LZ4 frame.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl CompressionType {
    /// All of them, by id.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number, or `None` for 5 and up.
    #[inline]
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// Its number in a batch's attributes, 0 to 4.
    #[inline]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Its name as Kafka's producers spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec with this name (`uncompressed`, as topics spell it, is `none`).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "uncompressed" {
            return Some(Self::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CompressionType {
    type Err = ParseCompressionTypeError;

    fn from_str(name: &str) -> Result<Self, ParseCompressionTypeError> {
        Self::from_name(name).ok_or(ParseCompressionTypeError)
    }
}

/// A name that is no codec's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseCompressionTypeError;

impl fmt::Display for ParseCompressionTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected none, gzip, snappy, lz4 or zstd")
    }
}

impl core::error::Error for ParseCompressionTypeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_go_round() {
        for codec in CompressionType::ALL {
            assert_eq!(CompressionType::from_id(codec.id()), Some(codec));
            assert_eq!(codec.name().parse(), Ok(codec));
        }
        assert!((5..=255).all(|id| CompressionType::from_id(id).is_none()));
        assert_eq!(CompressionType::from_name("uncompressed"), Some(CompressionType::None));
        assert!("Snappy".parse::<CompressionType>().is_err());
    }
}
