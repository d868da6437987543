//! `bridge`: send logs to a Kafka cluster, exactly once, and say where that stands.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use edgelog::bridge::{
    BRIDGE_KEYS, Bridge, BridgeConfig, BridgeError, BridgeEvent, BridgeMetrics, ConnectionState, MetricsHandle,
    StopHandle,
};

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, INTERRUPTED, Outcome, refuse_stray_options, said, warn};
use crate::interrupt;
use crate::print::{self, Paint};
use crate::progress::CatchUp;
use crate::time;

mod keys;
mod notify;
mod outage;
mod positions;
mod report;

use keys::{KeyArgs, set_options};
use notify::Notifier;
use report::{Manner, Reporter, behind, not_sent, report_positions};

/// Another copy of this device, or a log that is not this device's: a person has to decide. Not to be restarted.
const DECIDE: u8 = 3;

/// How often the bar and the metrics' file are looked after.
const LOOK: Duration = Duration::from_millis(500);
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// So many records that are not sent are worth a bar.
const LEFT_SHOWN_MIN: u64 = 1000;

/// Send logs to a Kafka cluster, each record once and in order
///
/// Works while another program writes the store, and when none does. Without a command: `run`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog bridge --device press-17 --bootstrap kafka:9092 --topics 'cpu,net.*' --until-caught-up
  edgelog bridge --config bridge.properties
  edgelog bridge --config bridge.properties --to 'factory.{device}.{topic}' --json
  edgelog bridge --config bridge.properties --metrics-file /var/lib/node_exporter/edgelog.prom
  edgelog bridge status
  edgelog bridge status --device press-17 --bootstrap kafka:9092
  edgelog bridge status --max-lag 1000
  edgelog bridge adopt --device press-17 --bootstrap kafka:9092
  edgelog bridge keys

Consumers must set isolation.level=read_committed. Target topics have to exist,
unless edgelog.bridge.create.topics=true.

Exit codes:
  0    the cluster has everything that is durable here, or Ctrl-C or SIGTERM stopped a run without --until-caught-up
  1    an error, printed on standard error; a service manager may start the bridge again. With --until-caught-up also:
       no topic here is one that is to be sent, or the time of --timeout is over
  2    --until-caught-up: some logs cannot be sent, each named with the reason; the others are in the cluster.
       `status --max-lag`: a log is further behind, or it is not known how far
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
    /// With --until-caught-up: end after so long, with exit code 1 where something was not sent (30s, 5m). What was
    /// asked of a broker may still be answered then, for five seconds at most
    #[arg(long, value_name = "DURATION", value_parser = time::parse_period, requires = "until_caught_up")]
    timeout: Option<Duration>,
    /// Report what happens on standard output, one JSON object a line
    #[arg(long)]
    json: bool,
    /// Report only what needs a person
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Report each transaction and each try. Without, transactions are reported on a terminal alone, and failures once
    /// a minute, after an hour once an hour
    #[arg(short, long)]
    verbose: bool,
    /// Keep a file with metrics in Prometheus' text format, rewritten every five seconds (for the
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
            BridgeError::Locked(_) => Failure::new(message).hint("`edgelog bridge status` says where it stands."),
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
    let (manner, catch_up) = (Manner::new(args.json, args.quiet, args.verbose), CatchUp::new());
    let bridge = Bridge::attach(ctx.dir(), config)?;
    let (metrics, stop) = (bridge.metrics(), bridge.stop_handle());
    let mut reporter = Reporter::new(manner, metrics.clone(), catch_up.clone());
    let last_failure = Arc::<Mutex<Option<String>>>::default();
    let failed = Arc::clone(&last_failure);
    let mut bridge = bridge.observe(move |event| {
        match event {
            BridgeEvent::Retrying { reason } | BridgeEvent::Aborted { reason } => {
                *locked(&failed) = Some(reason.clone());
            }
            BridgeEvent::Committed { .. } | BridgeEvent::CaughtUp => *locked(&failed) = None,
            _ => {}
        }
        reporter.report(event);
    });
    let timed_out = AtomicBool::new(false);
    let mut outside = Outside {
        stop,
        metrics,
        file: args.metrics_file.as_deref().map(MetricsFile::new),
        catch_up: (manner == Manner::Terminal).then_some(catch_up),
        notifier: Notifier::from_environment(),
        deadline: args.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        timed_out: &timed_out,
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
        Ok(_) if !args.until_caught_up => Ok(ExitCode::SUCCESS),
        Ok(positions) => {
            let is_caught_up = positions.iter().all(|log| log.waits.is_none() && log.is_delivered());
            if is_caught_up || !interrupt::raised() && !timed_out.load(Ordering::Relaxed) {
                report_positions(&positions, args.json);
                return Ok(if is_caught_up { ExitCode::SUCCESS } else { ExitCode::from(DAMAGE) });
            }
            if interrupt::raised() {
                if let Some(left) = not_sent(&positions) {
                    warn(left);
                }
                return Ok(ExitCode::from(INTERRUPTED));
            }
            let left = not_sent(&positions).unwrap_or_else(|| "it is not known what was sent".to_owned());
            let why = locked(&last_failure).take().map(|reason| format!("; what failed last: {reason}"));
            Err(Failure::new(format!("the time of --timeout is over: {left}{}", why.unwrap_or_default())))
        }
        Err(error) if error.needs_decision() => {
            eprintln!("{} {}", Paint::stderr().bad("error:"), said(&error));
            eprintln!(
                "`edgelog bridge adopt` decides that a store is the right one; `edgelog bridge help adopt` has more."
            );
            Ok(ExitCode::from(DECIDE))
        }
        Err(error) => Err(error.into()),
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What runs next to the bridge: listening for Ctrl-C, the bar, and the metrics' file.
struct Outside<'a> {
    stop: StopHandle,
    metrics: MetricsHandle,
    file: Option<MetricsFile<'a>>,
    /// On a terminal.
    catch_up: Option<CatchUp>,
    /// Where a service manager listens.
    notifier: Option<Notifier>,
    /// The bridge is stopped then.
    deadline: Option<Instant>,
    timed_out: &'a AtomicBool,
}

