//! `tail`: prints records, from where one asks and on as they come, also while another process writes.

use std::collections::HashSet;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog::inspect::{self, Finding, HiddenCheck};
use edgelog::storage::Storage;
use edgelog::{
    Batch, Error, IsolationLevel, Log, Offset, OffsetAndEpoch, OffsetSpec, Reader, Record, Store, TimestampMs,
    TopicPartition, topic_matches,
};

use crate::context::{Context, Readable, is_pattern};
use crate::failure::{DAMAGE, Failure, INTERRUPTED, Outcome, report_damage, warn};
use crate::filter::{Filter, Start, Until, parse_start, parse_until};
use crate::format::{Format, parse_format};
use crate::interrupt;
use crate::print;
use crate::printer::{Printer, Style};
use crate::time;

/// Print records, and follow
///
/// Reads next to a running writer, or when there is none, and never changes a byte. Without options it prints the
/// last ten records of each partition and then what is appended, until Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog tail cpu                              the last ten, then what comes
  edgelog tail cpu 'net*' --utc                 several topics, and those that a pattern names
  edgelog tail cpu -o beginning -e              all there is
  edgelog tail cpu-0 -o 1200 -c 5               five records from an offset on
  edgelog tail cpu --since -5m --until now      the last five minutes
  edgelog tail cpu --since '2026-03-01T12:00:00Z' --json | jq .payload
  edgelog tail orders --key user-17 -e          all records with a key
  edgelog tail orders -f '%T %k=%s\\n' -e         lines of one's own
  edgelog tail orders --raw -e -o beginning > orders.txt

Options that kcat has mean what they mean there: -o, -e, -c, -f, -J, -Z. With --key, --grep or --header and no start, all there \
is is looked through; -c counts what is printed.

Lines: partition:offset, time, key, value, headers; with several topics, or following a pattern, \
topic-partition:offset. Times are local, with the zone's distance from UTC. Control characters and bytes that are not UTF-8 \
are escaped; a null value reads (null), an empty key \"\". On a terminal a long value is cut to the line, unless --full is there. --raw, -f and --json write to a pipe or a \
file as the records are; on a terminal, what it could take for a command is escaped.

Format (-f): %t topic, %p partition, %o offset, %k key, %K its bytes (-1: null), %s value, %S its bytes, %R its bytes as four \
bytes, %T time in ms, %h headers, %% a percent sign; \\n, \\t, \\r, \\0, \\x1e. No newline is added.

--json prints one object a line with the field names of `kcat -J`: topic, partition, offset, tstype, ts, headers, key, \
payload. headers is a flat array [name, value, name, value] and left out where there are none. Null stays null. A key or \
payload that is not UTF-8 is null, and its bytes stand in key_base64 or payload_base64; such a header's value is \
{\"base64\": ...}. `edgelog append --json` takes it.

Patterns: * stands for any characters and ? for one. A topic that is created while the command follows, and that a pattern \
names, is printed too, from its first record on.

Damage: what is good on both sides is printed, the lost offsets and the file are named on standard error, and the exit code \
is 2. So it is where records are sound perhaps and cannot be printed: of a batch that decompresses to more than \
edgelog.decompressed.bytes.max or whose codec is not built in, and, reading committed records, of a transaction whose end is \
damaged; and of a .log.swap file of Kafka's log cleaner that is their only copy. A tail torn by a crash is no damage.")]
pub(crate) struct Args {
    /// The topics, or topic-partition; * and ? make a pattern
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Start at the first record that is still there
    #[arg(long, group = "start")]
    from_beginning: bool,
    /// Start here: beginning, end, an offset, -N (so many records before the end), s@MS (a time)
    #[arg(long, short, group = "start", value_name = "OFFSET", value_parser = parse_start, allow_hyphen_values = true)]
    offset: Option<Start>,
    /// Start so many records before the end [default: 10]
    #[arg(long, group = "start", value_name = "N")]
    last: Option<u64>,
    /// Start at the first record from this time on: RFC 3339, a local date (and time), ms since 1970, -5m, '10m
    /// ago'
    #[arg(long, group = "start", value_name = "TIME", value_parser = time::parse_time, allow_hyphen_values = true)]
    since: Option<TimestampMs>,
    /// Stop before this offset, before the first record from this time on, or at what is the end now: N, a time as
    /// for --since (e@MS for ms since 1970), now
    #[arg(long, value_name = "END", value_parser = parse_until, allow_hyphen_values = true)]
    until: Option<Until>,
    /// Stop at the end of what is there
    #[arg(long, short = 'e', visible_alias = "exit")]
    no_follow: bool,
    /// Stop after so many records
    #[arg(long, short = 'n', visible_short_alias = 'c', visible_alias = "count", value_name = "N")]
    max_records: Option<u64>,
    /// Only this partition
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    #[command(flatten)]
    filter: Filter,
    /// Which records of transactions are printed: all, or committed ones alone, up to the first transaction without an
    /// end. A log that a broker wrote may have transactions
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted", value_parser = ["read_uncommitted", "read_committed"])]
    isolation_level: String,
    /// The most bytes that the records of one batch may decompress to, in place of
    /// edgelog.decompressed.bytes.max' default
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2147483647))]
    decompressed_bytes_max: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct OutputArgs {
    /// One JSON object a line
    #[arg(long, short = 'J', group = "output")]
    json: bool,
    /// Only values, byte for byte, a newline behind each; null is an empty line
    #[arg(long, group = "output")]
    raw: bool,
    /// Print each record by this format, as kcat's
    #[arg(long, short, group = "output", value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
    /// Print a key or value that is null as NULL (--raw, -f)
    #[arg(short = 'Z', id = "null")]
    shows_null: bool,
    /// Print values whole, also where they are longer than the terminal's line
    #[arg(long)]
    full: bool,
    /// Print times in UTC
    #[arg(long)]
    utc: bool,
}

