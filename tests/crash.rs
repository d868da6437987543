//! Crash safety, searched for: a simulated disk loses power at every effect, in many ways each, and what the store
//! makes of it is held against a plain model of what it had promised.
//!
//! `cargo test --release -p edgelog --test crash -- --nocapture` prints how much a run goes through. By environment:
//! `EDGELOG_CRASH_SEED` (the workload), `EDGELOG_CRASH_SCHEDULES` (how many random schedules) and `EDGELOG_CRASH_FIRST`
//! (the first one's seed: a failure prints its own, and replays with a count of 1).

#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/oracle.rs"]
mod oracle;
#[path = "crash/regressions.rs"]
mod regressions;
#[path = "crash/search.rs"]
mod search;
#[path = "crash/workload.rs"]
mod workload;

use disk::{Fault, Quirks};

/// A debug build goes through a part of it.
const FAST: bool = cfg!(not(debug_assertions));

fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_single_cut_is_recovered_from() {
    let ops = workload::everything(number("EDGELOG_CRASH_SEED", 1), if FAST { 320 } else { 60 });
    let run = search::record(&ops, Quirks::default()).unwrap();
    let outcome = search::single_cuts(&run, if FAST { 6 } else { 1 }, false);
    outcome.print(&format!("single cuts of {} operations", ops.len()));
    outcome.assert_none();
}

#[test]
fn every_double_cut_is_recovered_from() {
    let ops = workload::everything(number("EDGELOG_CRASH_SEED", 1), if FAST { 320 } else { 60 });
    let run = search::record(&ops, Quirks::default()).unwrap();
    let outcome = search::double_cuts(&run, if FAST { 1 } else { 16 }, 2);
    outcome.print(&format!("double cuts of {} operations", ops.len()));
    outcome.assert_none();
}

#[test]
fn random_schedules_are_recovered_from() {
    let count = number("EDGELOG_CRASH_SCHEDULES", if FAST { 25_000 } else { 200 });
    let first = number("EDGELOG_CRASH_FIRST", 0);
    let outcome = search::schedules(first..first + count, Quirks::default(), 8);
    outcome.print("random schedules");
    outcome.assert_none();
}

#[test]
fn every_fault_at_every_call_is_survived() {
    let ops = workload::everything(number("EDGELOG_CRASH_SEED", 7), if FAST { 90 } else { 40 });
    let mut all = search::Outcome::default();
    for fault in [Fault::Full, Fault::StaysFull, Fault::Io] {
        let outcome = search::faults(&ops, fault, if FAST { 1 } else { 8 });
        outcome.print(&format!("{fault:?} at every call of {} operations", ops.len()));
        all.violations.extend(outcome.violations);
    }
    all.assert_none();
}

/// A search that cannot fail is worth nothing: each of these disks breaks its word in one way, and is found out.
#[test]
fn every_disk_that_breaks_its_word_is_found_out() {
    let honest = Quirks::default();
    let liars = [
        ("sync_dir does nothing", Quirks { sync_dir_lies: 1, ..honest }),
        ("sync_dir of the data directory does nothing", Quirks { sync_dir_lies: 2, ..honest }),
        ("sync_dir of a partition does nothing", Quirks { sync_dir_lies: 3, ..honest }),
        ("flush of any file does nothing", Quirks { flush_lies: Some(""), ..honest }),
        ("flush of segments does nothing", Quirks { flush_lies: Some(".log"), ..honest }),
        ("flush of the checkpoint does nothing", Quirks { flush_lies: Some(".checkpoint"), ..honest }),
        ("flush of a new checkpoint does nothing", Quirks { flush_lies: Some("checkpoint.part"), ..honest }),
        ("flush of the copy does nothing", Quirks { flush_lies: Some(".log.part"), ..honest }),
        ("flush of the settings does nothing", Quirks { flush_lies: Some("properties.part"), ..honest }),
        ("flush loses the size", Quirks { flush_loses_size: true, ..honest }),
        ("only the newest segment is flushed", Quirks { flush_newest_only: true, ..honest }),
        ("rewritten sectors tear", Quirks { tears_sectors: true, ..honest }),
        ("truncate does nothing", Quirks { truncate_lies: true, ..honest }),
        ("a removed name comes back", Quirks { remove_lies: true, ..honest }),
        ("every process finds another boot id", Quirks { boot_id_always_new: true, ..honest }),
    ];
    let ops = workload::everything(1, if FAST { 320 } else { 120 });
    let mut missed = Vec::new();
    for (name, quirks) in liars {
        let found = search::canary(quirks, &ops, if FAST { 3000 } else { 300 });
        println!("{name}: {}", if found > 0 { "found out" } else { "NOT FOUND" });
        if found == 0 {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "not found out: {missed:?}");
}
