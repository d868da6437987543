//! The engine's own tests: on this machine, with simulated power cuts, under loom, and by fuzzing.

use std::process::Command;

use super::super::packages;
use super::super::runner::Stage;
use super::papers;
use super::{FEW, variable, with};
use crate::command::cargo;

pub(super) fn quick(stage: &Stage) {
    let runner = stage.runner;
    if papers::has_lints(stage) {
        stage.step("format", runner.cargo(["fmt", "--all", "--check"]));
        papers::clippy(stage);
    } else {
        stage.leave_out(
            "format and clippy",
            "cargo fmt or cargo clippy is not installed; ./test --only lint installs Debian's",
        );
    }
    stage.step("workspace", with(runner.cargo(["test", "--workspace", "--locked", "--no-fail-fast"]), FEW));
}

pub(super) fn unit(stage: &Stage) {
    let runner = stage.runner;
    stage.has(
        "the completions for fish and zsh",
        stage.install("to run the completions for fish and zsh", &["fish", "zsh"]),
    );
    let whole = ["test", "--workspace", "--all-features", "--locked", "--no-fail-fast"];
    stage.step("workspace, all features", runner.cargo(whole));
    // What a missing codec or bridge can change; the rest is the same code.
    let mut alone = runner.cargo(["test", "-p", "edgelog", "--locked", "--no-default-features", "--no-fail-fast"]);
    alone.args(["--lib", "--test", "engine", "--test", "verdicts"]);
    stage.step("library without features", with(alone, FEW));
    let check = ["check", "-p", "edgelog", "--locked", "--no-default-features"];
    let mut tests = runner.cargo(check);
    tests.arg("--tests");
    stage.step("tests without features build", tests);
    for feature in features(&std::fs::read_to_string(runner.root.join("Cargo.toml")).unwrap_or_default()) {
        let mut one = runner.cargo(check);
        one.args(["--features", &feature]);
        stage.step(&format!("library with {feature} alone"), one);
    }
    // Another program's lock file has other versions than ours.
    stage.step("oldest and newest dependencies", runner.cargo(["xtask", "dependencies"]));
    papers::pages(stage, &runner.below_target("debug/edgelog"), false);
}

/// The `[features]` of a manifest but `default`.
fn features(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| name != "default")
        .collect()
}

pub(super) fn crash(stage: &Stage) {
    let runner = stage.runner;
    // One build for all the searches, of the engine as it is shipped and with the known bugs, none of which is switched
    // on but by the tests that look for them.
    let search = |arguments: &[&str]| {
        let mut search =
            runner.cargo(["test", "--profile", "search", "-p", "edgelog", "--features", "bridge", "--locked"]);
        search
            .args(arguments)
            .env("RUSTFLAGS", "--cfg edgelog_canary")
            .env("CARGO_TARGET_DIR", runner.target.join("canary"));
        search
    };
    if !stage.step("build", search(&["--lib", "--test", "crash", "--test", "damage", "--no-run"])) {
        return;
    }
    // Each of these searches has a thread for each processor.
    let cuts = |arguments: &[&str]| {
        let mut cuts = search(&["--test", "crash", "--", "--nocapture", "--test-threads=1"]);
        cuts.args(arguments);
        cuts
    };
    let schedules = "random_schedules";
    let others = cuts(&["--skip", "every_known_bug", "--skip", schedules]);
    stage.step("power cuts on a simulated disk", others);
    stage.step("random schedules of power cuts", cuts(&[schedules]));
    stage.step("known bugs are found", cuts(&["every_known_bug"]));
    // A bridge next to the writer: its insides are the library's, and so is this search.
    let others = ["--lib", "--", "--nocapture", "bridge::two_processes", "--skip", "every_known_bug"];
    stage.step("a bridge next to the writer", search(&others));
    let known = ["--lib", "--", "--nocapture", "bridge::two_processes::every_known_bug"];
    stage.step("known bugs next to the writer are found", search(&known));
    // What the clients keep: by the writer or by a process that is attached; with known bugs.
    let clients = search(&["--lib", "--", "--nocapture", "::crash::"]);
    let schedules = variable("EDGELOG_CRASH_SCHEDULES", "300");
    stage.step("what clients keep", with(clients, [("EDGELOG_CLIENT_SCHEDULES", schedules)]));
    // Every bit of every file of a small store flipped, every file cut at every byte.
    let damage = with(search(&["--test", "damage", "--", "--nocapture"]), [("EDGELOG_TEST_EVERY", "1")]);
    stage.step("every flip and every cut of a small store", damage);
}

pub(super) fn loom(stage: &Stage) {
    let runner = stage.runner;
    // A build of its own: loom's locks and atomics in place of the real ones, and bugs to be found.
    let models = |features: &[&str], arguments: &[&str]| {
        let mut models = runner.cargo(["test", "-p", "edgelog", "--locked"]);
        models.args(features).args(arguments).args(["--", "--nocapture"]);
        models.env("CARGO_TARGET_DIR", runner.target.join("loom")).env("RUSTFLAGS", "--cfg loom --cfg edgelog_canary");
        models
    };
    // Nine tenths of it are one model, on one thread.
    stage.step_on_one("models of the engine's threads", models(&[], &["--test", "loom"]));
    stage.step_on_one("models of waking up", models(&[], &["--lib", "sync::models"]));
    let clients = models(&["--features", "async"], &["--lib", "clients::models"]);
    stage.step_on_one("models of a producer's parts", clients);
}

pub(super) fn fuzz(stage: &Stage) {
    let runner = stage.runner;
    if !stage.has("fuzz", packages::need(&runner.root, "c++", "to build libFuzzer", &["g++"])) {
        return;
    }
    let fuzz = |arguments: &[&str]| -> Command { with(runner.program("fuzz/run", arguments), [("CARGO", cargo())]) };
    if !stage.step("build", fuzz(&["build"])) {
        return;
    }
    let manifest = std::fs::read_to_string(runner.root.join("fuzz/Cargo.toml")).unwrap_or_default();
    let seconds = variable("EDGELOG_FUZZ_SECONDS", "10");
    std::thread::scope(|scope| {
        for target in fuzz_targets(&manifest) {
            let run = fuzz(&[target, &seconds]);
            scope.spawn(move || stage.step_on_one(target, run));
        }
    });
}

/// The programs of fuzz/Cargo.toml.
fn fuzz_targets(manifest: &str) -> Vec<&str> {
    manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

    #[test]
    fn every_feature_and_no_dependency_is_found() {
        let manifest = "[package]\nname = \"a\"\n[features]\n# all\ndefault = [\"b\"]\nb = []\n\
            zstd-write = [\n    \"zstd\",\n]\n\n[dependencies]\nc = \"1\"\n";
        assert_eq!(features(manifest), ["b", "zstd-write"]);
        let ours = features(&std::fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap());
        assert!(ours.contains(&"bridge".to_owned()) && ours.contains(&"snappy".to_owned()), "{ours:?}");
    }

    #[test]
    fn every_fuzz_target_is_found() {
        let manifest = std::fs::read_to_string(format!("{ROOT}/fuzz/Cargo.toml")).unwrap();
        let mut files: Vec<String> = std::fs::read_dir(format!("{ROOT}/fuzz/fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let mut found = fuzz_targets(&manifest);
        found.sort_unstable();
        assert_eq!(found, files);
    }
}
