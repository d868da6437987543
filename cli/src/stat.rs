//! `stat`: where each log stands, what it takes on the disk, and whether it was closed cleanly.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use edgelog::clients::{describe_group, list_groups};
use edgelog::edgelog_core::DecodeError;
use edgelog::escape::{escaped, escaped_path, shown_name};
use edgelog::inspect::{self, Finding, Selection};
use edgelog::{Log, OffsetSpec, RetentionHolds, Store, TimestampMs, TopicPartition};
use serde::Serialize;

use crate::context::{Context, Readable, writer_of};
use crate::failure::{Failure, INTERRUPTED, Outcome, damage, report_damage, warn};
use crate::groups;
use crate::interrupt;
use crate::print::{self, Paint};
use crate::time::{self, Stamps};

/// Show where each log stands: offsets, segments, bytes, times, what recovery put aside
///
/// Reads next to a running writer and changes nothing. The recovery point is the one of the writer's last
/// checkpoint (at most ten seconds old): what is acknowledged may be durable beyond it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog stat                   all logs
  edgelog stat cpu 'net*'        these topics, and those that a pattern names
  edgelog stat cpu --watch       again every two seconds, until Ctrl-C
  edgelog stat --json | jq 'select(.clean | not)'")]
pub(crate) struct Args {
    /// Only these topics, or topic-partition; * and ? make a pattern
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// One JSON object a line, a log each
    #[arg(long)]
    json: bool,
    /// Again after so long, until Ctrl-C; on a terminal in place of what was there
    #[arg(long, value_name = "EVERY", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = time::parse_period)]
    watch: Option<Duration>,
    /// Print times in UTC
    #[arg(long)]
    utc: bool,
}

/// One log as it was found.
#[derive(Serialize)]
struct Stat {
    topic: String,
    partition: u32,
    id: String,
    log_start_offset: i64,
    high_watermark: i64,
    recovery_point: i64,
    log_end_offset: i64,
    /// High watermark less log start: as many records, where neither compaction nor a repair left holes.
    offsets: i64,
    leader_epoch: i32,
    segments: usize,
    /// Of whole batches.
    bytes: u64,
    /// Blocks on the disk times 512: indexes and room reserved ahead included.
    disk_bytes: u64,
    /// From here on records are kept at any age, since a holder still needs them.
    held_from: Option<i64>,
    /// Who needs it.
    held_by: Vec<String>,
    /// How far each group is behind that reads it.
    groups: Vec<GroupLag>,
    oldest_timestamp: Option<i64>,
    newest_timestamp: Option<i64>,
    clean: bool,
    cut_files: Vec<CutFile>,
    /// Segments that Kafka's log cleaner did not put in place.
    swap_files: Vec<CutFile>,
    /// A segment in a format that is not read, and what is to be said of it.
    #[serde(skip)]
    unsupported: Option<String>,
}

/// How many records of a log a group has before it.
#[derive(Debug, Clone, Serialize)]
struct GroupLag {
    group: String,
    lag: i64,
}

/// All groups, by the logs that they read.
type Groups = BTreeMap<TopicPartition, Vec<GroupLag>>;

fn groups_by_log(store: &Store) -> Groups {
    let mut found = Groups::new();
    let names = list_groups(store).unwrap_or_else(|error| {
        warn(format_args!("groups cannot be listed: {}", escaped(&error)));
        Vec::new()
    });
    for name in names {
        // One that was deleted since is no news; `edgelog groups` reports those that cannot be read.
        let Ok(standing) = describe_group(store, &name).and_then(|group| groups::standing(store, &group)) else {
            continue;
        };
        for groups::Standing { log, lag } in standing {
            let (Some(log), Some(lag)) = (log, lag) else { continue };
            found.entry(log).or_default().push(GroupLag { group: name.clone(), lag });
        }
    }
    found
}

