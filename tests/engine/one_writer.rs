//! One process writes a data directory: whether its lock file is removed or the directory itself, no second one
//! gets in, and a writer that lost its place acknowledges nothing. And what is not a file of the store stays untouched:
//! links, pipes; and permissions.
//!
//! Two stores of one process are two writers for the kernel, as two processes are.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use edgelog::{
    Durability, Error, NewRecord, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store, TimestampMs,
};
use edgelog_testkit::{TempDir, ticking};

/// What takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn with_topic(dir: &Path) -> Store {
    let store = ticking().open(dir).unwrap();
    store.create_topic_if_absent(&NewTopic::new("t")).unwrap();
    store
}

fn append(store: &Store, durability: Durability) -> edgelog::Result<i64> {
    Ok((store.log("t", 0)?.append_with(NewRecord::value(b"a record"), durability)?.base_offset).0)
}

fn records(store: &Store) -> i64 {
    let log = store.log("t", 0).unwrap();
    let mut reader = log.reader_with(OffsetSpec::Earliest, ReaderOptions::default().up_to(ReadUpTo::LogEnd));
    let mut records = 0;
    while let Some(batch) = reader.as_mut().unwrap().next_batch().unwrap() {
        records += i64::from(batch.view().record_count());
    }
    records
}

fn is_locked(outcome: &edgelog::Result<Store>) -> bool {
    matches!(outcome, Err(Error::DataDirLocked(_)))
}

/// `rm .lock` let a second writer in, and both acknowledged records that the other did not know.
#[test]
fn removing_the_lock_file_lets_no_second_writer_in() {
    let dir = TempDir::new();
    let first = with_topic(dir.path());
    for n in 0..20 {
        fs::remove_file(dir.path().join(".lock")).unwrap();
        let second = ticking().open(dir.path());
        assert!(is_locked(&second), "{second:?}");
        assert_eq!(append(&first, Durability::Sync).unwrap(), n);
    }
    first.close().unwrap();
    drop(first);
    assert_eq!(records(&ticking().open(dir.path()).unwrap()), 20);
}

/// An older edgelog looks at the file alone, so the writer makes it again as soon as it misses it.
#[test]
fn a_lock_file_that_was_removed_is_made_and_locked_again() {
    let dir = TempDir::new();
    let store = with_topic(dir.path());
    let path = dir.path().join(".lock");
    let inode = fs::metadata(&path).unwrap().ino();
    for round in [1, 2] {
        fs::remove_file(&path).unwrap();
        if round == 1 {
            store.tick(TimestampMs(0)).unwrap();
        } else {
            assert_eq!(append(&store, Durability::Sync).unwrap(), 0);
        }
        let file = fs::File::open(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let taken = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken, Err(rustix::io::Errno::WOULDBLOCK), "round {round}, inode {inode}");
    }
}

/// Another process has locked a new lock file, as an older edgelog would that came in: the first writer stops.
#[test]
fn a_writer_whose_lock_file_is_another_processs_acknowledges_nothing() {
    for durability in [Durability::Sync, Durability::Os] {
        let dir = TempDir::new();
        let store = with_topic(dir.path());
        append(&store, durability).unwrap();
        let path = dir.path().join(".lock");
        fs::remove_file(&path).unwrap();
        let other = fs::File::create(&path).unwrap();
        rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        if durability == Durability::Os {
            assert!(store.tick(TimestampMs(0)).is_err());
        }
        let refused = append(&store, durability).unwrap_err();
        assert!(refused.to_string().contains("lock file"), "{refused}");
        drop(other);
        assert!(append(&store, durability).is_err(), "for good");
    }
}

#[test]
fn a_writer_whose_directory_is_removed_acknowledges_nothing() {
    for durability in [Durability::Sync, Durability::Os] {
        for replaced in [false, true] {
            let parent = TempDir::new();
            let dir = parent.path().join("data");
            let store = with_topic(&dir);
            append(&store, durability).unwrap();
            if replaced {
                fs::rename(&dir, parent.path().join("moved")).unwrap();
                fs::create_dir(&dir).unwrap();
            } else {
                fs::remove_dir_all(&dir).unwrap();
            }
            if durability == Durability::Os {
                assert!(store.tick(TimestampMs(0)).is_err());
            }
            let refused = append(&store, durability).unwrap_err();
            assert!(refused.to_string().contains("director"), "{refused}");
            let next = ticking().open(&dir).unwrap();
            assert!(next.topics().unwrap().is_empty());
        }
    }
}

