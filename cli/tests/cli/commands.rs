//! Defends the rest of the command line: help that teaches, errors that say what to do next, topics, manual and
//! completions.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::Place;
use serde_json::json;

/// The command line's own errors had the exit code that means damage, or lost data.
#[test]
fn a_wrong_command_line_is_an_error_and_no_damage() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"x\n").exits(0);
    let wrong: [&[&str]; 8] = [
        &["fsck", "--bogus"],
        &["tail", "t", "--since", "yesterdayish"],
        &["tail", "t", "--offset", "x"],
        &["tail"],
        &["repair", "--bogus"],
        &["export", "t"],
        &["no-such-command"],
        &["topics", "--json", "create", "y"],
    ];
    for arguments in wrong {
        let refused = place.run(arguments).exits(1);
        assert!(refused.stderr.contains("error:") && refused.stdout.is_empty(), "{arguments:?}: {}", refused.stderr);
    }
    for arguments in [&["--help"][..], &["--version"], &["tail", "--help"], &["help", "fsck"]] {
        assert!(!place.run(arguments).exits(0).stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let help = place.run(&["--help"]).exits(0);
    assert!(help.stdout.contains("Exit codes") && help.stdout.contains("EDGELOG_DIR"), "{}", help.stdout);
    let commands: Vec<&str> = help
        .stdout
        .split("Commands:")
        .nth(1)
        .unwrap()
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        let help = place.run(&[command, "--help"]).exits(0);
        assert!(help.stdout.contains("Usage:") && help.stdout.contains("Examples:"), "{command}\n{}", help.stdout);
    }
    // The data directory may be named in front of a subcommand, as the usage lines say.
    let dir = place.path("elsewhere");
    let dir = dir.to_str().unwrap();
    place.run(&["topics", "--dir", dir, "create", "x"]).exits(0);
    place.run(&["--dir", dir, "topics", "create", "y"]).exits(0);
    place.run(&["topics", "create", "z", "--dir", dir]).exits(0);
    let listed = place.run(&["topics", "--dir", dir, "list", "--json"]).exits(0).json();
    assert_eq!(listed[0]["topic"], "x");
    place.run(&["bridge", "--dir", dir, "status"]).exits(0);
    // The options that a command has without a subcommand would be ignored there.
    for stray in [&["topics", "--json", "create", "y"][..], &["bridge", "--device", "d", "status"]] {
        let refused = place.run(stray).exits(1);
        assert!(refused.stderr.contains("put the others behind it"), "{}", refused.stderr);
    }
    for topics in ["list", "create", "delete", "alter", "describe"] {
        place.run(&["topics", topics, "--help"]).exits(0);
    }
}

#[test]
fn where_there_is_no_store_a_reading_command_says_so_and_makes_none() {
    let place = Place::new();
    for command in
        [&["tail", "t"][..], &["topics"], &["stat"], &["topics", "describe", "t"], &["topics", "delete", "t"]]
    {
        let done = place.run(command).exits(1);
        assert!(
            done.stderr.contains("there is no directory") && done.stderr.contains("edgelog append"),
            "{}",
            done.stderr
        );
        assert!(!place.store().exists());
    }
    std::fs::create_dir(place.store()).unwrap();
    let done = place.run(&["tail", "t"]).exits(1);
    assert!(done.stderr.contains("there is no store in"), "{}", done.stderr);
}

