//! What this machine says of itself in `/proc` and `/sys`, as readings: a source and a line of JSON.
//!
//! Counters that only ever rise are given as they are, and as rates since the sample before. What a kernel, container
//! or board does not have is left out; nothing here fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

/// The topics, in the order in which they are shown.
pub(crate) const TOPICS: [&str; 6] = ["cpu", "memory", "load", "disk", "network", "temperature"];

/// One record to be.
pub(crate) struct Reading {
    pub(crate) source: String,
    pub(crate) json: String,
}

/// What there is to see of a topic at a glance: a number to draw, and words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Glance {
    pub(crate) value: f64,
    /// The value that fills the drawing, where none that is drawn is greater.
    pub(crate) full_min: f64,
    pub(crate) text: String,
}

/// One topic's part of a sample.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) readings: Vec<Reading>,
    pub(crate) glance: Glance,
}

impl Part {
    fn push(&mut self, source: impl Into<String>, value: &impl Serialize) {
        let json = serde_json::to_string(value).expect("our own shapes serialize");
        self.readings.push(Reading { source: source.into(), json });
    }
}

/// Everything taken at one time.
pub(crate) struct Sample {
    /// One for each of [`TOPICS`].
    pub(crate) parts: [Part; TOPICS.len()],
    /// How busy each core was, in percent.
    pub(crate) cores: Vec<f64>,
}

/// Takes samples, and remembers the counters of the last one.
pub(crate) struct Sampler {
    data_dir: PathBuf,
    cpus: BTreeMap<String, CpuTimes>,
    disks: BTreeMap<String, DiskCounters>,
    interfaces: BTreeMap<String, InterfaceCounters>,
    sampled: Instant,
}

impl Sampler {
    /// A sampler whose first sample has the rates since now.
    pub(crate) fn new(data_dir: &Path) -> Sampler {
        Sampler {
            data_dir: data_dir.to_owned(),
            cpus: parse_cpus(&read("/proc/stat")).collect(),
            disks: disks().collect(),
            interfaces: parse_interfaces(&read("/proc/net/dev")).collect(),
            sampled: Instant::now(),
        }
    }

    pub(crate) fn sample(&mut self) -> Sample {
        let now = Instant::now();
        let seconds = now.duration_since(self.sampled).as_secs_f64().max(1e-3);
        self.sampled = now;
        let (cpu, cores) = self.cpu();
        let disk = self.disk(seconds);
        let network = self.network(seconds);
        Sample { parts: [cpu, memory(&read("/proc/meminfo")), load(), disk, network, temperature()], cores }
    }

    fn cpu(&mut self) -> (Part, Vec<f64>) {
        #[derive(Serialize)]
        #[allow(clippy::struct_field_names)] // The unit ends the name in JSON too.
        struct Cpu {
            busy_pct: f64,
            user_pct: f64,
            system_pct: f64,
            iowait_pct: f64,
            steal_pct: f64,
        }
        let mut part = Part::default();
        let mut cores = Vec::new();
        for (name, times) in parse_cpus(&read("/proc/stat")) {
            let since = times.since(&self.cpus.insert(name.clone(), times).unwrap_or_default());
            let percent = |ticks: u64| rounded(100.0 * ticks as f64 / since.total().max(1) as f64, 10.0);
            let busy_pct = percent(since.busy());
            let cpu = Cpu {
                busy_pct,
                user_pct: percent(since.user),
                system_pct: percent(since.system),
                iowait_pct: percent(since.iowait),
                steal_pct: percent(since.steal),
            };
            if name == "cpu" {
                part.glance = Glance { value: busy_pct, full_min: 100.0, text: format!("{busy_pct:.0} %") };
            } else {
                cores.push(busy_pct);
            }
            part.push(name, &cpu);
        }
        (part, cores)
    }

