//! What the tests need of the system: Debian's packages, by the functions that ./run and ./test share.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{Result, command, output};

/// Calls a function of tests/platforms; where it fails, the reason is what it left in `apt_error`.
fn call(root: &Path, function: &str, arguments: &[&str]) -> Result<()> {
    let script = r#". tests/platforms/setup.sh
. tests/platforms/arm.sh
apt_error=
if [ "$1" = arm_sysroot ]; then debian_rust_packages; fi
"$@" || { printf '%s' "${apt_error:-$1}"; exit 1; }"#;
    let mut call = command(root, "bash", ["-euo", "pipefail", "-c", script, "-", function]);
    // A person may have to type a password.
    let done = call.args(arguments).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output();
    let done = done.map_err(|error| format!("bash: {error}"))?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stdout).trim().to_owned()) }
}

/// Installs what is missing of `packages`, after saying so.
pub(super) fn install(root: &Path, why: &str, packages: &[&str]) -> Result<()> {
    let mut arguments = vec![why];
    arguments.extend(packages);
    call(root, "apt_install", &arguments)
}

/// As [`install`], where `program` is not there already by other ways.
pub(super) fn need(root: &Path, program: &str, why: &str, packages: &[&str]) -> Result<()> {
    match install(root, why, packages) {
        Err(_) if has(program) => Ok(()),
        done => done,
    }
}

/// Whether `program` is in PATH.
pub(super) fn has(program: &str) -> bool {
    find(program).is_some()
}

/// The path of `program`.
pub(super) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Whether commands can be run as root: as root, or by sudo, which may ask for a password on a terminal.
pub(super) fn can_be_root(root: &Path) -> bool {
    call(root, "can_be_root", &[]).is_ok()
}

/// `program`, run as root. sudo keeps nothing of the environment, so `variables` are given by `env`.
pub(super) fn as_root(root: &Path, variables: &[(&str, String)]) -> Command {
    let is_root = call(root, "is_root", &[]).is_ok();
    let mut command = if is_root { command(root, "env", [""; 0]) } else { command(root, "sudo", ["env"]) };
    command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    command
}

/// Debian's standard libraries of Rust 1.85 for ARM, unpacked below `directory`.
pub(super) fn arm_sysroot(root: &Path, directory: &Path) -> Result<()> {
    call(root, "arm_sysroot", &[&directory.to_string_lossy()])
}

/// Debian's packages of a kind: `rust_packages`, `rust_lint_packages` or `rust_source_package`.
fn debian_rust(root: &Path, kind: &str) -> Result<Vec<String>> {
    let script = format!(". tests/platforms/setup.sh; debian_rust_packages && printf '%s\\n' \"${{{kind}[@]}}\"");
    let listed = output(&mut command(root, "bash", ["-euo", "pipefail", "-c", &script]))
        .map_err(|_| "Rust 1.85 comes from Debian 12's or 13's packages, and this is neither".to_owned())?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Installs Debian's packages of a kind.
pub(super) fn install_debian_rust(root: &Path, why: &str, kind: &str) -> Result<()> {
    let packages = debian_rust(root, kind)?;
    install(root, why, &packages.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Debian's own toolchain, the oldest that edgelog supports, next to any other.
pub(super) fn need_rust_185(root: &Path) -> Result<()> {
    install_debian_rust(root, "Rust 1.85, the oldest that edgelog supports, next to any other", "rust_packages")?;
    for program in ["/usr/bin/rustc", "/usr/bin/cargo"] {
        let version = output(&mut command(root, program, ["--version"]))?;
        if !version.split(' ').nth(1).is_some_and(|version| version.starts_with("1.85.")) {
            return Err(format!("{program} is `{version}`, not Rust 1.85"));
        }
    }
    Ok(())
}
