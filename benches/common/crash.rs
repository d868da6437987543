//! Logs of any size as a crash leaves them behind, made cheaply and as often as needed.
//!
//! A crash is a copy of the directory made while the store is open: the checkpoint says that it is in use, the active
//! file has its reserved room. What opening may change is copied (the last few segments, the small files); sealed
//! segments before those are linked.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use edgelog::{NewTopic, Store};

use super::{Dir, TOPIC, append_bytes, files_of, options};

pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// Segments at a log's end that a copy does not share.
const COPIED: usize = 3;
/// Values of the records that the logs are made of.
const LEN: usize = 1 << 10;
/// No checkpoint by the clock: what lies above the recovery point is as large as it is made, not as the minute has it.
const KEYS: &[(&str, &str)] = &[("edgelog.checkpoint.interval.ms", "3600000")];

/// Sealed segments that a log gets before its last ones.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sealed {
    /// So many bytes, written.
    Written(u64),
    /// So many segments of 64 KiB, made as long as those of 16 MiB with a hole at their end: to a listing they are.
    Hollow(u64),
}

/// A directory as a stop left it, to be copied from.
pub(crate) struct Template {
    dir: Dir,
}

impl Template {
    /// A log with `sealed` in front and an active segment into which `tail_bytes` were written, from a roll on:
    /// closed cleanly, or crashed.
    pub(crate) fn new(sealed: Sealed, tail_bytes: u64, clean: bool) -> Template {
        let dir = Dir::new();
        match sealed {
            Sealed::Written(bytes) => write(dir.path(), bytes).close().expect("closes"),
            Sealed::Hollow(count) => write_hollow(dir.path(), count),
        }
        let store = open(dir.path());
        let log = store.log(TOPIC, 0).expect("it is there");
        // Up to a roll, and until housekeeping has flushed it and written the checkpoint.
        let (before, _) = log.size().expect("a size");
        while log.size().expect("a size").0 == before {
            append_bytes(&log, LEN, 64 << 10, true);
        }
        thread::sleep(Duration::from_millis(500));
        append_bytes(&log, LEN, tail_bytes, true);
        if clean {
            store.close().expect("closes");
            return Template { dir };
        }
        Template::crashed(&store, dir.path())
    }

    /// A log that crashed a moment after so many bytes were written in one go, with the default configuration.
    pub(crate) fn in_full_swing(bytes: u64) -> Template {
        let dir = Dir::new();
        let store = write(dir.path(), bytes);
        Template::crashed(&store, dir.path())
    }

    fn crashed(store: &Store, dir: &Path) -> Template {
        let template = Template { dir: Dir::new() };
        copy(dir, template.dir.path());
        store.delete_topic(TOPIC).expect("deletes");
        template
    }

    /// A copy to open.
    pub(crate) fn instance(&self) -> Dir {
        let dir = Dir::new();
        copy(self.dir.path(), dir.path());
        dir
    }
}

/// A new store with so much in its log.
fn write(dir: &Path, bytes: u64) -> Store {
    let store = Store::open(dir).expect("opens");
    store.create_topic(&NewTopic::new(TOPIC)).expect("a topic");
    append_bytes(&store.log(TOPIC, 0).expect("just created"), LEN, bytes, true);
    store
}

/// A log of `count` short segments, closed cleanly, each but the last as long as a whole one.
fn write_hollow(dir: &Path, count: u64) {
    const SHORT_BYTES: u64 = 64 << 10;
    let short = options(&[("segment.bytes", "65536")]).open(dir).expect("opens");
    short.create_topic(&NewTopic::new(TOPIC)).expect("a topic");
    let log = short.log(TOPIC, 0).expect("it is there");
    // Batches of 100 x 1 KiB do not fit twice into 64 KiB, nor once: one by one.
    append_bytes(&log, LEN, count * SHORT_BYTES, false);
    short.close().expect("closes");
    let files = files_of(&dir.join(format!("{TOPIC}-0")), ".log");
    for path in &files[..files.len() - 1] {
        let file = File::options().write(true).open(path).expect("a segment");
        file.set_len(SEGMENT_BYTES).expect("a hole");
    }
}

/// Copies a data directory; flushed, so that no later flush has to.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a readable directory") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir(&target).expect("a directory");
            copy_partition(&entry.path(), &target);
        } else {
            copy_file(&entry.path(), &target);
        }
    }
    File::open(to).and_then(|dir| dir.sync_all()).expect("flushes");
}

fn copy_partition(from: &Path, to: &Path) {
    let logs = files_of(from, ".log");
    let copied_from = logs[logs.len().saturating_sub(COPIED)].file_stem().expect("a name").to_owned();
    for path in files_of(from, "") {
        let target = to.join(path.file_name().expect("a name"));
        let is_segment = path.extension().is_some_and(|e| e == "log" || e == "index" || e == "timeindex");
        if is_segment && path.file_stem().expect("a name") < copied_from.as_os_str() {
            fs::hard_link(&path, &target).expect("a link");
        } else {
            copy_file(&path, &target);
        }
    }
    File::open(to).and_then(|dir| dir.sync_all()).expect("flushes");
}

fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).expect("a copy");
    File::open(to).and_then(|file| file.sync_all()).expect("flushes");
}

/// Opens with the options that the template was made with.
pub(crate) fn open(dir: &Path) -> Store {
    options(KEYS).open(dir).expect("a store opens after any crash")
}