    fn disk(&mut self, seconds: f64) -> Part {
        #[derive(Serialize)]
        struct Disk {
            read_bytes: u64,
            written_bytes: u64,
            reads: u64,
            writes: u64,
            read_bytes_per_s: u64,
            written_bytes_per_s: u64,
            busy_pct: f64,
        }
        #[derive(Serialize)]
        struct Space {
            size_bytes: u64,
            available_bytes: u64,
        }
        let mut part = Part::default();
        let (mut read_rate, mut write_rate) = (0, 0);
        for (name, counters) in disks() {
            let before = self.disks.insert(name.clone(), counters).unwrap_or(counters);
            let disk = Disk {
                read_bytes: counters.sectors_read * 512,
                written_bytes: counters.sectors_written * 512,
                reads: counters.reads,
                writes: counters.writes,
                read_bytes_per_s: rate(counters.sectors_read * 512, before.sectors_read * 512, seconds),
                written_bytes_per_s: rate(counters.sectors_written * 512, before.sectors_written * 512, seconds),
                busy_pct: rounded(rate(counters.busy_ms, before.busy_ms, seconds) as f64 / 10.0, 10.0).min(100.0),
            };
            read_rate += disk.read_bytes_per_s;
            write_rate += disk.written_bytes_per_s;
            part.push(name, &disk);
        }
        if let Ok(space) = rustix::fs::statvfs(&self.data_dir) {
            let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
            let space = Space { size_bytes: bytes(space.f_blocks), available_bytes: bytes(space.f_bavail) };
            part.push("data-dir", &space);
        }
        part.glance = flow(read_rate, write_rate);
        part
    }

    fn network(&mut self, seconds: f64) -> Part {
        #[derive(Serialize)]
        struct Interface {
            up: Option<bool>,
            #[serde(flatten)]
            counters: InterfaceCounters,
            rx_bytes_per_s: u64,
            tx_bytes_per_s: u64,
        }
        let mut part = Part::default();
        let (mut rx_rate, mut tx_rate) = (0, 0);
        for (name, counters) in parse_interfaces(&read("/proc/net/dev")) {
            let before = self.interfaces.insert(name.clone(), counters).unwrap_or(counters);
            let state = fs::read_to_string(format!("/sys/class/net/{name}/operstate")).ok();
            let interface = Interface {
                // The loopback and some drivers say "unknown".
                up: state.and_then(|state| match state.trim_end() {
                    "up" => Some(true),
                    "unknown" => None,
                    _ => Some(false),
                }),
                counters,
                rx_bytes_per_s: rate(counters.rx_bytes, before.rx_bytes, seconds),
                tx_bytes_per_s: rate(counters.tx_bytes, before.tx_bytes, seconds),
            };
            if name != "lo" {
                rx_rate += interface.rx_bytes_per_s;
                tx_rate += interface.tx_bytes_per_s;
            }
            part.push(name, &interface);
        }
        part.glance = flow(rx_rate, tx_rate);
        part
    }
}

/// Bytes in and out a second.
fn flow(into: u64, out: u64) -> Glance {
    Glance {
        value: (into + out) as f64,
        full_min: 10e3,
        text: format!("in {}/s out {}/s", short_bytes(into), short_bytes(out)),
    }
}

/// `512`, `1.5K`, `16M`: at most five characters.
fn short_bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "K", "M", "G"] {
        if value < 9.95 && !unit.is_empty() {
            return format!("{value:.1}{unit}");
        }
        if value < 1000.0 {
            return format!("{value:.0}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0}T")
}

/// How much a counter rose a second; 0 where it began again.
fn rate(now: u64, before: u64, seconds: f64) -> u64 {
    (now.saturating_sub(before) as f64 / seconds) as u64
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Ticks that a processor spent, by what it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTimes {
    user: u64,
    system: u64,
    idle: u64,
    iowait: u64,
    steal: u64,
}

impl CpuTimes {
    fn busy(&self) -> u64 {
        self.user + self.system + self.steal
    }

    fn total(&self) -> u64 {
        self.busy() + self.idle + self.iowait
    }

    /// The kernel may correct idle and iowait downwards: that is no time.
    fn since(&self, before: &CpuTimes) -> CpuTimes {
        CpuTimes {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            idle: self.idle.saturating_sub(before.idle),
            iowait: self.iowait.saturating_sub(before.iowait),
            steal: self.steal.saturating_sub(before.steal),
        }
    }
}

/// `cpu` (all together), `cpu0`, `cpu1`, ...
fn parse_cpus(stat: &str) -> impl Iterator<Item = (String, CpuTimes)> + '_ {
    stat.lines().take_while(|line| line.starts_with("cpu")).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.to_owned();
        let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let at = |at: usize| ticks.get(at).copied().unwrap_or(0);
        // user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user already.
        let times =
            CpuTimes { user: at(0) + at(1), system: at(2) + at(5) + at(6), idle: at(3), iowait: at(4), steal: at(7) };
        (ticks.len() >= 4).then_some((name, times))
    })
}

