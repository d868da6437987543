//! `groups`: list, describe, reset and delete groups of consumers, and share groups.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use edgelog::clients::{
    CommittedOffset, ConsumerError, Group, GroupDescription, OffsetAndMetadata, SharePartition, attach_group_store,
    delete_group, describe_group, describe_share_group, list_groups, reset_share_group,
};
use edgelog::escape::{escaped, shown_name};
use edgelog::{Log, Offset, OffsetSpec, Store, TimestampMs, TopicPartition};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome, confirm, damage, refuse_stray_options};
use crate::print::{self, Align, Table};
use crate::time;

/// List, describe, reset and delete groups of consumers
///
/// Reads what the groups' files say, also while a process hosts them and another one writes the store. Which members a
/// group has, and which records a share group's members hold, is known to the process that hosts it alone. Without a
/// command: the list.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog groups
  edgelog groups describe billing
  edgelog groups reset billing --to-earliest --dry-run
  edgelog groups reset billing cpu-0 --to-offset 1200
  edgelog groups reset billing --to-datetime 2026-11-01T00:00:00Z
  edgelog groups delete billing --yes
A share group (a work queue) begins elsewhere by a reset: all records from there on are new to it.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
enum Command {
    List(List),
    Describe(Describe),
    Reset(Reset),
    Delete(Delete),
}

/// List groups: of which kind they are, who hosts them, how many partitions they have, and how far they are behind
#[derive(clap::Args, Default, PartialEq, Eq)]
struct List {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Show each position of a group: committed offset, end, lag, when it was committed, metadata
///
/// Of a share group, for each partition: the start offset, below which all records are done, the end, the lag, and of the
/// records behind the start offset how many were given back, accepted, archived, and set aside without a dead letter yet.
#[derive(clap::Args)]
struct Describe {
    /// The group
    name: String,
    /// One JSON object a line, a position each
    #[arg(long)]
    json: bool,
    /// Print times in UTC
    #[arg(long)]
    utc: bool,
}

/// Commit other positions for a group, or let a share group begin elsewhere; no process may host it meanwhile
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("to").required(true))]
struct Reset {
    /// The group; it is created where there is none
    name: String,
    /// Only these topics, or topic-partition; * and ? make a pattern. Without any: all that it has positions in
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// To the first record that there is
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// Behind the last record that there is
    #[arg(long, group = "to")]
    to_latest: bool,
    /// To this offset, or to the nearest that the log holds
    #[arg(long, group = "to", value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// To the first record of this time or later
    #[arg(long, group = "to", value_name = "TIME", value_parser = time::parse_time)]
    to_datetime: Option<TimestampMs>,
    /// Print what would be committed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Delete a group with its positions, and let retention delete what it kept for it
#[derive(clap::Args)]
struct Delete {
    /// The group
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match &args.command {
        None => list(&args.list, ctx),
        Some(command) => {
            refuse_stray_options(&args.list, "groups");
            match command {
                Command::List(args) => list(args, ctx),
                Command::Describe(args) => describe(args, ctx),
                Command::Reset(args) => reset(args, ctx),
                Command::Delete(args) => delete(args, ctx),
            }
        }
    }
}

/// What a person can do about an error of a group.
pub(crate) fn failed(error: ConsumerError) -> Failure {
    let hint = match &error {
        ConsumerError::UnknownGroup { .. } => "`edgelog groups` lists them.",
        ConsumerError::GroupHosted { .. } => "Stop that process first: it goes on with the positions that it knows.",
        ConsumerError::NotDurable { .. } => {
            "What lies beyond may be lost by a power cut. The program that writes the store makes it durable; where none runs, open the store for writing once (`edgelog topics alter` does)."
        }
        ConsumerError::Store(_) | ConsumerError::Log { .. } | ConsumerError::Group { .. } => {
            return match error {
                ConsumerError::Store(error) => Failure::from(*error),
                ConsumerError::Log { log, source } => Failure::from(*source).context(log),
                ConsumerError::Group { name, source } => {
                    Failure::from(*source).context(format_args!("group {}", shown_name(&name)))
                }
                error => Failure::new(error.to_string()),
            };
        }
        _ => return Failure::new(escaped(&error).to_string()),
    };
    Failure::new(escaped(&error).to_string()).hint(hint)
}

/// One position, and how far it is behind.
#[derive(Serialize)]
struct Position<'a> {
    group: &'a str,
    topic: &'a str,
    partition: u32,
    committed_offset: i64,
    leader_epoch: Option<i32>,
    /// `None` where the log cannot be read, or is another one by now.
    log_end_offset: Option<i64>,
    lag: Option<i64>,
    commit_timestamp: i64,
    metadata: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

fn position<'a>(store: &Store, group: &'a str, name: &'a TopicPartition, at: &'a CommittedOffset) -> Position<'a> {
    let end = |log: &Log| Some(log.reader(OffsetSpec::Latest).ok()?.position().offset);
    let (end, note) = match store.log(&name.topic, name.partition) {
        Ok(log) if at.log_id.is_some_and(|id| id != log.id()) => (None, Some("of a topic that was deleted")),
        Ok(log) => (end(&log), None),
        Err(_) => (None, Some("there is no such partition")),
    };
    Position {
        group,
        topic: &name.topic,
        partition: name.partition,
        committed_offset: at.offset.0,
        leader_epoch: at.leader_epoch.map(|epoch| epoch.0),
        log_end_offset: end.map(|end| end.0),
        lag: end.map(|end| (end - at.offset).max(0)),
        commit_timestamp: at.commit_timestamp.0,
        metadata: &at.metadata,
        note,
    }
}

