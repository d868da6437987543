//! Defends `import`: what `export` wrote comes back, a second run repeats nothing, and what cannot be taken in leaves
//! the store as it was.

use serde_json::{Value, json};

use crate::support::{Done, Place};

/// A topic with two partitions, and every kind of key, value and header.
fn exported(place: &Place, format: &str, name: &str) -> String {
    place.run(&["topics", "create", "from", "-p", "2", "-c", "retention.ms=-1", "-c", "segment.bytes=4096"]).exits(0);
    let records = [
        json!({
            "partition": 0, "ts": 1_700_000_000_000_u64, "key": "k", "payload": "two\nlines, \"quoted\"",
            "headers": ["h", null, "h", "v"]
        }),
        json!({"partition": 1, "ts": 1_700_000_000_001_u64, "key": null, "payload": null}),
        json!({"partition": 0, "ts": 5, "key": "", "payload": ""}),
        json!({
            "partition": 0, "key_base64": "/wA=", "payload_base64": "wyg=",
            "headers": [{"base64": "/w=="}, {"base64": "AA=="}]
        }),
        json!({"partition": 1, "key": "base64:", "payload": " base64:x"}),
    ];
    let mut lines: Vec<String> = records.iter().map(Value::to_string).collect();
    for n in 0..200 {
        lines.push(json!({"partition": n % 2, "payload": format!("{n} {}", "x".repeat(100))}).to_string());
    }
    place.run_with(&["append", "from", "--json", "--batch", "20"], lines.join("\n").as_bytes()).exits(0);
    let to = place.path(name).to_str().unwrap().to_owned();
    place.run(&["export", "from", "--format", format, "--to", &to]).exits(0);
    to
}

fn records(place: &Place, topic: &str) -> Vec<Value> {
    let tail = place.run(&["tail", topic, "--from-beginning", "--no-follow", "--json"]).exits(0);
    let drop_topic = |mut record: Value| {
        record.as_object_mut().unwrap().remove("topic").unwrap();
        record
    };
    tail.json().into_iter().map(drop_topic).collect()
}

#[test]
fn json_comes_back_and_a_second_run_appends_nothing() {
    let place = Place::new();
    let file = exported(&place, "json", "from.jsonl");
    let done = place.run(&["import", "to", &file]).exits(0);
    assert!(done.stderr.contains("created topic to with 2 partitions and retention.ms=-1"), "{}", done.stderr);
    assert!(done.stderr.contains("to-0: 103 records appended (offsets 0 to 102)\n"), "{}", done.stderr);
    assert_eq!(records(&place, "to"), records(&place, "from"));
    let again = place.run(&["import", "to", &file]).exits(0);
    assert!(again.stderr.contains("to-1: 0 records appended, 102 records were there already\n"), "{}", again.stderr);
    assert_eq!(records(&place, "to").len(), 205);
    // Behind what is there they have other offsets, which is said.
    let more = place.run(&["import", "to", &file, "--append"]).exits(0);
    assert!(more.stderr.contains("(offsets 103 to 205); 103 records have another offset"), "{}", more.stderr);
    assert_eq!(records(&place, "to").len(), 410);
}

#[test]
fn csv_comes_back() {
    let place = Place::new();
    exported(&place, "json", "from.jsonl");
    let file = place.path("one.csv").to_str().unwrap().to_owned();
    place.run(&["export", "from-0", "--format", "csv", "--to", &file]).exits(0);
    place.run(&["import", "to", &file]).exits(0);
    let from: Vec<Value> = records(&place, "from-0");
    assert_eq!((records(&place, "to"), from.len()), (from, 103));
    // From standard input, into one partition of several, with the columns that there are.
    place.run(&["topics", "create", "many", "-p", "3"]).exits(0);
    let done = place.run_with(&["import", "many-2", "-", "--format", "csv"], b"key,value\r\na,1\r\n,\"\"\r\n").exits(0);
    assert!(done.stderr.contains("many-2: 2 records appended (offsets 0 to 1)"), "{}", done.stderr);
}

/// What a run that was cut has appended is passed over by the next one.
#[test]
fn an_import_that_stopped_goes_on() {
    let place = Place::new();
    let file = exported(&place, "json", "from.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    for lines in [0, 1, 3, 150, 205] {
        let _ = place.run(&["topics", "delete", "to", "--yes"]);
        place.run(&["topics", "create", "to", "-p", "2", "-c", "retention.ms=-1"]).exits(0);
        let begun: String = text.split_inclusive('\n').take(lines).collect();
        place.run_with(&["import", "to", "-", "--format", "json"], begun.as_bytes()).exits(0);
        place.run(&["import", "to", &file]).exits(0);
        assert_eq!(records(&place, "to"), records(&place, "from"), "after {lines}");
    }
    // A live input is interrupted: whole lines are there, and said so.
    place.run(&["topics", "delete", "to", "--yes"]).exits(0);
    let mut running = place.start(&["import", "to", "-", "--format", "json"]);
    running.write("{\"payload\":\"1\"}\n{\"payl");
    // The topic is made when standard input is read.
    while !place.store().join("to-0").exists() {
        std::thread::yield_now();
    }
    let stdin = running.stdin.take();
    running.signal(rustix::process::Signal::INT);
    let done = running.wait().exits(130);
    drop(stdin);
    assert!(done.stderr.contains("the same command goes on"), "{}", done.stderr);
}

