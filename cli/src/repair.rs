//! `repair`: makes a damaged store whole again, and says what is lost.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use edgelog::RecoveryReport;
use edgelog::escape::escaped;
use edgelog::inspect::{self, RepairReport, Severity};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome, warn};
use crate::fsck;
use crate::inspected::{self, Watch};
use crate::interrupt;
use crate::print::{self, Paint};

/// Make a damaged store whole again
///
/// Rewrites damaged segments: good batches as they were, wrong leader epochs and base offsets corrected, and a batch
/// without records instead of what is lost, so that readers pass over it. Damaged bytes are kept in .cut files
/// next to the segment. Indexes are rebuilt, and the store is opened and closed once. No other process may write the
/// store meanwhile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog repair --dry-run           what would be done
  edgelog repair                     do it
  edgelog repair --salvage cpu-0/00000000000000000000-4096-1.cut
                                     append what is good in a .cut file once more, as new records

Back up the directory first where you can: `cp -a DIR DIR.bak`.

Exit codes: 0 the store is sound now (what is lost was named), 2 it is not. Of a dry run: 2 where repair cannot make it
sound.")]
pub(crate) struct Args {
    /// Only this topic, or topic-partition
    topic: Option<String>,
    /// Change nothing, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Append the batches that hold in this .cut file to its log, at new offsets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topic", "dry_run"])]
    salvage: Option<String>,
    /// The outcome as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcomes<'a> {
    dry_run: bool,
    lost_offsets: u64,
    actions: Vec<Action<'a>>,
    sound: Option<bool>,
}

#[derive(Serialize)]
struct Action<'a> {
    topic: Option<&'a str>,
    partition: Option<u32>,
    file: &'a str,
    text: &'a str,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    interrupt::install()?;
    let looking = inspected::open(ctx)?;
    if let Some(file) = &args.salvage {
        return salvage(file, args.json, ctx);
    }
    let selection = inspected::select(&looking, args.topic.as_deref())?;
    let storage = if args.dry_run { looking } else { inspect::open_directory_for_repair(ctx.dir())? };
    let mut watch = Watch::new("repairing");
    let report = match inspect::repair(&storage, &selection, args.dry_run, &mut |progress| watch.look(progress)) {
        Ok(report) => report,
        Err(error) => return inspected::stopped(error),
    };
    drop(watch);
    let sound = report.after.as_ref().map(inspect::CheckReport::is_sound);
    if args.json {
        let actions = report.actions.iter().map(|action| Action {
            topic: action.log.as_ref().map(|log| log.topic.as_str()),
            partition: action.log.as_ref().map(|log| log.partition),
            file: &action.file,
            text: &action.text,
        });
        let (dry_run, lost_offsets) = (args.dry_run, report.before.lost_offsets());
        print::json_line(&Outcomes { dry_run, lost_offsets, actions: actions.collect(), sound })?;
    } else {
        print_report(&report, args.dry_run)?;
    }
    Ok(if sound == Some(false) || is_beyond_repair(&report) { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS })
}

/// A dry run that found what repair leaves as it is: the store would not be sound afterwards.
fn is_beyond_repair(report: &RepairReport) -> bool {
    let before = &report.before;
    // What is lost in a directory that is no log is left to a person, too.
    let is_left = before.findings.iter().any(|finding| finding.log.is_none() && finding.severity == Severity::Lost);
    report.after.is_none() && (is_left || before.logs.iter().any(|log| log.needs_decision))
}

fn print_report(report: &RepairReport, dry_run: bool) -> Result<(), Failure> {
    let paint = Paint::stdout();
    let mut out = io::stdout().lock();
    for action in &report.actions {
        let prefix = if dry_run { "would " } else { "" };
        writeln!(out, "{}: {prefix}{}", paint.strong(escaped(&action.file)), escaped(&action.text))?;
    }
    let has_acted = |recovery: &&RecoveryReport| {
        let is_mended = recovery
            .logs
            .iter()
            .any(|log| !(log.placed.is_empty() && log.renamed.is_empty() && log.put_right.is_empty()));
        recovery.cut_bytes() > 0 || recovery.lost_offsets() > 0 || is_mended
    };
    if let Some(recovery) = report.recovery.as_ref().filter(has_acted) {
        writeln!(out, "opening the store: {}", escaped(recovery).with_lines())?;
    }
    if is_beyond_repair(report) {
        out.flush()?;
        drop(out);
        warn("repair does not make the store sound: what it leaves as it is needs a decision");
        return fsck::print_report(&report.before, true);
    }
    match &report.after {
        None if dry_run && !report.actions.is_empty() => {
            writeln!(out, "nothing was changed; `edgelog repair` does it")?;
        }
        None => writeln!(out, "{}: there is nothing to repair", paint.good("sound"))?,
        Some(after) if after.is_sound() => writeln!(out, "{}: the store is whole again", paint.good("sound"))?,
        Some(after) => {
            out.flush()?;
            drop(out);
            warn("the store is not sound yet:");
            return fsck::print_report(after, true);
        }
    }
    Ok(out.flush()?)
}

fn salvage(file: &str, json: bool, ctx: &Context) -> Outcome {
    // As `ls` and `fsck` print it: with the data directory in front, or without.
    let inside = Path::new(file).strip_prefix(ctx.dir()).ok().and_then(Path::to_str).unwrap_or(file);
    let storage = inspect::open_directory_for_repair(ctx.dir())?;
    let report = inspect::salvage(&storage, inside).map_err(|error| {
        Failure::from(error)
            .hint("FILE is the path of a .cut file inside the data directory, as `edgelog fsck` lists it.")
    })?;
    if json {
        #[derive(Serialize)]
        struct Salvaged<'a> {
            log: String,
            batches: u64,
            records: u64,
            first_offset: Option<i64>,
            next_offset: Option<i64>,
            first_old_offset: Option<i64>,
            next_old_offset: Option<i64>,
            refused_batches: u64,
            invalid_bytes: u64,
            renamed_to: &'a str,
        }
        print::json_line(&Salvaged {
            log: report.log.to_string(),
            batches: report.batches,
            records: report.records,
            first_offset: report.offsets.map(|(first, _)| first.0),
            next_offset: report.offsets.map(|(_, next)| next.0),
            first_old_offset: report.old_offsets.map(|(first, _)| first.0),
            next_old_offset: report.old_offsets.map(|(_, next)| next.0),
            refused_batches: report.refused,
            invalid_bytes: report.invalid_bytes,
            renamed_to: &report.renamed_to,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout().lock();
    let records = print::counted(report.records, "record");
    if let (Some((first, next)), Some((old_first, old_next))) = (report.offsets, report.old_offsets) {
        let (new, old) = (format!("{first} to {}", next - 1), format!("{old_first} to {}", old_next - 1));
        writeln!(out, "{}: {records} appended again, at offsets {new}; they were offsets {old}", report.log)?;
    } else {
        writeln!(out, "{}: no batch in {} holds", report.log, escaped(inside))?;
    }
    if report.refused > 0 {
        writeln!(
            out,
            "{} cannot be appended (markers of transactions, or with holes)",
            print::counted(report.refused, "batch")
        )?;
    }
    if report.invalid_bytes > 0 {
        writeln!(out, "{} are no batch", print::bytes(report.invalid_bytes))?;
    }
    writeln!(out, "the file is {} now", escaped(&report.renamed_to))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
