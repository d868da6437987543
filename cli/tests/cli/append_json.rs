//! Defends what goes into `append` other than lines: records as JSON, as `tail` prints them, whole files, and values
//! with newlines.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::support::Place;

/// The same records on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// A text as JSON has it, null, or bytes that are no text.
    fn field(&mut self, name: &str, line: &mut String) {
        const TEXTS: [&str; 6] =
            ["", "plain", "two\nlines\r\n", "quote \" and \\", "\u{e9}\u{1f600}\u{0}\u{1b}[2J", "(null)"];
        let text = json!(TEXTS[self.below(6) as usize]);
        let _ = match self.below(4) {
            0 => write!(line, ",\"{name}\":null"),
            1 => write!(line, ",\"{name}\":null,\"{name}_base64\":\"/wD+\""),
            _ => write!(line, ",\"{name}\":{text}"),
        };
    }

    fn record(&mut self, partitions: u64) -> String {
        const HEADERS: [&str; 4] = [
            "",
            r#","headers":["h","v","h",null]"#,
            r#","headers":[{"base64":"/w=="},{"base64":"AP8="}]"#,
            r#","headers":["",""]"#,
        ];
        let (partition, ts) = (self.below(partitions), 1_700_000_000_000 + self.below(1 << 40));
        let mut line = format!("{{\"topic\":\"a\",\"partition\":{partition},\"ts\":{ts}");
        line.push_str(HEADERS[self.below(4) as usize]);
        self.field("key", &mut line);
        self.field("payload", &mut line);
        line.push_str("}\n");
        line
    }
}

/// Each record without what a new place gives it: its topic and offset.
fn kept(records: Vec<Value>) -> Vec<Value> {
    let keep = |mut record: Value| {
        for field in ["topic", "offset"] {
            record.as_object_mut().unwrap().remove(field).unwrap();
        }
        record
    };
    records.into_iter().map(keep).collect()
}

