//! A long, mixed workload on one store, and in plain JSON what must be read from it afterwards.
//!
//!     cargo run --release --example mixed_workload -- DIR [--records N] [--expect FILE]
//!
//! Topics of every kind are filled at every durability, singly and in batches; records are deleted from the front and
//! truncated from the end; the process is killed in the middle of it and the store opened again. Everything is then
//! read back and compared with a model that knows nothing of files. FILE gets one line a record, with the field names
//! of `kcat -J`. The same arguments make the same records, always.
//!
//! `./test --only kafka` lets Apache Kafka's own tools judge the files.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use edgelog::{Durability, Header, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};

const USAGE: &str = "usage: mixed_workload DIR [--records N] [--expect FILE]";
const RECORDS_DEFAULT: usize = 20_000;
/// 2023-11-14T22:13:20Z, in milliseconds.
const TIME_BEGIN: i64 = 1_700_000_000_000;
/// What the child that is about to be killed says once it has appended its part.
const READY: &str = "ready to be killed";

/// Name, partitions and configuration of a topic.
type Topic = (&'static str, u32, &'static [(&'static str, &'static str)]);

/// None forgets by age: the timestamps lie in the past.
const TOPICS: &[Topic] = &[
    ("plain", 2, &[("segment.bytes", "262144")]),
    ("packed", 2, &[("segment.bytes", "65536"), ("compression.type", "snappy")]),
    ("small", 2, &[("segment.bytes", "65536"), ("index.interval.bytes", "256")]),
    ("aged", 1, &[("segment.ms", "60000")]),
    // Every batch is indexed and an index holds 40 entries: full indexes roll the segments.
    ("dense", 1, &[("index.interval.bytes", "0"), ("segment.index.bytes", "480")]),
    ("bounded", 1, &[("segment.bytes", "32768"), ("retention.bytes", "131072")]),
];

/// Three parts, one after the other; the second ends by being killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Begin,
    Killed,
    End,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut dir, mut records, mut expect, mut dies) = (None, RECORDS_DEFAULT, None, false);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--records") => {
                let value = arguments.next().ok_or(USAGE)?;
                records = value.to_str().and_then(|n| n.parse().ok()).ok_or(USAGE)?;
            }
            Some("--expect") => expect = Some(PathBuf::from(arguments.next().ok_or(USAGE)?)),
            // The program's own: this is the process that is killed.
            Some("--dies") => dies = true,
            Some(option) if option.starts_with("--") => return Err(format!("{option}? {USAGE}").into()),
            _ if dir.is_none() => dir = Some(PathBuf::from(argument)),
            _ => return Err(USAGE.into()),
        }
    }
    let dir = dir.ok_or(USAGE)?;
    if dies { die_in_the_middle(&dir, records) } else { run(&dir, records, expect.as_deref()) }
}

fn run(dir: &Path, records: usize, expect: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let mut workload = Workload::new(records);

    let store = open(dir, "tick")?;
    assert!(store.topics()?.is_empty(), "{} holds a store already; this begins with an empty one", dir.display());
    for &(name, partitions, config) in TOPICS {
        let mut topic = NewTopic::new(name).partitions(partitions).config("retention.ms", "-1");
        for (key, value) in config {
            topic = topic.config(key, value);
        }
        store.create_topic(&topic)?;
    }
    workload.play(Part::Begin, Some(&store))?;
    store.close()?;

    kill_in_the_middle(dir, records)?;
    // What the other process appended is known here without having seen it.
    workload.play(Part::Killed, None)?;

    let store = open(dir, "tick")?;
    let report = store.recovery_report();
    println!("after the kill: {report}");
    assert!(!report.clean, "a killed process cannot have closed the store");
    assert_eq!((report.cut_bytes(), report.lost_offsets()), (0, 0), "whole appends are neither cut nor lost");
    for partition in &workload.partitions {
        assert_eq!(partition.log(&store)?.leader_epoch(), 1, "{}: a crash raises the epoch", partition.name());
    }
    workload.play(Part::End, Some(&store))?;
    // Past every interval: what retention may take, it takes now.
    store.tick(TimestampMs(workload.now + 3_600_000))?;
    workload.learn_log_starts(&store)?;
    workload.verify(&store)?;
    store.close()?;

    let store = Store::attach(dir)?;
    workload.verify(&store)?;
    for partition in &workload.partitions {
        let (segments, bytes) = partition.log(&store)?.size()?;
        let (start, end) = (partition.start, partition.next);
        println!("{:<10} {segments:>4} segments {bytes:>9} bytes, offsets {start} to {end}", partition.name());
    }
    if let Some(path) = expect {
        workload.write_expectation(path)?;
    }
    Ok(())
}

