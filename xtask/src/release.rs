//! `cargo xtask release`: what a release consists of, built twice to the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{Tree, make_directory};
use crate::changelog;
use crate::command::{Result, command, output, run};
use crate::target::{self, Target};
use crate::tools::Tools;

/// What was asked for.
pub(crate) struct Options {
    /// None: a snapshot.
    version: Option<String>,
    targets: Vec<&'static Target>,
    once: bool,
}

impl Options {
    /// From the words behind `release`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { version: None, targets: Vec::new(), once: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--once" => options.once = true,
                "--only" => {
                    let name = arguments.next().ok_or("--only needs an architecture")?;
                    options.targets.push(target::named(name)?);
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}; `cargo xtask release --help` lists them"));
                }
                version if options.version.is_none() => options.version = Some(version.to_owned()),
                second => return Err(format!("one version and no more: {second}")),
            }
        }
        if options.targets.is_empty() {
            options.targets.extend(&target::ALL);
        } else if options.version.is_some() {
            return Err("a release is for all architectures: --only goes with a snapshot, without a version".to_owned());
        }
        if options.once && options.version.is_some() {
            return Err("a release is built twice: --once goes with a snapshot, without a version".to_owned());
        }
        Ok(options)
    }
}

/// One commit on its way into archives.
struct Release<'o> {
    /// The repository.
    root: PathBuf,
    options: &'o Options,
    tools: Tools,
    /// As in the archives' names.
    version: String,
    /// The commit's time, in seconds: every file in the archives has it.
    time: String,
    /// Below it all is built, at the same path each time: paths are part of what a compiler reads.
    work: PathBuf,
}

/// Builds it, and where a version is named, makes the commit and the tag.
pub(crate) fn run_release(options: &Options) -> Result<()> {
    let root = PathBuf::from(output(&mut command(Path::new("."), "git", ["rev-parse", "--show-toplevel"]))?);
    let stands = version_of(&read(&root.join("Cargo.toml"))?)?;
    let changes = output(&mut command(&root, "git", ["status", "--porcelain", "--untracked-files=no"]))?;
    if !changes.is_empty() {
        return Err(format!("a release is built from a commit, and these files differ from it:\n{changes}"));
    }
    let version = match &options.version {
        Some(version) if *version != stands => {
            return Err(format!("the version in Cargo.toml is {stands}, not {version}"));
        }
        Some(version) => {
            commit_changelog(&root, version)?;
            version.clone()
        }
        None => {
            let commit = output(&mut command(&root, "git", ["rev-parse", "--short=12", "HEAD"]))?;
            format!("{stands}~{commit}")
        }
    };
    let tools = Tools::install(&root)?;
    let time = output(&mut command(&root, "git", ["log", "-1", "--format=%ct"]))?;
    let work = root.join("target/release-build");
    let release = Release { root, options, tools, version, time, work };
    let dist = release.root.join(format!("target/release-{}", release.version));
    release.build_into(&dist)?;
    if !options.once {
        let again = release.work.join("again");
        release.build_into(&again)?;
        same_bytes(&dist, &again)?;
        println!("Built twice: the same bytes.");
    }
    if options.version.is_some() {
        release.tag()?;
    }
    println!("{}", dist.display());
    for (name, size) in sizes(&dist)? {
        println!("  {size:>11}  {name}");
    }
    Ok(())
}

