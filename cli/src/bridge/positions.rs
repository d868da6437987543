//! `bridge status`, `reset` and `adopt`: where a device's logs stand, here and in the cluster, and what a person decides
//! about that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use edgelog::bridge::{Admin, BridgeConfig, BridgeError, ClusterPosition, Decision, LogStatus, PositionOf, forget};
use edgelog::escape::shown_name;
use edgelog::{Store, Topic, TopicPartition, topic_matches};
use serde::Serialize;

use super::keys::KeyArgs;
use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome, confirm, warn};
use crate::print::{self, Align, Table};
use crate::time;

/// So many names stand in a line.
const NAMES_MAX: usize = 32;

/// Show where logs stand: in the cluster, and in the note that the bridge keeps in the data directory
///
/// With brokers and a device it asks the cluster, from any machine; with --dir (or `EDGELOG_DIR`) it adds what that
/// store's note says. Without brokers it works offline, and shows the note alone.
#[derive(clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    keys: KeyArgs,
    /// One JSON object a line, a log each
    #[arg(long)]
    json: bool,
    /// Exit with 2 where a log of the store is more records behind, or it is not known how many: a health check. Looks at
    /// what the note names, and at what edgelog.bridge.topics names where that is set
    #[arg(long, value_name = "RECORDS")]
    max_lag: Option<u64>,
    /// Give up after so long [default: where no broker answers, socket.connection.setup.timeout.ms]
    #[arg(long, value_name = "DURATION", value_parser = time::parse_period)]
    timeout: Option<Duration>,
}

// What a person decides about. No doc comment: clap would show it as the help of each command that has these arguments.
#[derive(clap::Args)]
struct About {
    #[command(flatten)]
    keys: KeyArgs,
    /// Which of the device's topics: names and patterns with '*' [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    topics: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Give up after so long [default: where no broker answers, socket.connection.setup.timeout.ms]
    #[arg(long, value_name = "DURATION", value_parser = time::parse_period)]
    timeout: Option<Duration>,
}

/// Let everything be sent again from the beginning, and nothing be kept for a bridge any more
///
/// In the cluster, the position of each log is replaced by the decision that it starts over: the device's bridge sends
/// all that its store holds, also what was delivered before, so consumers find that twice. With --dir (or `EDGELOG_DIR`)
/// these logs are also taken out of the note in its data directory, while no bridge runs there: what it kept for a bridge
/// falls under retention as any other, until a bridge is started again. Without brokers, that alone.
#[derive(clap::Args)]
#[command(after_help = AFTER_DECIDING)]
pub(super) struct Reset {
    #[command(flatten)]
    about: About,
}

/// Decide that a store is the device's right one: after a restored backup, a clone, a replaced device
///
/// With --dir (or `EDGELOG_DIR`) it is that store, as it is now or goes on, and no other copy of it. Without, it is the
/// store whose bridge reads the decision first: stop the other ones before. It goes on where its own note says that the
/// cluster has acknowledged it, else at its first record. What another copy has sent stays in the cluster, so that what
/// both hold may be there twice. What the cluster has lost since it acknowledged it is not sent again: `reset` does that.
#[derive(clap::Args)]
#[command(after_help = AFTER_DECIDING)]
pub(super) struct Adopt {
    #[command(flatten)]
    about: About,
}

const AFTER_DECIDING: &str = "\
The device's bridge, where one runs, is fenced: it sends nothing more until it reads the decision,
within edgelog.bridge.retry.ms (a minute), and then goes on by itself. Where none runs, the next one
that is started obeys. A decision is obeyed once. The cluster forgets it like any position, after
offsets.retention.minutes (seven days).

The user needs what the device needs: Write on its transactional id, Read on its groups and target
topics.";

/// What is known of each log: its positions in the cluster, and what the store and its note say.
type Rows = BTreeMap<TopicPartition, (Vec<ClusterPosition>, Option<LogStatus>)>;

