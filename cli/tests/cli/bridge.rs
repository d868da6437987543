//! `edgelog bridge` where no cluster answers: what it says then, how often, and how soon it ends.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Done, Place, Running};

/// An address at which nothing listens: it was free a moment ago.
fn dead_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A store with three records in the topic `t`.
fn place() -> Place {
    let place = Place::new();
    place.run_with(&["append", "t"], b"a\nb\nc\n").exits(0);
    place
}

const SOON: [&str; 4] = ["--set", "reconnect.backoff.ms=1", "--set", "reconnect.backoff.max.ms=5"];

fn run_until_timeout(place: &Place, more: &[&str]) -> Done {
    let bootstrap = dead_address();
    let run = ["bridge", "--device", "d", "--bootstrap", &bootstrap, "--topics", "t"];
    place.run(&[&run, &SOON[..], &["--until-caught-up", "--timeout", "500ms"], more].concat())
}

#[test]
fn a_topic_that_is_not_there_is_an_error_with_the_names_that_are() {
    let place = place();
    let run = ["bridge", "--device", "d", "--bootstrap", "127.0.0.1:1", "--topics", "typo", "--until-caught-up"];
    let done = place.run(&run).exits(1);
    assert!(
        done.stderr.contains("no topic here matches edgelog.bridge.topics=typo; the store has t"),
        "{}",
        done.stderr
    );
}

/// Next to topics that are there as well. What a pattern matches may come later.
#[test]
fn a_name_that_is_not_there_is_an_error_next_to_others_that_are() {
    let place = place();
    let run = |topics: &str| {
        let bridge = ["bridge", "--device", "d", "--bootstrap", "127.0.0.1:1", "--topics", topics];
        place.run(&[&bridge[..], &["--until-caught-up", "--timeout", "100ms"]].concat()).exits(1).stderr
    };
    for topics in ["t,tt", "tt,t*", "tt,z*,t"] {
        let said = run(topics);
        assert!(said.contains("no topic here matches edgelog.bridge.topics=tt; the store has t"), "{said}");
    }
    assert!(run("z*,tt").contains("no topic here matches edgelog.bridge.topics=z*,tt; the store has t"));
    for topics in ["t", "t,z*", "?,z?"] {
        let said = run(topics);
        assert!(said.contains("the time of --timeout is over"), "{said}");
    }
}

#[test]
fn an_outage_is_one_line_and_what_was_not_sent_is_the_last_one() {
    let done = run_until_timeout(&place(), &[]).exits(1);
    let lines: Vec<&str> = done.stderr.lines().collect();
    let [first, last] = lines[..] else { panic!("{}", done.stderr) };
    assert!(first.contains("trying again") && first.contains("refused"), "{first}");
    let begins =
        "error: the time of --timeout is over: up to 3 records of 1 log were not sent: t-0 up to 3; what failed last:";
    assert!(last.starts_with(begins) && last.contains("refused"), "{last}");
    assert!(!done.stderr.contains("has everything"));
}

#[test]
fn a_bridge_that_is_interrupted_before_it_has_caught_up_says_what_was_not_sent() {
    let place = place();
    let bootstrap = dead_address();
    let run = ["bridge", "--device", "d", "--bootstrap", &bootstrap, "--topics", "t", "--until-caught-up", "--json"];
    let mut bridge = place.start(&[&run, &SOON[..]].concat());
    bridge.line_with("retrying");
    bridge.signal(Signal::TERM);
    let done = bridge.wait().exits(130);
    let last = done.stderr.lines().last();
    assert_eq!(last, Some("warning: up to 3 records of 1 log were not sent: t-0 up to 3"), "{}", done.stderr);
}

