//! The machines that a release is for.

use crate::command::Result;

/// One of them, by the names that Rust, Debian and people have for it.
pub(crate) struct Target {
    /// As in the names of the archives.
    pub(crate) architecture: &'static str,
    /// The command line's: static, with musl's C library.
    pub(crate) musl: &'static str,
    /// The C library's: for programs that link glibc.
    pub(crate) gnu: &'static str,
    /// Debian's word for the architecture.
    pub(crate) debian: &'static str,
    /// Links for `gnu`. None where this machine's own compiler does.
    pub(crate) linker: Option<&'static str>,
    /// Runs its programs here. None where this machine does.
    pub(crate) emulator: Option<&'static str>,
}

pub(crate) const ALL: [Target; 3] = [
    Target {
        architecture: "x86_64",
        musl: "x86_64-unknown-linux-musl",
        gnu: "x86_64-unknown-linux-gnu",
        debian: "amd64",
        linker: None,
        emulator: None,
    },
    Target {
        architecture: "aarch64",
        musl: "aarch64-unknown-linux-musl",
        gnu: "aarch64-unknown-linux-gnu",
        debian: "arm64",
        linker: Some("aarch64-linux-gnu-gcc"),
        emulator: Some("qemu-aarch64-static"),
    },
    Target {
        architecture: "armv7",
        musl: "armv7-unknown-linux-musleabihf",
        gnu: "armv7-unknown-linux-gnueabihf",
        debian: "armhf",
        linker: Some("arm-linux-gnueabihf-gcc"),
        emulator: Some("qemu-arm-static"),
    },
];

/// The target of that architecture.
pub(crate) fn named(architecture: &str) -> Result<&'static Target> {
    ALL.iter().find(|target| target.architecture == architecture).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|target| target.architecture).collect();
        format!("no architecture {architecture}; there are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_architecture_is_refused_with_those_that_there_are() {
        assert_eq!(named("armv7").map(|target| target.debian), Ok("armhf"));
        let refused = named("mips").map(|target| target.debian).unwrap_err();
        assert_eq!(refused, "no architecture mips; there are x86_64, aarch64, armv7");
    }
}
