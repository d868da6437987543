//! Crash safety, searched for: a simulated disk loses power at every effect, in many ways each, and what the store
//! makes of it is held against a plain model of what it had promised.
//!
//! `cargo test --release -p edgelog --test crash -- --nocapture` prints how much a run goes through, and what it leaves
//! out. By environment: `EDGELOG_CRASH_SEED` (the workload), `EDGELOG_CRASH_SCHEDULES` (how many random schedules) and
//! `EDGELOG_CRASH_FIRST` (the first one's seed: a failure prints its own, shrunk, and replays with a count of 1), and
//! `EDGELOG_CRASH_OPERATIONS` (how long the workload is).
//!
//! A build with `RUSTFLAGS="--cfg edgelog_canary"` has known bugs in the engine, and one test: that each is found
//! (`EDGELOG_CRASH_BUG=NAME`: that this one is).

mod odd_logs;
mod outside;
mod producer;
mod regressions;

use std::time::Instant;

use edgelog_testkit::crash::disk::{Fault, Quirks};
use edgelog_testkit::crash::{search, workload};

/// A debug build goes through a part of it.
const FAST: bool = cfg!(not(debug_assertions));

fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn workload() -> Vec<workload::Op> {
    let operations = number("EDGELOG_CRASH_OPERATIONS", if FAST { 320 } else { 60 });
    workload::everything(number("EDGELOG_CRASH_SEED", 1), operations as usize)
}

#[test]
fn every_single_cut_is_recovered_from() {
    let (begun, ops) = (Instant::now(), workload());
    let run = search::record(&ops, Quirks::default()).unwrap();
    let outcome = search::single_cuts(&run, if FAST { 6 } else { 1 });
    outcome.print(&format!("single cuts, at every effect of {} operations", ops.len()), begun);
    outcome.assert_none();
}

#[test]
fn every_double_cut_is_recovered_from() {
    // A shorter one: with bursts, it has as many images as the long one had before.
    let operations = number("EDGELOG_CRASH_OPERATIONS", if FAST { 240 } else { 60 }) as usize;
    let (begun, ops) = (Instant::now(), workload::everything(number("EDGELOG_CRASH_SEED", 1), operations));
    let run = search::record(&ops, Quirks::default()).unwrap();
    let firsts = number("EDGELOG_CRASH_IMAGES", if FAST { 2 } else { 1 }) as usize;
    let outcome = search::double_cuts(&run, if FAST { 1 } else { 16 }, firsts, 2);
    outcome.print(&format!("double cuts, at every effect of {} operations and of the recovery", ops.len()), begun);
    println!("  left out: of the first cut, all images but {firsts} of six in turn; of the second, all but two");
    outcome.assert_none();
}

#[test]
fn random_schedules_are_recovered_from() {
    let (begun, count) = (Instant::now(), number("EDGELOG_CRASH_SCHEDULES", if FAST { 100_000 } else { 200 }));
    let first = number("EDGELOG_CRASH_FIRST", 0);
    let outcome = search::schedules(first, count as usize, search::schedule, Quirks::default());
    outcome.print(&format!("random schedules, from seed {first}"), begun);
    outcome.assert_none();
}

#[test]
fn random_schedules_with_several_faults_are_recovered_from() {
    let begun = Instant::now();
    let count = number("EDGELOG_CRASH_SCHEDULES", if FAST { 100_000 } else { 1600 }) / 4;
    let first = number("EDGELOG_CRASH_FIRST", 0);
    let outcome = search::schedules(first, count.max(1) as usize, search::faulty_schedule, Quirks::default());
    outcome.print(&format!("random schedules with several faults, from seed {first}"), begun);
    outcome.assert_none();
}

#[test]
fn every_fault_at_every_call_is_survived() {
    let ops = workload::everything(number("EDGELOG_CRASH_SEED", 7), if FAST { 90 } else { 40 });
    let mut outcomes = Vec::new();
    for fault in [Fault::Full, Fault::StaysFull, Fault::Short, Fault::Io] {
        let begun = Instant::now();
        let outcome = search::faults(&ops, fault, if FAST { 1 } else { 8 });
        outcome.print(&format!("{fault:?} at every call of {} operations", ops.len()), begun);
        outcomes.push(outcome);
    }
    outcomes.iter().for_each(search::Outcome::assert_none);
}

#[test]
fn a_flush_that_fails_once_and_then_succeeds_costs_nothing_acknowledged_after() {
    let begun = Instant::now();
    let ops = workload::everything(number("EDGELOG_CRASH_SEED", 7), if FAST { 120 } else { 40 });
    let outcome = search::flush_fails_then_power(&ops, 0, if FAST { 1 } else { 8 }, 2);
    outcome.print("a flush fails, the process starts again, acknowledges, and the power goes, at every effect", begun);
    outcome.assert_none();
}

