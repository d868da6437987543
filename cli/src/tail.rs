//! `tail`: prints records, from where one asks and on as they come, also while another process writes.

use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use edgelog::edgelog_core::TimestampType;
use edgelog::escape::escaped_bytes;
use edgelog::inspect::{self, Finding, HiddenCheck};
use edgelog::storage::Storage;
use edgelog::{
    Batch, Error, IsolationLevel, Log, Offset, OffsetAndEpoch, OffsetSpec, Reader, Record, Store, TimestampMs,
};

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, INTERRUPTED, Outcome, tell_damage, warn};
use crate::interrupt;
use crate::json_record;
use crate::print::Paint;
use crate::screen::Screen;
use crate::time;

/// Print records, and follow
///
/// Reads beside a running writer, or when there is none, and never changes a byte. Without options it prints the
/// last ten records of each partition and then what is appended, until Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog tail cpu                              the last ten, then what comes
  edgelog tail cpu --from-beginning --no-follow all there is
  edgelog tail cpu-0 --offset 1200 -n 5         five records from an offset on
  edgelog tail cpu --since -5m                  the last five minutes, then what comes
  edgelog tail cpu --since '2026-03-01T12:00:00Z' --json | jq .payload
  edgelog tail orders --raw --no-follow --from-beginning > orders.txt

Lines: partition:offset, time, key, value, headers. Control characters and bytes that are not UTF-8 are escaped; a null value \
reads (null). --raw and --json write to a pipe or a file as the records are; on a terminal, what it could take for a command \
is escaped.

--json prints one object a line with the field names of `kcat -J`: topic, partition, offset, tstype, ts, headers, key, \
payload. headers is a flat array [name, value, name, value] and left out where there are none. Null stays null. A key or \
payload that is not UTF-8 is null, and its bytes stand in key_base64 or payload_base64; such a header's value is \
{\"base64\": ...}.

Damage: what is good on both sides is printed, the lost offsets and the place are named on standard error, and the exit code \
is 2. So it is where records are sound perhaps and cannot be printed: of a batch that decompresses to more than \
edgelog.decompressed.bytes.max or whose codec is not built in, and, reading committed records, of a transaction whose end is \
damaged. A tail torn by a crash is no damage, and a .log.swap file that Kafka's log cleaner left is a warning: nothing that the \
log holds is missing, and `edgelog fsck` exits with 2 where it is the only copy of records.")]
pub(crate) struct Args {
    /// The topic, or topic-partition
    topic: String,
    /// Start at the first record that is still there
    #[arg(long, group = "start")]
    from_beginning: bool,
    /// Start at this offset
    #[arg(long, group = "start", value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Start so many records before the end [default: 10]
    #[arg(long, group = "start", value_name = "N")]
    last: Option<u64>,
    /// Start at the first record from this time on: RFC 3339, a local date (and time), ms since 1970, -5m, '10m
    /// ago'
    #[arg(long, group = "start", value_name = "TIME", value_parser = time::parse_time, allow_hyphen_values = true)]
    since: Option<TimestampMs>,
    /// Stop at the end of what is there
    #[arg(long)]
    no_follow: bool,
    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "N")]
    max_records: Option<u64>,
    /// Only this partition
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// Which records of transactions are printed: all, or committed ones alone, up to the first transaction without an
    /// end. A log that a broker wrote may have transactions
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted", value_parser = ["read_uncommitted", "read_committed"])]
    isolation_level: String,
    /// The most bytes that the records of one batch may decompress to, in the place of
    /// edgelog.decompressed.bytes.max' default
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2147483647))]
    decompressed_bytes_max: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only values, byte for byte, a newline behind each; null is an empty line
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

impl Args {
    fn isolation(&self) -> IsolationLevel {
        isolation(&self.isolation_level)
    }

    fn start(&self) -> OffsetSpec {
        const LAST_DEFAULT: u64 = 10;
        if self.from_beginning {
            OffsetSpec::Earliest
        } else if let Some(offset) = self.offset {
            OffsetSpec::Offset(Offset(offset))
        } else if let Some(timestamp) = self.since {
            OffsetSpec::Timestamp(timestamp)
        } else {
            OffsetSpec::Last(self.last.unwrap_or(LAST_DEFAULT))
        }
    }
}

