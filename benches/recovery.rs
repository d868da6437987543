//! Opening a log again, after a clean close and after a crash, and appending once; at 64 MiB, 1 GiB and 20 GB.
//!
//! Opening lists the directory and looks at what lies above the recovery point; it looks into no sealed segment below
//! it. So the log of 20 GB has 1,280 segments whose files are as long as such a log's and mostly holes;
//! `EDGELOG_BENCH_20GB=1` writes all of it instead (20 GB of room, and as long as the disk takes).

#![allow(clippy::cast_precision_loss)] // Figures: their 53rd bit does not matter.

mod common;

use std::time::{Duration, Instant};

use common::crash::{Sealed, Template, open};
use common::{Results, TOPIC, Values, median_ms};
use edgelog::{Durability, NewRecord, Offset};

/// Openings of each log; the figure is the middle one.
const ROUNDS: usize = 11;

fn main() {
    let mut results = Results::new("recovery");
    let real = std::env::var_os("EDGELOG_BENCH_20GB").is_some_and(|set| set != "0");
    let twenty = if real { Sealed::Written(1280 * (16 << 20)) } else { Sealed::Hollow(1280) };
    let sizes = [("64MiB", Sealed::Written(48 << 20)), ("1GiB", Sealed::Written(1008 << 20)), ("20GB", twenty)];
    // What is above the recovery point after a crash: next to nothing, as after a roll, or half a segment.
    let stops = [("clean", 0, true), ("unclean_64KiB", 64 << 10, false), ("unclean_8MiB", 8 << 20, false)];
    for (size, sealed) in sizes {
        for (stop, tail_bytes, clean) in stops {
            let id = format!("reopen/{stop}/os/{size}");
            if results.wants(&id) {
                reopen(&mut results, &id, &Template::new(sealed, tail_bytes, clean));
            }
        }
    }
    // Written in one go, and no checkpoint since but what the engine makes of itself.
    let id = "reopen/unclean_busy/os/1GiB";
    if results.wants(id) {
        reopen(&mut results, id, &Template::in_full_swing(1 << 30));
    }
    let id = "reopen/limit_list_1280";
    if results.wants(id) {
        list(&mut results, id);
    }
}

/// Opens copies of `template`, each warm, and appends one record at `Os`.
fn reopen(results: &mut Results, id: &str, template: &Template) {
    let mut values = Values::new(100);
    let (mut opened, mut both) = (Vec::new(), Vec::new());
    let (mut recovered, mut segments) = (0, 0);
    for _ in 0..ROUNDS {
        let dir = template.instance();
        let begun = Instant::now();
        let store = open(dir.path());
        let log = store.log(TOPIC, 0).expect("it is there");
        opened.push(begun.elapsed());
        log.append_with(NewRecord::value(values.next()), Durability::Os).expect("appends");
        both.push(begun.elapsed());
        let report = store.recovery_report();
        assert_eq!(report.lost_offsets(), 0, "{report}");
        recovered = report.recovered_records();
        segments = log.size().expect("a size").0;
        let end: Offset = log.offsets().log_end_offset;
        assert!(end > 0 && log.offsets().recovery_point <= end);
        store.close().expect("closes");
    }
    let fields = [
        ("value", median_ms(&mut both)),
        ("open", median_ms(&mut opened)),
        ("segments", segments as f64),
        ("recovered", recovered as f64),
    ];
    results.write(id, "ms", &fields);
}

/// What listing a directory of as many files costs: opening cannot be quicker.
fn list(results: &mut Results, id: &str) {
    let template = Template::new(Sealed::Hollow(1280), 0, true);
    let dir = template.instance();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let listed = std::fs::read_dir(dir.path().join(format!("{TOPIC}-0"))).expect("a directory").count();
            assert!(listed > 1280);
            begun.elapsed()
        })
        .collect();
    results.write(id, "ms", &[("value", median_ms(&mut times))]);
}