fn memory(meminfo: &str) -> Part {
    #[derive(Serialize)]
    struct Memory {
        total_bytes: u64,
        available_bytes: u64,
        used_pct: f64,
    }
    let mut part = Part::default();
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let mut push = |source: &str, total: Option<u64>, available: Option<u64>| {
        let (total_bytes, available_bytes) = (total.filter(|&total| total > 0)?, available?);
        let used_pct = rounded(100.0 - 100.0 * available_bytes as f64 / total_bytes as f64, 10.0);
        part.push(source, &Memory { total_bytes, available_bytes, used_pct });
        Some((used_pct, total_bytes))
    };
    let ram = push("ram", field("MemTotal"), field("MemAvailable").or_else(|| field("MemFree")));
    push("swap", field("SwapTotal"), field("SwapFree"));
    if let Some((used_pct, total)) = ram {
        part.glance =
            Glance { value: used_pct, full_min: 100.0, text: format!("{used_pct:.1} % of {}", short_bytes(total)) };
    }
    part
}

/// Load averages, and how much of the time tasks waited for a resource (pressure), where the kernel reports it.
fn load() -> Part {
    #[derive(Serialize)]
    #[allow(clippy::struct_field_names)] // A reader of the JSON does not see the struct's name.
    struct Load {
        load_1m: f64,
        load_5m: f64,
        load_15m: f64,
        running: u64,
        threads: u64,
    }
    #[derive(Serialize)]
    struct Pressure {
        some_10s_pct: f64,
        full_10s_pct: Option<f64>,
    }
    let mut part = Part::default();
    if let Some((load_1m, load_5m, load_15m, running, threads)) = parse_loadavg(&read("/proc/loadavg")) {
        part.glance =
            Glance { value: load_1m, full_min: 1.0, text: format!("{load_1m:.2} {load_5m:.2} {load_15m:.2}") };
        part.push("load", &Load { load_1m, load_5m, load_15m, running, threads });
    }
    for resource in ["cpu", "memory", "io"] {
        let pressure = read(&format!("/proc/pressure/{resource}"));
        let average = |kind: &str| {
            let line = pressure.lines().find(|line| line.starts_with(kind))?;
            line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
        };
        if let Some(some_10s_pct) = average("some") {
            part.push(format!("pressure-{resource}"), &Pressure { some_10s_pct, full_10s_pct: average("full") });
        }
    }
    part
}

/// `3.52 3.58 2.41 2/99 9484`
fn parse_loadavg(text: &str) -> Option<(f64, f64, f64, u64, u64)> {
    let mut words = text.split_ascii_whitespace();
    let mut average = || words.next()?.parse().ok();
    let averages: (f64, f64, f64) = (average()?, average()?, average()?);
    let (running, threads) = words.next()?.split_once('/')?;
    Some((averages.0, averages.1, averages.2, running.parse().ok()?, threads.parse().ok()?))
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct DiskCounters {
    reads: u64,
    sectors_read: u64,
    writes: u64,
    sectors_written: u64,
    busy_ms: u64,
}

/// Whole disks that were ever used, without loops and RAM disks.
fn disks() -> impl Iterator<Item = (String, DiskCounters)> {
    let blocks = Path::new("/sys/block");
    let has_blocks = blocks.is_dir();
    let found: Vec<_> = parse_disks(&read("/proc/diskstats"))
        .filter(|(name, _)| !has_blocks || blocks.join(name.replace('/', "!")).exists())
        .collect();
    found.into_iter()
}

fn parse_disks(diskstats: &str) -> impl Iterator<Item = (String, DiskCounters)> + '_ {
    diskstats.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        let name = words.next()?.to_owned();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        // reads, merged, sectors, ms, writes, merged, sectors, ms, in flight, ms busy, ...
        let &[reads, _, sectors_read, _, writes, _, sectors_written, _, _, busy_ms, ..] = numbers.as_slice() else {
            return None;
        };
        let is_used = reads + writes > 0 && !name.starts_with("loop") && !name.starts_with("ram");
        is_used.then_some((name, DiskCounters { reads, sectors_read, writes, sectors_written, busy_ms }))
    })
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct InterfaceCounters {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

fn parse_interfaces(dev: &str) -> impl Iterator<Item = (String, InterfaceCounters)> + '_ {
    dev.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let numbers: Vec<u64> = counters.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            numbers.as_slice()
        else {
            return None;
        };
        let counters = InterfaceCounters {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), counters))
    })
}

