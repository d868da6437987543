//! `export`: a log as files for a broker, as JSON lines, or as CSV.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use edgelog::escape::escaped_path;
use edgelog::inspect::{self, Export, ExportRange, ExportReport};
use edgelog::storage::Storage;
use edgelog::{Error, IsolationLevel, Offset, Record, TopicPartition};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::context::Context;
use crate::failure::{DAMAGE, Failure, Outcome, report_damage, warn};
use crate::inspected::{self, Watch};
use crate::json_record::Base64;
use crate::print;
use crate::screen::Screen;
use crate::{interrupt, json_record, tail};

/// Export a topic as files for a Kafka broker, as JSON lines, or as CSV
///
/// Works next to a running writer and changes nothing in the data directory. Damage is left out, and named on standard
/// error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog export cpu --to /tmp/kafka --format kafka        /tmp/kafka/cpu-0, ready for a broker
  edgelog export cpu-0 --to cpu.jsonl --format json
  edgelog export cpu-0 --to - --format csv --from 1000 --until 2000 | head

kafka: TO is a directory; each partition becomes one in it, TOPIC-P. Leader epochs are written as 0, indexes are
rebuilt. To move it under a broker: create the topic there (same partitions, retention.ms=-1), stop the broker, put the
.log files into its partition directory next to the broker's own partition.metadata (or export with --topic-id), remove
.kafka_cleanshutdown, start.
json: one object a line with the field names of `kcat -J`, as `edgelog tail --json` prints them.
csv: offset,timestamp,key,value,headers. Null is an empty field, an empty text is \"\". What is not UTF-8 is written as
base64:..., and so is text that begins with base64: itself. headers is a JSON array [name, value, name, value].

json and csv hold keys and values as they are; on a terminal, control characters are escaped.

TO is written under another name, with .part behind it, and renamed when it is whole. A pipe or a device is written to as it
is; nothing else but a file is replaced. TO is not inside the data directory. Exit codes: 0; 2 where damage was met.")]
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
    /// The most bytes that the records of one batch may decompress to, in place of
    /// edgelog.decompressed.bytes.max' default
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2147483647))]
    decompressed_bytes_max: Option<u32>,
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

impl Format {
    /// `out` for records of this form: escaped where it is a terminal.
    fn on<W: Write + IsTerminal>(self, out: W) -> Screen<W> {
        if self == Format::Json { Screen::json(out) } else { Screen::text(out) }
    }
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let format = args.format.unwrap_or(Format::Kafka);
    if args.topic_id.is_some() && format != Format::Kafka {
        return Err(Failure::new("--topic-id is for --format kafka"));
    }
    interrupt::install()?;
    let storage = inspected::open(ctx)?;
    let (logs, has_lost) = select(&storage, args, ctx)?;
    refuse_inside(&args.to, ctx.dir())?;
    let isolation = tail::isolation(&args.isolation_level);
    if isolation == IsolationLevel::ReadCommitted && format == Format::Kafka {
        return Err(Failure::new(
            "--isolation-level is for records: a broker gets the batches with their transactions",
        ));
    }
    let range = ExportRange::between(args.from, args.until).isolation(isolation);
    let range = range.decompressed_bytes_max(args.decompressed_bytes_max);
    let mut export = Export::new(&storage, range)?;
    let mut watch = Watch::new("exporting");
    let mut look = |progress| watch.look(progress);
    let exported = if format == Format::Kafka {
        if args.to == Path::new("-") {
            return Err(Failure::new("--format kafka writes a directory, and - is standard output"));
        }
        let target = inspect::export_directory(&args.to)?;
        let id = args.topic_id.as_deref();
        each(&logs, |name| export.partition(name, &target, id, &mut look))
    } else {
        let mut out = Output::create(&args.to, format)?;
        if format == Format::Csv {
            out.writer().write_all(b"offset,timestamp,key,value,headers\n")?;
        }
        let exported = each(&logs, |name| {
            let mut write = |record: &Record<'_>, kind| match format {
                Format::Csv => write_csv(&mut out.writer(), record),
                _ => json_record::write(&mut out.writer(), &name.topic, name.partition, record, kind),
            };
            export.records(name, &mut write, &mut look)
        });
        if exported.is_ok() {
            out.finish()?;
        }
        exported
    };
    drop(watch);
    match exported {
        Ok(reports) => Ok(print_reports(args, format, &reports, has_lost)),
        Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Err(source.into()),
        Err(Error::Storage { source, path, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            let place = args.to.join(path);
            Err(Failure::new(format!("{} is there already", escaped_path(&place)))
                .hint("Remove it, or export to another place."))
        }
        Err(error) => inspected::stopped(error),
    }
}

