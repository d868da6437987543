//! A row of the tables of keys that producers and consumers have.

/// A key of a producer or a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey {
    /// Its name.
    pub key: &'static str,
    /// Its value where no program sets it; empty where it has none.
    pub default: &'static str,
    /// What it does, in a sentence or two, with its unit.
    pub doc: &'static str,
}

pub(super) const fn key(key: &'static str, default: &'static str, doc: &'static str) -> ClientKey {
    ClientKey { key, default, doc }
}