fn open(dir: &Path, housekeeping: &str) -> edgelog::Result<Store> {
    Store::options().set("edgelog.housekeeping", housekeeping)?.open(dir)
}

/// Lets another process do the second part, and kills it.
fn kill_in_the_middle(dir: &Path, records: usize) -> Result<(), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(dir)
        .args(["--records", &records.to_string(), "--dies"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().ok_or("the child has no standard output")?).read_line(&mut said)?;
    child.kill()?;
    child.wait()?;
    if said.trim() == READY { Ok(()) } else { Err(format!("the second process failed; it said {said:?}").into()) }
}

/// The second part, with the housekeeping thread; ends by being killed with the store open.
fn die_in_the_middle(dir: &Path, records: usize) -> Result<(), Box<dyn Error>> {
    let mut workload = Workload::new(records);
    workload.play(Part::Begin, None)?;
    let store = open(dir, "thread")?;
    workload.play(Part::Killed, Some(&store))?;
    println!("{READY}");
    // Not for ever: the parent may have been killed itself.
    std::io::stdin().read_line(&mut String::new())?;
    Err("this process was not killed".into())
}

// --- the model -----------------------------------------------------------------------------------------------------

struct Entry {
    offset: i64,
    /// Offset of the first record of the batch that holds this one.
    batch: i64,
    timestamp: i64,
    headers: Vec<(String, Option<String>)>,
    key: Option<String>,
    value: Option<String>,
}

struct Partition {
    topic: &'static str,
    number: u32,
    entries: Vec<Entry>,
    start: i64,
    next: i64,
}

impl Partition {
    fn name(&self) -> String {
        format!("{}-{}", self.topic, self.number)
    }

    fn log(&self, store: &Store) -> edgelog::Result<Log> {
        store.log(self.topic, self.number)
    }

    fn readable(&self) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.offset < self.start)..]
    }

    fn append(&mut self, mut entries: Vec<Entry>) {
        let batch = self.next;
        for entry in &mut entries {
            (entry.offset, entry.batch) = (self.next, batch);
            self.next += 1;
        }
        self.entries.append(&mut entries);
    }
}

/// What is done, step by step, from a seed: with a store to do it to, or to the model alone.
struct Workload {
    random: Random,
    now: i64,
    partitions: Vec<Partition>,
    records: usize,
}

impl Workload {
    fn new(records: usize) -> Workload {
        let partition = |topic, number| Partition { topic, number, entries: Vec::new(), start: 0, next: 0 };
        let partitions =
            TOPICS.iter().flat_map(|&(topic, count, _)| (0..count).map(move |n| partition(topic, n))).collect();
        Workload { random: Random(0x6564_6765_6c6f_6721), now: TIME_BEGIN, partitions, records }
    }

    fn play(&mut self, part: Part, store: Option<&Store>) -> Result<(), Box<dyn Error>> {
        let mut left = self.records / 3;
        let mut steps = 0;
        while left > 0 {
            let at = self.random.below(self.partitions.len());
            let entries = self.some_records(self.partitions[at].topic, left);
            left -= entries.len();
            let durability = match self.random.below(50) {
                0 => Durability::Sync,
                1..=9 => Durability::Interval,
                _ => Durability::Os,
            };
            if let Some(store) = store {
                append(&self.partitions[at].log(store)?, &entries, self.partitions[at].next, durability)?;
            }
            self.partitions[at].append(entries);
            steps += 1;
            if steps % 64 == 0 {
                if let Some(store) = store {
                    store.tick(TimestampMs(self.now))?;
                }
            }
            if steps % 500 == 250 {
                self.delete_some(store)?;
            }
            // What a truncation removes is not removed again by a crash: one reason at a time.
            if steps % 500 == 400 && part != Part::Killed {
                self.truncate_some(part, store)?;
            }
        }
        // Every step that follows finds something in every log to recover, and every log with something to read.
        for at in 0..self.partitions.len() {
            let entries = self.some_records(self.partitions[at].topic, 1);
            if let Some(store) = store {
                append(&self.partitions[at].log(store)?, &entries, self.partitions[at].next, Durability::Os)?;
            }
            self.partitions[at].append(entries);
        }
        Ok(())
    }