pub(super) fn status(args: &Status, ctx: &Context) -> Outcome {
    let config = args.keys.config()?;
    let asks_cluster = config.names_brokers();
    let (topics, device) = (config.topics().to_vec(), config.device_id().map(str::to_owned));
    let here = if args.max_lag.is_some() { logs_of(&ctx.attach()?)? } else { Vec::new() };
    let mut rows = Rows::new();
    if asks_cluster {
        for position in admin_of(config, args.timeout)?.positions()? {
            rows.entry(position.log.clone()).or_default().0.push(position);
        }
    }
    let has_note = !asks_cluster || ctx.is_named() || args.max_lag.is_some();
    if has_note {
        drop(ctx.attach()?);
        let of = edgelog::bridge::noted_device(ctx.dir())?;
        if let (Some(named), Some(noted)) = (&device, of.filter(|noted| Some(noted) != device.as_ref())) {
            warn(format_args!("the note in {} is of the device {noted}, and not of {named}", ctx.dir().display()));
        }
        let noted = match edgelog::bridge::status(ctx.dir()) {
            Err(error @ BridgeError::Note { .. }) if asks_cluster => {
                warn(error);
                // What the store holds of the logs that the cluster knows is known all the same.
                let all = edgelog::bridge::status_without_note(ctx.dir(), &["*".to_owned()])?;
                all.into_iter().filter(|status| rows.contains_key(&status.log)).collect()
            }
            other => other?,
        };
        for noted in noted {
            let row = rows.entry(noted.log.clone()).or_default();
            row.1 = Some(noted);
        }
    }
    if args.json {
        for (log, (positions, noted)) in &rows {
            // Positions under several partitions are several lines; a bridge waits until a person has cleaned up.
            let lag = lag_of(positions, noted.as_ref(), asks_cluster);
            let positions = positions.iter().map(Some).chain(positions.is_empty().then_some(None));
            for position in positions {
                print::json_line(&Row::new(log, position, noted.as_ref(), lag))?;
            }
        }
    } else if rows.is_empty() && asks_cluster {
        eprintln!("the cluster knows no position of this device, or the user may not see it (Describe on its groups)");
    } else if rows.is_empty() {
        eprintln!("no bridge has sent anything of {} yet", ctx.dir().display());
    } else {
        table_of(&rows, asks_cluster, has_note).print()?;
    }
    let Some(max_lag) = args.max_lag else { return Ok(ExitCode::SUCCESS) };
    for status in edgelog::bridge::status_without_note(ctx.dir(), &topics)? {
        let (_, noted) = rows.entry(status.log.clone()).or_default();
        noted.get_or_insert(status);
    }
    Ok(health_of(&rows, &here, max_lag, asks_cluster))
}

/// Whether no log of the store is more than `max_lag` records behind.
fn health_of(rows: &Rows, here: &[TopicPartition], max_lag: u64, asks_cluster: bool) -> ExitCode {
    let mut behind = Vec::new();
    let mut is_any = false;
    for (log, (positions, noted)) in rows {
        let Some(noted) = noted else { continue };
        // A log that was deleted has no records to send; of one that is to be here and cannot be read, it is not known.
        if noted.high_watermark.is_none() && !here.contains(log) {
            continue;
        }
        is_any = true;
        let lag = lag_of(positions, Some(noted), asks_cluster);
        if lag.known.or(lag.at_most).is_none_or(|lag| lag > max_lag) {
            behind.push(log.to_string());
        }
    }
    if !is_any {
        warn("no bridge has sent anything of a log that is here: how far it is behind is not known");
    } else if behind.is_empty() {
        return ExitCode::SUCCESS;
    } else {
        let max_lag = print::counted(max_lag, "record");
        warn(format_args!("more than {max_lag} behind, or not known how far: {}", behind.join(", ")));
    }
    ExitCode::from(DAMAGE)
}

/// How far a log is behind.
#[derive(Debug, Clone, Copy, Default)]
struct Lag {
    known: Option<u64>,
    /// Where it is not known and nothing of the log is known to be sent: all that it holds.
    at_most: Option<u64>,
}

/// How far a log is behind by what the cluster says, where it was asked, else by the note.
fn lag_of(positions: &[ClusterPosition], noted: Option<&LogStatus>, asks_cluster: bool) -> Lag {
    let Some(noted) = noted else { return Lag::default() };
    if !asks_cluster {
        let at_most = noted.held.filter(|_| noted.acknowledged.is_none());
        return Lag { known: noted.lag, at_most };
    }
    let known = match positions {
        // The cluster has nothing of it, and had nothing.
        [] if noted.acknowledged.is_none() => noted.held,
        [ClusterPosition { offset, holds: PositionOf::Log { log_id, .. }, .. }] => noted.lag_behind(*offset, *log_id),
        // Several, a decision, what no bridge reads; or it has forgotten the position that the note has.
        _ => None,
    };
    Lag { known, at_most: None }
}