#[test]
fn topics_are_made_changed_described_and_deleted() {
    let place = Place::new();
    place
        .run(&[
            "topics",
            "create",
            "readings",
            "-p",
            "2",
            "-c",
            "retention.bytes=1000000",
            "-c",
            "compression.type=snappy",
        ])
        .exits(0);
    let again = place.run(&["topics", "create", "readings"]).exits(1);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    place.run(&["topics", "create", "readings", "--if-absent"]).exits(0);
    place.run(&["topics", "alter", "readings", "-c", "retention.ms=5000", "--unset", "retention.bytes"]).exits(0);
    let listed = place.run(&["topics", "--json"]).exits(0).json();
    assert_eq!(listed[0]["config"], json!({"compression.type": "snappy", "retention.ms": "5000"}));
    assert_eq!(listed[0]["partitions"], 2);
    let described = place.run(&["topics", "describe", "readings", "--json"]).exits(0).json();
    let retention = described.iter().find(|key| key["key"] == "retention.ms").unwrap();
    assert_eq!((&retention["value"], &retention["set"]), (&json!("5000"), &json!(true)));
    assert!(place.run(&["topics", "describe"]).exits(0).stdout.contains("segment.bytes=16777216"));

    let typo = place.run(&["topics", "alter", "readings", "-c", "retension.ms=1"]).exits(1);
    assert!(typo.stderr.contains("did you mean retention.ms"), "{}", typo.stderr);
    let typo = place.run(&["tail", "reading"]).exits(1);
    assert!(
        typo.stderr.contains("Did you mean readings?") && typo.stderr.contains("Topics here: readings"),
        "{}",
        typo.stderr
    );

    // Units are the command line's own: what is kept is Kafka's form.
    place.run(&["topics", "create", "sized", "-c", "segment.bytes=4MiB", "-c", "retention.ms=1d"]).exits(0);
    let altered = place.run(&["topics", "alter", "sized", "-c", "flush.ms=500ms"]).exits(0);
    assert!(altered.stderr.contains("flush.ms=500\n"), "{}", altered.stderr);
    let settings = std::fs::read_to_string(place.store().join("sized-0/topic.properties")).unwrap();
    for line in ["segment.bytes=4194304", "retention.ms=86400000", "flush.ms=500"] {
        assert!(settings.lines().any(|kept| kept == line), "{line}: {settings}");
    }
    for (setting, hint) in [
        ("linger.ms=5", "a key of Kafka's producers"),
        ("log.retention.hours=1", "a topic's is retention.ms"),
        ("log.dirs=/var/lib/kafka", "a key of Kafka's brokers, and not of a topic: `--dir`"),
        ("edgelog.housekeeping=tick", "is set for the store, not per topic"),
        ("edgelog.bridge.to=x", "edgelog bridge keys"),
        ("segment.bytes=16M", "16MiB"),
        ("retention.ms=7x", "7d"),
    ] {
        let refused = place.run(&["topics", "alter", "sized", "-c", setting]).exits(1);
        assert!(refused.stderr.contains(hint), "{setting}: {}", refused.stderr);
    }
    place.run(&["topics", "delete", "sized", "--yes"]).exits(0);

    let unsure = place.run(&["topics", "delete", "readings"]).exits(1);
    assert!(unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    let part = place.run(&["topics", "delete", "readings-1", "--yes"]).exits(1);
    assert!(part.stderr.contains("one partition"), "{}", part.stderr);
    place.run(&["topics", "delete", "readings", "--yes"]).exits(0);
    assert!(place.run(&["topics"]).exits(0).stderr.contains("no topics"));
}

#[test]
fn stat_prints_offsets_sizes_and_times() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"a\nb\nc\n").exits(0);
    let stat = place.run(&["stat", "t", "--json"]).exits(0).json().remove(0);
    for (key, value) in [
        ("log_start_offset", 0),
        ("high_watermark", 3),
        ("recovery_point", 3),
        ("log_end_offset", 3),
        ("offsets", 3),
        ("segments", 1),
    ] {
        assert_eq!(stat[key], value, "{key}: {stat}");
    }
    assert!(stat["bytes"].as_u64() > Some(61) && stat["disk_bytes"].as_u64() > Some(0));
    assert!(stat["oldest_timestamp"].as_i64() <= stat["newest_timestamp"].as_i64());
    let text = place.run(&["stat"]).exits(0);
    assert!(text.stdout.contains("closed cleanly") && text.stdout.contains("0..3 (3 offsets)"), "{}", text.stdout);
    assert!(!text.stdout.contains('\x1b'), "no colours but on a terminal");
}

#[test]
fn stat_shows_the_topics_named_and_again_while_it_watches() {
    let place = Place::new();
    for topic in ["net.a", "net.b", "cpu"] {
        place.run_with(&["append", topic], b"a\n").exits(0);
    }
    let names = |arguments: &[&str]| {
        let stats = place.run(&[&["stat", "--json"], arguments].concat()).exits(0).json();
        stats.iter().map(|stat| stat["topic"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["net.*"]), ["net.a", "net.b"]);
    assert_eq!(names(&["cpu", "net.b-0", "*"]), ["cpu", "net.b", "net.a"]);
    let none = place.run(&["stat", "x?"]).exits(1);
    assert!(none.stderr.contains("x?"), "{}", none.stderr);

    let mut watch = place.start(&["stat", "cpu", "--watch=10ms", "--json"]);
    assert!(watch.line().contains("\"log_end_offset\":1"));
    place.run_with(&["append", "cpu"], b"b\n").exits(0);
    watch.line_with("\"log_end_offset\":2");
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.wait().code, Some(130));
    let utc = place.run(&["stat", "cpu", "--utc"]).exits(0);
    assert!(utc.stdout.contains("Z to 20"), "{}", utc.stdout);
}

