//! Which records `tail` prints, and where it starts and stops.

use edgelog::{Offset, OffsetSpec, Record, TimestampMs};

use crate::time;

/// Where `--offset` starts: kcat's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start(pub(crate) OffsetSpec);

/// Reads `beginning`, `end`, `1200`, `-10` (so many before the end) and `s@1767225600000` (a time).
pub(crate) fn parse_start(text: &str) -> Result<Start, String> {
    let expected = || "expected beginning, end, an offset, -N for so many records before the end, or s@MS".to_owned();
    let number = |text: &str| {
        // Numbers alone: parsing would take a sign as well.
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<i64>().ok()).flatten().ok_or_else(expected)
    };
    let spec = match text {
        "beginning" | "earliest" => OffsetSpec::Earliest,
        "end" | "latest" => OffsetSpec::Latest,
        _ => match (text.strip_prefix('-'), text.strip_prefix("s@")) {
            (Some(before), _) => OffsetSpec::Last(number(before)?.unsigned_abs()),
            (None, Some(time)) => OffsetSpec::Timestamp(TimestampMs(number(time)?)),
            (None, None) => OffsetSpec::Offset(Offset(number(text)?)),
        },
    };
    Ok(Start(spec))
}

/// Where `--until` stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Before this offset, of each partition.
    Offset(Offset),
    /// Before the first record with this time or a later one.
    Time(TimestampMs),
    /// At the end as it is when the command starts.
    Now,
}

/// Reads an offset, a time (which a bare number is not), or `now`.
pub(crate) fn parse_until(text: &str) -> Result<Until, String> {
    if text == "now" {
        return Ok(Until::Now);
    }
    if let Some(ms) = text.strip_prefix("e@") {
        return time::parse_time(ms).map(Until::Time);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(|offset| Until::Offset(Offset(offset))).map_err(|error| error.to_string());
    }
    let time = time::parse_time(text);
    time.map(Until::Time).map_err(|_| {
        "expected an offset, now, or a time such as 2026-03-01T12:00:00Z, -5m or e@1767225600000 (ms since 1970)"
            .to_owned()
    })
}

/// A header that a record has to have.
#[derive(Debug, Clone)]
pub(crate) struct WantedHeader {
    name: String,
    value: Option<String>,
}

/// Reads `NAME` or `NAME=VALUE`.
pub(crate) fn parse_header(text: &str) -> Result<WantedHeader, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        Err("expected NAME or NAME=VALUE".to_owned())
    } else {
        Ok(WantedHeader { name: name.to_owned(), value })
    }
}

/// What a record has to have to be printed.
#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Print only records with this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Print only records with this text in their value
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Print only records with this header, and this value of it where one is given; repeated: with all of them
    #[arg(long = "header", value_name = "NAME[=VALUE]", value_parser = parse_header)]
    headers: Vec<WantedHeader>,
}

impl Filter {
    pub(crate) fn is_any(&self) -> bool {
        self.key.is_some() || self.grep.is_some() || !self.headers.is_empty()
    }

    pub(crate) fn takes(&self, record: &Record<'_>) -> bool {
        let has = |wanted: &WantedHeader| {
            let mut same = record.headers().filter(|header| header.key == wanted.name.as_bytes());
            same.any(|header| wanted.value.as_ref().is_none_or(|value| header.value == Some(value.as_bytes())))
        };
        self.key.as_ref().is_none_or(|key| record.key == Some(key.as_bytes()))
            && self.grep.as_ref().is_none_or(|text| contains(record.value.unwrap_or_default(), text.as_bytes()))
            && self.headers.iter().all(has)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let Some((first, behind)) = part.split_first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at + 1..];
        if rest.starts_with(behind) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_read_in_kcats_words() {
        for (text, spec) in [
            ("beginning", OffsetSpec::Earliest),
            ("end", OffsetSpec::Latest),
            ("0", OffsetSpec::Offset(Offset(0))),
            ("-5", OffsetSpec::Last(5)),
            ("s@17", OffsetSpec::Timestamp(TimestampMs(17))),
        ] {
            assert_eq!(parse_start(text), Ok(Start(spec)), "{text}");
        }
        for wrong in ["", "x", "--5", "+5", "-", "stored", "9223372036854775808"] {
            assert!(parse_start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_end_is_an_offset_a_time_or_now() {
        assert_eq!(parse_until("12"), Ok(Until::Offset(Offset(12))));
        assert_eq!(parse_until("now"), Ok(Until::Now));
        assert_eq!(parse_until("e@12"), Ok(Until::Time(TimestampMs(12))));
        assert_eq!(parse_until("2026-01-01T00:00:00Z"), Ok(Until::Time(TimestampMs(1_767_225_600_000))));
        assert!(parse_until("soon").is_err() && parse_until("").is_err());
    }

    #[test]
    fn a_part_is_found_wherever_it_begins() {
        for (text, part, is_there) in
            [("aab", "ab", true), ("aaab", "aab", true), ("ab", "abc", false), ("x", "", true), ("", "x", false)]
        {
            assert_eq!(contains(text.as_bytes(), part.as_bytes()), is_there, "{text} {part}");
        }
    }
}
