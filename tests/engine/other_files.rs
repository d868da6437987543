//! Files that other programs keep in the data directory stay, under any name: after any sequence of operations nothing
//! is gone or changed that edgelog did not write.
//!
//! `EDGELOG_PROPERTY_SEEDS` says how many random sequences run (300 by default), `EDGELOG_PROPERTY_FIRST` with which
//! seed the first one begins. A failure names its seed and what was done.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use edgelog::inspect::{self, ExportRange, Selection};
use edgelog::{Durability, NewRecord, NewTopic, OffsetSpec, Store, TimestampMs, TopicPartition};
use edgelog_testkit::{Random, TempDir, ticking};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// One sequence takes a fraction of a second; a named pipe that is opened holds it up for good.
const SECONDS_MAX: u64 = 120;

/// In memory, where the system has such a place: flushes are most of the time elsewhere.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::below(memory) } else { TempDir::new() }
}

#[derive(PartialEq, Eq)]
enum Thing {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
    Pipe,
}

impl fmt::Debug for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Directory => f.write_str("a directory"),
            Thing::File(bytes) => write!(f, "a file of {} bytes", bytes.len()),
            Thing::Link(to) => write!(f, "a link to {}", to.display()),
            Thing::Pipe => f.write_str("a pipe"),
        }
    }
}

fn thing_at(path: &Path) -> Option<Thing> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    Some(if kind.is_dir() {
        Thing::Directory
    } else if kind.is_symlink() {
        Thing::Link(fs::read_link(path).unwrap())
    } else if kind.is_fifo() {
        Thing::Pipe
    } else {
        Thing::File(fs::read(path).unwrap())
    })
}

/// Things of other programs, by their paths.
struct Foreign {
    store: PathBuf,
    /// A directory next to the store, to which links lead.
    outside: PathBuf,
    things: BTreeMap<PathBuf, Thing>,
    made: usize,
}

impl Foreign {
    fn new(root: &Path) -> Foreign {
        let (store, outside) = (root.join("store"), root.join("outside"));
        fs::create_dir_all(&store).unwrap();
        let mut foreign = Foreign { store, outside: outside.clone(), things: BTreeMap::new(), made: 0 };
        foreign.directory(&outside);
        foreign.file(&outside.join("00000000000000000000.log"), b"a log of another program".to_vec());
        foreign.file(&outside.join("orders.csv"), b"1;2;3".to_vec());
        foreign
    }

    fn directory(&mut self, path: &Path) {
        if fs::symlink_metadata(path).is_err() {
            fs::create_dir(path).unwrap();
            self.things.insert(path.to_owned(), Thing::Directory);
        }
    }

    fn file(&mut self, path: &Path, bytes: Vec<u8>) {
        if fs::symlink_metadata(path).is_err() {
            fs::write(path, &bytes).unwrap();
            self.things.insert(path.to_owned(), Thing::File(bytes));
        }
    }