impl OutputArgs {
    fn printer(&self, has_topics: bool) -> Printer {
        let OutputArgs { json, raw, format, shows_null, full, utc } = self;
        let style = match (json, raw, format) {
            (true, _, _) => Style::Json,
            (_, true, _) => Style::Raw,
            (_, _, Some(format)) => Style::Format(format.clone()),
            _ => Style::Text { is_utc: *utc, has_topics, is_cut: !full },
        };
        Printer::new(style, *shows_null)
    }
}

impl Args {
    fn isolation(&self) -> IsolationLevel {
        isolation(&self.isolation_level)
    }

    fn start(&self) -> OffsetSpec {
        const LAST_DEFAULT: u64 = 10;
        if self.from_beginning {
            OffsetSpec::Earliest
        } else if let Some(Start(spec)) = self.offset {
            spec
        } else if let Some(timestamp) = self.since {
            OffsetSpec::Timestamp(timestamp)
        } else if let Some(last) = self.last {
            OffsetSpec::Last(last)
        } else if self.filter.is_any() {
            // What is looked for may be anywhere.
            OffsetSpec::Earliest
        } else {
            OffsetSpec::Last(LAST_DEFAULT)
        }
    }

    /// The time before which records are passed over, where the start is one.
    fn not_before(&self) -> Option<TimestampMs> {
        match self.start() {
            OffsetSpec::Timestamp(time) => Some(time),
            _ => None,
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
    let later = Later::new(args, &store)?;
    let readable = ctx.all_readable(&store, &args.topics, args.partition)?;
    let storage = inspect::open_directory(ctx.dir())?;
    let mut hidden = None;
    let open = |log| Partition::open(log, args, args.start(), &storage, &mut hidden);
    let partitions = readable.logs.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let has_topics = later.is_some()
        || partitions.iter().any(|partition| partition.log.name().topic != partitions[0].log.name().topic);
    let (printer, left, has_lost) = (args.output.printer(has_topics), args.max_records, readable.has_lost);
    let mut tail = Tail { partitions, later, filter: &args.filter, storage, printer, left, has_lost };
    // Where nothing can be read there is nothing to follow.
    let follows = !args.no_follow && !tail.partitions.is_empty();
    let ended = tail.run(follows);
    let flushed = tail.printer.flush();
    let is_interrupted = ended?;
    flushed?;
    Ok(match (tail.has_lost, is_interrupted) {
        (true, _) => ExitCode::from(DAMAGE),
        (false, true) => ExitCode::from(INTERRUPTED),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// How long a wait for records lasts before the next look for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often each of several partitions is looked at.
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(10);

/// How often topics are looked for that were created meanwhile: a look lists the data directory.
const LOOK_FOR_TOPICS_EVERY: Duration = Duration::from_millis(500);

/// Partitions that a pattern names and that are created while the command follows.
struct Later<'a> {
    args: &'a Args,
    store: &'a Store,
    /// Those that are read, or that could not be.
    known: HashSet<TopicPartition>,
    looked: Instant,
}

impl Later<'_> {
    /// None where there is nothing to wait for: no pattern, or an end that is fixed now.
    fn new<'a>(args: &'a Args, store: &'a Store) -> Result<Option<Later<'a>>, Failure> {
        let is_ending = args.no_follow || args.until == Some(Until::Now);
        if is_ending || !args.topics.iter().any(|name| is_pattern(name)) {
            return Ok(None);
        }
        let mut later = Later { args, store, known: HashSet::new(), looked: Instant::now() };
        later.look()?;
        Ok(Some(later))
    }

    /// The partitions that were not there at the last look.
    fn look(&mut self) -> Result<Vec<TopicPartition>, Failure> {
        self.looked = Instant::now();
        let patterns: Vec<&String> = self.args.topics.iter().filter(|name| is_pattern(name)).collect();
        let mut new = Vec::new();
        for topic in self.store.topics()? {
            if !patterns.iter().any(|pattern| topic_matches(pattern, &topic.name)) {
                continue;
            }
            let is_asked_for = |id: &u32| self.args.partition.is_none_or(|asked| asked == *id);
            for partition in topic.partition_ids.into_iter().filter(is_asked_for) {
                let name = TopicPartition::new(&topic.name, partition);
                if self.known.insert(name.clone()) {
                    new.push(name);
                }
            }
        }
        Ok(new)
    }

    /// From where on such a partition is printed: all of it came since.
    fn start(&self) -> OffsetSpec {
        match self.args.start() {
            time @ OffsetSpec::Timestamp(_) => time,
            _ => OffsetSpec::Earliest,
        }
    }
}

/// One partition and the place in it.
struct Partition {
    log: Log,
    reader: Reader,
    /// Older records are passed over.
    not_before: Option<TimestampMs>,
    /// Where to stop.
    until: Option<Until>,
    end: PartitionEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartitionEnd {
    /// More may come.
    Open,
    /// `until` was met.
    Reached,
    /// What follows cannot be read.
    Unreadable,
}

impl Partition {
    /// `hidden`: kept from one partition to the next.
    fn open(
        log: Log,
        args: &Args,
        start: OffsetSpec,
        storage: &Arc<dyn Storage>,
        hidden: &mut Option<HiddenCheck>,
    ) -> Result<Partition, Failure> {
        let options = log.reader_options().isolation(args.isolation());
        let (reader, not_before) = match log.reader_with(start, options) {
            // Looking for a time reads batches, and a disk that does not answer ends that before there is a reader.
            Err(error) if error.is_corrupt() => (log.reader_with(OffsetSpec::Earliest, options), args.not_before()),
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
        let until = match args.until {
            Some(Until::Now) => Some(Until::Offset(log.offsets().high_watermark)),
            until => until,
        };
        Ok(Partition { log, reader, not_before, until, end: PartitionEnd::Open })
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

struct Tail<'a> {
    /// The logs that were named.
    partitions: Vec<Partition>,
    /// Those that may yet come.
    later: Option<Later<'a>>,
    filter: &'a Filter,
    storage: Arc<dyn Storage>,
    printer: Printer,
    left: Option<u64>,
    has_lost: bool,
}

impl Tail<'_> {
    /// Prints until the end, the last record asked for, or an interrupt. Returns whether it was an interrupt.
    fn run(&mut self, follow: bool) -> Result<bool, Failure> {
        // What is there, partition by partition.
        for at in 0..self.partitions.len() {
            while self.left != Some(0) && self.print_next(at, None)? {
                if interrupt::raised() {
                    return Ok(true);
                }
            }
        }
        let mut check = HiddenCheck::new(&self.storage)?;
        for at in 0..self.partitions.len() {
            // Before the first segment, and where damage stands above the recovery point, a reader meets nothing.
            let Partition { log, reader, end, .. } = &self.partitions[at];
            let position = reader.position().offset;
            let is_bounded = self.left == Some(0) || *end == PartitionEnd::Reached;
            for hidden in check.of(log.name())? {
                if !is_bounded || hidden.lost.is_none_or(|(first, _)| first < position) {
                    self.report_finding(&hidden)?;
                }
            }
        }
        if !follow || self.left == Some(0) {
            return Ok(false);
        }
        loop {
            self.printer.flush()?;
            if interrupt::raised() {
                return Ok(true);
            }
            self.take_up_new()?;
            if has_no_reader() || self.partitions.iter().all(|partition| partition.end != PartitionEnd::Open) {
                return Ok(false);
            }
            let mut any = false;
            let wait = (self.partitions.len() == 1).then_some(LOOK_EVERY);
            for at in 0..self.partitions.len() {
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

    /// Opens what was created since the last look, where one is due.
    fn take_up_new(&mut self) -> Result<(), Failure> {
        let Some(later) = self.later.as_mut().filter(|later| later.looked.elapsed() >= LOOK_FOR_TOPICS_EVERY) else {
            return Ok(());
        };
        let mut readable = Readable::default();
        for name in later.look()? {
            // Named by itself too, or created between the first look and the opening of the others.
            if self.partitions.iter().all(|partition| *partition.log.name() != name) {
                readable.add(later.store, &name.topic, name.partition);
            }
        }
        self.has_lost |= readable.has_lost;
        for log in readable.logs {
            self.partitions.push(Partition::open(log, later.args, later.start(), &self.storage, &mut None)?);
        }
        Ok(())
    }

    /// Prints the partition's next batch, or steps over what is in the way. `false` at the end.
    fn print_next(&mut self, at: usize, wait: Option<Duration>) -> Result<bool, Failure> {
        let Partition { reader, until, end, .. } = &mut self.partitions[at];
        let from = reader.position().offset;
        if *end == PartitionEnd::Open && matches!(until, Some(Until::Offset(until)) if from >= *until) {
            *end = PartitionEnd::Reached;
        }
        if *end != PartitionEnd::Open {
            return Ok(false);
        }
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
        let Partition { log, not_before, until, .. } = &self.partitions[at];
        // Every record is decoded before one is printed: the whole batch can be read, or none of it.
        let records = batch.records().and_then(|records| {
            records.clone().try_for_each(|record| record.map(drop))?;
            Ok(records)
        });
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                let (first, next) = (from.max(batch.base_offset()), batch.last_offset() + 1);
                return self.report_finding(&Finding::undecodable(log.name(), first, next, &error));
            }
        };
        let kind = batch.view().timestamp_type();
        let is_reached = |record: &Record<'_>| match until {
            Some(Until::Offset(until)) => record.offset >= *until,
            Some(Until::Time(until)) => record.timestamp >= *until,
            Some(Until::Now) | None => false,
        };
        let mut is_end = false;
        self.printer.begin_batch();
        for record in records.flatten() {
            is_end = is_reached(&record);
            if is_end {
                break;
            }
            if not_before.is_some_and(|time| record.timestamp < time) || !self.filter.takes(&record) {
                continue;
            }
            match &mut self.left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None => {}
            }
            self.printer.print(log.name(), &record, kind);
        }
        if is_end {
            self.partitions[at].end = PartitionEnd::Reached;
        }
        Ok(self.printer.pass_on_error()?)
    }

    /// Says on standard error what cannot be read, and goes on behind it.
    fn step_over(&mut self, at: usize, error: Error) -> Result<(), Failure> {
        let Partition { log, reader, .. } = &mut self.partitions[at];
        let name = log.name().clone();
        match error {
            Error::CorruptRecord { .. } => {
                let lost = reader.skip_damage()?;
                let skipped = Finding::all_skipped(&name, &lost, &error);
                skipped.iter().try_for_each(|finding| self.report_finding(finding))
            }
            Error::OffsetOutOfRange { requested, log_start_offset, .. } if requested < log_start_offset => {
                reader.seek(OffsetSpec::Earliest)?;
                self.warn(format_args!(
                    "{name}: {} deleted before they were read; going on at {log_start_offset}",
                    print::offsets_were(requested, log_start_offset)
                ))
            }
            Error::FencedLeaderEpoch { end_offset, .. } => {
                let OffsetAndEpoch { offset, .. } = reader.position();
                reader.seek(OffsetSpec::Offset(end_offset))?;
                self.warn(format_args!(
                    "{name}: {} truncated by the writer after they were printed; going on at {end_offset}",
                    print::offsets_were(end_offset, offset)
                ))
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
                    None => self.partitions[at].end = PartitionEnd::Unreadable,
                }
                self.report_finding(&finding)
            }
        }
    }

    fn report_finding(&mut self, finding: &Finding) -> Result<(), Failure> {
        self.printer.flush()?;
        self.has_lost |= report_damage(finding);
        Ok(())
    }

    /// Good records printed before come first, also where both streams go to one place.
    fn warn(&mut self, message: impl std::fmt::Display) -> Result<(), Failure> {
        self.printer.flush()?;
        warn(message);
        Ok(())
    }
}

/// Whether the reader of our output has gone. Writing the next record would show that too, but it may never come.
fn has_no_reader() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().contains(PollFlags::ERR)
}
