//! Dumping one file as `kafka-dump-log` prints it, for people and scripts that know its lines.
//!
//! What Kafka's tool leaves to its exit code or stops at is said here in words, and the dump goes on behind it: bytes
//! that are no batch, zeros behind the end, indexes that do not rise.

use std::io::{self, Write};
use std::sync::Arc;

use edgelog_core::{
    NO_SEQUENCE, OFFSET_INDEX_ENTRY_LEN, Offset, OffsetIndex, OffsetIndexEntry, Position, Record, RecordBatch,
    TIME_INDEX_ENTRY_LEN, TimeIndex, TimeIndexEntry,
};

use super::indexes::IndexCheck;
use crate::error::{Error, Result};
use crate::segment::decompressor::{Decompressor, RecordsFault};
use crate::segment::walk::{Damage, Step, WalkRules, Walker};
use crate::segment::{Window, file_names};
use crate::storage::{Access, Storage, StorageFile};

/// Of records that do not follow each other so many are reported.
const GAPS_MAX: usize = 1000;
/// The search behind damage looks for batches up to this size.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What is dumped.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DumpOptions {
    /// Records too (`--deep-iteration`), without their bytes.
    pub deep: bool,
    /// Keys and values of records (`--print-data-log`); implies `deep`.
    pub data: bool,
    /// The most bytes that the records of a batch may decompress to; `None` is `edgelog.decompressed.bytes.max`'
    /// default.
    pub decompressed_bytes_max: Option<u32>,
}

impl DumpOptions {
    /// The same, with records or without.
    #[must_use]
    pub fn deep(self, deep: bool) -> DumpOptions {
        DumpOptions { deep, ..self }
    }

    /// The same, with another bound on what a batch may decompress to.
    #[must_use]
    pub fn decompressed_bytes_max(self, bytes: Option<u32>) -> DumpOptions {
        DumpOptions { decompressed_bytes_max: bytes, ..self }
    }

    /// The same, with keys and values or without.
    #[must_use]
    pub fn data(self, data: bool) -> DumpOptions {
        DumpOptions { data, ..self }
    }
}

/// What a file held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DumpReport {
    /// Batches that hold, or index entries.
    pub entries: u64,
    /// Bytes that are no valid batch or entry, zeros at the end left out.
    pub invalid_bytes: u64,
    /// Zeros at the end: room that was reserved for what comes next.
    pub reserved_bytes: u64,
    /// Pairs of offsets of which the second does not follow the first, where records were looked at.
    pub gaps: Vec<(Offset, Offset)>,
    /// Something in the file is damaged.
    pub damaged: bool,
    /// Batches whose records were asked for and not looked at: no damage ([`DumpItem::NotDecompressed`]).
    pub unread_batches: u64,
}

/// What a file holds, in its order.
#[derive(Debug)]
#[non_exhaustive]
pub enum DumpItem<'a> {
    /// A batch. Where `is_valid` is false its CRC does not hold, and its records are left out.
    Batch {
        /// Where it starts.
        position: u64,
        /// Header and bytes.
        batch: RecordBatch<'a>,
        /// Its CRC holds, and its records can be read where they were asked for.
        is_valid: bool,
    },
    /// A record of the batch before.
    Record {
        /// The batch.
        batch: RecordBatch<'a>,
        /// The record.
        record: Record<'a>,
    },
    /// The records of the batch before were not looked at, and may well be sound: the codec is not built in, or more
    /// comes out than is allowed.
    NotDecompressed {
        /// Where the batch starts.
        position: u64,
        /// What keeps it from being decompressed.
        reason: String,
    },
    /// Bytes that are no batch, or an index that does not hold.
    Invalid {
        /// Where they start.
        position: u64,
        /// How many they are.
        bytes: u64,
        /// What was expected and what was found.
        reason: String,
        /// Something good follows.
        goes_on: bool,
    },
    /// Zeros up to the file's end.
    Reserved {
        /// Where they start.
        position: u64,
        /// How many they are.
        bytes: u64,
    },
    /// An entry of an offset index.
    OffsetEntry(OffsetIndexEntry),
    /// An entry of a time index.
    TimeEntry(TimeIndexEntry),
}

