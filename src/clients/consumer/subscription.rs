//! What a consumer subscribes to.

use std::collections::BTreeSet;

use super::pattern::Pattern;

/// What a consumer reads.
#[derive(Debug)]
pub(super) enum Subscription {
    None,
    /// Partitions of its own choice.
    Assigned,
    /// Topics by name.
    Topics(BTreeSet<String>),
    /// Topics whose names a pattern fits.
    Pattern(Pattern),
}

impl Subscription {
    pub(super) fn is_to_topics(&self) -> bool {
        matches!(self, Subscription::Topics(_) | Subscription::Pattern(_))
    }
}
