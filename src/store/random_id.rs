//! Random identities.

use edgelog_core::LogId;

/// The identity of a new log: 128 bits from the standard library's per-map keys, which the system's random source
/// seeds.
pub(crate) fn random_id() -> LogId {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    LogId::from_random(id)
}