/// What a producer acknowledges at `acks=all` is there after any cut.
#[test]
fn what_a_producer_has_acknowledged_outlives_every_cut() {
    let first = number("EDGELOG_CRASH_SEED", 1);
    for seed in first..first + if FAST { 8 } else { 2 } {
        let begun = Instant::now();
        let run = producer::record(seed, if FAST { 200 } else { 60 }, Quirks::default());
        let outcome = producer::cuts(&run, if FAST { 1 } else { 3 }, if FAST { 6 } else { 1 });
        outcome.print(&format!("a producer, seed {seed}"), begun);
        outcome.assert_none();
    }
}

/// And a producer that acknowledges before its flush is found out.
#[cfg(edgelog_canary)]
#[test]
fn canary_a_producer_that_does_not_flush_is_found_out() {
    edgelog::canary::switch_on(Some(edgelog::canary::Bug::AcknowledgeBeforeTheFlush));
    let run = producer::record(number("EDGELOG_CRASH_SEED", 1), 60, Quirks::default());
    edgelog::canary::switch_on(None);
    let outcome = producer::cuts(&run, 1, 1);
    let found = outcome.violations.keys().any(|what| what.contains("an acknowledged record is gone"));
    assert!(found, "not found: {:?}", outcome.violations);
}

/// Where a sector that is rewritten may be lost as a whole, what was durable in it goes with it, and nothing else does.
#[test]
fn without_powersafe_overwrite_the_batches_of_the_torn_sectors_are_lost_and_no_others() {
    let (begun, ops) = (Instant::now(), workload());
    let outcome = outside::torn_sectors(&ops, if FAST { 8 } else { 2 });
    outcome.print("rewritten sectors may tear", begun);
    assert!(outcome.counts["durable records lost"] > 0, "then nothing was torn");
    outcome.assert_none();
}

/// Outside of every promise but this one.
#[test]
fn a_disk_that_lies_about_flushes_makes_no_panic() {
    let begun = Instant::now();
    let outcome = outside::lying_disk(if FAST { 10_000 } else { 100 });
    outcome.print("a disk that lies about flushes", begun);
    outcome.assert_none();
}

/// What the simulated disk forgets has to matter: each of these breaks its word in one way, and is found out.
#[test]
fn every_disk_that_breaks_its_word_is_found_out() {
    let honest = Quirks::default();
    let liars = [
        ("sync_dir of the data directory does nothing", Quirks { sync_dir_lies: true, ..honest }),
        ("flush of the checkpoint does nothing", Quirks { flush_lies: Some(".checkpoint"), ..honest }),
        ("flush of the settings does nothing", Quirks { flush_lies: Some("properties.part"), ..honest }),
        ("flush loses the size", Quirks { flush_loses_size: true, ..honest }),
        ("rewritten sectors tear", Quirks { tears_sectors: true, ..honest }),
        ("truncate does nothing", Quirks { truncate_lies: true, ..honest }),
        ("a removed name comes back", Quirks { remove_lies: true, ..honest }),
        ("every process finds another boot id", Quirks { boot_id_always_new: true, ..honest }),
    ];
    let ops = workload::everything(1, if FAST { 320 } else { 120 });
    let mut missed = Vec::new();
    for (name, quirks) in liars {
        match search::find_violation(quirks, &ops, if FAST { 3000 } else { 300 }) {
            Some(found) => println!("{name}: found out {found}"),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found out: {missed:?}");
}

/// A search that cannot fail is worth nothing: each of the engine's known bugs, switched on alone, is found.
#[cfg(edgelog_canary)]
#[test]
fn every_known_bug_is_found() {
    use edgelog::canary::{Bug, switch_on};
    let ops = workload();
    let count = number("EDGELOG_CRASH_SCHEDULES", 4000);
    // One bug alone, to be looked into.
    let only = std::env::var("EDGELOG_CRASH_BUG").ok();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    edgelog_testkit::on_every_processor(|n, _| {
        if n == 0 {
            assert_eq!(search::find_violation(Quirks::default(), &ops, count), None, "without any bug");
        }
        while let Some(&bug) = Bug::ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
                continue;
            }
            let begun = Instant::now();
            switch_on(Some(bug));
            // What the searches found once, and then the searches.
            let fails = |test: &fn()| {
                let run = || {
                    test();
                    Ok(())
                };
                search::guarded(run).is_err()
            };
            let regressions = regressions::ALL.iter().position(fails);
            let found = regressions
                .map(|n| format!("by regression {} of {}", n + 1, regressions::ALL.len()))
                .or_else(|| search::find_violation(Quirks::default(), &ops, count));
            switch_on(None);
            let seconds = begun.elapsed().as_secs_f32();
            if let Some(found) = found {
                println!("{bug:?}: found {found} ({seconds:.1} s)");
            } else {
                println!("{bug:?}: NOT FOUND ({seconds:.1} s)");
                missed.lock().expect("no worker panics").push(bug);
            }
        }
    });
    let missed = missed.into_inner().expect("no worker panics");
    println!("{} known bugs, {} not found", Bug::ALL.len(), missed.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
