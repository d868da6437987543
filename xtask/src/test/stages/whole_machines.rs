//! Full disks, lost power, and machines without anything: what needs root, and some of it long.

use std::time::Duration;

use super::super::packages;
use super::super::runner::Stage;
use super::{FEW, variable, with};
use crate::command::{cargo, run};

/// What a step of the long stages may take.
const HOURS_1_5: Duration = Duration::from_secs(5400);
const HOURS_4: Duration = Duration::from_secs(14400);

pub(super) fn filesystems(stage: &Stage) {
    let runner = stage.runner;
    // Who cannot mount gets no installs either.
    if !packages::can_be_root(&runner.root) {
        return stage.leave_out("filesystems", "mounting needs root");
    }
    let tools = ["e2fsprogs", "xfsprogs", "btrfs-progs", "mount"];
    if !stage.has("filesystems", stage.install("to make file systems to fill up", &tools)) {
        return;
    }
    // Build first, so that the mounts are there for the tests alone.
    let tests = ["test", "-p", "edgelog", "--locked", "--test", "full_disk"];
    let mut build = runner.cargo(tests);
    build.arg("--no-run");
    if stage.step("build", build)
        && stage.has("filesystems", run(&mut runner.program("tests/filesystems/run", ["true"])))
    {
        let mut mounted = runner.program("tests/filesystems/run", [cargo()]);
        mounted.args(tests).args(["--", "--ignored"]);
        stage.step_on_one("full disks", mounted);
    }
}

pub(super) fn power_cuts(stage: &Stage) {
    let runner = stage.runner;
    // The kernel, qemu and the mkfs tools are Debian's; the script says which, and why.
    if !packages::can_be_root(&runner.root) {
        return stage.leave_out("power-cuts", "installing qemu and a kernel needs root");
    }
    let mut build = runner.cargo(["build", "--profile", "search", "--locked", "-p", "edgelog-cli", "--bin", "edgelog"]);
    build.args(["-p", "edgelog", "--example", "scripted_writer"]);
    if !stage.step("build the command line and the writer", build) {
        return;
    }
    let work = runner.below_target("power-cuts");
    let cut = |arguments: &[&str]| {
        let mut cut = runner.python("tests/power_cuts/run.py", &["--work", &work]);
        cut.args(arguments);
        cut.env("EDGELOG_BIN", runner.below_target("search/edgelog"));
        cut.env("EDGELOG_WRITER", runner.below_target("search/examples/scripted_writer"));
        cut
    };
    if !stage.step("a machine to cut the power of", cut(&["--install", "--only", "refusal"])) {
        return;
    }
    stage.step("a disk that lies about its flushes is found", cut(&["--only", "canary"]));
    let cuts = variable("EDGELOG_POWER_CUTS", "5");
    stage.with_step_max(HOURS_4).step("power cuts", cut(&["--only", "cuts", "--cuts", &cuts]));
}

pub(super) fn newcomer(stage: &Stage) {
    let runner = stage.runner;
    if !packages::can_be_root(&runner.root) {
        return stage.leave_out("newcomer", "debootstrap and chroot need root");
    }
    if !stage.has("newcomer", stage.install("to make a bare Debian", &["debootstrap", "git", "mount"])) {
        return;
    }
    for suite in ["bookworm", "trixie"] {
        let target = runner.target.to_string_lossy().into_owned();
        let mut follow = packages::as_root(&runner.root, &[("CARGO_TARGET_DIR", target)]);
        follow.args(["tests/newcomer/run", suite]);
        stage.with_step_max(HOURS_1_5).step(&format!("README on a bare Debian {suite}"), follow);
    }
}

pub(super) fn coverage(stage: &Stage) {
    let runner = stage.runner;
    let why = "to read what the counters of Debian's Rust say";
    let tools =
        packages::need_rust_185(&runner.root).and_then(|()| stage.install(why, &["llvm-19", "python3-minimal"]));
    if !stage.has("coverage", tools) {
        return;
    }
    let work = runner.below_target("coverage");
    let mut lines = runner.python("tests/coverage/run.py", &["--work", &work]);
    lines.args(variable("EDGELOG_COVERAGE", "").split_whitespace());
    stage.with_step_max(HOURS_1_5).step("lines, by crate", with(lines, FEW));
}