impl Release<'_> {
    /// All archives, from an empty directory.
    fn build_into(&self, dist: &Path) -> Result<()> {
        for emptied in [dist, &self.source(), &self.work.join("target"), &self.work.join("trees")] {
            let _ = fs::remove_dir_all(emptied);
            make_directory(emptied)?;
        }
        self.export_sources(dist)?;
        // The pages and completions are the same everywhere, and this machine can run one of the programs.
        let pages = self.work.join("trees/pages");
        for (n, target) in self.options.targets.iter().enumerate() {
            println!("\n=== {}", target.architecture);
            let program = self.build_program(target)?;
            try_program(&self.work, &program, target)?;
            if n == 0 {
                write_pages(&program, target, &pages)?;
            }
            self.pack_program(dist, target, &program, &pages)?;
            self.build_library(dist, target)?;
        }
        self.list_components(dist)?;
        let names: Vec<String> = sizes(dist)?.into_keys().collect();
        let sums = output(command(dist, "sha256sum", ["--"]).args(&names))?;
        fs::write(dist.join("SHA256SUMS"), format!("{sums}\n")).map_err(|error| format!("SHA256SUMS: {error}"))
    }

    fn source(&self) -> PathBuf {
        self.work.join("source")
    }

    /// The commit's files, as an archive and to build from: what is not committed is not in them.
    fn export_sources(&self, dist: &Path) -> Result<()> {
        let name = format!("edgelog-{}", self.version);
        let script = r#"set -euo pipefail
git archive --format=tar --prefix="$NAME/" HEAD | gzip -9n >"$DIST/$NAME.tar.gz"
tar -xzf "$DIST/$NAME.tar.gz" -C "$SOURCE" --strip-components=1"#;
        run(command(&self.root, "bash", ["-c", script])
            .env("NAME", name)
            .env("DIST", dist)
            .env("SOURCE", self.source()))
    }

    /// Options for compilers, so that no path of this machine stands in what they write.
    fn without_paths(&self, command: &mut std::process::Command, target: &str, more: &str) -> Result<()> {
        let home = std::env::var("CARGO_HOME")
            .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
            .map_err(|_| "neither CARGO_HOME nor HOME is set".to_owned())?;
        let source = self.source();
        let source = source.display();
        let variable = target.replace('-', "_");
        command
            .env(
                format!("CARGO_TARGET_{}_RUSTFLAGS", variable.to_uppercase()),
                format!("--remap-path-prefix={source}=/edgelog --remap-path-prefix={home}=/cargo {more}"),
            )
            .env(
                format!("CFLAGS_{variable}"),
                format!("-ffile-prefix-map={source}=/edgelog -ffile-prefix-map={home}=/cargo"),
            )
            .env("CARGO_TARGET_DIR", self.work.join("target"))
            .env("CARGO_INCREMENTAL", "0")
            .env("SOURCE_DATE_EPOCH", &self.time);
        Ok(())
    }

    /// The command line as one static program. Rust has musl's standard library from its sources: Debian packages none.
    fn build_program(&self, target: &Target) -> Result<PathBuf> {
        let mut build = self.tools.zigbuild(&self.source());
        build.args(["-Zbuild-std=std,panic_unwind", "--locked", "--release", "--package", "edgelog-cli", "--target"]);
        build.arg(target.musl).env("RUSTC_BOOTSTRAP", "1");
        // Zig brings musl and what a program begins with; Debian's Rust has no copy of its own.
        self.without_paths(&mut build, target.musl, "-Clink-self-contained=no")?;
        run(&mut build)?;
        Ok(self.work.join("target").join(target.musl).join("release/edgelog"))
    }

    /// The command line's archive and Debian's package.
    fn pack_program(&self, dist: &Path, target: &Target, program: &Path, pages: &Path) -> Result<()> {
        let trees = self.work.join("trees");
        let tree = Tree::new(trees.join(format!("program-{}", target.architecture)))?;
        tree.copy(program, "bin/edgelog")?;
        let deb = Tree::new(trees.join(format!("deb-{}", target.architecture)))?;
        deb.copy(program, "usr/bin/edgelog")?;
        for page in files(pages)? {
            let from = pages.join(&page);
            tree.copy(&from, &format!("share/{page}"))?;
            deb.copy(&from, &format!("usr/share/{page}"))?;
        }
        for document in ["README.md", "CHANGELOG.md", "SECURITY.md", "THIRD-PARTY.md", "LICENSE-APACHE", "LICENSE-MIT"]
        {
            tree.copy(&self.source().join(document), document)?;
            deb.copy(&self.source().join(document), &format!("usr/share/doc/edgelog/{document}"))?;
        }
        // README's links lead there.
        for page in files(&self.source().join("docs"))? {
            let from = self.source().join("docs").join(&page);
            tree.copy(&from, &format!("docs/{page}"))?;
            deb.copy(&from, &format!("usr/share/doc/edgelog/docs/{page}"))?;
        }
        let unit = self.source().join("examples/edgelog-bridge.service");
        tree.copy(&unit, "examples/edgelog-bridge.service")?;
        deb.copy(&unit, "usr/share/doc/edgelog/examples/edgelog-bridge.service")?;
        // Debian's name for the licences.
        deb.write(
            "usr/share/doc/edgelog/copyright",
            "edgelog: Apache-2.0 OR MIT, LICENSE-APACHE and LICENSE-MIT here.\n",
        )?;
        run(command(&trees, "bash", ["-c", "find \"$PAGES\" -name '*.1' -exec gzip -9nf {} +"])
            .env("PAGES", deb.path("usr/share/man")))?;
        tree.tar(dist, &format!("edgelog-{}-{}-linux", self.version, target.architecture), &self.time)?;
        deb.deb(dist, &self.version, target, &self.time)
    }

    /// The C library as `make install` leaves it, for programs that link glibc.
    fn build_library(&self, dist: &Path, target: &Target) -> Result<()> {
        let trees = self.work.join("trees");
        let installed = trees.join(format!("installed-{}", target.architecture));
        let mut make = command(&self.source(), "make", ["--no-print-directory", "-C", "ffi", "install"]);
        make.args(["CARGO=/usr/bin/cargo", "PREFIX=/usr/local"])
            .arg(format!("TARGET={}", target.gnu))
            .arg(format!("DESTDIR={}", installed.display()))
            .arg(format!("OUT={}", self.work.join("target").join(target.gnu).join("c").display()));
        Tools::debian_rust(&mut make);
        let mut flags = String::new();
        if let Some(linker) = target.linker {
            let variable = format!("CARGO_TARGET_{}_LINKER", target.gnu.replace('-', "_").to_uppercase());
            make.env(variable, linker);
            flags = format!("--sysroot={}", self.tools.sysroot.display());
        }
        self.without_paths(&mut make, target.gnu, &flags)?;
        run(&mut make)?;
        let tree = Tree::new(trees.join(format!("library-{}", target.architecture)))?;
        run(command(&installed, "cp", ["-a", "usr/local/."]).arg(tree.path("")))?;
        for document in ["LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY.md"] {
            tree.copy(&self.source().join(document), document)?;
        }
        tree.copy(&self.source().join("ffi/README.md"), "README.md")?;
        tree.tar(dist, &format!("libedgelog-{}-{}-linux-gnu", self.version, target.architecture), &self.time)
    }

    /// What the command line is made of: it has everything that the library has.
    fn list_components(&self, dist: &Path) -> Result<()> {
        let mut list = self.tools.cyclonedx(&self.source());
        list.args(["--format", "json", "--manifest-path", "cli/Cargo.toml", "--override-filename", "components"])
            .env("SOURCE_DATE_EPOCH", &self.time);
        run(&mut list)?;
        let from = self.source().join("cli/components.json");
        let to = dist.join(format!("edgelog-{}.cdx.json", self.version));
        // It names each list by a number of its own, and the sources by where they were built.
        let text = read(&from)?.replace(&*self.source().to_string_lossy(), "/edgelog");
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("\"serialNumber\"")).collect();
        fs::write(&to, format!("{}\n", lines.join("\n"))).map_err(|error| format!("{}: {error}", to.display()))
    }

    /// An annotated tag, with what the changelog says.
    fn tag(&self) -> Result<()> {
        let text = read(&self.root.join("CHANGELOG.md"))?;
        let says = changelog::section(&text, &self.version).unwrap_or_default();
        let message = format!("edgelog {}\n\n{says}\n", self.version);
        run(command(&self.root, "git", ["tag", "--annotate", "--cleanup=whitespace", "--message"])
            .arg(message)
            .arg(format!("v{}", self.version)))?;
        println!("Tagged v{}. `git push --follow-tags` publishes it.", self.version);
        Ok(())
    }
}

