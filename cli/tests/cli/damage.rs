//! Defends that a reading command that meets damage prints what is good on both sides, names what is lost, and exits 2.

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
fn damage_of_a_segments_end_is_told() {
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
    assert_eq!(append.line(), "t-0 @ 0..1");
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
