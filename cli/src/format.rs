//! Lines of `tail -f FORMAT`, with kcat's tokens.

use std::io::{self, Write};

use edgelog::{Record, TopicPartition};

use crate::input::unescape;

/// What stands for null where it is asked for, as kcat writes it.
pub(crate) const NULL: &[u8] = b"NULL";

/// A format, read once.
#[derive(Debug, Clone)]
pub(crate) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLen,
    Value,
    ValueLen,
    /// Four bytes, the highest first.
    ValueLenBytes,
    Timestamp,
    Headers,
}

/// Reads a format such as `%t-%p %o: %s\n`.
pub(crate) fn parse_format(text: &str) -> Result<Format, String> {
    let bytes = unescape(text)?;
    let (mut pieces, mut plain) = (Vec::new(), Vec::new());
    let mut rest = bytes.as_slice();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            plain.push(*first);
            continue;
        }
        let piece = match rest.first() {
            Some(b'%') => {
                plain.push(b'%');
                rest = &rest[1..];
                continue;
            }
            Some(b't') => Piece::Topic,
            Some(b'p') => Piece::Partition,
            Some(b'o') => Piece::Offset,
            Some(b'k') => Piece::Key,
            Some(b'K') => Piece::KeyLen,
            Some(b's') => Piece::Value,
            Some(b'S') => Piece::ValueLen,
            Some(b'R') => Piece::ValueLenBytes,
            Some(b'T') => Piece::Timestamp,
            Some(b'h') => Piece::Headers,
            _ => return Err("% stands before one of t p o k K s S R T h, or another %".to_owned()),
        };
        rest = &rest[1..];
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Format(pieces))
}

impl Format {
    /// Writes the record. `null` stands for a key or value that is null.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        name: &TopicPartition,
        record: &Record<'_>,
        null: &[u8],
    ) -> io::Result<()> {
        let len = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(name.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", name.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Key => out.write_all(record.key.unwrap_or(null))?,
                Piece::KeyLen => write!(out, "{}", len(record.key))?,
                Piece::Value => out.write_all(record.value.unwrap_or(null))?,
                Piece::ValueLen => write!(out, "{}", len(record.value))?,
                Piece::ValueLenBytes => out.write_all(&(len(record.value) as i32).to_be_bytes())?,
                Piece::Timestamp => write!(out, "{}", record.timestamp)?,
                Piece::Headers => {
                    for (n, header) in record.headers().enumerate() {
                        out.write_all(if n == 0 { b"" } else { b"," })?;
                        out.write_all(header.key)?;
                        out.write_all(b"=")?;
                        out.write_all(header.value.unwrap_or(NULL))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_read_as_kcats() {
        let pieces = parse_format(r"%t-%p\t100%% %s\n").unwrap().0;
        let text = |text: &str| Piece::Text(text.as_bytes().to_vec());
        assert_eq!(pieces, [Piece::Topic, text("-"), Piece::Partition, text("\t100% "), Piece::Value, text("\n")]);
        for wrong in ["%", "%x", r"\q", "a%"] {
            assert!(parse_format(wrong).is_err(), "{wrong}");
        }
    }
}
