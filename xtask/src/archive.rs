//! Archives whose bytes depend on what is in them alone: names in order, one time, one owner.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Result, command, output, run};
use crate::target::Target;

/// A directory that becomes archives.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one.
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&root);
        make_directory(&root)?;
        Ok(Self { root })
    }

    /// Where `name` is in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Copies a file into it, with its mode.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let to = self.room_for(name)?;
        fs::copy(from, &to).map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))?;
        Ok(())
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let to = self.room_for(name)?;
        fs::write(&to, text).map_err(|error| format!("{}: {error}", to.display()))
    }

    fn room_for(&self, name: &str) -> Result<PathBuf> {
        let to = self.path(name);
        if let Some(directory) = to.parent() {
            make_directory(directory)?;
        }
        Ok(to)
    }

    /// `NAME.tar.gz` in `dist`, in which all stands below `NAME/`.
    pub(crate) fn tar(&self, dist: &Path, name: &str, time: &str) -> Result<()> {
        let archive = dist.join(format!("{name}.tar.gz"));
        let script = r#"set -euo pipefail
tar --sort=name --mtime="@$TIME" --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX --format=gnu \
    --transform="s,^\.,$NAME,S" -cf - -C "$TREE" . | gzip -9n >"$ARCHIVE""#;
        run(command(dist, "bash", ["-c", script])
            .env("TIME", time)
            .env("NAME", name)
            .env("TREE", &self.root)
            .env("ARCHIVE", archive))
    }

    /// Debian's package of it in `dist`.
    pub(crate) fn deb(&self, dist: &Path, version: &str, target: &Target, time: &str) -> Result<()> {
        let size = output(&mut command(&self.root, "du", ["-sk", "--apparent-size", "."]))?;
        let size = size.split_whitespace().next().unwrap_or("0").to_owned();
        self.write("DEBIAN/control", &control(version, target.debian, &size))?;
        // Modes are the archive's, and not this account's umask.
        run(&mut command(&self.root, "chmod", ["-R", "u+rw,go=rX", "."]))?;
        let name = format!("edgelog_{version}_{}.deb", target.debian);
        run(command(dist, "dpkg-deb", ["--root-owner-group", "-Zxz", "--build"])
            .arg(&self.root)
            .arg(dist.join(name))
            .env("SOURCE_DATE_EPOCH", time))
    }
}

/// It, and what is above it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// What dpkg knows of the package. The program is static: it depends on nothing.
fn control(version: &str, architecture: &str, kilobytes: &str) -> String {
    format!(
        "Package: edgelog\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: the edgelog authors\n\
         Installed-Size: {kilobytes}\n\
         Section: database\n\
         Priority: optional\n\
         Homepage: https://github.com/edgelog/edgelog\n\
         Description: Kafka's log on an edge device, from the command line\n \
         Records, reads, checks and repairs edgelog's topics, and sends them to a Kafka\n \
         cluster exactly once when the link is there. No broker, no JVM.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_long_description_begins_with_a_space() {
        let control = control("0.1.0", "arm64", "7400");
        assert!(control.contains("\nArchitecture: arm64\n") && control.contains("\nVersion: 0.1.0\n"), "{control}");
        let (_, description) = control.split_once("command line\n").unwrap();
        assert!(description.lines().all(|line| line.starts_with(' ') && line.len() <= 80), "{description}");
        assert!(control.ends_with(".\n"));
    }
}