/// The logs of a store, also those whose directories are gone.
fn logs_of(store: &Store) -> Result<Vec<TopicPartition>, Failure> {
    let of = |topic: Topic| {
        let Topic { name, partition_ids, .. } = topic;
        partition_ids.into_iter().map(move |partition| TopicPartition::new(name.as_str(), partition))
    };
    let missing = store.missing_partitions()?.into_iter();
    Ok(store.topics()?.into_iter().flat_map(of).chain(missing).collect())
}

fn admin_of(config: BridgeConfig, timeout: Option<Duration>) -> Result<Admin, Failure> {
    let admin = Admin::new(config)?;
    Ok(match timeout {
        Some(timeout) => admin.with_timeout(timeout),
        None => admin,
    })
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    partition: u32,
    target_topic: Option<&'a str>,
    target_partition: Option<i32>,
    acknowledged: Option<i64>,
    committing: Option<i64>,
    high_watermark: Option<i64>,
    held_from: Option<i64>,
    held_by: &'a [String],
    lag: Option<u64>,
    lag_at_most: Option<u64>,
    cluster: Option<InCluster<'a>>,
}

#[derive(Default, Serialize)]
struct InCluster<'a> {
    group: &'a str,
    offset: i64,
    log_id: Option<String>,
    leader_epoch: Option<i32>,
    target_topic_id: Option<String>,
    decided: Option<&'static str>,
    unknown: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn new(
        log: &'a TopicPartition,
        position: Option<&'a ClusterPosition>,
        noted: Option<&'a LogStatus>,
        lag: Lag,
    ) -> Row<'a> {
        let in_cluster = position.map(|position| (position.target_topic.as_str(), Some(position.target_partition)));
        let in_note = noted.map(|noted| (noted.remote.as_str(), noted.remote_partition));
        let target = in_cluster.or(in_note);
        Row {
            topic: &log.topic,
            partition: log.partition,
            target_topic: target.map(|(topic, _)| topic).filter(|topic| !topic.is_empty()),
            target_partition: target.and_then(|(_, partition)| partition),
            acknowledged: noted.and_then(|noted| noted.acknowledged).map(i64::from),
            committing: noted.and_then(|noted| noted.committing).map(i64::from),
            high_watermark: noted.and_then(|noted| noted.high_watermark).map(i64::from),
            held_from: noted.and_then(|noted| noted.held_from).map(i64::from),
            held_by: noted.map_or(&[], |noted| &noted.held_by),
            lag: lag.known,
            lag_at_most: lag.at_most.filter(|_| lag.known.is_none()),
            cluster: position.map(InCluster::of),
        }
    }
}

impl<'a> InCluster<'a> {
    fn of(position: &'a ClusterPosition) -> InCluster<'a> {
        let mut row = InCluster { group: &position.group, offset: position.offset.0, ..InCluster::default() };
        match &position.holds {
            PositionOf::Log { log_id, leader_epoch, target_topic_id, .. } => {
                row.log_id = Some(format!("{log_id:x}"));
                row.leader_epoch = Some(*leader_epoch);
                row.target_topic_id = Some(format!("{:032x}", u128::from_be_bytes(*target_topic_id)));
            }
            PositionOf::Decided { decision, log_id, .. } => {
                row.decided = Some(word_of(*decision));
                row.log_id = log_id.map(|id| format!("{id:x}"));
            }
            PositionOf::Unknown { reason, .. } => row.unknown = Some(reason),
            _ => {}
        }
        row
    }
}

fn word_of(decision: Decision) -> &'static str {
    match decision {
        Decision::Adopt => "adopt",
        Decision::Restart => "restart",
        _ => "something newer",
    }
}

