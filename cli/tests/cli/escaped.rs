//! Defends terminals and logs from what stands in records, file names and settings: no command reaches a terminal, no
//! name makes a line of its own, and scripts get every byte as it is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::support::Place;

/// Sets a terminal's title, clears its screen, and reorders what follows.
const EVIL_KEY: &[u8] = b"v\x1b]0;title\x07\x1b[2J\xc2\x9b31m\xe2\x80\xae\x7f";
/// The same, and no UTF-8.
const EVIL: &[u8] = b"v\x1b]0;title\x07\x1b[2J\xc2\x9b31m\xe2\x80\xae\x7f\xff";

/// Whether a terminal takes nothing in `text` for a command.
fn is_harmless(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.chars().all(|c| matches!(c, '\n' | '\t') || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
}

/// A store whose one record has such a key, value and header.
fn with_evil_record() -> Place {
    let place = Place::new();
    let mut command = place.command(&["append", "t", "-K", "=", "--quiet", "-H"]);
    command.arg("h=v\u{1b}[2J");
    let line = [EVIL_KEY, b"=", EVIL, b"\n"].concat();
    Place::run_command(command, &line).exits(0);
    place
}

/// Each command that prints keys and values as they are where a program reads.
fn printing(place: &Place) -> Vec<Vec<String>> {
    let segment = place.store().join(&place.segments("t-0")[0]).to_str().unwrap().to_owned();
    let commands = [
        "tail t --last 1 --no-follow --raw",
        "tail t --last 1 --no-follow --json",
        "export t --format csv --to -",
        "export t --format json --to -",
        "dump --print-data-log SEGMENT",
        "dump --print-data-log --json SEGMENT",
    ];
    let words = |command: &str| command.split(' ').map(|word| word.replace("SEGMENT", &segment)).collect();
    commands.into_iter().map(words).collect()
}

#[test]
fn a_terminal_gets_no_commands_from_records() {
    let place = with_evil_record();
    let text = ["tail", "t", "--last", "1", "--no-follow"].map(str::to_owned).to_vec();
    for arguments in printing(&place).into_iter().chain([text]) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let shown = place.run_on_terminal(&arguments);
        let text = String::from_utf8_lossy(&shown);
        assert!(!shown.is_empty() && is_harmless(&shown), "{arguments:?}: {text:?}");
        // What is JSON for a program is JSON for a person.
        if arguments.contains(&"--json") || arguments.contains(&"json") {
            for line in text.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        } else {
            assert!(text.contains(r"\u{1b}[2J"), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn a_pipe_gets_records_byte_for_byte() {
    let place = with_evil_record();
    for arguments in printing(&place) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = place.command(&arguments).output().unwrap();
        let has = |part: &[u8]| output.stdout.windows(part.len()).any(|window| window == part);
        let command = arguments[0];
        let is_whole = match command {
            "tail" if arguments.contains(&"--raw") => output.stdout == [EVIL, b"\n"].concat(),
            // As Kafka's tool, which takes keys and values for UTF-8.
            "dump" if !arguments.contains(&"--json") => has(EVIL_KEY),
            // What is no UTF-8 is base64 there.
            _ => has(b"dhtdMDt0aXRsZQcbWzJKwpszMW3igK5//w==") && (arguments[3] != "csv" || has(EVIL_KEY)),
        };
        assert!(is_whole, "{arguments:?}: {:?}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn errors_repeat_names_escaped_and_cut() {
    let place = with_evil_record();
    let evil = "no\u{1b}[2J\nerror: a line of its own\u{202e}";
    let long = "x".repeat(60_000);
    let path = place.path("store2\u{1b}[2J\n");
    let path = path.to_str().unwrap();
    for arguments in [
        &["dump", evil][..],
        &["dump", &format!("{evil}.log")],
        &["tail", evil],
        &["tail", &long],
        &["append", "t", evil],
        &["append", &format!("{evil}-7")],
        &["append", &long],
        &["topics", "create", evil],
        &["topics", "create", &long],
        &["topics", "alter", "t", "-c", &format!("{evil}=1")],
        &["topics", "alter", "t", "-c", &format!("retention.ms={long}")],
        &["topics", "describe", evil],
        &["topics", "delete", &long, "--yes"],
        &["export", evil, "--format", "csv", "--to", "-"],
        &["export", "t", "--format", "csv", "--to", &format!("/nowhere/{evil}")],
        &["fsck", evil],
        &["fsck", evil, evil],
        &["repair", "--salvage", &format!("t-0/{evil}.cut")],
        &["stat", evil],
        &["--dir", path, "stat"],
        &["--dir", path, "tail", "t"],
        &["record", "--for", evil],
    ] {
        let done = place.run(arguments).exits(1);
        assert!(is_harmless(done.stderr.as_bytes()), "{arguments:?}: {:?}", done.stderr);
        assert!(!done.stderr.lines().any(|line| line.starts_with("error: a line")), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.len() < 10_000, "{arguments:?}: {} bytes", done.stderr.len());
    }
}

#[test]
fn names_of_files_are_escaped_in_what_is_said_of_a_store() {
    let place = with_evil_record();
    let evil = |ending: &str| [b"x\x1b[2J\nlost t-0: a line of its own\xff".as_slice(), ending.as_bytes()].concat();
    for ending in [".cut", ".log.swap", ".log", ".part"] {
        fs::write(place.store().join("t-0").join(OsStr::from_bytes(&evil(ending))), b"x").unwrap();
    }
    fs::create_dir(place.store().join(OsStr::from_bytes(&evil("-0")))).unwrap();
    fs::write(place.store().join(OsStr::from_bytes(&evil(""))), b"x").unwrap();
    fs::write(place.store().join("t-0/topic.properties"), b"retention.\x1b[2J=1\n").unwrap();
    for command in ["stat", "fsck", "topics", "topics describe t", "repair --dry-run", "tail t --no-follow", "append t"]
    {
        let arguments: Vec<&str> = command.split(' ').collect();
        let done = place.run_with(&arguments, b"one more\n");
        for shown in [&done.stdout, &done.stderr] {
            assert!(is_harmless(shown.as_bytes()), "{command}: {shown:?}");
            assert!(!shown.lines().any(|line| line.starts_with("lost t-0: a line")), "{command}: {shown}");
        }
    }
    let stat = place.run(&["stat"]);
    assert!(stat.stdout.contains(r"x\u{1b}[2J\n"), "{}", stat.stdout);
}