impl Outside<'_> {
    fn look_after(&mut self, has_ended: &mpsc::Receiver<()>) {
        let mut looked: Option<Instant> = None;
        if let Some(notifier) = &self.notifier {
            // Before the cluster answers: a network that comes later is no reason to start the service again.
            notifier.ready();
        }
        // Looks at both, since neither can be waited for together with the other.
        while has_ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let is_over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if interrupt::sleep(Duration::from_millis(100)) || is_over {
                self.timed_out.store(is_over, Ordering::Relaxed);
                if let Some(notifier) = &self.notifier {
                    notifier.stopping();
                }
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
            if let Some(notifier) = &mut self.notifier {
                // Looks into the logs: where these do not answer, the watchdog hears nothing.
                notifier.status(status_of(&self.metrics.read()));
                notifier.watch(Instant::now());
            }
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
        let left: u64 = sending().filter_map(|log| log.lag_records).sum();
        if left < LEFT_SHOWN_MIN && !catch_up.is_shown() {
            return;
        }
        let age = sending().filter_map(|log| log.lag_age).max().unwrap_or_default();
        let label = format!("{} behind, {} sent", time::elapsed(age), print::bytes(metrics.sent_bytes()));
        catch_up.show(label, metrics.sent_records(), left);
    }
}

/// How the bridge stands, in a line.
fn status_of(metrics: &BridgeMetrics) -> String {
    let is_sent = !metrics.logs.is_empty() && metrics.logs.iter().all(|log| log.lag_records == Some(0));
    let mut text = match (&metrics.connection, metrics.logs_not_selected as u64) {
        (ConnectionState::NotYet, _) => "the cluster was not asked yet".to_owned(),
        (_, 0) if is_sent => "all is sent".to_owned(),
        (_, others) if is_sent => {
            format!("all of {} is sent, {} not selected", metrics.topics.join(","), print::counted(others, "log"))
        }
        _ => behind(metrics),
    };
    if let ConnectionState::Failing { reason } = &metrics.connection {
        text = format!("{text}; the cluster does not answer: {reason}");
    }
    match metrics.logs.iter().filter(|log| log.waits.is_some()).count() as u64 {
        0 => text,
        1 => format!("{text}; 1 log waits"),
        waiting => format!("{text}; {waiting} logs wait"),
    }
}

/// A file that always holds metrics as they were a few seconds ago, whole.
struct MetricsFile<'a> {
    path: &'a Path,
    written: Option<Instant>,
    was_reported: bool,
}

impl MetricsFile<'_> {
    fn new(path: &Path) -> MetricsFile<'_> {
        MetricsFile { path, written: None, was_reported: false }
    }

    fn write_when_due(&mut self, metrics: &MetricsHandle) {
        if self.written.is_none_or(|written| written.elapsed() >= METRICS_EVERY) {
            self.write(metrics);
        }
    }

    /// That the file cannot be written is reported once. The bridge works on.
    fn write(&mut self, metrics: &MetricsHandle) {
        self.written = Some(Instant::now());
        let made = PathBuf::from(format!("{}.tmp", self.path.display()));
        let written = fs::write(&made, metrics.read().to_prometheus()).and_then(|()| fs::rename(&made, self.path));
        if let Err(error) = &written {
            if !std::mem::replace(&mut self.was_reported, true) {
                warn(format_args!("metrics cannot be written: {}: {error}", self.path.display()));
            }
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
