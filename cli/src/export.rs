//! `export`: a log as files for a broker, as JSON lines, or as CSV.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edgelog::inspect::{self, ExportRange, ExportReport};
use edgelog::{Error, IsolationLevel, Offset, Record, TopicPartition};
use serde_json::json;

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome, tell_damage};
use crate::inspected::{self, Watch};
use crate::print;
use crate::{interrupt, json_record, tail};

/// Export a topic as files for a Kafka broker, as JSON lines, or as CSV
///
/// Works beside a running writer and changes nothing in the data directory. Damage is left out, and named on standard
/// error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog export cpu --to /tmp/kafka --format kafka        /tmp/kafka/cpu-0, ready for a broker
  edgelog export cpu-0 --to cpu.jsonl --format json
  edgelog export cpu-0 --to - --format csv --from 1000 --until 2000 | head

kafka: TO is a directory; each partition becomes one in it, TOPIC-P. Leader epochs are written as 0, indexes are built
anew. To move it under a broker: create the topic there (same partitions, retention.ms=-1), stop the broker, put the
.log files into its partition directory beside the broker's own partition.metadata (or export with --topic-id), remove
.kafka_cleanshutdown, start.
json: one object a line with the field names of `kcat -J`, as `edgelog tail --json` prints them.
csv: offset,timestamp,key,value,headers. Null is an empty field, an empty text is \"\". What is not UTF-8 is written as
base64:..., and so is text that begins with base64: itself. headers is a JSON array [name, value, name, value].

TO is written under another name and renamed when it is whole. Exit codes: 0; 2 where damage was met.")]
pub(crate) struct Args {
    /// The topic, or topic-partition
    topic: String,
    /// A directory (kafka) or a file (json, csv; - is standard output)
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// What is written
    #[arg(long, value_enum, required_unless_present = "for_broker")]
    format: Option<Format>,
    /// The same as --format kafka
    #[arg(long, conflicts_with = "format")]
    for_broker: bool,
    /// From this offset on
    #[arg(long, value_name = "N", default_value_t = Offset(0), hide_default_value = true)]
    from: Offset,
    /// Up to before this offset
    #[arg(long, value_name = "N", default_value_t = Offset::MAX, hide_default_value = true)]
    until: Offset,
    /// Which records of transactions are written (json, csv); committed ones end where a transaction has no end yet
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted", value_parser = ["read_uncommitted", "read_committed"])]
    isolation_level: String,
    /// The id of the broker's topic, for partition.metadata (kafka)
    #[arg(long, value_name = "ID")]
    topic_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Partition directories for a broker
    Kafka,
    /// JSON lines
    Json,
    /// Comma-separated values
    Csv,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let format = args.format.unwrap_or(Format::Kafka);
    if args.topic_id.is_some() && format != Format::Kafka {
        return Err(Failure::new("--topic-id is for --format kafka"));
    }
    interrupt::install()?;
    let storage = inspected::open(ctx)?;
    let logs = inspected::select(&storage, Some(&args.topic))?.logs(&storage)?;
    let isolation = tail::isolation(&args.isolation_level);
    if isolation == IsolationLevel::ReadCommitted && format == Format::Kafka {
        return Err(Failure::new(
            "--isolation-level is for records: a broker gets the batches with their transactions",
        ));
    }
    let range = ExportRange::between(args.from, args.until).isolation(isolation);
    let mut watch = Watch::new("exporting");
    let mut look = |progress| watch.look(progress);
    let exported = if format == Format::Kafka {
        if args.to == Path::new("-") {
            return Err(Failure::new("--format kafka writes a directory, and - is standard output"));
        }
        let target = inspect::export_directory(&args.to)?;
        let id = args.topic_id.as_deref();
        each(&logs, |name| inspect::export_partition(&storage, name, &target, range, id, &mut look))
    } else {
        let mut out = Output::create(&args.to)?;
        if format == Format::Csv {
            out.writer().write_all(b"offset,timestamp,key,value,headers\n")?;
        }
        let exported = each(&logs, |name| {
            let mut tell = |record: &Record<'_>, kind| match format {
                Format::Csv => write_csv(&mut out.writer(), record),
                _ => json_record::write(&mut out.writer(), &name.topic, name.partition, record, kind),
            };
            inspect::export_records(&storage, name, range, &mut tell, &mut look)
        });
        if exported.is_ok() {
            out.finish()?;
        }
        exported
    };
    drop(watch);
    match exported {
        Ok(reports) => Ok(tell(args, format, &reports)),
        Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Err(source.into()),
        Err(Error::Storage { source, path, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            let place = args.to.join(path);
            Err(Failure::new(format!("{} is there already", place.display()))
                .hint("Remove it, or export to another place."))
        }
        Err(error) => inspected::stopped(error),
    }
}

