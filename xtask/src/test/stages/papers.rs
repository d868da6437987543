//! Format, lints, documents, and what the pages show.

use super::super::packages;
use super::super::runner::Stage;
use crate::command::cargo;

pub(super) fn lint(stage: &Stage) {
    let runner = stage.runner;
    if !stage.has("lint", need_lints(stage)) {
        return;
    }
    stage.step("format", runner.cargo(["fmt", "--all", "--check"]));
    clippy(stage);
    let alone = ["clippy", "-p", "edgelog", "--no-default-features", "--locked", "--", "-D", "warnings"];
    stage.step("clippy without features", runner.cargo(alone));
    let mut documentation = runner.cargo(["doc", "--workspace", "--lib", "--no-deps", "--all-features", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    stage.step("documentation", documentation);

    let why = "to hold THIRD-PARTY.md and the pictures to their sources";
    let python = packages::need(&runner.root, "python3", why, &["python3-minimal"]);
    if stage.has("the third-party notices and the pictures", python) {
        stage.step("third-party notices", runner.python("tests/papers/third_party.py", &["--check"]));
        stage.step("pictures", runner.python("docs/pictures/draw.py", &["--check"]));
    }
    let systemd = packages::need(&runner.root, "systemd-analyze", "to judge the bridge's unit", &["systemd"]);
    if stage.has("the judgement of the bridge's unit", systemd) {
        // In tenths: below 3.0.
        let security =
            ["security", "--no-pager", "--offline=true", "--threshold=29", "examples/edgelog-bridge.service"];
        stage.step("the bridge's unit is tight", runner.program("systemd-analyze", security));
    }
}

pub(super) fn clippy(stage: &Stage) {
    let arguments = ["--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    let mut clippy = stage.runner.cargo(["clippy"]);
    clippy.args(arguments);
    stage.step("clippy", clippy);
}

/// Whether cargo has its `fmt` and its `clippy`.
pub(super) fn has_lints(stage: &Stage) -> bool {
    ["fmt", "clippy"]
        .into_iter()
        .all(|tool| stage.runner.cargo([tool, "--version"]).output().is_ok_and(|done| done.status.success()))
}

fn need_lints(stage: &Stage) -> crate::command::Result<()> {
    if has_lints(stage) {
        return Ok(());
    }
    packages::install_debian_rust(&stage.runner.root, "to check format and lints", "rust_lint_packages")
        .map_err(|why| format!("cargo clippy or cargo fmt is not installed: {why}"))
}

/// Runs the commands on the pages by the command line at `program`, and those that need a broker where there is one.
pub(super) fn pages(stage: &Stage, program: &str, has_broker: bool) {
    let runner = stage.runner;
    let python = packages::need(&runner.root, "python3", "to run what the pages show", &["python3-minimal"]);
    if !stage.has("the commands on the pages", python) {
        return;
    }
    // A program that a page shows is built, too.
    let mut path = std::env::var("PATH").unwrap_or_default();
    if let Some(folder) = cargo().parent() {
        path = format!("{}:{path}", folder.display());
    }
    let run = |arguments: &[&str]| {
        let mut commands = runner.python("tests/papers/commands.py", arguments);
        commands.env("EDGELOG_BIN", program).env("PATH", &path);
        commands
    };
    if has_broker {
        stage.step_that_waits("what the pages show", run(&["--broker"]));
    } else {
        stage.step("what the pages show", run(&[]));
        stage.step("... and would see a change", run(&["--canary", "docs/operations.md"]));
    }
}
