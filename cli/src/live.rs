//! The live view of `record`: a small table that is drawn over itself on a terminal, a line a second elsewhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use edgelog::escape::{escaped, escaped_path};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::print::{self, Paint};
use crate::telemetry::{Sample, TOPICS};
use crate::time;

/// Redrawing more often costs a small device more than it shows.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(1);
/// One cell of a sparkline covers at least this much time.
const CELL_MIN: Duration = Duration::from_millis(500);
/// The widest sparkline.
const CELLS_MAX: usize = 60;
/// Rates are taken over about this much time.
const RATE_OVER: Duration = Duration::from_secs(2);

/// Everything that is shown.
pub(crate) struct View<'a> {
    pub(crate) channels: &'a [Channel],
    pub(crate) dir: &'a Path,
    pub(crate) durability: &'a str,
    pub(crate) elapsed: Duration,
    pub(crate) samples: u64,
    /// How long the last samples took to append, flush included.
    pub(crate) appending: Duration,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) failure: Option<&'a str>,
    pub(crate) is_last: bool,
}

pub(crate) struct Live {
    is_terminal: bool,
    paint: Paint,
    drawn: Instant,
    /// Lines that the last drawing left above the cursor.
    lines: usize,
    /// The terminal's width at that time.
    width: usize,
    cell: Duration,
    cell_began: Instant,
    /// One for each of [`TOPICS`].
    sparks: [Spark; TOPICS.len()],
    cores: Vec<f64>,
    /// Records by channel, some moments ago, oldest first.
    counts: VecDeque<(Instant, Vec<u64>)>,
    rates: Vec<f64>,
}

impl Live {
    pub(crate) fn new(is_terminal: bool, every: Duration) -> Live {
        let now = Instant::now();
        Live {
            is_terminal,
            paint: Paint::stdout(),
            drawn: now,
            lines: 0,
            width: 0,
            cell: every.max(CELL_MIN),
            cell_began: now,
            sparks: Default::default(),
            cores: Vec::new(),
            counts: VecDeque::new(),
            rates: Vec::new(),
        }
    }

    /// When the view wants to be drawn next.
    pub(crate) fn next_draw(&self) -> Option<Instant> {
        self.drawn.checked_add(if self.is_terminal { DRAW_EVERY } else { LINE_EVERY })
    }

    /// Remembers a sample for the sparklines.
    pub(crate) fn take(&mut self, sample: &Sample) {
        let is_next = self.cell_began.elapsed() >= self.cell;
        if is_next {
            self.cell_began = Instant::now();
        }
        for (spark, part) in self.sparks.iter_mut().zip(&sample.parts) {
            spark.push(part.glance.value, is_next);
            spark.full_min = part.glance.full_min;
        }
        // A sample of some milliseconds is all or nothing to the kernel's ticks: shown is the mean of the last few.
        self.cores.resize(sample.cores.len(), 0.0);
        for (core, busy) in self.cores.iter_mut().zip(&sample.cores) {
            *core += (busy - *core) * 0.3;
        }
    }

    pub(crate) fn draw(&mut self, view: &View<'_>) -> Result<(), Failure> {
        self.drawn = Instant::now();
        self.count(view);
        if self.is_terminal { self.draw_table(view) } else { self.print_line(view) }
    }

