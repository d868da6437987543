//! What a person sees: colours where they are wanted, numbers with units, tables.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::screen::Screen;

/// Colours, or none where the stream is no terminal or `NO_COLOR` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    pub(crate) fn stdout() -> Paint {
        Paint { on: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never }
    }

    pub(crate) fn stderr() -> Paint {
        Paint { on: anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never }
    }

    /// Plain text, no matter which stream it is for.
    pub(crate) fn none() -> Paint {
        Paint { on: false }
    }

    /// Headings and names.
    pub(crate) fn strong<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.with(Style::new().bold(), text)
    }

    /// What is there to be found, not to be read first.
    pub(crate) fn dim<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.with(Style::new().dimmed(), text)
    }

    /// Keys and sources.
    pub(crate) fn key<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.with(Style::new().fg_color(Some(AnsiColor::Cyan.into())), text)
    }

    /// All is well.
    pub(crate) fn good<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.with(Style::new().fg_color(Some(AnsiColor::Green.into())), text)
    }

    /// Look at this.
    pub(crate) fn warn<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.with(Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())), text)
    }

    /// Something failed or is lost.
    pub(crate) fn bad<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.with(Style::new().bold().fg_color(Some(AnsiColor::Red.into())), text)
    }

    fn with<T>(self, style: Style, text: T) -> Painted<T> {
        Painted { style: if self.on { style } else { Style::new() }, text }
    }
}

/// Text with its style. Widths given to `format!` hold for the text alone.
pub(crate) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.style.render())?;
        self.text.fmt(f)?;
        write!(f, "{}", self.style.render_reset())
    }
}

/// How many offsets a log spans: the one count that costs no walk over its batches. It is a count of offsets and not
/// of records: a compacted or repaired log has offsets without a record.
pub(crate) fn offsets_in(offsets: &edgelog::LogOffsets) -> i64 {
    offsets.high_watermark.saturating_since(offsets.log_start_offset)
}

/// `offset 5`, `offsets 5 to 9`: the offsets `first..next`, in the library's words.
pub(crate) fn offsets_in_words(first: edgelog::Offset, next: edgelog::Offset) -> String {
    let last = next.saturating_sub(1);
    if last <= first { format!("offset {first}") } else { format!("offsets {first} to {last}") }
}

/// `offset 5 was`, `offsets 5 to 9 were`.
pub(crate) fn offsets_were(first: edgelog::Offset, next: edgelog::Offset) -> String {
    let verb = if next.saturating_sub(1) <= first { "was" } else { "were" };
    format!("{} {verb}", offsets_in_words(first, next))
}

/// The columns of the terminal that standard output is, where it knows them.
pub(crate) fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
}

/// A line of JSON on standard output.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut out = Screen::json(io::stdout().lock());
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// `512 B`, `1.5 KiB`, `16.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1,234,567`.
pub(crate) fn grouped(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 record`, `2 records`, `2 batches`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = match (count, noun.ends_with("ch")) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {noun}{ending}", grouped(count))
}

/// Which side of its column a cell stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Columns as wide as their widest cell; the last one is never padded.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        assert_eq!(row.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// The heading and all rows as lines.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.columns[at].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let _ = writeln!(text, "{}", paint.dim(self.line(&headings, &widths)));
        for row in &self.rows {
            let _ = writeln!(text, "{}", self.line(row, &widths));
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (at, ((cell, (_, align)), width)) in cells.iter().zip(&self.columns).zip(widths).enumerate() {
            if at > 0 {
                line.push_str("  ");
            }
            let _ = match align {
                Align::Left => write!(line, "{cell:<width$}"),
                Align::Right => write!(line, "{cell:>width$}"),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// Prints the table on standard output.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.render(Paint::stdout()).as_bytes())?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(16 << 20), bytes((1 << 20) - 1)],
            ["0 B", "1023 B", "1.0 KiB", "16.0 MiB", "1.0 MiB"]
        );
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(-1_234_567)], ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!([counted(1, "record"), counted(2000, "record")], ["1 record", "2,000 records"]);
        assert_eq!([counted(1, "batch"), counted(2, "batch")], ["1 batch", "2 batches"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("TOPIC", Align::Left), ("END", Align::Right), ("NOTE", Align::Left)]);
        table.row(["a".to_owned(), "1000".to_owned(), String::new()]);
        table.row(["longer".to_owned(), "7".to_owned(), "x".to_owned()]);
        assert_eq!(table.render(Paint { on: false }), "TOPIC    END  NOTE\na       1000\nlonger     7  x\n");
    }
}