    /// One record, or a batch of them.
    fn some_records(&mut self, topic: &str, records_max: usize) -> Vec<Entry> {
        let count = if self.random.one_in(8) { 1 + self.random.below(60) } else { 1 };
        self.now += match topic {
            // Beyond segment.ms now and then.
            "aged" if self.random.one_in(12) => 61_000,
            _ => self.random.below(400) as i64,
        };
        (0..count.min(records_max)).map(|n| self.some_record(topic, n)).collect()
    }

    fn some_record(&mut self, topic: &str, n: usize) -> Entry {
        let timestamp = match self.random.below(8) {
            // Devices' clocks are set back.
            0 => self.now - self.random.below(30_000) as i64,
            _ => self.now + n as i64,
        };
        let headers = match self.random.below(6) {
            0 => vec![("source".to_owned(), Some(self.some_text(12)))],
            1 => vec![
                ("trace".to_owned(), Some(String::new())),
                ("nothing".to_owned(), None),
                ("trace".to_owned(), Some(self.some_text(30))),
                (self.some_text(8).replace(':', "."), Some("v".to_owned())),
            ],
            _ => Vec::new(),
        };
        let key = match self.random.below(5) {
            0 => None,
            1 => Some(String::new()),
            _ => Some(format!("sensor-{}", self.random.below(40))),
        };
        let value = match self.random.below(20) {
            0 => None,
            1 => Some(String::new()),
            2 => Some(self.some_text(2000)),
            // Larger than what is stored through the map, once in a while.
            3 if topic == "plain" && self.random.one_in(40) => Some(self.some_text(90_000)),
            _ => Some(self.some_json()),
        };
        Entry { offset: 0, batch: 0, timestamp, headers, key, value }
    }