    fn count(&mut self, view: &View<'_>) {
        let now = Instant::now();
        let counts: Vec<u64> = view.channels.iter().map(|channel| channel.records).collect();
        let (seconds, before) = match self.counts.front() {
            Some((since, before)) => (now.duration_since(*since), before.clone()),
            None => (view.elapsed, vec![0; counts.len()]),
        };
        let seconds = seconds.as_secs_f64().max(1e-3);
        self.rates = counts.iter().zip(&before).map(|(now, before)| (now - before) as f64 / seconds).collect();
        self.counts.push_back((now, counts));
        while self.counts.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_OVER) {
            self.counts.pop_front();
        }
    }

    fn print_line(&self, view: &View<'_>) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let records: u64 = view.channels.iter().map(|channel| channel.records).sum();
        let rate: f64 = self.rates.iter().sum();
        write!(out, "{} {} ({rate:.0}/s)", time::elapsed(view.elapsed), print::counted(records, "record"))?;
        for (at, channel) in view.channels.iter().enumerate() {
            let offsets = channel.log.offsets();
            let name = &channel.log.name().topic;
            let separator = if at == 0 { ":" } else { "," };
            write!(out, "{separator} {name} {}..{}", offsets.log_start_offset, offsets.log_end_offset)?;
            if offsets.recovery_point < offsets.log_end_offset {
                write!(out, " (durable to {})", offsets.recovery_point)?;
            }
        }
        if let Some(failure) = view.failure {
            write!(out, "; not recorded: {}", escaped(failure))?;
        }
        writeln!(out)?;
        Ok(out.flush()?)
    }

    fn draw_table(&mut self, view: &View<'_>) -> Result<(), Failure> {
        let (width, height) = terminal_size();
        let mut lines = self.table(view, width)?;
        // What does not fit would scroll away, and the cursor could not come back to it.
        lines.truncate(height.saturating_sub(1).max(1));
        let mut text = String::new();
        if std::mem::replace(&mut self.width, width) != width && self.lines > 0 {
            // The terminal has wrapped or joined the lines drawn before: how many there are now is not known.
            (self.lines, text) = (0, "\x1b[H\x1b[2J".to_owned());
        }
        if self.lines > 0 {
            let _ = write!(text, "\x1b[{}A", self.lines);
        }
        text.push('\r');
        for line in &lines {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        text.push_str("\x1b[J");
        self.lines = lines.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn table(&self, view: &View<'_>, width: usize) -> Result<Vec<String>, Failure> {
        let paint = self.paint;
        let rows = view
            .channels
            .iter()
            .map(|channel| Row::of(channel, self.rate_of(view, channel)))
            .collect::<Result<Vec<_>, _>>()?;
        let layout = Layout::fit(&rows, width);
        let mut lines = vec![String::new(), self.heading(&layout)];
        for (row, spark) in
            rows.iter().zip(view.channels).map(|(row, channel)| (row, &self.sparks[channel.topic_index()]))
        {
            lines.push(self.row(row, spark, &layout));
        }
        lines.push(String::new());
        if !self.cores.is_empty() {
            let bars: String = self.cores.iter().map(|&busy| bar(busy / 100.0)).take(width.saturating_sub(8)).collect();
            lines.push(format!("{} {}", paint.dim("cores"), paint.good(bars)));
        }
        let total = print::grouped(view.channels.iter().map(|channel| channel.records).sum::<u64>());
        let rate: f64 = self.rates.iter().sum();
        let mut status = format!("{} | {total} records, {rate:.0}/s", time::elapsed(view.elapsed));
        let _ = write!(status, " | {}, {:.1} ms a sample", view.durability, view.appending.as_secs_f64() * 1e3);
        if view.skipped > 0 {
            let _ = write!(status, " | {} samples skipped", view.skipped);
        }
        let _ = write!(status, " | {}", escaped_path(view.dir));
        if !view.is_last {
            status.push_str(" | Ctrl-C stops");
        }
        lines.push(paint.dim(clip(&status, width)).to_string());
        if let Some(failure) = view.failure {
            let failure = escaped(failure);
            let text = format!("{} of {} samples not recorded in full: {failure}", view.failed, view.samples);
            lines.push(paint.bad(clip(&text, width)).to_string());
        }
        Ok(lines)
    }

    fn rate_of(&self, view: &View<'_>, channel: &Channel) -> f64 {
        let at = view.channels.iter().position(|other| std::ptr::eq(other, channel));
        at.and_then(|at| self.rates.get(at)).copied().unwrap_or(0.0)
    }

    fn heading(&self, layout: &Layout) -> String {
        let mut line = String::new();
        for (column, width) in layout.columns() {
            push_cell(&mut line, column.heading(), width, column.is_number());
        }
        self.paint.dim(line.trim_end()).to_string()
    }

    fn row(&self, row: &Row, spark: &Spark, layout: &Layout) -> String {
        let mut line = String::new();
        for (column, width) in layout.columns() {
            let mut cell = String::new();
            match column {
                Column::Spark => push_cell(&mut cell, &spark.draw(width), width, false),
                column => push_cell(&mut cell, row.text(column), width, column.is_number()),
            }
            match column {
                Column::Topic => line.push_str(&self.paint.key(cell).to_string()),
                Column::Spark => line.push_str(&self.paint.good(cell).to_string()),
                Column::Now => line.push_str(&self.paint.strong(cell).to_string()),
                Column::Durable if row.is_durable => line.push_str(&self.paint.good(cell).to_string()),
                Column::Durable => line.push_str(&self.paint.warn(cell).to_string()),
                _ => line.push_str(&cell),
            }
        }
        line
    }
}

/// The terminal's columns and rows.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
        _ => (80, 24),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Topic,
    Spark,
    Now,
    Records,
    Rate,
    Bytes,
    Offsets,
    Durable,
}

