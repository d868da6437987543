//! Telemetry into databases, by processes that are killed again and again.

use std::process::Command;
use std::thread;

use super::super::packages;
use super::super::runner::Stage;
use super::kafka::Programs;
use super::{variable, with};
use crate::command::Result;

pub(super) fn sinks(stage: &Stage) {
    let runner = stage.runner;
    let packages = ["libsqlite3-dev", "python3"];
    if !stage.has("sinks", stage.install("to build and run the example that fills databases", &packages)) {
        return;
    }
    let target = [("CARGO_TARGET_DIR", runner.below_target("sinks"))];
    let build = runner.cargo(["build", "--locked", "--manifest-path", "examples/sinks/Cargo.toml"]);
    if !stage.step("build the example", with(build, target)) {
        return;
    }
    let Some(programs) = Programs::build(stage) else { return };
    let program = [("EDGELOG_SINKS", runner.below_target("sinks/debug/edgelog-sinks"))];
    let into = |database: &str| -> Command {
        let kills = variable("EDGELOG_SINKS_KILLS", "40");
        with(programs.python("tests/sinks/sinks.py", &[database, "--kills", &kills]), program.clone())
    };
    let postgresql = need_postgresql(stage);
    let has_postgresql = stage.has("telemetry into PostgreSQL", postgresql);
    thread::scope(|scope| {
        scope.spawn(|| stage.step_that_waits("into SQLite", into("sqlite")));
        if has_postgresql {
            stage.step_that_waits("into PostgreSQL", into("postgresql"));
        }
    });
}

/// Debian's server: 15 in Debian 12, 17 in Debian 13. The script starts one of its own, and leaves the system's alone.
fn need_postgresql(stage: &Stage) -> Result<()> {
    let why = "to write into a real server, in a cluster of its own (the package makes one for the system, too)";
    let is_there = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        versions
            .map(|version| version.path().join("bin"))
            .any(|bin| ["initdb", "postgres", "psql"].iter().all(|program| bin.join(program).is_file()))
    };
    match stage.install(why, &["postgresql"]) {
        Err(_) if is_there() => Ok(()),
        Ok(()) if !is_there() => Err("the package postgresql has no /usr/lib/postgresql/*/bin/initdb".to_owned()),
        // As root, the script gives the server another user.
        Ok(()) if !packages::has("setpriv") => Err("there is no setpriv (util-linux)".to_owned()),
        done => done,
    }
}
