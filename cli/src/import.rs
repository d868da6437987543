//! `import`: the twin of `export`. A file of records, or partition directories, become a topic.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use edgelog::edgelog_core::partition_for_key;
use edgelog::escape::{escaped_path, shown_name};
use edgelog::inspect;
use edgelog::storage::Storage;
use edgelog::{
    BatchBuilder, Durability, Error, Header, Log, NewRecord, NewTopic, OffsetSpec, Reader, Record, Store, TimestampMs,
    Topic, TopicPartition,
};

use crate::append::{is_full, warn_of_retention};
use crate::context::{Context, Target};
use crate::csv::{Columns, Rows};
use crate::failure::{DAMAGE, Failure, INTERRUPTED, Outcome, report_damage};
use crate::input::{Input, Splitter};
use crate::inspected::{self, Watch};
use crate::json_record::{self, Parsed};
use crate::progress::Progress;
use crate::{interrupt, print};

/// Import a topic from what `edgelog export` wrote
///
/// Takes JSON lines, CSV, or the partition directories of an export or of a stopped Kafka broker. A file is read twice:
/// a line that is no record is found before anything is appended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog import cpu cpu.jsonl                       what `edgelog export cpu --format json` wrote
  edgelog import orders orders.csv --partition 0
  edgelog import cpu /tmp/kafka                      /tmp/kafka/cpu-0 and so on, with their offsets
  ssh gw7 edgelog export cpu --format json --to - | edgelog import gw7.cpu - --format json

json: one object a line, as `edgelog tail --json`, `edgelog export --format json` and `kcat -J` print them. Keys, values, \
headers, times and partitions are kept.
csv: the first row names the columns, of which value has to be there: partition, offset, timestamp, key, value, headers. An \
empty field is null, \"\" an empty text, base64:... bytes.
kafka: PATH is a directory with partition directories (TOPIC-0, TOPIC-1), or one of these. The topic must not be there yet.

Offsets: kafka keeps them. With json and csv each record gets the next offset of its partition, and the last line says where \
that is another one than the file's.

Once more: an import of json or csv that was interrupted goes on where it stopped, by the same command. Records that the topic \
has are compared with the file's and passed over; where they differ, nothing is appended. --append appends all of the file \
behind what the topic has. An import of kafka leaves nothing behind when it is interrupted; where it was killed, the next one says what to do.

Retention: a topic that is created here has retention.ms=-1, and one from partition directories deletes nothing until \
`edgelog topics alter` changes it: records that are imported may be old.")]
pub(crate) struct Args {
    /// The topic, created where it is absent; or topic-partition (json, csv)
    topic: String,
    /// A file (json, csv; - is standard input) or a directory (kafka)
    path: PathBuf,
    /// What is read [default: as the name ends (.csv, .json, .jsonl, .ndjson), and kafka for a directory]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Append all records to this partition (json, csv)
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// Create the topic with so many partitions [default: as many as the file names, and 1 of standard input]
    #[arg(long, value_name = "N", conflicts_with = "partition")]
    partitions: Option<u32>,
    /// Append all records behind what the topic has (json, csv)
    #[arg(long)]
    append: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Partition directories of an export or a broker
    Kafka,
    /// JSON lines
    Json,
    /// Comma-separated values
    Csv,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let format = format_of(args)?;
    interrupt::install()?;
    if format == Format::Kafka {
        return import_directories(args, ctx);
    }
    let is_stdin = args.path == Path::new("-");
    // Before anything is created: the file is there, and all of it is records.
    let mut found = Found::default();
    let input = Input::open(Some(&args.path))?;
    let input = if is_stdin {
        input
    } else {
        let note = |record: Parsed<'_>| {
            found.note(&record);
            Ok(())
        };
        if each_record(input, format, "checking", note)? {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Input::open(Some(&args.path))?
    };
    let store = ctx.open()?;
    let imported = import_records(args, ctx, &store, (input, format), found.partitions);
    // Closing reports its own error only where nothing else went wrong before.
    let closed = store.close();
    let code = imported?;
    closed?;
    Ok(code)
}

