//! `record`: this machine's telemetry, sampled into topics until stopped.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edgelog::{Durability, NewRecord, NewTopic, RecoveryReport, Store, TimestampMs};

use crate::channel::Channel;
use crate::context::Context;
use crate::failure::{Failure, Outcome, warn};
use crate::interrupt;
use crate::live::{Live, View};
use crate::print::{self, Paint};
use crate::telemetry::{Glance, Sample, Sampler, TOPICS};
use crate::time;

/// Record this machine's telemetry
///
/// Samples processors, memory, load, disks, network interfaces and temperatures (where there are any) from /proc
/// and /sys. Each becomes a topic: cpu, memory, load, disk, network, temperature. A record's key is its source
/// (cpu0, eth0, vda), its value JSON; each sample of a topic is one snappy-compressed batch.
///
/// It starts by saying what the last run left behind, shows live what it records, and goes on until Ctrl-C (or
/// SIGTERM), which closes the store cleanly. kill -9 and power cuts lose nothing that was shown as durable: the
/// next run recovers and goes on at the next offset.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog record                         ten samples a second until Ctrl-C
  edgelog record --for 30s --every 1s
  edgelog record --topic-prefix gw7. --durability interval --every 10ms
  edgelog tail cpu                       in another terminal, meanwhile

Durability: sync (the default) waits for the flush of each batch, so that nothing recorded is ever lost; interval flushes once \
a second and writes the flash less; os leaves it to the system. Topics keep seven days; `edgelog topics alter cpu --config \
retention.ms=...` changes that.")]
pub(crate) struct Args {
    /// Stop after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = time::parse_duration)]
    run_for: Option<Duration>,
    /// Time from sample to sample
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = time::parse_period)]
    every: Duration,
    /// Begin topics' names with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    topic_prefix: String,
    /// When a sample counts as recorded
    #[arg(long, value_enum, default_value = "sync")]
    durability: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// On the disk
    Sync,
    /// In the page cache, flushed every second
    Interval,
    /// In the page cache
    Os,
}

impl Level {
    fn durability(self) -> Durability {
        match self {
            Level::Sync => Durability::Sync,
            Level::Interval => Durability::Interval,
            Level::Os => Durability::Os,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Sync => "sync",
            Level::Interval => "interval",
            Level::Os => "os",
        }
    }
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    interrupt::install()?;
    let store = ctx.open_with(Store::options())?;
    let mut recorder = Recorder::new(args, ctx, &store);
    let recorded = recorder.prepare().and_then(|()| recorder.record());
    let closed = store.close();
    let printed = recorder.print_summary(closed.is_ok());
    recorded?;
    closed?;
    printed?;
    match recorder.failed {
        0 => Ok(ExitCode::SUCCESS),
        failed => Err(Failure::new(format!("{} could not be recorded in full", print::counted(failed, "sample")))
            .hint("The disk (or the quota) was full. What was recorded is safe; free some room, or delete a topic: `edgelog topics delete NAME`.")),
    }
}

struct Recorder<'a> {
    args: &'a Args,
    ctx: &'a Context,
    store: &'a Store,
    sampler: Sampler,
    channels: Vec<Channel>,
    started: Instant,
    samples: u64,
    /// How long appending a sample takes, a moving average.
    appending: Duration,
    /// Samples whose time had passed before the one before them was done.
    skipped: u64,
    /// Samples that could not be appended in full, and why the last one could not.
    failed: u64,
    failure: Option<String>,
}

