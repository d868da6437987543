//! Bytes that reach the device: for 1, 10 and 100 small records a second at each durability over a minute, and per
//! byte of payload for durable batches.
//!
//! Each case is a process of its own on an ext4 file system of its own, on a loop device whose journal is on a second
//! loop device: what the kernel counts on the first is data (and the file system's metadata in its place), on the
//! second what the journal writes besides. That takes root. Without it, a case counts what its process had written
//! back (`write_bytes` of `/proc/self/io`), and says so.

#![allow(clippy::cast_precision_loss)] // Figures: their 53rd bit does not matter.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{BATCH, Dir, Results, TOPIC, Values, fill, options, proc_number, seconds};
use edgelog::{Log, NewRecord, NewTopic, Store};

/// A small record.
const LEN: usize = 200;
const PAGE: f64 = 4096.0;
/// What a flush of a small record may cost, in pages of data.
const PAGES_MAX: f64 = 1.2;
/// Flushes that write amplification is measured over.
const BATCHES: usize = 300;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "rate", level, rate, time, dir, data, journal] => {
            let (rate, time) = (rate.parse().expect("a rate"), time.parse().expect("seconds"));
            return append_at(level, rate, time, &Counters::new(dir, data, journal));
        }
        [_, "batches", codec, len, dir, data, journal] => {
            return append_batches(codec, len.parse().expect("a size"), &Counters::new(dir, data, journal));
        }
        _ => {}
    }
    let mut results = Results::new("wear");
    rates(&mut results);
    amplification(&mut results);
}

/// All rates and levels at once, each on its own device.
fn rates(results: &mut Results) {
    let time = seconds(60);
    let mut cases = Vec::new();
    for level in ["os", "interval_1s", "sync"] {
        for rate in [1, 10, 100] {
            let id = format!("wear/rate/{level}/{rate}_per_s");
            if results.wants(&id) {
                let args = ["rate".to_owned(), level.to_owned(), rate.to_string(), time.to_string()];
                cases.push(Case::start(id, &args));
            }
        }
    }
    for case in cases {
        let (id, counted) = case.finish();
        let flushes = counted.of("flushes");
        let mut fields = counted.0.clone();
        if flushes > 0.0 {
            let pages = counted.of("data") / PAGE / flushes;
            // Records larger than a page in all touch so many pages, and the one that the last flush left half full.
            let bytes = counted.of("log") / flushes;
            let most = if bytes <= 512.0 { PAGES_MAX } else { PAGES_MAX * (bytes / PAGE + 1.0) };
            fields.insert(0, ("value".to_owned(), pages));
            fields.push(("most".to_owned(), most));
            if pages > most {
                eprintln!("FAILED {id}: {pages:.2} pages a flush, {most:.2} are allowed");
            }
        } else {
            // The kernel decides when; the sum is printed.
            fields.insert(0, ("value".to_owned(), counted.of("data") / counted.of("log")));
        }
        write(results, &id, if flushes > 0.0 { "pages/flush" } else { "bytes/byte of log" }, &fields);
    }
}

/// Device bytes per payload byte of durable batches.
fn amplification(results: &mut Results) {
    let mut cases = Vec::new();
    for codec in ["plain", "snappy"] {
        for (len, name) in [(16, "16B"), (1 << 10, "1KiB")] {
            let id = format!("wear/batch_{codec}/sync/{name}");
            if results.wants(&id) {
                cases.push(Case::start(id, &["batches".to_owned(), codec.to_owned(), len.to_string()]));
            }
        }
    }
    for case in cases {
        let (id, counted) = case.finish();
        let mut fields = counted.0.clone();
        fields.insert(0, ("value".to_owned(), counted.of("data") / counted.of("payload")));
        write(results, &id, "bytes/payload byte", &fields);
    }
}

fn write(results: &mut Results, id: &str, unit: &str, fields: &[(String, f64)]) {
    let fields: Vec<(&str, f64)> = fields.iter().map(|(name, figure)| (name.as_str(), *figure)).collect();
    results.write(id, unit, &fields);
}

/// Figures by name.
struct Counted(Vec<(String, f64)>);

