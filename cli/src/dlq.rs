//! `dlq`: list, show, requeue and purge dead letters.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use edgelog::clients::{
    DeadLetter, Producer, ProducerRecord, attach_group_store, describe_group, list_groups, open_group_store,
};
use edgelog::edgelog_core::Header;
use edgelog::escape::{escaped, escaped_bytes, shown_name};
use edgelog::{Log, Offset, OffsetSpec, Record, Store, TimestampMs, TopicPartition};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome, confirm, refuse_stray_options};
use crate::groups::failed;
use crate::print::{self, Align, Table};
use crate::time;

/// So much of a value is shown.
const SHOWN_BYTES_MAX: usize = 200;
/// So many dead letters are sent again before the next ones are read.
const IN_FLIGHT_MAX: usize = 1000;

/// List, show, requeue and purge dead letters: records that could not be processed
///
/// Dead letters are in topics of their own, with the record they are of and headers that say where it was and why it was set
/// aside. A topic is shown here where its name begins with `dlq.`, or its last record is a dead letter. Groups that are hosted
/// by a process that does not write the store have such topics in a store of their own: --group NAME means that one.
/// Without a command: the list.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog dlq                                   which there are, and how many
  edgelog dlq show dlq.jobs                     what each of them is, and why
  edgelog dlq requeue dlq.jobs --dry-run        where they would go
  edgelog dlq requeue dlq.jobs                  back to where they came from, and out of dlq.jobs
  edgelog dlq purge dlq.jobs --until 120        delete those before offset 120
  edgelog dlq show dlq.jobs --group uploads     in the group's own store

A requeued record goes to the end of its topic, for all groups that read it. Where that stops half-way, requeue again: what
is there already is not appended twice.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Requeue(Requeue),
    Purge(Purge),
}

/// List dead letter topics: how many there are in each partition, since when, and the last reason
#[derive(clap::Args, Default, PartialEq, Eq)]
struct List {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Print times in UTC
    #[arg(long)]
    utc: bool,
}

/// Which dead letters
#[derive(clap::Args)]
struct Which {
    /// The topic, or topic-partition
    topic: String,
    /// The one in this group's own store, not in the data directory
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

/// Show dead letters: where each record was, why it was set aside, and its value
#[derive(clap::Args)]
struct Show {
    #[command(flatten)]
    which: Which,
    /// Only the last ones, so many of each partition
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Print times in UTC
    #[arg(long)]
    utc: bool,
}

/// Append the records to the topics that they came from, and delete their dead letters
#[derive(clap::Args)]
struct Requeue {
    #[command(flatten)]
    which: Which,
    /// Only those before this offset of the dead letter topic
    #[arg(long, value_name = "OFFSET")]
    until: Option<i64>,
    /// To this topic
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Print what would be appended, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Delete dead letters for good, the oldest first
#[derive(clap::Args)]
struct Purge {
    #[command(flatten)]
    which: Which,
    /// Only those before this offset of the dead letter topic
    #[arg(long, value_name = "OFFSET")]
    until: Option<i64>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match &args.command {
        None => list(&args.list, ctx),
        Some(command) => {
            refuse_stray_options(&args.list, "dlq");
            match command {
                Command::List(args) => list(args, ctx),
                Command::Show(args) => show(args, ctx),
                Command::Requeue(args) => requeue(args, ctx),
                Command::Purge(args) => purge(args, ctx),
            }
        }
    }
}

impl Which {
    /// The store that the topic is in, to look at.
    fn attach(&self, ctx: &Context) -> Result<Store, Failure> {
        let store = ctx.attach()?;
        self.group.as_ref().map_or(Ok(store), |group| own_store_of(ctx, group))
    }

    /// The logs, in their order.
    fn logs(&self, ctx: &Context, store: &Store) -> Result<Vec<Log>, Failure> {
        ctx.find(store, &self.topic)?.logs(store)
    }

