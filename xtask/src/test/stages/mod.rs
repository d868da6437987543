//! The stages, and the programs that they share.

mod arm;
mod audit;
mod bridge;
mod c_library;
mod engine;
mod kafka;
mod papers;
mod python;
mod sinks;
mod whole_machines;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::runner::{Runner, Stage};
use crate::command::{cargo, command};

/// A stage: its name in `./test --only`, and what it runs.
pub(super) type Named = (&'static str, fn(&Stage));

/// The stages that come before all others: a mistake that they find is no news later.
pub(super) const FIRST: [Named; 2] = [("lint", papers::lint), ("unit", engine::unit)];
/// The rows of the stages that compute. Their steps take processors, so two that have a thread for each run at one
/// time. Stages in one row wait for each other: bare-metal builds where msrv-arm does.
pub(super) const COMPUTING: [&[Named]; 3] = [
    &[("msrv-arm", arm::msrv_arm), ("bare-metal", arm::bare_metal)],
    &[("crash", engine::crash), ("fuzz", engine::fuzz), ("ffi", c_library::ffi)],
    &[("loom", engine::loom)],
];
/// The row of the stages that wait most of their time. Their steps take no processors: what they build is built at
/// once, next to the steps that have them.
pub(super) const WAITING: [Named; 4] = [
    ("kafka", kafka::kafka),
    ("bridge", bridge::bridge),
    ("sinks", sinks::sinks),
    ("filesystems", whole_machines::filesystems),
];
/// Not part of the whole: half a minute a cut where the processor is emulated, and builds of their own.
pub(super) const LONG: [Named; 5] = [
    ("python", python::python),
    ("power-cuts", whole_machines::power_cuts),
    ("newcomer", whole_machines::newcomer),
    ("coverage", whole_machines::coverage),
    ("audit", audit::audit),
];
pub(super) const QUICK: Named = ("quick", engine::quick);

/// Where tests run again, with other features or on another machine: the searches among them are short.
const FEW: [(&str, &str); 7] = [
    ("EDGELOG_STRESS_RECORDS", "500"),
    ("EDGELOG_KILL_ROUNDS", "20"),
    ("EDGELOG_CRASH_SCHEDULES", "200"),
    ("EDGELOG_CRASH_OPERATIONS", "20"),
    ("EDGELOG_TEST_VERDICTS", "30"),
    ("EDGELOG_TEST_CALLBACKS_EVERY", "19"),
    ("EDGELOG_PROPERTY_SEEDS", "20"),
];

impl Runner {
    /// `program`, run in the checkout.
    fn program<A: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut program = command(&self.root, program, arguments);
        program
            // The tests' output is read as well as shown: no progress bars in it, and no colours.
            .envs([("CARGO_TERM_PROGRESS_WHEN", "never"), ("CARGO_TERM_COLOR", "never")])
            // A panic's own line says where; sixteen frames of the test runner below each do not help.
            .env("RUST_BACKTRACE", variable("EDGELOG_TEST_BACKTRACE", "0"));
        program
    }

    /// Cargo with the Rust that is in use here: any from 1.85 on.
    fn cargo<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.program(cargo(), arguments)
    }

    /// Debian's 1.85 and nothing else of what is in PATH.
    fn cargo_185(&self, program: &str, arguments: &[&str]) -> Command {
        let mut cargo = self.program(program, arguments);
        cargo
            .envs([("CARGO", "/usr/bin/cargo"), ("RUSTC", "/usr/bin/rustc"), ("RUSTDOC", "/usr/bin/rustdoc")])
            .env("CARGO_TARGET_DIR", self.target.join("debian-1.85"));
        cargo
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut python = self.program("python3", [script]);
        python.args(arguments);
        python
    }

    /// A path below the target directory, as text.
    fn below_target(&self, path: &str) -> String {
        self.target.join(path).to_string_lossy().into_owned()
    }
}

/// The variable of the environment, or `default` where it is not set.
fn variable(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// The command with these variables in its environment.
fn with<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    mut command: Command,
    variables: impl IntoIterator<Item = (K, V)>,
) -> Command {
    command.envs(variables);
    command
}

/// An empty directory at `path`.
fn empty_directory(path: &Path) -> crate::command::Result<()> {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}