fn format_of(args: &Args) -> Result<Format, Failure> {
    let is_dir = args.path.is_dir();
    let by_name = match args.path.extension().and_then(|extension| extension.to_str()) {
        _ if is_dir => Some(Format::Kafka),
        Some("csv") => Some(Format::Csv),
        Some("json" | "jsonl" | "ndjson") => Some(Format::Json),
        _ => None,
    };
    let format = args.format.or(by_name).ok_or_else(|| {
        let path = escaped_path(&args.path);
        Failure::new(format!("{path} does not say what it holds")).hint("Say --format json, csv or kafka.")
    })?;
    if format == Format::Kafka && (args.partition.is_some() || args.partitions.is_some() || args.append) {
        return Err(Failure::new("--partition, --partitions and --append are for --format json and csv"));
    }
    Ok(format)
}

/// What the first reading of a file finds.
#[derive(Default)]
struct Found {
    /// As many as the records' own need.
    partitions: u32,
}

impl Found {
    fn note(&mut self, record: &Parsed<'_>) {
        self.partitions = self.partitions.max(record.partition.map_or(1, |partition| partition.saturating_add(1)));
    }
}

/// A line or row has at most so many bytes: base64 and escapes make a record longer.
const LINE_BYTES_MAX: usize = 256 << 20;
/// How often a wait for input looks for a request to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What cuts an input and reads the pieces.
enum Lines {
    Json(Splitter),
    Csv(Rows, Option<Columns>),
}

impl Lines {
    fn begun(&self) -> &[u8] {
        match self {
            Lines::Json(splitter) => splitter.begun(),
            Lines::Csv(rows, _) => rows.begun(),
        }
    }

    /// Hands out every record that ends in `chunk`. `lines` counts.
    fn take(
        &mut self,
        chunk: &[u8],
        lines: &mut u64,
        record: &mut dyn FnMut(Parsed<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Lines::Json(splitter) => splitter.take(chunk, |line| {
                *lines += 1;
                if line.trim_ascii().is_empty() {
                    return Ok(());
                }
                json_record::parse(line).map_err(Failure::new).and_then(&mut *record)
            }),
            Lines::Csv(rows, columns) => rows.take(chunk, |row| {
                *lines += 1;
                match columns {
                    None => *columns = Some(Columns::parse(row).map_err(Failure::new)?),
                    Some(_) if row.is_empty() || row == b"\r" => {}
                    Some(columns) => columns.record(row).map_err(Failure::new).and_then(&mut *record)?,
                }
                Ok(())
            }),
        }
    }
}

