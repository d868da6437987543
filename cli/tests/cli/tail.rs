//! Defends what `tail` selects and how it prints it: kcat's options, several topics, filters, ends, and the terminal's
//! width.

use serde_json::json;

use crate::numbered;
use crate::support::Place;

/// Two topics, and one with two partitions.
fn filled() -> Place {
    let place = Place::new();
    place.run(&["topics", "create", "net.b", "-p", "2", "-c", "retention.ms=-1"]).exits(0);
    place.run(&["topics", "create", "net.a", "-c", "retention.ms=-1"]).exits(0);
    place.run_with(&["append", "cpu"], numbered(20, |n| n.to_string()).as_bytes()).exits(0);
    let lines: Vec<String> = (0..6_u64)
        .map(|n| {
            let headers = if n % 2 == 0 { json!(["site", "north", "n", n.to_string()]) } else { json!(["site", null]) };
            let key = if n == 3 { json!(null) } else { json!(format!("key-{}", n % 2)) };
            let payload = if n == 5 { json!(null) } else { json!(format!("value {n}")) };
            let ts = 1_700_000_000_000 + n * 1000;
            json!({"partition": n % 2, "ts": ts, "key": key, "payload": payload, "headers": headers}).to_string()
        })
        .collect();
    place.run_with(&["append", "net.b", "--json"], lines.join("\n").as_bytes()).exits(0);
    place.run_with(&["append", "net.a"], b"one\n").exits(0);
    place
}

#[test]
fn options_mean_what_they_mean_in_kcat() {
    let place = filled();
    let read = |arguments: &[&str]| {
        let done = place.run(&[&["tail", "cpu", "--raw"], arguments].concat()).exits(0);
        (done.lines().len(), done.lines().first().map(|line| (*line).to_owned()))
    };
    let first = |n: u32| Some(n.to_string());
    assert_eq!(read(&["-o", "beginning", "-e"]), (20, first(0)));
    assert_eq!(read(&["-o", "-3", "-e"]), (3, first(17)));
    assert_eq!(read(&["-o-3", "--exit"]), (3, first(17)));
    assert_eq!(read(&["-o", "end", "-e"]), (0, None));
    assert_eq!(read(&["-o", "5", "-c", "4"]), (4, first(5)));
    assert_eq!(read(&["-o", "s@0", "-e"]), (20, first(0)));
    // Where to stop: also without -e, and where the end is not there yet it is waited for.
    assert_eq!(read(&["-o", "5", "--until", "8"]), (3, first(5)));
    assert_eq!(read(&["--until", "now"]), (10, first(10)));
    assert_eq!(read(&["-o", "beginning", "--until", "-1h"]), (0, None));
    assert_eq!(read(&["-o", "19", "--until", "20"]), (1, first(19)));
    let mut waits = place.start(&["tail", "cpu", "--raw", "-o", "19", "--until", "21"]);
    assert_eq!(waits.line(), "19");
    place.run_with(&["append", "cpu"], b"20\n21\n").exits(0);
    assert_eq!(waits.line(), "20");
    assert_eq!(waits.wait().exits(0).stdout, "");
    for wrong in
        [&["-o", "stored"][..], &["-o", "1", "--last", "1"], &["--until", "soon"], &["-f", "%x"], &["--json", "--raw"]]
    {
        let refused = place.run(&[&["tail", "cpu"], wrong].concat()).exits(1);
        assert!(refused.stderr.contains("error:"), "{wrong:?}: {}", refused.stderr);
    }
}

#[test]
fn a_format_prints_kcats_tokens() {
    let place = filled();
    let print = |format: &str, more: &[&str]| {
        place.run(&[&["tail", "net.b-1", "-o", "beginning", "-e", "-f", format], more].concat()).exits(0).stdout
    };
    assert_eq!(
        print(r"%t %p %o %k %K %s %S %T %h%%\n", &[]),
        "net.b 1 0 key-1 5 value 1 7 1700000001000 site=NULL%\n\
         net.b 1 1  -1 value 3 7 1700000003000 site=NULL%\n\
         net.b 1 2 key-1 5  -1 1700000005000 site=NULL%\n"
    );
    assert_eq!(print(r"%k=%s\t", &["-Z"]), "key-1=value 1\tNULL=value 3\tkey-1=NULL\t");
    let bytes =
        place.command(&["tail", "net.b-1", "-o", "beginning", "-e", "-f", r"%R%s\x00"]).output().unwrap().stdout;
    assert_eq!(bytes, b"\0\0\0\x07value 1\0\0\0\0\x07value 3\0\xff\xff\xff\xff\0");
    assert_eq!(place.run(&["tail", "net.b-1", "-e", "--raw", "-Z"]).exits(0).lines(), ["value 1", "value 3", "NULL"]);
}