/// The commit of a release: its section in the changelog has a name and a date.
fn commit_changelog(root: &Path, version: &str) -> Result<()> {
    let tag = format!("v{version}");
    if !output(&mut command(root, "git", ["tag", "--list", &tag]))?.is_empty() {
        return Err(format!("the tag {tag} exists already"));
    }
    let path = root.join("CHANGELOG.md");
    let date = output(&mut command(root, "date", ["--utc", "+%F"]))?;
    let text = changelog::released(&read(&path)?, version, &date)?;
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    let message = format!("Release {version}");
    run(&mut command(root, "git", ["commit", "--quiet", "--message", &message, "--", "CHANGELOG.md"]))?;
    println!("Committed \"{message}\". Until it is tagged, `git reset --hard HEAD~1` undoes it.");
    Ok(())
}

/// A record that is appended, read again and checked, by the program itself; and that it is static.
fn try_program(work: &Path, program: &Path, target: &Target) -> Result<()> {
    let headers = output(command(work, "readelf", ["--program-headers", "--wide"]).arg(program))?;
    if headers.contains("INTERP") {
        return Err(format!("{} is not static: it asks for a loader", program.display()));
    }
    let store = work.join("trees/tried");
    let _ = fs::remove_dir_all(&store);
    let script = r#"set -euo pipefail
echo "a record" | $RUN --dir "$STORE" append tried --quiet
[ "$($RUN --dir "$STORE" tail tried --from-beginning --no-follow --json | grep -c '"a record"')" = 1 ]
$RUN --dir "$STORE" fsck >&2
$RUN --version"#;
    let said = output(command(work, "bash", ["-c", script]).env("RUN", runner(program, target)).env("STORE", &store))?;
    println!("{said}, {}: static; appended, read and checked a record", target.architecture);
    Ok(())
}

