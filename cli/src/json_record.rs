//! A record as a line of JSON with the field names of `kcat -J`, written piece by piece: nothing is allocated a
//! record.
//!
//! What is not UTF-8 cannot stand in JSON as it is: key or payload is then null, and `key_base64` or
//! `payload_base64` beside it has the bytes; a header's value is an object, `{"base64": ".."}`.

use std::io::{self, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use edgelog::Record;
use edgelog::edgelog_core::TimestampType;
use serde::{Serialize, Serializer};

/// Bytes in base64, as a JSON text that is never whole in memory.
pub(crate) struct Base64<'a>(pub(crate) &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// Writes the record and a newline.
pub(crate) fn write(
    out: &mut impl Write,
    topic: &str,
    partition: u32,
    record: &Record<'_>,
    kind: TimestampType,
) -> io::Result<()> {
    out.write_all(b"{\"topic\":")?;
    serde_json::to_writer(&mut *out, topic)?;
    let (offset, timestamp) = (record.offset, record.timestamp);
    // As `kcat -J` names them.
    let kind = match kind {
        TimestampType::CreateTime => "create",
        TimestampType::LogAppendTime => "logappend",
    };
    write!(out, ",\"partition\":{partition},\"offset\":{offset},\"tstype\":\"{kind}\",\"ts\":{timestamp}")?;
    write_headers(out, record)?;
    write_field(out, "key", record.key)?;
    write_field(out, "payload", record.value)?;
    out.write_all(b"}\n")
}

fn write_headers(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let mut before: &[u8] = b",\"headers\":[";
    let mut any = false;
    for header in record.headers() {
        out.write_all(before)?;
        write_bytes(out, Some(header.key))?;
        out.write_all(b",")?;
        write_bytes(out, header.value)?;
        (before, any) = (b",", true);
    }
    if any { out.write_all(b"]") } else { Ok(()) }
}

fn write_field(out: &mut impl Write, name: &str, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => write!(out, ",\"{name}\":null"),
        Some((_, Ok(text))) => {
            write!(out, ",\"{name}\":")?;
            Ok(serde_json::to_writer(out, text)?)
        }
        Some((bytes, Err(_))) => {
            write!(out, ",\"{name}\":null,\"{name}_base64\":\"{}\"", Base64Display::new(bytes, &STANDARD))
        }
    }
}

fn write_bytes(out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.write_all(b"null"),
        Some((_, Ok(text))) => Ok(serde_json::to_writer(out, text)?),
        Some((bytes, Err(_))) => write!(out, "{{\"base64\":\"{}\"}}", Base64Display::new(bytes, &STANDARD)),
    }
}
