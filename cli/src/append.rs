//! `append`: lines, whole files, or records as JSON become records.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edgelog::edgelog_core::partition_for_key;
use edgelog::escape::shown_name;
use edgelog::{AppendInfo, BatchBuilder, Durability, Header, Log, NewRecord, NewTopic, Offset, Store, TimestampMs};
use serde::Serialize;

use crate::context::{Context, Target};
use crate::failure::{Failure, INTERRUPTED, Outcome, warn};
use crate::input::{Input, Splitter, unescape};
use crate::interrupt;
use crate::json_record::{self, Parsed};
use crate::print::{self, Paint};
use crate::progress::Progress;
use crate::time;

/// Append lines, whole files, or JSON as records
///
/// Each line becomes one record, without its newline; an empty line is a record with an empty value. Lines that
/// are there at the same time share a batch, and with it a flush; a line that comes alone is appended at once.
///
/// With --json, each line is a record as `edgelog tail --json` and `kcat -J` print it, with its key, headers and time.
///
/// What is printed was appended, at the durability asked for: `topic-partition @ first to last` at the end, and of
/// standard input whenever it pauses and once a second.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | edgelog append greetings
  edgelog append orders orders.txt --key-separator :
  sensor | edgelog append readings --key-separator = --header site=north --header unit=C
  edgelog append users --key-separator : --null-value '' <<< 'user-17:'     delete by tombstone
  edgelog append photos --file a.jpg --key a.jpg                            a whole file
  find . -print0 | edgelog append names --delimiter '\\0'                   values with newlines
  edgelog tail cpu --json -e | edgelog append cpu.copy --json               copy records

Durability (--acks): all returns after the flush to the disk; 1 and 0 leave the flush to the system, and a power cut takes \
what it had not written yet (up to half a minute). Without --acks the topic's flush.messages and flush.ms decide: all.

Partition: --partition, or the record's own (--json), or by key as Kafka's clients do (murmur2), or in turns for records \
without a key.

JSON (--json): payload or payload_base64 has to be there, and null is a tombstone; key, key_base64, headers, ts, partition and \
topic may be. The record keeps its ts and gets a new offset. Where TOPIC is named, all records go there; without TOPIC, \
standard input is read, and each goes into the topic that it names. A field with another name is an error, and what stands \
before it was appended.")]
pub(crate) struct Args {
    /// The topic, created where it is absent; or topic-partition
    #[arg(required_unless_present = "json")]
    topic: Option<String>,
    /// Read lines from here; - or nothing: standard input
    #[arg(conflicts_with = "whole_files")]
    path: Option<PathBuf>,
    /// Append this whole file as one value; - is standard input; may be repeated
    #[arg(long = "file", value_name = "FILE", conflicts_with_all = ["json", "delimiter", "key_separator"])]
    whole_files: Vec<PathBuf>,
    /// Read records as JSON, one a line, as `edgelog tail --json` prints them
    #[arg(long, short = 'J', conflicts_with_all = ["delimiter", "key_separator", "null_value", "key", "timestamp"])]
    json: bool,
    /// What ends a record, in place of a newline; \n, \t, \0 and \x1e are read as escapes
    #[arg(long, short = 'D', value_name = "DELIMITER", value_parser = parse_delimiter)]
    delimiter: Option<Delimiter>,
    /// Split each line at the first one of these: key before, value behind. A line without it has no key
    #[arg(long, short = 'K', value_name = "SEPARATOR", value_parser = not_empty)]
    key_separator: Option<String>,
    /// Give every record this key
    #[arg(long, short, value_name = "KEY", conflicts_with = "key_separator")]
    key: Option<String>,
    /// Give every record this header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "KEY=VALUE", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
    /// Give every record this time: RFC 3339, a local date (and time), ms since 1970, -5m. Without: now
    #[arg(long, value_name = "TIME", value_parser = time::parse_time, allow_hyphen_values = true)]
    timestamp: Option<TimestampMs>,
    /// When an append counts as done
    #[arg(long, value_enum)]
    acks: Option<Acks>,
    /// Append to this partition
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// At most so many records to a batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// A value that reads like this is null (a tombstone)
    #[arg(long, value_name = "MARK")]
    null_value: Option<String>,
    /// Fail where the topic is absent
    #[arg(long)]
    no_create: bool,
    /// Print no offsets
    #[arg(long, short)]
    quiet: bool,
    /// Print offsets as JSON, one object a line
    #[arg(long, conflicts_with = "quiet")]
    json_offsets: bool,
}