impl Column {
    const ALL: [Column; 8] = [
        Column::Topic,
        Column::Spark,
        Column::Now,
        Column::Records,
        Column::Rate,
        Column::Bytes,
        Column::Offsets,
        Column::Durable,
    ];
    /// What goes first where the terminal is narrow.
    const LEAST_FIRST: [Column; 5] = [Column::Records, Column::Spark, Column::Bytes, Column::Now, Column::Durable];

    fn heading(self) -> &'static str {
        match self {
            Column::Topic => "TOPIC",
            Column::Spark => "LAST",
            Column::Now => "NOW",
            Column::Records => "RECORDS",
            Column::Rate => "/S",
            Column::Bytes => "LOG",
            Column::Offsets => "OFFSETS",
            Column::Durable => "DURABLE TO",
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Column::Records | Column::Rate | Column::Bytes | Column::Durable)
    }
}

/// A topic's cells.
struct Row {
    topic: String,
    now: String,
    records: String,
    rate: String,
    bytes: String,
    offsets: String,
    durable: String,
    is_durable: bool,
}

impl Row {
    fn of(channel: &Channel, rate: f64) -> Result<Row, Failure> {
        let offsets = channel.log.offsets();
        Ok(Row {
            topic: channel.log.name().topic.clone(),
            now: channel.glance.text.clone(),
            records: print::grouped(channel.records),
            rate: format!("{rate:.0}"),
            bytes: print::bytes(channel.log.size()?.1),
            offsets: format!("{}..{}", offsets.log_start_offset, offsets.log_end_offset),
            durable: offsets.recovery_point.to_string(),
            is_durable: offsets.recovery_point >= offsets.log_end_offset,
        })
    }

    fn text(&self, column: Column) -> &str {
        match column {
            Column::Topic => &self.topic,
            Column::Spark => "",
            Column::Now => &self.now,
            Column::Records => &self.records,
            Column::Rate => &self.rate,
            Column::Bytes => &self.bytes,
            Column::Offsets => &self.offsets,
            Column::Durable => &self.durable,
        }
    }
}

/// Which columns are shown, and how wide.
struct Layout {
    widths: [usize; Column::ALL.len()],
}

const GAP: usize = 2;
const SPARK_MIN: usize = 8;
/// `in 1000K/s out 1000K/s`: kept from the start, so that columns do not dance.
const NOW_MIN: usize = 20;