#[test]
fn each_try_is_reported_where_that_is_asked_for_and_none_where_quiet_is() {
    let place = place();
    let verbose = run_until_timeout(&place, &["-v"]).exits(1);
    assert!(verbose.stderr.matches("trying again").count() > 3, "{}", verbose.stderr);
    let quiet = run_until_timeout(&place, &["--quiet"]).exits(1);
    assert_eq!(quiet.stderr.lines().count(), 1, "{}", quiet.stderr);
    assert!(quiet.stderr.contains("what failed last: ") && quiet.stderr.contains("refused"), "{}", quiet.stderr);
    let json = run_until_timeout(&place, &["--json"]).exits(1);
    assert!(json.json().iter().all(|event| event["event"] == "retrying"), "{}", json.stdout);
}

/// One that refuses, and one that takes the connection and never answers.
#[test]
fn status_and_adopt_end_soon_where_no_broker_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = place();
    for bootstrap in [dead_address(), silent.local_addr().unwrap().to_string()] {
        for command in [&["status"][..], &["adopt", "--yes"], &["reset", "--yes"]] {
            let named = ["--device", "d", "--bootstrap", &bootstrap];
            // A request would be waited for, and asked again, for ten minutes.
            let patient = ["--set", "request.timeout.ms=600000", "--set", "socket.connection.setup.timeout.ms=200"];
            let done = place.run(&[&["bridge"], command, &named, &patient, &SOON[..]].concat()).exits(1);
            assert!(done.stderr.contains(&format!("error: {bootstrap}: ")), "{}", done.stderr);
            let timeout = ["--set", "request.timeout.ms=600000", "--timeout", "200ms"];
            place.run(&[&["bridge"], command, &named, &timeout, &SOON[..]].concat()).exits(1);
            // No pause between two tries is longer than what is left.
            let slow = ["--set", "reconnect.backoff.ms=600000", "--set", "reconnect.backoff.max.ms=600000"];
            place.run(&[&["bridge"], command, &named, &timeout, &slow[..]].concat()).exits(1);
        }
    }
}

#[test]
fn status_is_a_health_check_by_the_lag_of_each_log() {
    let place = place();
    let done = place.run(&["bridge", "status", "--max-lag", "5"]).exits(2);
    assert!(done.stderr.contains("how far it is behind is not known"), "{}", done.stderr);
    // A bridge that has reached no broker yet has named its logs.
    run_until_timeout(&place, &[]).exits(1);
    place.run(&["bridge", "status", "--max-lag", "3"]).exits(0);
    let done = place.run(&["bridge", "status", "--max-lag", "2", "--json"]).exits(2);
    // How much of it the cluster has, no broker has said.
    let row = &done.json()[0];
    assert_eq!((&row["lag"], &row["lag_at_most"]), (&serde_json::Value::Null, &3.into()), "{row}");
    let table = place.run(&["bridge", "status"]).exits(0);
    assert!(table.stdout.contains("up to 3"), "{}", table.stdout);
    assert!(done.stderr.contains("more than 2 records behind, or not known how far: t-0"), "{}", done.stderr);
}

/// The note keeps them at any age, as `stat` says.
#[test]
fn status_counts_topics_that_are_made_while_the_cluster_is_away() {
    let place = place();
    let bootstrap = dead_address();
    let run = ["bridge", "--device", "d", "--bootstrap", &bootstrap, "--topics", "*", "--until-caught-up"];
    place.run(&[&run, &SOON[..], &["--timeout", "300ms"]].concat()).exits(1);
    place.run_with(&["append", "late"], b"a\nb\nc\nd\n").exits(0);
    let rows = place.run(&["bridge", "status", "--json"]).exits(0).json();
    let row = rows.iter().find(|row| row["topic"] == "late").expect("it is kept for the bridge");
    assert_eq!((&row["lag"], &row["lag_at_most"], &row["held_from"]), (&serde_json::Value::Null, &4.into(), &0.into()));
    assert_eq!(row["target_topic"], serde_json::Value::Null);
    place.run(&["bridge", "status", "--max-lag", "4"]).exits(0);
    let done = place.run(&["bridge", "status", "--max-lag", "3"]).exits(2);
    assert!(done.stderr.contains("late-0"), "{}", done.stderr);
}