    fn some_json(&mut self) -> String {
        let (value, unit) = (self.random.below(100_000), ["C", "hPa", "m/s", "\u{b0}"][self.random.below(4)]);
        format!(r#"{{"value":{}.{:02},"unit":"{unit}","ok":{}}}"#, value / 100, value % 100, self.random.one_in(2))
    }

    /// Up to so many characters, with those among them that writers and parsers get wrong.
    fn some_text(&mut self, chars_max: usize) -> String {
        const RARE: &[char] =
            &['"', '\\', '\n', '\t', '\r', '|', ';', ',', '\u{e9}', '\u{4e16}', '\u{1f321}', '\u{7f}'];
        let count = self.random.below(chars_max + 1);
        (0..count)
            .map(|_| match self.random.below(40) {
                n if n < RARE.len() => RARE[n],
                n => char::from(b'a' + (n % 26) as u8),
            })
            .collect()
    }

    /// Deletes records from the front of a log, up to the middle of some batch.
    fn delete_some(&mut self, store: Option<&Store>) -> Result<(), Box<dyn Error>> {
        let at = self.random.below(self.partitions.len());
        let share = self.random.below(30) as i64;
        let partition = &mut self.partitions[at];
        // A log that retention shortens begins where the engine says, not the model.
        if partition.topic != "bounded" {
            let before = partition.start + (partition.next - partition.start) * share / 100;
            if let Some(store) = store {
                assert_eq!(
                    partition.log(store)?.delete_records_before(Offset(before))?,
                    before,
                    "{}",
                    partition.name()
                );
            }
            partition.start = before;
        }
        Ok(())
    }

    /// Takes the last records of a log back; the batch that holds the first of them goes as a whole.
    fn truncate_some(&mut self, part: Part, store: Option<&Store>) -> Result<(), Box<dyn Error>> {
        let at = self.random.below(self.partitions.len());
        let back = 1 + self.random.below(200) as i64;
        let partition = &mut self.partitions[at];
        let middle = partition.start + (partition.next - partition.start) / 2;
        let to = (partition.next - back).max(middle);
        // The first part leaves epoch 0 everywhere, so that what follows the crash is epoch 1.
        if part == Part::End && partition.topic != "bounded" && to < partition.next {
            let first = partition.entries.partition_point(|entry| entry.offset < to);
            let end = partition.entries[first].batch;
            if let Some(store) = store {
                let log = partition.log(store)?;
                let epoch = log.leader_epoch();
                assert_eq!(log.truncate_to(Offset(to))?, end, "{}: to {to}", partition.name());
                assert_eq!(log.leader_epoch(), epoch + 1, "{}", partition.name());
            }
            partition.entries.retain(|entry| entry.offset < end);
            partition.next = end;
            partition.start = partition.start.min(end);
        }
        Ok(())
    }

    /// How much retention by size has taken depends on how large batches came out; that it was right does not.
    fn learn_log_starts(&mut self, store: &Store) -> Result<(), Box<dyn Error>> {
        for partition in &mut self.partitions {
            let log = partition.log(store)?;
            let (start, config) = (log.offsets().log_start_offset, log.config());
            if config.retention_bytes >= 0 {
                let bytes = i64::try_from(log.size()?.1)?;
                let most = config.retention_bytes + i64::from(config.segment_bytes);
                assert!(bytes < most, "{}: {bytes} bytes, expected less than {most}", partition.name());
                let taken = start > partition.start;
                assert!(taken == (bytes >= config.retention_bytes), "{}: starts at {start}", partition.name());
                partition.start = start.0;
            }
        }
        Ok(())
    }

    /// Reads everything and holds it against the model.
    fn verify(&self, store: &Store) -> Result<(), Box<dyn Error>> {
        for partition in &self.partitions {
            let (name, log) = (partition.name(), partition.log(store)?);
            let mut reader = log.reader(OffsetSpec::Earliest)?;
            let mut expected = partition.readable().iter();
            while let Some(batch) = reader.next_batch()? {
                for record in batch.records()? {
                    let record = record?;
                    let entry = expected.next().ok_or_else(|| format!("{name}: too much at {}", record.offset))?;
                    assert_eq!(
                        (record.offset, record.timestamp),
                        (Offset(entry.offset), TimestampMs(entry.timestamp)),
                        "{name}"
                    );
                    assert_eq!(record.key, entry.key.as_deref().map(str::as_bytes), "{name} {}", entry.offset);
                    assert_eq!(record.value, entry.value.as_deref().map(str::as_bytes), "{name} {}", entry.offset);
                    let headers: Vec<Header<'_>> = record.headers().collect();
                    assert_eq!(headers, borrowed(&entry.headers), "{name} {}", entry.offset);
                }
            }
            assert!(expected.next().is_none(), "{name}: ends at {:?}", reader.position());
            assert_eq!(log.offsets().log_start_offset, partition.start, "{name}");
            assert_eq!(log.offsets().log_end_offset, partition.next, "{name}");
        }
        Ok(())
    }

    fn write_expectation(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        for partition in &self.partitions {
            for entry in partition.readable() {
                let headers: Vec<String> =
                    entry.headers.iter().flat_map(|(k, v)| [json(Some(k)), json(v.as_deref())]).collect();
                let (topic, n) = (json(Some(partition.topic)), partition.number);
                write!(out, r#"{{"topic":{topic},"partition":{n},"offset":{},"tstype":"create","#, entry.offset)?;
                write!(out, r#""ts":{},"headers":[{}],"#, entry.timestamp, headers.join(","))?;
                let (key, value) = (json(entry.key.as_deref()), json(entry.value.as_deref()));
                writeln!(out, r#""key":{key},"payload":{value}}}"#)?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// Appends `entries` as one record or as one batch; the log must give them the offsets from `base_offset` on.
fn append(log: &Log, entries: &[Entry], base_offset: i64, durability: Durability) -> Result<(), Box<dyn Error>> {
    let info = if let [entry] = entries {
        let headers = borrowed(&entry.headers);
        log.append_with(record(entry, &headers), durability)?
    } else {
        let mut batch = log.batch();
        for entry in entries {
            let headers = borrowed(&entry.headers);
            batch.push(record(entry, &headers))?;
        }
        log.append_batch_with(&mut batch, durability)?
    };
    assert_eq!(info.base_offset, base_offset, "{}", log.name());
    assert_eq!(info.last_offset, base_offset + entries.len() as i64 - 1, "{}", log.name());
    Ok(())
}

fn record<'a>(entry: &'a Entry, headers: &'a [Header<'a>]) -> NewRecord<'a> {
    NewRecord::new(entry.key.as_deref().map(str::as_bytes), entry.value.as_deref().map(str::as_bytes))
        .with_headers(headers)
        .with_timestamp(TimestampMs(entry.timestamp))
}

fn borrowed(headers: &[(String, Option<String>)]) -> Vec<Header<'_>> {
    headers
        .iter()
        .map(|(key, value)| Header { key: key.as_bytes(), value: value.as_deref().map(str::as_bytes) })
        .collect()
}

/// A JSON string, or `null`.
fn json(text: Option<&str>) -> String {
    let Some(text) = text else { return "null".to_owned() };
    let mut out = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            control if control < ' ' => write!(out, "\\u{:04x}", u32::from(control)).expect("a string takes it"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