type Reports<'a> = Vec<(&'a TopicPartition, ExportReport)>;

fn each(
    logs: &[TopicPartition],
    mut export: impl FnMut(&TopicPartition) -> edgelog::Result<ExportReport>,
) -> edgelog::Result<Reports<'_>> {
    logs.iter().map(|name| Ok((name, export(name)?))).collect()
}

/// What was exported, and what could not be, on standard error.
fn tell(args: &Args, format: Format, reports: &Reports<'_>) -> ExitCode {
    let mut damaged = false;
    for (name, report) in reports {
        for finding in &report.lost {
            damaged |= tell_damage(finding);
        }
        let records = print::counted(report.records, "record");
        let offsets = match report.offsets {
            Some((first, next)) => format!(", offsets {first} to {}", next - 1),
            None => String::new(),
        };
        let to = match format {
            Format::Kafka => args.to.join(name.to_string()).display().to_string(),
            _ if args.to == Path::new("-") => "standard output".to_owned(),
            _ => args.to.display().to_string(),
        };
        eprintln!("{name}: {records}{offsets}, {} to {to}", print::bytes(report.bytes));
    }
    if damaged { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS }
}

/// Standard output, or a file that gets its name when it is whole.
enum Output {
    Stdout(BufWriter<io::Stdout>),
    File { writer: BufWriter<File>, part: PathBuf, path: PathBuf, is_whole: bool },
}

impl Output {
    fn create(path: &Path) -> Result<Output, Failure> {
        if path == Path::new("-") {
            return Ok(Output::Stdout(BufWriter::new(io::stdout())));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file =
            File::create(&part).map_err(|error| Failure::new(format!("cannot write {}: {error}", part.display())))?;
        Ok(Output::File { writer: BufWriter::new(file), part, path: path.to_owned(), is_whole: false })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Output::Stdout(out) => out,
            Output::File { writer, .. } => writer,
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        match &mut self {
            Output::Stdout(out) => out.flush()?,
            Output::File { writer, part, path, is_whole } => {
                let placed =
                    writer.flush().and_then(|()| writer.get_ref().sync_all()).and_then(|()| fs::rename(&*part, &*path));
                placed.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
                *is_whole = true;
            }
        }
        Ok(())
    }
}

/// Half an export is none.
impl Drop for Output {
    fn drop(&mut self) {
        if let Output::File { part, is_whole: false, .. } = self {
            let _ = fs::remove_file(part);
        }
    }
}

/// Writes the record as a line of CSV (RFC 4180, with a bare newline).
fn write_csv(out: &mut dyn Write, record: &Record<'_>) -> io::Result<()> {
    write!(out, "{},{},", record.offset, record.timestamp)?;
    write_field(out, record.key)?;
    out.write_all(b",")?;
    write_field(out, record.value)?;
    out.write_all(b",")?;
    let mut headers = Vec::new();
    for header in record.headers() {
        for bytes in [Some(header.key), header.value] {
            headers.push(bytes.map(|bytes| match std::str::from_utf8(bytes) {
                Ok(text) => json!(text),
                Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
            }));
        }
    }
    if !headers.is_empty() {
        write_text(out, &serde_json::to_string(&headers)?)?;
    }
    out.write_all(b"\n")
}

fn write_field(out: &mut dyn Write, bytes: Option<&[u8]>) -> io::Result<()> {
    const MARK: &str = "base64:";
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Ok(()),
        Some((_, Ok(text))) if !text.starts_with(MARK) => write_text(out, text),
        Some((bytes, _)) => write!(out, "{MARK}{}", STANDARD.encode(bytes)),
    }
}

fn write_text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let plain = !text.is_empty() && !text.starts_with(' ') && !text.contains([',', '"', '\n', '\r']);
    if plain { out.write_all(text.as_bytes()) } else { write!(out, "\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_quoted_where_it_has_to_be() {
        let field = |bytes: Option<&[u8]>| {
            let mut out = Vec::new();
            write_field(&mut out, bytes).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(field(None), "");
        assert_eq!(field(Some(b"")), "\"\"");
        assert_eq!(field(Some(b"plain text")), "plain text");
        assert_eq!(field(Some(b"a,b")), "\"a,b\"");
        assert_eq!(field(Some(b"say \"hi\"\n")), "\"say \"\"hi\"\"\n\"");
        assert_eq!(field(Some(&[0xff, 0])), "base64:/wA=");
        assert_eq!(field(Some(b"base64:x")), "base64:YmFzZTY0Ong=");
    }
}
