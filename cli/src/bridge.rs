//! `bridge`: send logs to a Kafka cluster, exactly once, and say where that stands.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use edgelog::bridge::{BRIDGE_KEYS, Bridge, BridgeConfig, BridgeError, BridgeEvent, MetricsHandle, StopHandle};
use edgelog::{Offset, TopicPartition};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, INTERRUPTED, Outcome, refuse_stray_options, warn};
use crate::interrupt;
use crate::print::{self, Paint};
use crate::progress::CatchUp;
use crate::time;

mod keys;
mod positions;

use keys::{KeyArgs, set_options};

/// Another copy of this device, or a log that is not this device's: a person has to decide. Not to be restarted.
const DECIDE: u8 = 3;

/// How often the bar and the metrics' file are looked after.
const LOOK: Duration = Duration::from_millis(500);
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// So many records that are not sent are worth a bar.
const LEFT_SHOWN_MIN: u64 = 1000;

/// Send logs to a Kafka cluster, each record once and in order
///
/// Works beside the program that writes the store, and when none does. Without a command: `run`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog bridge --device press-17 --bootstrap kafka:9092 --topics 'cpu,net.*' --until-caught-up
  edgelog bridge --config bridge.properties
  edgelog bridge --config bridge.properties --to 'factory.{device}.{topic}' --json
  edgelog bridge --config bridge.properties --metrics-file /var/lib/node_exporter/edgelog.prom
  edgelog bridge status
  edgelog bridge status --device press-17 --bootstrap kafka:9092
  edgelog bridge adopt --device press-17 --bootstrap kafka:9092
  edgelog bridge keys

Consumers must set isolation.level=read_committed. Target topics have to exist.

Exit codes:
  0    the cluster has everything that is durable here, or Ctrl-C or SIGTERM stopped a run without --until-caught-up
  1    an error, told on standard error; a service manager may start the bridge again
  2    --until-caught-up: some logs cannot be sent, each named with the reason; the others are in the cluster
  3    fenced by another copy of this device, or the cluster's position is not one of the logs here: a person has to
       decide (`edgelog bridge adopt`, `reset`). With --until-caught-up or edgelog.bridge.on.fenced=exit; else it waits
  130  interrupted before it had caught up")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Subcommand)]
enum Command {
    Run(Run),
    Status(positions::Status),
    Reset(positions::Reset),
    Adopt(positions::Adopt),
    Keys(Keys),
}

/// Send, until stopped or caught up
#[derive(clap::Args, Default, PartialEq, Eq)]
struct Run {
    #[command(flatten)]
    keys: KeyArgs,
    /// Which topics: names and patterns with '*' (edgelog.bridge.topics)
    #[arg(long, value_name = "NAME,...")]
    topics: Option<String>,
    /// The target topic's name; {device} and {topic} are filled in (edgelog.bridge.to)
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// End when the cluster has everything that is durable here
    #[arg(long)]
    until_caught_up: bool,
    /// Tell what happens on standard output, one JSON object a line
    #[arg(long)]
    json: bool,
    /// Keep a file with metrics in Prometheus' text format, written anew every five seconds (for the
    /// textfile collector of Prometheus' node exporter, which reads names that end in .prom)
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

/// Explain every key
#[derive(clap::Args)]
struct Keys {}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if args.command.is_some() {
        refuse_stray_options(&args.run, "bridge");
    }
    match &args.command {
        None => send(&args.run, ctx),
        Some(Command::Run(args)) => send(args, ctx),
        Some(Command::Status(args)) => positions::status(args, ctx),
        Some(Command::Reset(args)) => positions::reset(args, ctx),
        Some(Command::Adopt(args)) => positions::adopt(args, ctx),
        Some(Command::Keys(_)) => keys(),
    }
}

impl From<BridgeError> for Failure {
    fn from(error: BridgeError) -> Failure {
        let message = error.to_string();
        match error {
            BridgeError::Store(error) => Failure::from(error),
            BridgeError::InvalidConfig { .. } => {
                Failure::new(message).hint("`edgelog bridge keys` lists every key; --set KEY=VALUE sets one.")
            }
            BridgeError::Locked(_) => {
                Failure::new(message).hint("`edgelog bridge status` says where it stands, beside it.")
            }
            _ => Failure::new(message),
        }
    }
}

fn config_of(args: &Run) -> Result<BridgeConfig, Failure> {
    let mut config = args.keys.config()?;
    set_options(&mut config, [("edgelog.bridge.topics", &args.topics), ("edgelog.bridge.to", &args.to)])?;
    config.validate()?;
    Ok(config)
}