/// Hands what the file `path` of `storage` holds to `write`: a `.log` (or `.cut`) file's batches and records, or the
/// entries of an `.index` or `.timeindex`. The name decides which; its digits are the base offset.
///
/// Damage does not end the dump: the next valid batch is searched for, within bounds, and handed out.
///
/// # Errors
/// [`Error::Storage`] where the file cannot be opened or is of none of these kinds, and the errors of `write`.
pub fn dump(
    storage: &dyn Storage,
    path: &str,
    options: DumpOptions,
    write: &mut dyn FnMut(DumpItem<'_>) -> io::Result<()>,
) -> Result<DumpReport> {
    let file = storage.open(path, Access::Read).map_err(Error::storage("open", path))?;
    let len = file.len().map_err(Error::storage("look at", path))?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut dumper = Dumper { options, write, report: DumpReport::default(), last_offset: None };
    let dumped = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("log" | "cut" | "part" | "salvaged" | "prepared") => {
            dumper.log(file, len, positions_of_index(storage, path))
        }
        Some("index") => dumper.offset_index(file, len, base_offset_of(name)),
        Some("timeindex") => dumper.time_index(file, len, base_offset_of(name)),
        _ => {
            let kinds = "neither .log, .index, .timeindex nor .cut";
            Err(io::Error::new(io::ErrorKind::InvalidInput, kinds))
        }
    };
    let mut report = dumper.report;
    dumped.map_err(Error::storage("dump", path))?;
    report.damaged = report.invalid_bytes > 0 || report.damaged;
    Ok(report)
}

/// The base offset in a file's name, or 0.
fn base_offset_of(name: &str) -> Offset {
    file_names::parse_index_file(name).or_else(|| file_names::parse_log_file(name)).unwrap_or(Offset(0))
}

/// The positions of batches that the index of a `.log` file names: tried where the search behind damage is at its end.
fn positions_of_index(storage: &dyn Storage, path: &str) -> Vec<u64> {
    let Some(stem) = path.strip_suffix(".log") else { return Vec::new() };
    let base = base_offset_of(path.rsplit('/').next().unwrap_or(path));
    IndexCheck::load(storage, format!("{stem}.index"), format!("{stem}.timeindex"), base).positions()
}

struct Dumper<'t> {
    options: DumpOptions,
    write: &'t mut dyn FnMut(DumpItem<'_>) -> io::Result<()>,
    report: DumpReport,
    last_offset: Option<Offset>,
}

