//! The Python package: its wheel, in a clean virtual environment.

use std::process::Command;

use super::super::packages;
use super::super::runner::Stage;
use super::with;
use crate::command::cargo;

pub(super) fn python(stage: &Stage) {
    let runner = stage.runner;
    let why = "to build the Python package and run its tests in a virtual environment";
    let needed = packages::need(&runner.root, "python3", why, &["python3-venv", "gcc", "libc6-dev"]);
    if !stage.has("python", needed) {
        return;
    }
    let target = runner.target.to_string_lossy().into_owned();
    let run = |arguments: &[&str]| -> Command {
        let run = runner.python("bindings/python/tests/run.py", arguments);
        let run = with(run, [("CARGO_TARGET_DIR", target.as_str()), ("PYTHONDONTWRITEBYTECODE", "1")]);
        with(run, [("CARGO", cargo())])
    };
    lints(stage);
    if !stage.step("the wheel, installed", run(&["build"])) {
        return;
    }
    stage.step_that_waits("the package's tests", run(&["test"]));
    // confluent_kafka's own tests are in no package of a registry: a person may have a checkout of them.
    if let Some(checkout) = std::env::var("EDGELOG_CONFLUENT_KAFKA").ok().filter(|path| !path.is_empty()) {
        stage.step_that_waits("confluent_kafka's own unit tests", run(&["upstream", &checkout]));
    }
}

/// The crate stands outside of the workspace, whose lints do not see it.
fn lints(stage: &Stage) {
    let runner = stage.runner;
    let manifest = ["--manifest-path", "bindings/python/Cargo.toml"];
    if !super::papers::has_lints(stage) {
        stage.leave_out("the lints of the Python package", "cargo fmt or cargo clippy is not installed");
        return;
    }
    let mut format = runner.cargo(["fmt"]);
    format.args(manifest).arg("--check");
    stage.step_on_one("format", format);
    let mut clippy = runner.cargo(["clippy"]);
    clippy.args(manifest).args(["--all-targets", "--locked", "--", "-D", "warnings"]);
    stage.step("clippy", with(clippy, [("CARGO_TARGET_DIR", runner.below_target("python/build"))]));
}