/// The logs to export, and whether any that are meant cannot be read at all: these are reported as `tail` does.
fn select(storage: &Arc<dyn Storage>, args: &Args, ctx: &Context) -> Result<(Vec<TopicPartition>, bool), Failure> {
    let found = inspected::select(storage, Some(&args.topic))?;
    // Where no checkpoint can be read, the segments alone say what there is.
    let Ok(store) = ctx.attach() else { return Ok((found.logs(storage)?, false)) };
    let readable = ctx.readable(&store, &args.topic, None)?;
    Ok((readable.logs.iter().map(|log| log.name().clone()).collect(), readable.has_lost))
}

/// An export changes nothing in the data directory, nor in a directory that a partition there leads to.
fn refuse_inside(to: &Path, dir: &Path) -> Result<(), Failure> {
    if to == Path::new("-") {
        return Ok(());
    }
    let mut existing = std::path::absolute(to)?;
    // What it will stand in, as far as that is there.
    while existing.symlink_metadata().is_err() && existing.pop() {}
    let is_whole = existing == std::path::absolute(to)?;
    let place = if is_whole && existing.is_file() {
        // A name that is replaced stands where its directory is, also where it is a link.
        existing.parent().unwrap_or(Path::new("/")).canonicalize()
    } else {
        existing.canonicalize()
    };
    let Ok(place) = place else { return Ok(()) };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let linked = entries.filter(|path| path.is_symlink() && path.is_dir());
    for inside in linked.chain([dir.to_owned()]).filter_map(|path| path.canonicalize().ok()) {
        if place.starts_with(&inside) {
            return Err(Failure::new(format!(
                "{} is inside the data directory, in {}",
                escaped_path(to),
                escaped_path(&inside)
            ))
            .hint("Export to another place: nothing is written where the store's own files are."));
        }
    }
    Ok(())
}

type Reports<'a> = Vec<(&'a TopicPartition, ExportReport)>;

fn each(
    logs: &[TopicPartition],
    mut export: impl FnMut(&TopicPartition) -> edgelog::Result<ExportReport>,
) -> edgelog::Result<Reports<'_>> {
    logs.iter().map(|name| Ok((name, export(name)?))).collect()
}

/// What was exported, and what could not be, on standard error.
fn print_reports(args: &Args, format: Format, reports: &Reports<'_>, has_lost: bool) -> ExitCode {
    let mut damaged = has_lost;
    for (name, report) in reports {
        for finding in &report.lost {
            damaged |= report_damage(finding);
        }
        for &(first, next) in &report.deleted {
            let offsets = print::offsets_were(first, next);
            warn(format_args!("{name}: {offsets} deleted before they were read; going on at {next}"));
        }
        let records = print::counted(report.records, "record");
        let offsets = match report.offsets {
            Some((first, next)) => format!(", offsets {first} to {}", next - 1),
            None => String::new(),
        };
        let to = match format {
            Format::Kafka => escaped_path(&args.to.join(name.to_string())).to_string(),
            _ if args.to == Path::new("-") => "standard output".to_owned(),
            _ => escaped_path(&args.to).to_string(),
        };
        eprintln!("{name}: {records}{offsets}, {} to {to}", print::bytes(report.bytes));
    }
    if damaged { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS }
}

/// Standard output, a pipe or a device, or a file that gets its name when it is whole.
enum Output {
    Stdout(BufWriter<Screen<io::Stdout>>),
    /// It stays what it is, and takes what is written at once.
    Stream(BufWriter<Screen<File>>, PathBuf),
    File {
        writer: BufWriter<File>,
        part: PathBuf,
        path: PathBuf,
        is_whole: bool,
    },
}