impl Layout {
    fn fit(rows: &[Row], terminal_width: usize) -> Layout {
        let natural = |column: Column| match column {
            Column::Spark => SPARK_MIN,
            column => {
                let cells = rows.iter().map(|row| row.text(column).chars().count());
                let least = if column == Column::Now { NOW_MIN } else { 0 };
                cells.chain([column.heading().len(), least]).max().unwrap_or(0)
            }
        };
        let mut widths = Column::ALL.map(natural);
        let total =
            |widths: &[usize]| -> usize { widths.iter().filter(|&&width| width > 0).map(|width| width + GAP).sum() };
        for column in Column::LEAST_FIRST {
            if total(&widths) <= terminal_width {
                break;
            }
            widths[column as usize] = 0;
        }
        if widths[Column::Spark as usize] > 0 {
            let room = terminal_width.saturating_sub(total(&widths));
            widths[Column::Spark as usize] = (SPARK_MIN + room).min(CELLS_MAX);
        }
        Layout { widths }
    }

    fn columns(&self) -> impl Iterator<Item = (Column, usize)> + '_ {
        Column::ALL.into_iter().zip(self.widths).filter(|(_, width)| *width > 0)
    }
}

fn push_cell(line: &mut String, text: &str, width: usize, is_number: bool) {
    let text = clip(text, width);
    let _ = if is_number { write!(line, "{text:>width$}") } else { write!(line, "{text:<width$}") };
    line.push_str(&" ".repeat(GAP));
}

/// The first `width` characters.
fn clip(text: &str, width: usize) -> &str {
    text.char_indices().nth(width).map_or(text, |(end, _)| &text[..end])
}

/// A value over time, each cell the mean of what it covers.
#[derive(Debug, Default)]
struct Spark {
    cells: VecDeque<(f64, u32)>,
    /// The value that fills a cell, where none is greater.
    full_min: f64,
}

impl Spark {
    fn push(&mut self, value: f64, is_next: bool) {
        match self.cells.back_mut().filter(|_| !is_next) {
            Some((sum, count)) => {
                *sum += value;
                *count += 1;
            }
            None => self.cells.push_back((value, 1)),
        }
        if self.cells.len() > CELLS_MAX {
            self.cells.pop_front();
        }
    }

    /// The newest cells, from nothing to the most of what is shown.
    fn draw(&self, width: usize) -> String {
        let means = self.cells.iter().map(|(sum, count)| sum / f64::from(*count));
        let shown: Vec<f64> = means.skip(self.cells.len().saturating_sub(width)).collect();
        let full = shown.iter().copied().fold(self.full_min, f64::max).max(f64::MIN_POSITIVE);
        shown.iter().map(|value| bar(value / full)).collect()
    }
}

/// One of eight bars for 0 to 1.
fn bar(part: f64) -> char {
    const BARS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    let at = (part.clamp(0.0, 1.0) * BARS.len() as f64) as usize;
    BARS[at.min(BARS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            topic: "temperature".to_owned(),
            now: "in 10K/s out 200K/s".to_owned(),
            records: "1,234,567".to_owned(),
            rate: "250".to_owned(),
            bytes: "123.4 MiB".to_owned(),
            offsets: "1000000..1234567".to_owned(),
            durable: "1234567".to_owned(),
            is_durable: true,
        }
    }

    #[test]
    fn every_terminal_shows_topic_and_offsets_and_nothing_wraps() {
        for width in 40..300 {
            let layout = Layout::fit(&[row()], width);
            let total: usize = layout.columns().map(|(_, width)| width + GAP).sum();
            assert!(total <= width, "{total} of {width}");
            assert!(layout.columns().any(|(column, _)| column == Column::Offsets));
        }
        assert!(Layout::fit(&[row()], 120).columns().all(|(_, width)| width > 0));
    }

    #[test]
    fn a_sparkline_shows_the_newest_cells() {
        let mut spark = Spark::default();
        assert_eq!(spark.draw(8), "");
        for value in [0.0, 50.0, 100.0] {
            spark.push(value, true);
        }
        assert_eq!(spark.draw(8), "\u{2581}\u{2585}\u{2588}");
        assert_eq!(spark.draw(2), "\u{2585}\u{2588}");
        spark.push(0.0, false);
        assert_eq!(spark.draw(8), "\u{2581}\u{2588}\u{2588}", "the last cell is the mean of 100 and 0");
    }
}
