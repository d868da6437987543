//! `dump`: one file's batches and records, or index entries, as `kafka-dump-log` prints them.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use edgelog::Record;
use edgelog::edgelog_core::RecordBatch;
use edgelog::escape::escaped_path;
use edgelog::inspect::{self, DumpItem, DumpOptions, DumpReport, DumpText};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::failure::{DAMAGE, Failure, Outcome};
use crate::json_record::Base64;
use crate::screen::Screen;

/// Print a file's batches and records, or index entries, as kafka-dump-log does
///
/// Any file on its own: a .log or .cut file, an .index, a .timeindex, in a data directory or out of one. Compressed
/// batches are decoded. Behind damage the dump goes on at the next batch that holds. Nothing is changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog dump cpu-0/00000000000000000000.log
  edgelog dump --print-data-log cpu-0/*.log | less
  edgelog dump --json cpu-0/00000000000000000000.index | jq .position

Keys and values are written to a pipe or a file as they are, as Kafka's tool does; on a terminal, control characters and bytes
that are not UTF-8 are escaped.

Exit codes: 0, or 2 where a file is damaged, or where records were asked for and a batch decompresses to more than
edgelog.decompressed.bytes.max or its codec is not built in. Zeros behind the last batch of a live or crashed store's newest file are
reserved room and no damage.")]
pub(crate) struct Args {
    /// The files
    #[arg(required_unless_present = "comma_separated", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The files, as kafka-dump-log takes them
    #[arg(long = "files", value_delimiter = ',', value_name = "FILE,FILE", hide = true)]
    comma_separated: Vec<PathBuf>,
    /// Records too, compressed ones decoded
    #[arg(long)]
    deep_iteration: bool,
    /// Records with their keys and values
    #[arg(long)]
    print_data_log: bool,
    /// The most bytes that the records of one batch may decompress to, in place of
    /// edgelog.decompressed.bytes.max' default
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2147483647))]
    decompressed_bytes_max: Option<u32>,
    /// One JSON object a line: a batch, record, entry, or what is damaged
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let options = DumpOptions::default().deep(args.deep_iteration || args.print_data_log).data(args.print_data_log);
    let options = options.decompressed_bytes_max(args.decompressed_bytes_max);
    let mut damaged = false;
    for path in args.files.iter().chain(&args.comma_separated) {
        let shown = path.display().to_string();
        let report = if args.json { dump_json(path, &shown, options) } else { dump_text(path, &shown, options) }?;
        if !report.gaps.is_empty() && !args.json {
            eprintln!("Non-consecutive offsets in {}", escaped_path(path));
            report.gaps.iter().for_each(|(before, after)| eprintln!("  {before} is followed by {after}"));
        }
        // Records that were asked for and are not shown are never exit code 0.
        damaged |= report.damaged || report.unread_batches > 0;
    }
    Ok(if damaged { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS })
}

/// Dumps one file, wherever it is.
fn dump(
    path: &Path,
    options: DumpOptions,
    write: &mut dyn FnMut(DumpItem<'_>) -> io::Result<()>,
) -> Result<DumpReport, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name else { return Err(Failure::new(format!("{} is no file to dump", escaped_path(path)))) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let storage = inspect::open_directory(parent)?;
    match inspect::dump(&*storage, name, options, write) {
        // The reader of our output has gone. That is no fault of the file.
        Err(edgelog::Error::Storage { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Err(source.into()),
        dumped => Ok(dumped?),
    }
}

fn dump_text(path: &Path, shown: &str, options: DumpOptions) -> Result<DumpReport, Failure> {
    let mut text = DumpText::new(BufWriter::new(Screen::text(io::stdout().lock())), shown, options)?;
    let report = dump(path, options, &mut |item| text.write(&item))?;
    text.finish()?;
    Ok(report)
}

fn dump_json(path: &Path, shown: &str, options: DumpOptions) -> Result<DumpReport, Failure> {
    let mut out = BufWriter::new(Screen::json(io::stdout().lock()));
    let report = dump(path, options, &mut |item| {
        match &item {
            DumpItem::Record { record, .. } => {
                let line = RecordLine { file: shown, record, data: options.data };
                serde_json::to_writer(&mut out, &line)?;
            }
            item => serde_json::to_writer(&mut out, &line(shown, item))?,
        }
        out.write_all(b"\n")
    })?;
    out.flush()?;
    Ok(report)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchLine<'a> {
    r#type: &'static str,
    file: &'a str,
    position: u64,
    base_offset: i64,
    last_offset: i64,
    count: i32,
    base_sequence: i32,
    last_sequence: i32,
    producer_id: i64,
    producer_epoch: i16,
    partition_leader_epoch: i32,
    is_transactional: bool,
    is_control: bool,
    delete_horizon_ms: Option<i64>,
    timestamp_type: String,
    max_timestamp: i64,
    size: usize,
    compresscodec: &'static str,
    crc: u32,
    isvalid: bool,
}

fn batch_line<'a>(file: &'a str, position: u64, batch: &RecordBatch<'_>, isvalid: bool) -> BatchLine<'a> {
    BatchLine {
        r#type: "batch",
        file,
        position,
        base_offset: batch.base_offset().0,
        last_offset: batch.last_offset().0,
        count: batch.record_count(),
        base_sequence: batch.base_sequence(),
        last_sequence: batch.last_sequence(),
        producer_id: batch.producer_id(),
        producer_epoch: batch.producer_epoch(),
        partition_leader_epoch: batch.partition_leader_epoch().0,
        is_transactional: batch.is_transactional(),
        is_control: batch.is_control(),
        delete_horizon_ms: batch.delete_horizon().map(i64::from),
        timestamp_type: batch.timestamp_type().to_string(),
        max_timestamp: batch.max_timestamp().0,
        size: batch.size(),
        compresscodec: batch.compression().name(),
        crc: batch.crc(),
        isvalid,
    }
}

fn line(file: &str, item: &DumpItem<'_>) -> Value {
    match item {
        DumpItem::Batch { position, batch, is_valid } => json!(batch_line(file, *position, batch, *is_valid)),
        DumpItem::Invalid { position, bytes, reason, .. } => {
            json!({"type": "invalid", "file": file, "position": position, "bytes": bytes, "reason": reason})
        }
        DumpItem::NotDecompressed { position, reason } => {
            json!({"type": "not decompressed", "file": file, "position": position, "reason": reason})
        }
        DumpItem::Reserved { position, bytes } => {
            json!({"type": "reserved", "file": file, "position": position, "bytes": bytes})
        }
        DumpItem::OffsetEntry(entry) => {
            json!({"type": "offset", "file": file, "offset": entry.offset.0, "position": entry.position.0})
        }
        DumpItem::TimeEntry(entry) => {
            json!({"type": "time", "file": file, "timestamp": entry.timestamp.0, "offset": entry.offset.0})
        }
        other => json!({"type": "other", "file": file, "text": format!("{other:?}")}),
    }
}

/// One record, written piece by piece: a value may be as large as memory allows once.
struct RecordLine<'a> {
    file: &'a str,
    record: &'a Record<'a>,
    data: bool,
}

impl Serialize for RecordLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RecordLine { file, record, data } = self;
        let size = |bytes: Option<&[u8]>| bytes.map(<[u8]>::len);
        let header_keys: Vec<_> = record.headers().map(|header| String::from_utf8_lossy(header.key)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("file", file)?;
        map.serialize_entry("headerKeys", &header_keys)?;
        let (key, key_base64) = text_of(record.key);
        let (payload, payload_base64) = text_of(record.value);
        if *data {
            map.serialize_entry("key", &key)?;
        }
        map.serialize_entry("keySize", &size(record.key))?;
        if let Some(key) = key_base64.filter(|_| *data) {
            map.serialize_entry("key_base64", &key)?;
        }
        map.serialize_entry("offset", &record.offset.0)?;
        if *data {
            map.serialize_entry("payload", &payload)?;
        }
        if let Some(payload) = payload_base64.filter(|_| *data) {
            map.serialize_entry("payload_base64", &payload)?;
        }
        map.serialize_entry("timestamp", &record.timestamp.0)?;
        map.serialize_entry("type", "record")?;
        map.serialize_entry("valueSize", &size(record.value))?;
        map.end()
    }
}

/// As `tail --json` does: bytes that are no text go into a field of their own.
fn text_of(bytes: Option<&[u8]>) -> (Option<&str>, Option<Base64<'_>>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => (None, Some(Base64(bytes))),
    }
}
