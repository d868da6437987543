//! `append`: each line of a file or of standard input becomes a record.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edgelog::edgelog_core::partition_for_key;
use edgelog::escape::{escaped_path, shown_name};
use edgelog::{AppendInfo, BatchBuilder, Durability, Header, Log, NewRecord, NewTopic, Offset, Store};
use serde::Serialize;

use crate::context::{Context, Target};
use crate::failure::{Failure, INTERRUPTED, Outcome, warn};
use crate::interrupt;
use crate::print::{self, Paint};
use crate::progress::Progress;

/// Append lines as records
///
/// Each line becomes one record, without its newline; an empty line is a record with an empty value. Lines that
/// are there at the same time share a batch, and with it a flush; a line that comes alone is appended at once.
///
/// What is printed was appended, at the durability asked for: `topic-partition @ first..last` at the end, and of
/// standard input whenever it pauses and once a second.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | edgelog append greetings
  edgelog append orders orders.txt --key-separator :
  sensor | edgelog append readings --key-separator = --header site=north --header unit=C
  edgelog append users --key-separator : --null-value '' <<< 'user-17:'     delete by tombstone

Durability (--acks): all returns after the flush to the medium; 1 and 0 leave the flush to the system, and a power cut takes \
what it had not written yet (up to half a minute). Without --acks the topic's flush.messages and flush.ms decide: all.

Partition: --partition, or by key as Kafka's clients do (murmur2), or in turns for lines without a key.")]
pub(crate) struct Args {
    /// The topic, created where it is absent; or topic-partition
    topic: String,
    /// Read lines from here; - or nothing: standard input
    file: Option<PathBuf>,
    /// Split each line at the first one of these: key before, value behind. A line without it has no key
    #[arg(long, short = 'K', value_name = "SEPARATOR", value_parser = not_empty)]
    key_separator: Option<String>,
    /// Give every record this header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "KEY=VALUE", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
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
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// On the medium
    All,
    /// In the page cache
    #[value(name = "1")]
    Leader,
    /// As 1: a local log has nobody to wait for
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
    // Before anything is created: the file has to be there.
    let input = Input::open(args.file.as_deref())?;
    interrupt::install()?;
    let store = ctx.open()?;
    let appended = append_all(args, ctx, &store, input);
    // Closing tells its own error only where nothing else went wrong before.
    let closed = store.close();
    let code = appended?;
    closed?;
    Ok(code)
}

fn append_all(args: &Args, ctx: &Context, store: &Store, input: Input) -> Outcome {
    let target = target(args, ctx, store)?;
    let mut appender = Appender::new(args, target.logs(store)?);
    let read = appender.append_input(input);
    // What was appended before an error is told before the error.
    appender.flush().and_then(|()| appender.tell()).and(read)
}

/// Finds the topic, or creates it.
fn target(args: &Args, ctx: &Context, store: &Store) -> Result<Target, Failure> {
    let topics = store.topics()?;
    let unknown = match ctx.find_in(&topics, &args.topic, args.partition) {
        Ok(target) => return Ok(target),
        Err(failure) => failure,
    };
    let names_partition =
        args.topic.rsplit_once('-').and_then(|(topic, number)| Some((topic, number.parse::<u32>().ok()?)));
    let is_there = topics
        .iter()
        .any(|topic| topic.name == args.topic || names_partition.is_some_and(|(name, _)| topic.name == name));
    if args.no_create || is_there {
        return Err(unknown);
    }
    if let Some((topic, number)) = names_partition {
        let partitions = u64::from(number) + 1;
        let (name, topic) = (shown_name(&args.topic), shown_name(topic));
        return Err(Failure::new(format!("there is no topic {name}, and no topic {topic} with a partition {number}")).hint(
            format!(
                "Say which one is meant: `edgelog topics create {name}` or `edgelog topics create {topic} --partitions {partitions}`.",
            ),
        ));
    }
    if let Some(partition @ 1..) = args.partition {
        let name = shown_name(&args.topic);
        return Err(Failure::new(format!("there is no topic {name} yet"))
            .hint(format!("`edgelog topics create {name} --partitions {}` makes it.", u64::from(partition) + 1)));
    }
    store.create_topic(&NewTopic::new(&args.topic))?;
    if !args.quiet {
        eprintln!("created topic {} with one partition", args.topic);
    }
    ctx.find_in(&store.topics()?, &args.topic, args.partition)
}

/// Where lines come from.
struct Input {
    reader: Box<dyn Read + Send>,
    name: String,
    /// Bytes, where that is known.
    len: Option<u64>,
    is_terminal: bool,
}