/// Who hosts a group.
fn host(group: &GroupDescription) -> String {
    match (group.is_hosted, group.host) {
        (false, _) => "-".to_owned(),
        (true, Some(process)) => format!("process {process}"),
        (true, None) => "a process".to_owned(),
    }
}

fn kind(group: &GroupDescription) -> &'static str {
    if group.is_share { "share" } else { "consumer" }
}

/// How far a group is behind in one partition.
pub(crate) struct Standing {
    /// `None` of a topic that was deleted.
    pub(crate) log: Option<TopicPartition>,
    /// `None` where it cannot be said.
    pub(crate) lag: Option<i64>,
}

/// Where a group stands in each partition that it reads.
pub(crate) fn standing(store: &Store, group: &GroupDescription) -> Result<Vec<Standing>, ConsumerError> {
    if group.is_share {
        let partitions = describe_share_group(store, &group.name)?;
        let of = |at: SharePartition| Standing { lag: share_lag(store, &at).1, log: at.log };
        return Ok(partitions.into_iter().map(of).collect());
    }
    let of = |(log, at): (&TopicPartition, _)| Standing {
        log: Some(log.clone()),
        lag: position(store, &group.name, log, at).lag,
    };
    Ok(group.committed.iter().map(of).collect())
}

/// Where the log ends that a share group reads, and how many of its records are not done.
fn share_lag(store: &Store, at: &SharePartition) -> (Option<i64>, Option<i64>) {
    let end = at.log.as_ref().and_then(|log| {
        let log = store.log(&log.topic, log.partition).ok()?;
        Some(log.reader(OffsetSpec::Latest).ok()?.position().offset)
    });
    (end.map(|end| end.0), end.and_then(|end| i64::try_from(at.lag(end)).ok()))
}

fn list(args: &List, ctx: &Context) -> Outcome {
    #[derive(Serialize)]
    struct Row<'a> {
        group: &'a str,
        kind: &'static str,
        hosted: bool,
        process: Option<u32>,
        partitions: usize,
        lag: i64,
    }
    let store = ctx.attach()?;
    let names = list_groups(&store).map_err(failed)?;
    let mut table = Table::new(&[
        ("GROUP", Align::Left),
        ("KIND", Align::Left),
        ("HOST", Align::Left),
        ("PARTITIONS", Align::Right),
        ("LAG", Align::Right),
    ]);
    let mut has_lost = false;
    for name in &names {
        let group = match describe_group(&store, name) {
            Ok(group) => group,
            // Deleted since.
            Err(ConsumerError::UnknownGroup { .. }) => continue,
            Err(error) => {
                damage(format_args!("{}", escaped(&error)));
                has_lost = true;
                continue;
            }
        };
        let (lag, partitions) = match standing(&store, &group) {
            Ok(standing) => (standing.iter().filter_map(|at| at.lag).sum::<i64>(), standing.len()),
            Err(error) => {
                damage(format_args!("{}", escaped(&error)));
                has_lost = true;
                continue;
            }
        };
        let kind = kind(&group);
        if args.json {
            print::json_line(&Row {
                group: name,
                kind,
                hosted: group.is_hosted,
                process: group.host,
                partitions,
                lag,
            })?;
        } else {
            let (name, partitions) = (shown_name(name).to_string(), partitions.to_string());
            table.row([name, kind.to_owned(), host(&group), partitions, print::grouped(lag)]);
        }
    }
    if !args.json && names.is_empty() {
        eprintln!("no groups in {}: a consumer with group.id makes one", ctx.shown_dir());
    } else if !args.json {
        table.print()?;
    }
    Ok(if has_lost { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS })
}