fn table_of(rows: &Rows, asks_cluster: bool, has_note: bool) -> Table {
    let mut columns = vec![("LOG", Align::Left), ("TARGET", Align::Left)];
    if asks_cluster {
        columns.extend([("IN CLUSTER", Align::Right), ("OF LOG", Align::Left), ("EPOCH", Align::Right)]);
    }
    if has_note {
        columns.extend([("ACKNOWLEDGED", Align::Right), ("END", Align::Right)]);
        columns.extend([("LAG", Align::Right), ("KEPT FROM", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for (log, (positions, noted)) in rows {
        let lag = lag_of(positions, noted.as_ref(), asks_cluster);
        for position in positions.iter().map(Some).chain(positions.is_empty().then_some(None)) {
            let row = Row::new(log, position, noted.as_ref(), lag);
            let target = row.target_topic.unwrap_or("-");
            let target = row.target_partition.map_or_else(|| target.to_owned(), |n| format!("{target}-{n}"));
            let mut cells = vec![log.to_string(), target];
            if asks_cluster {
                let of = position.map(|position| match &position.holds {
                    PositionOf::Decided { decision, log_id: None, .. } => format!("decided: {}", word_of(*decision)),
                    PositionOf::Decided { decision, .. } => format!("decided: {}, one store", word_of(*decision)),
                    PositionOf::Unknown { .. } => "not edgelog's".to_owned(),
                    PositionOf::Log { log_id, .. } => format!("{log_id:x}"),
                    _ => "something newer".to_owned(),
                });
                let epoch = row.cluster.as_ref().and_then(|row| row.leader_epoch);
                cells.push(number(position.map(|position| position.offset.0)));
                cells.extend([of.unwrap_or_else(|| "-".to_owned()), number(epoch)]);
            }
            if has_note {
                let mut acknowledged = number(row.acknowledged);
                if let Some(committing) = row.committing {
                    acknowledged = format!("{acknowledged} (or {})", print::grouped(committing));
                }
                let mut held = number(row.held_from);
                if !row.held_by.is_empty() {
                    held = format!("{held} ({})", row.held_by.join(", "));
                }
                let lag = match row.lag_at_most {
                    Some(at_most) => format!("up to {}", print::grouped(at_most)),
                    None => number(row.lag),
                };
                cells.extend([acknowledged, number(row.high_watermark), lag, held]);
            }
            table.row(cells);
        }
    }
    table
}

fn number(number: Option<impl Into<i128>>) -> String {
    number.map_or_else(|| "-".to_owned(), print::grouped)
}

pub(super) fn reset(args: &Reset, ctx: &Context) -> Outcome {
    let (config, topics) = (args.about.keys.config()?, chosen(&args.about.topics));
    let (asks_cluster, has_note) = (config.names_brokers(), ctx.is_named());
    if !asks_cluster && !has_note {
        return Err(Failure::new("neither brokers nor a store are named")
            .hint("--bootstrap and --device name what the cluster has to forget, --dir the store whose note has to."));
    }
    let store = if has_note { Some(ctx.attach().map(|_| ctx.dir())?) } else { None };
    let device = config.device_id().map(str::to_owned);
    let mut admin = asks_cluster.then(|| admin_of(config, args.about.timeout)).transpose()?;
    let positions = admin.as_mut().map(Admin::positions).transpose()?;
    if let (Some(admin), Some([])) = (&mut admin, positions.as_deref()) {
        refuse_unknown_device(admin, device.as_deref(), store)?;
    }
    if !args.about.topics.is_empty() {
        refuse_unknown_topics(&topics, positions.as_deref(), store)?;
    }
    if !args.about.yes {
        let logs = match &positions {
            Some(positions) => counted_logs(positions),
            None => format!("the logs of {}", ctx.dir().display()),
        };
        let what = if asks_cluster { "send again everything of" } else { "let retention take what is not sent of" };
        confirm(&format!("{what} {logs}"))?;
    }
    if has_note {
        let gone = forget(ctx.dir(), device.as_deref(), &topics)?;
        let logs = print::counted(gone.len() as u64, "log");
        eprintln!("the note in {} knows {logs} less", ctx.dir().display());
    }
    match &mut admin {
        Some(admin) => decide(admin, &topics, Decision::Restart, None),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The cluster has no position of the device. Where the note is not of it either, its name is likely wrong.
fn refuse_unknown_device(admin: &mut Admin, device: Option<&str>, store: Option<&Path>) -> Result<(), Failure> {
    let noted = store.map(edgelog::bridge::noted_device).transpose()?.flatten();
    let named = device.unwrap_or_default().to_owned();
    match noted {
        Some(noted) if noted == named => return Ok(()),
        Some(device) => return Err(BridgeError::OtherDevice { named, device }.into()),
        None => {}
    }
    let others = match named_of(admin.devices()?) {
        Some(devices) => format!("it has positions of {devices}"),
        None => "nor of any other".to_owned(),
    };
    Err(Failure::new(format!("the cluster has no position of the device {named}; {others}. Nothing was changed")).hint(
        "The user needs Describe on the device's groups to see them. With --dir, and without brokers, `reset` drops \
             a store's note alone; `adopt --dir` goes by that.",
    ))
}

/// No log of the device matches one of these topics, in the cluster or in the note: a name is likely wrong.
fn refuse_unknown_topics(
    topics: &[String],
    positions: Option<&[ClusterPosition]>,
    store: Option<&Path>,
) -> Result<(), Failure> {
    let noted = match store.map(edgelog::bridge::status).transpose() {
        // Which logs it named is not known any more.
        Err(BridgeError::Note { .. }) => return Ok(()),
        other => other?.unwrap_or_default(),
    };
    let noted = noted.into_iter().map(|noted| noted.log.topic);
    let known: BTreeSet<String> =
        positions.unwrap_or_default().iter().map(|position| position.log.topic.clone()).chain(noted).collect();
    if known.iter().any(|name| topics.iter().any(|pattern| topic_matches(pattern, name))) {
        return Ok(());
    }
    let known = named_of(known).map_or_else(|| "there are none".to_owned(), |known| format!("there are {known}"));
    let topics = topics.join(",");
    Err(Failure::new(format!(
        "no topic of which a bridge keeps positions matches {topics}; {known}. Nothing was changed"
    )))
}

/// Names in a sentence; `None` where there are none.
fn named_of(names: impl IntoIterator<Item = String>) -> Option<String> {
    let all: Vec<String> = names.into_iter().collect();
    let mut named: Vec<String> = all.iter().take(NAMES_MAX).map(|name| shown_name(name).to_string()).collect();
    if all.len() > named.len() {
        named.push(format!("and {} more", all.len() - named.len()));
    }
    Some(named.join(", ")).filter(|named| !named.is_empty())
}

pub(super) fn adopt(args: &Adopt, ctx: &Context) -> Outcome {
    let (config, topics) = (args.about.keys.config()?, chosen(&args.about.topics));
    let device = config.device_id().map(str::to_owned);
    let mut admin = admin_of(config, args.about.timeout)?;
    let store = ctx.is_named().then(|| ctx.dir());
    if store.is_some() {
        drop(ctx.attach()?);
    }
    let positions = admin.positions()?;
    if positions.is_empty() && store.is_none() {
        refuse_unknown_device(&mut admin, device.as_deref(), None)?;
    }
    if !args.about.yes {
        let logs = counted_logs(&positions);
        let whose = match store {
            Some(dir) => format!("the store in {}", dir.display()),
            None => "whichever store's bridge asks next".to_owned(),
        };
        confirm(&format!("let {whose} go on (the cluster keeps positions of {logs})"))?;
    }
    decide(&mut admin, &topics, Decision::Adopt, store)
}

fn chosen(topics: &[String]) -> Vec<String> {
    if topics.is_empty() { vec!["*".to_owned()] } else { topics.to_vec() }
}

fn counted_logs(positions: &[ClusterPosition]) -> String {
    let logs: BTreeSet<&TopicPartition> = positions.iter().map(|position| &position.log).collect();
    print::counted(logs.len() as u64, "log")
}

fn decide(admin: &mut Admin, topics: &[String], decision: Decision, store: Option<&Path>) -> Outcome {
    let decided = admin.decide(topics, decision, store)?;
    for position in &decided {
        eprintln!("{}: decided, {}", position.log, word_of(decision));
    }
    if decided.is_empty() {
        let named = match (decision, store) {
            (Decision::Adopt, None) => "; --dir names the store whose note says where its logs go on",
            _ => ", its next bridge goes by its note",
        };
        warn(format_args!("the cluster has no position of such a log: there is nothing to decide{named}"));
    }
    Ok(ExitCode::SUCCESS)
}