fn tail_json(place: &Place, topic: &str) -> String {
    place.run(&["tail", topic, "--from-beginning", "--no-follow", "--json"]).exits(0).stdout
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_tail_prints_as_json_goes_in_again() {
    let place = Place::new();
    let mut random = Random(0x5eed_1e55_0bad_cafe);
    for topic in ["a", "b"] {
        place.run(&["topics", "create", topic, "-p", "3", "-c", "retention.ms=-1"]).exits(0);
    }
    let input: String = (0..600).map(|_| random.record(3)).collect();
    let done = place.run_with(&["append", "a", "--json", "--batch", "17"], input.as_bytes()).exits(0);
    assert_eq!(done.stdout.lines().count(), 3, "{}", done.stdout);

    let first = tail_json(&place, "a");
    place.run_with(&["append", "b", "--json"], first.as_bytes()).exits(0);
    let second = tail_json(&place, "b");
    assert_eq!(parsed(&first).len(), 600);
    assert_eq!(kept(parsed(&first)), kept(parsed(&second)));

    // And what came back is what went in, partition by partition.
    let mut expected = parsed(&input);
    expected.sort_by_key(|record| record["partition"].as_u64());
    for (came, went) in parsed(&first).iter().zip(&expected) {
        for field in ["partition", "ts", "key", "key_base64", "payload", "payload_base64", "headers"] {
            assert_eq!(came.get(field), went.get(field), "{field}: {came} {went}");
        }
    }
}

#[test]
fn records_find_their_topics_by_themselves() {
    let place = Place::new();
    let record = |topic, payload| json!({"topic": topic, "payload": payload}).to_string();
    let records = format!("{}\n\n{}\n{}", record("a", "1"), record("b", "2"), record("a", "3"));
    let done = place.run_with(&["append", "--json"], records.as_bytes()).exits(0);
    assert_eq!(done.lines(), ["a-0 @ 0 to 1", "b-0 @ 0"]);
    assert_eq!(place.run(&["tail", "a", "--raw", "--no-follow"]).exits(0).stdout, "1\n3\n");
    // Where the command line names one, all go there, and --partition counts more than the record's own.
    let done = place
        .run_with(&["append", "c", "--json", "-p", "0"], b"{\"topic\":\"a\",\"partition\":7,\"payload\":\"4\"}")
        .exits(0);
    assert_eq!(done.lines(), ["c-0 @ 0"]);

    let place_of = place.path("records.jsonl");
    std::fs::write(&place_of, records).unwrap();
    let path = place_of.to_str().unwrap();
    let swapped = place.run(&["append", path, "--json"]).exits(1);
    assert!(swapped.stderr.contains("is a file") && swapped.stderr.contains("append TOPIC FILE"), "{}", swapped.stderr);
}

#[test]
fn a_line_that_is_no_record_is_named_and_those_before_it_are_kept() {
    let place = Place::new();
    for (line, said) in [
        (r#"{"value":"x"}"#, "line 2: unknown field `value`"),
        (r#"{"key":"x"}"#, "line 2: it has no payload"),
        ("plain text", "line 2: expected value"),
        (r#"{"payload":"x","partition":4}"#, "topics create t --partitions 5"),
    ] {
        let _ = std::fs::remove_dir_all(place.store());
        let input = format!("{{\"payload\":\"first\"}}\n{line}\n{{\"payload\":\"third\"}}\n");
        let done = place.run_with(&["append", "t", "--json"], input.as_bytes()).exits(1);
        assert!(done.stderr.contains(said), "{line}: {}", done.stderr);
        assert_eq!(done.lines(), ["t-0 @ 0"], "{line}");
        assert_eq!(place.run(&["tail", "t", "--raw", "--no-follow"]).exits(0).stdout, "first\n");
    }
}

#[test]
fn whole_files_and_values_with_newlines_come_back_byte_for_byte() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    std::fs::write(place.path("a"), &bytes).unwrap();
    std::fs::write(place.path("b"), b"").unwrap();
    let (a, b) = (place.path("a"), place.path("b"));
    place.run(&["topics", "create", "t", "-c", "retention.ms=-1"]).exits(0);
    let files = ["append", "t", "--file", a.to_str().unwrap(), "--file", "-", "--file", b.to_str().unwrap()];
    place.run_with(&[&files[..], &["--key", "k", "--timestamp", "1700000000123"]].concat(), b"two\nlines\n").exits(0);
    place.run_with(&["append", "t", "-D", r"\x00--"], b"x\ny\0--\0--z").exits(0);
    let records = parsed(&tail_json(&place, "t"));
    assert_eq!((&records[0]["key"], &records[0]["ts"]), (&json!("k"), &json!(1_700_000_000_123_u64)));
    let payloads: Vec<&Value> = records.iter().skip(1).map(|record| &record["payload"]).collect();
    assert_eq!(payloads, ["two\nlines\n", "", "x\ny", "", "z"]);
    let raw = place.command(&["tail", "t", "-n", "1", "--offset", "0", "--raw"]).output().unwrap().stdout;
    assert!(raw == [&bytes[..], b"\n"].concat(), "{} bytes", raw.len());

    // What retention takes at once is said.
    let old = place.run_with(&["append", "old", "--timestamp", "2020-01-01T00:00:00Z"], b"x\n").exits(0);
    assert!(old.stderr.contains("2020-01-01T00:00:00.000Z now, and retention.ms=604800000"), "{}", old.stderr);
    let recent = place.run_with(&["append", "new", "--timestamp", "-1h"], b"x\n").exits(0);
    assert!(!recent.stderr.contains("retention"), "{}", recent.stderr);

    let large = place.run_with(&["append", "t", "--file", "-"], &vec![b'x'; 2 << 20]).exits(1);
    assert!(large.stderr.contains("standard input is longer than max.message.bytes"), "{}", large.stderr);
    let twice = place.run(&["append", "t", "--file", "-", "--file", "-"]).exits(1);
    assert!(twice.stderr.contains("can be read once"), "{}", twice.stderr);
    for wrong in [&["-D", ""][..], &["-D", r"\q"], &["--json", "-K", ":"], &["--file", "a", "-D", "x"]] {
        place.run(&[&["append", "t"], wrong].concat()).exits(1);
    }
}