/// A file that is no part of the log: what recovery took out of it, or what Kafka left.
#[derive(Serialize)]
struct CutFile {
    file: String,
    bytes: u64,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let Some(every) = args.watch else { return once(args, ctx, false) };
    interrupt::install()?;
    let is_screen = !args.json && io::stdout().is_terminal();
    loop {
        once(args, ctx, is_screen)?;
        if interrupt::sleep(every) {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if !is_screen && !args.json {
            writeln!(io::stdout())?;
        }
    }
}

/// `is_screen`: in place of what the terminal shows.
fn once(args: &Args, ctx: &Context, is_screen: bool) -> Outcome {
    let store = ctx.attach()?;
    let mut readable = Readable::default();
    let mut selections = Vec::new();
    for name in ctx.expanded(&store, &args.topics)? {
        // Where the topic's directories are gone, what is missing of it is said all the same.
        selections.push(ctx.find(&store, &name).map_or_else(
            |_| Selection::all(),
            |target| {
                let mut selection = Selection::topic(target.topic.name);
                selection.partition = target.partition;
                selection
            },
        ));
    }
    if args.topics.is_empty() {
        selections.push(Selection::all());
        for topic in store.topics()? {
            for partition in topic.partition_ids {
                readable.add(&store, &topic.name, partition);
            }
        }
        store.missing_partitions()?.iter().for_each(|name| readable.miss(name));
    } else {
        readable = ctx.all_readable(&store, &args.topics, None)?;
    }
    let writer = writer_of(ctx.dir());
    let (holds, groups) = (store.retention_holds()?, groups_by_log(&store));
    let mut stats = Vec::new();
    for log in &readable.logs {
        match stat(log, ctx.dir(), &holds, &groups) {
            Ok(stat) => stats.push(stat),
            Err(error) => {
                damage(format_args!("{} cannot be read: {error}", log.name()));
                readable.has_lost = true;
            }
        }
    }
    if args.json {
        stats.iter().try_for_each(print::json_line)?;
    } else {
        let mut page = if is_screen { CLEAR.to_vec() } else { Vec::new() };
        print_all(&mut page, &stats, ctx, writer.as_deref(), &mut Stamps::new(args.utc))?;
        let mut out = io::stdout().lock();
        out.write_all(&page)?;
        out.flush()?;
    }
    if !args.json && stats.is_empty() && store.topics()?.is_empty() {
        warn("there are no topics yet: `edgelog append TOPIC` or `edgelog topics create TOPIC` makes one");
    }
    for text in stats.iter().filter_map(|stat| stat.unsupported.as_ref()) {
        damage(text);
        readable.has_lost = true;
    }
    let storage = inspect::open_directory(ctx.dir())?;
    let is_named = |lost: &Finding| {
        let is_its = |stat: &&Stat| {
            lost.log.as_ref().is_some_and(|log| log.topic == stat.topic && log.partition == stat.partition)
        };
        // A log that could not be read at all has none, and was named.
        stats.iter().find(is_its).is_none_or(|stat| stat.unsupported.is_some())
    };
    for selection in &selections {
        for lost in inspect::check_ends(&storage, selection)?.iter().filter(|lost| !is_named(lost)) {
            readable.has_lost |= report_damage(lost);
        }
    }
    Ok(readable.exit_code())
}

/// What a terminal takes for: to the corner, and clear what follows.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

fn stat(log: &Log, root: &Path, holds: &RetentionHolds, groups: &Groups) -> Result<Stat, Failure> {
    let name = log.name();
    let offsets = log.offsets();
    let (segments, bytes) = log.size()?;
    let held = holds.of(log);
    let mut found = Stat {
        topic: name.topic.clone(),
        partition: name.partition,
        id: format!("{:x}", log.id()),
        log_start_offset: offsets.log_start_offset.0,
        high_watermark: offsets.high_watermark.0,
        recovery_point: offsets.recovery_point.0,
        log_end_offset: offsets.log_end_offset.0,
        offsets: print::offsets_in(&offsets),
        leader_epoch: log.leader_epoch().0,
        segments,
        bytes,
        disk_bytes: 0,
        held_from: held.iter().map(|hold| hold.offset.max(offsets.log_start_offset)).min().map(i64::from),
        held_by: held.into_iter().map(|hold| hold.holder).collect(),
        groups: groups.get(name).cloned().unwrap_or_default(),
        oldest_timestamp: first_timestamp(log, OffsetSpec::Earliest, |batch| batch.base_timestamp()).map(i64::from),
        newest_timestamp: first_timestamp(log, OffsetSpec::Last(1), |batch| batch.max_timestamp()).map(i64::from),
        clean: false,
        cut_files: Vec::new(),
        swap_files: Vec::new(),
        unsupported: None,
    };
    let dir = root.join(name.to_string());
    let mut log_files_bytes = 0;
    for entry in fs::read_dir(&dir).map_err(|error| Failure::from(error).context(escaped_path(&dir)))?.flatten() {
        // A file may go between the listing and here.
        let Ok(meta) = entry.metadata() else { continue };
        let file = entry.file_name().to_string_lossy().into_owned();
        found.disk_bytes += meta.blocks() * 512;
        match Path::new(&file).extension().and_then(|extension| extension.to_str()) {
            Some("log") => {
                log_files_bytes += meta.len();
                // Such a log was put here, and no open for writing took it over.
                if offsets.recovery_point == 0 && found.unsupported.is_none() {
                    found.unsupported = old_format_in(&entry.path()).map(|text| format!("{name}/{file} at 0: {text}"));
                }
            }
            Some("swap") if file.ends_with(".log.swap") => found.swap_files.push(CutFile { file, bytes: meta.len() }),
            Some("cut") => found.cut_files.push(CutFile { file, bytes: meta.len() }),
            _ => {}
        }
    }
    // A clean close trims every file to its batches and writes down that all of it is durable.
    found.clean = log_files_bytes == bytes && offsets.recovery_point == offsets.log_end_offset;
    found.cut_files.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

/// What there is to say of a segment that begins with a message of format 0 or 1.
fn old_format_in(path: &Path) -> Option<String> {
    let mut header = Vec::new();
    File::open(path).ok()?.take(edgelog::edgelog_core::HEADER_LEN as u64).read_to_end(&mut header).ok()?;
    match edgelog::edgelog_core::RecordBatch::parse(&header) {
        Err(error @ DecodeError::OldFormat { .. }) => Some(error.to_string()),
        _ => None,
    }
}

/// A time of the batch that stands there; none where there is no batch, or damage in its place.
fn first_timestamp(
    log: &Log,
    from: OffsetSpec,
    time: impl Fn(edgelog::edgelog_core::RecordBatch<'_>) -> TimestampMs,
) -> Option<TimestampMs> {
    let batch = log.reader(from).ok()?.next_batch().ok()??;
    Some(time(batch.view()))
}

fn print_all(
    out: &mut Vec<u8>,
    stats: &[Stat],
    ctx: &Context,
    writer: Option<&str>,
    stamps: &mut Stamps,
) -> Result<(), Failure> {
    let paint = Paint::stdout();
    let disk: u64 = stats.iter().map(|stat| stat.disk_bytes).sum();
    let logs = print::counted(stats.len() as u64, "log");
    write!(out, "{}  {logs}, {} on disk", paint.strong(ctx.shown_dir()), print::bytes(disk))?;
    if let Ok(space) = rustix::fs::statvfs(ctx.dir()) {
        write!(out, " ({} free)", print::bytes(space.f_bavail.saturating_mul(space.f_frsize)))?;
    }
    match writer {
        Some(writer) => writeln!(out, ", written by process {writer}")?,
        None => writeln!(out, ", no writer")?,
    }
    stats.iter().try_for_each(|stat| print_one(out, stat, paint, writer.is_some(), stamps))
}

fn print_one(
    out: &mut impl Write,
    stat: &Stat,
    paint: Paint,
    is_written: bool,
    stamps: &mut Stamps,
) -> Result<(), Failure> {
    let line = |out: &mut dyn Write, name: &str, text: &str| {
        writeln!(out, "  {}  {text}", paint.dim(format_args!("{name:<9}")))
    };
    write!(out, "\n{}", paint.key(format_args!("{}-{}", stat.topic, stat.partition)))?;
    match (stat.clean, is_written) {
        (_, true) => writeln!(out, "  {}", paint.good("in use"))?,
        (true, false) => writeln!(out, "  {}", paint.good("closed cleanly"))?,
        (false, false) => writeln!(out, "  {}", paint.warn("not closed cleanly: the next open for writing recovers"))?,
    }
    let Stat { log_start_offset: start, high_watermark, recovery_point, log_end_offset: end, .. } = stat;
    let count = print::counted(u64::try_from(stat.offsets).unwrap_or(0), "offset");
    let watermark = if high_watermark == end { String::new() } else { format!(", high watermark {high_watermark}") };
    let offsets =
        format!("{start}..{end} ({count}){watermark}, recovery point {recovery_point}, epoch {}", stat.leader_epoch);
    line(out, "offsets", &offsets)?;
    let segments = print::counted(stat.segments as u64, "segment");
    line(
        out,
        "size",
        &format!("{} in {segments}, {} on disk", print::bytes(stat.bytes), print::bytes(stat.disk_bytes)),
    )?;
    if let (Some(oldest), Some(newest)) = (stat.oldest_timestamp, stat.newest_timestamp) {
        let oldest = stamps.of(TimestampMs(oldest)).to_owned();
        let text = format!("{oldest} to {} ({})", stamps.of(TimestampMs(newest)), time::ago(TimestampMs(newest)));
        line(out, "times", &text)?;
    }
    if let Some(held_from) = stat.held_from.filter(|offset| offset < end) {
        let holders: Vec<String> = stat.held_by.iter().map(|holder| shown_name(holder).to_string()).collect();
        let holders = holders.join(", ");
        let text = format!("from offset {held_from} on, at any age: still needed by {holders}");
        line(out, "kept", &text)?;
    }
    if !stat.groups.is_empty() {
        let lag =
            |it: &GroupLag| format!("{} is {} behind", shown_name(&it.group), print::counted(it.lag as u64, "record"));
        line(out, "groups", &stat.groups.iter().map(lag).collect::<Vec<_>>().join(", "))?;
    }
    for cut in &stat.cut_files {
        line(out, "put aside", &format!("{} ({})", escaped(&cut.file), print::bytes(cut.bytes)))?;
    }
    for swap in &stat.swap_files {
        let (file, bytes) = (escaped(&swap.file), print::bytes(swap.bytes));
        let text = format!("{file} ({bytes}), by Kafka's log cleaner: `edgelog fsck` says whether it is the only copy");
        line(out, "left over", &text)?;
    }
    Ok(())
}