impl Counted {
    fn of(&self, name: &str) -> f64 {
        self.0.iter().find(|(found, _)| found == name).map_or(0.0, |(_, figure)| *figure)
    }
}

/// A case that runs, in its own process.
struct Case {
    id: String,
    child: Child,
    /// Kept until the process has ended; unmounted then.
    _place: Place,
}

impl Case {
    fn start(id: String, args: &[String]) -> Case {
        let place = Place::new();
        let exe = std::env::current_exe().expect("the bench's own path");
        let mut command = Command::new(exe);
        command.args(args).arg(place.at()).args(place.devices()).stdout(Stdio::piped());
        Case { id, child: command.spawn().expect("a process"), _place: place }
    }

    fn finish(self) -> (String, Counted) {
        let output = self.child.wait_with_output().expect("the process ends");
        assert!(output.status.success(), "{}: its process failed", self.id);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let pairs = words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a number")));
        (self.id, Counted(pairs.collect()))
    }
}

/// Where a case writes: its own device, or where that cannot be had a plain directory.
struct Place {
    /// First, so that it is unmounted before its directory is removed.
    mount: Option<Mount>,
    dir: Dir,
}

impl Place {
    fn new() -> Place {
        let dir = Dir::new();
        let mount = Mount::new(dir.path());
        if let Err(error) = &mount {
            eprintln!("NO LOOP DEVICE ({error}): counting this process's write_bytes, without any journal's");
        }
        Place { mount: mount.ok(), dir }
    }

    fn at(&self) -> &Path {
        self.mount.as_ref().map_or(self.dir.path(), |mount| &mount.at)
    }

    fn devices(&self) -> [String; 2] {
        match &self.mount {
            Some(mount) => [mount.data.name(), mount.journal.name()],
            None => ["-".to_owned(), "-".to_owned()],
        }
    }
}

/// A small ext4 with its journal on a device of its own.
struct Mount {
    at: PathBuf,
    data: Loop,
    journal: Loop,
}

impl Mount {
    fn new(dir: &Path) -> Result<Mount, String> {
        let (data, journal) = (Loop::new(&dir.join("data"), 128 << 20)?, Loop::new(&dir.join("journal"), 16 << 20)?);
        run("mke2fs", &["-q", "-b", "4096", "-O", "journal_dev", &journal.0])?;
        let device = format!("device={}", journal.0);
        // Nothing may be left for the kernel to write later on its own account.
        let whole = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        run("mkfs.ext4", &["-q", "-b", "4096", "-m", "0", "-E", whole, "-J", &device, &data.0])?;
        let at = dir.join("mounted");
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        run("mount", &["-t", "ext4", "-o", "noatime", &data.0, at.to_str().expect("ASCII")])?;
        Ok(Mount { at, data, journal })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.at.to_str().expect("ASCII");
        if run("umount", &[at]).is_err() {
            let _ = run("umount", &["-l", at]);
        }
    }
}

/// A loop device over a file; its path.
struct Loop(String);

impl Loop {
    fn new(file: &Path, bytes: u64) -> Result<Loop, String> {
        File::create(file).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        Ok(Loop(run("losetup", &["--find", "--show", file.to_str().expect("ASCII")])?.trim().to_owned()))
    }

