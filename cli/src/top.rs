//! `top`: a live screen of all topics: how fast they grow, what they take, what still has to be sent.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use edgelog::escape::{escaped_bytes, shown_name};
use edgelog::{OffsetSpec, RetentionHolds, Store, TimestampMs, Topic, topic_matches};

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

Keys: arrows, j and k choose a topic, whose last record stands below; Enter shows its partitions, Esc goes back; / filters \
by name (* and ? make a pattern), Esc ends the filter; q ends.")]
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
        out.write_all(table(&look.rows, &Rates::new()).render(Paint::stdout()).as_bytes())?;
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

/// A topic as it was found, or one of its partitions.
struct Row {
    /// `TOPIC`, or `TOPIC-PARTITION`.
    name: String,
    topic: String,
    /// Of a topic: each by itself.
    partitions: Vec<Row>,
    /// Of a partition: which one it is.
    partition: Option<u32>,
    start: i64,
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
        let rows: Vec<Row> =
            topics.iter().filter(is_asked_for).map(|topic| Row::of_topic(topic, &store, &holds)).collect();
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
    fn new(topic: &Topic, partition: Option<u32>) -> Row {
        let name = partition.map_or_else(|| topic.name.clone(), |id| format!("{}-{id}", topic.name));
        let (topic, retention) = (topic.name.clone(), retention(topic));
        Row {
            name,
            topic,
            partitions: Vec::new(),
            partition,
            start: 0,
            end: 0,
            offsets: 0,
            bytes: 0,
            retention,
            lag: None,
            failure: None,
        }
    }

    fn of_topic(topic: &Topic, store: &Store, holds: &RetentionHolds) -> Row {
        let mut all = Row::new(topic, None);
        for &id in &topic.partition_ids {
            let mut one = Row::new(topic, Some(id));
            let added = store.log(&topic.name, id).and_then(|log| {
                let offsets = log.offsets();
                (one.start, one.end) = (offsets.log_start_offset.0, offsets.log_end_offset.0);
                one.offsets = print::offsets_in(&offsets);
                one.bytes = log.size()?.1;
                for hold in holds.of(&log) {
                    let lag = offsets.high_watermark.saturating_since(hold.offset.max(offsets.log_start_offset));
                    one.add_lag(lag, &hold.holder);
                    all.add_lag(lag, &hold.holder);
                }
                Ok(())
            });
            one.failure = added.err().map(|error| error.to_string());
            all.failure = all.failure.or_else(|| one.failure.clone());
            all.end += one.end;
            all.offsets += one.offsets;
            all.bytes += one.bytes;
            all.partitions.push(one);
        }
        all
    }

    /// What it is among the rates: a topic may be named like another one's partition.
    fn key(&self) -> (String, Option<u32>) {
        (self.topic.clone(), self.partition)
    }

    fn lag(&self) -> String {
        match (&self.failure, &self.lag) {
            (Some(_), _) => "cannot be read".to_owned(),
            (None, Some((lag, holder))) => format!("{} {}", print::grouped(*lag), shown_name(holder)),
            (None, None) => "-".to_owned(),
        }
    }

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

/// Records a second, of what was there a moment ago.
type Rates = HashMap<(String, Option<u32>), f64>;

fn rate_of(row: &Row, rates: &Rates) -> String {
    rates.get(&row.key()).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))
}

fn table(rows: &[Row], rates: &Rates) -> Table {
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
        table.row([
            row.name.clone(),
            row.partitions.len().to_string(),
            rate_of(row, rates),
            print::grouped(row.end),
            print::grouped(row.offsets),
            print::bytes(row.bytes),
            row.retention.clone(),
            row.lag(),
        ]);
    }
    table
}

/// The partitions of a topic.
fn table_of_partitions(rows: &[Row], rates: &Rates) -> Table {
    let mut table = Table::new(&[
        ("PARTITION", Align::Left),
        ("/S", Align::Right),
        ("START", Align::Right),
        ("END", Align::Right),
        ("OFFSETS", Align::Right),
        ("BYTES", Align::Right),
        ("LAG", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.name.clone(),
            rate_of(row, rates),
            print::grouped(row.start),
            print::grouped(row.end),
            print::grouped(row.offsets),
            print::bytes(row.bytes),
            row.lag(),
        ]);
    }
    table
}