impl Input {
    fn open(path: Option<&Path>) -> Result<Input, Failure> {
        match path.filter(|path| *path != Path::new("-")) {
            None => {
                let is_terminal = io::stdin().is_terminal();
                Ok(Input { reader: Box::new(io::stdin()), name: "standard input".to_owned(), len: None, is_terminal })
            }
            Some(path) => {
                let name = escaped_path(path).to_string();
                let failed = |error: io::Error| Failure::from(error).context(format!("read {name}"));
                let file = File::open(path).map_err(failed)?;
                let meta = file.metadata().map_err(failed)?;
                if meta.is_dir() {
                    return Err(Failure::new(format!("read {name}: it is a directory")));
                }
                let len = meta.is_file().then_some(meta.len());
                Ok(Input { reader: Box::new(file), name, len, is_terminal: false })
            }
        }
    }
}

/// Bytes read at a time. At most `CHUNKS_AHEAD` of them wait to be appended.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_AHEAD: usize = 4;
/// A batch is appended when its records have this many bytes, however few they are.
const BATCH_BYTES: usize = 256 << 10;
/// Offsets of an input that goes on are told at least this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often a wait for input looks whether somebody asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Reads in a thread of its own, so that Ctrl-C is heard while the input is silent. The thread is never joined: it
/// ends with its input, with the channel, or with the process.
fn read_ahead(mut reader: Box<dyn Read + Send>) -> Receiver<io::Result<Vec<u8>>> {
    let (chunks, received) = sync_channel(CHUNKS_AHEAD);
    let mut read = move |chunks: &SyncSender<io::Result<Vec<u8>>>| {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let answer = match reader.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => {
                    chunk.truncate(read);
                    Ok(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = answer.is_err();
            if chunks.send(answer).is_err() || is_last {
                return;
            }
        }
    };
    std::thread::spawn(move || read(&chunks));
    received
}

/// One partition's batch in the making and what was appended of it since it was last told.
struct Lane {
    log: Log,
    batch: BatchBuilder,
    appended: Option<(Offset, Offset)>,
}

struct Appender<'a> {
    args: &'a Args,
    durability: Option<Durability>,
    headers: Vec<Header<'a>>,
    lanes: Vec<Lane>,
    /// The lane that lines without a key go to, until its batch is appended.
    turn: usize,
    /// Records and bytes in all batches in the making.
    records: usize,
    bytes: usize,
    lines: u64,
    /// When offsets were last told.
    told: Instant,
}