    /// Makes one more thing, with a name near to one of ours.
    fn plant(&mut self, random: &mut Random) -> String {
        self.made += 1;
        let n = self.made;
        let number = random.below(12);
        let hex = format!("{:016x}{:016x}", random.next(), random.next());
        let inside = self.some_directory(random);
        let path = match random.below(14) {
            // Directories as logs are called, and as those that are being deleted are.
            0 => self.directory_with(&format!("backup-{}", 2020 + number), "orders.csv"),
            1 => self.directory_with(&format!("photos-{number}"), &format!("{n}.jpg")),
            2 => self.directory_with(&format!("x-{number}"), ".cut"),
            3 => self.directory_with(&format!("orders-{}.{hex}-delete", random.below(3)), "00000000000000000000.log"),
            4 => self.directory_with(&format!("orders-{}.{}-delete", random.below(3), &hex[..8]), "keep"),
            5 => self.directory_with(&format!("y-{number}"), "00000000000000000000.snapshot"),
            6 => self.directory_with(&format!("z-{}", 1 + number), "00000000000000000000.log.swap"),
            7 => {
                let path = self.store.join(format!("empty-{number}"));
                self.directory(&path);
                path
            }
            // Files in any directory, those of our logs too.
            8 => {
                let endings = [".cut", ".swap", ".snapshot", ".part", ".log.bak", ".index~", ".tmp", ".deleted"];
                inside.join(format!("notes-{n}{}", endings[random.below(endings.len())]))
            }
            9 => {
                let names = ["edgelog.something", "edgelog.checkpoint.bak", ".lock.old", "leader-epoch-checkpoint.old"];
                inside.join(format!("{}.{n}", names[random.below(names.len())]))
            }
            10 => {
                self.store.join([".cut", ".swap", ".snapshot", "topic.properties", "edgelog.bridge.9"][random.below(5)])
            }
            11 => {
                let path = inside.join(format!("link-{n}"));
                let target =
                    self.outside.join(["orders.csv", "00000000000000000000.log", "", "not-there"][random.below(4)]);
                symlink(&target, &path).unwrap();
                self.things.insert(path.clone(), Thing::Link(target));
                path
            }
            12 => {
                let path = self.store.join(format!("edgelog.link.{n}"));
                symlink(&self.outside, &path).unwrap();
                self.things.insert(path.clone(), Thing::Link(self.outside.clone()));
                path
            }
            _ => {
                let path = inside.join(format!("pipe-{n}"));
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
                self.things.insert(path.clone(), Thing::Pipe);
                path
            }
        };
        let bytes = (0..random.below(300)).map(|_| random.next() as u8).collect();
        self.file(&path, bytes);
        path.strip_prefix(&self.store).unwrap_or(&path).display().to_string()
    }

    /// A directory of another program, with a file in it.
    fn directory_with(&mut self, name: &str, file: &str) -> PathBuf {
        let path = self.store.join(name);
        self.directory(&path);
        path.join(file)
    }

    /// The store's own, or one in it: ours or another program's.
    fn some_directory(&self, random: &mut Random) -> PathBuf {
        let mut all = vec![self.store.clone()];
        let entries = fs::read_dir(&self.store).unwrap().map(|entry| entry.unwrap().path());
        all.extend(entries.filter(|path| fs::symlink_metadata(path).unwrap().is_dir()));
        all.sort();
        all[random.below(all.len())].clone()
    }

    /// What is gone or has changed. A file in the directory of a log may have gone with that to another name.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (path, thing) in &self.things {
            let now = thing_at(path);
            if now.as_ref() == Some(thing) {
                continue;
            }
            let name = path.file_name().unwrap();
            let is_moved = now.is_none() && *thing != Thing::Directory && {
                let entries = fs::read_dir(&self.store).unwrap().map(|entry| entry.unwrap().path());
                let mut directories = entries.filter(|path| fs::symlink_metadata(path).unwrap().is_dir());
                directories.any(|directory| thing_at(&directory.join(name)).as_ref() == Some(thing))
            };
            if !is_moved {
                missing.push(format!("{}: was {thing:?}, is {now:?}", path.display()));
            }
        }
        missing
    }
}

/// The store under test, open or not.
struct Subject {
    dir: PathBuf,
    exported: PathBuf,
    store: Option<Store>,
    exports: usize,
}