fn send(args: &Run, ctx: &Context) -> Outcome {
    let config = config_of(args)?;
    // Says what to do where there is no store.
    drop(ctx.attach()?);
    interrupt::install_patiently()?;
    let (json, catch_up) = (args.json, CatchUp::new());
    let shown = catch_up.clone();
    let mut bridge = Bridge::attach(ctx.dir(), config)?.observe(move |event| tell(event, json, &shown));
    let metrics = bridge.metrics();
    let mut outside = Outside {
        stop: bridge.stop_handle(),
        metrics: metrics.clone(),
        file: args.metrics_file.as_deref().map(MetricsFile::new),
        catch_up: (!json && io::stderr().is_terminal()).then_some(catch_up),
    };
    let (ended, has_ended) = mpsc::channel::<()>();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(move || outside.look_after(&has_ended));
        let outcome =
            if args.until_caught_up { bridge.run_until_caught_up() } else { bridge.run().map(|()| Vec::new()) };
        drop(ended);
        outcome
    });
    match outcome {
        Ok(_) if interrupt::raised() && args.until_caught_up => Ok(ExitCode::from(INTERRUPTED)),
        Ok(waiting) if waiting.is_empty() => Ok(ExitCode::SUCCESS),
        Ok(waiting) => {
            if !json {
                tell_left(&metrics, waiting.len());
            }
            Ok(ExitCode::from(DAMAGE))
        }
        Err(error) if error.needs_decision() => {
            eprintln!("{} {error}", Paint::stderr().bad("error:"));
            Ok(ExitCode::from(DECIDE))
        }
        Err(error) => Err(error.into()),
    }
}

/// The last line where logs wait: how much was not sent.
fn tell_left(metrics: &MetricsHandle, logs: usize) {
    let metrics = metrics.read();
    let waiting = || metrics.logs.iter().filter(|log| log.waits.is_some());
    // Where the cluster's position is not known, some of it may have been sent before.
    let up_to = if waiting().any(|log| log.position.is_none()) { "up to " } else { "" };
    let records = print::counted(waiting().map(|log| log.lag_records).sum(), "record");
    let logs = print::counted(logs as u64, "log");
    warn(format_args!("{up_to}{records} of {logs} were not sent, for the reasons above"));
}

/// What goes on beside the bridge: listening for Ctrl-C, the bar, and the metrics' file.
struct Outside<'a> {
    stop: StopHandle,
    metrics: MetricsHandle,
    file: Option<MetricsFile<'a>>,
    /// On a terminal.
    catch_up: Option<CatchUp>,
}

impl Outside<'_> {
    fn look_after(&mut self, has_ended: &mpsc::Receiver<()>) {
        let mut looked: Option<Instant> = None;
        // Looks at both, since neither can be waited for together with the other.
        while has_ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
            if interrupt::sleep(Duration::from_millis(100)) {
                self.stop.stop();
                let _ = has_ended.recv();
                break;
            }
            if looked.is_some_and(|looked| looked.elapsed() < LOOK) {
                continue;
            }
            looked = Some(Instant::now());
            if let Some(file) = &mut self.file {
                file.write_when_due(&self.metrics);
            }
            self.show();
        }
        if let Some(catch_up) = &self.catch_up {
            catch_up.clear();
        }
        if let Some(file) = &mut self.file {
            file.write(&self.metrics);
        }
    }

    /// The bar, while there is more to send than comes in a moment.
    fn show(&self) {
        let Some(catch_up) = &self.catch_up else { return };
        let metrics = self.metrics.read();
        let sending = || metrics.logs.iter().filter(|log| log.waits.is_none());
        let left: u64 = sending().map(|log| log.lag_records).sum();
        if left < LEFT_SHOWN_MIN && !catch_up.is_shown() {
            return;
        }
        let age = sending().filter_map(|log| log.lag_age).max().unwrap_or_default();
        let label = format!("{} behind, {} sent", time::elapsed(age), print::bytes(metrics.sent_bytes()));
        catch_up.show(label, metrics.sent_records(), left);
    }
}

/// A file that always holds metrics as they were a few seconds ago, whole.
struct MetricsFile<'a> {
    path: &'a Path,
    written: Option<Instant>,
    was_told: bool,
}

