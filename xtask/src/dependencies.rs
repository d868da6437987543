//! `cargo xtask dependencies`: the library with the oldest and with the newest versions of what it depends on.

use std::path::Path;

use crate::archive::make_directory;
use crate::command::{Result, cargo, command, output, run, rust_minor};

/// The crates that others depend on. The command line and the benchmarks bring dependencies that are theirs alone.
const LIBRARY: [&str; 3] = [".", "no_std_core", "ffi"];

/// Checks the library with every direct dependency at the lowest version that its manifest allows, and with everything
/// at the newest. It needs the network for what is not downloaded yet.
pub(crate) fn check() -> Result<()> {
    let root = output(&mut command(Path::new("."), "git", ["rev-parse", "--show-toplevel"]))?;
    let root = Path::new(&root);
    // `-Z direct-minimal-versions` is cargo's, and only asked for; nothing is compiled with an unstable compiler.
    let oldest = ["-Zdirect-minimal-versions", "--quiet", "generate-lockfile"];
    for (name, lock) in [("oldest", &oldest[..]), ("newest", &["--quiet", "update"])] {
        println!("\n=== {name}");
        let copy = root.join("target/dependencies").join(name);
        copy_library(root, &copy)?;
        run(command(&copy, cargo(), lock)
            .env("RUSTC_BOOTSTRAP", "1")
            // Who has a newer Rust than the oldest that edgelog supports gets what asks for it.
            .env("CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS", if rust_minor()? >= 90 { "allow" } else { "fallback" }))?;
        let mut check =
            command(&copy, cargo(), ["check", "--quiet", "--locked", "--workspace", "--lib", "--all-features"]);
        run(check.env("CARGO_TARGET_DIR", root.join("target/dependencies/target")))?;
    }
    println!("\nThe library builds with the oldest and with the newest versions of its dependencies.");
    Ok(())
}

/// Today's files, those that are not committed too, as a workspace of the library alone.
fn copy_library(root: &Path, copy: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(copy);
    make_directory(copy)?;
    let script = r#"set -euo pipefail
git ls-files -z --cached --others --exclude-standard |
    tar --null --ignore-failed-read -cf - -T - | tar -xf - -C "$COPY""#;
    run(command(root, "bash", ["-c", script]).env("COPY", copy))?;
    let manifest = copy.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
    std::fs::write(&manifest, of_the_library(&text)?).map_err(|error| format!("{}: {error}", manifest.display()))
}

/// The workspace's manifest with the library's crates as its only members.
fn of_the_library(manifest: &str) -> Result<String> {
    let members = |key: &str| format!("{key} = {LIBRARY:?}");
    let lines: Vec<String> = manifest
        .lines()
        .map(|line| match line.split_once(" = [") {
            Some((key @ ("members" | "default-members"), _)) => members(key),
            _ => line.to_owned(),
        })
        .collect();
    if lines.iter().filter(|line| line.contains(&format!("{LIBRARY:?}"))).count() == 2 {
        Ok(lines.join("\n") + "\n")
    } else {
        Err("Cargo.toml names its members in other lines than `members = [` and `default-members = [`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_of_the_library_has_no_other_member() {
        let manifest = "[workspace]\nmembers = [\".\", \"cli\"]\ndefault-members = [\".\"]\nresolver = \"3\"\n";
        let library = of_the_library(manifest).unwrap();
        assert!(!library.contains("cli"), "{library}");
        assert_eq!(library.matches("\"no_std_core\"").count(), 2, "{library}");
        assert!(library.ends_with("resolver = \"3\"\n"), "{library}");
        assert!(of_the_library("[workspace]\n").is_err());
    }
}
