//! libedgelog from C, C++ and Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::super::packages;
use super::super::runner::{Runner, Stage};
use super::with;
use crate::command::{Result, cargo, output, run};

/// The header is made by one version of its generator.
const CBINDGEN_VERSION: &str = "0.29.0";

pub(super) fn ffi(stage: &Stage) {
    let runner = stage.runner;
    stage.step("faults and random calls", runner.cargo(["test", "-p", "edgelog-ffi", "--locked"]));
    let compilers = ["gcc", "g++", "clang", "make", "pkg-config", "binutils", "libc6-dev"];
    if !stage.has("ffi", stage.install("to call the library from C and C++, installed", &compilers)) {
        return;
    }
    if !stage.step("the library, installed, and programs with gcc and clang", ffi_run(runner, &["build"])) {
        return;
    }
    // An emulated processor is slow: it works next to what follows.
    thread::scope(|scope| {
        if stage.has("the programs on armv7", need_armv7(stage)) {
            scope.spawn(|| stage.step_on_one("programs on armv7", ffi_run(runner, &["armv7"])));
        }
        on_this_machine(stage);
    });
}

fn on_this_machine(stage: &Stage) {
    let runner = stage.runner;
    stage.step_on_one("what the library is", ffi_run(runner, &["library"]));
    stage.step_on_one("programs", ffi_run(runner, &["programs", "plain"]));
    let valgrind = stage.install("to run the programs under Valgrind", &["valgrind", "libc6-dbg"]);
    if stage.has("the programs under Valgrind", valgrind) {
        stage.step_on_one("programs under Valgrind", ffi_run(runner, &["programs", "valgrind"]));
    }
    stage.step_on_one("programs and library under AddressSanitizer", ffi_run(runner, &["programs", "asan"]));
    let why = "to call the library from Python";
    let python = packages::need(&runner.root, "python3", why, &["python3-minimal"]);
    if stage.has("Python, from the header alone", python) {
        stage.step_on_one("Python, from the header alone", ffi_run(runner, &["python"]));
    }
    let cmake = stage.install("to build examples/c against the installed library", &["cmake"]);
    if stage.has("CMake and examples/c", cmake)
        && stage.step_on_one("CMake finds it, shared and static", ffi_run(runner, &["cmake"]))
    {
        stage.step_on_one("a loop and its follower, killed", ffi_run(runner, &["example"]));
    }
    match need_cbindgen(runner) {
        Ok(cbindgen) => {
            stage.step_on_one("header and abi.txt", ffi_run(runner, &["abi", &cbindgen.to_string_lossy()]));
        }
        Err(why) => stage.leave_out("the header's drift", &why),
    }
}

fn ffi_run(runner: &Runner, arguments: &[&str]) -> Command {
    with(runner.program("ffi/tests/run", arguments), [("CARGO", cargo())])
}

fn need_armv7(stage: &Stage) -> Result<()> {
    let runner = stage.runner;
    packages::need_rust_185(&runner.root)?;
    let needed = ["qemu-user-static", "gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"];
    stage.install("to build and run the programs on 32-bit ARM", &needed)?;
    packages::arm_sysroot(&runner.root, &runner.target.join("arm"))
}

fn need_cbindgen(runner: &Runner) -> Result<PathBuf> {
    let tools = runner.target.join("tools");
    let cbindgen = tools.join("bin/cbindgen");
    let has_it = |path: &Path| output(&mut runner.program(path, ["--version"])).ok();
    if cbindgen.exists() && has_it(&cbindgen).is_some_and(|version| version == format!("cbindgen {CBINDGEN_VERSION}")) {
        return Ok(cbindgen);
    }
    eprintln!("Building cbindgen {CBINDGEN_VERSION} into {}", tools.display());
    eprintln!("  why: to see that include/edgelog.h is what the sources say");
    let mut install = runner.cargo(["install", "cbindgen", "--locked", "--debug", "--quiet", "--version"]);
    install.arg(format!("={CBINDGEN_VERSION}")).arg("--root").arg(&tools);
    run(install.env("CARGO_TARGET_DIR", tools.join("target")))?;
    let _ = std::fs::remove_dir_all(tools.join("target"));
    Ok(cbindgen)
}