impl Dumper<'_> {
    fn log(&mut self, file: Arc<dyn StorageFile>, len: u64, hints: Vec<u64>) -> io::Result<()> {
        let mut walker = Walker::new(file, len, WalkRules::ANY);
        walker.set_hints(hints);
        let bytes_max = self.options.decompressed_bytes_max;
        let mut decompressor = bytes_max.map_or_else(Decompressor::default, Decompressor::new);
        loop {
            match walker.next() {
                Step::Batch { position } => {
                    self.report.entries += 1;
                    self.batch(position, &walker.batch(), &mut decompressor)?;
                }
                Step::Damage(damage) => self.damage(&mut walker, &damage)?,
                Step::Zeros { position } => {
                    let bytes = walker.end() - position;
                    self.report.reserved_bytes = bytes;
                    (self.write)(DumpItem::Reserved { position, bytes })?;
                }
                Step::End => return Ok(()),
            }
        }
    }

    fn batch(&mut self, position: u64, batch: &RecordBatch<'_>, decompressor: &mut Decompressor) -> io::Result<()> {
        if !(self.options.deep || self.options.data) {
            return (self.write)(DumpItem::Batch { position, batch: *batch, is_valid: true });
        }
        // All records are decoded before the batch is called valid; those before the fault are shown all the same. What
        // keeps a batch from being decompressed here is no fault of the batch's.
        let fault = decompressor.check(batch).err();
        let is_damaged = fault.as_ref().is_some_and(RecordsFault::is_damage);
        self.report.damaged |= is_damaged;
        (self.write)(DumpItem::Batch { position, batch: *batch, is_valid: !is_damaged })?;
        if let Ok(records) = decompressor.records(batch) {
            for record in records.map_while(std::result::Result::ok) {
                self.follow(record.offset);
                (self.write)(DumpItem::Record { batch: *batch, record })?;
            }
        }
        self.report.unread_batches += u64::from(matches!(fault, Some(RecordsFault::NotDecompressed(_))));
        let Some(reason) = fault.map(|fault| fault.to_string()) else { return Ok(()) };
        (self.write)(if is_damaged {
            DumpItem::Invalid { position, bytes: 0, reason, goes_on: true }
        } else {
            DumpItem::NotDecompressed { position, reason }
        })
    }

    fn follow(&mut self, offset: Offset) {
        if let Some(last) = self.last_offset.filter(|last| last.checked_add(1) != Some(offset)) {
            if self.report.gaps.len() < GAPS_MAX {
                self.report.gaps.push((last, offset));
            }
        }
        self.last_offset = Some(offset);
    }

    /// Where the frame of a batch stands and only its CRC does not hold, the batch is shown as Kafka's tool shows it.
    fn damage(&mut self, walker: &mut Walker, damage: &Damage) -> io::Result<()> {
        let position = damage.position;
        let behind = damage.resumes_at.unwrap_or(walker.end());
        let bytes = behind - position;
        self.report.invalid_bytes += bytes;
        let resume = walker.position();
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).min(BATCH_BYTES_MAX);
        let frame = walker.bytes(position, wanted);
        if let Ok(batch) = RecordBatch::parse(frame) {
            if batch.size() as u64 == bytes {
                (self.write)(DumpItem::Batch { position, batch, is_valid: false })?;
            }
        }
        let reason = damage.cause.to_string();
        (self.write)(DumpItem::Invalid { position, bytes, reason, goes_on: damage.resumes_at.is_some() })?;
        debug_assert_eq!(walker.position(), resume, "looking does not move the walk");
        Ok(())
    }

    fn offset_index(&mut self, file: Arc<dyn StorageFile>, len: u64, base: Offset) -> io::Result<()> {
        let mut before = OffsetIndexEntry { offset: base, position: Position(0) };
        self.entries(file, len, OFFSET_INDEX_ENTRY_LEN, |dumper, at, bytes| {
            for (n, bytes) in bytes.chunks_exact(OFFSET_INDEX_ENTRY_LEN).enumerate() {
                let Some(entry) = OffsetIndex::new(bytes, base).entry(0) else { break };
                let position = at + (n * OFFSET_INDEX_ENTRY_LEN) as u64;
                let rises = entry.offset > before.offset && entry.position > before.position;
                // The first batch of a segment is never indexed, but its last offset may be the base.
                let first_rises = position == 0 && entry.offset >= base && entry.position > 0;
                dumper.entry(position, OFFSET_INDEX_ENTRY_LEN, rises || first_rises, DumpItem::OffsetEntry(entry))?;
                before = entry;
            }
            Ok(())
        })
    }

    fn time_index(&mut self, file: Arc<dyn StorageFile>, len: u64, base: Offset) -> io::Result<()> {
        let mut before = None;
        self.entries(file, len, TIME_INDEX_ENTRY_LEN, |dumper, at, bytes| {
            for (n, bytes) in bytes.chunks_exact(TIME_INDEX_ENTRY_LEN).enumerate() {
                let Some(entry) = TimeIndex::new(bytes, base).entry(0) else { break };
                let position = at + (n * TIME_INDEX_ENTRY_LEN) as u64;
                let rises = before.is_none_or(|before: TimeIndexEntry| {
                    entry.timestamp > before.timestamp && entry.offset > before.offset
                });
                let holds =
                    rises && entry.timestamp >= 0 && entry.offset >= base && bytes.iter().any(|&byte| byte != 0);
                dumper.entry(position, TIME_INDEX_ENTRY_LEN, holds, DumpItem::TimeEntry(entry))?;
                before = Some(entry);
            }
            Ok(())
        })
    }

    fn entry(&mut self, position: u64, len: usize, holds: bool, item: DumpItem<'_>) -> io::Result<()> {
        self.report.entries += 1;
        (self.write)(item)?;
        if holds {
            return Ok(());
        }
        self.report.invalid_bytes += len as u64;
        let reason = "the entry does not rise from the one before".to_owned();
        (self.write)(DumpItem::Invalid { position, bytes: len as u64, reason, goes_on: true })
    }

    /// Goes over a file in stretches of whole entries.
    fn entries(
        &mut self,
        file: Arc<dyn StorageFile>,
        len: u64,
        entry_len: usize,
        mut each: impl FnMut(&mut Self, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut window = Window::new(file, len);
        let mut position = 0;
        while position < len {
            let bytes = window.at(position, entry_len);
            let whole = bytes.len() - bytes.len() % entry_len;
            if whole == 0 {
                let bytes = len - position;
                self.report.invalid_bytes += bytes;
                let reason = format!("{bytes} bytes are no whole entry of {entry_len}");
                return (self.write)(DumpItem::Invalid { position, bytes, reason, goes_on: false });
            }
            each(self, position, &bytes[..whole])?;
            position += whole as u64;
        }
        Ok(())
    }
}