/// A delimiter with its escapes read.
#[derive(Debug, Clone)]
struct Delimiter(Vec<u8>);

fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    let bytes = unescape(text)?;
    if bytes.is_empty() { Err("a delimiter has at least one character".to_owned()) } else { Ok(Delimiter(bytes)) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// On the disk
    All,
    /// In the page cache
    #[value(name = "1")]
    Leader,
    /// As 1: a local log has no replicas to wait for
    #[value(name = "0")]
    None,
}

/// Reads `key=value`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected key=value".to_owned()),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a separator has at least one character".to_owned()) } else { Ok(text.to_owned()) }
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    // Before anything is created: the input has to be there.
    let inputs = match args.whole_files.as_slice() {
        [] => vec![Input::open(args.path.as_deref())?],
        paths => {
            let is_stdin = |path: &&PathBuf| path.as_path() == Path::new("-");
            if paths.iter().filter(is_stdin).count() > 1 {
                return Err(Failure::new("--file - is standard input, which can be read once"));
            }
            paths.iter().map(|path| Input::open(Some(path))).collect::<Result<_, _>>()?
        }
    };
    if let (true, Some(topic), None) = (args.json, &args.topic, &args.path) {
        if Path::new(topic).is_file() {
            let topic = shown_name(topic);
            return Err(Failure::new(format!("{topic} is a file, and a topic's name comes before it"))
                .hint("`edgelog append TOPIC FILE --json` appends to TOPIC, `edgelog append --json < FILE` to the topics that records name."));
        }
    }
    interrupt::install()?;
    let store = ctx.open()?;
    let appended = append_all(args, ctx, &store, inputs);
    // An error of closing is reported only if nothing went wrong before.
    let closed = store.close();
    let code = appended?;
    closed?;
    Ok(code)
}

