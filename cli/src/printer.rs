//! How `tail` prints a record: as a line for people, as JSON, raw, or by a format.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use edgelog::edgelog_core::TimestampType;
use edgelog::escape::escaped_bytes;
use edgelog::{Record, TopicPartition};

use crate::format::{Format, NULL};
use crate::json_record;
use crate::print::{Paint, terminal_columns};
use crate::screen::Screen;
use crate::time::Stamps;

/// What a record becomes.
#[derive(Debug, Clone)]
pub(crate) enum Style {
    /// `has_topics`: each line names its topic. `is_cut`: a value is cut where the terminal's line ends.
    Text {
        is_utc: bool,
        has_topics: bool,
        is_cut: bool,
    },
    Json,
    Raw,
    Format(Format),
}

/// Writes records to standard output. An error is kept for the caller who asks, so that the loop over records
/// stays simple.
pub(crate) struct Printer {
    style: Style,
    /// What stands for null, raw or by a format.
    null: &'static [u8],
    paint: Paint,
    out: BufWriter<Screen<StdoutLock<'static>>>,
    line: String,
    stamps: Stamps,
    error: Option<io::Error>,
    /// Widths of place and key so far: they grow, so that lines stay aligned while the stream goes on.
    widths: (usize, usize),
    /// Characters that a line may have.
    columns: Option<usize>,
}

/// A longer key does not push all other lines' values to the right.
const KEY_WIDTH_MAX: usize = 24;
/// One beyond this is always wider than that, and is written piece by piece.
const KEY_BYTES_PADDED: usize = 4 * KEY_WIDTH_MAX;
/// Where a line has no room for a value, so many characters of it are printed all the same.
const VALUE_CHARS_MIN: usize = 16;
/// Stands where a value was cut, as `edgelog::escape` writes it.
const CUT_CHARS: usize = 3;

impl Printer {
    pub(crate) fn new(style: Style, shows_null: bool) -> Printer {
        let out = io::stdout().lock();
        let out = match style {
            Style::Json => Screen::json(out),
            Style::Raw | Style::Format(_) => Screen::text(out),
            Style::Text { .. } => Screen::as_is(out),
        };
        let is_utc = matches!(style, Style::Text { is_utc: true, .. });
        Printer {
            style,
            null: if shows_null { NULL } else { b"" },
            paint: Paint::stdout(),
            out: BufWriter::with_capacity(64 << 10, out),
            line: String::new(),
            stamps: Stamps::new(is_utc),
            error: None,
            widths: (0, 0),
            columns: None,
        }
    }

    /// Looks how wide the terminal is now.
    pub(crate) fn begin_batch(&mut self) {
        if matches!(self.style, Style::Text { is_cut: true, .. }) && io::stdout().is_terminal() {
            self.columns = terminal_columns();
        }
    }

    pub(crate) fn print(&mut self, name: &TopicPartition, record: &Record<'_>, kind: TimestampType) {
        if self.error.is_some() {
            return;
        }
        let Printer { out, null, .. } = self;
        let printed = match &self.style {
            Style::Json => json_record::write(out, &name.topic, name.partition, record, kind),
            Style::Raw => out.write_all(record.value.unwrap_or(null)).and_then(|()| out.write_all(b"\n")),
            Style::Format(format) => format.write(out, name, record, null),
            Style::Text { has_topics, .. } => {
                let topic = has_topics.then_some(name.topic.as_str());
                self.print_text(topic, name.partition, record)
            }
        };
        self.error = printed.err();
    }