#[test]
fn several_topics_and_patterns_are_read_together() {
    let place = filled();
    let topics = |names: &[&str]| {
        let arguments = [&["tail"], names, &["-e", "-o", "beginning", "-f", r"%t-%p\n"]].concat();
        let mut lines: Vec<String> = place.run(&arguments).exits(0).stdout.lines().map(str::to_owned).collect();
        lines.dedup();
        lines
    };
    assert_eq!(topics(&["net.*"]), ["net.a-0", "net.b-0", "net.b-1"]);
    assert_eq!(topics(&["net.?", "cpu", "net.a"]), ["net.a-0", "net.b-0", "net.b-1", "cpu-0"]);
    assert_eq!(topics(&["net.b-1", "net.b"]), ["net.b-1", "net.b-0"]);
    let text = place.run(&["tail", "cpu", "net.a", "-e", "-o", "-1"]).exits(0);
    assert!(text.lines()[0].starts_with("cpu-0:19  ") && text.lines()[1].starts_with("net.a-0:0  "), "{}", text.stdout);
    let none = place.run(&["tail", "x*"]).exits(1);
    assert!(none.stderr.contains("no topic in") && none.stderr.contains("x*"), "{}", none.stderr);
    // Of all of them, what comes is printed. It waits for that once the last record of each has come.
    let mut tail = place.start(&["tail", "*", "-o", "-1", "-f", r"%t %s\n", "-c", "6"]);
    let last: Vec<String> = (0..4).map(|_| tail.line()).collect();
    assert!(last.contains(&"cpu 19".to_owned()), "{last:?}");
    place.run_with(&["append", "net.a"], b"two\n").exits(0);
    assert_eq!(tail.line(), "net.a two");
    place.run_with(&["append", "cpu"], b"twenty\n").exits(0);
    assert_eq!(tail.line(), "cpu twenty");
    tail.wait().exits(0);
}

#[test]
fn filters_print_what_has_the_key_text_and_header() {
    let place = filled();
    let read = |arguments: &[&str]| {
        let done = place.run(&[&["tail", "net.b", "-e", "--raw", "-Z"], arguments].concat()).exits(0);
        done.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(read(&["--key", "key-1"]), ["value 1", "NULL"]);
    assert_eq!(read(&["--grep", "lue 4"]), ["value 4"]);
    assert_eq!(read(&["--header", "site=north"]), ["value 0", "value 2", "value 4"]);
    assert_eq!(read(&["--header", "site", "--grep", "value 1"]), ["value 1"]);
    assert_eq!(read(&["--header", "site", "--header", "n=2"]), ["value 2"]);
    // What is counted is what is printed; a start that is given counts.
    assert_eq!(read(&["--key", "key-0", "-c", "1"]), ["value 0"]);
    assert_eq!(read(&["--key", "key-0", "-o", "-1"]), ["value 4"]);
    assert_eq!(read(&["--key", "none"]), [""; 0]);
    // Without a start, all there is is looked through, and not the last ten.
    assert_eq!(place.run(&["tail", "cpu", "-e", "--raw", "--grep", "3"]).exits(0).lines(), ["3", "13"]);
}

#[test]
fn null_is_not_printed_as_empty() {
    let place = Place::new();
    let lines = "{\"key\":\"\",\"payload\":\"\"}\n{\"key\":\"k\",\"payload\":null}\n{\"payload\":\"x\"}\n";
    place.run_with(&["append", "t", "--json"], lines.as_bytes()).exits(0);
    let text = place.run(&["tail", "t", "-e", "--utc"]).exits(0);
    let cells: Vec<&str> = text.stdout.lines().map(|line| line.split_once("Z  ").unwrap().1).collect();
    assert_eq!(cells, ["\"\"  ", "k   (null)", "    x"]);
}

#[test]
fn times_are_local_and_say_their_zone() {
    let place = filled();
    let read = |zone: &str, more: &[&str]| {
        let mut command = place.command(&[&["tail", "net.b-0", "-e", "-c", "1"], more].concat());
        command.env("TZ", zone);
        Place::run_command(command, b"").exits(0).stdout
    };
    assert!(
        read("UTC", &[]).starts_with("0:0  2023-11-14T22:13:20.000Z  key-0  value 0  site=north"),
        "{}",
        read("UTC", &[])
    );
    assert!(read("IST-5:30", &[]).contains("  2023-11-15T03:43:20.000+05:30  "), "{}", read("IST-5:30", &[]));
    assert!(read("IST-5:30", &["--utc"]).contains("  2023-11-14T22:13:20.000Z  "));
}

#[test]
fn a_terminal_gets_values_cut_to_its_line() {
    let place = Place::new();
    let long = "0123456789".repeat(30);
    place.run_with(&["append", "t", "-k", "key", "-H", "h=v"], format!("short\n{long}\n").as_bytes()).exits(0);
    let lines = |arguments: &[&str], columns| {
        let shown = place.run_on_terminal_of(&[&["tail", "t", "-e"], arguments].concat(), columns);
        String::from_utf8(shown).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let cut = lines(&[], 80);
    assert!(cut[0].ends_with("  short  h=v"), "{cut:?}");
    assert!(cut[1].ends_with("...") && cut[1].chars().count() <= 80 && cut[1].chars().count() > 70, "{cut:?}");
    assert!(lines(&["--full"], 80)[1].contains(&long));
    assert!(lines(&["--raw"], 80)[1] == long, "--raw is the value");
    // A terminal that does not say how wide it is, and a pipe.
    assert!(lines(&[], 0)[1].contains(&long));
    assert!(place.run(&["tail", "t", "-e"]).exits(0).stdout.contains(&long));
}