/// The level of that name, which was checked.
pub(crate) fn isolation(name: &str) -> IsolationLevel {
    match name {
        "read_committed" => IsolationLevel::ReadCommitted,
        _ => IsolationLevel::ReadUncommitted,
    }
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    interrupt::install()?;
    let mut options = Store::options();
    if let Some(bytes) = args.decompressed_bytes_max {
        options = options.set("edgelog.decompressed.bytes.max", &bytes.to_string())?;
    }
    let store = ctx.attach_with(options)?;
    let readable = ctx.readable(&store, &args.topic, args.partition)?;
    let storage = inspect::open_directory(ctx.dir())?;
    let mut hidden = None;
    let open = |log| Lane::open(log, args, &storage, &mut hidden);
    let lanes = readable.logs.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let (printer, left, has_lost) = (Printer::new(args), args.max_records, readable.has_lost);
    let mut tail = Tail { lanes, storage, printer, left, has_lost };
    // Where nothing can be read there is nothing to follow.
    let follows = !args.no_follow && !tail.lanes.is_empty();
    let ended = tail.run(follows);
    let flushed = tail.printer.out.flush();
    let is_interrupted = ended?;
    flushed?;
    Ok(match (tail.has_lost, is_interrupted) {
        (true, _) => ExitCode::from(DAMAGE),
        (false, true) => ExitCode::from(INTERRUPTED),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// How long a wait for records lasts before somebody's Ctrl-C is looked for; of several partitions, each is looked
/// at so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(10);

/// One partition and the place in it.
struct Lane {
    log: Log,
    reader: Reader,
    /// Older records are passed over.
    not_before: Option<TimestampMs>,
    /// What follows cannot be read.
    is_ended: bool,
}

impl Lane {
    /// `hidden`: kept from one partition to the next.
    fn open(
        log: Log,
        args: &Args,
        storage: &Arc<dyn Storage>,
        hidden: &mut Option<HiddenCheck>,
    ) -> Result<Lane, Failure> {
        let start = args.start();
        let options = log.reader_options().isolation(args.isolation());
        let (reader, not_before) = match log.reader_with(start, options) {
            // Looking for a time reads batches, and a medium that does not answer ends that before there is a reader.
            Err(error) if error.is_corrupt() => (log.reader_with(OffsetSpec::Earliest, options), args.since),
            // What was asked for is lost, and said to be in the end.
            Err(Error::OffsetOutOfRange { requested, log_start_offset, .. })
                if requested < log_start_offset && is_missing(&log, requested, storage, hidden)? =>
            {
                (log.reader_with(OffsetSpec::Earliest, options), None)
            }
            reader => (reader, None),
        };
        let reader = reader.map_err(|error| match error {
            Error::OffsetOutOfRange { requested, log_start_offset, log_end_offset } => {
                let name = log.name();
                Failure::new(format!(
                    "{name} does not hold offset {requested}: it holds {log_start_offset}..{log_end_offset}"
                ))
                .hint("--from-beginning starts at the first record there is, --last N before the end.")
            }
            error => error.into(),
        })?;
        Ok(Lane { log, reader, not_before, is_ended: false })
    }
}

/// Whether the record at `offset` was there and is lost, where no reader comes to.
fn is_missing(
    log: &Log,
    offset: Offset,
    storage: &Arc<dyn Storage>,
    hidden: &mut Option<HiddenCheck>,
) -> Result<bool, Failure> {
    let check = match hidden {
        Some(check) => check,
        None => hidden.insert(HiddenCheck::new(storage)?),
    };
    let holds = |(first, next)| (first..next).contains(&offset);
    Ok(check.of(log.name())?.iter().any(|hidden| hidden.lost.is_some_and(holds)))
}

struct Tail {
    lanes: Vec<Lane>,
    storage: Arc<dyn Storage>,
    /// The logs that were named.
    printer: Printer,
    left: Option<u64>,
    has_lost: bool,
}

impl Tail {
    /// Prints until the end, the last record asked for, or an interrupt, which it tells.
    fn run(&mut self, follow: bool) -> Result<bool, Failure> {
        // What is there, partition by partition.
        for at in 0..self.lanes.len() {
            while self.left != Some(0) && self.print_next(at, None)? {
                if interrupt::raised() {
                    return Ok(true);
                }
            }
        }
        let mut check = HiddenCheck::new(&self.storage)?;
        for at in 0..self.lanes.len() {
            // Before the first segment, and where damage stands above the recovery point, a reader meets nothing.
            let Lane { log, reader, .. } = &self.lanes[at];
            let position = reader.position().offset;
            for hidden in check.of(log.name())? {
                if self.left != Some(0) || hidden.lost.is_none_or(|(first, _)| first < position) {
                    self.tell_finding(&hidden)?;
                }
            }
        }
        if !follow || self.left == Some(0) {
            return Ok(false);
        }
        loop {
            self.printer.out.flush()?;
            if interrupt::raised() {
                return Ok(true);
            }
            if has_no_reader() {
                return Ok(false);
            }
            let mut any = false;
            let wait = (self.lanes.len() == 1).then_some(LOOK_EVERY);
            for at in 0..self.lanes.len() {
                any |= self.print_next(at, wait)?;
                if self.left == Some(0) {
                    return Ok(false);
                }
            }
            if !any && wait.is_none() && interrupt::sleep(LOOK_AROUND_EVERY) {
                return Ok(true);
            }
        }
    }

    /// Prints the partition's next batch, or steps over what is in the way. `false` at the end.
    fn print_next(&mut self, at: usize, wait: Option<Duration>) -> Result<bool, Failure> {
        if self.lanes[at].is_ended {
            return Ok(false);
        }
        let reader = &mut self.lanes[at].reader;
        let from = reader.position().offset;
        let next = match wait {
            Some(wait) => reader.next_batch_timeout(wait),
            None => reader.next_batch(),
        };
        match next {
            Ok(Some(batch)) => self.print_batch(at, &batch, from).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => self.step_over(at, error).map(|()| true),
        }
    }

    /// Prints the records of `batch` from offset `from` on.
    fn print_batch(&mut self, at: usize, batch: &Batch, from: Offset) -> Result<(), Failure> {
        let Lane { log, not_before, .. } = &self.lanes[at];
        // Every record is decoded before one is printed: the whole batch can be read, or none of it.
        let records = batch.records().and_then(|records| {
            records.clone().try_for_each(|record| record.map(drop))?;
            Ok(records)
        });
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                let (first, next) = (from.max(batch.base_offset()), batch.last_offset() + 1);
                return self.tell_finding(&Finding::undecodable(log.name(), first, next, &error));
            }
        };
        let kind = batch.view().timestamp_type();
        for record in records.flatten().filter(|record| not_before.is_none_or(|time| record.timestamp >= time)) {
            match &mut self.left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None => {}
            }
            self.printer.print(log, &record, kind);
        }
        self.printer.pass_on_error()
    }

    /// Says on standard error what cannot be read, and goes on behind it.
    fn step_over(&mut self, at: usize, error: Error) -> Result<(), Failure> {
        let Lane { log, reader, .. } = &mut self.lanes[at];
        let name = log.name().clone();
        match error {
            Error::CorruptRecord { .. } => {
                let lost = reader.skip_damage()?;
                self.tell_finding(&Finding::skipped(&name, &lost, &error))
            }
            Error::OffsetOutOfRange { requested, log_start_offset, .. } if requested < log_start_offset => {
                reader.seek(OffsetSpec::Earliest)?;
                self.tell(format_args!(
                    "{name}: offsets {requested}..={} are gone: retention took them",
                    log_start_offset - 1
                ))
            }
            Error::FencedLeaderEpoch { end_offset, .. } => {
                let OffsetAndEpoch { offset, .. } = reader.position();
                reader.seek(OffsetSpec::Offset(end_offset))?;
                let last = offset - 1;
                self.tell(format_args!("{name}: the writer took back offsets {end_offset}..={last} printed before; going on at {end_offset}"))
            }
            Error::Storage { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Err(Failure::new(format!("{name} is gone: the topic was deleted while it was read")))
            }
            error => {
                let position = reader.position().offset;
                let Some((finding, next)) = inspect::unreadable_segment(&self.storage, &name, &error, position) else {
                    return Err(error.into());
                };
                match next {
                    Some(next) => reader.seek(OffsetSpec::Offset(next))?,
                    None => self.lanes[at].is_ended = true,
                }
                self.tell_finding(&finding)
            }
        }
    }

    fn tell_finding(&mut self, finding: &Finding) -> Result<(), Failure> {
        self.printer.out.flush()?;
        self.has_lost |= tell_damage(finding);
        Ok(())
    }

    /// Good records printed before come first, also where both streams go to one place.
    fn tell(&mut self, message: impl std::fmt::Display) -> Result<(), Failure> {
        self.printer.out.flush()?;
        warn(message);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Raw,
}

/// Writes records to standard output. An error is kept for the caller who asks, so that the loop over records
/// stays simple.
struct Printer {
    format: Format,
    paint: Paint,
    out: BufWriter<Screen<StdoutLock<'static>>>,
    line: String,
    error: Option<io::Error>,
    /// Widths of place and key so far: they grow, so that lines stay aligned while the stream goes on.
    widths: (usize, usize),
}

/// A longer key does not push all other lines' values to the right.
const KEY_WIDTH_MAX: usize = 24;
/// One beyond this is always wider than that, and is written piece by piece.
const KEY_BYTES_PADDED: usize = 4 * KEY_WIDTH_MAX;

impl Printer {
    fn new(args: &Args) -> Printer {
        let format = match (args.json, args.raw) {
            (true, _) => Format::Json,
            (_, true) => Format::Raw,
            _ => Format::Text,
        };
        let out = io::stdout().lock();
        let out = match format {
            Format::Json => Screen::json(out),
            Format::Raw => Screen::text(out),
            Format::Text => Screen::as_is(out),
        };
        let out = BufWriter::with_capacity(64 << 10, out);
        Printer { format, paint: Paint::stdout(), out, line: String::new(), error: None, widths: (0, 0) }
    }

    fn print(&mut self, log: &Log, record: &Record<'_>, kind: TimestampType) {
        if self.error.is_some() {
            return;
        }
        let name = log.name();
        let printed = match self.format {
            Format::Json => json_record::write(&mut self.out, &name.topic, name.partition, record, kind),
            Format::Raw => {
                self.out.write_all(record.value.unwrap_or_default()).and_then(|()| self.out.write_all(b"\n"))
            }
            Format::Text => self.print_text(name.partition, record),
        };
        self.error = printed.err();
    }

    fn print_text(&mut self, partition: u32, record: &Record<'_>) -> io::Result<()> {
        let Printer { paint, out, line, widths, .. } = self;
        line.clear();
        let _ = write!(line, "{partition}:{}", record.offset);
        widths.0 = widths.0.max(line.len());
        write!(out, "{:>width$}  {}", paint.dim(&*line), paint.dim(time::rfc3339(record.timestamp)), width = widths.0)?;
        if let Some(key) = record.key.filter(|key| key.len() > KEY_BYTES_PADDED) {
            widths.1 = KEY_WIDTH_MAX;
            write!(out, "  {}", paint.key(escaped_bytes(key)))?;
        } else if let Some(key) = record.key {
            line.clear();
            let _ = write!(line, "{}", escaped_bytes(key));
            widths.1 = widths.1.max(line.chars().count().min(KEY_WIDTH_MAX));
            write!(out, "  {:<width$}", paint.key(&*line), width = widths.1)?;
        } else if widths.1 > 0 {
            write!(out, "  {:<width$}", "", width = widths.1)?;
        }
        match record.value {
            Some(value) => write!(out, "  {}", escaped_bytes(value))?,
            None => write!(out, "  {}", paint.dim("(null)"))?,
        }
        for header in record.headers() {
            let (key, value) = (escaped_bytes(header.key), escaped_bytes(header.value.unwrap_or(b"(null)")));
            write!(out, "  {}", paint.dim(format_args!("{key}={value}")))?;
        }
        out.write_all(b"\n")
    }

    fn pass_on_error(&mut self) -> Result<(), Failure> {
        self.error.take().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Whether whoever read our output has gone: nobody would be told at the next record, which may never come.
fn has_no_reader() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().contains(PollFlags::ERR)
}
