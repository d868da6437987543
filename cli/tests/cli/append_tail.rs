//! Defends `append` and `tail`: what goes in comes out, byte for byte, as text and as JSON, while a writer lives
//! and when none does.

use crate::numbered;
use crate::support::Place;
use serde_json::json;

const READ_ALL: [&str; 2] = ["--from-beginning", "--no-follow"];

fn tail_all<'a>(topic: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["tail", topic], &READ_ALL[..], more].concat()
}

#[test]
fn lines_come_back_as_they_went_in() {
    let place = Place::new();
    let done = place.run_with(&["append", "t"], b"one\n\ntwo\r\n  three \nlast").exits(0);
    assert_eq!(done.lines(), ["t-0 @ 0 to 4"]);
    assert_eq!(done.stderr, "created topic t with one partition\n");
    assert_eq!(place.run(&tail_all("t", &["--raw"])).exits(0).stdout, "one\n\ntwo\r\n  three \nlast\n");

    // From a file, to a partition by its name; the offsets go on.
    std::fs::write(place.path("input"), "six\nseven\n").unwrap();
    let file = place.path("input");
    let done = place.run(&["append", "t-0", file.to_str().unwrap(), "--json-offsets"]).exits(0);
    assert_eq!(done.json(), [json!({"topic": "t", "partition": 0, "base_offset": 5, "last_offset": 6, "records": 2})]);
    assert_eq!(place.run_with(&["append", "t", "--quiet"], b"eight").exits(0).stdout, "");
    let last = place.run(&["tail", "t", "--last", "2", "--no-follow", "--raw"]).exits(0);
    assert_eq!(last.lines(), ["seven", "eight"]);
}

#[test]
fn keys_headers_nulls_and_bytes_are_printed_in_kcats_words() {
    let place = Place::new();
    let arguments = ["append", "t", "-K", "=>", "-H", "site=north", "-H", "empty=", "--null-value", "NULL"];
    place.run_with(&arguments, b"k=>v=>w\nno key\n=>\ngone=>NULL\n\xff\xfe=>\xc3\x28\n").exits(0);
    let records = place.run(&tail_all("t", &["--json"])).exits(0).json();
    let expected = [
        (json!("k"), json!("v=>w")),
        (json!(null), json!("no key")),
        (json!(""), json!("")),
        (json!("gone"), json!(null)),
        (json!(null), json!(null)),
    ];
    assert_eq!(records.len(), expected.len());
    for (offset, (record, (key, payload))) in records.iter().zip(expected).enumerate() {
        assert_eq!((&record["key"], &record["payload"]), (&key, &payload), "{record}");
        assert_eq!(record["headers"], json!(["site", "north", "empty", ""]));
        assert_eq!(
            (&record["topic"], &record["partition"], &record["offset"]),
            (&json!("t"), &json!(0), &json!(offset))
        );
        assert_eq!(record["tstype"], "create");
        assert!(record["ts"].as_i64().unwrap() > 1_700_000_000_000);
    }
    assert_eq!((&records[4]["key_base64"], &records[4]["payload_base64"]), (&json!("//4="), &json!("wyg=")));
    assert_eq!(records[3].get("payload_base64"), None, "null is not an empty value");

    let text = place.run(&tail_all("t", &[])).exits(0);
    assert!(text.lines()[4].contains("\\xff\\xfe"), "{}", text.stdout);
    assert!(text.lines()[3].contains("(null)"), "{}", text.stdout);
}

#[test]
fn a_record_cannot_command_the_terminal() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"\x1b[2J\x07\n").exits(0);
    let done = place.run(&tail_all("t", &[])).exits(0);
    assert!(!done.stdout.contains(['\x1b', '\x07']), "{:?}", done.stdout);
}

#[test]
fn tail_starts_where_it_is_asked_to() {
    let place = Place::new();
    let lines = numbered(30, |n| n.to_string());
    place.run_with(&["append", "t"], lines.as_bytes()).exits(0);
    let read = |arguments: &[&str]| {
        let done = place.run(&[&["tail", "t", "--raw", "--no-follow"], arguments].concat()).exits(0);
        (done.lines().len(), done.lines().first().map(|line| (*line).to_owned()))
    };
    let first = |n: u32| Some(n.to_string());
    assert_eq!(read(&[]), (10, first(20)));
    assert_eq!(read(&["--last", "3"]), (3, first(27)));
    assert_eq!(read(&["--last", "0"]), (0, None));
    assert_eq!(read(&["--offset", "25"]), (5, first(25)));
    assert_eq!(read(&["--offset", "30"]), (0, None));
    assert_eq!(read(&["--from-beginning", "--max-records", "4"]), (4, first(0)));
    assert_eq!(read(&["--since", "-5m"]), (30, first(0)));
    assert_eq!(read(&["--since", "1 hour ago"]), (30, first(0)));
    assert_eq!(read(&["--since", "2100-01-01T00:00:00Z"]), (0, None));
    assert_eq!(read(&["--since", "1500000000000", "-n", "1"]), (1, first(0)));

    let beyond = place.run(&["tail", "t", "--offset", "31"]).exits(1);
    assert!(beyond.stderr.contains("it holds 0..30"), "{}", beyond.stderr);
    // Without --no-follow, the records asked for are enough to end.
    assert_eq!(place.run(&["tail", "t", "--raw", "-n", "2"]).exits(0).lines(), ["20", "21"]);
}

