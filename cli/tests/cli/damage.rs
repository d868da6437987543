//! Defends that a reading command that meets damage prints what is good on both sides, names what is lost, and exits 2.

use std::fs;
use std::os::unix::fs::symlink;

use crate::numbered;
use crate::support::Place;

/// Five batches of ten records, in segments of two or three batches.
fn five_batches(segment_bytes: &str) -> Place {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--config", &format!("segment.bytes={segment_bytes}")]).exits(0);
    for batch in 0..5 {
        let lines = numbered(10, |n| format!("{} {}", batch * 10 + n, "x".repeat(150)));
        place.run_with(&["append", "t", "--quiet"], lines.as_bytes()).exits(0);
    }
    place
}

fn read_numbers(place: &Place, code: i32) -> (Vec<u32>, String) {
    let done = place.run(&["tail", "t", "--from-beginning", "--no-follow", "--raw"]).exits(code);
    let numbers = done.lines().iter().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect();
    (numbers, done.stderr)
}

#[test]
fn both_sides_of_damage_are_printed() {
    let place = five_batches("5000");
    assert!(place.segments("t-0").len() >= 2);
    let first = place.segments("t-0")[0].clone();
    // In the second batch of the first segment.
    place.flip(&first, 2500);
    let (numbers, stderr) = read_numbers(&place, 2);
    assert_eq!(numbers, (0..10).chain(20..50).collect::<Vec<_>>());
    assert!(stderr.contains("offsets 10 to 19 lost") && stderr.contains(&first), "{stderr}");
}

#[test]
fn damage_in_the_only_segment_is_no_end() {
    let place = five_batches("1000000");
    let first = place.segments("t-0")[0].clone();
    place.flip(&first, 2500);
    let (numbers, stderr) = read_numbers(&place, 2);
    assert_eq!(numbers, (0..10).chain(20..50).collect::<Vec<_>>());
    assert!(stderr.contains("offsets 10 to 19 lost"), "{stderr}");
}

#[test]
fn damage_of_a_segments_end_is_reported() {
    let place = five_batches("5000");
    let first = place.segments("t-0")[0].clone();
    let path = place.store().join(&first);
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 100).unwrap();
    let (numbers, stderr) = read_numbers(&place, 2);
    assert_eq!(numbers, (0..10).chain(20..50).collect::<Vec<_>>());
    assert!(stderr.contains("offsets 10 to 19 lost"), "{stderr}");
}

#[test]
fn a_tail_torn_by_a_crash_is_no_damage() {
    let place = Place::new();
    let mut append = place.start(&["append", "t"]);
    append.write("one\ntwo\n");
    assert_eq!(append.line(), "t-0 @ 0 to 1");
    append.kill_9();
    // Half of another batch behind the last one.
    let log = place.store().join(&place.segments("t-0")[0]);
    let mut bytes = std::fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let torn: Vec<u8> = bytes[..end / 2].to_vec();
    bytes.splice(end..bytes.len().min(end + torn.len()), torn);
    std::fs::write(&log, bytes).unwrap();
    let done = place.run(&["tail", "t", "--from-beginning", "--no-follow", "--raw"]).exits(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\ntwo\n", ""));

    // The next writer says what it did about it, and `stat` shows what was kept.
    let done = place.run_with(&["append", "t"], b"three\n").exits(0);
    assert_eq!(done.lines(), ["t-0 @ 2"]);
    assert!(done.stderr.contains("not closed cleanly") && done.stderr.contains("kept in"), "{}", done.stderr);
    let stat = place.run(&["stat", "--json"]).exits(0).json().remove(0);
    assert_eq!(stat["leader_epoch"], 1, "{stat}");
    assert!(stat["cut_files"][0]["bytes"].as_u64() > Some(0), "{stat}");
}

#[test]
fn a_partition_without_its_files_does_not_hide_the_others() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--partitions", "2"]).exits(0);
    for partition in ["0", "1"] {
        place.run_with(&["append", "t", "-p", partition], partition.as_bytes()).exits(0);
    }
    std::fs::remove_file(place.store().join(&place.segments("t-1")[0])).unwrap();
    for command in [&["tail", "t", "--no-follow", "--raw"][..], &["stat"], &["topics"]] {
        let done = place.run(command).exits(2);
        assert!(done.stderr.contains("t-1 cannot be read"), "{}", done.stderr);
        assert!(!done.stdout.is_empty(), "the other partition is there");
    }
}

/// A writer that had stopped, since nothing was left of its directory, said that what it had acknowledged was safe.
#[test]
fn a_writer_whose_files_are_gone_does_not_call_them_safe() {
    for what in ["store", "store/t-0", "store/t-0/00000000000000000000.log"] {
        let place = Place::new();
        let mut append = place.start(&["append", "t"]);
        append.write("one\n");
        append.line();
        fs::rename(place.path(what), place.path("moved")).unwrap();
        append.write("two\n");
        let done = append.wait();
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{what}: {}", done.stderr);
        assert!(done.stderr.contains("moved or removed while it was in use"), "{what}: {}", done.stderr);
        assert!(!done.stderr.contains("is safe") && done.stderr.contains("Put them back"), "{what}: {}", done.stderr);
    }
}

