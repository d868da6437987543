//! A record as a line of JSON with the field names of `kcat -J`, written piece by piece: nothing is allocated a
//! record.
//!
//! What is not UTF-8 cannot stand in JSON as it is: key or payload is then null, and `key_base64` or
//! `payload_base64` has the bytes. A header's value is then an object, `{"base64": ".."}`.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use edgelog::Record;
use edgelog::edgelog_core::TimestampType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// A record that was read from such a line. The kind of its timestamp is left out: the topic that it goes into has one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    pub(crate) topic: Option<Cow<'a, str>>,
    pub(crate) partition: Option<u32>,
    /// Where it stood; the log that it goes into gives it one of its own.
    pub(crate) offset: Option<i64>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<Cow<'a, [u8]>>,
    pub(crate) value: Option<Cow<'a, [u8]>>,
    pub(crate) headers: Vec<HeaderBytes<'a>>,
}

/// A field that says nothing is another thing than one that says null: a payload that is misspelt is no tombstone.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field<'a>, D::Error> {
        let text: Option<Text<'a>> = Option::deserialize(deserializer)?;
        Ok(text.map_or(Field::Null, |text| Field::Text(text.0)))
    }
}

/// Borrowed from the line where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderPart<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Bytes(InBase64<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InBase64<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default)]
    topic: Option<Text<'a>>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    offset: Option<i64>,
    #[serde(default, rename = "tstype")]
    _tstype: serde::de::IgnoredAny,
    /// kcat's own: the number of the broker that it read from.
    #[serde(default, rename = "broker")]
    _broker: serde::de::IgnoredAny,
    #[serde(default)]
    ts: Option<i64>,
    #[serde(borrow, default)]
    headers: Option<Vec<Option<HeaderPart<'a>>>>,
    #[serde(borrow, default)]
    key: Field<'a>,
    #[serde(borrow, default)]
    key_base64: Field<'a>,
    #[serde(borrow, default)]
    payload: Field<'a>,
    #[serde(borrow, default)]
    payload_base64: Field<'a>,
}

/// Reads what [`write`] wrote, and what `kcat -J` writes. The error says what is wrong with the line.
pub(crate) fn parse(line: &[u8]) -> Result<Parsed<'_>, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if matches!((&line.payload, &line.payload_base64), (Field::Absent, Field::Absent)) {
        return Err("it has no payload (null is a tombstone)".to_owned());
    }
    Ok(Parsed {
        topic: line.topic.map(|topic| topic.0),
        partition: line.partition,
        offset: line.offset,
        timestamp: line.ts,
        key: bytes_of("key", line.key, line.key_base64)?,
        value: bytes_of("payload", line.payload, line.payload_base64)?,
        headers: headers_of(line.headers.unwrap_or_default())?,
    })
}

fn bytes_of<'a>(name: &str, text: Field<'a>, base64: Field<'a>) -> Result<Option<Cow<'a, [u8]>>, String> {
    match (text, base64) {
        (Field::Text(_), Field::Text(_)) => Err(format!("it has {name} and {name}_base64")),
        (Field::Text(text), _) => Ok(Some(as_bytes(text))),
        (_, Field::Text(text)) => decoded(&text).map(Some).map_err(|error| format!("{name}_base64: {error}")),
        _ => Ok(None),
    }
}

fn as_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Bytes from their base64.
pub(crate) fn decoded<'a>(text: &str) -> Result<Cow<'a, [u8]>, String> {
    STANDARD.decode(text).map(Cow::Owned).map_err(|error| format!("no base64: {error}"))
}

/// A header's name and value.
pub(crate) type HeaderBytes<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

fn headers_of(parts: Vec<Option<HeaderPart<'_>>>) -> Result<Vec<HeaderBytes<'_>>, String> {
    if parts.len() % 2 != 0 {
        return Err(format!("headers has {} parts, and not as many names as values", parts.len()));
    }
    let bytes = |part: HeaderPart<'_>| match part {
        HeaderPart::Text(text) => Ok(Cow::Owned(as_bytes(text).into_owned())),
        HeaderPart::Bytes(bytes) => decoded(&bytes.base64),
    };
    let mut headers = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let name = name.ok_or("a header's name is null")?;
        headers.push((bytes(name)?, value.map(bytes).transpose()?));
    }
    Ok(headers)
}

/// Reads headers alone: the array `[name, value, name, value]`.
pub(crate) fn parse_headers(text: &[u8]) -> Result<Vec<HeaderBytes<'_>>, String> {
    headers_of(serde_json::from_slice(text).map_err(|error| error.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_refused_with_its_reason() {
        for (line, reason) in [
            ("{}", "no payload"),
            (r#"{"value":"x"}"#, "unknown field `value`"),
            (r#"{"payload":{"a":1}}"#, "expected a string"),
            (r#"{"payload":"x","payload_base64":"eA=="}"#, "payload and payload_base64"),
            (r#"{"payload":null,"key_base64":"!"}"#, "key_base64: no base64"),
            (r#"{"payload":"x","headers":["a"]}"#, "1 parts"),
            (r#"{"payload":"x","headers":[null,"a"]}"#, "name is null"),
            (r#"{"payload":"x","partition":-1}"#, "expected u32"),
            (r#"{"payload":"x"} {"#, "trailing"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn null_is_no_empty_text_and_bytes_come_back() {
        let parsed =
            parse(br#"{"payload":null,"payload_base64":"/wA=","key":"","headers":["a",null,{"base64":"/w=="},""]}"#);
        let parsed = parsed.unwrap();
        assert_eq!((parsed.key.as_deref(), parsed.value.as_deref()), (Some(&b""[..]), Some(&[0xff, 0][..])));
        let headers: Vec<_> = parsed.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(headers, [(&b"a"[..], None), (&[0xff][..], Some(&b""[..]))]);
        assert_eq!(parse(br#"{"payload":null}"#).unwrap().value, None);
    }
}