#[test]
fn keys_stay_in_their_partition_and_a_tail_sees_all_partitions() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--partitions", "3"]).exits(0);
    let lines = numbered(60, |n| format!("key-{}:{n}", n % 6));
    place.run_with(&["append", "t", "-K", ":", "--batch", "7"], lines.as_bytes()).exits(0);
    let records = place.run(&tail_all("t", &["--json"])).exits(0).json();
    assert_eq!(records.len(), 60);
    for n in 0..6 {
        let key = format!("key-{n}");
        let of_key: Vec<_> = records.iter().filter(|record| record["key"] == key.as_str()).collect();
        assert!(of_key.iter().all(|record| record["partition"] == of_key[0]["partition"]), "{of_key:?}");
        let values: Vec<u32> =
            of_key.iter().map(|record| record["payload"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(values, (0..10).map(|at| at * 6 + n).collect::<Vec<_>>());
    }
    let one = place.run(&tail_all("t-1", &["--json"])).exits(0).json();
    assert!(one.iter().all(|record| record["partition"] == 1));
    let same = place.run(&tail_all("t", &["--json", "--partition", "1"])).exits(0).json();
    assert_eq!(one, same);
    let none = place.run(&["tail", "t-3"]).exits(1);
    assert!(none.stderr.contains("it has 0 to 2"), "{}", none.stderr);
}

#[test]
fn a_topic_named_like_a_partition_goes_first() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--partitions", "2"]).exits(0);
    place.run(&["topics", "create", "t-1"]).exits(0);
    place.run_with(&["append", "t-1"], b"topic\n").exits(0);
    place.run_with(&["append", "t", "--partition", "1"], b"partition\n").exits(0);
    assert_eq!(place.run(&tail_all("t-1", &["--raw"])).exits(0).stdout, "topic\n");
    assert_eq!(place.run(&tail_all("t", &["--raw"])).exits(0).stdout, "partition\n");
    assert_eq!(place.run(&tail_all("t-0", &["--raw"])).exits(0).stdout, "");
    let ambiguous = place.run_with(&["append", "new-7"], b"x\n").exits(1);
    assert!(
        ambiguous.stderr.contains("topics create new-7") && ambiguous.stderr.contains("--partitions 8"),
        "{}",
        ambiguous.stderr
    );
}

#[test]
fn tail_follows_a_writer_in_another_process() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--config", "segment.bytes=4096"]).exits(0);
    let mut tail = place.start(&["tail", "t", "--raw"]);
    let mut append = place.start(&["append", "t"]);
    // Across many rolls, each line seen before the next is written.
    for n in 0..40 {
        let line = format!("{n} {}", "x".repeat(500));
        append.write(&format!("{line}\n"));
        assert_eq!(tail.line(), line);
    }
    assert!(place.segments("t-0").len() > 3);
    assert_eq!(append.wait().code, Some(0));
    tail.signal(rustix::process::Signal::INT);
    assert_eq!(tail.wait().code, Some(130));
}

#[test]
fn a_follower_of_many_partitions_hears_each() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--partitions", "4"]).exits(0);
    let mut tail = place.start(&["tail", "t", "--json", "-n", "4"]);
    for partition in ["2", "0", "3", "1"] {
        place.run_with(&["append", "t", "-p", partition, "--acks", "1"], partition.as_bytes()).exits(0);
        assert!(tail.line().contains(&format!("\"payload\":\"{partition}\"")));
    }
    assert_eq!(tail.wait().code, Some(0));
}

