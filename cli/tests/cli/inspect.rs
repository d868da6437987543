//! Defends fsck, repair, dump and export as a script sees them: exit codes, what is named, and files that are whole or
//! absent.

use std::fs;

use crate::numbered;
use crate::support::Place;

/// Five batches of ten records, in segments of two or three batches.
fn five_batches() -> Place {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--config", "segment.bytes=5000"]).exits(0);
    for batch in 0..5 {
        let lines = numbered(10, |n| format!("{} {}", batch * 10 + n, "x".repeat(150)));
        place.run_with(&["append", "t", "--quiet"], lines.as_bytes()).exits(0);
    }
    place
}

#[test]
fn fsck_distinguishes_valid_from_healing_from_lost() {
    let place = five_batches();
    let sound = place.run(&["fsck"]).exits(0);
    assert!(sound.stdout.contains("t-0") && sound.lines().last().unwrap().starts_with("sound"), "{}", sound.stdout);
    let first = place.segments("t-0")[0].clone();
    // The leader epoch of the first batch.
    place.flip(&first, 15);
    let heals = place.run(&["fsck", "t"]).exits(1);
    assert!(heals.stdout.contains(&format!("heals {first} at 0")), "{}", heals.stdout);
    place.flip(&first, 2500);
    let lost = place.run(&["fsck", "t-0"]).exits(2);
    assert!(lost.stdout.contains("offsets 10 to 19 lost") && lost.stdout.contains("DATA LOST"), "{}", lost.stdout);
    let report = &place.run(&["fsck", "--json"]).exits(2).json()[0];
    assert_eq!((&report["worst"], &report["lost_offsets"]), (&"lost".into(), &10.into()));
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["severity"] == "lost").unwrap();
    assert_eq!((&finding["topic"], &finding["partition"], &finding["file"]), (&"t".into(), &0.into(), &first.into()));
    assert_eq!((&finding["first_lost_offset"], &finding["next_offset"]), (&10.into(), &20.into()));
    place.run(&["fsck", "nothing"]).exits(1);
}

#[test]
fn repair_says_what_it_would_do_does_it_and_names_what_is_lost() {
    let place = five_batches();
    let first = place.segments("t-0")[0].clone();
    let nothing = place.run(&["repair"]).exits(0);
    assert!(nothing.stdout.contains("nothing to repair"), "{}", nothing.stdout);
    place.flip(&first, 2500);
    let dry = place.run(&["repair", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("would rewrite the segment") && dry.stdout.contains(&first), "{}", dry.stdout);
    place.run(&["fsck"]).exits(2);
    let done = place.run(&["repair"]).exits(0);
    assert!(done.stdout.contains("offsets 10 to 19 are lost"), "{}", done.stdout);
    place.run(&["fsck"]).exits(0);
    let read = place.run(&["tail", "t", "--from-beginning", "--no-follow", "--raw"]).exits(0);
    let numbers: Vec<u32> = read.lines().iter().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect();
    assert_eq!(numbers, (0..10).chain(20..50).collect::<Vec<_>>());
    // The damaged bytes are kept; nothing in them holds.
    let names = fs::read_dir(place.store().join("t-0")).unwrap().map(|entry| entry.unwrap().path());
    let cut = names.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "cut")).unwrap();
    let salvaged = place.run(&["repair", "--salvage", cut.to_str().unwrap()]).exits(0);
    assert!(salvaged.stdout.contains("no batch in t-0/"), "{}", salvaged.stdout);
    assert!(!cut.exists());
}

#[test]
fn repair_waits_for_no_other_process() {
    let place = five_batches();
    let mut append = place.start(&["append", "t"]);
    std::io::Write::write_all(append.stdin.as_mut().unwrap(), b"x\n").unwrap();
    append.line();
    let refused = place.run(&["repair"]).exits(1);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    place.run(&["fsck"]).exits(0);
    place.run(&["repair", "--dry-run"]).exits(0);
}

#[test]
fn dump_prints_what_kafka_prints() {
    let place = five_batches();
    let path = place.store().join(&place.segments("t-0")[0]);
    let path = path.to_str().unwrap();
    let plain = place.run(&["dump", path]).exits(0);
    assert_eq!(&plain.lines()[..2], [format!("Dumping {path}"), "Log starting offset: 0".to_owned()]);
    assert!(plain.lines()[2..].iter().all(|line| line.ends_with("isvalid: true")), "{}", plain.stdout);
    let deep = place.run(&["dump", "--files", path, "--print-data-log"]).exits(0);
    assert!(deep.lines()[3].starts_with("| offset: 0 CreateTime: "), "{}", deep.stdout);
    assert!(deep.lines()[3].contains(" headerKeys: [] payload: 0 xxx"), "{}", deep.stdout);
    let lines = place.run(&["dump", "--json", "--print-data-log", path]).exits(0).json();
    assert_eq!((&lines[0]["type"], &lines[0]["count"]), (&"batch".into(), &10.into()));
    assert_eq!((&lines[1]["type"], &lines[1]["offset"]), (&"record".into(), &0.into()));
    let index = place.run(&["dump", &path.replace(".log", ".timeindex")]).exits(0);
    assert!(index.lines()[1].starts_with("timestamp: "), "{}", index.stdout);
    place.flip(&place.segments("t-0")[0], 2500);
    let damaged = place.run(&["dump", path]).exits(2);
    assert!(
        damaged.stdout.contains("isvalid: false") && damaged.stdout.contains("invalid bytes"),
        "{}",
        damaged.stdout
    );
    place.run(&["dump", "no-such-file.log"]).exits(1);
}

