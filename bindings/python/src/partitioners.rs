//! The partitioners that librdkafka has, as functions.

use edgelog::clients::Partitioner;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// How keys are hashed that the library's producer does not hash so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyHash {
    Consistent,
    Murmur2,
    Fnv1a,
    /// As `Fnv1a`; records without a key go anywhere.
    Fnv1aRandom,
}

impl KeyHash {
    pub(crate) fn named(name: &str) -> Option<KeyHash> {
        match name {
            "consistent" => Some(KeyHash::Consistent),
            "murmur2" => Some(KeyHash::Murmur2),
            "fnv1a" => Some(KeyHash::Fnv1a),
            "fnv1a_random" => Some(KeyHash::Fnv1aRandom),
            _ => None,
        }
    }

    /// The partition of `count` for this key; `None` where the key does not say.
    pub(crate) fn partition(self, key: Option<&[u8]>, count: u32) -> Option<u32> {
        let bytes = key.unwrap_or_default();
        match self {
            KeyHash::Fnv1aRandom if key.is_none() => None,
            // CRC-32 of nothing is 0.
            KeyHash::Consistent => Partitioner::ConsistentRandom.partition(bytes, count).or(Some(0)),
            KeyHash::Murmur2 => Partitioner::Murmur2.partition(bytes, count),
            KeyHash::Fnv1a | KeyHash::Fnv1aRandom => Some(fnv1a_hash(bytes) % count.max(1)),
        }
    }
}

/// FNV-1a of 32 bits, without its sign, as librdkafka has it: a negative number is made positive.
fn fnv1a_hash(bytes: &[u8]) -> u32 {
    let mut hash: u32 = 0x811C_9DC5;
    for byte in bytes {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    let signed = hash as i32;
    signed.unsigned_abs()
}

fn partition(key: &Bound<'_, PyAny>, count: i64, hash: KeyHash) -> PyResult<i64> {
    let Ok(key) = key.cast::<PyBytes>() else {
        let name = key.get_type().name()?;
        return Err(PyTypeError::new_err(format!("a bytes-like object is required, not '{name}'")));
    };
    if count <= 0 {
        return Err(PyValueError::new_err(format!("partition_count must be > 0, got {count}")));
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(hash.partition(Some(key.as_bytes()), count).map_or(0, i64::from))
}

/// The partition of a key by `MurmurHash2`, as Java's client has it.
#[pyfunction]
#[pyo3(signature = (key, partition_count, /))]
pub(crate) fn murmur2(key: &Bound<'_, PyAny>, partition_count: i64) -> PyResult<i64> {
    partition(key, partition_count, KeyHash::Murmur2)
}

/// The partition of a key by CRC-32.
#[pyfunction]
#[pyo3(signature = (key, partition_count, /))]
pub(crate) fn consistent(key: &Bound<'_, PyAny>, partition_count: i64) -> PyResult<i64> {
    partition(key, partition_count, KeyHash::Consistent)
}

/// The partition of a key by FNV-1a.
#[pyfunction]
#[pyo3(signature = (key, partition_count, /))]
pub(crate) fn fnv1a(key: &Bound<'_, PyAny>, partition_count: i64) -> PyResult<i64> {
    partition(key, partition_count, KeyHash::Fnv1a)
}
