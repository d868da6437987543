//! Memory that a process has of its own (anonymous, not the page cache) while it appends at `Os`, and while it opens
//! and reads a log of 20 GB in 1,280 segments; there, its open files too. Each case is a process of its own.

#![allow(clippy::cast_precision_loss)] // Figures: their 53rd bit does not matter.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::crash::{Sealed, Template, open};
use common::{Fresh, ROOMY, Results, SIZES, STORE_BYTES_MAX, TOPIC, Values, anonymous_bytes, seconds, single_size};
use edgelog::{Durability, NewRecord, Offset, OffsetSpec};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "append", len] => return append(len.parse().expect("a size")),
        [_, "open", dir] => return read(Path::new(dir), false),
        [_, "read", dir] => return read(Path::new(dir), true),
        _ => {}
    }
    let mut results = Results::new("memory");
    for (len, name) in &SIZES[..3] {
        let id = format!("memory/append_single/os/{name}");
        if results.wants(&id) {
            child(&mut results, &id, &["append", &len.to_string()]);
        }
    }
    for (what, clean) in [("read", true), ("open", false)] {
        let id = format!("memory/{what}_{}/20GB", if clean { "clean" } else { "unclean" });
        if results.wants(&id) {
            let template = Template::new(Sealed::Hollow(1280), 8 << 20, clean);
            let dir = template.instance();
            child(&mut results, &id, &[what, dir.path().to_str().expect("a path in ASCII")]);
        }
    }
}

/// Runs a case in a process of its own, which prints its figures as `name value` pairs.
fn child(results: &mut Results, id: &str, args: &[&str]) {
    let exe = std::env::current_exe().expect("the bench's own path");
    let output = Command::new(exe).args(args).output().expect("a process");
    assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let fields: Vec<(&str, f64)> = words.chunks(2).map(|pair| (pair[0], pair[1].parse().expect("a number"))).collect();
    results.write(id, "bytes", &fields);
}

fn append(len: usize) {
    let mut values = Values::new(len);
    let before = anonymous_bytes();
    let begun = Instant::now();
    let time = Duration::from_secs(seconds(3).min(3));
    let (mut most, mut appended) = (before, 0_u64);
    while begun.elapsed() < time {
        let fresh = Fresh::new(ROOMY);
        for n in 0..STORE_BYTES_MAX / single_size(len) {
            fresh.log.append_with(NewRecord::value(values.next()), Durability::Os).expect("appends");
            if n % 65_536 == 0 {
                most = most.max(anonymous_bytes());
            }
            appended += 1;
        }
        most = most.max(anonymous_bytes());
    }
    println!("value {} before {before} most {most} appended {appended}", most - before);
}

/// Opens the log, reads all of it if `whole`, and prints the most of both.
fn read(dir: &Path, whole: bool) {
    let files = || fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = anonymous_bytes();
    let store = open(dir);
    let opened = anonymous_bytes();
    let log = store.log(TOPIC, 0).expect("it is there");
    let mut reader = log.reader(OffsetSpec::Earliest).expect("a reader");
    let (mut most, mut files_most, mut records, mut batches) = (opened, files(), 0_u64, 0_u64);
    while let Some(batch) = if whole { reader.next_batch().expect("reads") } else { None } {
        records += batch.records().expect("plain").count() as u64;
        batches += 1;
        if batches % 256 == 0 {
            most = most.max(anonymous_bytes());
            files_most = files_most.max(files());
        }
    }
    let expected = if whole { log.offsets().log_end_offset } else { Offset(0) };
    assert_eq!(Offset(records as i64), expected, "every record is read");
    let value = most - before;
    println!("value {value} opened {} files {files_most} records {records}", opened - before);
    store.close().expect("closes");
}
