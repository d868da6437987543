//! `top`: a live screen of all topics: how fast they grow, what they take, what still has to be sent.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use edgelog::escape::{escaped_bytes, shown_name};
use edgelog::{OffsetSpec, Store, TimestampMs, Topic, topic_matches};

use crate::context::{Context, writer_of};
use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::interrupt;
use crate::print::{self, Align, Paint, Table};
use crate::terminal::{Key, RawTerminal};
use crate::time;

/// Show all topics live: rates, sizes, retention, what is still to be sent
///
/// Reads next to a running writer and changes nothing. A topic's LAG is how many offsets a holder still needs: those that
/// a bridge has not sent.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog top                    all topics, once a second
  edgelog top 'net*' --every 5s
  edgelog top --once             one table, also where there is no terminal

Keys: arrows, j and k choose a topic, whose last record stands below; / filters by name (* and ? make a pattern), Esc ends \
the filter; q ends.")]
pub(crate) struct Args {
    /// Only these topics; * and ? make a pattern
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Time from look to look
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = time::parse_period)]
    every: Duration,
    /// Print one table, and end
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    interrupt::install()?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if args.once || !is_terminal {
        if !args.once {
            eprintln!("there is no terminal: printed once, as with --once");
        }
        let look = Look::take(args, ctx)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", look.heading(ctx))?;
        out.write_all(table(&look.rows, &HashMap::new()).render(Paint::stdout()).as_bytes())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    // The first look comes before the screen: where there is no store, that is said as everywhere.
    let look = Look::take(args, ctx)?;
    let mut terminal = RawTerminal::enter()?;
    let ended = Screen::new(look).run(args, ctx, &mut terminal);
    drop(terminal);
    Ok(if ended? { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// A topic as it was found.
struct Row {
    name: String,
    partitions: usize,
    /// Of all partitions together.
    end: i64,
    offsets: i64,
    bytes: u64,
    retention: String,
    /// Offsets that the slowest holder still needs, and who that is.
    lag: Option<(i64, String)>,
    /// Why a partition cannot be read.
    failure: Option<String>,
}

/// All topics at one moment.
struct Look {
    at: Instant,
    rows: Vec<Row>,
    writer: Option<String>,
}

impl Look {
    fn take(args: &Args, ctx: &Context) -> Result<Look, Failure> {
        let store = ctx.attach()?;
        let holds = store.retention_holds()?;
        let topics = store.topics()?;
        let is_asked_for =
            |topic: &&Topic| args.topics.is_empty() || args.topics.iter().any(|name| topic_matches(name, &topic.name));
        let rows: Vec<Row> = topics
            .iter()
            .filter(is_asked_for)
            .map(|topic| {
                let mut row = Row {
                    name: topic.name.clone(),
                    partitions: topic.partition_ids.len(),
                    end: 0,
                    offsets: 0,
                    bytes: 0,
                    retention: retention(topic),
                    lag: None,
                    failure: None,
                };
                for &partition in &topic.partition_ids {
                    let added = store.log(&topic.name, partition).and_then(|log| {
                        let offsets = log.offsets();
                        row.end += offsets.log_end_offset.0;
                        row.offsets += print::offsets_in(&offsets);
                        row.bytes += log.size()?.1;
                        for hold in holds.of(&log) {
                            let lag =
                                offsets.high_watermark.saturating_since(hold.offset.max(offsets.log_start_offset));
                            row.add_lag(lag, &hold.holder);
                        }
                        Ok(())
                    });
                    row.failure = row.failure.or_else(|| added.err().map(|error| error.to_string()));
                }
                row
            })
            .collect();
        if rows.is_empty() && !args.topics.is_empty() {
            let names: Vec<String> = args.topics.iter().map(|name| shown_name(name).to_string()).collect();
            let text = format!("no topic in {} is named like {}", ctx.shown_dir(), names.join(", "));
            return Err(Failure::new(text).hint("`edgelog topics` lists them."));
        }
        Ok(Look { at: Instant::now(), rows, writer: writer_of(ctx.dir()) })
    }

    fn heading(&self, ctx: &Context) -> String {
        let bytes: u64 = self.rows.iter().map(|row| row.bytes).sum();
        let topics = print::counted(self.rows.len() as u64, "topic");
        let mut text = format!("{}  {topics}, {}", ctx.shown_dir(), print::bytes(bytes));
        if let Ok(space) = rustix::fs::statvfs(ctx.dir()) {
            let _ = write!(text, " ({} free)", print::bytes(space.f_bavail.saturating_mul(space.f_frsize)));
        }
        let _ = match &self.writer {
            Some(writer) => write!(text, ", written by process {writer}"),
            None => write!(text, ", no writer"),
        };
        text
    }
}

impl Row {
    /// Of one holder the lags of all partitions are one; of several holders the longest is shown.
    fn add_lag(&mut self, lag: i64, holder: &str) {
        self.lag = match self.lag.take() {
            Some((before, name)) if name == holder => Some((before + lag, name)),
            Some((before, name)) if before >= lag => Some((before, name)),
            _ => Some((lag, holder.to_owned())),
        };
    }
}

/// What deletes records, in a word or two.
fn retention(topic: &Topic) -> String {
    if topic.retention_suspended.is_some() {
        return "suspended".to_owned();
    }
    let (ms, bytes) = (topic.config.retention_ms, topic.config.retention_bytes);
    let by_age = u64::try_from(ms).ok().map(|ms| match ms {
        ms if ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms => time::elapsed(Duration::from_millis(ms)),
    });
    let by_size = u64::try_from(bytes).ok().map(print::bytes);
    match (by_age, by_size) {
        (None, None) => "none".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(age), Some(size)) => format!("{age}, {size}"),
    }
}

/// `rates`: records a second, of topics that were there a moment ago.
fn table(rows: &[Row], rates: &HashMap<String, f64>) -> Table {
    let mut table = Table::new(&[
        ("TOPIC", Align::Left),
        ("PARTITIONS", Align::Right),
        ("/S", Align::Right),
        ("END", Align::Right),
        ("OFFSETS", Align::Right),
        ("BYTES", Align::Right),
        ("RETENTION", Align::Right),
        ("LAG", Align::Left),
    ]);
    for row in rows {
        let lag = match (&row.failure, &row.lag) {
            (Some(_), _) => "cannot be read".to_owned(),
            (None, Some((lag, holder))) => format!("{} {}", print::grouped(*lag), shown_name(holder)),
            (None, None) => "-".to_owned(),
        };
        table.row([
            row.name.clone(),
            row.partitions.to_string(),
            rates.get(&row.name).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
            print::grouped(row.end),
            print::grouped(row.offsets),
            print::bytes(row.bytes),
            row.retention.clone(),
            lag,
        ]);
    }
    table
}

/// What the terminal shows, and what a person chose.
struct Screen {
    look: Look,
    rates: HashMap<String, f64>,
    filter: String,
    is_typing: bool,
    chosen: usize,
    /// The topmost row that is shown.
    top: usize,
}

/// The heading, the table's own, and three lines below.
const LINES_AROUND: usize = 5;
/// A filter that is typed has at most so many characters.
const FILTER_CHARS_MAX: usize = 64;

impl Screen {
    fn new(look: Look) -> Screen {
        Screen { look, rates: HashMap::new(), filter: String::new(), is_typing: false, chosen: 0, top: 0 }
    }

    /// Until a person ends it; answers whether that was by Ctrl-C.
    fn run(&mut self, args: &Args, ctx: &Context, terminal: &mut RawTerminal) -> Result<bool, Failure> {
        loop {
            self.draw(ctx, terminal)?;
            let next = self.look.at + args.every;
            loop {
                if interrupt::raised() {
                    return Ok(true);
                }
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let keys = terminal.keys(left)?;
                if keys.is_empty() {
                    continue;
                }
                for key in keys {
                    if !self.press(key) {
                        return Ok(false);
                    }
                }
                self.draw(ctx, terminal)?;
            }
            self.renew(Look::take(args, ctx)?);
        }
    }

    fn renew(&mut self, look: Look) {
        let seconds = look.at.duration_since(self.look.at).as_secs_f64().max(0.001);
        let before: HashMap<&str, i64> = self.look.rows.iter().map(|row| (row.name.as_str(), row.end)).collect();
        let rate = |row: &Row| {
            let before = before.get(row.name.as_str())?;
            Some((row.name.clone(), (row.end - before) as f64 / seconds))
        };
        self.rates = look.rows.iter().filter_map(rate).collect();
        self.look = look;
    }

    /// Does what a key asks for; `false` where that is the end.
    fn press(&mut self, key: Key) -> bool {
        match (key, self.is_typing) {
            (Key::Char(c), true) if self.filter.chars().count() < FILTER_CHARS_MAX => self.filter.push(c),
            (Key::Backspace, true) => drop(self.filter.pop()),
            (Key::Enter, true) => self.is_typing = false,
            (Key::Escape, _) => {
                self.is_typing = false;
                self.filter.clear();
            }
            (Key::Char('q'), false) => return false,
            (Key::Char('/'), false) => self.is_typing = true,
            (Key::Up, _) | (Key::Char('k'), false) => self.chosen = self.chosen.saturating_sub(1),
            (Key::Down, _) | (Key::Char('j'), false) => self.chosen += 1,
            _ => {}
        }
        true
    }

    fn is_shown(&self, row: &Row) -> bool {
        let is_pattern = self.filter.contains(['*', '?']);
        if is_pattern { topic_matches(&self.filter, &row.name) } else { row.name.contains(&self.filter) }
    }

    fn draw(&mut self, ctx: &Context, terminal: &mut RawTerminal) -> Result<(), Failure> {
        let (columns, lines) = terminal.size();
        let shown: Vec<&Row> = self.look.rows.iter().filter(|row| self.is_shown(row)).collect();
        let chosen = self.chosen.min(shown.len().saturating_sub(1));
        let room = lines.saturating_sub(LINES_AROUND).max(1);
        let top = self.top.min(chosen).max((chosen + 1).saturating_sub(room));
        let paint = Paint::stdout();
        let cut = |text: &str| text.chars().take(columns).collect::<String>();
        let mut page = vec![paint.strong(cut(&self.look.heading(ctx))).to_string()];
        // The whole table, so that columns stay where they are while it is scrolled.
        let rendered = table(&self.look.rows, &self.rates).render(Paint::none());
        let mut rendered = rendered.lines();
        page.push(paint.dim(cut(&format!("  {}", rendered.next().unwrap_or_default()))).to_string());
        let rows = rendered.zip(&self.look.rows).filter(|(_, row)| self.is_shown(row));
        for (at, (line, row)) in rows.enumerate().skip(top).take(room) {
            let line = cut(&format!("{} {line}", if at == chosen { ">" } else { " " }));
            page.push(match (at == chosen, &row.failure) {
                (_, Some(_)) => paint.bad(line).to_string(),
                (true, None) => paint.strong(line).to_string(),
                (false, None) => line,
            });
        }
        page.push(String::new());
        page.push(match shown.get(chosen) {
            Some(row) => last_record(&ctx.attach()?, row, columns),
            None => String::new(),
        });
        page.push(paint.dim(cut(&self.status(shown.len()))).to_string());
        (self.chosen, self.top) = (chosen, top);
        terminal.show(&page)?;
        Ok(())
    }

    fn status(&self, shown: usize) -> String {
        match (self.is_typing, self.filter.is_empty()) {
            (true, _) => format!("/{}_  Enter keeps the filter, Esc ends it", self.filter),
            (false, true) => "q ends, / filters, arrows choose".to_owned(),
            (false, false) => {
                let topics = print::counted(shown as u64, "topic");
                format!("{topics} with {}; Esc ends the filter, q ends", self.filter)
            }
        }
    }
}

/// The newest record of a topic on one line, cut to `columns`.
fn last_record(store: &Store, row: &Row, columns: usize) -> String {
    let Ok(topic) = store.topic(&row.name) else { return String::new() };
    let mut newest: Option<(TimestampMs, String)> = None;
    for &partition in &topic.partition_ids {
        // What cannot be read is said where the topic stands.
        let batch = store.log(&row.name, partition).and_then(|log| log.reader(OffsetSpec::Last(1))?.next_batch());
        let Ok(Some(batch)) = batch else { continue };
        let Some(Ok(record)) = batch.records().ok().and_then(Iterator::last) else { continue };
        if newest.as_ref().is_none_or(|(time, _)| record.timestamp >= *time) {
            let key = record.key.map(|key| format!("{}  ", escaped_bytes(key).at_most(24))).unwrap_or_default();
            let value =
                record.value.map_or("(null)".to_owned(), |value| escaped_bytes(value).at_most(columns).to_string());
            let ago = time::ago(record.timestamp);
            let text = format!("{}-{partition}:{}  {ago}  {key}{value}", row.name, record.offset);
            newest = Some((record.timestamp, text));
        }
    }
    newest.map(|(_, text)| text.chars().take(columns).collect()).unwrap_or_default()
}