fn describe(args: &Describe, ctx: &Context) -> Outcome {
    let store = ctx.attach()?;
    let group = describe_group(&store, &args.name).map_err(failed)?;
    if group.is_share {
        return describe_share(args, &store, &group);
    }
    let mut stamps = time::Stamps::new(args.utc);
    let mut table = Table::new(&[
        ("PARTITION", Align::Left),
        ("COMMITTED", Align::Right),
        ("END", Align::Right),
        ("LAG", Align::Right),
        ("AT", Align::Left),
        ("METADATA", Align::Left),
    ]);
    for (log, at) in &group.committed {
        let row = position(&store, &args.name, log, at);
        if args.json {
            print::json_line(&row)?;
            continue;
        }
        let number = |number: Option<i64>| number.map_or("-".to_owned(), print::grouped);
        let metadata = match row.note {
            Some(note) => format!("({note})"),
            None => escaped(row.metadata).to_string(),
        };
        table.row([
            log.to_string(),
            print::grouped(row.committed_offset),
            number(row.log_end_offset),
            number(row.lag),
            stamps.of(at.commit_timestamp).to_owned(),
            metadata,
        ]);
    }
    if !args.json {
        writeln!(std::io::stdout(), "{}: {}\n", shown_name(&args.name), hosted_by(&group))?;
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe_share(args: &Describe, store: &Store, group: &GroupDescription) -> Outcome {
    #[derive(Serialize)]
    struct Row<'a> {
        group: &'a str,
        topic: Option<&'a str>,
        partition: u32,
        start_offset: i64,
        log_end_offset: Option<i64>,
        lag: Option<i64>,
        released: u64,
        acknowledged: u64,
        archived: u64,
        set_aside: u64,
    }
    let mut table = Table::new(&[
        ("PARTITION", Align::Left),
        ("START", Align::Right),
        ("END", Align::Right),
        ("LAG", Align::Right),
        ("GIVEN BACK", Align::Right),
        ("ACCEPTED", Align::Right),
        ("ARCHIVED", Align::Right),
        ("SET ASIDE", Align::Right),
    ]);
    for at in describe_share_group(store, &group.name).map_err(failed)? {
        let (end, lag) = share_lag(store, &at);
        if args.json {
            print::json_line(&Row {
                group: &group.name,
                topic: at.log.as_ref().map(|log| log.topic.as_str()),
                partition: at.partition,
                start_offset: at.start_offset.0,
                log_end_offset: end,
                lag,
                released: at.released,
                acknowledged: at.acknowledged,
                archived: at.archived,
                set_aside: at.set_aside,
            })?;
            continue;
        }
        let gone = || format!("(partition {} of a topic that was deleted)", at.partition);
        let number = |number: Option<i64>| number.map_or("-".to_owned(), print::grouped);
        table.row([
            at.log.as_ref().map_or_else(gone, ToString::to_string),
            print::grouped(at.start_offset.0),
            number(end),
            number(lag),
            print::grouped(at.released),
            print::grouped(at.acknowledged),
            print::grouped(at.archived),
            print::grouped(at.set_aside),
        ]);
    }
    if !args.json {
        writeln!(std::io::stdout(), "{}: a share group, {}\n", shown_name(&group.name), hosted_by(group))?;
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn hosted_by(group: &GroupDescription) -> String {
    if group.is_hosted { format!("hosted by {}", host(group)) } else { "hosted by no process".to_owned() }
}

/// The logs whose positions are to be set.
fn logs_to_reset(args: &Reset, ctx: &Context, store: &Store) -> Result<Vec<Log>, Failure> {
    if !args.topics.is_empty() {
        let readable = ctx.all_readable(store, &args.topics, None)?;
        if readable.has_lost {
            return Err(Failure::new("not all of these partitions can be read, and nothing was changed"));
        }
        return Ok(readable.logs);
    }
    let group = describe_group(store, &args.name).map_err(failed)?;
    let names = standing(store, &group).map_err(failed)?.into_iter().filter_map(|at| at.log);
    let logs: Vec<_> = names.filter_map(|name| store.log(&name.topic, name.partition).ok()).collect();
    if logs.is_empty() {
        let text = format!("group {} has no position in a topic that there is", shown_name(&args.name));
        return Err(Failure::new(text).hint("Name the topics that it is to have positions in."));
    }
    Ok(logs)
}

fn target(args: &Reset, log: &Log) -> Result<Offset, Failure> {
    let at = |spec| Ok::<_, Failure>(log.reader(spec)?.position().offset);
    let (start, end) = (at(OffsetSpec::Earliest)?, at(OffsetSpec::Latest)?);
    Ok(match (args.to_offset, args.to_datetime) {
        (Some(offset), _) => Offset(offset).max(start).min(end),
        (_, Some(timestamp)) => at(OffsetSpec::Timestamp(timestamp))?,
        _ if args.to_earliest => start,
        _ => end,
    })
}

fn reset(args: &Reset, ctx: &Context) -> Outcome {
    let store = Arc::new(ctx.attach()?);
    let logs = logs_to_reset(args, ctx, &store)?;
    let (before, is_share) = match describe_group(&store, &args.name) {
        Ok(group) if group.is_share => {
            let partitions = describe_share_group(&store, &args.name).map_err(failed)?.into_iter();
            (partitions.filter_map(|at| Some((at.log?, at.start_offset))).collect(), true)
        }
        Ok(group) => (group.committed.into_iter().map(|(log, at)| (log, at.offset)).collect(), false),
        Err(ConsumerError::UnknownGroup { .. }) => (BTreeMap::new(), false),
        Err(error) => return Err(failed(error)),
    };
    let mut table = Table::new(&[("PARTITION", Align::Left), ("BEFORE", Align::Right), ("NOW", Align::Right)]);
    let mut offsets = Vec::new();
    let mut seen = BTreeSet::new();
    for log in logs.iter().filter(|log| seen.insert(log.name().clone())) {
        let to = target(args, log)?;
        let old = before.get(log.name()).map_or("-".to_owned(), |offset| print::grouped(offset.0));
        table.row([log.name().to_string(), old, print::grouped(to.0)]);
        offsets.push((log, to));
    }
    if !args.dry_run && is_share {
        reset_share_group(&store, &args.name, &offsets).map_err(failed)?;
    } else if !args.dry_run {
        let offsets: Vec<_> = offsets.into_iter().map(|(log, to)| (log, OffsetAndMetadata::new(to))).collect();
        let group = Group::open(&store, &args.name).map_err(failed)?;
        group.commit(&offsets).map_err(failed)?;
    }
    table.print()?;
    if args.dry_run {
        eprintln!("nothing was changed: without --dry-run it would be");
    }
    Ok(ExitCode::SUCCESS)
}

/// How many dead letters a group has in its own store, which go with it.
fn dead_letters_of(store: &Store, group: &str) -> Result<u64, Failure> {
    let (own, mut count) = (attach_group_store(store, group).map_err(failed)?, 0);
    for topic in own.topics()?.iter().filter(|topic| !topic.name.starts_with("__")) {
        for partition in &topic.partition_ids {
            count += u64::try_from(print::offsets_in(&own.log(&topic.name, *partition)?.offsets())).unwrap_or(0);
        }
    }
    Ok(count)
}

fn delete(args: &Delete, ctx: &Context) -> Outcome {
    let store = ctx.attach()?;
    let group = describe_group(&store, &args.name).map_err(failed)?;
    if !args.yes {
        let partitions = print::counted(standing(&store, &group).map_err(failed)?.len() as u64, "partition");
        let what = if group.is_share { "where it stands" } else { "its positions" };
        let dead_letters = match dead_letters_of(&store, &args.name)? {
            0 => String::new(),
            count => format!(", and with {} in its own store", print::counted(count, "dead letter")),
        };
        let name = shown_name(&args.name);
        confirm(&format!("delete group {name} with {what} in {partitions}{dead_letters} for good"))?;
    }
    delete_group(&store, &args.name).map_err(failed)?;
    eprintln!("deleted group {}", shown_name(&args.name));
    Ok(ExitCode::SUCCESS)
}