/// The man pages and the shells' completions, below `share/`.
fn write_pages(program: &Path, target: &Target, pages: &Path) -> Result<()> {
    let script = r#"set -euo pipefail
mkdir -p "$PAGES/man/man1" "$PAGES/bash-completion/completions" "$PAGES/zsh/vendor-completions" \
    "$PAGES/fish/vendor_completions.d"
$RUN man --out "$PAGES/man/man1"
$RUN completions bash >"$PAGES/bash-completion/completions/edgelog"
$RUN completions zsh >"$PAGES/zsh/vendor-completions/_edgelog"
$RUN completions fish >"$PAGES/fish/vendor_completions.d/edgelog.fish""#;
    let directory = program.parent().unwrap_or(program);
    run(command(directory, "bash", ["-c", script]).env("RUN", runner(program, target)).env("PAGES", pages))
}

/// How this machine runs it.
fn runner(program: &Path, target: &Target) -> String {
    let emulator = target.emulator.map_or(String::new(), |emulator| format!("{emulator} "));
    format!("{emulator}{}", program.display())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The workspace's version.
fn version_of(manifest: &str) -> Result<String> {
    let (_, package) = manifest.split_once("[workspace.package]\n").ok_or("Cargo.toml has no [workspace.package]")?;
    let line = package.lines().find_map(|line| line.strip_prefix("version = \"")).ok_or("Cargo.toml has no version")?;
    Ok(line.trim_end_matches('"').to_owned())
}

/// Names and sizes of the files in `directory`.
fn sizes(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for name in files(directory)? {
        let path = directory.join(&name);
        let size = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
        sizes.insert(name, size);
    }
    Ok(sizes)
}

/// The files in `directory` and below, in order.
fn files(directory: &Path) -> Result<Vec<String>> {
    let found = output(&mut command(directory, "find", [".", "-type", "f", "-printf", "%P\\n"]))?;
    let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
    files.sort();
    Ok(files)
}

/// Fails with the names of the files that differ.
fn same_bytes(one: &Path, other: &Path) -> Result<()> {
    let [first, second] = [one, other].map(|directory| read(&directory.join("SHA256SUMS")));
    let (first, second) = (first?, second?);
    let differ: Vec<_> = first.lines().zip(second.lines()).filter(|(a, b)| a != b).map(|(a, _)| a).collect();
    if differ.is_empty() && first.lines().count() == second.lines().count() {
        return Ok(());
    }
    Err(format!(
        "built twice, and not the same bytes; compare {} and {}:\n{}",
        one.display(),
        other.display(),
        differ.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Options> {
        Options::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_release_is_whole_and_a_snapshot_may_be_less() {
        let options = parsed(&["--only", "armv7", "--once"]).unwrap();
        assert!(options.once && options.version.is_none());
        assert_eq!(options.targets.iter().map(|target| target.debian).collect::<Vec<_>>(), ["armhf"]);
        assert_eq!(parsed(&["0.1.0"]).unwrap().targets.len(), 3);
        for (refused, word) in [
            (&["0.1.0", "--once"][..], "built twice"),
            (&["0.1.0", "--only", "armv7"], "all architectures"),
            (&["0.1.0", "0.2.0"], "one version"),
            (&["--only"], "needs an architecture"),
            (&["--twice"], "unknown option --twice"),
        ] {
            let error = parsed(refused).err().unwrap();
            assert!(error.contains(word), "{refused:?}: {error}");
        }
    }

    #[test]
    fn the_version_is_the_workspaces() {
        assert_eq!(
            version_of("[workspace.package]\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
            Ok("0.1.0".to_owned())
        );
        assert!(version_of("[package]\nversion = \"1.0.0\"\n").is_err());
    }
}