impl Subject {
    fn step(&mut self, random: &mut Random) -> String {
        let topic = ["orders", "t", "x"][random.below(3)];
        let Some(store) = &self.store else { return self.step_closed(random) };
        match random.below(12) {
            0 | 1 => {
                let partitions = 1 + random.below(3) as u32;
                let new = NewTopic::new(topic).partitions(partitions).config("segment.bytes", "4096");
                let created = store.create_topic_if_absent(&new.config("retention.bytes", "5000"));
                format!("create {topic} of {partitions}: {created:?}")
            }
            2..=5 => {
                let Ok(log) = store.log(topic, 0) else { return format!("no {topic} to append to") };
                let value = vec![b'v'; 1 + random.below(1500)];
                for _ in 0..1 + random.below(4) {
                    log.append_with(NewRecord::value(&value), Durability::Os).unwrap();
                }
                format!("append to {topic}")
            }
            6 => format!("tick: {:?}", store.tick(TimestampMs(4_000_000_000_000))),
            7 => format!("delete {topic}: {:?}", store.delete_topic(topic).map_err(|error| error.to_string())),
            8 => {
                let Ok(log) = store.log(topic, 0) else { return format!("no {topic} to cut") };
                let offsets = log.offsets();
                let at = offsets.log_start_offset + (offsets.log_end_offset - offsets.log_start_offset) / 2;
                let done = if random.one_in(2) { log.truncate_to(at) } else { log.delete_records_before(at) };
                format!("cut {topic} at {at}: {:?}", done.map_err(|error| error.to_string()))
            }
            9 => {
                let done = store.alter_topic(topic, &[("retention.ms", Some("100000"))]);
                format!("alter {topic}: {:?}", done.map_err(|error| error.to_string()))
            }
            10 => {
                let store = self.store.take().unwrap();
                format!("close: {:?}", store.close())
            }
            _ => {
                self.store.take().unwrap().abandon();
                "die".to_owned()
            }
        }
    }

    fn step_closed(&mut self, random: &mut Random) -> String {
        let go_on = &mut |_: inspect::Progress| ControlFlow::Continue(());
        match random.below(8) {
            0 => {
                let storage = inspect::open_directory(&self.dir).unwrap();
                let done = inspect::check(&storage, &Selection::all(), go_on);
                format!("fsck: {:?}", done.map(|report| report.worst).map_err(|error| error.to_string()))
            }
            1 => {
                let storage = inspect::open_directory_for_repair(&self.dir).unwrap();
                let done = inspect::repair(&storage, &Selection::all(), false, go_on);
                format!("repair: {:?}", done.map(|_| ()).map_err(|error| error.to_string()))
            }
            2 => {
                self.exports += 1;
                let target = self.exported.join(self.exports.to_string());
                fs::create_dir_all(&target).unwrap();
                let target = inspect::export_directory(&target).unwrap();
                let storage = inspect::open_directory(&self.dir).unwrap();
                let name = TopicPartition::new("orders", 0);
                let done = inspect::export_partition(&storage, &name, &target, ExportRange::default(), None, go_on);
                format!("export: {:?}", done.map(|report| report.batches).map_err(|error| error.to_string()))
            }
            3 => match Store::attach(&self.dir) {
                Ok(store) => {
                    let log = store.log("orders", 0);
                    let read = log.and_then(|log| log.reader(OffsetSpec::Earliest)?.next_batch().map(|_| ()));
                    format!("attach: {:?}", read.map_err(|error| error.to_string()))
                }
                Err(error) => format!("attach: {error}"),
            },
            _ => {
                self.store = Some(ticking().open(&self.dir).expect("other programs' files keep no store from opening"));
                "open".to_owned()
            }
        }
    }
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let root = scratch();
    let mut foreign = Foreign::new(root.path());
    let exported = root.path().join("exported");
    let mut subject = Subject { dir: root.path().join("store"), exported, store: None, exports: 0 };
    let mut done = Vec::new();
    for _ in 0..30 {
        if random.one_in(2) {
            done.push(format!("another program makes {}", foreign.plant(&mut random)));
        }
        done.push(subject.step(&mut random));
        let missing = foreign.missing();
        assert!(missing.is_empty(), "seed {seed}: {missing:#?} after {done:#?}");
    }
}

#[test]
fn nothing_of_other_programs_is_gone_or_changed() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let (first, seeds) = (number("EDGELOG_PROPERTY_FIRST", 1), number("EDGELOG_PROPERTY_SEEDS", 300));
    // A pipe that is opened blocks its reader: the run is given up then, with the seed.
    let (begun, seen) = mpsc::channel();
    let runs = std::thread::spawn(move || {
        for seed in first..first + seeds {
            begun.send(seed).unwrap();
            run(seed);
        }
    });
    let mut at = first;
    loop {
        match seen.recv_timeout(Duration::from_secs(SECONDS_MAX)) {
            Ok(seed) => at = seed,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {at} does not end: is a pipe being opened?"),
        }
    }
    runs.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
}