    fn name(&self) -> String {
        self.0.trim_start_matches("/dev/").to_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", &["-d", &self.0]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What has been written so far, in a case's own process.
struct Counters {
    dir: PathBuf,
    /// Names of the devices for data and journal.
    devices: Option<[String; 2]>,
}

/// Sums at one moment: bytes of data and of the journal, bytes that this process had written back, flushes of the
/// device for data.
type Sums = [u64; 4];

impl Counters {
    fn new(dir: &str, data: &str, journal: &str) -> Counters {
        let devices = (data != "-").then(|| [data.to_owned(), journal.to_owned()]);
        Counters { dir: PathBuf::from(dir), devices }
    }

    /// The sums after everything was written that is still to be written.
    fn all_written(&self) -> Sums {
        rustix::fs::syncfs(File::open(&self.dir).expect("the directory")).expect("flushes");
        let own = proc_number("/proc/self/io", "write_bytes:").expect("the kernel counts");
        let Some(devices) = &self.devices else { return [own, 0, own, 0] };
        let [(data, flushes), (journal, _)] = [&devices[0], &devices[1]].map(|name| stat(name));
        [data, journal, own, flushes]
    }

    fn print(&self, before: Sums, after: Sums, others: &[(&str, u64)]) {
        for (name, (before, after)) in
            ["data", "journal", "dirtied", "device_flushes"].iter().zip(before.iter().zip(after))
        {
            println!("{name} {}", after - before);
        }
        for (name, figure) in others {
            println!("{name} {figure}");
        }
        println!("on_device {}", u8::from(self.devices.is_some()));
    }
}

/// Bytes written to a block device, and its flushes.
fn stat(device: &str) -> (u64, u64) {
    let text = fs::read_to_string(format!("/sys/block/{device}/stat")).expect("the kernel counts");
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    (numbers[6] * 512, numbers.get(15).copied().unwrap_or(0))
}

/// A store in the case's directory, with one record in it: what a new log costs once is not counted.
fn open(counters: &Counters, keys: &[(&str, &str)]) -> (Store, Log) {
    let store = options(keys).open(counters.dir.join("store")).expect("a new store");
    store.create_topic(&NewTopic::new(TOPIC)).expect("a new topic");
    let log = store.log(TOPIC, 0).expect("just created");
    log.append(NewRecord::value(b"{}")).expect("appends");
    log.flush().expect("flushes");
    (store, log)
}

/// Appends `rate` records a second, evenly, and counts.
fn append_at(level: &str, rate: u32, time: u64, counters: &Counters) {
    const NEVER: (&str, &str) = ("flush.messages", "9223372036854775807");
    let (keys, flushed_by): (&[(&str, &str)], _) = match level {
        "os" => (&[NEVER], None),
        "interval_1s" => (&[NEVER, ("flush.ms", "1000")], Some(false)),
        "sync" => (&[], Some(true)),
        _ => panic!("no such level: {level}"),
    };
    let (store, log) = open(counters, keys);
    let mut values = Values::new(LEN);
    let (_, len_before) = log.size().expect("a size");
    let before = counters.all_written();
    let (begun, pause) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut recovery_point = log.offsets().recovery_point;
    let mut moves = 0;
    let count = u64::from(rate) * time;
    for n in 0..count {
        log.append(NewRecord::value(values.next())).expect("appends");
        while begun.elapsed() < pause * (n as u32 + 1) {
            thread::sleep(Duration::from_millis(5).min(pause / 4));
            let now = log.offsets().recovery_point;
            moves += u64::from(now != recovery_point);
            recovery_point = now;
        }
    }
    if flushed_by == Some(false) {
        // The last interval.
        thread::sleep(Duration::from_millis(1500));
        moves += u64::from(log.offsets().recovery_point != recovery_point);
    }
    let after = counters.all_written();
    let (_, len_after) = log.size().expect("a size");
    let flushes = match flushed_by {
        None => 0,
        Some(false) => moves,
        Some(true) => count,
    };
    counters.print(before, after, &[("flushes", flushes), ("records", count), ("log", len_after - len_before)]);
    store.close().expect("closes");
}

/// Appends durable batches one after the other, and counts.
fn append_batches(codec: &str, len: usize, counters: &Counters) {
    let keys: &[(&str, &str)] = if codec == "snappy" { &[("compression.type", "snappy")] } else { &[] };
    let (store, log) = open(counters, keys);
    let mut values = Values::new(len);
    let mut batch = log.batch();
    let (_, len_before) = log.size().expect("a size");
    let before = counters.all_written();
    for _ in 0..BATCHES {
        fill(&mut batch, &mut values);
        log.append_batch(&mut batch).expect("appends");
    }
    let after = counters.all_written();
    let (_, len_after) = log.size().expect("a size");
    let payload = (BATCHES * BATCH * len) as u64;
    let others = [("flushes", BATCHES as u64), ("payload", payload), ("log", len_after - len_before)];
    counters.print(before, after, &others);
    store.close().expect("closes");
}
