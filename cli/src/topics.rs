//! `topics`: list, create, delete, alter, describe.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use edgelog::edgelog_core::config::{ConfigKey, KEYS, Scope, ValueType};
use edgelog::escape::{escaped, shown_name};
use edgelog::inspect::{self, Selection};
use edgelog::{NewTopic, Store, Topic};
use serde::Serialize;

use crate::context::{Context, Readable};
use crate::failure::{DAMAGE, Failure, Outcome, confirm, refuse_stray_options, report_damage, warn};
use crate::print::{self, Align, Paint, Table};
use crate::setting::parse_setting;

/// List, create, delete, alter and describe topics
///
/// Without a command: the list.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog topics
  edgelog topics create readings --partitions 4 --config compression.type=snappy
  edgelog topics alter readings --config retention.ms=7d --unset retention.bytes
  edgelog topics describe readings
  edgelog topics delete readings --yes")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
enum Command {
    List(List),
    Create(Create),
    Delete(Delete),
    Alter(Alter),
    Describe(Describe),
}

/// List topics: partitions, offsets, bytes, and the keys set
#[derive(clap::Args, Default, PartialEq, Eq)]
struct List {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Create a topic
#[derive(clap::Args)]
struct Create {
    /// Its name: 1 to 249 of a-z A-Z 0-9 . _ -
    name: String,
    /// How many partitions; records with one key stay in order in one of them
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    partitions: u32,
    /// Set a key of its configuration; may be repeated. Times and sizes may have units: retention.ms=7d,
    /// segment.bytes=16MiB. `topics describe` lists the keys
    #[arg(long = "config", short, value_name = "KEY=VALUE", value_parser = parse_setting)]
    config: Vec<(String, String)>,
    /// Succeed also where it exists already
    #[arg(long)]
    if_absent: bool,
}

/// Delete a topic with all its records
#[derive(clap::Args)]
struct Delete {
    /// The topic
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Change a topic's configuration; in force from the next append
#[derive(clap::Args)]
struct Alter {
    /// The topic
    name: String,
    /// Set this key; may be repeated. Times and sizes may have units
    #[arg(long = "config", short, value_name = "KEY=VALUE", value_parser = parse_setting, required_unless_present = "unset")]
    config: Vec<(String, String)>,
    /// Set this key back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
}

/// Explain every key of a topic's configuration, with its value; without a topic, with the defaults
#[derive(clap::Args)]
struct Describe {
    /// The topic
    name: Option<String>,
    /// One JSON object a line, a key each
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Outcome {
    if args.command.is_some() {
        refuse_stray_options(&args.list, "topics");
    }
    match args.command.unwrap_or(Command::List(args.list)) {
        Command::List(args) => return list(&args, ctx),
        Command::Create(args) => change(ctx, |store| create(args, store)),
        Command::Delete(args) => delete(&args, ctx),
        Command::Alter(args) => change(ctx, |store| alter(&args, ctx, store)),
        Command::Describe(args) => describe(&args, ctx),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the store for writing, does `work` and closes it.
fn change(ctx: &Context, work: impl FnOnce(&Store) -> Result<(), Failure>) -> Result<(), Failure> {
    let store = ctx.open()?;
    let done = work(&store);
    let closed = store.close();
    done?;
    Ok(closed?)
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    partitions: u32,
    offsets: i64,
    bytes: u64,
    config: &'a BTreeMap<String, String>,
    /// Why retention deletes nothing of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_suspended: Option<&'a str>,
}

fn list(args: &List, ctx: &Context) -> Outcome {
    let store = ctx.attach()?;
    let topics = store.topics()?;
    let mut table = Table::new(&[
        ("TOPIC", Align::Left),
        ("PARTITIONS", Align::Right),
        ("OFFSETS", Align::Right),
        ("BYTES", Align::Right),
        ("CONFIG", Align::Left),
    ]);
    let (mut missing, mut named) = (Readable::default(), Vec::new());
    store.missing_partitions()?.iter().for_each(|name| missing.miss(name));
    let mut has_lost = missing.has_lost;
    for topic in &topics {
        let Topic { name, partitions, overrides, retention_suspended, .. } = topic;
        let (mut offsets, mut bytes) = (0, 0);
        let mut readable = Readable::default();
        for &partition in &topic.partition_ids {
            readable.add(&store, name, partition);
        }
        has_lost |= readable.has_lost;
        for log in &readable.logs {
            offsets += print::offsets_in(&log.offsets());
            bytes += log.size()?.1;
            named.push(log.name().clone());
        }
        if args.json {
            let retention_suspended = retention_suspended.as_deref();
            let partitions = *partitions;
            print::json_line(&Row { topic: name, partitions, offsets, bytes, config: overrides, retention_suspended })?;
        } else {
            let config: Vec<String> = overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let partitions = partitions.to_string();
            table.row([name.clone(), partitions, print::grouped(offsets), print::bytes(bytes), config.join(" ")]);
        }
    }
    if !args.json && topics.is_empty() {
        eprintln!(
            "no topics in {} yet: `edgelog append TOPIC` or `edgelog topics create TOPIC` makes one",
            ctx.shown_dir()
        );
    } else if !args.json {
        table.print()?;
        for (name, reason) in topics.iter().filter_map(|topic| Some((&topic.name, topic.retention_suspended.as_ref()?)))
        {
            warn(format_args!(
                "{name}: nothing is deleted by retention.ms or retention.bytes until the topic is altered: {}",
                escaped(reason)
            ));
        }
    }
    // As `stat`. A log that could not be read at all was named.
    let storage = inspect::open_directory(ctx.dir())?;
    for lost in inspect::check_ends(&storage, &Selection::all())? {
        if lost.log.as_ref().is_some_and(|log| named.contains(log)) {
            has_lost |= report_damage(&lost);
        }
    }
    Ok(if has_lost { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS })
}

fn create(args: Create, store: &Store) -> Result<(), Failure> {
    let Create { name, partitions, config, if_absent } = args;
    let topic = config.iter().fold(NewTopic::new(name).partitions(partitions), |topic, (k, v)| topic.config(k, v));
    if if_absent {
        if !store.create_topic_if_absent(&topic)? {
            eprintln!("topic {} exists already", topic.name);
            return Ok(());
        }
    } else {
        store.create_topic(&topic)?;
    }
    eprintln!("created topic {} with {}", topic.name, print::counted(partitions.into(), "partition"));
    Ok(())
}

fn delete(args: &Delete, ctx: &Context) -> Result<(), Failure> {
    if !args.yes {
        let store = ctx.attach()?;
        let topic = whole_topic(ctx, &store, &args.name)?;
        let mut offsets = 0;
        for &partition in &topic.partition_ids {
            offsets += print::offsets_in(&store.log(&topic.name, partition)?.offsets());
        }
        let offsets = print::counted(u64::try_from(offsets).unwrap_or(0), "offset");
        let what = format!("topic {} with the records of {offsets}", topic.name);
        confirm(&format!("delete {what} for good"))?;
    }
    change(ctx, |store| {
        let topic = whole_topic(ctx, store, &args.name)?;
        store.delete_topic(&topic.name)?;
        eprintln!("deleted topic {}", topic.name);
        Ok(())
    })
}

fn alter(args: &Alter, ctx: &Context, store: &Store) -> Result<(), Failure> {
    let topic = whole_topic(ctx, store, &args.name)?;
    let set = args.config.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
    let unset = args.unset.iter().map(|key| (key.as_str(), None));
    let changes: Vec<_> = set.chain(unset).collect();
    store.alter_topic(&topic.name, &changes)?;
    let now = store.topic(&topic.name)?;
    // Of a topic without known settings, retention goes on deleting nothing where it was not asked to.
    let kept = now.overrides.keys().filter(|key| !topic.overrides.contains_key(*key));
    let kept =
        kept.map(|key| (key.as_str(), None)).filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    let kept: Vec<_> = kept.collect();
    for (key, _) in changes.into_iter().chain(kept) {
        eprintln!("{}: {key}={}", topic.name, value_of(&now, key));
    }
    Ok(())
}

/// Configuration and deletion are of topics, never of one partition.
fn whole_topic(ctx: &Context, store: &Store, name: &str) -> Result<Topic, Failure> {
    let target = ctx.find(store, name)?;
    match target.partition {
        None => Ok(target.topic),
        Some(_) => Err(Failure::new(format!("{} is one partition; this works on the whole topic", shown_name(name)))
            .hint(format!("Say {} for the topic.", target.topic.name))),
    }
}

fn value_of(topic: &Topic, key: &str) -> String {
    topic.config.get(key).map(|value| value.to_string()).unwrap_or_default()
}

fn describe(args: &Describe, ctx: &Context) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Described<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        key: &'a str,
        value: String,
        set: bool,
        default: &'a str,
        kafka_default: Option<&'a str>,
        allowed: String,
        doc: &'a str,
    }
    let topic = match &args.name {
        Some(name) => Some(whole_topic(ctx, &ctx.attach()?, name)?),
        None => None,
    };
    let paint = Paint::stdout();
    let mut out = io::stdout().lock();
    if let (Some(topic), false) = (&topic, args.json) {
        writeln!(out, "{}: {}\n", paint.strong(&topic.name), print::counted(topic.partitions.into(), "partition"))?;
        if let Some(reason) = &topic.retention_suspended {
            writeln!(
                out,
                "{}: {}\n",
                paint.bad("nothing is deleted by retention.ms or retention.bytes until the topic is altered"),
                escaped(reason)
            )?;
        }
    }
    for row in KEYS.iter().filter(|row| row.scope == Scope::Topic) {
        let is_set = topic.as_ref().is_some_and(|topic| topic.overrides.contains_key(row.key));
        let value = topic.as_ref().map_or_else(|| row.default.to_owned(), |topic| value_of(topic, row.key));
        if args.json {
            let described = Described {
                topic: topic.as_ref().map(|topic| topic.name.as_str()),
                key: row.key,
                value,
                set: is_set,
                default: row.default,
                kafka_default: row.kafka_default,
                allowed: allowed(row),
                doc: row.doc,
            };
            serde_json::to_writer(&mut out, &described)?;
            writeln!(out)?;
            continue;
        }
        write!(out, "{}={}", paint.key(row.key), paint.strong(&value))?;
        match (is_set, value == row.default) {
            (true, _) => writeln!(out, "  {}", paint.dim(format_args!("(set here; default {})", row.default)))?,
            (false, true) => writeln!(out)?,
            (false, false) => writeln!(out, "  {}", paint.dim(format_args!("(default {})", row.default)))?,
        }
        writeln!(out, "    {} {}", row.doc, paint.dim(format_args!("[{}]", allowed(row))))?;
        if let (Some(kafka), false) = (row.kafka_default, row.why.is_empty()) {
            writeln!(out, "    {}", paint.dim(format_args!("Kafka's default is {kafka}; here {}.", row.why)))?;
        }
    }
    Ok(out.flush()?)
}

/// What a key's value may be, in words.
fn allowed(row: &ConfigKey) -> String {
    let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
    match row.value_type {
        ValueType::Number { min, max: i64::MAX } => format!("{min} or more{unit}"),
        ValueType::Number { min, max } => format!("{min} to {max}{unit}"),
        ValueType::Bool => "true or false".to_owned(),
        ValueType::Word { words } => words.join(" or "),
        _ => String::new(),
    }
}