/// A pattern named the topics that were there at the start, and no other one ever.
#[test]
fn a_pattern_takes_up_topics_that_come_later() {
    let place = Place::new();
    place.run_with(&["append", "net.a"], b"one\n").exits(0);
    let mut tail = place.start(&["tail", "net.*", "--utc"]);
    assert!(tail.line().starts_with("net.a-0:0 "), "a pattern's records say which topic they are of");
    place.run(&["topics", "create", "other"]).exits(0);
    place.run_with(&["append", "other"], b"not asked for\n").exits(0);
    place.run(&["topics", "create", "net.b", "-p", "2"]).exits(0);
    place.run_with(&["append", "net.b-1"], b"first\nsecond\n").exits(0);
    assert!(tail.line().starts_with("net.b-1:0 "));
    assert!(tail.line().ends_with("  second"));
    place.run_with(&["append", "net.a"], b"two\n").exits(0);
    assert!(tail.line().starts_with("net.a-0:1 "));
    tail.signal(rustix::process::Signal::INT);
    assert_eq!(tail.wait().code, Some(130));
    let mut watch = place.start(&["stat", "net.*", "--watch=10ms", "--json"]);
    watch.line_with("\"net.a\"");
    place.run(&["topics", "create", "net.c"]).exits(0);
    watch.line_with("\"net.c\"");
}

/// The default batch of a thousand records was refused where a segment is smaller.
#[test]
fn batches_are_split_where_segments_are_small() {
    let place = Place::new();
    place.run(&["topics", "create", "small", "-c", "segment.bytes=4096"]).exits(0);
    let lines = format!("{}\n", "x".repeat(100)).repeat(500);
    let appended = place.run_with(&["append", "small"], lines.as_bytes()).exits(0);
    assert_eq!(appended.stdout, "small-0 @ 0 to 499\n");
    assert!(place.segments("small-0").len() > 10, "{:?}", place.segments("small-0"));
    let file = place.path("small.jsonl");
    place.run(&["export", "small", "--format", "json", "--to", file.to_str().unwrap()]).exits(0);
    place.run(&["topics", "create", "again", "-c", "segment.bytes=4096"]).exits(0);
    let imported = place.run(&["import", "again", file.to_str().unwrap()]).exits(0);
    assert!(imported.stderr.contains("again-0: 500 records appended"), "{}", imported.stderr);
    // One record that no segment holds is the log's to refuse: the error names both values and the way out.
    let refused = place.run_with(&["append", "small"], &[b"short\n".to_vec(), vec![b'x'; 5000]].concat()).exits(1);
    assert!(
        refused.stderr.contains("bytes is larger than segment.bytes=4096") && refused.stderr.contains("topics alter"),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stdout, "small-0 @ 500\n", "what came before it is there");
}

#[test]
fn a_follower_reports_that_its_topic_is_gone() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"one\n").exits(0);
    let mut tail = place.start(&["tail", "t", "--raw"]);
    assert_eq!(tail.line(), "one");
    place.run(&["topics", "delete", "t", "--yes"]).exits(0);
    let done = tail.wait().exits(1);
    assert!(done.stderr.contains("deleted"), "{}", done.stderr);
}

#[test]
fn ctrl_c_keeps_the_whole_lines_that_were_read() {
    let place = Place::new();
    let mut append = place.start(&["append", "t"]);
    append.write("one\ntwo\nhal");
    assert_eq!(append.line(), "t-0 @ 0 to 1");
    let stdin = append.stdin.take();
    append.signal(rustix::process::Signal::INT);
    let done = append.wait().exits(130);
    drop(stdin);
    assert!(done.stderr.contains("middle of line 3"), "{}", done.stderr);
    assert_eq!(place.run(&tail_all("t", &["--raw"])).exits(0).stdout, "one\ntwo\n");
    let stat = place.run(&["stat", "t", "--json"]).exits(0).json();
    assert_eq!(stat[0]["clean"], true);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let lines = numbered(20_000, |n| n.to_string());
    place.run_with(&["append", "t"], lines.as_bytes()).exits(0);
    for format in ["--json", "--raw"] {
        let mut tail = place
            .command(&tail_all("t", &[format]))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(tail.stdout.take());
        let output = tail.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    }
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_those_before_it_are_kept() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "-c", "max.message.bytes=1000"]).exits(0);
    let input = format!("one\ntwo\n{}\nfour\n", "x".repeat(2000));
    let done = place.run_with(&["append", "t"], input.as_bytes()).exits(1);
    assert_eq!(done.lines(), ["t-0 @ 0 to 1"]);
    assert!(done.stderr.contains("line 3") && done.stderr.contains("max.message.bytes"), "{}", done.stderr);
    assert_eq!(place.run(&tail_all("t", &["--raw"])).exits(0).stdout, "one\ntwo\n");
    // A line without an end does not fill the memory either.
    let done = place.run_with(&["append", "t"], &vec![b'x'; 8 << 20]).exits(1);
    assert!(done.stderr.contains("line 1"), "{}", done.stderr);
}
