//! The oldest Rust that edgelog supports, and processors other than this machine's.

use std::process::Command;

use super::super::packages;
use super::super::runner::{Runner, Stage};
use super::{FEW, with};

/// An emulated processor is ten times slower: the searches have their length on this machine.
const FEWER: [(&str, &str); 8] = [
    ("EDGELOG_CRASH_SCHEDULES", "10"),
    ("EDGELOG_CLIENT_SCHEDULES", "10"),
    ("EDGELOG_PROPERTY_SEEDS", "5"),
    ("EDGELOG_KILL_ROUNDS", "8"),
    ("EDGELOG_TEST_VERDICTS", "10"),
    ("EDGELOG_TEST_FEWER", "4"),
    ("EDGELOG_TEST_SEEDS", "5"),
    ("PROPTEST_CASES", "32"),
];

/// A processor of which Debian has an emulator, a linker and Rust's standard library.
struct Emulated {
    step: &'static str,
    triple: &'static str,
    gnu: &'static str,
    qemu: &'static str,
    tests: &'static [&'static str],
    skips: &'static [&'static str],
    /// The searches of what clients keep: as long as all the other tests.
    searches: Option<&'static str>,
}

/// On 64 bits what threads, files and signals do there. A simulated disk has none of them, and gibibytes are read there
/// as they are here.
const AARCH64: Emulated = Emulated {
    step: "aarch64, Rust 1.85",
    triple: "aarch64-unknown-linux-gnu",
    gnu: "aarch64-linux-gnu",
    qemu: "qemu-aarch64-static",
    tests: &["--lib", "--test", "engine"],
    skips: &["longer_than_a_segment_can_be", "beyond_two_gibibytes", "as_large_as_its_topic_allows", SEARCHES],
    searches: None,
};
/// Everything but the examples where words have 32 bits; what reads the sources says the same on every machine.
const ARMV7: Emulated = Emulated {
    step: "armv7, Rust 1.85",
    triple: "armv7-unknown-linux-gnueabihf",
    gnu: "arm-linux-gnueabihf",
    qemu: "qemu-arm-static",
    tests: &[
        "--lib",
        "--test",
        "engine",
        "--test",
        "crash",
        "--test",
        "damage",
        "--test",
        "memory",
        "--test",
        "callbacks",
        "--test",
        "full_disk",
        "--test",
        "readable",
        "--test",
        "verdicts",
    ],
    skips: &["longer_than_a_segment_can_be", SEARCHES],
    searches: Some("armv7, what clients keep"),
};
/// What stands in the names of these searches, and of no other test.
const SEARCHES: &str = "::crash::";

pub(super) fn msrv_arm(stage: &Stage) {
    let runner = stage.runner;
    if !stage.has("msrv-arm", packages::need_rust_185(&runner.root)) {
        return;
    }
    // A fresh Debian lints with this clippy, whose lints differ from today's: the code has to please both. It is called
    // by its path, since cargo would look in ~/.cargo/bin first.
    let why = "to lint as Debian's Rust does";
    let lints = packages::install_debian_rust(&runner.root, why, "rust_lint_packages");
    if stage.has("all of it with the clippy of Rust 1.85", lints) {
        let arguments =
            ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
        let clippy = runner.cargo_185("/usr/bin/cargo-clippy", &arguments);
        stage.step_on_one("all of it with the clippy of Rust 1.85", clippy);
    }
    // The core's examples in the documentation here, the engine's with today's Rust in `unit`; its tests on ARM below.
    let examples = runner.cargo_185("/usr/bin/cargo", &["test", "-p", "edgelog-core", "--locked", "--doc"]);
    stage.step_on_one("examples, Rust 1.85", examples);
    let valgrind = stage.install("to count instructions", &["valgrind"]);
    if stage.has("instructions, compared with the ledger", valgrind) {
        stage.step_on_one("instructions, compared with the ledger", runner.cargo(["xtask", "instructions"]));
    }

    let packages = [
        "qemu-user-static",
        "gcc-aarch64-linux-gnu",
        "gcc-arm-linux-gnueabihf",
        "libc6-dev-arm64-cross",
        "libc6-dev-armhf-cross",
    ];
    let emulators = stage
        .install("to build and run the tests for ARM Linux", &packages)
        .and_then(|()| packages::arm_sysroot(&runner.root, &runner.target.join("arm")));
    if !stage.has("msrv-arm on aarch64 and armv7", emulators) {
        return;
    }
    // What is built for the one first leaves the other's build to run next to its tests.
    if !stage.step("build for armv7", ARMV7.build(runner)) {
        return;
    }
    std::thread::scope(|scope| {
        for processor in [&ARMV7, &AARCH64] {
            if let Some(step) = processor.searches {
                scope.spawn(move || stage.step_on_one(step, processor.searches(runner)));
            }
            scope.spawn(move || stage.step_on_one(processor.step, processor.tests(runner)));
        }
    });
}