impl MetricsFile<'_> {
    fn new(path: &Path) -> MetricsFile<'_> {
        MetricsFile { path, written: None, was_told: false }
    }

    fn write_when_due(&mut self, metrics: &MetricsHandle) {
        if self.written.is_none_or(|written| written.elapsed() >= METRICS_EVERY) {
            self.write(metrics);
        }
    }

    /// A file that cannot be written is told once: the bridge works on.
    fn write(&mut self, metrics: &MetricsHandle) {
        self.written = Some(Instant::now());
        let made = PathBuf::from(format!("{}.tmp", self.path.display()));
        let written = fs::write(&made, metrics.read().to_prometheus()).and_then(|()| fs::rename(&made, self.path));
        if let Err(error) = &written {
            if !std::mem::replace(&mut self.was_told, true) {
                warn(format_args!("metrics cannot be written: {}: {error}", self.path.display()));
            }
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Told<'a> {
    Committed { records: u64, bytes: u64, positions: Vec<ToldPosition> },
    CaughtUp,
    Aborted { reason: &'a str },
    Retrying { reason: &'a str },
    DeadLetter { log: String, offset: i64, topic: &'a str, reason: &'a str },
    Lost { log: String, first_offset: i64, next_offset: i64, reason: &'a str },
    Waiting { log: String, reason: &'a str },
    Rewrites { topic: &'a str, reason: &'a str },
    RulesUnknown { topic: &'a str, reason: &'a str },
}

#[derive(Serialize)]
struct ToldPosition {
    log: String,
    offset: i64,
}

fn positions_of(positions: &[(TopicPartition, Offset)]) -> Vec<ToldPosition> {
    positions.iter().map(|(log, offset)| ToldPosition { log: log.to_string(), offset: offset.0 }).collect()
}

fn tell(event: &BridgeEvent, json: bool, catch_up: &CatchUp) {
    // The bar says it.
    if catch_up.is_shown() && matches!(event, BridgeEvent::Committed { .. }) {
        return;
    }
    catch_up.suspend(|| tell_plainly(event, json));
}

fn tell_plainly(event: &BridgeEvent, json: bool) {
    if json {
        let told = match event {
            BridgeEvent::Committed { records, bytes, positions } => {
                Told::Committed { records: *records, bytes: *bytes, positions: positions_of(positions) }
            }
            BridgeEvent::CaughtUp => Told::CaughtUp,
            BridgeEvent::Aborted { reason } => Told::Aborted { reason },
            BridgeEvent::Retrying { reason } => Told::Retrying { reason },
            BridgeEvent::DeadLetter { log, offset, topic, reason } => {
                Told::DeadLetter { log: log.to_string(), offset: offset.0, topic, reason }
            }
            BridgeEvent::Lost { log, first_offset, next_offset, reason } => {
                let (first_offset, next_offset) = (*first_offset, *next_offset);
                Told::Lost { log: log.to_string(), first_offset: first_offset.0, next_offset: next_offset.0, reason }
            }
            BridgeEvent::Waiting { log, reason } => Told::Waiting { log: log.to_string(), reason },
            BridgeEvent::Rewrites { topic, reason } => Told::Rewrites { topic, reason },
            BridgeEvent::RulesUnknown { topic, reason } => Told::RulesUnknown { topic, reason },
            _ => return,
        };
        // Whoever read this has gone: the bridge works on.
        let _ = print::json_line(&told).and_then(|()| io::stdout().flush());
    } else {
        match event {
            BridgeEvent::Committed { records, bytes, .. } => {
                eprintln!("sent {}, {}", print::counted(*records, "record"), print::bytes(*bytes));
            }
            BridgeEvent::CaughtUp => eprintln!("the cluster has everything that is durable here"),
            BridgeEvent::Aborted { reason } => {
                warn(format_args!("a transaction was aborted, and is sent again: {reason}"));
            }
            BridgeEvent::Retrying { reason } => warn(format_args!("trying again: {reason}")),
            BridgeEvent::DeadLetter { log, offset, topic, reason } => {
                warn(format_args!("the record of {log} at offset {offset} is a dead letter in {topic}: {reason}"));
            }
            BridgeEvent::Lost { log, first_offset, next_offset, reason } => {
                warn(format_args!("offsets {first_offset} to {next_offset} of {log} are lost: {reason}"));
            }
            BridgeEvent::Waiting { log, reason } => warn(format_args!("nothing of {log} is sent: {reason}")),
            BridgeEvent::Rewrites { topic, reason } => warn(format_args!("{topic} has {reason}")),
            BridgeEvent::RulesUnknown { topic, reason } => {
                warn(format_args!(
                    "the configuration of the target topic {topic} may not be read, Kafka's defaults are taken: {reason}"
                ));
            }
            _ => {}
        }
    }
}

fn keys() -> Outcome {
    let paint = Paint::stdout();
    let mut out = io::stdout().lock();
    for row in BRIDGE_KEYS {
        writeln!(out, "{}={}", paint.key(row.key), paint.strong(row.default))?;
        writeln!(out, "    {}", row.doc)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
