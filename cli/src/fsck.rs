//! `fsck`: every byte of every batch and index, and what is wrong with which.

use std::io::{self, Write};
use std::process::ExitCode;

use edgelog::escape::escaped;
use edgelog::inspect::{self, CheckReport, CheckedLog, Finding, Severity};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome};
use crate::inspected::{self, Watch};
use crate::interrupt;
use crate::print::{self, Align, Paint, Table};

/// Check every byte of every batch and index
///
/// Looks at framing, checksums, offsets, leader epochs, each record (compressed ones too), each index entry, the
/// checkpoint and leftovers. Changes nothing, takes no lock, and works next to a running writer.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog fsck                       the whole store
  edgelog fsck cpu-0                 one partition
  edgelog fsck --json | jq '.findings[] | select(.severity == \"lost\")'

Exit codes:
  0    sound; notes are no damage
  1    damage that the next open or `edgelog repair` heals without losing a record: a torn tail, an index, a
       checkpoint slot, a field outside the checksum (errors of the command itself are 1 as well, printed as `error:`)
  2    records are lost or cannot be read: each place and its offsets are named. Also of batches that may well be
       sound, and that decompress to more than edgelog.decompressed.bytes.max or whose codec is not built in: `tail`
       and `export` cannot print them either")]
pub(crate) struct Args {
    /// Only this topic, or topic-partition
    topic: Option<String>,
    /// The most bytes that the records of one batch may decompress to, in place of
    /// edgelog.decompressed.bytes.max' default
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2147483647))]
    decompressed_bytes_max: Option<u32>,
    /// The report as one line of JSON
    #[arg(long)]
    json: bool,
    /// Leave out notes: what is worth knowing and no damage
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    worst: Option<&'static str>,
    lost_offsets: u64,
    unread_batches: u64,
    more_findings: u64,
    findings: Vec<Found<'a>>,
    logs: Vec<Looked<'a>>,
}

#[derive(Serialize)]
pub(crate) struct Found<'a> {
    severity: &'static str,
    topic: Option<&'a str>,
    partition: Option<u32>,
    file: &'a str,
    position: Option<u64>,
    first_lost_offset: Option<i64>,
    next_offset: Option<i64>,
    text: &'a str,
}

impl<'a> Found<'a> {
    fn new(finding: &'a Finding) -> Found<'a> {
        Found {
            severity: finding.severity.name(),
            topic: finding.log.as_ref().map(|log| log.topic.as_str()),
            partition: finding.log.as_ref().map(|log| log.partition),
            file: &finding.file,
            position: finding.position,
            first_lost_offset: finding.lost.map(|(first, _)| first.0),
            next_offset: finding.lost.map(|(_, next)| next.0),
            text: &finding.text,
        }
    }
}

#[derive(Serialize)]
struct Looked<'a> {
    topic: &'a str,
    partition: u32,
    worst: Option<&'static str>,
    segments: usize,
    bytes: u64,
    batches: u64,
    records: u64,
    log_start_offset: i64,
    log_end_offset: i64,
}

