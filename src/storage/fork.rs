//! Noticing, at the price of one load, that this is a forked child.

use std::process;

use super::mapped_file;

/// Remembers the process that it was made in.
///
/// It notices `fork`, as the C library does it, in every child and grandchild; not a bare `clone` system
/// call, which leaves the C library itself broken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForkGuard {
    /// Forks seen so far; in a child it is one more.
    forks: u32,
    /// The process id, to be asked for each time where forks cannot be counted.
    process: Option<u32>,
}

impl ForkGuard {
    /// Remembers this process.
    pub(crate) fn here() -> Self {
        let counted = mapped_file::count_forks();
        Self { forks: mapped_file::forks(), process: (!counted).then(process::id) }
    }

    /// Whether the caller runs in a forked child of the remembered process.
    #[inline]
    pub(crate) fn forked(&self) -> bool {
        mapped_file::forks() != self.forks || self.process.is_some_and(|process| process != process::id())
    }
}