/// Thermal zones and hardware monitors.
fn temperature() -> Part {
    #[derive(Serialize)]
    struct Temperature {
        celsius: f64,
        sensor: String,
    }
    let mut part = Part::default();
    let mut hottest: Option<f64> = None;
    let mut push = |source: String, millidegrees: Option<String>, sensor: String| {
        let Some(millidegrees) = millidegrees.and_then(|text| text.trim().parse::<f64>().ok()) else { return };
        let celsius = rounded(millidegrees / 1000.0, 10.0);
        hottest = Some(hottest.map_or(celsius, |other| other.max(celsius)));
        part.push(source, &Temperature { celsius, sensor });
    };
    let text = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    for (name, zone) in entries("/sys/class/thermal").filter(|(name, _)| name.starts_with("thermal_zone")) {
        push(name, text(zone.join("temp")), text(zone.join("type")).unwrap_or_default());
    }
    for (name, monitor) in entries("/sys/class/hwmon") {
        let chip = text(monitor.join("name")).unwrap_or_default();
        for (file, path) in entries(&monitor) {
            let Some(input) = file.strip_prefix("temp").and_then(|rest| rest.strip_suffix("_input")) else { continue };
            let label = text(monitor.join(format!("temp{input}_label"))).unwrap_or_default();
            push(format!("{name}-temp{input}"), text(path), format!("{chip} {label}").trim().to_owned());
        }
    }
    if let Some(celsius) = hottest {
        part.glance = Glance { value: celsius, full_min: 100.0, text: format!("{celsius:.1} C at most") };
    }
    part
}

/// Names and paths in a directory, by name.
fn entries(dir: impl AsRef<Path>) -> impl Iterator<Item = (String, PathBuf)> {
    let listed = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        listed.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    found.sort();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let cpus: Vec<_> = parse_cpus("cpu  10 1 5 100 4 1 1 2 3 0\ncpu0 10 1 5 100 4 1 1 2 3 0\nintr 5\n").collect();
        let times = CpuTimes { user: 11, system: 7, idle: 100, iowait: 4, steal: 2 };
        assert_eq!(cpus, [("cpu".to_owned(), times), ("cpu0".to_owned(), times)]);
        assert_eq!((times.busy(), times.total()), (20, 124));

        let disks: Vec<_> =
            parse_disks(" 254 0 vda 10 1 80 4 20 2 160 8 0 12 12 0 0\n 7 0 loop0 9 0 9 9 9 9 9 9 9 9 9\n 1 bad\n")
                .collect();
        let vda = DiskCounters { reads: 10, sectors_read: 80, writes: 20, sectors_written: 160, busy_ms: 12 };
        assert_eq!(disks, [("vda".to_owned(), vda)]);

        let dev = "Inter-|   Receive\n face |bytes\n  eth0:100 2 0 0 0 0 0 0 300 4 1 0 0 0 0 0\n";
        let eth0 = InterfaceCounters {
            rx_bytes: 100,
            rx_packets: 2,
            tx_bytes: 300,
            tx_packets: 4,
            tx_errors: 1,
            ..Default::default()
        };
        assert_eq!(parse_interfaces(dev).collect::<Vec<_>>(), [("eth0".to_owned(), eth0)]);

        assert_eq!(parse_loadavg("3.52 3.58 2.41 2/99 9484\n"), Some((3.52, 3.58, 2.41, 2, 99)));
        assert_eq!(parse_loadavg("garbage"), None);

        let part = memory("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
        assert_eq!(part.readings.len(), 1);
        assert_eq!(part.readings[0].json, r#"{"total_bytes":1024000,"available_bytes":256000,"used_pct":75.0}"#);
        assert_eq!(part.glance.text, "75.0 % of 1.0M");
    }

    #[test]
    fn a_machine_without_these_files_gives_no_readings() {
        assert_eq!(memory("").readings.len(), 0);
        assert_eq!(parse_cpus("").count() + parse_disks("").count() + parse_interfaces("").count(), 0);
        assert_eq!(entries("/nowhere").count(), 0);
    }

    #[test]
    fn sizes_stay_short() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1000, "1.0K"), (1536, "1.5K"), (10 << 10, "10K"), (1 << 40, "1T")]
        {
            assert_eq!(short_bytes(count), text);
        }
    }
}