/// Only the partition's directory goes, or one file of it: what is flushed there is found by no reader.
#[test]
fn a_flush_of_a_file_that_was_removed_is_no_acknowledgement() {
    for whole in [true, false] {
        let dir = TempDir::new();
        let store = with_topic(dir.path());
        append(&store, Durability::Sync).unwrap();
        if whole {
            fs::remove_dir_all(dir.path().join("t-0")).unwrap();
        } else {
            fs::remove_file(dir.path().join("t-0/00000000000000000000.log")).unwrap();
        }
        let refused = append(&store, Durability::Sync).unwrap_err();
        assert!(refused.to_string().contains("removed"), "{refused}");
    }
}

/// The file that is written to goes on having a name, and the one that readers open is another or none: a partition
/// that is moved away, or moved and copied back; a segment likewise, or unlinked where a hard link remains.
#[test]
fn a_writer_whose_partition_or_segment_is_moved_acknowledges_nothing() {
    let log_name = "00000000000000000000.log";
    let cases = ["directory away", "directory back", "file away", "file back", "file linked", "directory to a link"];
    for (how, durability) in
        cases.iter().flat_map(|&how| [Durability::Sync, Durability::Interval, Durability::Os].map(|d| (how, d)))
    {
        let parent = TempDir::new();
        let (dir, away) = (parent.path().join("data"), parent.path().join("away"));
        let store = with_topic(&dir);
        append(&store, durability).unwrap();
        let (partition, file) = (dir.join("t-0"), dir.join("t-0").join(log_name));
        match how {
            "file linked" => {
                fs::hard_link(&file, &away).unwrap();
                fs::remove_file(&file).unwrap();
            }
            _ => fs::rename(if how.starts_with("file") { &file } else { &partition }, &away).unwrap(),
        }
        match how {
            "directory back" => edgelog_testkit::copy_dir(&away, &partition),
            "file back" => drop(fs::copy(&away, &file).unwrap()),
            "directory to a link" => symlink(&away, &partition).unwrap(),
            _ => {}
        }
        let ticked = store.tick(TimestampMs(i64::from(i32::MAX)));
        let appended = append(&store, durability);
        if how == "directory to a link" {
            // The name leads to the same file: nothing is lost.
            assert!(ticked.is_ok() && appended.is_ok(), "{how}: {ticked:?} {appended:?}");
            drop(store);
            assert_eq!(records(&Store::attach(&dir).unwrap()), 2);
            continue;
        }
        assert!(durability == Durability::Sync || ticked.is_err(), "{how} {durability:?}");
        let refused = appended.unwrap_err();
        assert!(refused.to_string().contains("moved or removed"), "{how} {durability:?}: {refused}");
        assert!(append(&store, durability).is_err(), "for good");
    }
}

/// What attached processes rely on: the flag of a healthy writer is up when it has recovered, and not before.
#[test]
fn attached_stores_flush_next_to_a_writer_also_if_its_lock_file_is_gone() {
    let dir = TempDir::new();
    let store = with_topic(dir.path());
    append(&store, Durability::Os).unwrap();
    fs::remove_file(dir.path().join(".lock")).unwrap();
    let attached = Store::attach(dir.path()).unwrap();
    assert_eq!(attached.log("t", 0).unwrap().flush_up_to(Offset(i64::MAX)).unwrap(), 1);
    append(&store, Durability::Os).unwrap();
    store.tick(TimestampMs(0)).unwrap();
    assert_eq!(attached.log("t", 0).unwrap().flush_up_to(Offset(i64::MAX)).unwrap(), 2);
    // As while the writer recovers.
    fs::write(dir.path().join(".lock"), format!("{} recovering\n", std::process::id())).unwrap();
    append(&store, Durability::Os).unwrap();
    assert_eq!(
        attached.log("t", 0).unwrap().flush_up_to(Offset(i64::MAX)).unwrap(),
        2,
        "the writer may still be recovering"
    );
    drop(store);
    let store = with_topic(dir.path());
    assert!(is_locked(&ticking().open(dir.path())));
    drop(store);
}