/// Reads the input until it ends or a stop is requested. Returns whether a stop was requested.
fn each_record(
    input: Input,
    format: Format,
    label: &str,
    mut record: impl FnMut(Parsed<'_>) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut lines_of = match format {
        Format::Csv => Lines::Csv(Rows::default(), None),
        _ => Lines::Json(Splitter::new(Some(b"\n"))),
    };
    let mut progress = input.len.map_or_else(|| Progress::spinner(label), |len| Progress::bytes(label, len));
    let what = if format == Format::Csv { "row" } else { "line" };
    let name = input.name.clone();
    let mut lines = 0;
    let chunks = input.read_ahead();
    loop {
        let chunk = match chunks.recv_timeout(LOOK_EVERY) {
            // Ctrl-C ends a whole pipeline: an input that ends with it ends anywhere.
            _ if interrupt::raised() => return Ok(true),
            Ok(chunk) => chunk.map_err(|error| Failure::from(error).context(format!("read {name}")))?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let taken = lines_of.take(&chunk, &mut lines, &mut record);
        taken.map_err(|failure| failure.context(format!("{name}, {what} {lines}")))?;
        if lines_of.begun().len() > LINE_BYTES_MAX {
            let text = format!("{name}, {what} {} is longer than {LINE_BYTES_MAX} bytes", lines + 1);
            return Err(Failure::new(text));
        }
        progress.advance(chunk.len() as u64);
    }
    if !lines_of.begun().is_empty() {
        let taken = lines_of.take(b"\n", &mut lines, &mut record);
        taken.map_err(|failure| failure.context(format!("{name}, {what} {lines}")))?;
    }
    if !lines_of.begun().is_empty() {
        return Err(Failure::new(format!("{name}, {what} {}: a quote has no end", lines + 1)));
    }
    Ok(false)
}

fn import_records(
    args: &Args,
    ctx: &Context,
    store: &Store,
    (input, format): (Input, Format),
    partitions: u32,
) -> Outcome {
    let target = target(args, ctx, store, partitions)?;
    let mut importer = Importer::new(args, &target, target.logs(store)?)?;
    let read = each_record(input, format, "importing", |record| importer.import(&record));
    // What came before an error is kept, and the next run passes over it.
    let flushed = importer.finish();
    let is_interrupted = read.and_then(|read| flushed.map(|()| read))?;
    importer.report(is_interrupted);
    Ok(if is_interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Finds the topic, or creates it.
fn target(args: &Args, ctx: &Context, store: &Store, partitions: u32) -> Result<Target, Failure> {
    let topics = store.topics()?;
    let name = &args.topic;
    let is_there = topics.iter().any(|topic| topic.name == *name);
    let names_partition = name.parse::<TopicPartition>().is_ok();
    if is_there || names_partition {
        return ctx.find_in(&topics, name, args.partition);
    }
    let partitions = match (args.partitions, args.partition) {
        (Some(partitions), _) => partitions,
        (None, Some(partition)) => partition.saturating_add(1),
        (None, None) => partitions.max(1),
    };
    store.create_topic(&NewTopic::new(name).partitions(partitions).config("retention.ms", "-1"))?;
    let partitions = print::counted(partitions.into(), "partition");
    eprintln!("created topic {name} with {partitions} and retention.ms=-1: nothing is deleted for its age");
    ctx.find_in(&store.topics()?, name, args.partition)
}

/// One partition that is imported into.
struct PartitionWriter {
    log: Log,
    batch: BatchBuilder,
    /// A batch of several records has at most so many bytes.
    bytes_max: u32,
    /// What the log had before, which the file has to begin with; `None` when that was passed over.
    before: Option<Before>,
    /// The offset of the file's next record.
    next: i64,
    appended: u64,
    passed_over: u64,
    /// Records whose offset in the file is another one.
    moved: u64,
    oldest: Option<TimestampMs>,
}

/// The records of a log in their order.
struct Before {
    reader: Reader,
    records: VecDeque<Had>,
}

struct Had {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Had {
    fn new(record: &Record<'_>) -> Had {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Had {
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers().map(|header| (header.key.to_vec(), owned(header.value))).collect(),
        }
    }

    fn is(&self, record: &Parsed<'_>) -> bool {
        let headers = record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        self.key.as_deref() == record.key.as_deref()
            && self.value.as_deref() == record.value.as_deref()
            && record.timestamp.is_none_or(|timestamp| timestamp == self.timestamp)
            && self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).eq(headers)
    }
}

impl Before {
    fn next(&mut self) -> Result<Option<Had>, Failure> {
        while self.records.is_empty() {
            let Some(batch) = self.reader.next_batch()? else { return Ok(None) };
            for record in batch.records()? {
                self.records.push_back(Had::new(&record?));
            }
        }
        Ok(self.records.pop_front())
    }
}

/// Batches are appended when they have so many records or bytes.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 256 << 10;

struct Importer {
    topic: String,
    writers: Vec<PartitionWriter>,
    is_one_partition: bool,
    records: u64,
}

impl Importer {
    fn new(args: &Args, target: &Target, logs: Vec<Log>) -> Result<Importer, Failure> {
        let writer = |log: Log| {
            let offsets = log.offsets();
            let before = if args.append {
                None
            } else if offsets.log_start_offset > 0 {
                let text = format!("{} begins at offset {}", log.name(), offsets.log_start_offset);
                return Err(Failure::new(text).hint(
                    "What was deleted of it cannot be compared with the file. Import into a new topic, or say --append to \
                     append all of the file behind what is there.",
                ));
            } else {
                Some(Before { reader: log.reader(OffsetSpec::Earliest)?, records: VecDeque::new() })
            };
            let next = offsets.log_end_offset.0;
            let batch = log.batch();
            let bytes_max = log.config().batch_bytes_max();
            Ok(PartitionWriter {
                log,
                batch,
                bytes_max,
                before,
                next,
                appended: 0,
                passed_over: 0,
                moved: 0,
                oldest: None,
            })
        };
        let writers = logs.into_iter().map(writer).collect::<Result<_, Failure>>()?;
        let topic = target.topic.name.clone();
        Ok(Importer { topic, writers, is_one_partition: target.partition.is_some(), records: 0 })
    }

    /// By number, by key, or in turns that are the same in each run.
    fn writer_index(&self, record: &Parsed<'_>) -> Result<usize, Failure> {
        let count = self.writers.len() as u32;
        match (record.partition, &record.key) {
            (Some(partition), _) if !self.is_one_partition => {
                let is_it = |writer: &PartitionWriter| writer.log.name().partition == partition;
                self.writers.iter().position(is_it).ok_or_else(|| {
                    let name = &self.topic;
                    Failure::new(format!("topic {name} has no partition {partition}")).hint(format!(
                        "Import into a new topic with --partitions {}, or all records into one with --partition N.",
                        u64::from(partition) + 1
                    ))
                })
            }
            (_, Some(key)) => Ok(partition_for_key(key, count) as usize),
            (_, None) => Ok((self.records % u64::from(count)) as usize),
        }
    }

    /// Passes over the record where the log has it, or appends it.
    fn import(&mut self, record: &Parsed<'_>) -> Result<(), Failure> {
        let at = self.writer_index(record)?;
        self.records += 1;
        let writer = &mut self.writers[at];
        if let Some(before) = &mut writer.before {
            if let Some(had) = before.next()? {
                if !had.is(record) {
                    let text = format!("{} holds another record at offset {}", writer.log.name(), had.offset);
                    return Err(Failure::new(text).hint(
                        "The topic does not begin with the records of this import, and none of the others was appended. Import \
                         into a new topic, or say --append to append all of the file behind what is there.",
                    ));
                }
                writer.passed_over += 1;
                writer.moved += u64::from(record.offset.is_some_and(|offset| offset != had.offset));
                return Ok(());
            }
            writer.before = None;
        }
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let new = NewRecord::new(record.key.as_deref(), record.value.as_deref()).with_headers(&headers);
        let new = record.timestamp.map_or(new, |time| new.with_timestamp(TimestampMs(time)));
        if is_full(&writer.batch, writer.bytes_max, &new) {
            writer.append()?;
        }
        match writer.batch.push(new) {
            Err(Error::RecordTooLarge { .. }) if !writer.batch.is_empty() => {
                writer.append()?;
                writer.batch.push(new)?;
            }
            pushed => pushed?,
        }
        writer.oldest = [writer.oldest, new.timestamp].into_iter().flatten().min();
        writer.moved += u64::from(record.offset.is_some_and(|offset| offset != writer.next));
        writer.next += 1;
        if writer.batch.len() >= BATCH_RECORDS || writer.batch.size() >= BATCH_BYTES {
            writer.append()?;
        }
        Ok(())
    }

    /// Appends what is left. On return, all that was appended is on the disk.
    fn finish(&mut self) -> Result<(), Failure> {
        for writer in &mut self.writers {
            writer.append()?;
            if writer.appended > 0 {
                writer.log.flush()?;
            }
        }
        Ok(())
    }

    fn report(&self, is_interrupted: bool) {
        for writer in self.writers.iter().filter(|writer| writer.appended + writer.passed_over > 0) {
            let appended = print::counted(writer.appended, "record");
            let offsets = match writer.appended {
                0 => String::new(),
                count => {
                    let next = writer.log.offsets().log_end_offset;
                    format!(" ({})", print::offsets_in_words(next - count as i64, next))
                }
            };
            let passed_over = match writer.passed_over {
                0 => String::new(),
                count => format!(", {} was there already", print::counted(count, "record"))
                    .replace("records was", "records were"),
            };
            let moved = match writer.moved {
                0 => String::new(),
                count => format!("; {} has another offset than in the file", print::counted(count, "record"))
                    .replace("records has", "records have"),
            };
            eprintln!("{}: {appended} appended{offsets}{passed_over}{moved}", writer.log.name());
            if let Some(oldest) = writer.oldest {
                warn_of_retention(&writer.log, oldest);
            }
        }
        if is_interrupted {
            eprintln!("interrupted: the same command goes on where this one stopped");
        }
    }
}

impl PartitionWriter {
    fn append(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let count = self.batch.len() as u64;
        // One flush at the end makes all of it durable.
        let appended = self.log.append_batch_with(&mut self.batch, Durability::Os);
        appended.inspect_err(|_| self.batch.clear())?;
        self.appended += count;
        Ok(())
    }
}

/// Partition directories become partitions, each record at its offset.
fn import_directories(args: &Args, ctx: &Context) -> Outcome {
    let (dir, logs) = partition_directories(args)?;
    let source = inspect::open_directory(&dir)?;
    // Makes the store where there is none, and refuses where another process has it.
    let store = ctx.open()?;
    let there = store.topics()?.into_iter().find(|topic| topic.name == args.topic);
    store.close()?;
    let shown = shown_name(&args.topic);
    if let Some(topic) = there {
        return Err(is_there_already(&topic, &logs, ctx));
    }
    let target: Arc<dyn Storage> = inspect::open_directory_for_repair(ctx.dir())?;
    let mut watch = Watch::new("importing");
    let imported =
        inspect::import_partitions(&source, &logs, &target, &args.topic, &mut |progress| watch.look(progress));
    drop(watch);
    let reports = match imported {
        Ok(reports) => reports,
        Err(Error::Storage { source, path, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            let text = format!("{} is there already", escaped_path(&ctx.dir().join(path)));
            return Err(Failure::new(text).hint("Import under another name, or remove what stands there."));
        }
        Err(error) => return inspected::stopped(error),
    };
    // The store takes the partitions over when it is opened.
    let store = ctx.open()?;
    let mut damaged = false;
    for (log, report) in logs.iter().zip(&reports) {
        for finding in &report.lost {
            damaged |= report_damage(finding);
        }
        let offsets = report.offsets.map(|(first, next)| format!(" ({})", print::offsets_in_words(first, next)));
        let records = print::counted(report.records, "record");
        let name = TopicPartition::new(&args.topic, log.partition);
        eprintln!("{name}: {records}{}, {}", offsets.unwrap_or_default(), print::bytes(report.bytes));
    }
    store.close()?;
    eprintln!("nothing of {shown} is deleted until `edgelog topics alter {shown} --config retention.ms=...` says when");
    Ok(if damaged { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS })
}

/// The topic that is imported is there, whole, or as a killed import left it: some of its partitions had their names, and
/// the others stand as TOPIC-PARTITION.part.
fn is_there_already(topic: &Topic, logs: &[TopicPartition], ctx: &Context) -> Failure {
    let shown = shown_name(&topic.name);
    let names = |ids: Vec<u32>| {
        let names: Vec<String> = ids.into_iter().map(|id| format!("{shown}-{id}")).collect();
        names.join(", ")
    };
    let is_part = |id: &u32| ctx.dir().join(format!("{}-{id}.part", topic.name)).is_dir();
    let left: Vec<u32> =
        logs.iter().map(|log| log.partition).filter(|id| !topic.partition_ids.contains(id)).filter(is_part).collect();
    if left.is_empty() {
        return Failure::new(format!("topic {shown} is there already, and partition directories make a new one"))
            .hint("Import under another name.");
    }
    let (there, left) = (names(topic.partition_ids.clone()), names(left));
    Failure::new(format!("topic {shown} is there in part: {there}. An import of it was killed before it put {left} in place"))
        .hint(format!(
            "`edgelog topics delete {shown}` removes what is there, and then the same import makes all of it. Nothing of the \
             source is touched. Where records were appended to {shown} since, import under another name."
        ))
}

/// Where the partition directories stand, and which these are.
fn partition_directories(args: &Args) -> Result<(PathBuf, Vec<TopicPartition>), Failure> {
    let shown = escaped_path(&args.path).to_string();
    let failed = |error: io::Error| Failure::from(error).context(format!("read {shown}"));
    let is_log = |path: &Path| {
        let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.any(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
    };
    let path = args.path.canonicalize().map_err(failed)?;
    let named = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    if let (Some(log), Some(parent), true) = (named, path.parent(), is_log(&path)) {
        return Ok((parent.to_owned(), vec![log]));
    }
    let mut logs: Vec<TopicPartition> = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let log = entry.file_name().to_str().and_then(|name| name.parse().ok());
        logs.extend(log.filter(|_| is_log(&entry.path())));
    }
    logs.sort();
    let mut topics: Vec<&str> = logs.iter().map(|log| log.topic.as_str()).collect();
    topics.dedup();
    let topic = match topics[..] {
        [] => {
            return Err(Failure::new(format!("{shown} holds no partition directory"))
                .hint("It has to hold directories such as cpu-0 with .log files in them, or be one of these."));
        }
        [only] => only.to_owned(),
        _ if topics.contains(&args.topic.as_str()) => args.topic.clone(),
        _ => {
            let shown_topics: Vec<String> = topics.iter().take(12).map(|topic| shown_name(topic).to_string()).collect();
            let topic = shown_name(&args.topic);
            return Err(Failure::new(format!("{shown} holds several topics, and none of them is {topic}"))
                .hint(format!("They are {}.", shown_topics.join(", "))));
        }
    };
    logs.retain(|log| log.topic == topic);
    Ok((path, logs))
}