#[test]
fn export_writes_whole_files_or_none() {
    let place = five_batches();
    let target = place.path("kafka");
    let to = target.to_str().unwrap();
    place.run(&["export", "t", "--to", to, "--for-broker", "--topic-id", "AAAAAAAAQACAAAAAAAAAAQ"]).exits(0);
    let metadata = fs::read_to_string(target.join("t-0/partition.metadata")).unwrap();
    assert_eq!(metadata, "version: 0\ntopic_id: AAAAAAAAQACAAAAAAAAAAQ");
    let again = place.run(&["export", "t", "--to", to, "--format", "kafka"]).exits(1);
    assert!(again.stderr.contains("is there already"), "{}", again.stderr);
    place.run(&["export", "t", "--to", to, "--for-broker", "--topic-id", "no"]).exits(1);

    // JSON lines are what `tail` prints.
    let tail = place.run(&["tail", "t", "--from-beginning", "--no-follow", "--json"]).exits(0);
    let file = place.path("t.jsonl");
    place.run(&["export", "t-0", "--to", file.to_str().unwrap(), "--format", "json"]).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), tail.stdout);
    let csv = place.run(&["export", "t", "--to", "-", "--format", "csv", "--from", "7", "--until", "9"]).exits(0);
    assert_eq!(csv.lines()[0], "offset,timestamp,key,value,headers");
    assert!(csv.lines().len() == 3 && csv.lines()[1].starts_with("7,"), "{}", csv.stdout);

    // Damage is left out and named; what is written is whole.
    place.flip(&place.segments("t-0")[0], 2500);
    let damaged = place.run(&["export", "t", "--to", file.to_str().unwrap(), "--format", "json"]).exits(2);
    assert!(damaged.stderr.contains("offsets 10 to 19 lost"), "{}", damaged.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 40);
    assert!(!place.path("t.jsonl.part").exists());
}

#[test]
fn what_recovery_put_aside_is_listed_and_salvaged() {
    let place = Place::new();
    place.run(&["topics", "create", "t"]).exits(0);
    let mut append = place.start(&["append", "t"]);
    for n in 0..10 {
        append.write(&format!("{n} {}\n", "x".repeat(100)));
        append.line();
    }
    append.kill_9();
    // In the fifth batch of ten: recovery ends the log before it and keeps the five good ones behind it aside.
    let log = place.segments("t-0")[0].clone();
    let bytes = fs::read(place.store().join(&log)).unwrap();
    let size = 12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    place.flip(&log, 5 * size - 10);
    place.run_with(&["append", "t", "--quiet"], b"10 later\n").exits(0);

    let stat = &place.run(&["stat", "t", "--json"]).exits(0).json()[0];
    assert_eq!(stat["log_end_offset"], 5);
    let cut = &stat["cut_files"][0];
    let name = cut["file"].as_str().unwrap();
    assert_eq!(name, format!("{:020}-{}-0.cut", 0, 4 * size));
    assert_eq!(cut["bytes"], fs::metadata(place.store().join("t-0").join(name)).unwrap().len());
    let listed = place.run(&["stat", "t"]).exits(0);
    assert!(listed.stdout.contains(name), "{}", listed.stdout);
    let path = place.store().join("t-0").join(name);
    let dumped = place.run(&["dump", path.to_str().unwrap()]);
    let holds = |n: usize| dumped.stdout.contains(&format!("baseOffset: {n} lastOffset: {n} "));
    assert!((5..10).all(holds), "{}", dumped.stdout);

    let salvaged = place.run(&["repair", "--salvage", &format!("t-0/{name}")]).exits(0);
    let expected = "5 records appended again, at offsets 5 to 9; they were offsets 5 to 9";
    assert!(salvaged.stdout.contains(expected), "{}", salvaged.stdout);
    let read = place.run(&["tail", "t", "--from-beginning", "--no-follow", "--raw"]).exits(0);
    let numbers: Vec<u32> = read.lines().iter().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 10, 5, 6, 7, 8, 9]);
    let stat = &place.run(&["stat", "t", "--json"]).exits(0).json()[0];
    assert_eq!(stat["cut_files"].as_array().unwrap().len(), 0);
}