impl Output {
    fn create(path: &Path, format: Format) -> Result<Output, Failure> {
        if path == Path::new("-") || path == Path::new("/dev/stdout") {
            return Ok(Output::Stdout(BufWriter::new(format.on(io::stdout()))));
        }
        let cannot = |path: &Path, why: &dyn std::fmt::Display| {
            Failure::new(format!("cannot write {}: {why}", escaped_path(path)))
        };
        if let Some(kind) = what_is_there(path).map_err(|error| cannot(path, &error))? {
            if kind.is_fifo() || kind.is_char_device() {
                let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path);
                let file = file.map_err(|error| match error.raw_os_error() {
                    Some(code) if code == Errno::NXIO.raw_os_error() => cannot(path, &"no process reads from it"),
                    _ => cannot(path, &error),
                })?;
                let kind = file.metadata()?.file_type();
                if !kind.is_fifo() && !kind.is_char_device() {
                    return Err(cannot(path, &"it was exchanged meanwhile"));
                }
                // From here on, who writes waits for who reads.
                rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(io::Error::from)?;
                return Ok(Output::Stream(BufWriter::new(format.on(file)), path.to_owned()));
            }
            if !kind.is_file() {
                let what = match () {
                    () if kind.is_symlink() => "a symbolic link",
                    () if kind.is_dir() => "a directory",
                    () if kind.is_socket() => "a socket",
                    () => "a device",
                };
                let hint = "Nothing but a file is replaced. Name the file itself, or - for standard output.";
                return Err(cannot(path, &format_args!("it is {what}, and not a file")).hint(hint));
            }
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // A file that already has that name stays, and a link there is not followed.
        let file = OpenOptions::new().write(true).create_new(true).open(&part).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let left = "An export that was killed may have left it. Remove it, or export to another place.";
                Failure::new(format!("{} is there already", escaped_path(&part))).hint(left)
            }
            _ => cannot(&part, &error),
        })?;
        Ok(Output::File { writer: BufWriter::new(file), part, path: path.to_owned(), is_whole: false })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Output::Stdout(out) => out,
            Output::Stream(out, _) => out,
            Output::File { writer, .. } => writer,
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        match &mut self {
            Output::Stdout(out) => out.flush()?,
            Output::Stream(out, path) => out
                .flush()
                .map_err(|error| Failure::from(error).context(format_args!("cannot write {}", escaped_path(path))))?,
            Output::File { writer, part, path, is_whole } => {
                let mut place = || {
                    writer.flush()?;
                    writer.get_ref().sync_all()?;
                    if what_is_there(path)?.is_some_and(|kind| !kind.is_file()) {
                        return Err(io::Error::other("something else than a file has taken its name"));
                    }
                    fs::rename(&*part, &*path)
                };
                place().map_err(|error| Failure::new(format!("cannot write {}: {error}", escaped_path(path))))?;
                *is_whole = true;
            }
        }
        Ok(())
    }
}

/// Half an export is none.
impl Drop for Output {
    fn drop(&mut self) {
        if let Output::File { writer, part, is_whole: false, .. } = self {
            let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
            let ours = writer.get_ref().metadata().map(id).ok();
            if ours.is_some() && part.symlink_metadata().map(id).ok() == ours {
                let _ = fs::remove_file(part);
            }
        }
    }
}

/// What has the name `path`, where anything has; a link is not followed.
fn what_is_there(path: &Path) -> io::Result<Option<FileType>> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the record as a line of CSV (RFC 4180, with a bare newline).
fn write_csv(out: &mut dyn Write, record: &Record<'_>) -> io::Result<()> {
    write!(out, "{},{},", record.offset, record.timestamp)?;
    write_field(out, record.key)?;
    out.write_all(b",")?;
    write_field(out, record.value)?;
    out.write_all(b",")?;
    if record.headers().next().is_some() {
        // A list of texts has quotes.
        out.write_all(b"\"")?;
        serde_json::to_writer(Quoted(&mut *out), &HeaderList(record))?;
        out.write_all(b"\"")?;
    }
    out.write_all(b"\n")
}

/// The headers of a record as a JSON array, name and value in turn.
struct HeaderList<'a>(&'a Record<'a>);

impl Serialize for HeaderList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cells = self.0.headers().flat_map(|header| [Some(header.key), header.value]);
        serializer.collect_seq(cells.map(|bytes| bytes.map(Cell)))
    }
}

/// Bytes as a text, or as an object with their base64 where they are none.
struct Cell<'a>(&'a [u8]);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &Base64(self.0))?;
        map.end()
    }
}

/// Hands on what is written with each quote doubled: no field is built in memory.
struct Quoted<'a>(&'a mut dyn Write);

impl Write for Quoted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for (n, piece) in bytes.split(|&byte| byte == b'"').enumerate() {
            if n > 0 {
                self.0.write_all(b"\"\"")?;
            }
            self.0.write_all(piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn write_field(out: &mut dyn Write, bytes: Option<&[u8]>) -> io::Result<()> {
    const MARK: &str = "base64:";
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Ok(()),
        Some((_, Ok(text))) if !text.starts_with(MARK) => write_text(out, text),
        Some((bytes, _)) => write!(out, "{MARK}{}", Base64Display::new(bytes, &STANDARD)),
    }
}

fn write_text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let plain = !text.is_empty() && !text.starts_with(' ') && !text.contains([',', '"', '\n', '\r']);
    if plain {
        return out.write_all(text.as_bytes());
    }
    out.write_all(b"\"")?;
    Quoted(&mut *out).write_all(text.as_bytes())?;
    out.write_all(b"\"")
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

    /// Keeps what was written, and how much at a time.
    #[derive(Default)]
    struct Pieces {
        bytes: Vec<u8>,
        largest: usize,
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.largest = self.largest.max(bytes.len());
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A field of 120 MB took several times as much memory as text.
    #[test]
    fn large_fields_are_written_in_pieces() {
        for bytes in [vec![0xff; 1 << 20], b"\",".repeat(1 << 19)] {
            let mut out = Pieces::default();
            write_field(&mut out, Some(&bytes)).unwrap();
            assert!(out.bytes.len() > 1 << 20 && out.largest < 64 << 10, "{} at a time", out.largest);
        }
    }
}