impl<'a> Looked<'a> {
    fn new(log: &'a CheckedLog) -> Looked<'a> {
        Looked {
            topic: &log.name.topic,
            partition: log.name.partition,
            worst: log.worst.map(Severity::name),
            segments: log.segments,
            bytes: log.bytes,
            batches: log.batches,
            records: log.records,
            log_start_offset: log.log_start_offset.0,
            log_end_offset: log.log_end_offset.0,
        }
    }
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    interrupt::install()?;
    let storage = inspected::open(ctx)?;
    let selection = inspected::select(&storage, args.topic.as_deref())?;
    let mut watch = Watch::new("checking");
    let look = &mut |progress| watch.look(progress);
    let checked = match args.decompressed_bytes_max {
        Some(bytes) => inspect::check_within(&storage, &selection, bytes, look),
        None => inspect::check(&storage, &selection, look),
    };
    let report = match checked {
        Ok(report) => report,
        Err(error) => return inspected::stopped(error),
    };
    drop(watch);
    if args.json {
        let kept = |finding: &&Finding| !args.quiet || finding.severity > Severity::Note;
        print::json_line(&Report {
            worst: report.worst.map(Severity::name),
            lost_offsets: report.lost_offsets(),
            unread_batches: report.unread_batches(),
            more_findings: report.more_findings,
            findings: report.findings.iter().filter(kept).map(Found::new).collect(),
            logs: report.logs.iter().map(Looked::new).collect(),
        })?;
    } else {
        print_report(&report, args.quiet)?;
    }
    Ok(exit_code(&report))
}

fn exit_code(report: &CheckReport) -> ExitCode {
    match report.worst {
        _ if report.unread_batches() > 0 => ExitCode::from(DAMAGE),
        None | Some(Severity::Note) => ExitCode::SUCCESS,
        Some(Severity::Heals) => ExitCode::FAILURE,
        Some(Severity::Lost) => ExitCode::from(DAMAGE),
    }
}

pub(crate) fn print_report(report: &CheckReport, quiet: bool) -> Result<(), Failure> {
    let paint = Paint::stdout();
    let right = |heading| (heading, Align::Right);
    let columns = [
        ("LOG", Align::Left),
        right("FROM"),
        right("TO"),
        right("RECORDS"),
        right("SEGMENTS"),
        right("BYTES"),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for log in &report.logs {
        let verdict = match log.worst {
            None | Some(Severity::Note) => "sound",
            Some(Severity::Heals) => "heals itself",
            Some(Severity::Lost) => "DATA LOST",
        };
        table.row([
            escaped(&log.name).to_string(),
            log.log_start_offset.to_string(),
            log.log_end_offset.to_string(),
            print::grouped(log.records),
            log.segments.to_string(),
            print::bytes(log.bytes),
            verdict.to_owned(),
        ]);
    }
    table.print()?;
    let mut out = io::stdout().lock();
    for finding in report.findings.iter().filter(|finding| !quiet || finding.severity > Severity::Note) {
        let severity = finding.severity.name();
        let level = finding.severity;
        let finding = escaped(finding);
        match level {
            Severity::Note => writeln!(out, "{} {finding}", paint.dim(format_args!("{severity:<5}")))?,
            Severity::Heals => writeln!(out, "{} {finding}", paint.warn(format_args!("{severity:<5}")))?,
            Severity::Lost => writeln!(out, "{} {finding}", paint.bad(format_args!("{severity:<5}")))?,
        }
    }
    if report.more_findings > 0 {
        writeln!(out, "... and {} more", print::counted(report.more_findings, "finding"))?;
    }
    let looked_at = print::bytes(report.logs.iter().map(|log| log.bytes).sum());
    match report.worst {
        None | Some(Severity::Note) => writeln!(out, "{}: {looked_at} looked at", paint.good("sound"))?,
        Some(Severity::Heals) => writeln!(
            out,
            "{}: no record is lost. The next open heals what a writer would see; `edgelog repair` heals all of it.",
            paint.warn("damage that heals itself")
        )?,
        Some(Severity::Lost) if report.lost_offsets() == 0 => writeln!(
            out,
            "{}: what is named above. No offset is known to be lost.",
            paint.bad("in need of a decision")
        )?,
        Some(Severity::Lost) => writeln!(
            out,
            "{}: {} cannot be read. `edgelog repair --dry-run` says what can be done; `edgelog export` saves \
             the rest as it is.",
            paint.bad("DATA LOST"),
            print::counted(report.lost_offsets(), "offset")
        )?,
    }
    if report.unread_batches() > 0 {
        writeln!(
            out,
            "{}: the records of {} were not looked at, and no command here reads them; that is no damage.",
            paint.warn("not read"),
            print::counted(report.unread_batches(), "batch")
        )?;
    }
    Ok(out.flush()?)
}
