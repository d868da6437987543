//! Defends `record`: it records this machine, survives `kill -9`, says what it recovered and goes on at the next
//! offset.

use crate::support::Place;
use serde_json::Value;

#[test]
fn telemetry_is_recorded_and_read_back() {
    let place = Place::new();
    let done = place.run(&["record", "--for", "1s", "--every", "100ms"]).exits(0);
    assert!(done.stdout.contains("a new store") && done.stdout.contains("closed cleanly"), "{}", done.stdout);
    let topics = place.run(&["topics", "--json"]).exits(0).json();
    let names: Vec<&str> = topics.iter().map(|topic| topic["topic"].as_str().unwrap()).collect();
    for name in ["cpu", "memory", "load"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(topics.iter().all(|topic| topic["config"]["compression.type"] == "snappy"));
    let records = place.run(&["tail", "cpu", "--from-beginning", "--no-follow", "--json"]).exits(0).json();
    assert!(records.iter().any(|record| record["key"] == "cpu0"));
    for record in &records {
        let value: Value = serde_json::from_str(record["payload"].as_str().unwrap()).unwrap();
        let busy = value["busy_pct"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&busy), "{value}");
    }
    let memory = place.run(&["tail", "memory", "--last", "1", "--no-follow", "--raw"]).exits(0);
    let memory: Value = serde_json::from_str(memory.lines()[0]).unwrap();
    assert!(memory["total_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn after_kill_9_the_next_run_recovers_and_goes_on() {
    let place = Place::new();
    let mut record = place.start(&["record", "--every", "20ms"]);
    record.line_with("memory 0..");
    let line = record.line_with("memory 0..");
    record.kill_9();
    let shown: i64 = line.split("memory 0..").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();

    let offsets_of = |place: &Place| {
        let records = place.run(&["tail", "memory", "--from-beginning", "--no-follow", "--json"]).exits(0).json();
        records.iter().map(|record| record["offset"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let before = offsets_of(&place);
    assert!(before.len() as i64 >= shown, "everything shown is there: {} of {shown}", before.len());
    let stat = place.run(&["stat", "memory", "--json"]).exits(0).json();
    assert_eq!(stat[0]["clean"], false);

    let again = place.run(&["record", "--for", "200ms", "--every", "100ms"]).exits(0);
    let first_line = again.lines()[0].to_owned();
    assert!(first_line.contains("not closed cleanly") && first_line.contains("recovered"), "{}", again.stdout);
    assert!(
        again.lines()[1..].iter().any(|line| line.contains("memory-0") && line.contains("recovered from offset")),
        "{}",
        again.stdout
    );
    let goes_on = again.lines().into_iter().find(|line| line.starts_with("goes on at")).unwrap().to_owned();
    assert!(goes_on.contains(&format!("memory {}", before.len())), "{goes_on}");
    let after = offsets_of(&place);
    assert!(after.len() > before.len());
    assert_eq!(after, (0..after.len() as i64).collect::<Vec<_>>());

    let third = place.run(&["record", "--for", "100ms"]).exits(0);
    assert!(third.lines()[0].contains("closed cleanly the last time"), "{}", third.stdout);
}

#[test]
fn ctrl_c_and_sigterm_close_cleanly() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let place = Place::new();
        let mut record = place.start(&["record", "--topic-prefix", "gw7."]);
        record.line_with("gw7.cpu 0..");
        record.signal(signal);
        let done = record.wait().exits(0);
        assert!(done.stdout.contains("recorded") && done.stdout.contains("closed cleanly"), "{}", done.stdout);
        let stats = place.run(&["stat", "--json"]).exits(0).json();
        assert!(stats.iter().all(|stat| stat["clean"] == true && stat["offsets"].as_i64() > Some(0)), "{stats:?}");
    }
}

#[test]
fn a_recording_is_read_while_it_goes_on_and_has_one_writer() {
    let place = Place::new();
    let mut record = place.start(&["record", "--every", "20ms"]);
    record.line_with("memory 0..");
    assert_eq!(place.run(&["tail", "memory", "-n", "100", "--raw", "--from-beginning"]).exits(0).lines().len(), 100);
    let refused = place.run_with(&["append", "t"], b"x\n").exits(1);
    assert!(refused.stderr.contains("in use: process ") && refused.stderr.contains("--dir"), "{}", refused.stderr);
    let stat = place.run(&["stat"]).exits(0);
    assert!(stat.stdout.contains("written by process"), "{}", stat.stdout);
    place.run(&["topics"]).exits(0);
    record.kill_9();
}