/// What the terminal shows, and what a person chose.
struct Screen {
    look: Look,
    rates: Rates,
    /// The topic whose partitions are shown instead of all topics.
    inside: Option<String>,
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
        Screen { look, rates: Rates::new(), inside: None, filter: String::new(), is_typing: false, chosen: 0, top: 0 }
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
        let each = |rows: &[Row]| {
            let both = rows.iter().flat_map(|row| std::iter::once(row).chain(&row.partitions));
            both.map(|row| (row.key(), row.end)).collect::<HashMap<_, _>>()
        };
        let before = each(&self.look.rows);
        let rate = |(key, end): ((String, Option<u32>), i64)| {
            let rate = (end - before.get(&key)?) as f64 / seconds;
            Some((key, rate))
        };
        self.rates = each(&look.rows).into_iter().filter_map(rate).collect();
        // The topic that was looked into may be gone.
        self.inside = self.inside.take().filter(|name| look.rows.iter().any(|row| row.name == *name));
        self.look = look;
    }

    /// Does what a key asks for; `false` where that is the end.
    fn press(&mut self, key: Key) -> bool {
        match (key, self.is_typing) {
            (Key::Char(c), true) if self.filter.chars().count() < FILTER_CHARS_MAX => self.filter.push(c),
            (Key::Backspace, true) => drop(self.filter.pop()),
            (Key::Enter, true) => self.is_typing = false,
            (Key::Enter, false) => self.enter(),
            (Key::Escape, _) => self.leave(),
            (Key::Char('q'), false) => return false,
            // Partitions are few enough to be all there.
            (Key::Char('/'), false) if self.inside.is_none() => self.is_typing = true,
            (Key::Up, _) | (Key::Char('k'), false) => self.chosen = self.chosen.saturating_sub(1),
            (Key::Down, _) | (Key::Char('j'), false) => self.chosen += 1,
            _ => {}
        }
        true
    }

    /// Looks into the chosen topic.
    fn enter(&mut self) {
        if self.inside.is_none() {
            self.inside =
                self.look.rows.iter().filter(|row| self.is_shown(row)).nth(self.chosen).map(|row| row.name.clone());
            (self.chosen, self.top) = (0, 0);
        }
    }

    /// Back to all topics, with the one chosen that was looked into; there it ends the filter.
    fn leave(&mut self) {
        if let Some(name) = self.inside.take() {
            let at = self.look.rows.iter().filter(|row| self.is_shown(row)).position(|row| row.name == name);
            (self.chosen, self.top) = (at.unwrap_or(0), 0);
        } else {
            self.is_typing = false;
            self.filter.clear();
        }
    }

    /// The partitions of the topic that is looked into; none where it is all topics.
    fn partitions(&self) -> Option<&[Row]> {
        let inside = self.inside.as_ref()?;
        self.look.rows.iter().find(|row| row.name == *inside).map(|row| row.partitions.as_slice())
    }

    fn is_shown(&self, row: &Row) -> bool {
        if row.partition.is_some() {
            return true;
        }
        let is_pattern = self.filter.contains(['*', '?']);
        if is_pattern { topic_matches(&self.filter, &row.name) } else { row.name.contains(&self.filter) }
    }

    fn draw(&mut self, ctx: &Context, terminal: &mut RawTerminal) -> Result<(), Failure> {
        let (columns, lines) = terminal.size();
        let (all, whole) = match self.partitions() {
            Some(partitions) => (partitions, table_of_partitions(partitions, &self.rates)),
            None => (self.look.rows.as_slice(), table(&self.look.rows, &self.rates)),
        };
        let shown: Vec<&Row> = all.iter().filter(|row| self.is_shown(row)).collect();
        let chosen = self.chosen.min(shown.len().saturating_sub(1));
        let room = lines.saturating_sub(LINES_AROUND).max(1);
        let top = self.top.min(chosen).max((chosen + 1).saturating_sub(room));
        let paint = Paint::stdout();
        let cut = |text: &str| text.chars().take(columns).collect::<String>();
        let mut page = vec![paint.strong(cut(&self.look.heading(ctx))).to_string()];
        // The whole table, so that columns stay where they are while it is scrolled.
        let rendered = whole.render(Paint::none());
        let mut rendered = rendered.lines();
        page.push(paint.dim(cut(&format!("  {}", rendered.next().unwrap_or_default()))).to_string());
        let rows = rendered.zip(all).filter(|(_, row)| self.is_shown(row));
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
        if let Some(topic) = &self.inside {
            return format!("partitions of {topic}; Esc goes back, arrows choose, q ends");
        }
        match (self.is_typing, self.filter.is_empty()) {
            (true, _) => format!("/{}_  Enter keeps the filter, Esc ends it", self.filter),
            (false, true) => "q ends, / filters, arrows choose, Enter shows partitions".to_owned(),
            (false, false) => {
                let topics = print::counted(shown as u64, "topic");
                format!("{topics} with {}; Esc ends the filter, q ends", self.filter)
            }
        }
    }
}

/// The newest record of a topic, or of a partition, on one line, cut to `columns`.
fn last_record(store: &Store, row: &Row, columns: usize) -> String {
    let mut newest: Option<(TimestampMs, String)> = None;
    let partitions = row.partition.into_iter().chain(row.partitions.iter().filter_map(|one| one.partition));
    for partition in partitions {
        // What cannot be read is said where the topic stands.
        let batch = store.log(&row.topic, partition).and_then(|log| log.reader(OffsetSpec::Last(1))?.next_batch());
        let Ok(Some(batch)) = batch else { continue };
        let Some(Ok(record)) = batch.records().ok().and_then(Iterator::last) else { continue };
        if newest.as_ref().is_none_or(|(time, _)| record.timestamp >= *time) {
            let key = record.key.map(|key| format!("{}  ", escaped_bytes(key).at_most(24))).unwrap_or_default();
            let value =
                record.value.map_or("(null)".to_owned(), |value| escaped_bytes(value).at_most(columns).to_string());
            let ago = time::ago(record.timestamp);
            let text = format!("{}-{partition}:{}  {ago}  {key}{value}", row.topic, record.offset);
            newest = Some((record.timestamp, text));
        }
    }
    newest.map(|(_, text)| text.chars().take(columns).collect()).unwrap_or_default()
}
