//! Rows of comma-separated values (RFC 4180) as `export --format csv` writes them, read again.

use std::borrow::Cow;

use crate::json_record::{Parsed, decoded, parse_headers};

/// Cuts an input into rows at the line feeds that stand outside quotes, wherever the input's chunks end.
#[derive(Default)]
pub(crate) struct Rows {
    /// The beginning of a row whose end has not been read yet.
    begun: Vec<u8>,
    is_quoted: bool,
}

impl Rows {
    /// Hands out every row that ends in `chunk`.
    pub(crate) fn take<E>(&mut self, chunk: &[u8], mut row: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut from = 0;
        for (at, &byte) in chunk.iter().enumerate() {
            match byte {
                // The second quote of a doubled one reverses what the first did.
                b'"' => self.is_quoted = !self.is_quoted,
                b'\n' if !self.is_quoted => {
                    self.begun.extend_from_slice(&chunk[from..at]);
                    from = at + 1;
                    row(&self.begun)?;
                    self.begun.clear();
                }
                _ => {}
            }
        }
        self.begun.extend_from_slice(&chunk[from..]);
        Ok(())
    }

    /// What was read of a row whose end was not.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.begun
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
}

const COLUMNS: [(&str, Column); 6] = [
    ("partition", Column::Partition),
    ("offset", Column::Offset),
    ("timestamp", Column::Timestamp),
    ("key", Column::Key),
    ("value", Column::Value),
    ("headers", Column::Headers),
];

/// What each column of a file holds, as its first row says.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Column>);

impl Columns {
    pub(crate) fn parse(row: &[u8]) -> Result<Columns, String> {
        let known = || COLUMNS.map(|(name, _)| name).join(", ");
        let mut columns = Vec::new();
        for field in fields(row)? {
            let name = String::from_utf8_lossy(&field.bytes).into_owned();
            let column = COLUMNS.iter().find(|(known, _)| *known == name).map(|(_, column)| *column);
            let column = column.ok_or_else(|| format!("no column is named {name:?}: they are {}", known()))?;
            if columns.contains(&column) {
                return Err(format!("two columns are named {name}"));
            }
            columns.push(column);
        }
        if columns.contains(&Column::Value) { Ok(Columns(columns)) } else { Err("no column is named value".to_owned()) }
    }

    /// Reads a row as a record.
    pub(crate) fn record<'a>(&self, row: &'a [u8]) -> Result<Parsed<'a>, String> {
        let (fields, mut record) = (fields(row)?, Parsed::default());
        if fields.len() != self.0.len() {
            return Err(format!("it has {} fields, and the first row has {}", fields.len(), self.0.len()));
        }
        for (field, column) in fields.into_iter().zip(&self.0) {
            match column {
                Column::Partition => record.partition = field.number("partition")?,
                Column::Offset => record.offset = field.number("offset")?,
                Column::Timestamp => record.timestamp = field.number("timestamp")?,
                Column::Key => record.key = field.value().map_err(|error| format!("key: {error}"))?,
                Column::Value => record.value = field.value().map_err(|error| format!("value: {error}"))?,
                Column::Headers if field.bytes.is_empty() => {}
                Column::Headers => {
                    let headers = parse_headers(&field.bytes).map_err(|error| format!("headers: {error}"))?;
                    let owned = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
                    record.headers = headers.into_iter().map(|(name, value)| (owned(name), value.map(owned))).collect();
                }
            }
        }
        Ok(record)
    }
}

struct Field<'a> {
    bytes: Cow<'a, [u8]>,
    is_quoted: bool,
}

impl<'a> Field<'a> {
    /// A key or value: null, bytes in base64, or a text.
    fn value(self) -> Result<Option<Cow<'a, [u8]>>, String> {
        if self.bytes.is_empty() && !self.is_quoted {
            return Ok(None);
        }
        match self.bytes.strip_prefix(b"base64:") {
            Some(base64) => decoded(&String::from_utf8_lossy(base64)).map(Some),
            None => Ok(Some(self.bytes)),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let text = String::from_utf8_lossy(&self.bytes);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| format!("{name}: {text:?} is no such number"))
    }
}