impl<'a> Recorder<'a> {
    fn new(args: &'a Args, ctx: &'a Context, store: &'a Store) -> Recorder<'a> {
        Recorder {
            args,
            ctx,
            store,
            sampler: Sampler::new(ctx.dir()),
            channels: Vec::new(),
            started: Instant::now(),
            samples: 0,
            appending: Duration::ZERO,
            skipped: 0,
            failed: 0,
            failure: None,
        }
    }

    /// Makes the topics of what this machine has, and says where things stand.
    fn prepare(&mut self) -> Result<(), Failure> {
        let report = self.store.recovery_report();
        // The rates of the very first sample span no time: it only shows what there is.
        let sample = self.sampler.sample();
        for at in (0..TOPICS.len()).filter(|&at| !sample.parts[at].readings.is_empty()) {
            let name = format!("{}{}", self.args.topic_prefix, TOPICS[at]);
            self.store.create_topic_if_absent(&NewTopic::new(&name).config("compression.type", "snappy"))?;
            let log = self.store.log(&name, 0)?;
            self.channels.push(Channel { at, batch: log.batch(), log, records: 0, glance: Glance::default() });
        }
        if self.channels.is_empty() {
            return Err(Failure::new("this machine has none of the files in /proc and /sys that would be recorded"));
        }
        self.print_start(&report)
    }

    fn record(&mut self) -> Result<(), Failure> {
        let mut live = Live::new(io::stdout().is_terminal(), self.args.every);
        self.started = Instant::now();
        let end = self.args.run_for.and_then(|run_for| self.started.checked_add(run_for));
        let mut next = self.started + self.args.every;
        loop {
            let redraw = live.next_draw();
            let wake = [Some(next), redraw, end].into_iter().flatten().min().unwrap_or(next);
            let is_stopped = interrupt::sleep_until(wake);
            let now = Instant::now();
            let is_over = is_stopped || end.is_some_and(|end| now >= end);
            if is_over || now >= next {
                // Also when stopped: the last sample covers the time until then.
                let sample = self.sampler.sample();
                live.take(&sample);
                self.append(&sample)?;
                let behind = Instant::now().saturating_duration_since(next).as_nanos() / self.args.every.as_nanos();
                let behind = if is_over { 0 } else { u32::try_from(behind).unwrap_or(u32::MAX) };
                self.skipped += u64::from(behind);
                next += self.args.every.saturating_mul(behind.saturating_add(1));
            }
            if is_over || redraw.is_some_and(|redraw| redraw <= Instant::now()) {
                live.draw(&self.view(is_over))?;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    fn append(&mut self, sample: &Sample) -> Result<(), Failure> {
        const OLD_PARTS: u32 = 7;
        let timestamp = now_ms();
        let durability = self.args.durability.durability();
        let began = Instant::now();
        let mut failure = None;
        for channel in &mut self.channels {
            let part = &sample.parts[channel.at];
            channel.glance.clone_from(&part.glance);
            for reading in &part.readings {
                let record = NewRecord::value(reading.json.as_bytes()).with_key(reading.source.as_bytes());
                channel.batch.push(record.with_timestamp(timestamp))?;
            }
            match channel.log.append_batch_with(&mut channel.batch, durability) {
                Ok(_) => channel.records += part.readings.len() as u64,
                // No room now: there may be some later, and the samples until then are counted as missing.
                Err(error) if error.is_retriable() => {
                    channel.batch.clear();
                    failure = Some(error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let appending = if self.samples == 0 {
            began.elapsed()
        } else {
            (self.appending * OLD_PARTS + began.elapsed()) / (OLD_PARTS + 1)
        };
        self.appending = appending;
        self.samples += 1;
        self.failed += u64::from(failure.is_some());
        self.failure = failure;
        Ok(())
    }

    fn view(&self, is_last: bool) -> View<'_> {
        View {
            channels: &self.channels,
            dir: self.ctx.dir(),
            durability: self.args.durability.name(),
            elapsed: self.started.elapsed(),
            samples: self.samples,
            appending: self.appending,
            skipped: self.skipped,
            failed: self.failed,
            failure: self.failure.as_deref(),
            is_last,
        }
    }

    /// What the last run left behind, and where this one goes on.
    fn print_start(&self, report: &RecoveryReport) -> Result<(), Failure> {
        let paint = Paint::stdout();
        let mut out = io::stdout().lock();
        let dir = self.ctx.shown_dir();
        let is_new = report.clean && report.logs.is_empty();
        if is_new {
            writeln!(out, "{} {dir}: a new store", paint.strong("edgelog"))?;
        } else if report.clean {
            writeln!(out, "{} {dir}: {}", paint.strong("edgelog"), paint.good("closed cleanly the last time"))?;
        } else {
            let recovered = print::counted(report.recovered_records(), "record");
            let cut = report.cut_bytes();
            let cut = if cut == 0 {
                "nothing cut".to_owned()
            } else {
                format!("{} {} cut and put aside", print::bytes(cut), report.cut_in_words())
            };
            let text = format!("not closed cleanly; recovered {recovered} above the recovery points, {cut}");
            writeln!(out, "{} {dir}: {}", paint.strong("edgelog"), paint.warn(text))?;
            for log in report.logs.iter().filter(|log| log.recovered_records > 0 || !log.cut.is_empty()) {
                let (start, end, point) = (log.log_start_offset, log.log_end_offset, log.recovery_point);
                let recovered = print::counted(log.recovered_records, "record");
                writeln!(
                    out,
                    "  {}: {start}..{end} intact, {recovered} recovered from offset {point} on, epoch {}",
                    log.name, log.leader_epoch
                )?;
                for cut in &log.cut {
                    let kept = cut.kept_in.as_deref().map(|kept| format!(", kept in {kept}")).unwrap_or_default();
                    writeln!(
                        out,
                        "    {} cut from {} at byte {}{kept}",
                        print::bytes(cut.bytes),
                        cut.file,
                        cut.position
                    )?;
                }
            }
        }
        for lost in report.logs.iter().flat_map(|log| &log.lost) {
            let offsets = print::offsets_in_words(lost.first_offset, lost.next_offset);
            warn(format_args!("{} at {}: {offsets} lost", lost.file, lost.position));
        }
        for cut in report.logs.iter().flat_map(|log| &log.cut) {
            if let (Some((first, last)), Some(kept_in)) = (cut.valid_offsets, &cut.kept_in) {
                let offsets = print::offsets_in_words(first, last.saturating_add(1));
                warn(format_args!(
                    "valid batches are in {kept_in}, {offsets}: `edgelog repair --salvage {kept_in}` appends them again"
                ));
            }
        }
        for log in &report.logs {
            if let Some(failure) = &log.failure {
                warn(format_args!("{} is read-only: {failure}", log.name));
            }
        }
        if let Some(reason) = &report.not_writable {
            warn(format_args!("not writable yet: {reason}"));
        }
        if !is_new {
            let at: Vec<String> = self
                .channels
                .iter()
                .map(|channel| format!("{} {}", channel.log.name().topic, channel.log.offsets().log_end_offset))
                .collect();
            writeln!(out, "goes on at: {}", at.join(", "))?;
        }
        Ok(out.flush()?)
    }

    fn print_summary(&self, is_closed: bool) -> Result<(), Failure> {
        let elapsed = self.started.elapsed();
        let records: u64 = self.channels.iter().map(|channel| channel.records).sum();
        let mut out = io::stdout().lock();
        let paint = Paint::stdout();
        write!(
            out,
            "{} {} in {}, {}",
            paint.strong("recorded"),
            print::counted(records, "record"),
            time::elapsed(elapsed),
            print::counted(self.samples, "sample")
        )?;
        if self.skipped > 0 {
            write!(out, ", {} skipped because the one before took longer than --every", print::grouped(self.skipped))?;
        }
        if self.failed > 0 {
            write!(out, ", {} not recorded in full", print::grouped(self.failed))?;
        }
        writeln!(out, "; {}", if is_closed { "closed cleanly" } else { "NOT closed cleanly" })?;
        if let Some(first) = self.channels.first() {
            let dir = match self.ctx.dir().to_str() {
                Some("./edgelog-data") | None => String::new(),
                Some(_) => format!(" --dir {}", self.ctx.shown_dir()),
            };
            let name = &first.log.name().topic;
            writeln!(out, "{}", paint.dim(format_args!("look at it: edgelog tail {name}{dir}, edgelog stat{dir}")))?;
        }
        Ok(out.flush()?)
    }
}

fn now_ms() -> TimestampMs {
    use edgelog::clock::{Clock, SystemClock};
    SystemClock.now()
}
