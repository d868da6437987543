//! `bridge status`, `reset` and `adopt`: where a device's logs stand, here and in the cluster, and what a person decides
//! about that.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use edgelog::bridge::{Admin, BridgeConfig, BridgeError, ClusterPosition, Decision, LogStatus, PositionOf, forget};
use edgelog::{OffsetSpec, Store, Topic, TopicPartition};
use serde::Serialize;

use super::keys::KeyArgs;
use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome, confirm, warn};
use crate::print::{self, Align, Table};
use crate::time;

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

pub(super) fn status(args: &Status, ctx: &Context) -> Outcome {
    let config = args.keys.config()?;
    let asks_cluster = config.names_brokers();
    let (to_send, here) = match args.max_lag {
        Some(_) => {
            let here = logs_of(&ctx.attach()?)?;
            (here.iter().filter(|log| config.sends(&log.topic)).cloned().collect(), here)
        }
        None => (Vec::new(), Vec::new()),
    };
    let mut rows: BTreeMap<TopicPartition, (Vec<ClusterPosition>, Option<LogStatus>)> = BTreeMap::new();
    if asks_cluster {
        for position in admin_of(config, args.timeout)?.positions()? {
            rows.entry(position.log.clone()).or_default().0.push(position);
        }
    }
    let has_note = !asks_cluster || ctx.is_named() || args.max_lag.is_some();
    if has_note {
        drop(ctx.attach()?);
        let noted = match edgelog::bridge::status(ctx.dir()) {
            Err(error @ BridgeError::Note { .. }) if asks_cluster => {
                warn(error);
                Vec::new()
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
            let positions = positions.iter().map(Some).chain(positions.is_empty().then_some(None));
            for position in positions {
                print::json_line(&Row::new(log, position, noted.as_ref()))?;
            }
        }
    } else if rows.is_empty() && asks_cluster {
        eprintln!("the cluster knows no position of this device");
    } else if rows.is_empty() {
        eprintln!("no bridge has sent anything of {} yet", ctx.dir().display());
    } else {
        table_of(&rows, asks_cluster, has_note).print()?;
    }
    let Some(max_lag) = args.max_lag else { return Ok(ExitCode::SUCCESS) };
    let mut lags: BTreeMap<TopicPartition, Option<u64>> = BTreeMap::new();
    for (log, (positions, noted)) in &rows {
        let Some(noted) = noted else { continue };
        // A log that was deleted has no records to send; of one that is to be here and cannot be read, it is not known.
        if noted.high_watermark.is_some() || here.contains(log) {
            let lag = if asks_cluster { lag_in_cluster(positions, noted) } else { noted.lag };
            lags.insert(log.clone(), lag);
        }
    }
    if to_send.iter().any(|log| !lags.contains_key(log)) {
        let store = ctx.attach()?;
        for log in to_send {
            lags.entry(log).or_insert_with_key(|log| whole_lag(&store, log));
        }
    }
    let is_behind = |lag: &Option<u64>| lag.is_none_or(|lag| lag > max_lag);
    let behind: Vec<String> = lags.iter().filter(|(_, lag)| is_behind(lag)).map(|(log, _)| log.to_string()).collect();
    if lags.is_empty() {
        warn("no bridge has sent anything of a log that is here: how far it is behind is not known");
    } else if behind.is_empty() {
        return Ok(ExitCode::SUCCESS);
    } else {
        let max_lag = print::counted(max_lag, "record");
        warn(format_args!("more than {max_lag} behind, or not known how far: {}", behind.join(", ")));
    }
    Ok(ExitCode::from(DAMAGE))
}

/// How far a log is behind, by what the cluster says; `None` where it has forgotten the position that the note has.
fn lag_in_cluster(positions: &[ClusterPosition], noted: &LogStatus) -> Option<u64> {
    match positions {
        [] if noted.acknowledged.is_none() => noted.lag,
        [position] if matches!(position.holds, PositionOf::Log { .. }) => {
            u64::try_from(noted.high_watermark? - position.offset).ok()
        }
        _ => None,
    }
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

/// How many records a log holds; `None` where it cannot be read.
fn whole_lag(store: &Store, log: &TopicPartition) -> Option<u64> {
    let log = store.log(&log.topic, log.partition).ok()?;
    Some(log.reader(OffsetSpec::Earliest).ok()?.lag())
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
    fn new(log: &'a TopicPartition, position: Option<&'a ClusterPosition>, noted: Option<&'a LogStatus>) -> Row<'a> {
        let in_cluster = position.map(|position| (position.target_topic.as_str(), Some(position.target_partition)));
        let in_note = noted.map(|noted| (noted.remote.as_str(), noted.remote_partition));
        let target = in_cluster.or(in_note);
        Row {
            topic: &log.topic,
            partition: log.partition,
            target_topic: target.map(|(topic, _)| topic),
            target_partition: target.and_then(|(_, partition)| partition),
            acknowledged: noted.and_then(|noted| noted.acknowledged).map(i64::from),
            committing: noted.and_then(|noted| noted.committing).map(i64::from),
            high_watermark: noted.and_then(|noted| noted.high_watermark).map(i64::from),
            held_from: noted.and_then(|noted| noted.held_from).map(i64::from),
            held_by: noted.map_or(&[], |noted| &noted.held_by),
            lag: noted.and_then(|noted| noted.lag),
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

fn table_of(
    rows: &BTreeMap<TopicPartition, (Vec<ClusterPosition>, Option<LogStatus>)>,
    asks_cluster: bool,
    has_note: bool,
) -> Table {
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
        for position in positions.iter().map(Some).chain(positions.is_empty().then_some(None)) {
            let row = Row::new(log, position, noted.as_ref());
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
                cells.extend([acknowledged, number(row.high_watermark), number(row.lag), held]);
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
    let mut admin = asks_cluster.then(|| admin_of(config, args.about.timeout)).transpose()?;
    if !args.about.yes {
        let logs = match &mut admin {
            Some(admin) => counted_logs(&admin.positions()?),
            None => format!("the logs of {}", ctx.dir().display()),
        };
        let what = if asks_cluster { "send again everything of" } else { "let retention take what is not sent of" };
        confirm(&format!("{what} {logs}"))?;
    }
    if has_note {
        let gone = forget(ctx.dir(), &topics)?;
        let logs = print::counted(gone.len() as u64, "log");
        eprintln!("the note in {} knows {logs} less", ctx.dir().display());
    }
    match &mut admin {
        Some(admin) => decide(admin, &topics, Decision::Restart, None),
        None => Ok(ExitCode::SUCCESS),
    }
}

pub(super) fn adopt(args: &Adopt, ctx: &Context) -> Outcome {
    let (config, topics) = (args.about.keys.config()?, chosen(&args.about.topics));
    let mut admin = admin_of(config, args.about.timeout)?;
    let store = ctx.is_named().then(|| ctx.dir());
    if store.is_some() {
        drop(ctx.attach()?);
    }
    if !args.about.yes {
        let logs = counted_logs(&admin.positions()?);
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

fn decide(admin: &mut Admin, topics: &[String], decision: Decision, store: Option<&std::path::Path>) -> Outcome {
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