#[test]
fn other_records_are_never_mixed_with_the_files() {
    let place = Place::new();
    let file = exported(&place, "json", "from.jsonl");
    place.run_with(&["append", "to", "-k", "other"], b"x\n").exits(0);
    let lines = "{\"key\":\"other\",\"payload\":\"y\"}\n";
    let refused = place.run_with(&["import", "to", "-", "--format", "json"], lines.as_bytes()).exits(1);
    assert!(refused.stderr.contains("to-0 holds another record at offset 0"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("standard input, line 1:") && refused.stderr.contains("--append"),
        "{}",
        refused.stderr
    );
    let narrow = place.run(&["import", "to", &file, "--append"]).exits(1);
    assert!(narrow.stderr.contains("topic to has no partition 1"), "{}", narrow.stderr);
    // A line that is no record is found before anything is made.
    let text = std::fs::read_to_string(&file).unwrap() + "{\"paylaod\":1}\n";
    std::fs::write(&file, text).unwrap();
    let wrong = place.run(&["import", "new", &file]).exits(1);
    assert!(wrong.stderr.contains("line 206: unknown field `paylaod`"), "{}", wrong.stderr);
    assert!(!place.store().join("new-0").exists());
    let unknown = place.run(&["import", "new", place.path("no").to_str().unwrap()]).exits(1);
    assert!(unknown.stderr.contains("Say --format"), "{}", unknown.stderr);
}

#[test]
fn partition_directories_keep_every_offset() {
    let place = Place::new();
    let dir = exported(&place, "kafka", "kafka");
    // The log's own beginning is kept, and not counted from 0.
    let part = place.path("part").to_str().unwrap().to_owned();
    place.run(&["export", "from-1", "--for-broker", "--from", "50", "--to", &part]).exits(0);
    let done: Done = place.run(&["import", "to", &dir]).exits(0);
    assert!(done.stderr.contains("to-0: 103 records (offsets 0 to 102)"), "{}", done.stderr);
    assert_eq!(records(&place, "to"), records(&place, "from"));
    assert!(place.run(&["fsck"]).exits(0).stdout.contains("sound"));
    let later = place.run(&["import", "later", &format!("{part}/from-1")]).exits(0);
    assert!(later.stderr.contains("later-1: 52 records (offsets 50 to 101)"), "{}", later.stderr);
    assert_eq!(records(&place, "later")[0]["offset"], 50);
    // It goes on behind what came, and nothing of it is too old.
    place.run_with(&["append", "to-0"], b"next\n").exits(0);
    assert_eq!(records(&place, "to").len(), 206);

    let again = place.run(&["import", "to", &dir]).exits(1);
    assert!(again.stderr.contains("topic to is there already"), "{}", again.stderr);
    let none = place.run(&["import", "x", place.path(".").to_str().unwrap()]).exits(1);
    assert!(none.stderr.contains("holds no partition directory"), "{}", none.stderr);
    let name = place.run(&["import", "no/name", &dir]).exits(1);
    assert!(name.stderr.contains("no/name"), "{}", name.stderr);
    // What a killed import left does not stop the next one.
    std::fs::create_dir(place.store().join("third-0.part")).unwrap();
    std::fs::write(place.store().join("third-0.part/00000000000000000000.log"), b"half").unwrap();
    place.run(&["import", "third", &dir]).exits(0);
    assert_eq!(records(&place, "third"), records(&place, "from"));
    let left: Vec<_> = std::fs::read_dir(place.store()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

/// Of an import that was killed between two renames, some partitions have their names.
#[test]
fn what_a_killed_import_left_is_named_and_the_way_out() {
    let place = Place::new();
    let dir = exported(&place, "kafka", "kafka");
    place.run(&["import", "half", &format!("{dir}/from-0")]).exits(0);
    std::fs::create_dir(place.store().join("half-1.part")).unwrap();
    std::fs::write(place.store().join("half-1.part/00000000000000000000.log"), b"whole").unwrap();
    let refused = place.run(&["import", "half", &dir]).exits(1);
    let says = "topic half is there in part: half-0. An import of it was killed before it put half-1 in place";
    assert!(
        refused.stderr.contains(says) && refused.stderr.contains("`edgelog topics delete half`"),
        "{}",
        refused.stderr
    );
    place.run(&["topics", "delete", "half", "--yes"]).exits(0);
    place.run(&["import", "half", &dir]).exits(0);
    assert_eq!(records(&place, "half"), records(&place, "from"));
    // Nothing of it is left, so that the topic is whole.
    let again = place.run(&["import", "half", &dir]).exits(1);
    assert!(again.stderr.contains("topic half is there already"), "{}", again.stderr);
}

/// Damage in what is imported is named, and the records around it come.
#[test]
fn damage_in_partition_directories_is_named() {
    let place = Place::new();
    let dir = exported(&place, "kafka", "kafka");
    let log = format!("{dir}/from-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let done = place.run(&["import", "to", &dir]).exits(2);
    assert!(done.stderr.contains("damage:") && done.stderr.contains("to-1: 102 records"), "{}", done.stderr);
    assert_eq!(place.run(&["tail", "to-1", "--from-beginning", "--no-follow"]).exits(0).lines().len(), 102);
}