impl<'a> Appender<'a> {
    fn new(args: &'a Args, logs: Vec<Log>) -> Appender<'a> {
        let lane = |log: Log| Lane { batch: log.batch(), log, appended: None };
        Appender {
            args,
            durability: args.acks.map(|acks| match acks {
                Acks::All => Durability::Sync,
                Acks::Leader | Acks::None => Durability::Os,
            }),
            headers: args.headers.iter().map(|(key, value)| Header::new(key, value.as_bytes())).collect(),
            lanes: logs.into_iter().map(lane).collect(),
            turn: 0,
            records: 0,
            bytes: 0,
            lines: 0,
            told: Instant::now(),
        }
    }

    /// Appends every line until the input ends or somebody asks to stop.
    fn append_input(&mut self, input: Input) -> Outcome {
        let mut progress = input.len.map(|len| Progress::bytes("appending", len));
        if input.is_terminal {
            eprintln!("type one record a line; Ctrl-D ends");
        }
        let line_bytes_max =
            self.lanes.iter().map(|lane| lane.log.config().batch_bytes_max()).max().unwrap_or(0) as usize;
        let chunks = read_ahead(input.reader);
        let mut cut_line = Vec::new();
        loop {
            let chunk = if let Ok(chunk) = chunks.try_recv() {
                chunk
            } else {
                // Nothing waits: what is there is appended before more is waited for.
                self.flush()?;
                match self.wait(&chunks, input.len.is_none())? {
                    Waited::Chunk(chunk) => chunk,
                    Waited::End => break,
                    Waited::Interrupted => return Ok(self.interrupted(&cut_line)),
                }
            };
            let chunk = chunk.map_err(|error| Failure::from(error).context(format!("read {}", input.name)))?;
            self.append_chunk(&mut cut_line, &chunk, line_bytes_max)?;
            match &mut progress {
                Some(progress) => progress.advance(chunk.len() as u64),
                // An input that never pauses is told of all the same.
                None if self.told.elapsed() >= TELL_EVERY => self.tell()?,
                None => {}
            }
            if interrupt::raised() {
                return Ok(self.interrupted(&cut_line));
            }
        }
        if !cut_line.is_empty() {
            self.append_line(&cut_line)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn append_chunk(&mut self, cut_line: &mut Vec<u8>, chunk: &[u8], line_bytes_max: usize) -> Result<(), Failure> {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            if cut_line.is_empty() {
                self.append_line(&rest[..end])?;
            } else {
                cut_line.extend_from_slice(&rest[..end]);
                self.append_line(cut_line)?;
                cut_line.clear();
            }
            rest = &rest[end + 1..];
        }
        cut_line.extend_from_slice(rest);
        if cut_line.len() > line_bytes_max {
            let line = self.lines + 1;
            return Err(Failure::new(format!("line {line} is longer than max.message.bytes={line_bytes_max}")).hint(
                "The lines before it were appended. `edgelog topics alter TOPIC --config max.message.bytes=N` raises the limit.",
            ));
        }
        Ok(())
    }

    fn append_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.lines += 1;
        let (key, value) = match &self.args.key_separator {
            Some(separator) => split_at(line, separator.as_bytes()),
            None => (None, line),
        };
        let is_null = self.args.null_value.as_ref().is_some_and(|mark| mark.as_bytes() == value);
        let at = match key {
            Some(key) => partition_for_key(key, self.lanes.len() as u32) as usize,
            None => self.turn,
        };
        self.push(at, key, (!is_null).then_some(value))
            .map_err(|failure| failure.context(format!("line {}", self.lines)))?;
        if self.records >= self.args.batch as usize || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn push(&mut self, at: usize, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Failure> {
        let before = self.lanes[at].batch.size();
        let push = |appender: &mut Self| {
            let record = NewRecord::new(key, value).with_headers(&appender.headers);
            appender.lanes[at].batch.push(record)
        };
        match push(self) {
            Err(edgelog::Error::RecordTooLarge { .. }) if !self.lanes[at].batch.is_empty() => {
                self.flush()?;
                push(self)?;
            }
            pushed => pushed?,
        }
        self.records += 1;
        self.bytes += self.lanes[at].batch.size().saturating_sub(before);
        Ok(())
    }

    /// Appends all batches in the making.
    fn flush(&mut self) -> Result<(), Failure> {
        for lane in &mut self.lanes {
            if lane.batch.is_empty() {
                continue;
            }
            let info: AppendInfo = match self.durability {
                Some(durability) => lane.log.append_batch_with(&mut lane.batch, durability),
                None => lane.log.append_batch(&mut lane.batch),
            }
            .inspect_err(|_| lane.batch.clear())?;
            let first = lane.appended.map_or(info.base_offset, |(first, _)| first);
            lane.appended = Some((first, info.last_offset));
        }
        (self.records, self.bytes) = (0, 0);
        self.turn = (self.turn + 1) % self.lanes.len();
        Ok(())
    }

    /// Prints the offsets of what was appended since the last call.
    fn tell(&mut self) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Appended<'a> {
            topic: &'a str,
            partition: u32,
            base_offset: i64,
            last_offset: i64,
            records: i64,
        }
        self.told = Instant::now();
        for lane in &mut self.lanes {
            let Some((base_offset, last_offset)) = lane.appended.take() else { continue };
            let name = lane.log.name();
            if self.args.json {
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
                    writeln!(out, "{name} @ {base_offset}..{last_offset}")?;
                }
                out.flush()?;
            }
        }
        Ok(())
    }

    /// Waits for input; where that takes a moment and the input may go on for long (`is_live`), the offsets so far
    /// are told.
    fn wait(&mut self, chunks: &Receiver<io::Result<Vec<u8>>>, is_live: bool) -> Result<Waited, Failure> {
        loop {
            match chunks.recv_timeout(LOOK_EVERY) {
                Ok(chunk) => return Ok(Waited::Chunk(chunk)),
                // Ctrl-C ends a whole pipeline: an input that ends with it ends anywhere.
                Err(_) if interrupt::raised() => return Ok(Waited::Interrupted),
                Err(RecvTimeoutError::Disconnected) => return Ok(Waited::End),
                Err(RecvTimeoutError::Timeout) if is_live => self.tell()?,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn interrupted(&self, cut_line: &[u8]) -> ExitCode {
        if !cut_line.is_empty() {
            warn(format_args!("interrupted in the middle of line {}, which was not appended", self.lines + 1));
        }
        ExitCode::from(INTERRUPTED)
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