fn within_deadline<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    finished.recv_timeout(DEADLINE).expect("no hang")
}

/// The names of one store's files that an open reads or writes.
const NAMES: [&str; 7] = [
    ".lock",
    "edgelog.checkpoint",
    "t-0/00000000000000000000.log",
    "t-0/00000000000000000000.index",
    "t-0/00000000000000000000.timeindex",
    "t-0/topic.properties",
    "t-0/edgelog.properties",
];

/// A closed store with one record, in which `name` is gone.
fn without(name: &str) -> TempDir {
    let dir = TempDir::new();
    let store = with_topic(dir.path());
    append(&store, Durability::Sync).unwrap();
    store.close().unwrap();
    drop(store);
    fs::remove_file(dir.path().join(name)).unwrap();
    dir
}

/// An open wrote, and cut, another program's file through a link with the name of a segment.
#[test]
fn files_behind_links_are_never_touched() {
    for name in NAMES {
        let dir = without(name);
        let foreign = TempDir::new();
        let target = foreign.path().join("foreign");
        let bytes = vec![b'x'; 5000];
        fs::write(&target, &bytes).unwrap();
        symlink(&target, dir.path().join(name)).unwrap();
        match ticking().open(dir.path()) {
            Ok(store) => {
                // One log that cannot be opened does not keep the others from their users.
                let _ = append(&store, Durability::Sync);
                let _ = store.close();
            }
            Err(error) => assert!(error.to_string().contains("symbolic link"), "{name}: {error}"),
        }
        assert!(fs::read(&target).unwrap() == bytes, "{name}: the foreign file was changed");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o644, "{name}");
    }
}

#[test]
fn a_pipe_in_place_of_a_file_is_an_error_and_no_hang() {
    for name in NAMES {
        let dir = without(name);
        let path = dir.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let data = dir.path().to_owned();
        let outcome = within_deadline(move || match ticking().open(&data) {
            Ok(store) => {
                let appended = append(&store, Durability::Sync).err().map(|error| error.to_string());
                let report = store.recovery_report().to_string();
                let _ = store.close();
                format!("{report} {appended:?}")
            }
            Err(error) => error.to_string(),
        });
        let is_derived = name.ends_with("index");
        assert!(is_derived || outcome.contains("FIFO"), "{name}: {outcome}");
        assert!(
            is_derived || fs::symlink_metadata(&path).unwrap().file_type().is_fifo() || name.contains("properties")
        );
        let data = dir.path().to_owned();
        within_deadline(move || drop(Store::attach(&data).and_then(|store| store.log("t", 0))));
    }
}