    /// The other options that name the same.
    fn as_options(&self) -> String {
        self.group.as_ref().map_or(String::new(), |group| format!(" --group {}", shown_name(group)))
    }
}

/// A share group's own store, to look at.
fn own_store_of(ctx: &Context, group: &str) -> Result<Store, Failure> {
    attach_group_store(&ctx.attach()?, group).map_err(failed)
}

/// Calls `each` for the records of a log before `until`, until it returns `false`.
fn for_each(
    log: &Log,
    from: OffsetSpec,
    until: Option<Offset>,
    mut each: impl FnMut(&Record<'_>) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut reader = log.reader(from)?;
    let begin = reader.position().offset;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records()? {
            let record = record?;
            let is_over = until.is_some_and(|until| record.offset >= until);
            if is_over || (record.offset >= begin && !each(&record)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    partition: u32,
    /// Whose own store it is in.
    group: Option<&'a str>,
    dead_letters: i64,
    log_start_offset: i64,
    log_end_offset: i64,
    oldest_timestamp: Option<i64>,
    newest_timestamp: Option<i64>,
    last_reason: Option<String>,
}

fn row<'a>(log: &'a Log, group: Option<&'a str>) -> Result<Option<Row<'a>>, Failure> {
    let (mut oldest, mut newest, mut last_reason, mut is_one) = (None, None, None, false);
    for_each(log, OffsetSpec::Last(1), None, |record| {
        newest = Some(record.timestamp.0);
        let found = DeadLetter::parse(record);
        is_one = found.is_some();
        last_reason = found.map(|found| found.reason.to_owned());
        Ok(true)
    })?;
    let name = log.name();
    if !is_one && !name.topic.starts_with("dlq.") {
        return Ok(None);
    }
    for_each(log, OffsetSpec::Earliest, None, |record| {
        oldest = Some(record.timestamp.0);
        Ok(false)
    })?;
    let offsets = log.offsets();
    Ok(Some(Row {
        topic: &name.topic,
        partition: name.partition,
        group,
        dead_letters: print::offsets_in(&offsets),
        log_start_offset: offsets.log_start_offset.0,
        log_end_offset: offsets.log_end_offset.0,
        oldest_timestamp: oldest,
        newest_timestamp: newest,
        last_reason,
    }))
}

fn list(args: &List, ctx: &Context) -> Outcome {
    let store = ctx.attach()?;
    let mut stamps = time::Stamps::new(args.utc);
    let mut table = Table::new(&[
        ("PARTITION", Align::Left),
        ("IN", Align::Left),
        ("DEAD LETTERS", Align::Right),
        ("FIRST", Align::Left),
        ("LAST", Align::Left),
        ("LAST REASON", Align::Left),
    ]);
    let mut is_empty = true;
    let mut add = |store: &Store, group: Option<&str>| -> Result<(), Failure> {
        for topic in store.topics()?.iter().filter(|topic| !topic.name.starts_with("__")) {
            for partition in &topic.partition_ids {
                let log = store.log(&topic.name, *partition)?;
                let Some(row) = row(&log, group)? else { continue };
                is_empty = false;
                if args.json {
                    print::json_line(&row)?;
                    continue;
                }
                let mut stamp = |ms: Option<i64>| ms.map_or("-".to_owned(), |ms| stamps.of(TimestampMs(ms)).to_owned());
                table.row([
                    log.name().to_string(),
                    group.map_or("-".to_owned(), |group| format!("group {}", shown_name(group))),
                    print::grouped(row.dead_letters),
                    stamp(row.oldest_timestamp),
                    stamp(row.newest_timestamp),
                    row.last_reason.map_or(String::new(), |reason| escaped(reason).to_string()),
                ]);
            }
        }
        Ok(())
    };
    add(&store, None)?;
    for group in list_groups(&store).map_err(failed)? {
        // Of plain consumers as well: their dead letter queues are there, where the process is attached.
        add(&attach_group_store(&store, &group).map_err(failed)?, Some(&group))?;
    }
    if !args.json && is_empty {
        eprintln!("no dead letters in {}", ctx.shown_dir());
    } else if !args.json {
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Shown<'a> {
    topic: &'a str,
    partition: u32,
    offset: i64,
    timestamp: i64,
    source_topic: &'a str,
    source_partition: u32,
    source_offset: i64,
    source_timestamp: Option<i64>,
    group: Option<&'a str>,
    delivery_count: Option<u16>,
    reason: &'a str,
    key: Option<String>,
    value: Option<String>,
}

fn show(args: &Show, ctx: &Context) -> Outcome {
    let store = args.which.attach(ctx)?;
    let mut stamps = time::Stamps::new(args.utc);
    let mut out = std::io::stdout().lock();
    for log in args.which.logs(ctx, &store)? {
        let from = args.last.map_or(OffsetSpec::Earliest, OffsetSpec::Last);
        let name = log.name();
        for_each(&log, from, None, |record| {
            let Some(found) = DeadLetter::parse(record) else {
                if !args.json {
                    writeln!(out, "{name} at offset {}: not a dead letter\n", record.offset)?;
                }
                return Ok(true);
            };
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            if args.json {
                print::json_line(&Shown {
                    topic: &name.topic,
                    partition: name.partition,
                    offset: record.offset.0,
                    timestamp: record.timestamp.0,
                    source_topic: &found.log.topic,
                    source_partition: found.log.partition,
                    source_offset: found.offset.0,
                    source_timestamp: found.timestamp.map(i64::from),
                    group: found.group,
                    delivery_count: found.delivery_count,
                    reason: found.reason,
                    key: text(record.key),
                    value: text(record.value),
                })?;
                return Ok(true);
            }
            let at = stamps.of(record.timestamp).to_owned();
            writeln!(out, "{name} at offset {}, {at}", record.offset)?;
            write!(out, "  was     {} at offset {}", escaped(&found.log), found.offset)?;
            match found.timestamp {
                Some(timestamp) => writeln!(out, ", {}", stamps.of(timestamp))?,
                None => writeln!(out)?,
            }
            if let Some(group) = found.group {
                let count = found.delivery_count.map(|count| format!(", delivered {}", times(count)));
                writeln!(out, "  group   {}{}", shown_name(group), count.unwrap_or_default())?;
            }
            writeln!(out, "  reason  {}", escaped(found.reason))?;
            for (what, bytes) in [("key", record.key), ("value", record.value)] {
                let Some(bytes) = bytes else { continue };
                let (shown, rest) = bytes.split_at(bytes.len().min(SHOWN_BYTES_MAX));
                let rest = if rest.is_empty() { String::new() } else { format!(" ... and {} bytes more", rest.len()) };
                writeln!(out, "  {what:<6}  {}{rest}", escaped_bytes(shown))?;
            }
            writeln!(out)?;
            Ok(true)
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn times(count: u16) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Where a dead letter's record goes, which has to be there.
fn place(args: &Requeue, store: &Store, at: &TopicPartition, record: &Record<'_>) -> Result<TopicPartition, Failure> {
    let offset = record.offset;
    let Some(found) = DeadLetter::parse(record) else {
        return Err(Failure::new(format!(
            "{at} at offset {offset} is not a dead letter; nothing from there on was appended"
        )));
    };
    if record.key.is_none() && record.value.is_none() {
        let text = format!("the dead letter of {at} at offset {offset} has no copy of its record");
        let hint = format!("Before it: --until {offset}. `edgelog dlq purge` deletes it.");
        return Err(Failure::new(text).hint(hint));
    }
    let topic = args.to.as_ref().unwrap_or(&found.log.topic);
    let partitions = store.topic(topic).map(|topic| topic.partition_ids.len()).map_err(|error| {
        Failure::from(error)
            .context(format_args!("the record of offset {offset} was in {}", escaped(&found.log)))
            .hint("--to names another topic.")
    })?;
    let partition = u32::try_from(partitions).map_or(0, |count| found.log.partition % count.max(1));
    Ok(TopicPartition::new(topic.as_str(), partition))
}

fn requeue(args: &Requeue, ctx: &Context) -> Outcome {
    let until = args.until.map(Offset);
    if args.dry_run {
        let (store, from) = (ctx.attach()?, args.which.attach(ctx)?);
        let mut out = std::io::stdout().lock();
        for log in args.which.logs(ctx, &from)? {
            for_each(&log, OffsetSpec::Earliest, until, |record| {
                let to = place(args, &store, log.name(), record)?;
                writeln!(out, "{} at offset {} to {}", log.name(), record.offset, escaped(to))?;
                Ok(true)
            })?;
        }
        eprintln!("nothing was changed: without --dry-run it would be");
        return Ok(ExitCode::SUCCESS);
    }
    let store = Arc::new(ctx.open()?);
    let own = match &args.which.group {
        Some(group) => Some(open_group_store(&store, group).map_err(failed)?),
        None => None,
    };
    let from = own.as_ref().unwrap_or(&store);
    let mut total = 0;
    for log in args.which.logs(ctx, from)? {
        // All of them have a place, before the first one is appended.
        for_each(&log, OffsetSpec::Earliest, until, |record| place(args, &store, log.name(), record).map(|_| true))?;
        total += requeue_log(args, &store, &log, until)?;
    }
    if let Some(own) = &own {
        own.close()?;
    }
    store.close()?;
    eprintln!("requeued {}", print::counted(total, "record"));
    Ok(ExitCode::SUCCESS)
}

/// Appends the records once, however often that is tried, and deletes their dead letters when that is durable.
fn requeue_log(args: &Requeue, store: &Arc<Store>, log: &Log, until: Option<Offset>) -> Result<u64, Failure> {
    let failed = |error: edgelog::clients::ProducerError| Failure::new(escaped(&error).to_string());
    // They are numbered by their offsets among the dead letters.
    let id = log.id();
    let producer = Producer::builder(store)
        .set("edgelog.producer.name", &format!("dlq.requeue.{id:x}-{}", log.name().partition))
        .and_then(|builder| builder.set("allow.auto.create.topics", "false"))
        .and_then(edgelog::clients::ProducerBuilder::open)
        .map_err(failed)?;
    let (mut sent, mut next, mut waiting) = (0, None, Vec::new());
    let wait = |waiting: &mut Vec<edgelog::clients::Delivery>| {
        producer.flush().and_then(|()| waiting.drain(..).try_for_each(|delivery| delivery.wait().map(drop)))
    };
    for_each(log, OffsetSpec::Earliest, until, |record| {
        let (to, found) = (place(args, store, log.name(), record)?, DeadLetter::parse(record));
        let time = found.as_ref().and_then(|found| found.timestamp).map(|time| time.0.to_string());
        let mut headers = found.map(|found| found.headers).unwrap_or_default();
        // Or it would expire again.
        headers.retain(|header| header.key != b"edgelog.deadline");
        // Its own time would let retention delete it at once, where it is old.
        headers.extend(time.iter().map(|time| Header::new("edgelog.timestamp", time.as_bytes())));
        let mut again = ProducerRecord::new(&to.topic, b"").with_partition(to.partition).with_headers(&headers);
        (again.key, again.value) = (record.key, record.value);
        waiting.push(producer.send(again.with_source_offset(record.offset)).map_err(failed)?);
        if waiting.len() == IN_FLIGHT_MAX {
            wait(&mut waiting).map_err(failed)?;
        }
        sent += 1;
        next = Some(record.offset + 1);
        Ok(true)
    })?;
    wait(&mut waiting).map_err(failed)?;
    producer.close().map_err(failed)?;
    if let Some(next) = next {
        log.delete_records_before(next)?;
    }
    Ok(sent)
}

fn purge(args: &Purge, ctx: &Context) -> Outcome {
    let looked = args.which.attach(ctx)?;
    let count = |log: &Log| {
        let offsets = log.offsets();
        let end = args.until.map_or(offsets.log_end_offset, |until| offsets.log_end_offset.min(Offset(until)));
        (end, u64::try_from(end - offsets.log_start_offset).unwrap_or(0))
    };
    let total: u64 = args.which.logs(ctx, &looked)?.iter().map(|log| count(log).1).sum();
    if !args.yes {
        let what = print::counted(total, "dead letter");
        confirm(&format!("delete {what} of {}{} for good", shown_name(&args.which.topic), args.which.as_options()))?;
    }
    drop(looked);
    let store = match &args.which.group {
        Some(group) => {
            let attached = ctx.attach()?;
            describe_group(&attached, group).map_err(failed)?;
            open_group_store(&attached, group).map_err(failed)?
        }
        None => ctx.open()?,
    };
    let mut deleted = 0;
    for log in args.which.logs(ctx, &store)? {
        let (end, count) = count(&log);
        if count > 0 {
            log.delete_records_before(end)?;
            deleted += count;
        }
    }
    store.close()?;
    eprintln!("deleted {}", print::counted(deleted, "dead letter"));
    Ok(ExitCode::SUCCESS)
}