fn append_all(args: &Args, ctx: &Context, store: &Store, inputs: Vec<Input>) -> Outcome {
    let mut appender = Appender::new(args, ctx, store);
    if let Some(topic) = &args.topic {
        appender.add(topic)?;
    }
    // Up to the last input, or the one in which Ctrl-C or an error ends it.
    let mut read = Ok(false);
    for input in inputs {
        read = appender.append_input(input);
        if !matches!(read, Ok(false)) {
            break;
        }
    }
    // What was appended before an error is reported before the error, also where the last batch is refused.
    let flushed = appender.flush();
    appender.print_offsets()?;
    flushed?;
    for topic in &appender.topics {
        if let (Some(oldest), Some(writer)) = (topic.oldest, topic.writers.first()) {
            warn_of_retention(&writer.log, oldest);
        }
    }
    Ok(if read? { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Says that records go soon which were old when they came.
pub(crate) fn warn_of_retention(log: &Log, oldest: TimestampMs) {
    let (name, keep_ms) = (&log.name().topic, log.config().retention_ms);
    let now = log.batch().now();
    if keep_ms >= 0 && now.0.saturating_sub(oldest.0) > keep_ms {
        warn(format_args!(
            "{name} has records of {} now, and retention.ms={keep_ms}: records as old as these are deleted with their segment. \
             `edgelog topics alter {name} --config retention.ms=-1` keeps them",
            time::rfc3339(oldest)
        ));
    }
}

/// Finds the topic, or creates it.
fn target(args: &Args, ctx: &Context, store: &Store, name: &str) -> Result<Target, Failure> {
    let topics = store.topics()?;
    let unknown = match ctx.find_in(&topics, name, args.partition) {
        Ok(target) => return Ok(target),
        Err(failure) => failure,
    };
    let names_partition = name.rsplit_once('-').and_then(|(topic, number)| Some((topic, number.parse::<u32>().ok()?)));
    let is_there =
        topics.iter().any(|topic| topic.name == name || names_partition.is_some_and(|(name, _)| topic.name == name));
    if args.no_create || is_there {
        return Err(unknown);
    }
    if let Some((topic, number)) = names_partition {
        let partitions = u64::from(number) + 1;
        let (name, topic) = (shown_name(name), shown_name(topic));
        return Err(Failure::new(format!("there is no topic {name}, and no topic {topic} with a partition {number}")).hint(
            format!(
                "Say which one is meant: `edgelog topics create {name}` or `edgelog topics create {topic} --partitions {partitions}`.",
            ),
        ));
    }
    if let Some(partition @ 1..) = args.partition {
        let name = shown_name(name);
        return Err(Failure::new(format!("there is no topic {name} yet"))
            .hint(format!("`edgelog topics create {name} --partitions {}` makes it.", u64::from(partition) + 1)));
    }
    store.create_topic(&NewTopic::new(name))?;
    if !args.quiet {
        eprintln!("created topic {name} with one partition");
    }
    ctx.find_in(&store.topics()?, name, args.partition)
}

/// A batch is appended when its records have this many bytes, however few they are.
const BATCH_BYTES: usize = 256 << 10;
/// A line of JSON has at most so many bytes: base64 and escapes make a record longer.
const JSON_LINE_BYTES_MAX: usize = 256 << 20;
/// While an input goes on, offsets are printed at least this often.
const PRINT_EVERY: Duration = Duration::from_secs(1);
/// How often a wait for input looks for a request to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether `record` would take the batch, uncompressed, beyond what a segment of its log holds. A record alone does not:
/// compressed it may fit, and where it does not, the log's own error names the limit.
pub(crate) fn is_full(batch: &BatchBuilder, bytes_max: u32, record: &NewRecord<'_>) -> bool {
    // Each length or delta is a varint of at most ten bytes: of a record six of them, of a header two.
    const RECORD_OVERHEAD_MAX: usize = 64;
    const HEADER_OVERHEAD_MAX: usize = 20;
    let headers = record.headers.iter();
    let headers: usize =
        headers.map(|header| HEADER_OVERHEAD_MAX + header.key.len() + header.value.map_or(0, <[u8]>::len)).sum();
    let record =
        RECORD_OVERHEAD_MAX + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers;
    !batch.is_empty() && batch.size() + record > bytes_max as usize
}

/// One partition's open batch, and the offsets that were appended since the last time they were printed.
struct PartitionWriter {
    log: Log,
    batch: BatchBuilder,
    /// A batch of several records has at most so many bytes.
    bytes_max: u32,
    appended: Option<(Offset, Offset)>,
}

/// The partitions that are appended to, of one topic.
struct Topic {
    /// As the command line or a record names it.
    name: String,
    writers: Vec<PartitionWriter>,
    /// One partition was named: a record's own counts for nothing.
    is_one_partition: bool,
    /// The writer that gets records without a key, until its batch is appended.
    turn: usize,
    /// Of the records that bring their own.
    oldest: Option<TimestampMs>,
}

impl Topic {
    /// The index of the writer for a record.
    fn writer_index(&self, partition: Option<u32>, key: Option<&[u8]>) -> Result<usize, Failure> {
        match (partition, key) {
            (Some(partition), _) if !self.is_one_partition => {
                let is_it = |writer: &PartitionWriter| writer.log.name().partition == partition;
                self.writers.iter().position(is_it).ok_or_else(|| {
                    let (name, count) = (shown_name(&self.name), u64::from(partition) + 1);
                    Failure::new(format!("topic {name} has no partition {partition}")).hint(format!(
                        "`edgelog topics create {name} --partitions {count}` makes it beforehand; --partition N appends all \
                         records to one."
                    ))
                })
            }
            (_, Some(key)) => Ok(partition_for_key(key, self.writers.len() as u32) as usize),
            (_, None) => Ok(self.turn),
        }
    }
}

struct Appender<'a> {
    args: &'a Args,
    ctx: &'a Context,
    store: &'a Store,
    durability: Option<Durability>,
    headers: Vec<Header<'a>>,
    topics: Vec<Topic>,
    /// Records and bytes in all batches in the making.
    records: usize,
    bytes: usize,
    /// Lines, or other records, of the input so far.
    lines: u64,
    /// When offsets were last printed.
    printed: Instant,
}

impl<'a> Appender<'a> {
    fn new(args: &'a Args, ctx: &'a Context, store: &'a Store) -> Appender<'a> {
        Appender {
            args,
            ctx,
            store,
            durability: args.acks.map(|acks| match acks {
                Acks::All => Durability::Sync,
                Acks::Leader | Acks::None => Durability::Os,
            }),
            headers: args.headers.iter().map(|(key, value)| Header::new(key, value.as_bytes())).collect(),
            topics: Vec::new(),
            records: 0,
            bytes: 0,
            lines: 0,
            printed: Instant::now(),
        }
    }

    /// The topic that is named so, opened or created when it is named first.
    fn add(&mut self, name: &str) -> Result<usize, Failure> {
        if let Some(at) = self.topics.iter().rposition(|topic| topic.name == name) {
            return Ok(at);
        }
        let target = target(self.args, self.ctx, self.store, name)?;
        let writer = |log: Log| PartitionWriter {
            batch: log.batch(),
            bytes_max: log.config().batch_bytes_max(),
            log,
            appended: None,
        };
        let writers = target.logs(self.store)?.into_iter().map(writer).collect();
        self.topics.push(Topic {
            name: name.to_owned(),
            writers,
            is_one_partition: target.partition.is_some(),
            turn: 0,
            oldest: None,
        });
        Ok(self.topics.len() - 1)
    }

    /// Appends every record until the input ends or a stop is requested. Returns whether a stop was requested.
    fn append_input(&mut self, input: Input) -> Result<bool, Failure> {
        let Input { len, is_terminal, .. } = input;
        let name = input.name.clone();
        let mut progress = len.map(|len| Progress::bytes("appending", len));
        if is_terminal {
            eprintln!("type one record a line; Ctrl-D ends");
        }
        let delimiter = self.args.delimiter.as_ref().map_or(&b"\n"[..], |delimiter| &delimiter.0);
        let is_whole = !self.args.whole_files.is_empty();
        let mut splitter = Splitter::new((!is_whole).then_some(delimiter));
        let chunks = input.read_ahead();
        loop {
            let chunk = if let Ok(chunk) = chunks.try_recv() {
                chunk
            } else {
                // Nothing waits: what is there is appended before more is waited for.
                self.flush()?;
                match self.wait(&chunks, len.is_none())? {
                    Waited::Chunk(chunk) => chunk,
                    Waited::End => break,
                    Waited::Interrupted => {
                        self.report_cut(&splitter);
                        return Ok(true);
                    }
                }
            };
            let chunk = chunk.map_err(|error| Failure::from(error).context(format!("read {name}")))?;
            splitter.take(&chunk, |line| self.append_line(line))?;
            self.check_length(splitter.begun(), &name)?;
            match &mut progress {
                Some(progress) => progress.advance(chunk.len() as u64),
                // Offsets of an input that never pauses are printed as well.
                None if self.printed.elapsed() >= PRINT_EVERY => self.print_offsets()?,
                None => {}
            }
            if interrupt::raised() {
                self.report_cut(&splitter);
                return Ok(true);
            }
        }
        if is_whole || !splitter.begun().is_empty() {
            self.append_line(splitter.begun())?;
        }
        Ok(false)
    }

    /// Refuses what would fill the memory before its end comes.
    fn check_length(&self, begun: &[u8], name: &str) -> Result<(), Failure> {
        if self.args.json {
            if begun.len() <= JSON_LINE_BYTES_MAX {
                return Ok(());
            }
            let line = self.lines + 1;
            return Err(Failure::new(format!("line {line} is longer than {JSON_LINE_BYTES_MAX} bytes")));
        }
        // Compressed it may fit a segment; what is longer than max.message.bytes does not become a record.
        let writers = self.topics.iter().flat_map(|topic| &topic.writers);
        let bytes_max = writers.map(|writer| writer.log.config().max_message_bytes).max().unwrap_or(0);
        if begun.len() <= bytes_max as usize {
            return Ok(());
        }
        let (what, before) = match &self.args.whole_files[..] {
            [] => (format!("line {}", self.lines + 1), "The lines before it were appended. "),
            _ => (name.to_owned(), "Files before it were appended. "),
        };
        Err(Failure::new(format!("{what} is longer than max.message.bytes={bytes_max}"))
            .hint(format!("{before}`edgelog topics alter TOPIC --config max.message.bytes=N` raises the limit.")))
    }

    fn append_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.lines += 1;
        // A blank line between two objects says nothing.
        if self.args.json && line.trim_ascii().is_empty() {
            return Ok(());
        }
        let appended = if self.args.json { self.append_json(line) } else { self.append_text(line) };
        appended.map_err(|failure| failure.context(format!("line {}", self.lines)))?;
        if self.records >= self.args.batch as usize || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn append_text(&mut self, line: &[u8]) -> Result<(), Failure> {
        let (key, value) = match (&self.args.key, &self.args.key_separator) {
            (Some(key), _) => (Some(key.as_bytes()), line),
            (None, Some(separator)) => split_at(line, separator.as_bytes()),
            (None, None) => (None, line),
        };
        let is_null = self.args.null_value.as_ref().is_some_and(|mark| mark.as_bytes() == value);
        let at = (0, self.topics[0].writer_index(None, key)?);
        self.push(
            at,
            &Parsed {
                key: key.map(Cow::Borrowed),
                value: (!is_null).then_some(Cow::Borrowed(value)),
                timestamp: self.args.timestamp.map(|time| time.0),
                ..Parsed::default()
            },
        )
    }

    fn append_json(&mut self, line: &[u8]) -> Result<(), Failure> {
        let record = json_record::parse(line).map_err(Failure::new)?;
        let topic = match (&self.args.topic, &record.topic) {
            (Some(_), _) => 0,
            (None, Some(topic)) => self.add(topic)?,
            (None, None) => return Err(Failure::new("it names no topic, and neither does the command line")),
        };
        let at = (topic, self.topics[topic].writer_index(record.partition, record.key.as_deref())?);
        self.push(at, &record)
    }

    /// Puts the record into the batch of its topic and partition.
    fn push(&mut self, (topic, writer): (usize, usize), record: &Parsed<'_>) -> Result<(), Failure> {
        let own = record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() });
        let headers: Vec<Header<'_>> = own.chain(self.headers.iter().copied()).collect();
        let new = NewRecord::new(record.key.as_deref(), record.value.as_deref()).with_headers(&headers);
        let new = record.timestamp.map_or(new, |time| new.with_timestamp(TimestampMs(time)));
        let PartitionWriter { batch, bytes_max, .. } = &self.topics[topic].writers[writer];
        if is_full(batch, *bytes_max, &new) {
            self.flush()?;
        }
        let batch = &self.topics[topic].writers[writer].batch;
        let (before, is_first) = (batch.size(), batch.is_empty());
        match self.topics[topic].writers[writer].batch.push(new) {
            Err(edgelog::Error::RecordTooLarge { .. }) if !is_first => {
                self.flush()?;
                self.topics[topic].writers[writer].batch.push(new)?;
            }
            pushed => pushed?,
        }
        let oldest = [self.topics[topic].oldest, new.timestamp].into_iter().flatten().min();
        self.topics[topic].oldest = oldest;
        self.records += 1;
        self.bytes += self.topics[topic].writers[writer].batch.size().saturating_sub(before);
        Ok(())
    }

    /// Appends all batches in the making.
    fn flush(&mut self) -> Result<(), Failure> {
        for topic in &mut self.topics {
            for writer in &mut topic.writers {
                if writer.batch.is_empty() {
                    continue;
                }
                let info: AppendInfo = match self.durability {
                    Some(durability) => writer.log.append_batch_with(&mut writer.batch, durability),
                    None => writer.log.append_batch(&mut writer.batch),
                }
                .inspect_err(|_| writer.batch.clear())?;
                let first = writer.appended.map_or(info.base_offset, |(first, _)| first);
                writer.appended = Some((first, info.last_offset));
            }
            topic.turn = (topic.turn + 1) % topic.writers.len();
        }
        (self.records, self.bytes) = (0, 0);
        Ok(())
    }

    /// Prints the offsets of what was appended since the last call.
    fn print_offsets(&mut self) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Appended<'a> {
            topic: &'a str,
            partition: u32,
            base_offset: i64,
            last_offset: i64,
            records: i64,
        }
        self.printed = Instant::now();
        for writer in self.topics.iter_mut().flat_map(|topic| &mut topic.writers) {
            let Some((base_offset, last_offset)) = writer.appended.take() else { continue };
            let name = writer.log.name();
            if self.args.json_offsets {
                let (topic, partition) = (name.topic.as_str(), name.partition);
                let records = last_offset - base_offset + 1;
                print::json_line(&Appended {
                    topic,
                    partition,
                    base_offset: base_offset.0,
                    last_offset: last_offset.0,
                    records,
                })?;
            } else if !self.args.quiet {
                let mut out = io::stdout().lock();
                let name = Paint::stdout().strong(name);
                if base_offset == last_offset {
                    writeln!(out, "{name} @ {base_offset}")?;
                } else {
                    writeln!(out, "{name} @ {base_offset} to {last_offset}")?;
                }
                out.flush()?;
            }
        }
        Ok(())
    }

    /// Waits for input. If that takes a moment, and the input may go on for long (`is_live`), the offsets so far are
    /// printed.
    fn wait(&mut self, chunks: &Receiver<io::Result<Vec<u8>>>, is_live: bool) -> Result<Waited, Failure> {
        loop {
            match chunks.recv_timeout(LOOK_EVERY) {
                Ok(chunk) => return Ok(Waited::Chunk(chunk)),
                // Ctrl-C ends a whole pipeline: an input that ends with it ends anywhere.
                Err(_) if interrupt::raised() => return Ok(Waited::Interrupted),
                Err(RecvTimeoutError::Disconnected) => return Ok(Waited::End),
                Err(RecvTimeoutError::Timeout) if is_live => self.print_offsets()?,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Says what an interrupt cut.
    fn report_cut(&self, splitter: &Splitter) {
        if !splitter.begun().is_empty() {
            let what = match &self.args.whole_files[..] {
                [] => format!("line {}", self.lines + 1),
                _ => "a file".to_owned(),
            };
            warn(format_args!("interrupted in the middle of {what}, which was not appended"));
        }
    }
}

enum Waited {
    Chunk(io::Result<Vec<u8>>),
    End,
    Interrupted,
}

/// The key before the first separator and the value behind it; no key where there is no separator.
fn split_at<'l>(line: &'l [u8], separator: &[u8]) -> (Option<&'l [u8]>, &'l [u8]) {
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split_at(b"a:b:c", b":"), (Some(&b"a"[..]), &b"b:c"[..]));
        assert_eq!(split_at(b"a", b":"), (None, &b"a"[..]));
        assert_eq!(split_at(b":", b":"), (Some(&b""[..]), &b""[..]));
        assert_eq!(split_at(b"a=>b", b"=>"), (Some(&b"a"[..]), &b"b"[..]));
    }
}