/// The fields of a row, without their quotes.
fn fields(row: &[u8]) -> Result<Vec<Field<'_>>, String> {
    let mut rest = row.strip_suffix(b"\r").unwrap_or(row);
    let mut fields = Vec::new();
    loop {
        let field;
        (field, rest) = if let [b'"', quoted @ ..] = rest {
            quoted_field(quoted)?
        } else {
            let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
            (Field { bytes: Cow::Borrowed(&rest[..end]), is_quoted: false }, &rest[end..])
        };
        fields.push(field);
        match rest {
            [b',', behind @ ..] => rest = behind,
            [] => return Ok(fields),
            _ => return Err(format!("behind the quotes of field {} stands no comma", fields.len())),
        }
    }
}

/// A field whose first quote was read, and what stands behind its last one.
fn quoted_field(quoted: &[u8]) -> Result<(Field<'_>, &[u8]), String> {
    let mut bytes = Cow::Borrowed(&quoted[..0]);
    let mut rest = quoted;
    loop {
        let end = rest.iter().position(|&byte| byte == b'"').ok_or("a quote has no end")?;
        if bytes.is_empty() && matches!(bytes, Cow::Borrowed(_)) {
            bytes = Cow::Borrowed(&rest[..end]);
        } else {
            bytes.to_mut().extend_from_slice(&rest[..end]);
        }
        rest = &rest[end + 1..];
        let [b'"', behind @ ..] = rest else { return Ok((Field { bytes, is_quoted: true }, rest)) };
        bytes.to_mut().push(b'"');
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_outside_quotes_wherever_the_input_is_cut() {
        let text = b"a,\"x\ny\"\"\n\",b\r\n\"\",\n\nlast";
        let rows: [&[u8]; 3] = [b"a,\"x\ny\"\"\n\",b\r", b"\"\",", b""];
        for first in 0..text.len() {
            let mut found: Vec<Vec<u8>> = Vec::new();
            let mut cut = Rows::default();
            for part in [&text[..first], &text[first..]] {
                let keep = |row: &[u8]| {
                    found.push(row.to_vec());
                    Ok::<(), ()>(())
                };
                cut.take(part, keep).unwrap();
            }
            assert_eq!((found, cut.begun()), (rows.map(<[u8]>::to_vec).to_vec(), &b"last"[..]), "{first}");
        }
    }

    #[test]
    fn fields_say_null_empty_and_bytes() {
        let columns = Columns::parse(b"offset,timestamp,key,value,headers").unwrap();
        let record = columns.record(b"7,-1,,\"say \"\"hi\"\"\n\",\"[\"\"a\"\",null]\"").unwrap();
        assert_eq!((record.offset, record.timestamp, record.key), (Some(7), Some(-1), None));
        assert_eq!(record.value.as_deref(), Some(&b"say \"hi\"\n"[..]));
        assert_eq!(record.headers, [(Cow::Borrowed(&b"a"[..]), None)]);
        let record = columns.record(b",,\"\",base64:/wA=,\r").unwrap();
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b""[..]), Some(&[0xff, 0][..])));
        assert_eq!((record.offset, record.headers.len()), (None, 0));
        let quoted = columns.record(b",,\"\"\"\"\"a\",\"\"\"\",").unwrap();
        assert_eq!((quoted.key.as_deref(), quoted.value.as_deref()), (Some(&b"\"\"a"[..]), Some(&b"\""[..])));
    }

    #[test]
    fn what_is_no_row_is_refused_with_its_reason() {
        for (row, reason) in [
            ("offset,payload", "no column is named \"payload\""),
            ("offset,key", "named value"),
            ("value,value", "two columns"),
        ] {
            let error = Columns::parse(row.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{row}: {error}");
        }
        let columns = Columns::parse(b"offset,value").unwrap();
        for (row, reason) in [
            ("1", "it has 1 fields"),
            ("x,1", "offset: \"x\""),
            ("1,\"a", "no end"),
            ("1,\"a\"b", "no comma"),
            ("1,base64:!", "value: no base64"),
        ] {
            let error = columns.record(row.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{row}: {error}");
        }
    }
}
