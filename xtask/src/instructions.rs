//! `cargo xtask instructions`: how many instructions the engine's most frequent calls take, compared with a ledger.
//!
//! Valgrind counts what the program `benches/instructions.rs` does inside one function, so the count does not depend on
//! what else the machine does. It depends on the compiler, though: the ledger names the one it was made with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{Result, command, output, run};
use crate::tools::Tools;

const LEDGER: &str = "benches/instructions.txt";
/// The function of that program inside which it is counted.
const COUNTED: &str = "*run_and_count*";
/// So much more than the ledger says is a failure.
const MORE_MAX_PER_MILLE: u64 = 20;
/// So much may change without a word.
const NOISE_PER_MILLE: u64 = 5;

/// Counts, and compares with the ledger or writes it.
pub(crate) fn count(writes: bool) -> Result<()> {
    let root = output(&mut command(Path::new("."), "git", ["rev-parse", "--show-toplevel"]))?;
    let root = Path::new(&root);
    let compiler = output(&mut command(root, "/usr/bin/rustc", ["--version"]))
        .map_err(|error| format!("{error}; the counts are of Debian's compiler: apt-get install rustc cargo"))?;
    let ledger = Ledger::read(&root.join(LEDGER))?;
    if !writes && ledger.compiler != compiler {
        println!(
            "LEFT OUT: {LEDGER} was made with `{}`, and this is `{compiler}`: their counts differ, and",
            ledger.compiler
        );
        println!("nothing was compared. `cargo xtask instructions --write` makes a ledger for this one.");
        return Ok(());
    }
    let counted = Ledger { compiler, counts: count_all(root)? };
    if writes {
        counted.write(&root.join(LEDGER))?;
    }
    let worse = ledger.compare(&counted);
    if worse.is_empty() || writes {
        return Ok(());
    }
    Err(format!(
        "more than {} % above {LEDGER}: {}. Where that is meant, `cargo xtask instructions --write` writes it.",
        MORE_MAX_PER_MILLE / 10,
        worse.join(", ")
    ))
}

/// Builds the program and lets Valgrind count each of its works.
fn count_all(root: &Path) -> Result<BTreeMap<String, u64>> {
    let target = root.join("target/instructions");
    let build = ["build", "--quiet", "--release", "--locked", "-p", "edgelog-benches", "--bin", "instructions"];
    let mut build = command(root, "/usr/bin/cargo", build);
    Tools::debian_rust(&mut build);
    // Valgrind finds the function by its name.
    run(build.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_RELEASE_STRIP", "false").env_remove("RUSTFLAGS"))?;
    let program = target.join("release/instructions");
    let works = output(&mut Command::new(&program))?;
    let mut counts = BTreeMap::new();
    for line in works.lines() {
        let (name, times) = line.split_once(' ').ok_or_else(|| format!("{line:?} is no work and its number"))?;
        let times: u64 = times.parse().map_err(|_| format!("{times:?} is no number"))?;
        // Of one length on every machine: a durable append asks for the status of its files by their paths, which takes
        // five instructions a letter.
        let directory = PathBuf::from(format!("/tmp/edgelog-instructions-{:010}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let counted = count_one(&program, name, &directory)?;
        let _ = std::fs::remove_dir_all(&directory);
        counts.insert(name.to_owned(), counted / times);
    }
    Ok(counts)
}

fn count_one(program: &Path, name: &str, directory: &Path) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .arg(name)
        .arg(directory)
        .stdin(Stdio::null());
    let done = valgrind.output().map_err(|error| format!("valgrind: {error}; apt-get install valgrind"))?;
    let text = String::from_utf8_lossy(&done.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let counted: Option<u64> = collected.and_then(|(_, count)| count.trim().parse().ok());
    match counted.filter(|&count| done.status.success() && count > 0) {
        Some(count) => Ok(count),
        None => Err(format!("valgrind counted nothing of {name}:\n{text}")),
    }
}

/// Instructions by what takes them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ledger {
    compiler: String,
    counts: BTreeMap<String, u64>,
}

impl Ledger {
    /// The ledger at `path`; an empty one where there is none.
    fn read(path: &Path) -> Result<Ledger> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ledger::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ledger::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                if let Some(compiler) = comment.trim().strip_prefix("compiler: ") {
                    compiler.clone_into(&mut ledger.compiler);
                }
                continue;
            }
            let fields = line.split_once(' ').and_then(|(name, count)| Some((name, count.trim().parse().ok()?)));
            let (name, count) = fields.ok_or_else(|| format!("{LEDGER}: {line:?} is no name and a number"))?;
            ledger.counts.insert(name.to_owned(), count);
        }
        Ok(ledger)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!(
            "# Instructions of one append, one record read, one open; benches/README.md says what is counted and how.\n\
             # `cargo xtask instructions --write` writes this file.\n# compiler: {}\n",
            self.compiler
        );
        for (name, count) in &self.counts {
            let _ = writeln!(text, "{name} {count}");
        }
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Prints both, and returns what takes too many more in `now`, or is in one of them alone.
    fn compare(&self, now: &Ledger) -> Vec<String> {
        let mut worse = Vec::new();
        for (name, &count) in &now.counts {
            let Some(&before) = self.counts.get(name) else {
                println!("{name:<24} {count:>12}  new");
                worse.push(format!("{name} is not in it"));
                continue;
            };
            let change = (i128::from(count) - i128::from(before)) * 1000 / i128::from(before.max(1));
            let is_fewer = count * 1000 < before * (1000 - NOISE_PER_MILLE);
            let hint = if is_fewer { "  fewer: write the ledger" } else { "" };
            println!("{name:<24} {count:>12}  {change:+} per mille{hint}");
            if count * 1000 > before * (1000 + MORE_MAX_PER_MILLE) {
                worse.push(format!("{name} takes {count} instead of {before}"));
            }
        }
        let gone = self.counts.keys().filter(|name| !now.counts.contains_key(*name));
        worse.extend(gone.map(|name| format!("{name} is counted no more")));
        worse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(counts: &[(&str, u64)]) -> Ledger {
        let counts = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Ledger { compiler: "rustc 1.85.0".to_owned(), counts }
    }

    #[test]
    fn two_percent_more_fails_and_less_does_not() {
        let before = ledger(&[("append", 1000), ("scan", 50)]);
        let failures = |now: &[(&str, u64)]| before.compare(&ledger(now)).len();
        assert_eq!(failures(&[("append", 1020), ("scan", 51)]), 0);
        assert_eq!(failures(&[("append", 1021), ("scan", 51)]), 1);
        assert_eq!(failures(&[("append", 10), ("scan", 52)]), 1);
        assert_eq!(failures(&[("append", 1000)]), 1, "what is not counted any more is no improvement");
        assert_eq!(failures(&[("append", 1000), ("scan", 50), ("open", 1)]), 1);
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("edgelog-ledger-{}", std::process::id()));
        let written = ledger(&[("append-os", 357), ("open", 1_000_000)]);
        written.write(&path).unwrap();
        assert_eq!(Ledger::read(&path).unwrap(), written);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Ledger::read(&path).unwrap(), Ledger::default());
        assert!(Ledger::parse("append many").is_err());
    }
}
