//! What the project depends on, and what its next release would break: by programs of crates.io that take minutes to
//! build.

use std::time::Duration;

use super::super::runner::Stage;
use super::variable;
use crate::command::{cargo, output, run};
use crate::tools::cargo_install;

const DENY_VERSION: &str = "0.20.2";
const SEMVER_CHECKS_VERSION: &str = "0.51.0";
/// The database that cargo-deny reads.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";
/// The interfaces are read from the documentation of each version, which is built for that.
const STEP_MAX: Duration = Duration::from_secs(3600);

pub(super) fn audit(stage: &Stage) {
    let long = stage.with_step_max(STEP_MAX);
    dependencies(&long);
    interfaces(&long);
}

fn dependencies(stage: &Stage) {
    let (runner, why) = (stage.runner, "to hold what is depended on to deny.toml");
    let deny = match cargo_install(&runner.root, &runner.target.join("tools"), "cargo-deny", DENY_VERSION, why) {
        Ok(deny) => deny,
        Err(why) => return stage.leave_out("cargo-deny", &why),
    };
    let check = |what: &[&str]| {
        let mut check = runner.program(&deny, ["--all-features", "--locked", "check"]);
        check.args(what).env("CARGO", cargo());
        check
    };
    stage.step("licences, versions and sources", check(&["licenses", "bans", "sources"]));
    let mut ask = runner.program("git", ["ls-remote", "--quiet", "--exit-code", ADVISORIES, "HEAD"]);
    if stage.has("known vulnerabilities", run(&mut ask)) {
        stage.step("known vulnerabilities", check(&["advisories"]));
    }
}

/// What a program that was built with the release before would not build with any more.
fn interfaces(stage: &Stage) {
    let runner = stage.runner;
    let mut describe = runner.program("git", ["describe", "--tags", "--abbrev=0", "--match", "v*"]);
    let release = output(&mut describe).unwrap_or_default();
    let baseline = variable("EDGELOG_SEMVER_BASELINE", release.trim());
    if baseline.is_empty() {
        let why = "there is no release yet; EDGELOG_SEMVER_BASELINE=COMMIT compares with a commit";
        return stage.leave_out("what the next release breaks", why);
    }
    let (tools, why) = (runner.target.join("tools"), "to compare the interfaces with the last release's");
    let checks = match cargo_install(&runner.root, &tools, "cargo-semver-checks", SEMVER_CHECKS_VERSION, why) {
        Ok(checks) => checks,
        Err(why) => return stage.leave_out("cargo-semver-checks", &why),
    };
    let mut compare = runner.program(checks, ["semver-checks", "--all-features", "--baseline-rev", &baseline]);
    compare.args(["-p", "edgelog-core", "-p", "edgelog"]).env("CARGO", cargo());
    stage.step(&format!("interfaces, compared with {baseline}"), compare);
}
