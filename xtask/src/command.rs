//! Other programs, and what they answer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a task ends with where it cannot go on: a sentence for a person.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// `program` with `arguments`, to be run in `directory`.
pub(crate) fn command<A: AsRef<OsStr>>(
    directory: &Path,
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    command
}

/// Runs it; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{}: {error}", words(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", words(command))) }
}

/// Runs it and returns what it printed, without the white space at the end.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{}: {error}", words(command)))?;
    if !done.status.success() {
        return Err(format!("`{}` ended with {}", words(command), done.status));
    }
    let text = String::from_utf8(done.stdout).map_err(|_| format!("`{}` printed no text", words(command)))?;
    Ok(text.trim_end().to_owned())
}

/// The cargo in use: the one that runs this, or that `./test` names.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// The minor version of the Rust in use: 85 of 1.85.0.
pub(crate) fn rust_minor() -> Result<u32> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(&mut command(Path::new("."), rustc, ["--version"]))?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    minor.ok_or_else(|| format!("rustc --version says {version}"))
}

/// The command in one line: of a script, what it begins with.
fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    let line = words.join(" ");
    match line.split_once('\n') {
        Some((first, _)) => format!("{first} ..."),
        None => line,
    }
}