#[test]
fn manual_pages_and_completions_come_from_the_same_source() {
    let place = Place::new();
    assert!(place.run(&["man"]).exits(0).stdout.contains(".TH edgelog 1"));
    let page = place.run(&["man", "tail"]).exits(0).stdout;
    let heading = |name: &str| page.find(&format!("\n.SH {name}\n")).unwrap_or_else(|| panic!("{name}: {page}"));
    assert!(heading("OPTIONS") < heading("EXIT STATUS") && heading("EXIT STATUS") < heading("EXAMPLES"));
    assert!(page[heading("EXIT STATUS")..].contains("130  interrupted"), "{page}");
    // An example keeps its spaces, and nothing in it is a command for the formatter.
    let examples = &page[heading("EXAMPLES")..heading("SEE ALSO")];
    assert!(
        examples.contains(".nf\n") && examples.contains("\nedgelog tail cpu                              the last ten"),
        "{examples}"
    );
    assert!(
        page.contains("%T %k=%s\\en") && page[heading("SEE ALSO")..].contains(".BR edgelog\\-append (1)"),
        "{page}"
    );
    let create = place.run(&["man", "topics", "create"]).exits(0).stdout;
    assert!(
        create.contains(".TH edgelog\\-topics\\-create 1") || create.contains(".TH edgelog-topics-create 1"),
        "{create}"
    );
    assert!(create.contains(".BR edgelog\\-topics (1)"), "{create}");
    place.run(&["man", "nothing"]).exits(1);
    let out = place.path("man");
    place.run(&["man", "--out", out.to_str().unwrap()]).exits(0);
    for page in ["edgelog.1", "edgelog-tail.1", "edgelog-topics-create.1"] {
        assert!(out.join(page).is_file(), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(&["completions", shell]).exits(0).stdout.contains("from-beginning"));
    }
}

/// Whether it is installed; `./test` installs it, and says so where it cannot.
fn has_shell(name: &str) -> bool {
    let found = std::process::Command::new(name).args(["-c", "exit"]).status().is_ok_and(|status| status.success());
    if !found {
        eprintln!("{name} is not installed: its completion is not run");
    }
    found
}

