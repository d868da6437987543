//! What the project does besides building and testing. `cargo xtask` lists it.

mod archive;
mod changelog;
mod command;
mod dependencies;
mod instructions;
mod release;
mod target;
mod test;
mod tools;

use std::process::ExitCode;

use release::Options;

const HELP: &str = "\
cargo xtask release [VERSION] [OPTION...]

Builds what a release consists of from the commit that is checked out, and leaves it in target/release-VERSION:

  edgelog-VERSION-ARCHITECTURE-linux.tar.gz     the command line, one static program, with man pages and completions
  edgelog_VERSION_ARCHITECTURE.deb              the same for Debian and what descends from it
  libedgelog-VERSION-ARCHITECTURE-linux-gnu.tar.gz   the C library, its header, files for pkg-config and CMake
  edgelog-VERSION.tar.gz                        the sources
  edgelog-VERSION.cdx.json                      what it is made of (CycloneDX)
  SHA256SUMS                                    of all of them

Everything is built twice from an empty directory, and the release fails where one byte differs.

With VERSION (it has to be the one in Cargo.toml), the section `Unreleased` of CHANGELOG.md gets the version and today's
date, that is committed, and when all is built the commit gets the tag vVERSION. Nothing is pushed.
Without it, a snapshot is built, and the repository stays as it is.

Options:
  --only ARCHITECTURE   x86_64, aarch64 or armv7; may be given more than once
  --once                build once: faster, and not shown to be reproducible
  -h, --help

It needs Debian 12 or 13 on x86-64, for its Rust 1.85, and installs what is missing, after saying so: Debian's compilers
for ARM and Rust's sources, Zig and cargo-zigbuild from PyPI, cargo-cyclonedx from crates.io. About 20 minutes on two
processors, twice.

cargo xtask dependencies

Builds the library with the oldest versions of its direct dependencies that the manifests allow, and with the newest of
all that there is. `./test --only unit` runs it.

cargo xtask instructions [--write]

Counts the instructions of an append, of a record read, of an open, with Debian's Rust 1.85 and Valgrind, and fails
where one takes 2 % more than benches/instructions.txt says; with --write it writes that file. `./test --only msrv-arm`
runs it.

cargo xtask test [--quick | --only STAGE,... | --list | --help]

Runs the tests. Call it as ./test, which gets a Rust first and says to cargo how it builds.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_help = |argument: &String| argument == "-h" || argument == "--help";
    match arguments.split_first() {
        Some((task, options)) if task == "test" => return exit(test::run(options)),
        Some(_) if !arguments.iter().any(is_help) => {}
        _ => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
    }
    let done = match arguments[0].as_str() {
        "release" => Options::parse(&arguments[1..]).and_then(|options| release::run_release(&options)),
        "instructions" if arguments.len() == 1 => instructions::count(false),
        "instructions" if arguments.len() == 2 && arguments[1] == "--write" => instructions::count(true),
        "dependencies" if arguments.len() == 1 => dependencies::check(),
        other => Err(format!("no task `{other}` with these arguments; `cargo xtask --help` lists what there is")),
    };
    exit(done.map(|()| true))
}

fn exit(done: command::Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