    fn print_text(&mut self, topic: Option<&str>, partition: u32, record: &Record<'_>) -> io::Result<()> {
        let Printer { paint, out, line, widths, stamps, columns, .. } = self;
        line.clear();
        let _ = match topic {
            Some(topic) => write!(line, "{topic}-{partition}:{}", record.offset),
            None => write!(line, "{partition}:{}", record.offset),
        };
        widths.0 = widths.0.max(line.len());
        let time = stamps.of(record.timestamp);
        let mut used = widths.0 + 2 + time.len();
        write!(out, "{}", paint.dim(format_args!("{line:>width$}", width = widths.0)))?;
        write!(out, "  {}", paint.dim(time))?;
        if let Some(key) = record.key.filter(|key| key.len() > KEY_BYTES_PADDED) {
            widths.1 = KEY_WIDTH_MAX;
            // A key of that length takes the line from its value, but not from other lines.
            let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(used + 2) / 2);
            write!(out, "  {}", paint.key(escaped_bytes(key).at_most(room.max(KEY_WIDTH_MAX))))?;
            used += 2 + room.max(KEY_WIDTH_MAX).min(key.len()) + CUT_CHARS;
        } else if let Some(key) = record.key {
            line.clear();
            let _ = if key.is_empty() { write!(line, "\"\"") } else { write!(line, "{}", escaped_bytes(key)) };
            widths.1 = widths.1.max(line.chars().count().min(KEY_WIDTH_MAX));
            write!(out, "  {}", paint.key(format_args!("{line:<width$}", width = widths.1)))?;
            used += 2 + widths.1.max(line.chars().count());
        } else if widths.1 > 0 {
            write!(out, "  {:<width$}", "", width = widths.1)?;
            used += 2 + widths.1;
        }
        out.write_all(b"  ")?;
        let room = columns.map(|columns| columns.saturating_sub(used + 2).max(VALUE_CHARS_MIN));
        let left = match (record.value, room) {
            (Some(value), None) => write_plain(out, value).map(|()| None)?,
            (Some(value), Some(room)) => Some(room.saturating_sub(write_cut(out, value, room, line)?)),
            (None, room) => {
                write!(out, "{}", paint.dim("(null)"))?;
                room.map(|room| room.saturating_sub(6))
            }
        };
        let mut left = left;
        for header in record.headers() {
            line.clear();
            let (key, value) = (escaped_bytes(header.key), escaped_bytes(header.value.unwrap_or(b"(null)")));
            let most = left.map_or(usize::MAX, |left| left.saturating_sub(2 + CUT_CHARS));
            if most == 0 {
                break;
            }
            let _ = write!(line, "{}", edgelog::escape::escaped(format_args!("{key}={value}")).at_most(most));
            write!(out, "  {}", paint.dim(&*line))?;
            left = left.map(|left| left.saturating_sub(2 + line.chars().count()));
        }
        out.write_all(b"\n")
    }

    pub(crate) fn pass_on_error(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether a terminal shows the bytes as they are, a character each.
fn is_plain_ascii(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Most values are plain text, which is written at once.
fn write_plain(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    if is_plain_ascii(bytes) { out.write_all(bytes) } else { write!(out, "{}", escaped_bytes(bytes)) }
}

/// Writes at most `room` characters, and answers how many.
fn write_cut(out: &mut impl Write, bytes: &[u8], room: usize, line: &mut String) -> io::Result<usize> {
    if bytes.len() <= room && is_plain_ascii(bytes) {
        out.write_all(bytes)?;
        return Ok(bytes.len());
    }
    line.clear();
    let _ = write!(line, "{}", escaped_bytes(bytes).at_most(room));
    if line.chars().count() > room {
        line.clear();
        let _ = write!(line, "{}", escaped_bytes(bytes).at_most(room - CUT_CHARS));
    }
    out.write_all(line.as_bytes())?;
    Ok(line.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_to_its_room() {
        let cut = |bytes: &[u8], room: usize| {
            let (mut out, mut line) = (Vec::new(), String::new());
            let chars = write_cut(&mut out, bytes, room, &mut line).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.chars().count(), chars);
            text
        };
        assert_eq!(cut(b"0123456789", 10), "0123456789");
        assert_eq!(cut(b"0123456789a", 10), "0123456...");
        assert_eq!(cut("\u{e9}".repeat(10).as_bytes(), 10), "\u{e9}".repeat(10));
        assert_eq!(cut("\u{e9}".repeat(11).as_bytes(), 10), format!("{}...", "\u{e9}".repeat(7)));
        assert_eq!(cut(b"\n\n\n\n\n", 10), "\\n\\n\\n\\n\\n");
        assert_eq!(cut(b"\n\n\n\n\n\n", 10), "\\n\\n\\n...");
    }
}