impl Emulated {
    fn build(&self, runner: &Runner) -> Command {
        let mut build = self.cargo_test(runner);
        build.args(self.tests).arg("--no-run");
        build
    }

    fn tests(&self, runner: &Runner) -> Command {
        let mut tests = self.cargo_test(runner);
        tests.args(self.tests).arg("--");
        for skip in self.skips {
            tests.args(["--skip", skip]);
        }
        tests
    }

    fn searches(&self, runner: &Runner) -> Command {
        let mut searches = self.cargo_test(runner);
        searches.args(["--lib", "--", SEARCHES]);
        searches
    }

    fn cargo_test(&self, runner: &Runner) -> Command {
        let mut tests = runner.cargo_185(
            "/usr/bin/cargo",
            &["test", "-p", "edgelog-core", "-p", "edgelog", "--locked", "--no-fail-fast", "--target", self.triple],
        );
        let emulator = format!("{} -L /usr/{}", self.qemu, self.gnu);
        let variable = format!("CARGO_TARGET_{}", self.triple.replace('-', "_").to_uppercase());
        tests
            .env(format!("{variable}_LINKER"), format!("{}-gcc", self.gnu))
            .env(format!("{variable}_RUNNER"), &emulator)
            .env(format!("{variable}_RUSTFLAGS"), format!("--sysroot={}", runner.below_target("arm/sysroot")))
            .env("EDGELOG_TEST_EMULATOR", &emulator);
        with(with(tests, FEW), FEWER)
    }
}

pub(super) fn bare_metal(stage: &Stage) {
    let runner = stage.runner;
    let root = &runner.root;
    let sources = packages::need_rust_185(root).and_then(|()| {
        packages::install_debian_rust(root, "to build Rust's core library for a Cortex-M", "rust_source_package")
    });
    if !stage.has("bare-metal", sources) {
        return;
    }
    let build = |arguments: &[&str]| {
        let core = ["build", "-p", "edgelog-core", "--no-default-features", "--locked", "--target", THUMB];
        let mut build = runner.cargo_185("/usr/bin/cargo", &core);
        build.args(arguments).env("RUSTC_BOOTSTRAP", "1");
        build
    };
    stage.step("core without alloc", build(&["-Zbuild-std=core"]));
    stage.step("core with alloc", build(&["-Zbuild-std=core,alloc", "--features", "alloc"]));
    // The target has no std: what built above uses none. This proves that it has none.
    let with_std = build(&["-Zbuild-std=core,alloc", "--features", "std"]);
    let refused = r#"! output=$("$@" 2>&1) && grep -m 1 "E0463" <<<"$output""#;
    let mut fails = runner.program("bash", ["-c", refused, "-"]);
    fails.arg(with_std.get_program()).args(with_std.get_args());
    fails.envs(with_std.get_envs().filter_map(|(name, value)| Some((name, value?))));
    stage.step("std cannot be had there", fails);

    let why = "to run it on an emulated Cortex-M4F";
    if stage.has("bare-metal under qemu", stage.install(why, &["qemu-system-arm", "binutils-arm-none-eabi"])) {
        let manifest = "tests/platforms/bare_metal/Cargo.toml";
        let run = ["run", "--manifest-path", manifest, "--release", "--locked", "--target", THUMB, "-Zbuild-std=core"];
        let variables = [
            ("RUSTC_BOOTSTRAP", "1"),
            ("CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER", "arm-none-eabi-ld"),
            ("CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS", "-C link-arg=-Tlink.x"),
            ("CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUNNER", BOARD),
        ];
        stage.step("runs on a Cortex-M4F", with(runner.cargo_185("/usr/bin/cargo", &run), variables));
    }
}

const THUMB: &str = "thumbv7em-none-eabihf";
const BOARD: &str = "qemu-system-arm -M mps2-an386 -cpu cortex-m4 -nographic -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel";