/// A directory in place of the checkpoint keeps every command from opening the store. fsck called that damage that
/// heals itself, and a dry run of repair exited 0.
#[test]
fn what_is_no_checkpoint_file_does_not_heal_itself() {
    for kind in ["link", "dangling link", "directory"] {
        let place = Place::new();
        place.run_with(&["append", "t"], b"one\n").exits(0);
        let (checkpoint, away) = (place.store().join("edgelog.checkpoint"), place.path("away"));
        fs::rename(&checkpoint, &away).unwrap();
        match kind {
            "link" => symlink(&away, &checkpoint).unwrap(),
            "dangling link" => symlink("nowhere", &checkpoint).unwrap(),
            _ => fs::create_dir(&checkpoint).unwrap(),
        }
        let fsck = place.run(&["fsck"]).exits(2);
        assert!(fsck.stdout.contains("edgelog.checkpoint: cannot be opened"), "{kind}: {}", fsck.stdout);
        assert!(!fsck.stdout.contains("the next open"), "{kind}: {}", fsck.stdout);
        for arguments in [&["repair", "--dry-run"][..], &["repair"], &["tail", "t", "--no-follow"], &["stat"]] {
            let refused = place.run(arguments).exits(1);
            assert!(refused.stderr.contains("edgelog.checkpoint"), "{kind}: {}", refused.stderr);
        }
        place.run_with(&["append", "t"], b"two\n").exits(1);
        if kind == "directory" {
            fs::remove_dir(&checkpoint).unwrap();
        } else {
            fs::remove_file(&checkpoint).unwrap();
        }
        fs::rename(&away, &checkpoint).unwrap();
        place.run(&["fsck"]).exits(0);
    }
}

#[test]
fn what_is_no_lock_file_is_named() {
    for kind in ["link", "directory"] {
        let place = Place::new();
        place.run_with(&["append", "t"], b"one\n").exits(0);
        let lock = place.store().join(".lock");
        fs::remove_file(&lock).unwrap();
        if kind == "link" { symlink("nowhere", &lock) } else { fs::create_dir(&lock) }.unwrap();
        let fsck = place.run(&["fsck"]).exits(0);
        assert!(fsck.stdout.contains("note  .lock: "), "{kind}: {}", fsck.stdout);
        for arguments in [&["repair", "--dry-run"][..], &["repair"], &["append", "t"]] {
            let refused = place.run(arguments).exits(1);
            assert!(refused.stderr.contains("lock .lock"), "{kind}: {}", refused.stderr);
        }
        place.run(&["tail", "t", "--no-follow"]).exits(0);
    }
}

/// A directory with the name of a file of settings stays: fsck said that the next open writes the file again.
#[test]
fn a_directory_in_place_of_settings_is_named_and_stays() {
    for name in ["topic.properties", "edgelog.properties"] {
        let place = Place::new();
        place.run_with(&["append", "t"], b"one\n").exits(0);
        let path = place.store().join("t-0").join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        for _ in 0..2 {
            let fsck = place.run(&["fsck"]).exits(0);
            assert!(fsck.stdout.contains(&format!("t-0/{name}: a directory")), "{}", fsck.stdout);
            place.run(&["repair", "--dry-run"]).exits(0);
            let append = place.run_with(&["append", "t"], b"two\n").exits(0);
            assert!(append.stderr.contains(&format!("t-0/{name}: could not be written")), "{}", append.stderr);
        }
        place.run(&["repair"]).exits(0);
        fs::remove_dir(&path).unwrap();
        place.run_with(&["append", "t"], b"three\n").exits(0);
        assert!(path.is_file());
    }
}

/// A holder's file that is none made `stat` show no log at all, while fsck said nothing.
#[test]
fn a_hold_that_is_no_file_is_named_and_hides_no_log() {
    for name in ["edgelog.x.hold", "edgelog.bridge.hold", "edgelog.bridge.0"] {
        let place = Place::new();
        place.run_with(&["append", "t"], b"one\n").exits(0);
        symlink("nowhere", place.store().join(name)).unwrap();
        let stat = place.run(&["stat"]).exits(0);
        let holder = name.split('.').nth(1).unwrap();
        assert!(stat.stdout.contains("t-0") && stat.stdout.contains(&format!("needed by {holder}")), "{}", stat.stdout);
        let fsck = place.run(&["fsck"]).exits(0);
        assert!(fsck.stdout.contains(&format!("{name}: cannot be read: it is a symbolic link")), "{}", fsck.stdout);
    }
}

/// Each open reported that a deleted topic's directory, in which other files are, was removed, and it was not.
#[test]
fn a_deleted_topics_directory_with_other_files_is_left_and_named() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"one\n").exits(0);
    fs::write(place.store().join("t-0/notes.txt"), "mine").unwrap();
    place.run(&["topics", "delete", "t", "--yes"]).exits(0);
    place.run_with(&["append", "t"], b"again\n").exits(0);
    let fsck = place.run(&["fsck"]).exits(0);
    assert!(!fsck.stdout.contains("the next open removes") && fsck.stdout.contains("-delete"), "{}", fsck.stdout);
    for _ in 0..2 {
        let append = place.run_with(&["append", "t"], b"more\n").exits(0);
        assert!(!append.stderr.contains("removed") && append.stderr.contains("left as it is"), "{}", append.stderr);
    }
    let names = fs::read_dir(place.store()).unwrap().map(|entry| entry.unwrap().path());
    let left = names.into_iter().find(|path| path.to_string_lossy().ends_with("-delete")).unwrap();
    assert_eq!(fs::read(left.join("notes.txt")).unwrap(), b"mine");
}