/// As bash does, in the ways of fish and zsh.
#[test]
fn fish_and_zsh_complete_topics_and_keys() {
    let place = Place::new();
    for topic in ["cpu", "cpu.load", "memory"] {
        place.run(&["topics", "create", topic]).exits(0);
    }
    let dir = place.store();
    let dir = dir.to_str().unwrap();
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_edgelog")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let run = |shell: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(shell);
        command
            .args(arguments)
            .env("PATH", &path)
            .env("EDGELOG_DIR", place.path("none"))
            .env("HOME", place.path("home"));
        Place::run_command(command, b"").exits(0).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let fish = place.run(&["completions", "fish"]).exits(0).stdout;
    let zsh = place.run(&["completions", "zsh"]).exits(0).stdout;
    assert_eq!(zsh.matches(":_edgelog_keys'").count(), 1);
    assert_eq!(zsh.matches(":_edgelog_settings'").count(), 4, "create and alter, with both names");
    assert!(zsh.matches(":_edgelog_topics'").count() > 9 && zsh.matches("\n_edgelog_names()").count() == 1);
    if has_shell("fish") {
        let script = place.path("edgelog.fish");
        std::fs::write(&script, fish).unwrap();
        let complete = |line: &str| {
            let run_it = "source $argv[1]; complete -C $argv[2]";
            let found = run("fish", &["--no-config", "-c", run_it, script.to_str().unwrap(), line]);
            found.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(complete(&format!("edgelog --dir {dir} tail c")), ["cpu", "cpu.load"]);
        assert_eq!(complete(&format!("edgelog tail --dir {dir} cpu mem")), ["memory"]);
        assert_eq!(complete("edgelog topics create x -c retention.b"), ["retention.bytes="]);
        assert_eq!(complete("edgelog topics alter x --unset retention.b"), ["retention.bytes"]);
    }
    if has_shell("zsh") {
        let script = place.path("edgelog.zsh");
        std::fs::write(&script, zsh).unwrap();
        // What the line editor would be given.
        let complete = |line: &str, what: &str| {
            let run_it = "compdef() :; compadd() { print -l -- ${(P)@[-1]} }; source $1; BUFFER=$2; $3";
            run("zsh", &["-f", "-c", run_it, "zsh", script.to_str().unwrap(), line, what])
        };
        let all = ["cpu", "cpu.load", "memory"];
        assert_eq!(complete(&format!("edgelog --dir '{dir}' tail c"), "_edgelog_topics"), all);
        assert!(complete("edgelog tail c", "_edgelog_topics").iter().all(String::is_empty), "no store, no topics");
        assert!(complete("edgelog topics alter x -c ", "_edgelog_settings").contains(&"retention.ms".to_owned()));
    }
}

/// The script is run as bash runs it when a person presses the tab key.
#[test]
fn bash_completes_topics_and_keys() {
    let place = Place::new();
    for topic in ["cpu", "cpu.load", "memory"] {
        place.run(&["topics", "create", topic]).exits(0);
    }
    let script = place.path("edgelog.bash");
    std::fs::write(&script, place.run(&["completions", "bash"]).exits(0).stdout).unwrap();
    let complete = |words: &[&str]| {
        let mut bash = std::process::Command::new("bash");
        let run = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                   _edgelog_names \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
                   printf '%s\\n' \"${COMPREPLY[@]}\"";
        bash.args(["--norc", "-c", run, "bash"]).arg(&script).arg(env!("CARGO_BIN_EXE_edgelog")).args(words);
        bash.env("EDGELOG_DIR", place.path("none"));
        Place::run_command(bash, b"").exits(0).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let dir = place.store();
    let dir = dir.to_str().unwrap();
    assert_eq!(complete(&["--dir", dir, "tail", "c"]), ["cpu", "cpu.load"]);
    assert_eq!(complete(&["tail", "--dir", dir, "cpu", "mem"]), ["memory"]);
    assert_eq!(complete(&["tail", "c"]), [""], "no store, no topics");
    assert_eq!(complete(&["topics", "create", "x", "-c", "retention.b"]), ["retention.bytes"]);
    assert_eq!(complete(&["tail", "--from-b"]), ["--from-beginning"]);
    assert!(
        complete(&["--dir", dir, "tail", ""])
            .iter()
            .all(|word| word.starts_with('-') || place.store().join(format!("{word}-0")).exists())
    );
}

#[test]
fn bad_arguments_are_named() {
    let place = Place::new();
    for (arguments, expected) in [
        (&["record", "--every", "0s"][..], "longer than nothing"),
        (&["record", "--for", "soon"], "expected a duration"),
        (&["tail", "t", "--since", "whenever"], "expected a time"),
        (&["tail", "t", "--last", "1", "--offset", "2"], "cannot be used with"),
        (&["append", "t", "--header", "novalue"], "expected key=value"),
    ] {
        let done = place.run(arguments).exits(1);
        assert!(done.stderr.contains(expected), "{arguments:?}: {}", done.stderr);
    }
    let missing = place.run(&["append", "t", "/nowhere/at/all"]).exits(1);
    assert!(missing.stderr.contains("read /nowhere/at/all"), "{}", missing.stderr);
    assert!(!place.store().exists(), "nothing is made for an input that is not there");
}

/// A command that waited for a pipe that was not read took SIGTERM and stayed.
#[test]
fn sigterm_ends_a_command_that_waits_for_a_full_pipe() {
    let place = Place::new();
    let lines = "a line of some length\n".repeat(20_000);
    place.run_with(&["append", "t"], lines.as_bytes()).exits(0);
    for arguments in [&["tail", "t", "--from-beginning"][..], &["export", "t", "--format", "json", "--to", "-"]] {
        let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut filled = 0;
        // Full when nothing more fits that is written at a time.
        while filled + 16 * 1024 < 64 * 1024 {
            filled = rustix::io::ioctl_fionread(&pipe).unwrap();
            assert!(Instant::now() < deadline, "{arguments:?}: {filled} bytes are in the pipe");
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{arguments:?} stays");
            std::thread::yield_now();
        }
        drop(pipe);
    }
}