#[test]
fn a_partition_behind_a_link_is_a_partition() {
    let dir = TempDir::new();
    let store = with_topic(dir.path());
    append(&store, Durability::Sync).unwrap();
    store.close().unwrap();
    drop(store);
    let disk = TempDir::new();
    let there = disk.path().join("t-0");
    edgelog_testkit::copy_dir(&dir.path().join("t-0"), &there);
    fs::remove_dir_all(dir.path().join("t-0")).unwrap();
    symlink(&there, dir.path().join("t-0")).unwrap();
    let store = ticking().open(dir.path()).unwrap();
    assert!(store.recovery_report().missing.is_empty(), "{}", store.recovery_report());
    assert_eq!(append(&store, Durability::Sync).unwrap(), 1);
    assert_eq!(records(&Store::attach(dir.path()).unwrap()), 2);
    store.delete_topic("t").unwrap();
    assert_eq!(fs::symlink_metadata(dir.path().join("t-0")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!there.exists(), "its files are gone, as are the directory and the link");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

/// A closed store with one record, whose partition stands in `disk`, behind a link.
fn with_linked_topic(dir: &Path, disk: &Path) {
    let store = with_topic(dir);
    append(&store, Durability::Sync).unwrap();
    store.close().unwrap();
    drop(store);
    fs::rename(dir.join("t-0"), disk).unwrap();
    symlink(disk, dir.join("t-0")).unwrap();
}

/// Two stores had a writer each for one directory, and both acknowledged records at the same offsets.
#[test]
fn a_directory_that_several_stores_link_to_has_one_writer() {
    let parent = TempDir::new();
    let [own, other, disk] = ["own", "other", "disk"].map(|name| parent.path().join(name));
    with_linked_topic(&own, &disk);
    fs::create_dir(&other).unwrap();
    symlink(&disk, other.join("t-0")).unwrap();
    let first = ticking().open(&own).unwrap();
    assert_eq!(append(&first, Durability::Sync).unwrap(), 1);
    let second = ticking().open(&other).unwrap();
    assert!(second.recovery_report().to_string().contains("another store"), "{}", second.recovery_report());
    assert!(append(&second, Durability::Sync).unwrap_err().to_string().contains("another store"));
    assert_eq!(records(&Store::attach(&other).unwrap()), 2, "it can be read");
    second.delete_topic("t").unwrap();
    assert_eq!(append(&first, Durability::Sync).unwrap(), 2);
    drop((first, second));
    assert_eq!(records(&Store::attach(&own).unwrap()), 3, "the link alone is deleted");
    symlink(&disk, other.join("t-0")).unwrap();
    assert_eq!(append(&ticking().open(&other).unwrap(), Durability::Sync).unwrap(), 3, "one after the other");
}

/// What stands in another store's data directory is that store's, whether or not it is open now.
#[test]
fn a_link_into_another_data_directory_is_read_and_not_written() {
    let parent = TempDir::new();
    let [own, other] = ["own", "other"].map(|name| parent.path().join(name));
    let store = with_topic(&own);
    append(&store, Durability::Sync).unwrap();
    fs::create_dir(&other).unwrap();
    symlink(own.join("t-0"), other.join("t-0")).unwrap();
    for is_open in [true, false] {
        if !is_open {
            store.close().unwrap();
        }
        let second = ticking().open(&other).unwrap();
        let refused = append(&second, Durability::Sync).unwrap_err().to_string();
        assert!(refused.contains("data directory") && refused.contains("own"), "{refused}");
        assert!(second.alter_topic("t", &[("retention.ms", Some("1"))]).is_err());
        assert_eq!(records(&Store::attach(&other).unwrap()), 1);
    }
    let second = ticking().open(&other).unwrap();
    second.delete_topic("t").unwrap();
    assert!(fs::symlink_metadata(other.join("t-0")).is_err());
    let store = ticking().open(&own).unwrap();
    assert!(store.recovery_report().clean, "{}", store.recovery_report());
    assert_eq!(append(&store, Durability::Sync).unwrap(), 1);
}

/// A second name of a partition's directory was written as a log of its own, and deleting it took the first one's
/// files.
#[test]
fn one_directory_under_two_names_is_one_log() {
    for (link, target) in [("x-0", "t-0"), ("t-1", "t-0"), ("x-0", "disk"), ("a-0", "disk")] {
        let parent = TempDir::new();
        let (dir, disk) = (parent.path().join("data"), parent.path().join("disk"));
        if target == "disk" {
            with_linked_topic(&dir, &disk);
            symlink(&disk, dir.join(link)).unwrap();
        } else {
            append(&with_topic(&dir), Durability::Sync).unwrap();
            symlink(target, dir.join(link)).unwrap();
        }
        let marker = fs::read(dir.join("t-0/edgelog.properties")).unwrap();
        let (topic, partition) = link.rsplit_once('-').unwrap();
        {
            let store = ticking().open(&dir).unwrap();
            let report = store.recovery_report();
            assert!(
                report.unopened.iter().any(|(name, why)| name.to_string() == link && why.contains("t-0")),
                "{report}"
            );
            let refused = store.log(topic, partition.parse().unwrap()).unwrap_err();
            assert!(matches!(refused, Error::NotOpened { .. }), "{link}: {refused}");
            assert_eq!(append(&store, Durability::Sync).unwrap(), 1, "{link}");
            if topic != "t" {
                assert!(store.alter_topic(topic, &[("segment.bytes", Some("4096"))]).is_err());
                store.delete_topic(topic).unwrap();
                assert!(fs::symlink_metadata(dir.join(link)).is_err());
            }
            assert_eq!(append(&store, Durability::Sync).unwrap(), 2, "{link}");
        }
        let store = ticking().open(&dir).unwrap();
        assert_eq!(records(&store), 3, "{link} to {target}");
        assert!(fs::read(dir.join("t-0/edgelog.properties")).unwrap() == marker, "{link}: it says whose it is");
    }
}

/// A disk that was away for a while made an open report the log as gone, forget its identity, and remove the topic's
/// other partitions where nothing was in them yet.
#[test]
fn a_partition_whose_disk_is_away_is_neither_gone_nor_replaced() {
    let parent = TempDir::new();
    let [dir, disk, away] = ["data", "disk", "away"].map(|name| parent.path().join(name));
    let store = ticking().open(&dir).unwrap();
    store.create_topic(&NewTopic::new("t").partitions(2)).unwrap();
    append(&store, Durability::Sync).unwrap();
    let id = store.log("t", 0).unwrap().id();
    drop(store);
    fs::rename(dir.join("t-0"), &disk).unwrap();
    symlink(&disk, dir.join("t-0")).unwrap();
    fs::rename(&disk, &away).unwrap();
    for _ in 0..2 {
        let store = ticking().open(&dir).unwrap();
        let report = store.recovery_report();
        assert!(report.missing.is_empty() && report.removed.is_empty(), "{report}");
        assert!(report.to_string().contains("t-0") && report.to_string().contains("link"), "{report}");
        assert!(store.create_topic(&NewTopic::new("t")).is_err());
        assert!(store.delete_topic("t").is_err());
        assert!(append(&store, Durability::Sync).unwrap_err().to_string().contains("link"));
        let other = store.log("t", 1).unwrap();
        other.append_with(NewRecord::value(b"there"), Durability::Sync).unwrap();
        let refused = Store::attach(&dir).unwrap().log("t", 0).unwrap_err();
        assert!(refused.to_string().contains("link"), "{refused}");
        let storage = edgelog::inspect::open_directory(&dir).unwrap();
        let checked = edgelog::inspect::check(&storage, &edgelog::inspect::Selection::all(), &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert!(checked.findings.iter().any(|finding| finding.text.contains("link")), "{:?}", checked.findings);
    }
    fs::rename(&away, &disk).unwrap();
    let store = ticking().open(&dir).unwrap();
    assert!(store.log("t", 0).unwrap().id() == id, "the same log");
    assert_eq!((records(&store), append(&store, Durability::Sync).unwrap()), (1, 1));
    // A link that no checkpoint knows is another program's, and in the way.
    drop(store);
    symlink(parent.path().join("nowhere"), dir.join("u-0")).unwrap();
    let store = ticking().open(&dir).unwrap();
    assert!(store.recovery_report().left.iter().any(|(name, _)| name == "u-0"));
    assert!(store.create_topic(&NewTopic::new("u")).is_err());
    assert!(fs::symlink_metadata(dir.join("u-0")).unwrap().is_symlink());
}

fn modes(dir: &Path, found: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        found.push((entry.file_name().into_string().unwrap(), mode));
        if entry.path().is_dir() {
            modes(&entry.path(), found);
        }
    }
}

/// With any umask. The umask belongs to the whole process, so the test looks at its own.
#[test]
fn files_and_directories_get_the_permissions_that_the_key_names() {
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022)).as_raw_mode();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    for (key, file, directory) in [(None, 0o640, 0o750), (Some("600"), 0o600, 0o700), (Some("666"), 0o666, 0o777)] {
        let parent = TempDir::new();
        let dir = parent.path().join("data");
        let mut options = ticking();
        if let Some(mode) = key {
            options = options.set("edgelog.file.mode", mode).unwrap();
        }
        let store = options.open(&dir).unwrap();
        store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096")).unwrap();
        for _ in 0..200 {
            append(&store, Durability::Os).unwrap();
        }
        store.close().unwrap();
        let mut found = vec![("data".to_owned(), fs::metadata(&dir).unwrap().permissions().mode() & 0o777)];
        modes(&dir, &mut found);
        assert!(found.len() > 8, "{found:?}");
        for (name, mode) in found {
            let expected = if matches!(name.as_str(), "data" | "t-0") { directory } else { file };
            assert_eq!(mode, expected & !umask, "{name}: {mode:o}");
        }
    }
    assert!(ticking().set("edgelog.file.mode", "644").is_ok());
    for refused in ["440", "700", "688", "0o640", "rw-r-----", "060", "6400"] {
        assert!(ticking().set("edgelog.file.mode", refused).is_err(), "{refused}");
    }
}