#[test]
fn a_note_is_not_dropped_for_another_device_or_a_topic_that_is_mistyped() {
    let place = place();
    run_until_timeout(&place, &[]).exits(1);
    let reset = |more: &[&str]| {
        place.run(&[&["--dir", place.store().to_str().unwrap(), "bridge", "reset", "--yes"], more].concat())
    };
    let knows = || place.run(&["bridge", "status", "--json"]).exits(0).json().len();
    let done = reset(&["--device", "dd"]).exits(1);
    assert!(
        done.stderr.contains("the note here is of the device d, and not of dd: nothing was changed"),
        "{}",
        done.stderr
    );
    let done = reset(&["--device", "d", "--topics", "tt,u*"]).exits(1);
    assert!(done.stderr.contains("matches tt,u*; there are t. Nothing was changed"), "{}", done.stderr);
    assert_eq!(knows(), 1);
    let done = reset(&["--device", "d", "--topics", "tt,t"]).exits(0);
    assert!(done.stderr.contains("knows 1 log less"), "{}", done.stderr);
    assert_eq!(knows(), 0);
}

/// A topic that is new since the bridge has ended is not named by its note.
#[test]
fn status_counts_logs_that_no_bridge_has_met_where_its_topics_are_set() {
    let place = place();
    run_until_timeout(&place, &[]).exits(1);
    place.run_with(&["append", "new"], b"a\nb\nc\nd\n").exits(0);
    place.run(&["bridge", "status", "--max-lag", "3"]).exits(0);
    place.run(&["bridge", "status", "--max-lag", "3", "--set", "edgelog.bridge.topics=t"]).exits(0);
    place.run(&["bridge", "status", "--max-lag", "4", "--set", "edgelog.bridge.topics=*"]).exits(0);
    let done = place.run(&["bridge", "status", "--max-lag", "3", "--set", "edgelog.bridge.topics=*"]).exits(2);
    assert!(done.stderr.contains("more than 3 records behind, or not known how far: new-0"), "{}", done.stderr);
    // Of a log that the checkpoint names, and that is gone, it is not known.
    std::fs::remove_dir_all(place.store().join("new-0")).unwrap();
    let done = place.run(&["bridge", "status", "--max-lag", "9", "--set", "edgelog.bridge.topics=*"]).exits(2);
    assert!(done.stderr.contains("more than 9 records behind, or not known how far: new-0"), "{}", done.stderr);
}

/// The messages that a service manager got, up to one that is this.
fn until(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut messages = Vec::new();
    let mut buffer = [0; 4096];
    while messages.last().is_none_or(|last| last != wanted) {
        let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{error} behind {messages:?}"));
        messages.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
    }
    messages
}

#[test]
fn a_service_manager_hears_that_it_is_up_how_it_stands_and_that_it_lives() {
    let place = place();
    let path = place.path("notify");
    let abstract_name = format!("edgelog-cli-{}-notify", std::process::id());
    let address = <SocketAddr as SocketAddrExt>::from_abstract_name(&abstract_name).unwrap();
    let sockets = [
        (path.display().to_string(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{abstract_name}"), UnixDatagram::bind_addr(&address).unwrap()),
    ];
    for (name, socket) in sockets {
        let bootstrap = dead_address();
        let mut command = place.command(&["bridge", "--device", "d", "--bootstrap", &bootstrap, "--topics", "t"]);
        command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
        let bridge = Running::new(command);
        // It is up before any broker answers.
        assert_eq!(until(&socket, "READY=1"), ["READY=1"]);
        let messages = [until(&socket, "WATCHDOG=1"), until(&socket, "WATCHDOG=1")].concat();
        let status = messages.iter().find(|message| message.starts_with("STATUS=")).expect("it says how it stands");
        assert!(!status.contains("all is sent"), "{status}");
        bridge.signal(Signal::TERM);
        until(&socket, "STOPPING=1");
        bridge.wait().exits(0);
    }
}
