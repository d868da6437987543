//! Defends where an export writes, and that it names what it cannot read.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use crate::numbered;
use crate::support::{Done, Place};

fn with_records(partitions: &str) -> Place {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--partitions", partitions]).exits(0);
    for partition in ["0", "1", "2"].iter().take(partitions.parse().unwrap()) {
        place
            .run_with(&["append", "t", "-p", partition, "--quiet"], numbered(3, |n| n.to_string()).as_bytes())
            .exits(0);
    }
    place
}

fn export(place: &Place, to: &Path, format: &str) -> Done {
    place.run(&["export", "t", "--to", to.to_str().unwrap(), "--format", format])
}

/// A pipe, a socket, a device and a link were each taken away, and a file put in their place.
#[test]
fn nothing_but_a_file_is_replaced() {
    let place = with_records("1");
    let [fifo, socket, link, target, directory] =
        ["fifo", "socket", "link", "target", "directory"].map(|n| place.path(n));
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::write(&target, "x").unwrap();
    symlink("target", &link).unwrap();
    fs::create_dir(&directory).unwrap();
    for (path, what) in [(&socket, "a socket"), (&link, "a symbolic link"), (&directory, "a directory")] {
        let refused = export(&place, path, "json").exits(1);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::read(&target).unwrap() == b"x");
    let unread = export(&place, &fifo, "json").exits(1);
    assert!(unread.stderr.contains("no process reads"), "{}", unread.stderr);
    let mut reader =
        fs::OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&fifo).unwrap();
    export(&place, &fifo, "json").exits(0);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    export(&place, Path::new("/dev/null"), "csv").exits(0);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(export(&place, Path::new("/dev/stdout"), "json").exits(0).lines().len(), 3);
    export(&place, &fifo, "kafka").exits(1);
    // A file is replaced, and no other file is left.
    export(&place, &target, "json").exits(0);
    assert!(fs::read_to_string(&target).unwrap().lines().count() == 3 && !place.path("target.part").exists());
}

/// A link under the name that the export writes to was followed, and the file behind it overwritten; other programs'
/// files of that name were removed.
#[test]
fn what_has_the_name_of_the_unfinished_export_stays() {
    let place = with_records("1");
    let precious = place.path("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, place.path("x.json.part")).unwrap();
    fs::write(place.path("y.json.part"), "mine").unwrap();
    for name in ["x.json", "y.json"] {
        let refused = export(&place, &place.path(name), "json").exits(1);
        assert!(refused.stderr.contains(&format!("{name}.part")), "{}", refused.stderr);
        assert!(!place.path(name).exists());
    }
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_eq!(fs::read(place.path("y.json.part")).unwrap(), b"mine");
    let (victim, own, linked) = (place.path("victim"), place.path("own"), place.path("linked"));
    for directory in [&victim, &own.join("t-0.part"), &linked] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(victim.join("file"), "mine").unwrap();
    fs::write(own.join("t-0.part/file"), "mine").unwrap();
    symlink(&victim, linked.join("t-0.part")).unwrap();
    for target in [&own, &linked] {
        let refused = export(&place, target, "kafka").exits(1);
        assert!(refused.stderr.contains("t-0.part"), "{}", refused.stderr);
        assert_eq!(fs::read(target.join("t-0.part/file")).unwrap(), b"mine");
        assert!(!target.join("t-0").exists());
    }
    assert!(fs::symlink_metadata(linked.join("t-0.part")).unwrap().is_symlink());
}

/// An export to the name of a segment replaced it.
#[test]
fn nothing_is_exported_into_the_data_directory() {
    let place = with_records("1");
    let log = place.store().join(&place.segments("t-0")[0]);
    let before = fs::read(&log).unwrap();
    symlink(place.store(), place.path("store-link")).unwrap();
    let disk = place.path("disk");
    fs::rename(place.store().join("t-0"), &disk).unwrap();
    symlink(&disk, place.store().join("t-0")).unwrap();
    let inside = [log.clone(), place.store().join("new"), place.path("store-link/new"), disk.join("new")];
    for to in &inside {
        for format in ["json", "csv", "kafka"] {
            let refused = export(&place, to, format).exits(1);
            assert!(refused.stderr.contains("inside the data directory"), "{}", refused.stderr);
        }
    }
    // Standard output is nowhere inside, from any working directory.
    let mut inside_of_it = place.command(&["export", "t", "--to", "-", "--format", "json"]);
    assert!(inside_of_it.current_dir(place.store()).output().unwrap().status.success());
    assert!(fs::read(&log).unwrap() == before && inside[1..].iter().all(|to| !to.exists()));
}

/// A partition without files, or without its directory, was passed over, and the exit code was 0.
#[test]
fn a_partition_that_cannot_be_read_is_named_by_all_commands_that_read() {
    for is_whole in [false, true] {
        let place = with_records("3");
        let gone = place.store().join("t-2");
        fs::remove_dir_all(&gone).unwrap();
        if !is_whole {
            fs::create_dir(&gone).unwrap();
        }
        let reported = |done: Done| {
            let done = done.exits(2);
            let damage: Vec<_> =
                done.stderr.lines().filter(|line| line.starts_with("damage:")).map(str::to_owned).collect();
            (damage, done)
        };
        let (damage, tail) = reported(place.run(&["tail", "t", "--from-beginning", "--no-follow"]));
        assert!(damage.len() == 1 && damage[0].contains("t-2 cannot be read"), "{damage:?}");
        assert_eq!(tail.lines().len(), 6);
        for arguments in [&["stat"][..], &["stat", "t"], &["topics"], &["tail", "t-2", "--no-follow"], &["tail", "t-2"]]
        {
            assert_eq!(reported(place.run(arguments)).0, damage, "{arguments:?}");
        }
        for format in ["json", "csv", "kafka"] {
            let to = place.path(format);
            assert_eq!(reported(export(&place, &to, format)).0, damage, "{format}");
            assert!(to.exists() && !place.path("kafka/t-2").exists());
        }
        let only = place.run(&["export", "t-2", "--to", "-", "--format", "json"]);
        assert_eq!(reported(only).0, damage);
        // The others can be read, with exit code 0.
        place.run(&["tail", "t-1", "--no-follow"]).exits(0);
    }
}

/// The first segment was emptied: as JSON that was damage, and for a broker it was not.
#[test]
fn a_first_segment_without_a_batch_is_damage_in_every_format() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--config", "segment.bytes=4096"]).exits(0);
    for _ in 0..10 {
        place.run_with(&["append", "t", "--quiet"], format!("{}\n", "x".repeat(1000)).as_bytes()).exits(0);
    }
    fs::write(place.store().join(&place.segments("t-0")[0]), b"").unwrap();
    for format in ["json", "csv", "kafka"] {
        let done = export(&place, &place.path(format), format).exits(2);
        assert!(done.stderr.contains("damage:"), "{format}: {}", done.stderr);
    }
}