/// Writes what [`dump`] hands out as the lines of `kafka-dump-log`.
#[derive(Debug)]
pub struct DumpText<W> {
    out: W,
    path: String,
    name: String,
    data: bool,
    /// Nothing was written yet.
    is_empty: bool,
}

impl<W: Write> DumpText<W> {
    /// Begins the file that is shown as `path`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, path: &str, options: DumpOptions) -> io::Result<DumpText<W>> {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        writeln!(out, "Dumping {path}")?;
        if let Some(base) = file_names::parse_log_file(&name) {
            writeln!(out, "Log starting offset: {base}")?;
        }
        Ok(DumpText { out, path: path.to_owned(), name, data: options.data, is_empty: true })
    }

    /// Writes one item.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&mut self, item: &DumpItem<'_>) -> io::Result<()> {
        self.is_empty = false;
        match item {
            DumpItem::Batch { position, batch, is_valid } => self.batch(*position, batch, *is_valid),
            DumpItem::Record { batch, record } => self.record(batch, record),
            DumpItem::NotDecompressed { position, reason } => {
                writeln!(
                    self.out,
                    "Records of the batch at position {position} of {} were not looked at: {reason}",
                    self.name
                )
            }
            DumpItem::Invalid { bytes, reason, goes_on: false, .. } => {
                writeln!(self.out, "Found {bytes} invalid bytes at the end of {}", self.name)?;
                writeln!(self.out, "  {reason}")
            }
            DumpItem::Invalid { position, bytes: 0, reason, .. } => {
                writeln!(
                    self.out,
                    "Found invalid records in the batch at position {position} of {}: {reason}",
                    self.name
                )
            }
            DumpItem::Invalid { position, bytes, reason, .. } => {
                writeln!(self.out, "Found {bytes} invalid bytes at position {position} of {}: {reason}", self.name)
            }
            DumpItem::Reserved { position, bytes } => {
                writeln!(self.out, "{bytes} bytes of reserved room behind position {position} of {}", self.name)
            }
            DumpItem::OffsetEntry(entry) => writeln!(self.out, "offset: {} position: {}", entry.offset, entry.position),
            DumpItem::TimeEntry(entry) => writeln!(self.out, "timestamp: {} offset: {}", entry.timestamp, entry.offset),
        }
    }

    /// Ends the file. That an offset index has no entries is written, as by Kafka's tool.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        if self.is_empty && self.name.rsplit_once('.').is_some_and(|(_, ending)| ending == "index") {
            writeln!(self.out, "{} is empty.", self.path)?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn batch(&mut self, position: u64, batch: &RecordBatch<'_>, is_valid: bool) -> io::Result<()> {
        let horizon = batch.delete_horizon();
        let horizon = horizon.map_or("OptionalLong.empty".to_owned(), |ms| format!("OptionalLong[{ms}]"));
        writeln!(
            self.out,
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
             producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: {horizon} \
             position: {position} {}: {} size: {} magic: 2 compresscodec: {} crc: {} isvalid: {is_valid}",
            batch.base_offset(),
            batch.last_offset(),
            batch.record_count(),
            batch.base_sequence(),
            batch.last_sequence(),
            batch.producer_id(),
            batch.producer_epoch(),
            batch.partition_leader_epoch(),
            batch.is_transactional(),
            batch.is_control(),
            batch.timestamp_type(),
            batch.max_timestamp(),
            batch.size(),
            batch.compression(),
            batch.crc(),
        )
    }

    fn record(&mut self, batch: &RecordBatch<'_>, record: &Record<'_>) -> io::Result<()> {
        let out = &mut self.out;
        let len = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        write!(
            out,
            "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {} headerKeys: [",
            record.offset,
            batch.timestamp_type(),
            record.timestamp,
            len(record.key),
            len(record.value),
            sequence_of(batch, record.offset),
        )?;
        for (n, header) in record.headers().enumerate() {
            if n > 0 {
                out.write_all(b",")?;
            }
            write_lossy(out, header.key)?;
        }
        out.write_all(b"]")?;
        if batch.is_control() {
            self.control(record)?;
        } else if self.data {
            for (name, bytes) in [("key", record.key), ("payload", record.value)] {
                if let Some(bytes) = bytes {
                    write!(self.out, " {name}: ")?;
                    write_lossy(&mut self.out, bytes)?;
                }
            }
        }
        self.out.write_all(b"\n")
    }

    /// The markers that end transactions; their key is version and type, their value version and coordinator epoch.
    fn control(&mut self, record: &Record<'_>) -> io::Result<()> {
        let Some(&[_, _, high, low]) = record.key.and_then(|key| key.first_chunk::<4>()) else { return Ok(()) };
        let marker = match i16::from_be_bytes([high, low]) {
            0 => "ABORT",
            1 => "COMMIT",
            other => return write!(self.out, " controlType: {other}"),
        };
        let epoch = record.value.and_then(|value| value.get(2..6)).and_then(|bytes| bytes.first_chunk::<4>());
        let epoch = epoch.map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        write!(self.out, " endTxnMarker: {marker} coordinatorEpoch: {epoch}")
    }
}

/// Writes bytes as text, with a replacement character in place of what is none, piece by piece: a value may be as
/// large as memory allows once.
fn write_lossy(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.utf8_chunks() {
        out.write_all(chunk.valid().as_bytes())?;
        if !chunk.invalid().is_empty() {
            out.write_all("\u{fffd}".as_bytes())?;
        }
    }
    Ok(())
}

/// A record's own sequence number: the batch's, counted on; after `i32::MAX` comes 0.
fn sequence_of(batch: &RecordBatch<'_>, offset: Offset) -> i32 {
    let base = batch.base_sequence();
    if base == NO_SEQUENCE {
        return NO_SEQUENCE;
    }
    (base as u32).wrapping_add((offset - batch.base_offset()) as u32) as i32 & i32::MAX
}
