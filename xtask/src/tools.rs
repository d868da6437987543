//! The programs that a release is built with, each in one version, installed below `target` but for Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Result, cargo, command, run};

const ZIG_VERSION: &str = "0.17.1";
const ZIGBUILD_VERSION: &str = "0.24.1";
const CYCLONEDX_VERSION: &str = "0.5.9";

/// Where they are.
pub(crate) struct Tools {
    /// Has `cargo-zigbuild`, and `python`, which has Zig.
    zig: PathBuf,
    /// Has `cargo-cyclonedx`.
    installed: PathBuf,
    /// A sysroot with Debian's standard libraries for ARM.
    pub(crate) sysroot: PathBuf,
}

impl Tools {
    /// Installs what is missing, after saying so.
    pub(crate) fn install(root: &Path) -> Result<Self> {
        let below = root.join("target/tools");
        let tools = Self { zig: below.join("zig"), installed: below.clone(), sysroot: root.join("target/arm/sysroot") };
        // The same functions as ./run and ./test use.
        let script = r#"set -euo pipefail
. tests/platforms/setup.sh
. tests/platforms/arm.sh
debian_rust_packages || fail "releases are built with Debian's Rust: on Debian 12 or 13"
apt_install "to build and try a release" "${rust_packages[@]}" "$rust_source_package" gcc make dpkg xz-utils binutils \
    python3-venv qemu-user-static gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf libc6-dev-arm64-cross \
    libc6-dev-armhf-cross || fail "$apt_error"
arm_sysroot "$PWD/target/arm" || fail "$apt_error"
"#;
        run(&mut command(root, "bash", ["-c", script]))?;
        tools.install_zig(root)?;
        tools.install_cyclonedx(root)?;
        Ok(tools)
    }

    fn install_zig(&self, root: &Path) -> Result<()> {
        let whole = self.zig.join(format!("is-whole-{ZIG_VERSION}-{ZIGBUILD_VERSION}"));
        if whole.exists() {
            return Ok(());
        }
        eprintln!("Installing Zig {ZIG_VERSION} and cargo-zigbuild {ZIGBUILD_VERSION} from PyPI");
        eprintln!("  why: to link static programs for each architecture, with musl's C library");
        let _ = std::fs::remove_dir_all(&self.zig);
        run(command(root, "python3", ["-m", "venv"]).arg(&self.zig))?;
        let packages = [format!("ziglang=={ZIG_VERSION}"), format!("cargo-zigbuild=={ZIGBUILD_VERSION}")];
        run(command(root, self.zig.join("bin/pip"), ["install", "--quiet", "--only-binary", ":all:"]).args(packages))?;
        std::fs::write(&whole, "").map_err(|error| format!("{}: {error}", whole.display()))
    }

    fn install_cyclonedx(&self, root: &Path) -> Result<()> {
        let why = "to write down what a release is made of";
        cargo_install(root, &self.installed, "cargo-cyclonedx", CYCLONEDX_VERSION, why).map(|_| ())
    }

    /// Debian's cargo and rustc, and nothing of another toolchain.
    pub(crate) fn debian_rust(command: &mut Command) {
        command.env("RUSTC", "/usr/bin/rustc").env("CARGO", "/usr/bin/cargo").env_remove("RUSTUP_TOOLCHAIN");
    }

    /// `cargo-zigbuild`, with Debian's Rust and Zig.
    pub(crate) fn zigbuild(&self, source: &Path) -> Command {
        let mut zigbuild = command(source, self.zig.join("bin/cargo-zigbuild"), ["zigbuild"]);
        let path = std::env::var("PATH").unwrap_or_default();
        zigbuild.env("PATH", format!("{}:{path}", self.zig.join("bin").display()));
        Self::debian_rust(&mut zigbuild);
        zigbuild
    }

    /// `cargo-cyclonedx`.
    pub(crate) fn cyclonedx(&self, source: &Path) -> Command {
        command(source, self.installed.join(format!("bin/cargo-cyclonedx-{CYCLONEDX_VERSION}")), ["cyclonedx"])
    }
}

/// Builds a program of crates.io in this version below `directory`, where it is not there yet. Returns its path.
pub(crate) fn cargo_install(root: &Path, directory: &Path, name: &str, version: &str, why: &str) -> Result<PathBuf> {
    let (installed, target) = (directory.join(format!("bin/{name}")), directory.join("target"));
    let of_version = directory.join(format!("bin/{name}-{version}"));
    if of_version.exists() {
        return Ok(of_version);
    }
    eprintln!("Building {name} {version} from crates.io");
    eprintln!("  why: {why}");
    // Sooner built than run.
    let mut install = command(root, cargo(), ["install", name, "--locked", "--debug", "--force"]);
    install.args(["--version", &format!("={version}"), "--root"]).arg(directory).env("CARGO_TARGET_DIR", &target);
    run(&mut install)?;
    let _ = std::fs::remove_dir_all(target);
    let moved = std::fs::rename(&installed, &of_version);
    moved.map_err(|error| format!("{}: {error}", installed.display()))?;
    Ok(of_version)
}
